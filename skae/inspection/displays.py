"""Pictures of fitted autoencoders, each a Display as scikit-learn has them.

matplotlib is imported when something is drawn, not before.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from numbers import Integral
from typing import Any, Self

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline
from sklearn.utils import check_array, check_consistent_length, check_scalar, column_or_1d
from sklearn.utils.validation import check_is_fitted

from skae._compat.sklearn import check_matplotlib_support, safe_indexing
from skae.model_selection import components_path

__all__ = [
    "CodeSpaceDisplay",
    "ComponentsPathDisplay",
    "LossCurveDisplay",
    "OutlierExplanationDisplay",
    "ReconstructionDisplay",
    "TraversalDisplay",
]

Floats = NDArray[np.floating]

MOST_NAMES = 30
"""Columns up to which their names fit below an axis."""

MOST_CLASSES = 20
"""Different whole numbers up to which they are classes."""

MOST_COMPONENTS = 5
"""Components that a traversal shows unless told which."""


class _Display(ABC):
    """Where all displays draw."""

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


class LossCurveDisplay(_Display):
    """Training objective by epoch.

    Use `from_estimator` to draw a fitted model's.

    Parameters
    ----------
    loss_curve : array-like of shape (n_epochs,)
        Mean objective of the training rows in each epoch, nats per row.
    validation_curve : array-like of shape (n_epochs,), default=None
        Objective of held-out rows after each epoch, nats per row; empty or None without such rows.
    best_epoch : int, default=None
        Epoch whose weights were kept; 0 is the start.

    Attributes
    ----------
    lines_ : list of matplotlib Line2D
        The training curve and, where there is one, the held-out curve.
    best_epoch_line_ : matplotlib Line2D or None
        Dotted line at the epoch kept.
    ax_ : matplotlib Axes
        Where it is drawn.
    figure_ : matplotlib Figure
        The figure of the axes.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from sklearn.datasets import load_wine
    >>> from skae import Autoencoder
    >>> from skae import LossCurveDisplay
    >>> X = load_wine().data
    >>> autoencoder = Autoencoder(2, max_epochs=5, random_state=0).fit(X)
    >>> LossCurveDisplay.from_estimator(autoencoder).ax_.get_xlabel()
    'epoch'
    """

    def __init__(
        self, loss_curve: Any, validation_curve: Any = None, best_epoch: int | None = None
    ) -> None:
        self.loss_curve = loss_curve
        self.validation_curve = validation_curve
        self.best_epoch = best_epoch

    def plot(self, ax: Any = None) -> Self:
        ax = self._make_axes(ax, (1, 1), (6, 4)).item()
        from matplotlib.ticker import MaxNLocator

        curves = {"training rows": self.loss_curve}
        if self.validation_curve is not None and len(self.validation_curve):
            curves["held-out rows"] = self.validation_curve
        self.lines_ = [
            ax.plot(np.arange(1, len(curve) + 1), curve, label=label)[0]
            for label, curve in curves.items()
        ]
        self.best_epoch_line_ = None
        if self.best_epoch is not None:
            label = f"epoch kept: {self.best_epoch}"
            self.best_epoch_line_ = ax.axvline(self.best_epoch, color="gray", ls=":", label=label)
        ax.set(title="Training objective by epoch", xlabel="epoch", ylabel="nats per row")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.legend()
        return self

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Any = None) -> Self:
        """Draw the curves of a fitted model.

        Parameters
        ----------
        estimator : autoencoder, estimator over one, or Pipeline that ends with one
            Fitted.
        ax : matplotlib Axes, default=None
            Where to draw; None is a new figure.

        Returns
        -------
        display : LossCurveDisplay

        Raises
        ------
        TypeError
            Where `estimator` holds no autoencoder.
        NotFittedError
            Where it is not fitted.
        """
        _, autoencoder = _unpacked(estimator)
        curves = autoencoder.loss_curve_, autoencoder.validation_curve_
        return cls.from_predictions(*curves, autoencoder.best_epoch_, ax=ax)

    @classmethod
    def from_predictions(
        cls,
        loss_curve: Any,
        validation_curve: Any = None,
        best_epoch: int | None = None,
        *,
        ax: Any = None,
    ) -> Self:
        """Draw given curves.

        Parameters
        ----------
        loss_curve : array-like of shape (n_epochs,)
            Mean objective of the training rows in each epoch, nats per row.
        validation_curve : array-like of shape (n_epochs,), default=None
            Objective of held-out rows after each epoch, nats per row.
        best_epoch : int, default=None
            Epoch whose weights were kept; 0 is the start.
        ax : matplotlib Axes, default=None
            Where to draw; None is a new figure.

        Returns
        -------
        display : LossCurveDisplay
        """
        return cls(loss_curve, validation_curve, best_epoch).plot(ax)


class CodeSpaceDisplay(_Display):
    """Codes of rows as dots, beside those of PCA.

    Codes of two components are drawn as they are, longer ones along their two leading principal
    axes, and those of one component against the number of their row. Use `from_estimator` to draw
    a fitted model's.

    Parameters
    ----------
    codes : dict of str to ndarray of shape (n_samples, n_components)
        Codes of the same rows by the name of what made them; each gets axes of its own.
    y : array-like of shape (n_samples,), default=None
        What colours the dots. Texts, booleans and at most 20 different whole numbers are classes
        and have a legend; other numbers have a colour bar.

    Attributes
    ----------
    scatters_ : list of matplotlib PathCollection
        The dots, one collection for each entry of `codes`.
    ax_ : matplotlib Axes or ndarray of shape (n_codes,) of them
        Where they are drawn.
    figure_ : matplotlib Figure
        The figure of the axes.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from sklearn.datasets import load_wine
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skae import Autoencoder
    >>> from skae import CodeSpaceDisplay
    >>> X, y = load_wine(return_X_y=True)
    >>> model = make_pipeline(StandardScaler(), Autoencoder(2, max_epochs=5, random_state=0))
    >>> display = CodeSpaceDisplay.from_estimator(model.fit(X), X, y)
    >>> [ax.get_title() for ax in display.ax_]
    ['Autoencoder: codes of 2', 'PCA: codes of 2']
    """

    def __init__(self, codes: dict[str, Floats], y: Any = None) -> None:
        self.codes = codes
        self.y = y

    def plot(self, ax: Any = None) -> Self:
        axes = self._make_axes(ax, (1, len(self.codes)), (4.8, 4.2))[0]
        y = None if self.y is None else column_or_1d(self.y)
        classes = None if y is None else _classes(y)
        self.scatters_ = []
        for ax, (name, codes) in zip(axes, self.codes.items(), strict=True):
            dots, xlabel, ylabel = _plane(codes)
            colors = {"c": y} if classes is None else _colors_of_classes(*classes)
            self.scatters_.append(ax.scatter(*dots.T, s=12, linewidths=0, **colors))
            ax.set(title=f"{name}: codes of {codes.shape[1]}", xlabel=xlabel, ylabel=ylabel)
        if classes is not None:
            handles, _ = self.scatters_[-1].legend_elements(num=None)
            axes[-1].legend(handles, classes[0], loc="center left", bbox_to_anchor=(1, 0.5))
        elif y is not None:
            self.figure_.colorbar(self.scatters_[-1], ax=axes.tolist(), label="y")
        return self

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, y: Any = None, *, with_pca: bool = True, ax: Any = None
    ) -> Self:
        """Draw codes that a fitted model gives rows.

        Parameters
        ----------
        estimator : autoencoder, estimator with codes over one, or Pipeline that ends with one
            Fitted.
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.
        y : array-like of shape (n_samples,), default=None
            What colours the dots.
        with_pca : bool, default=True
            Whether to draw codes of two components by PCA, too. It is fitted on `X` as the
            autoencoder sees it: after the earlier steps of a Pipeline.
        ax : matplotlib Axes or array-like of them, default=None
            Where to draw: two axes, or one without PCA; None is a new figure.

        Returns
        -------
        display : CodeSpaceDisplay

        Raises
        ------
        TypeError
            Where `estimator` has no codes.
        NotFittedError
            Where it is not fitted.
        ValueError
            Where X, y or ax do not fit.
        """
        autoencoder, X, _ = _seen(estimator, X)
        return cls.from_predictions(
            autoencoder.transform(X),
            y,
            name=type(autoencoder).__name__,
            pca_codes=_pca(X, 2).transform(_cells(X)) if with_pca else None,
            ax=ax,
        )

    @classmethod
    def from_predictions(
        cls,
        codes: Any,
        y: Any = None,
        *,
        name: str = "codes",
        pca_codes: Any = None,
        ax: Any = None,
    ) -> Self:
        """Draw given codes.

        Parameters
        ----------
        codes : array-like of shape (n_samples, n_components)
            Codes of rows.
        y : array-like of shape (n_samples,), default=None
            What colours the dots.
        name : str, default="codes"
            What made the codes.
        pca_codes : array-like of shape (n_samples, n_components), default=None
            Codes of the same rows by PCA.
        ax : matplotlib Axes or array-like of them, default=None
            Where to draw: two axes, or one without PCA; None is a new figure.

        Returns
        -------
        display : CodeSpaceDisplay

        Raises
        ------
        ValueError
            Where codes, y or ax do not fit.
        """
        both = {name: codes} if pca_codes is None else {name: codes, "PCA": pca_codes}
        check_consistent_length(*both.values(), y)
        return cls({name: _cells(table) for name, table in both.items()}, y).plot(ax)


class ReconstructionDisplay(_Display):
    """Rows, and what comes back of them from their codes.

    Images are drawn as such, the originals in the first row of pictures; black and white are the
    originals' smallest and largest value. Of other rows each has axes of its own, where dots are
    its cells and lines its reconstructions; columns should be in comparable units. NaN leaves gaps.
    Use `from_estimator` to draw a fitted model's.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        The rows.
    reconstructions : dict of str to ndarray of shape (n_samples, n_features)
        Their reconstructions by the name of what made them.
    feature_shape : tuple of int or None, default=None
        (channels, height, width) of images with 1 or 3 channels, or (height, width). One number
        may be -1. Rows of any other shape are drawn as lines.
    feature_names : array-like of str of shape (n_features,), default=None
        Names of the columns, written below the last axes if they are at most 30.

    Attributes
    ----------
    images_ : ndarray of shape (1 + n_reconstructions, n_samples) of matplotlib AxesImage
        The pictures, if rows are images.
    lines_ : ndarray of shape (n_samples, 1 + n_reconstructions) of matplotlib Line2D
        The dots and the lines, if they are not.
    ax_ : matplotlib Axes or ndarray of them
        Where they are drawn, in the order of `images_`, or one for each row.
    figure_ : matplotlib Figure
        The figure of the axes.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from sklearn.datasets import load_digits
    >>> from skae import Autoencoder
    >>> from skae import ReconstructionDisplay
    >>> X = load_digits().data
    >>> autoencoder = Autoencoder(8, max_epochs=2, random_state=0).fit(X)
    >>> display = ReconstructionDisplay.from_estimator(
    ...     autoencoder, X, n_rows=5, feature_shape=(8, 8), with_pca=True
    ... )
    >>> display.images_.shape
    (3, 5)
    """

    def __init__(
        self,
        X: Floats,
        reconstructions: dict[str, Floats],
        feature_shape: Sequence[int] | None = None,
        feature_names: Any = None,
    ) -> None:
        self.X = X
        self.reconstructions = reconstructions
        self.feature_shape = feature_shape
        self.feature_names = feature_names

    def plot(self, ax: Any = None) -> Self:
        rows = np.stack([self.X, *self.reconstructions.values()])
        names = ["original", *self.reconstructions]
        images = _images(rows, self.feature_shape)
        if images is None:
            axes = self._make_axes(ax, (len(self.X), 1), (8, 1.4), below=1.6)[:, 0]
            self.lines_ = self._draw_lines(axes, rows, names)
        else:
            axes = self._make_axes(ax, (len(names), len(self.X)), (1.1, 1.1))
            self.images_ = _draw_images(axes, images, np.nanmin(images[0]), np.nanmax(images[0]))
            _label_left(axes, names)
            for number, above in enumerate(axes[0]):
                above.set_title(f"row {number}", size="small")
        return self

    def _draw_lines(self, axes: Any, rows: Floats, names: list[str]) -> NDArray[np.object_]:
        """The first of each row's lines as dots, one axes below the other."""
        lines = np.empty((len(axes), len(names)), dtype=object)
        for (i, j), _ in np.ndenumerate(lines):
            look = {"ls": "", "marker": "o", "ms": 3.5, "color": "0.3"} if j == 0 else {}
            lines[i, j] = axes[i].plot(rows[j, i], label=names[j], **look)[0]
        for number, ax in enumerate(axes):
            ax.set_title(f"row {number}", loc="left", size="small")
        _label_columns(axes, self.feature_names, rows.shape[-1])
        above = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0.1}
        axes[0].legend(ncols=len(names), frameon=False, **above)
        return lines

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        n_rows: int = 8,
        feature_shape: Sequence[int] | None = None,
        with_pca: bool = False,
        ax: Any = None,
    ) -> Self:
        """Draw the first rows of a table and what a fitted model makes of them.

        Parameters
        ----------
        estimator : autoencoder, estimator with codes over one, or Pipeline that ends with one
            Fitted. Rows are drawn as the autoencoder sees them: after the earlier steps of a
            Pipeline.
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.
        n_rows : int, default=8
            How many rows to draw, at most.
        feature_shape : tuple of int or None, default=None
            Shape of images. None is the autoencoder's own `feature_shape`; where that is the shape
            of sequences, their cells are drawn in order.
        with_pca : bool, default=False
            Whether to draw PCA's reconstructions, too, from codes of the same size. It is fitted
            on all rows of `X`.
        ax : matplotlib Axes or array-like of them, default=None
            Where to draw; None is a new figure.

        Returns
        -------
        display : ReconstructionDisplay

        Raises
        ------
        TypeError
            Where `estimator` has no codes.
        NotFittedError
            Where it is not fitted.
        ValueError
            Where X, feature_shape or ax do not fit.
        """
        check_scalar(n_rows, "n_rows", Integral, min_val=1)
        autoencoder, X, names = _seen(estimator, X)
        some, k = safe_indexing(X, slice(n_rows)), autoencoder.n_components_
        cells = _cells(some)
        title = f"{type(autoencoder).__name__}({k})"
        reconstructions = {title: _cells(autoencoder.reconstruct(some))}
        if with_pca:
            pca = _pca(X, k)
            codes = pca.transform(cells)
            reconstructions[f"PCA({pca.n_components_})"] = pca.inverse_transform(codes)
        shape = _shape_of_images(autoencoder, feature_shape)
        return cls(cells, reconstructions, shape, names).plot(ax)

    @classmethod
    def from_predictions(
        cls,
        X: Any,
        X_reconstructed: Any,
        *,
        feature_shape: Sequence[int] | None = None,
        feature_names: Any = None,
        ax: Any = None,
    ) -> Self:
        """Draw given rows and their reconstructions.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows, all of which are drawn.
        X_reconstructed : array-like of shape (n_samples, n_features)
            Their reconstructions.
        feature_shape : tuple of int or None, default=None
            Shape of images; None draws lines.
        feature_names : array-like of str of shape (n_features,), default=None
            Names of the columns.
        ax : matplotlib Axes or array-like of them, default=None
            Where to draw; None is a new figure.

        Returns
        -------
        display : ReconstructionDisplay

        Raises
        ------
        ValueError
            Where X, X_reconstructed, feature_shape or ax do not fit.
        """
        X, restored = _cells(X), _cells(X_reconstructed)
        if X.shape != restored.shape:
            raise ValueError(
                f"X_reconstructed must have the shape of X, {X.shape}, got {restored.shape}."
            )
        return cls(X, {"reconstruction": restored}, feature_shape, feature_names).plot(ax)


