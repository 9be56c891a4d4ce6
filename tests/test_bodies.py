"""The contract of bodies: what encoders and decoders of every architecture must satisfy.

Every check is a function of one pair of encoder and decoder. It must pass for each architecture,
and it must fail for a pair that is wrong in the way that the check looks for.
"""

from types import SimpleNamespace

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
from torch import nn
from torch.autograd.functional import jacobian

from skae.nn.bodies.body import Architecture, Body, make_bodies
from skae.nn.bodies.convolution import Convolutional, halvings
from skae.nn.bodies.layers import ACTIVATIONS, Chain, Dense, apply_dropout, dense_chain
from skae.nn.bodies.mlp import MLP
from skae.nn.bodies.modules import UserModules
from skae.nn.bodies.recurrent import Recurrent, SequenceEncoder
from skae.nn.latent import Code
from skae.variants.contractive import Contractive

N, N_INPUTS, N_OUTPUTS = 6, 3, 2
STEPS, CHANNELS = 5, 2
IMAGES = [
    *((1, 8, 8), (1, 28, 28), (3, 5, 7), (3, 9, 4), (2, 1, 13), (1, 1, 2), (4, 6, 1), (1, 64, 3)),
]


class Pair:
    """A user's modules, which know rows as images."""

    def encoder(self, n_out):
        return nn.Sequential(nn.Conv2d(2, 4, 3), nn.SiLU(), nn.Flatten(), nn.Linear(12, n_out))

    def decoder(self, n_in):
        return nn.Sequential(
            nn.Linear(n_in, 12), nn.SiLU(), nn.Unflatten(1, (4, 3, 1)), nn.ConvTranspose2d(4, 2, 3)
        )


def mlp(widths=(6, 5), activation="silu", dropout=0.0):
    return MLP(4, widths, activation, dropout)


def conv(shape, depth=3, dropout=0.0):
    return Convolutional(shape, (3, 5, 4)[: min(depth, halvings(shape))], "silu", dropout)


def recurrent(widths=(5, 4), dropout=0.0):
    return Recurrent((STEPS, CHANNELS), widths, dropout)


DEFAULT = MLP(30, (4,), "silu", 0.0)
"""What creates the networks that an object of the user does not create."""

BODIES = {
    "mlp": (mlp, False, False),
    "mlp-skip": (mlp, True, False),
    "mlp-tied": (mlp, False, True),
    **{
        f"mlp-skip-tied-{activation}": (lambda a=activation: mlp((6, 5), a), True, True)
        for activation in ACTIVATIONS
    },
    "mlp-linear": (lambda: mlp(()), False, False),
    "mlp-linear-tied": (lambda: mlp(()), False, True),
    "mlp-linear-skip": (lambda: mlp(()), True, False),
    "mlp-linear-skip-tied": (lambda: mlp(()), True, True),
    **{f"conv-{shape}": (lambda shape=shape: conv(shape), False, False) for shape in IMAGES},
    "conv-skip": (lambda: conv((2, 1, 13)), True, False),
    "conv-linear": (lambda: conv((2, 5, 3), 0), False, False),
    "recurrent": (recurrent, False, False),
    "recurrent-skip": (lambda: recurrent((5,)), True, False),
    "modules": (lambda: UserModules(Pair(), (2, 5, 3), DEFAULT), False, False),
    "modules-skip": (lambda: UserModules(Pair(), (2, 5, 3), DEFAULT), True, False),
}
"""Makers of architectures, whether there is a linear skip, and whether weights are tied."""


def test_every_architecture_is_checked():
    assert concrete_classes(Architecture) == {type(make()) for make, _, _ in BODIES.values()}


def case_of(make, has_skip, is_tied):
    """Encoder and decoder with weights of which none is zero, rows and codes."""
    architecture = make()
    bodies = make_bodies(architecture, N_INPUTS, N_OUTPUTS, has_skip, is_tied)
    encoder, decoder = (body.double().eval() for body in bodies)
    case = SimpleNamespace(
        architecture=architecture,
        encoder=encoder,
        decoder=decoder,
        x=normal(N, architecture.n_outputs),
        z=normal(N, N_OUTPUTS, seed=1),
        is_tied=is_tied,
    )
    reset(case)
    with torch.no_grad():
        for seed, p in enumerate([*encoder.parameters(), *decoder.parameters()]):
            p.add_(0.3 * normal(*p.shape, seed=seed))
    return case


