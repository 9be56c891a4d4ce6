"""The detector: whom it calls an outlier, how sure, and why."""

import copy
import pickle
import tracemalloc
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils import get_tags
from test_common import public_estimators

import skae
from skae import Autoencoder, AutoencoderOutlierDetector, OutlierExplanationDisplay, files
from skae.base import BaseAutoencoder
from skae.state import KIND
from skae.table import rows as table_rows
from skae.table import seen
from skae.table.selection import Selection
from skae.tasks.outlier_scores import SCORES
from skae.tasks.units import Units

pytestmark = pytest.mark.xdist_group("outlier")  # they share a fit

CANCER = load_breast_cancer(as_frame=True).data
EPSILON = float(np.finfo(np.float64).eps)
FAST = {"max_epochs": 5, "hidden_layer_sizes": (8,)}
LINEAR = Autoencoder(2, hidden_layer_sizes=(), max_epochs=0, early_stopping=False)
"""One whose fit is not random: PCA."""

AUTOENCODERS = [
    c
    for c in public_estimators()
    if issubclass(c, BaseAutoencoder) and not get_tags(c()).target_tags.required
]


def surface(n=300, n_outliers=15, seed=0):
    """Rows of 8 columns around a surface of two dimensions, and outliers that leave it."""
    rng = np.random.default_rng(seed)
    X = np.tanh(rng.normal(size=(n, 2)) @ rng.normal(size=(2, 16))) @ rng.normal(size=(16, 8))
    X += 0.05 * rng.normal(size=X.shape)
    y = np.arange(n) < n_outliers
    # Each column keeps its values; only their company changes.
    X[y] = np.column_stack([rng.permutation(column)[:n_outliers] for column in X.T])
    return X, y


def detector(**parameters):
    return AutoencoderOutlierDetector(random_state=0, **parameters)


@pytest.fixture(scope="module")
def fitted():
    return detector().fit(surface()[0])


# ----------------------------------------------------------------------------- the answers


def test_answers_agree(fitted):
    X, _ = surface()
    scores = fitted.score_samples(X)
    np.testing.assert_array_equal(fitted.decision_function(X), scores - fitted.offset_)
    np.testing.assert_array_equal(fitted.predict(X), np.where(scores < fitted.offset_, -1, 1))
    np.testing.assert_array_equal(detector().fit_predict(X), fitted.predict(X))


def test_outliers_are_found_that_no_column_shows(fitted):
    X, y = surface()
    assert roc_auc_score(y, -fitted.score_samples(X)) > 0.95


def test_trimming_keeps_a_cluster_of_outliers_from_being_learnt():
    X = load_digits().data
    y = load_digits().target
    rows = np.r_[X[y == 3], X[y == 0][:20]]
    is_zero = np.arange(len(rows)) >= (y == 3).sum()
    auc = [
        roc_auc_score(
            is_zero, -detector(trim=trim, criterion="reconstruction").fit(rows).score_samples(rows)
        )
        for trim in (0.3, 0.0)
    ]
    assert auc[0] > 0.95
    assert auc[0] > auc[1]


def test_novelty():
    """Trained on normal rows, `auto` measures distances from them."""
    X, y = load_digits(return_X_y=True)
    normal = X[y == 3]
    clean = detector(trim=0).fit(normal[::2])
    assert type(clean._fitted.score) is SCORES["neighbors"]
    rows = np.r_[normal[1::2], X[y != 3]]
    auc = roc_auc_score(np.arange(len(rows)) >= len(normal[1::2]), -clean.score_samples(rows))
    assert auc > 0.9


@pytest.mark.parametrize("contamination", [0.01, 0.1, 0.5])
def test_contamination_is_the_share_of_training_rows(contamination):
    X, _ = surface()
    found = detector(contamination=contamination).fit_predict(X) == -1
    assert found.mean() == pytest.approx(contamination, abs=1 / len(X))


@pytest.mark.parametrize("trim", [0.0, 0.3])
def test_the_automatic_threshold_leaves_normal_rows_alone(trim):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2000, 3)) @ rng.normal(size=(3, 10)) + 0.3 * rng.normal(size=(2000, 10))
    found = detector(trim=trim).fit(X[:1000])
    assert (found.predict(X[1000:]) == -1).mean() < 0.08
    assert (found.predict(X[1000:] + 5 * rng.normal(size=(1000, 10))) == -1).mean() > 0.9


