"""Paths along a parameter: what they find, what they tell, and what they leave alone."""

import warnings
from itertools import count
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GroupKFold, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skae
from skae import (
    Autoencoder,
    ComponentsPath,
    VariationalAutoencoder,
    components_path,
    model_selection,
)
from skae.model_selection import MAX_DEFAULT_SIZES, _Fit, _select_size, _standard_error
from skae.state import NetworkMismatchError

pytestmark = pytest.mark.filterwarnings("ignore:The suggested n_components:UserWarning")

SMALL = {"hidden_layer_sizes": (16,), "max_epochs": 10, "random_state": 0}


def manifold(k, noise=0.1, n=700, d=12, seed=0):
    """Rows of k normal causes, a random tanh layer and noise."""
    rng = np.random.default_rng(seed)
    causes = rng.normal(size=(n, k))
    return np.tanh(causes @ rng.normal(size=(k, d))) + noise * rng.normal(size=(n, d))


@pytest.fixture(scope="module")
def rows():
    return manifold(2, n=200, d=6)


@pytest.fixture(scope="module")
def path(rows):
    return components_path(Autoencoder(**SMALL), rows, param_range=[4, 1, 2])


# ------------------------------------------------------------------------------ what it finds


@pytest.mark.parametrize(
    ("k", "noise"),
    [
        (2, 0.03),
        pytest.param(2, 0.3, marks=pytest.mark.slow),
        pytest.param(4, 0.1, marks=pytest.mark.slow),
    ],
)
def test_it_finds_the_number_of_causes(k, noise):
    X = manifold(k, noise)
    estimator = Autoencoder(max_epochs=60, random_state=0)
    assert components_path(estimator, X, param_range=range(1, k + 3)).suggested == k


@pytest.mark.parametrize("name", ["Variational", "Wasserstein"])
@pytest.mark.slow
def test_other_families_find_it_too(name):
    estimator = getattr(skae, f"{name}Autoencoder")(max_epochs=120, random_state=0)
    path = components_path(estimator, manifold(2), param_range=range(1, 4))
    assert path.suggested == 2


