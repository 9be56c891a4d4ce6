"""Small estimators that are fitted once, and which of them meet which cases by default.

The models that are cached here are made once in each process. Tests carry the name of their
estimator as their group, so that `--dist loadgroup` runs all tests of one estimator together.
"""

import copy
from collections import Counter
from functools import cache

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted
from test_common import configured, public_estimators, train

from skae import Autoencoder
from skae.base import BaseAutoencoder
from skae.tasks.meta_estimator import AutoencoderMetaEstimator

N = 40
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 2)) @ RNG.normal(size=(2, 3)) + 0.1 * RNG.normal(size=(N, 3))
FRAME = pd.DataFrame(X, columns=["a", "b", "c"])
TINY = {"n_components": 2, "hidden_layer_sizes": (4,), "max_epochs": 2, "random_state": 0}

ESTIMATORS = sorted(public_estimators(), key=lambda c: (c is not Autoencoder, len(c.__mro__)))
"""All public estimators: the plain autoencoder first, parents before their subclasses."""

AUTOENCODERS = [c for c in ESTIMATORS if issubclass(c, BaseAutoencoder)]
META_ESTIMATORS = [c for c in ESTIMATORS if issubclass(c, AutoencoderMetaEstimator)]

ROW_METHODS = (
    "transform",
    "reconstruct",
    "reconstruction_error",
    "score_samples",
    "decision_function",
    "predict",
    "predict_proba",
)
"""Methods that return one entry per row; each estimator has some of them."""

WITH_TARGETS = ("score", "partial_fit")
"""Methods beside `fit` that take targets where the estimator requires them."""

INVALID = (ValueError, TypeError)


# ------------------------------------------------------------- which estimator meets which case


def case_of(estimator_class, *values, label="", slow=False):
    """A test case of one estimator, in the group of that estimator."""
    name = estimator_class.__name__
    marks = [pytest.mark.xdist_group(name)] + [pytest.mark.slow] * slow
    return pytest.param(
        estimator_class, *values, id=f"{name}-{label}" if label else name, marks=marks
    )


def for_each(estimators=ESTIMATORS):
    """Run a test once for each estimator."""
    return pytest.mark.parametrize("estimator_class", [case_of(c) for c in estimators])


