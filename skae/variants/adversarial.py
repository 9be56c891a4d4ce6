"""The adversarial autoencoder: a judge cannot tell codes from draws of a normal distribution."""

from numbers import Real
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from skae._compat.sklearn import Interval
from skae.base import BaseAutoencoder
from skae.nn.bodies.layers import dense_chain
from skae.nn.draws import Draws
from skae.nn.latent import Code, Encode, Latent, Standardized
from skae.state import TableInfo

JUDGE = (64, 64)
"""Widths of the judge's hidden layers."""


class Adversarial(Standardized):
    """Codes that pay for being told from standard normal draws by a judge who learns with them."""

    def __init__(self, n_components: int, penalty_weight: float) -> None:
        super().__init__(n_components, penalty_weight)
        self.judge = dense_chain([n_components, *JUDGE, 1], "silu")

    def start_from(self, h: Tensor, weight: Tensor, generator: torch.Generator) -> None:
        self.judge.reset(generator)

    def penalty(
        self, code: Code, x: Tensor, encode: Encode, weight: Tensor, draws: Draws | None
    ) -> Tensor | float:
        # The judge changes while it learns, so that it cannot rank epochs: validation rows rank
        # reconstructions only.
        if not self.training:
            return 0.0
        fixed = {name: p.detach() for name, p in self.judge.named_parameters()}
        verdict = torch.func.functional_call(self.judge, fixed, code.z)[:, 0]
        penalty = self.penalty_weight * F.softplus(-verdict)
        if draws is None:
            return penalty
        taken = self.judge(code.z.detach())[:, 0]
        given = self.judge(draws.normal(code.z.shape))[:, 0]
        lesson = weight @ F.softplus(taken) / weight.sum() + F.softplus(-given).mean()
        # The judge learns from its lesson, which is no part of what the codes cost.
        return penalty + (lesson - lesson.detach())


class AdversarialAutoencoder(BaseAutoencoder):
    """Autoencoder whose codes a judge cannot tell from draws of the standard normal distribution.

    While the autoencoder trains, a small network, the judge, learns to tell codes of rows from
    draws of the prior, and codes pay for being recognised [1]_. Where the judge can only guess,
    codes follow the prior, and draws from it decode to rows like those that were seen. Judge and
    autoencoder take their steps at once. Training starts at PCA's codes, scaled to variance 1.

    Parameters
    ----------
    prior_weight : float, default=3.0
        Price of the judge's verdict: minus the log-odds, softened, that a code is a draw. Codes
        that follow the prior cost log 2 = 0.69 times that.

    References
    ----------
    .. [1] A. Makhzani, J. Shlens, N. Jaitly and I. Goodfellow, "Adversarial autoencoders", ICLR
       workshop, 2016.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import AdversarialAutoencoder
    >>> X = load_digits().data
    >>> adversarial = AdversarialAutoencoder(4, max_epochs=20, random_state=0).fit(X)
    >>> codes = adversarial.transform(X)
    >>> bool(abs(codes.std(axis=0) - 1).max() < 0.3)
    True
    >>> adversarial.sample(3, random_state=0).shape
    (3, 64)
    """

    prior_weight: float = 3.0

    _parameter_constraints: ClassVar = {
        "prior_weight": [Interval(Real, 0, None, closed="left")],
    }

    def _make_latent(self, n_components: int, table: TableInfo) -> Latent:
        return Adversarial(n_components, self.prior_weight)
