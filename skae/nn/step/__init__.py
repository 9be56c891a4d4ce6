"""Training steps: tracing and replaying of loss and gradients, and the optimizer."""