@pytest.mark.parametrize("trim", [0.0, 0.3])
def test_the_automatic_threshold_suits_new_rows_of_wide_tables(trim):
    """Training rows are no nearer to their reference points than new rows are."""
    share = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        X = rng.normal(size=(600, 5)) @ rng.normal(size=(5, 30)) + 0.3 * rng.normal(size=(600, 30))
        share.append((detector(trim=trim).fit(X[:100]).predict(X[100:]) == -1).mean())
    assert np.mean(share) < 0.12


@pytest.mark.parametrize("criterion", SCORES)
def test_repeating_is_weighting(criterion):
    X, _ = surface(120, 5)
    count = np.arange(120) % 3
    autoencoder = Autoencoder(2, **FAST)
    weighted = detector(
        autoencoder=autoencoder, criterion=criterion, contamination=0.2, calibration_fraction=0.3
    )
    repeated = clone(weighted).fit(np.repeat(X, count, axis=0))
    weighted.fit(X, sample_weight=count)
    np.testing.assert_array_equal(weighted.score_samples(X), repeated.score_samples(X))
    np.testing.assert_array_equal(weighted.predict(X), repeated.predict(X))
    np.testing.assert_array_equal(weighted.p_values(X), repeated.p_values(X))


def test_a_repeated_outlier_does_not_vouch_for_itself():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 4))
    X[0] = 30
    for count in (1, 2, 5):
        found = detector(trim=0).fit(X, sample_weight=np.r_[count, np.ones(199)])
        assert found.score_samples(X).argmin() == 0


def test_a_row_that_is_often_repeated_hides_no_others():
    X, y = surface()
    often = np.where(np.arange(len(X)) == 200, 150, 1)
    scores = -detector().fit(X, sample_weight=often).score_samples(X)
    assert roc_auc_score(y, scores) > 0.9


def test_the_order_of_rows_does_not_matter(fitted):
    X, _ = surface()
    again = detector().fit(X[::-1])
    np.testing.assert_allclose(again.score_samples(X), fitted.score_samples(X), rtol=1e-6)


# ----------------------------------------------------------------------------------- units


SCALE, SHIFT = 10.0 ** np.array([-3, 3, 0, -6, 6, 2, -1, 1]), np.arange(8.0) - 3
CHANGES = {
    "thousandths": (1000.0, 0.0),
    "thousands": (0.001, 0.0),
    "shifted": (1.0, 7.0),
    "of each column": (SCALE, SHIFT),
}
"""Affine changes of the units of columns: a factor and a summand."""


def partly_constant():
    """Rows with constant columns, and new rows, some of which have other values there."""
    X = surface(200)[0]
    X[:, 2], X[:, 5], X[:, 6] = 2.0, 0.0, 0.1
    new = X[:40].copy()
    new[:10, 2], new[10:20, 5], new[20:30, 6] = 4.0, 1e-3, 0.3
    return X, new


def everything(found, X):
    """The answers of a detector, in the units that do not depend on those of the columns."""
    parts = found.explain(X)
    return {
        "decision": found.decision_function(X),
        "p": found.p_values(X),
        "deviation": parts["deviation"].to_numpy(),
        "share": parts["share"].to_numpy(),
    }, parts["expected"].to_numpy()


