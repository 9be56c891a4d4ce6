"""scikit-learn's own checks on every public estimator, those it keeps for itself included."""

import os
from functools import partial
from inspect import getattr_static
from unittest import SkipTest

import numpy as np
import pytest
import sklearn.utils.estimator_checks as checks
from sklearn.base import BaseEstimator
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import estimator_checks_generator

import skae
from skae.base import BaseAutoencoder
from skae.variants.conditioned import ConditionedAutoencoder

PRIVATE_CHECKS = [
    checks.check_param_validation,
    checks.check_dataframe_column_names_consistency,
    checks.check_inplace_ensure_writeable,
]
"""Public checks that scikit-learn runs on its own estimators and `check_estimator` leaves out."""

PRIVATE_TRANSFORMER_CHECKS = [
    checks.check_set_output_transform,
    checks.check_set_output_transform_pandas,
    checks.check_global_output_transform_pandas,
    checks.check_set_output_transform_polars,
    checks.check_global_set_output_transform_polars,
    checks.check_transformer_get_feature_names_out,
    checks.check_transformer_get_feature_names_out_pandas,
    checks.check_get_feature_names_out_error,
]
"""The same for estimators with a `transform`."""

CHECKS_OF_NUMBERS = {
    "check_estimators_pickle",
    "check_fit2d_1feature",
    "check_fit2d_1sample",
    "check_fit_idempotent",
    "check_methods_sample_order_invariance",
    "check_methods_subset_invariance",
    "check_pipeline_consistency",
    "check_sample_weight_equivalence_on_dense_data",
    "check_transformer_general",
    "check_transformer_preserve_dtypes",
}
"""Checks that compare the numbers of two fits or two calls, or meet the smallest tables.

The others are about names, containers, messages and validation, which do not depend on parameters.
"""

CHECKS_OF_LEARNING = {
    "check_class_weight_classifiers",
    "check_classifiers_classes",
    "check_classifiers_multilabel_representation_invariance",
    "check_classifiers_train",
    "check_regressors_train",
}
"""Checks that require some accuracy or compare predictions of classes."""

SMALL = {"hidden_layer_sizes": (16, 8), "max_epochs": 5}
"""Sizes for most checks."""

LEARNING = {"hidden_layer_sizes": (16,), "max_epochs": 150}
"""Sizes for checks that require some accuracy."""

VARIANTS = {
    "float32": {"precision": "float32"},
    "bernoulli": {"likelihood": "bernoulli"},
    "conv": {"architecture": "conv", "feature_shape": (1, 1, -1), "hidden_layer_sizes": (8,)},
    "recurrent": {
        "architecture": "recurrent",
        "feature_shape": (-1, 1),
        "hidden_layer_sizes": (6,),
    },
    "linear": {"hidden_layer_sizes": ()},
    "overcomplete": {"n_components": 40},
    "tied": {"tied_weights": True},
}
"""Parameters, beside those of `SMALL`, of the instances that meet `CHECKS_OF_NUMBERS`."""

SHARED_VARIANTS = ("float32", "bernoulli", "conv", "recurrent")
"""Variants that concern every latent; the others are tried on `Autoencoder` alone."""

ROUNDING = "products of other shapes round differently, by 1e-6 where the check allows 1e-7"

EXPECTED_FAILURES = {
    "float32": {
        "check_methods_subset_invariance": ROUNDING,
        "check_methods_sample_order_invariance": ROUNDING,
    }
}
"""Checks that float32 cannot meet, each with its reason; no other instance may have any."""


def public_estimators() -> list[type[BaseEstimator]]:
    """All estimators that `skae` exports."""
    exported = [getattr(skae, name) for name in skae.__all__]
    return [
        thing
        for thing in exported
        if isinstance(thing, type)
        and issubclass(thing, BaseEstimator)
        and hasattr(thing, "fit")
        and not getattr(thing, "__abstractmethods__", None)
    ]


def configured(estimator_class, **parameters):
    """An estimator, or one over an autoencoder, with these parameters where it has them.

    Parameters that are not an estimator's own are those of its autoencoder.
    """
    own = estimator_class().get_params()
    if "autoencoder" not in own:
        return estimator_class(**parameters)
    outer = {name: value for name, value in parameters.items() if name in own}
    inner = {name: value for name, value in parameters.items() if name not in own}
    if inner:
        outer.setdefault("autoencoder", skae.Autoencoder(**inner))
    return estimator_class(**outer)


def core(estimator):
    """The fitted autoencoder itself."""
    return getattr(estimator, "autoencoder_", estimator)


def train(estimator, rows, method="fit", **fit_parameters):
    """Fit with targets where the estimator wants some; or call another method so."""
    y = None
    if get_tags(estimator).target_tags.required:
        shape = getattr(rows, "shape", None)
        n = shape[0] if shape else len(rows) if hasattr(rows, "__len__") else 1
        y = np.arange(n) % 2
    return getattr(estimator, method)(rows, y, **fit_parameters)


def check_name(check) -> str:
    return (check.func if isinstance(check, partial) else check).__name__


def public_checks(estimator):
    return [check for _, check in estimator_checks_generator(estimator, legacy=True, mark=None)]


def private_checks(estimator):
    private = PRIVATE_CHECKS + PRIVATE_TRANSFORMER_CHECKS * hasattr(estimator, "transform")
    return [partial(check, type(estimator).__name__) for check in private]


