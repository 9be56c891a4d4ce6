"""Components of codes: the units in which users see them, their variances and their shares."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from skae.files import Stored, check_numbers

Floats = NDArray[np.float64]


class UndefinedError(ValueError, AttributeError):
    """Error of an attribute or a method that is not defined for a fitted model.

    It is an AttributeError, so that `hasattr` returns False.
    """


@dataclass(frozen=True)
class Components(Stored):
    """The k components of the codes of a model.

    The code that users see is ``(z - offset) * scale``, where z is the code of the network. The
    network keeps its own units, in which its weights have the magnitudes that training expects.

    Attributes
    ----------
    unit : float
        Difference in the user's units that is 1 in those of the network. It is 1 for codes whose
        units have a meaning, such as those with a standard normal prior.
    offset : ndarray of shape (k,)
        Code of the network that is 0 for users.
    deviation : ndarray of shape (k,)
        Numbers by which whitened codes are divided: the standard deviations of the codes of the
        training rows, in the user's units, or 1 for components that do not vary.
    is_ordered : bool
        Whether the components were made uncorrelated and ordered by importance.
    is_whitened : bool
        Whether users see whitened codes.
    variance : ndarray of shape (k,) or None
        Variances of the codes of the training rows, in the user's units, before whitening. None if
        they are unknown, because a file of an earlier version does not contain them.
    share : ndarray of shape (k,) or None
        Share of the variance of the training rows that is no longer explained if a component is
        set to its mean. None if it is unknown.
    """

    unit: float
    offset: Floats
    deviation: Floats
    is_ordered: bool = False
    is_whitened: bool = False
    variance: Floats | None = None
    share: Floats | None = None

    def _check_state(self) -> None:
        k = self.offset.shape[:1]
        check_numbers(np.array([self.unit]), (1,), "the unit of codes", True)
        check_numbers(self.offset, k, "the offsets of components")
        check_numbers(self.deviation, k, "the deviations of components", True)
        for values in (self.variance, self.share):
            if values is not None:
                check_numbers(values, k, "the variances and shares of components")

    @classmethod
    def plain(cls, k: int) -> Self:
        """Return components whose codes are those of the network."""
        return cls(1.0, np.zeros(k), np.ones(k))

    def extended(self, other: Self) -> Self:
        """Return these components and, for a longer code, the last ones of `other`.

        The offsets of the latter are 0, so that a code of zeros is decoded as without them.
        """
        k = len(self.offset)
        offset = np.append(self.offset, np.zeros_like(other.offset[k:]))
        deviation = np.append(self.deviation, other.deviation[k:])
        return replace(self, offset=offset, deviation=deviation)

    def known(self, name: str) -> Floats:
        """Return the variances or the shares, or raise UndefinedError if they are unknown."""
        values: Floats | None = getattr(self, name)
        if values is None:
            raise UndefinedError(
                f"The {name} of the components is unknown, because the model was loaded from a "
                "file of an earlier version. Fit it again."
            )
        return values

    @property
    def scale(self) -> Floats:
        """Factors (k,) from the units of the network to those of the user."""
        deviation = self.deviation if self.is_whitened else np.ones_like(self.deviation)
        return self.unit / deviation

    def map_of_network(self, coef: Floats, intercept: Floats) -> tuple[Floats, Floats]:
        """Convert a linear map of the user's codes to one of the network's codes.

        `coef` has the shape (k, n_outputs), and `intercept` has the shape (n_outputs,).
        """
        coef = self.scale[:, None] * coef
        return coef, intercept - self.offset @ coef