class TraversalDisplay(_Display):
    """What a row turns into as one component of its code changes.

    Images are drawn as such: a row of pictures for each component; black and white are the 2nd and
    98th percentile of all pixels. Other rows have axes for each component and a line for each
    value, dark for low values and light for high ones. Use `from_estimator` to draw a fitted
    model's.

    Parameters
    ----------
    rows : ndarray of shape (n_components, n_values, n_features)
        The rows that come back.
    values : ndarray of shape (n_components, n_values)
        What the component is set to in each.
    components : array-like of int of shape (n_components,), default=None
        Which components of the code these are; None counts them from 0.
    feature_shape : tuple of int or None, default=None
        (channels, height, width) of images with 1 or 3 channels, or (height, width). One number
        may be -1. Rows of any other shape are drawn as lines.
    feature_names : array-like of str of shape (n_features,), default=None
        Names of the columns, written below the last axes if they are at most 30.

    Attributes
    ----------
    images_ : ndarray of shape (n_components, n_values) of matplotlib AxesImage
        The pictures, if rows are images.
    lines_ : ndarray of shape (n_components, n_values) of matplotlib Line2D
        The lines, if they are not.
    ax_ : matplotlib Axes or ndarray of them
        Where they are drawn, in the order of `images_`, or one for each component.
    figure_ : matplotlib Figure
        The figure of the axes.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from sklearn.datasets import load_digits
    >>> from skae import VariationalAutoencoder
    >>> from skae import TraversalDisplay
    >>> X = load_digits().data
    >>> variational = VariationalAutoencoder(8, max_epochs=2, random_state=0).fit(X)
    >>> display = TraversalDisplay.from_estimator(
    ...     variational, X, components=[0, 3], feature_shape=(8, 8)
    ... )
    >>> display.images_.shape
    (2, 7)
    """

    def __init__(
        self,
        rows: Floats,
        values: Floats,
        components: Any = None,
        feature_shape: Sequence[int] | None = None,
        feature_names: Any = None,
    ) -> None:
        self.rows = rows
        self.values = values
        self.components = components
        self.feature_shape = feature_shape
        self.feature_names = feature_names

    def plot(self, ax: Any = None) -> Self:
        n = len(self.rows)
        components = range(n) if self.components is None else self.components
        titles = [f"component {component}" for component in components]
        images = _images(self.rows, self.feature_shape)
        if images is None:
            axes = self._make_axes(ax, (n, 1), (8, 1.7), below=1.6)[:, 0]
            self.lines_ = self._draw_lines(axes, titles)
        else:
            axes = self._make_axes(ax, self.values.shape, (1.1, 1.2))
            self.images_ = _draw_images(axes, images, *np.nanpercentile(images, [2, 98]))
            _label_left(axes, titles)
            for (i, j), value in np.ndenumerate(self.values):
                axes[i, j].set_title(f"{value:.2g}", size="small")
        return self

    def _draw_lines(self, axes: Any, titles: list[str]) -> NDArray[np.object_]:
        """One line for each value, one axes below the other."""
        from matplotlib import colormaps

        lines = np.empty(self.values.shape, dtype=object)
        colors = colormaps["plasma"](np.linspace(0, 0.9, len(self.values[0])))
        for (i, j), _ in np.ndenumerate(lines):
            lines[i, j] = axes[i].plot(self.rows[i, j], color=colors[j], lw=1.2)[0]
        for ax, title, values in zip(axes, titles, self.values, strict=True):
            span = f"from {values[0]:.2g} (dark) to {values[-1]:.2g} (light)"
            ax.set_title(f"{title} {span}", loc="left", size="small")
        _label_columns(axes, self.feature_names, self.rows.shape[-1])
        return lines

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        row: int = 0,
        components: Any = None,
        n_values: int = 7,
        feature_shape: Sequence[int] | None = None,
        ax: Any = None,
    ) -> Self:
        """Draw what a fitted model turns a row into.

        Parameters
        ----------
        estimator : autoencoder, estimator with codes over one, or Pipeline that ends with one
            Fitted. Rows are drawn as the autoencoder sees them: after the earlier steps of a
            Pipeline.
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units, which say where codes lie: the values of a component run
            evenly from its 5th to its 95th percentile.
        row : int, default=0
            Number of the row whose code is changed.
        components : array-like of int, default=None
            Which components to change. None is the five whose variance is largest, or fewer.
        n_values : int, default=7
            Values of each component, at least 2.
        feature_shape : tuple of int or None, default=None
            Shape of images. None is the autoencoder's own `feature_shape`; where that is the shape
            of sequences, their cells are drawn in order.
        ax : matplotlib Axes or array-like of them, default=None
            Where to draw; None is a new figure.

        Returns
        -------
        display : TraversalDisplay

        Raises
        ------
        TypeError
            Where `estimator` has no codes.
        NotFittedError
            Where it is not fitted.
        ValueError
            Where a parameter does not fit.
        """
        check_scalar(n_values, "n_values", Integral, min_val=2)
        autoencoder, X, names = _seen(estimator, X)
        codes = _cells(autoencoder.transform(X))
        check_scalar(row, "row", Integral, min_val=0, max_val=len(codes) - 1)
        if components is None:
            components = (-codes.var(axis=0)).argsort(kind="stable")[:MOST_COMPONENTS]
        numbers, k = np.atleast_1d(components), codes.shape[1]
        if numbers.dtype.kind not in "iu" or not np.isin(numbers, range(k)).all():
            raise ValueError(f"components must be integers in [0, {k - 1}], got {components!r}.")
        low, high = np.percentile(codes[:, numbers], [5, 95], axis=0)
        values = np.linspace(low, high, n_values, axis=1)
        one = safe_indexing(X, [row])
        rows = [autoencoder.traverse(one, j, at) for j, at in zip(numbers, values, strict=True)]
        shape = _shape_of_images(autoencoder, feature_shape)
        return cls(np.stack([*map(_cells, rows)]), values, numbers, shape, names).plot(ax)

    @classmethod
    def from_predictions(
        cls,
        rows: Any,
        values: Any,
        *,
        components: Any = None,
        feature_shape: Sequence[int] | None = None,
        feature_names: Any = None,
        ax: Any = None,
    ) -> Self:
        """Draw given rows.

        Parameters
        ----------
        rows : array-like of shape (n_components, n_values, n_features)
            The rows that come back.
        values : array-like of shape (n_components, n_values)
            What the component is set to in each.
        components : array-like of int of shape (n_components,), default=None
            Which components of the code these are; None counts them from 0.
        feature_shape : tuple of int or None, default=None
            Shape of images; None draws lines.
        feature_names : array-like of str of shape (n_features,), default=None
            Names of the columns.
        ax : matplotlib Axes or array-like of them, default=None
            Where to draw; None is a new figure.

        Returns
        -------
        display : TraversalDisplay

        Raises
        ------
        ValueError
            Where a parameter does not fit.
        """
        rows, values = np.asarray(rows), np.asarray(values)
        if rows.ndim != 3 or rows.shape[:2] != values.shape:
            raise ValueError(
                "rows must be of shape (n_components, n_values, n_features) and values of shape "
                f"(n_components, n_values), got {rows.shape} and {values.shape}."
            )
        check_consistent_length(rows, components)
        return cls(rows, values, components, feature_shape, feature_names).plot(ax)


