"""What `VariationalAutoencoder` promises: bounds of the log-density, closed forms where linear."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.decomposition import PCA, FactorAnalysis
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import StandardScaler
from torch.distributions import Independent, MultivariateNormal, Normal

from skae import Autoencoder, ConditionalVariationalAutoencoder, VariationalAutoencoder
from skae.density.importance import REFINED_SAMPLES
from skae.nn.batch import Batch
from skae.nn.draws import Draws, ReplayedDraws
from skae.nn.normal import Normal as Posterior
from skae.nn.normal import NormalMixture
from skae.training.batches import Batches
from skae.training.loop import Net
from skae.variants.variational import Variational

COVARIANCES = ("diagonal", "full")


def linear(k, **parameters):
    return VariationalAutoencoder(k, hidden_layer_sizes=(), random_state=0, **parameters)


def small(k, **parameters):
    defaults = {"hidden_layer_sizes": (16,), "max_epochs": 5, "random_state": 0}
    return VariationalAutoencoder(k, **(defaults | parameters))


@pytest.fixture(scope="module")
def wine():
    return StandardScaler().fit_transform(load_wine().data)


def weighted(X):
    """Rows that count alike."""
    return Batch(torch.tensor(X), torch.ones(len(X), dtype=torch.float64))


def loadings(fitted):
    """Mean row, weights (d, k) and noise (d,) of a linear decoder in the user's units."""
    k = fitted.n_components_
    origin = fitted.inverse_transform(np.zeros((1, k)))
    W = (fitted.inverse_transform(np.eye(k)) - origin).T
    return origin[0], W, np.broadcast_to(fitted.noise_variance_, len(W))


def marginal(fitted):
    """The distribution of rows under a linear decoder: N(b, W W' + noise)."""
    origin, W, noise = loadings(fitted)
    return multivariate_normal(origin, W @ W.T + np.diag(noise))


def exact_elbo(fitted, X):
    """The bound of each row under a linear decoder, without draws."""
    origin, W, noise = loadings(fitted)
    mean, covariance = fitted.posterior(X)
    if covariance.ndim == 2:
        covariance = np.stack([np.diag(row) for row in covariance])
    squares = (X - origin - mean @ W.T) ** 2 + np.einsum("di,nij,dj->nd", W, covariance, W)
    fit = -0.5 * (squares / noise + np.log(2 * np.pi * noise)).sum(axis=1)
    trace = np.trace(covariance, axis1=1, axis2=2)
    log_det = np.linalg.slogdet(covariance)[1]
    return fit - 0.5 * (trace + (mean**2).sum(axis=1) - mean.shape[1] - log_det)


def with_exact_posterior(fitted, mixing):
    """A linear model whose decoder is mixed and whose encoder then states the true posterior."""
    k = fitted.n_components_
    up, down = fitted.module_.decoder.skip, fitted.module_.encoder.skip
    inputs = fitted.module_.inputs
    with torch.no_grad():
        up.weight.copy_(up.weight @ torch.tensor(mixing))
        _, W, noise = loadings(fitted)
        covariance = np.linalg.inv(np.eye(k) + (W.T / noise) @ W)
        factor = np.linalg.cholesky(covariance)
        down.weight.zero_()
        gain = covariance @ (W.T / noise) * float(inputs.scale)
        down.weight[:k] = torch.tensor(gain)
        # The decoder's own origin may have left the centre of the columns.
        shift = (inputs.center.numpy() - loadings(fitted)[0]) / float(inputs.scale)
        down.bias[:k] = torch.tensor(gain @ shift)
        down.bias[k : 2 * k] = torch.tensor(np.log(np.diag(factor)))
        down.bias[2 * k :] = torch.tensor(factor[np.tril_indices(k, -1)])
    return fitted


# ------------------------------------------------------------------ closed forms


@pytest.mark.parametrize("max_epochs", [0, 100])
@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize(
    ("table", "k"), [("wine", 3), pytest.param("digits", 8, marks=pytest.mark.slow)]
)
def test_linear_is_probabilistic_pca(table, k, covariance, max_epochs, wine):
    X = wine if table == "wine" else load_digits().data
    fitted = linear(k, posterior_covariance=covariance, max_epochs=max_epochs).fit(X)
    assert fitted.score(X) == pytest.approx(PCA(k).fit(X).score(X), abs=0.1)


@pytest.mark.parametrize("k", [2, 5])
def test_linear_with_diagonal_noise_is_factor_analysis(k):
    X = StandardScaler().fit_transform(load_breast_cancer().data)
    fitted = linear(k, noise="diagonal", early_stopping=False).fit(X)
    assert fitted.score(X) == pytest.approx(FactorAnalysis(k).fit(X).score(X), abs=0.1)


