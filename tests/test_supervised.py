"""Classifiers and regressors over an autoencoder: what they train and what they answer."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from sklearn.base import clone
from sklearn.exceptions import DataConversionWarning, NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from test_common import public_estimators
from torch.nn import functional as F

import skae
from skae.base import BaseAutoencoder
from skae.fitting.prepare import read_rows
from skae.nn.batch import Batch
from skae.nn.latent import Code
from skae.nn.network import AuxiliaryLoss
from skae.table.targets import Targets
from skae.training import split
from skae.training.heads import Classes, Head, Labels, Numbers
from skae.training.loop import Net
from skae.training.split import RARE_SHARE, n_repeats

N = 120
RNG = np.random.default_rng(0)
Z = RNG.normal(size=(N, 2))
X = np.tanh(Z @ RNG.normal(size=(2, 8))) @ RNG.normal(size=(8, 6)) + 0.05 * RNG.normal(size=(N, 6))
Y3 = np.digitize(Z[:, 0], [-0.5, 0.5])
LABELS = (np.c_[Z[:, 0], Z[:, 1], Z.sum(axis=1)] > 0).astype(int)
TARGETS = np.c_[Z[:, 0], 100 + 10 * Z[:, 1]]
SMALL = {"n_components": 3, "hidden_layer_sizes": (16,), "max_epochs": 20}


def classifier(**parameters):
    return skae.AutoencoderClassifier(skae.Autoencoder(**SMALL), random_state=0, **parameters)


def regressor(**parameters):
    return skae.AutoencoderRegressor(skae.Autoencoder(**SMALL), random_state=0, **parameters)


def hidden(y, share=0.5):
    """Targets of which a share is unknown."""
    unknown = np.random.default_rng(1).random(len(y)) < share
    return np.where(unknown, -1, y)


@pytest.fixture(scope="module")
def pretrained():
    return skae.Autoencoder(**SMALL, random_state=3).fit(X)


@pytest.fixture(scope="module")
def many():
    """A classifier of three labels."""
    return classifier().fit(X, LABELS)


def weights(autoencoder):
    return [t.numpy() for t in autoencoder.module_.state_dict().values()]


def assert_equal(first, second):
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


# ------------------------------------------------------------------------------- the objective


def targets_of(values, counts):
    """A batch of rows of which nothing but targets matters."""
    n = len(values)
    return Batch(torch.zeros(n, 1), torch.ones(n), targets=values, target_weight=counts)


def costs(head, code, values, counts):
    """What targets cost each row, where its own objective is nothing."""
    return head(torch.zeros(len(values)).double(), code, targets_of(values, counts))


def started(family, values, counts, price=1.0, share=1.0):
    head = Head(family, price, share)
    codes = torch.randn(len(values), 3, generator=torch.Generator().manual_seed(0)).double()
    head.start(codes, targets_of(values, counts))
    code = Code(codes, codes, codes)
    return head, code, head.linear((codes - head.center) / head.scale)


def test_a_class_costs_its_cross_entropy():
    y = torch.arange(30) % 3
    counts = torch.ones(30, 1, dtype=torch.float64)
    head, code, out = started(Classes(), F.one_hot(y).double(), counts, price=7.0)
    torch.testing.assert_close(
        costs(head, code, F.one_hot(y).double(), counts),
        7 * F.cross_entropy(out, y, reduction="none"),
    )


def test_labels_cost_the_sum_of_their_cross_entropies_over_known_cells():
    values = torch.from_numpy(LABELS[:30].astype(float))
    counts = (torch.arange(90).reshape(30, 3) % 4 > 0).double()
    head, code, out = started(Labels(), values, counts)
    nats = F.binary_cross_entropy_with_logits(out, values, reduction="none")
    torch.testing.assert_close(costs(head, code, values, counts), (nats * counts).sum(-1))


def test_numbers_cost_half_their_squared_error():
    targets = Numbers.targets(TARGETS[:30], np.ones(30))
    values = torch.from_numpy(targets.standardized)
    counts = torch.from_numpy(targets.observed)
    head, code, out = started(Numbers(), values, counts)
    nats = 0.5 * ((out - values) ** 2).sum(-1)
    torch.testing.assert_close(costs(head, code, values, counts), nats)
    np.testing.assert_allclose(targets.standardized.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(targets.standardized.std(axis=0), 1)


def test_a_target_costs_its_mean_over_draws():
    values, counts = torch.ones(5, 1).double(), torch.ones(5, 1).double()
    values[:2] = 0
    head, code, _ = started(Labels(), values, counts)
    draws = torch.stack([code.z, code.z + 1, code.z - 1])
    each = [costs(head, Code(z, z, z), values, counts) for z in draws]
    together = costs(head, Code(draws, code.mean, code.h), values, counts)
    torch.testing.assert_close(together, torch.stack(each).mean(0))


def test_a_missing_target_costs_nothing_and_moves_nothing():
    values, counts = torch.zeros(4, 1).double(), torch.ones(4, 1).double()
    values[1] = 1
    head, code, _ = started(Labels(), values, counts)
    counts[2:] = 0
    z = code.z.clone().requires_grad_()
    nats = costs(head, Code(z, z, z), values, counts)
    (slope,) = torch.autograd.grad(nats.sum(), z)
    assert (nats[2:] == 0).all()
    assert (nats[:2] > 0).all()
    assert (slope[2:] == 0).all()
    assert slope[:2].any(dim=1).all()


@pytest.mark.parametrize("n_found", [1, 2, 3])
def test_classes_without_examples_are_never_the_likeliest(n_found):
    """They may all be among held-out rows, or weigh nothing."""
    y = Y3 % n_found
    coef, intercept = Classes().solve(Z, np.eye(4)[y], np.ones((N, 1)))
    out = Z @ coef + intercept
    assert out.shape == (N, 4)
    assert (out.argmax(axis=1) < n_found).all()
    if n_found > 1:
        expected = LogisticRegression(C=10, tol=1e-9, max_iter=9999).fit(Z, y)
        np.testing.assert_array_equal(out.argmax(axis=1), expected.predict(Z))
    proba = classifier(class_weight=dict.fromkeys(range(n_found, 3), 0)).fit(X, Y3).predict_proba(X)
    assert proba.shape == (N, 3)
    assert (proba.argmax(axis=1) < n_found).all()


def test_a_class_among_held_out_rows_alone():
    y = np.where(np.arange(N) < N // 2, 0, 1)
    y[[N - 1, 7]] = 2, 3
    inner = skae.Autoencoder(**SMALL, early_stopping=True, validation_fraction=0.5)
    for seed in range(4):
        head = skae.AutoencoderClassifier(inner, random_state=seed).fit(X, y)
        assert head.predict_proba(X).shape == (N, 4)
        assert len(head.autoencoder_.validation_curve_) == head.autoencoder_.n_iter_


@pytest.mark.parametrize("n_known", [10, 90, N])
def test_rows_are_held_out_however_many_have_labels(n_known):
    y = np.where(np.arange(N) < n_known, Y3, -1)
    for estimator in (
        skae.AutoencoderClassifier(skae.Autoencoder(**SMALL, early_stopping=True)),
        skae.SemiSupervisedVariationalAutoencoder(**SMALL, early_stopping=True),
    ):
        fitted = estimator.fit(X, y)
        assert len(getattr(fitted, "autoencoder_", fitted).validation_curve_) == 20


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_objective_is_the_sum_of_both(pretrained, share):
    network = pretrained.module_
    x, weight = torch.from_numpy(X), torch.ones(N, dtype=torch.float64)
    values, counts = torch.from_numpy(LABELS.astype(float)), torch.ones(N, 3, dtype=torch.float64)
    head, batch = Head(Labels(), 2.0, share), Batch(x, weight)
    batch_with_targets = batch._replace(targets=values, target_weight=counts)
    with torch.no_grad():
        own = network.losses(None, batch)
        code = network.encode(batch)
        head.start(code.mean, batch_with_targets)
        try:
            network.auxiliary = head
            both = network.losses(None, batch_with_targets)
        finally:
            network.auxiliary = None
        torch.testing.assert_close(both, share * own + costs(head, code, values, counts))


def test_labels_that_codes_do_not_tell_train_them():
    """Of a product's sign, linear maps of codes know nothing until these are trained for it."""
    y = Z.prod(axis=1) > 0
    parameters = SMALL | {"max_epochs": 150, "learning_rate": 0.005}
    first = skae.Autoencoder(**parameters, random_state=0).fit(X)
    scores = [
        skae.AutoencoderClassifier(FrozenEstimator(first), fine_tune=tuned, random_state=0)
        .fit(X, y)
        .score(X, y)
        for tuned in (False, True)
    ]
    assert scores[0] < 0.7
    assert scores[1] > 0.85


