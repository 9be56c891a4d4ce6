"""Displays of codes, and of the rows that come back from them."""

from abc import abstractmethod
from collections.abc import Sequence
from numbers import Integral
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.utils import check_array, check_consistent_length, check_scalar, column_or_1d

from skae._compat.sklearn import safe_indexing
from skae.inspection.display import Display, transform_before, unpack

__all__ = ["LatentSpaceDisplay", "ReconstructionDisplay", "TraversalDisplay"]

Floats = NDArray[np.floating]

MOST_NAMES = 30
"""Columns up to which their names fit below an axis."""

MOST_CLASSES = 20
"""Different whole numbers up to which they are classes."""

MOST_COMPONENTS = 5
"""Components that a traversal shows unless told which."""


class _CodesDisplay(Display):
    """Base class of displays of estimators that have codes.

    Parameters
    ----------
    feature_shape : tuple of int or None, default=None
        (channels, height, width) of images with 1 or 3 channels, or (height, width). One number
        may be -1. With None or any other shape, rows are drawn as lines.
    feature_names : array-like of str of shape (n_features,), default=None
        Names of the columns, written below the last axes if they are at most 30.
    """

    @classmethod
    @abstractmethod
    def from_estimator(cls, *args: Any, **kwargs: Any) -> Self:
        """Draw what a fitted model makes of rows.

        Parameters
        ----------
        estimator : autoencoder, estimator with codes over one, or Pipeline that ends with one
            Fitted. Rows are drawn as the autoencoder sees them: after the earlier steps of a
            Pipeline.
        feature_shape : tuple of int or None, default=None
            Shape of images. None is the autoencoder's own `feature_shape`; where that is the shape
            of sequences, their cells are drawn in order.

        Raises
        ------
        TypeError
            Where `estimator` has no codes.
        NotFittedError
            Where it is not fitted.
        ValueError
            Where a parameter does not fit.
        """


