"""Autoencoders as scikit-learn estimators."""

from skae.autoencoder import Autoencoder
from skae.persistence import load
from skae.training import Checkpoint

__version__ = "0.1.0"

__all__ = ["Autoencoder", "Checkpoint", "load"]