class ComponentsPathDisplay(_Display):
    """How well models of several sizes restore and expect rows, beside PCA.

    Two axes: squared errors of training and held-out rows, and the log-density of held-out rows
    with its standard error. A dotted line marks the suggested size. Sizes are drawn at equal
    distances, so that 2, 4, 8, 16 are as readable as 2, 3, 4, 5.

    Parameters
    ----------
    path : ComponentsPath
        What `skae.components_path` returns.

    Attributes
    ----------
    lines_ : dict of str to matplotlib Line2D
        The curves by their column of `path.results`.
    errorbar_ : matplotlib ErrorbarContainer
        The log-density of held-out rows with its standard error.
    suggested_lines_ : list of matplotlib Line2D
        The dotted lines of both axes.
    ax_ : ndarray of shape (2,) of matplotlib Axes
        Where they are drawn.
    figure_ : matplotlib Figure
        The figure of the axes.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> import numpy as np
    >>> from skae import Autoencoder, ComponentsPathDisplay
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(300, 1)) * [1, 2, 3] + 0.1 * rng.normal(size=(300, 3))
    >>> display = ComponentsPathDisplay.from_estimator(
    ...     Autoencoder(max_epochs=20, random_state=0), X, param_range=[1, 2, 3]
    ... )
    >>> [ax.get_title() for ax in display.ax_]
    ['Error of reconstructions', 'Log-density of held-out rows']
    """

    def __init__(self, path: Any) -> None:
        self.path = path

    def plot(self, ax: Any = None) -> Self:
        axes = self._make_axes(ax, (1, 2), (5, 4))[0]
        # PCA's columns may be there without a number.
        results = self.path.results.dropna(axis=1, how="all")
        x, looks = np.arange(len(results)), {"marker": "o", "ms": 4}
        nats, se = results["test_nats"], results["test_nats_se"]
        label = "held-out rows"
        self.errorbar_ = axes[1].errorbar(x, nats, se, color="C1", capsize=3, label=label, **looks)
        # PCA's are dashed: where an autoencoder stays at PCA, both are seen.
        curves = [
            (axes[0], "train_error", "training rows", "C0", "-"),
            (axes[0], "test_error", "held-out rows", "C1", "-"),
            (axes[0], "pca_test_error", "PCA, held-out rows", "C2", "--"),
            (axes[1], "pca_test_nats", "PCA, held-out rows", "C2", "--"),
        ]
        self.lines_ = {"test_nats": self.errorbar_.lines[0]} | {
            column: ax.plot(x, results[column], color=color, ls=ls, label=label, **looks)[0]
            for ax, column, label, color, ls in curves
            if column in results
        }
        suggested = self.path.suggested
        place, label = results.index.get_loc(suggested), f"suggested: {suggested}"
        self.suggested_lines_ = [
            ax.axvline(place, color="gray", ls=":", label=label, zorder=0) for ax in axes
        ]
        axes[0].set(title="Error of reconstructions", ylabel="mean squared error per row")
        axes[1].set(title="Log-density of held-out rows", ylabel="nats per row")
        for ax in axes:
            ax.set_xlabel(self.path.param_name)
            ax.set_xticks(x, [str(value) for value in results.index])
            ax.legend()
        return self

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any = None,
        *,
        param_name: str = "n_components",
        param_range: Any = None,
        cv: Any = None,
        random_state: int | RandomState | None = 0,
        ax: Any = None,
    ) -> Self:
        """Fit models of several sizes and draw how well they do.

        Parameters
        ----------
        estimator : estimator
            What to fit, as `skae.components_path` takes it.
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.
        y : array-like of shape (n_samples,), default=None
            Targets, for estimators whose `fit` uses them.
        param_name : str, default="n_components"
            The parameter that varies.
        param_range : array-like, default=None
            Its values; None leaves them to `components_path`.
        cv : int, cross-validation generator or iterable, default=None
            How rows are held out, as `components_path` takes it.
        random_state : int, RandomState instance or None, default=0
            Decides the fits.
        ax : array-like of two matplotlib Axes, default=None
            Where to draw; None is a new figure.

        Returns
        -------
        display : ComponentsPathDisplay
        """
        # Before any fit: these take long.
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        path = components_path(
            estimator,
            X,
            y,
            param_name=param_name,
            param_range=param_range,
            cv=cv,
            random_state=random_state,
        )
        return cls.from_predictions(path, ax=ax)

    @classmethod
    def from_predictions(cls, path: Any, *, ax: Any = None) -> Self:
        """Draw a given path.

        Parameters
        ----------
        path : ComponentsPath
            What `skae.components_path` returns.
        ax : array-like of two matplotlib Axes, default=None
            Where to draw; None is a new figure.

        Returns
        -------
        display : ComponentsPathDisplay

        Raises
        ------
        TypeError
            Where `path` is something else.
        ValueError
            Where ax does not hold two axes.
        """
        if not hasattr(path, "results"):
            raise TypeError(
                f"path must be what skae.components_path returns, got {type(path).__name__}."
            )
        return cls(path).plot(ax)


