"""What codes and draws are worth: scorers for cross-validation and grid searches."""

from itertools import combinations
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.random import RandomState
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.linear_model import Ridge
from sklearn.metrics import pairwise_distances_chunked
from sklearn.model_selection import (
    KFold,
    ShuffleSplit,
    StratifiedKFold,
    cross_val_score,
)
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_array, check_random_state
from sklearn.utils.multiclass import type_of_target

from skae._compat.sklearn import (
    HasMethods,
    Interval,
    StrOptions,
    check_sample_weight,
    safe_indexing,
    validate_parameter_constraints,
)
from skae.table.audit import FOLDS, PROBES

__all__ = [
    "active_units",
    "code_stability",
    "explained_variance_ratio",
    "neg_two_sample_auc",
    "probe_score",
    "trustworthiness",
    "two_sample_auc",
]

Floats = NDArray[np.float64]

MOST = 20
"""Different whole numbers, as floats, up to which they are classes."""

FEWEST = 3
"""Rows whose codes can be compared at least."""

LARGEST_SEED = 2**31 - 1


CONSTRAINTS = {
    "threshold": [Interval(Real, 0, None, closed="left")],
    "n_neighbors": [Interval(Integral, 1, None, closed="left")],
    "probe": [HasMethods(["fit", "score"]), None],
    "over": [StrOptions({"seeds", "folds"})],
    "n_repeats": [Interval(Integral, 2, None, closed="left")],
    "classifier": [HasMethods("fit"), None],
    "random_state": ["random_state"],
}
"""What parameters of scorers may be."""