# ------------------------------------------------------------------------- rows shown, held out


def test_a_checkpoint_tells_weights_of_labels_apart(tmp_path, monkeypatch):
    """Each fit has a file of its own, so that none goes on from another's."""
    prints = set()
    fingerprint = Net.fingerprint

    def note(net):
        prints.add(fingerprint(net))
        return fingerprint(net)

    monkeypatch.setattr(Net, "fingerprint", note)
    inner = skae.Autoencoder(**SMALL | {"max_epochs": 1}, callbacks=[skae.Checkpoint(tmp_path)])
    head = skae.AutoencoderClassifier(inner, random_state=0)
    for y in (Y3, hidden(Y3)):
        head.fit(X, y)
    head.set_params(label_weight=3.0).fit(X, Y3)
    head.set_params(reconstruction_weight=0.5).fit(X, Y3)
    assert len(prints) == 4


def test_seldom_rows_are_a_share_of_each_batch():
    needed = np.zeros(10_000, dtype=bool)
    needed[:100] = True
    times = n_repeats(needed, 128)
    assert (times[~needed] == 1).all()
    assert times[needed].sum() / times.sum() == pytest.approx(RARE_SHARE, abs=0.01)
    assert (n_repeats(needed, 10_000) == 1).all()
    assert (n_repeats(np.zeros(10_000, dtype=bool), 128) == 1).all()
    assert (n_repeats(np.ones(10_000, dtype=bool), 128) == 1).all()


