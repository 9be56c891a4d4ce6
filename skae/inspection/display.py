"""Base class of displays, and functions that find the autoencoder and the rows to plot.

matplotlib is an optional dependency. It is imported only when something is plotted.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self, dataclass_transform

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted

from skae._compat.sklearn import check_matplotlib_support
from skae.parameters import inherit_doc, short_repr, split_sections
from skae.table.sequences import as_padded, fill_with_means

Floats = NDArray[np.floating]


@dataclass_transform(eq_default=False)
class Display(ABC):
    """Base class of all displays.

    The annotated fields of a class are the parameters of its constructor.

    Documentation is inherited. A class inherits the entries of parameters and attributes from its
    parents. `from_estimator` and `from_predictions` inherit the entries of the same method of the
    parents. An entry that neither such a method nor one of its parents' methods has is that of the
    class or, if the class has none, that of `plot`.

    Attributes
    ----------
    ax_ : matplotlib Axes or ndarray of them
        The axes of the plots. If there is only one plot, it is the Axes itself.
    figure_ : matplotlib Figure
        The figure that contains the axes.
    """

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        # An abstract class keeps its docstring. The parameters that it documents are fields of its
        # subclasses, not its own, so that `inherit_doc` would drop them.
        if inspect.isabstract(cls):
            return
        dataclass(eq=False, repr=False)(cls)
        parents = [base for base in cls.__mro__[1:] if issubclass(base, Display)]
        order = [*inspect.signature(cls).parameters]
        for parent in parents:
            cls.__doc__ = inherit_doc(cls.__doc__, parent.__doc__, order)
        class_doc = f"""Parameters
----------
{split_sections(cls.__doc__ or "")["Parameters"]}

Returns
-------
display : {cls.__name__}
    The display, after plotting.
"""
        for name in {"from_estimator", "from_predictions"} & vars(cls).keys():
            method = vars(cls)[name].__func__
            docs = [vars(base)[name].__doc__ for base in parents if name in vars(base)]
            order = [*inspect.signature(method).parameters]
            # These methods plot the display, so `ax` and the errors are those of `plot`.
            for inherited in [*docs, class_doc, Display.plot.__doc__]:
                method.__doc__ = inherit_doc(method.__doc__, inherited, order)

    @abstractmethod
    def plot(self, ax: Any = None) -> Self:
        """Plot the display.

        Parameters
        ----------
        ax : matplotlib Axes or array-like of them, default=None
            Axes to plot into. Their number must be that of the axes in `ax_` after plotting, which
            depends on the display. If None, a new figure is created.

        Returns
        -------
        display : object
            The display itself. Plotting sets its attributes that end with an underscore.

        Raises
        ------
        ValueError
            If `ax` does not hold as many axes as the display needs. The message states the number
            that is needed.
        ImportError
            If matplotlib is not installed.
        """

    @classmethod
    @abstractmethod
    def from_estimator(cls, *args: Any, **kwargs: Any) -> Self:
        """Plot results of an estimator.

        Each subclass defines its own parameters. `X` has the same meaning in all subclasses that
        accept it.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.
        """

    @classmethod
    @abstractmethod
    def from_predictions(cls, *args: Any, **kwargs: Any) -> Self:
        """Plot results that were computed before."""

    def _make_axes(
        self, ax: Any, shape: tuple[int, ...], size: tuple[float, float], label_height: float = 0.0
    ) -> Any:
        """Return the axes to plot into, and set the attributes `ax_` and `figure_`.

        Parameters
        ----------
        ax : matplotlib Axes, array-like of them or None
            Axes of the user. If None, axes are made in a new figure.
        shape : tuple of int
            Number of rows and of columns of the grid of axes.
        size : tuple of float
            Width and height of each new axes in inches.
        label_height : float
            Inches that are added to the height of a new figure, for labels below the last axes.

        Returns
        -------
        axes : ndarray of the given shape
            The axes.

        Raises
        ------
        ValueError
            If `ax` does not hold as many axes as the grid has.
        ImportError
            If matplotlib is not installed.
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        from matplotlib import pyplot as plt

        if ax is None:
            inches = shape[1] * size[0], shape[0] * size[1] + label_height
            _, ax = plt.subplots(*shape, figsize=inches, layout="constrained", squeeze=False)
        axes = np.array(ax, dtype=object)
        if axes.size != np.prod(shape):
            raise ValueError(
                f"ax must be None or hold {np.prod(shape)} axes ({shape[0]} x {shape[1]}) for this "
                f"{type(self).__name__}, got {axes.size}."
            )
        axes = axes.reshape(shape)
        self.figure_ = axes[0, 0].figure
        self.ax_ = axes.squeeze()[()]  # a single Axes instead of an array without dimensions
        return axes


