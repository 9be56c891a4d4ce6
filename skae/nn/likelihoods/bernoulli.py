"""The Bernoulli likelihood for columns with values in [0, 1]."""

import torch
from torch import Tensor
from torch.nn import functional as F

from skae.nn.draws import Draws
from skae.nn.likelihoods.base import Likelihood


class Bernoulli(Likelihood):
    """Independent Bernoulli distributions whose logits are the decoder's outputs.

    Cells may also have values between 0 and 1, for instance the means of several observations.
    """

    support = (0.0, 1.0)

    def start(self, center: Tensor, variance: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        # Without clipping, logits of columns that are always 0 or always 1 would be infinite.
        mean = center.clamp(1e-3, 1 - 1e-3)
        return mean.logit(), scale / (mean * (1 - mean))

    def baseline(self) -> Tensor:
        # A probability of 1/2 for each cell.
        return self.n_columns * torch.tensor(2.0).log()

    def cell_log_prob(self, x: Tensor, out: Tensor) -> Tensor:
        return x * out - F.softplus(out)

    def cell_score(self, x: Tensor, out: Tensor) -> Tensor:
        return x - out.sigmoid()

    def information_product(self, out: Tensor, jacobian: Tensor) -> Tensor:
        p = out.sigmoid()
        return (p * (1 - p))[..., None] * jacobian

    def cell_deviance(self, x: Tensor, out: Tensor) -> Tensor:
        entropy = -torch.special.xlogy(x, x) - torch.special.xlogy(1 - x, 1 - x)
        return 2 * (F.softplus(out) - x * out - entropy)

    def mean(self, out: Tensor) -> Tensor:
        return out.sigmoid()

    def sample(self, out: Tensor, draws: Draws) -> Tensor:
        return (draws.uniform(out.shape) < out.sigmoid()).to(out.dtype)
