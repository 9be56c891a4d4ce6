"""The contract of latents: what every kind of code must satisfy, and the penalty that defines it.

Every check is a function of one latent. It must pass for each latent of the package, and it must
fail for a latent that is wrong in the way that the check looks for.
"""

import math
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from contracts import (
    altered_class,
    assert_fails,
    assert_passes,
    concrete_classes,
    draws,
    named_checks,
    normal,
)
from torch.autograd.functional import jacobian
from torch.distributions import (
    Bernoulli,
    Independent,
    Laplace,
    MultivariateNormal,
    Normal,
    kl_divergence,
)
from torch.nn import functional as F

from skae.nn.batch import Batch
from skae.nn.draws import Draws, KeyedDraws
from skae.nn.latent import Deterministic, Discrete, Latent, Standardized, Stochastic
from skae.variants.adversarial import Adversarial
from skae.variants.contractive import Contractive
from skae.variants.fair import Fair
from skae.variants.quantized import Quantized
from skae.variants.semisupervised import ClassAndStyle
from skae.variants.sparse import Bernoullian, Laplacian, TopK
from skae.variants.variational import Variational
from skae.variants.wasserstein import MOMENTS, WIDTHS, Matched

N, D, K = 8, 4, 3
X = normal(N, D)
WEIGHT = draws(1).uniform((N,)) + 0.2
CLASSES = torch.arange(N) % 3
NUMBER = normal(N, seed=2)
CONDITIONS = torch.cat([2 * F.one_hot(CLASSES, 3).double() - 1, NUMBER[:, None]], 1)
SHARES = torch.tensor([0.5, 0.3, 0.2]).double()


def encoder(n_inputs):
    """A smooth map from rows to what a latent turns into codes."""
    into, out = normal(D, 6, seed=3), normal(6, n_inputs, seed=4) / 3
    return lambda x: torch.tanh(x @ into.to(x)) @ out.to(x)


class RowDraws(KeyedDraws):
    """Draws that belong to rows, at the end of training."""

    def schedule(self):
        return torch.ones((), dtype=self.dtype)


# --------------------------------------------------------------- the definitions of the penalties


def no_penalty(case, code, draws):
    return torch.zeros(N).double()


def squared_norm(case, code, draws):
    """That of the encoder's Jacobian, or of its products with as many random directions."""
    J = torch.stack([jacobian(lambda row: case.encode(row[None])[0], row) for row in X])
    n = case.latent.n_projections
    if n is not None and draws is not None:
        J = draws.normal((n, N, K)).movedim(0, 1) / math.sqrt(n) @ J
    return 0.3 * J.square().sum((1, 2))


def laplace_density(case, code, draws):
    """Minus the log-density of a Laplace prior, less its value at the most likely code."""
    prior = Laplace(*torch.tensor([0, 1 / 0.3], dtype=torch.float64))
    assert (code.z >= 0).all()
    return (prior.log_prob(prior.mean) - prior.log_prob(code.z)).sum(-1)


def divergence_of_rates(case, code, draws):
    rates = torch.tensor(np.average(case.h.sigmoid(), axis=0, weights=WEIGHT))
    target = torch.tensor(0.1, dtype=torch.float64)
    return 0.7 * kl_divergence(Bernoulli(target), Bernoulli(rates)).sum()


def stated(h):
    """torch's distribution of the codes that an encoder's output stands for."""
    mean, raw, below = h[:, :K], h[:, K : 2 * K], h[:, 2 * K :]
    deviation = torch.where(raw < 0, raw.exp(), 1 + raw)
    if not below.shape[1]:
        return Independent(Normal(mean, deviation), 1)
    factor = deviation.diag_embed()
    factor[:, *np.tril_indices(K, -1)] = below
    return MultivariateNormal(mean, scale_tril=factor)


def standard(n):
    return MultivariateNormal(torch.zeros(n, K).double(), torch.eye(K).double())


def divergence(h):
    """Kullback-Leibler divergence of the stated distributions from the standard normal one."""
    posterior = stated(h)
    if isinstance(posterior, MultivariateNormal):
        return kl_divergence(posterior, standard(N))
    return kl_divergence(posterior, Independent(Normal(torch.zeros(N, K).double(), 1.0), 1))


