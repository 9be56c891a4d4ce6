"""One-hot encoding of the cells of rows whose columns are numbers or categories."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class OneHot(nn.Module):
    """Module that encodes cells: a number stays a number, and a category becomes one-hot.

    The cell of a category is the index of its level. A missing cell is NaN. Numbers that are
    missing stay NaN, and all numbers of the one-hot code of a missing category are 0.

    Parameters
    ----------
    n_levels : sequence of int
        Number of levels of each column, which is 0 for a column of numbers.

    Attributes
    ----------
    widths : list of int
        Number of encoded columns of each column.
    n_outputs : int
        Number of all encoded columns.
    n_categories : int
        Number of columns of categories.
    """

    column: Tensor
    level: Tensor
    is_category: Tensor

    def __init__(self, n_levels: Sequence[int]) -> None:
        super().__init__()
        self.widths = [max(1, n) for n in n_levels]
        self.n_outputs = sum(self.widths)
        self.n_categories = sum(n > 0 for n in n_levels)
        widths = torch.tensor(self.widths, dtype=torch.long, device="cpu")
        column = torch.arange(len(widths), device="cpu").repeat_interleave(widths)
        first = (widths.cumsum(0) - widths).repeat_interleave(widths)
        level = torch.arange(self.n_outputs, device="cpu") - first
        is_category = torch.tensor([n > 0 for n in n_levels], dtype=torch.bool, device="cpu")
        # The buffers are made on the CPU, since they are also read where networks are only shapes.
        self.register_buffer("column", column, persistent=False)
        self.register_buffer("level", level, persistent=False)
        self.register_buffer("is_category", is_category[column], persistent=False)

    def forward(self, cells: Tensor) -> Tensor:
        """Encode cells (..., n_columns) to columns (..., n_outputs)."""
        if not self.n_categories:
            return cells
        spread = self.spread(cells)
        is_level = (spread == self.level.to(cells.device)).to(cells.dtype)
        return torch.where(self.is_category.to(cells.device), is_level, spread)

    def spread(self, values: Tensor) -> Tensor:
        """Repeat values (..., n_columns) of columns for each of their encoded columns."""
        if not self.n_categories:
            return values
        return values.index_select(-1, self.column.to(values.device))