class OutlierExplanationDisplay(_Display):
    """Which cells make rows strange, and what was expected there.

    Each row has axes of its own. A bar is a cell's share of what is strange about the row; the text
    beside it says how far the cell is from what was expected, in robust standard deviations. Use
    `from_estimator` to draw the strangest rows of a table.

    Parameters
    ----------
    explanation : DataFrame of shape (n_samples, 3 * n_features)
        What `AutoencoderOutlierDetector.explain` returns for the rows; its index names them.
    n_features : int, default=8
        Bars of each row, those of the largest shares.

    Attributes
    ----------
    bars_ : list of matplotlib BarContainer
        The bars of each row, the largest first.
    ax_ : matplotlib Axes or ndarray of shape (n_samples,) of them
        Where they are drawn.
    figure_ : matplotlib Figure
        The figure of the axes.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from sklearn.datasets import load_wine
    >>> from skae import AutoencoderOutlierDetector
    >>> from skae import OutlierExplanationDisplay
    >>> X = load_wine(as_frame=True).data
    >>> X.loc[7, "alcohol"] = 0.0
    >>> detector = AutoencoderOutlierDetector(random_state=0).fit(X)
    >>> display = OutlierExplanationDisplay.from_estimator(detector, X, n_rows=1)
    >>> display.ax_.get_title(loc="left"), display.ax_.get_yticklabels()[0].get_text()
    ('row 7', 'alcohol')
    """

    def __init__(self, explanation: Any, n_features: int = 8) -> None:
        self.explanation = explanation
        self.n_features = n_features

    def plot(self, ax: Any = None) -> Self:
        check_scalar(self.n_features, "n_features", Integral, min_val=1)
        rows = self.explanation
        n_bars = min(self.n_features, rows["share"].shape[1])
        axes = self._make_axes(ax, (len(rows), 1), (7, 0.8 + 0.27 * n_bars))[:, 0]
        self.bars_ = []
        for number, (ax, label) in enumerate(zip(axes, rows.index, strict=True)):
            told = rows.iloc[number]
            share = told["share"].sort_values(ascending=False, kind="stable")[:n_bars]
            bars = ax.barh(range(n_bars), share, tick_label=[str(name) for name in share.index])
            cells = zip(told["deviation"][share.index], told["expected"][share.index], strict=True)
            texts = [f"{away:+.1f} sd, expected {expected:.4g}" for away, expected in cells]
            ax.bar_label(bars, texts, padding=4, size="small")
            ax.set_title(f"row {label}", loc="left")
            ax.set_xlim(0, share.max() * 1.75)  # room for the texts
            ax.invert_yaxis()
            self.bars_.append(bars)
        axes[-1].set_xlabel("share of what is strange about the row")
        return self

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, *, n_rows: int = 3, n_features: int = 8, ax: Any = None
    ) -> Self:
        """Draw why the strangest rows of a table are strange.

        Parameters
        ----------
        estimator : AutoencoderOutlierDetector, or Pipeline that ends with one
            Fitted. What was expected is in the units that the detector sees: after the earlier
            steps of a Pipeline.
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.
        n_rows : int, default=3
            How many rows to draw, at most: those of the lowest `score_samples`, the lowest first.
        n_features : int, default=8
            Bars of each row, those of the largest shares.
        ax : matplotlib Axes or array-like of them, default=None
            Where to draw; None is a new figure.

        Returns
        -------
        display : OutlierExplanationDisplay

        Raises
        ------
        TypeError
            Where `estimator` is no outlier detector.
        NotFittedError
            Where it is not fitted.
        ValueError
            Where X or ax do not fit.
        """
        check_scalar(n_rows, "n_rows", Integral, min_val=1)
        detector, _ = _unpacked(estimator)
        if not hasattr(detector, "explain"):
            raise TypeError(
                f"estimator must be an AutoencoderOutlierDetector, got {type(detector).__name__}."
            )
        index = getattr(X, "index", None) if hasattr(X, "iloc") else None
        X, names = _before_last(estimator, detector, X)
        order = detector.score_samples(X).argsort(kind="stable")[:n_rows]
        why = detector.explain(safe_indexing(X, order))
        why.index = order if index is None else index[order]
        if names is not None:
            why = why.rename(columns=dict(zip(why["share"], names, strict=True)), level=1)
        return cls(why, n_features).plot(ax)

    @classmethod
    def from_predictions(
        cls, explanation: Any, *, n_rows: int = 3, n_features: int = 8, ax: Any = None
    ) -> Self:
        """Draw a given explanation.

        Parameters
        ----------
        explanation : DataFrame of shape (n_samples, 3 * n_features)
            What `AutoencoderOutlierDetector.explain` returns; its index names the rows.
        n_rows : int, default=3
            How many rows to draw, at most: the first ones.
        n_features : int, default=8
            Bars of each row, those of the largest shares.
        ax : matplotlib Axes or array-like of them, default=None
            Where to draw; None is a new figure.

        Returns
        -------
        display : OutlierExplanationDisplay

        Raises
        ------
        ValueError
            Where `explanation` is another table, or ax does not fit.
        """
        check_scalar(n_rows, "n_rows", Integral, min_val=1)
        columns = getattr(explanation, "columns", None)
        parts = () if columns is None else columns.get_level_values(0)
        if not {"deviation", "expected", "share"} <= {*parts}:
            raise ValueError(
                "explanation must be what AutoencoderOutlierDetector.explain returns: a DataFrame "
                f"of deviation, expected and share, got {type(explanation).__name__}."
            )
        return cls(explanation.iloc[:n_rows], n_features).plot(ax)


