"""Rotation of codes, which changes neither reconstructions nor the density of rows."""

from collections.abc import Mapping

import torch
from torch import Tensor

from skae.nn.network import Network


def can_rotate(network: Network) -> bool:
    """Return whether `rotate` can rotate the codes of a network.

    Any rotation of its codes must be as good as any other, and the layers next to the code must be
    dense. Tied weights and modules of the user are excluded.
    """
    parts = network.encoder.output_parameters(), network.decoder.input_parameters()
    return network.latent.has_free_axes and None not in parts


@torch.no_grad()
def rotate(network: Network, axes: Tensor, states: Mapping[Tensor, Mapping[str, Tensor]]) -> None:
    """Rotate the codes of a network from z (n, k) to z @ axes.

    The decoder and the auxiliary loss are adapted, so that they are the same functions of rows.

    Parameters
    ----------
    network : Network
        Network that `can_rotate` accepts.
    axes : Tensor of shape (k, k)
        Orthogonal matrix, in float64 on the CPU.
    states : mapping
        State of the optimizer for each parameter. The mean of the gradients is rotated, too. The
        mean of their squares is rotated as that of uncorrelated gradients.
    """
    outputs, inputs = network.encoder.output_parameters(), network.decoder.input_parameters()
    assert outputs is not None
    assert inputs is not None
    for values, matrix in _with_states(outputs, axes, states):
        values.copy_((matrix.mT @ values.cpu().double()).to(values))
    # The decoder receives conditions after the code.
    full = torch.block_diag(axes, torch.eye(network.inputs.n_conditions, dtype=axes.dtype))
    pairs = _with_states(inputs, full, states)
    if network.auxiliary is not None:
        pairs += _with_states(network.auxiliary.input_tensors(), axes, states)
    for values, matrix in pairs:
        values.copy_((values.cpu().double() @ matrix).to(values))


def _with_states(
    tensors: list[Tensor], axes: Tensor, states: Mapping[Tensor, Mapping[str, Tensor]]
) -> list[tuple[Tensor, Tensor]]:
    """Return tensors and the means of gradients and of their squares, each with its matrix."""
    pairs = [(tensor, axes) for tensor in tensors]
    for state in (states[tensor] for tensor in tensors if tensor in states):
        pairs += [(state["exp_avg"], axes), (state["exp_avg_sq"], axes.square())]
    return pairs
