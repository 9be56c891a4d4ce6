"""Which size of code, or which value of another parameter? A path of fits on held-out rows."""

import copy
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
from numpy.random import RandomState
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.decomposition import PCA
from sklearn.model_selection import ShuffleSplit, check_cv
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils import _safe_indexing, check_array, check_random_state, indexable
from sklearn.utils.validation import _num_features

Floats = NDArray[np.floating]

MatrixLike = Any

EPOCHS = 0.6
"""Epochs of all steps of a path together, as a share of those of one fit."""

LONGEST = 12
"""Sizes of a path at most, unless they are given."""

FURTHER = 0.5
"""What epochs still to come are worth, as a share of what the last as many were worth."""

DOUBT = 2.0
"""Standard errors by which a component must be worth more than that."""

TRIFLE = 0.05
"""What it must be worth at least, as a share of what components up to the best size are worth on
average: row by row, a trifle may be significant."""

SCORED_ROWS = 1000
"""Held-out rows of a split whose densities are computed at most: more would hardly be surer."""

HELD_OUT = 0.25


@dataclass(frozen=True)
class ComponentsPath:
    """What `components_path` found along the values of a parameter.

    Attributes
    ----------
    param_name : str
        The parameter.
    results : DataFrame
        A row for each value, which is its index. Errors are mean squared errors of rows in squared
        user's units (Bernoulli: deviances), densities mean nats per row:

        - `train_error` and `test_error`, of training and of held-out rows;
        - `test_nats`, the held-out log-density, and `test_nats_se`, its standard error;
        - `worth` and `worth_se`, for sizes of the code that were in doubt: held-out nats that the
          last components are worth, compared with training for as long without them;
        - `pca_test_error` and `pca_test_nats`, for sizes of the code where PCA is comparable;
        - `seconds`, what the value has cost.
    suggested : int, float or object
        The value to take.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skae import Autoencoder, components_path
    >>> X = load_iris().data
    >>> path = components_path(Autoencoder(max_epochs=20, random_state=0), X, param_range=[1, 2, 3])
    >>> path.results["train_error"].is_monotonic_decreasing
    True
    >>> path.one_standard_error() <= path.suggested
    True
    """

    param_name: str
    results: pd.DataFrame
    suggested: Any

    def one_standard_error(self) -> Any:
        """The first value whose held-out nats are within one standard error of the suggested one's.

        "First" is in the order in which values were given; sizes of the code are sorted. It is the
        rule of Breiman et al. [1]_ for a simpler model that is not clearly worse.

        Returns
        -------
        value : int, float or object

        References
        ----------
        .. [1] L. Breiman, J. Friedman, R. Olshen and C. Stone, "Classification and regression
           trees", 1984.
        """
        nats, error = self.results["test_nats"], self.results["test_nats_se"]
        enough = nats >= nats[self.suggested] - error[self.suggested]
        return nats.index[int(np.argmax(enough))]


