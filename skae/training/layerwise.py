"""Greedy layer-wise pre-training of a network's hidden layers."""

import torch

from skae.nn.corruption import Named
from skae.nn.network import Network
from skae.nn.shallow import shallow_layers
from skae.training.batches import Rows
from skae.training.loop import Net
from skae.training.plan import Plan


def pretrain(network: Network, train: Rows, plan: Plan, generator: torch.Generator) -> None:
    """Train each hidden layer as a shallow autoencoder on the codes of the layer below.

    Works from the rows inwards; the output of a linear skip is left as it was. What spoils rows
    spoils codes, too, unless it is the user's own: that is for rows.
    """
    # Facts are of no use to layers.
    rows = Rows(train.parts[:3], train.index, train.corrupt, n_given=train.n_given)
    for layer in shallow_layers(network):
        Net.over(layer, generator).fit_rows(rows, None, plan)
        weight, *_, x = rows.taken(rows.index)
        with torch.no_grad():
            codes = layer.encode(x)
        rows = Rows.all(weight, codes)
        if isinstance(train.corrupt, Named):
            rows.corrupt = train.corrupt.of_codes(codes, weight)
    for body in (network.encoder, network.decoder):
        body.zero_residual()