def weighted_divergence(case, code, draws):
    return 2.5 * divergence(case.h)


def log_ratio(case, code, draws):
    """Of the densities of codes under their posteriors and the prior."""
    return 2.5 * (stated(case.h).log_prob(code.z) - standard(N).log_prob(code.z))


def divergence_and_adversaries(case, code, draws):
    """Adversaries that have learned nothing guess equal classes and the mean number."""
    if draws is None:
        return divergence(case.h)
    variance = np.average(NUMBER**2, weights=WEIGHT)
    return divergence(case.h) - 2.0 * (math.log(3) + 0.5 * NUMBER**2 / variance)


def divergence_per_class(case, code, draws):
    """Of the style given a class, and minus the logarithm of the class's share."""
    styles = case.h[:, 3:].unflatten(1, (3, 2 * K)).movedim(1, 0)
    return torch.stack([divergence(h) for h in styles]) - SHARES.log()[:, None]


def squared_distance(case, code, draws):
    """To the nearest of all codes that the codebooks can make."""
    books = case.latent.codebooks.vectors
    every = torch.stack([torch.cat(parts) for parts in product(*books)])
    return 0.5 * torch.cdist(case.h, every).square().amin(1)


def discrepancy(case, code, draws):
    """The unbiased maximum mean discrepancy from draws of the prior, pair by pair."""
    if draws is None:
        return torch.zeros(())
    z, prior = code.z.detach().numpy(), draws.normal((N, K)).numpy()

    def kernel(a, b):
        square = ((a - b) ** 2).sum()
        quadrics = sum(2 * K * w / (2 * K * w + square) for w in WIDTHS)
        return quadrics + MOMENTS * (a @ b + (a @ b) ** 2)

    def mean(a, u, b, v, distinct):
        pairs = [(i, j) for i in range(N) for j in range(N) if not (distinct and i == j)]
        total = sum(u[i] * v[j] * kernel(a[i], b[j]) for i, j in pairs)
        return total / sum(u[i] * v[j] for i, j in pairs)

    weight, one = WEIGHT.numpy(), np.ones(N)
    within = mean(z, weight, z, weight, True) + mean(prior, one, prior, one, True)
    return torch.tensor(200 * (within - 2 * mean(z, weight, prior, one, False)))


def log_loss_of_the_adversary(case, code, draws):
    """That of taking codes for draws of the prior."""
    if draws is None and not case.latent.training:
        return torch.zeros(N).double()
    logits = case.latent.judge(code.z)[:, 0]
    return 3 * F.binary_cross_entropy_with_logits(logits, torch.ones(N).double(), reduction="none")


# ------------------------------------------------------------------------------------ the latents

LATENTS = {
    "deterministic": (Deterministic, (K,), no_penalty),
    "standardized": (Standardized, (K, 2.0), no_penalty),
    "contractive": (Contractive, (K, 0.3, None), squared_norm),
    "contractive-projected": (Contractive, (K, 0.3, 2), squared_norm),
    "l1": (Laplacian, (K, 0.3), laplace_density),
    "kl": (Bernoullian, (K, 0.7, 0.1), divergence_of_rates),
    "topk": (TopK, (K, 2), no_penalty),
    "topk-all": (TopK, (K, K), no_penalty),
    "variational": (Variational, (K, False, 2.5, 0.1, 1), weighted_divergence),
    "variational-full": (Variational, (K, True, 2.5, 0.0, 1), weighted_divergence),
    "importance-weighted": (Variational, (K, False, 2.5, 0.1, 4), log_ratio),
    "importance-weighted-full": (Variational, (K, True, 2.5, 0.0, 4), log_ratio),
    "private": (Fair, (K, 2.0, [3, 1]), divergence_and_adversaries),
    "class-and-style": (ClassAndStyle, (K, SHARES.log()), divergence_per_class),
    "quantized": (Quantized, (K, 1, 5, 0.5), squared_distance),
    "quantized-parts": (Quantized, (K, 3, 4, 0.5), squared_distance),
    "wasserstein": (Matched, (K, 200.0), discrepancy),
    "adversarial": (Adversarial, (K, 3.0), log_loss_of_the_adversary),
}
"""Classes, their arguments and the definitions of their penalties."""