class Toll(AuxiliaryLoss):
    """Charges each row its target."""

    def forward(self, losses, code, batch):
        return losses + batch.targets.sum(-1)


def test_rows_shown_often_count_no_more(monkeypatch):
    """The objective of the training rows is the same, however often an epoch shows them."""
    seldom = np.arange(N) % 20 == 0
    evaluate, seen = Net.evaluate, []

    def note(net, rows):
        seen.append((len(rows), evaluate(net, rows)))
        return seen[-1][1]

    monkeypatch.setattr(Net, "evaluate", note)
    for share in (0.0, 0.5):
        monkeypatch.setattr(split, "RARE_SHARE", share)
        values, observed = np.arange(N)[:, None] * 1.0, seldom[:, None] * 1.0
        start = skae.Autoencoder(**SMALL | {"max_epochs": 0, "batch_size": 16}, random_state=0)
        read = read_rows(start, X, None, 2)
        start._fit_rows(read, Targets(values, observed, Toll()), np.ones(N), resume=False)
    (once, plain), *_, (often, repeated) = seen
    assert often > once
    assert repeated == pytest.approx(plain)


def test_seldom_labels_are_never_held_out():
    """With all labelled rows in training, the map is the one that any split gives."""
    y = np.full(N, -1)
    y[:10] = Y3[:10]
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        start = Head.start
        patch.setattr(
            Head,
            "start",
            lambda head, codes, batch: (
                seen.append((batch.targets, batch.target_weight)) or start(head, codes, batch)
            ),
        )
        for fraction in (0.1, 0.8):
            small = skae.Autoencoder(**SMALL, early_stopping=True, validation_fraction=fraction)
            skae.AutoencoderClassifier(small, propagate=False, random_state=0).fit(X, y)
            # A fit that keeps the initial network initializes it again, from all rows.
            del seen[1 + (fraction > 0.5) :]
    rows, fewer = ([len(table) for table in tables] for tables in seen)
    assert fewer[0] < rows[0]
    for _, counts in seen:
        assert (counts > 0).sum() == 10


# ------------------------------------------------------------------------------- the last map


def standard(codes):
    return (codes - codes.mean(axis=0)) / np.sqrt(codes.var(axis=0).mean())


@pytest.mark.parametrize("y", [Y3, LABELS[:, 0]], ids=["three classes", "two classes"])
def test_a_classifier_is_a_logistic_regression_on_codes(y):
    fitted = classifier().fit(X, y)
    codes = standard(fitted.transform(X))
    expected = LogisticRegression(C=10, tol=1e-9, max_iter=9999).fit(codes, y)
    np.testing.assert_allclose(fitted.predict_proba(X), expected.predict_proba(codes), atol=1e-5)
    np.testing.assert_allclose(
        fitted.decision_function(X), expected.decision_function(codes), atol=1e-4
    )
    np.testing.assert_array_equal(fitted.predict(X), expected.predict(codes))
    np.testing.assert_array_equal(fitted.predict_log_proba(X), np.log(fitted.predict_proba(X)))


def test_a_regressor_is_a_ridge_regression_on_codes():
    fitted = regressor().fit(X, TARGETS)
    codes = standard(fitted.transform(X))
    units = StandardScaler().fit(TARGETS)
    expected = Ridge().fit(codes, units.transform(TARGETS))
    np.testing.assert_allclose(
        fitted.predict(X), units.inverse_transform(expected.predict(codes)), rtol=1e-9
    )


