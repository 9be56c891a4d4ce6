"""Random draws as a service, so that a traced step can replay them."""

from collections.abc import Sequence

import torch
from torch import Tensor

Request = tuple[str, tuple[int, ...]]
"""A kind of draw and its shape."""


class Draws:
    """Random tensors from one generator.

    Parameters
    ----------
    generator : torch.Generator
        The only source of randomness; draws happen on its device.
    dtype : torch.dtype
    """

    def __init__(self, generator: torch.Generator, dtype: torch.dtype) -> None:
        self.generator = generator
        self.dtype = dtype

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Standard normal numbers."""
        return self.draw("randn", tuple(shape))

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """Numbers uniform in [0, 1)."""
        return self.draw("rand", tuple(shape))

    def draw(self, kind: str, shape: tuple[int, ...]) -> Tensor:
        """The draw that a request states."""
        generator = self.generator
        result: Tensor = getattr(torch, kind)(
            shape, generator=generator, dtype=self.dtype, device=generator.device
        )
        return result


class Noted(Draws):
    """Draws that note what was asked for."""

    def __init__(self, generator: torch.Generator, dtype: torch.dtype) -> None:
        super().__init__(generator, dtype)
        self.requests: list[Request] = []

    def draw(self, kind: str, shape: tuple[int, ...]) -> Tensor:
        self.requests.append((kind, shape))
        return super().draw(kind, shape)


class Given(Draws):
    """Draws that were made beforehand, handed out in the order they are asked for."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._tensors = iter(tensors)

    def draw(self, kind: str, shape: tuple[int, ...]) -> Tensor:
        return next(self._tensors)
