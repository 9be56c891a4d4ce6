"""Training: batches, the loop over them, its plan, checkpoints, threads."""
