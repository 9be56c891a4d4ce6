"""How the categories of a column become levels."""

from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.preprocessing import OrdinalEncoder

from skae._compat.sklearn import Interval, RealNotInt, StrOptions, check_parameters
from skae.files import Stored
from skae.parameters import Declared


class Categories(Declared, Stored, BaseEstimator):
    """Which categories a model tells apart, and what it does with categories that are new to it.

    The parameters have the meaning that they have in `sklearn.preprocessing.OneHotEncoder`. Rare
    categories of a column can share one level, which is written as "infrequent" if the categories
    are texts. Categories are found in `fit`, and missing cells are not a category.

    Parameters
    ----------
    min_frequency : int, float or None, default=None
        Categories with fewer cells than this are infrequent. An int is a number of cells. A float
        in (0, 1) is a share of the observed cells of the column. None makes no category infrequent.

    max_categories : int or None, default=None
        Maximum number of levels of a column, including the level of infrequent categories. If a
        column has at least as many categories, the `max_categories - 1` most frequent ones have a
        level of their own, and the others are infrequent. Of equally frequent ones, those that come
        last in sorted order have their own. None is no limit.

    handle_unknown : {"missing", "error"}, default="missing"
        What methods do with a category that did not occur in `fit`: they treat the cell as missing,
        or they raise ValueError.

    See Also
    --------
    sklearn.preprocessing.OneHotEncoder : Encodes categories for models that need numbers.

    Examples
    --------
    >>> import pandas as pd
    >>> from skae import Autoencoder, Categories
    >>> X = pd.DataFrame({"city": ["Bonn", "Bonn", "Ulm", "Trier"], "age": [30, 35, 50, 60]})
    >>> categories = Categories(max_categories=2)
    >>> model = Autoencoder(2, categories=categories, max_epochs=0, random_state=0).fit(X)
    >>> model.reconstruct(X)["city"].tolist()
    ['Bonn', 'Bonn', 'infrequent', 'infrequent']
    """

    min_frequency: float | None = None
    max_categories: int | None = None
    handle_unknown: str = "missing"

    _parameter_constraints: ClassVar = {
        "min_frequency": [
            Interval(Integral, 1, None, closed="left"),
            Interval(RealNotInt, 0, 1, closed="neither"),
            None,
        ],
        "max_categories": [Interval(Integral, 1, None, closed="left"), None],
        "handle_unknown": [StrOptions({"missing", "error"})],
    }

    def _stored_state(self) -> dict[str, Any]:
        return dict(self.get_params())

    @classmethod
    def _from_stored_state(cls, state: dict[str, Any]) -> Self:
        parameters = cls().get_params()
        if state.keys() != parameters.keys():
            raise ValueError(
                f"the fields of a Categories are {', '.join(parameters)}, got {', '.join(state)}"
            )
        categories = cls(**state)
        categories.check()
        return categories

    def check(self) -> None:
        """Raise InvalidParameterError if a parameter is invalid."""
        parameters = self.get_params()
        check_parameters(self._parameter_constraints, parameters, type(self).__name__)

    def group(self, values: Any, counts: Any) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Separate infrequent categories from the others.

        Parameters
        ----------
        values : array-like of shape (n_categories,)
            The sorted categories of a column.
        counts : array-like of shape (n_categories,)
            Number of cells of each category.

        Returns
        -------
        levels : ndarray
            The sorted categories with a level of their own.
        infrequent : ndarray or None
            The sorted categories that share one level; None if there are none.

        Raises
        ------
        InvalidParameterError
            If a parameter is invalid.
        """
        self.check()
        values, counts = np.asarray(values), np.asarray(counts)
        if (self.min_frequency is None and self.max_categories is None) or not len(values):
            return values, None
        encoder = OrdinalEncoder(
            min_frequency=self.min_frequency, max_categories=self.max_categories
        )
        # Indices of sorted categories have their order, which decides among equally frequent ones.
        indices = np.repeat(np.arange(len(values)), counts)
        [infrequent] = encoder.fit(indices[:, None]).infrequent_categories_
        if infrequent is None:
            return values, None
        return np.delete(values, infrequent), values[infrequent]
