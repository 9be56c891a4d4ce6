"""The vector-quantised autoencoder: a row's code is one of finitely many."""

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
from skae.state import TableInfo

LLOYD_ROUNDS = 20
"""Rounds of k-means that codebooks start with."""


class Quantized(Discrete):
    """A code whose parts are replaced by the nearest vectors of their codebooks."""

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
        # The gradient passes through to h as if nothing had been replaced.
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
        counting = int((weight > 1e-9 * weight.sum()).sum())
        if 2 * used >= min(self.n_codes, counting):
            return None
        return f"Only {used} of n_codes={self.n_codes} codes are in use: lower n_codes."


class VectorQuantizedAutoencoder(BaseAutoencoder):
    """Autoencoder whose codes are chosen from codebooks.

    The encoder's output is replaced by the nearest vector of a codebook [1]_, or its parts by those
    of several codebooks: a row is then known by a few small whole numbers. Gradients pass through
    as if nothing had been replaced. Codebooks follow the outputs that chose them as exponential
    moving averages; codes that are no longer chosen move to where rows are. Start is k-means on
    PCA's codes. With one codebook it is a k-means whose centres are decoded.

    `transform` gives the chosen vectors and `quantize` their numbers. `score_samples` is the exact
    sum over all codes, each with the share of training rows that chose it, counted on at most
    2,048 of them. Several codebooks are taken to be chosen independently there and in `sample`.

    Parameters
    ----------
    n_components : int, float or "auto", default="auto"
        Size of the code, a multiple of `n_codebooks`. As the number of codes limits what a code can
        say, not their size, "auto" is the number of columns, at most 64.

    n_codes : int, default=32
        Codes in each codebook.

    n_codebooks : int, default=1
        Codebooks, each for an equal part of the code. Several of them say with few codes what one
        could with very many: 2 times 16 codes distinguish 256 rows.

    commitment_cost : float, default=1.0
        Price in nats of a squared distance of 1 between the encoder's output and its code, on the
        network's scale.

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
    >>> numbers = quantized.quantize(X)
    >>> numbers.shape, len(np.unique(numbers))
    ((1797, 1), 16)
    >>> codes = quantized.dequantize(numbers)
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
                f"n_components={n_components} cannot be shared equally by "
                f"n_codebooks={self.n_codebooks}."
            )
        return Quantized(n_components, self.n_codebooks, self.n_codes, self.commitment_cost)

    def quantize(self, X: MatrixLike) -> NDArray[np.intp]:
        """Numbers of the codes that rows choose.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.

        Returns
        -------
        indices : ndarray of shape (n_samples, n_codebooks), int
            Numbers from 0 to `n_codes` - 1.
        """
        fitted = self._read_fitted()
        network, latent = fitted.network, cast(Quantized, fitted.network.latent)
        rows = fitted.schema.read(X)
        numbers = map_rows(lambda batch: latent.indices(network.encode(batch).h), rows, fitted)
        return numbers.astype(np.intp)

    def dequantize(self, indices: MatrixLike) -> Floats:
        """Codes with given numbers, for `inverse_transform`.

        Parameters
        ----------
        indices : array-like of shape (n_samples, n_codebooks), int
            Numbers from 0 to `n_codes` - 1.

        Returns
        -------
        Z : ndarray of shape (n_samples, n_components)
            Codes, as `transform` gives them.

        Raises
        ------
        ValueError
            Where there are no such codes.
        """
        latent = cast(Quantized, self._read_fitted().network.latent)
        numbers = check_array(indices, dtype=None, input_name="indices")
        known = numbers.dtype.kind in "iu" and numbers.shape[1] == latent.n_codebooks
        if not known or numbers.min() < 0 or numbers.max() >= latent.n_codes:
            raise ValueError(
                f"indices must be whole numbers from 0 to {latent.n_codes - 1} in "
                f"{latent.n_codebooks} columns, got {numbers!r}."
            )
        with torch.no_grad():
            return latent.look_up(torch.from_numpy(numbers.astype(np.int64))).cpu().numpy()
