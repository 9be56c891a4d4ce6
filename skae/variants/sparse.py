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
    """Nonnegative codes with an L1 penalty, the negative logarithm of a Laplace prior."""

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
    """Codes in (0, 1) with a penalty on mean activations that differ from a target rate."""

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
    """Codes with a fixed number of positive components; the others are 0."""

    is_linear = False

    def __init__(self, n_components: int, n_active: int) -> None:
        super().__init__(n_components)
        self.n_active = n_active

    def forward(self, h: Tensor, draws: Draws | None) -> Code:
        # The additional smallest entry is the threshold if all components are active.
        extended = torch.cat([h, h.amin(-1, keepdim=True) - 1], -1)
        threshold = extended.topk(self.n_active + 1, dim=-1).values[..., -1:]
        z = F.relu(h - threshold)
        return Code(z, z, h)


class SparseAutoencoder(BaseAutoencoder):
    """Sparse autoencoder: it has many components, few of which are active in each row.

    Each row is composed of a few features out of many. The features then tend to be parts, such as
    strokes of digits. The code usually has more components than the row has columns. Components
    have a nonlinearity of their own, so that there is no linear skip and training does not start at
    PCA.

    The penalty affects the codes of rows only. `score_samples` and `sample` use the same model with
    normally distributed codes as all deterministic autoencoders, so that codes drawn by `sample`
    are not sparse.

    Parameters
    ----------
    n_components : int, float or "auto", default="auto"
        Number of components of the code. A float in (0, 1) selects as many components as PCA needs
        for that share of the variance. "auto" is twice the number of columns, at most 256.

    sparsity : {"l1", "kl", "topk"}, default="l1"
        Kind of sparsity.

        - "l1": codes are outputs of a ReLU, and the penalty is their sum, the negative logarithm of
          a Laplace prior. It is the default because the number of active components adapts to the
          row.
        - "kl": codes are outputs of a sigmoid, and the penalty is the Kullback-Leibler divergence
          of each component's mean over the batch from `target_rate` [1]_.
        - "topk": the `n_active` largest components of each row are kept, minus the largest of the
          others, so that codes are continuous; the others are set to 0. There is no penalty [2]_.

    sparsity_weight : float, default=0.1
        Weight of the penalty in nats: for "l1", of a component of 1 in standardized units, and for
        "kl", of a divergence of 1 nat. It must not be negative.

    target_rate : float, default=0.05
        Target of the mean activation of each component for "kl", between 0 and 1.

    n_active : int or "auto", default="auto"
        Number of active components per row for "topk", at most `n_components`. "auto" is an eighth
        of the components, at least 1.

    Notes
    -----
    Most users set only `n_components`, `sparsity`, `sparsity_weight` (or `n_active` for "topk") and
    `random_state`. Increase `sparsity_weight` until few enough components are active; the
    reconstruction error increases with it.

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
