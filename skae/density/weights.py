"""Weights of the rows from which a density is estimated: those of its prior and of its noise."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from skae.nn.batch import Batch
from skae.nn.likelihoods.base import Likelihood, Statistics


@dataclass
class RowWeights:
    """Weights (n,) of rows, which sum to 1, and Bessel's corrections of squared deviations.

    Attributes
    ----------
    codes, codes_bessel : Tensor of shape (n,) and ()
        Weights of the training rows, for the prior. If their total weight w is at least 2, the
        correction is w / (w - 1), as in PCA, because the mean code is estimated from the same rows.
        Otherwise, it is 1. If all rows are validation rows, they are used instead.
    errors, errors_bessel : Tensor of shape (n,) and ()
        Weights for the noise, which are 0 for all rows but the validation rows. The correction is
        1, because the network was not trained on the validation rows. Without validation rows,
        they are equal to `codes` and `codes_bessel`.
    n_validation : Tensor of shape () or None
        Effective number of validation rows in all chunks. None if there are no validation rows or
        no training rows.
    """

    codes: Tensor
    codes_bessel: Tensor
    errors: Tensor
    errors_bessel: Tensor
    n_validation: Tensor | None = None

    @classmethod
    def from_rows(cls, weight: Tensor, held_out: Tensor) -> "RowWeights":
        """Compute the weights from sample weights (n,) and a mask (n,) of the validation rows."""
        weight = weight.double()
        total = weight.sum()
        uncorrected = torch.ones_like(total)
        bessel = total / (total - 1) if total >= 2 else uncorrected
        if not held_out.any():
            return cls(weight / total, bessel, weight / total, bessel)
        errors = weight * held_out / (weight * held_out).sum()
        if held_out.all():
            # A chunk may consist of validation rows only.
            return cls(errors, bessel, errors, uncorrected)
        training = weight * ~held_out
        total = training.sum()
        bessel = total / (total - 1) if total >= 2 else uncorrected
        return cls(training / total, bessel, errors, uncorrected, 1 / errors.square().sum())

    def split(self, sizes: list[int]) -> list["RowWeights"]:
        """Split the weights by chunks of rows."""
        parts = zip(self.codes.split(sizes), self.errors.split(sizes), strict=True)
        return [replace(self, codes=codes, errors=errors) for codes, errors in parts]

    def statistics(self, likelihood: Likelihood, rows: Batch, squares: Tensor) -> list[Statistics]:
        """Compute the statistics of squared errors with the weights `errors`.

        If the noise depends on the training rows, too, those with the weights `codes` follow.
        """
        uses_training = self.n_validation is not None and not likelihood.is_pooled
        weights = [self.errors, self.codes] if uses_training else [self.errors]
        return [likelihood.statistics(rows, squares, weight) for weight in weights]

    def estimate_noise(self, likelihood: Likelihood, parts: list[list[Statistics]]) -> Likelihood:
        """Estimate the noise from the results of `statistics` for all chunks of rows."""
        of_errors, *of_training = map(sums, zip(*parts, strict=True))
        updated = likelihood.update(of_errors)
        if self.n_validation is None or not of_training:
            return updated
        n_rows = self.n_validation * of_errors.get("observed", torch.ones(()))
        return updated.shrunk(likelihood.update(of_training[0]), n_rows)


def sums(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Add the statistics of all chunks of rows."""
    return {name: torch.stack([part[name] for part in parts]).sum(0) for name in parts[0]}
