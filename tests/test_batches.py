"""Batches of training rows: their numbers of rows, and penalties that are computed per batch."""

import numpy as np
import pandas as pd
import pytest
import torch
from skorch.callbacks import Callback
from small_models import AUTOENCODERS, META_ESTIMATORS, for_each, tiny
from test_common import train

from skae import (
    Autoencoder,
    DenoisingAutoencoder,
    SparseAutoencoder,
    WassersteinAutoencoder,
)
from skae.nn.batch import Batch
from skae.nn.draws import Draws
from skae.training import batches
from skae.training.batches import Batches
from skae.training.budget import choose_batch_size

SIZES = [1, 2, 3, 5, 8, 64]


def table(n, d=3):
    """A table whose rows and weights differ."""
    x = torch.arange(n * d, dtype=torch.float64).reshape(n, d)
    return Batch(x, 1 + torch.arange(n, dtype=torch.float64))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# ------------------------------------------------------------------------------ numbers of rows


@pytest.mark.parametrize("size", SIZES)
def test_a_last_batch_is_at_least_half_a_batch(size):
    for n in range(1, 6 * size + 2):
        sizes = Batches.all_rows(table(n)).batch_sizes(size)
        assert sum(sizes) == n
        assert all(other == size for other in sizes[:-1])
        assert sizes[-1] <= 1.5 * size
        assert sizes[-1] > 0.5 * size or len(sizes) == 1
        assert 1 not in sizes or size == 1 or n == 1


