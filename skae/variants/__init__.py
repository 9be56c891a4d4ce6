"""Variants: one file each, mostly a latent and the estimator that states its parameters."""
