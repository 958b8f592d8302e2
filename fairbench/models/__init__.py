"""Backbones: the contract, Hugging Face families, checkpoints, adapters, pooling, generation."""
