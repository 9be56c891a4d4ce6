"""Creation of architectures from the parameters of estimators."""

import reprlib
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
"""Meaning of `hidden_layer_sizes="auto"`, except for narrow tables. For "conv", only as many
entries are used as the height and width can be halved."""

NARROW = 64
"""Largest number of columns of tables for which a variant may use other widths with "mlp". A column
of categories is one column, whatever its encoding. The widths do not depend on the number of
components, so that a network can grow."""


def make_architecture(
    architecture: str | ModulePair,
    n_columns: int,
    n_inputs: int,
    n_outputs: int,
    feature_shape: tuple[int, ...] | None,
    hidden_layer_sizes: Sequence[int] | str,
    narrow_widths: Sequence[int],
    activation: str,
    dropout: float,
) -> Architecture:
    """Create the architecture that the parameters of an estimator describe.

    `n_columns` is the number of modelled columns, `n_inputs` the length of the encoder's input,
    `n_outputs` that of the decoder's output, and `narrow_widths` is the meaning of
    `hidden_layer_sizes="auto"` for "mlp" and narrow tables.
    Raises ValueError if `feature_shape` or `hidden_layer_sizes` does not suit the architecture.
    """
    shape = feature_shape or (n_outputs,)
    kind = architecture if isinstance(architecture, str) else "mlp"
    if kind in AXES and (feature_shape is None or len(shape) != len(AXES[kind])):
        raise ValueError(
            f"architecture={kind!r} needs feature_shape=({', '.join(AXES[kind])}), "
            f"the shape of a row, got {reprlib.repr(feature_shape)}."
        )
    times = halvings(cast(Shape, shape)) if kind == "conv" else None
    if isinstance(hidden_layer_sizes, str):
        is_narrow = kind == "mlp" and n_columns <= NARROW
        widths = (narrow_widths if is_narrow else WIDTHS[kind])[:times]
    else:
        widths = tuple(hidden_layer_sizes)
    for width in widths:
        if not isinstance(width, Integral) or isinstance(width, bool) or width < 1:
            raise ValueError(
                "hidden_layer_sizes must hold positive integers, got "
                f"{reprlib.repr(hidden_layer_sizes)}."
            )
    if times is not None:
        if len(widths) > times:
            raise ValueError(
                f"feature_shape={shape}, n_features={n_outputs}, is too small for the "
                f"{len(widths)} stages of hidden_layer_sizes={widths}: each stage halves the "
                f"image, and this one can be halved {times} times."
            )
        return Convolutional(cast(Shape, shape), widths, activation, dropout)
    if kind == "recurrent":
        if not widths:
            raise ValueError(
                "architecture='recurrent' needs at least one hidden layer, got "
                "hidden_layer_sizes=()."
            )
        return Recurrent(cast(tuple[int, int], shape), widths, dropout)
    default = MLP(n_outputs, widths, activation, dropout, n_inputs)
    return (
        default
        if isinstance(architecture, str)
        else UserModules(architecture, feature_shape, default)
    )
