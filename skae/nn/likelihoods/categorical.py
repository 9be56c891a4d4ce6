"""The categorical likelihood for columns whose cells are levels."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from skae.nn.draws import Draws
from skae.nn.encoding import OneHot
from skae.nn.likelihoods.base import Likelihood

LEAST_SHARE = 1e-6
"""Smallest initial probability of a level. The logit of a level that no row has would be infinite
otherwise."""


class Categorical(Likelihood):
    """Independent categorical distributions whose logits are the decoder's outputs.

    The cell of a category is the index of its level. The outputs of a column are one logit for each
    of its levels.

    Parameters
    ----------
    n_levels : sequence of int
        Number of levels of each column.
    """

    has_constant_information = False

    places: Tensor
    members: Tensor

    def __init__(self, n_levels: Sequence[int]) -> None:
        super().__init__(len(n_levels))
        self.encoding = OneHot(n_levels)
        self.n_outputs = self.encoding.n_outputs
        self.is_pooled = False
        # The logits of each column in a table with as many columns as the largest number of levels.
        # A column with fewer levels has places after the last output, which hold minus infinity.
        place = torch.full((len(n_levels), max(n_levels)), self.n_outputs, device="cpu")
        column, level = self.encoding.column, self.encoding.level
        place[column, level] = torch.arange(self.n_outputs, device="cpu")
        self.register_buffer("places", place, persistent=False)
        members = torch.nn.functional.one_hot(column, len(n_levels)).float()
        self.register_buffer("members", members, persistent=False)

    def start(self, center: Tensor, variance: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        share = center.clamp_min(LEAST_SHARE)
        return share.log(), scale / share

    def baseline(self) -> Tensor:
        # The same probability for all levels.
        return torch.tensor(self.encoding.widths).double().log().sum()

    def _table(self, out: Tensor) -> Tensor:
        """Arrange the logits by columns and levels, (..., n_columns, largest number of levels)."""
        is_full = self.places.numel() == self.n_outputs
        padded = out if is_full else F.pad(out, (0, 1), value=-torch.inf)
        return padded.index_select(-1, self.places.ravel()).unflatten(-1, self.places.shape)

    def _log_total(self, out: Tensor) -> Tensor:
        """Compute the logarithm of the sum of the exponentials of the logits of each column."""
        # The largest logit is subtracted, as in `logsumexp`. A product with the table of members is
        # several times faster than `logsumexp` of logits that are arranged in a table.
        top = self._table(out.detach()).amax(-1)
        shares = (out - self.encoding.spread(top)).exp()
        return top + (shares @ self.members.to(shares)).log()

    def _shares(self, out: Tensor) -> Tensor:
        """Compute the probability of each level, (..., n_outputs)."""
        return (out - self.encoding.spread(self._log_total(out))).exp()

    def cell_log_prob(self, x: Tensor, out: Tensor) -> Tensor:
        chosen = (self.places[:, 0] + x.long()).expand(*out.shape[:-1], self.n_columns)
        return out.gather(-1, chosen) - self._log_total(out)

    def cell_score(self, x: Tensor, out: Tensor) -> Tensor:
        return self.encoding(x) - self._shares(out)

    def information_product(self, out: Tensor, jacobian: Tensor) -> Tensor:
        weighted = self._shares(out)[..., None] * jacobian
        column = self.encoding.column
        total = weighted.new_zeros(*weighted.shape[:-2], self.n_columns, weighted.shape[-1])
        total = total.index_add(-2, column, weighted)
        return weighted - self._shares(out)[..., None] * total.index_select(-2, column)

    def cell_deviance(self, x: Tensor, out: Tensor) -> Tensor:
        return -2 * self.cell_log_prob(x, out)

    def output_noise(self, out: Tensor) -> Tensor:
        return 1 / self._shares(out)

    def mean(self, out: Tensor) -> Tensor:
        return self._table(out).argmax(-1).to(out.dtype)

    def expected(self, out: Tensor) -> Tensor:
        return self._shares(out)

    def sample(self, out: Tensor, draws: Draws) -> Tensor:
        # The level with the largest sum of its logit and Gumbel noise has the right distribution.
        noise = -(-draws.uniform(out.shape).clamp_min(torch.finfo(out.dtype).tiny).log()).log()
        return self.mean(out + noise)

    def observed_outputs(self, observed: Tensor | None) -> Tensor | None:
        return None if observed is None else self.encoding.spread(observed)
