"""What `DenoisingAutoencoder` promises, and what the named corruptions do to rows."""

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from sklearn.decomposition import PCA
from test_common import train

import skae
from skae import Autoencoder, DenoisingAutoencoder
from skae.inference import code_units
from skae.nn.corruption import CORRUPTIONS, FOR_IMAGES, ColumnStatistics, NamedCorruption
from skae.training.threads import one_thread

EVERY = [getattr(skae, name) for name in skae.__all__ if name.endswith("Autoencoder")]
FOR_TABLES = sorted(set(CORRUPTIONS) - FOR_IMAGES)
SHARES = sorted(set(FOR_TABLES) - {"gaussian"})


def standardized(network, x):
    return (x - network.inputs.center) / network.inputs.scale


def small(**parameters):
    defaults = {
        "n_components": 2,
        "hidden_layer_sizes": (16,),
        "max_epochs": 3,
        "random_state": 0,
    }
    return DenoisingAutoencoder(**(defaults | parameters))


@pytest.fixture
def rows():
    """4000 rows whose columns differ in place and spread; no cell is 0, no two are equal."""
    rng = np.random.default_rng(0)
    return torch.tensor(rng.gamma(4.0, size=(4000, 5)) * np.geomspace(0.1, 100, 5) + 1)


def corrupted(kind, level, rows, weight=None):
    """Rows as a named corruption leaves them."""
    weight = torch.ones(len(rows)) if weight is None else weight
    corruption = NamedCorruption(kind, level, ColumnStatistics(rows, weight, rows))
    return corruption(rows.clone(), torch.Generator().manual_seed(0))


def assert_share(chosen, share):
    """Of independent cells, up to four standard errors: of all and of each column."""
    error = 4 * np.sqrt(share * (1 - share) / len(chosen))
    assert (chosen.double().mean(0) - share).abs().max() <= error
    assert abs(float(chosen.double().mean()) - share) <= error / np.sqrt(chosen.shape[1])


# ----------------------------------------------------------------- corruptions


@pytest.mark.parametrize("kind", SHARES)
@pytest.mark.parametrize("level", [0.1, 0.5])
def test_a_share_of_the_cells_is_corrupted(rows, kind, level):
    changed = corrupted(kind, level, rows) != rows
    assert_share(changed, level)
    # Cells are corrupted each by itself, not row by row.
    counts = changed.sum(1).double()
    expected = 5 * level * (1 - level)
    assert float(counts.var()) == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("kind", SHARES)
def test_a_share_of_one_corrupts_every_cell(rows, kind):
    # The extremes themselves may be replaced by themselves.
    assert (corrupted(kind, 1.0, rows) != rows).double().mean() > 0.999


def test_masked_cells_are_0_or_as_near_to_it_as_their_column_comes(rows):
    standing = torch.stack([rows[:, 0] - rows[:, 0].mean(), rows[:, 1], -rows[:, 2]], 1)
    after = corrupted("masking", 0.3, standing)
    changed = after != standing
    assert changed.any(0).all()
    values = torch.stack([torch.tensor(0.0), rows[:, 1].min(), -rows[:, 2].min()])
    assert (after == values)[changed].all()


def test_salt_and_pepper_are_a_columns_extremes(rows):
    after = corrupted("salt_and_pepper", 0.4, rows)
    low, high = rows.amin(0).expand_as(rows), rows.amax(0).expand_as(rows)
    changed = after != rows
    assert ((after == low) | (after == high))[changed].all()
    assert_share(changed & (after == high), 0.2)
    assert_share(changed & (after == low), 0.2)


def test_swapped_cells_are_from_another_row_of_their_column(rows):
    after = corrupted("swap", 0.4, rows)
    changed = after != rows
    for column in range(rows.shape[1]):
        place = {float(v): i for i, v in enumerate(rows[:, column])}
        origin = torch.tensor([place[float(v)] for v in after[:, column]])
        here = torch.arange(len(rows))
        assert (origin[changed[:, column]] != here[changed[:, column]]).all()
        # All other rows of the batch are as likely.
        away = ((origin - here) % len(rows))[changed[:, column]].double() / len(rows)
        assert kstest(away.numpy(), "uniform").pvalue > 1e-4


def test_a_row_alone_is_swapped_with_itself():
    row = torch.tensor([[1.0, 2.0]])
    assert torch.equal(corrupted("swap", 1.0, row), row)


