"""Faults end in finite output or in an error that names its cause; no model is left changed."""

import copy
import inspect
import os
import pickle
import re
import signal
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from joblib import Parallel, delayed
from sklearn.base import BaseEstimator, clone
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted, has_fit_parameter
from skorch.callbacks import Callback
from test_common import configured, core, public_estimators, train
from test_determinism import fit_in_two_jobs, in_forked_child

import skae
from skae.base import BaseAutoencoder

N = 40
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 2)) @ RNG.normal(size=(2, 3)) + 0.1 * RNG.normal(size=(N, 3))
FRAME = pd.DataFrame(X, columns=["a", "b", "c"])
TINY = {"n_components": 2, "hidden_layer_sizes": (4,), "max_epochs": 2, "random_state": 0}

ANSWERS = (
    "transform",
    "reconstruct",
    "reconstruction_error",
    "score_samples",
    "decision_function",
    "predict",
    "predict_proba",
)
"""Methods that take rows and answer row by row; an estimator has some of them."""

REFUSAL = (ValueError, TypeError)


@pytest.fixture(params=public_estimators(), ids=lambda c: c.__name__)
def estimator_class(request):
    return request.param


def tiny(estimator_class, **parameters):
    """A fast estimator; the test is skipped where it lacks one of the parameters.

    An estimator over an autoencoder has those of its autoencoder, too.
    """
    known = set(estimator_class().get_params())
    if "autoencoder" in known:
        known |= set(skae.Autoencoder().get_params())
    absent = set(parameters) - known
    if absent:
        pytest.skip(f"{estimator_class.__name__} has no {absent}")
    return configured(
        estimator_class, **({k: v for k, v in TINY.items() if k in known} | parameters)
    )


def reset(estimator, **parameters):
    """Set parameters of an estimator or of its autoencoder."""
    own = estimator.get_params(deep=False)
    return estimator.set_params(
        **{k if k in own else f"autoencoder__{k}": v for k, v in parameters.items()}
    )


def parameters(estimator):
    """All parameters but estimators, whose own are listed."""
    return {k: v for k, v in estimator.get_params().items() if not isinstance(v, BaseEstimator)}


WITH_TARGETS = ("score", "partial_fit")
"""Methods, beside `fit`, that take targets where the estimator wants some."""


def trained(estimator_class, rows=X, **parameters):
    """A fitted estimator; most tests start from the same, of which they get copies."""
    if rows is X:
        return copy.deepcopy(usual(estimator_class, **parameters))
    return train(tiny(estimator_class, **parameters), rows)


@cache
def usual(estimator_class, **parameters):
    """The fitted estimator itself, for faults alone: no copy, as they leave it as it was."""
    return train(tiny(estimator_class, **parameters), X)


def answers(estimator, rows):
    """All that a fitted estimator says of rows and of itself."""
    said = {m: np.asarray(getattr(estimator, m)(rows)) for m in ANSWERS if hasattr(estimator, m)}
    if hasattr(estimator, "inverse_transform"):
        said["inverse_transform"] = estimator.inverse_transform(said["transform"])
    if hasattr(estimator, "sample"):
        said["sample"] = estimator.sample(3, random_state=0)
    if hasattr(estimator, "noise_variance_"):
        said["noise_variance_"] = np.asarray(estimator.noise_variance_)
    return said


@cache
def reference(estimator_class):
    return answers(trained(estimator_class), X)


def train_and_answer(estimator_class):
    return answers(train(tiny(estimator_class), X), X)


def assert_same(got, expected):
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)


def assert_sensible(estimator, rows, n, n_columns):
    said = answers(estimator, rows)
    for name, value in said.items():
        assert np.isfinite(value).all(), name
    for name in set(said) & set(ANSWERS):
        assert len(said[name]) == n, name
    for name in set(said) & {"reconstruct", "inverse_transform"}:
        assert said[name].shape == (n, n_columns), name
    if "sample" in said:
        assert said["sample"].shape == (3, n_columns)
    if "transform" in said:
        assert said["transform"].shape == (n, len(estimator.get_feature_names_out()))


def attempt(call):
    """What a call returns, and its refusal as text; one of both is None."""
    try:
        return call(), None
    except REFUSAL as error:
        return None, str(error)


class Unchanged:
    """Asserts that a block leaves a fitted estimator as it was, and an unfitted one unfitted."""

    def __init__(self, estimator, rows=X):
        self.estimator, self.rows = estimator, rows

    def ask(self):
        """Answers; before the block, those of the shared estimator are known."""
        shared = self.estimator is usual(type(self.estimator)) and self.rows is X
        if shared and not hasattr(self, "before"):
            return reference(type(self.estimator))
        return answers(self.estimator, self.rows)

    def state(self):
        try:
            check_is_fitted(self.estimator)
        except NotFittedError:
            said = {}
        else:
            said = self.ask()
        learnt = {
            k: id(v) for k, v in vars(self.estimator).items() if k.endswith("_") or k == "_fitted"
        }
        return said, learnt, set(vars(self.estimator)), self.estimator.get_params()

    def __enter__(self):
        self.before = self.state()

    def __exit__(self, kind, error, traceback):
        if error is None:
            said, *rest = self.before
            said_now, *rest_now = self.state()
            assert_same(said_now, said)
            assert rest_now == rest


def both(estimator_class, rows=X, **parameters):
    """An unfitted and a fitted estimator, for faults that must leave both as they are."""
    return tiny(estimator_class, **parameters), trained(estimator_class, rows, **parameters)


def both_for_faults_alone(estimator_class):
    """The same, but the fitted one is shared: whoever sets or trains it needs `both`."""
    return tiny(estimator_class), usual(estimator_class)


def about_to(method, estimator_class):
    """Estimators for faults at their first `fit` or `partial_fit`, or at a later `fit`."""
    if not hasattr(estimator_class, method):
        pytest.skip(f"no {method}")
    return both_for_faults_alone(estimator_class) if method == "fit" else (tiny(estimator_class),)


def with_column(values, j=1):
    rows = X.copy()
    rows[:, j] = values
    return rows


def with_cell(value):
    rows = X.copy()
    rows[3, 1] = value
    return rows


def read_only():
    rows = X.copy()
    rows.flags.writeable = False
    return rows


def memmap():
    with tempfile.TemporaryFile() as file:
        rows = np.memmap(file, dtype=X.dtype, mode="w+", shape=X.shape)
    rows[:] = X
    rows.flags.writeable = False
    return rows


# --------------------------------------------------------------- tables that are as good as X

