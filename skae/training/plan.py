"""Training plan: number of epochs, learning rate, stopping criteria and callbacks."""

import math
from dataclasses import dataclass, field
from typing import Any

WARM_UP = 0.25
"""Proportion of a one-cycle schedule during which the learning rate rises."""


@dataclass
class Plan:
    """Settings of a training that do not depend on the model."""

    learning_rate: float
    """Largest learning rate."""
    max_epochs: int
    batch_size: int
    """Number of rows in each step, except for the last step of an epoch."""
    weight_decay: float = 0.0
    """Multiple of a weight that is added to its gradient, for weights of hidden layers."""
    layerwise_epochs: int = 0
    """Number of pre-training epochs for each hidden layer."""
    loss_before: float | None = None
    """Objective on the training rows before the pre-training. None without pre-training."""
    restore_best: bool = True
    """Whether to restore the weights of the best epoch on validation rows, if there are any."""
    patience: int | None = None
    """Number of epochs without improvement of the validation loss after which training stops. Only
    the second half of the epochs is counted. None never stops early."""
    tol: float = 0.0
    """Decrease of the validation loss, in nats per row, that counts as an improvement."""
    autocast: bool = False
    """Whether torch's autocast computes some operations in bfloat16."""
    verbose: int = 0
    """Whether to print a line for each epoch, if it is not 0."""
    callbacks: list[Any] = field(default_factory=list)
    """skorch callbacks of the user, or pairs of a name and a callback."""
    contexts: Any = None
    """Callback that forwards epochs to scikit-learn's callbacks, or None."""
    from_start: bool = True
    """Whether the model is new. Parts of its objective may then be annealed with a one-cycle
    schedule."""
    signature: str = ""
    """Text that identifies the estimator and its parameters, for checkpoints."""

    def rate(self, progress: float) -> float:
        """Compute the learning rate when a share `progress` of the schedule is completed."""
        if progress < WARM_UP:
            height = 0.5 - 0.5 * math.cos(math.pi * progress / WARM_UP)
            return self.learning_rate * (0.04 + 0.96 * height)
        height = 0.5 + 0.5 * math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP))
        return self.learning_rate * max(height, 1e-4)
