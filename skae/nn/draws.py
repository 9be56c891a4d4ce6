"""What differs from step to step beside the rows, as a service, so that a trace can replay it."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

Request = tuple[str, tuple[int, ...]]
"""A kind of draw and its shape."""


class Draws:
    """Random tensors from one generator, and how far training is.

    Parameters
    ----------
    generator : torch.Generator
        The only source of randomness; draws happen on its device.
    dtype : torch.dtype

    Attributes
    ----------
    progress : float
        Share of the training schedule that is done.
    """

    def __init__(self, generator: torch.Generator, dtype: torch.dtype) -> None:
        self.generator = generator
        self.dtype = dtype
        self.progress = 1.0

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Standard normal numbers."""
        return self.draw("randn", tuple(shape))

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """Numbers uniform in [0, 1)."""
        return self.draw("rand", tuple(shape))

    def schedule(self) -> Tensor:
        """Share of the training schedule that is done, as a number."""
        return self.draw("schedule", ())

    def draw(self, kind: str, shape: tuple[int, ...]) -> Tensor:
        """The draw that a request states."""
        generator = self.generator
        if kind == "schedule":
            return torch.tensor(self.progress, dtype=self.dtype, device=generator.device)
        result: Tensor = getattr(torch, kind)(
            shape, generator=generator, dtype=self.dtype, device=generator.device
        )
        return result


class RecordedDraws(Draws):
    """Draws that note what was asked for."""

    def __init__(self, generator: torch.Generator, dtype: torch.dtype) -> None:
        super().__init__(generator, dtype)
        self.requests: list[Request] = []

    def draw(self, kind: str, shape: tuple[int, ...]) -> Tensor:
        self.requests.append((kind, shape))
        return super().draw(kind, shape)


class ReplayedDraws(Draws):
    """Draws that were made beforehand, handed out in the order they are asked for."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._tensors = iter(tensors)

    def draw(self, kind: str, shape: tuple[int, ...]) -> Tensor:
        return next(self._tensors)


class KeyedDraws(Draws):
    """Draws that belong to rows: equal rows get equal numbers, in any table and at every call.

    Parameters
    ----------
    x : Tensor of shape (n, d)
        The rows, from whose content the numbers are made; shapes asked for end in (n, k).
    """

    def __init__(self, x: Tensor) -> None:
        self.dtype = x.dtype
        self._calls = 0
        # Adding zero makes -0.0 the same value as 0.0.
        bits = (x.double() + 0.0).view(torch.int64)
        factors = _mix(torch.arange(1, x.shape[1] + 1, device=x.device)) | 1
        self._keys = _mix(((bits ^ _shifted(bits, 32)) * factors).sum(-1))

    def draw(self, kind: str, shape: tuple[int, ...]) -> Tensor:
        leading, k = shape[:-2], shape[-1]
        self._calls += 1
        numbers = math.prod(leading) * k
        counts = torch.arange(numbers, device=self._keys.device).reshape(*leading, 1, k)
        keys = _mix(self._keys + self._calls)[:, None]
        # 52 bits and a half: never 0 nor 1, whose normal quantiles are infinite.
        bits = _shifted(_mix(keys + _mix(counts)), 12)
        uniform = (bits.double() + 0.5) * 2.0**-52
        return (uniform if kind == "rand" else torch.special.ndtri(uniform)).to(self.dtype)


def _shifted(bits: Tensor, places: int) -> Tensor:
    """Bits moved right, zeros filled in."""
    return (bits >> places) & (2 ** (64 - places) - 1)


def _mix(bits: Tensor) -> Tensor:
    """Scramble 64-bit numbers one to one (the finaliser of SplitMix64, Steele et al. 2014)."""
    bits = (bits ^ _shifted(bits, 30)) * (0xBF58476D1CE4E5B9 - 2**64)
    bits = (bits ^ _shifted(bits, 27)) * (0x94D049BB133111EB - 2**64)
    return bits ^ _shifted(bits, 31)
