"""Reduction of a traced graph to the calls that each step needs."""

import operator
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

from skae._compat.torch import OpOverload, operator_schema, python_binding

aten = torch.ops.aten


def shorten(traced: GraphModule, fixed: Sequence[Tensor]) -> Callable[..., list[Tensor]]:
    """Return the traced function with fixed first inputs, as a short list of calls.

    Functions of constants, and views of the fixed inputs, are computed only once, by this function.
    Between calls, fixed inputs may change in place. Of several equal calls, one remains. The
    results are bitwise equal to those of the traced function.

    Parameters
    ----------
    traced : GraphModule
        The traced function. It is changed.
    fixed : sequence of Tensor
        Its first inputs, which are the same tensors at each call.

    Returns
    -------
    function : callable
        Function of the remaining inputs.

    Raises
    ------
    ValueError
        If the graph writes to its inputs or constants.
    """
    frozen = _unwritten(traced.graph)
    _simplify(traced, frozen)
    known = _constant_values(traced, fixed, frozen)
    short = Graph()
    copies = {node: short.placeholder(f"fixed_{i}") for i, node in enumerate(known)}
    for node in traced.graph.nodes:
        if node not in known:
            copies[node] = short.node_copy(node, copies.__getitem__)
    short.eliminate_dead_code()
    # This must follow the elimination of dead code, because fx does not know whether a binding
    # writes to memory.
    for node in short.nodes:
        node.target = python_binding(node.target)
    used = [node for node in known if copies[node].users]
    for node in known:
        if node not in used:
            short.erase_node(copies[node])
    forward = GraphModule({}, short).forward
    return partial(forward, *(known[node] for node in used))


def _arguments(node: Node) -> Iterator[tuple[Any, Any]]:
    """Yield each argument of a call, after its schema."""
    assert isinstance(node.target, OpOverload)
    arguments = operator_schema(node.target).arguments
    yield from zip(arguments, node.args, strict=False)
    by_name = {argument.name: argument for argument in arguments}
    yield from ((by_name[name], value) for name, value in node.kwargs.items())


def _unwritten(graph: Graph) -> set[Node]:
    """Return the nodes whose memory no call of the graph writes to."""
    owner: dict[Node, Node] = {}
    written = set()
    for node in graph.nodes:
        owner[node] = node
        if isinstance(node.target, OpOverload):
            for argument, value in _arguments(node):
                parts = value if isinstance(value, list | tuple) else [value]
                for part in parts if argument.alias_info is not None else []:
                    if isinstance(part, Node):
                        owner[node] = owner[part]
                        if argument.alias_info.is_write:
                            written.add(owner[part])
        elif node.target is operator.getitem:
            owner[node] = owner[node.args[0]]
    if any(node.op in ("placeholder", "get_attr") for node in written):
        raise ValueError("the graph writes to its inputs or constants")
    return {node for node in graph.nodes if owner[node] not in written}


def _is_random(node: Node) -> bool:
    return isinstance(node.target, OpOverload) and (
        torch.Tag.nondeterministic_seeded in node.target.tags
    )


def _simplify(traced: GraphModule, frozen: set[Node]) -> None:
    """Remove calls that have no effect, and merge equal calls."""
    first: dict[object, Node] = {}
    for node in list(traced.graph.nodes):
        if _is_random(node) or not frozen.issuperset([node, *node.all_input_nodes]):
            continue
        same: Node | None
        if node.op == "get_attr":
            constant = getattr(traced, node.target).detach()
            content = constant.reshape(-1).cpu().view(torch.uint8).numpy().tobytes()
            key = (constant.dtype, constant.shape, content)
            same = first.setdefault(key, node)
        elif node.op == "call_function":
            same = _repeated(node) or first.setdefault(
                (node.target, str(node.args), str(node.kwargs)), node
            )
        else:
            continue
        if same is not node:
            node.replace_all_uses_with(same)
            traced.graph.erase_node(node)


def _repeated(node: Node) -> Node | None:
    """Return an earlier node with the same value as a call, or None.

    A sum over rows that is reshaped to a vector becomes one call, in place.
    """
    match node.target, node.args:
        case (aten.detach.default | aten.alias.default, (Node() as x,)):
            return x
        case (aten.t.default, (Node(target=aten.t.default, args=(Node() as x,)),)):
            return x
        case (aten.pow.Tensor_Scalar, (Node() as x, 1.0)):
            return x
        case (aten.view.default, (Node() as total, [_])):
            match total.target, total.args:
                case (aten.sum.dim_IntList, (Node() as x, [0], True)) if x.meta["val"].ndim == 2:
                    node.target, node.args = aten.sum.dim_IntList, (x, [0])
    return None


def _constant_values(
    traced: GraphModule, fixed: Sequence[Tensor], frozen: set[Node]
) -> dict[Node, Any]:
    """Compute the values that are the same objects at each step.

    They are the fixed inputs, their views, constants and functions of constants.
    """
    known: dict[Node, Any] = {}
    constant = set()
    placeholders = [node for node in traced.graph.nodes if node.op == "placeholder"]
    known.update(zip(placeholders, fixed, strict=False))
    for node in traced.graph.nodes:
        if node.op == "get_attr":
            known[node] = getattr(traced, node.target)
            constant.add(node)
        elif node.op == "call_function" and node in frozen and not _is_random(node):
            inputs = node.all_input_nodes
            unchanging = constant.issuperset(inputs)
            if unchanging or (known.keys() >= set(inputs) and _is_view(node)):
                args, kwargs = map_arg((node.args, node.kwargs), known.__getitem__)
                known[node] = node.target(*args, **kwargs)
            if unchanging:
                constant.add(node)
    return known


def _is_view(node: Node) -> bool:
    return node.target is operator.getitem or any(
        argument.alias_info is not None for argument, _ in _arguments(node)
    )