@pytest.mark.parametrize(
    ("autoencoder", "change"),
    [
        *(pytest.param(LINEAR, change, id=f"linear, {change}") for change in CHANGES),
        pytest.param(None, "of each column", id="default"),
    ],
)
@pytest.mark.parametrize("criterion", SCORES)
def test_answers_do_not_depend_on_units(criterion, change, autoencoder):
    X, new = partly_constant()
    factor, summand = CHANGES[change]
    plain, changed = (
        detector(criterion=criterion, autoencoder=autoencoder, calibration_fraction=0.3)
        for _ in range(2)
    )
    plain.fit(X)
    changed.fit(X * factor + summand)
    rows = np.r_[X, new]
    answers, expected = everything(plain, rows)
    in_other_units, expected_in_other_units = everything(changed, rows * factor + summand)
    for name, values in answers.items():
        np.testing.assert_allclose(in_other_units[name], values, rtol=1e-4, atol=3e-4, err_msg=name)
    np.testing.assert_array_equal(changed.predict(rows * factor + summand), plain.predict(rows))
    np.testing.assert_allclose(
        (expected_in_other_units - summand) / factor, expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("criterion", SCORES)
@pytest.mark.parametrize("n_columns", [2, 8, 300])
def test_a_new_value_in_a_constant_column_is_an_outlier(criterion, n_columns):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 2)) @ rng.normal(size=(2, n_columns))
    X += 0.3 * rng.normal(size=X.shape)
    X[:, 1] = 2.0
    found = detector(criterion=criterion, autoencoder=Autoencoder(1, **FAST)).fit(X)
    assert (found.predict(X) == 1).mean() > 0.8
    for value in (4.0, 2.001, -1e9, 2e9):
        new = X.copy()
        new[:, 1] = value
        assert (found.predict(new) == -1).all()
        why = found.explain(new)
        assert np.isfinite(why).all(axis=None)
        np.testing.assert_array_equal(why["expected"]["x1"], 2.0)
        assert (np.sign(why["deviation"]["x1"]) == np.sign(value - 2)).all()
        assert (why["share"].idxmax(axis=1) == "x1").all()


@pytest.mark.parametrize("criterion", SCORES)
@pytest.mark.parametrize("constant", [0.3, -1e9 / 7, 1e-9 / 3])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_rounding_errors_in_a_constant_column_are_ignored(criterion, constant, dtype):
    X, is_constant = surface(100)[0].astype(dtype), np.arange(8) == 2
    above, below = (np.nextafter(dtype(constant), dtype(side)) for side in (np.inf, -np.inf))
    train = np.where(is_constant & (np.arange(100) % 3 == 0)[:, None], above, X).astype(dtype)
    train[:, 2] = np.where(np.arange(100) % 3, constant, above)
    found = detector(criterion=criterion, autoencoder=LINEAR).fit(train)
    expected = found.decision_function(np.where(is_constant, dtype(constant), X))
    for cell in (above, below):
        moved = np.where(is_constant, cell, X)
        np.testing.assert_array_equal(found.decision_function(moved), expected)
    # Rows of the other precision differ by the rounding of their conversion.
    other = np.float32 if dtype is np.float64 else np.float64
    converted = np.where(is_constant, other(constant), X.astype(other))
    np.testing.assert_allclose(found.decision_function(converted), expected, rtol=1e-3, atol=1e-3)
    changed = found.decision_function(np.where(is_constant, dtype(1.01 * constant), X))
    assert (changed < expected - 1).all()


def test_a_frozen_autoencoder_expects_constants():
    """The constants are exact, although the autoencoder reconstructs them imperfectly."""
    X, new = partly_constant()
    autoencoder = Autoencoder(2, random_state=0, linear_skip=False, **FAST).fit(X)
    assert not np.allclose(autoencoder.reconstruct(X)[:, 2], 2.0)
    found = AutoencoderOutlierDetector(FrozenEstimator(autoencoder)).fit(X)
    np.testing.assert_array_equal(
        found.explain(X)["expected"][["x2", "x5", "x6"]].iloc[0], X[0, [2, 5, 6]]
    )
    assert (found.predict(new)[:30] == -1).all()


def test_the_density_is_one_in_the_users_units():
    X, _ = surface(100)
    nats = detector(criterion="density", autoencoder=LINEAR).fit(X).score_samples(X)
    scaled = detector(criterion="density", autoencoder=LINEAR).fit(8 * X).score_samples(8 * X)
    np.testing.assert_allclose(scaled, nats - X.shape[1] * np.log(8), rtol=1e-6)


def test_a_gross_error_does_not_hide_the_rest():
    X, y = surface()
    wrong = X.copy()
    wrong[100, 2] = 1e9
    scores = -detector().fit(wrong).score_samples(wrong)
    assert scores.argmax() == 100
    rest = np.arange(len(X)) != 100
    assert roc_auc_score(y[rest], scores[rest]) > 0.95


