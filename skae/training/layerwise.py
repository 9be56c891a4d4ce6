"""Greedy layer-wise pre-training of a network's hidden layers."""

from dataclasses import replace

import torch

from skae.nn.batch import Batch
from skae.nn.corruption import NamedCorruption
from skae.nn.network import Network
from skae.nn.shallow import shallow_layers
from skae.training.batches import Batches
from skae.training.budget import Budget
from skae.training.loop import Net
from skae.training.plan import Plan


def pretrain(network: Network, train: Batches, plan: Plan, generator: torch.Generator) -> None:
    """Train each hidden layer as a shallow autoencoder on the codes of the layer before.

    Layers are trained in order, starting with the layer next to the rows. The linear skip stays
    unchanged, and with one, the output of the residual network is then set to zero again. A named
    corruption is applied to the codes of layers, too, except for corruptions of images. A user's
    corruption function is applied to rows only.
    """
    shallow = Plan(
        learning_rate=plan.learning_rate,
        budget=Budget(plan.layerwise_epochs, plan.budget.batch_size),
        weight_decay=plan.weight_decay,
    )
    # Targets are not used in pre-training.
    table = train.table._replace(targets=None, target_weight=None)
    batches = replace(train, table=table)
    for layer in shallow_layers(network):
        Net.from_module(layer, generator).fit_rows(batches, None, shallow)
        rows = batches.take(batches.index)
        with torch.no_grad():
            codes = layer.encode(rows._replace(x=rows.original))
        batches = Batches.all_rows(Batch(codes, rows.weight))
        if isinstance(train.corrupt, NamedCorruption):
            batches.corrupt = train.corrupt.of_codes(codes, rows.weight)
    for body in (network.encoder, network.decoder):
        body.zero_residual()
