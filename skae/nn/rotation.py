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
    """Rotate the codes of a network from z (n, k) to z @ axes, and the decoder accordingly.

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
    for p in outputs:
        for values, matrix in _with_state(p, axes, states[p]):
            _replace(values, matrix.mT @ _exact(values))
    # The decoder receives conditions after the code.
    full = torch.block_diag(axes, torch.eye(network.inputs.n_conditions, dtype=axes.dtype))
    for p in inputs:
        for values, matrix in _with_state(p, full, states[p]):
            _replace(values, _exact(values) @ matrix)


def _with_state(
    p: Tensor, axes: Tensor, state: Mapping[str, Tensor]
) -> list[tuple[Tensor, Tensor]]:
    """Return a parameter and its means of gradients and of their squares, with their matrices."""
    return [(p, axes), (state["exp_avg"], axes), (state["exp_avg_sq"], axes.square())]


def _exact(values: Tensor) -> Tensor:
    return values.cpu().double()


def _replace(values: Tensor, by: Tensor) -> None:
    values.copy_(by.to(values))
