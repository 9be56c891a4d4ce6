"""Invalid arguments of methods are refused by an error that names them; models stay unchanged."""

import inspect
import re
from functools import cache, partial

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
from sklearn.exceptions import NotFittedError
from sklearn.utils import get_tags
from sklearn.utils.validation import has_fit_parameter
from small_models import (
    AUTOENCODERS,
    ESTIMATORS,
    INVALID,
    ROW_METHODS,
    WITH_TARGETS,
    N,
    Unchanged,
    X,
    assert_valid_outputs,
    case_of,
    crossed,
    definers,
    fitted_once,
    for_each,
    tiny,
    with_cell,
)
from test_common import train

import skae
from skae.base import BaseAutoencoder
from skae.table.weights import read_weight
from skae.variants.conditioned import ConditionedAutoencoder
from skae.variants.variational import VariationalAutoencoder

# ---------------------------------------------------------------------------- inherited methods

OVERRIDES = {
    "partial_fit": {"FairAutoencoder", "SemiSupervisedVariationalAutoencoder"},
    "score": {"SemiSupervisedVariationalAutoencoder"},
    "inverse_transform": {"ConditionalVariationalAutoencoder", "FairAutoencoder"},
    "sample": {"ConditionalVariationalAutoencoder", "FairAutoencoder"},
}
"""Methods that autoencoders do not inherit from `BaseAutoencoder`, and which do not."""

SHARED_STEPS = ("_train", "_partial_fit", "_fit_rows", "_read_fitted", "_read_codes", "_sample")
"""Private methods in which shared methods validate their arguments and replace the model."""


def shared_methods():
    """Names of all methods of `BaseAutoencoder` that are tested on one estimator only."""
    public = [n for n, m in vars(BaseAutoencoder).items() if inspect.isfunction(m) and n[0] != "_"]
    return [*public, *SHARED_STEPS, "__getstate__", "__setstate__", "__sklearn_is_fitted__"]


@pytest.mark.parametrize("name", shared_methods())
def test_autoencoders_inherit_the_methods_of_their_base(name):
    """What is tested on one estimator for each definition of a method holds for all."""
    shared = getattr(BaseAutoencoder, name)
    overriding = {c.__name__ for c in AUTOENCODERS if getattr(c, name) is not shared}
    assert overriding == OVERRIDES.get(name, set())


def of_each_definition(calls):
    """Cases of methods, each for the first estimator of each of that method's definitions."""
    return [
        case_of(estimator_class, *call.values, label=call.id)
        for call in calls
        for estimator_class in definers(call.values[0], AUTOENCODERS)
    ]


