"""Selection of the number of components, or of another parameter, by a path of fits."""

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

PATH_EPOCHS = 0.6
"""Number of epochs of all fits of a path together, as a share of `max_epochs`."""

MAX_DEFAULT_SIZES = 12
"""Largest number of sizes that a path fits if `param_range` is None."""

EXPECTED_GAIN = 0.5
"""Gain in log-density that further epochs are expected to bring, as a share of the gain of the same
number of epochs before them."""

N_STANDARD_ERRORS = 2.0
"""Number of standard errors by which the gain of additional components must exceed the expected
gain of further epochs without them."""

MIN_GAIN = 0.05
"""Smallest gain for which components are kept, as a share of the average gain of the components
beyond the smallest size. Sizes are compared row by row, so that even a negligible gain can exceed
its standard errors."""

RESERVED_PARAMETERS = {"max_epochs", "warm_start"}
"""Parameters that `components_path` sets itself and that cannot be varied."""

MAX_SCORED_ROWS = 1000
"""Largest number of held-out rows of a split whose log-density is computed, since more rows would
hardly make the mean more precise."""

TEST_SIZE = 0.25
"""Share of the rows that the default split holds out."""


@dataclass(frozen=True)
class ComponentsPath:
    """Results of `components_path` for the values of a parameter.

    Attributes
    ----------
    param_name : str
        Name of the parameter.
    results : DataFrame
        One row per value, with the values as its index. Errors and log-densities are means over
        rows. The error of a row is the sum of the squared errors of its cells, in squared units of
        the autoencoder's input, or its deviance for the Bernoulli likelihood. A row that several
        splits hold out counts once, with its mean.

        - `train_error` and `test_error`: reconstruction errors of training and of held-out rows;
        - `test_nats` and `test_nats_se`: log-density of held-out rows, in nats per row, and its
          standard error;
        - `worth` and `worth_se`: gain in the log-density of held-out rows from the components that
          were added to the previous size, in nats per row, and its standard error. The baseline is
          the previous size after as many additional epochs. They are NaN for sizes that
          `components_path` did not compare so, and absent if `param_name` is not "n_components";
        - `pca_test_error` and `pca_test_nats`: the same for PCA with as many components, NaN where
          PCA is not comparable. They are absent if `param_name` is not "n_components";
        - `seconds`: time of the fits of this value, summed over splits. It excludes the full fit
          from which the values of a parameter other than "n_components" start.

        Standard errors describe the variation over held-out rows, not the variation over fits.
    suggested : int, float or object
        The suggested value.

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
        """Return the first value that is at most one standard error worse than the suggested one.

        Values are compared by the log-density of held-out rows (`test_nats`). They are tried in the
        order of `param_range`, or in increasing order if they are sizes of the code. Breiman et al.
        [1]_ proposed this rule to choose a simpler model that is not clearly worse than the best.

        Returns
        -------
        value : int, float or object
            The first such value, which may be the suggested one.

        References
        ----------
        .. [1] L. Breiman, J. Friedman, R. Olshen and C. Stone, "Classification and regression
           trees", 1984.
        """
        nats, error = self.results["test_nats"], self.results["test_nats_se"]
        is_close = nats >= nats[self.suggested] - error[self.suggested]
        return nats.index.tolist()[int(np.argmax(is_close))]


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
    """Choose the number of components, or another parameter, by the log-density of held-out rows.

    Reconstruction errors cannot choose the number of components: a longer code can always copy more
    of a training row, and it usually also reconstructs held-out rows better. The log-density of
    held-out rows, in contrast, falls if a component explains nothing in the data.

    For `n_components`, a path takes about the time of two or three fits, because each size resumes
    from the previous one, which gets additional components, and is trained for a few epochs only.
    Longer codes have then been trained for longer, so that the largest log-density alone would be a
    biased choice. Starting from the size with the largest log-density, each size is compared with
    the next smaller one, which is trained for as many epochs again. The gain of the additional
    components must exceed half of the gain of these epochs by two standard errors, and by a
    twentieth of the average gain of components. Otherwise the size is dropped, and the next smaller
    one is compared.

    For another parameter, one full fit of the estimator is made with its present value. The fits of
    all values resume from it for a few epochs, and the largest log-density is chosen. The present
    value should be a good one: a few epochs do not repair what a bad value has damaged, such as
    components that a large `beta` has made unused. Use `GridSearchCV` for parameters that change
    the architecture of the network.

    `max_epochs` should be large enough for a full fit to converge. Otherwise the longest code
    always has the largest log-density.

    Parameters
    ----------
    estimator : autoencoder or Pipeline
        An autoencoder of skae, or a Pipeline that ends with one. It need not be fitted and is not
        changed. The earlier steps of a Pipeline are fitted to the training rows of each split.
    X : array-like of shape (n_samples, n_features)
        Rows in the user's units.
    y : array-like of shape (n_samples,), default=None
        Targets, for estimators whose `fit` uses them.
    param_name : str, default="n_components"
        Parameter of the autoencoder whose values are compared. All parameters are allowed except
        `max_epochs` and `warm_start`, which the path sets, and those that change the architecture
        of the network.
    param_range : iterable, default=None
        Values to compare, without duplicates. Sizes of the code are sorted, and duplicates among
        them are removed. If None, the sizes are at most 12 integers from 1 to three times the
        square root of the number of columns, or to the number of columns if this is smaller. It is
        required for other parameters.
    cv : int, cross-validation generator or iterable, default=None
        Splits into training and held-out rows. If None, a random quarter of the rows is held out
        once, as each split takes the time of one path.
    groups : array-like of shape (n_samples,), default=None
        Groups of rows, for splitters that keep the rows of a group together.
    random_state : int, RandomState instance or None, default=0
        Determines the default split, and the held-out rows whose log-density is computed: at most
        1,000 of each split. The fits themselves depend on the `random_state` of the estimator.

    Returns
    -------
    path : ComponentsPath
        The table of results and the suggested value.

    Raises
    ------
    ValueError
        If `param_name`, a value of `param_range` or a split is invalid, or if `param_range` is
        missing.
    TypeError
        If the estimator is not an autoencoder.

    Warns
    -----
    UserWarning
        If the largest size of the path is suggested, since a larger one may be better.

    See Also
    --------
    ComponentsPathDisplay : Plots the results.
    sklearn.model_selection.GridSearchCV : Compares full fits, also of several parameters.

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
    preprocessing, autoencoder = _split_pipeline(estimator, param_name)
    X, y, groups = indexable(X, y, groups)
    seeds = check_random_state(random_state)
    splitter = (
        ShuffleSplit(1, test_size=TEST_SIZE, random_state=seeds)
        if cv is None
        else check_cv(cv, y, classifier=is_classifier(autoencoder))
    )
    splits = [
        _Split.make(preprocessing, X, y, parts, seeds) for parts in splitter.split(X, y, groups)
    ]
    if not splits:
        raise ValueError("cv must yield at least one split into training and held-out rows, got 0.")
    by_size = param_name == "n_components"
    values = _check_values(param_range, by_size, param_name, splits[0].train)
    fit_values = _fit_increasing_sizes if by_size else _fit_from_common_start
    fits = [fit_values(autoencoder, param_name, values, split) for split in splits]
    results = _make_results(values, fits, param_name)
    best = int(results["test_nats"].to_numpy().argmax())
    if by_size:
        results[["worth", "worth_se"]] = np.nan
        best = _select_size(values, fits, results, best)
        if best == len(values) - 1 > 0:
            warnings.warn(
                f"The suggested n_components={values[-1]} is the largest value of the path. A "
                "larger one may be better: extend param_range.",
                UserWarning,
                stacklevel=2,
            )
        _add_pca(results, splits, autoencoder)
    results["seconds"] = [
        sum(fit.seconds for fit in fits_of_value) for fits_of_value in zip(*fits, strict=True)
    ]
    return ComponentsPath(param_name, results, values[best])