def has_exact_gradient(latent):
    """A straight-through gradient is no derivative, nor is that of codes that are drawn several
    times, which leaves out a part whose expectation is 0."""
    return not isinstance(latent, Quantized) and getattr(latent, "n_samples", 1) == 1


NO_REPETITIONS = {Matched}
"""An unbiased discrepancy leaves out pairs of a row with itself, but not pairs of equal rows."""


def test_every_latent_is_checked():
    assert concrete_classes(Latent) == {kind for kind, _, _ in LATENTS.values()}


def case_of(kind, arguments, definition):
    """A latent that has started from rows, these rows, and its encoder."""
    latent = kind(*arguments).double()
    encode = encoder(latent.n_inputs)
    with torch.no_grad():
        h = encode(X)
        latent.start_from(h, WEIGHT, torch.Generator().manual_seed(0))
    return SimpleNamespace(latent=latent, encode=encode, h=h, definition=definition)


def code_of(case, x=X, draws=None):
    """The code of rows, with the conditions that the decoder sees."""
    conditions = CONDITIONS[: len(x)].to(x)
    return case.latent(case.encode(x), draws)._replace(conditions=conditions)


def rows_of(tensor, rows):
    """Some rows of codes (..., n, k)."""
    return tensor[..., rows, :]


# --------------------------------------------------------------------------------- the contract


def check_shapes(case):
    """Codes are `n_outputs` numbers; penalties are of rows, of each drawn code, or of the batch."""
    latent = case.latent
    for some in (None, draws()):
        code = code_of(case, draws=some)
        assert code.mean.shape == (N, latent.n_outputs)
        assert code.z.shape[-2:] == (N, latent.n_outputs)
        assert code.h.shape == (N, latent.n_inputs)
        penalty = latent.penalty(code, X, case.encode, WEIGHT, some)
        losses = penalty + code.z.sum(-1)
        assert losses.isfinite().all()
        assert some is None or losses.shape == code.z.shape[:-1]
        targets = {"targets": F.one_hot(CLASSES, 3).double(), "target_weight": WEIGHT[:, None]}
        bound = latent.bound(losses, code, some, Batch(X, WEIGHT, **targets))
        assert bound.shape == (N,)
    assert sum(latent.blocks()) == latent.n_inputs


def check_dtype(case):
    """A latent computes with the dtype of its input."""
    case.latent.float()
    try:
        for some in (None, Draws(torch.Generator(), torch.float32)):
            code = code_of(case, X.float(), some)
            penalty = case.latent.penalty(code, X.float(), case.encode, WEIGHT.float(), some)
            losses = code.z.sum(-1) + penalty
            assert {code.z.dtype, code.mean.dtype, losses.dtype} == {torch.float32}
    finally:
        case.latent.double()


def check_draws(case):
    """Codes are random by their draws only: without any, or with the same, they are the same."""
    for make in (lambda: None, draws):
        one, same = code_of(case, draws=make()), code_of(case, draws=make())
        assert torch.equal(one.z, same.z)
        assert torch.equal(one.mean, same.mean)
    if isinstance(case.latent, Stochastic):
        assert not torch.equal(code_of(case, draws=draws(0)).z, code_of(case, draws=draws(1)).z)
    outside = [case.latent(case.h, case.latent.inference_draws(X)).mean for _ in range(2)]
    assert torch.equal(*outside)


def check_rows(case):
    """Neither codes nor the penalties of rows depend on other rows."""
    latent = case.latent
    some = torch.tensor([5, 1, 6])
    for make, trains in ((lambda x: None, True), (RowDraws, False)):
        latent.train(trains)
        whole = code_of(case, draws=make(X))
        part = code_of(case, X[some], make(X[some]))
        torch.testing.assert_close(part.mean, rows_of(whole.mean, some))
        torch.testing.assert_close(part.z, rows_of(whole.z, some))
        penalties = [
            torch.as_tensor(latent.penalty(code, x, case.encode, weight, make(x)))
            for code, x, weight in ((whole, X, WEIGHT), (part, X[some], WEIGHT[some]))
        ]
        if penalties[0].ndim:
            torch.testing.assert_close(penalties[1], penalties[0][..., some])


