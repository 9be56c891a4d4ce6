"""Metrics of codes, reconstructions and samples: scorers for cross-validation and searches.

If an autoencoder reads a table with columns of several kinds, metrics that compare rows use the
standardized cells that its network reads. A number is a cell in standard deviations from the mean
of its column; if all columns are of the same kind, such as dates, they have one standard deviation
in common. A category has a cell for each level: the indicator of the level or, in decoded rows, its
probability, minus its share in the training rows and divided by the square root of the share.
Distances between such rows are those of factor analysis of mixed data.
"""

from itertools import combinations
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd
from numpy.random import RandomState
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.ensemble import HistGradientBoostingClassifier
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
    check_parameters,
    check_sample_weight,
    safe_indexing,
)
from skae.inspection.attribution import (
    attribution_shares,
    explained_variance,
    importance,
    mean_loadings,
)
from skae.inspection.cells import comparable_cells, reads_numbers, standardized_cells
from skae.inspection.display import apply_preprocessing, unpack_with_rows
from skae.table.audit import FOLDS, PROBES
from skae.table.categories import Categories
from skae.table.columns import Column
from skae.table.containers import default_names, is_frame, table_in_frame, tables_in_frame
from skae.table.reading import as_container, holds_numbers, validate_container
from skae.table.sequences import as_padded

__all__ = [
    "active_units",
    "code_stability",
    "component_importance",
    "explained_variance_ratio",
    "feature_attribution",
    "loadings",
    "neg_two_sample_auc",
    "probe_score",
    "trustworthiness",
    "two_sample_auc",
]

Floats = NDArray[np.float64]

MAX_FLOAT_CLASSES = 20
"""Maximum number of distinct values for which a float target of whole numbers holds classes.

scikit-learn treats every float target of whole numbers as classes. A target with more distinct
values is more likely a count.
"""

MAX_LEVELS = 255
"""Largest number of categories that the boosted trees of `two_sample_auc` tell apart."""

MIN_OBSERVED = 20
"""Number of observed cells below which `two_sample_auc` only uses whether the cells of a column of
numbers are missing, if columns have several kinds."""

MIN_COMPARED_ROWS = 3
"""Smallest number of held-out rows for which `code_stability` is computed."""

MAX_SEED = 2**31 - 1
"""Exclusive upper bound of the seeds that `code_stability` draws."""


CONSTRAINTS = {
    "threshold": [Interval(Real, 0, None, closed="left")],
    "n_neighbors": [Interval(Integral, 1, None, closed="left")],
    "probe": [HasMethods(["fit", "score"]), None],
    "over": [StrOptions({"seeds", "folds"})],
    "n_repeats": [Interval(Integral, 2, None, closed="left")],
    "classifier": [HasMethods("fit"), None],
    "random_state": ["random_state"],
}
"""Constraints of the metrics' parameters, in the format of scikit-learn's parameter validation.

They do not include `cv`, which `cross_val_score` validates.
"""