def robust_units(X):
    """Robust units of columns of numbers."""
    is_number = np.ones(X.shape[1], dtype=bool)
    return Units.from_rows(Selection.all(X), np.ones(len(X)), EPSILON, is_number)


def test_units_are_the_standard_deviation_without_outliers():
    X = np.random.default_rng(0).normal(5, 2, size=(10_000, 1))
    units = robust_units(X)
    assert units.center == pytest.approx(np.median(X))
    assert units.scale == pytest.approx(X.std())
    np.testing.assert_allclose(units.to_user(units.to_network(X)), X, atol=1e-6)
    X[:10] = 1e6
    assert robust_units(X).scale == pytest.approx(2, rel=0.2)


def test_a_column_of_mostly_one_value_has_units():
    X = np.zeros((1000, 1))
    X[:50] = 3.0
    assert robust_units(X).scale == pytest.approx(X.std())
    X[0] = 1e9
    assert robust_units(X).scale < 10


# ---------------------------------------------------------------------------------- memory


def peak_bytes(function, *arguments):
    """The largest memory of numpy's arrays and other objects during a call."""
    tracemalloc.start()
    try:
        function(*arguments)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_weights", [1, 3])
def test_memory_is_a_small_multiple_of_the_table(n_weights, dtype, monkeypatch):
    monkeypatch.setattr(table_rows, "CHUNK_CELLS", 2**14)
    monkeypatch.setattr(seen, "SAMPLE_CELLS", 2**14)
    # So many columns have no covariance matrix, which does not depend on the number of rows.
    X = np.random.default_rng(0).normal(size=(2000, 520)).astype(dtype)
    weight = np.arange(2000) % n_weights + 1.0
    found = detector(autoencoder=LINEAR).fit(X[:50])  # The first fit also loads modules.
    assert peak_bytes(found.fit, X, None, weight) < 3 * X.nbytes
    assert peak_bytes(found.score_samples, X) < X.nbytes / 2
    assert peak_bytes(found.explain, X) < 3 * X.size * 8 + X.nbytes / 2


@pytest.mark.parametrize("criterion", SCORES)
def test_answers_do_not_depend_on_the_size_of_blocks(criterion, monkeypatch):
    X, _ = surface()
    answers = []
    for n_cells in (2**18, 97):
        monkeypatch.setattr(table_rows, "CHUNK_CELLS", n_cells)
        found = detector(autoencoder=LINEAR, criterion=criterion, calibration_fraction=0.3).fit(X)
        answers.append(everything(found, X))
    (first, expected), (second, expected_in_blocks) = answers
    for name, values in first.items():
        np.testing.assert_allclose(second[name], values, rtol=1e-9, atol=1e-9, err_msg=name)
    np.testing.assert_allclose(expected_in_blocks, expected, rtol=1e-9)


@pytest.mark.parametrize("criterion", SCORES)
def test_large_tables_of_either_dtype_have_the_same_answers(criterion):
    """Numbers for all cells of large float32 tables are stored in float32."""
    rng = np.random.default_rng(0)
    X = surface(1000)[0] @ rng.normal(size=(8, 300)) + 0.3 * rng.normal(size=(1000, 300))
    single = X.astype(np.float32)
    single[0, 0] = 3e30  # Its residual in robust units is larger still.
    answers = [
        detector(autoencoder=LINEAR, criterion=criterion).fit(rows).score_samples(rows)
        for rows in (single, single.astype(np.float64))
    ]
    np.testing.assert_allclose(*answers, rtol=1e-4, atol=1e-4)


# -------------------------------------------------------------------------------- p-values


@pytest.mark.slow
def test_false_alarms_are_as_frequent_as_said():
    """On rows like those of training, 5 % have a p-value of at most .05."""
    shares = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        X = rng.normal(size=(2100, 3)) @ rng.normal(size=(3, 8)) + 0.3 * rng.normal(size=(2100, 8))
        small = detector(calibration_fraction=0.5).fit(X[:1050])
        assert small.n_calibration_rows_ >= 500
        shares.append((small.p_values(X[1050:]) <= 0.05).mean())
    assert np.mean(shares) == pytest.approx(0.05, abs=0.015)


