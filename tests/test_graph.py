"""A shortened graph makes few calls and has the bits of the one that was traced."""

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from skae.nn.step.graph import shorten

X, W = torch.arange(6.0).reshape(3, 2), torch.ones(4, 2)
CONSTANT = torch.tensor([1.0, 2.0, 3.0])


def targets(call):
    """What a shortened function calls, by name."""
    graph = call.func.__self__.graph
    return [str(node.target) for node in graph.nodes if node.op == "call_function"]


def shortened(function):
    return shorten(make_fx(function)(W, X), [W])


@pytest.mark.parametrize(
    ("function", "n_calls"),
    [
        pytest.param(lambda w, x: [x.detach() + 1], 1, id="what only autograd needs"),
        pytest.param(lambda w, x: [x.t().t() * 2], 1, id="two transposes"),
        pytest.param(lambda w, x: [x**1.0 + 1], 1, id="a power of one"),
        pytest.param(lambda w, x: [x.sum(0, keepdim=True).view(2)], 1, id="a reshaped sum"),
        pytest.param(lambda w, x: [(x * 3) + (x * 3)], 2, id="equal calls"),
        pytest.param(lambda w, x: [x @ w.t()], 1, id="a view of what is fixed"),
        pytest.param(lambda w, x: [x * (CONSTANT.log().sum() + 1)], 1, id="constants"),
        pytest.param(lambda w, x: [x + torch.ones(2) * 2], 1, id="made of nothing"),
    ],
)
def test_calls_that_need_not_be_made(function, n_calls):
    call = shortened(function)
    assert len(targets(call)) == n_calls
    for rows in (X, X + 1):
        assert torch.equal(call(rows)[0], function(W, rows)[0])


def test_what_is_fixed_may_change_in_place():
    w = W.clone()

    def function(w, x):
        return [x @ w.t() + w.sum()]

    call = shorten(make_fx(function)(w, X), [w])
    w.mul_(3)
    assert torch.equal(call(X)[0], function(w, X)[0])


def test_draws_are_never_shared():
    def function(w, x):
        return [torch.rand_like(x) - torch.rand_like(x)]

    state = torch.get_rng_state()
    call = shortened(function)
    assert len(targets(call)) == 3
    assert (call(X)[0] != 0).any()
    torch.set_rng_state(state)


def test_memory_that_is_written_to_is_not_shared():
    def function(w, x):
        a, b = torch.zeros(2), torch.zeros(2)
        a[0] = x.sum()
        return [a, b]

    call = shortened(function)
    for rows in (X, 2 * X):
        a, b = call(rows)
        assert a.tolist() == [float(rows.sum()), 0]
        assert b.tolist() == [0, 0]


def test_writes_through_views_are_kept():
    """Reads before and after a write differ, and a write whose result is unused still counts."""

    def function(w, x):
        rows = x * 1.0
        before = rows.sum()
        rows[0].clamp_(max=1.0)
        return [rows.sum() - before, rows]

    call = shorten(make_fx(function)(W, 0.01 * X), [W])
    for rows in (X, 0.01 * X, 100 + X):
        for got, expected in zip(call(rows), function(W, rows), strict=True):
            assert torch.equal(got, expected)


@pytest.mark.parametrize("which", ["rows", "weights", "constant"])
def test_a_graph_that_writes_to_its_inputs_is_refused(which):
    state = torch.zeros(2)

    def function(w, x):
        {"rows": x, "weights": w, "constant": state}[which].mul_(2)
        return [x.sum()]

    with pytest.raises(ValueError, match="writes to its inputs"):
        shorten(make_fx(function)(W.clone(), X.clone()), [W])