def reset(case, seed=0):
    """Draw the weights as a network does that starts; those of linear maps are the network's."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for body in (case.encoder, case.decoder):
            if body.skip is not None:
                body.skip.weight.copy_(normal(*body.skip.weight.shape, seed=2))
            body.reset(generator)


def pairs(case):
    return (case.encoder, case.x), (case.decoder, case.z)


# --------------------------------------------------------------------------------- the contract


def check_shapes(case):
    """Rows become codes and codes rows; leading axes stay and change nothing."""
    codes, rows = case.encoder(case.x), case.decoder(case.z)
    assert (codes.shape, rows.shape) == ((N, N_INPUTS), (N, case.architecture.n_outputs))
    for (body, x), out in zip(pairs(case), (codes, rows), strict=True):
        several = body(x.reshape(2, 3, -1))
        torch.testing.assert_close(several, out.reshape(2, 3, -1))


def check_dtype(case):
    """A body computes with the dtype of its weights."""
    for body, x in pairs(case):
        assert body.float()(x.float()).dtype == torch.float32


def check_rows(case):
    """No row depends on another one."""
    some = torch.tensor([4, 0, 5])
    for body, x in pairs(case):
        torch.testing.assert_close(body(x[some]), body(x)[some])
        torch.testing.assert_close(body(x[:1]), body(x)[:1])


def check_gradient(case):
    """Gradients are numerical derivatives, and they reach every weight."""
    for body, x in pairs(case):
        x = x[:2].clone().requires_grad_()
        assert torch.autograd.gradcheck(body, x, fast_mode=True, raise_exception=False)
        gradients = torch.autograd.grad(body(x).square().sum(), [x, *body.parameters()])
        assert all(gradient.isfinite().all() and gradient.any() for gradient in gradients)


def check_derivative(case):
    """The squared norm of the encoder's Jacobian, a penalty, can be computed and trained."""
    code = Code(case.x, case.x, case.x)
    latent, weight = Contractive(N_INPUTS, 0.3, None), torch.ones(N).double()
    penalty = latent.penalty(code, case.x, case.encoder, weight, None)
    each = [jacobian(lambda row: case.encoder(row[None])[0], row) for row in case.x]
    torch.testing.assert_close(penalty, 0.3 * torch.stack(each).square().sum((1, 2)))
    parameters = [*case.encoder.parameters()]
    gradients = torch.autograd.grad(penalty.sum(), parameters, allow_unused=True)
    assert any(gradient is not None and gradient.any() for gradient in gradients)
    assert all(gradient is None or gradient.isfinite().all() for gradient in gradients)


def check_linearization(case):
    """Densities need the decoder's outputs and their derivatives along directions of the code."""
    directions = normal(3, N_OUTPUTS, seed=3)
    linear = case.decoder.linearize(case.z, directions)
    each = [jacobian(lambda code: case.decoder(code[None])[0], code) for code in case.z]
    torch.testing.assert_close(linear.out, case.decoder(case.z))
    torch.testing.assert_close(linear.jacobian(), torch.stack(each) @ directions.mT)


def check_reset(case):
    """The generator alone decides the weights."""
    states = []
    for seed in (0, 0, 1):
        reset(case, seed)
        states.append([p.clone() for body, _ in pairs(case) for p in body.parameters()])
    one, same, other = states
    assert all(torch.equal(*both) for both in zip(one, same, strict=True))
    drawn = [p for body, _ in pairs(case) for p in body.parameters() if p.ndim > 1]
    has_drawn = case.encoder.residual is not None and len(drawn) > 0
    assert has_drawn != all(torch.equal(*both) for both in zip(one, other, strict=True))


def check_start(case):
    """With a linear map beside it, a network starts as that map alone, but can be trained.

    A tied pair is trained as one: where an activation is flat at 0, by the decoder's gradient.
    """
    reset(case)
    for body, x in pairs(case):
        if body.skip is None:
            assert body(x).std(0).all()
        else:
            torch.testing.assert_close(body(x), body.skip(x), rtol=0, atol=1e-12)
    if case.encoder.residual is not None:
        biases = {id(body.out_bias) for body, _ in pairs(case)}
        residuals = [(body.residual, x) for body, x in pairs(case)]
        weights = [p for residual, _ in residuals for p in residual.parameters()]
        weights = [p for p in weights if id(p) not in biases]
        total = sum(residual(x).sum() for residual, x in residuals)
        gradients = torch.autograd.grad(total, weights, allow_unused=True)
        assert any(gradient is not None and gradient.any() for gradient in gradients)


def check_out_bias(case):
    """The output's bias is added last."""
    for body, x in pairs(case):
        before = body(x)
        with torch.no_grad():
            body.out_bias.add_(torch.arange(1.0, before.shape[1] + 1))
        expected = before + torch.arange(1.0, before.shape[1] + 1)
        torch.testing.assert_close(body(x), expected)


