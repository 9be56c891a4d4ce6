"""What validation rows decide, and what must not depend on them.

They select between the network before and after training, and they estimate the noise. Before they
have done so, nothing else uses them. Afterwards, the network uses all rows.
"""

import copy
import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.datasets import load_breast_cancer, load_iris, load_wine
from sklearn.decomposition import PCA, FactorAnalysis
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback
from small_models import AUTOENCODERS, TINY, for_each, tiny
from test_common import train

from skae import Autoencoder, DenoisingAutoencoder
from skae.fitting import fit as steps
from skae.nn.batch import Batch
from skae.nn.corruption import CORRUPTIONS, FOR_IMAGES
from skae.nn.likelihoods.bernoulli import Bernoulli
from skae.nn.likelihoods.blocks import Blocks
from skae.nn.likelihoods.gaussian import Gaussian
from skae.training.epochs import Outcome, paired_change
from skae.training.loop import Net

RNG = np.random.default_rng(0)


def curve(n, d, seed=0, noise=0.1):
    """Rows near a curved surface of two dimensions, on which training improves PCA."""
    rng = np.random.default_rng(seed)
    z = np.random.default_rng(d).normal(size=(2, 8)), np.random.default_rng(d).normal(size=(8, d))
    return np.tanh(rng.normal(size=(n, 2)) @ z[0]) @ z[1] + noise * rng.normal(size=(n, d))


def factors(n, d, seed=0):
    """Training rows of a linear model of 30 factors with noise, and 500 other rows."""
    rng = np.random.default_rng(seed)
    axes = rng.normal(size=(30, d)) / np.sqrt(30)
    table = rng.normal(size=(n + 500, 30)) @ axes + 0.5 * rng.normal(size=(n + 500, d))
    return table[:n], table[n:]


NARROW = curve(80, 6)
"""A table with 8 validation rows, too few to select an epoch."""


def relative_error(model, pca, rows):
    """Squared error of a model divided by that of PCA."""
    errors = [((rows - m) ** 2).sum() for m in (model.reconstruct(rows), reconstruct(pca, rows))]
    return errors[0] / errors[1]


def reconstruct(pca, rows):
    return pca.inverse_transform(pca.transform(rows))


def state(module):
    return {name: values.clone() for name, values in module.state_dict().items()}


def assert_equal_states(first, second):
    assert first.keys() == second.keys()
    for name, values in first.items():
        torch.testing.assert_close(second[name], values, rtol=0, atol=0, msg=name, equal_nan=True)


def differ(first, second):
    return any(not torch.equal(values, second[name]) for name, values in first.items())


