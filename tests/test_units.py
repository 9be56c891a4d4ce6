"""The density does not depend on the units of columns.

A raw table may have one column that is wider than the others by many orders of magnitude. The
density of the default model is that of PCA for any such table, and so are its noise and its draws.
Estimated numbers have no other limits than those of rounding.
"""

from itertools import product

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA, FactorAnalysis
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import roc_auc_score
from skorch.callbacks import Callback
from small_models import AUTOENCODERS, ESTIMATORS, X, case_of, fitted_once, for_each, tiny
from test_common import configured, core, train

import skae
from skae import Autoencoder, SparseAutoencoder, VariationalAutoencoder
from skae.density.importance import Importance
from skae.nn.likelihoods import make_likelihood
from skae.nn.likelihoods.blocks import Blocks
from skae.nn.likelihoods.gaussian import rounding_variance
from skae.nn.pca import LEAST_NOISE
from skae.nn.prior import invertible
from skae.table.rows import Rows, hash_rows
from skae.training.precision import FLOAT32_RATIO

NARROW = slice(4)
"""Columns of unit variance."""

DTYPES = (np.float32, np.float64)

WITHOUT_START_AT_PCA = {
    "SparseAutoencoder",  # codes that are sparse or positive
    "VectorQuantizedAutoencoder",  # codes of a codebook
    "SemiSupervisedVariationalAutoencoder",  # codes that depend on the class
}
"""Estimators whose initial solution is not that of PCA."""


def wide_table(width, dtype=np.float64, n=1200, seed=0):
    """Four independent normal columns of unit variance, and a uniform one of this width."""
    rng = np.random.default_rng(seed)
    return np.column_stack([rng.normal(size=(n, 4)), rng.uniform(0, width, n)]).astype(dtype)


def auroc(model, rows):
    """How well a model's density tells rows from rows that are moved by six deviations."""
    moved = rows.copy()
    moved[:, 1] += 6
    scores = np.r_[model.score_samples(rows), model.score_samples(moved)]
    return roc_auc_score(np.repeat([0, 1], len(rows)), -scores)


def narrow_noise(model):
    """Mean noise variance of the narrow columns."""
    return np.broadcast_to(model.noise_variance_, 5)[NARROW].mean()


def assert_is_density_of_narrow_columns(model, rows):
    assert 0.75 < narrow_noise(model) < 1.25
    assert 0.85 < np.asarray(model.sample(3000, random_state=0))[:, NARROW].std() < 1.15
    assert auroc(model, rows) > 0.99


# ----------------------------------------------------------------------------------- wide columns


def wide_cases():
    """Autoencoder meets all tables by default, the variational ones a cover of them."""
    for noise, estimator_class in (
        ("isotropic", Autoencoder),
        ("isotropic", VariationalAutoencoder),
        ("diagonal", VariationalAutoencoder),
    ):
        for i, (width, dtype) in enumerate(product((1e2, 1e3, 172_800, 1e7), DTYPES)):
            is_slow = estimator_class is not Autoencoder and i % 3 != 1
            label = f"{noise}-{width:g}-{dtype.__name__}"
            yield case_of(estimator_class, noise, width, dtype, label=label, slow=is_slow)


@pytest.mark.parametrize(("estimator_class", "noise", "width", "dtype"), [*wide_cases()])
def test_one_wide_column_leaves_the_density_of_the_others(estimator_class, noise, width, dtype):
    rows, fresh = wide_table(width, dtype), wide_table(width, dtype, n=300, seed=1)
    model = estimator_class(2, noise=noise, max_epochs=3, random_state=0).fit(rows)
    # These methods are not defined for such rows in float32.
    reference = PCA(2) if noise == "isotropic" else FactorAnalysis(2)
    expected = reference.fit(rows.astype(np.float64)).score(fresh.astype(np.float64))
    assert model.score(fresh) == pytest.approx(expected, abs=0.1)
    assert_is_density_of_narrow_columns(model, fresh)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("estimator_class", [Autoencoder, VariationalAutoencoder])
