"""Datasets: the contract, images and DICOM, splits, inspection, and what is reported of them before training."""