def check_penalty(case):
    """The penalty is its definition, in training and outside."""
    latent = case.latent
    for trains in (True, False):
        latent.train(trains)
        code = code_of(case, draws=draws(7) if trains else None)
        found = latent.penalty(code, X, case.encode, WEIGHT, draws(8) if trains else None)
        expected = case.definition(case, code, draws(8) if trains else None)
        found = torch.as_tensor(found).double().expand(expected.shape)
        torch.testing.assert_close(found, expected.double(), rtol=1e-9, atol=1e-9)


def check_gradient(case):
    """The gradient that reaches rows is the numerical derivative, or at least it is finite."""
    latent = case.latent.train()
    with torch.no_grad():
        for seed, p in enumerate(latent.parameters()):  # adversaries that have learned something
            p.add_(0.3 * normal(*p.shape, seed=seed).to(p))
    directions = normal(N, latent.n_outputs, seed=9)

    def objective(x):
        code = code_of(case, x, draws(7))
        penalty = latent.penalty(code, x, case.encode, WEIGHT, draws(8))
        return ((code.z * directions).sum(-1) + penalty).sum()

    x = X.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(objective(x), x)
    assert gradient.isfinite().all()
    assert gradient.any(1).all()
    if has_exact_gradient(latent):
        assert torch.autograd.gradcheck(objective, x, raise_exception=False)


def check_weights(case):
    """A row of weight 2 counts as much as two rows."""
    latent = case.latent.train()
    if type(latent) in NO_REPETITIONS:
        return
    times = torch.arange(N) % 3
    rows = torch.arange(N).repeat_interleave(times)
    totals = []
    for index, weight in (
        (torch.arange(N), times.double()),
        (rows, torch.ones(len(rows)).double()),
    ):
        x = X[index]
        code = latent(case.encode(x), RowDraws(x))._replace(conditions=CONDITIONS[index])
        weight = weight.double()
        penalty = latent.penalty(code, x, case.encode, weight, RowDraws(x))
        totals.append((penalty * weight / weight.sum()).expand(code.z.shape[:-1]).sum(-1))
    torch.testing.assert_close(*totals)


def check_start(case):
    """A linear code starts on principal axes, of which the decoder makes no more than there is."""
    if not case.latent.is_linear:
        return
    values, rest = torch.tensor([4.0, 1.0]).double(), 0.25
    start = case.latent.start(values, rest)
    assert start.bias.shape == (case.latent.n_inputs,)
    assert start.bias.isfinite().all()
    assert (start.down > 0).all()
    kept = (values - rest) / values if isinstance(case.latent, Stochastic) else values.new_ones(2)
    torch.testing.assert_close(start.down * start.up, kept)


def check_stochastic(case):
    """Proposals and draws of the prior state their densities, and the divergence is their ratio."""
    latent, h, n = case.latent, case.h[:3] / 4, 20_000
    if not isinstance(latent, Stochastic):
        return
    z, log_q = latent.propose(h, n, draws())
    assert (z.shape, log_q.shape) == ((n, 3, latent.n_outputs), (n, 3))
    log_ratio = latent.log_prior(z) - log_q

    def assert_mean(cells, expected):
        error = 5 * cells.std(0) / n**0.5 + 1e-9
        assert ((cells.mean(0) - expected).abs() <= error).all()

    assert_mean(log_ratio.exp(), 1.0)
    assert_mean(-log_ratio, latent.divergence(h))
    assert_mean(z, latent(h, None).mean.reshape(3, -1))
    drawn = latent.draw_prior(n, draws(1))
    assert drawn.shape == (n, latent.n_outputs)
    for power in (1, 2):
        weighted = log_ratio.exp()[..., None] * z**power
        assert_mean(weighted - (drawn**power)[:, None], 0.0)


