"""Choice of the epoch whose weights are kept, by the losses of validation rows."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

STANDARD_ERRORS = 2.0
"""Number of standard errors by which the losses of validation rows must differ before and after
training, so that they decide whether the trained network is kept."""

GAIN = 0.01
STALL_SHARE = 0.2
STALL_EPOCHS = 3
"""The validation loss has stalled if its improvement was at most a share `GAIN` of all improvement
since the start, for a share `STALL_SHARE` of all epochs and at least `STALL_EPOCHS` epochs."""


@dataclass(frozen=True)
class Outcome:
    """Result of a call of `Net.fit_rows`.

    Attributes
    ----------
    epoch : int
        Epoch whose weights the module has, counted from 1 in this call. 0 is the state before the
        first step.
    loss : float
        Objective on the training rows with the weights of this epoch, in nats per row. If the epoch
        is 0, the objective after the last epoch, which shows whether training diverged.
    change : tuple of (float, float) or None
        Mean change of the losses of the validation rows from the state before the first step to the
        last epoch, and its standard error. None without validation rows.
    first_loss : float
        Objective on the training rows after a trained noise variance was raised before the first
        step. None if no noise variance was raised.
    """

    epoch: int
    loss: float
    change: tuple[float, float] | None
    first_loss: float | None = None

    @property
    def is_better(self) -> bool:
        """Whether the losses of validation rows have fallen by more than their standard errors."""
        if self.change is None:
            return False
        mean, error = self.change
        return mean < -STANDARD_ERRORS * error

    def is_worse(self, is_wide: bool) -> bool:
        """Return whether training is held to have made the network worse than before.

        A network can reproduce the rows of a wide table, which has more columns than training rows,
        without learning anything about other rows. The losses of the validation rows of such a
        table must have fallen by more than `STANDARD_ERRORS` standard errors, for which there must
        be at least two rows. Those of another table must not have risen by more than that.
        """
        if self.change is None:
            return False
        mean, error = self.change
        if not math.isfinite(error):
            return is_wide
        margin = STANDARD_ERRORS * error
        return mean > (-margin if is_wide else margin)


def paired_change(
    before: Tensor, after: Tensor, weight: Tensor, trim: float
) -> tuple[float, float]:
    """Compute the mean change of the losses (n,) of rows, and its standard error.

    A share `trim` of the weight is ignored: that of the rows with the largest losses. The standard
    error of a single row is infinite.
    """
    order = (before + after).argsort()
    weight, change = weight[order].double(), (after - before)[order].double()
    kept = (1 - trim) * weight.sum()
    weight = torch.minimum(weight, (kept - (weight.cumsum(0) - weight)).clamp_min(0))
    share = weight / weight.sum()
    mean, n_effective = share @ change, 1 / (share @ share)
    if n_effective < 1 + 1e-9:
        return float(mean), math.inf
    variance = share @ (change - mean) ** 2 / (n_effective - 1)
    return float(mean), float(variance.sqrt())


@dataclass
class BestEpoch:
    """Weights of the best epoch on validation rows, and the state of early stopping.

    Attributes
    ----------
    state : dict of str to Tensor
        Weights of the best epoch.
    loss : float
        Validation loss of the best epoch.
    epoch : int
        The best epoch. 0 is the state before the first step.
    reference : float
        Validation loss at the last improvement by more than `tol`.
    waiting_since : int
        Epoch of this improvement.
    first_loss : float
        Validation loss of epoch 0.
    level : float
        Validation loss at the last improvement by more than `GAIN` of all improvement since the
        start.
    stalled_since : int
        Epoch of this improvement.
    """

    state: dict[str, Tensor] = field(default_factory=dict)
    loss: float = math.inf
    epoch: int = 0
    reference: float = math.inf
    waiting_since: int = 0
    first_loss: float = math.nan
    level: float = math.inf
    stalled_since: int = 0

    def update(self, epoch: int, loss: float, module: nn.Module, tol: float) -> bool:
        """Record the validation loss of an epoch, and return whether it is the lowest so far."""
        if loss < self.reference - tol:
            self.reference, self.waiting_since = loss, epoch
        if epoch == 0:
            self.first_loss = self.level = loss
        if loss < self.level - GAIN * (self.first_loss - loss):
            self.level, self.stalled_since = loss, epoch
        if not loss < self.loss:
            return False
        self.loss, self.epoch = loss, epoch
        self.state = {k: v.detach().clone() for k, v in module.state_dict().items()}
        return True

    def has_stalled(self, epoch: int, max_epochs: int) -> bool:
        """Return whether the validation loss has not improved clearly for a part of the epochs."""
        return epoch - self.stalled_since >= max(STALL_EPOCHS, STALL_SHARE * max_epochs)