def components_path(
    estimator: BaseEstimator,
    X: MatrixLike,
    y: MatrixLike | None = None,
    *,
    param_name: str = "n_components",
    param_range: Iterable[Any] | None = None,
    cv: Any = None,
    random_state: int | RandomState | None = 0,
) -> ComponentsPath:
    """Find the size of the code, or the value of another parameter, that held-out rows ask for.

    Training error rewards copying, and held-out error rewards ever longer codes. Held-out density
    does neither: a component that the data do not have costs more than it explains.

    A path costs two or three fits, since values learn from each other: each size of the
    code goes on from the one before it, which gets more components, for a few epochs. As longer
    codes have thus been trained for longer, the largest density alone would mislead. From there the
    path goes back: a size is dropped as long as its last components are worth less than training
    for as long without them. They must be worth more, by two standard errors, than half of what
    these epochs were worth.

    Values of another parameter all go on from one fit of the estimator as it is, and the largest
    held-out density decides.

    Parameters
    ----------
    estimator : autoencoder or Pipeline
        Any autoencoder of the package, not fitted, or a pipeline that ends in one, whose earlier
        steps are fitted to the training rows of each split. It is not changed.
    X : array-like of shape (n_samples, n_features)
        Rows in the user's units.
    y : array-like of shape (n_samples,), default=None
        Targets, for estimators whose `fit` uses them.
    param_name : str, default="n_components"
        Parameter of the autoencoder.
    param_range : iterable, default=None
        Its values. Sizes of the code are taken in increasing order; by default they are at most 12,
        from 1 to three times the square root of the number of columns.
    cv : int, cross-validation generator or iterable, default=None
        Splits into training and held-out rows. By default a quarter of the rows is held out, once;
        each further split costs as much again.
    random_state : int, RandomState instance or None, default=0
        Decides the default split, and which rows have their density computed: at most 1,000 of each
        split. The estimator's own decides the rest.

    Returns
    -------
    path : ComponentsPath
        The table of results and the suggested value.

    Raises
    ------
    ValueError
        Where a value cannot be used, or `param_range` is missing.
    TypeError
        Where the estimator is not an autoencoder.

    Warns
    -----
    UserWarning
        Where the largest size is suggested: a larger one may be better.

    See Also
    --------
    ComponentsPathDisplay : Draws the path.
    sklearn.model_selection.GridSearchCV : Compares full fits, of several parameters at once.

    Examples
    --------
    >>> import numpy as np
    >>> from skae import Autoencoder, components_path
    >>> rng = np.random.default_rng(0)
    >>> causes = rng.normal(size=(600, 2))
    >>> X = np.tanh(causes @ rng.normal(size=(2, 8))) + 0.1 * rng.normal(size=(600, 8))
    >>> path = components_path(Autoencoder(random_state=0), X, param_range=[1, 2, 3, 4])
    >>> path.suggested
    2
    >>> bool(path.results["test_nats"][2] > path.results["pca_test_nats"].max())
    True
    """
    prepare, autoencoder = _parts(estimator, param_name)
    X, y = indexable(X, y)
    seeds = check_random_state(random_state)
    by_size = param_name == "n_components"
    values = _values(param_range, by_size, param_name, X)
    splitter = (
        ShuffleSplit(1, test_size=HELD_OUT, random_state=seeds) if cv is None else check_cv(cv, y)
    )
    splits = [_Split.of(prepare, X, y, train, test, seeds) for train, test in splitter.split(X, y)]
    walk = _walk_up if by_size else _walk_from_one
    walks = [walk(autoencoder.set_params(warm_start=True), param_name, values, s) for s in splits]
    results = _table(values, walks, param_name)
    if not by_size:
        return ComponentsPath(param_name, results, results["test_nats"].idxmax())
    suggested = _walk_down(values, walks, results)
    if suggested == values[-1] and len(values) > 1:
        warnings.warn(
            f"The largest of the sizes, {suggested}, is suggested: extend param_range.",
            UserWarning,
            stacklevel=2,
        )
    columns = [split.pca(values, autoencoder) for split in splits]
    for name, means in zip(
        ("pca_test_error", "pca_test_nats"), np.mean(columns, axis=0), strict=True
    ):
        results[name] = means
    return ComponentsPath(param_name, results, suggested)


@dataclass
class _Split:
    """Training and held-out rows as the autoencoder sees them."""

    train: MatrixLike
    test: MatrixLike
    scored: MatrixLike
    y: MatrixLike | None

    @classmethod
    def of(
        cls,
        prepare: BaseEstimator | None,
        X: MatrixLike,
        y: MatrixLike | None,
        train: NDArray[np.intp],
        test: NDArray[np.intp],
        seeds: RandomState,
    ) -> "_Split":
        y = None if y is None else _safe_indexing(y, train)
        some = seeds.permutation(len(test))[:SCORED_ROWS]
        parts = [_safe_indexing(X, rows) for rows in (train, test, test[some])]
        if prepare is not None:
            prepare = clone(prepare).fit(parts[0], y)
            parts = [prepare.transform(part) for part in parts]
        return cls(parts[0], parts[1], parts[2], y)

    def pca(self, sizes: Sequence[int], autoencoder: BaseEstimator) -> Floats:
        """PCA's held-out errors and nats at sizes, (2, n_sizes); NaN where there are none."""
        found = np.full((2, len(sizes)), np.nan)
        try:
            train, *tests = map(check_array, (self.train, self.test, self.scored))
        except ValueError:
            return found
        if autoencoder.get_params()["likelihood"] != "gaussian":
            return found
        for i, size in enumerate(sizes):
            if size < min(train.shape):
                pca = PCA(size).fit(train)
                restored = pca.inverse_transform(pca.transform(tests[0]))
                found[:, i] = ((tests[0] - restored) ** 2).sum(axis=1).mean(), pca.score(tests[1])
        return found


@dataclass
class _Step:
    """One value's fit, and what held-out rows say of it."""

    model: BaseEstimator
    split: _Split
    nats: Floats
    seconds: float
    further: Floats | None = None

    @classmethod
    def of(cls, model: BaseEstimator, split: _Split) -> "_Step":
        start = perf_counter()
        model.fit(split.train, split.y)
        nats = model.score_samples(split.scored)
        return cls(model, split, nats, perf_counter() - start)

    def go_on(self) -> Floats:
        """Held-out nats of rows after as many epochs again."""
        if self.further is None:
            further = _Step.of(copy.deepcopy(self.model), self.split)
            self.further = further.nats
            self.seconds += further.seconds
        return self.further

    def errors(self) -> tuple[float, float]:
        """Mean errors of training and of held-out rows."""
        train, test = (
            float(self.model.reconstruction_error(rows).mean())
            for rows in (self.split.train, self.split.test)
        )
        return train, test


