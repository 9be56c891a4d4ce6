"""Creation of architectures from the parameters of estimators."""

from collections.abc import Sequence
from numbers import Integral
from typing import cast

from skae.nn.bodies.body import Architecture
from skae.nn.bodies.convolution import Convolutional, Shape, halvings
from skae.nn.bodies.mlp import MLP
from skae.nn.bodies.modules import ModulePair, UserModules
from skae.nn.bodies.recurrent import Recurrent

AXES = {"conv": ("channels", "height", "width"), "recurrent": ("time", "channels")}
"""Axes of `feature_shape`, for the architectures that need it."""

WIDTHS = {"mlp": (256, 128), "conv": (16, 32), "recurrent": (64,)}
"""Meaning of `hidden_layer_sizes="auto"`. For "conv", only as many entries are used as the height
and width can be halved."""


def make_architecture(
    architecture: str | ModulePair,
    n_features: int,
    feature_shape: tuple[int, ...] | None,
    hidden_layer_sizes: Sequence[int] | str,
    activation: str,
    dropout: float,
) -> Architecture:
    """Create the architecture that the parameters of an estimator describe.

    Raises ValueError if `feature_shape` or `hidden_layer_sizes` does not suit the architecture.
    """
    shape = feature_shape or (n_features,)
    if not isinstance(architecture, str):
        return UserModules(architecture, shape)
    if architecture in AXES and (feature_shape is None or len(shape) != len(AXES[architecture])):
        raise ValueError(
            f"architecture={architecture!r} needs feature_shape=({', '.join(AXES[architecture])}), "
            f"the shape of a row, got {feature_shape!r}."
        )
    times = halvings(cast(Shape, shape)) if architecture == "conv" else None
    if isinstance(hidden_layer_sizes, str):
        widths = WIDTHS[architecture][:times]
    else:
        widths = tuple(hidden_layer_sizes)
    for width in widths:
        if not isinstance(width, Integral) or isinstance(width, bool) or width < 1:
            raise ValueError(
                f"hidden_layer_sizes must hold positive integers, got {hidden_layer_sizes!r}."
            )
    if times is not None:
        if len(widths) > times:
            raise ValueError(
                f"feature_shape={shape}, n_features={n_features}, is too small for the "
                f"{len(widths)} stages of hidden_layer_sizes={widths}: each stage halves the "
                f"image, and this one can be halved {times} times."
            )
        return Convolutional(cast(Shape, shape), widths, activation, dropout)
    if architecture == "recurrent":
        if not widths:
            raise ValueError(
                "architecture='recurrent' needs at least one hidden layer, got "
                "hidden_layer_sizes=()."
            )
        return Recurrent(cast(tuple[int, int], shape), widths, dropout)
    return MLP(n_features, widths, activation, dropout)
