"""What all displays share: constructor, axes, documentation, and how estimators are unpacked.

matplotlib is imported when something is drawn, not before.
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

    The annotated fields of a class are the parameters of its constructor. What several docstrings
    would say is stated once: a class inherits the documentation of parameters and attributes from
    its parents. `from_estimator` and `from_predictions` inherit theirs from the same method of the
    parents, and parameters that none of these documents from the class.

    Attributes
    ----------
    ax_ : matplotlib Axes or ndarray of them
        Where they are drawn.
    figure_ : matplotlib Figure
        The figure of the axes.
    """

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        # Docstrings of abstract classes stay whole: subclasses have the parameters they document.
        if inspect.isabstract(cls):
            return
        dataclass(eq=False, repr=False)(cls)
        parents = [base for base in cls.__mro__[1:] if issubclass(base, Display)]
        order = [*inspect.signature(cls).parameters]
        for parent in parents:
            cls.__doc__ = inherit_doc(cls.__doc__, parent.__doc__, order)
        of_class = f"""Parameters
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
            for inherited in [*docs, of_class]:
                method.__doc__ = inherit_doc(method.__doc__, inherited, order)

    @abstractmethod
    def plot(self, ax: Any = None) -> Self:
        """Draw what the display holds.

        Parameters
        ----------
        ax : matplotlib Axes or array-like of them, default=None
            Where to draw: as many axes as `ax_` holds. None is a new figure.

        Returns
        -------
        display : object
            The display itself, with the attributes that drawing sets.

        Raises
        ------
        ValueError
            Where `ax` holds another number of axes.
        """

    @classmethod
    @abstractmethod
    def from_estimator(cls, *args: Any, **kwargs: Any) -> Self:
        """Draw what an estimator makes of rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.
        ax : matplotlib Axes or array-like of them, default=None
            Where to draw; None is a new figure.
        """

    @classmethod
    @abstractmethod
    def from_predictions(cls, *args: Any, **kwargs: Any) -> Self:
        """Draw given results.

        Parameters
        ----------
        ax : matplotlib Axes or array-like of them, default=None
            Where to draw; None is a new figure.
        """

    def _make_axes(
        self, ax: Any, shape: tuple[int, ...], size: tuple[float, float], below: float = 0.0
    ) -> Any:
        """Axes of this shape, the user's or new ones of `size` inches each and some for labels."""
        check_matplotlib_support(f"{type(self).__name__}.plot")
        from matplotlib import pyplot as plt

        if ax is None:
            inches = shape[1] * size[0], shape[0] * size[1] + below
            _, ax = plt.subplots(*shape, figsize=inches, layout="constrained", squeeze=False)
        axes = np.array(ax, dtype=object)
        if axes.size != np.prod(shape):
            raise ValueError(
                f"{type(self).__name__} draws into {np.prod(shape)} axes here ({shape[0]} x "
                f"{shape[1]}): give an array of so many as ax, or None. Got {axes.size}."
            )
        axes = axes.reshape(shape)
        self.figure_ = axes[0, 0].figure
        self.ax_ = axes.squeeze()[()]  # an array of no dimensions becomes what it holds
        return axes


def unpack(estimator: Any) -> tuple[Any, Any]:
    """The fitted estimator itself or at the end of a Pipeline, and the autoencoder that it is over.

    Raises TypeError where there is none, and NotFittedError.
    """
    last = estimator[-1] if isinstance(estimator, Pipeline) else estimator
    if not hasattr(last, "reconstruct") and not hasattr(last, "autoencoder"):
        raise TypeError(
            "estimator must be an autoencoder of skae, an estimator over one, or a Pipeline that "
            f"ends with one, got {type(last).__name__}."
        )
    check_is_fitted(last)
    return last, getattr(last, "autoencoder_", last)


def transform_before(estimator: Any, last: Any, X: Any) -> tuple[Any, Any]:
    """Rows as `last` sees them, after the earlier steps of a Pipeline, and their columns' names."""
    names = None
    if estimator is not last and len(estimator) > 1:
        before = estimator[:-1]
        X = before.transform(X)
        # Steps that cannot name their columns leave them without names.
        with suppress(AttributeError):
            names = before.get_feature_names_out()
    return X, getattr(last, "feature_names_in_", names)
