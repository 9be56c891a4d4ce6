"""From a batch's cells to what the encoder sees, and what the decoder sees beside the code."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from skae.nn.batch import Batch
from skae.nn.bodies.layers import Dense
from skae.nn.pca import LazyRows, Moments, column_moments, row_blocks, slopes


class Inputs(nn.Module):
    """Standardizes modelled columns, and encodes conditions: numbers scaled, categories one-hot.

    Modelled columns are centred and divided by one scale for the whole table. Conditions have a
    mean of 0 and half a range of 1. An encoder that sees them sees rows shifted by a linear map of
    them: any architecture can, and rows of different conditions are moved onto each other.

    Parameters
    ----------
    n_modelled : int
        Columns that are modelled; those of conditions follow in batches.
    n_levels : sequence of int
        For each condition the number of its categories, or 0 where it is a number.
    encoder_sees_conditions : bool
    """

    center: Tensor
    scale: Tensor
    condition_center: Tensor
    condition_scale: Tensor

    def __init__(
        self, n_modelled: int, n_levels: Sequence[int] = (), encoder_sees_conditions: bool = True
    ) -> None:
        super().__init__()
        self.n_outputs = n_modelled
        self.n_levels = tuple(n_levels)
        self.n_conditions = sum(max(1, n) for n in n_levels)
        shifts = self.n_conditions > 0 and encoder_sees_conditions
        self.shift = Dense(self.n_conditions, n_modelled) if shifts else None
        self.register_buffer("center", torch.zeros(n_modelled))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("condition_center", torch.zeros(self.n_conditions))
        self.register_buffer("condition_scale", torch.ones(self.n_conditions))

    def modelled(self, batch: Batch) -> Batch:
        """The batch without its conditions."""
        if not self.n_conditions:
            return batch
        return batch._replace(
            x=batch.x[..., : self.n_outputs],
            observed=None if batch.observed is None else batch.observed[..., : self.n_outputs],
            clean=None if batch.clean is None else batch.clean[..., : self.n_outputs],
        )

    def conditions(self, batch: Batch) -> Tensor:
        """What networks see of the conditions, (n, n_conditions)."""
        encoded = self._encoded(batch.x[..., self.n_outputs :])
        return (encoded - self.condition_center) / self.condition_scale

    def _encoded(self, cells: Tensor) -> Tensor:
        """Numbers as they are, categories one-hot."""
        parts = []
        for cell, n in zip(cells.split(1, -1), self.n_levels, strict=True):
            levels = torch.arange(n, dtype=cells.dtype, device=cells.device)
            parts.append((cell == levels).to(cells.dtype) if n else cell)
        return torch.cat(parts, -1)

    def content(self, batch: Batch) -> Tensor:
        """Numbers that are equal for equal rows only: modelled columns, then encoded conditions."""
        if not self.n_conditions:
            return batch.x
        encoded = self._encoded(batch.x[..., self.n_outputs :])
        return torch.cat([self.modelled(batch).x, encoded], -1)

    def standardize(self, x: Tensor) -> Tensor:
        """Modelled columns on the network's scale."""
        return (x - self.center) / self.scale

    def forward(self, batch: Batch) -> Tensor:
        """What the encoder sees, (n, n_outputs)."""
        u = self.standardize(self.modelled(batch).x)
        return u if self.shift is None else u + self.shift(self.conditions(batch))

    @torch.no_grad()
    def start(
        self, x: LazyRows, conditions: LazyRows, weight: Tensor, moments: Moments
    ) -> tuple[LazyRows, Tensor | None]:
        """Take the scales of a table, and return what a linear map of conditions leaves of it.

        Beside it comes that map, if there are conditions: what a unit of them adds to rows,
        (n_modelled, n_conditions). The encoder starts to see what is left.
        """
        self.center.copy_(moments.center)
        self.scale.copy_(moments.scale)
        if not self.n_conditions:
            return x, None
        shape = x.shape[0], self.n_conditions
        encoded = LazyRows(lambda rows: self._encoded(conditions[rows]), shape)
        self.condition_center.copy_(column_moments(encoded, weight).center)
        low = torch.stack([encoded[block].amin(0) for block in row_blocks(encoded)]).amin(0)
        high = torch.stack([encoded[block].amax(0) for block in row_blocks(encoded)]).amax(0)
        self.condition_scale.copy_(torch.where(high > low, (high - low) / 2, 1.0))
        center = self.condition_center.double().cpu()
        scale = self.condition_scale.double().cpu()
        effect = slopes(x, moments, encoded, center, scale, weight)
        if self.shift is not None:
            self.shift.weight.copy_(-effect / moments.scale)
            self.shift.bias.zero_()

        def left(rows: slice) -> Tensor:
            others = (encoded[rows].double() - center) / scale
            return x[rows].double() - others @ effect.mT

        return LazyRows(left, x.shape), effect