def check_discrete(case):
    """The code is the nearest of the codes that its numbers stand for."""
    latent = case.latent
    if not isinstance(latent, Discrete):
        return
    indices = latent.indices(case.h)
    assert indices.shape == (N, latent.n_codebooks)
    assert 0 <= int(indices.min()) <= int(indices.max()) < latent.n_codes
    codes = latent.look_up(indices)
    torch.testing.assert_close(code_of(case).mean, codes)
    numbers = range(latent.n_codes)
    every = torch.tensor([*product(numbers, repeat=latent.n_codebooks)])
    distances = torch.cdist(case.h, latent.look_up(every))
    torch.testing.assert_close((case.h - codes).norm(dim=1), distances.amin(1))
    torch.testing.assert_close(latent.look_up(latent.indices(codes)), codes)


def check_adaptation(case):
    """What gradients do not train follows rows, without a gradient or a change to the rows."""
    latent, h = case.latent, case.h.clone()
    with torch.no_grad():
        latent.adapt(lambda: h, WEIGHT, draws())
        latent.start_from(h, WEIGHT, torch.Generator().manual_seed(1))
    assert torch.equal(h, case.h)
    assert all(p.isfinite().all() for p in latent.parameters())
    assert latent.warning(code_of(case), WEIGHT) is None


CHECKS = named_checks(globals())


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", LATENTS)
def test_contract(name, check):
    assert_passes(CHECKS[check], case_of(*LATENTS[name]))


# ---------------------------------------------------------------------------- negative controls


NOISE = iter(normal(100, N, K))


def with_noise(self, h, draws):
    """A code that is random without draws."""
    code = Deterministic.forward(self, h, draws)
    return code._replace(z=code.z + next(NOISE))


WRONG = {
    "shapes": ("deterministic", {"blocks": lambda self: [K + 1]}),
    "dtype": (
        "deterministic",
        {"forward": lambda self, h, draws: Deterministic.forward(self, h.double(), draws)},
    ),
    "draws": (
        "deterministic",
        {"forward": with_noise},
    ),
    "rows": (  # centers the codes of a batch
        "deterministic",
        {"forward": lambda self, h, draws: Deterministic.forward(self, h - h.mean(0), draws)},
    ),
    "penalty": ("l1", {"penalty": lambda self, code, *_: code.z.sum(-1)}),
    "gradient": (
        "kl",
        {
            "penalty": lambda self, code, *rest: Bernoullian.penalty(
                self, code._replace(z=code.z.detach()), *rest
            )
        },
    ),
    "weights": (
        "kl",
        {
            "penalty": lambda self, code, x, encode, weight, draws: Bernoullian.penalty(
                self, code, x, encode, torch.ones_like(weight), draws
            )
        },
    ),
    "start": (  # the decoder of a code of variance 1 without its scale
        "standardized",
        {
            "start": lambda self, values, rest: Standardized.start(self, values, rest)._replace(
                up=torch.ones_like(values)
            )
        },
    ),
    "stochastic": (
        "variational",
        {"divergence": lambda self, h: Variational.divergence(self, h) + 0.5 * K},
    ),
    "discrete": (
        "quantized",
        {"indices": lambda self, h: (Quantized.indices(self, h) + 1) % self.n_codes},
    ),
    "adaptation": (
        "deterministic",
        {"adapt": lambda self, encode, weight, draws: encode().sub_(1)},
    ),
}


def wrong_case(name, methods):
    kind, arguments, definition = LATENTS[name]
    return case_of(altered_class(kind, methods), arguments, definition)


@pytest.mark.parametrize("check", CHECKS)
def test_a_wrong_latent_fails(check):
    assert_fails(CHECKS[check], wrong_case(*WRONG[check]))


def altered(kind, change):
    """A penalty of a kind of code that is changed by a function of it and of the code."""
    return {"penalty": lambda self, code, *rest: change(kind.penalty(self, code, *rest), code)}