def test_p_values_count_calibration_rows_that_are_as_strange():
    X, y = surface()
    calibrated = detector(calibration_fraction=0.3).fit(X)
    assert calibrated.n_calibration_rows_ == 90
    p = calibrated.p_values(X)
    strangeness = -calibrated.score_samples(X)
    # The rows set aside are those whose p-values step by 1 / 91 from one to the next.
    expected = [(1 + (calibrated._fitted.calibration >= s - 1e-5).sum()) / 91 for s in strangeness]
    np.testing.assert_allclose(p, expected)
    assert p[y].mean() < 0.1


def test_p_values_do_not_depend_on_what_else_is_asked():
    X = np.random.default_rng(0).integers(0, 3, size=(200, 3)).astype(float)
    calibrated = detector(calibration_fraction=0.8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        p = calibrated.fit(X).p_values(X)
        alone = [calibrated.p_values(row[None])[0] for row in X]
    np.testing.assert_array_equal(p, alone)


def test_rows_of_unequal_weight_count_less():
    """As many as their effective number: two equal weights and eight of nothing are two rows."""
    X, _ = surface(200)
    equal, unequal = (
        detector(calibration_fraction=0.4).fit(X, sample_weight=weight)
        for weight in (np.full(200, 7.0), np.random.default_rng(0).lognormal(0, 1, 200))
    )
    assert equal.p_values(100 * X).min() == pytest.approx(1 / 81)
    assert 1 / 60 < unequal.p_values(100 * X).min() < 1 / 20


def test_rows_set_aside_do_not_train():
    X, _ = surface(100)
    first = detector(calibration_fraction=0.3).fit(X)
    gap = abs(-first.score_samples(X)[:, None] - first._fitted.calibration).min(axis=1)
    rest = X[gap > 1e-9]
    assert len(rest) == 70
    second = detector().fit(rest)
    np.testing.assert_allclose(first.score_samples(X), second.score_samples(X), rtol=1e-9)
    assert first.offset_ == pytest.approx(second.offset_, rel=1e-9)


def test_none_are_set_aside_unless_asked(fitted):
    assert fitted.n_calibration_rows_ == 0
    with pytest.raises(ValueError, match="Set calibration_fraction"):
        fitted.p_values(surface()[0])


def test_few_calibration_rows_are_said():
    X, _ = surface(60, 3)
    few = detector(calibration_fraction=0.3)
    message = r"Only 18 calibration rows.*0.0526.*calibration_fraction"
    with pytest.warns(UserWarning, match=message) as at_fit:
        few.fit(X)
    with pytest.warns(UserWarning, match=message) as later:
        assert few.p_values(X).min() >= 1 / 19
    with pytest.warns(UserWarning, match=message) as in_pipeline:
        make_pipeline(MinMaxScaler(), few).fit(X)
    said = (*at_fit, *later, *in_pipeline)
    assert [warning.filename for warning in said] == [__file__] * 3
    with pytest.raises(ValueError, match=r"calibration_fraction=0.5 leaves fewer than 2 rows"):
        detector(calibration_fraction=0.5).fit(X[:2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        detector(calibration_fraction=1 / 3).fit(X)


# -------------------------------------------------------------------------------- explain


@pytest.mark.parametrize("criterion", ["auto", "density"])
def test_altered_cells_are_found(criterion):
    rng = np.random.default_rng(0)
    X = CANCER.to_numpy()
    found = detector(criterion=criterion).fit(X)
    scores = found.score_samples(X)
    deviation = 1.4826 * np.median(abs(X - np.median(X, axis=0)), axis=0)
    rows = X[scores > np.quantile(scores, 0.3)][:300].copy()
    index = np.arange(len(rows))
    column, sign = rng.integers(0, 30, len(rows)), rng.choice([-1, 1], len(rows))
    before = rows[index, column]
    rows[index, column] += 4 * sign * deviation[column]
    why = found.explain(rows)
    for name in ("deviation", "share"):
        cells = abs(why[name].to_numpy())
        rank = (cells > cells[index, column][:, None]).sum(axis=1)
        assert (rank < 2).mean() >= 0.9, name
    assert (np.sign(why["deviation"].to_numpy()[index, column]) == sign).mean() > 0.95
    error = abs(why["expected"].to_numpy()[index, column] - before) / deviation[column]
    assert np.median(error) < 0.5


def test_reasons_are_tables_like_the_input():
    X = CANCER[::5]
    found = detector(autoencoder=Autoencoder(3, **FAST)).fit(X)
    why = found.explain(X[:7])
    for name in ("deviation", "expected", "share"):
        assert list(why[name].columns) == list(X.columns)
        assert why[name].index.equals(X.index[:7])
    np.testing.assert_allclose(why["share"].sum(axis=1), 1)
    assert (why["share"] >= 0).all(axis=None)
    nameless = clone(found).fit(X.to_numpy())
    plain = nameless.explain(X.to_numpy()[:7])
    assert list(plain["share"].columns[:2]) == ["x0", "x1"]
    np.testing.assert_array_equal(plain, why)
    np.testing.assert_array_equal(nameless.explain(X.to_numpy()[:7].tolist()), why)


LABELS = {
    "integers": [7, 3, 0, 11],
    "floats": [0.5, 1.5, 2.5, 3.5],
    "tuples": [("a", 1), ("a", 2), ("b", 1), ("b", 2)],
    "dates": pd.date_range("2020-01-01", periods=4).to_list(),
    "strings": ["w", "x", "y", "z"],
}


@pytest.fixture(scope="module")
def of_arrays():
    return detector(autoencoder=LINEAR).fit(surface()[0][:, :4])


@pytest.mark.parametrize("kind", LABELS)
def test_reasons_have_the_columns_of_the_input(kind, of_arrays):
    """Of whatever type, whether or not the detector was fitted to a table with these columns."""
    X = surface()[0][:, :4]
    columns = pd.Index(LABELS[kind], tupleize_cols=False)
    frame = pd.DataFrame(X, columns=columns, index=np.arange(len(X)) + 100)
    own = clone(of_arrays).fit(frame)
    found = [own] if kind == "strings" else [own, of_arrays]
    expected = of_arrays.explain(X[:5]).to_numpy()
    for model in found:
        why = model.explain(frame[:5])
        np.testing.assert_array_equal(why, expected)
        for name in ("deviation", "expected", "share"):
            assert list(why[name].columns) == LABELS[kind]
            assert list(why[name].index) == [100, 101, 102, 103, 104]
    names = LABELS[kind] if kind == "strings" else ["x0", "x1", "x2", "x3"]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "X does not have valid feature names")
        assert list(own.explain(X[:5])["share"].columns) == names


def test_reasons_have_the_levels_of_the_columns_of_the_input(of_arrays):
    X = surface()[0][:, :4]
    levels = pd.MultiIndex.from_tuples(LABELS["tuples"], names=["group", "number"])
    why = of_arrays.explain(pd.DataFrame(X, columns=levels))
    assert why["deviation"].columns.equals(levels)
    assert why["deviation", "b", 2].tolist() == why["deviation"]["b"][2].tolist()


def test_reasons_for_polars_are_tables_of_polars(of_arrays):
    X = surface()[0][:, :4]
    frame = pl.DataFrame(X, schema=LABELS["strings"])
    found = clone(of_arrays).fit(frame)
    why = found.explain(frame[:5])
    assert list(why) == ["deviation", "expected", "share"]
    expected = of_arrays.explain(X[:5])
    for name, table in why.items():
        assert isinstance(table, pl.DataFrame)
        assert table.columns == LABELS["strings"]
        np.testing.assert_array_equal(table, expected[name])
    display = OutlierExplanationDisplay.from_predictions(why, n_rows=5)
    np.testing.assert_array_equal(display.explanation, expected)
    display = OutlierExplanationDisplay.from_estimator(found, frame, n_rows=2)
    assert display.explanation["share"].columns.tolist() == LABELS["strings"]
    plt.close("all")


def test_deviations_are_distances_from_what_is_expected():
    """In units of their robust spread over the training rows."""
    X, _ = surface()
    why = detector().fit(X).explain(X)
    distance = X - why["expected"].to_numpy()
    ratio = why["deviation"].to_numpy() / distance
    np.testing.assert_allclose(ratio, np.broadcast_to(np.median(ratio, axis=0), X.shape), rtol=1e-6)
    inner = np.median(abs(why["deviation"].to_numpy()), axis=0)
    assert (inner > 0.4).all()
    assert (inner < 1).all()


def test_equal_rows_have_reasons_too():
    X = np.ones((5, 3))
    why = detector().fit(X).explain(X)
    np.testing.assert_allclose(why["share"], 1 / 3)
    np.testing.assert_allclose(why["expected"], 1)


# ---------------------------------------------------------------------------- autoencoders


@pytest.mark.parametrize("autoencoder_class", AUTOENCODERS)
@pytest.mark.parametrize("criterion", SCORES)
@pytest.mark.filterwarnings("ignore:(Posterior collapse|Only .* of n_codes)")
def test_any_autoencoder_may_be_passed(autoencoder_class, criterion):
    X, _ = surface(80, 4)
    autoencoder = autoencoder_class(n_components=2, **FAST)
    before = autoencoder.get_params()
    found = detector(autoencoder=autoencoder, criterion=criterion).fit(X)
    assert type(found.autoencoder_) is autoencoder_class
    assert found.autoencoder_.trim == found.trim
    assert np.isfinite(found.score_samples(X)).all()
    assert autoencoder.get_params() == before
    assert not hasattr(autoencoder, "n_components_")


@pytest.mark.parametrize("criterion", SCORES)
def test_a_frozen_one_is_used_as_it_is(criterion):
    X, _ = surface(80, 4)
    autoencoder = Autoencoder(2, random_state=0, **FAST).fit(X)
    codes, nats = autoencoder.transform(X), autoencoder.score_samples(X)
    found = AutoencoderOutlierDetector(FrozenEstimator(autoencoder), criterion=criterion).fit(
        X[:40]
    )
    np.testing.assert_array_equal(found.autoencoder_.transform(X), codes)
    np.testing.assert_array_equal(autoencoder.transform(X), codes)
    if criterion == "density":
        np.testing.assert_array_equal(found.score_samples(X), nats)
    autoencoder.fit(3 * X)  # the detector has its own
    np.testing.assert_array_equal(found.autoencoder_.transform(X), codes)


def test_a_frozen_one_of_a_data_frame():
    table = CANCER.iloc[:, :5]
    autoencoder = Autoencoder(2, random_state=0, **FAST).fit(table)
    found = AutoencoderOutlierDetector(FrozenEstimator(autoencoder)).fit(table)
    assert np.isfinite(found.score_samples(table)).all()
    with pytest.raises(ValueError, match=r"(?s)names should match"):
        found.fit(table[table.columns[::-1]])


def test_a_frozen_one_that_is_not_fitted():
    with pytest.raises(NotFittedError, match="Autoencoder"):
        AutoencoderOutlierDetector(FrozenEstimator(Autoencoder(2))).fit(CANCER)


def test_a_bernoulli_autoencoder_sees_rows_as_they_are():
    X = MinMaxScaler(clip=True).fit_transform(CANCER)
    found = detector(autoencoder=Autoencoder(2, likelihood="bernoulli", **FAST)).fit(X)
    assert np.isfinite(found.score_samples(X)).all()
    np.testing.assert_allclose(
        found.autoencoder_.inverse_transform(found.autoencoder_.transform(X[:3])),
        found.autoencoder_.reconstruct(X[:3]),
    )


# -------------------------------------------------------------------------- scikit-learn


def test_grid_search_over_criteria_and_the_autoencoder():
    X, y = surface(120, 20)
    order = np.random.default_rng(0).permutation(120)
    X, y = X[order], y[order]

    def area(estimator, X, y):
        return roc_auc_score(y, -estimator.score_samples(X))

    search = GridSearchCV(
        detector(autoencoder=Autoencoder(**FAST)),
        {"criterion": ["robust", "reconstruction"], "autoencoder__n_components": [1, 2]},
        scoring=area,
        cv=2,
    )
    search.fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    chosen = search.best_params_["autoencoder__n_components"]
    assert search.best_estimator_.autoencoder_.n_components_ == chosen


WAYS = {
    "pickle": lambda found, folder: pickle.loads(pickle.dumps(found)),
    "deepcopy": lambda found, folder: copy.deepcopy(found),
    "file": lambda found, folder: (
        found.save(folder / "found.safetensors"),
        skae.load(folder / "found.safetensors"),
    )[1],
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize(
    "parameters",
    [
        *({"criterion": criterion} for criterion in SCORES),
        {"calibration_fraction": 0.4},
    ],
    ids=str,
)
def test_every_round_trip_keeps_the_bits(way, parameters, tmp_path):
    X, _ = surface(80)
    found = detector(autoencoder=Autoencoder(2, **FAST), **parameters).fit(X)
    again = way(found, tmp_path)
    assert type(again) is AutoencoderOutlierDetector
    assert vars(again).keys() == vars(found).keys()
    assert {k: v for k, v in again.get_params().items() if not isinstance(v, BaseEstimator)} == {
        k: v for k, v in found.get_params().items() if not isinstance(v, BaseEstimator)
    }
    np.testing.assert_array_equal(again.decision_function(X), found.decision_function(X))
    np.testing.assert_array_equal(again.explain(X), found.explain(X))
    if found.n_calibration_rows_:
        np.testing.assert_array_equal(again.p_values(X), found.p_values(X))


@pytest.mark.parametrize("trim", [0.0, 0.3])
@pytest.mark.parametrize("criterion", SCORES)
@pytest.mark.parametrize("n", [9, 300])
def test_a_detector_contains_no_training_row(criterion, n, trim):
    """Rows are rebuilt from codes and residuals, which are the only data of rows in a model."""
    X, _ = surface(n)
    model = detector(criterion=criterion, trim=trim, autoencoder=LINEAR).fit(X)._fitted
    parts = [model.score, getattr(model.score, "distance", model.score)]
    arrays = [value for part in parts for value in vars(part).values() if np.ndim(value) == 2]
    for part in parts:
        if hasattr(part, "usual"):
            points = part.usual @ np.linalg.inv(part.whitening) + part.center
            k = len(part.code_center)
            codes = points[:, :k] * part.code_scale + part.code_center
            blank = np.zeros((len(codes), X.shape[1]))
            rows = model.decode(codes, blank)[0] + points[:, k:] * model.units.scale
            distance = abs(rows[:, None] - X).max(axis=2) / X.std(axis=0).max()
            assert distance.min() > 1e-4
            assert len(rows) <= max(1, n // 3)
    assert all(len(array) < max(n // 2, 20) for array in arrays)


def test_what_a_file_cannot_hold_is_named(tmp_path):
    X, _ = surface(80)

    def corrupt(x, generator):
        return x

    found = detector(autoencoder=Autoencoder(2, corruption=corrupt, **FAST)).fit(X)
    with pytest.warns(
        UserWarning, match=r"autoencoder___corruption, autoencoder__corruption\. Set"
    ):
        found.save(tmp_path / "found.safetensors")
    again = skae.load(tmp_path / "found.safetensors")
    np.testing.assert_array_equal(again.score_samples(X), found.score_samples(X))


def test_the_frozen_wrapper_is_not_saved_but_its_autoencoder_is(tmp_path):
    X, _ = surface(80)
    autoencoder = Autoencoder(2, random_state=0, **FAST).fit(X)
    found = AutoencoderOutlierDetector(FrozenEstimator(autoencoder)).fit(X)
    with pytest.warns(UserWarning, match=r"unknown to skae: autoencoder\. Set them again"):
        found.save(tmp_path / "found.safetensors")
    again = skae.load(tmp_path / "found.safetensors")
    np.testing.assert_array_equal(again.score_samples(X), found.score_samples(X))


def test_a_part_is_no_estimator(tmp_path):
    files.write(tmp_path / "part", KIND, SCORES["reconstruction"]())
    with pytest.raises(ValueError, match="Reconstruction is not an estimator"):
        skae.load(tmp_path / "part")


@pytest.mark.slow
def test_a_table_almost_as_wide_as_long():
    rng = np.random.default_rng(0)
    X = (rng.uniform(size=(1966, 1555)) < 0.03).astype(float)
    X[:, :3] = 100 * rng.normal(size=(1966, 3))
    X[:60] = rng.uniform(size=(60, 1555)) < 0.06
    scores = detector().fit(pd.DataFrame(X)).score_samples(pd.DataFrame(X))
    assert roc_auc_score(np.arange(1966) < 60, -scores) > 0.95
