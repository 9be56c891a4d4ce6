"""A fit that resumes uses the present value of each parameter, or refuses it by name.

The first fit has no epochs, so that its network is the initial one. A resumed fit uses a value that
has changed if it has the same result as with a first fit that had the value already.
"""

import copy
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback
from small_models import (
    AUTOENCODERS,
    ESTIMATORS,
    META_ESTIMATORS,
    N,
    Unchanged,
    X,
    assert_same,
    case_of,
    crossed,
    for_each,
    for_each_kind,
    outputs,
    set_parameters,
    tiny,
)
from test_common import core

import skae
from skae import Autoencoder

Y = np.arange(N) % 2
"""Targets, which some estimators require and most ignore."""

START = {
    "max_epochs": 0,
    "early_stopping": False,
    "warm_start": True,
    "linear_skip": False,
    "learning_rate": 0.03,
}
"""Parameters of the first fit, with which the epochs after it change the weights."""

USED, REFUSED, UNUSED, DIFFERS = "used", "refused", "unused", "differs"
"""Effects of a changed value: it is used as if it had been the value of the first fit; a ValueError
names the parameter; there is none, as the documentation says; or the result is another one, whose
start with the new value would not be comparable."""


class Case(NamedTuple):
    """A changed value of a parameter, the parameters that it needs, and its effects."""

    value: Any
    others: Mapping[str, Any] = MappingProxyType({})
    fit: str = USED
    partial_fit: str = USED


def of_validation(value, **others):
    """A case of a parameter that concerns validation rows, which `partial_fit` does not have."""
    return Case(value, {"early_stopping": True} | others, partial_fit=UNUSED)


def of_network(value, **others):
    """A case of a parameter that determines the weights of the network."""
    return Case(value, others, REFUSED, REFUSED)


CASES = {
    # It concerns the results of `transform` only.
    "add_indicator": Case(True, {}, UNUSED, UNUSED),
    "activation": Case("tanh", {}, DIFFERS, DIFFERS),
    "architecture": of_network("conv"),
    "batch_size": Case(16),
    "beta": Case(3.0),
    "calibration_fraction": Case(0.5, fit=DIFFERS),
    # The levels are those of the first fit.
    "categories": Case(skae.Categories(max_categories=2), {}, UNUSED, UNUSED),
    "class_weight": Case({0: 1.0, 1: 9.0}),
    "commitment_cost": Case(3.0),
    "condition": of_network([0]),
    "contamination": Case(0.3),
    "contraction": Case(5.0),
    "corruption": Case("salt_and_pepper"),
    "corruption_level": Case(0.9, {"corruption": "gaussian"}),
    "criterion": Case("density"),
    "dropout": Case(0.5),
    "early_stopping": Case(True, partial_fit=UNUSED),
    "feature_shape": of_network((1, 1, 3)),
    "hidden_layer_sizes": of_network((5,)),
    # Fits that resume have no pre-training, and they anneal nothing.
    "kl_warm_up": Case(0.1, {}, UNUSED, UNUSED),
    "layerwise_epochs": Case(1, {}, UNUSED, UNUSED),
    "label_weight": Case(50.0),
    "leak_weight": Case(90.0, {"sensitive": [0]}),
    "learning_rate": Case(0.01),
    "likelihood": of_network("bernoulli"),
    "linear_skip": of_network(True),
    "max_epochs": Case(2, partial_fit=UNUSED),
    "n_active": Case(2, {"sparsity": "topk"}),
    "n_codebooks": of_network(1, n_components=4, n_codebooks=2),
    "n_codes": of_network(4),
    "n_components": of_network(1),
    "n_importance_samples": Case(3),
    "n_iter_no_change": of_validation(1, tol=100.0),
    "n_projections": Case(1),
    "noise": Case(2.0),
    "n_features": Case(1, {}, DIFFERS, UNUSED),
    "passthrough": Case(False, {}, DIFFERS, UNUSED),
    "posterior_covariance": of_network("full"),
    "prior_weight": Case(70.0),
    # It selects validation rows and orders rows. The draws continue those of the previous fit.
    "random_state": Case(1, {"early_stopping": True}, DIFFERS, UNUSED),
    "reconstruction_weight": Case(0.1),
    "sensitive": of_network([0]),
    "sparsity": Case("kl"),
    "sparsity_weight": Case(20.0),
    "target_rate": Case(0.4, {"sparsity": "kl"}),
    "tied_weights": of_network(True),
    "tol": of_validation(100.0, n_iter_no_change=1, learning_rate=0.003),
    "trim": Case(0.5),
    "validation_fraction": of_validation(0.4),
    "weight_decay": Case(500.0),
}
"""One changed value of each parameter that has an effect on numbers."""