@dataclass
class _Split:
    """Training and held-out rows of one split, in the units of the autoencoder's input.

    Attributes
    ----------
    train, test : array-like
        Training and held-out rows.
    scored : array-like
        Held-out rows whose log-density is computed.
    y : array-like or None
        Targets of the training rows.
    test_index, scored_index : ndarray of int
        Indices in X of the rows in `test` and `scored`.
    """

    train: MatrixLike
    test: MatrixLike
    scored: MatrixLike
    y: MatrixLike | None
    test_index: NDArray[np.intp]
    scored_index: NDArray[np.intp]

    @classmethod
    def make(
        cls,
        preprocessing: BaseEstimator | None,
        X: MatrixLike,
        y: MatrixLike,
        parts: Any,
        seeds: RandomState,
    ) -> "_Split":
        """Make a split from the training and test rows that a splitter yields, indices or masks."""
        train, test = (
            np.flatnonzero(rows) if np.asarray(rows).dtype == bool else np.asarray(rows)
            for rows in parts
        )
        if not (len(train) and len(test)):
            raise ValueError(
                "cv must yield splits with training rows and held-out rows, got a split with "
                f"{len(train)} and {len(test)}."
            )
        y = None if y is None else safe_indexing(y, train)
        scored = seeds.permutation(test)[:MAX_SCORED_ROWS]
        tables = [safe_indexing(X, rows) for rows in (train, test, scored)]
        if preprocessing is not None:
            preprocessing = clone(preprocessing).fit(tables[0], y)
            tables = [*map(preprocessing.transform, tables)]
        return cls(tables[0], tables[1], tables[2], y, test, scored)


