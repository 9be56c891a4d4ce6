"""The contractive autoencoder."""

from numbers import Integral, Real
from typing import ClassVar

import torch
from torch import Tensor

from skae._compat.sklearn import Interval
from skae.base import BaseAutoencoder
from skae.nn.draws import Draws
from skae.nn.latent import Code, Deterministic, Encode, Latent
from skae.state import TableInfo


class Contractive(Deterministic):
    """Codes with a penalty on their derivative with respect to the row."""

    def __init__(self, n_components: int, weight: float, n_projections: int | None) -> None:
        super().__init__(n_components)
        self.weight = weight
        self.n_projections = n_projections

    def penalty(
        self, code: Code, x: Tensor, encode: Encode, weight: Tensor, draws: Draws | None
    ) -> Tensor | float:
        k = self.n_components
        if self.n_projections is None or draws is None:
            directions = torch.eye(k, dtype=x.dtype, device=x.device)[:, None].expand(k, len(x), k)
        else:
            # E[|J' v|^2] is the squared norm of J if v has unit covariance.
            directions = draws.normal((self.n_projections, len(x), k)) / self.n_projections**0.5
        vector_jacobian_product = torch.func.vjp(encode, x)[1]
        (rows,) = torch.func.vmap(vector_jacobian_product)(directions)
        squares: Tensor = rows.square().sum((0, -1))
        return self.weight * squares


class ContractiveAutoencoder(BaseAutoencoder):
    """Contractive autoencoder, whose codes change little if rows change a little.

    The objective adds `contraction` times the squared Frobenius norm of the encoder's Jacobian, the
    sum of the squared derivatives of all components with respect to all columns [1]_. The code then
    follows only the directions in which the data vary enough to reduce the reconstruction error,
    and is insensitive to the others. Derivatives are with respect to standardized rows, which are
    centered and divided by the square root of the columns' mean variance. For a linear encoder, the
    penalty is weight decay of the encoder. The penalty also shrinks codes as a whole, which the
    decoder compensates unless `tied_weights=True`. To compare models, divide changes of codes by
    the codes' standard deviation.

    Parameters
    ----------
    contraction : float, default=0.1
        Weight of the squared norm: nats per row for a norm of 1. It must not be negative. The axes
        of PCA have a squared norm of `n_components`, so that the penalty is
        `contraction * n_components` nats when training starts. With the default this is 0.1 nats
        per component, a small part of the objective of most tables.

    n_projections : int or None, default=None
        Number of random directions of the code from which the norm is estimated without bias. None
        computes the norm exactly, which takes `n_components` backward passes through the encoder.

    Notes
    -----
    Most users set only `n_components`, `contraction`, `max_epochs` and `random_state`. Increase
    `contraction` until codes are robust enough; the reconstruction error increases with it. Set
    `n_projections=1` if fits take too long.

    References
    ----------
    .. [1] S. Rifai, P. Vincent, X. Muller, X. Glorot and Y. Bengio, "Contractive auto-encoders:
       explicit invariance during feature extraction", ICML 2011.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import ContractiveAutoencoder
    >>> X = load_digits().data
    >>> weak, strong = (
    ...     ContractiveAutoencoder(8, contraction=c, max_epochs=3, random_state=0).fit(X)
    ...     for c in (0.0, 10.0)
    ... )
    >>> shift = 0.1 * (X[1] - X[0])
    >>> moved = [abs(m.transform(X + shift) - m.transform(X)).mean() for m in (weak, strong)]
    >>> bool(moved[1] < moved[0])
    True
    """

    contraction: float = 0.1
    n_projections: int | None = None

    _parameter_constraints: ClassVar = {
        "contraction": [Interval(Real, 0, None, closed="left")],
        "n_projections": [Interval(Integral, 1, None, closed="left"), None],
    }

    def _make_latent(self, n_components: int, table: TableInfo) -> Latent:
        return Contractive(n_components, self.contraction, self.n_projections)
