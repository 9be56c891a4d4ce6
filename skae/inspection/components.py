"""Displays that show what the components of a code mean."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_array, check_consistent_length, column_or_1d

from skae._compat.sklearn import safe_indexing
from skae.inspection.attribution import (
    attribution_shares,
    importance,
    mean_loadings,
    modelled_cells,
)
from skae.inspection.cells import comparable_cells
from skae.inspection.display import (
    Display,
    complete_rows,
    component_indices,
    fit_pca,
    flatten_rows,
    image_shape,
    unpack_with_rows,
)
from skae.inspection.drawing import (
    as_images,
    check_column_names,
    draw_dots,
    draw_images,
    name_columns,
    name_tips,
)
from skae.parameters import check_integer, short_repr

__all__ = ["AttributionDisplay", "BiplotDisplay", "ComponentImportanceDisplay"]

Floats = NDArray[np.floating]

IMAGES_PER_LINE = 8
"""Maximum number of images that stand side by side."""


class _ComponentsDisplay(Display):
    """Base class of displays of components."""

    @classmethod
    @abstractmethod
    def from_estimator(cls, *args: Any, **kwargs: Any) -> Self:
        """Plot the components of a fitted estimator.

        Parameters
        ----------
        estimator : autoencoder, estimator that contains one, or Pipeline
            A fitted autoencoder, a fitted estimator that contains one, such as
            `AutoencoderClassifier`, or a fitted Pipeline that ends with either. Columns are those
            of the autoencoder's input, which are those after the earlier steps of a Pipeline.
            Estimators that contain an autoencoder rescale them to robust units. If columns have
            several kinds, the standardized cells that the network reads are compared, as in
            `skae.metrics`.

        Raises
        ------
        TypeError
            If `estimator` contains no autoencoder, or if a parameter has an invalid type.
        NotFittedError
            If `estimator` is not fitted.
        ValueError
            If `X` or another parameter is invalid, or if `ax` does not hold as many axes as `ax_`.
        """


class BiplotDisplay(_ComponentsDisplay):
    """Scatter plot of two components of the code, with arrows that show the columns.

    Each dot is the code of a row. Each arrow shows how the decoder changes a column with the two
    components: the column increases in the direction of its arrow, and it changes most where the
    arrow is long. Columns with arrows in the same direction increase together, and those with
    opposite arrows change in opposite directions. The length and the direction refer to components
    that are divided by their standard deviations, so that the scales of the components have no
    influence. For a linear autoencoder, this is the biplot of PCA [1]_.

    All arrows have a common scale, which makes the longest one as long as the 95th percentile of
    the distances of the dots from their mean. The length depends on the units of a column.
    Standardize columns that have different units, for example with `StandardScaler`. In tables with
    columns of several kinds, the autoencoder standardizes them, and each level of a category has an
    arrow.

    Parameters
    ----------
    codes : ndarray of shape (n_samples, 2)
        Codes of rows, of which both components vary.
    loadings : ndarray of shape (n_features, 2)
        Change of each column per standard deviation of both components, as
        `skae.metrics.loadings` computes it.
    y : array-like of shape (n_samples,), default=None
        Values that determine the colors of the dots, as for `LatentSpaceDisplay`. If None, all dots
        have the same color.
    components : array-like of int of shape (2,), default=(0, 1)
        Indices of both components, which are written below and beside the axes.
    row : int, default=None
        Index of the row at whose code the arrows start, because `loadings` describe this row. If
        None, they start at the mean of the codes.
    feature_names : array-like of str of shape (n_features,), default=None
        Names of the columns. If None, they are "x0", "x1" and so on. Names of more than 20
        characters are shortened.
    n_arrows : int, default=10
        Maximum number of arrows, at least 1. Columns whose arrows are longest are drawn.

    Attributes
    ----------
    scatter_ : matplotlib PathCollection
        The dots.
    arrows_ : matplotlib Quiver
        The arrows, from the longest to the shortest.
    texts_ : list of matplotlib Annotation
        The names of the columns, in the order of the arrows.
    ax_ : matplotlib Axes
        The axes of the plot.

    References
    ----------
    .. [1] Gabriel (1971). The biplot graphic display of matrices with application to principal
       component analysis. Biometrika 58(3), 453-467.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from sklearn.datasets import load_wine
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skae import Autoencoder
    >>> from skae import BiplotDisplay
    >>> X, y = load_wine(return_X_y=True, as_frame=True)
    >>> model = make_pipeline(StandardScaler(), Autoencoder(3, max_epochs=5, random_state=0))
    >>> display = BiplotDisplay.from_estimator(model.fit(X), X, y, n_arrows=5)
    >>> len(display.texts_)
    5
    """

    codes: Floats
    loadings: Floats
    y: Any = None
    components: Any = (0, 1)
    row: int | None = None
    feature_names: Any = None
    n_arrows: int = 10

    def plot(self, ax: Any = None) -> Self:
        axes = self._make_axes(ax, (1, 1), (7.2, 5.2))[0]
        self.scatter_ = draw_dots(axes, [self.codes], self.y)[0]
        mean, scale = self.codes.mean(axis=0), self.codes.std(axis=0, ddof=1)
        origin = mean if self.row is None else self.codes[self.row]
        lengths = np.linalg.norm(self.loadings, axis=1)
        drawn = (-lengths).argsort(kind="stable")[: self.n_arrows]
        reach = np.percentile(np.linalg.norm((self.codes - mean) / scale, axis=1), 95)
        arrows = self.loadings[drawn] * scale * reach / (lengths.max() or 1)
        start = np.broadcast_to(origin, arrows.shape)
        style = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.004, "zorder": 3}
        self.arrows_ = axes[0].quiver(*start.T, *arrows.T, color="0.2", **style)
        names = self.feature_names
        names = [f"x{column}" if names is None else names[column] for column in drawn]
        self.texts_ = name_tips(axes[0], origin, origin + arrows, names)
        xlabel, ylabel = (f"component {component}" for component in self.components)
        title = "Codes of rows, and loadings of columns"
        if self.row is not None:
            title = f"Codes of rows, and local loadings of columns at row {self.row}"
        axes[0].set(title=title, xlabel=xlabel, ylabel=ylabel)
        return self

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any = None,
        *,
        components: Any = (0, 1),
        row: int | None = None,
        n_arrows: int = 10,
        ax: Any = None,
    ) -> Self:
        """Plot two components of the codes of rows, and the loadings of the columns.

        Parameters
        ----------
        components : array-like of int of shape (2,), default=(0, 1)
            Indices of the two components, which must differ.
        row : int, default=None
            Index in `X` of a row. The arrows then show the derivatives of the decoder at the code
            of this row, from where they start, in the units of the loadings. They differ between
            rows unless the decoder is linear. If None, the arrows show the mean of the derivatives
            over all rows, which `skae.metrics.loadings` computes.
        """
        autoencoder, X, names = unpack_with_rows(estimator, X)
        codes = flatten_rows(autoencoder.transform(X))
        if min(codes.shape) < 2:
            raise ValueError(
                "A biplot requires at least two rows in X and two components, got codes of shape "
                f"{codes.shape}."
            )
        indices = component_indices(components, codes.shape[1])
        table = comparable_cells(autoencoder, X, names)
        if row is None:
            arrows = mean_loadings(autoencoder, X)
        else:
            check_integer(row, "row", 0, len(codes) - 1)
            jacobian = table.decoder_jacobian(safe_indexing(X, [row]))[0]
            arrows = jacobian * codes.std(axis=0, ddof=1)
        return cls.from_predictions(
            codes[:, indices],
            arrows[:, indices],
            y,
            components=indices,
            row=row,
            feature_names=table.names,
            n_arrows=n_arrows,
            ax=ax,
        )

    @classmethod
    def from_predictions(
        cls,
        codes: Any,
        loadings: Any,
        y: Any = None,
        *,
        components: Any = (0, 1),
        row: int | None = None,
        feature_names: Any = None,
        n_arrows: int = 10,
        ax: Any = None,
    ) -> Self:
        """Plot codes and loadings that were computed before.

        Parameters
        ----------
        codes : array-like of shape (n_samples, 2)
            Codes of rows, of which both components vary.
        loadings : array-like of shape (n_features, 2)
            Change of each column per standard deviation of both components.

        Raises
        ------
        ValueError
            If the shape of `codes` or `loadings` is wrong, if they contain NaN, if a component is
            the same for all rows, if `y` or `feature_names` has the wrong length, if `components`,
            `row` or `n_arrows` is invalid, or if `ax` is an array-like of several axes.
        """
        if np.size(components) != 2 or len({*components}) != 2:
            raise ValueError(
                f"components must be two different integers, got {short_repr(components)}."
            )
        codes, loadings = check_array(codes, ensure_min_samples=2), check_array(loadings)
        if codes.shape[1] != 2 or loadings.shape[1] != 2:
            raise ValueError(
                "codes and loadings must have 2 columns, one for each component, got "
                f"{codes.shape[1]} and {loadings.shape[1]}."
            )
        check_consistent_length(codes, y)
        check_column_names(feature_names, len(loadings))
        check_integer(n_arrows, "n_arrows", 1)
        if row is not None:
            check_integer(row, "row", 0, len(codes) - 1)
        for component, varies in zip(components, np.ptp(codes, axis=0) > 0, strict=True):
            if not varies:
                raise ValueError(
                    f"component {component} of the codes must vary, but it is the same for all "
                    "rows. Choose other components."
                )
        return cls(codes, loadings, y, components, row, feature_names, n_arrows).plot(ax)


class AttributionDisplay(_ComponentsDisplay):
    """Heat map of how much each column contributes to each component of the code.

    If rows are images, each component has its own image. An image with several channels shows the
    sum over its channels.

    Parameters
    ----------
    attributions : ndarray of shape (n_components, n_features)
        Shares of the columns in the variance of each component, as
        `skae.metrics.feature_attribution` computes them, or contributions of the cells of one row
        to its code.
    row : int, default=None
        Index of the row whose contributions are shown. They have signs, and their colors are
        symmetric around 0. If None, `attributions` are shares, and their colors begin at 0.
    feature_shape : tuple of int or None, default=None
        Shape of a row if rows are images with 1 or 3 channels, as for `ReconstructionDisplay`. If
        it is None or not that of such images, all components are shown in one heat map.
    feature_names : array-like of str of shape (n_features,), default=None
        Names of the columns. They are written below the heat map if there are at most 30 columns.

    Attributes
    ----------
    image_ : matplotlib AxesImage
        The heat map, with a row for each component and a column for each column. Defined only if
        rows are not images.
    images_ : ndarray of shape (n_lines, n_images_per_line) of matplotlib AxesImage
        The images of the components, at most eight in a line. The last ones of the last line are
        empty if the number of components is smaller. Defined only if rows are images.
    ax_ : matplotlib Axes or ndarray of them
        The axes of the heat map, or those of the images in the order of `images_`. Dimensions of
        length 1 are removed.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from sklearn.datasets import load_wine
    >>> from sklearn.preprocessing import scale
    >>> from skae import Autoencoder
    >>> from skae import AttributionDisplay
    >>> X = scale(load_wine().data)
    >>> autoencoder = Autoencoder(3, max_epochs=5, random_state=0).fit(X)
    >>> display = AttributionDisplay.from_estimator(autoencoder, X)
    >>> display.image_.get_array().shape
    (3, 13)
    """

    attributions: Floats
    row: int | None = None
    feature_shape: Sequence[int] | None = None
    feature_names: Any = None

    def plot(self, ax: Any = None) -> Self:
        k, n_features = self.attributions.shape
        names = [f"component {component}" for component in range(k)]
        images = as_images(self.attributions, self.feature_shape)
        if images is not None and images.ndim == 4:
            images = images.sum(axis=-1)
        high = np.abs(self.attributions if images is None else images).max()
        low, cmap, label = 0, "viridis", "share of variance"
        if self.row is not None:
            low, cmap, label = -high, "RdBu_r", f"contribution in row {self.row}"
        if images is None:
            size = min(max(0.45 * n_features, 4.5), 10), max(0.35 * k, 2.2)
            axes = self._make_axes(ax, (1, 1), size, label_height=1.8)[0]
            colors = {"cmap": cmap, "vmin": low, "vmax": high}
            shown = self.image_ = axes[0].imshow(self.attributions, aspect="auto", **colors)
            axes[0].set_yticks(range(k), names)
            name_columns(axes, n_features, self.feature_names)
        else:
            grid = -(-k // IMAGES_PER_LINE), min(k, IMAGES_PER_LINE)
            axes = self._make_axes(ax, grid, (1.3, 1.4), label_height=0.5)
            tiles = np.full((axes.size, *images.shape[1:]), np.nan)
            tiles[:k] = images
            tiles = tiles.reshape(*grid, *images.shape[1:])
            self.images_ = draw_images(axes, tiles, low, high, [""] * len(axes), names, cmap)
            shown = self.images_[0, 0]
        self.figure_.colorbar(shown, ax=axes.ravel().tolist(), label=label)
        return self

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        row: int | None = None,
        feature_shape: Sequence[int] | None = None,
        ax: Any = None,
    ) -> Self:
        """Plot the contributions of the columns to the components of a fitted estimator.

        Parameters
        ----------
        row : int, default=None
            Index in `X` of a row. The integrated gradients from the mean row of `X` to this row are
            then shown. Those of a component add up to the difference between its values in both
            rows. If None, the shares of the columns in the variance of each component over `X` are
            shown. `skae.metrics.feature_attribution` computes both. It must be None if columns hold
            categories.
        feature_shape : tuple of int or None, default=None
            Shape of a row if rows are images, as for the class. If None, it is the parameter
            `feature_shape` of the autoencoder, unless the autoencoder is recurrent.
        """
        autoencoder, X, names = unpack_with_rows(estimator, X)
        if row is None:
            attributions = attribution_shares(autoencoder, X)
        else:
            of_rows = autoencoder.integrated_gradients(X)
            check_integer(row, "row", 0, len(of_rows) - 1)
            attributions = of_rows[row]
        shape = image_shape(autoencoder, feature_shape)
        return cls(attributions, row, shape, names).plot(ax)

    @classmethod
    def from_predictions(
        cls,
        attributions: Any,
        *,
        row: int | None = None,
        feature_shape: Sequence[int] | None = None,
        feature_names: Any = None,
        ax: Any = None,
    ) -> Self:
        """Plot attributions that were computed before.

        Parameters
        ----------
        attributions : array-like of shape (n_components, n_features)
            Shares of the columns in the variance of each component, or contributions of the cells
            of one row to its code.

        Raises
        ------
        ValueError
            If `attributions` are not such a table of finite numbers, if `feature_shape` does not
            fit the number of columns, if `feature_names` are to be written and their number is not
            that of the columns, or if `ax` does not hold as many axes as `ax_`.
        """
        return cls(check_array(attributions), row, feature_shape, feature_names).plot(ax)


class ComponentImportanceDisplay(_ComponentsDisplay):
    """Bar plot of the share of the variance that each component explains.

    The shares add up to the explained variance of the reconstructions if the decoder is linear and
    the components are uncorrelated, as those of PCA are.

    Parameters
    ----------
    importance : ndarray of shape (n_components,)
        Share of the variance of the rows that is explained by each component, as
        `skae.metrics.component_importance` computes it. It is negative for a component that makes
        reconstructions worse.
    pca_importance : ndarray of shape (n_pca_components,), default=None
        Share that each component of PCA explains. If None, only `importance` is plotted.

    Attributes
    ----------
    bars_ : matplotlib BarContainer
        The bars of the components.
    pca_line_ : matplotlib Line2D or None
        The line of PCA. It is None if `pca_importance` is None.
    ax_ : matplotlib Axes
        The axes of the plot.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from sklearn.datasets import load_wine
    >>> from sklearn.preprocessing import scale
    >>> from skae import Autoencoder
    >>> from skae import ComponentImportanceDisplay
    >>> X = scale(load_wine().data)
    >>> autoencoder = Autoencoder(3, max_epochs=5, random_state=0).fit(X)
    >>> display = ComponentImportanceDisplay.from_estimator(autoencoder, X)
    >>> len(display.bars_)
    3
    """

    importance: Floats
    pca_importance: Floats | None = None

    def plot(self, ax: Any = None) -> Self:
        ax = self._make_axes(ax, (1, 1), (6, 4)).item()
        from matplotlib.ticker import MaxNLocator

        label = "autoencoder"
        self.bars_ = ax.bar(range(len(self.importance)), self.importance, label=label)
        self.pca_line_ = None
        if self.pca_importance is not None:
            style = {"color": "C1", "marker": "o", "ms": 5, "label": "PCA"}
            self.pca_line_ = ax.plot(self.pca_importance, **style)[0]
            ax.legend()
        ax.axhline(0, color="0.2", lw=0.8)
        ax.set(title="Importance of components", xlabel="component", ylabel="share of the variance")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        return self

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, *, with_pca: bool = True, ax: Any = None
    ) -> Self:
        """Plot the importance of the components of a fitted estimator.

        Parameters
        ----------
        with_pca : bool, default=True
            Whether to plot the explained variance ratio of each component of PCA as well, as a
            baseline. PCA is fitted to the autoencoder's input for `X`, without the columns of a
            condition. It has as many components as the autoencoder, or fewer if there are fewer
            rows or columns. Missing cells are replaced with the means of their columns. If columns
            have several kinds, their standardized cells are used, as for the autoencoder.
        ax : matplotlib Axes, default=None
            Axes to plot into. If None, a new figure is created.
        """
        autoencoder, X, _ = unpack_with_rows(estimator, X)
        codes = np.asarray(autoencoder.transform(X))
        table = comparable_cells(autoencoder, X)
        shares, pca = importance(codes, table.decode, table.rows), None
        if with_pca:
            cells = modelled_cells(codes, table.decode, table.rows)
            rows = complete_rows(cells[:, ~np.isnan(cells).all(axis=0)])
            pca = fit_pca(rows, len(shares)).explained_variance_ratio_
        return cls(shares, pca).plot(ax)

    @classmethod
    def from_predictions(
        cls, importance: Any, pca_importance: Any = None, *, ax: Any = None
    ) -> Self:
        """Plot importances that were computed before.

        Parameters
        ----------
        importance : array-like of shape (n_components,)
            Share of the variance of the rows that is explained by each component.
        pca_importance : array-like of shape (n_pca_components,), default=None
            Share that each component of PCA explains. If None, only `importance` is plotted.
        ax : matplotlib Axes, default=None
            Axes to plot into. If None, a new figure is created.

        Raises
        ------
        ValueError
            If `importance` or `pca_importance` is not a vector of finite numbers, or if `ax` is an
            array-like of several axes.
        """
        pca = None if pca_importance is None else _vector(pca_importance)
        return cls(_vector(importance), pca).plot(ax)


def _vector(shares: Any) -> Floats:
    """Return shares as an array. Raises ValueError if they are not a vector of finite numbers."""
    return column_or_1d(check_array(shares, ensure_2d=False))
