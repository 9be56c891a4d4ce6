"""The Wasserstein autoencoder."""

from numbers import Real
from typing import ClassVar

import torch
from torch import Tensor

from skae._compat.sklearn import Interval
from skae.base import BaseAutoencoder
from skae.nn.draws import Draws
from skae.nn.latent import Code, Encode, Latent, Standardized
from skae.state import TableInfo

WIDTHS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Widths of the summed kernels, in units of the expected squared distance under the prior."""

MOMENTS = 0.01
"""Weight of an additional kernel for means and covariances, to which the others are insensitive."""


def kernels(a: Tensor, b: Tensor) -> Tensor:
    """Compute the summed kernels of all pairs of codes (n, k) and (m, k), of shape (n, m)."""
    products = a @ b.mT
    squares = a.square().sum(-1)[:, None] + b.square().sum(-1) - 2 * products
    wide = 2 * a.shape[-1] * torch.tensor(WIDTHS, dtype=a.dtype, device=a.device)
    quadrics = (wide / (wide + squares.clamp_min(0)[..., None])).sum(-1)
    return quadrics + MOMENTS * (products + products**2)


def discrepancy(z: Tensor, weight: Tensor, prior: Tensor) -> Tensor:
    """Estimate the squared maximum mean discrepancy of weighted codes and draws without bias."""
    share, one = weight / weight.sum(), torch.full_like(weight, 1 / len(weight))
    total = -2 * share @ kernels(z, prior) @ one
    for codes, mass in ((z, share), (prior, one)):
        pairs = torch.outer(mass, mass).fill_diagonal_(0)
        total = total + (pairs * kernels(codes, codes)).sum() / pairs.sum().clamp_min(1e-9)
    return total


class Matched(Standardized):
    """Codes with a penalty on the discrepancy of their distribution from the standard normal."""

    def penalty(
        self, code: Code, x: Tensor, encode: Encode, weight: Tensor, draws: Draws | None
    ) -> Tensor | float:
        # The discrepancy of the codes of a few validation rows is mostly noise.
        if draws is None or not self.training:
            return 0.0
        return self.penalty_weight * discrepancy(code.z, weight, draws.normal(code.z.shape))


class WassersteinAutoencoder(BaseAutoencoder):
    """Wasserstein autoencoder, whose codes follow the standard normal distribution.

    Each row has one deterministic code, as in a plain autoencoder. The penalty is the maximum mean
    discrepancy between the codes of a batch and as many draws of the prior [1]_. Its kernel is a
    sum of inverse multiquadrics of seven widths and, with a small weight, a polynomial that
    compares means and covariances. Draws of the prior can therefore be decoded to new rows.
    Training starts at PCA's codes, scaled to variance 1.

    Parameters
    ----------
    prior_weight : float, default=200.0
        Weight of the penalty, in nats for a squared discrepancy of 1. It must not be negative. With
        the default, codes of digits with two components are about as close to the prior as draws
        of it are.

    See Also
    --------
    AdversarialAutoencoder : Reaches the same goal with a discriminator.
    VariationalAutoencoder : Draws codes from a posterior instead.

    Notes
    -----
    Most users set only `n_components`, `prior_weight`, `max_epochs` and `random_state`. Increase
    `prior_weight` if rows from `sample` look unlike the training rows, and decrease it for a
    smaller reconstruction error.

    References
    ----------
    .. [1] I. Tolstikhin, O. Bousquet, S. Gelly and B. Schoelkopf, "Wasserstein auto-encoders",
       ICLR 2018.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import WassersteinAutoencoder
    >>> X = load_digits().data
    >>> wasserstein = WassersteinAutoencoder(4, max_epochs=10, random_state=0).fit(X)
    >>> codes = wasserstein.transform(X)
    >>> bool(abs(codes.mean(axis=0)).max() < 0.1)
    True
    >>> wasserstein.sample(3, random_state=0).shape
    (3, 64)
    """

    prior_weight: float = 200.0

    _parameter_constraints: ClassVar = {
        "prior_weight": [Interval(Real, 0, None, closed="left")],
    }

    def _make_latent(self, n_components: int, table: TableInfo) -> Latent:
        return Matched(n_components, self.prior_weight)
