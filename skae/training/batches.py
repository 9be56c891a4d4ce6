"""Batches of rows in memory, corrupted for training."""

import math
import reprlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from skae.nn.batch import Batch
from skae.nn.corruption import Corruption

COPIED_CELLS = 2**17
"""Number of cells copied at a time for training, so that a copy stays in the processor's cache."""

EVALUATED_CELLS = 2**18
"""Number of cells that are evaluated at a time, which limits the memory."""

EVALUATED_ROWS = 2048
"""Number of rows that are evaluated at a time, if they do not have too many cells.

It limits the memory of hidden units, whose number per row may be large even if a row has few cells.
"""


@dataclass
class Batches:
    """Training or validation rows of a table, and batches of them.

    The table lies on the training device and is never copied as a whole.

    Parameters
    ----------
    table : Batch
        All rows of the table.
    index : Tensor of shape (n,)
        Indices of the training or validation rows in the table.
    corrupt : callable or None
        Function of rows and a generator that corrupts the modelled columns of each batch anew. None
        leaves the rows unchanged.
    n_conditions : int
        Number of columns of conditions, the last columns of the table. They are never corrupted.
    width : int or None
        Number of cells that a network computes per row, from which the memory is estimated. None
        uses the number of columns.
    hidden_share : float
        Probability with which a modelled cell of a training batch is hidden from the encoder. It is
        not corrupted, and it counts in the loss.
    predicted : Tensor of shape (n_columns,), bool, or None
        Columns of which only hidden cells count in the loss, if cells are hidden. None if there are
        none.
    """

    table: Batch
    index: Tensor
    corrupt: Corruption | None = None
    n_conditions: int = 0
    width: int | None = None
    hidden_share: float = 0.0
    predicted: Tensor | None = None

    @classmethod
    def all_rows(cls, table: Batch) -> Self:
        """Return batches over all rows of a table, without corruption."""
        return cls(table, torch.arange(len(table.x), device=table.x.device))

    def __len__(self) -> int:
        return len(self.index)

    @property
    def _n_cells(self) -> int:
        return self.table.x.shape[1] if self.width is None else self.width

    def take(self, index: Tensor) -> Batch:
        """Copy the rows of the table at these indices."""
        return self.table.map(lambda part: part.index_select(0, index))

    def corrupted(self, generator: torch.Generator) -> "Batches":
        """Return the same rows, corrupted once."""
        if self.corrupt is None and not self.hidden_share:
            return self
        return Batches.all_rows(self._corrupt_batch(self.take(self.index), generator))

    def batch_sizes(self, size: int) -> list[int]:
        """Return the numbers of rows of all batches, which are `size` except for the last one.

        The last batch has more than 0.5 and at most 1.5 times as many rows, unless all rows are
        fewer. A penalty that compares the codes of a batch is thus never computed for a single row,
        unless `size` is 1 or there is only one row.
        """
        n = len(self)
        count = max(1, math.ceil((2 * n - size) / (2 * size)))
        return [size] * (count - 1) + [n - size * (count - 1)]

    def batches(self, size: int, generator: torch.Generator) -> Iterator[Batch]:
        """Iterate over corrupted batches of about `size` rows, in random order.

        If one batch contains all rows, they keep their order.
        """
        order = torch.randperm(len(self), generator=generator, device=generator.device)
        sizes = self.batch_sizes(size)
        index = self.index if len(sizes) == 1 else self.index[order]
        # Many small batches are copied at once, because the call takes longer than the copy.
        n_copied = max(1, COPIED_CELLS // (size * self._n_cells))
        for i in range(0, len(sizes), n_copied):
            copied = sizes[i : i + n_copied]
            block = self.take(index[size * i : size * i + sum(copied)])
            for batch in block.split(copied):
                yield self._corrupt_batch(batch, generator)

    def chunks(self, generator: torch.Generator | None = None) -> Iterator[Batch]:
        """Iterate over all rows in order, in batches for evaluation.

        The rows are corrupted with random numbers from `generator`. Without it, they are not
        corrupted.
        """
        size = max(1, min(EVALUATED_ROWS, EVALUATED_CELLS // self._n_cells))
        for index in self.index.split(self.batch_sizes(size)):
            batch = self.take(index)
            yield batch if generator is None else self._corrupt_batch(batch, generator)

    def _corrupt_batch(self, batch: Batch, generator: torch.Generator) -> Batch:
        if self.hidden_share:
            visible = torch.rand(batch.x.shape, generator=generator, device=batch.x.device)
            visible = visible >= self.hidden_share
            known = batch.observed if batch.visible is None else batch.visible
            batch = batch._replace(visible=visible if known is None else visible & known)
            if self.predicted is not None:
                counted = ~(visible & self.predicted)
                observed = counted if batch.observed is None else counted & batch.observed
                batch = batch._replace(observed=observed)
        if self.corrupt is None:
            return batch
        features, conditions = batch.x.tensor_split([batch.x.shape[1] - self.n_conditions], dim=1)
        # The corruption gets a copy: it may work in place, and its input is often the target.
        x: object = self.corrupt(features.clone(), generator)
        kind = (features.shape, features.dtype)
        if not isinstance(x, Tensor) or (x.shape, x.dtype) != kind:
            raise TypeError(
                "corruption must return a tensor of the shape and dtype of its input, "
                f"{tuple(features.shape)} and {features.dtype}, got {reprlib.repr(x)}."
            )
        if not x.isfinite().all() and features.isfinite().all():
            raise ValueError("corruption must return finite values, got NaN or infinite values.")
        if batch.observed is not None:
            # Missing cells stay missing, and no other cells become missing.
            x = torch.where(features.isnan() | x.isnan(), features, x)
        if self.n_conditions:
            x = torch.cat([x, conditions], 1)
        return batch._replace(x=x, clean=batch.original)
