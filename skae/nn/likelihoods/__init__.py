"""Likelihoods: distributions of rows given the output of the decoder."""

from collections.abc import Sequence

from skae.nn.likelihoods.base import Likelihood
from skae.nn.likelihoods.bernoulli import Bernoulli
from skae.nn.likelihoods.blocks import Blocks
from skae.nn.likelihoods.categorical import Categorical
from skae.nn.likelihoods.gaussian import Gaussian

OF_NUMBERS: dict[str, type[Likelihood]] = {"gaussian": Gaussian, "bernoulli": Bernoulli}
"""Likelihoods of columns of numbers, by name."""

LIKELIHOODS: dict[str, type[Likelihood]] = OF_NUMBERS | {"categorical": Categorical}

PADDING = 4
"""Largest ratio of the places of a table of logits to the logits of categorical columns."""


def make_likelihood(
    name: str, n_columns: int, noise: str | float, trains_noise: bool = False
) -> Likelihood:
    """Create the likelihood of a table of numbers that is registered under `name`."""
    return OF_NUMBERS[name](n_columns, noise, trains_noise)


def make_blocks(
    names: Sequence[str], n_levels: Sequence[int], noise: str | float, trains_noise: bool
) -> Likelihood:
    """Create the likelihood of a table whose columns have different kinds.

    Parameters
    ----------
    names : sequence of str
        Name of the likelihood of each modelled column. Columns of the same likelihood are adjacent.
    n_levels : sequence of int
        Number of levels of each modelled column, which is 0 for numbers. Those of categorical
        columns are in increasing order.
    noise, trains_noise : str or float, and bool
        See `Likelihood`.
    """
    parts: list[Likelihood] = []
    for name in dict.fromkeys(names):
        own = [n for n, other in zip(n_levels, names, strict=True) if other == name]
        if name == "categorical":
            parts += [Categorical(run) for run in _runs(own)]
        elif name == "gaussian":
            parts.append(Gaussian(len(own), noise, trains_noise, own_scales=True))
        else:
            parts.append(make_likelihood(name, len(own), noise, trains_noise))
    return parts[0] if len(parts) == 1 else Blocks(parts)


def _runs(n_levels: Sequence[int]) -> list[list[int]]:
    """Divide increasing numbers of levels into runs, whose tables have few empty places."""
    runs: list[list[int]] = []
    for n in n_levels:
        run = runs[-1] if runs else []
        if run and (len(run) + 1) * n <= PADDING * (sum(run) + n):
            run.append(n)
        else:
            runs.append([n])
    return runs
