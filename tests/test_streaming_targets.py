"""`partial_fit` with targets: classifiers, regressors and autoencoders that use targets."""

import numpy as np
import pandas as pd
import pytest
from sklearn.frozen import FrozenEstimator
from small_models import X, tiny

import skae
from skae import (
    Autoencoder,
    AutoencoderClassifier,
    AutoencoderRegressor,
    ConditionalVariationalAutoencoder,
    FairAutoencoder,
    SemiSupervisedVariationalAutoencoder,
)
from skae.table.rows import Rows
from skae.table.seen import Sample, Seen
from skae.table.targets import Targets

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def same_numbers():
    """Each test draws the same numbers, whichever tests ran before."""
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


def two_groups(n):
    """Rows of two groups, and their classes 0 and 1 in turn."""
    y = np.arange(n) % 2
    return RNG.normal(size=(n, 4)) + 4 * y[:, None], y


@pytest.mark.parametrize("size", [10, 90])
def test_classes_that_come_one_after_the_other_are_learned(size):
    rows = np.concatenate([RNG.normal(size=(90, 4)) + 4 * np.eye(4)[c] for c in range(3)])
    y = np.repeat(["a", "b", "c"], 90)
    model = AutoencoderClassifier(random_state=0)
    for i in range(0, len(rows), size):
        model.partial_fit(rows[i : i + size], y[i : i + size], classes=["c", "a", "b"])
    assert model.score(rows, y) > 0.9
    with pytest.raises(ValueError, match="classes must be those of the first call"):
        model.partial_fit(rows, y, classes=["a", "b"])


@pytest.mark.parametrize(
    "estimator_class", [AutoencoderClassifier, SemiSupervisedVariationalAutoencoder]
)
def test_few_labels_are_learned(estimator_class):
    rows = RNG.normal(size=(400, 4)) + 4 * (np.arange(400) % 2)[:, None]
    y = np.where(np.arange(400) < 20, np.arange(400) % 2, -1)
    model = estimator_class(random_state=0)
    for i in range(0, 400, 100):
        model.partial_fit(rows[i : i + 100], y[i : i + 100], classes=[0, 1])
    assert model.score(rows, np.arange(400) % 2) > 0.9


def test_numbers_are_learned():
    rows = RNG.normal(size=(400, 5))
    y = 30 + 5 * rows[:, 0] - 2 * rows[:, 1]
    model = AutoencoderRegressor(random_state=0)
    for i in range(0, 400, 40):
        model.partial_fit(rows[i : i + 40], y[i : i + 40])
    assert model.score(rows, y) > 0.8


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({"fine_tune": False}, "fine_tune"),
        ({"class_weight": "balanced"}, "class_weight"),
        ({"class_weight": [{0: 1, 1: 2}, "balanced"]}, "class_weight"),
    ],
)
def test_what_cannot_be_streamed_is_refused_by_name(parameters, match):
    with pytest.raises(ValueError, match=match):
        AutoencoderClassifier(**parameters).partial_fit(X, np.arange(len(X)) % 2)


# ------------------------------------------------------------------------ what has been seen


def labeled_sample(n, known):
    values = np.where(known, 1.0, 0.0)[:, None]
    return Sample.hashed(
        Rows(RNG.normal(size=(n, 2))), np.ones(n), None, Targets(values, values), 0
    )


def test_rows_with_rare_targets_stay_in_the_sample(monkeypatch):
    """And all rows of the sample have weights such that they represent all rows seen."""
    monkeypatch.setattr("skae.table.seen.SAMPLE_ROWS", 50)
    seen = Seen.nothing(0, 2)
    for _ in range(10):
        seen = seen.join(labeled_sample(100, np.arange(100) < 2)).seen
    assert len(seen.sample) == 50
    assert seen.sample.is_labeled.sum() == 20
    assert seen.sample_weight[seen.sample.is_labeled] == pytest.approx(np.ones(20))
    assert seen.sample_weight[~seen.sample.is_labeled] == pytest.approx(np.full(30, 980 / 30))
    for _ in range(10):
        seen = seen.join(labeled_sample(100, np.arange(100) < 50)).seen
    assert seen.sample.is_labeled.sum() == 25
    assert seen.sample_weight[seen.sample.is_labeled].sum() == pytest.approx(520)
    assert seen.sample_weight.sum() == pytest.approx(2000)


@pytest.mark.parametrize("estimator_class", [AutoencoderClassifier, AutoencoderRegressor])
def test_a_stream_after_fit_continues_its_sample(estimator_class):
    """Rows that come later have no larger share of the sample than of all rows."""
    rows, y = two_groups(3000)
    model = estimator_class(tiny(Autoencoder), random_state=0)
    model.fit(rows, y).partial_fit(rows[:300] + 10, y[:300])
    seen = model.autoencoder_._fitted.seen
    assert len(seen.sample) == 2048
    is_new = seen.sample.rows.values.mean(1) > model.preprocess(rows).mean(1).max()
    assert is_new.mean() == pytest.approx(300 / 3300, abs=0.02)


