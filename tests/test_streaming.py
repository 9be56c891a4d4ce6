"""`partial_fit`: what it keeps of the rows seen, its units, its start, and what it learns."""

import copy
import pickle
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.decomposition import PCA, IncrementalPCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import roc_auc_score
from small_models import AUTOENCODERS, X, for_each, tiny
from test_common import train

import skae
from skae import (
    Autoencoder,
    AutoencoderOutlierDetector,
)
from skae.fitting import stream as steps
from skae.fitting.prepare import FitData
from skae.nn.batch import Batch
from skae.nn.step.adam import Adam
from skae.nn.units import change_units
from skae.table.rows import Rows
from skae.table.seen import SAMPLE_CELLS, SAMPLE_ROWS, ColumnMoments, Sample, Seen
from skae.training.budget import Budget
from skae.training.loop import Net
from skae.training.rehearsal import Rehearsal, StreamPlan, step_sizes

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def same_numbers():
    """Each test draws the same numbers, whichever tests ran before."""
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


def moments_of(model):
    return model._fitted.seen.moments


def sample_of(model):
    return model._fitted.seen.sample


def curved(n, seed=0):
    """Rows around a curved surface of two dimensions in six, in the order of the first column."""
    rng = np.random.default_rng(seed)
    rows = np.tanh(rng.normal(size=(n, 2)) @ rng.normal(size=(2, 8))) @ rng.normal(size=(8, 6))
    rows += 0.05 * rng.normal(size=rows.shape)
    return rows[rows[:, 0].argsort()]


def in_parts(model, rows, size):
    for i in range(0, len(rows), size):
        model.partial_fit(rows[i : i + size])
    return model


def error(model, rows):
    return ((rows - model.inverse_transform(model.transform(rows))) ** 2).sum(1).mean()


# ------------------------------------------------------------------------ what has been seen


