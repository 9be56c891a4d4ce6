"""Linearizations of networks: their outputs, and the derivatives along some directions."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

import skae._compat.torch  # noqa: F401  # silences the first call of torch.func.jvp
from skae.nn.locks import process_lock

_forward_mode_lock = process_lock()
"""Only one thread may use forward-mode differentiation at a time, because torch keeps its nesting
level per process, not per thread."""


class Term(NamedTuple):
    """A part of a Jacobian, as the product of a linear map and the derivatives of its inputs.

    Attributes
    ----------
    features : Tensor of shape (m, n, h), or (m, 1, h) if they are the same for all rows
        Derivatives of h inputs of the linear map along m directions.
    weight : Tensor of shape (d, h) or None
        Linear map. None is the identity.
    """

    features: Tensor
    weight: Tensor | None


class Linearization(NamedTuple):
    """Outputs of a network for n rows, and their derivatives along m directions of the input.

    Attributes
    ----------
    out : Tensor of shape (n, d)
        Outputs.
    terms : list of Term
        Terms whose sum is the Jacobian.
    """

    out: Tensor
    terms: list[Term]

    def derivatives(self) -> Tensor:
        """Return the derivatives of the outputs, (m, n, d) or (m, 1, d)."""
        parts = [term[0] if term[1] is None else term[0] @ term[1].mT for term in self.terms]
        return sum(parts[1:], parts[0])

    def jacobian(self) -> Tensor:
        """Return the Jacobian, (n, d, m)."""
        return self.derivatives().expand(-1, len(self.out), -1).permute(1, 2, 0)

    def factors(self) -> tuple[Tensor, Tensor] | None:
        """Return features (n, h, m) and a weight (d, h), whose product is the Jacobian.

        It returns None unless there are fewer features than outputs.
        """
        weights = [term.weight for term in self.terms if term.weight is not None]
        if len(weights) < len(self.terms) or sum(len(w.mT) for w in weights) >= self.out.shape[1]:
            return None
        features = [term.features.expand(-1, len(self.out), -1) for term in self.terms]
        return torch.cat(features, -1).permute(1, 2, 0), torch.cat(weights, -1)


def forward_mode(
    function: Callable[[Tensor], Tensor], x: Tensor, directions: Tensor
) -> Linearization:
    """Linearize any function of rows `x` (n, n_in) by forward-mode differentiation.

    `directions` has the shape (m, n_in).
    """

    def derivative(direction: Tensor) -> tuple[Tensor, Tensor]:
        out, tangent = torch.func.jvp(function, (x,), (direction.expand_as(x),))  # type: ignore[misc]
        return out, tangent

    with _forward_mode_lock:
        out, jacobian = torch.func.vmap(derivative, out_dims=(None, 0))(directions)  # type: ignore[arg-type]
    return Linearization(out, [Term(jacobian, None)])