SAME_TABLE = [
    pytest.param(X.astype(object), id="object"),
    pytest.param(X.astype(str), id="numbers as strings"),
    pytest.param(X.tolist(), id="list"),
    pytest.param(tuple(map(tuple, X.tolist())), id="tuple"),
    pytest.param(np.asfortranarray(X), id="Fortran order"),
    pytest.param(np.repeat(X, 2, axis=0)[::2], id="non-contiguous rows"),
    pytest.param(np.repeat(X, 2, axis=1)[:, ::2], id="non-contiguous columns"),
    pytest.param(X[::-1, ::-1].copy()[::-1, ::-1], id="negative strides"),
    pytest.param(read_only(), id="read-only"),
    pytest.param(memmap(), id="memmap"),
    pytest.param(X.astype(">f8"), id="big-endian"),
    pytest.param(X.astype(np.longdouble), id="longdouble"),
    pytest.param(torch.tensor(X), id="torch tensor"),
    pytest.param(FRAME, id="frame"),
    pytest.param(FRAME.astype("Float64"), id="nullable floats"),
    pytest.param(FRAME.astype(object), id="object frame"),
    pytest.param(FRAME.set_axis([0, 1, 2], axis=1), id="integer names"),
]


@pytest.mark.parametrize("rows", SAME_TABLE)
def test_the_same_table_in_another_guise(estimator_class, rows):
    before = copy.deepcopy(rows)
    got = answers(trained(estimator_class, rows), rows)
    expected = reference(estimator_class)
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-6, atol=1e-9, err_msg=name)
    np.testing.assert_array_equal(np.asarray(rows), np.asarray(before))


# --------------------------------------------------------------------------- what must work

WORKS = [
    pytest.param(X.astype(np.float16), {}, id="float16"),
    pytest.param(X.astype(np.float32), {}, id="float32"),
    pytest.param((10 * X).astype(np.int64), {}, id="int64"),
    pytest.param((10 * X).astype(np.int8), {}, id="int8"),
    pytest.param(abs(10 * X).astype(np.uint64), {}, id="uint64"),
    pytest.param(X > 0, {}, id="bool"),
    pytest.param((10 * FRAME).round().astype("Int64"), {}, id="nullable integers"),
    pytest.param((FRAME > 0).astype("boolean"), {}, id="nullable booleans"),
    pytest.param(FRAME.assign(c=pd.Categorical([1.0, 2.0] * 20)), {}, id="numeric categories"),
    pytest.param(X[:2], {}, id="two rows"),
    pytest.param(X[:3], {}, id="three rows"),
    pytest.param(X[:, :1], {}, id="one column"),
    pytest.param(X[:2, :1], {}, id="two rows of one column"),
    pytest.param(X, {"n_components": 7}, id="more code than columns"),
    pytest.param(X[:2], {"n_components": 7}, id="more code than rows"),
    pytest.param(X[:, :1], {"n_components": 7}, id="more code than the one column"),
    pytest.param(X, {"n_components": 0.5}, id="share of variance"),
    pytest.param(np.tile(X[0], (N, 1)), {"n_components": 0.5}, id="share of no variance"),
    pytest.param(np.c_[X, np.full(N, 3.0)], {}, id="constant column"),
    pytest.param(np.c_[X, np.full(N, 1e9)], {}, id="large constant column"),
    pytest.param(np.c_[X, np.full(N, 3.0)], {"noise": "diagonal"}, id="constant column diagonal"),
    pytest.param(np.c_[X, X], {}, id="columns twice"),
    pytest.param(np.tile(X[0], (N, 1)), {}, id="all rows equal"),
    pytest.param(np.tile(X[0], (2, 1)), {}, id="two equal rows"),
    pytest.param(np.broadcast_to(X[0], X.shape), {"noise": "diagonal"}, id="equal rows diagonal"),
    pytest.param(np.zeros((N, 3)), {}, id="zeros"),
    pytest.param(X * [1e6, 1e-8, 1], {}, id="1e6 beside 1e-8"),
    pytest.param(X * [1e6, 1e-8, 1], {"noise": "diagonal"}, id="1e6 beside 1e-8 diagonal"),
    pytest.param((X * [1e6, 1e-8, 1]).astype("f"), {}, id="1e6 beside 1e-8 float32"),
    pytest.param(X * 1e30, {}, id="1e30"),
    pytest.param(X * [1, 1e30, 1], {}, id="one column 1e30"),
    pytest.param(X * 1e140, {}, id="1e140"),
    pytest.param(X * 1e-30, {}, id="1e-30"),
    pytest.param(X * 1e-160, {}, id="1e-160"),
    pytest.param(X * 1e-300, {}, id="1e-300"),
    pytest.param(X * [1, 1e-300, 1], {}, id="one column 1e-300"),
    pytest.param(X * 1e-310, {}, id="subnormal"),
    pytest.param(X + 1e12, {}, id="large offset"),
    pytest.param(X, {"batch_size": 10**9}, id="batch larger than the data"),
    pytest.param(X, {"batch_size": 10**30}, id="batch larger than int64"),
    pytest.param(X, {"noise": 1e-300}, id="tiny noise"),
    pytest.param(X, {"noise": 1e300}, id="huge noise"),
    pytest.param(X, {"weight_decay": 1e300}, id="huge weight decay"),
    pytest.param(X, {"trim": 0.999}, id="trims all but one row"),
    pytest.param(X, {"learning_rate": 1e-320}, id="subnormal learning rate"),
    pytest.param(X, {"max_epochs": 0}, id="no epochs"),
    pytest.param(X > 0, {"likelihood": "bernoulli"}, id="bernoulli bool"),
    pytest.param((X > 0)[:2], {"likelihood": "bernoulli"}, id="bernoulli two rows"),
    pytest.param(np.zeros((N, 3)), {"likelihood": "bernoulli"}, id="bernoulli zeros"),
    pytest.param(np.ones((N, 3)), {"likelihood": "bernoulli"}, id="bernoulli ones"),
]


@pytest.mark.parametrize(("rows", "parameters"), WORKS)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_works(estimator_class, rows, parameters, method):
    estimator = tiny(estimator_class, **parameters)
    if not hasattr(estimator, method):
        pytest.skip(f"no {method}")
    assert_sensible(train(estimator, rows, method), rows, *rows.shape)


