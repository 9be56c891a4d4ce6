"""Displays of what estimators report: curves of training, scores by size, strange cells."""

from numbers import Integral
from typing import Any, Self

import numpy as np
from numpy.random import RandomState
from sklearn.utils import check_scalar

from skae._compat.sklearn import check_matplotlib_support, safe_indexing
from skae.inspection.display import Display, transform_before, unpack
from skae.model_selection import components_path

__all__ = ["ComponentsPathDisplay", "LossCurveDisplay", "OutlierExplanationDisplay"]


class LossCurveDisplay(Display):
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

        Raises
        ------
        TypeError
            Where `estimator` holds no autoencoder.
        NotFittedError
            Where it is not fitted.
        """
        _, autoencoder = unpack(estimator)
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
        """Draw given curves."""
        return cls(loss_curve, validation_curve, best_epoch).plot(ax)


class ComponentsPathDisplay(Display):
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

    path: Any

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
        mark = {"color": "gray", "ls": ":", "label": f"suggested: {suggested}", "zorder": 0}
        place = results.index.get_loc(suggested)
        self.suggested_lines_ = [ax.axvline(place, **mark) for ax in axes]
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
        """
        # Before any fit: these take long.
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        options = {"param_name": param_name, "param_range": param_range, "cv": cv}
        path = components_path(estimator, X, y, **options, random_state=random_state)
        return cls.from_predictions(path, ax=ax)

    @classmethod
    def from_predictions(cls, path: Any, *, ax: Any = None) -> Self:
        """Draw a given path.

        Parameters
        ----------
        ax : array-like of two matplotlib Axes, default=None
            Where to draw; None is a new figure.

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


class OutlierExplanationDisplay(Display):
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
        check_scalar(self.n_features, "n_features", Integral, min_val=1)
        rows = self.explanation
        n_bars = min(self.n_features, rows["share"].shape[1])
        axes = self._make_axes(ax, (len(rows), 1), (7, 0.8 + 0.27 * n_bars))[:, 0]
        self.bars_ = []
        for ax, (label, row) in zip(axes, rows.iterrows(), strict=True):
            share = row["share"].sort_values(ascending=False, kind="stable")[:n_bars]
            bars = ax.barh(range(n_bars), share, tick_label=[str(name) for name in share.index])
            cells = zip(row["deviation"][share.index], row["expected"][share.index], strict=True)
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
        n_rows : int, default=3
            How many rows to draw, at most: those of the lowest `score_samples`, the lowest first.

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
        detector, _ = unpack(estimator)
        if not hasattr(detector, "explain"):
            raise TypeError(
                f"estimator must be an AutoencoderOutlierDetector, got {type(detector).__name__}."
            )
        index = getattr(X, "index", None) if hasattr(X, "iloc") else None
        X, names = transform_before(estimator, detector, X)
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
        n_rows : int, default=3
            How many rows to draw, at most: the first ones.

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