def test_class_weights_are_weights_of_answers(pretrained):
    """With codes that no answer moves, they are sample weights."""
    frozen = {"autoencoder": FrozenEstimator(pretrained), "fine_tune": False}
    y = LABELS[:, 0]
    by_class = skae.AutoencoderClassifier(**frozen, class_weight={0: 5, 1: 1}).fit(X, y)
    balanced = skae.AutoencoderClassifier(**frozen, class_weight="balanced").fit(X, y)
    per_label = skae.AutoencoderClassifier(**frozen, class_weight=[{0: 5, 1: 1}, {}, {}])
    plain = skae.AutoencoderClassifier(**frozen).fit(X, y)
    codes = pretrained.transform(X)
    center = codes.mean(axis=0)
    scale = np.sqrt(codes.var(axis=0).mean())
    model = LogisticRegression(C=10, class_weight={0: 5, 1: 1}, tol=1e-9, max_iter=9999)
    expected = model.fit((codes - center) / scale, y).predict_proba((codes - center) / scale)
    np.testing.assert_allclose(by_class.predict_proba(X), expected, atol=1e-5)
    np.testing.assert_allclose(
        per_label.fit(X, LABELS).predict_proba(X)[:, 0], expected[:, 1], atol=1e-5
    )
    assert not np.allclose(balanced.predict_proba(X), plain.predict_proba(X), atol=1e-6)
    with pytest.raises(ValueError, match="class_weight has 3 entries, but y has 2 columns"):
        per_label.fit(X, LABELS[:, :2])
    with pytest.raises(ValueError, match="class_weight must not be a list"):
        per_label.fit(X, y)
    for wrong in ({0: -1}, {1: np.nan}):
        with pytest.raises(ValueError, match="class_weight must not be negative or NaN"):
            clone(plain).set_params(class_weight=wrong).fit(X, y)


# ---------------------------------------------------------------------- pre-trained autoencoders


@pytest.mark.parametrize("fine_tune", [True, False])
def test_a_frozen_autoencoder_stays_as_it_is(pretrained, fine_tune):
    before = [w.copy() for w in weights(pretrained)]
    codes = pretrained.transform(X)
    head = skae.AutoencoderClassifier(
        FrozenEstimator(pretrained), fine_tune=fine_tune, random_state=0
    ).fit(X, Y3)
    assert_equal(weights(pretrained), before)
    np.testing.assert_array_equal(pretrained.transform(X), codes)
    assert np.array_equal(head.transform(X), codes) is not fine_tune
    assert pretrained.get_params()["random_state"] == 3


def test_labels_that_do_not_train_the_encoder_leave_it_as_without_them():
    head = skae.AutoencoderClassifier(skae.Autoencoder(**SMALL), fine_tune=False, random_state=0)
    seed = head.fit(X, Y3).autoencoder_.random_state
    alone = skae.Autoencoder(**SMALL, random_state=seed).fit(head.preprocess(X))
    assert_equal(weights(head.autoencoder_), weights(alone))


def test_the_trained_autoencoder_is_an_autoencoder():
    fitted = classifier().fit(X, Y3).autoencoder_
    assert isinstance(fitted, skae.Autoencoder)
    assert fitted.module_.auxiliary is None
    assert fitted.reconstruct(X).shape == X.shape
    assert np.isfinite(fitted.score_samples(X)).all()
    assert set(fitted.module_.state_dict()) == set(
        skae.Autoencoder(**SMALL).fit(X).module_.state_dict()
    )


@pytest.mark.parametrize(
    "inner", [c for c in public_estimators() if issubclass(c, BaseAutoencoder)]
)
@pytest.mark.filterwarnings("ignore:(Posterior collapse|Only .* of n_codes)")
def test_any_autoencoder_serves(inner):
    autoencoder = inner(n_components=4, hidden_layer_sizes=(16,), max_epochs=20)
    head = skae.AutoencoderClassifier(autoencoder, random_state=0)
    if issubclass(inner, skae.SemiSupervisedVariationalAutoencoder):
        with pytest.raises(TypeError, match="autoencoder must not require y"):
            head.fit(X, Y3)
        return
    assert head.fit(X, hidden(LABELS[:, 0] + 5)).score(X, LABELS[:, 0] + 5) > 0.8
    assert isinstance(head.autoencoder_, inner)


