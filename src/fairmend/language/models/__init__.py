"""Language models in memory: loaded, proven, run in batches."""
