"""The components of a trained model: their order, their variances and their shares."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skae.fitting.prepare import PreparedFit
from skae.nn.batch import Batch
from skae.nn.network import Network
from skae.nn.rotation import can_rotate, rotate
from skae.table.components import Components
from skae.table.rows import Floats
from skae.training.loop import Net
from skae.training.tensors import make_batch

BLOCK_ROWS = 2048
"""Largest number of rows that are encoded and decoded at once."""

SHARE_COST = 3e9
LEAST_ROWS = 256
"""Approximate number of multiplications for the shares of components, which is not exceeded unless
fewer than `LEAST_ROWS` rows would be used."""

ROUNDING = 1e-6
"""Standard deviation of a component, relative to the largest one, that rounding errors may cause.
Whitening leaves such components unchanged."""


@torch.no_grad()
def find_components(
    prepared: PreparedFit, net: Net, whiten: bool, kept: Components | None, orders: bool = True
) -> Components:
    """Describe the components of a trained net, and order those of a new net by importance.

    If the axes of the codes are free, the codes are rotated to the principal axes of the codes of
    all rows, so that components are uncorrelated. They are then ordered by the share of the
    variance of the rows that is no longer explained if they are set to their mean. The encoder and
    the decoder are rotated together with the state of the optimizer. Reconstructions and the
    density of rows stay the same.

    Parameters
    ----------
    prepared : PreparedFit
        The rows.
    net : Net
        The net, whose network may be changed in place.
    whiten : bool
        Whether users see codes of unit variance.
    kept : Components or None
        Components of the model from which training has resumed, whose axes and units are kept. They
        may be fewer than those of the net. None for a new net.
    orders : bool
        Whether the components of a new net are ordered.

    Returns
    -------
    components : Components
    """
    network: Network = net.module_.eval()
    split, is_free = prepared.split, network.latent.has_free_axes
    # Validation rows that the user has chosen are not among the rows of the model.
    index, weight = split.index, split.weight
    if split.is_given:
        index, weight = split.training, weight[~split.held_out]
    mean, covariance = _code_moments(network, prepared, index, weight)
    k = len(mean)
    axes = torch.eye(k, dtype=mean.dtype)
    rotates = orders and kept is None and can_rotate(network)
    if rotates:
        axes = torch.linalg.eigh(covariance)[1].flip(1)
        # The sign of a component is that of the initial component that it resembles most.
        axes *= axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    if len(index) * _share_cost(network) > SHARE_COST:
        n_rows = max(LEAST_ROWS, int(SHARE_COST / _share_cost(network)))
        chosen = prepared.split.representatives[:n_rows]
        shares = _shares(network, prepared, split.index[chosen], split.weight[chosen], mean, axes)
    else:
        shares = _shares(network, prepared, index, weight, mean, axes)
    if rotates:
        order = shares.argsort(descending=True, stable=True)
        axes, shares = axes[:, order], shares[order]
        rotate(network, axes, net.optimizer_.state)
        mean = mean @ axes
    unit = float(network.inputs.scale) if is_free else 1.0
    components = Components.plain(k, unit) if kept is None else kept.extended(k)
    deviation = (axes * (covariance @ axes)).sum(0).clamp_min(0).sqrt().numpy()
    deviation *= components.unit
    if kept is None and is_free:
        components = replace(components, offset=mean.numpy())
    if not whiten:
        components = replace(components, deviation=np.ones(k))
    elif not components.is_whitened:
        is_constant = deviation <= ROUNDING * deviation.max()
        components = replace(components, deviation=np.where(is_constant, 1.0, deviation))
    return replace(components, variance=deviation**2, share=shares.numpy())


def _batches(
    network: Network, prepared: PreparedFit, index: NDArray[np.intp], weight: Floats
) -> Iterator[Batch]:
    """Iterate over rows of the table at an index, with their weights."""
    for start in range(0, len(index), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        yield make_batch(prepared.rows.take(index[block]), network, weight[block])


def _code_moments(
    network: Network, prepared: PreparedFit, index: NDArray[np.intp], weight: Floats
) -> tuple[Tensor, Tensor]:
    """Compute the mean (k,) and the covariance (k, k) of codes, in float64 on the CPU.

    Bessel's correction applies if the total weight is at least 2, as in PCA.
    """
    total = float(weight.sum())
    shift, first, second = torch.zeros(()), torch.zeros(()), torch.zeros(())
    for i, batch in enumerate(_batches(network, prepared, index, weight)):
        z = network.encode(batch).mean.cpu().double()
        share = batch.weight.cpu().double() / total
        if i == 0:
            # Squares of differences from a value near the mean lose few digits.
            shift = z.mean(0)
        centered = z - shift
        first = first + share @ centered
        second = second + (centered.mT * share) @ centered
    bessel = total / (total - 1) if total >= 2 else 1.0
    return shift + first, bessel * (second - torch.outer(first, first))


def _share_cost(network: Network) -> int:
    """Return the approximate number of multiplications for the shares of components, per row."""
    return (1 + network.latent.n_outputs) * sum(p.numel() for p in network.decoder.parameters())


def _shares(
    network: Network,
    prepared: PreparedFit,
    index: NDArray[np.intp],
    weight: Floats,
    mean: Tensor,
    axes: Tensor,
) -> Tensor:
    """Compute the share (k,) of the variance of rows that is explained by each axis of the codes.

    It is the share that is no longer explained if the coordinate of the codes along the axis is
    that of the mean code.
    """
    errors = torch.zeros(1 + len(mean), dtype=torch.float64)
    sums = torch.zeros(3, network.inputs.n_outputs, dtype=torch.float64)
    mean, axes = mean.to(network.like), axes.to(network.like)
    for batch in _batches(network, prepared, index, weight):
        x, z = network.inputs.modelled(batch).x, network.encode(batch).mean
        row_weight = batch.weight.cpu().double()
        for j, axis in enumerate([None, *axes.mT]):
            code = z if axis is None else z - ((z - mean) @ axis)[:, None] * axis
            difference = x - network.likelihood.mean(network.outputs(code, batch))
            squares = difference.nan_to_num().cpu().double().square()
            errors[j] += row_weight @ squares.sum(-1)
        shifted = (x - network.inputs.center).cpu().double()
        powers = (~shifted.isnan()).double(), shifted.nan_to_num(), shifted.nan_to_num().square()
        sums += torch.stack([row_weight @ power for power in powers])
    total = (sums[2] - sums[1].square() / sums[0].clamp_min(1e-300)).sum()
    return (errors[1:] - errors[0]) / total if total > 0 else torch.zeros_like(errors[1:])