INVALID_CALLS = [
    pytest.param("inverse_transform", ([[np.nan, 0.0]],), "X contains NaN", id="Z NaN"),
    pytest.param("inverse_transform", ([[np.inf, 0.0]],), "X contains infinity", id="Z inf"),
    pytest.param("inverse_transform", (np.zeros(2),), "1D array", id="Z 1-D"),
    pytest.param("inverse_transform", (np.zeros((1, 1, 2)),), "dim 3", id="Z 3-D"),
    pytest.param("inverse_transform", (np.zeros((0, 2)),), "0 sample", id="Z empty"),
    pytest.param("inverse_transform", (np.zeros((4, 5)),), "X has 5 columns", id="Z wide"),
    pytest.param("inverse_transform", (np.zeros((4, 1)),), "X has 1 columns", id="Z narrow"),
    pytest.param("inverse_transform", (np.zeros((4, 2), complex),), "Complex data", id="Z complex"),
    pytest.param("inverse_transform", (sp.csr_array((4, 2)),), "Sparse.*X.*dense", id="Z sparse"),
    pytest.param(
        "inverse_transform", ([["u", "v"]],), "column 0 of X.*'u' in row 0", id="Z strings"
    ),
    pytest.param("inverse_transform", (None,), "scalar", id="Z None"),
    pytest.param("sample", (0,), "n_samples", id="sample 0"),
    pytest.param("sample", (-1,), "n_samples", id="sample -1"),
    pytest.param("sample", (1.5,), "n_samples", id="sample 1.5"),
    pytest.param("sample", ("a",), "n_samples", id="sample a"),
    pytest.param("sample", (None,), "n_samples", id="sample None"),
    pytest.param("sample", (True,), "n_samples", id="sample True"),
    pytest.param("sample", (10**15,), "n_samples", id="sample 1e15"),
    pytest.param("sample", (10**30,), "n_samples", id="sample 1e30"),
    pytest.param("sample", (1, False, "a"), "random_state", id="sample seed a"),
    pytest.param("sample", (1, False, -1), "random_state", id="sample seed -1"),
    pytest.param(
        "interpolate", (X[:2], X[:3]), "same number of rows, got 2 and 3", id="unequal pairs"
    ),
    pytest.param("interpolate", (X[:2], X[:2], 1), "n_steps", id="one step"),
    pytest.param("interpolate", (X[:2], X[:2], 2.5), "n_steps", id="steps of 2.5"),
    pytest.param("interpolate", (X[:2], X[:2], None), "n_steps", id="steps None"),
    pytest.param("interpolate", (X[:2], X[:2], True), "n_steps", id="steps True"),
    pytest.param("interpolate", (X[:2, :2], X[:2]), "2 features", id="pairs missing column"),
    pytest.param("interpolate", (X[0] * np.inf, X[0]), "infinity", id="pairs inf"),
    pytest.param("interpolate", ("a", "b"), "to float: 'a'", id="pairs of strings"),
    pytest.param("interpolate", (None, X[0]), "scalar", id="pairs of None"),
    pytest.param("traverse", (X[:2], 0, [0.0]), "single row", id="traverse two rows"),
    pytest.param("traverse", (X[0], 4, [0.0]), "component", id="component 4"),
    pytest.param("traverse", (X[0], -1, [0.0]), "component", id="component -1"),
    pytest.param("traverse", (X[0], 0.5, [0.0]), "component", id="component 0.5"),
    pytest.param("traverse", (X[0], None, [0.0]), "component", id="component None"),
    pytest.param("traverse", (X[0], True, [0.0]), "component", id="component True"),
    pytest.param(
        "traverse",
        (X[0], 0, [np.nan]),
        "values must be a non-empty list of finite numbers",
        id="values NaN",
    ),
    pytest.param("traverse", (X[0], 0, [[1.0, 2.0]]), "values", id="values 2-D"),
    pytest.param("traverse", (X[0], 0, []), "values", id="no values"),
    pytest.param("traverse", (X[0], 0, ["u"]), "values", id="values strings"),
    pytest.param("traverse", (X[0], 0, [1j]), "values", id="values complex"),
]


@pytest.mark.parametrize(
    ("estimator_class", "method", "arguments", "match"), of_each_definition(INVALID_CALLS)
)
def test_invalid_arguments_are_refused(estimator_class, method, arguments, match):
    estimator = fitted_once(estimator_class)
    with Unchanged(estimator), pytest.raises(INVALID, match=match):
        getattr(estimator, method)(*arguments)


LONG = "x" * 10**5

LONG_ARGUMENTS = [
    pytest.param("sample", (LONG,), id="n_samples"),
    pytest.param("sample", (1, False, LONG), id="random_state"),
    pytest.param("interpolate", (X[:2], X[:2], LONG), id="n_steps"),
    pytest.param("traverse", (X[0], LONG, [0.0]), id="component"),
    pytest.param("traverse", (X[0], 0, [LONG]), id="values"),
    pytest.param("inverse_transform", ([[LONG, LONG]],), id="codes"),
    pytest.param("transform", ([[LONG] * 3],), id="cells"),
    pytest.param("fit", (pd.DataFrame({LONG: [1.0, np.inf], "b": 0.0}),), id="column"),
    pytest.param("fit", (pd.DataFrame({LONG: [{}, {}], "b": 0.0}),), id="kind of a column"),
]


@pytest.mark.parametrize(("method", "arguments"), LONG_ARGUMENTS)
def test_a_message_does_not_repeat_a_long_argument(method, arguments):
    with pytest.raises(INVALID) as error:
        getattr(fitted_once(AUTOENCODERS[0]), method)(*arguments)
    assert 10 < len(str(error.value)) < 600