@pytest.mark.parametrize("noise", ["isotropic", "diagonal", 0.5])
@pytest.mark.parametrize("covariance", COVARIANCES)
def test_the_bound_is_below_the_marginal(wine, covariance, noise):
    """In every row, computed without draws; the drawn one is near it."""
    fitted = linear(3, posterior_covariance=covariance, noise=noise).fit(wine)
    exact, bound = marginal(fitted).logpdf(wine), exact_elbo(fitted, wine)
    assert (bound <= exact + 1e-9).all()
    error = fitted.elbo(wine) - bound
    assert abs(error.mean()) <= 4 * error.std() / len(wine) ** 0.5
    assert fitted.elbo(wine).mean() <= exact.mean() + 3 * error.std() / len(wine) ** 0.5


@pytest.mark.parametrize("noise", ["isotropic", "diagonal"])
def test_a_full_posterior_is_no_worse(wine, noise):
    diagonal, full = (
        exact_elbo(linear(3, posterior_covariance=c, noise=noise).fit(wine), wine).mean()
        for c in COVARIANCES
    )
    assert full >= diagonal - 0.05


def test_a_full_posterior_is_exact_where_codes_are_mixed(wine):
    """Of a rotated, stretched decoder, whose true posterior is far from diagonal."""
    mixing = np.random.default_rng(0).normal(size=(3, 3))
    fitted = with_exact_posterior(
        linear(3, posterior_covariance="full", max_epochs=0).fit(wine), mixing
    )
    covariance = fitted.posterior(wine)[1][0]
    assert abs(covariance - np.diag(np.diag(covariance))).max() > 0.05
    exact = marginal(fitted).logpdf(wine)
    np.testing.assert_allclose(exact_elbo(fitted, wine), exact, rtol=1e-9)
    # Every draw then has the same weight: one is as good as many.
    for n_samples in (1, 20):
        np.testing.assert_allclose(fitted.log_likelihood(wine, n_samples), exact, rtol=1e-9)


@pytest.mark.parametrize("spoil", ["shifted", "wider", "narrower"])
def test_the_bound_rises_to_the_marginal_with_more_draws(wine, spoil):
    fitted = linear(3, max_epochs=0).fit(wine)
    bias = fitted.module_.encoder.skip.bias
    with torch.no_grad():
        if spoil == "shifted":
            bias[:3] += 0.5
        else:
            bias[3:] += 0.7 if spoil == "wider" else -0.4
    exact = marginal(fitted).logpdf(wine)
    gaps = [fitted.log_likelihood(wine, n) - exact for n in (1, 5, 50, 500)]
    means = [gap.mean() for gap in gaps]
    assert means[0] < min(means[1:])
    for gap in gaps:
        assert gap.mean() <= 3 * gap.std() / len(wine) ** 0.5
    assert means[0] < -0.3
    assert min(means[2:]) > -0.1


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_one_step_leads_to_the_exact_posterior_of_a_linear_decoder(wine, covariance):
    """Whatever the encoder returns, so that no weight exceeds twice the density of the row."""
    fitted = linear(3, max_epochs=0, posterior_covariance=covariance).fit(wine)
    with torch.no_grad():
        fitted.module_.encoder.skip.bias[:3] += 1.0
        fitted.module_.encoder.skip.bias[3:6] -= 0.5
    exact = marginal(fitted).logpdf(wine)
    for n_samples in (20, 21):
        gap = fitted.log_likelihood(wine, n_samples) - exact
        assert gap.max() <= np.log(2) + 1e-6
        assert gap.mean() == pytest.approx(0, abs=0.05)
    assert fitted.elbo(wine).mean() < exact.mean() - 1


def test_rows_far_away_have_finite_scores(wine):
    scores = small(2, max_epochs=2).fit(wine).score_samples(wine * [[1e10]])
    assert np.isfinite(scores).all()


def test_a_mixture_of_normals_has_the_density_of_its_draws():
    draws = Draws(torch.Generator().manual_seed(0), torch.float64)
    normals = [Posterior(*draws.normal((2, 7, 3)), None) for _ in range(2)]
    mixture = NormalMixture(*normals)
    for n, share in ((1, 1.0), (4, 0.25), (6, 1 / 3)):
        z, log_prob = mixture.draw(n, draws)
        assert z.shape == (n, 7, 3)
        each = [Normal(part.mean, part.log_diagonal.exp()).log_prob(z).sum(-1) for part in normals]
        expected = share * each[0].exp() + (1 - share) * each[1].exp()
        torch.testing.assert_close(log_prob, expected.log())
    torch.testing.assert_close((z[0] + z[1]) / 2, normals[0].mean)
    torch.testing.assert_close((z[2:4] + z[4:]) / 2, normals[1].mean.expand(2, 7, 3))