def check_linear(case):
    """Architectures say whether they are matrix products."""
    for body, x in pairs(case):
        origin = body(torch.zeros_like(x[:1]))
        matrix = jacobian(lambda row, b=body: b(row[None])[0], torch.zeros_like(x[0]))
        error = (body(x) - (x @ matrix.mT + origin)).abs().max()
        assert (error < 1e-9) == case.architecture.is_linear


def hidden_widths(residual):
    """Lengths of the rows between layers."""
    return [] if residual is None else [layer.n_in for layer in residual.layers[1:]]


def check_mirror(case):
    """The decoder is the mirror image of the encoder, tied ones with the same weights."""
    down, up = case.encoder, case.decoder
    if case.architecture.has_layers:
        assert hidden_widths(down.residual) == hidden_widths(up.residual)[::-1]
    weights = [{p.data_ptr() for p in body.parameters() if p.ndim > 1} for body in (down, up)]
    if case.is_tied:
        assert weights[0] == weights[1]
        if up.skip is not None:
            torch.testing.assert_close(
                up.skip(case.z) - up.skip.bias, case.z @ down.skip.weight[:N_OUTPUTS]
            )
    else:
        assert not weights[0] & weights[1]


def check_missing(case):
    """The code of a sequence that is padded is that of the sequence, where cells may be missing."""
    if not case.architecture.takes_missing:
        return
    for length in range(1, STEPS + 1):
        short = case.x[:, : length * CHANNELS]
        padded = torch.full_like(case.x, torch.nan)
        padded[:, : length * CHANNELS] = short
        expected = case.encoder.residual(short)
        if case.encoder.skip is not None:
            expected = expected + case.encoder.skip(padded.nan_to_num())
        torch.testing.assert_close(case.encoder(padded), expected)


def check_hidden(case):
    """The output of an encoder is an affine map of its last hidden layer, if that is known."""
    residual = case.encoder.residual
    hidden = [] if residual is None else residual.hidden(case.x)
    if hidden:
        last = getattr(residual, "readout", None) or residual.layers[-1]
        torch.testing.assert_close(last(hidden[-1]), residual(case.x))


CHECKS = named_checks(globals())


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", BODIES)
def test_contract(name, check):
    assert_passes(CHECKS[check], case_of(*BODIES[name]))


# ---------------------------------------------------------------------------- negative controls


def wrong_pair(forward=None, make=mlp, has_skip=False, **methods):
    """Bodies with other methods; `forward` changes the output."""
    if forward is not None:
        methods["forward"] = lambda self, x, draws=None: forward(Body.forward(self, x, draws), x)
    case = case_of(make, has_skip, False)
    for body in (case.encoder, case.decoder):
        body.__class__ = altered_class(Body, methods)
    return case


class WithoutMirror(MLP):
    def decoder(self, n_in, tied_to):
        return dense_chain([n_in, *self.widths, self.n_outputs], *self.options)


class ReadsPadding(Recurrent):
    """Takes the state after the last step, missing or not."""

    def encoder(self, n_out):
        encoder = super().encoder(n_out)
        encoder.forward = lambda x, draws=None: SequenceEncoder.forward(
            encoder, x.nan_to_num(), draws
        )
        return encoder


class HidesOtherRows(MLP):
    def encoder(self, n_out):
        encoder = super().encoder(n_out)
        encoder.hidden = lambda x: [units.flip(0) for units in Chain.hidden(encoder, x)]
        return encoder


def drawn_anyhow(self, generator):
    Body.reset(self, torch.Generator().manual_seed(0))


WRONG = {
    "shapes": lambda: wrong_pair(lambda y, x: y.reshape(-1, y.shape[-1])),
    "dtype": lambda: wrong_pair(lambda y, x: y.double()),
    "rows": lambda: wrong_pair(lambda y, x: y - y.mean(0)),
    "gradient": lambda: wrong_pair(lambda y, x: y + x.detach().sum(-1, keepdim=True)),
    "derivative": lambda: wrong_pair(lambda y, x: y - y.mean(0)),
    "linearization": lambda: wrong_pair(  # along the axes
        linearize=lambda self, x, directions: Body.linearize(self, x, torch.eye(2).double())
    ),
    "reset": lambda: wrong_pair(reset=drawn_anyhow),
    "start": lambda: wrong_pair(has_skip=True, zero_residual=lambda self: None),
    "out_bias": lambda: wrong_pair(lambda y, x: y.tanh()),
    "linear": lambda: wrong_pair(lambda y, x: y.tanh(), make=lambda: mlp(())),
    "mirror": lambda: case_of(lambda: WithoutMirror(4, (6, 5), "silu", 0.0), False, False),
    "hidden": lambda: case_of(lambda: HidesOtherRows(4, (6, 5), "silu", 0.0), False, False),
    "missing": lambda: case_of(lambda: ReadsPadding((STEPS, CHANNELS), (5,), 0.0), False, False),
}


