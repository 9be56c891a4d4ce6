"""Which size of code, or which value of another parameter? A path of fits on held-out rows."""

import copy
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
from numpy.random import RandomState
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.decomposition import PCA
from sklearn.model_selection import ShuffleSplit, check_cv
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils import check_array, check_random_state, indexable

from skae._compat.sklearn import safe_indexing
from skae.state import NetworkMismatchError

Floats = NDArray[np.floating]

MatrixLike = Any

EPOCHS = 0.6
"""Epochs of all steps of a path together, as a share of those of one fit."""

LONGEST = 12
"""Sizes of a path at most, unless they are given."""

EPOCHS_TO_COME = 0.5
"""What epochs still to come are worth, as a share of what the last as many were worth."""

STANDARD_ERRORS = 2.0
"""Standard errors by which a component must be worth more than that."""

LEAST_SHARE = 0.05
"""What it must be worth at least, as a share of what components beyond the first size are worth on
average, up to the best size: row by row, a trifle may be significant."""

OWN = {"max_epochs", "warm_start"}
"""Parameters that a path sets itself."""

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
        A row for each value, which is its index. Errors are means over rows of the sum of a row's
        squared errors, in squared units of what the autoencoder sees (Bernoulli: deviances),
        densities mean nats per row. Rows that several splits hold out count once, with their mean.

        - `train_error` and `test_error`, of training and of held-out rows;
        - `test_nats`, the held-out log-density, and `test_nats_se`, its standard error;
        - `worth` and `worth_se`, for sizes of the code that were in doubt: held-out nats that the
          last components are worth, compared with training for as long without them;
        - `pca_test_error` and `pca_test_nats`, for sizes of the code where PCA is comparable;
        - `seconds`, what the value has cost, the fit that all values of another parameter than the
          size go on from not counted.

        Standard errors tell how much other held-out rows would change the means, not other fits.
    suggested : int, float or object
        The value to take.

    Examples
    --------
    >>> import numpy as np
    >>> from skae import Autoencoder, components_path
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(300, 1)) * [1, 2, 3] + 0.1 * rng.normal(size=(300, 3))
    >>> path = components_path(Autoencoder(max_epochs=20, random_state=0), X)
    >>> path.results.index.tolist(), path.suggested
    ([1, 2, 3], 1)
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

        "First" is in the order in which values were given; sizes of the code are sorted. Breiman et
        al. [1]_ take a simpler model so, if it is not clearly worse than the best.

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
        return nats.index.tolist()[int(np.argmax(enough))]


