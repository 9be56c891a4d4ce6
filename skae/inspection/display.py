"""Base class of displays, and functions that take estimators apart.

matplotlib is imported only when something is plotted, as it is an optional dependency.
"""

import inspect
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self, dataclass_transform

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from skae._compat.sklearn import check_matplotlib_support
from skae.parameters import inherit_doc, split_sections


@dataclass_transform(eq_default=False)
class Display(ABC):
    """Base class of all displays.

    The annotated fields of a class are the parameters of its constructor.

    Documentation is inherited, so that nothing is documented twice. A class inherits the
    documentation of parameters and attributes from its parents. `from_estimator` and
    `from_predictions` inherit from the same method of the parents. Parameters that no parent
    documents are taken from the docstring of the class.

    Attributes
    ----------
    ax_ : matplotlib Axes or ndarray of them
        The axes of the plots.
    figure_ : matplotlib Figure
        The figure of the axes.
    """

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        # An abstract class keeps its docstring: the parameters that it documents are fields of its
        # subclasses, and `inherit_doc` would drop them here.
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
"""
        for name in {"from_estimator", "from_predictions"} & vars(cls).keys():
            method = vars(cls)[name].__func__
            docs = [vars(base)[name].__doc__ for base in parents if name in vars(base)]
            order = [*inspect.signature(method).parameters]
            for inherited in [*docs, class_doc]:
                method.__doc__ = inherit_doc(method.__doc__, inherited, order)

    @abstractmethod
    def plot(self, ax: Any = None) -> Self:
        """Plot the display.

        Parameters
        ----------
        ax : matplotlib Axes or array-like of them, default=None
            Axes to plot into. The display determines their number, which is that of the axes in
            `ax_` after plotting. If None, a new figure is created.

        Returns
        -------
        display : object
            The display itself, with the attributes that are set when it is plotted.

        Raises
        ------
        ValueError
            If `ax` holds fewer or more axes than the display has. The message states their number.
        ImportError
            If matplotlib is not installed.
        """

    @classmethod
    @abstractmethod
    def from_estimator(cls, *args: Any, **kwargs: Any) -> Self:
        """Plot results of an estimator.

        Each subclass defines the parameters. Those below have the same meaning in all subclasses
        that accept them.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.
        ax : matplotlib Axes or array-like of them, default=None
            Axes to plot into. If None, a new figure is created.
        """

    @classmethod
    @abstractmethod
    def from_predictions(cls, *args: Any, **kwargs: Any) -> Self:
        """Plot results that were computed before.

        Parameters
        ----------
        ax : matplotlib Axes or array-like of them, default=None
            Axes to plot into. If None, a new figure is created.
        """

    def _make_axes(
        self, ax: Any, shape: tuple[int, ...], size: tuple[float, float], label_height: float = 0.0
    ) -> Any:
        """Return an array of axes of a given shape: those in `ax`, or new ones if it is None.

        New axes have the size (width, height) in inches, and `label_height` inches are added to
        the height of the figure for the labels below the last axes.
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
    """Return the last step of a Pipeline, or the estimator itself, and the autoencoder of this.

    Raises TypeError if it contains no autoencoder, and NotFittedError if it is not fitted.
    """
    last = estimator[-1] if isinstance(estimator, Pipeline) else estimator
    if not hasattr(last, "reconstruct") and not hasattr(last, "autoencoder"):
        raise TypeError(
            "estimator must be an autoencoder of skae, an estimator that contains one, or a "
            f"Pipeline that ends with either, got {type(last).__name__}."
        )
    check_is_fitted(last)
    return last, getattr(last, "autoencoder_", last)


def apply_preprocessing(estimator: Any, last: Any, X: Any) -> tuple[Any, Any]:
    """Apply the earlier steps of a Pipeline to rows, and return them with their column names.

    `last` is the last step. The names are None if they are unknown.
    """
    names = None
    if estimator is not last and len(estimator) > 1:
        preprocessing = estimator[:-1]
        X = preprocessing.transform(X)
        # Some transformers cannot name their output columns.
        with suppress(AttributeError):
            names = preprocessing.get_feature_names_out()
    return X, getattr(last, "feature_names_in_", names)
