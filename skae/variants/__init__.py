"""Variants of autoencoders. Most files contain an estimator and the latent that it makes."""
