"""Selection of the number of components, or of another parameter, by a path of resumed fits."""

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

from skae._compat.sklearn import check_parameters, safe_indexing
from skae.parameters import is_integer, short_repr
from skae.state import NetworkMismatchError
from skae.table.reading import holds_numbers

Floats = NDArray[np.floating]

MatrixLike = Any

PATH_EPOCHS = 0.6
"""Total number of epochs of the fits of all values on one split, as a share of `max_epochs`.

Each fit has at least one epoch if `max_epochs` is not 0. Neither the full fit from which other
parameters start nor the additional epochs by which sizes are compared are included.
"""

MAX_DEFAULT_SIZES = 12
"""Maximum number of sizes that a path fits if `param_range` is None."""

EXPECTED_GAIN = 0.5
"""Gain in log-density that is expected of further epochs, as a share of the gain that the same
number of epochs has just brought."""

N_STANDARD_ERRORS = 2.0
"""Number of standard errors by which the gain of additional components must exceed the gain that is
expected of further epochs without these components."""

MIN_GAIN = 0.05
"""Smallest gain for which additional components are kept, as a share of the average gain of as many
components. The average is over the components between the smallest size and the size with the
largest log-density. This limit is needed because sizes are compared row by row, so that even a
negligible gain can exceed its standard error many times."""

RESERVED_PARAMETERS = {"max_epochs", "warm_start"}
"""Parameters that `components_path` sets itself and that cannot be varied."""

MAX_SCORED_ROWS = 1000
"""Maximum number of held-out rows of a split whose log-density is computed. More rows would hardly
make the mean more precise."""

TEST_SIZE = 0.25
"""Share of the rows that the default split holds out."""


