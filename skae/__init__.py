"""Autoencoders as scikit-learn estimators."""

from skae.adversarial import AdversarialAutoencoder
from skae.autoencoder import Autoencoder
from skae.conditional import ConditionalVariationalAutoencoder
from skae.contractive import ContractiveAutoencoder
from skae.denoising import DenoisingAutoencoder
from skae.fair import FairAutoencoder
from skae.outlier import AutoencoderOutlierDetector
from skae.persistence import load
from skae.quantized import VectorQuantizedAutoencoder
from skae.semisupervised import SemiSupervisedVariationalAutoencoder
from skae.sparse import SparseAutoencoder
from skae.supervised import AutoencoderClassifier, AutoencoderRegressor
from skae.training import Checkpoint
from skae.variational import VariationalAutoencoder
from skae.wasserstein import WassersteinAutoencoder

__version__ = "0.1.0"

__all__ = [
    "AdversarialAutoencoder",
    "Autoencoder",
    "AutoencoderClassifier",
    "AutoencoderOutlierDetector",
    "AutoencoderRegressor",
    "Checkpoint",
    "ConditionalVariationalAutoencoder",
    "ContractiveAutoencoder",
    "DenoisingAutoencoder",
    "FairAutoencoder",
    "SemiSupervisedVariationalAutoencoder",
    "SparseAutoencoder",
    "VariationalAutoencoder",
    "VectorQuantizedAutoencoder",
    "WassersteinAutoencoder",
    "load",
]