@pytest.mark.parametrize(
    ("rows", "parameters", "match"),
    [
        pytest.param((X * 1e30).astype("f"), {}, "Column 0 of X", id="float32 1e30"),
        pytest.param((X * 1e19).astype("f"), {}, "Column 0 of X", id="float32 1e19"),
        pytest.param((X * 1e-22).astype("f"), {}, "Column 0 of X", id="float32 1e-22"),
        pytest.param((X * 1e-30).astype("f"), {}, "Column 0 of X", id="float32 1e-30"),
        pytest.param((X * 1e-44).astype("f"), {}, "Column 0 of X", id="float32 subnormal"),
        pytest.param(
            X * 1e30, {"precision": "float32"}, r"Column \d of X|precision", id="1e30 as float32"
        ),
        pytest.param(
            X * 1e30, {"precision": "bfloat16"}, r"Column \d of X|precision", id="1e30 as bfloat16"
        ),
        pytest.param(
            X * 1e-30, {"precision": "float32"}, r"Column \d of X|precision", id="1e-30 as float32"
        ),
        pytest.param(
            X * [1, 1e30, 1], {"precision": "float32"}, "Column 1 of X", id="column 1e30 as float32"
        ),
        pytest.param(X * 1e-160, {"noise": "diagonal"}, "Column 0 of X", id="1e-160 diagonal"),
        pytest.param(X, {"noise": 1e-320}, "noise", id="subnormal noise"),
        pytest.param(
            X, {"noise": 1e-60, "precision": "float32"}, "noise", id="tiny noise as float32"
        ),
        pytest.param(
            X, {"noise": 1e60, "precision": "float32"}, "noise", id="huge noise as float32"
        ),
    ],
)
def test_works_or_says_why_not(estimator_class, rows, parameters, match):
    estimator = tiny(estimator_class, **parameters)
    _, refusal = attempt(lambda: train(estimator, rows))
    if refusal is None:
        assert_sensible(estimator, rows, *rows.shape)
    else:
        assert re.search(match, refusal), refusal


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize("precision", ["auto", "float32"])
@pytest.mark.parametrize(
    "second",
    [
        pytest.param(X * 1e30, id="1e30"),
        pytest.param(X * 1e100, id="1e100"),
        pytest.param(X * 1e200, id="1e200"),
        pytest.param(X * 1e300, id="1e300"),
        pytest.param(X * 1e-300, id="1e-300"),
        pytest.param(X + 1e6, id="small offset"),
        pytest.param(X + 1e12, id="offset"),
        pytest.param(X[:1], id="one row"),
    ],
)
# Going on from a table of another size may diverge: that is said, and is no fault.
@pytest.mark.filterwarnings("ignore:(Training diverged|Posterior collapse|Only . of n_codes)")
def test_going_on_with_other_rows(estimator_class, second, precision, method):
    """Centre and scale stay those of the first call, so any later row can be too large."""
    if not hasattr(estimator_class, method) or not hasattr(estimator_class(), "warm_start"):
        pytest.skip(f"no {method} that goes on")
    estimator = trained(estimator_class, precision=precision, warm_start=True)
    before = answers(estimator, X)
    _, refusal = attempt(lambda: train(estimator, second, method))
    if refusal is None:
        assert_sensible(estimator, X, *X.shape)
    else:
        assert re.search(r"[Cc]olumn \d|scale the columns of X", refusal), refusal
        assert_same(answers(estimator, X), before)


# ------------------------------------------------------------------------- what is refused

STRUCTURED = np.zeros(5, dtype=[("a", float), ("b", float)])
SCALAR = "got scalar array instead"
EVERYWHERE = [
    pytest.param(with_cell(np.nan), ValueError, "X contains NaN", id="NaN"),
    pytest.param(with_cell(np.inf), ValueError, "X contains infinity", id="inf"),
    pytest.param(with_cell(-np.inf), ValueError, "X contains infinity", id="minus inf"),
    pytest.param(with_cell(np.nan).astype("f"), ValueError, "X contains NaN", id="float32 NaN"),
    pytest.param(
        np.where(X > 1.5, None, X), ValueError, "X contains NaN", id="None among the cells"
    ),
    pytest.param(with_column(np.nan).tolist(), ValueError, "X contains NaN", id="NaN in a list"),
    pytest.param(
        np.array([["u", "v", "w"]] * N), ValueError, "string to float: .*'u'", id="strings"
    ),
    pytest.param(
        np.array([[1.0, "u", 2.0]] * N, object),
        ValueError,
        "string to float: 'u'",
        id="objects",
    ),
    pytest.param(X + 0j, ValueError, "Complex data not supported", id="complex"),
    pytest.param(sp.csr_matrix(X), TypeError, "Sparse data.*toarray", id="sparse matrix"),
    pytest.param(sp.csr_array(X), TypeError, "Sparse data.*toarray", id="sparse array"),
    pytest.param(sp.coo_array(X), TypeError, "Sparse data.*toarray", id="sparse coo"),
    pytest.param(X[:, 0], ValueError, "(?s)got 1D array instead.*Reshape", id="1-D"),
    pytest.param(X[None], ValueError, "dim 3", id="3-D"),
    pytest.param(np.float64(3), ValueError, SCALAR, id="scalar"),
    pytest.param(None, ValueError, SCALAR, id="None"),
    pytest.param("abc", ValueError, "string to float: 'abc'", id="a string"),
    pytest.param({"a": [1, 2]}, TypeError, "dict", id="dict"),
    pytest.param([[1, 2], [3]], ValueError, "inhomogeneous", id="ragged"),
    pytest.param([], ValueError, "(?s)got 1D array instead.*Reshape", id="empty list"),
    pytest.param(X[:0], ValueError, r"0 sample\(s\).*minimum of", id="empty"),
    pytest.param(X[:, :0], ValueError, r"0 feature\(s\)", id="no columns"),
    pytest.param(STRUCTURED, TypeError, "'a'", id="structured"),
    pytest.param(FRAME["a"], ValueError, "2-dimensional", id="series"),
    pytest.param(
        FRAME.astype("Float64").mask(FRAME > 1.5), ValueError, "X contains NaN", id="nullable NA"
    ),
    pytest.param(
        (10 * FRAME).round().astype("Int64").mask(FRAME > 1.5),
        ValueError,
        "X contains NaN",
        id="nullable integer NA",
    ),
    pytest.param(
        FRAME.assign(c=pd.Categorical(["u", "v"] * 20)),
        ValueError,
        "string to float: 'u'",
        id="categories",
    ),
    pytest.param(FRAME.assign(c=["u", "v"] * 20), ValueError, "to float: 'u'", id="text column"),
    pytest.param(
        FRAME.assign(c=pd.date_range("2020", periods=N)), TypeError, "DateTime64", id="dates"
    ),
    pytest.param(
        FRAME.astype(pd.SparseDtype(float, 0)), TypeError, "Sparse data", id="sparse frame"
    ),
    pytest.param(
        FRAME.set_axis(["a", "a", "b"], axis=1),
        ValueError,
        "(?s)unique column names.*'a' 2 times",
        id="duplicate names",
    ),
    pytest.param(
        FRAME.set_axis(["a", 1, "c"], axis=1), TypeError, "names.*string", id="mixed names"
    ),
]
"""Refused at fit and ever after."""

AT_FIT = [
    *EVERYWHERE,
    pytest.param(X[:1], ValueError, r"1 sample\(s\).*minimum of 2", id="one row"),
    pytest.param(FRAME[:1], ValueError, r"1 sample\(s\).*minimum of 2", id="one row of a frame"),
]


@pytest.mark.parametrize(("rows", "error", "match"), AT_FIT)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_refused_at_fit(estimator_class, rows, error, match, method):
    for estimator in about_to(method, estimator_class):
        with Unchanged(estimator), pytest.raises(error, match=match):
            train(estimator, rows, method)


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        pytest.param(X * 1e300, "Column 0 of X.*Divide", id="1e300"),
        pytest.param(X * [1, 1e300, 1], "Column 1 of X.*Divide", id="one column 1e300"),
        pytest.param(np.full((N, 3), -1e300), "Column 0 of X.*Divide", id="all -1e300"),
    ],
)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_values_too_large_to_square(estimator_class, rows, match, method):
    """They are refused, but where columns are brought to units of their own."""
    for estimator in about_to(method, estimator_class):
        if estimator_class is skae.AutoencoderOutlierDetector:
            assert_sensible(train(copy.deepcopy(estimator), rows), rows, *rows.shape)
            continue
        with Unchanged(estimator), pytest.raises(ValueError, match=match):
            train(estimator, rows, method)


