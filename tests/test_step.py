"""A traced step gives autograd's bits; the fused update gives `torch.optim.Adam`'s."""

import pytest
import torch
from torch import nn

from skae.nn.batch import Batch
from skae.nn.bodies.body import make_bodies
from skae.nn.bodies.layers import ACTIVATIONS
from skae.nn.bodies.mlp import MLP
from skae.nn.draws import Draws, RecordedDraws, ReplayedDraws
from skae.nn.inputs import Inputs
from skae.nn.latent import Deterministic
from skae.nn.likelihoods import make_likelihood
from skae.nn.network import Network
from skae.nn.pca import DistinctRows, column_moments
from skae.nn.step.adam import Adam
from skae.nn.step.replay import Step

ALWAYS, NEVER = 10**9, 0
"""Steps ahead that make a trace pay, or not."""


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def network(dtype, likelihood="gaussian", dropout=0.3, trim=0.2, tied=False, activation="silu"):
    """A small network at a start where nothing is zero."""
    made = Network(
        Inputs(5),
        *make_bodies(MLP(5, (8,), activation, dropout), 2, 2, True, tied),
        Deterministic(2),
        make_likelihood(likelihood, 5, "isotropic"),
        trim,
    ).to(dtype)
    x = torch.rand(40, 5, generator=generator(1), dtype=torch.float64)
    rows, nothing = (DistinctRows(part, torch.arange(40)) for part in (x, x[:, :0]))
    made.start(rows, torch.ones(40), column_moments(rows, torch.ones(40)), generator(), nothing)
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator(2), dtype=dtype))
    return made


def batch(dtype, n=16):
    x = torch.rand(n, 5, generator=generator(3), dtype=dtype)
    return Batch(x, 0.5 + torch.rand(n, generator=generator(4), dtype=dtype))


def cells(x):
    """Rows of weight 1."""
    return Batch(x, torch.ones(len(x), dtype=x.dtype))


def a_step(module, dtype):
    return Step(module, list(module.parameters()), Draws(generator(5), dtype))


def run(module, dtype, ahead, batches):
    """What a step gives for each batch."""
    step = a_step(module, dtype)
    results = [step(b, ahead) for b in batches]
    return step, results


