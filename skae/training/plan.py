"""The plan of a training: its length, rate and what ends it."""

import math
from dataclasses import dataclass, field
from typing import Any

WARM_UP = 0.25
"""Share of a one-cycle schedule in which the rate rises."""


@dataclass
class Plan:
    """How to train: plain numbers, free of any model."""

    learning_rate: float
    max_epochs: int
    batch_size: int
    weight_decay: float = 0.0
    layerwise_epochs: int = 0
    """Epochs of pre-training for each hidden layer."""
    one_cycle: bool = True
    restore_best: bool = True
    patience: int | None = None
    tol: float = 0.0
    autocast: bool = False
    verbose: int = 0
    callbacks: list[Any] = field(default_factory=list)
    contexts: Any = None
    from_start: bool = True
    """Whether training begins, so that parts of the objective may rise with its schedule."""
    signature: str = ""
    """What else decides the result: the estimator and its parameters."""

    def rate(self, progress: float) -> float:
        """Learning rate at a share of the schedule: up and down a cosine, or constant."""
        if not self.one_cycle:
            return self.learning_rate
        if progress < WARM_UP:
            height = 0.5 - 0.5 * math.cos(math.pi * progress / WARM_UP)
            return self.learning_rate * (0.04 + 0.96 * height)
        height = 0.5 + 0.5 * math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP))
        return self.learning_rate * max(height, 1e-4)
