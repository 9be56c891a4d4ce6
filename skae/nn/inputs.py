"""Inputs of the encoder and of the decoder, computed from the cells of a batch."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from skae.nn.batch import Batch
from skae.nn.bodies.layers import Dense
from skae.nn.pca import LazyRows, Moments, column_moments, row_blocks, slopes


class Inputs(nn.Module):
    """Module that standardizes modelled columns and encodes conditions.

    Modelled columns are centered and divided by one scale for the whole table. Categorical
    conditions are one-hot encoded. All encoded conditions are centered and divided by half of their
    range. The encoder does not receive conditions as additional columns: a linear map of them is
    added to the standardized rows. This works with any architecture. The map is initialized such
    that it removes the linear effect of the conditions, and it is trained.

    Parameters
    ----------
    n_modelled : int
        Number of modelled columns. In batches, they precede the conditions.
    n_levels : sequence of int
        Number of categories of each condition, which is 0 for numeric conditions.
    encoder_sees_conditions : bool
        Whether the linear map of the conditions is added.

    Attributes
    ----------
    n_outputs : int
        Length of the encoder's input, which is `n_modelled`.
    n_conditions : int
        Number of columns of the encoded conditions.
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
        """Return the batch without its conditions."""
        if not self.n_conditions:
            return batch
        return batch._replace(
            x=batch.x[..., : self.n_outputs],
            observed=None if batch.observed is None else batch.observed[..., : self.n_outputs],
            clean=None if batch.clean is None else batch.clean[..., : self.n_outputs],
        )

    def conditions(self, batch: Batch) -> Tensor:
        """Encode and scale the conditions, (n, n_conditions)."""
        encoded = self._encoded(batch.x[..., self.n_outputs :])
        return (encoded - self.condition_center) / self.condition_scale

    def _encoded(self, cells: Tensor) -> Tensor:
        """One-hot encode categories, and keep numbers."""
        parts = []
        for cell, n in zip(cells.split(1, -1), self.n_levels, strict=True):
            levels = torch.arange(n, dtype=cells.dtype, device=cells.device)
            parts.append((cell == levels).to(cells.dtype) if n else cell)
        return torch.cat(parts, -1)

    def content(self, batch: Batch) -> Tensor:
        """Return modelled columns and encoded conditions, whose values identify a row."""
        if not self.n_conditions:
            return batch.x
        encoded = self._encoded(batch.x[..., self.n_outputs :])
        return torch.cat([self.modelled(batch).x, encoded], -1)

    def standardize(self, x: Tensor) -> Tensor:
        """Standardize modelled columns."""
        return (x - self.center) / self.scale

    def distances(self, x: Tensor) -> Tensor:
        """Compute the distances of cells from the centers of their columns, in units of its scale.

        The units are those in which the network receives the cells. Categories are never far away.

        Parameters
        ----------
        x : Tensor of shape (..., n_modelled + n_conditions)
            Cells of rows, in float64 on the CPU.

        Returns
        -------
        distances : Tensor of the same shape
        """
        cells, conditions = x.tensor_split([self.n_outputs], dim=-1)
        parts = [(cells - self.center.to(x)) / self.scale.to(x)]
        if self.n_conditions:
            standard = (self._encoded(conditions) - self.condition_center.to(x)) / (
                self.condition_scale.to(x)
            )
            widths = [max(1, n) for n in self.n_levels]
            parts += [part.abs().amax(-1, keepdim=True) for part in standard.split(widths, -1)]
        return torch.cat(parts, -1).abs()

    def forward(self, batch: Batch) -> Tensor:
        """Compute the input of the encoder, (n, n_outputs)."""
        u = self.standardize(self.modelled(batch).x)
        return u if self.shift is None else u + self.shift(self.conditions(batch))

    @torch.no_grad()
    def change_units(self, center: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Replace the centers (n_modelled,) and the scale of the modelled columns.

        Return the gain () and the shift (n_modelled,), in float64 on the CPU, with which the old
        input of the encoder is gain * u + shift, where u is the new one.
        """
        old_center, old_scale = (part.cpu().double().clone() for part in (self.center, self.scale))
        self.center.copy_(center)
        self.scale.copy_(scale)
        gain = self.scale.cpu().double() / old_scale
        if self.shift is not None:
            for part in (self.shift.weight, self.shift.bias):
                part.div_(gain.to(part))
        return gain, (self.center.cpu().double() - old_center) / old_scale

    @torch.no_grad()
    def start(
        self, x: LazyRows, conditions: LazyRows, weight: Tensor, moments: Moments
    ) -> tuple[LazyRows, Tensor | None]:
        """Initialize the centers and scales, and the linear map of conditions by linear regression.

        Parameters
        ----------
        x : LazyRows
            Modelled columns of training rows.
        conditions : LazyRows
            Columns of conditions of the same rows.
        weight : Tensor of shape (n,)
            Weights of the rows.
        moments : Moments
            Moments of the modelled columns.

        Returns
        -------
        residuals : LazyRows
            Residuals of a regression of the modelled columns on the conditions. Without conditions,
            they are `x`.
        effect : Tensor of shape (n_modelled, n_conditions) or None
            Coefficients of the regression on scaled conditions, in the user's units. None without
            conditions.
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

        def residuals(rows: slice) -> Tensor:
            others = (encoded[rows].double() - center) / scale
            return x[rows].double() - others @ effect.mT

        return LazyRows(residuals, x.shape), effect
