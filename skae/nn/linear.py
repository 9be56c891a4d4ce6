"""Weighted principal axes of a table: where every model with a linear skip starts."""

from typing import NamedTuple

import torch
from torch import Tensor

EXACT_UP_TO = 2048
"""Larger of rows and columns' smaller count for which all axes are computed exactly."""


CHUNK_CELLS = 2**18
"""Cells copied at once: their float64 copies stay in the processor's cache."""


SMALLEST_VARIANCE = 1e-280
"""Columns that vary less are constant: shares of their variance would not be numbers."""


class Moments(NamedTuple):
    """Weighted moments of a table's columns."""

    center: Tensor
    variance: Tensor
    scale: Tensor


def moments(x: Tensor, weight: Tensor) -> Moments:
    """Column means, column variances and the global scale, in float64, chunk by chunk.

    The global scale is the root of the mean variance; 1 where all rows are equal.
    """
    share = weight.double() / weight.double().sum()
    blocks = _blocks(x)
    center = torch.zeros(x.shape[1], dtype=torch.float64, device=x.device)
    variance = torch.zeros_like(center)
    for block in blocks:
        center += share[block] @ x[block].double()
    for block in blocks:
        variance += share[block] @ (x[block].double() - center) ** 2
    # What is left of a constant column after rounding is not variance, nor is what underflows.
    floor = ((1e-14 * center) ** 2).clamp_min(SMALLEST_VARIANCE)
    variance = torch.where(variance > floor, variance, 0.0)
    scale = variance.mean().sqrt()
    return Moments(center, variance, torch.where(scale > 0, scale, 1.0))


def principal_axes(
    x: Tensor, weight: Tensor, at: Moments, n_axes: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Leading eigenvalues (r,) and orthonormal axes (n_features, r), r <= n_axes, of x / scale.

    The sign makes each axis' largest entry positive. Exact while rows or columns are at most
    `EXACT_UP_TO`, by subspace iteration beyond (Halko et al. 2011).
    """
    n, d = x.shape
    share = (weight.double() / weight.double().sum()).sqrt()

    def rows(block: slice) -> Tensor:
        return (x[block].double() - at.center) / at.scale * share[block, None]

    blocks = _blocks(x)
    if d <= EXACT_UP_TO:
        gram = torch.zeros(d, d, dtype=torch.float64, device=x.device)
        for block in blocks:
            u = rows(block)
            gram.addmm_(u.mT, u)
        values, axes = torch.linalg.eigh(gram)
    elif n <= EXACT_UP_TO:
        u = torch.cat([rows(block) for block in blocks])
        values, left = torch.linalg.eigh(u @ u.mT)
        axes = u.mT @ left / values.clamp_min(torch.finfo(u.dtype).tiny).sqrt()
    else:
        width = min(n_axes + 10, d)
        axes = torch.randn(d, width, generator=generator, dtype=torch.float64).to(x.device)
        for _ in range(8):
            axes = torch.linalg.qr(axes)[0]
            image = [rows(block).mT @ (rows(block) @ axes) for block in blocks]
            projected, axes = axes, torch.stack(image).sum(0)
        values, rotation = torch.linalg.eigh(projected.mT @ axes)
        axes = projected @ rotation
    values, axes = values.flip(0)[:n_axes], axes.flip(1)[:, :n_axes]
    keep = values > values[:1] * max(n, d) * torch.finfo(torch.float64).eps
    values, axes = values[keep], axes[:, keep]
    largest = axes.abs().argmax(0, keepdim=True)
    return values, axes * axes.gather(0, largest).sign()


def _blocks(x: Tensor) -> list[slice]:
    size = max(1, CHUNK_CELLS // x.shape[1])
    return [slice(i, i + size) for i in range(0, len(x), size)]


def components_for_share(
    x: Tensor, weight: Tensor, at: Moments, share: float, generator: torch.Generator
) -> int:
    """Number of principal axes that hold more than a share of the variance, as PCA counts them."""
    values = principal_axes(x, weight, at, min(x.shape), generator)[0]
    total = at.variance.sum() / at.scale**2
    return max(1, min(len(values), int((values.cumsum(0) / total <= share).sum()) + 1))