def _mean_by_row(index: Sequence[NDArray[np.intp]], values: Sequence[Floats]) -> Floats:
    """Average the values of each distinct row, which several splits may hold out."""
    _, row = np.unique(np.concatenate(index), return_inverse=True)
    return np.bincount(row, np.concatenate(values)) / np.bincount(row)


@dataclass
class _Fit:
    """A fitted model for one value and one split, and its log-density of held-out rows.

    Attributes
    ----------
    model : autoencoder
        The fitted model.
    split : _Split
        The rows of the split.
    nats : ndarray of shape (n_scored,)
        Log-density of each scored row, in nats.
    seconds : float
        Time of the fit and of the log-density.
    continued_nats : ndarray of shape (n_scored,) or None
        Log-density of each scored row after as many epochs more; None before it is needed.
    """

    model: BaseEstimator
    split: _Split
    nats: Floats
    seconds: float
    continued_nats: Floats | None = None

    @classmethod
    def make(cls, model: BaseEstimator, split: _Split) -> "_Fit":
        """Fit a model, which may resume from earlier training, and measure the time."""
        start = perf_counter()
        model.fit(split.train, split.y)
        nats = model.score_samples(split.scored)
        return cls(model, split, nats, perf_counter() - start)

    def continue_training(self) -> Floats:
        """Return the log-density of scored rows after training a copy for as many epochs more."""
        if self.continued_nats is None:
            continued = _Fit.make(copy.deepcopy(self.model), self.split)
            self.continued_nats = continued.nats
            self.seconds += continued.seconds
        return self.continued_nats


def _fit_increasing_sizes(
    autoencoder: BaseEstimator, param_name: str, values: Sequence[Any], split: _Split
) -> list[_Fit]:
    """Fit increasing sizes of the code, each resuming from the one before."""
    model, fits = clone(autoencoder), []
    epochs = _epochs_per_value(autoencoder, values)
    for value in values:
        model = copy.deepcopy(model).set_params(max_epochs=epochs, **{param_name: value})
        fits.append(_Fit.make(model, split))
    return fits


