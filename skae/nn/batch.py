"""Batches: cells of rows with their weights, masks and targets."""

from collections.abc import Callable
from typing import Any, NamedTuple, Self

from torch import Tensor


class Batch(NamedTuple):
    """Some rows of a table. An attribute is None if the table does not have it.

    Missing cells are NaN in `x` and False in `observed`. Architectures that cannot process NaN
    never receive any. Likelihoods use observed cells only.

    Attributes
    ----------
    x : Tensor of shape (n, n_columns)
        Input of the encoder, in the user's units: modelled columns, then conditions.
    weight : Tensor of shape (n,)
        Weights of the rows.
    observed : Tensor of shape (n, n_columns), bool, or None
        Cells that enter the loss.
    clean : Tensor of shape (n, n_columns) or None
        Clean rows if `x` is a corrupted version of them.
    targets, target_weight : Tensor of shape (n, m), or None
        Targets of the rows and their weights, which are 0 for missing targets.
    """

    x: Tensor
    weight: Tensor
    observed: Tensor | None = None
    clean: Tensor | None = None
    targets: Tensor | None = None
    target_weight: Tensor | None = None

    @property
    def original(self) -> Tensor:
        """Rows that the decoder is trained to reconstruct."""
        return self.x if self.clean is None else self.clean

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Apply a function to all tensors."""
        return self.with_tensors([function(part) for part in self.tensors()])

    def split(self, size: int) -> list[Self]:
        """Split the rows into batches of at most `size` rows."""
        parts = zip(*[part.split(size) for part in self.tensors()], strict=True)
        return [self.with_tensors(list(tensors)) for tensors in parts]

    def tensors(self) -> list[Tensor]:
        """Return the tensors that are not None."""
        return [part for part in self if part is not None]

    def with_tensors(self, tensors: list[Tensor]) -> Self:
        """Replace the tensors that are not None."""
        rest = iter(tensors)
        parts: list[Any] = [None if part is None else next(rest) for part in self]
        return type(self)(*parts)
