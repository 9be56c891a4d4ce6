"""Training plan: number of epochs, learning rate, stopping criteria and callbacks."""

import math
from dataclasses import dataclass, field
from typing import Any

WARM_UP = 0.25
"""Proportion of a one-cycle schedule during which the learning rate rises."""


@dataclass
class Plan:
    """Settings of a training, independent of the model."""

    learning_rate: float
    max_epochs: int
    batch_size: int
    weight_decay: float = 0.0
    layerwise_epochs: int = 0
    """Number of pre-training epochs for each hidden layer."""
    one_cycle: bool = True
    """Whether the learning rate follows a one-cycle schedule. If False, it is constant."""
    restore_best: bool = True
    """Whether to restore the weights of the best epoch on validation rows."""
    patience: int | None = None
    """Number of epochs without improvement after which training stops; None disables it."""
    tol: float = 0.0
    """Decrease of the validation loss, in nats per row, that counts as an improvement."""
    autocast: bool = False
    verbose: int = 0
    callbacks: list[Any] = field(default_factory=list)
    contexts: Any = None
    """Callback that forwards epochs to scikit-learn's callbacks, or None."""
    from_start: bool = True
    """Whether the model is new. Parts of its objective may then be annealed with the schedule."""
    signature: str = ""
    """Text that identifies the estimator and its parameters, for checkpoints."""

    def rate(self, progress: float) -> float:
        """Compute the learning rate at `progress` through the schedule, from 0 to 1."""
        if not self.one_cycle:
            return self.learning_rate
        if progress < WARM_UP:
            height = 0.5 - 0.5 * math.cos(math.pi * progress / WARM_UP)
            return self.learning_rate * (0.04 + 0.96 * height)
        height = 0.5 + 0.5 * math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP))
        return self.learning_rate * max(height, 1e-4)
