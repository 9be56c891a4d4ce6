"""What every density of rows answers, and how many rows it takes at once."""

from typing import Any, Protocol, Self

from torch import Tensor

from skae.nn.draws import Draws
from skae.nn.likelihoods.gaussian import Likelihood
from skae.nn.network import Network

CELLS = 2**22
"""Cells of rows, or of hidden units, that are computed with at once."""

CODES_AT_ONCE = 256
"""Codes of a row that are drawn at once: their number decides the draws, not the other rows."""


class Density(Protocol):
    """The distribution of codes and rows that a fit leaves."""

    likelihood: Likelihood

    @classmethod
    def estimate(cls, network: Network, x: Tensor, weight: Tensor, held_out: Tensor) -> Self:
        """Learn what the network does not tell from rows (n, n_features) in a random order.

        `weight` (n,) says how often each counts, `held_out` (n,) which the network has not seen.
        """

    @classmethod
    def restore(cls, network: Network, likelihood: Likelihood, tensors: dict[str, Tensor]) -> Self:
        """The density that `tensors` came from."""

    def tensors(self) -> dict[str, Tensor]:
        """What `restore` takes, beside the likelihood."""

    def log_prob(self, network: Network, x: Tensor) -> Tensor:
        """Log-density of rows (n, n_features) in nats, shape (n,), float64."""

    def draw_codes(self, network: Network, n: int, draws: Draws) -> Tensor:
        """Codes (n, k) as the model has them before it sees a row."""

    def blend(self, new: Any, share: float) -> Self:
        """The mixture of this density and a `share` of a new one."""

    def is_finite(self) -> bool:
        """Whether its numbers are all finite."""


def row_blocks(network: Network, x: Tensor, times: int) -> tuple[Tensor, ...]:
    """Rows in parts that can be computed with so many times at once."""
    cells = min(times, CODES_AT_ONCE) * max(x.shape[1], network.decoder.n_hidden)
    return x.split(max(1, CELLS // cells))