def crossed(
    cases, estimators=ESTIMATORS, always=(Autoencoder,), others=2, applies=None, whole=True
):
    """Pairs of an estimator and a case: a small cover by default, all others marked as slow.

    In the cover each case meets the estimators of `always` and `others` more, which take turns,
    so that each estimator meets several cases.

    Parameters
    ----------
    cases : list of pytest.param
    estimators : list of type
    always : tuple of type
        Estimators that meet every case by default.
    others : int
        How many further estimators a case meets by default. Unless it is 0, it is raised where
        there are too few cases for all estimators.
    applies : callable, default=None
        `applies(estimator_class, *values)` is False for pairs that make no test.
    whole : bool
        Whether the pairs outside the cover are tested at all.
    """
    pairs = [
        [c for c in estimators if applies is None or applies(c, *case.values)] for case in cases
    ]
    rest = [c for c in estimators if c not in always]
    if others:
        others = max(others, -(-len(rest) // len(cases)))
    possible = Counter(c for able in pairs for c in able)
    cover, chosen = set(), Counter()
    for i, able in enumerate(pairs):
        # Those that were chosen least often; among them those that the fewest cases apply to.
        turns = sorted(set(rest) & set(able), key=lambda c: (chosen[c], possible[c], rest.index(c)))
        chosen.update(turns[:others])
        cover |= {(c, i) for c in (*always, *turns[:others])}
    if others:
        assert {c for c, _ in cover} >= {c for able in pairs for c in able}
    return [
        case_of(c, *case.values, label=case.id, slow=(c, i) not in cover)
        for c in estimators
        for i, case in enumerate(cases)
        if c in pairs[i] and (whole or (c, i) in cover)
    ]


def for_each_kind(estimators=ESTIMATORS):
    """Run a test for `Autoencoder` and estimators over it; for other autoencoders it is slow."""
    always = tuple(c for c in estimators if c is Autoencoder or c in META_ESTIMATORS)
    cases = crossed([pytest.param()], estimators, always, others=0)
    return pytest.mark.parametrize("estimator_class", cases)


def is_fast(param):
    """Whether a case is run by default."""
    return all(mark.name != "slow" for mark in param.marks)


def with_method(cases, *methods):
    """Each case for each method, whose name becomes its first value."""
    return [pytest.param(m, *c.values, id=f"{m}-{c.id}") for m in methods for c in cases]


@cache
def known_parameters(estimator_class):
    """Names of an estimator's parameters; an estimator over an autoencoder has its, too."""
    known = set(estimator_class().get_params(deep=False))
    return known | set(Autoencoder().get_params()) if "autoencoder" in known else known


def takes(estimator_class, parameters):
    """Whether an estimator has all these parameters."""
    return set(parameters) <= known_parameters(estimator_class)


def definers(method, estimators=ESTIMATORS):
    """One estimator for each definition of a method: the first that has it."""
    first = {}
    for estimator_class in estimators:
        if hasattr(estimator_class, method):
            first.setdefault(getattr(estimator_class, method), estimator_class)
    return list(first.values())


class TaskCallback:
    """A callback of scikit-learn, whose methods do nothing."""

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context):
        pass


# ------------------------------------------------------------------------------ small estimators


def tiny(estimator_class, **parameters):
    """A fast estimator with these parameters."""
    assert takes(estimator_class, parameters)
    known = known_parameters(estimator_class)
    return configured(
        estimator_class, **({k: v for k, v in TINY.items() if k in known} | parameters)
    )


def set_parameters(estimator, **parameters):
    """Set parameters of an estimator or of its autoencoder."""
    own = estimator.get_params(deep=False)
    return estimator.set_params(
        **{k if k in own else f"autoencoder__{k}": v for k, v in parameters.items()}
    )


def plain_parameters(estimator):
    """All parameters that are no estimators, those of an estimator within included."""
    return {k: v for k, v in estimator.get_params().items() if not isinstance(v, BaseEstimator)}


@cache
def fitted_once(estimator_class, **parameters):
    """The fitted estimator of the process: only tests that leave it unchanged may use it."""
    return train(tiny(estimator_class, **parameters), X)


def fitted(estimator_class, rows=X, **parameters):
    """A fitted estimator that a test may change."""
    if rows is X:
        return copy.deepcopy(fitted_once(estimator_class, **parameters))
    return train(tiny(estimator_class, **parameters), rows)


def unfitted_and_fitted(estimator_class, rows=X, **parameters):
    """Two estimators that a test may change, an unfitted and a fitted one."""
    return tiny(estimator_class, **parameters), fitted(estimator_class, rows, **parameters)


# --------------------------------------------------------------------------------------- outputs


def cells(result):
    """A result as an array, with the columns of a data frame as floats."""
    return result.to_numpy(dtype=float) if hasattr(result, "columns") else np.asarray(result)


def outputs(estimator, rows):
    """What a fitted estimator computes from rows, from codes and from a seed, by method."""
    results = {m: cells(getattr(estimator, m)(rows)) for m in ROW_METHODS if hasattr(estimator, m)}
    if hasattr(estimator, "inverse_transform"):
        results["inverse_transform"] = cells(estimator.inverse_transform(results["transform"]))
    if hasattr(estimator, "sample"):
        results["sample"] = cells(estimator.sample(3, random_state=0))
    if hasattr(estimator, "noise_variance_"):
        results["noise_variance_"] = np.asarray(estimator.noise_variance_)
    return results


@cache
def expected_outputs(estimator_class):
    """Outputs of the estimator that `fitted_once` returns, for its training rows."""
    return outputs(fitted(estimator_class), X)


def outputs_of_new_fit(estimator_class):
    """Outputs of an estimator that is fitted now, here: other processes call it, too."""
    return outputs(train(tiny(estimator_class), X), X)


def assert_same(actual, expected):
    """Assert that two dictionaries of outputs agree to the bit."""
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value, err_msg=name)


def assert_valid_outputs(estimator, rows, n, n_columns):
    """Assert that all outputs are finite and of the right shape."""
    results = outputs(estimator, rows)
    for name, value in results.items():
        assert np.isfinite(value).all(), name
    for name in set(results) & set(ROW_METHODS):
        assert len(results[name]) == n, name
    for name in set(results) & {"reconstruct", "inverse_transform"}:
        assert results[name].shape == (n, n_columns), name
    if "sample" in results:
        assert results["sample"].shape == (3, n_columns)
    if "transform" in results:
        assert results["transform"].shape == (n, len(estimator.get_feature_names_out()))


def outcome(call):
    """What a call returns and the message of its error, one of which is None."""
    try:
        return call(), None
    except INVALID as error:
        return None, str(error)


class Unchanged:
    """Asserts that a block leaves a fitted estimator as it was, and an unfitted one unfitted."""

    def __init__(self, estimator, rows=X):
        self.estimator, self.rows = estimator, rows

    def current_outputs(self):
        """Outputs; those of the shared estimator before the block are known."""
        is_shared = self.estimator is fitted_once(type(self.estimator)) and self.rows is X
        if is_shared and not hasattr(self, "before"):
            return expected_outputs(type(self.estimator))
        return outputs(self.estimator, self.rows)

    def state(self):
        try:
            check_is_fitted(self.estimator)
        except NotFittedError:
            results = {}
        else:
            results = self.current_outputs()
        learned = {
            k: id(v) for k, v in vars(self.estimator).items() if k.endswith("_") or k == "_fitted"
        }
        return results, learned, set(vars(self.estimator)), self.estimator.get_params()

    def __enter__(self):
        self.before = self.state()

    def __exit__(self, kind, error, traceback):
        if error is None:
            results, *rest = self.before
            results_now, *rest_now = self.state()
            assert_same(results_now, results)
            assert rest_now == rest


def with_cell(value):
    """The usual rows with one cell replaced."""
    rows = X.copy()
    rows[3, 1] = value
    return rows
