"""Private functions and classes of torch that skae uses."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch._ops import OpOverload
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing, make_fx
from torch.utils._python_dispatch import TorchDispatchMode

# `torch.func.jvp` imports this module when it is first called, and the module issues a warning
# because it uses `torch.jit.script`. Importing it here hides the warning from users.
with warnings.catch_warnings(), suppress(ImportError):
    warnings.simplefilter("ignore")
    import torch._decomp.decompositions_for_jvp

# In inference mode and on plain tensors it takes half the time of the public optimizer.
fused_adam = torch._fused_adam_


def operator_schema(operator: OpOverload) -> Any:
    """Return the arguments of an operator, and which of them it changes in place."""
    return operator._schema


def with_generator(operator: OpOverload) -> OpOverload:
    """Return the overload of a random operator that has a parameter for a generator."""
    if any(argument.name == "generator" for argument in operator_schema(operator).arguments):
        return operator
    name = operator._overloadname
    overload: OpOverload = getattr(
        operator.overloadpacket, "generator" if name == "default" else f"{name}_generator"
    )
    return overload


def python_binding(target: Any) -> Any:
    """Return the Python binding of an operator. Any other target is returned unchanged.

    `target` is the target of a node of a torch.fx graph. An operator without a binding is returned
    unchanged, too. A call of a binding takes half the time of a call of its operator.
    """
    if isinstance(target, OpOverload) and target.namespace == "aten":
        name = operator_schema(target).name.removeprefix("aten::")
        for module in (torch._C._VariableFunctions, torch._C._nn):
            if hasattr(module, name):
                return getattr(module, name)
    return target


def tensor_version(tensor: Tensor) -> int:
    """Return the version of a tensor, a number that increases with each change in place."""
    return tensor._version


@contextmanager
def outside_transforms() -> Iterator[None]:
    """Context outside the trace and the function transforms that this thread is computing.

    A signal handler runs within them.
    """
    with disable_proxy_modes_tracing(), temporarily_clear_interpreter_stack():
        yield
