"""Corruptions of the encoder's input on training batches."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from skae.nn.pca import Table, column_moments, row_blocks

Corruption = Callable[[Tensor, torch.Generator], Tensor]
"""Function of rows (n, d) in the user's units and a generator that returns corrupted rows."""


class ColumnStatistics:
    """Statistics that corruptions need: standard deviations and ranges of columns, shape of a row.

    Parameters
    ----------
    x : Table of shape (n, d)
        Rows of the table.
    weight : Tensor of shape (n,)
        Weights of the rows.
    like : Tensor
        Tensor with the device and the dtype of the rows to corrupt.
    shape : tuple of int
        Shape of a row: channels, height and width of an image. Other corruptions do not use it.
    n_levels : sequence of int
        Number of levels of each column, which is 0 for numbers. It is empty if there are numbers
        only.
    """

    def __init__(
        self,
        x: Table,
        weight: Tensor,
        like: Tensor,
        shape: tuple[int, ...] = (),
        n_levels: Sequence[int] = (),
    ) -> None:
        self.shape = shape
        kinds = torch.tensor([n == 0 for n in n_levels], device=like.device)
        self.is_number = kinds if any(n_levels) else None
        self.deviation = column_moments(x, weight).variance.sqrt().to(like)
        ranges = [x[block].aminmax(dim=0) for block in row_blocks(x)]
        self.low = torch.stack([part.min for part in ranges]).amin(0).to(like)
        self.high = torch.stack([part.max for part in ranges]).amax(0).to(like)


def gaussian(
    x: Tensor, generator: torch.Generator, level: float, table: ColumnStatistics
) -> Tensor:
    """Add normal noise with `level` times the standard deviation of the column."""
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    return x + level * table.deviation * noise


def masking(x: Tensor, generator: torch.Generator, level: float, table: ColumnStatistics) -> Tensor:
    """Set each cell with probability `level` to 0, clipped to the range of its column."""
    return torch.where(_random_mask(x, generator, level), _blank(table), x)


def salt_and_pepper(
    x: Tensor, generator: torch.Generator, level: float, table: ColumnStatistics
) -> Tensor:
    """Set each cell with probability `level` to the smallest or the largest value of its column.

    Both values have the same probability.
    """
    extreme = torch.where(_random_mask(x, generator, 0.5), table.high, table.low)
    return torch.where(_random_mask(x, generator, level), extreme, x)


def swap(x: Tensor, generator: torch.Generator, level: float, table: ColumnStatistics) -> Tensor:
    """Set each cell with probability `level` to the value of its column in another row.

    The other row is drawn from the rows in `x`.
    """
    n = len(x)
    away = torch.randint(1, max(n, 2), x.shape, generator=generator, device=x.device)
    other = (torch.arange(n, device=x.device)[:, None] + away) % n
    return torch.where(_random_mask(x, generator, level), x.gather(0, other), x)


def grayscale(
    x: Tensor, generator: torch.Generator, level: float, table: ColumnStatistics
) -> Tensor:
    """Set all channels of each pixel to their mean, which removes colors. `level` is not used."""
    images = x.reshape(-1, *table.shape)
    return images.mean(1, keepdim=True).expand_as(images).reshape(x.shape)


def downsampling(
    x: Tensor, generator: torch.Generator, level: float, table: ColumnStatistics
) -> Tensor:
    """Average two by two pixels, and enlarge the result bilinearly to the original size.

    `level` is not used.
    """
    images = x.reshape(-1, *table.shape)
    _, height, width = table.shape
    small = F.adaptive_avg_pool2d(images, (max(1, height // 2), max(1, width // 2)))
    return F.interpolate(small, table.shape[1:], mode="bilinear").reshape(x.shape)


def block(x: Tensor, generator: torch.Generator, level: float, table: ColumnStatistics) -> Tensor:
    """Set a square at a random place in each image to 0, clipped to the ranges of the columns.

    The side of the square is `level` times the shorter side of the image, and at least one pixel.
    """
    _, height, width = table.shape
    side = max(1, round(level * min(height, width)))
    rows, columns = (_span(size, side, len(x), generator, x.device) for size in (height, width))
    inside = rows[:, None, :, None] & columns[:, None, None, :]
    return torch.where(inside.expand(-1, *table.shape).reshape(x.shape), _blank(table), x)


def _span(size: int, side: int, n: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Draw a mask (n, size) of an interval of length `side` with a random start."""
    first = torch.randint(size - side + 1, (n, 1), generator=generator, device=device)
    place = torch.arange(size, device=device)
    return (first <= place) & (place < first + side)


def _blank(table: ColumnStatistics) -> Tensor:
    """Return 0 for each column, clipped to its range."""
    return torch.zeros_like(table.low).clamp(table.low, table.high)


def _random_mask(x: Tensor, generator: torch.Generator, share: float) -> Tensor:
    """Draw a mask with the shape of `x` whose entries are True with probability `share`."""
    uniform = torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    return uniform < share


CORRUPTIONS: dict[str, Callable[[Tensor, torch.Generator, float, ColumnStatistics], Tensor]] = {
    function.__name__: function
    for function in (gaussian, masking, salt_and_pepper, swap, grayscale, downsampling, block)
}

WITHOUT_SHARE = {"gaussian", "grayscale", "downsampling"}
"""Corruptions whose level may exceed 1, because it is not a share, or that have no level."""

EXCHANGED: dict[str, Callable[[float], float]] = {
    "gaussian": lambda level: level**2 / (1 + level**2),
    "salt_and_pepper": lambda level: level,
}
"""Probability with which corruptions of numbers exchange a category with that of another row. For
"gaussian", it is the share of the noise in the variance of a corrupted number."""

FOR_IMAGES = {"grayscale", "downsampling", "block"}
"""Corruptions of images."""


class NamedCorruption:
    """Corruption with a name, for the rows of one table.

    Parameters
    ----------
    name : str
        A key of `CORRUPTIONS`.
    level : float
        Expected share of cells to corrupt. For "gaussian", it is the standard deviation of the
        noise in standard deviations of the column. For "block", it is the side of the square as a
        share of the image's shorter side. "grayscale" and "downsampling" do not use it.
    table : ColumnStatistics
        Statistics of the table.

    Raises
    ------
    ValueError
        If a share exceeds 1, or if a corruption of images gets rows that are not images.
    """

    def __init__(self, name: str, level: float, table: ColumnStatistics) -> None:
        if name not in WITHOUT_SHARE and level > 1:
            raise ValueError(
                "corruption_level must be at most 1, the share of cells that "
                f"corruption={name!r} changes, got {level}."
            )
        if name in FOR_IMAGES and len(table.shape) != 3:
            raise ValueError(
                f"corruption={name!r} is for images and needs feature_shape=(channels, height, "
                "width)."
            )
        self.name, self.level, self.table = name, level, table

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        corrupted = CORRUPTIONS[self.name](x, generator, self.level, self.table)
        if self.table.is_number is None or self.name not in EXCHANGED:
            return corrupted
        exchanged = swap(x, generator, EXCHANGED[self.name](self.level), self.table)
        return torch.where(self.table.is_number, corrupted, exchanged)

    def of_codes(self, x: Tensor, weight: Tensor) -> "NamedCorruption | None":
        """Return the same corruption for codes `x` (n, k) of rows with weights (n,).

        It returns None for corruptions of images.
        """
        if self.name in FOR_IMAGES:
            return None
        return NamedCorruption(self.name, self.level, ColumnStatistics(x, weight, like=x))
