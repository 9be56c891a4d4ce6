"""The adversarial autoencoder."""

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

HIDDEN_WIDTHS = (64, 64)
"""Numbers of units in the hidden layers of the discriminator."""


class Adversarial(Standardized):
    """Codes that are trained such that a discriminator takes them for draws of the prior.

    The discriminator is trained together with the encoder. Its output is the log-odds that a vector
    is a draw of the prior rather than a code. See `Standardized` for the parameters.
    """

    def __init__(self, n_components: int, penalty_weight: float) -> None:
        super().__init__(n_components, penalty_weight)
        # The discriminator's attribute name is part of the keys in saved files.
        self.judge = dense_chain([n_components, *HIDDEN_WIDTHS, 1], "silu")

    def start_from(self, h: Tensor, weight: Tensor, generator: torch.Generator) -> None:
        self.judge.reset(generator)

    def penalty(
        self, code: Code, x: Tensor, encode: Encode, weight: Tensor, draws: Draws | None
    ) -> Tensor | float:
        # The discriminator changes during training, so the penalty cannot rank epochs. The
        # objective on validation rows does not contain it.
        if not self.training:
            return 0.0
        fixed = {name: p.detach() for name, p in self.judge.named_parameters()}
        log_odds = torch.func.functional_call(self.judge, fixed, code.z)[:, 0]
        penalty = self.penalty_weight * F.softplus(-log_odds)
        if draws is None:
            return penalty
        of_codes = self.judge(code.z.detach())[:, 0]
        of_prior = self.judge(draws.normal(code.z.shape))[:, 0]
        loss = weight @ F.softplus(of_codes) / weight.sum() + F.softplus(-of_prior).mean()
        # The last term trains the discriminator. Its value is 0, so it does not change the penalty.
        return penalty + (loss - loss.detach())


class AdversarialAutoencoder(BaseAutoencoder):
    """Adversarial autoencoder, whose codes are trained to follow the standard normal distribution.

    Each row has one deterministic code, as in a plain autoencoder. A small network, the
    discriminator, is trained to distinguish the codes of rows from draws of the prior, the standard
    normal distribution. The encoder is trained to produce codes that the discriminator takes for
    such draws [1]_. If even the best discriminator can only guess, the codes follow the prior, and
    draws of the prior can be decoded into new rows. Each training step updates the discriminator
    and the autoencoder. If `linear_skip` applies, training starts at PCA's codes,
    scaled to variance 1.

    Parameters
    ----------
    prior_weight : float, default=3.0
        Weight of the penalty of a code. The penalty is the negative logarithm of the probability,
        according to the discriminator, that the code is a draw of the prior, in nats. The weight
        must not be negative. If the discriminator can only guess, this probability is 1/2. The
        weighted penalty is then log(2) = 0.69 times `prior_weight`. With the default, this is about
        2 nats per row, a small part of the objective for most tables.

    See Also
    --------
    WassersteinAutoencoder : Reaches the same goal without a discriminator.
    VariationalAutoencoder : Draws codes from a posterior instead.

    Notes
    -----
    The discriminator has two hidden layers of 64 units each. It changes during training, so the
    penalty cannot rank epochs. The selection of the epoch and the comparison with the initial
    weights, which `early_stopping` describes, therefore use the likelihood of the reconstructions
    only.

    Most users set only `n_components`, `prior_weight`, `max_epochs` and `random_state`. Increase
    `prior_weight` if rows from `sample` look unlike the training rows. Increase `max_epochs` if the
    loss still decreases at the end.

    References
    ----------
    .. [1] A. Makhzani, J. Shlens, N. Jaitly, I. Goodfellow and B. Frey, "Adversarial autoencoders",
       ICLR workshop, 2016.

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