def test_a_column_wider_by_nine_orders_leaves_a_finite_density(estimator_class, dtype):
    """PCA's own score is far off or infinite there."""
    model = estimator_class(2, max_epochs=3, random_state=0).fit(wide_table(1e9, dtype))
    fresh = wide_table(1e9, dtype, n=200, seed=1)
    assert -30 <= model.score(fresh) < -25
    if dtype is np.float64:
        assert auroc(model, fresh) > 0.99


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_trained_sparse_model_sees_the_narrow_columns(dtype):
    """It does not start at PCA, so that the error of its training adds to the noise."""
    model = SparseAutoencoder(2, random_state=0).fit(wide_table(172_800, dtype))
    fresh = wide_table(172_800, dtype, n=300, seed=1)
    expected = PCA(2).fit(wide_table(172_800)).score_samples(fresh.astype(np.float64))
    # A few rows between training rows are decoded badly, and the mean is mostly theirs.
    assert np.median(model.score_samples(fresh) - expected) > -0.3
    assert 0.75 < narrow_noise(model) < 1.5
    assert auroc(model, fresh) > 0.98


@for_each([c for c in AUTOENCODERS if c.__name__ not in WITHOUT_START_AT_PCA])
def test_every_start_at_pca_is_a_density_of_narrow_columns(estimator_class):
    rows = wide_table(172_800, n=600)
    model = train(configured(estimator_class, n_components=2, max_epochs=0, random_state=0), rows)
    fresh = wide_table(172_800, n=100, seed=1)
    assert_is_density_of_narrow_columns(model, fresh)
    assert model.score(fresh) == pytest.approx(PCA(2).fit(rows).score(fresh), abs=0.25)


@for_each([c for c in ESTIMATORS if c.__name__ == "AutoencoderOutlierDetector"])
def test_the_detector_sees_narrow_columns(estimator_class):
    model = configured(estimator_class, n_components=2, max_epochs=3, random_state=0)
    assert auroc(model.fit(wide_table(172_800)), wide_table(172_800, n=300, seed=1)) > 0.99


# ---------------------------------------------------------------------------------- other units


@pytest.mark.parametrize("exponent", [-40, 30])
@pytest.mark.parametrize("sizes", [(), "auto"])
@pytest.mark.parametrize("noise", ["isotropic", "diagonal"])
def test_another_unit_of_all_columns_shifts_the_density_exactly(curved, noise, sizes, exponent):
    """Factors that are powers of two change no digit. The rows to hold out depend on all bits."""
    factor = 2.0**exponent
    parameters = {"hidden_layer_sizes": sizes, "noise": noise, "max_epochs": 3, "random_state": 0}
    model, other = (
        Autoencoder(2, early_stopping=False, **parameters).fit(rows)
        for rows in (curved, factor * curved)
    )
    shifted = model.score_samples(curved) - curved.shape[1] * np.log(factor)
    np.testing.assert_allclose(other.score_samples(factor * curved), shifted, rtol=1e-9)
    expected = factor**2 * np.asarray(model.noise_variance_)
    np.testing.assert_allclose(other.noise_variance_, expected, rtol=1e-9)
    draws = factor * model.sample(9, random_state=0)
    np.testing.assert_allclose(other.sample(9, random_state=0), draws, rtol=1e-7)


def hash_without_units(self, seed):
    """Hash rows as if their largest cell was between 1 and 2 in absolute value."""
    exponent = np.floor(np.log2(np.abs(self.modelled).max()))
    return hash_rows(self.values / 2.0**exponent, seed, self.n_levels)


@pytest.mark.parametrize("noise", ["isotropic", "diagonal"])
@for_each(AUTOENCODERS)
def test_another_unit_of_all_columns_changes_no_fit(estimator_class, noise, monkeypatch):
    """The unit decides on the order of rows and on random numbers by their hashes only."""
    monkeypatch.setattr(Rows, "hash", hash_without_units)
    model = train(tiny(estimator_class, noise=noise, max_epochs=3), X)
    for factor in (2.0**-300, 2.0**300):
        other = train(tiny(estimator_class, noise=noise, max_epochs=3), factor * X)
        for weights, expected in zip(
            other.module_.parameters(), model.module_.parameters(), strict=True
        ):
            torch.testing.assert_close(weights, expected, rtol=1e-9, atol=0)
        found = np.asarray(other.noise_variance_) / factor / factor
        np.testing.assert_allclose(found, model.noise_variance_, rtol=1e-4)
        np.testing.assert_allclose(
            other.reconstruct(factor * X) / factor, model.reconstruct(X), rtol=1e-9
        )
        if estimator_class._density is not Importance:  # whose random numbers are those of rows
            n_modelled = model.module_.likelihood.n_columns
            expected = model.score_samples(X) - n_modelled * np.log(factor)
            np.testing.assert_allclose(other.score_samples(factor * X), expected, atol=2e-3)


