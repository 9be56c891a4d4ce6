"""Sources of random numbers that a trace can record and replay."""

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

Request = tuple[str, tuple[int, ...]]
"""Kind of a draw and its shape."""


def derive_seed(source: int | bytes, purpose: str) -> int:
    """Derive a seed for one purpose from a seed or from the state of a generator.

    Equal sources give unrelated seeds for different purposes. The random numbers of a new network
    and of its training on the CPU come from the seed of the fit itself.
    """
    digest = hashlib.sha256(f"{purpose} {source!r}".encode()).digest()
    return int.from_bytes(digest[:4], "little")


class Draws:
    """Random tensors from one generator, and the progress of training.

    Parameters
    ----------
    generator : torch.Generator
        Source of all random numbers. The tensors are on its device.
    dtype : torch.dtype
        Dtype of the tensors.

    Attributes
    ----------
    progress : float
        Share of the training schedule that is completed. It stays 1 unless a new model is trained.
    """

    def __init__(self, generator: torch.Generator, dtype: torch.dtype) -> None:
        self.generator = generator
        self.dtype = dtype
        self.progress = 1.0

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Draw standard normal numbers."""
        return self.draw("randn", tuple(shape))

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """Draw numbers from the uniform distribution on [0, 1)."""
        return self.draw("rand", tuple(shape))

    def schedule(self) -> Tensor:
        """Return the share of the training schedule that is completed."""
        return self.draw("schedule", ())

    def rise(self, share: float) -> Tensor | float:
        """Return a factor that rises linearly from 0 to 1 in the first `share` of the schedule."""
        return (self.schedule() / share).clamp_max(1.0) if share else 1.0

    def draw(self, kind: str, shape: tuple[int, ...]) -> Tensor:
        """Return the tensor for a request of the kind "randn", "rand" or "schedule"."""
        generator = self.generator
        if kind == "schedule":
            return torch.tensor(self.progress, dtype=self.dtype, device=generator.device)
        result: Tensor = getattr(torch, kind)(
            shape, generator=generator, dtype=self.dtype, device=generator.device
        )
        return result


class RecordedDraws(Draws):
    """Draws that record all requests in `requests`."""

    def __init__(self, generator: torch.Generator, dtype: torch.dtype) -> None:
        super().__init__(generator, dtype)
        self.requests: list[Request] = []

    def draw(self, kind: str, shape: tuple[int, ...]) -> Tensor:
        self.requests.append((kind, shape))
        return super().draw(kind, shape)


class ReplayedDraws(Draws):
    """Draws that return given tensors in order."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._tensors = iter(tensors)

    def draw(self, kind: str, shape: tuple[int, ...]) -> Tensor:
        return next(self._tensors)


class KeyedDraws(Draws):
    """Draws that are computed from rows, so that equal rows get equal numbers in any table.

    The numbers also depend on how many draws were requested from this object before. A new object
    for the same rows thus repeats the numbers of the first one.

    Parameters
    ----------
    x : Tensor of shape (n, d)
        Rows from which the numbers are computed. The last two sizes of requested shapes are the
        number of rows, n, and any number of values.
    """

    def __init__(self, x: Tensor) -> None:
        self.dtype = x.dtype
        self._calls = 0
        # Adding zero turns -0.0 into 0.0.
        bits = (x.detach().double() + 0.0).view(torch.int64)
        # The keys of columns are added before the bits are mixed, so that a value has unrelated
        # parts in different columns. A product would keep the trailing zero bits of the value.
        column_keys = _mix(torch.arange(1, x.shape[1] + 1, device=x.device))
        self._keys = _mix(_mix(bits + column_keys).sum(-1))

    def draw(self, kind: str, shape: tuple[int, ...]) -> Tensor:
        leading, k = shape[:-2], shape[-1]
        self._calls += 1
        numbers = math.prod(leading) * k
        counts = torch.arange(numbers, device=self._keys.device).reshape(*leading, 1, k)
        keys = _mix(self._keys + self._calls)[:, None]
        # 52 bits plus a half are never 0 or 1, whose normal quantiles are infinite.
        bits = _shifted(_mix(keys + _mix(counts)), 12)
        uniform = (bits.double() + 0.5) * 2.0**-52
        return (uniform if kind == "rand" else torch.special.ndtri(uniform)).to(self.dtype)


def _shifted(bits: Tensor, places: int) -> Tensor:
    """Shift bits to the right, filling with zeros."""
    return (bits >> places) & (2 ** (64 - places) - 1)


def _mix(bits: Tensor) -> Tensor:
    """Scramble 64-bit numbers one to one (finalizer of SplitMix64, Steele et al. 2014)."""
    bits = (bits ^ _shifted(bits, 30)) * (0xBF58476D1CE4E5B9 - 2**64)
    bits = (bits ^ _shifted(bits, 27)) * (0x94D049BB133111EB - 2**64)
    return bits ^ _shifted(bits, 31)