TESTED_BELOW = {
    *(
        "whiten",
        "autoencoder",
        "callbacks",
        "device",
        "fine_tune",
        "precision",
        "propagate",
        "verbose",
        "warm_start",
    )
}
"""Parameters whose effects other tests of this module state."""

METHODS = ("fit", "partial_fit")


def effects(*kinds):
    """Each parameter and method in which a changed value has one of these effects."""
    return [
        pytest.param(name, method, id=f"{name}-{method}")
        for name, case in CASES.items()
        for method in METHODS
        if getattr(case, method) in kinds
    ]


@cache
def first_fit(estimator_class, parameters):
    """A model before its first epoch; `parameters` is a text, so that it can be cached."""
    estimator = tiny(estimator_class, **START | eval(parameters))
    return estimator.fit(X, Y)


def started(estimator_class, **parameters):
    return copy.deepcopy(first_fit(estimator_class, repr(parameters)))


def trains_noise(estimator_class):
    """Whether a noise variance that is not a number belongs to the weights of the network."""
    return core(started(estimator_class)).module_.likelihood.is_trained


def applies(estimator_class, name, method):
    known = name in estimator_class().get_params(deep=False) and hasattr(estimator_class, method)
    if not known or (name == "noise" and trains_noise(estimator_class)):
        return False
    # Whether losses of two epochs improve depends on the estimator, and some never add the map.
    only = {"tol": [Autoencoder], "n_iter_no_change": [Autoencoder]}
    return estimator_class in only.get(name, [estimator_class]) and (
        name != "linear_skip" or core(started(estimator_class)).module_.latent.is_linear
    )


def on_estimators(*kinds):
    """Tests on `Autoencoder`, and of other parameters on one estimator; the others are slow.

    So are those of `partial_fit`, which starts as `fit` does, except for two parameters.
    """
    shared = Autoencoder().get_params()
    groups = {True: [], False: []}
    for case in effects(*kinds):
        groups[case.values[0] in shared].append(case)
    others = [c for c in ESTIMATORS if c is not Autoencoder]
    cases = crossed(groups[True], others=0, applies=applies)
    cases += crossed(groups[False], others, always=(), others=1, applies=applies)
    slow = [
        case.values[2] == "partial_fit" and case.values[1] not in ("noise", "learning_rate")
        for case in cases
    ]
    return pytest.mark.parametrize(
        ("estimator_class", "name", "method"),
        [
            pytest.param(*case.values, id=case.id, marks=[*case.marks, *[pytest.mark.slow] * late])
            for case, late in zip(cases, slow, strict=True)
        ],
    )


def test_all_parameters_have_a_case():
    names = {name for c in ESTIMATORS for name in c().get_params(deep=False)}
    assert names == CASES.keys() | TESTED_BELOW
    assert not CASES.keys() & TESTED_BELOW


def weights(model):
    return {name: t.numpy() for name, t in model.module_.state_dict().items()}


def have_equal_starts(first, second):
    """Whether the weights and the random generators of two initial models are equal."""
    states = [weights(core(model)) for model in (first, second)]
    for state, model in zip(states, (first, second), strict=True):
        state.pop("likelihood.noise_variance")
        state["generator"] = core(model)._fitted.training["generator"]
    return are_equal(*states)


def resumed(estimator, method, **parameters):
    """Outputs, weights and losses after training that resumes with changed parameters.

    `partial_fit` averages the density over all calls, so that only its noise is compared.
    """
    epochs = {"max_epochs": 3} if "max_epochs" not in parameters else {}
    set_parameters(estimator, **epochs, **parameters)
    getattr(estimator, method)(X, Y)
    model = core(estimator)
    state = weights(model)
    state |= {"loss_curve_": model.loss_curve_, "validation_curve_": model.validation_curve_}
    is_detector = isinstance(estimator, skae.AutoencoderOutlierDetector)
    has_density = (method == "fit" or is_detector) and not model._fitted.schema.conditions
    return state | (outputs(estimator, X) if has_density else {})


@cache
def unchanged(estimator_class, parameters, method):
    """The result of training that resumes with the parameters of the first fit."""
    return resumed(started(estimator_class, **eval(parameters)), method)