def explained_variance_ratio(
    estimator: BaseEstimator,
    X: ArrayLike,
    y: object = None,
    *,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Compute the share of the variance of rows that their reconstructions explain.

    The score is 1 for perfect reconstructions, 0 if they are as good as the column means of `X`,
    and negative if they are worse. The units of the columns matter, as they do for PCA: a column
    with a larger variance counts more.

    Parameters
    ----------
    estimator : estimator or Pipeline
        A fitted estimator with a method `reconstruct`, or with the methods `transform` and
        `inverse_transform`. All steps of a Pipeline need the latter two, except for a last step
        with a method `reconstruct`.
    X : array-like of shape (n_samples, n_features)
        Rows in the user's units. Missing cells (NaN) are ignored.
    y : None
        Ignored.
    sample_weight : array-like of shape (n_samples,), default=None
        Non-negative weights of the rows. If None, all rows have the same weight.

    Returns
    -------
    score : float
        The share, at most 1; greater is better. If all rows are equal, their variance is 0. The
        score is then 1 for perfect reconstructions and 0 otherwise, as in
        `sklearn.metrics.r2_score`.

    Raises
    ------
    TypeError
        If the estimator does not have the required methods.
    NotFittedError
        If the estimator is not fitted.
    ValueError
        If `X` or `sample_weight` is invalid, if the reconstructions do not have the shape of `X`,
        or if they are NaN where `X` is not.

    See Also
    --------
    sklearn.metrics.explained_variance_score : Weights all columns equally and ignores the mean
        error of each column.

    Notes
    -----
    The score is one minus the sum of squared errors divided by the sum of squared deviations of `X`
    from its own column means. The means and both sums are weighted by `sample_weight`. For PCA and
    its training rows without weights, the score is `PCA.explained_variance_ratio_.sum()` [1]_.

    If an autoencoder reads columns of several kinds or conditions that are texts, the sums are over
    the standardized cells of its modelled columns (see `skae.metrics`). Those of decoded categories
    are probabilities. In a Pipeline, the rows are then those after the earlier steps.

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
    if reads_numbers(_last_step(estimator)):
        reconstructed = _flatten_rows(_reconstructions(estimator, X), "reconstructions")
        rows = _flatten_rows(as_padded(X, reconstructed.shape[1]))
    else:
        autoencoder, rows, _ = unpack_with_rows(estimator, X)
        codes = autoencoder.transform(rows)
        rows, decode, *_ = standardized_cells(autoencoder, rows)
        reconstructed = decode(codes)
    row_weight = check_sample_weight(
        sample_weight, rows, dtype=np.float64, ensure_non_negative=True
    )
    if reconstructed.shape != rows.shape:
        raise ValueError(
            f"estimator must return reconstructions of shape {rows.shape}, got "
            f"{reconstructed.shape}."
        )
    if np.isnan(reconstructed[~np.isnan(rows)]).any():
        raise ValueError(
            "estimator returned reconstructions that contain NaN where X does not. Check that its "
            "fitted parameters are finite."
        )
    return explained_variance(rows, reconstructed, row_weight)


def feature_attribution(
    estimator: BaseEstimator, X: ArrayLike, y: object = None, *, per_row: bool = False
) -> Any:
    """Compute which columns the components of the codes depend on.

    Parameters
    ----------
    estimator : autoencoder, estimator that contains one, or Pipeline
        A fitted autoencoder, a fitted estimator that contains one, such as `AutoencoderClassifier`
        or `AutoencoderOutlierDetector`, or a Pipeline that ends with one of these. The columns are
        those of the autoencoder's input: those after the earlier steps of a Pipeline.
    X : array-like of shape (n_samples, n_features)
        Rows in the user's units, at least two of which differ.
    y : None
        Ignored.
    per_row : bool, default=False
        Whether to attribute the code of each row to its cells, in place of the variance of each
        component to the columns.

    Returns
    -------
    attribution : ndarray or data frame
        If `per_row=False`, the share of each column in the variance of each component, of shape
        (n_components, n_features). The shares are not negative, and those of a component sum to 1.
        If `X` is a pandas DataFrame, it is a DataFrame with the names of the components and of the
        columns. If `X` is a data frame of another library, such as polars, it is one of this
        library, whose first column, "component", contains the names of the components.

        If `per_row=True`, the attributions of
        `skae.base.BaseAutoencoder.integrated_gradients`, of shape (n_samples, n_components,
        n_features). Those of a row add up to the difference between its code and the code of the
        mean row. If `X` is a pandas DataFrame, it is a DataFrame with a column for each pair of a
        component and a column. If `X` is a data frame of another library, it is a dict of data
        frames, by component.

    Raises
    ------
    TypeError
        If `estimator` contains no autoencoder of skae.
    NotFittedError
        If `estimator` is not fitted.
    ValueError
        If `X` is invalid, if all of its rows are equal, or if `per_row=True` and columns hold
        categories.

    See Also
    --------
    loadings : How columns change with the components, from the derivatives of the decoder.
    component_importance : How much each component explains.

    Notes
    -----
    Let J be the derivatives of a component with respect to the columns at a row, and S the
    covariance of the columns. The mean of J S J' over the rows is the variance that the component
    would have if it were linear around each row. For strongly nonlinear encoders, it can be several
    times the variance of the component. Correlated columns explain a part of it together. To divide
    it, each column is replaced by its uncorrelated counterpart, as in CAR scores [1]_: the share of
    a column is proportional to the mean of the squared entry of J S^(1/2), where S^(1/2) is the
    symmetric square root. Nearly equal columns thus have nearly equal shares. A column that does
    not vary has the share 0. As those of PCA, the shares depend on the units of the columns.
    Standardize columns with different units.

    For PCA's solution and its training rows, the shares are PCA's squared loadings,
    ``components_**2``. If a component depends on no column, the shares of the columns that vary are
    equal. The attributions of single rows are integrated gradients [2]_.

    If columns have several kinds, J and S are those of standardized cells (see `skae.metrics`), and
    the share of a category is the sum of those of its levels.

    References
    ----------
    .. [1] V. Zuber and K. Strimmer, "High-dimensional regression and variable selection using CAR
       scores", Statistical Applications in Genetics and Molecular Biology 10, 2011.
    .. [2] M. Sundararajan, A. Taly and Q. Yan, "Axiomatic attribution for deep networks", ICML
       2017.

    Examples
    --------
    The second component depends mainly on the width of the sepals.

    >>> from sklearn.datasets import load_iris
    >>> from skae import Autoencoder
    >>> from skae.metrics import feature_attribution
    >>> X = load_iris(as_frame=True).data
    >>> autoencoder = Autoencoder(2, hidden_layer_sizes=(), max_epochs=0).fit(X)
    >>> feature_attribution(autoencoder, X).round(2).idxmax(axis=1)["autoencoder1"]
    'sepal width (cm)'
    """
    autoencoder, rows, names = unpack_with_rows(estimator, X)
    components = autoencoder.get_feature_names_out()
    if per_row:
        attributions = autoencoder.integrated_gradients(rows)
        return tables_in_frame(X, components, attributions, names)
    shares = attribution_shares(autoencoder, rows)
    return table_in_frame(X, shares, ("component", components), names)


def loadings(estimator: BaseEstimator, X: ArrayLike, y: object = None) -> Any:
    """Compute how much each column changes with each component of the codes.

    Parameters
    ----------
    estimator : autoencoder, estimator that contains one, or Pipeline
        A fitted estimator, as for `feature_attribution`. The columns are those of the autoencoder's
        input, and so are their units.
    X : array-like of shape (n_samples, n_features)
        Rows in the user's units, at least two.
    y : None
        Ignored.

    Returns
    -------
    loadings : ndarray or data frame of shape (n_features, n_components)
        Mean derivative of the columns of the decoded rows with respect to the components, times the
        standard deviation of each component: the change of a column per standard deviation of a
        component, in the units of the column. If `X` is a data frame, it is one of the same
        library. That of pandas has the names of the columns as its index; those of other libraries
        have them in their first column, "feature". If columns have several kinds, a category has a
        row for each of its levels, with a name such as "job_clerk", and the columns of a condition
        have none.

    Raises
    ------
    TypeError
        If `estimator` contains no autoencoder of skae.
    NotFittedError
        If `estimator` is not fitted.
    ValueError
        If `X` is invalid or has a single row.

    See Also
    --------
    feature_attribution : What the components depend on, from the derivatives of the encoder.

    Notes
    -----
    For PCA's solution and its training rows, they are PCA's loadings [1]_,
    ``components_.T * sqrt(explained_variance_)``. If the columns are standardized, PCA's loadings
    are the correlations between columns and components.

    Those of a nonlinear decoder differ between rows, and positive and negative derivatives cancel
    in the mean. `skae.base.BaseAutoencoder.decoder_jacobian` computes the derivatives at each row.

    If columns have several kinds, loadings are in the units of standardized cells (see
    `skae.metrics`), so that those of different columns are comparable.

    References
    ----------
    .. [1] I. T. Jolliffe, "Principal component analysis", 2nd edition, Springer 2002.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skae import Autoencoder
    >>> from skae.metrics import loadings
    >>> X = load_iris(as_frame=True).data
    >>> autoencoder = Autoencoder(1, max_epochs=5, random_state=0).fit(X)
    >>> loadings(autoencoder, X)["autoencoder0"].abs().idxmax()
    'petal length (cm)'
    """
    autoencoder, rows, names = unpack_with_rows(estimator, X)
    names = comparable_cells(autoencoder, rows, names).names
    values, components = mean_loadings(autoencoder, rows), autoencoder.get_feature_names_out()
    return table_in_frame(X, values, ("feature", default_names(names, len(values))), components)


def component_importance(estimator: BaseEstimator, X: ArrayLike, y: object = None) -> Any:
    """Compute the share of the variance of rows that each component of the codes explains.

    It is the explained variance of the reconstructions minus that of reconstructions for which the
    component is set to its mean.

    Parameters
    ----------
    estimator : estimator or Pipeline
        A fitted estimator, as for `feature_attribution`, or any other estimator with the methods
        `transform` and `inverse_transform`, such as PCA. The reconstructions are compared with its
        input: that after the earlier steps of a Pipeline.
    X : array-like of shape (n_samples, n_features)
        Rows in the user's units.
    y : None
        Ignored.

    Returns
    -------
    importance : ndarray, Series or data frame of shape (n_components,)
        Share of each component, at most 1. It is negative if the reconstructions are better without
        the component. If `X` is a pandas DataFrame, it is a Series with the names of the
        components. If `X` is a data frame of another library, it is one with the columns
        "component" and "importance".

    Raises
    ------
    TypeError
        If the estimator does not have the required methods.
    NotFittedError
        If `estimator` is not fitted.
    ValueError
        If `X` is invalid.

    See Also
    --------
    explained_variance_ratio : Explained variance of all components together.

    Notes
    -----
    For PCA and its training rows, it is ``explained_variance_ratio_`` [1]_. If the decoder is
    nonlinear, the shares do not add up to the explained variance of all components, because the
    effect of one component may depend on the others. If columns have several kinds, the variance is
    that of standardized cells, as for `explained_variance_ratio`.

    References
    ----------
    .. [1] I. T. Jolliffe, "Principal component analysis", 2nd edition, Springer 2002.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.decomposition import PCA
    >>> from skae.metrics import component_importance
    >>> X = load_iris().data
    >>> pca = PCA(2).fit(X)
    >>> bool(np.allclose(component_importance(pca, X), pca.explained_variance_ratio_))
    True
    """
    last = _last_step(estimator)
    if hasattr(last, "reconstruct") or hasattr(last, "autoencoder"):
        autoencoder, rows, _ = unpack_with_rows(estimator, X)
        codes = np.asarray(autoencoder.transform(rows))
        rows, decode, *_ = comparable_cells(autoencoder, rows)
    else:
        _require(last, "transform", "inverse_transform")
        autoencoder, rows = last, apply_preprocessing(estimator, X)[0]
        codes, decode = np.asarray(autoencoder.transform(rows)), autoencoder.inverse_transform
    shares = importance(codes, decode, rows)
    names = autoencoder.get_feature_names_out()
    table = table_in_frame(X, shares[:, None], ("component", names), ["importance"])
    return table["importance"] if isinstance(X, pd.DataFrame) else table if is_frame(X) else shares


def active_units(
    estimator: BaseEstimator, X: ArrayLike, y: object = None, *, threshold: float = 0.01
) -> float:
    """Count the components of the code that vary between rows.

    A component that has the same value for all rows carries no information about them. Variational
    autoencoders stop using a component if it reduces the reconstruction error by less than it adds
    to the Kullback-Leibler divergence of the posterior from the prior. This is called posterior
    collapse.

    Parameters
    ----------
    estimator : estimator or Pipeline
        A fitted estimator with a method `transform`.
    X : array-like of shape (n_samples, n_features)
        Rows in the user's units.
    y : None
        Ignored.
    threshold : float, default=0.01
        Variance over the rows above which a component is active; non-negative. The notes define its
        unit. The default is the value of [1]_. The result rarely depends on the threshold, because
        most variances are far above or far below it.

    Returns
    -------
    score : float
        A whole number from 0 to the number of components. Greater means that more components are
        used.

    Raises
    ------
    ValueError
        If `threshold` is not a non-negative number, or if `X` is invalid.
    TypeError
        If the estimator has no method `transform`.
    NotFittedError
        If the estimator is not fitted.

    Notes
    -----
    Autoencoders with a method `posterior` regularize their codes towards the standard normal
    distribution. The variances of these codes are compared with `threshold` directly [1]_. This
    also applies to a Pipeline that ends with such an autoencoder, and to an estimator whose
    attribute `autoencoder_` is one. All other codes have arbitrary scales. Their variances are
    divided by the largest of them before the comparison.

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
    has_unit_scale = hasattr(getattr(last, "autoencoder_", last), "posterior")
    unit = 1.0 if has_unit_scale else variance.max()
    return float((variance > threshold * unit).sum())


def trustworthiness(
    estimator: BaseEstimator, X: ArrayLike, y: object = None, *, n_neighbors: int = 5
) -> float:
    """Compute to what extent rows with neighboring codes are neighbors themselves.

    Parameters
    ----------
    estimator : estimator or Pipeline
        A fitted estimator with a method `transform`.
    X : array-like of shape (n_samples, n_features)
        Rows in the user's units. Distances ignore missing cells (NaN), as those of
        `sklearn.metrics.pairwise.nan_euclidean_distances` do.
    y : None
        Ignored.
    n_neighbors : int, default=5
        Number of neighbors of each row, less than half the number of rows. The default is that of
        `sklearn.manifold.trustworthiness`.

    Returns
    -------
    score : float
        A number from 0 to 1; greater is better. It is 1 if each row has the same `n_neighbors`
        nearest neighbors by distances between codes as by distances between rows. It is about 0.5
        if the codes are random.

    Raises
    ------
    ValueError
        If `n_neighbors` is not a positive integer less than half the number of rows, or if `X` is
        invalid.
    TypeError
        If the estimator has no method `transform`.
    NotFittedError
        If the estimator is not fitted.

    See Also
    --------
    sklearn.manifold.trustworthiness : Computes the same measure from rows and codes, except for
        rows at equal distances. It needs memory for all pairwise distances.

    Notes
    -----
    The measure is that of [1]_. The neighbors of a row are the rows with the nearest codes. The
    rank of a neighbor is its place in the order of all other rows by their distance from the row.
    The score is 1 minus the scaled sum, over all rows and their neighbors, of the amounts by which
    ranks exceed `n_neighbors`. The scale is such that the smallest possible score is 0.

    Distances are Euclidean. They are computed for as many rows at a time as the setting
    `working_memory` of `sklearn.set_config` allows.

    If an autoencoder reads columns of several kinds or conditions that are texts, distances are
    those of the standardized cells of its modelled columns (see `skae.metrics`). Missing cells are
    then 0, as they are for the network. In a Pipeline, the rows are those after the earlier steps.

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
    if reads_numbers(_last_step(estimator)):
        rows = _flatten_rows(X)
    else:
        # As in the input of the encoder, missing cells have the means of their columns.
        autoencoder, rows, _ = unpack_with_rows(estimator, X)
        rows = np.nan_to_num(standardized_cells(autoencoder, rows).rows)
    n = len(rows)
    if n_neighbors >= n / 2:
        raise ValueError(
            f"n_neighbors ({n_neighbors}) should be less than n_samples / 2 ({n / 2})."
        )
    search = NearestNeighbors(n_neighbors=n_neighbors).fit(_codes(estimator, X))
    neighbors = search.kneighbors(return_distance=False)

    def excess_ranks(distance: Floats, start: int) -> NDArray[np.intp]:
        """Sum the excess ranks of the neighbors of each row in a chunk.

        `distance`, of shape (n_chunk, n_samples), holds the distances of the rows in the chunk from
        all rows. `start` is the index of the first row in the chunk. The result has the shape
        (n_chunk,).
        """
        index = np.arange(len(distance))
        distance[index, start + index] = np.inf
        excess = np.zeros(len(distance), dtype=np.intp)
        for neighbor in neighbors[start : start + len(distance)].T:
            nearer = (distance < distance[index, neighbor][:, None]).sum(axis=1)
            excess += np.maximum(nearer + 1 - n_neighbors, 0)
        return excess

    metric = "nan_euclidean" if np.isnan(rows).any() else "euclidean"
    chunks = pairwise_distances_chunked(rows, reduce_func=excess_ranks, metric=metric)
    excess = sum(chunk.sum() for chunk in chunks)
    return float(1 - 2 * excess / (n * n_neighbors * (2 * n - 3 * n_neighbors - 1)))


def probe_score(
    estimator: BaseEstimator,
    X: ArrayLike,
    y: ArrayLike | None = None,
    *,
    probe: BaseEstimator | None = None,
    cv: Any = FOLDS,
) -> float:
    """Compute how well a simple model, the probe, predicts targets from codes.

    The estimator is not changed. Only the probe is trained and scored, by cross-validation on the
    codes of `X`.

    Parameters
    ----------
    estimator : estimator or Pipeline
        A fitted estimator with a method `transform`.
    X : array-like of shape (n_samples, n_features)
        Rows in the user's units.
    y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        Classes or numbers to predict. They are required, and None raises a ValueError. The
        parameter has a default because scikit-learn calls scorers without `y` if a search is fitted
        without it.
    probe : classifier, regressor or None, default=None
        Model that predicts `y` from the codes. A clone of it is fitted for each split. If None, the
        codes are standardized, and the model is a logistic regression for classes and a ridge
        regression for numbers. The default models are linear, so that the score measures how well
        the targets can be read from the codes without a nonlinear transformation [1]_.
    cv : int, cross-validation generator or iterable, default=5
        Splits of the rows, as `sklearn.model_selection.cross_val_score` accepts them. An integer is
        the number of folds. The rows are then shuffled with a fixed seed, because many tables are
        sorted, and the folds are stratified if the probe is a classifier.

    Returns
    -------
    score : float
        Mean over the splits of the probe's own method `score`: the accuracy of a classifier, at
        most 1, or the R^2 of a regressor, at most 1 and possibly negative. Greater is better.

    Raises
    ------
    ValueError
        If `y` is None, if the rows cannot be split by `cv`, or if `probe` is None and there is no
        default probe for `y`, as for several columns of classes. Errors of the probe are raised as
        well.
    TypeError
        If the estimator has no method `transform`.
    NotFittedError
        If the estimator is not fitted.

    Notes
    -----
    If `probe` is None, `sklearn.utils.multiclass.type_of_target` decides whether `y` holds classes.
    Whole numbers, strings and booleans are classes. There is one exception: floats without a
    fractional part, such as 3.0, are numbers if they have more than 20 distinct values. If other
    whole numbers are quantities, pass a regressor as `probe`.

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
            "probe_score requires y, the targets to predict from the codes, got None. Pass y to "
            "cross_val_score or to the fit of the search."
        )
    if probe is None:
        kind = type_of_target(y, input_name="y")
        if (
            kind == "multiclass"
            and np.asarray(y).dtype.kind == "f"
            and len(np.unique(y)) > MAX_FLOAT_CLASSES
        ):
            kind = "continuous"
        if kind in ("binary", "multiclass"):
            probe = PROBES["linear"]()
        elif kind in ("continuous", "continuous-multioutput"):
            probe = make_pipeline(StandardScaler(), Ridge())
        else:
            raise ValueError(
                f"probe must be a classifier or a regressor if y is of type {kind!r}, got None."
            )
    if isinstance(cv, Integral):
        # Many tables are sorted. Folds of consecutive rows would then differ systematically.
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
    """Compute how similar the codes of the same rows are if the estimator is fitted repeatedly.

    A random quarter of the rows of `X` is held out. The other rows are the training rows. Clones of
    the estimator are fitted to all of them, or to parts of them if `over="folds"`. The codes that
    the clones compute for the held-out rows are compared. The estimator itself need not be fitted
    and is not changed.

    Parameters
    ----------
    estimator : estimator or Pipeline
        An estimator with the methods `fit` and `transform`. Clones of it are fitted.
    X : array-like of shape (n_samples, n_features)
        At least 9 rows in the user's units.
    y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
        Targets of the rows. Those of the training rows are passed to `fit`. If None, `fit` receives
        None.
    over : {"seeds", "folds"}, default="seeds"
        What differs between the clones:

        - "seeds": each clone has its own seed. All clones are fitted to all training rows.
        - "folds": the training rows are divided into `n_repeats` folds. Each clone is fitted to all
          folds except one, and each clone leaves out a different fold. All clones have the same
          seed.

        A seed is set as the parameter `random_state` of the clone and of all estimators nested in
        it.
    n_repeats : int, default=3
        Number of clones, at least 2. The time of a call is proportional to it. With the default,
        the score is the mean of three pairs of clones.
    random_state : int, RandomState instance or None, default=0
        Determines the held-out rows, the folds and the seeds. It is fixed by default, so that all
        candidates of a search such as `GridSearchCV` are compared on the same rows.

    Returns
    -------
    score : float
        Mean similarity of all pairs of clones, from 0 to 1; greater is better. It is 1 if the codes
        are equal up to a rotation, a reflection, a translation and a scale that is common to all
        components. The similarity of a pair is 0 if one of the clones has the same code for all
        held-out rows.

    Raises
    ------
    ValueError
        If `over`, `n_repeats` or `random_state` is invalid, if `X` has fewer than 9 rows, or if
        `over="folds"` and there are fewer training rows than folds. Errors of `fit` are raised as
        well.
    TypeError
        If the estimator has no method `transform`.

    Notes
    -----
    The codes of two clones are compared by linear centered kernel alignment (CKA) [1]_. It weights
    each direction in the space of codes in proportion to its variance. The similarity of
    independent codes is slightly above 0. If k components have equal variances and n rows are
    compared, it is about k / n.

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
    >>> X = load_wine().data
    >>> model = make_pipeline(StandardScaler(), PCA(2))
    >>> code_stability(model, X) > 0.999
    True
    >>> 0.9 < code_stability(model, X, over="folds") < 0.999
    True
    """
    _validate("code_stability", over=over, n_repeats=n_repeats, random_state=random_state)
    rng = check_random_state(random_state)
    train, test = next(ShuffleSplit(1, test_size=0.25, random_state=rng).split(X))
    if len(test) < MIN_COMPARED_ROWS:
        raise ValueError(
            f"X must have at least {4 * MIN_COMPARED_ROWS - 3} rows, since the codes of a quarter "
            f"of them are compared, got {len(train) + len(test)}."
        )
    seeds, parts = rng.randint(MAX_SEED, size=n_repeats).tolist(), [train] * n_repeats
    if over == "folds":
        folds = KFold(n_repeats, shuffle=True, random_state=rng)
        seeds, parts = seeds[:1] * n_repeats, [train[kept] for kept, _ in folds.split(train)]
    codes = []
    for seed, part in zip(seeds, parts, strict=True):
        model = _clone_with_seed(estimator, seed)
        model.fit(safe_indexing(X, part), None if y is None else safe_indexing(y, part))
        codes.append(_codes(model, safe_indexing(X, test)))
    return float(np.mean([_linear_cka(A, B) for A, B in combinations(codes, 2)]))


def two_sample_auc(
    X: ArrayLike,
    samples: ArrayLike,
    *,
    classifier: BaseEstimator | None = None,
    random_state: int | RandomState | None = 0,
) -> float:
    """Compute how well a classifier distinguishes real rows from samples of a generator.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        At least 5 real rows, preferably rows that the generator was not trained on. Missing cells
        are allowed here and in `samples` if the classifier accepts them, as the default does.
    samples : array-like of shape (n_draws, n_features)
        At least 5 rows drawn from the generator. Their number may differ from that of `X`.
    classifier : classifier or None, default=None
        Model that distinguishes the two tables, with a method `predict_proba` or
        `decision_function`. Clones of it are fitted. If None, it is a random forest, because a
        forest does not depend on the units of the columns and finds nonlinear differences. If
        columns hold categories or dates, it is a HistGradientBoostingClassifier instead, and a
        classifier receives a pandas DataFrame, in which categories have the dtype "category". The
        frame has the names of columns that `X` has, and whole numbers in place of the categories.
    random_state : int, RandomState instance or None, default=0
        Determines the folds and the random numbers of the default classifier. It is fixed by
        default, so that all generators are compared by the same test.

    Returns
    -------
    auc : float
        Area under the ROC curve, from 0 to 1: the mean over 5 cross-validation folds. It is about
        0.5, the best value, if the classifier cannot distinguish the two tables, and 1 if it
        distinguishes them perfectly. It is clearly below 0.5 if the samples are copies of rows of
        `X`, because a row and its copy have opposite labels.

    Raises
    ------
    ValueError
        If a table is invalid, if the tables have different columns, if one of them has fewer than 5
        rows, or if `classifier` or `random_state` is invalid. Errors of the classifier
        are raised as well.

    See Also
    --------
    neg_two_sample_auc : Scorer of fitted generators by the same test.

    Notes
    -----
    This is a classifier two-sample test [1]_ with the area under the ROC curve in place of the
    accuracy. Unlike the accuracy, the area does not depend on how many of the rows are real.

    In tables with categories or dates, the kinds of columns are those of `X`. Categories that only
    `samples` contain count as one category, and so do the rarest of more than 254 categories. For a
    column of numbers with missing cells and fewer than 20 observed ones, the classifier only
    receives which cells are missing.

    References
    ----------
    .. [1] D. Lopez-Paz and M. Oquab, "Revisiting classifier two-sample tests", ICLR 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from skae.metrics import two_sample_auc
    >>> X, samples = np.random.default_rng(0).normal(size=(2, 200, 3))
    >>> bool(two_sample_auc(X, samples) < 0.6)
    True
    >>> bool(two_sample_auc(X, samples + 3) > 0.9)
    True
    """
    _validate("two_sample_auc", classifier=classifier, random_state=random_state)
    has_numbers = holds_numbers(X) and holds_numbers(samples)
    if has_numbers:
        real, drawn = _flatten_rows(X), _flatten_rows(samples, "samples")
    else:
        real, drawn = (validate_container(table, "two_sample_auc") for table in (X, samples))
    if real.shape[1] != drawn.shape[1]:
        raise ValueError(
            f"samples must have the columns of X: samples has {drawn.shape[1]} columns, but X has "
            f"{real.shape[1]}."
        )
    if min(len(real), len(drawn)) < FOLDS:
        raise ValueError(
            f"X and samples must have at least {FOLDS} rows each, one for each fold, got "
            f"{len(real)} and {len(drawn)}."
        )
    if classifier is None:
        classifier = PROBES["forest"]() if has_numbers else HistGradientBoostingClassifier()
        classifier.set_params(random_state=random_state)
    rows = np.vstack([real, drawn]) if has_numbers else _joined_frame(real, drawn)
    is_real = np.repeat([1, 0], [len(real), len(drawn)])
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=random_state)
    options = {"cv": folds, "scoring": "roc_auc", "error_score": "raise"}
    return float(cross_val_score(classifier, rows, is_real, **options).mean())


def neg_two_sample_auc(
    estimator: BaseEstimator,
    X: ArrayLike,
    y: object = None,
    *,
    classifier: BaseEstimator | None = None,
    random_state: int | RandomState | None = 0,
) -> float:
    """Compute minus `two_sample_auc` of rows that a fitted estimator draws.

    Parameters
    ----------
    estimator : estimator or Pipeline
        A fitted estimator with a method `sample` that accepts a number of rows and `random_state`,
        or a fitted Pipeline that ends with one. The earlier steps of a Pipeline need a method
        `inverse_transform`, which converts the samples to the units of `X`.
    X : array-like of shape (n_samples, n_features)
        At least 5 real rows in the user's units. As many rows are drawn from the estimator.
    y : None
        Ignored.
    classifier : classifier or None, default=None
        Model that distinguishes real rows from samples. Clones of it are fitted. If None, it is
        that of `two_sample_auc`.
    random_state : int, RandomState instance or None, default=0
        Determines the samples, the folds and the random numbers of the default classifier. It is
        fixed by default, so that all candidates of a search are compared by the same test.

    Returns
    -------
    score : float
        Minus the area under the ROC curve, from -1 to 0. It is about -0.5 if the classifier cannot
        distinguish samples from real rows, and -1 if it distinguishes them perfectly. Greater is
        better up to -0.5. A score clearly above -0.5 indicates copies of rows of `X`.

    Raises
    ------
    TypeError
        If the estimator has no method `sample`.
    NotFittedError
        If the estimator is not fitted.
    ValueError
        If `X` is invalid or has fewer than 5 rows, or if `classifier` or `random_state` is invalid.
        Errors of the classifier are raised as well.

    See Also
    --------
    two_sample_auc : Compares any two tables.

    Notes
    -----
    The test is that of [1]_, with the area under the ROC curve in place of the accuracy. `X` should
    hold rows that the estimator was not fitted to, as in cross-validation. Otherwise an estimator
    that only draws copies of its training rows has a score above -0.5.

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
    _validate("neg_two_sample_auc", random_state=random_state)
    rng = check_random_state(random_state)
    n = len(_flatten_rows(X) if holds_numbers(X) else as_container(X))
    samples = _draws(estimator, n, rng)
    return -two_sample_auc(X, samples, classifier=classifier, random_state=rng)


def _validate(metric: str, **parameters: object) -> None:
    """Raise InvalidParameterError if a parameter of a metric is invalid."""
    check_parameters(CONSTRAINTS, parameters, metric)


def _flatten_rows(X: ArrayLike, name: str = "X") -> Floats:
    """Validate X, of shape (n_samples, ...), and flatten it to (n_samples, n_features)."""
    try:
        rows = check_array(
            as_padded(X),
            dtype=np.float64,
            ensure_all_finite="allow-nan",
            allow_nd=True,
            input_name=name,
        )
    except (ValueError, TypeError) as error:
        if holds_numbers(X):
            raise
        raise ValueError(
            f"{name} must contain numbers, unless it is the input of an autoencoder: {error} "
            "Encode other columns as numbers, or pass the autoencoder and its input."
        ) from None
    return rows.reshape(len(rows), -1)


def _joined_frame(X: Any, samples: Any) -> pd.DataFrame:
    """Return the rows of two tables with columns of several kinds, as numbers and categories.

    The kinds of the columns are those of `X`. Dates and durations are numbers, and categories have
    codes.
    """
    labels = [[*getattr(table, "columns", [])] for table in (X, samples)]
    if all(labels) and labels[0] != labels[1]:
        raise ValueError("samples must have the columns of X, in the same order.")
    categories, columns = Categories(max_categories=MAX_LEVELS - 1), {}
    for j in range(X.shape[1]):
        label = str(labels[0][j] if labels[0] else j)
        column = Column.infer(X, j, label, categories)
        try:
            drawn = Column.infer(samples, j, label, categories)
            cells = np.concatenate([column.encode(table, j) for table in (X, samples)])
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"samples must have the kinds of columns that X has, which column {label!r} has "
                f"not: {error}"
            ) from None
        missing = np.isnan(cells)
        if column.is_category:
            # Categories that only the samples contain have one further level.
            unknown = missing[len(X) :] & ~np.isnan(drawn.encode(samples, j))
            cells[len(X) :][unknown] = column.n_levels
            levels = np.nan_to_num(cells, nan=-1).astype(np.intp)
            cells = pd.Categorical.from_codes(levels, range(column.n_levels + 1))
        elif missing.any() and (~missing).sum() < MIN_OBSERVED:
            # Boosted trees fail if all cells of a column are missing in the rows of a fold.
            cells = missing.astype(np.float64)
        columns[labels[0][j] if labels[0] else j] = cells
    return pd.DataFrame(columns)


