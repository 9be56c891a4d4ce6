"""Private names of torch, and what differs between its releases."""

import warnings
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

# `torch.func.jvp` imports this module at the first derivative, and the module warns of its own use
# of `torch.jit.script`. Importing it here, once, keeps that warning from the user.
with warnings.catch_warnings(), suppress(ImportError):
    warnings.simplefilter("ignore")
    import torch._decomp.decompositions_for_jvp

# Called on plain tensors under inference mode it takes half the time of the public optimizer.
fused_adam = torch._fused_adam_


def schema(operator: OpOverload) -> Any:
    """What an operator's arguments are, and which of them it writes to."""
    return operator._schema


def with_generator(operator: OpOverload) -> OpOverload:
    """The form of a random operator that takes a generator."""
    if any(argument.name == "generator" for argument in schema(operator).arguments):
        return operator
    name = operator._overloadname
    form: OpOverload = getattr(
        operator.overloadpacket, "generator" if name == "default" else f"{name}_generator"
    )
    return form


def binding(target: Any) -> Any:
    """An operator's own Python binding, where torch has one: it is called in half the time."""
    if isinstance(target, OpOverload) and target.namespace == "aten":
        name = schema(target).name.removeprefix("aten::")
        for home in (torch._C._VariableFunctions, torch._C._nn):
            if hasattr(home, name):
                return getattr(home, name)
    return target


def version(tensor: Tensor) -> int:
    """A number that grows whenever a tensor is changed in place."""
    return tensor._version
