"""Copies, clones and pickles are whole, and share nothing with the estimator they come from."""

import copy
import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted
from small_models import (
    Unchanged,
    X,
    assert_same,
    crossed,
    expected_outputs,
    fitted,
    for_each,
    outputs,
    plain_parameters,
    set_parameters,
    tiny,
)
from test_common import core, train

import skae


def by_pickle(estimator):
    return pickle.loads(pickle.dumps(estimator))


@for_each()
def test_an_unfitted_estimator_is_copied(estimator_class):
    estimator = tiny(estimator_class)
    for duplicate in (by_pickle, copy.deepcopy, copy.copy, clone):
        other = duplicate(estimator)
        assert plain_parameters(other) == plain_parameters(estimator)
        with pytest.raises(NotFittedError):
            check_is_fitted(other)
    assert_same(outputs(train(by_pickle(estimator), X), X), expected_outputs(estimator_class))


@for_each()
def test_unpickling_without_the_device_of_the_fit(estimator_class):
    estimator = fitted(estimator_class, device="cpu")
    expected = outputs(estimator, X)
    # A pickle of a fit on an accelerator, on a machine that has none of that name.
    set_parameters(estimator, device="cuda:99")
    core(estimator)._fitted.parameters["device"] = "cuda:99"
    again = by_pickle(estimator)
    assert next(core(again).module_.parameters()).device.type == "cpu"
    assert_same(outputs(again, X), expected)
    with Unchanged(again), pytest.raises(ValueError, match=r"device='cuda:99'.*not available"):
        train(again, X)
    assert_same(outputs(train(set_parameters(again, device="cpu"), X), X), expected)


@for_each()
def test_a_clone_of_a_fitted_estimator_is_unfitted(estimator_class):
    estimator = fitted(estimator_class)
    with Unchanged(estimator):
        cloned = clone(estimator)
        assert plain_parameters(cloned) == plain_parameters(estimator)
        with pytest.raises(NotFittedError):
            check_is_fitted(cloned)
        train(cloned, X[:, :2])
    assert_same(outputs(train(cloned, X), X), expected_outputs(estimator_class))


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


def assert_parameters_change_no_output(estimator_class, chosen):
    """Set parameters of a fitted estimator; a pickle builds its network anew."""
    estimator, expected = fitted(estimator_class), expected_outputs(estimator_class)
    known = core(estimator).get_params()
    set_parameters(estimator, **{name: chosen[name] for name in chosen if name in known})
    for duplicate in (lambda original: original, by_pickle, copy.deepcopy):
        assert_same(outputs(duplicate(estimator), X), expected)
    assert repr(estimator)


@pytest.mark.parametrize("name", OTHER_PARAMETERS)
def test_a_parameter_set_after_the_fit_changes_no_output(name):
    assert_parameters_change_no_output(skae.Autoencoder, {name: OTHER_PARAMETERS[name]})


@for_each()
def test_parameters_set_after_the_fit_change_no_output(estimator_class):
    assert_parameters_change_no_output(estimator_class, OTHER_PARAMETERS)


DUPLICATES = [
    pytest.param(copy.deepcopy, id="deepcopy"),
    pytest.param(copy.copy, id="copy"),
    pytest.param(by_pickle, id="pickle"),
]


@pytest.mark.parametrize(("estimator_class", "duplicate"), crossed(DUPLICATES, whole=False))
def test_copies_share_nothing_that_changes(estimator_class, duplicate):
    estimator = fitted(estimator_class)
    center = core(estimator).module_.inputs.center
    with Unchanged(estimator):
        for method in ("partial_fit", "fit"):
            other = duplicate(estimator)
            assert_same(outputs(other, X), expected_outputs(estimator_class))
            if hasattr(other, method):
                train(other, X**3, method)
                if method == "fit":
                    assert not np.array_equal(core(other).module_.inputs.center, center)
