"""Densities against numerical integration, and against closed forms where the model is linear."""

import numpy as np
import pytest
import torch
from scipy.special import expit, logsumexp
from scipy.stats import multivariate_normal
from sklearn.datasets import load_iris, load_wine
from sklearn.decomposition import PCA, FactorAnalysis
from sklearn.preprocessing import StandardScaler
from small_models import AUTOENCODERS
from test_common import train

from skae import Autoencoder, WassersteinAutoencoder
from skae.density import laplace
from skae.density.laplace import Laplace
from skae.nn.batch import Batch
from skae.nn.bodies.body import make_bodies
from skae.nn.bodies.mlp import MLP
from skae.nn.inputs import Inputs
from skae.nn.latent import Deterministic
from skae.nn.likelihoods import make_likelihood
from skae.nn.network import Network
from skae.table.rows import Rows
from skae.training.tensors import make_batch


@pytest.fixture
def curve():
    """200 rows of 5 columns along a bent line, with noise of standard deviation 0.1."""
    rng = np.random.default_rng(0)
    t = rng.normal(size=(200, 1))
    X = np.concatenate([t, t**2 / 2, np.sin(t), np.cos(t), -t], axis=1)
    return X + 0.1 * rng.normal(size=X.shape)


def prior_of_codes(fitted):
    """Mean and covariance of the prior of codes, in the user's units."""
    prior, units = fitted._fitted.density.prior, fitted._fitted.components
    mean = (prior.mean.numpy() - units.offset) * units.scale
    return mean, prior.covariance.numpy() * np.outer(units.scale, units.scale)


def grid_of_codes(fitted, n=4001, width=9.0):
    """Codes of one dimension across their distribution, and the logarithm of their masses."""
    (mean,), covariance = prior_of_codes(fitted)
    deviation = covariance[0, 0] ** 0.5
    z = np.linspace(mean - width * deviation, mean + width * deviation, n)
    log_prior = -0.5 * ((z - mean) / deviation) ** 2 - np.log(deviation * np.sqrt(2 * np.pi))
    return z[:, None], log_prior + np.log(z[1] - z[0])


def mixture(log_likelihood, log_mass):
    """log p(x) of rows from the log-likelihoods (rows, codes)."""
    return logsumexp(log_likelihood + log_mass, axis=1)


def gaussian_by_quadrature(fitted, X):
    z, log_mass = grid_of_codes(fitted)
    rows = fitted.inverse_transform(z)
    noise = np.broadcast_to(fitted.noise_variance_, X.shape[1])
    squares = ((X[:, None] - rows) ** 2 / noise).sum(axis=-1)
    return mixture(-0.5 * (squares + np.log(2 * np.pi * noise).sum()), log_mass)


def test_quadrature_is_exact_for_a_linear_model(curve):
    """The reference itself: PCA's density to nine digits."""
    linear = Autoencoder(1, hidden_layer_sizes=(), max_epochs=0, early_stopping=False).fit(curve)
    expected = PCA(1).fit(curve).score_samples(curve)
    np.testing.assert_allclose(gaussian_by_quadrature(linear, curve), expected, rtol=1e-9)
    np.testing.assert_allclose(linear.score_samples(curve), expected, rtol=1e-9)


@pytest.mark.parametrize("noise", ["isotropic", "diagonal", 0.02])
def test_curved_density_is_near_the_integral(curve, noise):
    """Laplace's method errs by the posterior's departure from a normal, here a narrow one.

    The noise is 0.1 along a curve of length several, so that the posterior's width is a few
    hundredths of the prior's and the curve is nearly straight across it: 0.02 nats on average.
    """
    fitted = Autoencoder(
        1, hidden_layer_sizes=(32,), max_epochs=200, noise=noise, random_state=0
    ).fit(curve)
    exact = gaussian_by_quadrature(fitted, curve)
    error = fitted.score_samples(curve) - exact
    assert abs(error.mean()) < 0.02
    assert np.quantile(abs(error), 0.9) < 0.1
    # It is the curved model that is integrated: PCA's density is far off.
    assert exact.mean() > PCA(1).fit(curve).score(curve) + 0.5


