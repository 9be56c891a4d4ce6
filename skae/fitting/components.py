"""The components of a trained model: their order, their variances and their shares."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import gen_batches
from torch import Tensor

from skae.fitting.prepare import PreparedFit
from skae.nn.batch import Batch
from skae.nn.network import Network
from skae.nn.rotation import can_rotate, rotate
from skae.table.components import Components
from skae.table.rows import Floats, Rows
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
    is_free = network.latent.has_free_axes
    # Validation rows that the user has chosen are not among the rows of the model.
    split = prepared.split.training_part() if prepared.split.is_given else prepared.split
    rows = _Rows(network, prepared.rows, split.index, split.weight)
    mean, covariance = _code_moments(rows)
    k = len(mean)
    axes = torch.eye(k, dtype=mean.dtype)
    rotates = orders and kept is None and can_rotate(network)
    if rotates:
        axes = torch.linalg.eigh(covariance)[1].flip(1)
        # The sign of a component is that of the initial component that it resembles most.
        axes *= axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    if network.decoder.is_linear and network.likelihood.is_linear:
        lost = _lost_if_linear(rows, mean, axes)
    else:
        cost = (1 + k) * sum(p.numel() for p in network.decoder.parameters())
        if len(split.index) * cost > SHARE_COST:
            chosen = split.representatives[: max(LEAST_ROWS, int(SHARE_COST / cost))]
            rows = replace(rows, index=split.index[chosen], weight=split.weight[chosen])
        lost = _lost(rows, mean, axes)
    total = _total_variance(rows)
    shares = lost / total if total > 0 else torch.zeros_like(lost)
    if rotates:
        order = shares.argsort(descending=True, stable=True)
        axes, shares = axes[:, order], shares[order]
        rotate(network, axes, net.optimizer_.state)
        mean = mean @ axes
    deviation = (axes * (covariance @ axes)).sum(0).clamp_min(0).sqrt().numpy()
    components = Components.plain(k)
    if is_free:
        own_unit = 1.0 if network.inputs.has_own_scales else float(network.inputs.scale)
        unit = own_unit if kept is None else kept.unit
        is_constant = deviation <= ROUNDING * deviation.max()
        scale = np.where(is_constant, 1.0, unit * deviation)
        found = Components(unit, mean.numpy(), scale, is_ordered=rotates)
        components = found if kept is None else kept.extended(found)
    variance = (components.unit * deviation) ** 2
    return replace(components, is_whitened=whiten, variance=variance, share=shares.numpy())


@dataclass(frozen=True)
class _Rows:
    """Rows of a table, in batches for a network.

    Attributes
    ----------
    network : Network
    table : Rows
        The table.
    index : ndarray of shape (n,)
        Indices of the rows in the table.
    weight : ndarray of shape (n,)
        Weights of the rows. The results of the functions below are sums with weights that add up
        to 1.
    """

    network: Network
    table: Rows
    index: NDArray[np.intp]
    weight: Floats

    def batches(self) -> Iterator[tuple[Batch, Tensor]]:
        """Iterate over batches, with the weights of their rows in float64."""
        share = self.weight / self.weight.sum()
        for block in gen_batches(len(self.index), BLOCK_ROWS):
            batch = make_batch(self.table.take(self.index[block]), self.network)
            yield batch, torch.from_numpy(share[block])

    def __iter__(self) -> Iterator[tuple[Batch, Tensor, Tensor]]:
        """Iterate over batches, with the codes of their rows, and their weights in float64."""
        for batch, weight in self.batches():
            yield batch, self.network.encode(batch).mean, weight

    def residuals(self, batch: Batch, z: Tensor) -> Tensor:
        """Return rows minus those that codes are decoded to, 0 for missing cells, in float64.

        They are encoded, and they have the unit of `Inputs`.
        """
        rows = self.network.likelihood.expected(self.network.outputs(z, batch))
        return self.shifted(batch, rows)

    def shifted(self, batch: Batch, start: Tensor) -> Tensor:
        """Return encoded rows minus `start`, 0 for missing cells, in float64."""
        inputs, rows = self.network.inputs, self.network.inputs.modelled(batch)
        shifted = (inputs.encoding(rows.x) - start) / inputs.unit
        if rows.observed is not None:
            shifted = torch.where(inputs.encoding.spread(rows.observed), shifted, 0.0)
        return _exact(shifted)


def _exact(values: Tensor) -> Tensor:
    return values.cpu().double()


def _code_moments(rows: _Rows) -> tuple[Tensor, Tensor]:
    """Compute the mean (k,) and the covariance (k, k) of codes, in float64 on the CPU.

    Bessel's correction applies if the total weight is at least 2, as in PCA.
    """
    shift, first, second = None, torch.zeros(()), torch.zeros(())
    for _, z, weight in rows:
        codes = _exact(z)
        # Squares of differences from a value near the mean lose few digits.
        shift = codes.mean(0) if shift is None else shift
        centered = codes - shift
        first = first + weight @ centered
        second = second + (centered.mT * weight) @ centered
    assert shift is not None
    total = float(rows.weight.sum())
    bessel = total / (total - 1) if total >= 2 else 1.0
    return shift + first, bessel * (second - torch.outer(first, first))


def _total_variance(rows: _Rows) -> float:
    """Compute the sum of the variances of columns, from observed cells."""
    inputs = rows.network.inputs
    sums = torch.zeros(3, inputs.n_encoded, dtype=torch.float64)
    for batch, weight in rows.batches():
        cells, observed = rows.shifted(batch, inputs.center), inputs.modelled(batch).observed
        known = torch.ones_like(cells)
        if observed is not None:
            known = inputs.encoding.spread(observed).cpu().double()
        sums += torch.stack([weight @ part for part in (known, cells, cells.square())])
    return float((sums[2] - sums[1].square() / sums[0].clamp_min(1e-300)).sum())


def _lost(rows: _Rows, mean: Tensor, axes: Tensor) -> Tensor:
    """Compute how much larger the squared error is without each axis (k,) of the codes.

    The coordinate of codes along the axis is then that of the mean code.
    """
    errors = torch.zeros(1 + len(mean), dtype=torch.float64)
    for batch, z, weight in rows:
        centered, directions = z - mean.to(z), axes.mT.to(z)
        for j, axis in enumerate([torch.zeros_like(mean).to(z), *directions]):
            without = z - (centered @ axis)[:, None] * axis
            errors[j] += weight @ rows.residuals(batch, without).square().sum(-1)
    return errors[1:] - errors[0]


def _column(unit: Tensor | float) -> Tensor | float:
    return unit[:, None] if isinstance(unit, Tensor) else unit


def _lost_if_linear(rows: _Rows, mean: Tensor, axes: Tensor) -> Tensor:
    """Compute the result of `_lost` for a linear decoder, without decoding once for each axis."""
    scatter, product = torch.zeros(()), torch.zeros(())
    for batch, z, weight in rows:
        weighted = (_exact(z) - mean).mT * weight
        scatter = scatter + weighted @ (_exact(z) - mean)
        product = product + weighted @ rows.residuals(batch, z)
    # The derivatives of a linear decoder are the same for all rows.
    jacobian = rows.network.mean_jacobian(z[:1], batch.map(lambda part: part[:1]))
    matrix = axes.mT @ _exact(jacobian[0] / _column(rows.network.inputs.unit)).mT
    along = (axes * (scatter @ axes)).sum(0)
    return along * matrix.square().sum(1) + 2 * ((axes.mT @ product) * matrix).sum(1)