def test_an_unfitted_frozen_autoencoder_is_refused():
    with pytest.raises(NotFittedError):
        skae.AutoencoderClassifier(FrozenEstimator(skae.Autoencoder())).fit(X, Y3)


def test_a_bernoulli_autoencoder_serves():
    bits = (X > 0).astype(float)
    inner = skae.Autoencoder(**SMALL, likelihood="bernoulli")
    assert skae.AutoencoderClassifier(inner, random_state=0).fit(bits, Y3).score(bits, Y3) > 0.6
    with pytest.raises(ValueError, match="likelihood='bernoulli' supports values"):
        skae.AutoencoderClassifier(inner).fit(X, Y3)


# -------------------------------------------------------------------------------- what y says

NAMES = np.array(["low", "mid", "top"], dtype=object)


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        pytest.param(hidden(Y3), [0, 1, 2], id="integers"),
        pytest.param(hidden(Y3).astype(float), [0.0, 1.0, 2.0], id="whole floats"),
        pytest.param(hidden(Y3).tolist(), [0, 1, 2], id="list"),
        pytest.param(pd.Series(hidden(Y3), index=range(50, 50 + N)), [0, 1, 2], id="series"),
        pytest.param(NAMES[Y3], ["low", "mid", "top"], id="strings"),
        pytest.param(NAMES[Y3].astype(str), ["low", "mid", "top"], id="fixed-width strings"),
        pytest.param(pd.Categorical(NAMES[Y3]), ["low", "mid", "top"], id="categorical"),
        pytest.param(
            np.where(hidden(Y3) == -1, -1, NAMES[Y3]), ["low", "mid", "top"], id="strings and -1"
        ),
        pytest.param(np.where(Y3 > 0, 1, -1), [-1, 1], id="-1 and 1 are two classes"),
        pytest.param(Y3 > 0, [False, True], id="booleans"),
        pytest.param(hidden(Y3).astype(np.int8), [0, 1, 2], id="int8"),
        pytest.param((Y3 + 250).astype(np.uint8), [250, 251, 252], id="uint8"),
    ],
)
def test_classes(y, classes):
    fitted = classifier().fit(X, y)
    assert fitted.classes_.tolist() == classes
    assert set(fitted.predict(X).tolist()) <= set(classes)
    assert fitted.predict_proba(X).shape == (N, len(classes))
    np.testing.assert_allclose(fitted.predict_proba(X).sum(axis=1), 1)
    assert not hasattr(fitted, "label_names_")
    known = np.asarray([c in classes for c in np.asarray(y, dtype=object)])
    assert fitted.score(X[known], np.asarray(y)[known]) > 0.6


def test_a_column_of_classes_is_read_as_a_vector():
    with pytest.warns(DataConversionWarning, match="column-vector"):
        fitted = classifier().fit(X, Y3[:, None])
    np.testing.assert_array_equal(fitted.predict(X), classifier().fit(X, Y3).predict(X))


@pytest.mark.parametrize(
    ("y", "match"),
    [
        pytest.param(np.full(N, -1), "2 classes, but no row has a label", id="all -1"),
        pytest.param(np.full(N, 3), "2 classes, got only 3", id="one class"),
        pytest.param(X[:, 0], "Unknown label type.*continuous", id="numbers"),
        pytest.param(np.where(Y3 > 0, np.nan, Y3), "y contains NaN.*marked by -1", id="NaN"),
        *(
            pytest.param(y, match, id=f"missing {kind}")
            for kind, y, match in (
                ("None", np.where(Y3 > 0, "top", None), r"y contains None.*marked by -1.*fillna"),
                ("text", np.where(Y3 > 0, Y3.astype(object), np.nan), "y contains NaN.*by -1"),
                *(
                    (dtype, pd.Series(np.where(Y3 > 0, Y3 > 1, None), dtype=dtype), "NaN.*by -1")
                    for dtype in ("boolean", "category", "Int64")
                ),
            )
        ),
        pytest.param(Y3[:-1], "inconsistent numbers of samples", id="too short"),
        pytest.param(np.zeros((N, 2, 2)), "dim 3", id="3-D"),
        pytest.param(None, "requires y to be passed", id="None"),
        pytest.param(
            np.c_[Y3, Y3], "Unknown label type.*got 2 in column 0", id="columns of classes"
        ),
        pytest.param(np.zeros((N, 2)), "at least 2 classes.*no column", id="labels of one kind"),
        pytest.param(np.full((N, 2), np.nan), "at least 2 classes", id="no label known"),
        pytest.param(
            np.where(Y3 > 0, "top", Y3.astype(object)), "Mix of label input types", id="mixed"
        ),
    ],
)
@pytest.mark.parametrize("fine_tune", [True, False])
def test_targets_refused(y, match, fine_tune):
    with pytest.raises(ValueError, match=match):
        classifier(fine_tune=fine_tune).fit(X, y)