def case(estimator, kind, check, *, slow=False):
    label = f"{type(estimator).__name__}-{kind}-{check_name(check)}"
    if kind in EXPECTED_FAILURES and check_name(check) in EXPECTED_FAILURES[kind]:
        marks = [pytest.mark.xfail(reason=EXPECTED_FAILURES[kind][check_name(check)], strict=False)]
    else:
        marks = []
    return pytest.param(estimator, kind, check, id=label, marks=marks + [pytest.mark.slow] * slow)


def inherits_output(estimator_class):
    """Whether the containers and the names of codes are those of `Autoencoder`."""
    methods = "transform", "fit_transform", "set_output", "get_feature_names_out"
    return estimator_class is not skae.Autoencoder and all(
        getattr_static(estimator_class, method, None) is getattr_static(skae.Autoencoder, method)
        for method in methods
    )


def cases_of_small_instances():
    """All checks of every estimator with its default parameters, sizes and epochs excepted.

    By default, checks of the output's container skip classes that inherit it from `Autoencoder`.
    """
    checks_of_output = {check.__name__ for check in PRIVATE_TRANSFORMER_CHECKS}
    for estimator_class in public_estimators():
        small, learning = (configured(estimator_class, **sizes) for sizes in (SMALL, LEARNING))
        inherits = inherits_output(estimator_class)
        for check in public_checks(small) + private_checks(small):
            name = check_name(check)
            chosen = learning if name in CHECKS_OF_LEARNING else small
            yield case(chosen, "small", check, slow=inherits and name in checks_of_output)


def cases_of_default_instances():
    """All checks of `Autoencoder` as it is, and those that compare numbers of other estimators."""
    for estimator_class in public_estimators():
        estimator, is_plain = estimator_class(), estimator_class is skae.Autoencoder
        for check in public_checks(estimator):
            if is_plain or check_name(check) in CHECKS_OF_NUMBERS | CHECKS_OF_LEARNING:
                yield case(estimator, "default", check, slow=not is_plain)


def cases_of_variants():
    """Checks that compare numbers; by default, of `Autoencoder` alone.

    Estimators with conditions are left out, which tests/test_conditions.py checks, and those over
    an autoencoder, which do not know its networks.
    """
    for estimator_class in public_estimators():
        if not issubclass(estimator_class, BaseAutoencoder):
            continue
        if issubclass(estimator_class, ConditionedAutoencoder):
            continue
        is_plain = estimator_class is skae.Autoencoder
        names = [*VARIANTS] if is_plain else [*SHARED_VARIANTS]
        if get_tags(estimator_class()).target_tags.required:
            names.remove("bernoulli")  # checks make the targets of columns, here all 0
        for name in names:
            estimator = estimator_class(**SMALL | VARIANTS[name])
            for check in public_checks(estimator):
                if check_name(check) in CHECKS_OF_NUMBERS:
                    yield case(estimator, name, check, slow=not is_plain)


def to_unit_interval(X):
    """Move a table into [0, 1], its dtype kept where that is a float."""
    low, high = X.min(), X.max()
    return (X - low) / (high - low if high > low else 1)


@pytest.fixture
def data_within_range(request, monkeypatch):
    """The Bernoulli likelihood refuses values outside [0, 1], so its checks get such data.

    scikit-learn has a tag for "no negative values" but none for an upper limit. Its checks pass
    their data through one function that adapts them to the tags; here it also scales them.
    """
    if request.node.callspec.params["kind"] != "bernoulli":
        return
    adapt = checks._enforce_estimator_tags_X

    def adapt_and_scale(estimator, X, X_test=None, **kwargs):
        adapted = adapt(estimator, X, X_test, **kwargs)
        if isinstance(adapted, tuple):
            return tuple(to_unit_interval(part) for part in adapted)
        return to_unit_interval(adapted)

    monkeypatch.setattr(checks, "_enforce_estimator_tags_X", adapt_and_scale)


def test_array_api_is_switched_on():
    """Without it the array-API checks would be skipped in silence."""
    assert os.environ["SCIPY_ARRAY_API"] == "1"


def test_estimators_are_discovered():
    assert skae.Autoencoder in public_estimators()


def test_names_of_checks_are_scikit_learns():
    """A check that is renamed would otherwise no longer be chosen."""
    met = {check_name(check) for c in public_estimators() for check in public_checks(c())}
    assert met >= CHECKS_OF_NUMBERS | CHECKS_OF_LEARNING


def test_only_float32_may_fail():
    assert set(EXPECTED_FAILURES) <= {"float32"}
    assert all(reason for reasons in EXPECTED_FAILURES.values() for reason in reasons.values())


CASES = [*cases_of_small_instances(), *cases_of_default_instances(), *cases_of_variants()]


@pytest.mark.usefixtures("data_within_range")
# Some checks fit a data frame and transform an array, or the reverse, on purpose.
@pytest.mark.filterwarnings("ignore:X (has|does not have valid) feature names:UserWarning")
# Some tables of the checks are noise, from which codes learn nothing, or have few rows.
@pytest.mark.filterwarnings("ignore:(Posterior collapse|Only .* of n_codes|The noise variance)")
# Some checks set no seed. A pass over rows seen before then raises the loss of some fair codes.
@pytest.mark.filterwarnings("ignore:Training diverged")
@pytest.mark.filterwarnings("ignore:n_components=40 exceeds the number of columns")
@pytest.mark.parametrize(("estimator", "kind", "check"), CASES)
def test_check(estimator, kind, check):
    try:
        check(estimator)
    except SkipTest as skip:
        absent = "array_api" in check_name(check) and "not installed" in str(skip)
        if not absent:
            pytest.fail(f"skipped: {skip}")
        pytest.skip(str(skip))