def test_a_generator_is_refused(estimator_class):
    for estimator in both_for_faults_alone(estimator_class):
        with Unchanged(estimator), pytest.raises(TypeError, match="generator"):
            train(estimator, (row for row in X.tolist()))


@pytest.mark.parametrize("shift", [-0.1, 0.1])
def test_rows_outside_the_likelihoods_range(estimator_class, shift):
    """Each end of the range, and the way out."""
    inside = (X > 0).astype(float)
    for estimator in both(estimator_class, inside, likelihood="bernoulli"):
        match = r"\[0, 1\].*MinMaxScaler.*likelihood='gaussian'"
        with Unchanged(estimator, inside), pytest.raises(ValueError, match=match):
            train(estimator, inside + shift)


FROM_ARRAY = [
    pytest.param(X[:, :2], ValueError, "2 features.*expecting 3 features", id="missing column"),
    pytest.param(np.c_[X, X], ValueError, "6 features.*expecting 3 features", id="extra columns"),
    pytest.param(X[0], ValueError, "(?s)1D array.*Reshape", id="one row as a vector"),
]
FROM_FRAME = [
    pytest.param(FRAME[["b", "a", "c"]], ValueError, "same order", id="reordered"),
    pytest.param(FRAME[["a", "b"]], ValueError, "(?s)now missing.*- c", id="missing"),
    pytest.param(FRAME.assign(d=1.0), ValueError, "(?s)unseen at fit time.*- d", id="extra"),
    pytest.param(
        FRAME.rename(columns={"a": "z"}),
        ValueError,
        "(?s)unseen at fit time.*- z.*now missing.*- a",
        id="renamed",
    ),
    pytest.param(FRAME[:0], ValueError, r"0 sample\(s\)", id="no rows"),
]


def refusals_of_rows(estimator, rows, error, match):
    """Every method that reads rows refuses them in the same words."""
    for name in (*ANSWERS, "score", "partial_fit"):
        if hasattr(estimator, name):
            wants = name in WITH_TARGETS
            method = partial(train, estimator, method=name) if wants else getattr(estimator, name)
            with pytest.raises(error, match=match):
                method(rows)


@pytest.mark.parametrize(("rows", "error", "match"), [*EVERYWHERE, *FROM_ARRAY])
# Frames after arrays are allowed, with a warning, as everywhere in scikit-learn.
@pytest.mark.filterwarnings("ignore:X has feature names:UserWarning")
def test_refused_at_predict(estimator_class, rows, error, match):
    estimator = usual(estimator_class)
    with Unchanged(estimator):
        refusals_of_rows(estimator, rows, error, match)


@pytest.mark.parametrize(("rows", "error", "match"), FROM_FRAME)
def test_refused_after_a_frame(estimator_class, rows, error, match):
    estimator = trained(estimator_class, FRAME)
    with Unchanged(estimator, FRAME):
        refusals_of_rows(estimator, rows, error, match)


def test_an_array_after_a_frame_warns_and_works(estimator_class):
    estimator = trained(estimator_class, FRAME)
    with pytest.warns(UserWarning, match="valid feature names"):
        got = answers(estimator, X)
    assert_same(got, answers(estimator, FRAME))


@pytest.mark.parametrize("precision", ["auto", "float32"])
@pytest.mark.parametrize("value", [1e-300, 1e18, 1e30, 1e100, 1e150, 1e200, -1e300, 1e300])
def test_huge_values_at_predict(estimator_class, value, precision):
    """Not NaN nor an infinite density: a finite answer, or the column that is too large."""
    estimator = trained(estimator_class, precision=precision)
    rows = with_cell(value)
    wrong = {}
    # Scores of predictions are scikit-learn's.
    own_score = () if get_tags(estimator).target_tags.required else ("score",)
    for name in (*ANSWERS, *own_score, "interpolate"):
        method = getattr(estimator, name, None)
        if method is not None:
            arguments = (rows, X) if name == "interpolate" else (rows,)
            got, refusal = attempt(partial(method, *arguments))
            if refusal is None and not np.isfinite(got).all():
                wrong[name] = got
            if refusal is not None and "column 1" not in refusal.lower():
                wrong[name] = refusal
    assert wrong == {}


# ------------------------------------------------------------------------- sample weights

WEIGHTS = [
    pytest.param(np.arange(N) % 3, id="some zeros"),
    pytest.param(np.r_[1, 1, np.zeros(N - 2)], id="two rows count"),
    pytest.param(np.arange(N) > 5, id="bool"),
    pytest.param(2.0, id="a number"),
    pytest.param([1] * N, id="list"),
    pytest.param(pd.Series(np.ones(N), index=range(100, 100 + N)), id="series of another index"),
    pytest.param(np.full(N, 1e-300), id="1e-300"),
    pytest.param(np.full(N, 1e300), id="1e300"),
    pytest.param(np.r_[1e300, np.ones(N - 1)], id="one 1e300"),
    pytest.param(np.r_[1e-300, np.ones(N - 1)], id="one 1e-300"),
]
BAD_WEIGHTS = [
    pytest.param(-np.ones(N), "Negative values.*sample_weight", id="negative"),
    pytest.param(np.r_[-1, np.ones(N - 1)], "Negative values.*sample_weight", id="one negative"),
    pytest.param(np.ones(N - 1), r"sample_weight.shape.*\(40,\)", id="too short"),
    pytest.param(np.ones(N + 1), r"sample_weight.shape.*\(40,\)", id="too long"),
    pytest.param(np.zeros(N), "[Ss]ample weights.*non-zero", id="all zero"),
    pytest.param(np.ones((N, 1)), "[Ss]ample weights.*1D", id="2-D"),
    pytest.param(np.full(N, np.nan), "sample_weight contains NaN", id="NaN"),
    pytest.param(np.full(N, np.inf), "sample_weight contains infinity", id="inf"),
    pytest.param(["u"] * N, "string to float: 'u'", id="strings"),
    pytest.param(np.ones(N, complex), "Complex data", id="complex"),
    pytest.param(np.full(N, 1.7e308), "sample_weight", id="sum overflows"),
]
BAD_FIT_WEIGHTS = [
    *BAD_WEIGHTS,
    pytest.param(np.eye(1, N)[0], "2 rows.*sample_weight", id="one row counts"),
    pytest.param(np.full(N, 1e-320), "sample_weight", id="subnormal"),
]


@pytest.mark.parametrize("weight", WEIGHTS)
def test_weights_that_work(estimator_class, weight):
    if not has_fit_parameter(estimator_class, "sample_weight"):
        pytest.skip("no sample_weight")
    estimator = train(tiny(estimator_class), X, sample_weight=weight)
    assert_sensible(estimator, X, *X.shape)


