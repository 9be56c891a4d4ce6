"""Training on new rows of a stream, beside a sample of the rows that were seen before."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from skae.nn.batch import Batch
from skae.training.batches import Batches
from skae.training.plan import Plan

DECAY_FROM = 4096.0
"""Number of rows that training has passed over from which the learning rate falls."""

WARM_UP_STEPS = 50
"""Number of steps of a new optimizer during which the learning rate rises."""

BATCH_ROWS = 256
"""Number of rows per step with `batch_size="auto"`. Smaller steps were worse for an equal number of
steps: they contain few new rows, but many rehearsed ones."""

CHECKED_ROWS = 512
"""Number of rows on which the objective is compared before and after training."""

LEAST_NEW_ROWS = 8
NEW_SHARE = 5e-4
"""Smallest number of new rows per step, and their number as a share of the rows seen in all."""


@dataclass
class Rehearsal(Batches):
    """New rows, and batches of them with a sample of all rows.

    `index` are the new rows. The rows of the table are in pseudorandom order, and their weights sum
    to 1. Each batch contains new rows and a pseudorandom part of the table,
    with weights such that its expected loss is the weighted mean loss of the table.

    Attributes
    ----------
    is_new : Tensor of shape (n_table,), bool
        Whether a row of the table is one of the new rows.
    n_rehearsed : int
        Number of rows of the table in each batch beside the new rows.
    """

    is_new: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))
    n_rehearsed: int = 0

    def batches(self, size: int, generator: torch.Generator) -> Iterator[Batch]:
        """Iterate over corrupted batches of about `size` new rows and `n_rehearsed` other rows.

        If one batch can contain the whole table, all batches do, in the order of the table.
        """
        sizes, n, r = self.batch_sizes(size), len(self.table.x), self.n_rehearsed
        if size + r >= n:
            whole = self.table._replace(weight=self.table.weight * n)
            for _ in sizes:
                yield self._corrupt_batch(whole, generator)
            return
        # All uses of a new row have the same weight.
        share = 1 / (1 + len(sizes) * r / n)
        new = self.index[self._shuffled(len(self), 1, generator)].split(sizes)
        others = self._shuffled(n, math.ceil(len(sizes) * r / n), generator)
        for own, rest in zip(new, others[: len(sizes) * r].split(r), strict=True):
            batch = self.take(torch.cat([own, rest]))
            factor = torch.where(self.is_new[rest], 1 - share, 1.0) * (n / r)
            factor = torch.cat([factor.new_full((len(own),), share * len(self) / len(own)), factor])
            weight = batch.weight * factor * len(batch.x)
            yield self._corrupt_batch(batch._replace(weight=weight), generator)

    def checked(self) -> Batches:
        """Return pseudorandom rows of the table on which the objective is checked."""
        index = torch.arange(min(CHECKED_ROWS, len(self.table.x)), device=self.table.x.device)
        table = self.take(index)
        table = table._replace(weight=table.weight / table.weight.mean())
        options = self.corrupt, self.n_conditions, self.width, self.hidden_share, self.predicted
        return Batches(table, index, *options)

    def _shuffled(self, n: int, times: int, generator: torch.Generator) -> Tensor:
        """Return the numbers from 0 to n - 1, several times, each time in another order."""
        device = generator.device
        orders = [torch.randperm(n, generator=generator, device=device) for _ in range(times)]
        return torch.cat(orders)


@dataclass
class StreamPlan(Plan):
    """Plan of one pass over new rows. The batch size is the number of new rows per step."""

    n_passed: float = 0.0
    """Number of rows that training has passed over before."""
    n_new: int = 1
    """Number of new rows."""
    steps_before: float = 0.0
    """Number of earlier steps of the optimizer."""

    def rate(self, position: float) -> float:
        """Compute the learning rate when a share `position` of the steps is completed.

        The rate rises during the first steps of an optimizer. From `DECAY_FROM` rows, it falls with
        the square root of the number of rows. A step with fewer new rows than the batch size is
        smaller in proportion, so that rows have about the same effect in calls of any size.
        """
        n_new, size = position * self.n_new, self.budget.batch_size
        warm_up = (self.steps_before + n_new / size + 1) / WARM_UP_STEPS
        decay = math.sqrt(DECAY_FROM / max(DECAY_FROM, self.n_passed + n_new))
        return self.learning_rate * min(1.0, warm_up) * decay * min(1.0, self.n_new / size)


def step_sizes(batch_size: int | str, n_rows: int, n_new: int, seen: float) -> tuple[int, int]:
    """Return the numbers of new rows and of other rows per step.

    A step uses the whole table if it is small. The number of new rows grows with the weight of all
    rows that were seen, so that the number of steps grows with its logarithm only. A step with
    fewer new rows than usual is a smaller step in all respects.

    Parameters
    ----------
    batch_size : int or "auto"
        Parameter of the estimator.
    n_rows, n_new : int
        Number of rows of the table, and of its new rows.
    seen : float
        Weight of all rows that were seen.
    """
    size = min(BATCH_ROWS if batch_size == "auto" else int(batch_size), n_rows)
    new = max(1, min(max(LEAST_NEW_ROWS, int(NEW_SHARE * seen)), size // 2))
    others = size - new
    if size < n_rows:
        others = math.ceil(others * min(1.0, n_new / new))
    return new, max(1, others)
