"""Likelihoods: distributions of rows given the output of the decoder."""

from skae.nn.likelihoods.base import Likelihood
from skae.nn.likelihoods.bernoulli import Bernoulli
from skae.nn.likelihoods.gaussian import Gaussian

LIKELIHOODS: dict[str, type[Likelihood]] = {"gaussian": Gaussian, "bernoulli": Bernoulli}


def make_likelihood(
    name: str, n_columns: int, noise: str | float, trains_noise: bool = False
) -> Likelihood:
    """Create the likelihood that is registered under `name`."""
    return LIKELIHOODS[name](n_columns, noise, trains_noise)
