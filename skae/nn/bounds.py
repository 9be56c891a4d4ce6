"""The importance-weighted bound with doubly reparametrized gradients."""

import math

import torch
from torch import Tensor


def importance_weighted(losses: Tensor, z: Tensor, beta: Tensor | float) -> Tensor:
    """Compute the loss of each row, (n,), from the losses of several codes.

    With `beta` = 1, its expectation is an upper bound of the negative log-density of the row.

    The arguments are codes `z` (s, n, k), s draws from the posterior of each row, and their losses
    (s, n). The loss of a code is the negative log-likelihood plus `beta` times log(q(z) / p(z)),
    with the posterior q and the prior p. It must be computed without the gradient with respect to
    the parameters of q. For a single draw, this gradient is 0 in expectation. Its noise would move
    even a correct posterior, and more so with more draws [1]_. For several draws, its expectation
    is not 0. A factor on the gradient with respect to `z` accounts for this.

    References
    ----------
    .. [1] G. Tucker, D. Lawson, S. Gu and C. J. Maddison, "Doubly reparameterized gradient
       estimators for Monte Carlo objectives", ICLR 2019.
    """
    if z.requires_grad:
        with torch.no_grad():
            factor = (1 - beta) + beta * (-losses).softmax(0)
        z.register_hook(lambda gradient: gradient * factor[..., None])
    return math.log(len(losses)) - (-losses).logsumexp(0)
