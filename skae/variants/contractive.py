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
    """Deterministic codes with a penalty on their derivatives with respect to the row.

    Parameters
    ----------
    n_components : int
    weight : float
        Weight of the squared norm of the Jacobian of the encoder.
    n_projections : int or None
        Number of random directions that estimate the squared norm during training. None computes
        it exactly.
    """

    restricts_codes = True

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
            # The expectation of |J.T @ v|^2 is the squared norm of the Jacobian J if the random
            # direction v has mean 0 and unit covariance.
            directions = draws.normal((self.n_projections, len(x), k)) / self.n_projections**0.5
        vector_jacobian_product = torch.func.vjp(encode, x)[1]
        (rows,) = torch.func.vmap(vector_jacobian_product)(directions)
        squares: Tensor = rows.square().sum((0, -1))
        return self.weight * squares


class ContractiveAutoencoder(BaseAutoencoder):
    """Contractive autoencoder, whose codes change little if rows change a little.

    The penalty is `contraction` times the squared Frobenius norm of the encoder's Jacobian, which
    is the sum of the squared derivatives of all components with respect to all columns [1]_. The
    code then depends mainly on the directions in which rows vary enough to reduce the
    reconstruction error, and it is insensitive to the other directions. Derivatives are with
    respect to standardized rows, which are centered and divided by the square root of the columns'
    mean variance. For a linear encoder, the penalty is weight decay of the encoder.

    The penalty also reduces the scale of the codes. The decoder compensates for this unless
    `tied_weights=True`. To compare models, divide changes of codes by the standard deviations of
    the codes.

    Parameters
    ----------
    contraction : float, default=0.1
        Weight of the squared norm: nats per row for a norm of 1. It must not be negative. If
        `linear_skip` applies, training starts at the axes of PCA, whose squared norm is
        `n_components`. The penalty is then `contraction * n_components` nats per row. With the
        default this is 0.1 nats per component, a small part of the objective of most tables.

    n_projections : int or None, default=None
        Number of random directions in the space of codes from which the squared norm is estimated
        without bias. The directions are drawn anew for each row in each step. Each direction takes
        one backward pass through the encoder. None computes the squared norm exactly, which takes
        `n_components` backward passes.

    Notes
    -----
    Most users set only `n_components`, `contraction`, `max_epochs` and `random_state`. Increase
    `contraction` until codes are robust enough. This also increases the reconstruction error. Set
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
    >>> def mean_change(model):
    ...     codes = model.transform(X)
    ...     return (abs(model.transform(X + shift) - codes) / codes.std(axis=0)).mean()
    >>> bool(mean_change(strong) < mean_change(weak))
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