@pytest.mark.parametrize("d", [20, 80])
def test_bernoulli_mass_is_near_the_integral(d):
    """Laplace's relative error falls as the reciprocal of the flips that tell of the code.

    A row of d flips with log-odds of size 1 or so has about d / 4 units of information on a code
    of unit variance; the next term of the expansion is a small multiple of its reciprocal.
    """
    rng = np.random.default_rng(0)
    z = rng.normal(size=(300, 1))
    X = (rng.random((300, d)) < expit(z @ rng.normal(0, 1.5, size=(1, d)))).astype(float)
    fitted = Autoencoder(
        1,
        likelihood="bernoulli",
        hidden_layer_sizes=(8,),
        max_epochs=30,
        precision="float64",
        random_state=0,
    ).fit(X)
    grid, log_mass = grid_of_codes(fitted)
    p = fitted.inverse_transform(grid)
    log_likelihood = X @ np.log(p).T + (1 - X) @ np.log1p(-p).T
    error = fitted.score_samples(X) - mixture(log_likelihood, log_mass)
    assert abs(error.mean()) < 2 / d
    assert abs(error).max() < 0.5


def test_bernoulli_masses_of_all_rows_sum_to_one():
    """Over the 2^6 rows there are, up to Laplace's error."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(400, 1))
    X = (rng.random((400, 6)) < expit(z @ rng.normal(0, 1.5, size=(1, 6)))).astype(float)
    fitted = Autoencoder(
        1, likelihood="bernoulli", hidden_layer_sizes=(), max_epochs=20, random_state=0
    ).fit(X)
    every = (np.arange(64)[:, None] >> np.arange(6) & 1).astype(float)
    assert np.exp(fitted.score_samples(every)).sum() == pytest.approx(1, abs=0.15)


def marginal(fitted):
    """The normal distribution of rows under a linear model's own m, S and noise."""
    k = fitted.n_components_
    origin = fitted.inverse_transform(np.zeros((1, k)))
    J = (fitted.inverse_transform(np.eye(k)) - origin).T
    m, S = prior_of_codes(fitted)
    noise = np.broadcast_to(fitted.noise_variance_, len(J))
    return multivariate_normal(origin[0] + J @ m, J @ S @ J.T + np.diag(noise))


@pytest.mark.parametrize("noise", ["isotropic", "diagonal", 0.3])
@pytest.mark.parametrize("max_epochs", [0, 20])
@pytest.mark.parametrize("k", [1, 3])
def test_linear_density_is_exact(noise, max_epochs, k):
    """Laplace's method has no error where the decoder is linear."""
    X = StandardScaler().fit_transform(load_wine().data)
    linear = Autoencoder(
        k, hidden_layer_sizes=(), noise=noise, max_epochs=max_epochs, random_state=0
    ).fit(X)
    np.testing.assert_allclose(linear.score_samples(X), marginal(linear).logpdf(X), rtol=1e-8)


@pytest.mark.filterwarnings("ignore:n_components=7 exceeds:UserWarning")
def test_linear_density_is_exact_when_overcomplete():
    X = load_iris().data
    linear = Autoencoder(7, hidden_layer_sizes=(), noise=0.1, max_epochs=0, random_state=0).fit(X)
    np.testing.assert_allclose(linear.score_samples(X), marginal(linear).logpdf(X), rtol=1e-6)