@pytest.mark.parametrize("copied_cells", [1, 40, 2**17])
@pytest.mark.parametrize("size", SIZES)
def test_batches_have_each_row_once(size, copied_cells, monkeypatch):
    monkeypatch.setattr(batches, "COPIED_CELLS", copied_cells)
    for n in {1, size, size + 1, 2 * size - 1, 2 * size + 1, 5 * size + size // 2, 129}:
        whole = table(n + 4)
        chosen = torch.randperm(n + 4, generator=generator(1))[:n]
        rows = Batches(whole, chosen)
        found = list(rows.batches(size, generator()))
        assert [len(batch.x) for batch in found] == rows.batch_sizes(size)
        x, weight = (
            torch.cat(parts) for parts in zip(*((b.x, b.weight) for b in found), strict=True)
        )
        order = x[:, 0].argsort()
        kept = chosen.sort().values
        assert torch.equal(x[order], whole.x[kept])
        assert torch.equal(weight[order], whole.weight[kept])
        if len(found) > 1 and n > 8:
            assert not torch.equal(x, whole.x[chosen]), "the order is random"


@pytest.mark.parametrize("cells", [1, 24, 100, 10**6])
def test_chunks_have_all_rows_in_order(cells, monkeypatch):
    monkeypatch.setattr(batches, "EVALUATED_CELLS", cells)
    for n in (1, 2, 9, 17, 50):
        found = list(Batches.all_rows(table(n)).chunks())
        assert torch.equal(torch.cat([chunk.x for chunk in found]), table(n).x)
        assert all(len(chunk.x) > 1 for chunk in found) or cells == 1 or n == 1


@pytest.mark.parametrize("n", [1, 2, 100, 256, 257, 1000, 5000, 10**6])
def test_automatic_batches_leave_no_single_row(n):
    size = choose_batch_size("auto", n)
    assert 1 <= size <= min(n, 256)
    assert n == 1 or min(Batches.all_rows(table(n, 1)).batch_sizes(size)) > 1


def test_only_hidden_cells_of_predicted_columns_count():
    whole = table(200)._replace(observed=torch.rand(200, 3, generator=generator(2)) < 0.8)
    options = {"hidden_share": 0.3, "predicted": torch.tensor([True, False, True])}
    rows = Batches(whole, torch.arange(200), **options)
    found = rows._corrupt_batch(whole, generator())
    assert 0.2 < 1 - found.visible[whole.observed].float().mean() < 0.4
    for j, is_predicted in enumerate(options["predicted"]):
        counted = whole.observed[:, j]
        counted = counted & ~found.visible[:, j] if is_predicted else counted
        assert torch.equal(found.observed[:, j], counted)
    everything = Batches(whole, torch.arange(200), hidden_share=0.3)
    assert torch.equal(everything._corrupt_batch(whole, generator()).observed, whole.observed)


# -------------------------------------------------------------------------------- training steps


class Steps(Callback):
    """Records the batch of each training step, and the generator before it."""

    def __init__(self):
        self.batches, self.states, self.losses = [], [], []

    def __sklearn_clone__(self):
        # Estimators over an autoencoder train a clone of it.
        return self

    def on_batch_begin(self, net, batch=None, training=None, **kwargs):
        if training:
            self.batches.append(batch)
            self.states.append(net.generator.get_state())

    def on_batch_end(self, net, loss=None, training=None, **kwargs):
        if training:
            self.losses.append(float(loss))


SIZE = 8


def trained(estimator_class, n=2 * SIZE + 1, **parameters):
    """An estimator trained on distinct rows, and its steps."""
    rows = np.random.default_rng(0).normal(size=(n, 3))
    steps = Steps()
    parameters = {"batch_size": SIZE, "early_stopping": False} | parameters
    return train(tiny(estimator_class, callbacks=[steps], **parameters), rows), steps


@pytest.mark.parametrize("estimator_class", [Autoencoder, DenoisingAutoencoder])
def test_categories_of_denoising_autoencoders_only_count_where_they_are_hidden(estimator_class):
    rng, steps = np.random.default_rng(0), Steps()
    frame = pd.DataFrame({"x": rng.normal(size=60), "job": rng.choice(list("abc"), 60)})
    parameters = {"corruption": "masking", "early_stopping": False, "callbacks": [steps]}
    schema = tiny(estimator_class, **parameters).fit(frame)._fitted.schema
    number, category = (schema.modelled_levels.index(n) for n in (0, 3))
    assert steps.batches
    for batch in steps.batches:
        assert not batch.visible.all(dim=0).any()
        counted = torch.ones_like(batch.visible) if batch.observed is None else batch.observed
        assert counted[:, number].all()
        if estimator_class is Autoencoder:
            assert counted[:, category].all()
        else:
            assert torch.equal(counted[:, category], ~batch.visible[:, category])


@for_each(AUTOENCODERS)
def test_a_single_last_row_joins_the_batch_before(estimator_class):
    _, steps = trained(estimator_class)
    assert [len(batch.x) for batch in steps.batches] == 2 * [SIZE, SIZE + 1]
    assert np.isfinite(steps.losses).all()


@for_each(META_ESTIMATORS)
def test_no_step_is_of_one_row_whatever_is_held_out(estimator_class):
    """Each remainder of the number of training rows occurs, however many rows are held out."""
    sizes = set()
    for n in range(4 * SIZE, 5 * SIZE + 1):
        sizes |= {len(batch.x) for batch in trained(estimator_class, n)[1].batches}
    assert {SIZE, SIZE + 1} <= sizes
    assert 0.5 * SIZE < min(sizes) <= max(sizes) <= 1.5 * SIZE


@for_each(AUTOENCODERS)
def test_no_step_of_one_row_follows(estimator_class):
    """Neither where training is resumed, nor where rows are added."""
    model, steps = trained(estimator_class, warm_start=True)
    rows = np.random.default_rng(1).normal(size=(2 * SIZE + 1, 3))
    for method in ("fit", "partial_fit"):
        steps.batches.clear()
        train(model, rows, method)
        sizes = {len(batch.x) for batch in steps.batches}
        assert 0.5 * SIZE < min(sizes) <= max(sizes) <= 1.5 * SIZE


@pytest.mark.parametrize(
    ("estimator_class", "parameters"),
    [
        (SparseAutoencoder, {"sparsity": "kl", "sparsity_weight": 5.0}),
        (WassersteinAutoencoder, {"prior_weight": 100.0}),
    ],
    ids=["kl", "discrepancy"],
)
def test_penalties_are_those_of_joined_batches(estimator_class, parameters):
    """The weights do not move, so that the final network computes the loss of each step."""
    model, steps = trained(estimator_class, learning_rate=1e-300, **parameters)
    network = model.module_.train()

    def loss_of(batch, state):
        draws = Draws(generator(), network.like.dtype)
        draws.generator.set_state(state)
        with torch.no_grad():
            return float(network(draws, batch))

    assert steps.losses == pytest.approx(
        [loss_of(*step) for step in zip(steps.batches, steps.states, strict=True)], rel=1e-9
    )
    *_, joined = steps.batches
    apart = [loss_of(part, steps.states[-1]) for part in joined.split(SIZE)]
    mean = (SIZE * apart[0] + apart[1]) / (SIZE + 1)
    assert abs(steps.losses[-1] - mean) > 1e-3, "the penalty of a single row is another one"