@dataclass(frozen=True)
class ComponentsPath:
    """Results of `components_path` for all values of a parameter.

    Attributes
    ----------
    param_name : str
        Name of the parameter.
    results : DataFrame
        One row per value. The index holds the values.

        Errors and log-densities are means over rows. The error of a row is the sum of the squared
        errors of its cells, in squared units of the autoencoder's input. For the Bernoulli
        likelihood, it is the deviance of the row, in nats. If several splits hold out the same row,
        its mean over these splits counts once.

        - `train_error` and `test_error`: reconstruction errors of training and of held-out rows.
          The error of training rows is the mean over splits of the mean over rows.
        - `test_nats` and `test_nats_se`: log-density of held-out rows, in nats per row, and its
          standard error. It is computed for at most 1,000 rows of each split.
        - `worth` and `worth_se`: gain in log-density from the components that were added to the
          previous size, in nats per row, and its standard error. The gain is relative to the
          previous size after training for as many epochs again. It is computed only where
          `components_path` trained the previous size again to find the suggested size. It is NaN
          for all other sizes, including the smallest.
        - `pca_test_error` and `pca_test_nats`: reconstruction error and log-density of held-out
          rows for PCA with as many components. They are NaN where PCA is not comparable: with
          conditions or sensitive columns, with the Bernoulli likelihood, for tables that have
          missing cells or more than two axes, and for sizes that are not less than the numbers of
          training rows and of columns.
        - `seconds`: time in which the models of this value were trained and evaluated by
          `score_samples`, summed over splits. The time of the additional epochs of a size, by which
          the next larger size is judged, is included. The time of the full fit, from which the
          values of a parameter other than "n_components" start, is excluded.

        The columns `worth`, `worth_se`, `pca_test_error` and `pca_test_nats` exist only if
        `param_name` is "n_components". Standard errors describe the variation over held-out rows,
        not the variation over fits. They are infinite if there is only one held-out row.
    suggested : int, float or object
        The suggested value, which is in the index of `results`.
    error : str, default="squared error"
        What the reconstruction errors in `results` are: "squared error", or "deviance" for the
        Bernoulli likelihood. If the path compares likelihoods, it is "reconstruction error".

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
    error: str = "squared error"

    def one_standard_error(self) -> Any:
        """Return the first value that is at most one standard error worse than the suggested one.

        Values are compared by the log-density of held-out rows (`test_nats`). The standard error is
        that of the suggested value (`test_nats_se`). Sizes of the code are tried in increasing
        order, and values of other parameters in the order of `param_range`. Breiman et al. [1]_
        proposed this rule to choose a simpler model that is not clearly worse than the best.

        Returns
        -------
        value : int, float or object
            The first such value. It is the suggested value if no earlier value qualifies.

        References
        ----------
        .. [1] L. Breiman, J. Friedman, R. Olshen and C. Stone, "Classification and regression
           trees", Wadsworth 1984.
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

    Reconstruction errors cannot choose the number of components. A longer code can always represent
    more of a training row, and it usually also reconstructs held-out rows better. The log-density
    of held-out rows, in contrast, falls if a component explains nothing in the data.

    For `n_components`, the sizes are trained in increasing order. The model of the smallest size is
    trained for a few epochs. For each further size, components are added to a copy of the previous
    model, and its training is resumed for as many epochs. The epochs of all sizes sum to about
    0.6 `max_epochs`, but each size has at least one. With the comparisons that follow, a path takes
    about one to three times as long as a single fit of the largest size.

    Longer codes have then been trained for more epochs, so that the size with the largest
    log-density would be a biased choice. It is only the first candidate. The candidate is compared
    with the next smaller size, a copy of which is trained for as many epochs again. The gain of the
    candidate over this copy is reduced by half of the gain of the copy from its additional epochs.
    The remaining gain must exceed two of its standard errors. It must also exceed a twentieth of
    the average gain of as many components, taken between the smallest size and the size with the
    largest log-density. A candidate that meets both conditions is suggested. Otherwise, the next
    smaller size becomes the candidate. The copy is not trained if the gain over the smaller size is
    below that twentieth already. The smallest size needs no comparison.

    For another parameter, one full fit is made to the training rows of each split, with the value
    that the parameter has in `estimator`. For each value of `param_range`, training is resumed from
    a copy of this fit for a few epochs. The value with the largest log-density is suggested. The
    value in `estimator` should be a good one, because a few epochs cannot undo the effect of a bad
    one. For example, components that a large `beta` has made unused stay unused. Use `GridSearchCV`
    for parameters that change the architecture of the network.

    `max_epochs` should be large enough for a full fit to converge. Otherwise, the longest code can
    have the largest log-density only because it was trained for the most epochs.

    Parameters
    ----------
    estimator : autoencoder or Pipeline
        An autoencoder of skae, or a Pipeline that ends with one. It need not be fitted and is not
        changed, because only clones of it are fitted. The earlier steps of a Pipeline are fitted to
        the training rows of each split.
    X : array-like of shape (n_samples, n_features)
        Rows in the user's units.
    y : array-like of shape (n_samples,), default=None
        Targets, for estimators whose `fit` uses them.
    param_name : str, default="n_components"
        Name of the parameter of the autoencoder whose values are compared. For a Pipeline, it has
        no prefix. All parameters are allowed except `max_epochs` and `warm_start`, which the path
        sets, and those that change the architecture of the network.
    param_range : iterable, default=None
        Values to compare. It is required unless `param_name` is "n_components".

        Values of `n_components` are positive integers. They are sorted, and duplicates are removed.
        If None, they range from 1 to three times the square root of the number of columns, rounded,
        or to the number of columns if this is smaller. The columns are those of the autoencoder's
        input. If the range has more than 12 sizes, at most 12 of them are fitted, in approximately
        geometric progression.

        Values of other parameters must be distinct. They are compared in the given order.
    cv : int, cross-validation generator or iterable, default=None
        Splits into training and held-out rows. An int is the number of folds, without shuffling. If
        None, a random quarter of the rows is held out once, because each split takes the time of
        one path.
    groups : array-like of shape (n_samples,), default=None
        Groups of rows, for splitters that keep the rows of a group together.
    random_state : int, RandomState instance or None, default=0
        Determines the default split. If a split has more than 1,000 held-out rows, it also
        determines the 1,000 of them whose log-density is computed. The fits themselves depend on
        the `random_state` of the estimator.

    Returns
    -------
    path : ComponentsPath
        The table of results and the suggested value.

    Raises
    ------
    ValueError
        If `param_name`, a value of `param_range` or a split is invalid, if `param_range` is None
        although `param_name` is not "n_components", or if the parameter changes the architecture of
        the network. Errors of `fit` and `score_samples` are raised as well.
    TypeError
        If the estimator is neither an autoencoder nor a Pipeline that ends with one.

    Warns
    -----
    UserWarning
        If several values of `n_components` are compared and the largest is suggested, because a
        larger one may be better.

    See Also
    --------
    ComponentsPathDisplay : Plots the results.
    sklearn.model_selection.GridSearchCV : Compares full fits, also of several parameters.

    Examples
    --------
    >>> import numpy as np
    >>> from skae import Autoencoder, components_path
    >>> rng = np.random.default_rng(0)
    >>> factors = rng.normal(size=(600, 2))
    >>> X = np.tanh(factors @ rng.normal(size=(2, 8))) + 0.1 * rng.normal(size=(600, 8))
    >>> path = components_path(Autoencoder(random_state=0), X, param_range=[1, 2, 3, 4])
    >>> path.suggested
    2
    >>> bool(path.results["test_nats"][2] > path.results["pca_test_nats"].max())
    True
    """
    check_parameters(
        {"random_state": ["random_state"]}, {"random_state": random_state}, "components_path"
    )
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
    error = "reconstruction error"
    if param_name != "likelihood":
        is_squared = _has_squared_error(autoencoder, splits[0].train)
        error = "squared error" if is_squared else "deviance"
    return ComponentsPath(param_name, results, values[best], error)


@dataclass
class _Split:
    """Training and held-out rows of one split, after the preprocessing steps of the pipeline.

    Attributes
    ----------
    train, test : array-like of shape (n_train, n_features) and (n_test, n_features)
        Training and held-out rows.
    scored : array-like of shape (n_scored, n_features)
        Random sample of the held-out rows, at most `MAX_SCORED_ROWS`, whose log-density is
        computed.
    y : array-like of shape (n_train,) or None
        Targets of the training rows.
    test_index : ndarray of int of shape (n_test,)
        Indices of the rows of `test` in the table of the user.
    scored_index : ndarray of int of shape (n_scored,)
        Indices of the rows of `scored` in the table of the user.
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
        """Make a split from the pair of training and test rows that a splitter yields.

        `parts` holds the pair as indices or as masks. Clones of the preprocessing steps are fitted
        to the training rows. `seeds` draws the held-out rows whose log-density is computed.
        """
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
    """Average the values of each row over the splits that hold it out.

    `index` and `values` have one array of the same shape (n_held_out,) for each split: the indices
    of the rows in the table of the user, and one value for each of them. The result has the shape
    (n_distinct,), in the order of the indices.
    """
    _, row = np.unique(np.concatenate(index), return_inverse=True)
    return np.bincount(row, np.concatenate(values)) / np.bincount(row)