WRONG_PENALTIES = {
    "the norm, not its square": ("contractive", altered(Contractive, lambda p, code: p.sqrt())),
    "twice the norm of projections": (
        "contractive-projected",
        altered(Contractive, lambda p, code: 2 * p),
    ),
    "a mean over components": ("l1", altered(Laplacian, lambda p, code: p / K)),
    "the divergence of the target from rates, reversed": (
        "kl",
        {
            "penalty": lambda self, code, x, encode, weight, draws: (
                0.7
                * kl_divergence(
                    Bernoulli(weight @ code.z / weight.sum()),
                    Bernoulli(torch.tensor(0.1, dtype=torch.float64)),
                ).sum()
            )
        },
    ),
    "a divergence without its constant": (
        "variational",
        altered(Variational, lambda p, code: p + 2.5 * K / 2),
    ),
    "a divergence without beta": ("variational", altered(Variational, lambda p, code: p / 2.5)),
    "a divergence of the diagonal alone": (
        "variational-full",
        altered(Variational, lambda p, code: p - 1.25 * code.h[:, 2 * K :].square().sum(1)),
    ),
    "an importance ratio upside down": (
        "importance-weighted",
        altered(Variational, lambda p, code: -p),
    ),
    "a reward for adversaries": ("private", altered(Fair, lambda p, code: -p)),
    "classes that are equally likely": (
        "class-and-style",
        altered(ClassAndStyle, lambda p, code: p + SHARES.log()[:, None] + math.log(3)),
    ),
    "the distance, not its square": ("quantized", altered(Quantized, lambda p, code: p.sqrt())),
    "a discrepancy without its weight": ("wasserstein", altered(Matched, lambda p, code: p / 200)),
    "the loss of the other class": (
        "adversarial",
        {"penalty": lambda self, code, *_: 3 * F.softplus(self.judge(code.z)[:, 0])},
    ),
}


@pytest.mark.parametrize("fault", WRONG_PENALTIES)
def test_a_wrong_penalty_fails(fault):
    assert_fails(check_penalty, wrong_case(*WRONG_PENALTIES[fault]))


# ------------------------------------------------------------------------------- single latents


@pytest.mark.parametrize("n_projections", [1, 4])
def test_projections_estimate_the_norm_without_bias(n_projections):
    """The more of them, the less noise: |J'v|^2 has twice the squared norm of JJ' as variance."""
    n = 4000
    latent, row = Contractive(K, 1.0, n_projections), X[:1].expand(n, -1)
    encode = encoder(K)
    J = jacobian(lambda x: encode(x[None])[0], X[0])
    weight = torch.ones(n).double()
    estimates = latent.penalty(latent(encode(row), None), row, encode, weight, draws())
    assert abs(estimates.mean() - J.square().sum()) < 4 * estimates.std() / n**0.5
    variance = 2 * (J @ J.mT).square().sum() / n_projections
    torch.testing.assert_close(estimates.var(), variance, rtol=0.25, atol=0)


def test_codes_of_variance_1_start_at_variance_1():
    variances = torch.tensor([4.0, 0.25]).double()
    down = Matched(K, 200.0).start(variances, 0.1).down
    torch.testing.assert_close(down**2 * variances, torch.ones(2).double())


@pytest.mark.parametrize("full", [False, True])
def test_a_variational_code_starts_at_the_posterior_of_probabilistic_pca(full):
    """Mean and covariance of codes given a row, for a decoder with the start's weights."""
    variances, noise = torch.tensor([4.0, 2.0, 1.0]).double(), 0.25
    latent = Variational(K, full, 1.0, 0.0, 1)
    start = latent.start(variances, noise)
    W = start.up.diag()
    covariance = torch.linalg.inv(torch.eye(K).double() + W.mT @ W / noise)
    torch.testing.assert_close(start.down.diag(), covariance @ W.mT / noise)
    posterior = latent.posterior(start.bias[None])
    found = posterior.covariance()[0]
    torch.testing.assert_close(found if full else found.diag(), covariance)
    torch.testing.assert_close(W @ W.mT + noise * torch.eye(K).double(), variances.diag())


def test_codes_that_are_hardly_used_are_named():
    case = case_of(*LATENTS["variational"])
    code = code_of(case)
    mean = torch.cat([code.mean[:, :1], torch.zeros(N, K - 1).double()], 1)
    text = case.latent.warning(code._replace(mean=mean), WEIGHT)
    assert "of 3 components only [0] are active" in text
    case = case_of(*LATENTS["quantized"])
    code = code_of(case)._replace(h=case.h[:1].expand(N, -1))
    assert "Only 1 of n_codes=5" in case.latent.warning(code, WEIGHT)