def test_chosen_validation_rows_do_not_shorten_the_sample():
    rows, _ = two_groups(3000)
    model = tiny(Autoencoder, early_stopping="auto").fit(rows, X_val=rows[:500] + 1)
    assert len(model._fitted.seen.sample) == 2048
    assert model._fitted.seen.weight == 3000


def test_targets_of_the_sample_do_not_contain_the_label_weight():
    """It depends on the number of all rows seen."""
    rows, y = two_groups(40)
    model = tiny(SemiSupervisedVariationalAutoencoder)
    model.partial_fit(rows, y, classes=[0, 1]).partial_fit(rows + 1, np.full(40, -1))
    assert {*model._fitted.seen.sample.targets.observed.ravel()} == {0.0, 1.0}
    assert model._target_weight(80.0) == 8.0


def test_a_pretrained_autoencoder_may_have_seen_rows_without_targets():
    rows, y = two_groups(400)
    frozen = FrozenEstimator(Autoencoder(2, random_state=0).fit(rows))
    model = AutoencoderClassifier(frozen, random_state=0)
    for i in range(0, 400, 100):
        model.partial_fit(rows[i : i + 100], y[i : i + 100])
    assert model.score(rows, y) > 0.95
    seen = model.autoencoder_._fitted.seen
    assert seen.weight == 800
    assert seen.labeled == 400


def test_targets_of_another_estimator_are_not_those_of_a_regressor():
    rows, y = two_groups(200)
    classifier = AutoencoderClassifier(random_state=0).fit(rows, y)
    model = AutoencoderRegressor(FrozenEstimator(classifier.autoencoder_), random_state=0)
    model.partial_fit(rows[:50], 1e3 + 5 * rows[:50, 0])
    assert model.score(rows, 1e3 + 5 * rows[:, 0]) > 0.5
    assert model.autoencoder_._fitted.seen.target_moments.mean > 900


def test_rows_of_another_estimator_keep_what_they_represent(monkeypatch):
    """Also if few of them had targets, which filled half of their sample."""
    monkeypatch.setattr("skae.table.seen.SAMPLE_ROWS", 300)
    seen = Seen.nothing(0, 2).join(labeled_sample(2000, np.arange(2000) < 200)).seen
    alone = seen.without_targets()
    assert alone.sample.targets is None
    assert alone.labeled == 0
    np.testing.assert_allclose(alone.sample_weight, seen.sample_weight)
    new = np.random.default_rng(1).normal(size=(1000, 2))
    for part in np.split(new, 5):
        rows = Sample.hashed(Rows(part), np.ones(200), None, None, alone.seed)
        alone = alone.join(rows).seen
    is_new = np.isin(alone.sample.rows.values[:, 0], new[:, 0])
    assert alone.sample_weight[is_new].sum() == pytest.approx(1000, rel=0.3)


def test_a_frozen_autoencoder_may_have_been_fitted_to_corrupted_rows():
    rows, y = two_groups(60)
    frozen = FrozenEstimator(tiny(Autoencoder).fit(rows, X_corrupted=rows + 1))
    model = AutoencoderClassifier(frozen, random_state=0).partial_fit(rows, y)
    assert model.autoencoder_._fitted.seen.weight == 120


# --------------------------------------------------------------------------------- the map


@pytest.mark.parametrize("size", [1, 10])
def test_the_map_follows_the_codes_in_each_call(size):
    rows, y = two_groups(600)
    rows, mixed = rows + RNG.normal(size=rows.shape), RNG.permutation(600)
    model = AutoencoderClassifier(random_state=0).fit(rows[:300], y[:300])
    before = model.score(rows[300:], y[300:])
    for i in range(0, 40, size):
        part = mixed[i : i + size]
        model.partial_fit(rows[part], y[part])
    assert model.score(rows[300:], y[300:]) > before - 0.02


def test_a_stream_with_a_few_labels_at_its_beginning_keeps_them(monkeypatch):
    monkeypatch.setattr("skae.table.seen.SAMPLE_ROWS", 40)
    rows, y = two_groups(400)
    partial = np.where(np.arange(400) < 10, y, -1)
    model = AutoencoderClassifier(random_state=0)
    for i in range(0, 400, 20):
        model.partial_fit(rows[i : i + 20], partial[i : i + 20], classes=[0, 1])
    assert model.autoencoder_._fitted.seen.sample.is_labeled.sum() == 10
    assert model.score(rows, y) > 0.9


def test_numbers_are_standardized_by_all_of_them():
    """Also if the first call has a single row, whose number has no deviation."""
    rows = RNG.normal(size=(300, 3))
    y = 1e6 + 1e4 * rows[:, 0]
    model = AutoencoderRegressor(random_state=0)
    for part in np.split(np.arange(300), [1, 2, 20, 100, 200]):
        model.partial_fit(rows[part], y[part])
    units = model.autoencoder_._fitted.seen.target_units
    np.testing.assert_allclose(units.center, y.mean())
    np.testing.assert_allclose(units.scale, y.std())
    assert model.score(rows, y) > 0.8


