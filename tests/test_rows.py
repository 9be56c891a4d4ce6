"""How tables of rows are read, and which of them are refused."""

import copy
import re
import tempfile
from functools import partial
from inspect import ismethod, signature

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from sklearn.utils.validation import has_fit_parameter
from small_models import (
    AUTOENCODERS,
    ESTIMATORS,
    FRAME,
    META_ESTIMATORS,
    ROW_METHODS,
    WITH_TARGETS,
    N,
    Unchanged,
    X,
    assert_same,
    assert_valid_outputs,
    crossed,
    expected_outputs,
    fitted,
    fitted_once,
    for_each,
    is_fast,
    outcome,
    outputs,
    takes,
    tiny,
    unfitted_and_fitted,
    with_cell,
    with_method,
)
from test_common import train

import skae
from skae.table.blocks import Modelling
from skae.table.columns import Support
from skae.table.schema import Schema
from skae.table.sequences import RowShape


def infer(rows):
    """The schema of a table for a model without conditions, and its rows."""
    support, shape = Support("gaussian", -np.inf, np.inf), RowShape(None, False)
    modelling = Modelling(support.likelihood, {support.likelihood: support})
    return Schema.infer(rows, ("", None), modelling, shape, "Autoencoder")


def with_column(values):
    rows = X.copy()
    rows[:, 1] = values
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


# ------------------------------------------------------------------- the same table, many forms

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
def test_the_schema_reads_the_same_cells_from_any_container(rows):
    before = copy.deepcopy(rows)
    schema, first = infer(rows)
    for read in (first, schema.read(rows)):
        assert read.values.dtype == np.float64
        np.testing.assert_allclose(read.values, X, rtol=1e-15)
    np.testing.assert_array_equal(np.asarray(rows), np.asarray(before))


@pytest.mark.parametrize(("estimator_class", "rows"), crossed(SAME_TABLE, always=()))
def test_outputs_are_the_same_for_any_container(estimator_class, rows):
    before = copy.deepcopy(rows)
    actual = outputs(fitted(estimator_class, rows), rows)
    expected = expected_outputs(estimator_class)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, rtol=1e-6, atol=1e-9, err_msg=name)
    np.testing.assert_array_equal(np.asarray(rows), np.asarray(before))


# --------------------------------------------------------------------------- tables that work

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
    pytest.param(X, {"n_components": 7}, id="more components than columns"),
    pytest.param(X[:2], {"n_components": 7}, id="more components than rows"),
    pytest.param(X[:, :1], {"n_components": 7}, id="more components than the one column"),
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

FITS_THAT_WORK = with_method(WORKS, "fit", "partial_fit")


def has_method_and_parameters(estimator_class, method, rows, parameters):
    return hasattr(estimator_class, method) and takes(estimator_class, parameters)


CROSSED_FITS = crossed(FITS_THAT_WORK, applies=has_method_and_parameters)


@pytest.mark.filterwarnings("ignore:The noise variance cannot be estimated:UserWarning")
@pytest.mark.filterwarnings("ignore:n_components=. exceeds the number of columns:UserWarning")
@pytest.mark.parametrize(("estimator_class", "method", "rows", "parameters"), CROSSED_FITS)
def test_fits_that_work(estimator_class, method, rows, parameters):
    estimator = train(tiny(estimator_class, **parameters), rows, method)
    assert_valid_outputs(estimator, rows, *rows.shape)


def test_the_fits_that_are_run_by_default_cover_estimators_tables_and_methods():
    fast = [case for case in CROSSED_FITS if is_fast(case)]
    assert len(fast) < len(CROSSED_FITS) / 3
    of_autoencoder = [case for case in fast if case.values[0] is skae.Autoencoder]
    assert len(of_autoencoder) == len(FITS_THAT_WORK)
    methods = [(c, m) for c in ESTIMATORS for m in ("fit", "partial_fit") if hasattr(c, m)]
    assert {case.values[:2] for case in fast} == set(methods)


# ------------------------------------------------------------------- tables that are refused