@pytest.mark.parametrize(("weight", "match"), BAD_FIT_WEIGHTS)
def test_weights_refused_at_fit(estimator_class, weight, match):
    if not has_fit_parameter(estimator_class, "sample_weight"):
        pytest.skip("no sample_weight")
    for estimator in both_for_faults_alone(estimator_class):
        with Unchanged(estimator), pytest.raises(REFUSAL, match=match):
            train(estimator, X, sample_weight=weight)


@pytest.mark.parametrize(("weight", "match"), BAD_WEIGHTS)
def test_weights_refused_by_score(estimator_class, weight, match):
    estimator = usual(estimator_class)
    score = getattr(estimator, "score", None)
    if score is None or "sample_weight" not in inspect.signature(score).parameters:
        pytest.skip("no weighted score")
    if get_tags(estimator).target_tags.required:
        pytest.skip("scikit-learn's own score")
    with Unchanged(estimator), pytest.raises(REFUSAL, match=match):
        score(X, sample_weight=weight)


@pytest.mark.parametrize(
    ("corrupted", "match"),
    [
        pytest.param(X[:5], "X_corrupted.*shape", id="too few rows"),
        pytest.param(X[:, :2], "X_corrupted", id="too few columns"),
        pytest.param(X[0], "1D array", id="1-D"),
        pytest.param(with_cell(np.nan), "X_corrupted contains NaN", id="NaN"),
        pytest.param(with_cell(np.inf), "X_corrupted contains inf", id="inf"),
        pytest.param(X + 0j, "Complex data", id="complex"),
        pytest.param(sp.csr_array(X), "Sparse data.*X_corrupted", id="sparse"),
        pytest.param(np.full((N, 3), "u"), "string to float", id="strings"),
        pytest.param(X * 1e300, "X_corrupted", id="1e300"),
    ],
)
def test_corrupted_rows_refused(estimator_class, corrupted, match):
    if not has_fit_parameter(estimator_class, "X_corrupted"):
        pytest.skip("no X_corrupted")
    for estimator in both_for_faults_alone(estimator_class):
        with Unchanged(estimator), pytest.raises(REFUSAL, match=match):
            train(estimator, X, X_corrupted=corrupted)


# ----------------------------------------------------------------------------- parameters


def returns_nothing(x, generator):
    return None


def returns_an_array(x, generator):
    return x.numpy()


def returns_nan(x, generator):
    return x * np.nan


def returns_infinity(x, generator):
    return x * np.inf


def drops_rows(x, generator):
    return x[:2]


def drops_columns(x, generator):
    return x[:, :2]


def returns_complex(x, generator):
    return x.to(torch.complex64)


NOT_A_FLAG = ["yes", None, 2]
NO_COLUMNS = [99, -9, 1.5, "a", [], [0, 99], [1.5], slice(None), {"a"}, lambda X: "a"]

BAD_PARAMETERS = {
    "autoencoder": [5, "a", skae.Autoencoder, PCA(), FrozenEstimator(PCA().fit(X))],
    "criterion": ["distance", None, 1],
    "contamination": [0.0, 0.6, -0.1, np.nan, "a", None],
    "calibration_fraction": [1.0, -0.1, np.nan, "a", None],
    "label_weight": [0.0, -1.0, np.nan, np.inf, "a", None],
    "reconstruction_weight": [-1.0, np.nan, np.inf, "a", None],
    "fine_tune": NOT_A_FLAG,
    "class_weight": [5, "heavy", (1, 2)],
    "n_components": [
        *(0, -1, 0.0, 1.0, 2.5, np.nan, np.inf, None, "many", [2], 2 + 0j, 10**15, 10**30)
    ],
    "hidden_layer_sizes": [
        *(5, None, "ab", {4}, (0,), (8, -1), (2.5,), ("a",), (None,), ((4,),), (np.nan,)),
        *((True,), (10**15,), (10**30,)),
    ],
    "activation": ["sine", None, 1, torch.tanh],
    "architecture": ["unknown", None, 1],
    "feature_shape": [5, "ab", (4,), (0, 3), (-1, -1), (1.5, 2), (None,), (10**30,)],
    "linear_skip": NOT_A_FLAG,
    "tied_weights": NOT_A_FLAG,
    "likelihood": ["cauchy", None, 1, ["gaussian"]],
    "noise": [0.0, -1.0, np.nan, np.inf, "full", None, [1.0]],
    "corruption": [
        *(0.3, "dropout", returns_nothing, returns_an_array, returns_nan, returns_infinity),
        *(drops_rows, drops_columns, returns_complex),
    ],
    "corruption_level": [-1.0, np.nan, np.inf, "a", None],
    "sparsity": ["l2", None, 1],
    "sparsity_weight": [-1.0, np.nan, np.inf, "a", None],
    "target_rate": [0.0, 1.0, np.nan, "a", None],
    "n_active": [0, -1, 1.5, "a", None],
    "contraction": [-1.0, np.nan, np.inf, "a", None],
    "n_projections": [0, -1, 1.5, "a"],
    "posterior_covariance": ["spherical", None, 1],
    "beta": [-1.0, np.nan, np.inf, "a", None],
    "kl_warm_up": [0.6, 1.0, -0.1, np.nan, "a", None],
    "n_importance_samples": [0, -1, 1.5, "a", None],
    "n_codes": [0, -1, 1.5, "a", None],
    "n_codebooks": [0, -1, 1.5, "a", None],
    "commitment_cost": [-1.0, np.nan, np.inf, "a", None],
    "prior_weight": [-1.0, np.nan, np.inf, "a", None],
    "condition": NO_COLUMNS,
    "sensitive": NO_COLUMNS,
    "leak_weight": [-1.0, np.nan, np.inf, "a", None],
    "dropout": [1.0, -0.1, np.nan, np.inf, "a", None],
    "weight_decay": [-1.0, np.nan, np.inf, "a", None],
    "trim": [1.0, -0.1, np.nan, "a", None],
    "layerwise_epochs": [-1, 1.5, np.nan, "a", None],
    "learning_rate": [0.0, -1.0, np.nan, np.inf, "a", None, 1e100, 1e308],
    "max_epochs": [-1, 1.5, np.nan, np.inf, "a", None],
    "batch_size": [0, -1, 1.5, "all", None],
    "early_stopping": NOT_A_FLAG,
    "validation_fraction": [0.0, 1.0, -0.1, np.nan, "a", None],
    "n_iter_no_change": [0, -1, 1.5, "a"],
    "tol": [-1.0, np.nan, np.inf, "a", None],
    "warm_start": NOT_A_FLAG,
    "callbacks": [5, "a", [1], ["a"], [int], [returns_nothing]],
    "device": [5, None, "", "no-such-device", "cuda:99", "meta", torch.device("cpu")],
    "precision": ["float16", None, 32, torch.float32],
    "random_state": [-1, 2**32, 1.5, np.nan, "a", np.random.default_rng(0)],
    "verbose": [-1, 1.5, "a", None],
}


def value_id(value):
    return getattr(value, "__name__", None) or str(value)[:30]


def test_every_parameter_has_bad_values(estimator_class):
    assert set(estimator_class().get_params()) <= set(BAD_PARAMETERS)
    assert all(BAD_PARAMETERS.values())


