"""Autoencoders as scikit-learn estimators."""

from skae import metrics
from skae.inspection.codes import LatentSpaceDisplay, ReconstructionDisplay, TraversalDisplay
from skae.inspection.components import (
    AttributionDisplay,
    BiplotDisplay,
    ComponentImportanceDisplay,
)
from skae.inspection.reports import (
    ComponentsPathDisplay,
    LossCurveDisplay,
    OutlierExplanationDisplay,
)
from skae.model_selection import ComponentsPath, components_path
from skae.state import load
from skae.table.categories import Categories
from skae.tasks.classifier import AutoencoderClassifier
from skae.tasks.features import AutoencoderFeatures
from skae.tasks.imputer import AutoencoderImputer
from skae.tasks.outlier import AutoencoderOutlierDetector
from skae.tasks.regressor import AutoencoderRegressor
from skae.training.checkpoint import Checkpoint
from skae.variants.adversarial import AdversarialAutoencoder
from skae.variants.autoencoder import Autoencoder
from skae.variants.conditional import ConditionalVariationalAutoencoder
from skae.variants.contractive import ContractiveAutoencoder
from skae.variants.denoising import DenoisingAutoencoder
from skae.variants.fair import FairAutoencoder
from skae.variants.quantized import VectorQuantizedAutoencoder
from skae.variants.semisupervised import SemiSupervisedVariationalAutoencoder
from skae.variants.sparse import SparseAutoencoder
from skae.variants.variational import VariationalAutoencoder
from skae.variants.wasserstein import WassersteinAutoencoder

__version__ = "0.1.0"

__all__ = [
    "AdversarialAutoencoder",
    "AttributionDisplay",
    "Autoencoder",
    "AutoencoderClassifier",
    "AutoencoderFeatures",
    "AutoencoderImputer",
    "AutoencoderOutlierDetector",
    "AutoencoderRegressor",
    "BiplotDisplay",
    "Categories",
    "Checkpoint",
    "ComponentImportanceDisplay",
    "ComponentsPath",
    "ComponentsPathDisplay",
    "ConditionalVariationalAutoencoder",
    "ContractiveAutoencoder",
    "DenoisingAutoencoder",
    "FairAutoencoder",
    "LatentSpaceDisplay",
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
