"""Change of the units in which a network receives rows and returns them."""

import torch
from torch import Tensor

from skae.nn.network import Network


def can_change_units(network: Network) -> bool:
    """Return whether `change_units` can change the units of a network.

    It cannot if the first or the last layer is not dense, if the decoder has tied weights, or if
    columns have their own scales.
    """
    if network.inputs.has_own_scales:
        return False
    return network.encoder.ends() is not None and network.decoder.ends() is not None


@torch.no_grad()
def change_units(network: Network, center: Tensor, scale: Tensor) -> None:
    """Change the centers and the scale of a network, but not its function of rows.

    The first and the last layers are adjusted, up to rounding. If this is not possible, the units
    stay unchanged.

    Parameters
    ----------
    network : Network
        Network to change.
    center : Tensor of shape (n_modelled,)
        New centers of the modelled columns, in float64 on the CPU: other devices may not support
        float64.
    scale : Tensor of shape ()
        New global scale, in float64 on the CPU.
    """
    ends = network.encoder.ends(), network.decoder.ends()
    if network.inputs.has_own_scales or ends[0] is None or ends[1] is None:
        return
    gain, shift = network.inputs.change_units(center, scale)
    for layer, _ in ends[0]:
        cells, missing = layer.weight.tensor_split([len(shift)], dim=1)
        old = cells.cpu().double()
        layer.bias.add_((old @ shift).to(layer.bias))
        # A missing cell is 0 in the old and in the new units, so that its shift is removed again.
        missing.sub_((old * shift)[:, network.inputs.missing.cpu()].to(missing))
        cells.mul_(gain.to(cells))
    gain, shift = network.likelihood.change_units(center, scale)
    for _, layer in ends[1]:
        each = gain.to(layer.weight).expand(len(layer.weight))
        layer.weight.mul_(each[:, None])
        layer.bias.mul_(each)
    network.decoder.out_bias.add_(shift.to(network.decoder.out_bias))
