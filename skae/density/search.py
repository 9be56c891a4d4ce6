"""The search for the most probable code of each row under the density `Laplace`."""

import torch
from torch import Tensor

from skae.density.expansion import Expansion, select_rows
from skae.nn.batch import Batch
from skae.nn.prior import Prior, inverse

MODE_TOLERANCE = 1e-5
"""The search for the most probable code of a row ends when the gain of a step is at most this
number of nats."""

TRUSTED_GAIN = 1e-3
"""Steps with at most this gain are accepted without a comparison of log-densities, whose rounding
errors in float32 can be larger."""

FIRST_RATIO, SLOW_RATIO = 0.1, 0.25
"""Ratio of the gains of successive steps that is expected before the first step, and the ratio
above which the next point is expanded."""

N_STEP_LENGTHS = 6
"""Number of step lengths to try, each half of the previous one. The search for the most probable
code of a row ends if all of them decrease the joint log-density of the row and the code."""


class Search:
    """Damped Gauss-Newton steps from the codes of an expansion to the most probable codes.

    The precision of a code costs many times as much as the gradient, and changes little along the
    path. It is thus computed at the first and at the last code of a row, and in between only if
    the steps become slow. Each row has its own criteria, so its result does not depend on the other
    rows.

    Parameters
    ----------
    expansion : Expansion
        Expansion at the initial codes; it is changed in place.
    prior : Prior
        Distribution of codes.

    Attributes
    ----------
    log_joint : Tensor of shape (n,)
        Joint log-density of each row and its code, in nats, without the terms of the prior that do
        not depend on the code.
    gain : Tensor of shape (n,)
        Twice the increase of `log_joint`, in nats, that the expansion predicts for another step.
    log_det : Tensor of shape (n,)
        Logarithms of the determinants of the precisions of the codes given the rows.
    """

    def __init__(self, expansion: Expansion, prior: Prior) -> None:
        self.expansion, self.prior = expansion, prior
        self.z = expansion.z.clone()
        self.log_joint = self._log_joint(expansion.rows, expansion.out, self.z)
        self.gradient = torch.empty_like(self.z)
        self.covariance = torch.empty_like(expansion.information)
        self.gain, self.log_det = torch.empty_like(self.log_joint), torch.empty_like(self.log_joint)
        self.ratio = torch.full_like(self.gain, FIRST_RATIO)
        self.is_expanded = torch.ones_like(self.gain, dtype=torch.bool)
        self.has_ended = torch.zeros_like(self.is_expanded)
        self._read_expansion(torch.arange(len(self.z), device=self.z.device))

    def run(self, max_steps: int) -> None:
        """Take at most `max_steps` steps."""
        active = torch.arange(len(self.z), device=self.z.device)
        for _ in range(max_steps):
            going = (self.gain[active] > MODE_TOLERANCE) | ~self.is_expanded[active]
            active = active[going & ~self.has_ended[active]]
            if len(active) == 0:
                return
            ratio = self.ratio[active]
            arrives = self.gain[active] * ratio <= MODE_TOLERANCE
            expands = arrives | (ratio > SLOW_RATIO)
            for index, is_expanded in ((active[expands], True), (active[~expands], False)):
                if len(index):
                    self._step(index, is_expanded)
        self._expand((~self.is_expanded).nonzero()[:, 0])

    def _step(self, index: Tensor, is_expanded: bool) -> None:
        """Take a step, and compute the gradient or the expansion at the new codes."""
        step, gain = self._newton_step(index), self.gain[index]
        trial = self.z[index] + step
        if is_expanded:
            point = self.expansion.expanded(index, trial)
            out = point.out
        else:
            out, gradient = self.expansion.gradients(index, trial)
        value = self._log_joint(select_rows(self.expansion.rows, index), out, trial)
        accepted = (value >= self.log_joint[index]) | (gain <= TRUSTED_GAIN)
        kept = index[accepted]
        self.z[kept], self.log_joint[kept] = trial[accepted], value[accepted]
        if is_expanded:
            self.expansion.put(kept, point.select(accepted))
            self._read_expansion(kept)
        else:
            self.gradient[kept] = (gradient + self.prior.score(trial))[accepted]
            self.is_expanded[kept] = False
            self._update_gain(kept)
        self.ratio[kept] = self.gain[kept] / gain[accepted]
        if len(kept) < len(index):
            self._shorten(index[~accepted], step[~accepted])

    def _shorten(self, index: Tensor, step: Tensor) -> None:
        """Take the longest step that does not decrease the log-density, and expand there."""
        rest = index
        for _ in range(N_STEP_LENGTHS - 1):
            step = step / 2
            batch, trial = select_rows(self.expansion.batch, rest), self.z[rest] + step
            out = self.expansion.network.outputs(trial.to(batch.x), batch)
            value = self._log_joint(self.expansion.network.inputs.modelled(batch), out, trial)
            accepted = value >= self.log_joint[rest]
            kept = rest[accepted]
            self.z[kept], self.log_joint[kept] = trial[accepted], value[accepted]
            self.is_expanded[kept] = False
            rest, step = rest[~accepted], step[~accepted]
            if len(rest) == 0:
                break
        self.has_ended[rest] = self.is_expanded[rest]
        self._expand(index[~self.is_expanded[index]])

    def _expand(self, index: Tensor) -> None:
        """Expand at the current codes."""
        if len(index):
            self.expansion.put(index, self.expansion.expanded(index, self.z[index]))
            self._read_expansion(index)
            self.ratio[index] = FIRST_RATIO

    def _read_expansion(self, index: Tensor) -> None:
        gradient = self.expansion.gradient[index] + self.prior.score(self.z[index])
        precision = self.expansion.precision(self.prior, index)
        self.covariance[index], self.log_det[index] = inverse(precision)
        self.gradient[index] = gradient
        self.is_expanded[index] = True
        self._update_gain(index)

    def _update_gain(self, index: Tensor) -> None:
        self.gain[index] = (self.gradient[index] * self._newton_step(index)).sum(-1)

    def _newton_step(self, index: Tensor) -> Tensor:
        return (self.covariance[index] @ self.gradient[index][..., None])[..., 0]

    def _log_joint(self, rows: Batch, out: Tensor, z: Tensor) -> Tensor:
        log_likelihood = self.expansion.likelihood.log_prob(rows, out).double()
        return log_likelihood + self.prior.height(z)
