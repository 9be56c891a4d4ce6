"""What the training loop trains."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from skae.nn.batch import Batch
from skae.nn.draws import Draws


class Objective(nn.Module, ABC):
    """A module that states what each row costs; `forward` is the number to minimise on a batch.

    Parameters
    ----------
    trim : float
        Share of each batch's weight, its worst rows, that the loss ignores.
    """

    def __init__(self, trim: float) -> None:
        super().__init__()
        self.trim = trim

    @abstractmethod
    def losses(self, draws: Draws | None, batch: Batch) -> Tensor:
        """Cost of each row, (n,); what is random in it is drawn."""

    def reduce(self, losses: Tensor, weight: Tensor) -> Tensor:
        """Rows' losses as one number."""
        return trimmed_mean(losses, weight, self.trim)

    def forward(self, draws: Draws | None, batch: Batch) -> Tensor:
        return self.reduce(self.losses(draws, batch), batch.weight)

    @abstractmethod
    def penalized(self) -> list[Tensor]:
        """The weights that weight decay acts on."""

    def after_step(self, draws: Draws, batch: Batch) -> None:
        """Learn from the batch of the last step what its gradients do not tell."""
        return


def trimmed_mean(losses: Tensor, weight: Tensor, trim: float) -> Tensor:
    """Weighted mean of row losses without the worst `trim` share of the total weight.

    A row at the border keeps part of its weight, so that weighting a row equals repeating it.
    """
    if trim > 0:
        order = losses.detach().argsort()
        losses, weight = losses[order], weight[order]
        kept = (1 - trim) * weight.sum()
        weight = torch.minimum(weight, (kept - (weight.cumsum(0) - weight)).clamp_min(0))
        return (losses * weight).sum() / weight.sum()
    # Weights have mean 1 over all training rows: a batch mean is then an unbiased gradient.
    return (losses * weight).mean()
