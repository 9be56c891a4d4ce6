"""How long a fit lasts: the budget of steps, its schedule, a second attempt, and warnings."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.datasets import load_wine
from sklearn.exceptions import ConvergenceWarning

from skae import Autoencoder, VariationalAutoencoder, components_path
from skae.nn.normal import SMALLEST_LOG, bounded
from skae.training import loop, progress
from skae.training.budget import AUTO_EPOCHS, AUTO_STEPS, Budget
from skae.training.epochs import BestEpoch
from skae.training.plan import ANNEALING, EARLIEST_CUT, Plan, Schedule

NOISE = np.random.default_rng(0).normal(size=(1200, 6))
SMALL = {"hidden_layer_sizes": (8,), "random_state": 0}


def bent(n):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(n, 2))
    return np.tanh(z @ rng.normal(size=(2, 8))) @ rng.normal(size=(8, 6))


# -------------------------------------------------------------------- the budget


@pytest.mark.parametrize("n", [10, 256, 257, 1000, 5000, 20_000, 100_000, 900_000])
def test_automatic_budgets_are_bounded(n):
    budget = Budget.of("auto", "auto", n)
    n_steps = budget.max_epochs * max(1, round(n / budget.batch_size))
    assert 1 <= budget.max_epochs <= AUTO_EPOCHS
    assert budget.max_epochs == AUTO_EPOCHS or abs(n_steps - AUTO_STEPS) < 0.5 * AUTO_STEPS
    assert budget.may_cut
    assert Budget.of(7, "auto", n) == Budget(7, budget.batch_size)


def test_many_batches_are_passed_over_in_part(monkeypatch):
    """The epoch ends with the budget, and the schedule with it."""
    monkeypatch.setattr("skae.training.budget.AUTO_STEPS", 5)
    model = Autoencoder(2, batch_size=10, **SMALL).fit(bent(300))
    assert model.history_[:, "train_batch_count"] == [5]
    assert model.n_iter_ == 1
    numbered = Autoencoder(2, batch_size=10, max_epochs=1, **SMALL).fit(bent(300))
    assert numbered.history_[:, "train_batch_count"] == [27]


@pytest.mark.filterwarnings("ignore:The suggested n_components")
def test_a_path_has_epochs_for_each_size():
    X = bent(400)
    path, same = (
        components_path(Autoencoder(max_epochs=n, **SMALL), X, param_range=[1, 2, 4], cv=2)
        for n in ("auto", AUTO_EPOCHS)
    )
    assert path.suggested == same.suggested
    errors = (p.results["test_error"] for p in (path, same))
    np.testing.assert_array_equal(*errors)


# ------------------------------------------------------------------ the schedule


@pytest.mark.parametrize("step", [50, 60, 80])
def test_a_schedule_that_is_cut_ends_as_a_whole_one_does(step):
    plan, schedule = Plan(1.0, Budget(10, 4)), Schedule(100)
    rates = []
    while schedule.done < schedule.n_steps:
        if schedule.done == step:
            assert schedule.may_be_cut()
            schedule.cut(n_in_epoch=4)
        rates.append(plan.rate(schedule.position()))
        schedule.done += 1
    whole = [plan.rate(i / 100) for i in range(100)]
    assert rates[: step + 1] == pytest.approx(whole[: step + 1])
    assert schedule.n_steps == step + 12
    assert (schedule.n_steps - step) % 4 == 0
    assert (np.diff(rates[step:]) < 0).all()
    assert rates[-1] < 0.05
    assert schedule.position() == pytest.approx(1)
    assert not schedule.may_be_cut()


def test_a_schedule_is_cut_neither_early_nor_late():
    for done, may_be_cut in ((49, False), (50, True), (89, True), (90, False)):
        assert Schedule(100, done).may_be_cut() == may_be_cut
    assert pytest.approx(0.5) == EARLIEST_CUT
    assert pytest.approx(0.1) == ANNEALING


def test_nothing_to_learn_cuts_the_fit_short():
    """PCA is a good model of noise, which validation rows show soon; a number of epochs holds."""
    model = Autoencoder(2, **SMALL).fit(NOISE)
    assert AUTO_EPOCHS / 2 < model.n_iter_ < 0.8 * AUTO_EPOCHS
    assert model.history_[-1, "valid_loss"] == pytest.approx(model.validation_curve_[0], rel=0.01)
    assert Autoencoder(2, max_epochs=60, **SMALL).fit(NOISE).n_iter_ == 60
    assert Autoencoder(2, **SMALL).fit(NOISE[:900]).n_iter_ == AUTO_EPOCHS
    assert Autoencoder(2, linear_skip=False, **SMALL).fit(NOISE).n_iter_ == AUTO_EPOCHS


def test_improvement_is_relative_to_all_improvement():
    best, module = BestEpoch(), torch.nn.Linear(1, 1)
    for epoch, loss in enumerate((10.0, 6.0, 5.98, 5.8, 5.79)):
        best.update(epoch, loss, module, 0.0)
    assert best.stalled_since == 3
    assert not best.has_stalled(5, 10)
    assert best.has_stalled(6, 10)
    assert not best.has_stalled(22, 100)
    assert best.has_stalled(23, 100)


# ------------------------------------------------------------- a second attempt


def test_training_that_breaks_down_is_repeated(monkeypatch):
    """At a third of the rate, as if that had been the parameter; the warning says so."""
    rates, fit_rows = [], loop.Net.fit_rows

    def failing(net, train, valid, plan, *rest):
        rates.append(plan.learning_rate)
        if len(rates) == 1:
            raise loop.DivergenceError("the loss became nan")
        return fit_rows(net, train, valid, plan, *rest)

    X = bent(300)
    expected = Autoencoder(2, learning_rate=0.01 / 3, max_epochs=5, **SMALL).fit(X)
    monkeypatch.setattr(loop.Net, "fit_rows", failing)
    model = Autoencoder(2, learning_rate=0.01, max_epochs=5, **SMALL)
    with pytest.warns(ConvergenceWarning, match=r"learning_rate=0\.01: .* learning_rate=0\.00333"):
        model.fit(X)
    assert rates[:2] == [0.01, pytest.approx(0.01 / 3)]
    np.testing.assert_allclose(model.transform(X), expected.transform(X), rtol=1e-6)


def test_training_that_breaks_down_twice_fails():
    model = VariationalAutoencoder(2, learning_rate=1e30, max_epochs=5, **SMALL)
    with pytest.raises(ValueError, match="also with a third of the learning rate"):
        model.fit(bent(300))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_extreme_row_does_not_end_a_fit(dtype):
    X = bent(600)
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    X[0, 0] = 70.0
    model = VariationalAutoencoder(2, random_state=0).fit(X.astype(dtype))
    assert np.isfinite(model.loss_curve_).all()


def test_standard_deviations_are_bounded():
    raw = torch.tensor([-1e4, -3.0, 0.0, 2.0, 1e30], requires_grad=True)
    deviation = bounded(raw).exp()
    expected = [np.exp(SMALLEST_LOG), np.exp(-3.0), 1.0, 3.0, 1e30]
    np.testing.assert_allclose(deviation.detach(), expected, rtol=1e-5)
    (slope,) = torch.autograd.grad(bounded(raw).sum(), raw)
    assert slope.isfinite().all()
    assert slope[1:4].tolist() == pytest.approx([1, 1, 1 / 3])


# ---------------------------------------------------------------------- warnings


def test_raw_columns_of_which_one_dominates():
    with pytest.warns(ConvergenceWarning, match="scale the columns, for example with Stan"):
        Autoencoder(random_state=0).fit(load_wine().data)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "parameters",
    [{"hidden_layer_sizes": ()}, {"max_epochs": 3}, {"n_components": 6}, {"max_epochs": 0}],
)
def test_networks_that_need_not_learn(parameters):
    Autoencoder(**({"n_components": 2, "random_state": 0} | parameters)).fit(NOISE[:200])


def test_a_long_fit_warns_once(monkeypatch):
    monkeypatch.setattr(progress, "MEASURED", 0.0)
    monkeypatch.setattr(progress, "LONG", 0.0)
    model = Autoencoder(2, max_epochs=20, **SMALL)
    with pytest.warns(UserWarning, match="expected to take .* training steps") as record:
        model.fit(bent(300))
    assert len(record) == 1
    assert record[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.set_params(verbose=1).fit(bent(300))
        monkeypatch.setattr(progress, "LONG", 60.0)
        model.set_params(verbose=0).fit(bent(300))


def test_durations_are_readable():
    assert progress._duration(90) == "about 2 minutes"
    assert progress._duration(3600 * 2.5) == "2.5 hours"


def test_files_have_no_color_codes(capsys, monkeypatch):
    model = Autoencoder(2, max_epochs=20, verbose=1, early_stopping=True, **SMALL)
    model.fit(bent(600))
    plain = capsys.readouterr().out
    assert "valid_loss" in plain
    assert "\033" not in plain
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    model.fit(bent(600))
    assert "\033" in capsys.readouterr().out