@pytest.mark.parametrize(
    ("estimator_class", "name", "value"),
    [
        pytest.param(
            estimator_class, name, value, id=f"{estimator_class.__name__}-{name}={value_id(value)}"
        )
        for estimator_class in public_estimators()
        # What an autoencoder within has besides is its own to refuse.
        for name in estimator_class().get_params(deep=False)
        for value in BAD_PARAMETERS.get(name, [])
    ],
)
def test_bad_parameters_are_named(estimator_class, name, value):
    fitted = usual(estimator_class)
    before = fitted.get_params(deep=False)[name]
    try:
        for estimator in (tiny(estimator_class, **{name: value}), fitted):
            estimator.set_params(**{name: value})
            with Unchanged(estimator), pytest.raises(REFUSAL, match=rf"\b{name}\b"):
                train(estimator, X)
    finally:
        fitted.set_params(**{name: before})


def test_an_unknown_parameter_is_named(estimator_class):
    estimator = trained(estimator_class)
    with Unchanged(estimator), pytest.raises(ValueError, match="'no_such_parameter'"):
        estimator.set_params(no_such_parameter=1)
    with pytest.raises(TypeError, match="no_such_parameter"):
        estimator_class(no_such_parameter=1)


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"early_stopping": True},
        {"early_stopping": False},
        {"precision": "float32"},
        {"linear_skip": False},
        {"hidden_layer_sizes": ()},
        {"activation": "tanh"},
        {"likelihood": "bernoulli"},
        {"noise": "diagonal"},
        {"tied_weights": True},
        {"batch_size": 8},
        {"layerwise_epochs": 2},
    ],
    ids=str,
)
def test_a_divergence_is_said(estimator_class, parameters):
    rows = (X > 0).astype(float) if "likelihood" in parameters else X
    estimator = tiny(estimator_class, learning_rate=1e6, **parameters)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _, refusal = attempt(lambda: train(estimator, rows))
    said = [str(w.message) for w in caught if w.category is ConvergenceWarning] + [refusal or ""]
    assert any(
        re.search(r"(diverged|broke down: the loss became (inf|nan)\.).*Lower learning_rate", s)
        for s in said
    )
    if refusal is None:
        assert_sensible(estimator, rows, *rows.shape)


@pytest.mark.parametrize("early_stopping", ["auto", True])
@pytest.mark.parametrize("fraction", [1e-9, 1 - 1e-9])
def test_a_validation_fraction_that_leaves_no_row(estimator_class, fraction, early_stopping):
    """All rows train, as without held-out rows."""
    chosen = {"validation_fraction": fraction, "early_stopping": early_stopping}
    estimator = trained(estimator_class, **chosen)
    assert core(estimator).validation_curve_ == []
    assert_same(answers(estimator, X), answers(trained(estimator_class, early_stopping=False), X))


def test_a_batch_larger_than_the_data_is_all_of_it(estimator_class):
    got = answers(trained(estimator_class, batch_size=10**6), X)
    assert_same(got, answers(trained(estimator_class, batch_size=N), X))


# -------------------------------------------------------------------- arguments of methods

CALLS = [
    pytest.param("inverse_transform", ([[np.nan, 0.0]],), "X contains NaN", id="Z NaN"),
    pytest.param("inverse_transform", ([[np.inf, 0.0]],), "X contains infinity", id="Z inf"),
    pytest.param("inverse_transform", (np.zeros(2),), "1D array", id="Z 1-D"),
    pytest.param("inverse_transform", (np.zeros((1, 1, 2)),), "dim 3", id="Z 3-D"),
    pytest.param("inverse_transform", (np.zeros((0, 2)),), "0 sample", id="Z empty"),
    pytest.param("inverse_transform", (np.zeros((4, 5)),), "X has 5 columns", id="Z wide"),
    pytest.param("inverse_transform", (np.zeros((4, 1)),), "X has 1 columns", id="Z narrow"),
    pytest.param("inverse_transform", (np.zeros((4, 2), complex),), "Complex data", id="Z complex"),
    pytest.param("inverse_transform", (sp.csr_array((4, 2)),), "Sparse.*X.*dense", id="Z sparse"),
    pytest.param("inverse_transform", ([["u", "v"]],), "to float: 'u'", id="Z strings"),
    pytest.param("inverse_transform", (None,), "scalar", id="Z None"),
    pytest.param("sample", (0,), "n_samples", id="sample 0"),
    pytest.param("sample", (-1,), "n_samples", id="sample -1"),
    pytest.param("sample", (1.5,), "n_samples", id="sample 1.5"),
    pytest.param("sample", ("a",), "n_samples", id="sample a"),
    pytest.param("sample", (None,), "n_samples", id="sample None"),
    pytest.param("sample", (10**15,), "n_samples", id="sample 1e15"),
    pytest.param("sample", (10**30,), "n_samples", id="sample 1e30"),
    pytest.param("sample", (1, False, "a"), "seed", id="sample seed a"),
    pytest.param("sample", (1, False, -1), "[Ss]eed", id="sample seed -1"),
    pytest.param("interpolate", (X[:2], X[:3]), "2 rows.*3.*pairs", id="unequal pairs"),
    pytest.param("interpolate", (X[:2], X[:2], 1), "n_steps", id="one step"),
    pytest.param("interpolate", (X[:2], X[:2], 2.5), "n_steps", id="steps of 2.5"),
    pytest.param("interpolate", (X[:2], X[:2], None), "n_steps", id="steps None"),
    pytest.param("interpolate", (X[:2, :2], X[:2]), "2 features", id="pairs missing column"),
    pytest.param("interpolate", (X[0] * np.nan, X[0]), "NaN", id="pairs NaN"),
    pytest.param("interpolate", ("a", "b"), "to float: 'a'", id="pairs of strings"),
    pytest.param("interpolate", (None, X[0]), "scalar", id="pairs of None"),
    pytest.param("traverse", (X[:2], 0, [0.0]), "single row", id="traverse two rows"),
    pytest.param("traverse", (X[0], 4, [0.0]), "component", id="component 4"),
    pytest.param("traverse", (X[0], -1, [0.0]), "component", id="component -1"),
    pytest.param("traverse", (X[0], 0.5, [0.0]), "component", id="component 0.5"),
    pytest.param("traverse", (X[0], None, [0.0]), "component", id="component None"),
    pytest.param("traverse", (X[0], 0, [np.nan]), "values.*NaN", id="values NaN"),
    pytest.param("traverse", (X[0], 0, [[1.0, 2.0]]), "values", id="values 2-D"),
    pytest.param("traverse", (X[0], 0, []), "values", id="no values"),
    pytest.param("traverse", (X[0], 0, ["u"]), "values|to float: 'u'", id="values strings"),
    pytest.param("traverse", (X[0], 0, [1j]), "complex", id="values complex"),
]


@pytest.mark.parametrize(("method", "arguments", "match"), CALLS)
def test_refused_arguments(estimator_class, method, arguments, match):
    if not hasattr(estimator_class, method):
        pytest.skip(f"no {method}")
    estimator = usual(estimator_class)
    with Unchanged(estimator), pytest.raises(REFUSAL, match=match):
        getattr(estimator, method)(*arguments)


