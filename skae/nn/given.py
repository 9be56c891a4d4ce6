"""What is given of rows, not modelled: the last columns of a table, on a scale of their own."""

import torch
from torch import Tensor, nn

from skae.nn.bodies.layers import Dense
from skae.nn.linear import DistinctRows, Moments, Residuals, moments, row_blocks, slopes


class Given(nn.Module):
    """Puts given cells on a scale, and says how they shift the rows that an encoder sees.

    Any architecture can see them so: rows of different conditions are moved onto each other.

    Parameters
    ----------
    n_given, n_features : int
        Given and modelled cells of a row.
    is_seen : bool
        Whether the encoder is to see what is given.
    """

    center: Tensor
    scale: Tensor

    def __init__(self, n_given: int, n_features: int, is_seen: bool) -> None:
        super().__init__()
        self.shift = Dense(n_given, n_features) if is_seen else None
        self.register_buffer("center", torch.zeros(n_given))
        self.register_buffer("scale", torch.ones(n_given))

    def forward(self, told: Tensor) -> Tensor:
        """Given cells as networks take them: the mean is 0, and half the range is 1."""
        return (told - self.center) / self.scale

    @torch.no_grad()
    def start(self, x: DistinctRows, told: DistinctRows, weight: Tensor, at: Moments) -> Residuals:
        """What a linear map of the given cells leaves of rows; the encoder starts to see that."""
        self.center.copy_(moments(told, weight).center)
        low = torch.stack([told[block].amin(0) for block in row_blocks(told)]).amin(0)
        high = torch.stack([told[block].amax(0) for block in row_blocks(told)]).amax(0)
        self.scale.copy_(torch.where(high > low, (high - low) / 2, 1.0))
        center, scale = self.center.double().cpu(), self.scale.double().cpu()
        effect = slopes(x, at, told, center, scale, weight)
        if self.shift is not None:
            self.shift.weight.copy_(-effect / at.scale)
            self.shift.bias.zero_()
        return Residuals(x, told, center, scale, effect)
