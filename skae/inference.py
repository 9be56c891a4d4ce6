"""What a fitted model says of rows and codes, block by block."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skae.nn.batch import Batch
from skae.nn.draws import Draws
from skae.nn.network import Network
from skae.state import Fitted
from skae.table.rows import Floats, Rows
from skae.training.tensors import make_batch, tensor, to_float64_device
from skae.training.threads import one_thread

BLOCK = 2048
"""Rows that inference handles at once: larger blocks leave the processor's cache."""


def map_rows(
    function: Callable[[Batch], Tensor],
    rows: Rows,
    fitted: Fitted,
    dtype: Any = None,
    network: Network | None = None,
) -> Floats:
    """Apply a function of batches to rows, block by block.

    The batches have the dtype and the device of `network`, which is the fitted one by default. The
    result has `dtype`, by default that of the rows. Raises ValueError where it is not finite.
    """
    like = network or fitted.network
    result = _in_blocks(lambda block: function(make_batch(block, like)), rows)
    return _finite(result, rows.values, dtype, lambda j: f"{fitted.schema.column_index(j)} of X")


def codes(rows: Rows, fitted: Fitted) -> Floats:
    """Codes (n, k) of rows, in their dtype."""
    return map_rows(lambda batch: fitted.network.encode(batch).mean, rows, fitted)


def map_codes(
    function: Callable[[Tensor], Tensor],
    Z: Floats,
    conditions: Floats | None,
    fitted: Fitted,
    network: Network,
    name: str = "X",
) -> Floats:
    """Apply a function to the decoder's outputs for codes under conditions, block by block.

    The result has the codes' dtype. Raises ValueError where it is not finite; the message calls the
    codes by `name`.
    """
    if conditions is None:
        conditions = np.zeros((len(Z), 0))
    # Rows whose modelled cells are blank carry the conditions; without any, nothing reads them.
    n_levels = fitted.schema.n_levels
    blank = len(fitted.schema.modelled) if n_levels else 0

    def block(rows: Rows) -> Tensor:
        z, cells = rows.values[:, : Z.shape[1]], rows.values[:, Z.shape[1] :]
        values = np.hstack([np.zeros((len(z), blank), Z.dtype), cells])
        batch = make_batch(Rows(values, n_levels), network)
        return function(network.outputs(tensor(z, network), batch))

    both = np.hstack([Z, conditions.astype(Z.dtype)]) if conditions.shape[1] else Z
    result = _in_blocks(block, Rows(both))
    return _finite(result, both, None, lambda j: f"{j} of {name}")


def decode(Z: Floats, conditions: Floats | None, fitted: Fitted) -> Floats:
    """Expected rows of codes, in the user's columns."""
    network = fitted.network
    cells = map_codes(network.likelihood.mean, Z, conditions, fitted, network)
    return fitted.schema.write(cells, conditions)


def reconstructions(rows: Rows, fitted: Fitted) -> Floats:
    """Rows as they come back from their codes, in the user's columns."""
    network = fitted.network
    cells = map_rows(lambda batch: network.likelihood.mean(network.restored(batch)), rows, fitted)
    return fitted.schema.write(cells, rows.conditions)


def errors(rows: Rows, fitted: Fitted, per_feature: bool) -> Floats:
    """Errors of rows, or of cells in the user's columns."""
    network = fitted.network

    def error(batch: Batch) -> Tensor:
        rows = network.inputs.modelled(batch)
        cells = network.likelihood.deviance(rows, network.restored(batch))
        return cells if per_feature else cells.sum(-1)

    result = map_rows(error, rows, fitted, np.float64)
    return fitted.schema.write(result) if per_feature else result


def evaluate_density(question: str, rows: Rows, fitted: Fitted, *arguments: object) -> Floats:
    """Call a method of the density for rows."""
    network, answer = to_float64_device(fitted.network), getattr(fitted.density, question)
    return map_rows(
        lambda batch: answer(network, batch, *arguments), rows, fitted, np.float64, network
    )


def draw_rows(
    n: int,
    mean: bool,
    seed: int,
    conditions: Floats | None,
    fitted: Fitted,
) -> Floats:
    """Rows from the model in the user's columns, under conditions, or those of training rows."""
    network, density = to_float64_device(fitted.network), fitted.density
    generator = torch.Generator(network.like.device).manual_seed(seed)
    draws = Draws(generator, network.like.dtype)
    try:
        Z = density.draw_codes(network, n, draws).cpu().numpy()
    except (RuntimeError, TypeError, OverflowError) as error:
        raise ValueError(f"n_samples={n} rows do not fit into memory.") from error
    if conditions is None and fitted.conditions is not None:
        conditions = fitted.conditions.draw(draws.uniform((n,)).cpu().numpy())

    def draw(out: Tensor) -> Tensor:
        return density.likelihood.mean(out) if mean else density.likelihood.sample(out, draws)

    cells = map_codes(draw, Z, conditions, fitted, network, "the drawn codes")
    return fitted.schema.write(cells, conditions)


def _in_blocks(function: Callable[[Rows], Tensor], rows: Rows) -> Floats:
    with torch.inference_mode(False), torch.no_grad(), one_thread:
        blocks = [function(block).cpu().numpy() for block in rows.blocks(BLOCK)]
    return np.concatenate(blocks)


def _finite(result: Floats, source: Floats, dtype: Any, describe: Callable[[int], str]) -> Floats:
    """A result in a dtype, by default that of what it was computed from; ValueError if it broke."""
    result = result.astype(dtype or source.dtype, copy=False)
    if not np.isfinite(result).all():
        row = int(np.argmin(np.isfinite(result.reshape(len(source), -1)).all(axis=1)))
        column = int(np.nanargmax(np.abs(source[row])))
        raise ValueError(
            f"Column {describe(column)} holds {source[row, column]:g} in row {row}, too far from "
            "the training rows to compute with. Leave the row out, clip it, or fit with "
            "precision='float64'."
        )
    return result