# ------------------------------------------------------------------------ what estimators see


def _unpacked(estimator: Any) -> tuple[Any, Any]:
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


def _before_last(estimator: Any, last: Any, X: Any) -> tuple[Any, Any]:
    """Rows as `last` sees them, after the earlier steps of a Pipeline, and their columns' names."""
    names = None
    if estimator is not last and len(estimator) > 1:
        before = estimator[:-1]
        X = before.transform(X)
        # Steps that cannot name their columns leave them without names.
        with suppress(AttributeError):
            names = before.get_feature_names_out()
    return X, getattr(last, "feature_names_in_", names)


def _seen(estimator: Any, X: Any) -> tuple[Any, Any, Any]:
    """The autoencoder, rows as it sees them, and the names of their columns or None.

    Raises TypeError where it sees them as nobody else does.
    """
    last, autoencoder = _unpacked(estimator)
    if autoencoder is not last and not hasattr(last, "transform"):
        raise TypeError(
            f"{type(last).__name__} shows its autoencoder rows in units of its own, so that codes "
            "of X cannot be drawn. Draw LossCurveDisplay or OutlierExplanationDisplay, or give an "
            "autoencoder."
        )
    X, names = _before_last(estimator, last, X)
    # The autoencoder of another estimator was fitted without names.
    return autoencoder, X if autoencoder is last else np.asarray(X), names