@pytest.mark.parametrize("noise", ["isotropic", "diagonal"])
@pytest.mark.parametrize("k", [2, 70])
def test_density_under_conditions_is_exact_where_linear(noise, k):
    """Each row's condition moves the mean of rows; what else is estimated is common to them.

    Codes so wide are integrated over along their leading axes only, here all that matter.
    """
    n, generator = 60, torch.Generator().manual_seed(0)
    encoder, decoder = make_bodies(MLP(5, (), "silu", 0.0), k, k + 3, True, False)
    parts = encoder, decoder, Deterministic(k), make_likelihood("gaussian", 5, noise)
    network = Network(Inputs(5, (3,)), *parts, trim=0.0).double()
    with torch.no_grad():
        for weights in network.parameters():
            weights.copy_(torch.randn(weights.shape, generator=generator) / k**0.5)
        network.likelihood.start(*torch.tensor([[0.0] * 5, [1.0] * 5]), torch.tensor(1.0))
        x = torch.randn(n, 5, generator=generator, dtype=torch.float64)
        kind = torch.arange(n)[:, None] % 3
        batch = Batch(torch.cat([x, kind], 1), torch.ones(n, dtype=torch.float64))
        held_out = torch.arange(n) % 5 == 0
        density = Laplace.estimate(network, network.likelihood, batch, held_out)
        found = density.log_prob(network, batch)
        W = decoder.skip.weight[:, :k].numpy()
        mean = network.outputs(density.prior.mean.expand(n, -1), batch).numpy()
        codes = density.prior.covariance.numpy()
        covariance = W @ codes @ W.T + np.diag(density.likelihood.noise_variance)
    expected = multivariate_normal(np.zeros(5), covariance).logpdf(x.numpy() - mean)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert np.ptp(mean, axis=0).max() > 0.1


def test_diagonal_noise_beats_isotropic_and_nears_factor_analysis():
    """Unequal noise: the loadings are PCA's, but the variances are fitted column by column."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(800, 2))
    spread = np.array([0.1, 0.2, 0.5, 1.0, 0.1, 0.3, 0.8, 0.4])
    X = z @ rng.normal(0, 3, size=(2, 8)) + spread * rng.normal(size=(800, 8))
    scores = {
        noise: Autoencoder(
            2, hidden_layer_sizes=(), max_epochs=0, early_stopping=False, noise=noise
        ).fit(X).score(X)
        for noise in ("isotropic", "diagonal")
    }  # fmt: skip
    best = FactorAnalysis(2).fit(X).score(X)
    assert scores["isotropic"] == pytest.approx(PCA(2).fit(X).score(X), rel=1e-6)
    assert scores["isotropic"] < scores["diagonal"] <= best + 1e-3
    assert best - scores["diagonal"] < 0.5 * (best - scores["isotropic"])


def test_diagonal_noise_is_found():
    """Where PCA's axes are the true ones, each column's noise is the one that was added."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(5000, 1))
    spread = np.array([0.2, 0.5, 1.0, 0.3, 0.7, 0.4])
    X = 20 * z @ np.ones((1, 6)) + spread * rng.normal(size=(5000, 6))
    parameters = {"hidden_layer_sizes": (), "max_epochs": 0, "early_stopping": False}
    fitted = Autoencoder(1, noise="diagonal", random_state=0, **parameters).fit(X)
    assert fitted.noise_variance_.shape == (6,)
    np.testing.assert_allclose(fitted.noise_variance_, spread**2, rtol=0.15)


@pytest.mark.parametrize("noise", [0.05, 2.0])
@pytest.mark.parametrize("sizes", [(), (8,)])
def test_a_known_noise_is_kept(curve, noise, sizes):
    fitted = Autoencoder(1, hidden_layer_sizes=sizes, noise=noise, max_epochs=5, random_state=0)
    fitted.fit(curve)
    assert fitted.noise_variance_ == pytest.approx(noise, rel=1e-12)
    drawn = fitted.sample(4000, random_state=0) - fitted.sample(4000, mean=True, random_state=0)
    assert drawn.var() == pytest.approx(noise, rel=5 * np.sqrt(2 / drawn.size))


def test_density_is_in_the_users_units(curve):
    """Scaling all columns by c lowers the log-density by d log c."""
    parameters = {"hidden_layer_sizes": (8,), "max_epochs": 20, "random_state": 0}
    a = Autoencoder(1, early_stopping=False, **parameters).fit(curve)
    b = Autoencoder(1, early_stopping=False, **parameters).fit(1000 * curve)
    expected = a.score_samples(curve) - 5 * np.log(1000)
    np.testing.assert_allclose(b.score_samples(1000 * curve), expected, rtol=1e-4)


