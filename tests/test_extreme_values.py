"""Extreme values end in finite results or in an error that names their cause."""

import re
import warnings
from functools import partial

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import get_tags
from small_models import (
    AUTOENCODERS,
    ROW_METHODS,
    N,
    Unchanged,
    X,
    assert_same,
    assert_valid_outputs,
    crossed,
    fitted,
    fitted_once,
    for_each,
    outcome,
    outputs,
    takes,
    tiny,
    with_cell,
    with_method,
)
from test_common import core, train

import skae


def with_precision(cases):
    """Each case for two precisions, which become its first value."""
    return [
        pytest.param(p, *case.values, id=f"{p}-{case.id}")
        for p in ("auto", "float32")
        for case in cases
    ]


def has_parameters(estimator_class, rows, parameters, *rest):
    return takes(estimator_class, parameters)


def has_method(estimator_class, method, *rest):
    return hasattr(estimator_class, method)


# ------------------------------------------------------------------------------- while training

EXTREME_FITS = [
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
    pytest.param(X, {"noise": 1e-60, "precision": "float32"}, "noise", id="tiny noise as float32"),
    pytest.param(X, {"noise": 1e60, "precision": "float32"}, "noise", id="huge noise as float32"),
]


@pytest.mark.parametrize(
    ("estimator_class", "rows", "parameters", "match"),
    crossed(EXTREME_FITS, applies=has_parameters),
)
def test_extreme_fits_work_or_name_the_cause(estimator_class, rows, parameters, match):
    estimator = tiny(estimator_class, **parameters)
    _, message = outcome(lambda: train(estimator, rows))
    if message is None:
        assert_valid_outputs(estimator, rows, *rows.shape)
    else:
        assert re.search(match, message), message


TOO_LARGE_TO_SQUARE = [
    pytest.param(X * 1e300, "Column 0 of X.*Divide", id="1e300"),
    pytest.param(X * [1, 1e300, 1], "Column 1 of X.*Divide", id="one column 1e300"),
    pytest.param(np.full((N, 3), -1e300), "Column 0 of X.*Divide", id="all -1e300"),
]


@pytest.mark.parametrize(
    ("estimator_class", "method", "rows", "match"),
    crossed(
        with_method(TOO_LARGE_TO_SQUARE, "fit", "partial_fit"), applies=has_method, whole=False
    ),
)
def test_values_too_large_to_square_are_refused(estimator_class, method, rows, match):
    """They work only where columns are scaled first."""
    estimators = [tiny(estimator_class)]
    if method == "fit":
        estimators.append(fitted_once(estimator_class))
    for estimator in estimators:
        if estimator_class in (skae.AutoencoderOutlierDetector, skae.AutoencoderFeatures):
            assert_valid_outputs(train(tiny(estimator_class), rows), rows, *rows.shape)
            continue
        with Unchanged(estimator), pytest.raises(ValueError, match=match):
            train(estimator, rows, method)


OTHER_ROWS = [
    pytest.param(X * 1e30, id="1e30"),
    pytest.param(X * 1e100, id="1e100"),
    pytest.param(X * 1e200, id="1e200"),
    pytest.param(X * 1e300, id="1e300"),
    pytest.param(X * 1e-300, id="1e-300"),
    pytest.param(X + 1e6, id="small offset"),
    pytest.param(X + 1e12, id="offset"),
    pytest.param(X[:1], id="one row"),
]


@pytest.mark.parametrize(
    ("estimator_class", "precision", "method", "second"),
    crossed(with_precision(with_method(OTHER_ROWS, "fit", "partial_fit")), AUTOENCODERS, others=1),
)
# Training that is resumed with rows of another size may diverge, which is no fault.
@pytest.mark.filterwarnings(
    "ignore:(Training diverged|Posterior collapse|Only . of n_codes|The new rows are far)"
)
def test_training_is_resumed_with_other_rows(estimator_class, precision, method, second):
    """Center and scale follow the rows, so that a later row can be too large."""
    estimator = fitted(estimator_class, precision=precision, warm_start=True)
    before = outputs(estimator, X)
    _, message = outcome(lambda: train(estimator, second, method))
    if message is None:
        assert_valid_outputs(estimator, X, *X.shape)
    else:
        assert re.search(r"[Cc]olumn \d|scale the columns of X", message), message
        assert_same(outputs(estimator, X), before)