def test_other_units_of_single_columns_shift_the_density_of_factor_analysis(curved):
    """The initial solution with one noise variance for each column does not depend on units."""
    factors = 2.0 ** np.array([0, 3, -4, 6, 1, -2])
    model, other = (
        VariationalAutoencoder(2, noise="diagonal", max_epochs=0, early_stopping=False).fit(rows)
        for rows in (curved, factors * curved)
    )
    ratio = other.noise_variance_ / (factors**2 * model.noise_variance_)
    np.testing.assert_allclose(ratio, 1, rtol=0.02)
    shifted = model.score(curved) - np.log(factors).sum()
    assert other.score(factors * curved) == pytest.approx(shifted, abs=0.01)


# ------------------------------------------------------------------------------ the smallest noise


def rounding(center, variance, scale, dtype):
    """The variance of rounding errors that is assumed for one column, as a float."""
    parts = (torch.tensor([float(part)], dtype=dtype) for part in (center, variance, scale))
    return float(rounding_variance(*parts))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("offset", [0.0, 1.0, -7e3, 1e8, 3e-5])
@pytest.mark.parametrize("spread", [0.0, 1e-3, 1.0])
def test_the_assumed_rounding_errors_are_those_of_neighbouring_numbers(dtype, offset, spread):
    """The deviation is between one and two distances to the next number of typical cells."""
    scale = 2.5
    found = rounding(offset, spread**2, scale, torch.from_numpy(np.empty(0, dtype)).dtype) ** 0.5
    typical = dtype(abs(offset) + (spread or scale))
    # The center itself is rounded to the dtype.
    assert 0.999 * np.spacing(typical) <= found <= 2.001 * np.spacing(typical)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("offset", [0.0, 1e2, 1e5])
def test_the_assumed_rounding_errors_bound_those_of_rounded_cells(dtype, offset):
    cells = np.random.default_rng(0).normal(size=2000)
    if dtype is np.float64:
        cells, offset = cells * 1e-3, offset * 1e3
    cells = cells.astype(dtype) if offset else cells
    # The difference of two numbers of one size is exact, so that only the sum is rounded.
    stored = (cells + dtype(offset)).astype(dtype)
    errors = (stored - dtype(offset)).astype(np.float64) - cells
    torch_dtype = torch.from_numpy(stored).dtype
    bound = rounding(stored.mean(), stored.astype(np.float64).var(), 1.0, torch_dtype)
    assert errors.var() <= bound
    if offset:
        assert errors.var() > bound / 100


