"""A pair of the user's own torch modules as an architecture."""

import copy
import math
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
    """What a user's architecture has: makers of modules whose weights are set."""

    def encoder(self, n_out: int) -> nn.Module:
        """A module from rows to (n, n_out)."""

    def decoder(self, n_in: int) -> nn.Module:
        """A module from (n, n_in) to rows."""


class Seeded(TorchDispatchMode):
    """Where it is active, what would draw from torch's global generator draws from another one."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.generator = generator

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = dict(kwargs or {})
        if torch.Tag.nondeterministic_seeded in func.tags and options.get("generator") is None:
            device = args[0].device if isinstance(args[0], Tensor) else options.get("device")
            # Outlines of networks have no memory to draw into.
            if device is None or torch.device(device) == self.generator.device:
                func = with_generator(func)
                options["generator"] = self.generator
        return func(*args, **options)


def _rows_of(shape: tuple[int, ...]) -> str:
    return f"(n, {', '.join(map(str, shape))})"


class ModuleBody(Residual):
    """A user's module, its output multiplied with a number so that it can start at zero.

    Parameters
    ----------
    make : callable
        Makes the module.
    shape_in, shape_out : tuple of int
        How the module takes a row and gives one.
    name : str
        What errors call the module.
    """

    traces = False
    """What a module draws, no trace would draw again."""

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
        self.module = self._made(torch.Generator().manual_seed(0))
        self.gate = nn.Parameter(torch.empty(()))
        self.bias = nn.Parameter(torch.empty(math.prod(shape_out)))

    def _made(self, generator: torch.Generator) -> nn.Module:
        try:
            with Seeded(generator):
                module = self.make()
        except Exception as error:
            raise ValueError(f"architecture.{self.name} failed: {error}") from error
        if not isinstance(module, nn.Module):
            raise ValueError(
                f"architecture.{self.name} must return a torch module, not {module!r}."
            )
        # The pair may keep what it returns, and return it to another model.
        return copy.deepcopy(module)

    @property
    def out_bias(self) -> Tensor:
        return self.bias

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        rows = x.reshape(-1, *self.shape_in)
        try:
            # What the module draws while it is trained is the fit's to seed.
            with Seeded(draws.generator) if draws is not None else nullcontext():
                y: Tensor = self.module(rows)
        except Exception as error:
            raise ValueError(
                f"The module that architecture.{self.name} returned failed for rows of shape "
                f"{tuple(rows.shape)}: {error}"
            ) from error
        return self.gate * y.reshape(*x.shape[:-1], len(self.bias)) + self.bias

    @torch.no_grad()
    def reset(self, generator: torch.Generator, silent: bool) -> None:
        self.module.load_state_dict(self._made(generator).state_dict())
        self.gate.fill_(1.0)
        self.bias.zero_()
        self._try_out()

    def _try_out(self) -> None:
        """Raise ValueError where the module does not take or give what it should."""
        self.module.eval()
        rows = self.bias.new_zeros(2, *self.shape_in)
        try:
            y = self.module(rows)
            if len(y) != 2 or y.numel() != 2 * len(self.bias):
                raise ValueError(f"for two rows it gives {tuple(y.shape)}")
        except Exception as error:
            raise ValueError(
                f"architecture.{self.name} must return a module that takes tensors of shape "
                f"{_rows_of(self.shape_in)} and gives {_rows_of(self.shape_out)}: {error}"
            ) from error

    @torch.no_grad()
    def start_at_zero(self) -> None:
        self.gate.zero_()
        self.bias.zero_()


class UserModules(Architecture):
    """Encoders and decoders that a user's object makes.

    Parameters
    ----------
    pair : object
        Has methods `encoder(n_out)` and `decoder(n_in)`, which return modules.
    shape : tuple of int
        How these modules take and give a row.
    """

    def __init__(self, pair: ModulePair, shape: tuple[int, ...]) -> None:
        super().__init__(math.prod(shape))
        self.pair, self.shape = pair, shape

    def encoder(self, n_out: int) -> Residual:
        return ModuleBody(
            lambda: self.pair.encoder(n_out), self.shape, (n_out,), f"encoder({n_out})"
        )

    def decoder(self, n_in: int, tied_to: Residual | None) -> Residual:
        return ModuleBody(lambda: self.pair.decoder(n_in), (n_in,), self.shape, f"decoder({n_in})")
