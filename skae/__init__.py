"""Autoencoders as scikit-learn estimators."""

from skae import metrics
from skae.adversarial import AdversarialAutoencoder
from skae.autoencoder import Autoencoder
from skae.conditional import ConditionalVariationalAutoencoder
from skae.contractive import ContractiveAutoencoder
from skae.denoising import DenoisingAutoencoder
from skae.fair import FairAutoencoder
from skae.model_selection import ComponentsPath, components_path
from skae.outlier import AutoencoderOutlierDetector
from skae.persistence import load
from skae.plotting import (
    CodeSpaceDisplay,
    ComponentsPathDisplay,
    LossCurveDisplay,
    OutlierExplanationDisplay,
    ReconstructionDisplay,
    TraversalDisplay,
)
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
    "CodeSpaceDisplay",
    "ComponentsPath",
    "ComponentsPathDisplay",
    "ConditionalVariationalAutoencoder",
    "ContractiveAutoencoder",
    "DenoisingAutoencoder",
    "FairAutoencoder",
    "LossCurveDisplay",
    "OutlierExplanationDisplay",
    "ReconstructionDisplay",
    "SemiSupervisedVariationalAutoencoder",
    "SparseAutoencoder",
    "TraversalDisplay",
    "VariationalAutoencoder",
    "VectorQuantizedAutoencoder",
    "WassersteinAutoencoder",
    "components_path",
    "load",
    "metrics",
]