def _codes(estimator: BaseEstimator, X: ArrayLike) -> NDArray[Any]:
    """Compute the codes of rows, of shape (n_samples, n_components)."""
    _require(estimator, "transform")
    codes = np.asarray(estimator.transform(X))
    if codes.dtype.kind not in "biuf":
        raise ValueError(
            f"The method transform of {type(estimator).__name__} must return codes, which are "
            f"numbers, got values of dtype {codes.dtype}."
        )
    return codes


def _reconstructions(estimator: BaseEstimator, X: ArrayLike) -> NDArray[Any]:
    """Compute the reconstructions of rows, in the shape that the estimator returns."""
    if isinstance(estimator, Pipeline) and hasattr(_last_step(estimator), "reconstruct"):
        # Unlike `inverse_transform`, `reconstruct` knows the conditions of the rows.
        if len(estimator) == 1:
            return _reconstructions(estimator[-1], X)
        earlier = estimator[:-1]
        _require(earlier, "inverse_transform")
        reconstructed = _reconstructions(estimator[-1], earlier.transform(X))
        return np.asarray(earlier.inverse_transform(reconstructed))
    if hasattr(estimator, "reconstruct"):
        return np.asarray(estimator.reconstruct(X))
    _require(estimator, "transform", "inverse_transform")
    return np.asarray(estimator.inverse_transform(estimator.transform(X)))


