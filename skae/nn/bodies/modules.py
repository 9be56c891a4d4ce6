"""Architecture whose encoder, decoder or both are torch modules of the user."""

import copy
import math
import reprlib
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from skae._compat.torch import TorchDispatchMode, with_generator
from skae.nn.bodies.body import Architecture
from skae.nn.bodies.layers import Residual
from skae.nn.draws import Draws


class ModulePair(Protocol):
    """Interface of a user's architecture. One of the two methods may be absent."""

    def encoder(self, n_out: int) -> nn.Module:
        """Create a module that maps rows to tensors of shape (n, n_out)."""

    def decoder(self, n_in: int) -> nn.Module:
        """Create a module that maps tensors of shape (n, n_in) to rows."""


class SeededRandomness(TorchDispatchMode):
    """Context in which torch's random operations use a given generator, not the global one.

    Operations on another device, and those that have a generator, are not changed.
    """

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.generator = generator

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = dict(kwargs or {})
        if torch.Tag.nondeterministic_seeded in func.tags and options.get("generator") is None:
            device = args[0].device if isinstance(args[0], Tensor) else options.get("device")
            # Networks on the meta device have no memory for random numbers.
            if device is None or torch.device(device) == self.generator.device:
                func = with_generator(func)
                options["generator"] = self.generator
        return func(*args, **options)


def _rows_of(shape: tuple[int, ...]) -> str:
    return f"(n, {', '.join(map(str, shape))})"


class ModuleBody(Residual):
    """Module of the user, whose output is multiplied by a trained number and gets a trained bias.

    The number can be initialized to zero. The constructor raises ValueError if `make` fails or does
    not return a torch module.

    Parameters
    ----------
    make : callable
        Function without arguments that creates the module.
    shape_in, shape_out : tuple of int
        Shapes of a row in the input and in the output of the module.
    name : str
        Name of the module in error messages.
    """

    traces = False
    """Whether a training step may be traced. A trace would not repeat the random operations of a
    module."""

    def __init__(
        self,
        make: Callable[[], nn.Module],
        shape_in: tuple[int, ...],
        shape_out: tuple[int, ...],
        name: str,
    ) -> None:
        super().__init__()
        self.make, self.name = make, name
        self.shape_in, self.shape_out = shape_in, shape_out
        self.module = self._create(torch.Generator().manual_seed(0))
        self.gate = nn.Parameter(torch.empty(()))
        self.bias = nn.Parameter(torch.empty(math.prod(shape_out)))

    def _create(self, generator: torch.Generator) -> nn.Module:
        try:
            with SeededRandomness(generator):
                module = self.make()
        except Exception as error:
            raise ValueError(f"architecture.{self.name} failed: {error}") from error
        if not isinstance(module, nn.Module):
            raise ValueError(
                f"architecture.{self.name} must return a torch module, not {reprlib.repr(module)}."
            )
        # The user's object may return the same module again, for another model.
        return copy.deepcopy(module)

    @property
    def out_bias(self) -> Tensor:
        return self.bias

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        rows = x.reshape(-1, *self.shape_in)
        try:
            # During training, random operations of the module use the generator of the fit.
            with SeededRandomness(draws.generator) if draws is not None else nullcontext():
                y: Tensor = self.module(rows)
        except Exception as error:
            raise ValueError(
                f"The module that architecture.{self.name} returned failed for rows of shape "
                f"{tuple(rows.shape)}: {error}"
            ) from error
        return self.gate * y.reshape(*x.shape[:-1], len(self.bias)) + self.bias

    @torch.no_grad()
    def reset(self, generator: torch.Generator, silent: bool) -> None:
        self.module.load_state_dict(self._create(generator).state_dict())
        self.gate.fill_(1.0)
        self.bias.zero_()
        self._check_shapes()

    def _check_shapes(self) -> None:
        """Raise ValueError unless the module accepts and returns tensors of the right shapes."""
        self.module.eval()
        rows = self.bias.new_zeros(2, *self.shape_in)
        try:
            y = self.module(rows)
            if len(y) != 2 or y.numel() != 2 * len(self.bias):
                raise ValueError(f"for two rows it returns shape {tuple(y.shape)}")
        except Exception as error:
            raise ValueError(
                f"architecture.{self.name} must return a module that maps tensors of shape "
                f"{_rows_of(self.shape_in)} to {_rows_of(self.shape_out)}: {error}"
            ) from error

    @torch.no_grad()
    def start_at_zero(self) -> None:
        self.gate.zero_()
        self.bias.zero_()


class UserModules(Architecture):
    """Encoders and decoders that an object of the user creates.

    Parameters
    ----------
    pair : object
        Object with a method `encoder(n_out)`, a method `decoder(n_in)`, or both, which return
        modules.
    shape : tuple of int or None
        Shape of a row for these modules. None is a vector.
    default : Architecture
        Architecture that creates the network for which the object has no method.
    """

    def __init__(
        self, pair: ModulePair, shape: tuple[int, ...] | None, default: Architecture
    ) -> None:
        super().__init__(default.n_inputs, default.n_outputs)
        self.pair, self.default = pair, default
        self.shape_in, self.shape_out = shape or (self.n_inputs,), shape or (self.n_outputs,)

    def encoder(self, n_out: int) -> Residual:
        if not callable(getattr(self.pair, "encoder", None)):
            return self.default.encoder(n_out)
        return ModuleBody(
            lambda: self.pair.encoder(n_out), self.shape_in, (n_out,), f"encoder({n_out})"
        )

    def decoder(self, n_in: int, tied_to: Residual | None) -> Residual:
        if not callable(getattr(self.pair, "decoder", None)):
            return self.default.decoder(n_in, tied_to)
        return ModuleBody(
            lambda: self.pair.decoder(n_in), (n_in,), self.shape_out, f"decoder({n_in})"
        )
