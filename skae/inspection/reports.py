"""Displays of training curves, of paths over a parameter, and of explanations of outliers."""

from numbers import Real
from typing import Any, Self

import numpy as np
from numpy.random import RandomState

from skae._compat.sklearn import check_matplotlib_support, safe_indexing
from skae.inspection.display import Display, apply_preprocessing, unpack_estimator
from skae.model_selection import components_path
from skae.parameters import check_integer
from skae.table.containers import side_by_side

__all__ = ["ComponentsPathDisplay", "LossCurveDisplay", "OutlierExplanationDisplay"]


class LossCurveDisplay(Display):
    """Plot of the training objective by epoch.

    A dotted line marks `best_epoch`. Use `from_estimator` to plot the curves of a fitted estimator.

    Parameters
    ----------
    loss_curve : array-like of shape (n_epochs,)
        Mean objective of the training rows during each epoch, in nats per row.
    validation_curve : array-like of shape (n_epochs,), default=None
        Mean objective of the validation rows after each epoch, in nats per row. It is NaN for
        epochs without validation rows. Pass None or an empty array-like if no rows were held out.
    best_epoch : int, default=None
        Epoch whose weights were kept, counted from 1 in `loss_curve`. 0 stands for the initial
        weights. If None, no epoch is marked.

    Attributes
    ----------
    lines_ : list of matplotlib Line2D
        The curve of the training rows and, if there are validation rows, their curve.
    best_epoch_line_ : matplotlib Line2D or None
        Dotted line at `best_epoch`. It is None if `best_epoch` is None.
    ax_ : matplotlib Axes
        The axes of the plot.

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

    loss_curve: Any
    validation_curve: Any = None
    best_epoch: int | None = None

    def plot(self, ax: Any = None) -> Self:
        ax = self._make_axes(ax, (1, 1), (6, 4)).item()
        from matplotlib.ticker import MaxNLocator

        curves = {"training rows": self.loss_curve}
        if self.validation_curve is not None and len(self.validation_curve):
            curves["validation rows"] = self.validation_curve
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
        """Plot the training and validation curves of a fitted estimator.

        The curves contain all epochs, including those of the fits that were resumed.

        Parameters
        ----------
        estimator : autoencoder, estimator that contains one, or Pipeline
            A fitted autoencoder, a fitted estimator that contains one, such as
            `AutoencoderClassifier`, or a fitted Pipeline that ends with either.
        ax : matplotlib Axes, default=None
            Axes to plot into. If None, a new figure is created.

        Raises
        ------
        TypeError
            If `estimator` contains no autoencoder.
        NotFittedError
            If `estimator` is not fitted.
        ValueError
            If `ax` is an array-like of several axes.
        """
        _, autoencoder = unpack_estimator(estimator)
        valid = [epoch.get("valid_loss", np.nan) for epoch in autoencoder.history_]
        kept = autoencoder.start_epoch_ + autoencoder.best_epoch_
        curves = autoencoder.loss_curve_, None if np.isnan(valid).all() else valid
        return cls.from_predictions(*curves, kept, ax=ax)

    @classmethod
    def from_predictions(
        cls,
        loss_curve: Any,
        validation_curve: Any = None,
        best_epoch: int | None = None,
        *,
        ax: Any = None,
    ) -> Self:
        """Plot curves that were recorded before.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to plot into. If None, a new figure is created.

        Raises
        ------
        ValueError
            If `ax` is an array-like of several axes.
        """
        return cls(loss_curve, validation_curve, best_epoch).plot(ax)


class ComponentsPathDisplay(Display):
    """Plot of the reconstruction errors and the log-density for the values of a parameter.

    The left axes show the reconstruction errors of training and held-out rows. The right axes show
    the log-density of held-out rows with its standard error. If the path contains results of PCA,
    both axes also show those for held-out rows. A dotted line marks the suggested value. Values are
    equally spaced, whatever their differences.

    Parameters
    ----------
    path : ComponentsPath
        The result of `skae.components_path`.

    Attributes
    ----------
    lines_ : dict of str to matplotlib Line2D
        The curves, by the column of `path.results` that they show: "train_error", "test_error",
        "test_nats" and, if they exist and are not all NaN, "pca_test_error" and "pca_test_nats".
    errorbar_ : matplotlib ErrorbarContainer
        The log-density of held-out rows with its standard error. It contains the curve "test_nats"
        of `lines_`.
    suggested_lines_ : list of matplotlib Line2D
        The two dotted lines, in the left and in the right axes.
    ax_ : ndarray of shape (2,) of matplotlib Axes
        The left and the right axes.

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
    ['Reconstruction error', 'Log-density of held-out rows']
    """

    path: Any

    def plot(self, ax: Any = None) -> Self:
        axes = self._make_axes(ax, (1, 2), (5, 4))[0]
        # The columns of PCA may exist and hold only NaN.
        results = self.path.results.dropna(axis=1, how="all")
        x, style = np.arange(len(results)), {"marker": "o", "ms": 4}
        nats, se = results["test_nats"], results["test_nats_se"]
        label = "held-out rows"
        self.errorbar_ = axes[1].errorbar(x, nats, se, color="C1", capsize=3, label=label, **style)
        # The lines of PCA are dashed, so that a line of the autoencoder below them stays visible.
        curves = [
            (axes[0], "train_error", "training rows", "C0", "-"),
            (axes[0], "test_error", "held-out rows", "C1", "-"),
            (axes[0], "pca_test_error", "PCA, held-out rows", "C2", "--"),
            (axes[1], "pca_test_nats", "PCA, held-out rows", "C2", "--"),
        ]
        self.lines_ = {"test_nats": self.errorbar_.lines[0]} | {
            column: ax.plot(x, results[column], color=color, ls=ls, label=label, **style)[0]
            for ax, column, label, color, ls in curves
            if column in results
        }
        suggested = self.path.suggested
        line_style = {"color": "gray", "ls": ":", "label": f"suggested: {suggested}", "zorder": 0}
        position = results.index.get_loc(suggested)
        self.suggested_lines_ = [ax.axvline(position, **line_style) for ax in axes]
        axes[0].set(title="Reconstruction error", ylabel=f"mean {self.path.error} per row")
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
        groups: Any = None,
        random_state: int | RandomState | None = 0,
        ax: Any = None,
    ) -> Self:
        """Compare values of a parameter with `skae.components_path`, and plot the results.

        Parameters
        ----------
        estimator : autoencoder or Pipeline
            An autoencoder of skae, or a Pipeline that ends with one. It need not be fitted, because
            clones of it are fitted.
        y : array-like of shape (n_samples,), default=None
            Targets, for estimators whose `fit` uses them.
        param_name : str, default="n_components"
            Name of the parameter of the autoencoder whose values are compared.
        param_range : iterable, default=None
            Values to compare. If None, `components_path` chooses values of `n_components`. For
            other parameters, values are required.
        cv : int, cross-validation generator or iterable, default=None
            Splits into training and held-out rows. An int is the number of folds, without
            shuffling. If None, a random quarter of the rows is held out once.
        groups : array-like of shape (n_samples,), default=None
            Groups of rows, for splitters that keep the rows of a group together.
        random_state : int, RandomState instance or None, default=0
            Determines the default split. If a split has more than 1,000 held-out rows, it also
            determines the 1,000 of them whose log-density is computed. The fits themselves depend
            on the `random_state` of the estimator.
        ax : array-like of two matplotlib Axes, default=None
            Axes to plot into. If None, a new figure is created.

        Raises
        ------
        ValueError
            As in `skae.components_path`, or if `ax` does not hold two axes.
        TypeError
            As in `skae.components_path`.

        Warns
        -----
        UserWarning
            As in `skae.components_path`.
        """
        # The fits take long, so that a missing matplotlib is reported before them.
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        options = {"param_name": param_name, "param_range": param_range, "cv": cv, "groups": groups}
        path = components_path(estimator, X, y, **options, random_state=random_state)
        return cls.from_predictions(path, ax=ax)

    @classmethod
    def from_predictions(cls, path: Any, *, ax: Any = None) -> Self:
        """Plot the results of a path that was computed before.

        Parameters
        ----------
        ax : array-like of two matplotlib Axes, default=None
            Axes to plot into. If None, a new figure is created.

        Raises
        ------
        TypeError
            If `path` is not a result of `skae.components_path`.
        ValueError
            If `ax` does not hold two axes.
        """
        if not hasattr(path, "results"):
            raise TypeError(
                f"path must be a result of skae.components_path, got {type(path).__name__}."
            )
        return cls(path).plot(ax)


class OutlierExplanationDisplay(Display):
    """Bar plot of the cells that contribute most to the anomaly scores of rows.

    Each row has its own axes, and each bar stands for a cell of the row. The length of a bar is the
    share of the cell, that is, its contribution divided by the sum of the contributions of the row,
    as defined in `AutoencoderOutlierDetector.explain`. The text next to a bar states the difference
    between the cell and its expected value, in robust standard deviations (sd), and the expected
    value. Use `from_estimator` to plot the most abnormal rows of a table.

    Parameters
    ----------
    explanation : DataFrame of shape (n_samples, 3 * n_columns) or dict of data frames
        The result of `AutoencoderOutlierDetector.explain` for rows of `n_columns` cells. The titles
        of the axes contain the labels of its index.
    n_features : int, default=8
        Maximum number of cells to plot for each row, at least 1. They are the cells with the
        largest shares.

    Attributes
    ----------
    bars_ : list of matplotlib BarContainer
        The bars of each row, in decreasing order of length.
    ax_ : matplotlib Axes or ndarray of shape (n_samples,) of them
        The axes of the plots, one for each row.

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

    explanation: Any
    n_features: int = 8

    def plot(self, ax: Any = None) -> Self:
        check_integer(self.n_features, "n_features", 1)
        rows = side_by_side(self.explanation)
        n_bars = min(self.n_features, rows["share"].shape[1])
        axes = self._make_axes(ax, (len(rows), 1), (7, 0.8 + 0.27 * n_bars))[:, 0]
        self.bars_ = []
        for ax, (label, row) in zip(axes, rows.iterrows(), strict=True):
            shares = row["share"].astype(float)
            share = shares.sort_values(ascending=False, kind="stable")[:n_bars]
            bars = ax.barh(range(n_bars), share, tick_label=[str(name) for name in share.index])
            cells = zip(row["deviation"][share.index], row["expected"][share.index], strict=True)
            texts = [_describe_cell(deviation, expected) for deviation, expected in cells]
            ax.bar_label(bars, texts, padding=4, size="small")
            ax.set_title(f"row {label}", loc="left")
            ax.set_xlim(0, share.max() * 1.75)  # room for the texts
            ax.invert_yaxis()
            self.bars_.append(bars)
        axes[-1].set_xlabel("share in the sum of contributions")
        return self

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, *, n_rows: int = 3, n_features: int = 8, ax: Any = None
    ) -> Self:
        """Plot explanations of the most abnormal rows of a table.

        Parameters
        ----------
        estimator : AutoencoderOutlierDetector or Pipeline
            A fitted detector, or a fitted Pipeline that ends with one. Expected values are in the
            units of the detector's input, which are those after the earlier steps of a Pipeline.
        n_rows : int, default=3
            Maximum number of rows to plot, at least 1. They are the rows for which `score_samples`
            of the detector is lowest, in increasing order of their scores.
        ax : matplotlib Axes or array-like of them, default=None
            Axes to plot into, one for each plotted row. If None, a new figure is created.

        Raises
        ------
        TypeError
            If `estimator` is not an outlier detector.
        NotFittedError
            If `estimator` is not fitted.
        ValueError
            If `X` is invalid, if `n_rows` or `n_features` is not a positive integer, or if the
            number of axes in `ax` is not the number of plotted rows.
        """
        check_integer(n_rows, "n_rows", 1)
        detector, _ = unpack_estimator(estimator)
        if not hasattr(detector, "explain"):
            raise TypeError(
                f"estimator must be an AutoencoderOutlierDetector, got {type(detector).__name__}."
            )
        index = getattr(X, "index", None) if hasattr(X, "iloc") else None
        X, names = apply_preprocessing(estimator, X)
        order = detector.score_samples(X).argsort(kind="stable")[:n_rows]
        explanation = side_by_side(detector.explain(safe_indexing(X, order)))
        explanation.index = order if index is None else index[order]
        if names is not None:
            explanation = explanation.rename(
                columns=dict(zip(explanation["share"], names, strict=True)), level=1
            )
        return cls(explanation, n_features).plot(ax)

    @classmethod
    def from_predictions(
        cls, explanation: Any, *, n_rows: int = 3, n_features: int = 8, ax: Any = None
    ) -> Self:
        """Plot an explanation of the anomaly scores of rows.

        Parameters
        ----------
        n_rows : int, default=3
            Maximum number of rows to plot, at least 1. The first rows of `explanation` are plotted.
        ax : matplotlib Axes or array-like of them, default=None
            Axes to plot into, one for each plotted row. If None, a new figure is created.

        Raises
        ------
        ValueError
            If `explanation` is not a result of `AutoencoderOutlierDetector.explain`, if `n_rows` or
            `n_features` is not a positive integer, or if the number of axes in `ax` is not the
            number of plotted rows.
        """
        check_integer(n_rows, "n_rows", 1)
        explanation = side_by_side(explanation)
        columns = getattr(explanation, "columns", None)
        groups = () if columns is None else columns.get_level_values(0)
        if not {"deviation", "expected", "share"} <= {*groups}:
            raise ValueError(
                "explanation must be a result of AutoencoderOutlierDetector.explain, which "
                "contains the tables deviation, expected and share, got "
                f"{type(explanation).__name__}."
            )
        return cls(explanation.iloc[:n_rows], n_features).plot(ax)


def _describe_cell(deviation: float, expected: Any) -> str:
    """Describe the deviation of a cell, which is NaN if the cell is missing, and what it should be.

    The expected value is a number, a category, a date or a duration.
    """
    if isinstance(expected, Real) and not isinstance(expected, bool | np.bool_):
        expected = f"{expected:.4g}"
    return "missing" if np.isnan(deviation) else f"{deviation:+.1f} sd, expected {expected}"
