"""Rows on their way through a network: cells, and what else training knows of them."""

from collections.abc import Callable
from typing import Any, NamedTuple, Self

from torch import Tensor


class Batch(NamedTuple):
    """Some rows of a table. What is None does not occur in the table.

    Cells that are missing are NaN in `x`, and False in `observed`. Only architectures that can read
    NaN get them; `Likelihood` counts observed cells only.

    Attributes
    ----------
    x : Tensor of shape (n, n_columns)
        Cells that the encoder sees, in the user's units: modelled columns, then conditions.
    weight : Tensor of shape (n,)
        How much each row counts.
    observed : Tensor of shape (n, n_columns), bool, or None
        Cells that the loss counts.
    clean : Tensor of shape (n, n_columns) or None
        The rows that are to be restored, where `x` is a corrupted version of them.
    targets, target_weight : Tensor of shape (n, m), or None
        What else is known of rows, and how much it counts: 0 where it is not known.
    """

    x: Tensor
    weight: Tensor
    observed: Tensor | None = None
    clean: Tensor | None = None
    targets: Tensor | None = None
    target_weight: Tensor | None = None

    @property
    def original(self) -> Tensor:
        """The rows that are to be restored."""
        return self.x if self.clean is None else self.clean

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """A function of all tensors."""
        return self.with_tensors([function(part) for part in self.tensors()])

    def split(self, size: int) -> list[Self]:
        """The rows in parts of a size."""
        parts = zip(*[part.split(size) for part in self.tensors()], strict=True)
        return [self.with_tensors(list(tensors)) for tensors in parts]

    def tensors(self) -> list[Tensor]:
        """The tensors that there are."""
        return [part for part in self if part is not None]

    def with_tensors(self, tensors: list[Tensor]) -> Self:
        """The batch whose `tensors` are these."""
        rest = iter(tensors)
        parts: list[Any] = [None if part is None else next(rest) for part in self]
        return type(self)(*parts)
