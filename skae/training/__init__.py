"""Training: splits, batches, the training loop and its stopping rules, checkpoints, threads."""
