"""Judges: networks that learn to tell from codes what these are to hide."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from skae.nn.layers import Chain, dense_chain

PANEL, WIDTHS = 4, (64, 64)
"""Judges, and the widths of their hidden layers: one alone has blind spots."""

PACE = 3.0
"""How much faster than other weights the judges' move: codes change, and they are to keep up."""

LEAST_SPREAD = 1e-6
"""Variance of given numbers, in squared half ranges, below which all count as equal."""


class Panel(nn.Module):
    """Judges of given cells, each on its own.

    Parameters
    ----------
    n_inputs : int
        Numbers of a code.
    widths : sequence of int
        Cells of each given column: its categories, or 1 where it holds numbers.
    """

    judges: Sequence[Chain]

    def __init__(self, n_inputs: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.widths = [*widths]
        sizes = [n_inputs, *WIDTHS, sum(widths)]
        self.judges = nn.ModuleList([dense_chain(sizes, "silu") for _ in range(PANEL)])  # type: ignore[assignment]

    @torch.no_grad()
    def reset(self, generator: torch.Generator) -> None:
        """Draw the judges' weights; at first, all guess that all categories are equally likely."""
        for judge in self.judges:
            judge.reset(generator)
            judge.start_at_zero()
            for p in judge.parameters():
                p.div_(PACE)

    def forward(self, z: Tensor, given: Tensor, weight: Tensor, learns: bool) -> Tensor:
        """Nats (n,) that judges lack to tell rows' given cells (n, m) from codes (..., n, k).

        A mean over judges and codes. Only where the panel `learns` does a gradient reach it.
        """
        total = z.new_zeros(len(given))
        for judge in self.judges:
            weights = {
                name: PACE * (p if learns else p.detach()) for name, p in judge.named_parameters()
            }
            guesses = functional_call(judge, weights, z).split(self.widths, -1)
            for guess, truth in zip(guesses, given.split(self.widths, -1), strict=True):
                if truth.shape[1] == 1:
                    spread = (weight @ truth**2 / weight.sum()).clamp_min(LEAST_SPREAD)
                    lack = 0.5 * ((guess - truth) ** 2 / spread).sum(-1)
                else:
                    is_it = (truth == truth.amax(-1, keepdim=True)).to(guess.dtype)
                    lack = -(is_it * guess.log_softmax(-1)).sum(-1)
                total = total + lack.reshape(-1, len(given)).mean(0)
        return total / len(self.judges)
