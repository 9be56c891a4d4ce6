"""Densities: log p(x) of a fitted autoencoder, the code integrated out."""
