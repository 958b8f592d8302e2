"""Bundled plugins: each reaches fairbench through an entry point, exactly as a third party's does."""
