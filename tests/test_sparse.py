"""What `SparseAutoencoder` promises: which components are active, and what that costs."""

import numpy as np
import pytest
import torch

from skae import SparseAutoencoder
from skae.variants.sparse import TopK

KINDS = ("l1", "kl", "topk")


def sparse(**parameters):
    """A fast autoencoder with 128 components."""
    defaults = {
        "n_components": 128,
        "hidden_layer_sizes": (64,),
        "max_epochs": 8,
        "random_state": 0,
    }
    return SparseAutoencoder(**(defaults | parameters))


def numbers(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.slow
def test_l1_makes_fewer_components_active(digits):
    """The larger the price, the fewer: from most to hardly any."""
    shares = []
    for weight in (0, 0.1, 1.5):
        codes = sparse(sparsity_weight=weight).fit_transform(digits)
        if weight == 0:
            visible = 1e-3 * codes.std(axis=0)
        shares.append((abs(codes) > visible).mean())
    assert (np.diff(shares) < 0).all()
    assert shares[0] > 0.5
    assert 0 < shares[-1] < 0.05


@pytest.mark.parametrize("n_active", [1, 5, 16])
def test_topk_has_exactly_so_many_active(digits, n_active):
    """Also where all components are to be active."""
    model = sparse(n_components=16, sparsity="topk", n_active=n_active, max_epochs=2)
    codes = model.fit(digits[:500]).transform(digits)
    assert set((codes != 0).sum(axis=1)) == {n_active}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n_active", [1, 3, 7])
def test_topk_keeps_the_largest_less_the_largest_dropped(n_active, dtype):
    h = numbers(200, 7).to(dtype)
    z = TopK(7, n_active)(h, None).z
    order = h.argsort(-1, descending=True)
    kept = z.gather(-1, order)
    assert (kept[:, :n_active] > 0).all()
    assert (kept[:, n_active:] == 0).all()
    ranked = h.gather(-1, order)
    dropped = ranked[:, n_active] if n_active < 7 else ranked[:, -1] - 1
    torch.testing.assert_close(kept[:, :n_active], ranked[:, :n_active] - dropped[:, None])


def test_topk_codes_change_without_jumps():
    """Where two components change places, both are zero."""
    start, end = numbers(50, 1, 9), numbers(50, 1, 9, seed=1)
    path = start + torch.linspace(0, 1, 2001, dtype=torch.float64)[:, None] * (end - start)
    steps = TopK(9, 3)(path, None).z.diff(dim=1).abs().amax(-1)
    assert (steps <= 2 * path.diff(dim=1).abs().amax(-1) + 1e-12).all()


@pytest.mark.parametrize("kind", KINDS)
def test_codes_are_in_their_range(digits, kind):
    codes = sparse(n_components=20, sparsity=kind, max_epochs=2).fit(digits[:500]).transform(digits)
    assert codes.min() >= 0
    if kind == "kl":
        assert codes.min() > 0
        assert codes.max() < 1
    else:
        assert (codes == 0).any()
        assert codes.max() > 0


@pytest.mark.slow
def test_kl_brings_mean_activations_to_the_target(digits):
    off, on = (
        sparse(n_components=20, sparsity="kl", sparsity_weight=w, target_rate=0.1, max_epochs=15)
        .fit_transform(digits)
        .mean(axis=0)
        for w in (0, 10)
    )
    assert abs(on - 0.1).max() < 0.03
    assert abs(off - 0.1).max() > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_no_linear_map_feeds_the_code(curved, kind):
    """Even where one is asked for: the parameter only speaks of maps that there may be."""
    model = sparse(n_components=12, sparsity=kind, linear_skip=True, max_epochs=1).fit(curved)
    assert model.module_.encoder.skip is None
    assert model.module_.decoder.skip is None


def test_auto_is_twice_the_columns(curved):
    assert SparseAutoencoder(max_epochs=0).fit(curved).n_components_ == 12
    wide = np.random.default_rng(0).normal(size=(10, 200))
    assert SparseAutoencoder(max_epochs=0).fit(wide).n_components_ == 256


def test_more_active_components_than_there_are(curved):
    with pytest.raises(ValueError, match="n_active must be at most n_components=6, got 7"):
        sparse(n_components=6, sparsity="topk", n_active=7).fit(curved)
    # Only "topk" reads it.
    sparse(n_components=6, sparsity="l1", n_active=7, max_epochs=0).fit(curved)