@pytest.mark.parametrize("precision", ["auto", "float32"])
@pytest.mark.parametrize("value", [1e-300, 1e30, 1e150, -1e300])
def test_huge_codes(estimator_class, value, precision):
    if not hasattr(estimator_class, "inverse_transform"):
        pytest.skip("no inverse_transform")
    estimator = trained(estimator_class, precision=precision)
    codes = np.zeros((4, len(estimator.get_feature_names_out())))
    codes[1, 1] = value
    calls = [lambda: estimator.inverse_transform(codes)]
    if hasattr(estimator, "traverse"):
        calls.append(lambda: estimator.traverse(X[0], 1, [value]))
    for call in calls:
        got, refusal = attempt(call)
        if refusal is None:
            assert np.isfinite(got).all()
        else:
            assert re.search("[Cc]olumn 1|values", refusal), refusal


# ------------------------------------------------------------------------------- unfitted

UNFITTED = {
    **{name: (X,) for name in (*ANSWERS, "score")},
    "inverse_transform": (X[:, :2],),
    "sample": (),
    "interpolate": (X[:1], X[:1]),
    "traverse": (X[0], 0, [0.0]),
    "get_feature_names_out": (),
}


def test_unfitted_use(estimator_class):
    estimator = tiny(estimator_class)
    for name, arguments in UNFITTED.items():
        if hasattr(estimator, name):
            wants = name in WITH_TARGETS
            method = partial(train, estimator, method=name) if wants else getattr(estimator, name)
            with pytest.raises(NotFittedError, match=r"not fitted yet.*'fit'"):
                method(*arguments)


def test_an_unfitted_one_copies_and_pickles(estimator_class):
    estimator = tiny(estimator_class)
    for other in (
        pickle.loads(pickle.dumps(estimator)),
        copy.deepcopy(estimator),
        copy.copy(estimator),
        clone(estimator),
    ):
        assert parameters(other) == parameters(estimator)
        assert_same(answers(train(other, X), X), reference(estimator_class))


# -------------------------------------------------------------------- settings of torch


def default_float64():
    torch.set_default_dtype(torch.float64)
    return lambda: torch.set_default_dtype(torch.float32)


def default_float16():
    torch.set_default_dtype(torch.float16)
    return lambda: torch.set_default_dtype(torch.float32)


def entered(context):
    context.__enter__()
    return lambda: context.__exit__(None, None, None)


