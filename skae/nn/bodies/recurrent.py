"""Recurrent networks for sequences, which may have different lengths."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from skae.nn.bodies.body import Architecture
from skae.nn.bodies.layers import Dense, Residual, apply_dropout
from skae.nn.draws import Draws


class GRU(nn.Module):
    """Layer of gated recurrent units [1]_, composed of operations that torch differentiates twice.

    References
    ----------
    .. [1] K. Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical
       machine translation", EMNLP 2014.
    """

    traces = False
    """Whether a training step may be traced. A trace would contain the calls of every time step,
    and would take longer than it saves."""

    def __init__(self, n_in: int, n_states: int) -> None:
        super().__init__()
        self.of_input = Dense(n_in, 3 * n_states)
        self.of_state = Dense(n_states, 3 * n_states)

    def forward(self, x: Tensor, state: Tensor | None = None) -> Tensor:
        """Compute states (n, time, n_states) for inputs (n, time, n_in).

        `state` (n, n_states) is the state before the first step. None is 0.
        """
        if state is None:
            state = x.new_zeros(len(x), self.of_state.n_in)
        states = []
        for inputs in self.of_input(x).unbind(1):
            reset, update, new = inputs.chunk(3, -1)
            reset_too, update_too, old = self.of_state(state).chunk(3, -1)
            candidate = torch.tanh(new + torch.sigmoid(reset + reset_too) * old)
            state = torch.lerp(candidate, state, torch.sigmoid(update + update_too))
            states.append(state)
        return torch.stack(states, 1)


def _layers(n_in: int, widths: Sequence[int]) -> Sequence[GRU]:
    pairs = pairwise([n_in, *widths])
    return nn.ModuleList([GRU(*pair) for pair in pairs])  # type: ignore[return-value]


class Sequences(Residual):
    """Base of recurrent layers with a dense output layer."""

    layers: Sequence[GRU]
    readout: Dense

    @torch.no_grad()
    def reset(self, generator: torch.Generator, silent: bool) -> None:
        for part in self.modules():
            if isinstance(part, Dense):
                part.reset(generator, 1.0)
        self.out_bias.zero_()

    @torch.no_grad()
    def start_at_zero(self) -> None:
        for p in (self.readout.weight, self.readout.bias, self.out_bias):
            p.zero_()


class SequenceEncoder(Sequences):
    """Encoder that computes its output from the state after the last step.

    Sequences are rows (..., time * n_channels) with any number of steps. Each ends with its last
    step that is not NaN.

    Parameters
    ----------
    n_channels : int
        Number of channels of a step.
    widths : sequence of int
        Numbers of states of the layers.
    n_out : int
        Length of the output.
    dropout : float
        Share of states that are set to zero during training.
    """

    def __init__(self, n_channels: int, widths: Sequence[int], n_out: int, dropout: float) -> None:
        super().__init__()
        self.n_channels = n_channels
        self.dropout = dropout
        self.layers = _layers(n_channels, widths)
        self.readout = Dense(widths[-1], n_out)

    @property
    def out_bias(self) -> Tensor:
        return self.readout.bias

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return self.readout(self.hidden(x, draws)[-1]).reshape(*x.shape[:-1], -1)

    def hidden(self, x: Tensor, draws: Draws | None = None) -> list[Tensor]:
        """Compute the states (n, n_states) of each layer after the last step of rows (..., n_in).

        Dropout applies only if there are `draws`.
        """
        steps = x.reshape(-1, x.shape[-1] // self.n_channels, self.n_channels)
        last = (~steps.isnan().any(-1)).sum(-1)[:, None, None] - 1
        steps, states = steps.nan_to_num(), []
        for layer in self.layers:
            steps = apply_dropout(layer(steps), draws, self.dropout)
            states.append(steps.take_along_dim(last, 1)[:, 0])
        return states

    def output_parameters(self) -> list[Tensor] | None:
        return self.readout.output_parameters()


class SequenceDecoder(Sequences):
    """Decoder that generates a sequence step by step.

    The input of each step is the code plus a vector that is trained for this step. The code also
    determines the initial state of the first layer. That of the other layers is 0.

    Parameters
    ----------
    n_in : int
        Length of the code, including conditions.
    widths : sequence of int
        Numbers of states of the layers.
    shape : tuple of int
        Numbers of steps and channels of a sequence.
    dropout : float
        Share of states that are set to zero during training.
    """

    def __init__(
        self, n_in: int, widths: Sequence[int], shape: tuple[int, int], dropout: float
    ) -> None:
        super().__init__()
        self.shape = shape
        self.dropout = dropout
        self.n_hidden = 3 * max(widths) * shape[0]
        self.first = Dense(n_in, widths[0])
        self.clock = nn.Parameter(torch.empty(shape[0], n_in))
        self.layers = _layers(n_in, widths)
        self.readout = Dense(widths[-1], shape[1])
        self.bias = nn.Parameter(torch.empty(math.prod(shape)))

    @property
    def out_bias(self) -> Tensor:
        return self.bias

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        code = x.reshape(-1, x.shape[-1])
        steps = code[:, None] + self.clock
        state: Tensor | None = torch.tanh(self.first(code))
        for layer in self.layers:
            steps = apply_dropout(layer(steps, state), draws, self.dropout)
            state = None
        return self.readout(steps).reshape(*x.shape[:-1], -1) + self.bias

    def input_parameters(self) -> list[Tensor] | None:
        return [self.first.weight, self.layers[0].of_input.weight, self.clock]

    @torch.no_grad()
    def reset(self, generator: torch.Generator, silent: bool) -> None:
        super().reset(generator, silent)
        self.clock.copy_(torch.randn(self.clock.shape, generator=generator, dtype=torch.float64))


class Recurrent(Architecture):
    """Recurrent encoders and decoders.

    Parameters
    ----------
    shape : tuple of int
        Numbers of steps and channels of a sequence.
    widths : sequence of int
        Numbers of states of the encoder's layers. The decoder has them in reverse order.
    dropout : float
        Share of states that are set to zero during training.
    """

    takes_missing = True
    likes_skip = False

    def __init__(self, shape: tuple[int, int], widths: Sequence[int], dropout: float) -> None:
        super().__init__(math.prod(shape), math.prod(shape))
        self.shape, self.widths, self.dropout = shape, tuple(widths), dropout

    def encoder(self, n_out: int) -> Residual:
        return SequenceEncoder(self.shape[1], self.widths, n_out, self.dropout)

    def decoder(self, n_in: int, tied_to: Residual | None) -> Residual:
        return SequenceDecoder(n_in, self.widths[::-1], self.shape, self.dropout)