@dataclass
class _Fit:
    """A model that was fitted for one value on one split, and its log-density of held-out rows.

    Attributes
    ----------
    model : autoencoder
        The fitted model.
    split : _Split
        The rows of the split.
    nats : ndarray of shape (n_scored,)
        Log-density of each scored row, in nats.
    seconds : float
        Time of the fit and of the computation of `nats`, and of the same for `continued_nats`.
    continued_nats : ndarray of shape (n_scored,) or None
        Log-density of each scored row under a copy of the model that was trained for as many epochs
        again. None until it is needed.
    """

    model: BaseEstimator
    split: _Split
    nats: Floats
    seconds: float
    continued_nats: Floats | None = None

    @classmethod
    def make(cls, model: BaseEstimator, split: _Split) -> "_Fit":
        """Fit a model in place, and measure the time. A fitted model resumes its training."""
        start = perf_counter()
        model.fit(split.train, split.y)
        nats = model.score_samples(split.scored)
        return cls(model, split, nats, perf_counter() - start)

    def continue_training(self) -> Floats:
        """Return `continued_nats`. The first call trains a copy of the model and computes it."""
        if self.continued_nats is None:
            continued = _Fit.make(copy.deepcopy(self.model), self.split)
            self.continued_nats = continued.nats
            self.seconds += continued.seconds
        return self.continued_nats


def _fit_increasing_sizes(
    autoencoder: BaseEstimator, param_name: str, values: Sequence[Any], split: _Split
) -> list[_Fit]:
    """Fit increasing sizes of the code. Each size resumes from a copy of the previous model."""
    model, fits = clone(autoencoder), []
    epochs = _epochs_per_value(autoencoder, values, split)
    for value in values:
        model = copy.deepcopy(model).set_params(max_epochs=epochs, **{param_name: value})
        fits.append(_Fit.make(model, split))
    return fits


def _fit_from_common_start(
    autoencoder: BaseEstimator, param_name: str, values: Sequence[Any], split: _Split
) -> list[_Fit]:
    """Fit all values. Each value resumes from a copy of the same full fit.

    Raises ValueError if the parameter changes the architecture of the network.
    """
    start = clone(autoencoder).fit(split.train, split.y)
    start.set_params(max_epochs=_epochs_per_value(autoencoder, values, split))
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


def _epochs_per_value(autoencoder: BaseEstimator, values: Sequence[Any], split: _Split) -> int:
    """Compute the number of epochs of each fit of a path."""
    epochs = autoencoder._n_epochs(len(split.train))
    return min(epochs, max(1, round(PATH_EPOCHS * epochs / len(values))))


def _nats_by_row(fits: Sequence[_Fit], get_nats: Callable[[_Fit], Floats]) -> Floats:
    """Compute the log-density of each distinct scored row, averaged over the splits that score it.

    `fits` holds the fits of one value on all splits. `get_nats` returns the log-density of the
    scored rows of a fit, of shape (n_scored,).
    """
    return _mean_by_row([fit.split.scored_index for fit in fits], [*map(get_nats, fits)])