SETTINGS = {
    "default float64": default_float64,
    "default float16": default_float16,
    "inference_mode": lambda: entered(torch.inference_mode()),
    "no_grad": lambda: entered(torch.no_grad()),
    "autocast": lambda: entered(torch.autocast("cpu", torch.bfloat16)),
    "numpy raises": lambda: entered(np.errstate(all="raise")),
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_settings_of_torch_change_no_bit(estimator_class, setting):
    expected = reference(estimator_class)
    outside = trained(estimator_class)
    pickled = pickle.dumps(outside)
    undo = SETTINGS[setting]()
    try:
        inside = train(tiny(estimator_class), X)
        unpickled = pickle.loads(pickled)
        said = [answers(estimator, X) for estimator in (inside, outside, unpickled)]
        copied = copy.deepcopy(inside)
    finally:
        undo()
    for got in said:
        assert_same(got, expected)
    for estimator in (inside, outside, unpickled, copied):
        assert_same(answers(estimator, X), expected)
        assert_same(answers(train(estimator, X), X), expected)
    if hasattr(estimator_class, "partial_fit"):
        assert_sensible(train(inside, X, "partial_fit"), X, *X.shape)
        assert_sensible(train(copied, X, "partial_fit"), X, *X.shape)


# ------------------------------------------------------------------- interrupts and errors


class Failure(Exception):
    """Raised by what a user passes in; must arrive as it is."""


def fail():
    raise Failure("of the user")


def press_ctrl_c():
    signal.raise_signal(signal.SIGINT)


FAILURES = [
    pytest.param(fail, Failure, id="error"),
    pytest.param(press_ctrl_c, KeyboardInterrupt, id="Ctrl-C"),
]


class FailingTable:
    """Fails while it is read."""

    def __init__(self, failing):
        self.failing = failing

    def __array__(self, dtype=None, copy=None):
        self.failing()
        return X

    def __len__(self):
        return N


class FailingCallback(Callback):
    """A skorch callback that fails at one of its methods, its copies too."""

    def __init__(self, **hooks):
        vars(self).update(hooks)

    @classmethod
    def at(cls, hook, failing):
        return cls(**{hook: lambda *args, **kwargs: failing()})

    def initialize(self):
        return self


class FailingTask:
    """A scikit-learn callback that fails at the beginning or the end of the fit or an epoch."""

    def __init__(self, hook, task, failing):
        self.hook, self.task, self.failing = hook, task, failing

    def _at(self, hook, context):
        if hook == self.hook and (context.task_name == "epoch") == (self.task == "epoch"):
            self.failing()

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        self._at("begin", context)

    def on_fit_task_end(self, estimator, context):
        self._at("end", context)


HOOKS = [
    "on_train_begin",
    "on_epoch_begin",
    "on_batch_begin",
    "on_grad_computed",
    "on_batch_end",
    "on_epoch_end",
    "on_train_end",
]


def assert_fault_leaves_no_trace(estimator_class, prepare, failing, error):
    """Prepare an unfitted and a fitted estimator to fail; both stay what they are."""
    for estimator in both(estimator_class):
        rows, undo = prepare(estimator, failing)
        with Unchanged(estimator), pytest.raises(error):
            train(estimator, rows)
        undo()
        assert_same(answers(train(estimator, X), X), reference(estimator_class))


@pytest.mark.parametrize(("failing", "error"), FAILURES)
def test_a_fault_while_rows_are_read(estimator_class, failing, error):
    def prepare(estimator, failing):
        return FailingTable(failing), lambda: None

    assert_fault_leaves_no_trace(estimator_class, prepare, failing, error)


@pytest.mark.parametrize(("failing", "error"), FAILURES)
@pytest.mark.parametrize("call", [1, 2, 3])
def test_a_fault_in_a_corruption(estimator_class, failing, error, call):
    tiny(estimator_class, corruption=None)

    def prepare(estimator, failing):
        calls, before = [], parameters(estimator).get("corruption")

        def corrupt(x, generator):
            calls.append(x)
            if len(calls) == call:
                failing()
            return x

        reset(estimator, corruption=corrupt)
        return X, lambda: reset(estimator, corruption=before)

    assert_fault_leaves_no_trace(estimator_class, prepare, failing, error)


@pytest.mark.parametrize(
    ("hook", "failing", "error"),
    [
        pytest.param(hook, *failure.values, id=f"{hook}-{failure.id}")
        for hook in HOOKS
        for failure in FAILURES
        # In this one hook skorch's callbacks say "stop" by KeyboardInterrupt.
        if (hook, failure.id) != ("on_epoch_end", "Ctrl-C")
    ],
)
def test_a_fault_in_a_callback(estimator_class, hook, failing, error):
    tiny(estimator_class, callbacks=None)

    def prepare(estimator, failing):
        reset(estimator, callbacks=[FailingCallback.at(hook, failing)])
        return X, lambda: reset(estimator, callbacks=None)

    assert_fault_leaves_no_trace(estimator_class, prepare, failing, error)


@pytest.mark.parametrize(("failing", "error"), FAILURES)
@pytest.mark.parametrize("task", ["fit", "epoch"])
@pytest.mark.parametrize("hook", ["begin", "end"])
def test_a_fault_in_a_scikit_learn_callback(estimator_class, hook, task, failing, error):
    if not hasattr(estimator_class, "set_callbacks"):
        pytest.skip("no set_callbacks")
    for estimator in both(estimator_class):
        estimator.set_callbacks(FailingTask(hook, task, failing))
        with Unchanged(estimator), pytest.raises(error):
            train(estimator, X)


@pytest.mark.parametrize("warm_start", [False, True])
def test_a_fault_in_going_on(estimator_class, warm_start):
    """Neither weights nor momentum nor history have moved."""
    estimators = [trained(estimator_class, warm_start=warm_start) for _ in range(2)]
    if not hasattr(estimator_class, "partial_fit"):
        pytest.skip("no partial_fit")
    for estimator in estimators:
        train(estimator, X, "partial_fit")
    failing = estimators[0].set_params(callbacks=[FailingCallback.at("on_train_end", fail)])
    for method in ("partial_fit", "fit"):
        with Unchanged(failing), pytest.raises(Failure):
            train(failing, X, method)
    failing.set_params(callbacks=None)
    for method in ("partial_fit", "fit", "partial_fit"):
        first, second = (answers(train(estimator, X, method), X) for estimator in estimators)
        assert_same(first, second)


# ------------------------------------------------------------------ threads and processes


@pytest.fixture
def two_threads():
    """Torch's own threads are running when processes are forked."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    square = torch.ones(600, 600)
    assert float((square @ square).sum()) > 0
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_predict_from_eight_threads(estimator_class):
    estimator = trained(estimator_class)
    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(lambda _: answers(estimator, X), range(32)))
    for got in said:
        assert_same(got, reference(estimator_class))
    assert torch.get_num_threads() == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
@pytest.mark.usefixtures("two_threads")
def test_predict_from_a_forked_child(estimator_class):
    estimator, expected = trained(estimator_class), reference(estimator_class)

    def child():
        assert_same(answers(estimator, X), expected)
        assert_same(answers(train(estimator, X), X), expected)
        return True

    assert in_forked_child(child, 30) == 0


IN_JOBS = [
    estimator_class
    for estimator_class in public_estimators()
    if not issubclass(estimator_class, BaseAutoencoder) or estimator_class is skae.Autoencoder
]
"""Processes meet a variant as they meet the plain one."""


def assert_same_in_jobs(estimator_class, backend):
    estimator = trained(estimator_class)
    parallel = Parallel(n_jobs=2, backend=backend, timeout=60)
    predicted = parallel(delayed(answers)(estimator, X) for _ in range(4))
    refitted = parallel(delayed(train_and_answer)(estimator_class) for _ in range(2))
    for got in (*predicted, *refitted):
        assert_same(got, reference(estimator_class))


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("backend", ["threading", "multiprocessing"])
@pytest.mark.parametrize("estimator_class", IN_JOBS, ids=lambda c: c.__name__)
@pytest.mark.usefixtures("two_threads")
def test_joblib(estimator_class, backend):
    assert_same_in_jobs(estimator_class, backend)


@pytest.mark.usefixtures("two_threads")
def test_joblib_in_new_processes():
    """All in one test, for which they start once: that takes them many seconds."""
    fit_in_two_jobs("loky")
    for estimator_class in IN_JOBS:
        assert_same_in_jobs(estimator_class, "loky")


# ----------------------------------------------------------------------- copies and pickles


def test_unpickling_without_the_device_of_the_fit(estimator_class):
    estimator = trained(estimator_class, device="cpu")
    expected = answers(estimator, X)
    # What a fit on an accelerator writes down, on a machine that has none by that name.
    reset(estimator, device="cuda:99")
    core(estimator)._fitted.parameters["device"] = "cuda:99"
    again = pickle.loads(pickle.dumps(estimator))
    assert next(core(again).module_.parameters()).device.type == "cpu"
    assert_same(answers(again, X), expected)
    with Unchanged(again), pytest.raises(ValueError, match=r"device='cuda:99'.*not available"):
        train(again, X)
    assert_same(answers(train(reset(again, device="cpu"), X), X), expected)


def test_clone_of_a_fitted_one_is_unfitted(estimator_class):
    estimator = trained(estimator_class)
    with Unchanged(estimator):
        cloned = clone(estimator)
        assert parameters(cloned) == parameters(estimator)
        with pytest.raises(NotFittedError):
            check_is_fitted(cloned)
        train(cloned, X[:, :2])
    assert_same(answers(train(cloned, X), X), reference(estimator_class))


OTHER_PARAMETERS = {
    "n_components": 1,
    "hidden_layer_sizes": (9, 9),
    "activation": "relu",
    "architecture": "unknown",
    "feature_shape": (7, 7),
    "linear_skip": False,
    "tied_weights": True,
    "likelihood": "bernoulli",
    "noise": "diagonal",
    "dropout": 0.5,
    "trim": 0.5,
    "precision": "float32",
    "device": "cuda:99",
    "early_stopping": False,
    "random_state": 1,
    "condition": 0,
    "sensitive": [0, 1],
    "leak_weight": 2.0,
}


@pytest.mark.parametrize("name", [*OTHER_PARAMETERS, "all"])
def test_set_params_after_fit_changes_no_answer(estimator_class, name):
    """Not even after a pickle, which builds the network anew."""
    estimator, expected = trained(estimator_class), reference(estimator_class)
    chosen = OTHER_PARAMETERS if name == "all" else {name: OTHER_PARAMETERS[name]}
    known = core(estimator).get_params()
    reset(estimator, **{key: value for key, value in chosen.items() if key in known})
    assert_same(answers(estimator, X), expected)
    assert_same(answers(pickle.loads(pickle.dumps(estimator)), X), expected)
    assert_same(answers(copy.deepcopy(estimator), X), expected)
    assert repr(estimator)


@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, copy.copy, lambda a: pickle.loads(pickle.dumps(a))],
    ids=["deepcopy", "copy", "pickle"],
)
def test_copies_share_nothing_that_changes(estimator_class, duplicate):
    estimator = trained(estimator_class)
    center = core(estimator).module_.inputs.center
    with Unchanged(estimator):
        for method in ("partial_fit", "fit"):
            other = duplicate(estimator)
            assert_same(answers(other, X), reference(estimator_class))
            if hasattr(other, method):
                train(other, 3 * X, method)
                if method == "fit":
                    assert not np.array_equal(core(other).module_.inputs.center, center)