def explained_variance_ratio(
    estimator: BaseEstimator,
    X: ArrayLike,
    y: object = None,
    *,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Share of the variance of rows that is left in their reconstructions.

    1 is a perfect reconstruction. 0 is as good as the column means of `X`, negative is worse. Units
    matter as they do for PCA: columns with larger variance count more.

    Parameters
    ----------
    estimator : estimator or Pipeline
        A fitted estimator with a method `reconstruct`, or with `transform` and `inverse_transform`.
    X : array-like of shape (n_samples, n_features)
        Rows in the user's units. Missing cells (NaN) are left out.
    y : None
        Ignored.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of rows; None weighs all alike.

    Returns
    -------
    score : float
        At most 1; greater is better. If all rows are equal it is 1 for perfect reconstructions and
        0 for others, as in `sklearn.metrics.r2_score`.

    Raises
    ------
    TypeError
        Where the estimator cannot reconstruct rows.

    See Also
    --------
    sklearn.metrics.explained_variance_score : Weighs columns alike, and takes off mean errors.

    Notes
    -----
    It is one minus the sum of squared errors over the sum of squared deviations of `X` from its own
    column means. On its training rows, PCA has `PCA.explained_variance_ratio_.sum()` [1]_.

    References
    ----------
    .. [1] I. T. Jolliffe, "Principal component analysis", 2nd edition, Springer 2002.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.decomposition import PCA
    >>> from sklearn.model_selection import cross_val_score
    >>> from skae.metrics import explained_variance_ratio
    >>> X = load_digits().data
    >>> scores = cross_val_score(PCA(8), X, scoring=explained_variance_ratio)
    >>> bool(0.6 < scores.mean() < 0.7)
    True
    """
    rows = _table(X)
    row_weight = check_sample_weight(
        sample_weight, rows, dtype=np.float64, ensure_non_negative=True
    )
    restored = _table(_reconstructions(estimator, X), "reconstructions")
    # From their least value, cells of a constant column are exactly 0 and so is their variance.
    least = np.fmin.reduce(rows)
    if restored.shape != rows.shape:
        raise ValueError(
            f"estimator must restore rows of shape {rows.shape}, but gives {restored.shape}."
        )
    rows, restored = rows - least, restored - least
    missing = np.isnan(rows)
    if np.isnan(restored[~missing]).any():
        raise ValueError("estimator restores some cells as NaN: what it has learnt is broken.")
    weight = np.where(missing, 0.0, row_weight[:, None])
    rows, errors = np.where(missing, 0.0, rows), np.where(missing, 0.0, rows - restored)
    of_column = weight.sum(axis=0)
    center = (weight * rows).sum(axis=0) / np.where(of_column > 0, of_column, 1.0)
    lost, total = (weight * errors**2).sum(), (weight * (rows - center) ** 2).sum()
    return float(1 - lost / total) if total else float(lost == 0)


def active_units(
    estimator: BaseEstimator, X: ArrayLike, y: object = None, *, threshold: float = 0.01
) -> float:
    """Number of components of the code that tell rows apart.

    A component that has the same value for all rows says nothing of them. Variational autoencoders
    give up components that are not worth their price: this is posterior collapse.

    Parameters
    ----------
    estimator : estimator or Pipeline
        A fitted estimator with a method `transform`.
    X : array-like of shape (n_samples, n_features)
        Rows in the user's units.
    y : None
        Ignored.
    threshold : float, default=0.01
        Variance over the rows above which a component is active. The default is that of the
        literature; variances are mostly far from it, on either side.

    Returns
    -------
    score : float
        A whole number from 0 to the size of the code; greater is more used.

    Raises
    ------
    ValueError
        Where `threshold` is negative.
    TypeError
        Where the estimator has no codes.

    Notes
    -----
    The count is that of [1]_. An estimator with a method `posterior`, or whose `autoencoder_` or
    last step has one, holds its codes to the standard normal distribution: variances are taken as
    they are. Other codes have scales of their own: variances are relative to that of the component
    which varies most.

    References
    ----------
    .. [1] Y. Burda, R. Grosse and R. Salakhutdinov, "Importance weighted autoencoders", ICLR 2016.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.decomposition import PCA
    >>> from skae.metrics import active_units
    >>> plane = np.random.default_rng(0).normal(size=(100, 2))
    >>> X = plane @ [[1, 2, 0, 1], [0, 1, 1, -1]]
    >>> active_units(PCA(3).fit(X), X)
    2.0
    """
    _validate("active_units", threshold=threshold)
    variance = _codes(estimator, X).var(axis=0)
    last = _last_step(estimator)
    has_scale = hasattr(getattr(last, "autoencoder_", last), "posterior")
    unit = 1.0 if has_scale else variance.max()
    return float((variance > threshold * unit).sum())


def trustworthiness(
    estimator: BaseEstimator, X: ArrayLike, y: object = None, *, n_neighbors: int = 5
) -> float:
    """How far the neighbours of rows among the codes are neighbours among the rows, too.

    Parameters
    ----------
    estimator : estimator or Pipeline
        A fitted estimator with a method `transform`.
    X : array-like of shape (n_samples, n_features)
        Rows in the user's units. Missing cells (NaN) are left out of distances, as
        `sklearn.metrics.pairwise.nan_euclidean_distances` does.
    y : None
        Ignored.
    n_neighbors : int, default=5
        Neighbours of each row that are looked at, fewer than half the rows.

    Returns
    -------
    score : float
        1 if all neighbours among the codes are as near among the rows, about 0.5 if codes are
        noise; greater is better.

    Raises
    ------
    ValueError
        Where `n_neighbors` is not a positive integer, or not less than half the number of rows.
    TypeError
        Where the estimator has no codes.

    See Also
    --------
    sklearn.manifold.trustworthiness : The same number, from rows and codes. It holds all distances
        at once.

    Notes
    -----
    The measure is that of [1]_: a neighbour among the codes costs as many points as its rank among
    the neighbours of the row exceeds `n_neighbors`. Distances are Euclidean. They are computed for
    so many rows at a time as scikit-learn's setting `working_memory` allows.

    References
    ----------
    .. [1] J. Venna and S. Kaski, "Neighborhood preservation in nonlinear projection methods: an
       experimental study", ICANN 2001.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.decomposition import PCA
    >>> from skae.metrics import trustworthiness
    >>> X = load_digits().data
    >>> two, eight = (trustworthiness(PCA(k).fit(X), X) for k in (2, 8))
    >>> bool(two < 0.9 < eight)
    True
    """
    _validate("trustworthiness", n_neighbors=n_neighbors)
    rows = _table(X)
    n = len(rows)
    if n_neighbors >= n / 2:
        raise ValueError(
            f"n_neighbors ({n_neighbors}) should be less than n_samples / 2 ({n / 2})."
        )
    search = NearestNeighbors(n_neighbors=n_neighbors).fit(_codes(estimator, X))
    neighbors = search.kneighbors(return_distance=False)

    def costs(distance: Floats, start: int) -> NDArray[np.intp]:
        """Points of rows, the first of which is `start`, from their distances to all."""
        index = np.arange(len(distance))
        distance[index, start + index] = np.inf
        cost = np.zeros(len(distance), dtype=np.intp)
        for neighbor in neighbors[start : start + len(distance)].T:
            nearer = (distance < distance[index, neighbor][:, None]).sum(axis=1)
            cost += np.maximum(nearer + 1 - n_neighbors, 0)
        return cost

    metric = "nan_euclidean" if np.isnan(rows).any() else "euclidean"
    cost = sum(
        part.sum() for part in pairwise_distances_chunked(rows, reduce_func=costs, metric=metric)
    )
    return float(1 - 2 * cost / (n * n_neighbors * (2 * n - 3 * n_neighbors - 1)))


def probe_score(
    estimator: BaseEstimator,
    X: ArrayLike,
    y: ArrayLike | None = None,
    *,
    probe: BaseEstimator | None = None,
    cv: Any = FOLDS,
) -> float:
    """How well a simple model, the probe, tells targets from codes.

    The estimator stays as it is fitted. The probe is trained on codes of `X` and judged on others,
    by cross-validation.

    Parameters
    ----------
    estimator : estimator or Pipeline
        A fitted estimator with a method `transform`.
    X : array-like of shape (n_samples, n_features)
        Rows in the user's units.
    y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        Classes or numbers to be told. It may be left out only because scikit-learn calls scorers
        without it where a search is given none: this is an error here.
    probe : classifier, regressor or None, default=None
        What learns from codes; a clone of it is trained. None is logistic regression for classes
        and ridge regression for numbers, on standardised codes: a linear probe tells what a code
        says plainly [1]_.
    cv : int, splitter or iterable, default=5
        Splits of the rows, as `sklearn.model_selection.cross_val_score` takes them. A number is
        that of folds: of shuffled rows, always the same, for classes stratified.

    Returns
    -------
    score : float
        Mean over the splits of the probe's own score: accuracy of classifiers, R^2 of regressors.
        Greater is better.

    Raises
    ------
    ValueError
        Where `y` is None, or of a type that the default probe cannot tell.
    TypeError
        Where the estimator has no codes.

    Notes
    -----
    What classes are, `sklearn.utils.multiclass.type_of_target` decides: whole numbers are classes,
    floats such as 3.0 included if they are at most 20 different ones. If they are quantities, give
    a regressor as `probe`.

    References
    ----------
    .. [1] G. Alain and Y. Bengio, "Understanding intermediate layers using linear classifier
       probes", ICLR 2017 workshop.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.decomposition import PCA
    >>> from skae.metrics import probe_score
    >>> X, y = load_digits(return_X_y=True)
    >>> two, eight = (probe_score(PCA(k).fit(X), X, y) for k in (2, 8))
    >>> bool(two < 0.7 < 0.8 < eight)
    True
    """
    _validate("probe_score", probe=probe)
    if y is None:
        raise ValueError(
            "probe_score requires y, the targets that codes are to tell, but it is None: give y to "
            "the search or to cross_val_score, too."
        )
    if probe is None:
        kind = type_of_target(y, input_name="y")
        if kind == "multiclass" and np.asarray(y).dtype.kind == "f" and len(np.unique(y)) > MOST:
            kind = "continuous"
        if kind in ("binary", "multiclass"):
            probe = PROBES["linear"]()
        elif kind in ("continuous", "continuous-multioutput"):
            probe = make_pipeline(StandardScaler(), Ridge())
        else:
            raise ValueError(f"probe must be given where y is of type {kind!r}.")
    if isinstance(cv, Integral):
        # Tables are often sorted, and parts of a sorted one are not like each other.
        splitter = StratifiedKFold if is_classifier(probe) else KFold
        cv = splitter(int(cv), shuffle=True, random_state=0)
    codes = _codes(estimator, X)
    return float(cross_val_score(probe, codes, y, cv=cv, error_score="raise").mean())


def code_stability(
    estimator: BaseEstimator,
    X: ArrayLike,
    y: ArrayLike | None = None,
    *,
    over: str = "seeds",
    n_repeats: int = 3,
    random_state: int | RandomState | None = 0,
) -> float:
    """How alike the codes of the same rows are if the estimator is trained several times.

    It trains: each call fits `n_repeats` clones of the estimator on three quarters of `X` and
    compares their codes of the other quarter. What the estimator itself has learnt plays no part;
    it need not be fitted.

    Parameters
    ----------
    estimator : estimator or Pipeline
        What to train, with the methods `fit` and `transform`.
    X : array-like of shape (n_samples, n_features)
        Rows in the user's units.
    y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
        Passed to `fit`.
    over : {"seeds", "folds"}, default="seeds"
        What differs between clones. "seeds": every parameter `random_state`, those of nested
        estimators included. "folds": the training rows, of which each clone misses another of
        `n_repeats` folds; the seeds are the same.
    n_repeats : int, default=3
        Number of clones, at least 2.
    random_state : int, RandomState instance or None, default=0
        Decides the split, the folds and the seeds. Fixed by default, so that the candidates of a
        search are compared alike.

    Returns
    -------
    score : float
        Mean over pairs of clones, from 0 to 1; greater is better. 1: the same codes up to rotation,
        reflection and one scale. Codes of which one is constant have 0 in common.

    Raises
    ------
    ValueError
        Where `over` or `n_repeats` is none of the above, or X has fewer than 9 rows.
    TypeError
        Where the estimator has no codes.

    Notes
    -----
    Two codes are compared by linear centred kernel alignment (CKA) [1]_. Its directions count by
    their variance. Independent codes do not quite reach 0: with k components of equal variance and
    n rows set aside they have about k / n.

    References
    ----------
    .. [1] S. Kornblith, M. Norouzi, H. Lee and G. Hinton, "Similarity of neural network
       representations revisited", ICML 2019.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from sklearn.decomposition import PCA
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skae.metrics import code_stability
    >>> model, X = make_pipeline(StandardScaler(), PCA(2)), load_wine().data
    >>> bool(code_stability(model, X) > 0.999 > code_stability(model, X, over="folds") > 0.9)
    True
    """
    _validate("code_stability", over=over, n_repeats=n_repeats, random_state=random_state)
    rng = check_random_state(random_state)
    train, test = next(ShuffleSplit(1, test_size=0.25, random_state=rng).split(X))
    if len(test) < FEWEST:
        raise ValueError(f"X must have at least {4 * FEWEST - 3} rows: a quarter is compared.")
    seeds, parts = rng.randint(LARGEST_SEED, size=n_repeats).tolist(), [train] * n_repeats
    if over == "folds":
        folds = KFold(n_repeats, shuffle=True, random_state=rng)
        seeds, parts = seeds[:1] * n_repeats, [train[kept] for kept, _ in folds.split(train)]
    codes = []
    for seed, part in zip(seeds, parts, strict=True):
        learner = _seeded(estimator, seed)
        learner.fit(safe_indexing(X, part), None if y is None else safe_indexing(y, part))
        codes.append(_codes(learner, safe_indexing(X, test)))
    return float(np.mean([_alignment(A, B) for A, B in combinations(codes, 2)]))


def two_sample_auc(
    X: ArrayLike,
    samples: ArrayLike,
    *,
    classifier: BaseEstimator | None = None,
    random_state: int | RandomState | None = 0,
) -> float:
    """How well a classifier tells real rows from drawn ones.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Real rows, best such as the generator has not been trained on.
    samples : array-like of shape (n_draws, n_features)
        Drawn rows, as many or not; at least 5 of either.
    classifier : classifier or None, default=None
        What learns to tell them apart; clones of it are trained. None is a random forest, which
        sees columns in any units and knows no bounds on what differences look like.
    random_state : int, RandomState instance or None, default=0
        Decides the folds and the default classifier. Fixed by default, so that generators are
        compared alike.

    Returns
    -------
    auc : float
        Area under the ROC curve, mean over 5 folds; smaller is better. 0.5: the rows cannot be told
        apart. 1: always. Clearly below 0.5: drawn rows repeat real ones, as each row's double is
        in the other class.

    Raises
    ------
    ValueError
        Where the numbers of columns differ, or there are fewer than 5 rows of either.

    See Also
    --------
    neg_two_sample_auc : The scorer.

    Notes
    -----
    It is a classifier two-sample test [1]_, with the area under the ROC curve, on which unequal
    numbers of rows have no effect, in the place of accuracy.

    References
    ----------
    .. [1] D. Lopez-Paz and M. Oquab, "Revisiting classifier two-sample tests", ICLR 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from skae.metrics import two_sample_auc
    >>> X, same = np.random.default_rng(0).normal(size=(2, 200, 3))
    >>> bool(two_sample_auc(X, same) < 0.6 < 0.9 < two_sample_auc(X, same + 3))
    True
    """
    _validate("two_sample_auc", classifier=classifier, random_state=random_state)
    real, drawn = _table(X), _table(samples, "samples")
    if real.shape[1] != drawn.shape[1]:
        raise ValueError(
            f"samples has {drawn.shape[1]} columns, but X has {real.shape[1]}: they must be of the "
            "same columns."
        )
    if min(len(real), len(drawn)) < FOLDS:
        raise ValueError(
            f"X has {len(real)} rows and samples {len(drawn)}, but both are split into {FOLDS} "
            "parts: give at least as many rows of either."
        )
    if classifier is None:
        classifier = PROBES["forest"]().set_params(random_state=random_state)
    is_real = np.repeat([1, 0], [len(real), len(drawn)])
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=random_state)
    options = {"cv": folds, "scoring": "roc_auc", "error_score": "raise"}
    return float(cross_val_score(classifier, np.vstack([real, drawn]), is_real, **options).mean())


def neg_two_sample_auc(
    estimator: BaseEstimator,
    X: ArrayLike,
    y: object = None,
    *,
    classifier: BaseEstimator | None = None,
    random_state: int | RandomState | None = 0,
) -> float:
    """How well what an estimator draws passes for real rows: minus `two_sample_auc`.

    Parameters
    ----------
    estimator : estimator or Pipeline
        A fitted estimator with a method `sample` that takes a number of rows and `random_state`. If
        it is the last step of a Pipeline, the earlier ones take draws back to the units of `X` and
        need `inverse_transform`.
    X : array-like of shape (n_samples, n_features)
        Real rows in the user's units; at least 5. As many are drawn.
    y : None
        Ignored.
    classifier : classifier or None, default=None
        What learns to tell real rows from drawn ones; None is a random forest.
    random_state : int, RandomState instance or None, default=0
        Decides the draws, the folds and the default classifier. Fixed by default, so that the
        candidates of a search are compared alike.

    Returns
    -------
    score : float
        -0.5: drawn rows cannot be told from real ones; -1: always. Greater is better.

    Raises
    ------
    TypeError
        Where the estimator has no method `sample`.
    ValueError
        Where there are fewer than 5 rows.

    See Also
    --------
    two_sample_auc : The same for any two tables.

    Notes
    -----
    The test is that of [1]_. Draws that repeat training rows pass it, too, unless `X` are other
    rows: cross-validate.

    References
    ----------
    .. [1] D. Lopez-Paz and M. Oquab, "Revisiting classifier two-sample tests", ICLR 2017.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skae import VariationalAutoencoder
    >>> from skae.metrics import neg_two_sample_auc
    >>> X = load_wine().data
    >>> vae = VariationalAutoencoder(4, hidden_layer_sizes=(), max_epochs=2, random_state=0)
    >>> model = make_pipeline(StandardScaler(), vae).fit(X[::2])
    >>> bool(-1 <= neg_two_sample_auc(model, X[1::2]) < -0.5)
    True
    """
    rng = check_random_state(random_state)
    samples = _draws(estimator, len(_table(X)), rng)
    return -two_sample_auc(X, samples, classifier=classifier, random_state=rng)


def _validate(scorer: str, **parameters: object) -> None:
    """Raise InvalidParameterError where a parameter breaks its constraint."""
    validate_parameter_constraints(CONSTRAINTS, parameters, scorer)


def _table(X: ArrayLike, name: str = "X") -> Floats:
    """Validated numbers with a row for each row, whatever shape it has."""
    rows = check_array(
        X, dtype=np.float64, ensure_all_finite="allow-nan", allow_nd=True, input_name=name
    )
    return rows.reshape(len(rows), -1)


def _codes(estimator: BaseEstimator, X: ArrayLike) -> NDArray[Any]:
    _require(estimator, "transform")
    return np.asarray(estimator.transform(X))


def _reconstructions(estimator: BaseEstimator, X: ArrayLike) -> NDArray[Any]:
    if hasattr(estimator, "reconstruct"):
        return np.asarray(estimator.reconstruct(X))
    _require(estimator, "transform", "inverse_transform")
    return np.asarray(estimator.inverse_transform(estimator.transform(X)))


def _draws(estimator: BaseEstimator, n: int, random_state: RandomState) -> ArrayLike:
    """Rows that an estimator, or a pipeline's last step, draws, in units of the input."""
    if not isinstance(estimator, Pipeline):
        _require(estimator, "sample")
        return estimator.sample(n, random_state=random_state)
    samples = _draws(estimator[-1], n, random_state)
    return estimator[:-1].inverse_transform(samples) if len(estimator) > 1 else samples


def _require(estimator: BaseEstimator, *methods: str) -> None:
    for method in methods:
        if not hasattr(estimator, method):
            raise TypeError(
                f"estimator must have a method {method!r}, but {type(estimator).__name__} has none."
            )


def _last_step(estimator: BaseEstimator) -> BaseEstimator:
    return _last_step(estimator[-1]) if isinstance(estimator, Pipeline) else estimator


def _seeded(estimator: BaseEstimator, seed: int) -> BaseEstimator:
    """A clone whose every `random_state` is `seed`."""
    learner = clone(estimator)
    names = [name for name in learner.get_params() if name.split("__")[-1] == "random_state"]
    return learner.set_params(**dict.fromkeys(names, seed))


def _alignment(A: NDArray[Any], B: NDArray[Any]) -> float:
    """Linear CKA of two codes of the same rows."""
    A, B = _centred(A), _centred(B)
    norm = np.linalg.norm(A.T @ A) * np.linalg.norm(B.T @ B)
    return min(1.0, float(np.linalg.norm(A.T @ B) ** 2 / norm)) if norm else 0.0


def _centred(codes: NDArray[Any]) -> Floats:
    # From the first row, constant components are exactly 0 and stay so.
    codes = codes.astype(np.float64) - codes[:1]
    return codes - codes.mean(axis=0)