def unpack_estimator(estimator: Any) -> tuple[Any, Any]:
    """Return the last step of a Pipeline and the fitted autoencoder that it is or contains.

    If the last step is a Pipeline itself, its last step is returned, and so on. An estimator that
    is not a Pipeline counts as its own last step. Raises TypeError if the last step neither is nor
    contains an autoencoder, and NotFittedError if it is not fitted.
    """
    last = estimator
    while isinstance(last, Pipeline):
        last = last[-1]
    if not hasattr(last, "reconstruct") and not hasattr(last, "autoencoder"):
        raise TypeError(
            "estimator must be an autoencoder of skae, an estimator that contains one, or a "
            f"Pipeline that ends with either, got {type(last).__name__}."
        )
    check_is_fitted(last)
    return last, getattr(last, "autoencoder_", last)


def apply_preprocessing(estimator: Any, X: Any) -> tuple[Any, Any]:
    """Apply the earlier steps of a Pipeline to rows, and return the new rows and column names.

    The rows of an estimator that is not a Pipeline are returned unchanged. The names are an array
    of shape (n_features,), or None if they are unknown.
    """
    names = None
    while isinstance(estimator, Pipeline):
        if len(estimator) > 1:
            X, known = estimator[:-1].transform(X), names
            names = None
            # Some transformers cannot name their output columns.
            with suppress(AttributeError):
                names = estimator[:-1].get_feature_names_out(known)
        estimator = estimator[-1]
    return X, getattr(estimator, "feature_names_in_", names)


def unpack_with_rows(estimator: Any, X: Any) -> tuple[Any, Any, Any]:
    """Return the autoencoder of an estimator, its input for rows `X`, and its column names.

    The names are None if they are unknown. Raises TypeError if the estimator contains no
    autoencoder, and NotFittedError if it is not fitted.
    """
    last, autoencoder = unpack_estimator(estimator)
    X, names = apply_preprocessing(estimator, X)
    if names is None:
        names = getattr(X, "columns", None)
    return autoencoder, X if autoencoder is last else last.preprocess(X), names


def component_indices(components: Any, n_components: int) -> NDArray[np.integer]:
    """Return indices of components as a vector, and raise ValueError if one is invalid."""
    indices = np.atleast_1d(components)
    if indices.dtype.kind not in "iu" or not np.isin(indices, range(n_components)).all():
        raise ValueError(
            f"components must be integers in [0, {n_components - 1}], got {short_repr(components)}."
        )
    return indices


def flatten_rows(X: Any) -> Floats:
    """Validate rows or codes of shape (n_samples, ...), and flatten them to two axes."""
    X = check_array(as_padded(X), ensure_all_finite="allow-nan", allow_nd=True)
    return X.reshape(len(X), -1)


def complete_rows(X: Any) -> Floats:
    """Flatten rows, and replace missing cells with the means of their columns, as PCA needs it."""
    X = flatten_rows(X)
    return fill_with_means(X, np.arange(len(X)), np.ones(len(X)))


def fit_pca(X: Any, n_components: int) -> PCA:
    """Fit PCA to complete rows, with fewer components if there are fewer rows or columns."""
    return PCA(min(n_components, *X.shape), random_state=0).fit(X)


def image_shape(autoencoder: Any, feature_shape: Sequence[int] | None) -> Any:
    """Return the argument `feature_shape` or, if it is None, that parameter of the autoencoder.

    For a recurrent autoencoder, the argument is returned even if it is None. The parameter then
    holds the numbers of time steps and of channels, which would be taken for the height and the
    width of an image.
    """
    if feature_shape is not None or autoencoder.architecture == "recurrent":
        return feature_shape
    return autoencoder.feature_shape
