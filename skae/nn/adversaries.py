"""Adversaries: small networks that learn to predict sensitive columns from codes."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

N_ADVERSARIES = 4
"""Number of adversaries. A code can mislead a single network more easily than several."""

HIDDEN_WIDTHS = (64, 64)
"""Number of units in each hidden layer of an adversary."""

WEIGHT_FACTOR = 3.0
"""Factor by which the stored weights and biases are multiplied before use. One optimizer step
changes these weights this many times as much as other weights, so that the adversaries keep up with
the changing codes."""

MAX_EXCESS_LOSS = 2.0
"""Limit of the loss of an adversary in one sensitive column, in nats above the baseline. A larger
loss counts as this one in the penalty on codes. Without a limit, codes could improve their
objective forever by misleading the adversaries."""

MIN_VARIANCE = 1e-6
"""Variance in a batch, in squared half ranges of the column, up to which a sensitive column of
numbers is treated as constant. Its losses are then not divided by the variance."""


class Adversaries(nn.Module):
    """`N_ADVERSARIES` independent networks that predict sensitive columns of rows from their codes.

    Parameters
    ----------
    n_inputs : int
        Number of components of a code.
    widths : sequence of int
        Number of cells that encode each sensitive column: the number of categories, or 1 for a
        column of numbers.
    """

    def __init__(self, n_inputs: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.widths = [*widths]
        sizes = [n_inputs, *HIDDEN_WIDTHS, sum(widths)]
        pairs = [*pairwise(sizes)]
        # These attribute names are keys in saved files.
        self.weights = nn.ParameterList([torch.empty(N_ADVERSARIES, *pair) for pair in pairs])
        self.biases = nn.ParameterList([torch.empty(N_ADVERSARIES, 1, n_out) for _, n_out in pairs])

    @torch.no_grad()
    def reset(self, generator: torch.Generator) -> None:
        """Draw the initial weights. The last layer is zero: all categories are equally likely."""
        for weight, bias in zip(self.weights, self.biases, strict=True):
            noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
            weight.copy_(noise / (WEIGHT_FACTOR * math.sqrt(weight.shape[1])))
            bias.zero_()
        self.weights[-1].zero_()

    def predict(self, z: Tensor, train: bool) -> tuple[Tensor, ...]:
        """Compute the outputs of all networks for codes.

        Parameters
        ----------
        z : Tensor of shape (n_codes, n_inputs)
            Codes.
        train : bool
            Whether gradients reach the weights of the networks.

        Returns
        -------
        predictions : tuple of Tensor of shape (N_ADVERSARIES, n_codes, width)
            For each sensitive column, with its width: logits of the categories, or predicted
            numbers.
        """
        x = z.expand(N_ADVERSARIES, *z.shape)
        for i, layer in enumerate(zip(self.weights, self.biases, strict=True)):
            weight, bias = (WEIGHT_FACTOR * (p if train else p.detach()) for p in layer)
            x = torch.baddbmm(bias, F.silu(x) if i else x, weight)
        return x.split(self.widths, -1)

    def forward(self, z: Tensor, conditions: Tensor, weight: Tensor, train: bool) -> Tensor:
        """Compute the adversaries' loss for each row, in nats.

        The loss is a sum over the sensitive columns and a mean over adversaries and codes.

        Parameters
        ----------
        z : Tensor of shape (..., n, n_inputs)
            One or several codes of each row.
        conditions : Tensor of shape (n, sum(widths))
            The encoded cells of the sensitive columns.
        weight : Tensor of shape (n,)
            Weights of the rows. They determine the variances and the shares of categories in the
            batch. The losses are not multiplied by them.
        train : bool
            True computes the loss that trains the adversaries. False computes the loss that the
            codes should increase: gradients do not reach the adversaries, and the loss in each
            column is limited to `MAX_EXCESS_LOSS` nats above that of a prediction without the code.

        Returns
        -------
        loss : Tensor of shape (n,)
        """
        total = z.new_zeros(len(conditions))
        predictions = self.predict(z.reshape(-1, z.shape[-1]), train)
        columns = conditions.split(self.widths, -1)
        for predicted, cells in zip(predictions, columns, strict=True):
            loss, baseline = _losses(predicted.reshape(-1, *cells.shape), cells, weight)
            if not train:
                loss = loss.minimum(baseline + MAX_EXCESS_LOSS)
            total = total + loss.mean(0)
        return total


def _losses(predicted: Tensor, cells: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the losses of predictions of one sensitive column, and those of a baseline, in nats.

    The loss is the cross-entropy for categories. For numbers, it is half the squared error, divided
    by the variance of the column in the batch, or by 1 if this is at most `MIN_VARIANCE`. This
    variance is the mean square of the cells, which are centered at their mean over training rows.

    Parameters
    ----------
    predicted : Tensor of shape (..., n, width)
        Logits of the categories, or predicted numbers if `width` is 1.
    cells : Tensor of shape (n, width)
        Encoded cells of the column.
    weight : Tensor of shape (n,)
        Weights of the rows.

    Returns
    -------
    loss : Tensor of shape (..., n)
        Losses of the predictions.
    baseline : Tensor of shape (n,)
        Losses of a prediction that does not depend on the code. It consists of the shares of the
        categories in the batch. For numbers, it is 0, their mean over the training rows.
    """
    share = weight / weight.sum()
    if cells.shape[1] == 1:
        number = cells[:, 0]
        variance = share @ number**2
        variance = torch.where(variance > MIN_VARIANCE, variance, 1.0)
        return 0.5 * (predicted[..., 0] - number) ** 2 / variance, 0.5 * number**2 / variance
    one_hot = (cells == cells.amax(-1, keepdim=True)).to(cells.dtype)
    return -(one_hot * predicted.log_softmax(-1)).sum(-1), -(one_hot @ (share @ one_hot)).log()
