"""The contractive autoencoder: codes that hardly move when rows do."""

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
    """A code whose price is the squared Frobenius norm of its derivative by the row."""

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
            # E[|J' v|^2] is the squared norm of J where v has unit covariance.
            directions = draws.normal((self.n_projections, len(x), k)) / self.n_projections**0.5
        pull = torch.func.vjp(encode, x)[1]
        (rows,) = torch.func.vmap(pull)(directions)
        squares: Tensor = rows.square().sum((0, -1))
        return self.weight * squares


class ContractiveAutoencoder(BaseAutoencoder):
    """Autoencoder whose codes hardly move when rows do.

    The objective adds `contraction` times the squared Frobenius norm of the encoder's Jacobian, the
    sum of squared derivatives of all components of the code by all columns of the row [1]_. The
    code then follows only those directions in which the data vary enough to be worth it, and is
    robust to all others. Rows are on the network's scale there: centred, and divided by the root of
    the columns' mean variance. The norm is exact, and with a linear encoder it is weight decay on
    that encoder. Codes also shrink as a whole, which the decoder undoes unless `tied_weights`:
    judge robustness by how far codes move in terms of their own spread.

    Parameters
    ----------
    contraction : float, default=0.1
        Weight of the squared norm, nats per row for a norm of 1. PCA's axes have a squared norm of
        `n_components`, so that `contraction * n_components` nats are at stake at the start.

    n_projections : int or None, default=None
        Estimate the norm without bias from so many random directions of the code instead of
        computing it. An exact norm costs `n_components` passes through the encoder.

    References
    ----------
    .. [1] S. Rifai, P. Vincent, X. Muller, X. Glorot and Y. Bengio, "Contractive auto-encoders:
       explicit invariance during feature extraction", ICML 2011.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import ContractiveAutoencoder
    >>> X = load_digits().data
    >>> free, held = (
    ...     ContractiveAutoencoder(8, contraction=c, max_epochs=10, random_state=0).fit(X)
    ...     for c in (0.0, 10.0)
    ... )
    >>> shift = 0.1 * (X[1] - X[0])
    >>> moved = [abs(m.transform(X + shift) - m.transform(X)).mean() for m in (free, held)]
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
