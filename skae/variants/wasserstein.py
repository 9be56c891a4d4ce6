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
"""Widths of the summed kernels, in units of the expected squared distance of two draws of the
prior."""

MOMENTS = 0.01
"""Weight of an additional polynomial kernel, which compares means and covariances. The other
kernels become less sensitive to them as the number of components grows."""


def kernels(a: Tensor, b: Tensor) -> Tensor:
    """Compute the sum of the kernels for each pair of a row of `a` and a row of `b`.

    Parameters
    ----------
    a : Tensor of shape (n_a, n_components)
        Codes.
    b : Tensor of shape (n_b, n_components)
        Codes.

    Returns
    -------
    sums : Tensor of shape (n_a, n_b)
    """
    products = a @ b.mT
    squares = a.square().sum(-1)[:, None] + b.square().sum(-1) - 2 * products
    wide = 2 * a.shape[-1] * torch.tensor(WIDTHS, dtype=a.dtype, device=a.device)
    quadrics = (wide / (wide + squares.clamp_min(0)[..., None])).sum(-1)
    return quadrics + MOMENTS * (products + products**2)


def discrepancy(z: Tensor, weight: Tensor, prior: Tensor) -> Tensor:
    """Estimate the squared maximum mean discrepancy between codes and draws of the prior.

    The kernel is the sum that `kernels` computes. The estimate is unbiased and may therefore be
    negative.

    Parameters
    ----------
    z : Tensor of shape (n, n_components)
        Codes.
    weight : Tensor of shape (n,)
        Weights of the codes. Their sum may have any positive value.
    prior : Tensor of shape (n, n_components)
        Draws of the prior, as many as codes. They have equal weights.

    Returns
    -------
    discrepancy : Tensor of shape ()
        The estimate.
    """
    share, one = weight / weight.sum(), torch.full_like(weight, 1 / len(weight))
    total = -2 * share @ kernels(z, prior) @ one
    for codes, mass in ((z, share), (prior, one)):
        pairs = torch.outer(mass, mass).fill_diagonal_(0)
        total = total + (pairs * kernels(codes, codes)).sum() / pairs.sum().clamp_min(1e-9)
    return total


class Matched(Standardized):
    """Codes with a penalty on the discrepancy between their distribution and the standard normal.

    See `Standardized` for the parameters.
    """

    def penalty(
        self, code: Code, x: Tensor, encode: Encode, weight: Tensor, draws: Draws | None
    ) -> Tensor | float:
        # The discrepancy of the codes of a few validation rows would be mostly noise, so their
        # objective has no penalty.
        if draws is None or not self.training:
            return 0.0
        return self.penalty_weight * discrepancy(code.z, weight, draws.normal(code.z.shape))


class WassersteinAutoencoder(BaseAutoencoder):
    """Wasserstein autoencoder, whose codes are trained to follow the standard normal distribution.

    Each row has one deterministic code, as in a plain autoencoder. A penalty makes the codes of all
    rows together follow the prior, the standard normal distribution. Draws of the prior can
    therefore be decoded into new rows. The penalty is an unbiased estimate of the squared maximum
    mean discrepancy between the codes of a batch and as many draws of the prior [1]_. Its kernel is
    a sum of inverse multiquadrics of seven widths and, with a small weight, a polynomial that
    compares means and covariances. If `linear_skip` applies, training starts at PCA's codes, scaled
    to variance 1.

    Parameters
    ----------
    prior_weight : float, default=200.0
        Weight of the penalty: nats per row for a squared discrepancy of 1. It must not be negative.
        With the default, codes of scikit-learn's digits with two components are about as close to
        the prior as draws of the prior are to each other.

    See Also
    --------
    AdversarialAutoencoder : Reaches the same goal with a discriminator.
    VariationalAutoencoder : Draws codes from a posterior instead.

    Notes
    -----
    The selection of the epoch and the comparison with the initial weights, which `early_stopping`
    describes, use the likelihood of the reconstructions only. They do not use the penalty, because
    the discrepancy of few validation rows is mostly noise.

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