class LatentSpaceDisplay(_CodesDisplay):
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

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from sklearn.datasets import load_wine
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skae import Autoencoder
    >>> from skae import LatentSpaceDisplay
    >>> X, y = load_wine(return_X_y=True)
    >>> model = make_pipeline(StandardScaler(), Autoencoder(2, max_epochs=5, random_state=0))
    >>> display = LatentSpaceDisplay.from_estimator(model.fit(X), X, y)
    >>> [ax.get_title() for ax in display.ax_]
    ['Autoencoder: codes of 2', 'PCA: codes of 2']
    """

    codes: dict[str, Floats]
    y: Any = None

    def plot(self, ax: Any = None) -> Self:
        axes = self._make_axes(ax, (1, len(self.codes)), (4.8, 4.2))[0]
        y = None if self.y is None else column_or_1d(self.y)
        colors, classes = _colors(y)
        self.scatters_ = []
        for ax, (name, codes) in zip(axes, self.codes.items(), strict=True):
            dots, xlabel, ylabel = _project(codes)
            self.scatters_.append(ax.scatter(*dots.T, s=12, linewidths=0, **colors))
            ax.set(title=f"{name}: codes of {codes.shape[1]}", xlabel=xlabel, ylabel=ylabel)
        if classes is not None:
            handles, _ = self.scatters_[-1].legend_elements(num=None)
            axes[-1].legend(handles, classes, loc="center left", bbox_to_anchor=(1, 0.5))
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
        with_pca : bool, default=True
            Whether to draw codes of two components by PCA, too. It is fitted on `X` as the
            autoencoder sees it: after the earlier steps of a Pipeline.
        ax : matplotlib Axes or array-like of them, default=None
            Where to draw: two axes, or one without PCA; None is a new figure.
        """
        autoencoder, X, _ = _autoencoder_and_rows(estimator, X)
        name, codes = type(autoencoder).__name__, autoencoder.transform(X)
        pca_codes = _fit_pca(X, 2).transform(_as_table(X)) if with_pca else None
        return cls.from_predictions(codes, y, name=name, pca_codes=pca_codes, ax=ax)

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
        name : str, default="codes"
            What made the codes.
        pca_codes : array-like of shape (n_samples, n_components), default=None
            Codes of the same rows by PCA.
        ax : matplotlib Axes or array-like of them, default=None
            Where to draw: two axes, or one without PCA; None is a new figure.

        Raises
        ------
        ValueError
            Where codes, y or ax do not fit.
        """
        both = {name: codes} if pca_codes is None else {name: codes, "PCA": pca_codes}
        check_consistent_length(*both.values(), y)
        return cls({name: _as_table(table) for name, table in both.items()}, y).plot(ax)


class ReconstructionDisplay(_CodesDisplay):
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

    Attributes
    ----------
    images_ : ndarray of shape (1 + n_reconstructions, n_samples) of matplotlib AxesImage
        The pictures, if rows are images.
    lines_ : ndarray of shape (n_samples, 1 + n_reconstructions) of matplotlib Line2D
        The dots and the lines, if they are not.
    ax_ : matplotlib Axes or ndarray of them
        Where they are drawn, in the order of `images_`, or one for each row.

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

    X: Floats
    reconstructions: dict[str, Floats]
    feature_shape: Sequence[int] | None = None
    feature_names: Any = None

    def plot(self, ax: Any = None) -> Self:
        rows = np.stack([self.X, *self.reconstructions.values()])
        names = ["original", *self.reconstructions]
        titles = [f"row {number}" for number in range(len(self.X))]
        images = _as_images(rows, self.feature_shape)
        if images is None:
            axes = self._make_axes(ax, (len(self.X), 1), (8, 1.4), below=1.6)[:, 0]
            looks: list[dict[str, Any]] = [{"label": name} for name in names]
            looks[0] |= {"ls": "", "marker": "o", "ms": 3.5, "color": "0.3"}
            groups = rows.swapaxes(0, 1)
            self.lines_ = _draw_lines(axes, groups, looks, titles, self.feature_names)
            above = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0.1}
            axes[0].legend(ncols=len(names), frameon=False, **above)
        else:
            axes = self._make_axes(ax, images.shape[:2], (1.1, 1.1))
            low, high = np.nanmin(images[0]), np.nanmax(images[0])
            self.images_ = _draw_images(axes, images, low, high, names, titles)
        return self

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
        n_rows : int, default=8
            How many rows to draw, at most.
        with_pca : bool, default=False
            Whether to draw PCA's reconstructions, too, from codes of the same size. It is fitted
            on all rows of `X`.
        """
        check_scalar(n_rows, "n_rows", Integral, min_val=1)
        autoencoder, X, names = _autoencoder_and_rows(estimator, X)
        some, k = safe_indexing(X, slice(n_rows)), autoencoder.n_components_
        cells = _as_table(some)
        title = f"{type(autoencoder).__name__}({k})"
        reconstructions = {title: _as_table(autoencoder.reconstruct(some))}
        if with_pca:
            pca = _fit_pca(X, k)
            name = f"PCA({pca.n_components_})"
            reconstructions[name] = pca.inverse_transform(pca.transform(cells))
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

        Raises
        ------
        ValueError
            Where X, X_reconstructed, feature_shape or ax do not fit.
        """
        X, restored = _as_table(X), _as_table(X_reconstructed)
        if X.shape != restored.shape:
            raise ValueError(
                f"X_reconstructed must have the shape of X, {X.shape}, got {restored.shape}."
            )
        return cls(X, {"reconstruction": restored}, feature_shape, feature_names).plot(ax)


class TraversalDisplay(_CodesDisplay):
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

    Attributes
    ----------
    images_ : ndarray of shape (n_components, n_values) of matplotlib AxesImage
        The pictures, if rows are images.
    lines_ : ndarray of shape (n_components, n_values) of matplotlib Line2D
        The lines, if they are not.
    ax_ : matplotlib Axes or ndarray of them
        Where they are drawn, in the order of `images_`, or one for each component.

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

    rows: Floats
    values: Floats
    components: Any = None
    feature_shape: Sequence[int] | None = None
    feature_names: Any = None

    def plot(self, ax: Any = None) -> Self:
        components = range(len(self.rows)) if self.components is None else self.components
        names = [f"component {component}" for component in components]
        images = _as_images(self.rows, self.feature_shape)
        if images is None:
            axes = self._make_axes(ax, (len(self.rows), 1), (8, 1.7), below=1.6)[:, 0]
            from matplotlib import colormaps

            colors = colormaps["plasma"](np.linspace(0, 0.9, self.values.shape[1]))
            looks = [{"color": color, "lw": 1.2} for color in colors]
            titles = [
                f"{name} from {values[0]:.2g} (dark) to {values[-1]:.2g} (light)"
                for name, values in zip(names, self.values, strict=True)
            ]
            self.lines_ = _draw_lines(axes, self.rows, looks, titles, self.feature_names)
        else:
            axes = self._make_axes(ax, images.shape[:2], (1.1, 1.2))
            titles = [f"{value:.2g}" for value in self.values.flat]
            low, high = np.nanpercentile(images, [2, 98])
            self.images_ = _draw_images(axes, images, low, high, names, titles)
        return self

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
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units, which say where codes lie: the values of a component run
            evenly from its 5th to its 95th percentile.
        row : int, default=0
            Number of the row whose code is changed.
        components : array-like of int, default=None
            Which components to change. None is the five whose variance is largest, or fewer.
        n_values : int, default=7
            Values of each component, at least 2.
        """
        check_scalar(n_values, "n_values", Integral, min_val=2)
        autoencoder, X, names = _autoencoder_and_rows(estimator, X)
        codes = _as_table(autoencoder.transform(X))
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
        return cls(np.stack([*map(_as_table, rows)]), values, numbers, shape, names).plot(ax)

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


