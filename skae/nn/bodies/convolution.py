"""Convolutional networks for images and for series of fixed length."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from skae.nn.bodies.body import Architecture
from skae.nn.bodies.layers import Chain, Dense, Layer, Residual
from skae.nn.bodies.linearization import Linearization, Term

KERNEL = 3
STRIDE = 2
"""Width and stride of filters, along the axes of feature maps that are longer than 1."""

Shape = tuple[int, int, int]
"""Channels, height and width of feature maps."""


class Stage(NamedTuple):
    """Shapes of feature maps before and after a convolution that halves their height and width."""

    large: Shape
    small: Shape

    @classmethod
    def of(cls, large: Shape, channels: int) -> "Stage":
        """Create the stage from large maps to `channels` small ones. Half sizes are rounded up."""
        _, height, width = large
        return cls(large, (channels, -(-height // STRIDE), -(-width // STRIDE)))

    @property
    def kernel(self) -> tuple[int, ...]:
        """Height and width of the filters."""
        return tuple(min(KERNEL, 2 * size - 1) for size in self.large[1:])

    @property
    def stride(self) -> tuple[int, ...]:
        """Factors by which height and width are divided."""
        return tuple(min(STRIDE, size) for size in self.large[1:])

    @property
    def padding(self) -> tuple[int, ...]:
        """Padding with which a convolution divides sizes by the stride, rounding up."""
        return tuple(size // 2 for size in self.kernel)


class Convolution(Layer):
    """Convolution that halves the height and width of feature maps.

    Its input and its output are flattened maps.
    """

    def __init__(self, stage: Stage) -> None:
        n_channels, shape = stage.small[0], (stage.large[0], *stage.kernel)
        super().__init__(math.prod(stage.large), n_channels, shape)
        self.stage = stage

    def forward(self, x: Tensor) -> Tensor:
        return self._convolve(x, self.bias)

    def linearize(self, x: Tensor, directions: Tensor) -> Linearization:
        return Linearization(self(x), [Term(self._convolve(directions, None), None)])

    def _convolve(self, x: Tensor, bias: Tensor | None) -> Tensor:
        stage = self.stage
        maps = x.reshape(-1, *stage.large)
        maps = F.conv2d(maps, self.weight, bias, stage.stride, stage.padding)
        return maps.reshape(*x.shape[:-1], math.prod(stage.small))


class Upsampling(Layer):
    """Convolution that doubles the height and width of feature maps.

    Its input and its output are flattened maps. The convolution computes the new cells as
    additional channels, which are then rearranged [1]_. The last layer of a decoder has one bias
    for each cell of its output. The other layers have one for each channel of the convolution.

    References
    ----------
    .. [1] W. Shi et al., "Real-time single image and video super-resolution using an efficient
       sub-pixel convolutional neural network", CVPR 2016.
    """

    def __init__(self, stage: Stage, is_last: bool) -> None:
        n_channels = stage.large[0] * math.prod(stage.stride)
        shape = (stage.small[0], *stage.kernel)
        n_biases = math.prod(stage.large) if is_last else n_channels
        super().__init__(math.prod(stage.small), n_channels, shape, n_biases)
        self.stage = stage
        self.is_last = is_last

    def forward(self, x: Tensor) -> Tensor:
        rows = self._convolve(x, None if self.is_last else self.bias)
        return rows + self.bias if self.is_last else rows

    def linearize(self, x: Tensor, directions: Tensor) -> Linearization:
        return Linearization(self(x), [Term(self._convolve(directions, None), None)])

    def _convolve(self, x: Tensor, bias: Tensor | None) -> Tensor:
        stage = self.stage
        (channels, height, width), (down, right) = stage.large, stage.stride
        maps = F.conv2d(x.reshape(-1, *stage.small), self.weight, bias, padding=stage.padding)
        parts = maps.reshape(-1, channels, down, right, *stage.small[1:])
        maps = parts.permute(0, 1, 4, 2, 5, 3).reshape(
            -1, channels, stage.small[1] * down, stage.small[2] * right
        )
        return maps[..., :height, :width].reshape(*x.shape[:-1], math.prod(stage.large))


class Convolutional(Architecture):
    """Convolutional networks.

    The encoder consists of convolutions, each of which halves the height and width of its feature
    maps, and a dense layer. The decoder consists of a dense layer and convolutions that double
    height and width, in reverse order.

    Parameters
    ----------
    shape : tuple of int
        Channels, height and width of a row.
    channels : sequence of int
        Numbers of filters of the encoder's convolutions.
    activation : str
        Activation function of the hidden layers, a key of `ACTIVATIONS`.
    dropout : float
        Share of hidden units that are set to zero during training.
    """

    has_layers = True

    def __init__(
        self, shape: Shape, channels: Sequence[int], activation: str, dropout: float
    ) -> None:
        super().__init__(math.prod(shape), math.prod(shape))
        self.is_linear = not channels
        # A linear skip suits series: as with columns, a step has the same meaning in all rows, and
        # most data sets of series are small.
        self.likes_skip = self.is_linear or min(shape[1:]) == 1
        self.options = activation, dropout
        self.stages: list[Stage] = []
        for count in channels:
            self.stages.append(Stage.of(shape, count))
            shape = self.stages[-1].small
        self.smallest = math.prod(shape)

    def encoder(self, n_out: int) -> Residual:
        layers: list[Layer] = [Convolution(stage) for stage in self.stages]
        return Chain([*layers, Dense(self.smallest, n_out)], *self.options)

    def decoder(self, n_in: int, tied_to: Residual | None) -> Residual:
        layers: list[Layer] = [Dense(n_in, self.smallest)]
        for stage in reversed(self.stages):
            layers.append(Upsampling(stage, is_last=stage is self.stages[0]))
        return Chain(layers, *self.options)


def halvings(shape: Shape) -> int:
    """Return how often height and width can be halved, rounding up, until both are 1."""
    return math.ceil(math.log2(max(shape[1:])))