def test_shifting_the_columns_changes_no_density(curve):
    parameters = {"hidden_layer_sizes": (8,), "max_epochs": 20, "random_state": 0}
    a = Autoencoder(1, early_stopping=False, **parameters).fit(curve)
    b = Autoencoder(1, early_stopping=False, **parameters).fit(curve + 100)
    np.testing.assert_allclose(
        b.score_samples(curve + 100), a.score_samples(curve), rtol=1e-4, atol=1e-4
    )


def test_rows_far_from_the_data_are_less_likely(curve):
    fitted = Autoencoder(1, hidden_layer_sizes=(16,), max_epochs=50, random_state=0).fit(curve)
    far = curve + np.random.default_rng(1).normal(0, 2, size=curve.shape)
    assert np.median(fitted.score_samples(far)) < np.quantile(fitted.score_samples(curve), 0.05)


def test_samples_score_as_their_own_density_says(curve):
    """Laplace's density is near the integral on rows that the model itself draws, too."""
    fitted = Autoencoder(1, hidden_layer_sizes=(16,), max_epochs=100, random_state=0).fit(curve)
    drawn = fitted.sample(500, random_state=0)
    exact = gaussian_by_quadrature(fitted, drawn)
    assert abs(np.median(fitted.score_samples(drawn) - exact)) < 0.02


def test_single_column_and_constant_column(curve):
    one = Autoencoder(1, max_epochs=3, random_state=0).fit(curve[:, :1])
    assert np.isfinite(one.score_samples(curve[:, :1])).all()
    with_constant = np.column_stack([curve, np.full(len(curve), 7.0)])
    fitted = Autoencoder(2, max_epochs=3, random_state=0).fit(with_constant)
    assert np.isfinite(fitted.score_samples(with_constant)).all()
    np.testing.assert_allclose(fitted.reconstruct(with_constant)[:, -1], 7, atol=0.1)


def test_partial_fit_on_a_few_rows_keeps_the_density_of_all():
    """One more row must not turn the density into that row's."""
    X = np.random.default_rng(0).normal(size=(400, 5))
    autoencoder = Autoencoder(2, hidden_layer_sizes=(), random_state=0).partial_fit(X)
    before = autoencoder.score(X)
    assert autoencoder.partial_fit(X[:1]).score(X) == pytest.approx(before, abs=0.1)


# ------------------------------------------------------------------------- most probable codes


def many_columns(noise, n=500):
    """A network with more columns than hidden units, a batch, and the prior of its codes."""
    rng = np.random.default_rng(0)
    X = np.tanh(rng.normal(size=(n, 2)) @ rng.normal(size=(2, 60)))
    X += 0.1 * rng.normal(size=X.shape)
    fitted = Autoencoder(
        3, hidden_layer_sizes=(8,), noise=noise, max_epochs=10, precision="float64", random_state=0
    ).fit(X)._fitted  # fmt: skip
    return fitted.network, fitted.density, make_batch(Rows(X), fitted.network)


@pytest.mark.parametrize("noise", ["isotropic", "diagonal"])
@torch.no_grad()
def test_information_from_features_is_that_from_the_jacobian(noise):
    """Where columns are many, the Jacobian is not computed, unless it is kept."""
    network, density, batch = many_columns(noise)
    z = network.encode(batch).mean.double()
    found, expected = (
        laplace.Expansion(network, density.likelihood, batch, z, keeps) for keeps in (False, True)
    )
    assert found.jacobian is None
    assert found._root is not None
    torch.testing.assert_close(found.gradient, expected.gradient)
    torch.testing.assert_close(found.information, expected.information, rtol=1e-10, atol=1e-10)
    J, precision = expected.jacobian, 1 / density.likelihood.noise_variance
    precision = precision * network.inputs.scale**2
    torch.testing.assert_close(expected.information, J.mT @ (precision[:, None] * J))