@pytest.mark.parametrize("method", ["log_likelihood", "posterior_predictive"])
@pytest.mark.parametrize("n", [True, 0, 1.5, None, "a", LONG], ids=lambda n: str(n)[:4])
def test_numbers_of_draws_are_positive_integers(method, n):
    with pytest.raises(ValueError, match=r"must be an integer of at least 1") as error:
        getattr(fitted_once(VariationalAutoencoder), method)(X[:2], n)
    assert len(str(error.value)) < 200


INTEGERS_OF_DISPLAYS = [
    pytest.param(skae.ReconstructionDisplay, AUTOENCODERS[0], "n_rows"),
    pytest.param(skae.TraversalDisplay, AUTOENCODERS[0], "n_values"),
    pytest.param(skae.TraversalDisplay, AUTOENCODERS[0], "row"),
    pytest.param(skae.OutlierExplanationDisplay, skae.AutoencoderOutlierDetector, "n_rows"),
    pytest.param(skae.OutlierExplanationDisplay, skae.AutoencoderOutlierDetector, "n_features"),
]


@pytest.mark.parametrize(("display", "estimator_class", "name"), INTEGERS_OF_DISPLAYS)
@pytest.mark.parametrize("value", [True, -1, 1.5, None, "a", LONG], ids=lambda v: str(v)[:4])
def test_numbers_of_rows_in_displays_are_integers(display, estimator_class, name, value):
    with pytest.raises(ValueError, match=rf"^{name} must be an integer") as error:
        display.from_estimator(fitted_once(estimator_class), X, **{name: value})
    assert len(str(error.value)) < 200


# ------------------------------------------------------------------------------------ wrong cells

NAMES = ["a", "b", "c", "d"]
CONTAINERS = {
    "array": np.asarray,
    "list": lambda table: table.tolist(),
    "pandas": lambda table: pd.DataFrame(table, columns=NAMES[: table.shape[1]]),
    "polars": lambda table: pl.DataFrame(table, schema=NAMES[: table.shape[1]]),
}
WITH_NAMES = {"array": False, "list": False, "pandas": True, "polars": True}
"""Whether tables in each container have names of columns."""


def label(column, container):
    """A pattern of what errors call a column of a table."""
    return rf"{column} \('{NAMES[column]}'\)" if WITH_NAMES[container] else str(column)


@cache
def fitted_like(estimator_class, has_names):
    return train(tiny(estimator_class), CONTAINERS["pandas" if has_names else "array"](X))


def untrained(estimator_class, table, has_names, **parameters):
    """An estimator that is initialized from a table, with or without names of columns."""
    rows = CONTAINERS["pandas" if has_names else "array"](table)
    return train(tiny(estimator_class, max_epochs=0, **parameters), rows)


def far_error(call, label, value, row):
    """The message of the error about a far cell, which must name this cell."""
    match = rf"Column {label} of X contains {re.escape(f'{value:g}')} in row {row}, which is too"
    with np.errstate(all="ignore"), pytest.raises(ValueError, match=match) as error:
        call()
    return str(error.value)


@for_each(AUTOENCODERS)
def test_the_error_of_a_far_cell_names_its_column_to_float32(estimator_class):
    """The column "b" is constant, so that its cell is not far, although it is the largest one."""
    table, far = np.insert(2.0**-30 * X, 1, 2.0**57, axis=1), 1e16
    models = [untrained(estimator_class, table, named, precision="float32") for named in (0, 1)]
    for container, has_names in WITH_NAMES.items():
        for column in (0, 2, 3):
            rows = table[:4].copy()
            rows[2, column] = far
            call = partial(models[has_names].score_samples, CONTAINERS[container](rows))
            message = far_error(call, label(column, container), far, 2)
            assert message.endswith("or fit with precision='float64'.")


@for_each(AUTOENCODERS)
def test_the_error_of_a_far_cell_does_not_advise_float64_to_float64(estimator_class):
    model = untrained(estimator_class, X, False, precision="float64")
    for column in range(3):
        rows = X[:4].copy()
        rows[1, column] = -1e290
        assert "float64" not in far_error(partial(model.score_samples, rows), column, -1e290, 1)