def _fit_from_common_start(
    autoencoder: BaseEstimator, param_name: str, values: Sequence[Any], split: _Split
) -> list[_Fit]:
    """Fit all values, each resuming from the same full fit."""
    start = clone(autoencoder).fit(split.train, split.y)
    start.set_params(max_epochs=_epochs_per_value(autoencoder, values))
    fits = []
    for value in values:
        model = copy.deepcopy(start).set_params(**{param_name: value})
        try:
            fits.append(_Fit.make(model, split))
        except NetworkMismatchError as error:
            raise ValueError(
                f"param_name={param_name!r} changes the architecture of the network, so that its "
                "values cannot resume from one fit. Use GridSearchCV to compare them."
            ) from error
    return fits


def _epochs_per_value(autoencoder: BaseEstimator, values: Sequence[Any]) -> int:
    """Compute the number of epochs of each fit of a path."""
    epochs = autoencoder.get_params()["max_epochs"]
    return min(epochs, max(1, round(PATH_EPOCHS * epochs / len(values))))


def _nats_by_row(fits: Sequence[_Fit], get_nats: Callable[[_Fit], Floats]) -> Floats:
    """Compute the log-density of each distinct scored row from one value's fits on all splits."""
    return _mean_by_row([fit.split.scored_index for fit in fits], [*map(get_nats, fits)])


def _select_size(
    sizes: Sequence[int], fits: Sequence[Sequence[_Fit]], results: pd.DataFrame, best: int
) -> int:
    """Return the index of the largest size up to `best` whose additional components are kept.

    `fits` holds a list for each split, with one fit for each size. The gains that are computed are
    written to the columns `worth` and `worth_se` of `results`.
    """
    means, i = results["test_nats"].to_numpy(), best
    while i > 0:
        larger, smaller = ([fits_of_split[j] for fits_of_split in fits] for j in (i, i - 1))
        nats, before = (
            _nats_by_row(same_size, lambda fit: fit.nats) for same_size in (larger, smaller)
        )
        average = (means[best] - means[0]) * (sizes[i] - sizes[i - 1]) / (sizes[best] - sizes[0])
        threshold = MIN_GAIN * average
        # Further epochs of the smaller size can only reduce the gain: skip them if it is too small.
        if (nats - before).mean() > threshold:
            continued = _nats_by_row(smaller, _Fit.continue_training)
            worth = nats - continued
            results.loc[sizes[i], ["worth", "worth_se"]] = worth.mean(), _standard_error(worth)
            excess = worth - EXPECTED_GAIN * (continued - before)
            if excess.mean() > max(N_STANDARD_ERRORS * _standard_error(excess), threshold):
                break
        i -= 1
    return i


def _make_results(
    values: Sequence[Any], fits: Sequence[Sequence[_Fit]], param_name: str
) -> pd.DataFrame:
    """Tabulate the errors and log-densities of all values, one row per value."""
    rows = []
    for fits_of_value in zip(*fits, strict=True):
        nats = _nats_by_row(fits_of_value, lambda fit: fit.nats)
        test_index = [fit.split.test_index for fit in fits_of_value]
        errors = [fit.model.reconstruction_error(fit.split.test) for fit in fits_of_value]
        train_errors = [fit.model.reconstruction_error(fit.split.train) for fit in fits_of_value]
        rows.append(
            {
                "train_error": np.mean([error.mean() for error in train_errors]),
                "test_error": _mean_by_row(test_index, errors).mean(),
                "test_nats": nats.mean(),
                "test_nats_se": _standard_error(nats),
            }
        )
    dtype = int if param_name == "n_components" else object
    index = pd.Index(values, dtype=dtype, name=param_name, tupleize_cols=False)
    return pd.DataFrame(rows, index=index)