def _select_size(
    sizes: Sequence[int], fits: Sequence[Sequence[_Fit]], results: pd.DataFrame, best: int
) -> int:
    """Return the index of the largest size up to `best` whose additional components are kept.

    Additional components are those that the next smaller size lacks. The index is 0 if those of no
    size are kept.

    Parameters
    ----------
    sizes : sequence of int
        Sizes of the code, in increasing order.
    fits : sequence of sequences of _Fit
        One sequence for each split, with one fit for each size.
    results : DataFrame
        Results of the path. The gains that are computed are written to its columns `worth` and
        `worth_se`.
    best : int
        Index of the size with the largest log-density.
    """
    means, i = results["test_nats"].to_numpy(), best
    while i > 0:
        larger, smaller = ([fits_of_split[j] for fits_of_split in fits] for j in (i, i - 1))
        nats, before = (
            _nats_by_row(same_size, lambda fit: fit.nats) for same_size in (larger, smaller)
        )
        average = (means[best] - means[0]) * (sizes[i] - sizes[i - 1]) / (sizes[best] - sizes[0])
        threshold = MIN_GAIN * average
        # Further epochs of the smaller size usually reduce the gain. They are skipped if the gain
        # is too small already.
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


def _has_squared_error(autoencoder: BaseEstimator, X: Any) -> bool:
    """Return whether reconstruction errors of a table are squared errors in its units."""
    likelihood = autoencoder.get_params()["likelihood"]
    return likelihood == "gaussian" or (likelihood == "auto" and holds_numbers(X))


def _add_pca(results: pd.DataFrame, splits: Sequence[_Split], autoencoder: BaseEstimator) -> None:
    """Add the errors and log-densities of PCA with as many components to the results.

    They stay NaN where PCA is not comparable: with conditions or sensitive columns, with a
    likelihood other than the Gaussian, for tables that have missing cells or more than two axes,
    and for sizes that are not less than the numbers of training rows and of columns.
    """
    results[["pca_test_error", "pca_test_nats"]] = np.nan
    parameters = autoencoder.get_params()
    is_conditional = any(parameters.get(name) is not None for name in ("condition", "sensitive"))
    is_comparable = all(_has_squared_error(autoencoder, s.train) for s in splits)
    if is_conditional or not is_comparable:
        return
    try:
        tables = [[*map(check_array, (s.train, s.test, s.scored))] for s in splits]
    except (ValueError, TypeError):  # images, sequences of different lengths, categories
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
    """Return the preprocessing steps and a clone of the autoencoder with `warm_start=True`.

    The preprocessing steps are those of the Pipeline before the autoencoder, or None if there are
    none. Raises TypeError if the estimator is invalid, and ValueError if the parameter is.
    """
    steps: list[BaseEstimator] = []
    while isinstance(estimator, Pipeline):
        steps += [step for _, step in estimator.steps[:-1] if step not in (None, "passthrough")]
        estimator = estimator.steps[-1][1]
    preprocessing = make_pipeline(*steps) if steps else None
    if not all(hasattr(estimator, name) for name in ("reconstruction_error", "score_samples")):
        raise TypeError(
            "estimator must be an autoencoder or a Pipeline that ends with one, got "
            f"{short_repr(estimator)}."
        )
    if param_name not in estimator.get_params():
        raise ValueError(
            f"param_name must be a parameter of {type(estimator).__name__}, got "
            f"{short_repr(param_name)}."
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

    The number of columns of `X`, rows in the units of the autoencoder's input, determines the
    default sizes. Raises ValueError if the values are invalid.
    """
    if param_range is None:
        if not by_size:
            raise ValueError(
                f"param_range must hold the values of {param_name} to compare, got None."
            )
        d = max(map(np.size, X)) if isinstance(X, list) else int(np.prod(np.shape(X)[1:]))
        largest = min(d, round(3 * d**0.5))
        if largest <= MAX_DEFAULT_SIZES:
            return [*range(1, largest + 1)]
        return np.unique(np.geomspace(1, largest, MAX_DEFAULT_SIZES).round().astype(int)).tolist()
    values = list(param_range)
    if not values:
        raise ValueError("param_range must hold at least one value, got 0.")
    if by_size:
        sizes = check_array([values], dtype=None, input_name="param_range")[0]
        if not all(map(is_integer, values)) or sizes.min() < 1:
            raise ValueError(
                "param_range must hold positive integers for n_components, got "
                f"{short_repr(values)}."
            )
        return np.unique(sizes).tolist()
    if any(value == other for value, other in combinations(values, 2)):
        raise ValueError(f"param_range must hold distinct values, got {short_repr(values)}.")
    return values
