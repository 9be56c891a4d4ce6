"""Conversion of arrays and rows to tensors and batches."""

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
    """Array interface that declares the memory of an array as writable.

    `torch.from_numpy` warns if an array is read-only, but skae never writes to these tensors.
    """

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = array
        address = array.__array_interface__["data"][0]
        self.__array_interface__ = array.__array_interface__ | {"data": (address, False)}


def as_tensor(values: NDArray[Any]) -> Tensor:
    """Convert an array to a tensor, which shares its memory unless a stride is negative."""
    if any(stride < 0 for stride in values.strides):
        values = values.copy()
    return torch.from_numpy(values if values.flags.writeable else np.asarray(_Writable(values)))


def tensor(values: NDArray[Any], network: Network) -> Tensor:
    """Convert an array to a tensor with the device and the dtype of a network."""
    return as_tensor(values).to(network.like)


def make_batch(rows: Rows, network: Network, weight: Floats | None = None) -> Batch:
    """Make a batch for a network from rows, with weights of 1 if `weight` is None."""
    x = tensor(rows.values, network)
    weights = x.new_ones(len(x)) if weight is None else tensor(weight, network)
    return Batch(x, weights, observed=~x.isnan() if rows.may_have_missing else None)


def to_float64_device(network: Network) -> Network:
    """Return the network, or a copy of it on the CPU if its device is mps, which has no float64."""
    return copy.deepcopy(network).cpu() if network.like.device.type == "mps" else network