def test_scores_of_labels_that_were_never_seen():
    """As of scikit-learn's classifiers: a row whose label is new is predicted wrong."""
    fitted, other = classifier().fit(X, Y3), LogisticRegression().fit(X, Y3)
    y = np.where(np.arange(N) < 30, 9, Y3)
    assert fitted.score(X, y) == (fitted.predict(X)[30:] == Y3[30:]).sum() / N
    for wrong in (y[:-1], TARGETS[:, 0]):
        with pytest.raises(ValueError, match=r"inconsistent|continuous") as expected:
            other.score(X, wrong)
        with pytest.raises(ValueError, match=r"inconsistent|continuous") as got:
            fitted.score(X, wrong)
        assert str(got.value) == str(expected.value)


@pytest.mark.parametrize(
    "y",
    [LABELS, LABELS.astype(bool), LABELS.tolist(), sp.csr_array(LABELS), pd.DataFrame(LABELS)],
    ids=["integers", "booleans", "lists", "sparse", "frame"],
)
def test_labels(many, y):
    np.testing.assert_array_equal(classifier().fit(X, y).predict_proba(X), many.predict_proba(X))


def test_answers_for_labels(many):
    proba, predicted = many.predict_proba(X), many.predict(X)
    assert proba.shape == predicted.shape == many.decision_function(X).shape == (N, 3)
    np.testing.assert_array_equal(predicted, proba > 0.5)
    np.testing.assert_array_equal(many.classes_, [0, 1, 2])
    assert (predicted == LABELS).mean() > 0.85


def test_cells_that_are_not_known(many):
    """What is not known is not read; rows with one known label train that one."""
    y = LABELS.astype(float)
    y[:60, 0] = np.nan
    y[100:] = np.nan
    fitted = classifier().fit(X, y)
    assert (fitted.predict(X) == LABELS).mean() > 0.8
    codes = standard_of(fitted, X[~np.isnan(y).all(axis=1)])
    known = ~np.isnan(y[:100, 0])
    expected = LogisticRegression(C=10, tol=1e-9, max_iter=9999).fit(
        codes[known], LABELS[:100, 0][known]
    )
    np.testing.assert_allclose(
        fitted.predict_proba(X[:100])[:, 0], expected.predict_proba(codes)[:, 1], atol=1e-5
    )


def standard_of(fitted, rows):
    return standard(fitted.transform(rows))


def test_a_label_without_examples_is_answered_by_how_often_it_occurs():
    y = LABELS.copy()
    y[:, 1] = 0
    proba = classifier().fit(X, y).predict_proba(X)[:, 1]
    np.testing.assert_allclose(proba, 0.5 / (N + 1))


def test_targets_of_a_regressor():
    both = regressor().fit(X, TARGETS)
    assert both.predict(X).shape == (N, 2)
    assert both.score(X, TARGETS) > 0.8
    one = regressor().fit(X, TARGETS[:, 1])
    assert one.predict(X).shape == (N,)
    column = regressor().fit(X, TARGETS[:, 1:])
    assert column.predict(X).shape == (N, 1)
    np.testing.assert_array_equal(column.predict(X)[:, 0], one.predict(X))


def test_targets_that_are_not_known():
    y = TARGETS.copy()
    y[20:, 0] = np.nan
    y[:40, 1] = np.nan
    fitted = regressor().fit(X, y)
    assert fitted.score(X, TARGETS) > 0.6
    for wrong, match in ((np.full(N, np.nan), "column 0 of y is NaN"), (TARGETS * 1e200, "scale")):
        with pytest.raises(ValueError, match=match):
            regressor().fit(X, wrong)


def test_a_target_known_in_one_row_that_may_be_held_out():
    y = TARGETS.copy()
    y[1:, 0] = np.nan
    inner = skae.Autoencoder(**SMALL, early_stopping=True, validation_fraction=0.5)
    for seed in range(4):
        predicted = skae.AutoencoderRegressor(inner, random_state=seed).fit(X, y).predict(X)
        np.testing.assert_allclose(predicted[:, 0], y[0, 0])


def test_labels_in_other_units_give_the_same_predictions():
    plain, moved = regressor().fit(X, Z[:, 0]), regressor().fit(X, 1e6 + 1e3 * Z[:, 0])
    np.testing.assert_allclose(moved.predict(X), 1e6 + 1e3 * plain.predict(X), rtol=1e-8)