@pytest.mark.parametrize("level", [0.2, 3.0])
def test_gaussian_noise_is_in_columns_standard_deviations(rows, level):
    weight = torch.tensor(np.random.default_rng(1).random(len(rows)))
    mean = np.average(rows.numpy(), axis=0, weights=weight.numpy())
    variance = np.average((rows.numpy() - mean) ** 2, axis=0, weights=weight.numpy())
    added = (corrupted("gaussian", level, rows, weight) - rows).numpy()
    noise = added / (level * variance**0.5)
    for column in noise.T:
        assert kstest(column, "norm").pvalue > 1e-4
    assert abs(np.corrcoef(noise.T) - np.eye(5)).max() < 5 / np.sqrt(len(rows))


@pytest.mark.parametrize("kind", FOR_TABLES)
def test_a_generator_decides(rows, kind):
    a, b = (corrupted(kind, 0.3, rows) for _ in range(2))
    assert torch.equal(a, b)
    corruption = NamedCorruption(kind, 0.3, ColumnStatistics(rows, torch.ones(len(rows)), rows))
    assert not torch.equal(a, corruption(rows, torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("kind", SHARES)
def test_a_share_is_at_most_one(curved, kind):
    with pytest.raises(ValueError, match=r"^corruption_level must be at most 1.*got 1\.5\.$"):
        small(corruption=kind, corruption_level=1.5).fit(curved)


def test_gaussian_noise_may_exceed_the_data(curved):
    small(corruption="gaussian", corruption_level=1.5).fit(curved)


# ------------------------------------------------------------------- estimator


@pytest.mark.slow
def test_damage_is_repaired(digits):
    """On rows that neither fit has seen, a third of whose cells are lost."""
    train, test = digits[::2], digits[1::2]
    damaged = np.where(np.random.default_rng(0).random(test.shape) < 0.3, 0, test)
    parameters = {"n_components": 16, "max_epochs": 60, "random_state": 0}
    pca = PCA(16).fit(train)
    plain, linear, denoised = (
        ((restored - test) ** 2).sum(axis=1).mean()
        for restored in (
            Autoencoder(**parameters).fit(train).reconstruct(damaged),
            pca.inverse_transform(pca.transform(damaged)),
            DenoisingAutoencoder(**parameters).fit(train).reconstruct(damaged),
        )
    )
    assert denoised <= 0.5 * plain
    assert denoised <= 0.7 * linear


@pytest.mark.parametrize("kind", FOR_TABLES)
def test_nothing_is_corrupted_after_training(curved, kind):
    """Answers are those of the network alone, bit for bit, and the same at every call."""
    fitted = small(corruption=kind).fit(curved)
    network = fitted.module_
    offset, scale = code_units(fitted._fitted, network)

    @one_thread
    @torch.no_grad()
    def codes_and_rows():
        z = network.encoder(standardized(network, torch.tensor(curved)))
        codes = (z - offset) * scale
        return codes, network.likelihood.mean(network.decoder(codes / scale + offset))

    codes, rows = codes_and_rows()
    np.testing.assert_array_equal(fitted.transform(curved), codes)
    np.testing.assert_array_equal(fitted.reconstruct(curved), rows)
    np.testing.assert_array_equal(fitted.score_samples(curved), fitted.score_samples(curved))


@pytest.mark.parametrize("kind", [*FOR_TABLES, None])
def test_is_the_autoencoder_with_that_corruption(curved, kind):
    parameters = {
        "hidden_layer_sizes": (16,),
        "corruption": kind,
        "learning_rate": 0.003,
        "max_epochs": 3,
        "random_state": 0,
    }
    np.testing.assert_array_equal(
        DenoisingAutoencoder(2, **parameters).fit_transform(curved),
        Autoencoder(2, **parameters).fit_transform(curved),
    )


class Watched:
    """A corruption that counts its calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self, x, generator):
        self.calls += 1
        return x + 0.1 * torch.randn(x.shape, generator=generator, dtype=x.dtype)


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
def test_every_estimator_trains_on_corrupted_rows_and_only_trains_on_them(curved, kind):
    watched = Watched()
    parameters = {"hidden_layer_sizes": (8,), "max_epochs": 10, "early_stopping": False}
    fitted = [
        train(kind(4, corruption=corruption, **parameters, random_state=0), curved)
        for corruption in (watched, None)
    ]
    calls = watched.calls
    assert calls >= 10
    corrupting, clean = fitted
    assert corrupting.loss_curve_ != clean.loss_curve_
    for method in ("transform", "reconstruct", "score_samples", "reconstruction_error"):
        getattr(corrupting, method)(curved)
    corrupting.sample(3, random_state=0)
    assert watched.calls == calls


def test_pairs_replace_the_named_corruption(curved):
    pairs = curved + 0.3 * np.random.default_rng(0).normal(size=curved.shape)
    with_name, without = (
        small(corruption=kind).fit(curved, X_corrupted=pairs) for kind in ("masking", None)
    )
    np.testing.assert_array_equal(with_name.transform(curved), without.transform(curved))
    watched = Watched()
    small(corruption=watched).fit(curved, X_corrupted=pairs)
    assert watched.calls == 0
    by_name = small().fit(curved)
    assert not np.array_equal(with_name.transform(curved), by_name.transform(curved))


def test_pairs_of_equal_rows_are_no_corruption(curved):
    np.testing.assert_allclose(
        small().fit(curved, X_corrupted=curved).transform(curved),
        small(corruption=None).fit(curved).transform(curved),
        rtol=1e-6,
    )


# ---------------------------------------------------------------------- images


def corrupted_images(kind, images, level=0.5):
    """Images (n, channels, height, width) as a named corruption leaves them."""
    rows = images.flatten(1)
    table = ColumnStatistics(rows, torch.ones(len(rows)), rows, tuple(images.shape[1:]))
    generator = torch.Generator().manual_seed(0)
    return NamedCorruption(kind, level, table)(rows.clone(), generator).reshape(images.shape)


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (1, 9)], ids=str)
def test_downsampling_moves_nothing(size):
    """A flat image stays, a ramp stays one but for its ends, and pixels become means of four."""
    flat = torch.full((2, 3, *size), 0.25, dtype=torch.float64)
    torch.testing.assert_close(corrupted_images("downsampling", flat), flat)
    ramp = torch.arange(8.0, dtype=torch.float64).expand(1, 1, 8, 8)
    torch.testing.assert_close(corrupted_images("downsampling", ramp)[..., 1:-1], ramp[..., 1:-1])
    noise = torch.rand(5, 3, 8, 8, dtype=torch.float64)
    mean = noise.mean((2, 3))
    found = corrupted_images("downsampling", noise)
    torch.testing.assert_close(found.mean((2, 3)), mean, atol=0.05, rtol=0)
    assert found.var() < 0.5 * noise.var()


def test_grayscale_leaves_the_mean_of_the_channels():
    images = torch.rand(5, 3, 4, 6, dtype=torch.float64)
    found = corrupted_images("grayscale", images)
    torch.testing.assert_close(found, images.mean(1, keepdim=True).expand_as(images))


@pytest.mark.parametrize(("level", "side"), [(0.5, 3), (0.01, 1), (1.0, 6)])
def test_block_blanks_a_square_anywhere(level, side):
    images = torch.rand(400, 2, 6, 9, dtype=torch.float64) + 0.1
    images[:2] = torch.tensor([0.0, 2.0], dtype=torch.float64).reshape(2, 1, 1, 1)
    blank = corrupted_images("block", images, level) == 0
    blank = blank[2:]
    assert (blank[:, 0] == blank[:, 1]).all()
    rows, columns = blank[:, 0].any(2), blank[:, 0].any(1)
    assert (rows.sum(1) == side).all()
    assert (columns.sum(1) == side).all()
    assert (blank[:, 0] == rows[:, :, None] & columns[:, None, :]).all()
    # Everywhere a square may begin, some do.
    assert set(columns.double().argmax(1).tolist()) == set(range(9 - side + 1))


@pytest.mark.parametrize("kind", sorted(FOR_IMAGES))
def test_images_want_a_shape_and_are_repaired(kind):
    rng = np.random.default_rng(0)
    X = np.tanh(rng.normal(size=(300, 2)) @ rng.normal(size=(2, 48))) / 2 + 0.5
    with pytest.raises(ValueError, match="feature_shape"):
        small(corruption=kind).fit(X)
    damage = corrupted_images(kind, torch.from_numpy(X).reshape(-1, 3, 4, 4)).flatten(1).numpy()
    parameters = {"feature_shape": (3, 4, 4), "max_epochs": 60, "corruption_level": 0.5}
    model = small(corruption=kind, n_components=8, **parameters).fit(X)
    assert ((model.reconstruct(damage) - X) ** 2).sum() < 0.5 * ((damage - X) ** 2).sum()
    layerwise = small(corruption=kind, layerwise_epochs=1, **parameters).fit(X)
    assert np.isfinite(layerwise.loss_curve_).all()