def _add_pca(results: pd.DataFrame, splits: Sequence[_Split], autoencoder: BaseEstimator) -> None:
    """Add the errors and log-densities of PCA with as many components to the results.

    They stay NaN where PCA is not comparable: with conditions, with another likelihood than the
    Gaussian, for rows that are not vectors of observed numbers, and for sizes that are not less
    than the numbers of training rows and columns.
    """
    results[["pca_test_error", "pca_test_nats"]] = np.nan
    parameters = autoencoder.get_params()
    is_conditional = any(parameters.get(name) is not None for name in ("condition", "sensitive"))
    if is_conditional or parameters["likelihood"] != "gaussian":
        return
    try:
        tables = [[*map(check_array, (s.train, s.test, s.scored))] for s in splits]
    except ValueError:  # images, sequences of different lengths
        return
    max_size = min(min(train.shape) for train, _, _ in tables)
    for size in results.index[results.index < max_size]:
        errors, nats = [], []
        for train, test, scored in tables:
            pca = PCA(size, random_state=0).fit(train)
            errors.append(((test - pca.inverse_transform(pca.transform(test))) ** 2).sum(axis=1))
            nats.append(pca.score_samples(scored))
        results.loc[size, ["pca_test_error", "pca_test_nats"]] = (
            _mean_by_row([split.test_index for split in splits], errors).mean(),
            _mean_by_row([split.scored_index for split in splits], nats).mean(),
        )


def _standard_error(values: Floats) -> float:
    """Compute the standard error of the mean, infinite for a single value."""
    return float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else np.inf


def _split_pipeline(
    estimator: BaseEstimator, param_name: str
) -> tuple[BaseEstimator | None, BaseEstimator]:
    """Return the preprocessing steps, or None, and a clone of the autoencoder with a warm start.

    Raises TypeError or ValueError if the estimator or the parameter is invalid.
    """
    steps: list[BaseEstimator] = []
    while isinstance(estimator, Pipeline):
        steps += [step for _, step in estimator.steps[:-1] if step not in (None, "passthrough")]
        estimator = estimator.steps[-1][1]
    preprocessing = make_pipeline(*steps) if steps else None
    if not all(hasattr(estimator, name) for name in ("reconstruction_error", "score_samples")):
        raise TypeError(
            f"estimator must be an autoencoder or a Pipeline that ends with one, got {estimator!r}."
        )
    if param_name not in estimator.get_params():
        raise ValueError(
            f"param_name must be a parameter of {type(estimator).__name__}, got {param_name!r}."
        )
    if param_name in RESERVED_PARAMETERS:
        raise ValueError(
            f"param_name must not be {param_name!r}, which components_path sets itself."
        )
    return preprocessing, clone(estimator).set_params(warm_start=True)


def _check_values(
    param_range: Iterable[Any] | None, by_size: bool, param_name: str, X: MatrixLike
) -> list[Any]:
    """Return the values of a path, sorted and distinct if they are sizes of the code.

    Raises ValueError if they are invalid.
    """
    if param_range is None:
        if not by_size:
            raise ValueError(
                f"param_range must hold the values of {param_name} to compare, got None."
            )
        d = int(np.prod(np.shape(X)[1:]))
        largest = min(d, round(3 * d**0.5))
        if largest <= MAX_DEFAULT_SIZES:
            return [*range(1, largest + 1)]
        return np.unique(np.geomspace(1, largest, MAX_DEFAULT_SIZES).round().astype(int)).tolist()
    values = list(param_range)
    if not values:
        raise ValueError("param_range must hold at least one value, got 0.")
    if by_size:
        sizes = check_array([values], dtype=None, input_name="param_range")[0]
        if sizes.dtype.kind not in "iu" or sizes.min() < 1:
            raise ValueError(
                f"param_range must hold positive integers for n_components, got {values}."
            )
        return np.unique(sizes).tolist()
    if any(value == other for value, other in combinations(values, 2)):
        raise ValueError(f"param_range must hold distinct values, got {values}.")
    return values