def components_path(
    estimator: BaseEstimator,
    X: MatrixLike,
    y: MatrixLike | None = None,
    *,
    param_name: str = "n_components",
    param_range: Iterable[Any] | None = None,
    cv: Any = None,
    groups: ArrayLike | None = None,
    random_state: int | RandomState | None = 0,
) -> ComponentsPath:
    """Find the size of the code, or the value of another parameter, that held-out rows ask for.

    Training error rewards copying, and held-out error rewards ever longer codes. Held-out density
    does neither: a component that the data do not have costs more than it explains.

    A path costs two or three fits, since values learn from each other: each size of the
    code goes on from the one before it, which gets more components, for a few epochs. As longer
    codes have thus been trained for longer, the largest density alone would mislead. From there the
    path goes back: a size is dropped as long as its last components are worth less than training
    for as long without them. What they are worth beyond half of what these epochs were worth must
    exceed two standard errors, and a twentieth of what components are worth on average.

    Values of another parameter all go on from one full fit of the estimator as it is, and the
    largest held-out density decides. Start from a good value: what a bad one has ruined, such as
    codes that were given up, a few epochs do not bring back. Parameters that shape the network need
    a `GridSearchCV`.

    `max_epochs` should be enough for a full fit: of a path that is far from done, the longest code
    is always the best.

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
    groups : array-like of shape (n_samples,), default=None
        Groups of rows, for splitters that keep them together.
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
    X, y, groups = indexable(X, y, groups)
    seeds = check_random_state(random_state)
    splitter = (
        ShuffleSplit(1, test_size=HELD_OUT, random_state=seeds)
        if cv is None
        else check_cv(cv, y, classifier=is_classifier(autoencoder))
    )
    splits = [_Split.of(prepare, X, y, parts, seeds) for parts in splitter.split(X, y, groups)]
    if not splits:
        raise ValueError("cv must make at least one split into training and held-out rows.")
    by_size = param_name == "n_components"
    values = _values(param_range, by_size, param_name, splits[0].train)
    walk = _walk_up if by_size else _walk_from_one
    walks = [walk(autoencoder, param_name, values, split) for split in splits]
    results = _table(values, walks, param_name)
    best = int(results["test_nats"].to_numpy().argmax())
    if by_size:
        results[["worth", "worth_se"]] = np.nan
        best = _walk_down(values, walks, results, best)
        if best == len(values) - 1 > 0:
            warnings.warn(
                f"The largest of the sizes, {values[-1]}, is suggested: extend param_range.",
                UserWarning,
                stacklevel=2,
            )
        _add_pca(results, splits, autoencoder)
    results["seconds"] = [sum(step.seconds for step in steps) for steps in zip(*walks, strict=True)]
    return ComponentsPath(param_name, results, values[best])


@dataclass
class _Split:
    """Training and held-out rows as the autoencoder sees them, and which rows of X are held out.

    The density is computed of those that are `scored`.
    """

    train: MatrixLike
    test: MatrixLike
    scored: MatrixLike
    y: MatrixLike | None
    tested_index: NDArray[np.intp]
    scored_index: NDArray[np.intp]

    @classmethod
    def of(
        cls,
        prepare: BaseEstimator | None,
        X: MatrixLike,
        y: MatrixLike,
        parts: Any,
        seeds: RandomState,
    ) -> "_Split":
        trained, tested = (
            np.flatnonzero(rows) if np.asarray(rows).dtype == bool else np.asarray(rows)
            for rows in parts
        )
        if not (len(trained) and len(tested)):
            raise ValueError("cv must leave rows to train on and rows to hold out in each split.")
        y = None if y is None else safe_indexing(y, trained)
        scored = seeds.permutation(tested)[:SCORED_ROWS]
        tables = [safe_indexing(X, rows) for rows in (trained, tested, scored)]
        if prepare is not None:
            prepare = clone(prepare).fit(tables[0], y)
            tables = [*map(prepare.transform, tables)]
        return cls(tables[0], tables[1], tables[2], y, tested, scored)


def _by_row(index: Sequence[NDArray[np.intp]], values: Sequence[Floats]) -> Floats:
    """Values of distinct rows: a mean for those that several splits hold out."""
    _, places = np.unique(np.concatenate(index), return_inverse=True)
    return np.bincount(places, np.concatenate(values)) / np.bincount(places)


@dataclass
class _Step:
    """One value's fit, and what held-out rows say of it."""

    model: BaseEstimator
    split: _Split
    nats: Floats
    seconds: float
    longer: Floats | None = None

    @classmethod
    def of(cls, model: BaseEstimator, split: _Split) -> "_Step":
        start = perf_counter()
        model.fit(split.train, split.y)
        nats = model.score_samples(split.scored)
        return cls(model, split, nats, perf_counter() - start)

    def go_on(self) -> Floats:
        """Held-out nats of rows after as many epochs again."""
        if self.longer is None:
            longer = _Step.of(copy.deepcopy(self.model), self.split)
            self.longer = longer.nats
            self.seconds += longer.seconds
        return self.longer


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
    start.set_params(max_epochs=_few_epochs(autoencoder, values))
    steps = []
    for value in values:
        model = copy.deepcopy(start).set_params(**{param_name: value})
        try:
            steps.append(_Step.of(model, split))
        except NetworkMismatchError as error:
            raise ValueError(
                f"{param_name} shapes the network, so that its values cannot go on from one fit: "
                "use GridSearchCV for it."
            ) from error
    return steps


def _few_epochs(autoencoder: BaseEstimator, values: Sequence[Any]) -> int:
    epochs = autoencoder.get_params()["max_epochs"]
    return min(epochs, max(1, round(EPOCHS * epochs / len(values))))


def _nats(steps: Sequence[_Step], of_step: Callable[[_Step], Floats]) -> Floats:
    """Held-out nats of distinct rows by one value's fits, one for each split."""
    return _by_row([step.split.scored_index for step in steps], [*map(of_step, steps)])