def test_samples_score_as_their_own_density_says(wine):
    """The mean log-density of draws is minus the entropy."""
    fitted = linear(3, max_epochs=20).fit(wine)
    scores = fitted.score_samples(fitted.sample(5000, random_state=0))
    error = 4 * scores.std() / 5000**0.5
    assert scores.mean() == pytest.approx(-marginal(fitted).entropy(), abs=error)


def test_draws_have_the_marginals_moments(wine):
    fitted = linear(3, max_epochs=20).fit(wine)
    X = fitted.sample(20_000, random_state=0)
    expected = marginal(fitted)
    error = 5 * np.sqrt(np.diag(expected.cov) / len(X))
    assert (abs(X.mean(axis=0) - expected.mean) <= error).all()
    np.testing.assert_allclose(np.cov(X.T), expected.cov, rtol=0, atol=5 * 2 / len(X) ** 0.5)


# -------------------------------------------------------------------- the latent


def outputs(latent, n=50):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, latent.n_inputs, generator=generator, dtype=torch.float64)


def stated(h, k):
    """torch's distribution of codes for an encoder's outputs."""
    mean, raw, below = h[:, :k], h[:, k : 2 * k], h[:, 2 * k :]
    deviation = torch.where(raw < 0, raw.exp(), 1 + raw)
    if not below.shape[1]:
        return Independent(Normal(mean, deviation), 1)
    factor = deviation.diag_embed()
    row, column = np.tril_indices(k, -1)
    factor[:, row, column] = below
    return MultivariateNormal(mean, scale_tril=factor)


def standard(k):
    return MultivariateNormal(torch.zeros(k).double(), torch.eye(k).double())


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_transform_is_the_posteriors_mean(wine, covariance):
    fitted = small(3, posterior_covariance=covariance).fit(wine)
    mean, spread = fitted.posterior(wine)
    np.testing.assert_array_equal(fitted.transform(wine), mean)
    with torch.no_grad():
        h = fitted.module_.encode(weighted(wine)).h
    expected = stated(h, 3)
    np.testing.assert_allclose(mean, expected.mean, rtol=1e-9)
    if covariance == "full":
        np.testing.assert_allclose(spread, expected.covariance_matrix, rtol=1e-9, atol=1e-12)
    else:
        np.testing.assert_allclose(spread, expected.variance, rtol=1e-9)


# ----------------------------------------------------------------- the objective


def test_without_divergence_and_noise_it_is_the_autoencoder(curved):
    """beta = 0, codes at their means, the same weights and noise: the same objective."""
    parameters = {
        "hidden_layer_sizes": (16, 8),
        "noise": 0.3,
        "max_epochs": 10,
        "random_state": 0,
    }
    variational = VariationalAutoencoder(2, beta=0.0, **parameters).fit(curved).module_
    plain = Autoencoder(2, **parameters).fit(curved).module_
    theirs = variational.state_dict()
    with torch.no_grad():
        for name, value in plain.state_dict().items():
            value.copy_(theirs[name][: len(value)] if value.ndim else theirs[name])
    batch = Batch(torch.tensor(curved), torch.rand(len(curved), dtype=torch.float64))
    torch.testing.assert_close(variational(None, batch), plain(None, batch), rtol=1e-6, atol=0)


def test_warm_up_ends():
    """The price rises in the warm-up's share of the schedule, then is the full one."""
    latent = Variational(3, False, beta=4.0, warm_up=0.2, n_samples=1)
    h, weight = outputs(latent), torch.ones(50)
    draws = Draws(torch.Generator().manual_seed(0), torch.float64)

    def share(progress):
        draws.progress = progress
        code = latent(h, draws)
        penalty = latent.penalty(code, h, None, weight, draws)
        return float((penalty / (4 * latent.divergence(h))).mean())

    assert share(0.0) == 0
    assert share(0.1) == pytest.approx(0.5)
    assert share(0.2) == pytest.approx(1)
    assert share(1.0) == pytest.approx(1)
    penalty = latent.penalty(latent(h, None), h, None, weight, None)
    torch.testing.assert_close(penalty, 4 * latent.divergence(h))


