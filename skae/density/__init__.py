"""Densities of rows, log p(x), under a fitted autoencoder: they integrate over the codes."""
