"""Displays of codes, reconstructions and traversals."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.utils import check_consistent_length

from skae._compat.sklearn import safe_indexing
from skae.inspection.cells import comparable_cells, reads_numbers, standardized_cells
from skae.inspection.display import (
    Display,
    complete_rows,
    component_indices,
    fit_pca,
    flatten_rows,
    image_shape,
    unpack_with_rows,
)
from skae.inspection.drawing import as_images, draw_dots, draw_images, name_columns
from skae.parameters import check_integer
from skae.table.sequences import as_padded

__all__ = ["LatentSpaceDisplay", "ReconstructionDisplay", "TraversalDisplay"]

Floats = NDArray[np.floating]

MAX_COMPONENTS = 5
"""Maximum number of components that a traversal shows by default."""

N_DRAWN = 256
"""Number of rows that are drawn from a model to estimate how much their codes vary."""

NORMAL_95 = 1.645
"""The 95th percentile of the standard normal distribution."""


class _CodesDisplay(Display):
    """Base class of displays of estimators that compute codes.

    Parameters
    ----------
    feature_shape : tuple of int or None, default=None
        Shape of a row if rows are images with 1 or 3 channels: (channels, height, width) or
        (height, width). One number may be -1; it is inferred from the number of columns. Rows are
        plotted as lines if the shape is None or not that of such images, or if the height or the
        width is 1.
    feature_names : array-like of str of shape (n_features,), default=None
        Names of the columns. They are written below the last axes if rows are plotted as lines and
        have at most 30 columns.
    """

    @classmethod
    @abstractmethod
    def from_estimator(cls, *args: Any, **kwargs: Any) -> Self:
        """Plot results of a fitted estimator for rows.

        Parameters
        ----------
        estimator : autoencoder, estimator that contains one, or Pipeline
            A fitted autoencoder, or a fitted estimator that contains an autoencoder, such as
            `AutoencoderClassifier`, or a fitted Pipeline that ends with one of these. Rows are
            plotted in the units of the autoencoder's input: those after the earlier steps of a
            Pipeline, and the robust units of estimators that contain an autoencoder.
        feature_shape : tuple of int or None, default=None
            Shape of a row if rows are images, as for the class. If None, it is the parameter
            `feature_shape` of the autoencoder. The rows of a recurrent autoencoder are sequences.
            With the default, they are plotted as lines. Each line connects all cells of a sequence
            in the order of the columns.

        Raises
        ------
        TypeError
            If `estimator` contains no autoencoder, or if a parameter has an invalid type.
        NotFittedError
            If `estimator` is not fitted.
        ValueError
            If `X` or another parameter is invalid, or if `ax` does not hold as many axes as `ax_`.
        """


class LatentSpaceDisplay(_CodesDisplay):
    """Scatter plot of the codes that one or several models compute for the same rows.

    Codes with two components are plotted directly. Codes with more components are projected onto
    their first two principal axes. Codes with one component are plotted against the row number,
    counted from 0. Use `from_estimator` to plot the codes of a fitted estimator.

    Parameters
    ----------
    codes : dict of str to ndarray of shape (n_samples, n_components)
        Codes of the same rows, by the name of the model that computed them. Each entry has its own
        axes. The number of components may differ between entries.
    y : array-like of shape (n_samples,), default=None
        Values that determine the colors of the dots. Strings and booleans are classes, and so are
        whole numbers with at most 20 distinct values. Classes have a legend, and their colors
        repeat if there are more than 20. All other numbers have a color bar. If None, all dots of
        an axes have the same color.

    Attributes
    ----------
    scatters_ : list of matplotlib PathCollection
        The dots, one collection for each entry of `codes`.
    ax_ : matplotlib Axes or ndarray of shape (n_models,) of them
        The axes of the plots, one for each entry of `codes`.

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
    ['Autoencoder (n_components=2)', 'PCA (n_components=2)']
    """

    codes: dict[str, Floats]
    y: Any = None

    def plot(self, ax: Any = None) -> Self:
        axes = self._make_axes(ax, (1, len(self.codes)), (4.8, 4.2))[0]
        projections = [_project(codes) for codes in self.codes.values()]
        self.scatters_ = draw_dots(axes, [dots for dots, *_ in projections], self.y)
        tables = zip(axes, self.codes.items(), projections, strict=True)
        for ax, (name, codes), (_, xlabel, ylabel) in tables:
            title = f"{name} (n_components={codes.shape[1]})"
            ax.set(title=title, xlabel=xlabel, ylabel=ylabel)
        return self

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, y: Any = None, *, with_pca: bool = True, ax: Any = None
    ) -> Self:
        """Plot the codes that a fitted estimator computes from rows.

        Parameters
        ----------
        estimator : autoencoder, estimator that contains one, or Pipeline
            A fitted autoencoder, or a fitted estimator that contains an autoencoder, such as
            `AutoencoderClassifier`, or a fitted Pipeline that ends with one of these.
        with_pca : bool, default=True
            Whether to plot codes of PCA with two components as well, as a baseline. PCA is fitted
            to the autoencoder's input, which is `X` after the earlier steps of a Pipeline. Missing
            cells are replaced with the means of their columns. If columns have several kinds, PCA
            is fitted to the standardized cells that the network reads, which is factor analysis of
            mixed data.
        ax : matplotlib Axes or array-like of two of them, default=None
            Axes to plot into: one if `with_pca=False`, otherwise two. If None, a new figure is
            created.
        """
        autoencoder, X, _ = unpack_with_rows(estimator, X)
        name, codes, pca_codes = type(autoencoder).__name__, autoencoder.transform(X), None
        if with_pca:
            is_plain = reads_numbers(autoencoder)
            rows = complete_rows(X if is_plain else standardized_cells(autoencoder, X).rows)
            pca_codes = fit_pca(rows, 2).transform(rows)
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
        """Plot codes that were computed before.

        Parameters
        ----------
        codes : array-like of shape (n_samples, n_components)
            Codes of rows.
        name : str, default="codes"
            Name of the model that computed `codes`. It is written in the title of their axes.
        pca_codes : array-like of shape (n_samples, n_pca_components), default=None
            Codes of the same rows by PCA. If None, only `codes` are plotted.
        ax : matplotlib Axes or array-like of two of them, default=None
            Axes to plot into: one if `pca_codes` is None, otherwise two. If None, a new figure is
            created.

        Raises
        ------
        ValueError
            If `codes`, `pca_codes` and `y` have different numbers of rows, if one of them is
            invalid, if `name` is "PCA" although `pca_codes` are passed, or if `ax` does not hold as
            many axes as are needed.
        """
        if pca_codes is not None and name == "PCA":
            raise ValueError(
                "name must not be 'PCA' if pca_codes are passed, because their axes have this name."
            )
        tables = {name: codes} if pca_codes is None else {name: codes, "PCA": pca_codes}
        check_consistent_length(*tables.values(), y)
        return cls({name: flatten_rows(table) for name, table in tables.items()}, y).plot(ax)


class ReconstructionDisplay(_CodesDisplay):
    """Plot of rows and their reconstructions.

    Images are shown in a grid. Its first row contains the original images, and each further row the
    reconstructions by one model. Black is the smallest and white the largest value of all original
    images that are shown.

    If rows are not images, each row has its own axes. Dots show the cells of the row, and lines
    show its reconstructions. All columns share one vertical axis, so that they should have
    comparable units. Missing cells (NaN) are not drawn. Use `from_estimator` to plot the
    reconstructions of a fitted estimator.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        The rows, all of which are plotted.
    reconstructions : dict of str to ndarray of shape (n_samples, n_features)
        Reconstructions of the rows, by the name of the model that computed them.

    Attributes
    ----------
    images_ : ndarray of shape (1 + n_models, n_samples) of matplotlib AxesImage
        The images. Defined only if rows are images.
    lines_ : ndarray of shape (n_samples, 1 + n_models) of matplotlib Line2D
        The dots of each row, and then its lines. Defined only if rows are not images.
    ax_ : matplotlib Axes or ndarray of them
        The axes of the plots: one for each image, in the order of `images_`, or one for each row.
        Dimensions of length 1 are removed.

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
        images = as_images(rows, self.feature_shape)
        if images is None:
            axes = self._make_axes(ax, (len(self.X), 1), (8, 1.4), label_height=1.6)[:, 0]
            styles: list[dict[str, Any]] = [{"label": name} for name in names]
            styles[0] |= {"ls": "", "marker": "o", "ms": 3.5, "color": "0.3"}
            groups = rows.swapaxes(0, 1)
            self.lines_ = _draw_lines(axes, groups, styles, titles, self.feature_names)
            placement = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0.1}
            axes[0].legend(ncols=len(names), frameon=False, **placement)
        else:
            axes = self._make_axes(ax, images.shape[:2], (1.1, 1.1))
            low, high = np.nanmin(images[0]), np.nanmax(images[0])
            self.images_ = draw_images(axes, images, low, high, names, titles)
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
        """Plot the first rows of a table and their reconstructions by a fitted estimator.

        Columns of a condition that hold strings are left out. If modelled columns have several
        kinds, the lines show encoded and standardized cells: a number in standard deviations from
        the mean of its column, and a level of a category as the indicator or the probability of the
        level, minus its share in the training rows and divided by the square root of the share.

        Parameters
        ----------
        n_rows : int, default=8
            Maximum number of rows to plot, at least 1.
        with_pca : bool, default=False
            Whether to plot the reconstructions of PCA as well. PCA is fitted to the autoencoder's
            input for all rows of `X`, after the earlier steps of a Pipeline. It has as many
            components as the autoencoder, or fewer if there are fewer rows or columns. Missing
            cells are replaced with the means of their columns.
        """
        check_integer(n_rows, "n_rows", 1)
        autoencoder, X, names = unpack_with_rows(estimator, X)
        plotted, k = safe_indexing(X, slice(n_rows)), autoencoder.n_components_
        table = comparable_cells(autoencoder, plotted, names)
        reconstructed = np.asarray(table.decode(autoencoder.transform(plotted)))
        numbers = _columns_of_numbers(reconstructed)
        cells = flatten_rows(as_padded(numbers(table.rows), reconstructed.shape[1]))
        title = f"{type(autoencoder).__name__}({k})"
        reconstructions = {title: flatten_rows(numbers(reconstructed))}
        names = None if table.names is None else numbers(np.asarray(table.names)[None])[0]
        if with_pca:
            rows = as_padded(numbers(comparable_cells(autoencoder, X).rows), cells.shape[1])
            rows = complete_rows(rows)
            pca = fit_pca(rows, k)
            name = f"PCA({pca.n_components_})"
            reconstructions[name] = pca.inverse_transform(pca.transform(rows[:n_rows]))
        shape = image_shape(autoencoder, feature_shape)
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
        """Plot rows and their reconstructions by one model.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows, all of which are plotted.
        X_reconstructed : array-like of shape (n_samples, n_features)
            Reconstructions of the rows.

        Raises
        ------
        ValueError
            If `X` and `X_reconstructed` have different shapes, if `feature_shape` does not fit the
            number of columns, if `feature_names` are to be written and their number is not that of
            the columns, or if `ax` does not hold as many axes as `ax_`.
        """
        X, reconstructed = flatten_rows(X), flatten_rows(X_reconstructed)
        if X.shape != reconstructed.shape:
            raise ValueError(
                f"X_reconstructed must have the shape of X, {X.shape}, got {reconstructed.shape}."
            )
        return cls(X, {"reconstruction": reconstructed}, feature_shape, feature_names).plot(ax)


