"""From rows to tensors: where numpy's memory becomes torch's."""

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skae.nn.batch import Batch
from skae.nn.network import Network
from skae.table.rows import Floats, Rows


class _Writable:
    """Presents an array as writable, since torch warns of others though nothing here writes."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = array
        address = array.__array_interface__["data"][0]
        self.__array_interface__ = array.__array_interface__ | {"data": (address, False)}


def as_tensor(values: NDArray[Any]) -> Tensor:
    """An array as a tensor that shares its memory where torch can, whatever its flags."""
    if any(stride < 0 for stride in values.strides):
        values = values.copy()
    return torch.from_numpy(values if values.flags.writeable else np.asarray(_Writable(values)))


def tensor(values: NDArray[Any], network: Network) -> Tensor:
    """An array as a tensor on the network's device and in its dtype."""
    return as_tensor(values).to(network.like)


def batch_of(rows: Rows, network: Network, weight: Floats | None = None) -> Batch:
    """Rows as a network takes them; without weights, all count alike."""
    x = tensor(rows.values, network)
    counts = x.new_ones(len(x)) if weight is None else tensor(weight, network)
    return Batch(x, counts, observed=~x.isnan() if rows.may_miss else None)


def with_float64(network: Network) -> Network:
    """The network where densities can be computed: mps has no float64, the processor has."""
    return copy.deepcopy(network).cpu() if network.like.device.type == "mps" else network
