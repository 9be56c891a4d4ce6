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
        Weights of all rows, for the prior. If the total weight w is at least 2, the correction is
        w / (w - 1), as in PCA, because the mean code is estimated from the same rows. Otherwise,
        it is 1.
    errors, errors_bessel : Tensor of shape (n,) and ()
        Weights for the noise, which are 0 for all rows but the validation rows. The correction is
        1, because the network was not trained on the validation rows. Without validation rows,
        they are equal to `codes` and `codes_bessel`.
    n_validation : Tensor of shape () or None
        Effective number of validation rows in all chunks. None without validation rows.
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
        # A chunk may consist of validation rows only.
        training = weight if held_out.all() else weight * ~held_out
        validation, total = weight * held_out, training.sum()
        bessel = total / (total - 1) if total >= 2 else uncorrected
        errors = validation / validation.sum()
        return cls(training / total, bessel, errors, uncorrected, 1 / errors.square().sum())

    def split(self, sizes: list[int]) -> list["RowWeights"]:
        """Split the weights by chunks of rows."""
        parts = zip(self.codes.split(sizes), self.errors.split(sizes), strict=True)
        return [replace(self, codes=codes, errors=errors) for codes, errors in parts]

    def statistics(
        self, likelihood: Likelihood, rows: Batch, squares: Tensor
    ) -> tuple[Statistics, Statistics | None]:
        """Compute the statistics of the squared errors of validation rows and of training rows.

        The latter are None if the noise is not estimated from them.
        """
        of_errors = likelihood.statistics(rows, squares, self.errors)
        # One noise variance for all columns is that of the validation rows alone.
        if self.n_validation is None or likelihood.is_pooled:
            return of_errors, None
        return of_errors, likelihood.statistics(rows, squares, self.codes)

    def estimate_noise(
        self, likelihood: Likelihood, parts: list[tuple[Statistics, Statistics | None]]
    ) -> Likelihood:
        """Estimate the noise from the results of `statistics` for all chunks of rows."""
        updated = likelihood.update(sums([of_errors for of_errors, _ in parts]))
        of_training = [part for _, part in parts if part is not None]
        if self.n_validation is None or not of_training:
            return updated
        return updated.shrunk(likelihood.update(sums(of_training)), self.n_validation)


def sums(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Add the statistics of all chunks of rows."""
    return {name: torch.stack([part[name] for part in parts]).sum(0) for name in parts[0]}
