"""Corruptions: how rows are spoilt before the encoder sees them, on training batches only."""

from collections.abc import Callable

import torch
from torch import Tensor

from skae.nn.linear import moments

Corruption = Callable[[Tensor, torch.Generator], Tensor]
"""Rows (n, d) in the user's units, a generator -> rows of the same shape."""


class ColumnFacts:
    """What corruptions know of a table: each column's spread and range.

    Parameters
    ----------
    x : Tensor of shape (n, d)
        Training rows.
    weight : Tensor of shape (n,)
        How often each counts.
    like : Tensor
        Has the device and dtype of the rows to spoil.
    """

    def __init__(self, x: Tensor, weight: Tensor, like: Tensor) -> None:
        self.deviation = moments(x, weight).variance.sqrt().to(like)
        self.low, self.high = x.amin(0).to(like), x.amax(0).to(like)


def gaussian(x: Tensor, generator: torch.Generator, level: float, table: ColumnFacts) -> Tensor:
    """Add normal noise of `level` standard deviations of the column."""
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    return x + level * table.deviation * noise


def masking(x: Tensor, generator: torch.Generator, level: float, table: ColumnFacts) -> Tensor:
    """Set a share of the cells to 0, or to the value nearest to it that their column takes."""
    blank = torch.zeros_like(table.low).clamp(table.low, table.high)
    return torch.where(_chosen(x, generator, level), blank, x)


def salt_and_pepper(
    x: Tensor, generator: torch.Generator, level: float, table: ColumnFacts
) -> Tensor:
    """Set a share of the cells to their column's smallest or largest value, each as often."""
    extreme = torch.where(_chosen(x, generator, 0.5), table.high, table.low)
    return torch.where(_chosen(x, generator, level), extreme, x)


def swap(x: Tensor, generator: torch.Generator, level: float, table: ColumnFacts) -> Tensor:
    """Set a share of the cells to their column's value in another row of the batch."""
    n = len(x)
    away = torch.randint(1, max(n, 2), x.shape, generator=generator, device=x.device)
    other = (torch.arange(n, device=x.device)[:, None] + away) % n
    return torch.where(_chosen(x, generator, level), x.gather(0, other), x)


def _chosen(x: Tensor, generator: torch.Generator, share: float) -> Tensor:
    uniform = torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    return uniform < share


CORRUPTIONS: dict[str, Callable[[Tensor, torch.Generator, float, ColumnFacts], Tensor]] = {
    "gaussian": gaussian,
    "masking": masking,
    "salt_and_pepper": salt_and_pepper,
    "swap": swap,
}


class Named:
    """A corruption that the package knows by name, for rows of one table.

    Parameters
    ----------
    name : str
        A key of `CORRUPTIONS`.
    level : float
        Share of cells to spoil; for "gaussian", the noise in columns' standard deviations.
    table : ColumnFacts
    """

    def __init__(self, name: str, level: float, table: ColumnFacts) -> None:
        if name != "gaussian" and level > 1:
            raise ValueError(
                "corruption_level must be at most 1, the share of cells that "
                f"corruption={name!r} spoils, got {level}."
            )
        self.name, self.level, self.table = name, level, table

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return CORRUPTIONS[self.name](x, generator, self.level, self.table)

    def of_codes(self, x: Tensor, weight: Tensor) -> "Named":
        """The same corruption for codes (n, k) of rows, which count `weight` (n,) times."""
        return Named(self.name, self.level, ColumnFacts(x, weight, like=x))