@torch.no_grad()
def test_gradients_are_those_of_expansions():
    network, density, batch = many_columns("isotropic")
    z, some = network.encode(batch).mean.double(), torch.tensor([4, 0, 7])
    expansion = laplace.Expansion(network, density.likelihood, batch, z)
    torch.testing.assert_close(expansion.gradients(some, z[some]), expansion.gradient[some])


@pytest.mark.parametrize("activation", ["silu", "relu"])
@torch.no_grad()
def test_the_search_ends_at_the_most_probable_codes(curve, activation):
    """The log-density has no slope there, and the precision is that of the last code."""
    fitted = Autoencoder(
        2, activation=activation, hidden_layer_sizes=(16,), max_epochs=50, random_state=0
    ).fit(curve)._fitted  # fmt: skip
    network, density, batch = (
        fitted.network,
        fitted.density,
        make_batch(Rows(curve), fitted.network),
    )
    z = network.encode(batch).mean.double()
    expansion = laplace.Expansion(network, density.likelihood, batch, z)
    search = laplace.Search(expansion, density.prior)
    search.run_fast(laplace.SEARCH_STEPS)
    fresh = laplace.Expansion(network, density.likelihood, batch, search.z)
    torch.testing.assert_close(expansion.z, search.z)
    torch.testing.assert_close(expansion.information, fresh.information)
    slope = fresh.gradient + density.prior.score(search.z)
    step = torch.linalg.solve(fresh.precision(density.prior), slope)
    has_ended = (slope * step).sum(-1) <= laplace.FAST_TOLERANCE
    assert has_ended.double().mean() > (0.99 if activation == "silu" else 0.5)
    for direction in 1e-3 * torch.randn(20, 2, generator=torch.Generator().manual_seed(0)):
        beside = search.z + direction
        value = density.likelihood.log_prob(batch, network.outputs(beside.to(batch.x), batch))
        height = value + density.prior.height(beside)
        assert (height <= search.log_joint + laplace.FAST_TOLERANCE)[has_ended].all()


@torch.no_grad()
def test_rows_are_expanded_at_their_own_codes_after_steps_of_different_lengths():
    network, density, batch = many_columns("isotropic")
    z = network.encode(batch).mean.double() + 0.1
    expansion = laplace.Expansion(network, density.likelihood, batch, z)
    search = laplace.Search(expansion, density.prior)
    search.step[::2] *= 5
    before = search.log_joint.clone()
    search.run(max_steps=1)
    assert (search.log_joint > before).all()
    fresh = laplace.Expansion(network, density.likelihood, batch, search.z)
    torch.testing.assert_close(expansion.z, search.z)
    torch.testing.assert_close(expansion.gradient, fresh.gradient)
    torch.testing.assert_close(expansion.information, fresh.information)


# ------------------------------------------------------------------------------ chunks of rows


class CountedExpansion(laplace.Expansion):
    """An expansion that records its number of rows."""

    def __init__(self, network, likelihood, batch, z, *arguments):
        self.sizes.append(len(z))
        super().__init__(network, likelihood, batch, z, *arguments)


@pytest.fixture
def sizes(monkeypatch):
    """Numbers of rows of all expansions that are made."""
    monkeypatch.setattr(laplace, "Expansion", CountedExpansion)
    CountedExpansion.sizes = []
    return CountedExpansion.sizes


def bent_plane(n):
    """Rows of 6 columns near a curved surface."""
    rng = np.random.default_rng(0)
    s, t = rng.normal(size=(2, n))
    X = np.column_stack([s, t, s**2 / 2, np.sin(t), s + t, s - t])
    return X + 0.3 * rng.normal(size=X.shape)


# The codes of a sparse autoencoder are rectified, so that there are several solutions.
SMOOTH = [c for c in AUTOENCODERS if c._density is Laplace and c.__name__ != "SparseAutoencoder"]
KINDS_OF_NOISE = [
    *((c, "isotropic") for c in SMOOTH),
    *((c, noise) for c in (Autoencoder, WassersteinAutoencoder) for noise in ("diagonal", 0.09)),
]


