"""The search for the most probable code of each row under the density `Laplace`."""

import torch
from torch import Tensor

from skae.density.expansion import Expansion, select_rows
from skae.nn.prior import Prior, inverse

MODE_TOLERANCE = 1e-6
"""Damped steps of a row end when the gain of the next one is at most this number of nats."""

FAST_TOLERANCE, EXPECTED_GAIN = 1e-5, 3e-6
"""Largest gain in nats after shared steps, and the gain that is expected of the last one. They can
be larger than `MODE_TOLERANCE`, because the gain falls quickly in shared steps."""

GAIN_RATIO = 0.1
"""Largest ratio of the gains of successive shared steps, which is also expected of the first two.
If the gain falls slowly, the code may be farther from the most probable one than the gain suggests,
and the steps may approach another local maximum than damped steps do."""

TRUSTED_GAIN = 1e-3
"""Shared steps from a code with at most this gain are kept without a comparison of log-densities,
whose rounding errors in float32 can be larger."""

N_STEP_LENGTHS = 6
"""Number of step lengths to try, each half of the previous one. The damped steps of a row end if
all of them decrease the joint log-density of the row and the code."""


class Search:
    """Gauss-Newton steps from the codes of an expansion to the most probable codes.

    Each row has its own criteria, so its result does not depend on the other rows.

    Parameters
    ----------
    expansion : Expansion
        Expansion at the initial codes; it is changed in place.
    prior : Prior
        Distribution of codes.

    Attributes
    ----------
    z : Tensor of shape (n, k)
        Current codes.
    log_joint : Tensor of shape (n,)
        Joint log-density of each row and its code, in nats, without the terms of the prior that do
        not depend on the code.
    step : Tensor of shape (n, k)
        Difference between the next code and the current one at full step length.
    gain : Tensor of shape (n,)
        Twice the increase of `log_joint`, in nats, that the expansion predicts for `step`.
    log_det : Tensor of shape (n,)
        Logarithms of the determinants of the precisions of the codes given the rows.
    """

    def __init__(self, expansion: Expansion, prior: Prior) -> None:
        self.expansion, self.prior = expansion, prior
        self.z = expansion.z.clone()
        index = torch.arange(len(self.z), device=self.z.device)
        self.log_joint = self._log_joint(index, expansion.out, self.z)
        self.covariance = torch.empty_like(expansion.information)
        self.step = torch.empty_like(self.z)
        self.gain, self.log_det = torch.empty_like(self.log_joint), torch.empty_like(self.log_joint)
        self._read_expansion(index)

    def run(self, max_steps: int) -> None:
        """Take at most `max_steps` damped steps per row."""
        self._run_damped((self.gain > MODE_TOLERANCE).nonzero()[:, 0], max_steps)

    def run_fast(self, max_steps: int) -> None:
        """Find the most probable codes as `run` does, in less time.

        Rows take damped steps only if shared steps do not find their most probable codes.
        """
        self._run_shared()
        self._run_damped((self.gain > FAST_TOLERANCE).nonzero()[:, 0], max_steps)

    def _run_damped(self, active: Tensor, max_steps: int) -> None:
        """Take damped steps for the rows at an index, and expand after each step."""
        for _ in range(max_steps):
            active = self._climb(active[self.gain[active] > MODE_TOLERANCE])
            if len(active) == 0:
                return
            self._expand(active)

    def _climb(self, index: Tensor) -> Tensor:
        """Take the longest step of each row that does not decrease its log-density.

        Return the indices of the rows that have such a step, in increasing order.
        """
        step, moved = self.step[index], [index[:0]]
        for _ in range(N_STEP_LENGTHS):
            if len(index) == 0:
                break
            batch, trial = select_rows(self.expansion.batch, index), self.z[index] + step
            out = self.expansion.network.outputs(trial.to(batch.x), batch)
            value = self._log_joint(index, out, trial)
            accepted = value >= self.log_joint[index]
            kept = index[accepted]
            self.z[kept], self.log_joint[kept] = trial[accepted], value[accepted]
            moved.append(kept)
            index, step = index[~accepted], step[~accepted] / 2
        return torch.cat(moved).sort().values

    def _run_shared(self) -> None:
        """Take full steps with the precision at the initial code, and expand at the last code.

        An expansion costs many times as much as a gradient, and the precision of a code usually
        changes little along the path. The rows whose gain does not fall quickly, or whose
        log-density decreases, stay at their initial codes.
        """
        z, step, gain = self.z.clone(), self.step.clone(), self.gain.clone()
        ratio, is_fast = torch.full_like(gain, GAIN_RATIO), gain > EXPECTED_GAIN
        while True:
            index = (is_fast & (gain * ratio > EXPECTED_GAIN)).nonzero()[:, 0]
            if len(index) == 0:
                break
            before, z[index] = gain[index], z[index] + step[index]
            gradient = self.expansion.gradients(index, z[index])
            step[index], gain[index] = self._newton_step(index, z[index], gradient)
            ratio[index] = gain[index] / before
            is_fast &= ratio <= GAIN_RATIO
        index = is_fast.nonzero()[:, 0]
        start, height, largest = self.z.clone(), self.log_joint.clone(), self.gain.clone()
        self.z[index] = z[index] + step[index]
        self._expand(index)
        self.log_joint[index] = self._log_joint(index, self.expansion.out[index], self.z[index])
        is_fast &= (self.log_joint >= height) | (largest <= TRUSTED_GAIN)
        is_fast &= self.gain <= (GAIN_RATIO * gain).clamp_min(FAST_TOLERANCE)
        failed = index[~is_fast[index]]
        self.z[failed], self.log_joint[failed] = start[failed], height[failed]
        self._expand(failed)

    def _expand(self, index: Tensor) -> None:
        """Expand at the current codes, and compute the precisions and the next steps."""
        if len(index):
            self.expansion.put(index, self.expansion.expanded(index, self.z[index]))
            self._read_expansion(index)

    def _read_expansion(self, index: Tensor) -> None:
        """Compute the precisions and the next steps from the expansions of rows."""
        precision = self.expansion.precision(self.prior, index)
        self.covariance[index], self.log_det[index] = inverse(precision)
        z, gradient = self.z[index], self.expansion.gradient[index]
        self.step[index], self.gain[index] = self._newton_step(index, z, gradient)

    def _newton_step(self, index: Tensor, z: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Return the steps and their gains, given the gradients of the log-likelihood."""
        gradient = gradient + self.prior.score(z)
        step = (self.covariance[index] @ gradient[..., None])[..., 0]
        return step, (gradient * step).sum(-1)

    def _log_joint(self, index: Tensor, out: Tensor, z: Tensor) -> Tensor:
        rows = select_rows(self.expansion.rows, index)
        return self.expansion.likelihood.log_prob(rows, out).double() + self.prior.height(z)
