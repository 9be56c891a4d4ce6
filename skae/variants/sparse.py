"""The sparse autoencoder."""

from numbers import Integral, Real
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from skae._compat.sklearn import Interval, StrOptions
from skae.base import BaseAutoencoder
from skae.nn.draws import Draws
from skae.nn.latent import Code, Encode, Latent
from skae.state import TableInfo


class Laplacian(Latent):
    """Nonnegative codes with an L1 penalty.

    Up to a constant, the penalty is the negative logarithm of a Laplace prior.
    """

    is_linear = False

    def __init__(self, n_components: int, weight: float) -> None:
        super().__init__(n_components)
        self.weight = weight

    def forward(self, h: Tensor, draws: Draws | None) -> Code:
        z = F.relu(h)
        return Code(z, z, h)

    def penalty(
        self, code: Code, x: Tensor, encode: Encode, weight: Tensor, draws: Draws | None
    ) -> Tensor | float:
        return self.weight * code.z.sum(-1)


class Bernoullian(Latent):
    """Codes in (0, 1) with a penalty on components whose mean differs from a target rate."""

    is_linear = False

    def __init__(self, n_components: int, weight: float, rate: float) -> None:
        super().__init__(n_components)
        self.weight = weight
        self.rate = rate

    def forward(self, h: Tensor, draws: Draws | None) -> Code:
        z = h.sigmoid()
        return Code(z, z, h)

    def penalty(
        self, code: Code, x: Tensor, encode: Encode, weight: Tensor, draws: Draws | None
    ) -> Tensor | float:
        rate = (weight @ code.z / weight.sum()).clamp(1e-6, 1 - 1e-6)
        active = self.rate * (self.rate / rate).log()
        inactive = (1 - self.rate) * ((1 - self.rate) / (1 - rate)).log()
        return self.weight * (active + inactive).sum()


class TopK(Latent):
    """Codes with `n_active` positive components; the others are 0."""

    is_linear = False

    def __init__(self, n_components: int, n_active: int) -> None:
        super().__init__(n_components)
        self.n_active = n_active

    def forward(self, h: Tensor, draws: Draws | None) -> Code:
        # The threshold is the largest of the inactive components. An additional entry, 1 less than
        # the smallest component, is the threshold if all components are active.
        extended = torch.cat([h, h.amin(-1, keepdim=True) - 1], -1)
        threshold = extended.topk(self.n_active + 1, dim=-1).values[..., -1:]
        z = F.relu(h - threshold)
        return Code(z, z, h)


class SparseAutoencoder(BaseAutoencoder):
    """Sparse autoencoder, whose codes have many components, few of which are active in each row.

    The decoder reconstructs each row from a few active components. A component then tends to
    represent a part of rows, such as a stroke of a digit. The code usually has more components than
    the row has columns. A nonlinearity is applied to each component. Therefore there is no linear
    skip, and training does not start at PCA.

    Only the codes of rows are sparse. `score_samples` and `sample` assume normally distributed
    codes, as in `Autoencoder`, so that the codes that `sample` draws are not sparse.

    Parameters
    ----------
    n_components : int, float, "auto", "mle" or None, default="auto"
        Number of components of the code. A float in (0, 1) selects as many components as PCA needs
        to explain that share of the variance. "auto" is twice the number of columns, at most 256.

    sparsity : {"l1", "kl", "topk"}, default="l1"
        Kind of sparsity.

        - "l1": codes are outputs of a ReLU. The penalty of a row is the sum of its components,
          which is, up to a constant, the negative logarithm of a Laplace prior. It is the default
          because the number of active components adapts to the row.
        - "kl": codes are outputs of a sigmoid. The penalty is a Kullback-Leibler divergence, summed
          over components: that of a Bernoulli distribution with probability `target_rate` from one
          with the component's mean over the batch as its probability [1]_.
        - "topk": all but the `n_active` largest components of each row are set to 0 [2]_. The
          largest of the components that are set to 0 is subtracted from the others, so that codes
          are a continuous function of the row. There is no penalty.

    sparsity_weight : float, default=0.1
        Weight of the penalty, in nats per row: for "l1", the penalty of a component with the value
        1, and for "kl", that of a divergence of 1 nat. It must not be negative. "topk" ignores it.

    target_rate : float, default=0.05
        Mean activation that "kl" aims at for each component, between 0 and 1 (exclusive). "l1" and
        "topk" ignore it.

    n_active : int or "auto", default="auto"
        Number of active components per row for "topk", at most `n_components`. "auto" is an eighth
        of the components, rounded down, but at least 1. "l1" and "kl" ignore it.

    Notes
    -----
    Most users set only `n_components`, `sparsity`, `sparsity_weight` (or `n_active` for "topk") and
    `random_state`. Increase `sparsity_weight`, or decrease `n_active`, until few enough components
    are active. Both increase the reconstruction error.

    References
    ----------
    .. [1] A. Ng, "Sparse autoencoder", CS294A lecture notes, Stanford University, 2011.
    .. [2] A. Makhzani and B. Frey, "k-sparse autoencoders", ICLR 2014, arXiv:1312.5663, 2013.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from skae import SparseAutoencoder
    >>> X = load_digits().data
    >>> sparse = SparseAutoencoder(32, sparsity="topk", n_active=5, max_epochs=5, random_state=0)
    >>> np.unique((sparse.fit_transform(X) > 0).sum(axis=1))
    array([5])
    """

    sparsity: str = "l1"
    sparsity_weight: float = 0.1
    target_rate: float = 0.05
    n_active: int | str = "auto"

    _parameter_constraints: ClassVar = {
        "sparsity": [StrOptions({"l1", "kl", "topk"})],
        "sparsity_weight": [Interval(Real, 0, None, closed="left")],
        "target_rate": [Interval(Real, 0, 1, closed="neither")],
        "n_active": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
    }

    def _auto_components(self, n_features: int) -> int:
        return min(2 * n_features, 256)

    def _make_latent(self, n_components: int, table: TableInfo) -> Latent:
        if self.sparsity == "l1":
            return Laplacian(n_components, self.sparsity_weight)
        if self.sparsity == "kl":
            return Bernoullian(n_components, self.sparsity_weight, self.target_rate)
        n_active = max(1, n_components // 8) if self.n_active == "auto" else int(self.n_active)
        if n_active > n_components:
            raise ValueError(
                f"n_active must be at most n_components={n_components}, got {n_active}."
            )
        return TopK(n_components, n_active)
