"""Autoencoders as scikit-learn estimators."""

from skae.autoencoder import Autoencoder

__version__ = "0.1.0"

__all__ = ["Autoencoder"]