def are_equal(first, second):
    return all(np.array_equal(value, second[name]) for name, value in first.items())


HELD_OUT = ("early_stopping", "validation_fraction")
"""Parameters that determine which rows are held out."""


KEPT_WITH_ROWS = [
    ("class_weight", skae.AutoencoderClassifier, "partial_fit"),
    ("label_weight", skae.SemiSupervisedVariationalAutoencoder, "partial_fit"),
]
"""Weights of targets, which rows that were seen before keep."""


@on_estimators(USED)
def test_a_changed_value_is_used(estimator_class, name, method):
    value, others, *_ = CASES[name]
    changed = {name: value}
    actual = resumed(started(estimator_class, **others), method, **changed)
    first = {**others} if name == "max_epochs" else {**others, **changed}
    model = started(estimator_class, **first)
    # Rows that are held out have no part in the start of a fit with `warm_start=True`.
    is_comparable = have_equal_starts(model, started(estimator_class, **others))
    assert is_comparable or name in HELD_OUT or estimator_class is not Autoencoder
    if is_comparable and (name, estimator_class, method) not in KEPT_WITH_ROWS:
        assert_same(actual, resumed(model, method, **changed))
    assert not are_equal(actual, unchanged(estimator_class, repr({**others}), method))


@on_estimators(REFUSED)
def test_a_changed_value_is_refused_by_name(estimator_class, name, method):
    value, others, *_ = CASES[name]
    model = set_parameters(started(estimator_class, **others), **{name: value})
    with Unchanged(model), pytest.raises(ValueError, match=rf"\b{name}\b"):
        getattr(model, method)(X, Y)


@on_estimators(UNUSED, DIFFERS)
def test_a_changed_value_has_the_effect_that_is_documented(estimator_class, name, method):
    value, others, *kinds = CASES[name]
    actual = resumed(started(estimator_class, **others), method, **{name: value})
    is_unused = kinds[METHODS.index(method)] == UNUSED
    assert are_equal(actual, unchanged(estimator_class, repr({**others}), method)) == is_unused


NOISES = [
    pytest.param(before, after, id=f"{before}-{after}")
    for before, after in [("isotropic", 2.0), (2.0, "diagonal"), (2.0, 0.3)]
]


@pytest.mark.parametrize(
    ("estimator_class", "before", "after"), crossed(NOISES, AUTOENCODERS, others=0)
)
def test_the_density_has_the_present_noise(estimator_class, before, after):
    """A change between a number and a trained noise changes the weights of the network."""
    model, fresh = (started(estimator_class, noise=value) for value in (before, after))
    model.set_params(noise=after)
    if trains_noise(estimator_class) and {before, after} & {"isotropic", "diagonal"}:
        with Unchanged(model), pytest.raises(ValueError, match="are: noise"):
            model.fit(X, Y)
        return
    np.testing.assert_array_equal(model.fit(X, Y).noise_variance_, fresh.noise_variance_)
    np.testing.assert_array_equal(model.score_samples(X), fresh.score_samples(X))
    model.set_params(noise=before).fit(X, Y).set_params(noise=after).partial_fit(X, Y)
    if isinstance(after, float):
        assert model.noise_variance_ == pytest.approx(after)
    else:
        assert np.shape(model.noise_variance_) == (X.shape[1],)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("before", "after", "dtype"),
    [
        ("auto", "float32", torch.float32),
        ("auto", "bfloat16", torch.float32),
        ("auto", "auto", torch.float64),
        ("float32", "float64", torch.float64),
        ("float32", "auto", torch.float32),
    ],
)
def test_the_present_precision_is_used(before, after, dtype, method):
    model = started(Autoencoder, precision=before)
    resumed(model, method, precision=after)
    assert {t.dtype for t in model.module_.parameters()} == {dtype}
    # The weights are those of the previous fit, but for rounding, and not new ones.
    losses = resumed(started(Autoencoder, precision=before), method)["loss_curve_"]
    np.testing.assert_allclose(model.loss_curve_, losses, rtol=1e-2)
    assert (model.loss_curve_ == losses) == (after == "auto")


WITH_METHOD = pytest.mark.parametrize(
    ("estimator_class", "method"),
    [
        case_of(c, method, label=method)
        for c in (Autoencoder, *META_ESTIMATORS)
        for method in METHODS
        if hasattr(c, method)
    ],
)


