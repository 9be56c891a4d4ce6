"""The fair autoencoder: what its codes hide, what they keep, and what it says of both."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import kstest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from torch.nn import functional as F

from skae import FairAutoencoder
from skae.nn.adversaries import MAX_EXCESS_LOSS, N_ADVERSARIES, Adversaries
from skae.nn.draws import KeyedDraws
from skae.table.audit import MIN_SAMPLES_LEAF, PROBES, audit, parity_gap
from skae.training.tensors import make_batch

pytestmark = pytest.mark.xdist_group("fair")  # they share a fit

N = 500


def people(n=N, seed=0):
    """Useful columns, and columns that are large in one group and small in the other; a target."""
    rng = np.random.default_rng(seed)
    group, useful = rng.integers(2, size=n), rng.normal(size=(n, 3))
    mixed = (0.2 + 1.8 * group[:, None]) * (useful @ rng.normal(size=(3, 3)))
    mixed += 0.5 * group[:, None] + 0.1 * rng.normal(size=(n, 3))
    y = (useful.sum(axis=1) + 0.8 * group + 0.3 * rng.normal(size=n) > 0.4).astype(int)
    return np.column_stack([useful + 0.3 * rng.normal(size=(n, 3)), mixed, group]), y


X, Y = people()


@pytest.fixture(autouse=True)
def small_forests(monkeypatch):
    """Audits with fewer trees, which are as sure of tables as small as these."""
    forest = RandomForestClassifier(20, min_samples_leaf=MIN_SAMPLES_LEAF, random_state=0)
    monkeypatch.setitem(PROBES, "forest", lambda: forest)


@pytest.fixture(scope="module")
def fitted():
    model = FairAutoencoder(sensitive=-1, max_epochs=40, precision="float64", random_state=0)
    return model.fit(X)


def batch_for(model, rows):
    """Rows of a table as a fitted model's network takes them."""
    return make_batch(model._fitted.schema.read(rows), model.module_)


def flipped(rows):
    other = rows.copy()
    other[:, -1] = 1 - other[:, -1]
    return other


def leak(codes, group):
    probe = RandomForestClassifier(30, min_samples_leaf=MIN_SAMPLES_LEAF, random_state=0)
    return cross_val_score(probe, codes, group, cv=5, scoring="roc_auc").mean()


def test_a_code_belongs_to_what_is_not_sensitive(fitted):
    codes = fitted.transform(X)
    np.testing.assert_array_equal(fitted.transform(X), codes)
    np.testing.assert_array_equal(fitted.transform(flipped(X)), codes)
    np.testing.assert_array_equal(fitted.transform(X[::-1])[::-1], codes)
    each = np.vstack([fitted.transform(row[None]) for row in X[:50]])
    np.testing.assert_allclose(each, codes[:50], rtol=2e-6)
    np.testing.assert_array_equal(fitted.fit_transform(X), codes)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_code_is_a_draw_from_the_posterior(precision):
    model = FairAutoencoder(sensitive=-1, max_epochs=5, precision=precision, random_state=0)
    model.fit(X)
    network, k = model.module_, model.n_components_
    batch = batch_for(model, X)
    with torch.no_grad():
        h = network.encoder(network.inputs(batch))
    posterior = network.latent.posterior(h)
    mean, deviation = posterior.mean, posterior.log_diagonal.exp()
    noise = (torch.from_numpy(model.transform(X)).to(h) - mean) / deviation
    torch.testing.assert_close(
        noise, KeyedDraws(batch.x[:, :-1]).normal((1, N, k))[0], rtol=1e-3, atol=1e-3
    )
    assert kstest(noise.numpy().ravel(), "norm").pvalue > 0.01


def test_it_hides_what_others_give_away(fitted):
    group = X[:, -1]
    assert leak(X[:, :-1], group) > 0.9
    open_ = FairAutoencoder(sensitive=-1, leak_weight=0, max_epochs=10, random_state=0).fit(X)
    assert leak(open_.transform(X), group) > 0.65
    assert leak(fitted.transform(X), group) < 0.6


def test_the_mean_tells_more_than_the_code(fitted):
    """Why the code is a draw."""
    network, k = fitted.module_, fitted.n_components_
    with torch.no_grad():
        mean = network.encode(batch_for(fitted, X)).h[:, :k].numpy()
    assert leak(mean, X[:, -1]) > leak(fitted.transform(X), X[:, -1]) + 0.05


def test_the_last_epoch_is_kept(fitted):
    assert fitted.best_epoch_ == fitted.n_iter_ == 40
    assert len(fitted.validation_curve_) == 40


