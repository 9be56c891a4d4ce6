"""Inputs of the encoder and of the decoder, computed from the cells of a batch."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from skae.nn.batch import Batch
from skae.nn.bodies.layers import Dense
from skae.nn.encoding import OneHot
from skae.nn.pca import LazyRows, Moments, column_moments, row_blocks, slopes


class Inputs(nn.Module):
    """Module that encodes and standardizes modelled columns, and encodes conditions.

    Categories are one-hot encoded. Encoded modelled columns are centered and divided by one scale
    for the whole table or, if columns have different kinds, by a scale for each of them. Missing
    cells are then set to 0, unless the architecture processes them itself. For columns that had
    missing cells in the first fit, a number is appended that is 1 for a missing cell.

    All encoded conditions are centered and divided by half of their range. The encoder does not
    receive conditions as additional columns: a linear map of them is added to the standardized
    rows. This works with any architecture. The map is initialized such that it removes the linear
    effect of the conditions, and it is trained.

    Parameters
    ----------
    n_modelled : int
        Number of modelled columns. In batches, they precede the conditions.
    n_levels : sequence of int
        Number of categories of each condition, which is 0 for numeric conditions.
    encoder_sees_conditions : bool
        Whether the linear map of the conditions is added.
    modelled_levels : sequence of int
        Number of categories of each modelled column, which is 0 for numbers. It is empty if all
        columns are numbers of the same kind, which have one scale.
    missing : sequence of int
        Indices of the modelled columns for which the encoder is shown which cells are missing.
    keeps_missing : bool
        Whether the architecture processes missing cells (NaN) itself.

    Attributes
    ----------
    n_encoded : int
        Number of encoded modelled columns.
    n_outputs : int
        Length of the encoder's input: `n_encoded` and the number of columns in `missing`.
    n_conditions : int
        Number of columns of the encoded conditions.
    """

    center: Tensor
    scale: Tensor
    condition_center: Tensor
    condition_scale: Tensor
    missing: Tensor

    def __init__(
        self,
        n_modelled: int,
        n_levels: Sequence[int] = (),
        encoder_sees_conditions: bool = True,
        modelled_levels: Sequence[int] = (),
        missing: Sequence[int] = (),
        keeps_missing: bool = False,
    ) -> None:
        super().__init__()
        self.n_modelled = n_modelled
        self.keeps_missing = keeps_missing
        self.encoding = OneHot(modelled_levels or [0] * n_modelled)
        self.condition_encoding = OneHot(n_levels)
        self.n_encoded = self.encoding.n_outputs
        self.n_outputs = self.n_encoded + len(missing)
        self.n_conditions = self.condition_encoding.n_outputs
        shifts = self.n_conditions > 0 and encoder_sees_conditions
        self.shift = Dense(self.n_conditions, self.n_encoded) if shifts else None
        self.register_buffer("center", torch.zeros(self.n_encoded))
        own_scales = bool(modelled_levels)
        self.register_buffer("scale", torch.ones(self.n_encoded if own_scales else ()))
        self.register_buffer("condition_center", torch.zeros(self.n_conditions))
        self.register_buffer("condition_scale", torch.ones(self.n_conditions))
        index = torch.tensor(missing, dtype=torch.long, device="cpu")
        self.register_buffer("missing", index, persistent=False)

    @property
    def has_own_scales(self) -> bool:
        """Whether each encoded column has its own scale."""
        return self.scale.ndim > 0

    @property
    def unit(self) -> Tensor | float:
        """Units in which errors of encoded columns are compared: 1 if the table has one scale."""
        return self.scale if self.has_own_scales else 1.0

    def modelled(self, batch: Batch) -> Batch:
        """Return the batch without its conditions."""
        if not self.n_conditions:
            return batch

        def own(part: Tensor | None) -> Tensor | None:
            return None if part is None else part[..., : self.n_modelled]

        x, visible = batch.x[..., : self.n_modelled], own(batch.visible)
        return batch._replace(
            x=x, visible=visible, observed=own(batch.observed), clean=own(batch.clean)
        )

    def conditions(self, batch: Batch) -> Tensor:
        """Encode and scale the conditions, (n, n_conditions)."""
        encoded = self.condition_encoding(batch.x[..., self.n_modelled :])
        return (encoded - self.condition_center) / self.condition_scale

    def content(self, batch: Batch) -> Tensor:
        """Return encoded modelled columns and conditions, whose values identify a row."""
        encoded = self.encoding(self.modelled(batch).x)
        if not self.n_conditions:
            return encoded
        return torch.cat([encoded, self.condition_encoding(batch.x[..., self.n_modelled :])], -1)

    def standardize(self, encoded: Tensor) -> Tensor:
        """Center encoded modelled columns (..., n_encoded), and divide them by the scale."""
        return (encoded - self.center.to(encoded)) / self.scale.to(encoded)

    def distances(self, x: Tensor) -> Tensor:
        """Compute the distances of cells from the centers of their columns, in units of the scale.

        The units are those in which the network receives the cells. Categories are never far away.

        Parameters
        ----------
        x : Tensor of shape (..., n_modelled + n_conditions)
            Cells of rows, in float64 on the CPU.

        Returns
        -------
        distances : Tensor of the same shape
        """
        cells, conditions = x.tensor_split([self.n_modelled], dim=-1)
        parts = [_largest(self.standardize(self.encoding(cells)), self.encoding.widths)]
        if self.n_conditions:
            encoded = self.condition_encoding(conditions)
            standard = (encoded - self.condition_center.to(x)) / self.condition_scale.to(x)
            parts.append(_largest(standard, self.condition_encoding.widths))
        return torch.cat(parts, -1)

    def forward(self, batch: Batch) -> Tensor:
        """Compute the input of the encoder, (n, n_outputs)."""
        rows = self.modelled(batch)
        u = self.standardize(self.encoding(rows.x))
        if self.shift is not None:
            u = u + self.shift(self.conditions(batch))
        visible = rows.observed if rows.visible is None else rows.visible
        if visible is not None and not self.keeps_missing:
            u = torch.where(self.encoding.spread(visible), u, 0.0)
        if not len(self.missing):
            return u
        if visible is None:
            return torch.cat([u, u.new_zeros(*u.shape[:-1], len(self.missing))], -1)
        return torch.cat([u, (~visible.index_select(-1, self.missing)).to(u.dtype)], -1)

    def unscaled(self, u: Tensor) -> Tensor:
        """Return inputs (..., n_outputs) in which one-hot encoded categories are not scaled."""
        if not self.encoding.n_categories:
            return u
        cells, flags = u.split([self.n_encoded, len(self.missing)], -1)
        is_category = self.encoding.is_category.to(u.device)
        return torch.cat([torch.where(is_category, self.scale * cells, cells), flags], -1)

    def unexpected(self, batch: Batch) -> Tensor | None:
        """Return a mask (n,) of rows with a missing cell in a column that had none in the fit.

        None if no cell is missing, and if the architecture processes missing cells.
        """
        observed = self.modelled(batch).observed
        if observed is None or self.keeps_missing:
            return None
        return (~observed).index_fill(-1, self.missing, False).any(-1)

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
            Encoded modelled columns of training rows, without missing cells.
        conditions : LazyRows
            Columns of conditions of the same rows.
        weight : Tensor of shape (n,)
            Weights of the rows.
        moments : Moments
            Moments of the encoded modelled columns.

        Returns
        -------
        residuals : LazyRows
            Residuals of a regression of the modelled columns on the conditions. Without conditions,
            they are `x`.
        effect : Tensor of shape (n_encoded, n_conditions) or None
            Coefficients of the regression on scaled conditions, in the user's units. None without
            conditions.
        """
        self.center.copy_(moments.center)
        self.scale.copy_(moments.scale)
        if not self.n_conditions:
            return x, None
        shape = x.shape[0], self.n_conditions
        encoded = LazyRows(lambda rows: self.condition_encoding(conditions[rows]), shape)
        self.condition_center.copy_(column_moments(encoded, weight).center)
        low = torch.stack([encoded[block].amin(0) for block in row_blocks(encoded)]).amin(0)
        high = torch.stack([encoded[block].amax(0) for block in row_blocks(encoded)]).amax(0)
        self.condition_scale.copy_(torch.where(high > low, (high - low) / 2, 1.0))
        center = self.condition_center.double().cpu()
        scale = self.condition_scale.double().cpu()
        effect = slopes(x, moments, encoded, center, scale, weight)
        if self.shift is not None:
            self.shift.weight.copy_(-effect / moments.scale[..., None])
            self.shift.bias.zero_()

        def residuals(rows: slice) -> Tensor:
            others = (encoded[rows].double() - center) / scale
            return x[rows].double() - others @ effect.mT

        return LazyRows(residuals, x.shape), effect


def _largest(columns: Tensor, widths: list[int]) -> Tensor:
    """Return the largest absolute value among the encoded columns of each column."""
    if len(widths) == columns.shape[-1]:
        return columns.abs()
    parts = columns.abs().split(widths, -1)
    return torch.cat([part.amax(-1, keepdim=True) for part in parts], -1)
