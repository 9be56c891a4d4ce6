"""The interface of densities of rows, and the evaluation of many rows in blocks."""

from collections.abc import Callable
from typing import ClassVar, Protocol, Self

import torch
from torch import Tensor

from skae.nn.batch import Batch
from skae.nn.draws import Draws
from skae.nn.likelihoods.base import Likelihood
from skae.nn.network import Network

MAX_CELLS = 2**20
"""Largest number of cells, or of hidden units, for one block of rows, counted over all codes
that are decoded at once. It limits the memory. Blocks four times as large take up to 1.6 times as
long, because they do not fit into the processor's cache."""

CODES_AT_ONCE = 256
"""Largest number of codes of a row that are drawn or decoded at once. It does not depend on the
number of rows, so that the codes drawn for a row do not depend on the other rows."""


class Density(Protocol):
    """Distribution of codes and rows under a fitted network.

    Attributes
    ----------
    likelihood : Likelihood
        Distribution of a row given its code, whose noise is not trained.
    """

    min_validation_rows: ClassVar[int] = 1
    """Smallest number of validation rows that estimate the noise."""

    likelihood: Likelihood

    @classmethod
    def estimate(
        cls, network: Network, likelihood: Likelihood, batch: Batch, held_out: Tensor
    ) -> Self:
        """Estimate the noise and the distribution of codes, unless they are known or fixed.

        Parameters
        ----------
        network : Network
            Trained network.
        likelihood : Likelihood
            Likelihood of the network, or the same likelihood with a known noise variance.
        batch : Batch
            Rows in random order.
        held_out : Tensor of shape (n,), bool
            Whether each row is a validation row, on which the network was not trained.
        """

    @classmethod
    def restore(cls, network: Network, likelihood: Likelihood, tensors: dict[str, Tensor]) -> Self:
        """Return the density with this likelihood and the parameters `tensors`.

        Raises ValueError if they are not the parameters of a density of the network.
        """

    def tensors(self) -> dict[str, Tensor]:
        """Return the parameters by name, without those of the likelihood."""

    def log_prob(self, network: Network, batch: Batch) -> Tensor:
        """Compute the log-density of rows in nats, shape (n,), float64."""

    def mode(self, network: Network, batch: Batch) -> Tensor:
        """Return the most probable codes (n, k) of rows, given their observed cells."""

    def draw_posterior(self, network: Network, batch: Batch, n: int, draws: Draws) -> Tensor:
        """Draw `n` codes (n, n_rows, k) for each row from their posterior distribution."""

    def draw_codes(self, network: Network, n: int, draws: Draws) -> Tensor:
        """Draw codes (n, k) from the prior, where k is the latent's `n_outputs`."""

    def is_finite(self) -> bool:
        """Return whether all parameters are finite."""


def map_blocks(
    function: Callable[[Batch], Tensor], network: Network, batch: Batch, n_codes: int
) -> Tensor:
    """Apply a function to blocks of rows that fit into memory, and concatenate the results.

    Parameters
    ----------
    function : callable
        Function of a batch of n rows that returns a tensor of shape (n, ...). It decodes `n_codes`
        codes for each row, at most `CODES_AT_ONCE` of them at once.
    network : Network
        Network that decodes the codes.
    batch : Batch
        All rows.
    n_codes : int
        Number of codes of each row.

    Returns
    -------
    result : Tensor of shape (n_rows, ...)
        Values of the function.
    """
    width = max(network.inputs.n_outputs, network.decoder.n_hidden)
    cells = min(n_codes, CODES_AT_ONCE) * width
    return torch.cat([function(rows) for rows in batch.split(max(1, MAX_CELLS // cells))])
