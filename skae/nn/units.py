"""Change of the units in which a network receives rows and returns them."""

import torch
from torch import Tensor

from skae.nn.network import Network


@torch.no_grad()
def change_units(network: Network, center: Tensor, scale: Tensor) -> None:
    """Change the centers and the scale of a network, but not its function of rows.

    The first and the last layers are adjusted, up to rounding. If one of them is not a dense layer,
    or if the decoder has tied weights, the units stay unchanged.

    Parameters
    ----------
    network : Network
        Network to change.
    center : Tensor of shape (n_modelled,)
        New centers of the modelled columns.
    scale : Tensor of shape ()
        New global scale.
    """
    ends = network.encoder.ends(), network.decoder.ends()
    if ends[0] is None or ends[1] is None:
        return
    gain, shift = network.inputs.change_units(center, scale)
    for layer, _ in ends[0]:
        layer.bias.add_((layer.weight.double() @ shift).to(layer.bias))
        layer.weight.mul_(gain.to(layer.weight))
    gain, shift = network.likelihood.change_units(center, scale)
    for _, layer in ends[1]:
        each = gain.to(layer.weight).expand(len(layer.weight))
        layer.weight.mul_(each[:, None])
        layer.bias.mul_(each)
    network.decoder.out_bias.add_(shift.to(network.decoder.out_bias))