def _cells(X: Any) -> Floats:
    """Rows, or codes, as a table of numbers."""
    X = check_array(X, ensure_all_finite="allow-nan", allow_nd=True)
    return X.reshape(len(X), -1)


def _pca(X: Any, n_components: int) -> PCA:
    """PCA of rows, of fewer components if there are no more."""
    X = _cells(X)
    if np.isnan(X).any():
        raise ValueError("X has NaN, which PCA does not take: set with_pca=False.")
    return PCA(min(n_components, *X.shape), random_state=0).fit(X)


# ------------------------------------------------------------------------------------ drawing


def _shape_of_images(autoencoder: Any, feature_shape: Sequence[int] | None) -> Any:
    """The shape given, or that of the autoencoder's rows, if they may be images.

    That of sequences has two axes, too.
    """
    if feature_shape is not None or autoencoder.architecture == "recurrent":
        return feature_shape
    return autoencoder.feature_shape


def _images(rows: Floats, feature_shape: Sequence[int] | None) -> Floats | None:
    """Rows as matplotlib takes pictures; None where they are none."""
    if feature_shape is None:
        return None
    n_features = rows.shape[-1]
    try:
        shape = np.empty(n_features).reshape(feature_shape).shape
    except ValueError:
        raise ValueError(
            f"feature_shape={tuple(feature_shape)} is no shape of rows with {n_features} columns."
        ) from None
    if len(shape) == 2:
        shape = 1, *shape
    if len(shape) != 3 or shape[0] not in (1, 3) or min(shape[1:]) == 1:
        return None
    images = np.moveaxis(rows.reshape(*rows.shape[:-1], *shape), -3, -1)
    return images[..., 0] if shape[0] == 1 else images


