"""Batches: rows in memory, taken some at a time and corrupted for training."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from skae.nn.batch import Batch
from skae.nn.corruption import Corruption

COPIED_CELLS = 2**17
"""Cells of rows copied at a time for training: they stay in the processor's cache."""

EVALUATED_CELLS = 2**18
EVALUATED_ROWS = 2048
"""Cells and rows evaluated at a time at most: rows of few columns have as many hidden units."""


@dataclass
class Batches:
    """The training or the validation rows of a table on the training device, and batches of them.

    The table is never copied as a whole.

    Parameters
    ----------
    table : Batch
        All rows of the table.
    index : Tensor of shape (n,)
        Numbers of the rows that are meant.
    corrupt : callable or None
        Corrupts every batch anew.
    n_conditions : int
        The last columns, which are never corrupted.
    width : int or None
        Cells that networks make of a row, by which memory is planned; None are as many as columns.
    """

    table: Batch
    index: Tensor
    corrupt: Corruption | None = None
    n_conditions: int = 0
    width: int | None = None

    @classmethod
    def all_rows(cls, table: Batch) -> Self:
        """All rows of a table."""
        return cls(table, torch.arange(len(table.x), device=table.x.device))

    def __len__(self) -> int:
        return len(self.index)

    @property
    def _n_cells(self) -> int:
        return self.table.x.shape[1] if self.width is None else self.width

    def take(self, index: Tensor) -> Batch:
        """Copies of the table's rows with these numbers."""
        return self.table.map(lambda part: part.index_select(0, index))

    def corrupted(self, generator: torch.Generator) -> "Batches":
        """The same rows, corrupted once and for all."""
        if self.corrupt is None:
            return self
        return Batches.all_rows(self._corrupted(self.take(self.index), generator))

    def batches(self, size: int, generator: torch.Generator) -> Iterator[Batch]:
        """All rows in a new order, `size` at a time; in the given order where one batch has all."""
        order = torch.randperm(len(self), generator=generator, device=generator.device)
        index = self.index if size >= len(self) else self.index[order]
        # Small batches are copied many at a time: such a copy costs more to call than to make.
        for block in index.split(size * max(1, COPIED_CELLS // (size * self._n_cells))):
            for batch in self.take(block).split(size):
                yield self._corrupted(batch, generator)

    def chunks(self, generator: torch.Generator | None = None) -> Iterator[Batch]:
        """All rows in their order, some at a time; corrupted where there is a generator for it."""
        size = max(1, min(EVALUATED_ROWS, EVALUATED_CELLS // self._n_cells))
        for index in self.index.split(size):
            batch = self.take(index)
            yield batch if generator is None else self._corrupted(batch, generator)

    def _corrupted(self, batch: Batch, generator: torch.Generator) -> Batch:
        if self.corrupt is None:
            return batch
        features, conditions = batch.x.tensor_split([batch.x.shape[1] - self.n_conditions], dim=1)
        # A corruption may work in place, and what it sees is often the target, too.
        x: object = self.corrupt(features.clone(), generator)
        kind = (features.shape, features.dtype)
        if not isinstance(x, Tensor) or (x.shape, x.dtype) != kind:
            raise TypeError(
                f"corruption must return a tensor of shape {tuple(features.shape)} and dtype "
                f"{features.dtype}, as it is given; it returned {x!r}."
            )
        if not x.isfinite().all() and features.isfinite().all():
            raise ValueError("corruption returned NaN or infinite values.")
        if batch.observed is not None:
            # Missing cells stay missing, and no others become missing.
            x = torch.where(features.isnan() | x.isnan(), features, x)
        if self.n_conditions:
            x = torch.cat([x, conditions], 1)
        return batch._replace(x=x, clean=batch.original)