class TraversalDisplay(_CodesDisplay):
    """Plot of the rows that are decoded from a code while one of its components is changed.

    Images are shown in a grid with a row for each changed component and a column for each of its
    values. Black is the 2nd and white the 98th percentile of all pixels that are shown. If rows are
    not images, each changed component has its own axes. These have a line for each value, from dark
    for the first value to light for the last. Use `from_estimator` to plot the traversals of a
    fitted estimator.

    Parameters
    ----------
    rows : ndarray of shape (n_changed, n_values, n_features)
        The decoded rows, for each changed component and each of its values.
    values : ndarray of shape (n_changed, n_values)
        Values of each changed component.
    components : array-like of int of shape (n_changed,), default=None
        Indices of the changed components, which are written in the labels. If None, they are 0 to
        ``n_changed - 1``.

    Attributes
    ----------
    images_ : ndarray of shape (n_changed, n_values) of matplotlib AxesImage
        The images. Defined only if rows are images.
    lines_ : ndarray of shape (n_changed, n_values) of matplotlib Line2D
        The lines. Defined only if rows are not images.
    ax_ : matplotlib Axes or ndarray of them
        The axes of the plots: one for each image, in the order of `images_`, or one for each
        changed component. Dimensions of length 1 are removed.

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
        images = as_images(self.rows, self.feature_shape)
        if images is None:
            axes = self._make_axes(ax, (len(self.rows), 1), (8, 1.7), label_height=1.6)[:, 0]
            from matplotlib import colormaps

            colors = colormaps["plasma"](np.linspace(0, 0.9, self.values.shape[1]))
            styles = [{"color": color, "lw": 1.2} for color in colors]
            titles = [
                f"{name} from {values[0]:.2g} (dark) to {values[-1]:.2g} (light)"
                for name, values in zip(names, self.values, strict=True)
            ]
            self.lines_ = _draw_lines(axes, self.rows, styles, titles, self.feature_names)
        else:
            axes = self._make_axes(ax, images.shape[:2], (1.1, 1.2))
            titles = [f"{value:.2g}" for value in self.values.flat]
            low, high = np.nanpercentile(images, [2, 98])
            self.images_ = draw_images(axes, images, low, high, names, titles)
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
        """Change components of the code of a row one at a time, and plot the decoded rows.

        Columns of a condition that hold strings are left out. If modelled columns have several
        kinds, the lines show encoded and standardized cells, as those of `ReconstructionDisplay`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units. The values of a component are evenly spaced from its 5th to
            its 95th percentile over the codes of these rows. If both percentiles are equal, as they
            are for a single row, the values are centered at the code of `row` and extend 1.645
            standard deviations to each side, which is the same share of a normal distribution. This
            standard deviation is that of the codes of 256 rows that the model draws. It is 0 for a
            component that the encoder never changes.
        row : int, default=0
            Index in `X` of the row whose code is changed, from 0 to ``n_samples - 1``.
        components : int or array-like of int, default=None
            Indices of the components to change. If None, they are the five components with the
            largest variances over the codes of `X`, in decreasing order of variance, or all
            components if the code has fewer than five. For a single row, the variances are those
            over the codes of the drawn rows.
        n_values : int, default=7
            Number of values of each component, at least 2.
        """
        check_integer(n_values, "n_values", 2)
        autoencoder, X, names = unpack_with_rows(estimator, X)
        codes = flatten_rows(autoencoder.transform(X))
        check_integer(row, "row", 0, len(codes) - 1)
        low, high, variance = _component_ranges(autoencoder, codes, row)
        if components is None:
            components = (-variance).argsort(kind="stable")[:MAX_COMPONENTS]
        indices = component_indices(components, codes.shape[1])
        values = np.linspace(low[indices], high[indices], n_values, axis=1)
        table = comparable_cells(autoencoder, safe_indexing(X, [row] * n_values), names)
        code, rows = flatten_rows(autoencoder.transform(safe_indexing(X, [row]))), []
        for j, grid in zip(indices, values, strict=True):
            changed = np.repeat(code, n_values, axis=0)
            changed[:, j] = grid
            rows.append(np.asarray(table.decode(changed)))
        numbers = _columns_of_numbers(rows[0])
        cells = np.stack([flatten_rows(numbers(decoded)) for decoded in rows])
        names = None if table.names is None else numbers(np.asarray(table.names)[None])[0]
        shape = image_shape(autoencoder, feature_shape)
        return cls(cells, values, indices, shape, names).plot(ax)

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
        """Plot traversals that were computed before.

        Parameters
        ----------
        rows : array-like of shape (n_changed, n_values, n_features)
            The decoded rows, for each changed component and each of its values.
        values : array-like of shape (n_changed, n_values)
            Values of each changed component.

        Raises
        ------
        ValueError
            If the shapes of `rows`, `values` and `components` are inconsistent, if `feature_shape`
            does not fit the number of columns, if `feature_names` are to be written and their
            number is not that of the columns, or if `ax` does not hold as many axes as `ax_`.
        """
        rows, values = np.asarray(rows), np.asarray(values)
        if rows.ndim != 3 or rows.shape[:2] != values.shape:
            raise ValueError(
                "rows must be of shape (n_components, n_values, n_features) and values of shape "
                f"(n_components, n_values), got {rows.shape} and {values.shape}."
            )
        check_consistent_length(rows, components)
        return cls(rows, values, components, feature_shape, feature_names).plot(ax)


def _component_ranges(autoencoder: Any, codes: Floats, row: int) -> tuple[Floats, Floats, Floats]:
    """Return the lowest and the highest value of each component in a traversal, and its variance.

    They are those of `codes`. A component whose percentiles over `codes` are equal has a range
    around the code of `row` instead. The width of this range is that of the codes of rows that the
    model draws.
    """
    low, high = np.percentile(codes, [5, 95], axis=0)
    # The codes of equal rows may differ by rounding errors.
    variance, equal = codes.var(axis=0), np.isclose(low, high, rtol=1e-5, atol=0)
    if equal.any():
        drawn = autoencoder.sample(N_DRAWN, random_state=0)
        drawn_variance = flatten_rows(autoencoder.transform(drawn)).var(axis=0)
        margin = np.where(equal, NORMAL_95 * np.sqrt(drawn_variance), 0)
        low = np.where(equal, codes[row], low) - margin
        high = np.where(equal, codes[row], high) + margin
        variance = drawn_variance if len(codes) == 1 else variance
    return low, high, variance


def _columns_of_numbers(rows: NDArray[Any]) -> Callable[[Any], Any]:
    """Return a function that selects the columns of a table that hold numbers in `rows`.

    The other columns, which cannot be plotted, are conditions that are strings. The function
    returns a table without change if there are none.
    """
    kept = np.arange(rows.shape[1])
    if rows.dtype.kind == "O":
        kept = kept[[not isinstance(value, str) for value in rows[0]]]
    if len(kept) == rows.shape[1]:
        return lambda table: table

    def select(table: Any) -> Any:
        array = table if hasattr(table, "shape") else np.array(table, dtype=object)
        return safe_indexing(array, kept, axis=1)

    return select


def _draw_lines(axes: Any, rows: Floats, styles: Any, titles: Any, names: Any) -> Any:
    """Draw rows, an array of shape (n_groups, n_rows, n_features), as lines.

    Each group has its own axes and one of `titles`. `styles` holds the options of matplotlib for
    each row of a group. `names` of columns, which may be None, are written below the last axes
    unless there are too many. Returns an array of Line2D of shape (n_groups, n_rows). Raises
    ValueError if the number of names to write is not that of the columns.
    """
    lines = []
    for ax, group, title in zip(axes, rows, titles, strict=True):
        lines.append([ax.plot(row, **style)[0] for row, style in zip(group, styles, strict=True)])
        ax.set_title(title, loc="left", size="small")
    name_columns(axes, rows.shape[-1], names)
    return np.array(lines, dtype=object)


def _project(codes: Floats) -> tuple[Floats, str, str]:
    """Return points of shape (n_samples, 2) that show the codes, and the labels of both axes."""
    k = codes.shape[1]
    if k == 1:
        return np.column_stack([np.arange(len(codes)), codes]), "row", "component 0"
    if k == 2:
        return codes, "component 0", "component 1"
    axes = f"principal axis of {k} components"
    return PCA(2, random_state=0).fit_transform(codes), f"first {axes}", f"second {axes}"
