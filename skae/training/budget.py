"""Numbers of rows in a step and of steps in a training."""

from typing import NamedTuple

import numpy as np

FULL_BATCH_ROWS = 256
"""Largest number of distinct training rows that `batch_size="auto"` uses all in each step."""

BATCH_SIZES = (64, 256)
BATCHES_PER_EPOCH = 64
"""Smallest and largest `batch_size="auto"` for more rows, and the approximate number of steps of an
epoch in between."""

AUTO_EPOCHS = 100
AUTO_STEPS = 4000
"""Largest number of epochs of `max_epochs="auto"`, and the approximate largest number of their
steps."""


class Budget(NamedTuple):
    """Numbers of rows and steps of a training.

    Attributes
    ----------
    max_epochs : int
        Number of epochs of the schedule.
    batch_size : int
        Number of rows in each step, except for the last step of an epoch.
    max_steps : int or None
        Largest number of steps of an epoch. None is the number of batches of the training rows.
    may_cut : bool
        Whether the schedule may be cut short if the loss of validation rows stops falling.
    """

    max_epochs: int
    batch_size: int
    max_steps: int | None = None
    may_cut: bool = False

    @classmethod
    def of(
        cls, max_epochs: int | str, batch_size: int | str, n: int, starts_at_pca: bool = True
    ) -> "Budget":
        """Choose the budget for `n` distinct training rows from parameters of an autoencoder.

        `max_epochs="auto"` is the number of epochs with about `AUTO_STEPS` steps, at most
        `AUTO_EPOCHS` and at least one. If the training rows have more batches than that, the epoch
        ends early. The schedule may then be cut short if `starts_at_pca`. A network that starts at
        random weights learns columns of small variance last, which its objective hardly shows.
        """
        size = choose_batch_size(batch_size, n)
        if max_epochs != "auto":
            return cls(int(max_epochs), size)
        n_epochs = int(np.clip(round(AUTO_STEPS * size / n), 1, AUTO_EPOCHS))
        return cls(n_epochs, size, AUTO_STEPS if n_epochs == 1 else None, starts_at_pca)


def choose_batch_size(batch_size: int | str, n: int) -> int:
    """Return the number of rows per step for `n` distinct training rows.

    "auto" is all rows up to `FULL_BATCH_ROWS`. For more rows, it is the power of 2 that is closest
    to n / `BATCHES_PER_EPOCH` on a logarithmic scale, within the limits `BATCH_SIZES`.
    """
    if batch_size != "auto":
        return min(int(batch_size), n)
    if n <= FULL_BATCH_ROWS:
        return n
    return int(np.clip(2 ** round(np.log2(n / BATCHES_PER_EPOCH)), *BATCH_SIZES))