class Recorder(Callback):
    """Keeps the network before training and after each epoch, and the validation rows."""

    def on_train_begin(self, net, X=None, **kwargs):
        self.start = copy.deepcopy(net.module_)
        self.states, self.events = [], []

    def on_epoch_begin(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        self.training = dataset_train.take(dataset_train.index).x.double().numpy()
        self.held_out = dataset_valid and dataset_valid.take(dataset_valid.index).x.double().numpy()
        self.events.append("begin")

    def on_epoch_end(self, net, **kwargs):
        self.states.append(state(net.module_))
        self.events.append("end")

    def on_train_end(self, net, **kwargs):
        self.events.append("train_end")


# ------------------------------------------------------------------- change of the losses of rows


def losses(n, shift=0.3, seed=0):
    rng = np.random.default_rng(seed)
    before = 20 + 5 * rng.normal(size=n)
    return torch.tensor(before), torch.tensor(before + shift + rng.normal(size=n))


@pytest.mark.parametrize("n", [2, 5, 40])
def test_change_is_that_of_the_paired_t_test(n):
    before, after = losses(n)
    mean, error = paired_change(before, after, torch.ones(n), 0.0)
    test = stats.ttest_rel(after, before)
    assert mean / error == pytest.approx(test.statistic)
    assert mean == pytest.approx(float((after - before).mean()))
    assert error == pytest.approx(stats.sem(after - before))


def test_large_common_losses_do_not_hide_the_change():
    before, after = losses(30)
    expected = paired_change(before, after, torch.ones(30), 0.0)
    shifted = 1e6 * torch.arange(30.0).double()
    shifted = paired_change(before + shifted, after + shifted, torch.ones(30), 0.0)
    assert shifted == pytest.approx(expected, rel=1e-6)


def test_unit_and_zeros_of_weights_do_not_matter():
    before, after = losses(20)
    weight = torch.rand(20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weight[:6] = 0
    change = paired_change(before, after, weight, 0.0)
    assert paired_change(before, after, 1e3 * weight, 0.0) == pytest.approx(change)
    assert paired_change(before[6:], after[6:], weight[6:], 0.0) == pytest.approx(change)
    assert change[0] == pytest.approx(np.average(after - before, weights=weight))


def test_standard_error_of_weighted_rows_is_right_on_average():
    """The mean square of the estimates is the variance of the weighted mean."""
    weight = torch.tensor([1.0, 1.0, 2.0, 5.0, 0.5, 3.0]).double()
    changes = torch.tensor(np.random.default_rng(0).normal(size=(4000, 6)))
    zeros = torch.zeros(6).double()
    found = np.array([paired_change(zeros, row, weight, 0.0) for row in changes])
    assert (found[:, 1] ** 2).mean() == pytest.approx(found[:, 0].var(), rel=0.1)


@pytest.mark.parametrize("weight", [[2.0], [0.0, 3.0, 0.0]])
def test_one_row_has_no_standard_error(weight):
    before, after = losses(len(weight))
    mean, error = paired_change(before, after, torch.tensor(weight), 0.0)
    row = int(np.argmax(weight))
    assert mean == pytest.approx(float(after[row] - before[row]))
    assert error == math.inf


def test_trimming_ignores_the_largest_losses():
    before, after = losses(10)
    order = (before + after).argsort()
    kept = order[:8]
    expected = paired_change(before[kept], after[kept], torch.ones(8), 0.0)
    assert paired_change(before, after, torch.ones(10), 0.2) == pytest.approx(expected)
    # A trimmed share that ends within a row leaves the rest of its weight.
    weight = torch.ones(10).double()
    weight[order[8]], weight[order[9]] = 0.5, 0.0
    expected = paired_change(before, after, weight, 0.0)
    assert paired_change(before, after, torch.ones(10), 0.15) == pytest.approx(expected)
    after[order[9]] += 1e9
    assert paired_change(before, after, torch.ones(10), 0.15) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("change", "narrow", "wide"),
    [
        (None, False, False),
        ((0.0, 0.0), False, False),
        ((-3.0, 1.0), False, False),  # clearly better
        ((-1.0, 1.0), False, True),  # unclear: only narrow tables keep the trained network
        ((1.0, 1.0), False, True),
        ((3.0, 1.0), True, True),  # clearly worse
        ((-1.0, math.inf), False, True),  # one row: unclear, whatever its loss
        ((1.0, math.inf), False, True),
    ],
)
def test_rule_of_the_end(change, narrow, wide):
    outcome = Outcome(10, 1.0, change)
    assert outcome.is_worse(is_wide=False) is narrow
    assert outcome.is_worse(is_wide=True) is wide


# --------------------------------------------------------------- nothing else depends on the rows


IMAGES = np.random.default_rng(3).normal(size=(40, 3 * 4 * 4)) ** 2

SEQUENCES = NARROW.copy()
"""Sequences whose last steps may be missing; they are filled with means before PCA."""
SEQUENCES[::3, 4:] = np.nan
RECURRENT = {"architecture": "recurrent", "feature_shape": (3, 2)}


def prepare(estimator, X):
    """The validated data of a fit."""
    y = np.arange(len(X)) % 2 if estimator.__sklearn_tags__().target_tags.required else None
    return steps.prepare_fit(estimator, steps.FitData(X, y, None, None), None)


def with_other_validation_rows(prepared):
    """The same fit with other cells and targets of the validation rows."""
    values, held_out = prepared.rows.values.copy(), prepared.split.validation
    assert 0 < len(held_out) < len(values) / 2
    modelled = values[held_out, : prepared.rows.n_modelled]
    values[held_out, : prepared.rows.n_modelled] = 1.0 - 3 * modelled
    targets = prepared.targets
    if targets is not None:
        changed = targets.values.copy()
        changed[held_out] = changed[held_out][:, ::-1]
        targets = replace(targets, values=changed)
    return replace(prepared, rows=replace(prepared.rows, values=values), targets=targets)


def batches(net, train, plan):
    """Training batches of an epoch, corrupted as training corrupts them."""
    generator = torch.Generator().manual_seed(0)
    return [part for b in train.batches(plan.budget.batch_size, generator) for part in b.tensors()]


def assert_independent_of_validation_rows(estimator, X):
    prepared = prepare(estimator, X)
    changed = with_other_validation_rows(prepared)
    assert not np.array_equal(changed.rows.values, prepared.rows.values, equal_nan=True)
    (net, *parts), (net_2, *parts_2) = (steps.start_net(estimator, p) for p in (prepared, changed))
    assert_equal_states(state(net.module_), state(net_2.module_))
    pairs = zip(
        batches(net, parts[0], parts[2]), batches(net_2, parts_2[0], parts_2[2]), strict=True
    )
    for batch, other in pairs:
        torch.testing.assert_close(other, batch, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(net.generator.get_state(), net_2.generator.get_state())


@pytest.mark.parametrize(
    ("X", "parameters"),
    [
        pytest.param(NARROW, {}, id="plain"),
        pytest.param(SEQUENCES, RECURRENT, id="missing"),
        pytest.param(NARROW, {"layerwise_epochs": 1}, id="layerwise"),
        pytest.param(curve(40, 60), {}, id="wide"),
    ],
)
@for_each(AUTOENCODERS)
def test_start_and_batches_are_of_training_rows(estimator_class, X, parameters):
    assert_independent_of_validation_rows(tiny(estimator_class, **parameters), X)


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_ranges_of_corruptions_are_of_training_rows(corruption):
    image = {"feature_shape": (3, 4, 4)} if corruption in FOR_IMAGES else {}
    estimator = tiny(Autoencoder, corruption=corruption, corruption_level=0.5, **image)
    assert_independent_of_validation_rows(estimator, IMAGES)


def test_validation_rows_are_corrupted_within_the_ranges_of_training_rows():
    estimator = tiny(DenoisingAutoencoder, corruption="salt_and_pepper", corruption_level=1.0)
    prepared = with_other_validation_rows(prepare(estimator, NARROW))
    train, valid = steps.start_net(estimator, prepared)[1:3]
    rows = valid.corrupted(torch.Generator().manual_seed(0)).table.x.numpy()
    training = train.take(train.index).x.numpy()
    extremes = np.stack([training.min(axis=0), training.max(axis=0)])
    np.testing.assert_allclose(abs(rows[:, None] - extremes).min(axis=1), 0, atol=1e-12)


@pytest.mark.parametrize("early_stopping", ["auto", True])
@pytest.mark.parametrize("d", [6, 100])
def test_training_starts_at_pca_of_training_rows(d, early_stopping):
    recorder = Recorder()
    model = tiny(Autoencoder, early_stopping=early_stopping, callbacks=[recorder])
    model.fit(curve(60, d))
    pca = PCA(2).fit(recorder.training)
    with torch.no_grad():
        x = torch.tensor(recorder.held_out).to(recorder.start.like)
        batch = Batch(x, torch.ones(len(x)).to(x))
        out = recorder.start.outputs(recorder.start.encode(batch).mean, batch)
        rows = recorder.start.likelihood.mean(out).double().numpy()
    np.testing.assert_allclose(rows, reconstruct(pca, recorder.held_out), atol=1e-4)
    assert len(recorder.held_out) == 6


# ------------------------------------------------------------- the start that is kept: all rows


@for_each(AUTOENCODERS)
@pytest.mark.parametrize("d", [6, 60])
def test_start_that_is_kept_is_that_of_all_rows(estimator_class, d):
    X = curve(60, d)
    model = train(tiny(estimator_class, max_epochs=0), X)
    everything = train(tiny(estimator_class, max_epochs=0, early_stopping=False), X)
    assert model.best_epoch_ == 0
    assert_equal_states(state(everything.module_), state(model.module_))
    # The noise is that of rows on which the network was not initialized.
    if not everything.module_.likelihood.is_trained:
        assert model.noise_variance_ != pytest.approx(everything.noise_variance_, rel=1e-3)


@pytest.mark.parametrize("early_stopping", ["auto", True, False])
@pytest.mark.parametrize("d", [6, 100])
def test_epoch_zero_is_pca_of_all_rows(d, early_stopping):
    X = curve(60, d)
    parameters = {"hidden_layer_sizes": (), "early_stopping": early_stopping}
    linear = tiny(Autoencoder, learning_rate=1e-300, **parameters).fit(X)
    assert linear.best_epoch_ == 0
    assert linear.n_iter_ == TINY["max_epochs"]
    pca = PCA(2).fit(X)
    np.testing.assert_allclose(linear.reconstruct(X), reconstruct(pca, X), atol=1e-9)


@pytest.mark.parametrize("noise", ["isotropic", "diagonal"])
def test_noise_of_the_start_is_that_of_validation_rows(noise):
    """It is the noise of the same network with the validation rows passed separately."""
    X, recorder = curve(150, 6, noise=0.5), Recorder()
    parameters = {"hidden_layer_sizes": (), "noise": noise, "learning_rate": 1e-300}
    linear = tiny(Autoencoder, callbacks=[recorder], **parameters).fit(X)
    assert linear.best_epoch_ == 0
    held_out = recorder.held_out
    separate = tiny(Autoencoder, **parameters).fit(recorder.training, X_val=held_out)
    np.testing.assert_allclose(linear.noise_variance_, separate.noise_variance_, rtol=1e-6)
    if noise == "isotropic":
        residual = held_out - reconstruct(PCA(2).fit(recorder.training), held_out)
        expected = (residual**2).sum(axis=1).mean() / 4
        assert linear.noise_variance_ == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("max_epochs", [0, 30])
@pytest.mark.parametrize(("n", "k"), [(10, 2), (20, 2), (20, 5), (60, 4)])
def test_few_validation_rows_estimate_the_noise_of_each_column(n, k, max_epochs):
    """The density of fresh rows is near that of factor analysis, although few rows are held out.

    With noise variances of the validation rows alone, the gap is up to 1,000 nats.
    """
    gaps = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        axes, deviation = rng.normal(size=(2, 8)), np.exp(0.7 * rng.normal(size=8))
        rows = rng.normal(size=(2000 + n, 2)) @ axes + deviation * rng.normal(size=(2000 + n, 8))
        X, fresh = rows[:n], rows[n:]
        model = Autoencoder(k, noise="diagonal", max_epochs=max_epochs, random_state=seed).fit(X)
        gaps.append(FactorAnalysis(k).fit(X).score(fresh) - model.score(fresh))
    assert max(gaps) < 3
    assert np.median(gaps) < 1


def test_given_validation_rows_never_initialize_the_network():
    linear = tiny(Autoencoder, hidden_layer_sizes=()).fit(NARROW, X_val=10 + 5 * curve(30, 6, 1))
    assert linear.best_epoch_ == 0
    pca = PCA(2).fit(NARROW)
    np.testing.assert_allclose(linear.reconstruct(NARROW), reconstruct(pca, NARROW), atol=1e-9)


@pytest.mark.parametrize(
    "max_epochs", [0, pytest.param(100, marks=pytest.mark.slow)], ids=["start", "trained"]
)
@pytest.mark.parametrize("seed", range(3))
def test_noise_of_many_columns_is_that_of_fresh_rows(seed, max_epochs):
    """100 columns of noise, of which PCA of 150 rows fits its own rows too well."""
    rng = np.random.default_rng(seed)
    X, fresh = rng.normal(size=(150, 100)), rng.normal(size=(500, 100))
    model = Autoencoder(20, random_state=seed, max_epochs=max_epochs).fit(X)
    assert model.best_epoch_ == 0
    of_fresh = Autoencoder(20, random_state=seed, max_epochs=0).fit(X, X_val=fresh)
    assert model.noise_variance_ == pytest.approx(of_fresh.noise_variance_, rel=0.03)
    errors = fresh - reconstruct(PCA(20).fit(X), fresh)
    noise = float((errors**2).sum(axis=1).mean() / 80)
    known = Autoencoder(20, random_state=seed, max_epochs=0, noise=noise).fit(X)
    assert model.score(fresh) == pytest.approx(known.score(fresh), rel=0.005)


# ----------------------------------------------------------------------- few rows, many columns


TABLES = [(40, 200), (60, 300), (80, 500), (100, 400), (120, 1000), (150, 900), (150, 2000)]


@pytest.mark.parametrize(
    ("n", "d"),
    [pytest.param(n, d, marks=[pytest.mark.slow] * (n * d > 2e4)) for n, d in TABLES],
)
def test_linear_factors_are_reconstructed_as_well_as_by_pca(n, d):
    X, fresh = factors(n, d, n + d)
    model = Autoencoder(5, random_state=0).fit(X)
    assert relative_error(model, PCA(5).fit(X), fresh) < 1.03


def test_wide_table_keeps_what_training_has_improved():
    X, fresh = curve(60, 100), curve(300, 100, seed=1)
    model = Autoencoder(2, random_state=0, learning_rate=1e-2).fit(X)
    assert model.best_epoch_ == model.n_iter_
    assert relative_error(model, PCA(2).fit(X), fresh) < 0.9


@pytest.mark.parametrize("early_stopping", ["auto", False])
def test_narrow_table_keeps_no_end_that_is_clearly_worse(early_stopping):
    """Noise alone is in the rows: training can only fit it."""
    X = np.random.default_rng(0).normal(size=(150, 20))
    parameters = {"n_components": 8, "learning_rate": 0.03, "hidden_layer_sizes": (100,)}
    model = tiny(Autoencoder, early_stopping=early_stopping, max_epochs=60, **parameters).fit(X)
    assert model.loss_curve_[-1] < model.loss_curve_[0]
    assert model.best_epoch_ == (0 if early_stopping else 60)


REAL = {
    "wine": (load_wine, 120, 4),
    "iris": (load_iris, 100, 2),
    "breast cancer": (load_breast_cancer, 300, 5),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_narrow_tables_lose_nothing(name):
    """The default is not worse than either other setting by more than 0.01 of PCA's error.

    Splits differ by chance, so two standard errors of their mean difference are allowed, too.
    """
    load, n, k = REAL[name]
    table = StandardScaler().fit_transform(load().data)
    found = {"auto": [], True: [], False: []}
    for seed in range(3):
        X, fresh = train_test_split(table, train_size=n, random_state=seed)
        pca = PCA(k).fit(X)
        for early_stopping, errors in found.items():
            model = Autoencoder(k, random_state=seed, early_stopping=early_stopping).fit(X)
            errors.append(relative_error(model, pca, fresh))
    for early_stopping in (True, False):
        loss = np.array(found["auto"]) - found[early_stopping]
        assert loss.mean() < 0.01 + 2 * stats.sem(loss)


# ---------------------------------------------------------------- further training on all rows


@for_each(AUTOENCODERS)
def test_further_training_is_seen_by_no_history_and_no_callback(estimator_class, monkeypatch):
    seen = []
    further = Net.fit_further

    def recorded(net, train, plan):
        seen.append((len(train), plan.budget.max_epochs, state(net.module_)))
        further(net, train, plan)

    monkeypatch.setattr(Net, "fit_further", recorded)
    recorder = Recorder()
    model = train(tiny(estimator_class, max_epochs=8, callbacks=[recorder]), NARROW)
    assert model.n_iter_ == len(model.loss_curve_) == len(model.validation_curve_) == 8
    assert [row["epoch"] for row in model.history_] == [*range(1, 9)]
    assert recorder.events == ["begin", "end"] * 8 + ["train_end"]
    assert len(recorder.training) == 72
    if model.best_epoch_ == 0:
        assert not seen
        return
    assert model.best_epoch_ == 8
    [(n_rows, n_epochs, before)] = seen
    assert (n_rows, n_epochs) == (80, 2)
    assert_equal_states(recorder.states[-1], before)
    assert differ(before, state(model.module_))


@for_each(AUTOENCODERS)
def test_noise_is_of_rows_that_the_network_had_not_used(estimator_class, monkeypatch):
    """The estimate is made before the training on all rows, which changes nothing about it."""
    model = train(tiny(estimator_class, max_epochs=8), NARROW)
    monkeypatch.setattr(steps, "FINAL_SHARE", 0.0)
    without = train(tiny(estimator_class, max_epochs=8), NARROW)
    assert model.best_epoch_ == without.best_epoch_
    if not model.module_.likelihood.is_trained:
        np.testing.assert_allclose(model.noise_variance_, without.noise_variance_, rtol=1e-12)
    if model.best_epoch_:
        assert differ(state(model.module_), state(without.module_))


@pytest.mark.usefixtures("kept_axes")
@pytest.mark.parametrize("parameters", [{"early_stopping": True}, {"early_stopping": False}])
def test_network_is_not_trained_further_otherwise(parameters):
    """If validation rows select the epoch, and if there are none."""
    recorder = Recorder()
    model = tiny(Autoencoder, max_epochs=8, batch_size=16, callbacks=[recorder], **parameters)
    model.fit(curve(200, 6))
    assert model.best_epoch_ > 0
    assert_equal_states(recorder.states[model.best_epoch_ - 1], state(model.module_))


@for_each(AUTOENCODERS)
def test_fits_that_resume_are_consistent(estimator_class):
    recorder = Recorder()
    model = tiny(estimator_class, max_epochs=8, warm_start=True, callbacks=[recorder])
    first = [dict(row) for row in train(model, NARROW).history_]
    assert model.start_epoch_ == 0
    train(model, NARROW)
    assert [row["train_loss"] for row in model.history_[:8]] == [r["train_loss"] for r in first]
    assert (model.start_epoch_, model.n_iter_, len(model.history_)) == (8, 16, 16)
    assert model.best_epoch_ in (0, 8)
    assert recorder.events == ["begin", "end"] * 8 + ["train_end"]
    train(model, NARROW, "partial_fit")
    assert (model.start_epoch_, model.n_iter_, model.best_epoch_) == (16, 17, 1)
    assert len(recorder.training) == len(NARROW)
    assert recorder.held_out is None


def test_seed_decides_the_further_training():
    models = [tiny(Autoencoder, max_epochs=8, batch_size=16).fit(NARROW) for _ in range(2)]
    assert models[0].best_epoch_ == 8
    assert_equal_states(*[state(model.module_) for model in models])


# -------------------------------------------------------------------- codes as wide as the rows


SUBSPACE = RNG.normal(size=(20, 30))
"""Rows that vary along 19 of 30 axes."""


def fit_and_catch(estimator, X, method="fit"):
    """Fit, and return the model and its warnings about the noise."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = train(estimator, X, method)
    return model, [w for w in caught if "noise variance cannot be estimated" in str(w.message)]


def has_no_noise(model, X):
    return np.max(model.noise_variance_) < 1e-6 * X.var(axis=0).mean()


WIDE_CODE = {"n_components": 25, "hidden_layer_sizes": ()}


@for_each(AUTOENCODERS)
@pytest.mark.parametrize("early_stopping", ["auto", False])
def test_noise_that_cannot_be_estimated_causes_a_warning(estimator_class, early_stopping):
    estimator = tiny(estimator_class, early_stopping=early_stopping, max_epochs=0, **WIDE_CODE)
    model, caught = fit_and_catch(estimator, SUBSPACE)
    is_trained = model.module_.likelihood.is_trained
    assert len(caught) == (is_trained or has_no_noise(model, SUBSPACE))
    if early_stopping and not is_trained:
        # Few validation rows estimate the noise, but they do not correct a trained one.
        assert not caught
    elif estimator_class is Autoencoder:
        [warning] = caught
        assert warning.category is UserWarning
        for remedy in ("n_components", "early_stopping='auto'", "noise to a number"):
            assert remedy in str(warning.message)


@pytest.mark.parametrize("n", [2, 4, 20])
def test_warning_if_no_row_could_be_held_out(n):
    estimator = tiny(Autoencoder, validation_fraction=0.01, **WIDE_CODE)
    model, caught = fit_and_catch(estimator, SUBSPACE[:n])
    assert has_no_noise(model, SUBSPACE[:n])
    assert len(caught) == 1


@pytest.mark.parametrize(
    ("X", "parameters"),
    [
        pytest.param(SUBSPACE, {"noise": 0.5}, id="known noise"),
        pytest.param(SUBSPACE, {"n_components": 10}, id="narrow code"),
        pytest.param(RNG.normal(size=(100, 30)), {}, id="rows of full rank"),
        pytest.param(np.ones((20, 30)), {}, id="equal rows"),
        pytest.param((SUBSPACE > 0).astype(float), {"likelihood": "bernoulli"}, id="no noise"),
    ],
)
def test_no_warning_otherwise(X, parameters):
    estimator = tiny(Autoencoder, early_stopping=False, **WIDE_CODE | parameters)
    assert not fit_and_catch(estimator, X)[1]


def test_partial_fit_with_held_out_noise_does_not_warn():
    model = tiny(Autoencoder, **WIDE_CODE).fit(SUBSPACE)
    assert not fit_and_catch(model, SUBSPACE, "partial_fit")[1]


def test_density_does_not_depend_on_axes_without_training_rows_alone():
    """Rows off the axes of the training rows are not impossible, as they are without noise."""
    fresh = np.random.default_rng(1).normal(size=(300, 30))
    wide = tiny(Autoencoder, **WIDE_CODE).fit(SUBSPACE)
    best = max(PCA(k).fit(SUBSPACE).score(fresh) for k in range(1, 19))
    assert wide.score(fresh) > best - 5


@pytest.mark.slow
@pytest.mark.parametrize("estimator_class", [Autoencoder, DenoisingAutoencoder])
def test_code_as_wide_as_digits_is_not_far_below_pca(estimator_class, digits):
    X, fresh = train_test_split(digits, test_size=0.3, random_state=0)
    model = estimator_class(64, precision="float64", random_state=0).fit(X)
    assert model.score(fresh) > PCA(60).fit(X).score(fresh) - 30


# ------------------------------------------------------------------------------ known noise


@pytest.mark.parametrize(
    "make",
    [
        lambda: Gaussian(4),
        lambda: Gaussian(4, "diagonal"),
        lambda: Gaussian(4, "isotropic", True),
        lambda: Bernoulli(4),
        lambda: Blocks([Gaussian(2), Gaussian(2, "diagonal")]),
    ],
    ids=["isotropic", "diagonal", "trained", "bernoulli", "blocks"],
)
def test_known_noise_is_not_estimated_again(make):
    likelihood, x = make(), torch.rand(30, 4, generator=torch.Generator().manual_seed(0)).double()
    likelihood.to(x).start(x.mean(0), x.var(0), x.var().sqrt())
    was_known, noise = likelihood.is_known, torch.full((4,), 0.7).to(x)
    known = likelihood.known(noise)
    out = torch.zeros(30, likelihood.n_outputs).to(x)
    batch = Batch(x, torch.ones(30).to(x))
    statistics = known.statistics(batch, known.squares(batch, out), torch.full((30,), 1 / 30).to(x))
    for other in (known, known.update(statistics), known.corrected(statistics)):
        assert other.is_known
        torch.testing.assert_close(other.noise_variance, noise)
    assert likelihood.is_known == was_known
    if not was_known:
        assert not torch.equal(likelihood.update(statistics).noise_variance, noise)