DIVERGING = [
    pytest.param(parameters, id=str(parameters))
    for parameters in (
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
    )
]


def trains_with(estimator_class, parameters):
    """Whether an estimator has these parameters and supports them."""
    is_supported = estimator_class is not skae.SemiSupervisedVariationalAutoencoder
    return takes(estimator_class, parameters) and ("tied_weights" not in parameters or is_supported)


@pytest.mark.parametrize(("estimator_class", "parameters"), crossed(DIVERGING, applies=trains_with))
def test_a_divergence_is_reported(estimator_class, parameters):
    rows = (X > 0).astype(float) if "likelihood" in parameters else X
    estimator = tiny(estimator_class, learning_rate=1e6, **parameters)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _, message = outcome(lambda: train(estimator, rows))
    reports = [str(w.message) for w in caught if w.category is ConvergenceWarning]
    cause = (
        r"(diverged|(failed|broke down with learning_rate=1000000\.0): "
        r"the ((loss|objective) became (inf|nan)|variance of)).*[Ll]ower learning_rate"
    )
    assert any(re.search(cause, report) for report in [*reports, message or ""])
    if message is None:
        assert_valid_outputs(estimator, rows, *rows.shape)


EMPTY_SIDES = [
    pytest.param(fraction, early_stopping, id=f"{fraction}-{early_stopping}")
    for fraction in (1e-9, 1 - 1e-9)
    for early_stopping in ("auto", True)
]


@pytest.mark.parametrize(
    ("estimator_class", "fraction", "early_stopping"), crossed(EMPTY_SIDES, others=1)
)
def test_without_rows_on_one_side_all_rows_train(estimator_class, fraction, early_stopping):
    """As without validation rows."""
    chosen = {"validation_fraction": fraction, "early_stopping": early_stopping}
    estimator = fitted(estimator_class, **chosen)
    assert core(estimator).validation_curve_ == []
    assert_same(outputs(estimator, X), outputs(fitted(estimator_class, early_stopping=False), X))


@for_each()
def test_a_batch_larger_than_the_data_is_all_of_it(estimator_class):
    actual = outputs(fitted(estimator_class, batch_size=10**6), X)
    assert_same(actual, outputs(fitted(estimator_class, batch_size=N), X))


# ---------------------------------------------------------------------------- after training

HUGE_CELLS = [
    pytest.param(value, id=str(value))
    for value in (1e-300, 1e18, 1e30, 1e100, 1e150, 1e200, -1e300, 1e300)
]


@pytest.mark.parametrize(
    ("estimator_class", "precision", "value"), crossed(with_precision(HUGE_CELLS), others=1)
)
def test_huge_cells_give_finite_results_or_name_the_column(estimator_class, precision, value):
    estimator = fitted_once(estimator_class, precision=precision)
    rows = with_cell(value)
    # Scores of predictions are scikit-learn's.
    own_score = () if get_tags(estimator).target_tags.required else ("score",)
    wrong = {}
    for name in (*ROW_METHODS, *own_score, "interpolate"):
        method = getattr(estimator, name, None)
        if method is not None:
            arguments = (rows, X) if name == "interpolate" else (rows,)
            result, message = outcome(partial(method, *arguments))
            if message is None and not np.isfinite(result).all():
                wrong[name] = result
            if message is not None and "column 1" not in message.lower():
                wrong[name] = message
    assert wrong == {}


HUGE_CODES = [pytest.param(value, id=str(value)) for value in (1e-300, 1e30, 1e150, -1e300)]


@pytest.mark.parametrize(
    ("estimator_class", "precision", "value"),
    crossed(with_precision(HUGE_CODES), AUTOENCODERS, others=1),
)
def test_huge_codes_give_finite_rows_or_name_the_component(estimator_class, precision, value):
    estimator = fitted_once(estimator_class, precision=precision)
    codes = np.zeros((4, len(estimator.get_feature_names_out())))
    codes[1, 1] = value
    calls = [
        lambda: estimator.inverse_transform(codes),
        lambda: estimator.traverse(X[0], 1, [value]),
    ]
    for call in calls:
        rows, message = outcome(call)
        if message is None:
            assert np.isfinite(rows).all()
        else:
            assert re.search("[Cc]olumn 1|values", message), message