STRUCTURED = np.zeros(5, dtype=[("a", float), ("b", float)])
SCALAR = "got scalar array instead"
INVALID_TABLES = [
    pytest.param(with_cell(np.nan), ValueError, "X contains NaN", id="NaN"),
    pytest.param(with_cell(np.inf), ValueError, "X contains infinity", id="inf"),
    pytest.param(with_cell(-np.inf), ValueError, "X contains infinity", id="minus inf"),
    pytest.param(with_cell(np.nan).astype("f"), ValueError, "X contains NaN", id="float32 NaN"),
    pytest.param(
        np.where(X > 1.5, None, X), ValueError, "X contains NaN", id="None among the cells"
    ),
    pytest.param(with_column(np.nan).tolist(), ValueError, "X contains NaN", id="NaN in a list"),
    pytest.param(np.array([["u", "v", "w"]] * N), ValueError, "In column 0 .*'u'", id="strings"),
    pytest.param(
        np.array([[1.0, "u", 2.0]] * N, object),
        ValueError,
        "In column 1 .*'u'",
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
    pytest.param([[1, 2], [3]], ValueError, "must have the same length", id="ragged"),
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
        r"In column 2 \('c'\) .*'u'",
        id="categories",
    ),
    pytest.param(
        FRAME.assign(c=["u", "v"] * 20), ValueError, "In column 2 .*'u'", id="text column"
    ),
    pytest.param(
        FRAME.assign(c=pd.date_range("2020", periods=N)),
        TypeError,
        "In column 2 .*2020",
        id="dates",
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
"""Refused while training and by every method afterwards."""

TOO_SMALL_TO_FIT = [
    pytest.param(X[:1], ValueError, r"1 sample\(s\).*minimum of 2", id="one row"),
    pytest.param(FRAME[:1], ValueError, r"1 sample\(s\).*minimum of 2", id="one row of a frame"),
]
REFUSED_BY_FIT = [*INVALID_TABLES, *TOO_SMALL_TO_FIT]

OTHER_COLUMNS = [
    pytest.param(X[:, :2], ValueError, "2 features.*expecting 3 features", id="missing column"),
    pytest.param(np.c_[X, X], ValueError, "6 features.*expecting 3 features", id="extra columns"),
    pytest.param(X[0], ValueError, "(?s)1D array.*Reshape", id="one row as a vector"),
]
OTHER_FRAMES = [
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


@pytest.mark.parametrize(("rows", "error", "match"), REFUSED_BY_FIT)
def test_the_schema_of_an_invalid_table_is_refused(rows, error, match):
    with pytest.raises(error, match=match):
        infer(rows)


@pytest.mark.parametrize(("rows", "error", "match"), [*INVALID_TABLES, *OTHER_COLUMNS])
# A frame after an array is allowed with a warning, as everywhere in scikit-learn.
@pytest.mark.filterwarnings("ignore:X has feature names:UserWarning")
def test_the_schema_refuses_to_read_an_invalid_table(rows, error, match):
    schema, _ = infer(X)
    with pytest.raises(error, match=match):
        schema.read(rows)


@pytest.mark.parametrize(("rows", "error", "match"), OTHER_FRAMES)
def test_the_schema_of_a_frame_refuses_frames_of_other_columns(rows, error, match):
    schema, _ = infer(FRAME)
    with pytest.raises(error, match=match):
        schema.read(rows)


def shape_that_refuses(match):
    """A shape of rows, which must be complete numbers, if the error is about cells."""
    is_about_cells = match.startswith(("X contains NaN", "In column"))
    return {"feature_shape": (3,)} if is_about_cells else {}


@pytest.mark.parametrize(
    ("estimator_class", "rows", "error", "match"),
    crossed(REFUSED_BY_FIT, META_ESTIMATORS, always=(), others=1, whole=False),
)
def test_estimators_over_an_autoencoder_refuse_to_fit(estimator_class, rows, error, match):
    """They read rows before their autoencoder does. Rows of a shape must be complete numbers."""
    shape = shape_that_refuses(match)
    for estimator in (tiny(estimator_class, **shape), fitted_once(estimator_class, **shape)):
        with Unchanged(estimator), pytest.raises(error, match=match):
            train(estimator, rows)


@pytest.mark.parametrize(
    ("estimator_class", "rows", "error", "match"),
    crossed([*INVALID_TABLES, *OTHER_COLUMNS], META_ESTIMATORS, always=(), others=1, whole=False),
)
@pytest.mark.filterwarnings("ignore:X has feature names:UserWarning")
def test_estimators_over_an_autoencoder_refuse_to_predict(estimator_class, rows, error, match):
    shape = shape_that_refuses(match)
    estimator = fitted_once(estimator_class, **shape)
    method = next(name for name in ROW_METHODS if hasattr(estimator_class, name))
    with Unchanged(estimator), pytest.raises(error, match=match):
        getattr(estimator, method)(rows)


# ---------------------------------------------------------- every method refuses invalid tables

SOME_INVALID_TABLES = [
    (with_cell(np.inf), ValueError, "X contains infinity"),
    (sp.csr_array(X), TypeError, "Sparse data.*toarray"),
    (X[None], ValueError, "dim 3"),
    (X[:0], ValueError, r"0 sample\(s\)"),
]

OTHER_ARGUMENTS = {"translate": (0,), "traverse": (0, [0.0]), "posterior_predictive": (2, 0)}
"""What methods take beside rows."""

OF_CODES = {"inverse_transform"}
WITH_CONDITIONS_OF_THEIR_OWN = {"p_values", "audit", "add_label"}
"""Methods that refuse the usual small models before they read rows."""


def calls_with_rows(estimator):
    """All public methods of a fitted estimator that read rows, each as a function of rows."""
    calls = {}
    for name in dir(estimator):
        if name.startswith(("_", "fit")) or name in OF_CODES | WITH_CONDITIONS_OF_THEIR_OWN:
            continue
        # Some names of a class are attributes of fitted models only, or of other parameters.
        method = getattr(estimator, name, None)
        names = [*signature(method).parameters] if ismethod(method) else []
        if name in WITH_TARGETS:
            calls[name] = partial(train, estimator, method=name)
        elif names[:2] == ["A", "B"]:
            calls[name] = lambda rows, method=method: method(rows, rows)
        elif names and names[0] in ("X", "x"):
            calls[name] = lambda rows, name=name, method=method: method(
                rows, *OTHER_ARGUMENTS.get(name, ())
            )
    return calls


def methods_that_take(estimator, rows, match):
    """Methods that do not refuse rows with the right message, each with what it says instead."""
    wrong = {}
    for name, call in calls_with_rows(estimator).items():
        result, message = outcome(partial(call, rows))
        if message is None or not re.search(match, message):
            wrong[name] = message or result
    return wrong


@for_each()
def test_every_method_refuses_invalid_tables(estimator_class):
    estimator = fitted_once(estimator_class)
    assert set(calls_with_rows(estimator)) >= {m for m in ROW_METHODS if hasattr(estimator, m)}
    tables = [*SOME_INVALID_TABLES, (X[:, :2], ValueError, "2 features.*expecting 3")]
    with Unchanged(estimator):
        for rows, _, match in tables:
            assert methods_that_take(estimator, rows, match) == {}


@for_each()
def test_every_method_refuses_frames_of_other_columns(estimator_class):
    estimator = fitted(estimator_class, FRAME)
    with Unchanged(estimator, FRAME):
        assert methods_that_take(estimator, FRAME[["b", "a", "c"]], "same order") == {}


@for_each()
def test_training_refuses_invalid_tables(estimator_class):
    """An unfitted estimator stays unfitted, and a fitted one keeps its model."""
    tables = [*SOME_INVALID_TABLES, ((row for row in X.tolist()), TypeError, "generator")]
    one_row = [(X[:1], ValueError, r"1 sample\(s\).*minimum of 2")]
    calls = [("fit", tiny(estimator_class)), ("fit", fitted_once(estimator_class))]
    if hasattr(estimator_class, "partial_fit"):
        calls.append(("partial_fit", tiny(estimator_class)))
    for method, estimator in calls:
        for rows, error, match in tables + one_row * (method == "fit"):
            with Unchanged(estimator), pytest.raises(error, match=match):
                train(estimator, rows, method)


@for_each(AUTOENCODERS)
def test_a_warm_start_refuses_tables_of_other_columns(estimator_class):
    estimator = fitted(estimator_class, warm_start=True)
    with Unchanged(estimator), pytest.raises(ValueError, match=r"2 features.*expecting 3"):
        train(estimator, X[:, :2])


@for_each()
def test_an_array_after_a_frame_warns_and_works(estimator_class):
    estimator = fitted(estimator_class, FRAME)
    with pytest.warns(UserWarning, match="valid feature names"):
        actual = outputs(estimator, X)
    assert_same(actual, outputs(estimator, FRAME))


@for_each()
@pytest.mark.parametrize("shift", [-0.1, 0.1])
def test_rows_outside_the_range_of_the_likelihood_are_refused(estimator_class, shift):
    """The message has each end of the range and the remedies."""
    inside = (X > 0).astype(float)
    match = r"\[0, 1\].*MinMaxScaler.*likelihood='gaussian'"
    for estimator in unfitted_and_fitted(estimator_class, inside, likelihood="bernoulli"):
        with Unchanged(estimator, inside), pytest.raises(ValueError, match=match):
            train(estimator, inside + shift)


@for_each()
def test_training_leaves_its_arguments_unchanged(estimator_class):
    for method in ("fit", "partial_fit"):
        if hasattr(estimator_class, method):
            weight = np.arange(N) % 3
            arguments = {"sample_weight": weight.astype(np.float64)}
            if has_fit_parameter(estimator_class, "X_corrupted"):
                arguments["X_corrupted"] = X + 1
            rows, before = X.copy(), copy.deepcopy(arguments)
            train(tiny(estimator_class), rows, method, **arguments)
            np.testing.assert_array_equal(rows, X)
            for name, value in before.items():
                np.testing.assert_array_equal(arguments[name], value, err_msg=name)


# ------------------------------------------------------------- all methods of one fitted model

IN_THE_DTYPE_OF_ROWS = ("transform", "reconstruct", "inverse_transform")
IN_FLOAT64 = ("reconstruction_error", "score_samples")


@for_each()
def test_methods_of_a_fitted_model(estimator_class):
    """All methods of one fitted model, none of which changes the model or the rows."""
    estimator, rows = fitted_once(estimator_class), X.copy()
    with Unchanged(estimator):
        assert_valid_outputs(estimator, rows, N, 3)
        calls = calls_with_rows(estimator)
        for name in set(calls) - {"partial_fit", "translate", "traverse"}:
            result = calls[name](rows)
            for value in result if isinstance(result, tuple) else (result,):
                assert np.isfinite(np.asarray(value, dtype=np.float64)).all(), name
            again = calls[name](rows)
            np.testing.assert_array_equal(again, result, err_msg=name)
        np.testing.assert_array_equal(rows, X)
        results, singles = outputs(estimator, rows), outputs(estimator, rows.astype(np.float32))
        for name in set(results) & set(IN_THE_DTYPE_OF_ROWS):
            assert singles[name].dtype == np.float32, name
            np.testing.assert_allclose(singles[name], results[name], 1e-4, 1e-4, err_msg=name)
        for name in set(results) & set(IN_FLOAT64):
            assert singles[name].dtype == np.float64, name
        assert all(
            value.dtype.kind == "i" or value.dtype == np.float64 for value in results.values()
        )
        if "transform" in results:
            assert len(estimator.get_feature_names_out()) == results["transform"].shape[1]
        assert estimator.n_features_in_ == 3
        assert not hasattr(estimator, "feature_names_in_")
        assert estimator_class.__name__ in repr(estimator)
