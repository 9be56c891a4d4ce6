"""The sparse autoencoder: of many components, few are active in each row."""

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
    """Codes of at least 0 under a Laplace prior: each active component costs what it is large."""

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
    """Codes in (0, 1), each of whose components should be active in a given share of the rows."""

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
        on = self.rate * (self.rate / rate).log()
        off = (1 - self.rate) * ((1 - self.rate) / (1 - rate)).log()
        return self.weight * (on + off).sum()


class TopK(Latent):
    """Codes of which a given number of components is positive and all others are 0."""

    is_linear = False

    def __init__(self, n_components: int, n_active: int) -> None:
        super().__init__(n_components)
        self.n_active = n_active

    def forward(self, h: Tensor, draws: Draws | None) -> Code:
        # A component that is never active stands behind the last where all are to be.
        behind = torch.cat([h, h.amin(-1, keepdim=True) - 1], -1)
        threshold = behind.topk(self.n_active + 1, dim=-1).values[..., -1:]
        z = F.relu(h - threshold)
        return Code(z, z, h)


class SparseAutoencoder(BaseAutoencoder):
    """Autoencoder with many components, few of which are active in each row.

    Each row is put together from a few features out of a large choice, which then look like parts:
    strokes of digits, pieces of faces. The code is usually wider than the row. Components pass a
    nonlinearity of their own, so that no linear map feeds them and training does not start at PCA.

    Sparseness shapes the codes of rows. `score_samples` and `sample` are those of the model with
    normal codes that all deterministic autoencoders share: codes drawn there are not sparse.

    Parameters
    ----------
    n_components : int, float or "auto", default="auto"
        Size of the code; "auto" is twice the number of columns, at most 256.

    sparsity : {"l1", "kl", "topk"}, default="l1"
        How codes are made sparse. "l1" lets codes pass a ReLU and charges their sum, the price of a
        Laplace prior. "kl" lets them pass a sigmoid and charges the Kullback-Leibler divergence of
        each component's mean over the batch from `target_rate` [1]_. "topk" keeps the `n_active`
        largest components of each row, less the largest of those it drops, so that codes change
        without jumps, and charges nothing [2]_.

    sparsity_weight : float, default=0.1
        Price in nats: of a code component of 1 for "l1", of a divergence of 1 for "kl". Codes are
        on the network's scale.

    target_rate : float, default=0.05
        Mean activation of each component that "kl" asks for.

    n_active : int or "auto", default="auto"
        Components that "topk" leaves active in each row; "auto" is an eighth of them, at least 1.

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
                f"{n_active=} components cannot be active in a code of {n_components}."
            )
        return TopK(n_components, n_active)
