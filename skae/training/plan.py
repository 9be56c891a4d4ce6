"""Training plan, and the schedule of the learning rate over the steps of a training."""

import math
from dataclasses import dataclass, field, replace
from typing import Any

from skae.training.budget import Budget

WARM_UP = 0.25
"""Proportion of a one-cycle schedule during which the learning rate rises."""

EARLIEST_CUT = 0.5
ANNEALING = 0.1
"""Proportion of a schedule after which it may be cut short, and that of the steps which follow."""


@dataclass
class Plan:
    """Settings of a training that do not depend on the model."""

    learning_rate: float
    """Largest learning rate."""
    budget: Budget
    """Numbers of rows and steps."""
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

    def resumed(self, n_epochs: int) -> "Plan":
        """Return the plan of `n_epochs` more epochs for a trained model."""
        budget = self.budget._replace(max_epochs=n_epochs)
        return replace(self, budget=budget, from_start=False)

    def rate(self, position: float) -> float:
        """Compute the learning rate at a position of the schedule, from 0 to 1."""
        if position < WARM_UP:
            height = 0.5 - 0.5 * math.cos(math.pi * position / WARM_UP)
            return self.learning_rate * (0.04 + 0.96 * height)
        height = 0.5 + 0.5 * math.cos(math.pi * (position - WARM_UP) / (1 - WARM_UP))
        return self.learning_rate * max(height, 1e-4)


@dataclass
class Schedule:
    """Position of a training in its schedule.

    The position rises from 0 to 1 in equal steps. If the schedule is cut short, it continues to
    rise to 1 in fewer steps, so that the learning rate still falls to almost zero.

    Attributes
    ----------
    n_steps : int
        Number of steps at which the training ends.
    done : int
        Number of completed steps.
    cut_step, cut_position : int and float
        Completed steps and position when the schedule was cut short. They are 0 before that.
    """

    n_steps: int
    done: int = 0
    cut_step: int = 0
    cut_position: float = 0.0

    def position(self, ahead: int = 0) -> float:
        """Compute the position after the completed steps and `ahead` more steps."""
        share = (self.done + ahead - self.cut_step) / max(1, self.n_steps - self.cut_step)
        return self.cut_position + (1 - self.cut_position) * share

    def may_be_cut(self) -> bool:
        """Return whether the schedule has come far enough to be cut short, for the first time."""
        return not self.cut_step and EARLIEST_CUT <= self.position() < 1 - ANNEALING

    def cut(self, n_in_epoch: int) -> None:
        """Shorten the rest of the schedule to about `ANNEALING` of it, in whole epochs."""
        n_epochs = math.ceil(ANNEALING * self.n_steps / n_in_epoch)
        self.cut_position, self.cut_step = self.position(), self.done
        self.n_steps = min(self.n_steps, self.done + n_epochs * n_in_epoch)