# ------------------------------------------------------------------------------- labels added


def test_an_added_label_changes_no_other():
    frame = pd.DataFrame(LABELS[:, :2], columns=["left", "up"])
    fitted = classifier().fit(X, frame)
    before, codes = fitted.predict_proba(X), fitted.transform(X)
    assert fitted.add_label(X[:50], LABELS[:50, 2], name="sum") is fitted
    np.testing.assert_array_equal(fitted.predict_proba(X)[:, :2], before)
    np.testing.assert_array_equal(fitted.transform(X), codes)
    assert fitted.label_names_ == ["left", "up", "sum"]
    np.testing.assert_array_equal(fitted.classes_, [0, 1, 2])
    fitted.add_label(X, LABELS[:, 0])
    np.testing.assert_array_equal(fitted.predict_proba(X)[:, :2], before)
    assert fitted.label_names_[3] == "y3"
    again = classifier().fit(X, frame.set_axis(["a", "y2"], axis=1)).add_label(X, LABELS[:, 2])
    assert again.label_names_ == ["a", "y2", "y3"]
    assert fitted.predict(X).shape == (N, 4)


@pytest.mark.parametrize("n", [1, 2, 7, 117])
def test_an_added_label_changes_no_bit_of_any_table(n):
    """Vectorised functions treat what is left over after the last full vector another way."""
    rng = np.random.default_rng(n)
    for m in (2, 3, 5):
        y = (Z @ rng.normal(size=(2, m)) > 0).astype(int)
        fitted = classifier(fine_tune=False).fit(X, y)
        before = fitted.predict_proba(X[:n])
        fitted.add_label(X, LABELS[:, 0])
        np.testing.assert_array_equal(fitted.predict_proba(X[:n])[:, :m], before)


def test_an_added_label_is_solved_to_convergence(many):
    fitted = classifier().fit(X, LABELS[:, :2]).add_label(X, LABELS[:, 2])
    codes = standard(fitted.transform(X))
    expected = LogisticRegression(C=10, tol=1e-10, max_iter=9999).fit(codes, LABELS[:, 2])
    np.testing.assert_allclose(
        fitted.predict_proba(X)[:, 2], expected.predict_proba(codes)[:, 1], atol=1e-5
    )
    assert (fitted.predict(X)[:, 2] == LABELS[:, 2]).mean() > 0.85


def test_cells_of_an_added_label_that_are_not_known():
    y = LABELS[:, 2].astype(float)
    y[60:] = np.nan
    expected = classifier().fit(X, LABELS[:, :2]).add_label(X[:60], LABELS[:60, 2])
    for unknown in (np.nan, -1):
        got = classifier().fit(X, LABELS[:, :2])
        got.add_label(X, np.where(np.isnan(y), unknown, y))
        np.testing.assert_allclose(got.predict_proba(X), expected.predict_proba(X), rtol=1e-9)
    weighted = classifier().fit(X, LABELS[:, :2])
    weighted.add_label(X, LABELS[:, 2], sample_weight=(np.arange(N) < 60).astype(float))
    np.testing.assert_array_equal(weighted.predict_proba(X), expected.predict_proba(X))


def test_a_target_can_be_added():
    fitted = regressor().fit(X, TARGETS[:, 0])
    before = fitted.predict(X)
    fitted.add_label(X, TARGETS[:, 1], name="second")
    np.testing.assert_array_equal(fitted.predict(X)[:, 0], before)
    assert fitted.label_names_ == ["y0", "second"]
    assert np.corrcoef(fitted.predict(X)[:, 1], TARGETS[:, 1])[0, 1] > 0.7


def test_a_target_of_several_columns_cannot_be_added():
    fitted = regressor().fit(X, TARGETS[:, 0])
    before = fitted.predict(X)
    with pytest.raises(ValueError, match=r"1d array, got an array of shape \(120, 2\)"):
        fitted.add_label(X, TARGETS)
    np.testing.assert_array_equal(fitted.predict(X), before)
    assert fitted.label_names_ == ["y0"]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        pytest.param(
            (X, LABELS[:, 0], "y1"), "name must be a string that is not in .*got 'y1'", id="name"
        ),
        pytest.param((X, np.zeros(N)), "at least 2 classes", id="one kind"),
        pytest.param((X, Y3), "got 2 in column 0", id="three classes"),
        pytest.param((X, LABELS[:-1, 0]), "inconsistent numbers", id="length"),
        pytest.param((X[:, :2], LABELS[:, 0]), "2 features", id="columns"),
        pytest.param((X, None), "requires y", id="no y"),
        pytest.param((X, ["a"] * N), "to float: .*'a'", id="strings"),
    ],
)
def test_labels_that_cannot_be_added(many, arguments, match):
    before = many.predict_proba(X)
    with pytest.raises(ValueError, match=match):
        many.add_label(*arguments)
    np.testing.assert_array_equal(many.predict_proba(X), before)
    assert many.label_names_ == ["y0", "y1", "y2"]


