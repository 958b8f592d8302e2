"""From one job to its record: the Method contract, the training loop, selection, prediction, the probe."""