@WITH_METHOD
def test_a_device_that_is_not_available_is_refused_by_name(estimator_class, method):
    model = set_parameters(started(estimator_class), device="cuda:99")
    with Unchanged(model), pytest.raises(ValueError, match="device"):
        getattr(model, method)(X, Y)


MOVES = [pytest.param("cpu", "cuda", id="to cuda"), pytest.param("cuda", "cpu", id="to cpu")]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("estimator_class", "before", "after"), crossed(MOVES, AUTOENCODERS, others=0)
)
def test_the_present_device_is_used(estimator_class, before, after, method):
    model = started(estimator_class, device=before)
    set_parameters(model, device=after, max_epochs=3)
    getattr(model, method)(X, Y)
    assert {t.device.type for t in model.module_.parameters()} == {after}
    assert np.isfinite(model.score_samples(X)).all()
    there = started(estimator_class, device=before)
    codes = set_parameters(there, device=after, max_epochs=0).fit(X, Y).transform(X)
    np.testing.assert_allclose(
        codes, started(estimator_class, device=before).transform(X), rtol=1e-4, atol=1e-4
    )


class Recorder(Callback):
    """Counts the epochs that have ended."""

    epochs = 0

    def on_epoch_end(self, net, **kwargs):
        self.epochs += 1


@WITH_METHOD
def test_present_callbacks_and_verbosity_are_used(estimator_class, method, capsys):
    model = started(estimator_class)
    resumed(model, method, callbacks=[Recorder()], verbose=1)
    # A detector is fitted anew to its sample.
    is_anew = method == "fit" or estimator_class is skae.AutoencoderOutlierDetector
    n_epochs = 3 if is_anew else 1
    # Meta-estimators clone the autoencoder, and thereby its callbacks.
    assert core(model).callbacks[0].epochs == core(model).n_iter_ == n_epochs
    assert len(capsys.readouterr().out.splitlines()) == 2 + n_epochs


@for_each_kind()
def test_without_a_warm_start_the_fit_starts_from_scratch(estimator_class):
    cold, fresh = started(estimator_class), tiny(estimator_class, **START | {"warm_start": False})
    assert_same(resumed(cold, "fit", warm_start=False), resumed(fresh, "fit"))


def test_partial_fit_does_not_use_warm_start():
    models = [started(Autoencoder, warm_start=False), started(Autoencoder, warm_start=True)]
    assert_same(*(resumed(model, "partial_fit") for model in models))


@for_each(META_ESTIMATORS)
def test_another_autoencoder_is_refused_by_name(estimator_class):
    model, other = started(estimator_class), skae.SparseAutoencoder(2, warm_start=True)
    with Unchanged(model.set_params(autoencoder=other)), pytest.raises(ValueError, match="Sparse"):
        model.fit(X, Y)


@for_each([c for c in META_ESTIMATORS if "fine_tune" in c().get_params()])
def test_without_fine_tuning_the_network_is_that_of_the_autoencoder(estimator_class):
    """Frozen autoencoders alone are not fine-tuned; others are trained, as in the first fit."""
    models = [started(estimator_class), started(estimator_class, fine_tune=False)]
    first, second = (resumed(model, "fit", fine_tune=False) for model in models)
    assert_same(first, second)


@for_each([c for c in META_ESTIMATORS if "propagate" in c().get_params()])
def test_a_changed_propagation_is_used(estimator_class):
    y, missing = (Y, -1) if hasattr(estimator_class, "classes_") else (X[:, 0], np.nan)
    few = np.where(np.arange(N) < N // 5, y, missing)

    def codes(before, after):
        model = started(estimator_class, propagate=before)
        set_parameters(model, propagate=after, max_epochs=3)
        return model.fit(X, few).transform(X)

    np.testing.assert_array_equal(codes(True, False), codes(False, False))
    assert not np.array_equal(codes(True, True), codes(True, False))


OF_THE_AUTOENCODER = [
    pytest.param(name, "fit", id=name)
    for name in ("noise", "learning_rate", "activation", "hidden_layer_sizes", "n_components")
]


@pytest.mark.parametrize(
    ("estimator_class", "name", "method"),
    crossed(OF_THE_AUTOENCODER, META_ESTIMATORS, always=(), others=1),
)
def test_parameters_of_the_autoencoder_in_a_meta_estimator(estimator_class, name, method):
    """They are used or refused in the same way."""
    if CASES[name].fit == REFUSED:
        test_a_changed_value_is_refused_by_name(estimator_class, name, method)
    else:
        test_a_changed_value_is_used(estimator_class, name, method)