def assert_same_bits(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert torch.equal(x, y)


OPTIONS = [
    {},
    {"dropout": 0.0},
    {"trim": 0.0},
    {"tied": True},
    {"likelihood": "bernoulli"},
    *({"activation": name} for name in ACTIVATIONS),
]


@pytest.mark.parametrize(
    ("dtype", "options"),
    [(torch.float32, {}), *((torch.float64, options) for options in OPTIONS)],
    ids=str,
)
def test_traced_step_has_autograds_bits(dtype, options):
    module = network(dtype, **options)
    batches = [batch(dtype), batch(dtype, 7), batch(dtype), batch(dtype, 7)]
    step, traced = run(module, dtype, ALWAYS, batches)
    assert len(step._replays) == 2
    assert all(replay is not None for replay in step._replays.values())
    _, plain = run(module, dtype, NEVER, batches)
    for a, b in zip(traced, plain, strict=True):
        assert_same_bits(a, b)


def test_gradients_are_autograds():
    dtype = torch.float64
    module, rows = network(dtype), batch(dtype)
    _, [[loss, *gradients]] = run(module, dtype, NEVER, [rows])
    expected = module(Draws(generator(5), dtype), rows)
    expected.backward()
    assert torch.equal(loss, expected)
    assert_same_bits(gradients, [p.grad for p in module.parameters()])


def test_a_trace_follows_the_weights():
    """Weights that an optimiser changes in place are seen by the replay."""
    dtype = torch.float64
    module, rows = network(dtype), batch(dtype)
    step = a_step(module, dtype)
    step(rows, ALWAYS)
    with torch.no_grad():
        for p in module.parameters():
            p.mul_(1.1)
    replayed = step(rows, ALWAYS)
    plain = a_step(module, dtype)
    plain(rows, NEVER)
    assert_same_bits(replayed, plain(rows, NEVER))


def test_few_steps_are_not_traced():
    step, _ = run(network(torch.float64), torch.float64, 1, [batch(torch.float64)])
    assert step._replays == {}


class Untraceable(nn.Module):
    """Its loss takes a branch that depends on the data."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.5, -2.0], dtype=torch.float64))

    def forward(self, draws, batch):
        noise = draws.normal(batch.x.shape)
        y = ((batch.x + noise) * self.weight).sum()
        return y * y if float(y.detach()) > 0 else -3 * y


def test_what_cannot_be_traced_stays_with_autograd():
    tables = [torch.randn(4, 2, generator=generator(i), dtype=torch.float64) for i in range(6)]
    rows = [cells(x) for x in tables]
    module = Untraceable()
    step, given = run(module, torch.float64, ALWAYS, rows)
    assert list(step._replays.values()) == [None]
    assert step.n_traced == 0
    assert len(step.failures) == 1
    _, plain = run(module, torch.float64, NEVER, rows)
    for a, b in zip(given, plain, strict=True):
        assert_same_bits(a, b)
    signs = {bool(loss > 0) for loss, _ in given}
    assert signs <= {True}
    draws = Draws(generator(5), torch.float64)
    for batch, (loss, gradient) in zip(rows, given, strict=True):
        module.zero_grad()
        expected = module(draws, batch)
        expected.backward()
        assert torch.equal(loss, expected)
        assert torch.equal(gradient, module.weight.grad)


class Unused(nn.Module):
    """One parameter does not enter the loss."""

    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.ones(2))
        self.b = nn.Parameter(torch.ones(2))

    def forward(self, draws, batch):
        return (batch.x * self.a).sum()


@pytest.mark.parametrize("ahead", [ALWAYS, NEVER])
def test_unused_parameters_have_zero_gradients(ahead):
    _, [[_, a, b]] = run(Unused(), torch.float32, ahead, [cells(torch.ones(3, 2))])
    assert torch.equal(a, torch.full((2,), 3.0))
    assert torch.equal(b, torch.zeros(2))


def test_tracing_draws_nothing():
    dtype = torch.float64
    generators = [generator(5), generator(5)]
    for source, ahead in zip(generators, (ALWAYS, NEVER), strict=True):
        module = network(dtype)
        Step(module, list(module.parameters()), Draws(source, dtype))(batch(dtype), ahead)
    assert torch.equal(generators[0].get_state(), generators[1].get_state())


def test_noted_draws_can_be_given_again():
    noted = RecordedDraws(generator(), torch.float64)
    first = [noted.normal((3, 2)), noted.uniform((4,))]
    assert noted.requests == [("randn", (3, 2)), ("rand", (4,))]
    given = ReplayedDraws(first)
    assert given.normal((3, 2)) is first[0]
    assert given.uniform((4,)) is first[1]
    plain = Draws(generator(), torch.float64)
    assert_same_bits(first, [plain.normal((3, 2)), plain.uniform((4,))])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_update_is_adams(dtype, weight_decay):
    def parameters():
        return [
            nn.Parameter(torch.randn(shape, generator=generator(6), dtype=dtype))
            for shape in ((5, 3), (3,), (200, 7))
        ]

    mine, theirs = parameters(), parameters()
    ours = Adam([{"params": mine[::2]}, {"params": mine[1:2]}], lr=1e-2)
    reference = torch.optim.Adam(theirs, lr=1e-2, eps=1e-5, weight_decay=weight_decay, fused=True)
    for group in ours.param_groups:
        group["weight_decay"] = weight_decay
    source = generator(7)
    for i in range(20):
        rate = 1e-2 / (1 + i)
        gradients = [torch.randn(p.shape, generator=source, dtype=dtype) for p in mine]
        reference.param_groups[0]["lr"] = rate
        ours.update([*gradients[::2], gradients[1]], rate)
        for p, gradient in zip(theirs, gradients, strict=True):
            p.grad = gradient
        reference.step()
        assert_same_bits(mine, theirs)
        if i == 10:  # what a loaded optimiser counts and remembers goes on
            state = ours.state_dict()
            ours = Adam([{"params": mine[::2]}, {"params": mine[1:2]}], lr=1e-2)
            ours.load_state_dict(state)
    for p, q in zip(mine, theirs, strict=True):
        for name in ("step", "exp_avg", "exp_avg_sq"):
            assert torch.equal(ours.state[p][name], reference.state[q][name])


def test_update_leaves_gradients_as_they_were():
    p = nn.Parameter(torch.ones(4))
    optimizer = Adam([{"params": [p]}], lr=0.1)
    optimizer.param_groups[0]["weight_decay"] = 0.5
    gradient = torch.full((4,), 2.0)
    optimizer.update([gradient], 0.1)
    assert torch.equal(gradient, torch.full((4,), 2.0))
    assert (p < 1).all()


class CountsItsCalls(nn.Module):
    """Writes to a buffer of its own, as batch normalisation does."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, draws, batch):
        self.calls += 1
        return (batch.x * self.weight).sum() * self.calls


def test_a_module_that_changes_its_buffers_stays_with_autograd():
    rows = cells(torch.ones(3, 2))
    module = CountsItsCalls()
    step, results = run(module, torch.float32, ALWAYS, [rows] * 3)
    assert list(step._replays.values()) == [None]
    assert step.failures == ["the step changes buffers"]
    assert module.calls == 3
    assert [float(loss) for loss, _ in results] == [6, 12, 18]


class Wrong(nn.Module):
    """Gives another loss at every call, drawn elsewhere."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.calls = 0

    def forward(self, draws, batch):
        self.calls += 1
        return (batch.x * self.weight).sum() * self.calls


def test_a_trace_that_differs_from_autograd_is_not_used():
    step, _ = run(Wrong(), torch.float32, ALWAYS, [cells(torch.ones(3, 2))])
    assert list(step._replays.values()) == [None]
    assert step.failures == ["the replay differs from autograd"]
