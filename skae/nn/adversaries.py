"""Judges: networks that learn to tell from codes what these are to hide."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PANEL, WIDTHS = 4, (64, 64)
"""Judges, and the widths of their hidden layers: one alone has blind spots."""

PACE = 3.0
"""How much faster than other weights the judges' move: codes change, and they are to keep up."""

MISLED = 2.0
"""Nats that judges may lack beyond ignorance before a code gains no more by it."""

LEAST_SPREAD = 1e-6
"""Variance of given numbers, in squared half ranges, below which all are taken as equal."""


class Adversaries(nn.Module):
    """Judges of given cells, each on its own.

    Parameters
    ----------
    n_inputs : int
        Numbers of a code.
    widths : sequence of int
        Cells of each given column: its categories, or 1 where it holds numbers.
    """

    def __init__(self, n_inputs: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.widths = [*widths]
        sizes = [n_inputs, *WIDTHS, sum(widths)]
        pairs = [*pairwise(sizes)]
        self.weights = nn.ParameterList([torch.empty(PANEL, *pair) for pair in pairs])
        self.biases = nn.ParameterList([torch.empty(PANEL, 1, n_out) for _, n_out in pairs])

    @torch.no_grad()
    def reset(self, generator: torch.Generator) -> None:
        """Draw the judges' weights; at first, all guess that all categories are equally likely."""
        for weight, bias in zip(self.weights, self.biases, strict=True):
            noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
            weight.copy_(noise / (PACE * math.sqrt(weight.shape[1])))
            bias.zero_()
        self.weights[-1].zero_()

    def guesses(self, z: Tensor, learns: bool) -> tuple[Tensor, ...]:
        """What each judge makes of codes (m, k), for each given column (PANEL, m, its width)."""
        x = z.expand(PANEL, *z.shape)
        for i, layer in enumerate(zip(self.weights, self.biases, strict=True)):
            weight, bias = (PACE * (p if learns else p.detach()) for p in layer)
            x = torch.baddbmm(bias, F.silu(x) if i else x, weight)
        return x.split(self.widths, -1)

    def forward(self, z: Tensor, given: Tensor, weight: Tensor, learns: bool) -> Tensor:
        """Nats (n,) that judges lack to tell rows' given cells (n, m) from codes (..., n, k).

        A mean over judges and codes. A panel that `learns` gets a gradient. Of one that does not,
        at most `MISLED` nats count beyond what knowing only the distribution of all rows lacks: a
        code is to leave judges ignorant, and would else gain without end by misleading them.
        """
        total = z.new_zeros(len(given))
        guesses = self.guesses(z.reshape(-1, z.shape[-1]), learns)
        for guess, cells in zip(guesses, given.split(self.widths, -1), strict=True):
            lack, ignorance = _lack(guess.reshape(-1, *cells.shape), cells, weight)
            if not learns:
                lack = lack.minimum(ignorance + MISLED)
            total = total + lack.mean(0)
        return total


def _lack(guess: Tensor, cells: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Nats that guesses (..., n, m) of a given column lack, and those that ignorance of it does."""
    share = weight / weight.sum()
    if cells.shape[1] == 1:
        number = cells[:, 0]
        spread = share @ number**2
        spread = torch.where(spread > LEAST_SPREAD, spread, 1.0)
        return 0.5 * (guess[..., 0] - number) ** 2 / spread, 0.5 * number**2 / spread
    is_it = (cells == cells.amax(-1, keepdim=True)).to(cells.dtype)
    return -(is_it * guess.log_softmax(-1)).sum(-1), -(is_it @ (share @ is_it)).log()