def _draws(estimator: BaseEstimator, n: int, random_state: RandomState) -> ArrayLike:
    """Draw `n` rows from an estimator or the last step of a Pipeline, in the units of its input."""
    if not isinstance(estimator, Pipeline):
        _require(estimator, "sample")
        return estimator.sample(n, random_state=random_state)
    samples = _draws(estimator[-1], n, random_state)
    return estimator[:-1].inverse_transform(samples) if len(estimator) > 1 else samples


def _require(estimator: BaseEstimator, *methods: str) -> None:
    """Raise TypeError if an estimator lacks one of the methods."""
    for method in methods:
        if not hasattr(estimator, method):
            raise TypeError(
                f"estimator must have a method {method!r}, but {type(estimator).__name__} has none."
            )


def _last_step(estimator: BaseEstimator) -> BaseEstimator:
    """Return the last step of a Pipeline, which may be nested, or the estimator itself."""
    return _last_step(estimator[-1]) if isinstance(estimator, Pipeline) else estimator


def _clone_with_seed(estimator: BaseEstimator, seed: int) -> BaseEstimator:
    """Clone an estimator and set each `random_state`, including nested ones, to `seed`."""
    copy = clone(estimator)
    names = [name for name in copy.get_params() if name.split("__")[-1] == "random_state"]
    return copy.set_params(**dict.fromkeys(names, seed))


def _linear_cka(A: NDArray[Any], B: NDArray[Any]) -> float:
    """Compute the linear centered kernel alignment of two tables of codes of the same rows.

    The codes have the shape (n_samples, n_components). The numbers of components may differ.
    """
    A, B = _center(A), _center(B)
    norm = np.linalg.norm(A.T @ A) * np.linalg.norm(B.T @ B)
    return min(1.0, float(np.linalg.norm(A.T @ B) ** 2 / norm)) if norm else 0.0


def _center(codes: NDArray[Any]) -> Floats:
    """Subtract the mean of each component."""
    # Subtracting the first row makes constant components exactly 0 before means are rounded.
    codes = codes.astype(np.float64) - codes[:1]
    return codes - codes.mean(axis=0)