def test_held_out_rows_are_judged_by_the_full_objective(curved):
    """Whatever the warm-up, before any epoch as after the last."""
    fitted = small(2, kl_warm_up=0.5, beta=3.0).fit(curved)
    rows = Batches.all_rows(weighted(curved))
    net = Net.from_module(fitted.module_, torch.Generator())
    judged = net.evaluate(rows)
    fitted.module_.latent.warm_up = 0.0
    assert net.evaluate(rows) == judged


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_several_draws_train_the_importance_weighted_bound(curved, covariance):
    fitted = small(2, n_importance_samples=5, posterior_covariance=covariance).fit(curved)
    network = fitted.module_
    batch = weighted(curved)
    x = batch.x
    noise = torch.randn(5, 120, 2, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
    with torch.no_grad():
        losses = network.losses(ReplayedDraws([noise, torch.tensor(1.0), torch.tensor(1.0)]), batch)
        h = network.encoder(network.inputs(batch))
        posterior = stated(h, 2)
        if covariance == "full":
            z = posterior.mean + (posterior.scale_tril @ noise[..., None])[..., 0]
        else:
            z = posterior.mean + posterior.variance.sqrt() * noise
        mean = network.inputs.center + network.inputs.scale * network.decoder(z)
        row = Independent(Normal(mean, fitted._fitted.density.likelihood.noise_variance.sqrt()), 1)
        log_weight = row.log_prob(x) + standard(2).log_prob(z) - posterior.log_prob(z)
    expected = log_weight.logsumexp(0) - math.log(5)
    torch.testing.assert_close(-losses, expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("full", [False, True])
def test_gradients_of_the_weighted_bound_are_those_of_autograd_on_average(full, beta):
    """Over 20,000 equal rows, whose decoder is not linear."""
    latent = Variational(2, full, beta, warm_up=0.0, n_samples=4)
    row = outputs(latent, 1).squeeze()
    h = row.expand(20_000, -1).clone().requires_grad_()

    def draws():
        return Draws(torch.Generator().manual_seed(0), torch.float64)

    def misfit(z):
        return 2 * (z.sin().sum(-1) - 0.5) ** 2

    code = latent(h, draws())
    penalty = latent.penalty(code, h, None, torch.ones(len(h)), None)
    ours = latent.bound(misfit(code.z) + penalty, code, None, None)
    z, _ = latent.propose(h, 4, draws())
    ratio = stated(h, 2).log_prob(z) - standard(2).log_prob(z)
    plain = math.log(4) - (-misfit(z) - beta * ratio).logsumexp(0)
    torch.testing.assert_close(ours, plain)
    (gradient,), (expected,) = (torch.autograd.grad(b.sum(), h) for b in (ours, plain))
    error = (gradient - expected).mean(0) / (gradient - expected).std(0) * len(h) ** 0.5
    assert error.abs().max() < 4.5


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_a_true_posterior_has_no_gradient(wine, covariance):
    """Not only on average: all draws of a row weigh the same, wherever they fall."""
    # The start is probabilistic PCA, whose codes are independent given a row; mixed ones are not.
    model = linear(3, posterior_covariance=covariance, max_epochs=0, n_importance_samples=5)
    network = model.fit(wine).module_
    if covariance == "full":
        with_exact_posterior(model, np.random.default_rng(0).normal(size=(3, 3)))
        network.likelihood = model._fitted.density.likelihood
    batch = weighted(wine)
    loss = network(Draws(torch.Generator().manual_seed(0), torch.float64), batch)
    for gradient in torch.autograd.grad(loss, list(network.encoder.parameters())):
        assert gradient.abs().max() < 1e-5
    decoder = torch.autograd.grad(network(None, batch), network.decoder.skip.weight)
    assert decoder[0].abs().max() > 1e-3


@pytest.mark.slow
def test_a_larger_beta_leaves_less_divergence(digits):
    divergences = []
    for beta in (0.1, 0.5, 1.0, 2.0, 4.0):
        model = small(8, beta=beta, hidden_layer_sizes=(64,), max_epochs=15, precision="float64")
        fitted = model.fit(digits)
        with torch.no_grad():
            h = fitted.module_.encode(weighted(digits)).h
            divergences.append(float(fitted.module_.latent.divergence(h).mean()))
    assert (np.diff(divergences) < 0).all()


def test_collapse_is_told(digits):
    """With the components that are left; a usual beta says nothing, or the suite would stop."""
    with pytest.warns(ConvergenceWarning, match=r"of 4 components only \[.*\] are active") as told:
        collapsed = small(4, beta=100.0, max_epochs=30).fit(digits)
    assert len(told) == 1
    active = np.flatnonzero(collapsed.transform(digits).var(axis=0) > 0.01)
    assert f"only {active.tolist()} are" in str(told[0].message)


# ------------------------------------------------------------------- the density


def test_scores_belong_to_the_row(digits):
    """Whichever rows are asked about with it, in whichever order, whenever."""
    fitted = small(4, precision="float64").fit(digits[:600])
    scores = fitted.score_samples(digits)
    np.testing.assert_array_equal(fitted.score_samples(digits), scores)
    some = np.random.default_rng(0).permutation(len(digits))[:700]
    np.testing.assert_allclose(fitted.score_samples(digits[some]), scores[some], rtol=1e-9)
    np.testing.assert_allclose(fitted.score_samples(digits[:1]), scores[:1], rtol=1e-9)
    np.testing.assert_array_equal(fitted.log_likelihood(digits, REFINED_SAMPLES), scores)
    twice = fitted.elbo(np.concatenate([digits[:5], digits[:5]]))
    np.testing.assert_allclose(twice[:5], twice[5:], rtol=1e-9)


@pytest.mark.parametrize("n_samples", [0, -1, 2.5])
def test_numbers_of_draws_are_positive(wine, n_samples):
    fitted = small(2, max_epochs=0).fit(wine)
    with pytest.raises(ValueError, match="n_samples must be an integer of at least 1"):
        fitted.log_likelihood(wine, n_samples)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_predictive_draws_have_the_moments_of_the_posterior(wine, covariance):
    """Those of a linear model are known exactly."""
    model, rows = linear(3, posterior_covariance=covariance, max_epochs=5).fit(wine), wine[:3]
    covariances = model.posterior(rows)[1]
    if covariance == "diagonal":
        covariances = covariances[:, :, None] * np.eye(3)
    _, W, noise = loadings(model)
    draws = model.posterior_predictive(rows, 20_000, random_state=0)
    assert draws.shape == (20_000, *rows.shape)
    for i in range(len(rows)):
        expected = W @ covariances[i] @ W.T + np.diag(noise)
        np.testing.assert_allclose(draws[:, i].mean(axis=0), model.reconstruct(rows)[i], atol=0.05)
        np.testing.assert_allclose(np.cov(draws[:, i].T), expected, atol=0.05)


def test_predictive_draws_are_those_of_the_seed(wine):
    model = small(2).fit(wine)
    first, second = (model.posterior_predictive(wine[:5], 4, random_state=s) for s in (0, 1))
    np.testing.assert_array_equal(first, model.posterior_predictive(wine[:5], 4, random_state=0))
    assert (first != second).all()
    assert len(np.unique(first[:, 0, 0])) == 4
    assert model.posterior_predictive(wine[:2]).shape == (100, 2, wine.shape[1])
    assert model.posterior_predictive(wine[:2].astype(np.float32), 2).dtype == np.float32


def test_predictive_draws_of_bits_are_bits():
    digits = load_digits().data
    model = small(2, likelihood="bernoulli", max_epochs=2).fit(digits[:100] / 16)
    assert set(model.posterior_predictive(digits[:3] / 16, 5).flat) == {0.0, 1.0}


def test_predictive_draws_keep_the_condition(wine):
    table = np.column_stack([wine, np.arange(len(wine)) % 2])
    model = ConditionalVariationalAutoencoder(2, condition=[-1], max_epochs=2, random_state=0).fit(
        table
    )
    draws = model.posterior_predictive(table[:6], 3)
    np.testing.assert_array_equal(draws[:, :, -1], np.tile([0, 1, 0, 1, 0, 1], (3, 1)))


@pytest.mark.parametrize("n_draws", [0, -1, 2.5, "3", True, None])
def test_numbers_of_predictive_draws_are_positive(wine, n_draws):
    model = small(2, max_epochs=1).fit(wine)
    with pytest.raises(ValueError, match="n_draws must be an integer of at least 1"):
        model.posterior_predictive(wine, n_draws)
    with pytest.raises(ValueError, match="random_state"):
        model.posterior_predictive(wine, 2, random_state="now")


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_kept_start_without_noise_can_be_trained(method):
    """The noise of rows without any is raised again, whichever method goes on."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 3)) @ rng.normal(size=(3, 8))
    model = small(3, max_epochs=20, warm_start=True).fit(rows)
    assert model.best_epoch_ == 0
    assert model.noise_variance_ < 1e-12
    model.set_params(n_components=4 if method == "fit" else 3)
    getattr(model, method)(rows)
    assert model.loss_curve_[-1] < 50
    assert model.score(rows) > -20