def _walk_up(
    autoencoder: BaseEstimator, param_name: str, values: Sequence[Any], split: _Split
) -> list[_Step]:
    """Fits of increasing sizes, each going on from the one before."""
    model, steps = clone(autoencoder), []
    epochs = _few_epochs(autoencoder, values)
    for value in values:
        model = copy.deepcopy(model).set_params(max_epochs=epochs, **{param_name: value})
        steps.append(_Step.of(model, split))
    return steps


def _walk_from_one(
    autoencoder: BaseEstimator, param_name: str, values: Sequence[Any], split: _Split
) -> list[_Step]:
    """Fits of all values, each going on from the same one."""
    start = clone(autoencoder).fit(split.train, split.y)
    epochs = _few_epochs(autoencoder, values)
    models = [
        copy.deepcopy(start).set_params(max_epochs=epochs, **{param_name: value})
        for value in values
    ]
    return [_Step.of(model, split) for model in models]


def _few_epochs(autoencoder: BaseEstimator, values: Sequence[Any]) -> int:
    return max(1, round(EPOCHS * autoencoder.get_params()["max_epochs"] / len(values)))


def _walk_down(
    sizes: Sequence[int], walks: Sequence[Sequence[_Step]], results: pd.DataFrame
) -> int:
    """The largest size whose last components are worth having; notes what those in doubt are."""
    means = results["test_nats"].to_numpy()
    best = i = int(means.argmax())
    while i > 0:
        nats, before, further = (
            np.concatenate(parts)
            for parts in (
                [walk[i].nats for walk in walks],
                [walk[i - 1].nats for walk in walks],
                [walk[i - 1].go_on() for walk in walks],
            )
        )
        worth = nats - further
        results.loc[sizes[i], ["worth", "worth_se"]] = worth.mean(), _standard_error(worth)
        excess = worth - FURTHER * (further - before)
        typical = (means[best] - means[0]) * (sizes[i] - sizes[i - 1]) / (sizes[best] - sizes[0])
        if excess.mean() > max(DOUBT * _standard_error(excess), TRIFLE * typical):
            break
        i -= 1
    return sizes[i]


def _table(
    values: Sequence[Any], walks: Sequence[Sequence[_Step]], param_name: str
) -> pd.DataFrame:
    rows = []
    for steps in zip(*walks, strict=True):
        train, test = np.mean([step.errors() for step in steps], axis=0)
        nats = np.concatenate([step.nats for step in steps])
        rows.append(
            {
                "train_error": train,
                "test_error": test,
                "test_nats": nats.mean(),
                "test_nats_se": _standard_error(nats),
                "worth": np.nan,
                "worth_se": np.nan,
                "seconds": sum(step.seconds for step in steps),
            }
        )
    return pd.DataFrame(rows, index=pd.Index(values, name=param_name, tupleize_cols=False))


def _standard_error(values: Floats) -> float:
    return float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else np.inf


def _parts(estimator: BaseEstimator, param_name: str) -> tuple[BaseEstimator | None, BaseEstimator]:
    """What prepares rows, if anything does, and an autoencoder of its own."""
    prepare = None
    if isinstance(estimator, Pipeline):
        steps = [step for _, step in estimator.steps[:-1] if step not in (None, "passthrough")]
        prepare = make_pipeline(*steps) if steps else None
        estimator = estimator.steps[-1][1]
    if not all(hasattr(estimator, name) for name in ("reconstruction_error", "score_samples")):
        raise TypeError(
            f"estimator must be an autoencoder or a Pipeline that ends in one, got {estimator!r}."
        )
    if param_name not in estimator.get_params():
        raise ValueError(
            f"param_name={param_name!r} is not a parameter of {type(estimator).__name__}."
        )
    return prepare, clone(estimator)


def _values(
    param_range: Iterable[Any] | None, by_size: bool, param_name: str, X: MatrixLike
) -> list[Any]:
    if param_range is None:
        if not by_size:
            raise ValueError(f"param_range must say which values of {param_name} to fit.")
        d = _num_features(X)
        largest = min(d, round(3 * d**0.5))
        if largest <= LONGEST:
            return [*range(1, largest + 1)]
        return np.unique(np.geomspace(1, largest, LONGEST).round().astype(int)).tolist()
    values = list(param_range)
    if not values:
        raise ValueError("param_range must hold at least one value.")
    if by_size:
        sizes = check_array([values], dtype=None, input_name="param_range")[0]
        if sizes.dtype.kind not in "iu" or sizes.min() < 1:
            raise ValueError(f"param_range must hold sizes of the code, from 1 on, got {values}.")
        return np.unique(sizes).tolist()
    return values