@for_each([c for c in AUTOENCODERS if issubclass(c, ConditionedAutoencoder)])
@pytest.mark.parametrize("condition", [0, 1, 3])
def test_the_error_of_a_far_condition_names_its_column(estimator_class, condition):
    """A condition is far in units of its own column, and precedes modelled columns in X."""
    others = [j for j in range(4) if j != condition]
    table = np.empty((N, 4))
    table[:, others], table[:, condition] = 1e6 * X, 1e-20 * np.arange(N)
    parameters = {estimator_class._condition_parameter: [condition], "precision": "float32"}
    models = [untrained(estimator_class, table, named, **parameters) for named in (0, 1)]
    for container, has_names in WITH_NAMES.items():
        for column in range(4):
            rows, far = table[:4].copy(), 1e3 if column == condition else 1e30
            rows[1, column] = far
            call = partial(models[has_names].score_samples, CONTAINERS[container](rows))
            far_error(call, label(column, container), far, 1)


@for_each([c for c in AUTOENCODERS if issubclass(c, ConditionedAutoencoder)])
def test_the_error_of_a_far_condition_of_codes_names_its_column(estimator_class):
    table = np.insert(X, 1, 1e-20 * np.arange(N), axis=1)
    parameters = {estimator_class._condition_parameter: [1], "precision": "float64"}
    model = train(tiny(estimator_class, **parameters), CONTAINERS["pandas"](table))
    Z, condition = model.transform(CONTAINERS["pandas"](table[:4])), np.zeros((4, 1))
    condition[2] = 1e300
    match = r"Column 1 \('b'\) of the condition is 1e\+300, which is too far.*clip this value\.$"
    with np.errstate(all="ignore"), pytest.raises(ValueError, match=match):
        model.inverse_transform(Z, condition)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_the_error_of_a_far_code_names_its_column(precision):
    model = fitted_once(skae.VariationalAutoencoder, precision=precision)
    Z = model.transform(X[:4]).astype(precision)
    Z[2, 1] = far = np.finfo(precision).max
    message = far_error(partial(model.inverse_transform, Z), 1, far, 2)
    assert ("precision='float64'" in message) == (precision == "float32")


WRONG_CELLS = [
    pytest.param(np.nan, "Column {} of X contains NaN in row 2.*missing cells", id="NaN"),
    pytest.param(-np.inf, "Column {} of X contains infinity in row 2", id="infinity"),
    pytest.param("u", "column {} of X, each argument.*number.*'u' in row 2.*Encode", id="text"),
]


def has_rows_without_conditions(estimator_class, value, match):
    return value == -np.inf or not issubclass(estimator_class, ConditionedAutoencoder)


@pytest.mark.parametrize(
    ("estimator_class", "value", "match"),
    crossed(WRONG_CELLS, always=ESTIMATORS, others=0, applies=has_rows_without_conditions),
)
def test_the_error_of_a_wrong_cell_names_its_column(estimator_class, value, match):
    """At the fit and at predictions, in tables with and without names of columns.

    Tables may contain missing cells and texts, unless rows have a shape.
    """
    method = next(name for name in ROW_METHODS if hasattr(estimator_class, name))
    shape = {} if value == -np.inf else {"feature_shape": (3,)}
    models = {
        has_names: train(tiny(estimator_class, **shape), CONTAINERS[name](X))
        for has_names, name in ((False, "array"), (True, "pandas"))
    }
    for container in ("array", "list", "pandas"):
        for column in range(3):
            table = X.astype(object if isinstance(value, str) else float)
            table[2, column] = value
            rows = CONTAINERS[container](table)
            model = models[WITH_NAMES[container]]
            for call in (partial(train, tiny(estimator_class, **shape)), getattr(model, method)):
                with pytest.raises(INVALID, match=match.format(label(column, container))):
                    call(rows)