def _draw_images(axes: Any, images: Floats, low: float, high: float) -> NDArray[np.object_]:
    """Pictures in a grid, black at `low` and white at `high`."""
    if images.ndim > axes.ndim + 2:  # matplotlib takes colours in [0, 1] only
        images = np.clip((images - low) / (high - low or 1), 0, 1)
    artists = np.empty(axes.shape, dtype=object)
    for place, ax in np.ndenumerate(axes):
        artists[place] = ax.imshow(images[place], cmap="gray", vmin=low, vmax=high)
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    return artists


def _label_left(axes: Any, labels: list[str]) -> None:
    """Labels left of the rows of a grid."""
    for ax, label in zip(axes[:, 0], labels, strict=True):
        ax.set_ylabel(label, rotation=0, ha="right", va="center")


def _label_columns(axes: Any, names: Any, n_features: int) -> None:
    """Names of columns, if they are few, below the last of the axes."""
    if names is None or n_features > MOST_NAMES:
        axes[-1].set_xlabel("column")
        return
    if len(names) != n_features:
        raise ValueError(f"feature_names has {len(names)} names for {n_features} columns.")
    for ax in axes:
        ax.set_xticks(range(n_features), [])
    axes[-1].set_xticks(range(n_features), names, rotation=90)


def _plane(codes: Floats) -> tuple[Floats, str, str]:
    """Codes as dots, and what the two axes are."""
    k = codes.shape[1]
    if k == 1:
        return np.column_stack([np.arange(len(codes)), codes]), "row", "component 0"
    if k == 2:
        return codes, "component 0", "component 1"
    axes = [f"{nth} principal axis of {k} components" for nth in ("first", "second")]
    return PCA(2, random_state=0).fit_transform(codes), axes[0], axes[1]


def _classes(y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp]] | None:
    """The classes and the number of each row's; None where y holds numbers."""
    classes, numbers = np.unique(y, return_inverse=True)
    if y.dtype.kind in "iuf" and (len(classes) > MOST_CLASSES or (classes % 1 > 0).any()):
        return None
    return classes, numbers


def _colors_of_classes(classes: NDArray[Any], numbers: NDArray[np.intp]) -> dict[str, Any]:
    """A colour for each class, as `scatter` takes them."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    n = len(classes)
    palette = colormaps["tab10" if n <= 10 else "tab20"]
    colors = ListedColormap([palette(i % palette.N) for i in range(n)])
    return {"c": numbers, "cmap": colors, "vmin": -0.5, "vmax": n - 0.5}
