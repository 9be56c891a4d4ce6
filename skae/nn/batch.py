"""Batches: cells of rows with their weights, masks and targets."""

from collections.abc import Callable
from typing import Any, NamedTuple, Self

from torch import Tensor


class Batch(NamedTuple):
    """Some rows of a table, with their weights, masks and targets.

    Missing cells are NaN in `x` and False in `observed`. Likelihoods use observed cells only.

    Attributes
    ----------
    x : Tensor of shape (n, n_columns)
        Input of the encoder, in the user's units: modelled columns, then conditions. The cell of a
        category is the index of its level.
    weight : Tensor of shape (n,)
        Weights of the rows.
    visible : Tensor of shape (n, n_columns), bool, or None
        Whether the encoder receives each cell. None if it receives all observed cells.
    observed : Tensor of shape (n, n_columns), bool, or None
        Whether each cell is observed. None if no cell of the table can be missing.
    clean : Tensor of shape (n, n_columns) or None
        Clean rows if `x` is a corrupted version of them. None if `x` is not corrupted.
    targets : Tensor of shape (n, m) or None
        Targets of the rows, 0 where missing. None if the table has no targets.
    target_weight : Tensor of shape (n, m) or (n, 1), or None
        Weights of the targets, 0 where missing. There is one column if the m values of a row encode
        one target, as a one-hot class does. None if the table has no targets.
    """

    x: Tensor
    weight: Tensor
    visible: Tensor | None = None
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

    def split(self, size: int | list[int]) -> list[Self]:
        """Split the rows into batches of at most `size` rows, or of the sizes in a list."""
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
