"""What `VectorQuantizedAutoencoder` promises: k-means within, and a density that is a sum."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from sklearn.cluster import KMeans
from sklearn.model_selection import train_test_split

from skae import VectorQuantizedAutoencoder
from skae.density.enumeration import Enumeration
from skae.nn.batch import Batch
from skae.nn.bodies.body import make_bodies
from skae.nn.bodies.mlp import MLP
from skae.nn.codebooks import Codebooks
from skae.nn.draws import Draws
from skae.nn.inputs import Inputs
from skae.nn.likelihoods import make_likelihood
from skae.nn.network import Network
from skae.variants.quantized import Quantized


def small(k=4, **parameters):
    defaults = {
        "n_codes": 6,
        "hidden_layer_sizes": (16,),
        "max_epochs": 5,
        "random_state": 0,
    }
    return VectorQuantizedAutoencoder(k, **(defaults | parameters))


def draws():
    return Draws(torch.Generator().manual_seed(0), torch.float64)


@pytest.fixture
def outputs():
    """300 rows of 4 columns in float64."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(300, 4, generator=generator, dtype=torch.float64)


def codebooks(outputs, n_codebooks, n_codes):
    """Codebooks that stand at the first rows."""
    books = Codebooks(4, n_codebooks, n_codes).double()
    with torch.no_grad():
        books.vectors.copy_(outputs[:n_codes].unflatten(-1, (n_codebooks, -1)).transpose(0, 1))
        books.usage.fill_(1 / n_codes)
    return books


# ------------------------------------------------------------------------ k-means


@pytest.mark.slow
def test_one_codebook_is_as_good_as_kmeans(digits):
    """On rows that neither has seen; nearly all codes are used, about as often as others."""
    train, test = train_test_split(digits, test_size=0.3, random_state=0)
    fitted = VectorQuantizedAutoencoder(max_epochs=30, random_state=0).fit(train)
    kmeans = KMeans(32, n_init=10, random_state=0).fit(train)
    expected = (kmeans.transform(test).min(axis=1) ** 2).mean()
    assert fitted.reconstruction_error(test).mean() <= 1.05 * expected
    share = np.bincount(fitted.quantize(train)[:, 0], minlength=32) / len(train)
    perplexity = np.exp(-(share[share > 0] * np.log(share[share > 0])).sum())
    assert perplexity >= 0.8 * 32


