"""Checkpoints on disk: where they come from, what is in them, how they are read and written."""
