"""Judges: networks that learn to tell from codes what these are to hide."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.func import functional_call

from skae.nn.layers import Chain, dense_chain

PANEL, WIDTHS = 4, (64, 64)
"""Judges, and the widths of their hidden layers: one alone has blind spots."""

PACE = 3.0
"""How much faster than other weights the judges' move: codes change, and they are to keep up."""

MISLED = 2.0
"""Nats that judges may lack beyond ignorance before a code gains no more by it."""

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

        A mean over judges and codes. A panel that `learns` gets a gradient. Of one that does not,
        at most `MISLED` nats count beyond what knowing only the distribution of all rows lacks: a
        code is to leave judges ignorant, and would else gain without end by misleading them.
        """
        total = z.new_zeros(len(given))
        truths = [_Truth.of(cells, weight) for cells in given.split(self.widths, -1)]
        for judge in self.judges:
            weights = {
                name: PACE * (p if learns else p.detach()) for name, p in judge.named_parameters()
            }
            guesses = functional_call(judge, weights, z).split(self.widths, -1)
            for guess, truth in zip(guesses, truths, strict=True):
                lack = truth.lack(guess)
                if not learns:
                    lack = lack.minimum(truth.ignorance + MISLED)
                total = total + lack.reshape(-1, len(given)).mean(0)
        return total / len(self.judges)


class _Truth(NamedTuple):
    """One given column of rows: what it costs not to know it, and what guesses of it lack."""

    ignorance: Tensor
    lack: Callable[[Tensor], Tensor]

    @classmethod
    def of(cls, cells: Tensor, weight: Tensor) -> Self:
        share = weight / weight.sum()
        if cells.shape[1] == 1:
            number = cells[:, 0]
            spread = (share @ number**2).clamp_min(LEAST_SPREAD)
            return cls(
                0.5 * number**2 / spread, lambda guess: 0.5 * (guess[..., 0] - number) ** 2 / spread
            )
        is_it = (cells == cells.amax(-1, keepdim=True)).to(cells.dtype)
        return cls(
            -(is_it @ (share @ is_it)).log(),
            lambda guess: -(is_it * guess.log_softmax(-1)).sum(-1),
        )
