"""The vector-quantized autoencoder."""

from collections.abc import Callable
from numbers import Integral, Real
from typing import ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import check_array
from torch import Tensor

from skae._compat.sklearn import Interval
from skae.base import BaseAutoencoder, Floats, MatrixLike
from skae.density.enumeration import Enumeration
from skae.inference import map_rows
from skae.nn.codebooks import Codebooks
from skae.nn.draws import Draws
from skae.nn.latent import Code, Discrete, Encode, Latent
from skae.parameters import short_repr
from skae.state import TableInfo

LLOYD_ROUNDS = 20
"""Number of iterations of k-means that initialize the codebooks."""


class Quantized(Discrete):
    """Codes that consist of the vectors nearest to the parts of the encoder's output.

    Parameters
    ----------
    n_components : int
        Length of the code, a multiple of `n_codebooks`.
    n_codebooks : int
        Number of codebooks, each for an equal part of the code.
    n_codes : int
        Number of vectors in each codebook.
    penalty_weight : float
        Weight of the squared distance between the output of the encoder and the code.
    """

    def __init__(
        self, n_components: int, n_codebooks: int, n_codes: int, penalty_weight: float
    ) -> None:
        super().__init__(n_components, (n_codebooks, n_codes))
        self.penalty_weight = penalty_weight
        self.codebooks = Codebooks(n_components, n_codebooks, n_codes)

    def indices(self, h: Tensor) -> Tensor:
        return self.codebooks.nearest(h)

    def look_up(self, indices: Tensor) -> Tensor:
        return self.codebooks.look_up(indices)

    def forward(self, h: Tensor, draws: Draws | None) -> Code:
        code = self.look_up(self.indices(h))
        # Straight-through estimator: the gradient with respect to the code is copied to `h`.
        return Code(h + (code - h).detach(), code, h)

    def penalty(
        self, code: Code, x: Tensor, encode: Encode, weight: Tensor, draws: Draws | None
    ) -> Tensor | float:
        return self.penalty_weight * (code.h - code.mean).square().sum(-1)

    def start_from(self, h: Tensor, weight: Tensor, generator: torch.Generator) -> None:
        for _ in range(LLOYD_ROUNDS):
            self.codebooks.follow(h, weight, Draws(generator, h.dtype), decay=0.0)

    def adapt(self, encode: Callable[[], Tensor], weight: Tensor, draws: Draws) -> None:
        self.codebooks.follow(encode(), weight, draws)

    def warning(self, code: Code, weight: Tensor) -> str | None:
        used = min(len(numbers.unique()) for numbers in self.indices(code.h).mT)
        n_rows = int((weight > 1e-9 * weight.sum()).sum())
        if 2 * used >= min(self.n_codes, n_rows):
            return None
        return f"Only {used} of n_codes={self.n_codes} vectors are in use: lower n_codes."