@pytest.mark.parametrize(("noise", "most"), [("isotropic", 1e3), ("diagonal", 1e6)])
@pytest.mark.parametrize("sizes", [(), "auto"])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_rows_without_noise_have_the_noise_of_rounding(precision, sizes, noise, most):
    """A code adds the rounding errors of the larger columns to each column."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 2)) @ rng.normal(size=(2, 5)) + 3
    model = Autoencoder(
        2, hidden_layer_sizes=sizes, noise=noise, precision=precision, max_epochs=0, random_state=0
    ).fit(rows)
    smallest = model.module_.likelihood.smallest_noise.numpy()
    ratio = model.noise_variance_ / smallest
    # The noise is that of the training rows, and the columns of all rows differ from theirs.
    assert (ratio >= 0.9).all()
    assert (ratio <= most).all()
    assert np.isfinite(model.score_samples(rows)).all()


def started(likelihood):
    """A likelihood of columns of different size and spread."""
    center, variance = torch.tensor([0.0, 1e3, -2.0, 5.0]), torch.tensor([1.0, 4.0, 1e-6, 9.0])
    likelihood.double().start(center.double(), variance.double(), variance.double().mean().sqrt())
    return likelihood


LIKELIHOODS_WITH_NOISE = {
    "isotropic": lambda: make_likelihood("gaussian", 4, "isotropic"),
    "diagonal": lambda: make_likelihood("gaussian", 4, "diagonal"),
    "blocks": lambda: Blocks(
        [make_likelihood("gaussian", 2, noise) for noise in ("diagonal", "isotropic")]
    ),
}


@pytest.mark.parametrize("name", LIKELIHOODS_WITH_NOISE)
def test_another_noise_respects_the_floor(name):
    likelihood = started(LIKELIHOODS_WITH_NOISE[name]())
    parts = getattr(likelihood, "parts", [likelihood])
    floors = torch.cat([part.smallest_noise.expand(part.n_columns) for part in parts])
    for factor in (1e-9, 0.5, 1.0, 1.5, 1e9):
        wanted = factor * floors
        found = likelihood.at(wanted.log()).noise_variance
        torch.testing.assert_close(found, wanted.maximum(floors), rtol=1e-9, atol=0)


# ------------------------------------------------------------------------------------ precision


def of_ratio(ratio, n=40):
    """Float32 rows whose global scale is this many standard deviations of their first column."""
    signs = np.random.default_rng(0).permuted(np.tile([[-1.0], [1.0]], (n // 2, 2)), axis=0)
    # The mean of the variances 1 and w ** 2 is the square of the ratio.
    return (signs * [1, np.sqrt(2 * ratio**2 - 1)]).astype(np.float32)


def dtype_of(model):
    return core(model).module_.inputs.center.dtype


@pytest.mark.parametrize(
    ("factor", "expected"), [(1 - 1e-5, torch.float32), (1 + 1e-5, torch.float64)]
)
@pytest.mark.parametrize("column", [0, 1])
def test_auto_is_float64_for_narrow_columns_only(factor, expected, column):
    rows = np.roll(of_ratio(factor * FLOAT32_RATIO), column, axis=1)
    model = Autoencoder(1, max_epochs=0, random_state=0)
    assert dtype_of(model.fit(rows)) == expected
    assert dtype_of(model.set_params(precision="float32").fit(rows)) == torch.float32


def test_a_constant_column_has_no_noise_that_could_be_hidden():
    rows = np.column_stack([X, np.zeros(len(X))]).astype(np.float32)
    assert dtype_of(Autoencoder(1, max_epochs=0, random_state=0).fit(rows)) == torch.float32


@for_each(AUTOENCODERS)
def test_narrow_columns_are_trained_in_float64(estimator_class):
    assert dtype_of(fitted_once(estimator_class, precision="auto")) == torch.float64
    wide = X.astype(np.float32)
    assert dtype_of(train(tiny(estimator_class, max_epochs=1), wide)) == torch.float32
    wide[:, 1] *= 4e4
    assert dtype_of(train(tiny(estimator_class, max_epochs=1), wide)) == torch.float64


# ------------------------------------------------------------------------- covariances of codes


@pytest.mark.parametrize("k", [1, 2, 3, 8, 21, 40, 64])
def test_degenerate_covariances_of_any_units_are_made_invertible(k):
    generator = torch.Generator().manual_seed(k)
    for rank in {1, k // 2, k - 1, k} - {0}:
        for spread in (0, 3, 100):
            units = torch.randn(k, generator=generator, dtype=torch.float64) * spread
            root = torch.randn(k, rank, generator=generator, dtype=torch.float64)
            root = 10 ** units.clamp(-100, 100)[:, None] * root
            matrix = root @ root.mT
            assert torch.linalg.cholesky_ex(invertible(matrix)).info == 0


@pytest.mark.parametrize("k", [1, 5, 64])
def test_other_covariances_change_by_rounding_only(k):
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(3, k, 4 * k, generator=generator, dtype=torch.float64)
    matrix = root @ root.mT
    found = invertible(matrix)
    torch.testing.assert_close(found, matrix, rtol=1e-11, atol=0)
    assert (found.diagonal(dim1=1, dim2=2) > matrix.diagonal(dim1=1, dim2=2)).all()
    units = 2.0 ** torch.arange(k).double()
    scaled = units[:, None] * matrix * units
    torch.testing.assert_close(
        invertible(scaled), units[:, None] * found * units, rtol=1e-15, atol=0
    )


@for_each(AUTOENCODERS)
def test_codes_that_depend_on_one_column_make_a_density(estimator_class, tmp_path):
    """Next to a column of this width, the others vanish, so that the codes are collinear."""
    rows = X * [1, 1e30, 1]
    model = train(tiny(estimator_class, max_epochs=1), rows)
    assert np.isfinite(model.score_samples(rows)).all()
    assert np.isfinite(np.asarray(model.sample(3, random_state=0))).all()
    model.save(tmp_path / "model.safetensors")
    loaded = skae.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(loaded.score_samples(rows), model.score_samples(rows))


# ------------------------------------------------------------------------------ trained noise


class TrainingStart(Callback):
    """Keeps the noise and the posterior with which training starts, in standardized units."""

    def on_train_begin(self, net, **kwargs):
        network = net.module_
        k = network.latent.n_components
        self.noise = noise_of(network)
        # Training changes the weights in place.
        self.weights = network.decoder.skip.weight[:, :k].detach().double().clone()
        h = network.encoder.skip.bias.detach().double()[None]
        self.variance = network.latent.posterior(h).covariance()[0]


def noise_of(network):
    """Noise variances of the columns as shares of the mean variance."""
    return (network.likelihood.fixed().noise_variance / network.inputs.scale**2).double()


def trains_noise(estimator_class):
    network = getattr(core(fitted_once(estimator_class)), "module_", None)
    return network is not None and network.likelihood.is_trained


WITH_TRAINED_NOISE = [
    c for c in AUTOENCODERS if c.__name__ not in WITHOUT_START_AT_PCA and trains_noise(c)
]


def quiet_table():
    """Rows of two components whose noise is much smaller than training can start with."""
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(300, 2)) @ rng.normal(size=(2, 6))
    return factors + 1e-3 * rng.normal(size=(300, 6))


@for_each(WITH_TRAINED_NOISE)
def test_training_starts_with_a_raised_noise(estimator_class):
    rows, start = quiet_table(), TrainingStart()
    parameters = {"n_components": 2, "random_state": 0, "early_stopping": False}
    train(configured(estimator_class, **parameters, max_epochs=1, callbacks=[start]), rows)
    np.testing.assert_allclose(start.noise, LEAST_NOISE, rtol=1e-6)
    # The posterior of a linear Gaussian model whose weights are orthogonal.
    precision = torch.eye(2) + (start.weights.mT / start.noise) @ start.weights
    expected = torch.linalg.inv(precision).diagonal()
    torch.testing.assert_close(start.variance, expected, rtol=1e-5, atol=0)
    kept = train(configured(estimator_class, **parameters, max_epochs=0), rows)
    expected = PCA(2).fit(rows).noise_variance_
    own = noise_of(kept.module_) * kept.module_.inputs.scale**2
    np.testing.assert_allclose(own, expected, rtol=0.02)
    np.testing.assert_allclose(kept.noise_variance_, expected, rtol=0.1)


def test_a_noise_that_suffices_is_not_raised(curved):
    rows, start = curved + np.random.default_rng(1).normal(size=curved.shape), TrainingStart()
    parameters = {"n_components": 2, "random_state": 0, "early_stopping": False}
    VariationalAutoencoder(**parameters, max_epochs=1, callbacks=[start]).fit(rows)
    kept = VariationalAutoencoder(**parameters, max_epochs=0).fit(rows)
    np.testing.assert_array_equal(start.noise, noise_of(kept.module_))


def test_a_raised_noise_is_no_divergence():
    """The objective rises with the noise, and more only if the training diverges."""
    rows = X * [1e6, 1e-8, 1]
    parameters = {"noise": "diagonal", "early_stopping": False}
    model = tiny(VariationalAutoencoder, corruption="gaussian", corruption_level=0.7, **parameters)
    model.fit(rows)  # Without a warning, which would be an error.
    assert model.loss_curve_[0] > 50
    with pytest.warns(ConvergenceWarning, match="Training diverged"):
        model.set_params(learning_rate=10.0).fit(rows)
