"""Which architecture parameters describe: the one place that knows all of them."""

import math
from collections.abc import Sequence
from numbers import Integral
from typing import cast

from skae.nn.body import Architecture
from skae.nn.convolution import Convolutional, Shape, halvings
from skae.nn.mlp import MLP
from skae.nn.modules import ModulePair, OwnModules
from skae.nn.recurrent import Recurrent

AXES = {
    "conv": ("channels", "height", "width"),
    "recurrent": ("time", "channels"),
}
"""What the axes of a row are to the architectures that know any."""

WIDTHS = {"mlp": (256, 128), "conv": (16, 32), "recurrent": (64,)}
"""Hidden layers' sizes where "auto" leaves them to the package."""


def takes_gaps(architecture: str | ModulePair) -> bool:
    """Whether an architecture reads rows some of whose last cells are missing."""
    return architecture == "recurrent"


def full_shape(feature_shape: Sequence[int] | None, n_features: int) -> tuple[int, ...]:
    """The shape of a row, any -1 in it replaced by what the number of columns leaves.

    None is a row without axes. Raises ValueError where there is no such shape.
    """
    if feature_shape is None:
        return (n_features,)
    wrong = [
        size
        for size in feature_shape
        if not isinstance(size, Integral) or isinstance(size, bool) or (size < 1 and size != -1)
    ]
    if wrong or not feature_shape or list(feature_shape).count(-1) > 1:
        raise ValueError(
            "feature_shape must hold positive integers, at most one of them -1 for what the number "
            f"of columns leaves, got {feature_shape!r}."
        )
    known = math.prod(size for size in feature_shape if size != -1)
    shape = tuple(n_features // known if size == -1 else int(size) for size in feature_shape)
    if math.prod(shape) != n_features:
        raise ValueError(
            f"feature_shape={tuple(feature_shape)} is for rows of "
            f"{known}{' times any number of' if -1 in feature_shape else ''} cells, but X has "
            f"{n_features} columns."
        )
    return shape


def make_architecture(
    architecture: str | ModulePair,
    n_features: int,
    feature_shape: Sequence[int] | None,
    hidden_layer_sizes: Sequence[int] | str,
    activation: str,
    dropout: float,
) -> Architecture:
    """The architecture for rows of a number of cells, whose parameters are the estimators'.

    Raises ValueError where these do not go together.
    """
    shape = full_shape(feature_shape, n_features)
    if not isinstance(architecture, str):
        return OwnModules(architecture, shape)
    if architecture in AXES and (feature_shape is None or len(shape) != len(AXES[architecture])):
        raise ValueError(
            f"architecture={architecture!r} needs feature_shape=({', '.join(AXES[architecture])}), "
            f"the shape of a row, got {feature_shape!r}."
        )
    if isinstance(hidden_layer_sizes, str):
        widths = WIDTHS[architecture]
        if architecture == "conv":
            widths = widths[: halvings(cast(Shape, shape))]
    else:
        widths = tuple(hidden_layer_sizes)
    for width in widths:
        if not isinstance(width, Integral) or isinstance(width, bool) or width < 1:
            raise ValueError(
                f"hidden_layer_sizes must hold positive integers, got {hidden_layer_sizes!r}."
            )
    if architecture == "conv":
        times = halvings(cast(Shape, shape))
        if len(widths) > times:
            raise ValueError(
                f"feature_shape={shape}, n_features={n_features}, is too small for the "
                f"{len(widths)} stages of hidden_layer_sizes={widths}: each halves an image, and "
                f"this one can be halved {times} times."
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
