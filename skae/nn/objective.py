"""The interface between modules and the training loop."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from skae.nn.batch import Batch
from skae.nn.draws import Draws


class Objective(nn.Module, ABC):
    """Base of modules that compute a loss for each row, and by `forward` one for a batch.

    Only training calls `forward`. For a call with other arguments, it raises a TypeError that names
    the methods that encode and decode rows.

    Parameters
    ----------
    trim : float
        Share of the weight of each batch that the loss of the batch ignores. The rows with the
        largest losses are ignored.
    """

    def __init__(self, trim: float) -> None:
        super().__init__()
        self.trim = trim

    @abstractmethod
    def losses(self, draws: Draws | None, batch: Batch) -> Tensor:
        """Compute the loss of each row, (n,), with random numbers from `draws`."""

    def reduce(self, losses: Tensor, weight: Tensor) -> Tensor:
        """Reduce the losses (n,) of rows with weights (n,) to one number."""
        return trimmed_mean(losses, weight, self.trim)

    def forward(self, draws: Draws | None = None, batch: Batch | None = None) -> Tensor:
        if not isinstance(batch, Batch):
            raise TypeError(
                "Calling the network computes the training objective of a Batch. Use the "
                "estimator's methods transform, inverse_transform and reconstruct for rows. The "
                "parts of the network are module_.inputs, module_.encoder, module_.latent, "
                "module_.decoder and module_.likelihood."
            )
        return self.reduce(self.losses(draws, batch), batch.weight)

    @abstractmethod
    def penalized(self) -> list[Tensor]:
        """Return the weights to which weight decay applies."""

    def raise_noise(self) -> bool:
        """Raise a trained noise variance, before the first step, to one that training can start at.

        A module that has been trained, or whose noise variance is not trained, does nothing. Return
        whether the noise variance was raised.
        """
        return False

    def after_step(self, draws: Draws, batch: Batch) -> None:
        """Update parameters that have no gradients, after a step on this batch."""
        return


def trimmed_mean(losses: Tensor, weight: Tensor, trim: float) -> Tensor:
    """Compute the weighted mean of losses without the largest ones.

    The ignored losses have a share `trim` of the total weight. A row at the threshold keeps part of
    its weight, so that a row with weight 2 has the same effect as two equal rows.
    """
    if trim > 0:
        order = losses.detach().argsort()
        losses, weight = losses[order], weight[order]
        kept = (1 - trim) * weight.sum()
        weight = torch.minimum(weight, (kept - (weight.cumsum(0) - weight)).clamp_min(0))
        return (losses * weight).sum() / weight.sum()
    # Weights have mean 1 over all training rows, so the gradient of a batch is unbiased if the sum
    # is divided by the number of rows, not by their weight.
    return (losses * weight).mean()
