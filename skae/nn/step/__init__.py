"""Steps: loss and gradients of a batch, traced once and replayed."""