def test_the_noise_of_rows_is_estimated_afterwards(fitted):
    """Training holds it at the mean column variance; the density knows what it came to."""
    variance = X[:, :-1].var(axis=0).mean()
    assert 0.01 * variance < fitted.noise_variance_ < 0.9 * variance
    known = FairAutoencoder(sensitive=-1, noise=0.5, max_epochs=0, random_state=0).fit(X)
    assert known.noise_variance_ == 0.5


@pytest.mark.slow
def test_a_target_shapes_the_code():
    """Of columns of noise the code keeps what tells the target, known for some rows."""
    rng = np.random.default_rng(1)
    rows = np.column_stack([X[:, 0], 1.5 * rng.normal(size=(N, 6)), X[:, -1]])
    y = (X[:, 0] > 0).astype(int)
    known = np.where(np.arange(N) < 300, y, -1)

    def accuracy(target):
        parameters = {"max_epochs": 20, "precision": "float64", "random_state": 0}
        model = FairAutoencoder(2, sensitive=-1, **parameters)
        codes = model.fit(rows, target).transform(rows)
        return cross_val_score(LogisticRegression(), codes, y, cv=5).mean()

    alone = accuracy(None)
    assert accuracy(known) > alone + 0.1
    assert accuracy(X[:, 0]) > alone + 0.1


def test_in_a_pipeline_the_target_is_passed_on():
    pipeline = make_pipeline(
        FairAutoencoder(sensitive=-1, max_epochs=20, random_state=0), LogisticRegression()
    )
    assert pipeline.fit(X, Y).score(X, Y) > 0.7


def test_a_wrong_target_is_named():
    model = FairAutoencoder(sensitive=-1, max_epochs=1)
    for y, message in ((Y[:-1], "inconsistent"), (np.c_[Y, Y], "1d array")):
        with pytest.raises(ValueError, match=message):
            model.fit(X, y)


def test_equal_targets_are_none():
    model = FairAutoencoder(sensitive=-1, max_epochs=1, random_state=0)
    codes = model.fit(X).transform(X)
    for y in (np.ones(N), np.full(N, "a"), np.full(N, -1)):
        np.testing.assert_array_equal(model.fit(X, y).transform(X), codes)


@pytest.fixture
def panel():
    panel = Adversaries(3, [2, 1]).double()
    panel.reset(torch.Generator().manual_seed(0))
    with torch.no_grad():
        for p in panel.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    return panel


def test_judges_lack_nats(panel):
    """Cross-entropy of categories, and squared errors of numbers in units of their variance."""
    rng = np.random.default_rng(0)
    z = torch.from_numpy(rng.normal(size=(2, 7, 3)))
    classes, number = rng.integers(2, size=7), rng.normal(size=7)
    number -= number.mean()
    conditions = torch.from_numpy(np.column_stack([np.eye(2)[classes] * 2 - 1, number]))
    lack = panel(z, conditions, torch.ones(7).double(), train=True)
    expected = torch.zeros(7).double()
    layers = [*zip(panel.weights, panel.biases, strict=True)]
    for i in range(N_ADVERSARIES):
        out = z
        for j, (slopes, bias) in enumerate(layers):
            out = (F.silu(out) if j else out) @ (3 * slopes[i]) + 3 * bias[i]
        nats = F.cross_entropy(
            out[..., :2].movedim(-1, 1), torch.from_numpy(classes).expand(2, 7), reduction="none"
        )
        squares = (out[..., 2] - conditions[:, 2]) ** 2 / (2 * (number**2).mean())
        expected += (nats + squares).mean(0) / N_ADVERSARIES
    torch.testing.assert_close(lack, expected)


def test_nothing_is_gained_by_misleading_judges(panel):
    """What codes pay for is bounded; what judges learn from is not."""
    z = 1e3 * torch.randn(6, 3, generator=torch.Generator().manual_seed(0)).double()
    conditions = torch.eye(2).double()[[0, 0, 0, 0, 1, 1]]
    conditions = torch.cat([conditions, torch.zeros(6, 1)], 1)
    bound = (
        -torch.tensor([2 / 3] * 4 + [1 / 3] * 2, dtype=torch.float64).log() + 2 * MAX_EXCESS_LOSS
    )
    seen = panel(z, conditions, torch.ones(6).double(), train=False)
    assert (seen <= bound + 1e-9).all()
    assert (panel(z, conditions, torch.ones(6).double(), train=True) >= seen).all()


