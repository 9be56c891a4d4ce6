"""Batches: rows in memory, taken some at a time and corrupted for training."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from skae.nn.corruption import Corruption
from skae.nn.step.replay import Batch

COPIED_CELLS = 2**17
"""Cells of rows copied at a time for training: they stay in the processor's cache."""

EVALUATED_CELLS = 2**18
EVALUATED_ROWS = 2048
"""Cells and rows evaluated at a time at most: rows of few columns have as many hidden units."""


@dataclass
class Rows:
    """The training or the held-out rows of a table on the training device, never copied as a whole.

    `parts` are the table's weights, what the encoder sees of it, where that is a spoilt version or
    facts follow the clean rows that the loss is on, and facts about rows; `index` says which of its
    rows are meant. `corrupt`, where given, spoils every batch anew; cells that may be missing where
    the table `has_gaps` stay so, and the last `n_given` columns are never spoilt.
    """

    parts: Batch
    index: Tensor
    corrupt: Corruption | None = None
    has_gaps: bool = False
    n_given: int = 0

    @classmethod
    def all(cls, *parts: Tensor) -> Self:
        """All rows of a table."""
        return cls(parts, torch.arange(len(parts[0]), device=parts[0].device))

    def __len__(self) -> int:
        return len(self.index)

    @property
    def n_columns(self) -> int:
        """Columns of the table."""
        return self.parts[1].shape[1]

    def taken(self, index: Tensor) -> Batch:
        """Copies of the parts' rows at some of the table's row numbers."""
        return tuple([part.index_select(0, index) for part in self.parts])

    def corrupted(self, generator: torch.Generator) -> "Rows":
        """The same rows, spoilt once and for all."""
        if self.corrupt is None:
            return self
        return Rows.all(*self._spoil(self.taken(self.index), generator))

    def batches(self, size: int, generator: torch.Generator) -> Iterator[Batch]:
        """All rows in a new order, `size` at a time; in the given order where one batch has all."""
        order = torch.randperm(len(self), generator=generator, device=generator.device)
        index = self.index if size >= len(self) else self.index[order]
        # Small batches are copied many at a time: such a copy costs more to call than to make.
        for block in index.split(size * max(1, COPIED_CELLS // (size * self.n_columns))):
            copies = [part.split(size) for part in self.taken(block)]
            for batch in zip(*copies, strict=True):
                yield self._spoil(batch, generator)

    def chunks(self, generator: torch.Generator | None = None) -> Iterator[Batch]:
        """All rows in their order, some at a time; spoilt where there is a generator for it."""
        size = max(1, min(EVALUATED_ROWS, EVALUATED_CELLS // self.n_columns))
        for index in self.index.split(size):
            batch = self.taken(index)
            yield batch if generator is None else self._spoil(batch, generator)

    def _spoil(self, batch: Batch, generator: torch.Generator) -> Batch:
        if self.corrupt is None:
            return batch
        like, told = batch[1].tensor_split([self.n_columns - self.n_given], dim=1)
        # A corruption may work in place, and what it sees is often the target, too.
        spoilt: object = self.corrupt(like.clone(), generator)
        kind = (like.shape, like.dtype)
        if not isinstance(spoilt, Tensor) or (spoilt.shape, spoilt.dtype) != kind:
            raise TypeError(
                f"corruption must return a tensor of shape {tuple(like.shape)} and dtype "
                f"{like.dtype}, as it is given; it returned {spoilt!r}."
            )
        if not spoilt.isfinite().all() and like.isfinite().all():
            raise ValueError("corruption returned NaN or infinite values.")
        if self.has_gaps:
            # What is missing stays so, and no more gets lost.
            spoilt = torch.where(like.isnan() | spoilt.isnan(), like, spoilt)
        if self.n_given:
            spoilt = torch.cat([spoilt, told], 1)
        return batch[0], spoilt, *(batch[2:] or batch[1:])
