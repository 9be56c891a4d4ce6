"""Invalid values of parameters are refused by an error that names the parameter."""

import re

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from skorch.callbacks import EarlyStopping
from small_models import (
    AUTOENCODERS,
    ESTIMATORS,
    INVALID,
    META_ESTIMATORS,
    Unchanged,
    X,
    case_of,
    expected_outputs,
    fitted,
    fitted_once,
    for_each,
    tiny,
)
from test_common import train

import skae
from skae import metrics
from skae._compat.sklearn import Interval, StrOptions
from skae.base import BaseAutoencoder


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

INVALID_VALUES = {
    "autoencoder": [5, "a", skae.Autoencoder, PCA(), FrozenEstimator(PCA().fit(X))],
    "add_indicator": NOT_A_FLAG,
    "n_features": [0, -1, 1.5, np.nan, "a", 10**15],
    "passthrough": NOT_A_FLAG,
    "criterion": ["distance", None, 1],
    "contamination": [0.0, 0.6, -0.1, np.nan, "a", None],
    "calibration_fraction": [1.0, -0.1, np.nan, "a", None],
    "label_weight": [0.0, -1.0, np.nan, np.inf, "a", None],
    "reconstruction_weight": [-1.0, np.nan, np.inf, "a", None],
    "fine_tune": NOT_A_FLAG,
    "propagate": NOT_A_FLAG,
    "class_weight": [5, "heavy", (1, 2)],
    "n_components": [*(0, -1, 0.0, 1.0, 2.5, np.nan, np.inf, "many", [2], 2 + 0j, 10**15, 10**30)],
    "hidden_layer_sizes": [
        *(5, None, "ab", {4}, (0,), (8, -1), (2.5,), ("a",), (None,), ((4,),), (np.nan,)),
        *((True,), (10**15,), (10**30,)),
    ],
    "activation": ["sine", None, 1, torch.tanh],
    "architecture": ["unknown", None, 1],
    "feature_shape": [5, "ab", (4,), (0, 3), (-1, -1), (1.5, 2), (None,), (10**30,)],
    "linear_skip": NOT_A_FLAG,
    "tied_weights": NOT_A_FLAG,
    "whiten": NOT_A_FLAG,
    "likelihood": [
        *("cauchy", None, 1, ["gaussian"], "categorical", {"cauchy": [0]}, {"gaussian": ["a"]}),
        *({"gaussian": [9]}, {"gaussian": [0], "bernoulli": [0]}, {"categorical": [0]}),
    ],
    "categories": [5, "auto", {}, skae.Categories],
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
"""Values that each parameter refuses."""


def value_id(value):
    return getattr(value, "__name__", None) or str(value)[:30]


def owners():
    """Pairs of an estimator and one of its own parameters.

    Estimators that inherit a parameter share its constraint, and one of them represents all.
    """
    seen = set()
    for estimator_class in ESTIMATORS:
        for name in estimator_class().get_params(deep=False):
            constraint = name, id(estimator_class._parameter_constraints[name])
            if constraint not in seen:
                seen.add(constraint)
                yield estimator_class, name


@for_each()
def test_every_parameter_has_invalid_values(estimator_class):
    assert set(estimator_class().get_params()) <= set(INVALID_VALUES)
    assert all(INVALID_VALUES.values())


@for_each(AUTOENCODERS)
def test_shared_parameters_have_the_constraints_of_the_base(estimator_class):
    for name, constraint in BaseAutoencoder._parameter_constraints.items():
        assert estimator_class._parameter_constraints[name] is constraint, name


def test_each_parameter_is_tried_on_one_estimator():
    tried = list(owners())
    shared = set(BaseAutoencoder._parameter_constraints)
    assert {name for c, name in tried if c is skae.Autoencoder} == shared
    for estimator_class in AUTOENCODERS:
        own = set(estimator_class().get_params(deep=False)) - shared
        parents = [c for c in AUTOENCODERS if issubclass(estimator_class, c)]
        assert own <= {name for c, name in tried if c in parents}
    for estimator_class in META_ESTIMATORS:
        own = set(estimator_class().get_params(deep=False))
        assert own <= {name for c, name in tried if c in META_ESTIMATORS}


@pytest.mark.parametrize(
    ("estimator_class", "name", "value"),
    [
        case_of(estimator_class, name, value, label=f"{name}={value_id(value)}")
        for estimator_class, name in owners()
        for value in INVALID_VALUES.get(name, [])
    ],
)
def test_an_invalid_value_is_refused(estimator_class, name, value):
    expected_outputs(estimator_class)  # computed before the shared estimator has an invalid value
    shared = fitted_once(estimator_class)
    before = shared.get_params(deep=False)[name]
    try:
        for estimator in (tiny(estimator_class), shared):
            estimator.set_params(**{name: value})
            with Unchanged(estimator), pytest.raises(INVALID, match=rf"\b{name}\b"):
                train(estimator, X)
    finally:
        shared.set_params(**{name: before})


# ------------------------------------------------------------------------------------ messages

LONGEST = 600
"""Maximum number of characters of a message about a value, however long the value is."""

PRIVATE_PATH = re.compile(
    r"\b(skae\.(base|variants|tasks|nn|table|training|density|state)\b|\w+\._\w+|numpy\.random\.m)"
)
"""Modules that users do not import from."""


def refusal(estimator_class, name, value):
    """The message with which an unfitted estimator refuses a value of a parameter."""
    estimator = tiny(estimator_class).set_params(**{name: value})
    with pytest.raises(INVALID, match=rf"\b{name}\b") as error:
        train(estimator, X)
    return str(error.value)


def own_constraints():
    """Pairs of an estimator and one of its own parameters, with the constraint of the parameter."""
    for estimator_class, name in owners():
        yield estimator_class, name, estimator_class._parameter_constraints[name]


def permits(constraint, kind):
    return any(isinstance(part, kind) for part in constraint)


NUMBERS = [
    case_of(estimator_class, name, label=name)
    for estimator_class, name, constraint in own_constraints()
    if permits(constraint, Interval) and "boolean" not in constraint
]


@pytest.mark.parametrize(("estimator_class", "name"), NUMBERS)
def test_a_boolean_is_not_a_number(estimator_class, name):
    for value in (True, False, np.True_):
        assert f"Got {value!r}" in refusal(estimator_class, name, value)


NUMBERS_OF_METRICS = [
    name for name, constraint in metrics.CONSTRAINTS.items() if permits(constraint, Interval)
]


@pytest.mark.parametrize("name", NUMBERS_OF_METRICS)
def test_a_boolean_is_not_a_number_in_metrics(name):
    with pytest.raises(ValueError, match=rf"'{name}' parameter of metric .* Got True"):
        metrics._validate("metric", **{name: True})


OPTIONS = [
    case_of(estimator_class, name, label=name)
    for estimator_class, name, constraint in own_constraints()
    if permits(constraint, StrOptions)
]


@pytest.mark.parametrize(("estimator_class", "name"), OPTIONS)
def test_options_are_listed_in_alphabetical_order(estimator_class, name):
    constraint = estimator_class._parameter_constraints[name]
    options = {o for part in constraint if isinstance(part, StrOptions) for o in part.options}
    listed = re.search(r"a str among \{(.*?)\}", refusal(estimator_class, name, "no such option"))
    assert listed[1] == ", ".join(map(repr, sorted(options)))


@pytest.mark.parametrize(
    ("estimator_class", "name"),
    [case_of(c, name, label=name) for c, name, _ in own_constraints() if name != "callbacks"],
)
def test_a_message_does_not_repeat_a_long_value(estimator_class, name):
    for value in ("x" * 10**5, ["x" * 10**5], [0.5] * 10**5, {"x" * 10**5: 1}):
        assert len(refusal(estimator_class, name, value)) < LONGEST


@pytest.mark.parametrize("value", ["x" * 10**5, [EarlyStopping(), "x" * 10**5], ["x"] * 10**5])
def test_a_message_does_not_repeat_long_callbacks(value):
    assert len(refusal(skae.Autoencoder, "callbacks", value)) < LONGEST


@pytest.mark.parametrize(
    ("estimator_class", "name"), [case_of(c, name, label=name) for c, name, _ in own_constraints()]
)
def test_a_message_names_public_modules_only(estimator_class, name):
    values = [PCA(), FrozenEstimator(PCA()), object()]
    if callable not in estimator_class._parameter_constraints[name]:
        values += [skae.Autoencoder, PCA, torch.tanh]
    for value in values:
        assert not PRIVATE_PATH.search(refusal(estimator_class, name, value))


@for_each(META_ESTIMATORS)
def test_an_estimator_over_pca_names_what_it_needs(estimator_class):
    for value in (PCA(2), PCA, skae.Autoencoder, FrozenEstimator(PCA().fit(X))):
        message = refusal(estimator_class, "autoencoder", value)
        assert "an autoencoder of skae" in message


@for_each()
def test_an_unknown_device_comes_with_names_of_devices(estimator_class):
    for device in ("gpu", "cuda:99", "GPU:0", "vulkan"):
        estimator = tiny(estimator_class, device=device)
        with pytest.raises(ValueError, match=re.escape(f"device={device!r}")) as error:
            train(estimator, X)
        message = str(error.value)
        assert len(message) < 250
        assert all(name in message for name in ("'cuda'", "'auto'", "cpu"))
        assert not any(name in message for name in ("fpga", "ideep", "privateuse", "meta"))


REFUSED_BY_THE_FIT = {
    "hidden_layer_sizes": (0,),
    "feature_shape": (0, 3),
    "learning_rate": 1e308,
    "corruption": drops_rows,
    "callbacks": [5],
    "device": "cuda:99",
    "max_epochs": -1,
}
"""A value of some shared parameters, most of which only the fit can refuse, not a constraint."""


@for_each()
def test_every_estimator_refuses_invalid_values_of_shared_parameters(estimator_class):
    for name, value in REFUSED_BY_THE_FIT.items():
        estimator = tiny(estimator_class, **{name: value})
        with Unchanged(estimator), pytest.raises(INVALID, match=rf"\b{name}\b"):
            train(estimator, X)


@for_each()
def test_an_unknown_parameter_is_named(estimator_class):
    estimator = fitted(estimator_class)
    with Unchanged(estimator), pytest.raises(ValueError, match="'no_such_parameter'"):
        estimator.set_params(no_such_parameter=1)
    with pytest.raises(TypeError, match="no_such_parameter"):
        estimator_class(no_such_parameter=1)