@pytest.mark.parametrize(("estimator_class", "noise"), KINDS_OF_NOISE)
def test_density_over_chunks_is_that_over_one_chunk(estimator_class, noise, monkeypatch, sizes):
    """Memory decides how rows are divided, and no more.

    One noise variance per column converges slowly, so that it still depends on where it starts.
    """
    X = bent_plane(400)
    model = estimator_class(
        2,
        hidden_layer_sizes=(16,),
        noise=noise,
        max_epochs=15,
        batch_size=100,
        precision="float64",
        random_state=0,
    )
    network = train(model, X).module_.eval()
    batch = make_batch(Rows(X), network)
    n = len(X)
    # The first chunk, or all of them, may consist of validation rows only.
    for held_out in (torch.arange(n) % 10 == 0, torch.arange(n) < 60, torch.arange(n) < n):
        found = []
        for n_bytes in (laplace.EXPANSION_BYTES, 15_000):
            sizes.clear()
            with monkeypatch.context() as patch:
                patch.setattr(laplace, "EXPANSION_BYTES", n_bytes)
                density = Laplace.estimate(network, network.likelihood, batch, held_out)
            assert sum(sizes) == n
            found.append(density.log_prob(network, batch))
        assert 5 < len(sizes) < n
        assert sizes[0] < 60
        assert abs(found[1] - found[0]).mean() < (0.05 if noise == "diagonal" else 0.005)


@pytest.mark.parametrize("noise", ["isotropic", "diagonal"])
@pytest.mark.parametrize(("n", "n_used"), [(600, 600), (2200, 2048)])
def test_wide_codes_use_as_many_rows(noise, n, n_used, monkeypatch, sizes):
    """A density of 64 components and 64 columns is estimated from all representatives."""
    monkeypatch.setattr(laplace, "run_em", lambda density, *arguments: density)
    X = np.random.default_rng(0).normal(size=(n, 64))
    parameters = {"max_epochs": 0, "early_stopping": False, "noise": noise, "random_state": 0}
    Autoencoder(64, hidden_layer_sizes=(), **parameters).fit(X)
    assert len(sizes) > 1
    assert sum(sizes) == n_used


def test_noise_of_wide_codes_is_that_of_all_validation_rows():
    """The rows that reveal the noise may be far behind those of the first chunk.

    The decoder spans 16 of 64 dimensions, in which the variance of codes is far above the noise, so
    that the noise variance is the mean square in the other dimensions.
    """
    n, k, rank, generator = 1000, 64, 16, torch.Generator().manual_seed(0)
    encoder, decoder = make_bodies(MLP(k, (), "silu", 0.0), k, k, True, False)
    parts = encoder, decoder, Deterministic(k), make_likelihood("gaussian", k, "isotropic")
    network = Network(Inputs(k), *parts, trim=0.0).double()
    with torch.no_grad():
        network.likelihood.start(*torch.tensor([[0.0] * k, [1.0] * k]), torch.tensor(1.0))
        axes = torch.linalg.qr(torch.randn(k, rank, generator=generator).double()).Q
        for body in (encoder, decoder):
            for weights in body.parameters():
                weights.zero_()
            body.skip.weight.copy_(axes @ axes.mT)
        held_out = torch.arange(n) >= 500
        spread = torch.where(held_out, 0.3, 0.1)[:, None]
        x = 10 * torch.randn(n, rank, generator=generator).double() @ axes.mT
        x += spread * torch.randn(n, k, generator=generator)
        batch = Batch(x, torch.ones(n, dtype=torch.float64))
        density = Laplace.estimate(network, network.likelihood, batch, held_out)
    residual = x - x @ axes @ axes.mT
    expected = residual[held_out].square().sum(1).mean() / (k - rank)
    assert expected == pytest.approx(0.09, rel=0.02)
    assert float(density.likelihood.noise_variance[0]) == pytest.approx(float(expected), rel=0.01)