def test_a_loaded_map_stays_until_there_are_as_many_new_targets(tmp_path):
    rows, y = two_groups(200)
    AutoencoderClassifier(random_state=0).fit(rows, y).save(tmp_path / "model")
    model = skae.load(tmp_path / "model")
    before = model._fitted.maps
    model.partial_fit(rows[:2], y[:2])
    assert all(map(np.array_equal, before, model._fitted.maps))
    assert model.score(rows, y) > 0.95
    model.partial_fit(rows, y)
    assert not np.array_equal(before[0], model._fitted.maps[0])


def test_a_loaded_network_stays_until_there_are_as_many_new_targets(tmp_path):
    """Another network would not suit the map."""
    rows, y = two_groups(40)
    AutoencoderClassifier(tiny(Autoencoder), random_state=0).fit(rows[:20], y[:20]).save(
        tmp_path / "model"
    )
    model = skae.load(tmp_path / "model")
    before = model.score(rows, y)
    model.partial_fit(rows[20:], np.append(y[20:21], np.full(19, -1)), classes=[0, 1])
    assert model.score(rows, y) > before - 0.1


def test_class_weights_of_labels_may_be_missing_in_a_call():
    labels = np.column_stack([np.arange(len(X)) % 2, np.arange(len(X)) % 3 > 0])
    model = AutoencoderClassifier(class_weight={1: 5.0}, random_state=0).partial_fit(X, labels)
    model.partial_fit(X[:1], [[0, 0]])
    assert {*model.autoencoder_._fitted.seen.sample.targets.observed.ravel()} == {1.0, 5.0}


def test_batches_of_a_stream_do_not_have_the_size_of_an_earlier_fit():
    y = np.arange(len(X)) % 2
    model = AutoencoderClassifier(random_state=0).fit(X, y)
    assert model.autoencoder_.batch_size == len(X)
    assert model.partial_fit(X, y).autoencoder_.batch_size == "auto"


def test_conditions_may_be_anywhere_in_the_table():
    """Also if the columns of the table are in another order than those of the sample."""
    rows, y = two_groups(200)
    table = pd.DataFrame({"group": RNG.integers(3, size=200)})
    table[[*"abcd"]] = rows
    autoencoder = ConditionalVariationalAutoencoder(2, condition=0, random_state=0)
    model = AutoencoderClassifier(autoencoder, random_state=0)
    for i in range(0, 200, 50):
        model.partial_fit(table[i : i + 50], y[i : i + 50])
    assert model.score(table, y) > 0.9


# --------------------------------------------------------------------------- what is refused


def test_columns_of_targets_keep_their_order():
    y = pd.DataFrame({"a": np.arange(len(X)) % 2, "b": np.arange(len(X)) % 3 > 0}, dtype=float)
    for model in (AutoencoderClassifier(), AutoencoderRegressor()):
        model.partial_fit(X, y).partial_fit(X, y.to_numpy())
        with pytest.raises(ValueError, match=r"same columns as in the first call, \['a', 'b'\]"):
            model.partial_fit(X, y[["b", "a"]])
        with pytest.raises(ValueError, match="same columns as in the first call"):
            model.partial_fit(X, y["a"])


def test_a_fit_without_targets_cannot_continue_with_them():
    y = np.arange(len(X)) % 2
    model = AutoencoderClassifier(fine_tune=False, random_state=0).fit(X, y)
    with pytest.raises(ValueError, match="fine_tune=False"):
        model.set_params(fine_tune=True).partial_fit(X, y)
    frozen = FrozenEstimator(AutoencoderRegressor(random_state=0).fit(X, y).autoencoder_)
    model = AutoencoderClassifier(frozen, fine_tune=False, random_state=0).fit(X, y)
    with pytest.raises(ValueError, match="fine_tune=False"):
        model.set_params(fine_tune=True).partial_fit(X, y)


def test_a_resumed_fit_determines_the_kind_of_targets_anew():
    y = (np.arange(len(X)) % 3).astype(float)
    model = tiny(FairAutoencoder, sensitive=0, warm_start=True).fit(X, y).fit(X, y + 0.5)
    model.partial_fit(X[:3], y[:3] + 0.5)
    assert model._fitted.seen.target_moments is not None


@pytest.mark.parametrize("kind", ["classes", "numbers"])
def test_the_first_targets_of_a_fair_autoencoder_determine_their_kind(kind):
    y = (np.arange(len(X)) % 3).astype(float)
    y = y + 0.5 if kind == "numbers" else y
    model = tiny(FairAutoencoder, sensitive=0)
    model.partial_fit(X)
    with pytest.raises(ValueError, match="at least two different values"):
        model.partial_fit(X[:1], y[:1])
    model.partial_fit(X, y).partial_fit(X[:1], y[:1]).partial_fit(X[:3])
    sample = model._fitted.seen.sample
    assert sample.targets.values.shape[1] == (3 if kind == "classes" else 1)
    assert (model._fitted.seen.target_moments is None) == (kind == "classes")
    if kind == "classes":
        with pytest.raises(ValueError, match="y contains 7"):
            model.partial_fit(X[:1], [7.0])
