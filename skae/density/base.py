"""What every density of rows answers, and how many rows it takes at once."""

from collections.abc import Callable
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from skae.nn.batch import Batch
from skae.nn.draws import Draws
from skae.nn.likelihoods.base import Likelihood
from skae.nn.network import Network

CELLS = 2**22
"""Cells of rows, or of hidden units, that are computed with at once."""

CODES_AT_ONCE = 256
"""Codes of a row that are drawn at once: their number decides the draws, not the other rows."""


class Density(Protocol):
    """The distribution of codes and rows that a fit leaves; its likelihood is not trained."""

    likelihood: Likelihood

    @classmethod
    def estimate(cls, network: Network, batch: Batch, held_out: Tensor) -> Self:
        """Estimate the noise and the distribution of codes from rows in a random order.

        `held_out` (n,) says which rows the network has not seen.
        """

    @classmethod
    def restore(cls, network: Network, likelihood: Likelihood, tensors: dict[str, Tensor]) -> Self:
        """The density that `tensors` came from."""

    def tensors(self) -> dict[str, Tensor]:
        """What `restore` takes, beside the likelihood."""

    def log_prob(self, network: Network, batch: Batch) -> Tensor:
        """Log-density of rows in nats, shape (n,), float64."""

    def draw_codes(self, network: Network, n: int, draws: Draws) -> Tensor:
        """Codes (n, k) as the model has them before it sees a row."""

    def blend(self, new: Any, share: float) -> Self:
        """The mixture of this density and a `share` of a new one."""

    def is_finite(self) -> bool:
        """Whether its numbers are all finite."""


def by_blocks(
    function: Callable[[Batch], Tensor], network: Network, batch: Batch, times: int
) -> Tensor:
    """A function of rows, which it decodes so many times, of as many at once as memory allows."""
    cells = min(times, CODES_AT_ONCE) * max(network.inputs.n_outputs, network.decoder.n_hidden)
    return torch.cat([function(rows) for rows in batch.split(max(1, CELLS // cells))])