def test_only_a_panel_that_learns_is_moved(panel):
    z = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    conditions = torch.tensor([[1.0, -1.0, 0.5]]).double().expand(5, 3)
    panel(z, conditions, torch.ones(5).double(), train=False).sum().backward()
    assert z.grad.abs().sum() > 0
    assert all(p.grad is None for p in panel.parameters())
    panel(z.detach(), conditions, torch.ones(5).double(), train=True).sum().backward()
    assert all(p.grad is not None for p in panel.parameters())


def test_judges_start_without_an_opinion():
    panel = Adversaries(3, [4])
    panel.reset(torch.Generator().manual_seed(0))
    lack = panel(torch.randn(6, 3), torch.eye(4)[[0, 1, 2, 3, 0, 1]], torch.ones(6), train=False)
    torch.testing.assert_close(lack, torch.full((6,), 4.0).log())


def test_an_audit_reports_leak_and_price(fitted):
    report = fitted.audit(pd.DataFrame(X).to_numpy(), Y)
    assert list(report.columns) == ["nothing", "rows", "code"]
    group = X[:, -1]
    assert report.loc[("6", "linear", "accuracy"), "nothing"] == max(group.mean(), 1 - group.mean())
    for probe in ("forest", "linear"):
        auc = report.loc[("6", probe, "auc")]
        assert auc["code"] < 0.62
        accuracy = report.loc[("y", probe, "accuracy")]
        assert accuracy["nothing"] < accuracy["code"] < accuracy["rows"]
        gap = report.loc[("y", probe, "parity gap, 6")]
        assert gap["code"] < gap["rows"]
    assert set(fitted.audit(X).reset_index()["target"]) == {"6"}


def test_audits_of_codes_that_give_all_away_and_nothing():
    rng = np.random.default_rng(0)
    classes = rng.integers(3, size=300)
    tables = {"all": np.eye(3)[classes], "nothing at all": rng.normal(size=(300, 2))}
    report = audit(tables, {"s": classes}, None)
    assert (report["all"] == 1).all()
    assert abs(report.loc[("s", "forest", "auc"), "nothing at all"] - 0.5) < 0.1


def test_an_audit_takes_unknown_targets_and_any_name(fitted):
    few = np.where(np.arange(N) < 200, Y, -1)
    report = fitted.audit(X, few)
    assert report.loc[("y", "linear", "accuracy"), "nothing"] == max(
        Y[:200].mean(), 1 - Y[:200].mean()
    )
    classes = X[:, -1].astype(int)
    report = audit({"code": X[:, :2]}, {"y": classes}, Y).reset_index()
    assert set(report["target"]) == {"y", "y (target)"}
    halves = FairAutoencoder(sensitive="s", max_epochs=1, random_state=0)
    table = pd.DataFrame(X[:, :6], columns=list("abcdef")).assign(s=np.minimum(X[:, 0], 0.0))
    assert halves.fit(table).audit(table).loc[("s", "forest", "accuracy"), "nothing"] >= 0.5


def test_a_number_is_audited_by_halves():
    rows = np.column_stack([X[:, :-1], X[:, 3] + 0.1 * np.random.default_rng(2).normal(size=N)])
    frame = pd.DataFrame(rows, columns=[*"abcdef", "age"])
    model = FairAutoencoder(sensitive="age", max_epochs=20, random_state=0).fit(frame)
    report = model.audit(frame)
    assert report.loc[("age", "forest", "accuracy"), "nothing"] == 0.5
    auc = report.loc[("age", "forest", "auc")]
    assert auc["rows"] > 0.95 > 0.85 > auc["code"]


def test_parity_gaps():
    groups = np.repeat(["a", "b", "c"], 4)
    predicted = np.array([1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 0, 0])
    assert parity_gap(predicted, groups) == 0.5
    assert parity_gap(np.ones(12), groups) == 0


@pytest.mark.parametrize(
    ("rows", "y", "message"),
    [
        (X[:, [0, 1, 2, 3, 4, 5, 6]][X[:, -1] == 1], None, "6 must contain at least 2 classes"),
        (X, np.zeros(N), "y must contain at least 2 classes"),
        (X, np.r_[np.ones(3), np.zeros(N - 3)], "Each class of y .* got 3 of class 1"),
        (X, Y[1:], "inconsistent"),
        (X, X[:, 0], "Unknown label type"),
    ],
)
def test_what_cannot_be_audited_is_said(fitted, rows, y, message):
    with pytest.raises(ValueError, match=message):
        fitted.audit(rows, y)


def test_without_sensitive_columns_nothing_is_audited():
    model = FairAutoencoder(max_epochs=1, random_state=0).fit(X)
    with pytest.raises(ValueError, match="audit needs sensitive columns"):
        model.audit(X)