def test_labels_are_not_added_to_one_class():
    with pytest.raises(ValueError, match="add_label requires a multilabel classifier"):
        classifier().fit(X, Y3).add_label(X, LABELS[:, 0])
    with pytest.raises(NotFittedError):
        classifier().add_label(X, LABELS[:, 0])


def test_added_labels_are_saved(tmp_path):
    fitted = classifier().fit(X, LABELS[:, :2]).add_label(X, LABELS[:, 2], name="sum")
    fitted.save(tmp_path / "model.safetensors")
    again = skae.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
    again.add_label(X, LABELS[:, 0], name="once more")
    np.testing.assert_array_equal(again.predict_proba(X)[:, :3], fitted.predict_proba(X))


# ------------------------------------------------------------- units, and repeated rows


@pytest.mark.parametrize("factor", [1e-6, 1e6, np.array([1, 2, 4, 8, 16]) / 64])
@pytest.mark.parametrize(
    "task", [skae.AutoencoderClassifier, skae.AutoencoderRegressor], ids=lambda c: c.__name__
)
def test_the_default_autoencoder_does_not_depend_on_units(task, factor):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(300, 2)) @ rng.normal(size=(2, 5)) + 0.1 * rng.normal(size=(300, 5))
    y = (rows[:, 0] > 0).astype(int)
    plain, changed = (task(random_state=0).fit(table, y) for table in (rows, rows * factor))
    assert changed.autoencoder_.get_params() == plain.autoencoder_.get_params()
    if np.ndim(factor) == 0:
        assert changed.score(rows * factor, y) == pytest.approx(plain.score(rows, y), abs=0.01)


@pytest.mark.parametrize("fine_tune", [True, False])
@pytest.mark.parametrize("n", [150, 300])
@pytest.mark.parametrize(
    "task", [skae.AutoencoderClassifier, skae.AutoencoderRegressor], ids=lambda c: c.__name__
)
def test_repeating_is_weighting(task, n, fine_tune):
    """With the default autoencoder, which 150 rows, but not 300, fit by full batches."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(n, 2)) @ rng.normal(size=(2, 5)) + 0.1 * rng.normal(size=(n, 5))
    y, count = (rows[:, 0] > 0).astype(int), 1 + np.arange(n) % 3
    weighted = task(fine_tune=fine_tune, random_state=0).fit(rows, y, sample_weight=count)
    repeated = task(fine_tune=fine_tune, random_state=0)
    repeated.fit(np.repeat(rows, count, axis=0), np.repeat(y, count))
    for name in ("max_epochs", "batch_size", "precision"):
        assert weighted.autoencoder_.get_params()[name] == repeated.autoencoder_.get_params()[name]
    np.testing.assert_allclose(
        repeated.transform(rows), weighted.transform(rows), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_array_equal(repeated.predict(rows).round(4), weighted.predict(rows).round(4))


# ------------------------------------------------------------------------- inside scikit-learn


def test_inside_pipelines_and_searches():
    pipeline = make_pipeline(StandardScaler(), classifier())
    grid = {
        "autoencoderclassifier__label_weight": [1.0, 10.0],
        "autoencoderclassifier__autoencoder__n_components": [1, 3],
    }
    search = GridSearchCV(pipeline, grid, cv=2, n_jobs=2).fit(X, Y3)
    assert search.best_score_ > 0.6
    assert cross_val_score(regressor(), X, TARGETS[:, 0], cv=2).mean() > 0.6


def test_codes_in_frames():
    frame = pd.DataFrame(X, columns=list("abcdef"), index=range(7, 7 + N))
    codes = classifier().set_output(transform="pandas").fit(frame, Y3).transform(frame)
    assert codes.columns.tolist() == [f"autoencoderclassifier{i}" for i in range(3)]
    assert codes.index.equals(frame.index)


def test_codes_feed_the_next_step():
    """As a step before another classifier, codes know labels."""
    both = make_pipeline(classifier(label_weight=100.0), LogisticRegression()).fit(X, Y3)
    assert both.score(X, Y3) > 0.8