def test_linear_data_have_pcas_density():
    """There, no size is better than PCA by more than chance, and PCA is where training starts."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 3)) @ rng.normal(size=(3, 8)) + 0.1 * rng.normal(size=(600, 8))
    path = components_path(Autoencoder(max_epochs=40, random_state=0), X, param_range=[2, 3, 4])
    assert path.suggested == 3
    gap = path.results["test_nats"] - path.results["pca_test_nats"]
    assert gap.abs().max() < 0.3


def test_the_number_of_components_has_no_part_in_how_long_they_are_trained():
    """Longer codes have been trained for longer: what is left of a component counts, not that."""
    nats, split = np.linspace(0, 1, 50), SimpleNamespace(scored_index=np.arange(50))

    def step(now, longer):
        return _Fit(None, split, nats + now, 0.0, nats + longer)

    steps = [step(-5, -4.9), step(0, 0.9), step(0.5, 0.95), step(0.96, 1.0)]
    means = [s.nats.mean() for s in steps]
    results = pd.DataFrame({"test_nats": means, "worth": np.nan, "worth_se": np.nan}, [1, 2, 3, 4])
    assert np.argmax(means) == 3
    assert _select_size([1, 2, 3, 4], [steps], results, 3) == 1
    np.testing.assert_allclose(results["worth"].to_numpy(), [np.nan, 4.9, -0.4, 0.01], atol=1e-12)


# ------------------------------------------------------------------------------- what it tells


def test_results_are_a_table_in_order(path):
    assert isinstance(path, ComponentsPath)
    assert path.results.index.tolist() == [1, 2, 4]
    assert path.results.index.name == path.param_name == "n_components"
    assert path.suggested in path.results.index
    assert (path.results["train_error"].diff().dropna() < 0).all()
    assert np.isfinite(path.results.drop(columns=["worth", "worth_se"])).all(axis=None)
    assert (path.results["seconds"] > 0).all()


def test_numbers_are_what_they_are_called(rows):
    split = [(np.arange(150), np.arange(150, 200))]
    path = components_path(Autoencoder(**SMALL), rows, param_range=[2], cv=split)
    # The fits of a path can be resumed, so that they do not train on their validation rows.
    fitted = Autoencoder(2, **(SMALL | {"max_epochs": 6, "warm_start": True})).fit(rows[:150])
    told, nats = path.results.loc[2], fitted.score_samples(rows[150:])
    np.testing.assert_allclose(told["test_nats"], nats.mean(), rtol=1e-12)
    np.testing.assert_allclose(told["test_nats_se"], nats.std(ddof=1) / 50**0.5, rtol=1e-12)
    for name, part in (("train_error", rows[:150]), ("test_error", rows[150:])):
        np.testing.assert_allclose(told[name], fitted.reconstruction_error(part).mean(), rtol=1e-12)
    pca = PCA(2).fit(rows[:150])
    restored = pca.inverse_transform(pca.transform(rows[150:]))
    error = ((restored - rows[150:]) ** 2).sum(axis=1).mean()
    np.testing.assert_allclose(told["pca_test_error"], error, rtol=1e-12)
    np.testing.assert_allclose(told["pca_test_nats"], pca.score(rows[150:]), rtol=1e-12)
    assert path.suggested == 2


def test_one_standard_error_takes_the_first_value_that_is_good_enough():
    results = pd.DataFrame(
        {"test_nats": [0.0, 1.8, 2.0, 1.9], "test_nats_se": [1.0, 1.0, 0.3, 1.0]}, [1, 2, 5, 8]
    )
    assert ComponentsPath("n_components", results, 5).one_standard_error() == 2
    results["test_nats_se"] = 0.1
    assert ComponentsPath("n_components", results, 5).one_standard_error() == 5
    assert ComponentsPath("n_components", results, 8).one_standard_error() == 2


def test_standard_error_of_a_mean():
    values = np.random.default_rng(0).normal(size=(2000, 100))
    told = np.mean([_standard_error(sample) for sample in values])
    np.testing.assert_allclose(told, values.mean(axis=1).std(), rtol=0.05)
    assert _standard_error(values[0, :1]) == np.inf


def test_a_row_counts_once_however_often_it_is_held_out(rows):
    """Nothing new is learnt from the same split again, so that errors must not shrink."""
    split = (np.arange(150), np.arange(150, 200))
    once, often = (
        components_path(Autoencoder(**SMALL), rows, param_range=[1, 2], cv=[split] * n).results
        for n in (1, 4)
    )
    columns = ["test_error", "test_nats", "test_nats_se", "worth", "worth_se", "pca_test_nats"]
    np.testing.assert_allclose(once[columns], often[columns], rtol=1e-9)


def test_splits_may_be_masks_or_lists(rows):
    held_out = np.arange(200) >= 150
    splits = [
        (np.flatnonzero(~held_out), np.flatnonzero(held_out)),
        (~held_out, held_out),
        ([*range(150)], [*range(150, 200)]),
    ]
    plain, *others = (
        components_path(Autoencoder(**SMALL), rows, param_range=[1], cv=[split]).results
        for split in splits
    )
    for other in others:
        np.testing.assert_allclose(other["test_nats"], plain["test_nats"], rtol=1e-12)


def test_groups_stay_on_one_side(rows):
    groups = np.arange(200) % 5
    path = components_path(
        Autoencoder(**SMALL), rows, param_range=[1], cv=GroupKFold(2), groups=groups
    )
    assert np.isfinite(path.results["test_nats"]).all()


def test_splits_are_averaged(rows):
    folds = list(KFold(2).split(rows))
    both, one, two = (
        components_path(Autoencoder(**SMALL), rows, param_range=[1, 2], cv=cv).results
        for cv in (folds, folds[:1], folds[1:])
    )
    for name in ("train_error", "test_error", "test_nats", "pca_test_error", "pca_test_nats"):
        np.testing.assert_allclose(both[name], (one[name] + two[name]) / 2, rtol=1e-9)
    assert (
        components_path(Autoencoder(**SMALL), rows, param_range=[1, 2], cv=2)
        .results["test_nats"]
        .equals(both["test_nats"])
    )


def test_equal_seeds_equal_paths(rows, path):
    again = components_path(Autoencoder(**SMALL), rows, param_range=[1, 2, 4])
    pd.testing.assert_frame_equal(
        again.results.drop(columns="seconds"), path.results.drop(columns="seconds")
    )


def test_default_sizes_are_few_and_reach_beyond_the_root():
    of_64 = [1, 2, 3, 4, 6, 8, 10, 13, 18, 24]
    cases = (((2,), [1, 2]), ((6,), [1, 2, 3, 4, 5, 6]), ((64,), of_64), ((1, 8, 8), of_64))
    for shape, expected in cases:
        X = np.random.default_rng(0).normal(size=(20, *shape))
        estimator = Autoencoder(
            hidden_layer_sizes=(),
            max_epochs=0,
            feature_shape=None if len(shape) == 1 else shape,
            random_state=0,
        )
        sizes = components_path(estimator, X).results.index.tolist()
        assert sizes == expected
        assert len(sizes) <= MAX_DEFAULT_SIZES


def test_the_largest_size_is_suggested_with_a_warning():
    with pytest.warns(UserWarning, match="n_components=2 is the largest value of the path"):
        components_path(
            Autoencoder(max_epochs=20, random_state=0), manifold(3, n=300), param_range=[1, 2]
        )


# ------------------------------------------------------------------------- any one parameter


def test_another_parameter_is_chosen_by_held_out_density():
    X = load_digits().data[:600] / 16
    estimator = VariationalAutoencoder(8, max_epochs=20, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        path = components_path(estimator, X, param_name="beta", param_range=[30.0, 1.0, 0.3])
    assert path.results.index.tolist() == [30.0, 1.0, 0.3]
    assert path.suggested == path.results["test_nats"].idxmax() != 30.0
    assert path.results.loc[30.0, "test_error"] > path.results.loc[1.0, "test_error"]
    assert "pca_test_nats" not in path.results


def test_values_may_be_anything(rows):
    values = ["isotropic", "diagonal", 0.01]
    path = components_path(Autoencoder(2, **SMALL), rows, param_name="noise", param_range=values)
    assert path.results.index.tolist() == values
    assert path.suggested == values[int(np.argmax(path.results["test_nats"]))]


def test_values_come_back_as_they_were_given(rows):
    values = [None, "gaussian"]
    path = components_path(
        Autoencoder(2, **SMALL), rows, param_name="corruption", param_range=values
    )
    assert path.results.index.tolist() == values
    assert any(path.suggested is value for value in values)


# ----------------------------------------------------------------- tables, pipelines, targets


def test_a_pipeline_prepares_rows_of_each_split(rows):
    units = rows * [1, 10, 100, 1, 1, 1] + 5
    split = [(np.arange(150), np.arange(150, 200))]
    scaler = StandardScaler().fit(units[:150])
    scaled = scaler.transform(units)
    inside = make_pipeline(StandardScaler(), "passthrough", Autoencoder(**SMALL))
    got, expected = (
        components_path(estimator, X, param_range=[1, 2], cv=split)
        for estimator, X in ((inside, units), (Autoencoder(**SMALL), scaled))
    )
    pd.testing.assert_frame_equal(
        got.results.drop(columns="seconds"), expected.results.drop(columns="seconds")
    )


def test_data_frames_pass(rows, path):
    frame = pd.DataFrame(rows, columns=list("abcdef")).set_index(np.arange(len(rows))[::-1])
    again = components_path(Autoencoder(**SMALL), frame, param_range=[1, 2, 4])
    np.testing.assert_allclose(again.results["test_nats"], path.results["test_nats"], rtol=1e-12)


def test_targets_reach_the_fit():
    X, y = load_digits(return_X_y=True)
    estimator = skae.SemiSupervisedVariationalAutoencoder(
        max_epochs=4, hidden_layer_sizes=(16,), random_state=0
    )
    path = components_path(estimator, X[:300] / 16, y[:300], param_range=[1, 3])
    assert path.results.index.tolist() == [1, 3]


def test_pca_is_left_out_where_it_cannot_be_compared(rows):
    unit = (rows - rows.min()) / np.ptp(rows)
    bernoulli = components_path(Autoencoder(likelihood="bernoulli", **SMALL), unit, param_range=[2])
    assert bernoulli.results[["pca_test_error", "pca_test_nats"]].isna().all(axis=None)
    beyond = components_path(Autoencoder(**SMALL), rows, param_range=[1, 9])
    assert beyond.results["pca_test_nats"].isna().tolist() == [False, True]
    estimator = skae.ConditionalVariationalAutoencoder(condition=-1, **SMALL)
    conditional = components_path(estimator, rows, param_range=[1])
    assert conditional.results["pca_test_nats"].isna().all()
    ends = rows.copy()
    ends[::3, 4:] = np.nan
    sequences = Autoencoder(
        architecture="recurrent", feature_shape=(6, 1), **(SMALL | {"max_epochs": 2})
    )
    gaps = components_path(sequences, ends, param_range=[1])
    assert gaps.results["pca_test_nats"].isna().all()
    assert np.isfinite(gaps.results["test_nats"]).all()


def test_no_global_generator_is_read():
    X = np.random.default_rng(0).normal(size=(520, 150))  # where PCA would draw
    before = np.random.get_state()[1].copy()
    path = components_path(
        Autoencoder(hidden_layer_sizes=(), max_epochs=0, random_state=0), X, param_range=[1]
    )
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    assert np.isfinite(path.results["pca_test_nats"]).all()


def test_seconds_are_those_that_passed(rows, monkeypatch):
    """On a clock that shows how often it was read: a second for each fit, none left out."""
    readings = count()
    monkeypatch.setattr(model_selection, "perf_counter", lambda: next(readings))
    told = components_path(Autoencoder(**SMALL), rows, param_range=[1, 2]).results["seconds"]
    assert told.sum() == next(readings) / 2 >= 2


def test_the_estimator_is_left_alone(rows):
    estimator = Autoencoder(**SMALL)
    before = estimator.get_params()
    components_path(estimator, rows, param_range=[1])
    assert estimator.get_params() == before
    assert not hasattr(estimator, "module_")
    assert clone(estimator).get_params() == before


# ----------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"estimator": PCA()}, TypeError, "estimator must be an autoencoder or a Pipeline"),
        (
            {"estimator": make_pipeline(StandardScaler(), PCA())},
            TypeError,
            "a Pipeline that ends with one, got PCA",
        ),
        ({"param_name": "alpha"}, ValueError, "param_name must be a parameter of Auto"),
        ({"param_name": "noise"}, ValueError, "param_range must hold the values of noise"),
        ({"param_range": []}, ValueError, "param_range must hold at least one value"),
        ({"param_range": [0, 1]}, ValueError, "positive integers for n_components"),
        ({"param_range": [0.5, 2]}, ValueError, "positive integers for n_components"),
        ({"param_range": ["auto"]}, ValueError, "positive integers for n_components"),
        ({"param_name": "trim", "param_range": [2.0]}, ValueError, "'trim' parameter"),
        (
            {"param_name": "max_epochs", "param_range": [1]},
            ValueError,
            "which components_path sets itself",
        ),
        ({"param_name": "dropout", "param_range": [0, 0.0]}, ValueError, "distinct values"),
        (
            {"param_name": "hidden_layer_sizes", "param_range": [(8,), (4,)]},
            ValueError,
            "changes the architecture of the network",
        ),
        ({"cv": []}, ValueError, "cv must yield at least one split"),
        ({"cv": [([0, 1], [])]}, ValueError, "cv must yield splits with training rows"),
        ({"X": np.full((20, 3), np.nan)}, ValueError, "NaN"),
        ({"y": [1, 2]}, ValueError, "inconsistent numbers of samples"),
    ],
)
def test_bad_input_is_refused(rows, options, error, message):
    given = {"estimator": Autoencoder(**SMALL), "X": rows} | options
    with pytest.raises(error, match=message):
        components_path(given.pop("estimator"), given.pop("X"), given.pop("y", None), **given)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("hidden_layer_sizes", [(8,), (4,)]),
        ("linear_skip", [False]),
        ("tied_weights", [True]),
    ],
)
def test_parameters_that_shape_the_network_are_for_a_grid_search(rows, name, values):
    estimator = Autoencoder(2, **SMALL)
    with pytest.raises(ValueError, match=f"{name}' changes the arch.*GridSearchCV") as error:
        components_path(estimator, rows, param_name=name, param_range=values)
    assert isinstance(error.value.__cause__, NetworkMismatchError)


def test_other_errors_that_speak_of_another_network_arrive_as_they_are(rows):
    def corrupt(x, generator):
        raise ValueError("this corruption is for another network")

    with pytest.raises(ValueError, match="corruption is for another network") as error:
        components_path(
            Autoencoder(2, **SMALL), rows, param_name="corruption", param_range=[None, corrupt]
        )
    assert "GridSearchCV" not in str(error.value)