@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_moments_of_parts_are_those_of_all_rows(missing, offset):
    rows = RNG.normal(size=(200, 4)) * [1, 5, 0, 2] + offset
    rows[RNG.uniform(size=rows.shape) < missing] = np.nan
    weight = RNG.uniform(0, 2, size=200)
    weight[:7] = 0
    found = Seen.nothing(0, 4).moments
    for part in np.split(np.arange(200), [1, 7, 90]):
        found = found.joined(ColumnMoments.from_rows(rows[part], weight[part]))
    for j, column in enumerate(rows.T):
        known = ~np.isnan(column)
        mean = np.average(column[known], weights=weight[known])
        variance = np.average((column[known] - mean) ** 2, weights=weight[known])
        assert found.weight[j] == pytest.approx(weight[known].sum())
        assert found.mean[j] == pytest.approx(mean, rel=1e-12)
        assert found.variance[j] == pytest.approx(variance, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("size", [1, 7, 40])
def test_what_is_seen_does_not_depend_on_parts_or_order(size):
    expected = tiny(Autoencoder, early_stopping=False).fit(X)._fitted.seen
    rows = X[RNG.permutation(len(X))]
    found = in_parts(tiny(Autoencoder), rows, size)._fitted.seen
    np.testing.assert_allclose(found.moments.mean, expected.moments.mean, atol=1e-12)
    np.testing.assert_allclose(found.moments.scatter, expected.moments.scatter)
    np.testing.assert_array_equal(found.sample.rows.values, expected.sample.rows.values)
    assert found.weight == pytest.approx(expected.weight)


def sampled(rows, weight, parts, size=50):
    """The sample of at most `size` rows, after calls with parts of the rows."""
    seen = Seen.nothing(3, rows.shape[1])
    for part in parts:
        new = Sample.hashed(Rows(rows[part]), weight[part], None, None, 3)
        joined = seen.join(new)
        seen = joined.seen
    return seen.sample, joined


def test_a_full_sample_is_chosen_by_content(monkeypatch):
    """Rows keep the weight with which they were seen in all calls, in any order."""
    monkeypatch.setattr("skae.table.seen.SAMPLE_ROWS", 50)
    rows, weight = RNG.normal(size=(300, 2)), RNG.uniform(0.5, 2, size=300)
    twice = np.append(np.arange(300), np.arange(300))
    whole, joined = sampled(rows, weight, [twice])
    parts = np.array_split(RNG.permutation(twice), 13)
    again, of_last = sampled(rows, weight, parts)
    assert len(whole) == len(again) == 50
    np.testing.assert_array_equal(whole.rows.values, again.rows.values)
    np.testing.assert_allclose(whole.weight, again.weight)
    expected = {tuple(row): 2 * w for row, w in zip(rows, weight, strict=True)}
    assert [expected[tuple(row)] for row in again.rows.values] == pytest.approx(again.weight)
    # The rows of a call represent all rows that were seen.
    assert joined.weight.sum() == pytest.approx(of_last.weight.sum()) == 2 * weight.sum()


def test_a_sample_is_bounded_in_rows_and_cells(monkeypatch):
    wide = np.zeros((3, SAMPLE_CELLS // 2))
    assert steps.Seen.nothing(0, 1).join(
        Sample.hashed(Rows(wide + np.arange(3)[:, None]), np.ones(3), None, None, 0)
    ).chosen.shape == (2,)
    rows = np.arange(SAMPLE_ROWS + 100.0)[:, None]
    many = Sample.hashed(Rows(rows), np.ones(len(rows)), None, None, 0)
    assert len(Seen.nothing(0, 1).join(many).chosen) == SAMPLE_ROWS


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@for_each(AUTOENCODERS)
@pytest.mark.filterwarnings("ignore")
def test_a_weight_of_two_is_a_repeated_row(estimator_class, method):
    weight = 1.0 + (np.arange(len(X)) % 2)
    models = [tiny(estimator_class, batch_size=99) for _ in range(2)]
    y = np.arange(len(X)) % 2
    getattr(models[0], method)(X, y, sample_weight=weight)
    rows = np.repeat(np.arange(len(X)), weight.astype(int))
    getattr(models[1], method)(X[rows], y[rows])
    for name, values in models[0].module_.state_dict().items():
        np.testing.assert_allclose(values, models[1].module_.state_dict()[name], atol=1e-6)


# ---------------------------------------------------------------------------- units and start


def with_gaps(rows):
    rows = rows.copy()
    rows[::3, 0] = np.nan
    rows[1::4, 1] = np.nan
    return rows


@pytest.mark.parametrize("rows", [X, with_gaps(X)], ids=["complete", "gaps"])
@for_each(AUTOENCODERS)
@pytest.mark.filterwarnings("ignore")
def test_a_change_of_units_keeps_the_function(estimator_class, rows):
    model = tiny(estimator_class, precision="float64")
    network = copy.deepcopy(train(model, rows).module_)
    observed = torch.tensor(~np.isnan(rows))
    batch = Batch(torch.tensor(rows), torch.ones(len(X)).double(), observed=observed)
    before = network.likelihood.mean(network.restored(batch)), network.encode(batch).mean
    noise = network.likelihood.fixed().noise_variance
    center = network.inputs.center + torch.tensor([1.0, -20.0, 3.0])
    change_units(network, center, 5 * network.inputs.scale)
    assert torch.equal(network.inputs.center, center)
    after = network.likelihood.mean(network.restored(batch)), network.encode(batch).mean
    for old, new in zip(before, after, strict=True):
        torch.testing.assert_close(new, old, rtol=1e-12, atol=1e-12)
    if network.likelihood.is_trained:
        floor = network.likelihood.smallest_noise
        torch.testing.assert_close(network.likelihood.fixed().noise_variance - floor, noise - floor)


@pytest.mark.parametrize(
    "parameters", [{"tied_weights": True}, {"architecture": "conv", "feature_shape": (1, 1, 3)}]
)
def test_units_that_cannot_change_stay(parameters):
    network = tiny(Autoencoder, **parameters).fit(X).module_
    before = copy.deepcopy(network.state_dict())
    change_units(network, network.inputs.center + 1, 2 * network.inputs.scale)
    assert all(torch.equal(before[name], t) for name, t in network.state_dict().items())


@pytest.mark.parametrize("size", [1, 2, 9])
def test_a_few_rows_have_the_start_of_all_of_them(size):
    """However small the calls are: even with fewer rows than components."""
    rows = RNG.normal(size=(36, 5))
    model = in_parts(Autoencoder(3, hidden_layer_sizes=(), learning_rate=1e-12), rows, size)
    model.partial_fit(rows[:9])  # The model is estimated anew after a quarter more rows.
    seen = np.append(rows, rows[:9], axis=0)
    assert error(model, seen) == pytest.approx(error(PCA(3).fit(seen), seen), rel=1e-6)


def test_units_follow_the_rows():
    rows = curved(2000)
    model = in_parts(tiny(Autoencoder), rows, 400)
    np.testing.assert_allclose(model.module_.inputs.center, rows.mean(0), atol=1e-6)
    assert float(model.module_.inputs.scale) == pytest.approx(np.sqrt(rows.var(0).mean()))


@pytest.mark.parametrize("size", [20, 500])
def test_sorted_rows_are_learned(size):
    """Not only the latest ones are, and not only what is linear."""
    rows = curved(3000)
    model = in_parts(Autoencoder(2, hidden_layer_sizes=(32, 16), random_state=0), rows, size)
    linear = error(IncrementalPCA(2, batch_size=20).fit(rows), rows)
    assert error(model, rows) < 0.6 * linear
    first = rows[:300]
    assert error(model, first) < error(IncrementalPCA(2, batch_size=20).fit(rows), first)


@pytest.mark.parametrize("size", [1, 20, 100])
def test_rows_of_the_fit_change_little(size):
    rows = curved(2000)[RNG.permutation(2000)]
    model = Autoencoder(2, max_epochs=30, random_state=0).fit(rows[:1500])
    before = error(model, rows[1500:])
    in_parts(model, rows[:200], size)
    assert error(model, rows[1500:]) < 1.03 * before


# ------------------------------------------------------------------------------- steps and rates


def table(n, is_new, weight=None):
    x = torch.arange(n, dtype=torch.float64)[:, None]
    weight = torch.ones(n).double() if weight is None else weight
    batch = Batch(x, weight / weight.sum())
    index = is_new.nonzero()[:, 0]
    return batch, index


def test_batches_are_unbiased():
    """The mean of weighted sums over many batches is that over the table."""
    generator = torch.Generator().manual_seed(0)
    is_new = torch.arange(60) % 3 == 0
    batch, index = table(60, is_new, 1 + torch.arange(60).double())
    rows = Rehearsal(batch, index, is_new=is_new, n_rehearsed=9)
    sums = [
        (part.weight * part.x[:, 0]).mean()
        for _ in range(2000)
        for part in rows.batches(4, generator)
    ]
    assert float(torch.stack(sums).mean()) == pytest.approx(
        float(batch.weight @ batch.x[:, 0]), rel=0.02
    )


def test_small_tables_are_used_as_a_whole():
    is_new = torch.arange(20) >= 15
    batch, index = table(20, is_new)
    rows = Rehearsal(batch, index, is_new=is_new, n_rehearsed=18)
    for part in rows.batches(2, torch.Generator()):
        assert torch.equal(part.x, batch.x)
        assert torch.equal(part.weight, torch.ones(20).double())


def test_the_rate_falls_and_does_not_depend_on_the_size_of_calls():
    plan = {"learning_rate": 1.0, "budget": Budget(1, 8), "steps_before": 1e9}
    rates = [StreamPlan(**plan, n_passed=10.0**k, n_new=8).rate(0.0) for k in range(3, 8)]
    assert rates[0] == 1.0
    assert all(a > b for a, b in pairwise(rates))
    single = StreamPlan(**plan, n_passed=1e6, n_new=1).rate(0.0)
    assert 8 * single == pytest.approx(StreamPlan(**plan, n_passed=1e6, n_new=8).rate(0.0))
    start = StreamPlan(**plan | {"steps_before": 0.0}, n_new=800)
    assert start.rate(0.0) < 0.1 * start.rate(0.9)


@pytest.mark.parametrize("batch_size", [1, 2, 30, "auto"])
@pytest.mark.parametrize("n_rows", [1, 2, 40, 3000])
def test_steps_have_new_and_other_rows(n_rows, batch_size):
    for n_new in {1, n_rows}:
        for seen in (n_rows, 1e9):
            new, others = step_sizes(batch_size, n_rows, n_new, seen)
            assert new >= 1
            assert others >= 1
            assert new + others <= max(2, 256 if batch_size == "auto" else batch_size)


# ------------------------------------------------------------------------- bounds and warnings


def test_history_and_pickles_are_bounded(monkeypatch):
    monkeypatch.setattr("skae.table.seen.SAMPLE_ROWS", 30)
    monkeypatch.setattr(steps, "HISTORY", 10)
    model, sizes = tiny(Autoencoder), []
    for i in range(60):
        model.partial_fit(RNG.normal(size=(2, 3)))
        assert model.n_iter_ == i + 1
        assert model.start_epoch_ == i
        sizes.append(len(pickle.dumps(model)))
    assert len(model.history_) == 10
    assert [epoch["epoch"] for epoch in model.history_] == [*range(51, 61)]
    assert max(sizes[20:]) - min(sizes[20:]) < 200


def test_rows_that_are_far_away_warn():
    rows = RNG.normal(size=(400, 3))
    model = tiny(Autoencoder).partial_fit(rows)
    model.partial_fit(rows[:5] + 1)
    with pytest.warns(UserWarning, match="column 1 differs by") as caught:
        model.partial_fit(rows[:100] + np.array([0, 40, 20]))
    assert len(caught) == 1


def test_a_file_goes_on_without_the_sample(tmp_path):
    model = tiny(Autoencoder).partial_fit(X)
    model.save(tmp_path / "model")
    loaded = skae.load(tmp_path / "model")
    assert sample_of(loaded) is None
    assert len(sample_of(model)) == len(sample_of(pickle.loads(pickle.dumps(model)))) == len(X)
    assert moments_of(loaded).mean == pytest.approx(moments_of(model).mean)
    loaded.partial_fit(X[:7])
    assert len(sample_of(loaded)) == 7
    assert loaded._fitted.seen.weight == len(X) + 7


def test_a_loaded_model_is_not_replaced_by_one_of_the_new_rows(tmp_path):
    rows = curved(400)[RNG.permutation(400)]
    model = Autoencoder(2, hidden_layer_sizes=(), random_state=0).fit(rows[:300])
    model.save(tmp_path / "model")
    before = error(model, rows[300:])
    loaded = skae.load(tmp_path / "model").set_params(learning_rate=1e-3)
    for i in range(5):
        loaded.partial_fit(rows[i : i + 1])
    assert error(loaded, rows[300:]) < 1.05 * before
    for _ in range(4):
        loaded.partial_fit(rows[:100])
    assert loaded._fitted.seen.sampled == 405
    assert len(sample_of(loaded)) == 100


@pytest.mark.parametrize("first", [True, False])
def test_all_calls_or_none_have_corrupted_rows(first):
    model = tiny(Autoencoder, corruption=None if first else "masking")
    model.partial_fit(X, X_corrupted=X + 1 if first else None)
    before = model._fitted
    with pytest.raises(ValueError, match="X_corrupted must be passed to all calls or to none"):
        model.partial_fit(X, X_corrupted=None if first else X + 1)
    assert model._fitted is before
    model.partial_fit(X[:5], X_corrupted=X[:5] + 1 if first else None)


def test_a_training_that_diverges_warns():
    rows = curved(300)
    model = Autoencoder(2, random_state=0).partial_fit(rows[::2])
    with pytest.warns(ConvergenceWarning, match="Training diverged"):
        model.set_params(learning_rate=30.0).partial_fit(rows[1::2])


# --------------------------------------------------------------- shares of the rows of a call


def test_all_rows_of_a_call_have_equal_shares_of_the_density():
    """New rows count as often as the rows of the sample represent."""
    rows = RNG.normal(size=(9000, 2))
    model = tiny(Autoencoder).partial_fit(rows[:6000])
    data = FitData(rows[6000:] + 100, None, None, None)
    stream = steps.read_stream(model, data, model._fitted)
    split = stream.fit.split
    is_new = stream.joined.is_new[split.representatives]
    assert split.representative_weight[is_new].sum() == pytest.approx(3000, rel=0.1)
    assert split.representative_weight.sum() == pytest.approx(9000)
    assert split.weight[stream.joined.is_new].sum() == pytest.approx(3000)


def test_networks_are_compared_in_the_same_units(monkeypatch):
    rows, units = curved(600), []
    model = Autoencoder(2, random_state=0).partial_fit(rows[:300])

    def evaluate(net, batches):
        units.append(float(net.module_.inputs.scale))
        return net.module_.reduce(*net.row_losses(batches)).item()

    monkeypatch.setattr(Net, "evaluate", evaluate)
    model.partial_fit(3 * rows[300:])
    assert units[0] == units[1] == float(model.module_.inputs.scale)
    assert units[0] == pytest.approx(moments_of(model).scale)


def test_parameters_that_are_not_used_do_not_estimate_the_model_anew():
    model = tiny(Autoencoder).partial_fit(X)
    for name, value in {"max_epochs": 7, "tol": 0.5, "early_stopping": True}.items():
        assert not steps.has_changed(model.set_params(**{name: value}), model._fitted), name
    assert steps.has_changed(model.set_params(noise=0.5), model._fitted)


def test_a_copied_architecture_is_no_change():
    class Mlp:
        def decoder(self, n_in):
            return torch.nn.Linear(n_in, 3)

    model = tiny(Autoencoder, architecture=Mlp()).partial_fit(X)
    assert not steps.has_changed(clone(model), model._fitted)


def test_a_start_that_was_kept_counts_as_an_epoch():
    model = Autoencoder(1, hidden_layer_sizes=(), random_state=0).fit(X)
    assert model.best_epoch_ == 0
    assert model._fitted.seen.n_passed == len(X)


def test_cells_are_not_converted_to_the_format_of_earlier_rows():
    rows = Rows(np.ones((2, 1), np.float32)).append(Rows(np.array([[1e40]])))
    assert rows.values.max() == 1e40


def test_new_parameters_of_an_optimizer_start_their_own_steps():
    old, new = (torch.nn.Parameter(torch.zeros(2)) for _ in range(2))
    groups = [{"params": [old, new], "penalized": False, "weight_decay": 0.0}]
    adam = Adam(groups, lr=0.1)
    state = {"step": torch.tensor(500.0), "exp_avg": torch.ones(2), "exp_avg_sq": torch.ones(2)}
    adam.restore({old: state})
    adam.update([torch.ones(2), torch.full((2,), 5.0)], 0.1)
    assert float(adam.state[old]["step"]) == 501
    assert float(adam.state[new]["step"]) == 1
    # The first step of Adam has the size of the learning rate, whatever the gradient.
    torch.testing.assert_close(new.data, torch.full((2,), -0.1), rtol=1e-4, atol=0)


# ------------------------------------------------------------------------------- the detector


def contaminated(n, n_outliers):
    """Rows of two clusters, sorted by cluster, and rows that are far away, in between."""
    rows = RNG.normal(size=(n, 5)) + 6 * (np.arange(n) >= n / 2)[:, None]
    is_outlier = np.isin(np.arange(n), RNG.permutation(n)[:n_outliers])
    rows[is_outlier] += RNG.choice([-9, 9], size=(n_outliers, 5))
    return rows, is_outlier


@pytest.mark.parametrize("parameters", [{}, {"calibration_fraction": 0.3}, {"trim": 0}])
@pytest.mark.parametrize("size", [1, 16, 400])
def test_a_detector_is_that_of_all_rows_seen(size, parameters, monkeypatch):
    """If the sample contains them all, in any order."""
    monkeypatch.setattr("skae.table.seen.GROWTH", 4.0)
    rows = contaminated(400, 20)[0]
    small = Autoencoder(2, hidden_layer_sizes=(8,), max_epochs=5, linear_skip=False)
    model = AutoencoderOutlierDetector(small, random_state=0, **parameters)
    found, expected = copy.deepcopy(model).partial_fit(rows[-100:]), model.fit(rows)
    in_parts(found, rows[:-100], size)
    np.testing.assert_array_equal(found.score_samples(rows), expected.score_samples(rows))
    assert found.offset_ == expected.offset_
    assert found.n_calibration_rows_ == expected.n_calibration_rows_


def test_a_detector_with_calibration_rows_may_start_with_single_rows():
    rows = contaminated(30, 2)[0]
    model = in_parts(AutoencoderOutlierDetector(calibration_fraction=0.3, random_state=0), rows, 1)
    assert 5 <= model.n_calibration_rows_ <= 9


def test_a_detector_of_sorted_rows_finds_what_one_of_all_rows_finds(monkeypatch):
    monkeypatch.setattr("skae.table.seen.SAMPLE_ROWS", 300)
    rows, is_outlier = contaminated(1500, 60)
    model = AutoencoderOutlierDetector(random_state=0)
    expected = roc_auc_score(is_outlier, -model.fit(rows).score_samples(rows))
    found = in_parts(AutoencoderOutlierDetector(random_state=0), rows, 100)
    assert len(found._fitted.seen.sample) == 300
    assert roc_auc_score(is_outlier, -found.score_samples(rows)) > expected - 0.02
    assert found._fitted.seen.weight == 1500


@pytest.mark.parametrize("contamination", ["auto", 0.1])
def test_the_threshold_follows_each_call(contamination):
    rows = contaminated(400, 20)[0]
    model = AutoencoderOutlierDetector(contamination=contamination, random_state=0)
    before = model.partial_fit(rows[::2])._fitted
    model.partial_fit(rows[1::16])
    assert model.autoencoder_ is before.autoencoder
    assert model.offset_ != before.offset
    if contamination == 0.1:
        seen = np.concatenate([rows[::2], rows[1::16]])
        assert (model.predict(seen) < 0).mean() == pytest.approx(0.1, abs=0.01)


def test_a_detector_goes_on_after_fit_and_pickle_but_not_after_save(tmp_path):
    rows = pd.DataFrame(contaminated(200, 10)[0], columns=list("abcde"))
    model = AutoencoderOutlierDetector(random_state=0).fit(rows)
    model.save(tmp_path / "detector")
    loaded = skae.load(tmp_path / "detector")
    assert loaded._fitted.seen.sample is None
    before = loaded._fitted
    with pytest.raises(ValueError, match="files of save do not contain"):
        loaded.partial_fit(rows)
    assert loaded._fitted is before
    again = pickle.loads(pickle.dumps(model)).partial_fit(rows[:60] + 1)
    np.testing.assert_array_equal(
        model.partial_fit(rows[:60] + 1).score_samples(rows), again.score_samples(rows)
    )
    assert len(again._fitted.seen.sample) == 260
    with pytest.warns(UserWarning, match=r"column 2 \('c'\) differs by"):
        again.partial_fit(rows.assign(c=1e3))
    with pytest.raises(ValueError, match="feature names"):
        again.partial_fit(rows[list("abced")])


def test_a_frozen_autoencoder_stays_as_it_is():
    rows = contaminated(200, 10)[0]
    frozen = tiny(Autoencoder).fit(rows)
    model = AutoencoderOutlierDetector(FrozenEstimator(frozen), random_state=0)
    in_parts(model, rows, 50)
    np.testing.assert_array_equal(model.autoencoder_.transform(rows), frozen.transform(rows))
    expected = AutoencoderOutlierDetector(FrozenEstimator(frozen), random_state=0).fit(rows)
    np.testing.assert_array_equal(model.score_samples(rows), expected.score_samples(rows))


def test_weights_of_a_stream_are_those_of_repeated_rows():
    rows, weight = contaminated(100, 5)[0], RNG.integers(1, 4, size=100)
    small = Autoencoder(2, hidden_layer_sizes=(8,), max_epochs=5, linear_skip=False)
    model = AutoencoderOutlierDetector(small, random_state=0)
    expected = copy.deepcopy(model).partial_fit(np.repeat(rows, weight, axis=0))
    model.partial_fit(rows, sample_weight=weight)
    np.testing.assert_allclose(model.score_samples(rows), expected.score_samples(rows), rtol=1e-6)