class VectorQuantizedAutoencoder(BaseAutoencoder):
    """Vector-quantized autoencoder, whose codes are vectors from codebooks.

    The output of the encoder is divided into `n_codebooks` parts of equal length. Each part is
    replaced by the nearest vector of its codebook [1]_, so that `n_codebooks` integers describe a
    row. The straight-through estimator copies the gradient with respect to the code to the output
    of the encoder. Each vector is an exponential moving average of the parts of outputs that are
    assigned to it. A vector to which few parts are assigned is replaced by the part of the output
    for a random row. The vectors are initialized by k-means on the initial outputs of the encoder,
    which are PCA's codes if `linear_skip` applies. With one codebook, the model resembles k-means
    with decoded centers.

    `transform` returns the vectors, and `quantize` returns their indices. `score_samples` returns
    the exact log-density, which is computed by a sum over all codes. It raises ValueError if
    `n_codes ** n_codebooks`, the number of codes, exceeds 65,536. The prior probability of a vector
    is the share of the sample weight of the rows that are assigned to it. The shares are computed
    from at most 2,048 distinct rows of those passed to `fit`, or seen by `partial_fit`. The vectors
    of different codebooks are independent under the prior, which `score_samples` and `sample` use.

    Parameters
    ----------
    n_components : int, float, "auto", "mle" or None, default="auto"
        Length of the code, which must be a multiple of `n_codebooks`. A float in (0, 1) selects as
        many components as PCA needs to explain that share of the variance. "auto" is the number of
        columns, at most 64, rounded down to a multiple of `n_codebooks`, and at least
        `n_codebooks`. It is large because the number of vectors limits the information in a code,
        and their length does not.

    n_codes : int, default=32
        Number of vectors in each codebook, at least 1.

    n_codebooks : int, default=1
        Number of codebooks, each for an equal part of the code. Several small codebooks describe
        many different rows: two codebooks of 16 vectors have 256 combinations.

    commitment_cost : float, default=1.0
        Weight of the commitment loss [1]_, the squared Euclidean distance between the output of the
        encoder and the code that replaces it, in nats per row. It must not be negative. The loss
        keeps the outputs of the encoder close to the codebook.

    Notes
    -----
    Most users set only `n_codes`, `n_codebooks`, `max_epochs` and `random_state`. Increase
    `n_codes` or `n_codebooks` for a smaller reconstruction error. Decrease `n_codes` if a warning
    says that few of the vectors of a codebook are in use.

    References
    ----------
    .. [1] A. van den Oord, O. Vinyals and K. Kavukcuoglu, "Neural discrete representation
       learning", NeurIPS 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from skae import VectorQuantizedAutoencoder
    >>> X = load_digits().data
    >>> quantized = VectorQuantizedAutoencoder(8, n_codes=16, max_epochs=5, random_state=0).fit(X)
    >>> indices = quantized.quantize(X)
    >>> indices.shape, len(np.unique(indices))
    ((1797, 1), 16)
    >>> codes = quantized.dequantize(indices)
    >>> bool((quantized.inverse_transform(codes) == quantized.reconstruct(X)).all())
    True
    """

    n_codes: int = 32
    n_codebooks: int = 1
    commitment_cost: float = 1.0

    _density = Enumeration

    _parameter_constraints: ClassVar = {
        "n_codes": [Interval(Integral, 1, None, closed="left")],
        "n_codebooks": [Interval(Integral, 1, None, closed="left")],
        "commitment_cost": [Interval(Real, 0, None, closed="left")],
    }

    def _auto_components(self, n_features: int) -> int:
        return self.n_codebooks * max(1, min(n_features, 64) // self.n_codebooks)

    def _make_latent(self, n_components: int, table: TableInfo) -> Latent:
        if n_components % self.n_codebooks:
            raise ValueError(
                f"n_components={n_components} must be a multiple of n_codebooks={self.n_codebooks}."
            )
        return Quantized(n_components, self.n_codebooks, self.n_codes, self.commitment_cost)

    def quantize(self, X: MatrixLike) -> NDArray[np.intp]:
        """Compute the indices of the codebook vectors that represent rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.

        Returns
        -------
        indices : ndarray of shape (n_samples, n_codebooks), int
            Index of the nearest vector in each codebook, from 0 to `n_codes` - 1.

        Raises
        ------
        NotFittedError
            If the model is not fitted.
        ValueError
            If `X` is invalid.
        TypeError
            If `X` is sparse.
        """
        fitted = self._read_fitted()
        network, latent = fitted.network, cast(Quantized, fitted.network.latent)
        rows = fitted.schema.read(X)
        numbers = map_rows(lambda batch: latent.indices(network.encode(batch).h), rows, fitted)
        return numbers.astype(np.intp)

    def dequantize(self, indices: MatrixLike) -> Floats:
        """Convert indices of vectors into codes, for `inverse_transform`.

        Parameters
        ----------
        indices : array-like of shape (n_samples, n_codebooks), int
            Index of the vector in each codebook, from 0 to `n_codes` - 1, as `quantize` returns it.

        Returns
        -------
        Z : ndarray of shape (n_samples, n_components)
            Codes, as `transform` returns them, in the dtype of the network (see `precision`).

        Raises
        ------
        ValueError
            If `indices` are not integers from 0 to `n_codes` - 1 in `n_codebooks` columns.
        """
        latent = cast(Quantized, self._read_fitted().network.latent)
        given = check_array(indices, dtype=None, input_name="indices")
        known = given.dtype.kind in "iu" and given.shape[1] == latent.n_codebooks
        if not known or given.min() < 0 or given.max() >= latent.n_codes:
            raise ValueError(
                f"indices must be integers from 0 to {latent.n_codes - 1} in "
                f"{latent.n_codebooks} columns, got {short_repr(given)}."
            )
        with torch.no_grad():
            return latent.look_up(torch.from_numpy(given.astype(np.int64))).cpu().numpy()
