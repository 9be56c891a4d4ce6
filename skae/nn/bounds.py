"""The importance-weighted bound, with gradients that leave a true posterior alone."""

import math

import torch
from torch import Tensor


def importance_weighted(losses: Tensor, z: Tensor, beta: Tensor | float) -> Tensor:
    """Bound of minus rows' log-densities (n,), from codes `z` (s, n, k) and their losses (s, n).

    A code's loss is minus the log-likelihood plus `beta` times log q(z) / p(z), where q passes no
    gradient to its own parameters. That gradient says nothing of where codes should be, yet is 0 on
    average only: with it, even a true posterior is pushed about, the more the more codes there
    are [1]_. In a weighted mean its average is not 0; a factor on the gradient that reaches `z`
    stands for what is then missing.

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