# -------------------------------------------------------------------------------- sample weights

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
INVALID_WEIGHTS = [
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
REFUSED_BY_FIT = [
    *INVALID_WEIGHTS,
    pytest.param(np.eye(1, N)[0], "2 rows.*sample_weight", id="one row counts"),
    pytest.param(np.full(N, 1e-320), "sample_weight", id="subnormal"),
]


def takes_weights(estimator_class, *values):
    return has_fit_parameter(estimator_class, "sample_weight")


@pytest.mark.filterwarnings("ignore:The noise variance cannot be estimated")
@pytest.mark.parametrize(("estimator_class", "weight"), crossed(WEIGHTS, applies=takes_weights))
def test_weights_that_work(estimator_class, weight):
    estimator = train(tiny(estimator_class), X, sample_weight=weight)
    assert_valid_outputs(estimator, X, *X.shape)


@pytest.mark.parametrize(("weight", "match"), INVALID_WEIGHTS)
def test_invalid_weights_are_refused(weight, match):
    with pytest.raises(INVALID, match=match):
        read_weight(weight, X)


@pytest.mark.parametrize(
    ("estimator_class", "weight", "match"),
    crossed(REFUSED_BY_FIT, applies=takes_weights, others=1, whole=False),
)
def test_invalid_weights_are_refused_by_fit(estimator_class, weight, match):
    for estimator in (tiny(estimator_class), fitted_once(estimator_class)):
        with Unchanged(estimator), pytest.raises(INVALID, match=match):
            train(estimator, X, sample_weight=weight)


@for_each()
def test_every_method_refuses_negative_weights_and_weights_of_other_rows(estimator_class):
    """Scores of predictions are scikit-learn's, which takes negative weights."""
    estimator = fitted_once(estimator_class)
    methods = ["fit", "partial_fit"] if hasattr(estimator_class, "partial_fit") else ["fit"]
    calls = [partial(train, e, X, m) for m in methods for e in (tiny(estimator_class), estimator)]
    score = getattr(estimator, "score", None)
    is_own = score is not None and not get_tags(estimator).target_tags.required
    if is_own and "sample_weight" in inspect.signature(score).parameters:
        calls.append(partial(score, X))
    with Unchanged(estimator):
        for call in calls:
            with pytest.raises(ValueError, match=r"Negative values.*sample_weight"):
                call(sample_weight=np.r_[-1, np.ones(N - 1)])
            with pytest.raises(ValueError, match=r"sample_weight.shape.*\(40,\)"):
                call(sample_weight=np.ones(N - 1))


# --------------------------------------------------------------------------------- corrupted rows

INVALID_CORRUPTED = [
    pytest.param(X[:5], "X_corrupted.*shape", id="too few rows"),
    pytest.param(X[:, :2], "X_corrupted", id="too few columns"),
    pytest.param(X[0], "1D array", id="1-D"),
    pytest.param(with_cell(np.inf), "X_corrupted contains inf", id="inf"),
    pytest.param(X + 0j, "Complex data", id="complex"),
    pytest.param(sp.csr_array(X), "Sparse data.*X_corrupted", id="sparse"),
    pytest.param(np.full((N, 3), "u"), "column 0 of X_corrupted.*'u' in row 0", id="strings"),
    pytest.param(X * 1e300, "X_corrupted", id="1e300"),
]


def takes_corrupted(estimator_class, *values):
    return has_fit_parameter(estimator_class, "X_corrupted")


@pytest.mark.parametrize(
    ("estimator_class", "corrupted", "match"),
    crossed(INVALID_CORRUPTED, applies=takes_corrupted, others=1, whole=False),
)
def test_invalid_corrupted_rows_are_refused(estimator_class, corrupted, match):
    for estimator in (tiny(estimator_class), fitted_once(estimator_class)):
        with Unchanged(estimator), pytest.raises(INVALID, match=match):
            train(estimator, X, X_corrupted=corrupted)


# ------------------------------------------------------------------------------ unfitted estimators

UNFITTED_CALLS = {
    **{name: (X,) for name in (*ROW_METHODS, "score")},
    "inverse_transform": (X[:, :2],),
    "sample": (),
    "interpolate": (X[:1], X[:1]),
    "traverse": (X[0], 0, [0.0]),
    "get_feature_names_out": (),
}


@for_each()
def test_methods_of_an_unfitted_estimator_say_so(estimator_class):
    estimator = tiny(estimator_class)
    for name, arguments in UNFITTED_CALLS.items():
        if hasattr(estimator, name):
            method = getattr(estimator, name)
            if name in WITH_TARGETS:
                method = partial(train, estimator, method=name)
            with pytest.raises(NotFittedError, match=r"not fitted yet.*'fit'"):
                method(*arguments)
