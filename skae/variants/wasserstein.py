"""The Wasserstein autoencoder: codes of all rows together follow a normal distribution."""

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
"""Widths of the kernels that are summed, in terms of the prior's expected squared distance."""

MOMENTS = 0.01
"""Weight of a kernel beside them that compares means and covariances, to which they are blunt."""


def kernels(a: Tensor, b: Tensor) -> Tensor:
    """The sum of kernels of all pairs of codes (n, k) and (m, k), shape (n, m)."""
    products = a @ b.mT
    squares = a.square().sum(-1)[:, None] + b.square().sum(-1) - 2 * products
    wide = 2 * a.shape[-1] * torch.tensor(WIDTHS, dtype=a.dtype, device=a.device)
    quadrics = (wide / (wide + squares.clamp_min(0)[..., None])).sum(-1)
    return quadrics + MOMENTS * (products + products**2)


def discrepancy(z: Tensor, weight: Tensor, prior: Tensor) -> Tensor:
    """Unbiased estimate of the squared maximum mean discrepancy of weighted codes and draws."""
    share, one = weight / weight.sum(), torch.full_like(weight, 1 / len(weight))
    total = -2 * share @ kernels(z, prior) @ one
    for codes, mass in ((z, share), (prior, one)):
        pairs = torch.outer(mass, mass).fill_diagonal_(0)
        total = total + (pairs * kernels(codes, codes)).sum() / pairs.sum().clamp_min(1e-9)
    return total


class Matched(Standardized):
    """Codes that pay for how far their distribution over rows is from the standard normal."""

    def penalty(
        self, code: Code, x: Tensor, encode: Encode, weight: Tensor, draws: Draws | None
    ) -> Tensor | float:
        # Held-out rows are few: how far their codes are from the prior is mostly chance.
        if draws is None or not self.training:
            return 0.0
        return self.penalty_weight * discrepancy(code.z, weight, draws.normal(code.z.shape))


class WassersteinAutoencoder(BaseAutoencoder):
    """Autoencoder whose codes, over all rows, follow the standard normal distribution.

    Each row has one code without noise, as in a plain autoencoder, while the distribution of all
    rows' codes is held to the prior by the maximum mean discrepancy between a batch's codes and as
    many draws [1]_. Its kernel is the sum of inverse multiquadrics of seven widths and, with a
    small weight, of a polynomial that compares means and covariances. Draws from the prior then
    decode to rows like those that were seen. Training starts at PCA's codes, scaled to variance 1.

    Parameters
    ----------
    prior_weight : float, default=200.0
        Price in nats of a squared discrepancy of 1.

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