@pytest.mark.parametrize("check", CHECKS)
def test_a_wrong_body_fails(check):
    assert_fails(CHECKS[check], WRONG[check]())


# ------------------------------------------------------------------------------- single bodies


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("has_skip", "is_tied"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_derivatives_in_closed_form_are_those_of_torch(activation, has_skip, is_tied, dtype):
    case = case_of(lambda: mlp((6, 5), activation, dropout=0.5), has_skip, is_tied)
    decoder, z = case.decoder.to(dtype), 3 * case.z.to(dtype)
    expected = torch.func.vmap(torch.func.jacfwd(decoder))(z)
    linear = decoder.linearize(z, torch.eye(N_OUTPUTS, dtype=dtype))
    tolerance = {"rtol": 1e-12, "atol": 1e-12} if dtype == torch.float64 else {}
    torch.testing.assert_close(linear.jacobian(), expected, **tolerance)


def test_a_jacobian_has_factors_if_features_are_fewer_than_outputs():
    case = case_of(lambda: MLP(20, (6, 5), "silu", 0.0), True, False)
    linear = case.decoder.linearize(case.z, torch.eye(N_OUTPUTS).double())
    features, weight = linear.factors()
    assert features.shape == (N, 6 + N_OUTPUTS, N_OUTPUTS)
    torch.testing.assert_close(weight @ features, linear.jacobian())
    case = case_of(lambda: MLP(20, (20,), "silu", 0.0), True, False)
    assert case.decoder.linearize(case.z, torch.eye(N_OUTPUTS).double()).factors() is None


@pytest.mark.parametrize("make", [mlp, lambda **k: conv((2, 5, 4), **k), recurrent])
def test_hidden_units_are_silenced_by_draws_only(make):
    """Without draws, or a share of 0, the output is that of all units."""
    silent, plain = (case_of(lambda d=d: make(dropout=d), False, False) for d in (0.5, 0.0))
    for (body, x), (other, _) in zip(pairs(silent), pairs(plain), strict=True):
        torch.testing.assert_close(body(x), other(x), rtol=0, atol=0)
        torch.testing.assert_close(other(x, draws()), other(x), rtol=0, atol=0)
        assert not torch.allclose(body(x, draws()), body(x))
        torch.testing.assert_close(body(x, draws()), body(x, draws()), rtol=0, atol=0)


def test_silenced_units_keep_their_mean():
    x = normal(1, 5).expand(20_000, 5)
    found = apply_dropout(x, draws(), 0.3)
    assert float((found == 0).double().mean()) == pytest.approx(0.3, abs=0.01)
    torch.testing.assert_close(found.mean(0), x[0], rtol=0.05, atol=0)


def test_a_longer_layer_has_the_first_weights_of_its_mirror_image():
    down = Dense(4, 3).double()
    up = Dense(2, 4, down).double()
    with torch.no_grad():
        down.weight.copy_(normal(3, 4))
        up.bias.copy_(normal(4))
    z = normal(5, 2)
    torch.testing.assert_close(up(z), z @ down.weight[:2] + up.bias)
    assert down.mirrored
    assert up.transposed


def test_start_weights_keep_the_spread_of_rows():
    """Of layers used in both directions, the geometric mean of both numbers of inputs decides."""
    generator = torch.Generator().manual_seed(0)
    layer, mirrored = Dense(100, 400), Dense(100, 400)
    Dense(400, 100, mirrored)
    for each, n_inputs in ((layer, 100), (mirrored, 200)):
        each.reset(generator, 1.0)
        assert float(each.weight.detach().std()) == pytest.approx(n_inputs**-0.5, rel=0.02)
        assert not each.bias.any()


@pytest.mark.parametrize(("activation", "spread"), [("tanh", 1.0), ("logistic", 4.0), ("silu", 0)])
def test_units_of_bounded_activations_start_with_random_biases(activation, spread):
    chain = dense_chain([3, 2000, 2], activation)
    chain.reset(torch.Generator().manual_seed(0))
    first, last = (layer.bias.detach() for layer in chain.layers)
    assert float(first.std()) == pytest.approx(spread, rel=0.05)
    assert not last.any()