def _autoencoder_and_rows(estimator: Any, X: Any) -> tuple[Any, Any, Any]:
    """The autoencoder, rows as it sees them, and the names of their columns or None.

    Raises TypeError where it sees them as nobody else does.
    """
    last, autoencoder = unpack(estimator)
    if autoencoder is not last and not hasattr(last, "transform"):
        raise TypeError(
            f"{type(last).__name__} shows its autoencoder rows in units of its own, so that codes "
            "of X cannot be drawn. Draw LossCurveDisplay or OutlierExplanationDisplay, or give an "
            "autoencoder."
        )
    X, names = transform_before(estimator, last, X)
    # The autoencoder of another estimator was fitted without names.
    return autoencoder, X if autoencoder is last else np.asarray(X), names


def _as_table(X: Any) -> Floats:
    """Rows, or codes, as a table of numbers."""
    X = check_array(X, ensure_all_finite="allow-nan", allow_nd=True)
    return X.reshape(len(X), -1)


def _fit_pca(X: Any, n_components: int) -> PCA:
    """PCA of rows, of fewer components if there are no more."""
    X = _as_table(X)
    if np.isnan(X).any():
        raise ValueError("X has NaN, which PCA does not take: set with_pca=False.")
    return PCA(min(n_components, *X.shape), random_state=0).fit(X)


def _shape_of_images(autoencoder: Any, feature_shape: Sequence[int] | None) -> Any:
    """The shape given, or that of the autoencoder's rows, if they may be images.

    That of sequences has two axes, too.
    """
    if feature_shape is not None or autoencoder.architecture == "recurrent":
        return feature_shape
    return autoencoder.feature_shape


def _as_images(rows: Floats, feature_shape: Sequence[int] | None) -> Floats | None:
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


def _draw_images(axes: Any, images: Floats, low: Any, high: Any, labels: Any, titles: Any) -> Any:
    """Draw pictures in a grid, black at `low` and white at `high`.

    Each row of the grid has a label. All pictures have titles, or those of the first row.
    """
    if images.ndim > 4:  # matplotlib takes colours in [0, 1] only
        images = np.clip((images - low) / (high - low or 1), 0, 1)
    artists = np.empty(axes.shape, dtype=object)
    for place, ax in np.ndenumerate(axes):
        artists[place] = ax.imshow(images[place], cmap="gray", vmin=low, vmax=high)
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    for ax, label in zip(axes[:, 0], labels, strict=True):
        ax.set_ylabel(label, rotation=0, ha="right", va="center")
    for ax, title in zip(axes.flat, titles, strict=False):
        ax.set_title(title, size="small")
    return artists


def _draw_lines(axes: Any, rows: Floats, looks: Any, titles: Any, names: Any) -> Any:
    """Draw rows as lines, each group of rows in axes of its own.

    Each row of a group has its look, and each group a title. The names of the columns, if they are
    few, stand below the last axes.
    """
    n_features = rows.shape[-1]
    lines = []
    for ax, group, title in zip(axes, rows, titles, strict=True):
        lines.append([ax.plot(row, **look)[0] for row, look in zip(group, looks, strict=True)])
        ax.set_title(title, loc="left", size="small")
    if names is None or n_features > MOST_NAMES:
        axes[-1].set_xlabel("column")
    elif len(names) != n_features:
        raise ValueError(f"feature_names has {len(names)} names for {n_features} columns.")
    else:
        for ax in axes:
            ax.set_xticks(range(n_features), [])
        axes[-1].set_xticks(range(n_features), names, rotation=90)
    return np.array(lines, dtype=object)


def _project(codes: Floats) -> tuple[Floats, str, str]:
    """Codes as dots, and what the two axes are."""
    k = codes.shape[1]
    if k == 1:
        return np.column_stack([np.arange(len(codes)), codes]), "row", "component 0"
    if k == 2:
        return codes, "component 0", "component 1"
    axes = f"principal axis of {k} components"
    return PCA(2, random_state=0).fit_transform(codes), f"first {axes}", f"second {axes}"


def _colors(y: NDArray[Any] | None) -> tuple[dict[str, Any], NDArray[Any] | None]:
    """Colours of rows as `scatter` takes them, and the classes; None where y holds numbers."""
    if y is None:
        return {}, None
    classes, numbers = np.unique(y, return_inverse=True)
    n = len(classes)
    if y.dtype.kind in "iuf" and (n > MOST_CLASSES or (classes % 1 > 0).any()):
        return {"c": y}, None
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    palette = colormaps["tab10" if n <= 10 else "tab20"]
    colors = ListedColormap([palette(i % palette.N) for i in range(n)])
    return {"c": numbers, "cmap": colors, "vmin": -0.5, "vmax": n - 0.5}, classes