def _walk_down(
    sizes: Sequence[int], walks: Sequence[Sequence[_Step]], results: pd.DataFrame, best: int
) -> int:
    """Place of the largest size up to the best whose last components are worth having.

    Notes in the results what those in doubt are worth.
    """
    means, i = results["test_nats"].to_numpy(), best
    while i > 0:
        longer, shorter = ([walk[j] for walk in walks] for j in (i, i - 1))
        nats, before = (_nats(steps, lambda step: step.nats) for steps in (longer, shorter))
        typical = (means[best] - means[0]) * (sizes[i] - sizes[i - 1]) / (sizes[best] - sizes[0])
        least = LEAST_SHARE * typical
        # What training on brings could only lower a gain that is a trifle already.
        if (nats - before).mean() > least:
            trained_on = _nats(shorter, _Step.go_on)
            worth = nats - trained_on
            results.loc[sizes[i], ["worth", "worth_se"]] = worth.mean(), _standard_error(worth)
            excess = worth - EPOCHS_TO_COME * (trained_on - before)
            if excess.mean() > max(STANDARD_ERRORS * _standard_error(excess), least):
                break
        i -= 1
    return i


def _table(
    values: Sequence[Any], walks: Sequence[Sequence[_Step]], param_name: str
) -> pd.DataFrame:
    """Errors and nats of all values, a row for each."""
    rows = []
    for steps in zip(*walks, strict=True):
        nats = _nats(steps, lambda step: step.nats)
        errors = [step.model.reconstruction_error(step.split.test) for step in steps]
        on_training_rows = [step.model.reconstruction_error(step.split.train) for step in steps]
        rows.append(
            {
                "train_error": np.mean([each.mean() for each in on_training_rows]),
                "test_error": _by_row([s.split.tested_index for s in steps], errors).mean(),
                "test_nats": nats.mean(),
                "test_nats_se": _standard_error(nats),
            }
        )
    dtype = int if param_name == "n_components" else object
    index = pd.Index(values, dtype=dtype, name=param_name, tupleize_cols=False)
    return pd.DataFrame(rows, index=index)


def _add_pca(results: pd.DataFrame, splits: Sequence[_Split], autoencoder: BaseEstimator) -> None:
    """Add PCA's held-out errors and nats at the same sizes; NaN where they cannot be compared."""
    results[["pca_test_error", "pca_test_nats"]] = np.nan
    parameters = autoencoder.get_params()
    has_given = any(parameters.get(name) is not None for name in ("condition", "sensitive"))
    if has_given or parameters["likelihood"] != "gaussian":
        return
    try:
        tables = [[*map(check_array, (s.train, s.test, s.scored))] for s in splits]
    except ValueError:  # images, sequences of different lengths
        return
    most = min(min(train.shape) for train, _, _ in tables)
    for size in results.index[results.index < most]:
        errors, nats = [], []
        for train, test, scored in tables:
            pca = PCA(size, random_state=0).fit(train)
            errors.append(((test - pca.inverse_transform(pca.transform(test))) ** 2).sum(axis=1))
            nats.append(pca.score_samples(scored))
        results.loc[size, ["pca_test_error", "pca_test_nats"]] = (
            _by_row([split.tested_index for split in splits], errors).mean(),
            _by_row([split.scored_index for split in splits], nats).mean(),
        )


def _standard_error(values: Floats) -> float:
    return float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else np.inf


def _parts(estimator: BaseEstimator, param_name: str) -> tuple[BaseEstimator | None, BaseEstimator]:
    """What prepares rows, if anything does, and an autoencoder of its own that goes on."""
    steps: list[BaseEstimator] = []
    while isinstance(estimator, Pipeline):
        steps += [step for _, step in estimator.steps[:-1] if step not in (None, "passthrough")]
        estimator = estimator.steps[-1][1]
    prepare = make_pipeline(*steps) if steps else None
    if not all(hasattr(estimator, name) for name in ("reconstruction_error", "score_samples")):
        raise TypeError(
            f"estimator must be an autoencoder or a Pipeline that ends in one, got {estimator!r}."
        )
    if param_name not in estimator.get_params():
        raise ValueError(
            f"param_name={param_name!r} is not a parameter of {type(estimator).__name__}."
        )
    if param_name in OWN:
        raise ValueError(f"param_name={param_name!r} is what a path sets itself.")
    return prepare, clone(estimator).set_params(warm_start=True)


def _values(
    param_range: Iterable[Any] | None, by_size: bool, param_name: str, X: MatrixLike
) -> list[Any]:
    if param_range is None:
        if not by_size:
            raise ValueError(f"param_range must say which values of {param_name} to fit.")
        d = int(np.prod(np.shape(X)[1:]))
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
    if any(value == other for value, other in combinations(values, 2)):
        raise ValueError(f"param_range must not hold a value twice, got {values}.")
    return values