@pytest.mark.parametrize("n_codebooks", [1, 2])
def test_following_without_memory_is_a_round_of_kmeans(outputs, n_codebooks):
    books = codebooks(outputs, n_codebooks, 5)
    before = books.vectors.detach().clone().numpy()
    weight = torch.rand(300, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    books.follow(outputs, weight, draws(), decay=0.0)
    for b, part in enumerate(np.split(outputs.numpy(), n_codebooks, axis=1)):
        nearest = ((part[:, None] - before[b]) ** 2).sum(axis=-1).argmin(axis=1)
        for code in range(5):
            mine = nearest == code
            mean = np.average(part[mine], axis=0, weights=weight[mine].numpy())
            np.testing.assert_allclose(books.vectors[b, code], mean)
            share = weight[mine].sum() / weight.sum()
            assert float(books.usage[b, code]) == pytest.approx(float(share))


def test_following_is_a_running_average_of_sums_and_shares(outputs):
    """Vectors are the average of outputs' sums over that of their shares."""
    books = codebooks(outputs, 1, 5)
    usage = books.usage[0].numpy().copy()
    total = usage[:, None] * books.vectors[0].numpy()
    for block in outputs.split(100):
        chosen = np.eye(5)[books.nearest(block)[:, 0].numpy()] / len(block)
        usage = 0.95 * usage + 0.05 * chosen.sum(axis=0)
        total = 0.95 * total + 0.05 * chosen.T @ block.numpy()
        books.follow(block, torch.ones(len(block)).double(), draws())
        np.testing.assert_allclose(books.usage[0], usage)
        np.testing.assert_allclose(books.vectors[0], total / usage[:, None])


def test_dead_codes_are_revived(outputs):
    books = codebooks(outputs, 2, 5)
    with torch.no_grad():
        books.vectors[1, 3] = 1e6
        books.usage[1, 3] = 0.01
    before = books.vectors.detach().clone()
    # A decay of 1 leaves all that lives as it is.
    books.follow(outputs, torch.ones(300).double(), draws(), decay=1.0)
    moved = (books.vectors != before).any(-1)
    assert moved.sum() == 1
    assert moved[1, 3]
    assert (books.vectors[1, 3] == outputs[:, 2:]).all(1).any()
    assert float(books.usage[1, 3]) == pytest.approx(1 / 5)
    # It is chosen from then on.
    assert (books.nearest(outputs)[:, 1] == 3).any()


def test_dead_codes_go_to_rows_that_count(outputs):
    weight = torch.zeros(300).double()
    weight[7] = 1.0
    books = codebooks(outputs, 1, 5)
    with torch.no_grad():
        books.usage.zero_()
    books.follow(outputs, weight, draws(), decay=1.0)
    assert (books.vectors[0] == outputs[7]).all()


# ------------------------------------------------------------------------ codes


@pytest.mark.parametrize("n_codebooks", [1, 2, 4])
def test_codes_are_rows_of_the_codebooks(digits, n_codebooks):
    fitted = small(n_codebooks=n_codebooks).fit(digits[:500])
    numbers = fitted.quantize(digits)
    assert numbers.shape == (len(digits), n_codebooks)
    codes = fitted.dequantize(numbers)
    np.testing.assert_array_equal(fitted.transform(digits), codes)
    np.testing.assert_array_equal(fitted.inverse_transform(codes), fitted.reconstruct(digits))
    books = fitted.module_.latent.codebooks.vectors.numpy()
    for b, part in enumerate(np.split(codes, n_codebooks, axis=1)):
        np.testing.assert_array_equal(part, books[b][numbers[:, b]])


def test_gradients_pass_straight_through(outputs):
    latent = Quantized(4, 2, 5, penalty_weight=0.5).double()
    with torch.no_grad():
        latent.codebooks.vectors.copy_(codebooks(outputs, 2, 5).vectors)
    A = torch.randn(4, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    h = outputs.clone().requires_grad_()
    code = latent(h, None)
    torch.testing.assert_close(code.z, code.mean, rtol=0, atol=1e-14)
    z = code.mean.clone().requires_grad_()
    torch.testing.assert_close(
        torch.autograd.grad((code.z @ A).sin().sum(), h)[0],
        torch.autograd.grad((z @ A).sin().sum(), z)[0],
    )
    # The commitment pulls outputs to their codes and nothing else.
    penalty = latent.penalty(code, h, None, torch.ones(300), None)
    torch.testing.assert_close(penalty, 0.5 * (h - code.mean).square().sum(-1))
    torch.testing.assert_close(torch.autograd.grad(penalty.sum(), h)[0], h.detach() - code.mean)


def test_components_that_codebooks_cannot_share(curved):
    with pytest.raises(ValueError, match=r"^n_components=4 .*n_codebooks=3\.$"):
        small(n_codebooks=3).fit(curved)


@pytest.mark.parametrize("indices", [[[6]], [[-1]], [[0, 0]], [[0.5]]])
def test_numbers_of_no_code(curved, indices):
    fitted = small(max_epochs=0).fit(curved)
    with pytest.raises(ValueError, match="indices must be integers from 0 to 5 in 1 columns"):
        fitted.dequantize(indices)


# ---------------------------------------------------------------------- density


@pytest.mark.parametrize("noise", ["isotropic", "diagonal", 3.0])
@pytest.mark.parametrize("n_codebooks", [1, 2])
def test_the_density_is_a_sum_over_all_codes(digits, n_codebooks, noise):
    """Each with its share of the training rows, those of codebooks multiplied."""
    train = digits[:500]
    fitted = small(n_codebooks=n_codebooks, noise=noise, precision="float64").fit(train)
    shares = [np.bincount(column, minlength=6) / 500 for column in fitted.quantize(train).T]
    every = np.array(list(product(range(6), repeat=n_codebooks)))
    rows = fitted.inverse_transform(fitted.dequantize(every))
    share = np.prod([shares[b][every[:, b]] for b in range(n_codebooks)], axis=0)
    noise = np.broadcast_to(fitted.noise_variance_, 64)
    squares = ((digits[:, None] - rows) ** 2 / noise).sum(axis=-1)
    log_likelihood = -0.5 * (squares + np.log(2 * np.pi * noise).sum())
    expected = logsumexp(log_likelihood, b=share, axis=1)
    np.testing.assert_allclose(fitted.score_samples(digits), expected, rtol=1e-9)


def test_the_bernoulli_masses_of_all_rows_sum_to_one():
    rng = np.random.default_rng(0)
    X = (rng.random((300, 8)) < 0.3).astype(float)
    every = (np.arange(256)[:, None] >> np.arange(8) & 1).astype(float)
    fitted = small(2, n_codebooks=2, n_codes=3, likelihood="bernoulli", precision="float64").fit(X)
    assert np.exp(fitted.score_samples(every)).sum() == pytest.approx(1, abs=1e-9)


def test_codes_are_drawn_as_often_as_they_were_chosen(digits):
    fitted = small().fit(digits)
    share = np.bincount(fitted.quantize(digits)[:, 0], minlength=6) / len(digits)
    rows = fitted.sample(5000, mean=True, random_state=0)
    decoded = fitted.inverse_transform(fitted.dequantize(np.arange(6)[:, None]))
    drawn = ((rows[:, None] - decoded) ** 2).sum(axis=-1).argmin(axis=1)
    error = 4 * np.sqrt(share * (1 - share) / 5000)
    assert (abs(np.bincount(drawn, minlength=6) / 5000 - share) <= error).all()


@pytest.mark.parametrize("n_codebooks", [1, 2])
def test_codes_decode_under_the_conditions_of_rows(n_codebooks, monkeypatch):
    """The sum over all codes of each row, whose condition moves what they decode to."""
    monkeypatch.setattr("skae.density.enumeration.CODES_AT_ONCE", 5)
    encoder, decoder = make_bodies(MLP(4, (8,), "silu", 0.0), 4, 4 + 3, False, False)
    latent = Quantized(4, n_codebooks, 3, penalty_weight=1.0)
    parts = encoder, decoder, latent, make_likelihood("gaussian", 4, 0.5)
    network = Network(Inputs(4, (3,)), *parts, trim=0.0).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in network.parameters():
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
        network.likelihood.noise_variance.fill_(0.5)
        x = torch.randn(7, 4, generator=generator, dtype=torch.float64)
        kind = torch.arange(7)[:, None] % 3
        batch = Batch(torch.cat([x, kind], 1), torch.ones(7, dtype=torch.float64))
        held_out = torch.zeros(7, dtype=torch.bool)
        density = Enumeration.estimate(network, network.likelihood, batch, held_out)
        every = list(product(range(3), repeat=n_codebooks))
        terms = []
        for indices in every:
            z = latent.look_up(torch.tensor(indices)).expand(7, -1)
            share = math.prod(density.shares[b, i] for b, i in enumerate(indices))
            rows = Batch(x, batch.weight)
            terms.append(density.likelihood.log_prob(rows, network.outputs(z, batch)) + share.log())
        found = density.log_prob(network, batch)
    torch.testing.assert_close(found, torch.stack(terms).logsumexp(0))
    assert (network.outputs(z, batch)[0] != network.outputs(z, batch)[1]).any()


def test_too_many_codes_have_no_density(digits):
    fitted = small(n_codebooks=4, n_codes=32, max_epochs=1).fit(digits[:300])
    assert np.isfinite(fitted.transform(digits)).all()
    assert fitted.sample(3, random_state=0).shape == (3, 64)
    with pytest.raises(
        ValueError, match=r"at most 65536, got 1048576 with n_codes=32 and n_codebooks=4\."
    ):
        fitted.score_samples(digits)
