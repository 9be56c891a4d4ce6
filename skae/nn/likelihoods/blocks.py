"""Likelihoods of rows whose columns have different distributions."""

from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from skae.nn.draws import Draws
from skae.nn.likelihoods.base import Likelihood, Statistics


class Blocks(Likelihood):
    """Likelihood of rows whose columns consist of blocks, each with its own likelihood.

    Parameters
    ----------
    parts : sequence of Likelihood
        Likelihoods of consecutive blocks of columns.
    """

    def __init__(self, parts: Sequence[Likelihood]) -> None:
        super().__init__(sum(part.n_columns for part in parts))
        self.parts: Sequence[Likelihood] = nn.ModuleList(parts)  # type: ignore[assignment]
        self.n_outputs = sum(part.n_outputs for part in parts)
        self.columns = [part.n_columns for part in parts]
        self.outputs = [part.n_outputs for part in parts]
        self.is_known = all(part.is_known for part in parts)
        self.is_trained = any(part.is_trained for part in parts)
        self.has_constant_information = all(part.has_constant_information for part in parts)
        self.has_common_scale, self.is_pooled = self.is_known, False
        self.noise_variance = torch.cat([part.noise_variance for part in parts])

    def _joined(
        self, function: Callable[..., Tensor], columns: Sequence[Tensor], outputs: Sequence[Tensor]
    ) -> Tensor:
        """Apply a function to each part and its slices of the tables, and join the results."""
        tables = [
            *(table.split(self.columns, -1) for table in columns),
            *(table.split(self.outputs, -1) for table in outputs),
        ]
        return torch.cat([function(*each) for each in zip(self.parts, *tables, strict=True)], -1)

    def start(self, center: Tensor, variance: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        own = scale.split(self.outputs) if scale.ndim else [scale] * len(self.parts)
        tables = center.split(self.outputs), variance.split(self.outputs), own
        starts = [part.start(*each) for part, *each in zip(self.parts, *tables, strict=True)]
        self.noise_variance.copy_(torch.cat([part.noise_variance for part in self.parts]))
        bias, slope = zip(*starts, strict=True)
        return torch.cat(bias), torch.cat(slope)

    def fix_noise(self) -> None:
        for part in self.parts:
            part.fix_noise()
        self.noise_variance.copy_(torch.cat([part.noise_variance for part in self.parts]))

    def change_units(self, center: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        pairs = zip(self.parts, center.split(self.outputs), strict=True)
        changes = [part.change_units(own, scale) for part, own in pairs]
        self.noise_variance.copy_(torch.cat([part.noise_variance for part in self.parts]))
        sizes = [(n,) for n in self.outputs]
        gains = [gain.expand(n) for (gain, _), n in zip(changes, sizes, strict=True)]
        shifts = [shift.expand(n) for (_, shift), n in zip(changes, sizes, strict=True)]
        return torch.cat(gains), torch.cat(shifts)

    def start_noise(self, variance: Tensor) -> None:
        for part, own in zip(self.parts, variance.split(self.outputs), strict=True):
            part.start_noise(own)

    def output_noise(self, out: Tensor) -> Tensor:
        return self._joined(lambda part, out: part.output_noise(out), [], [out])

    def baseline(self) -> Tensor:
        return torch.stack([part.baseline() for part in self.parts]).sum()

    def cell_log_prob(self, x: Tensor, out: Tensor) -> Tensor:
        return self._joined(lambda part, x, out: part.cell_log_prob(x, out), [x], [out])

    def row_log_prob(self, x: Tensor, out: Tensor) -> Tensor:
        rows = self._joined(lambda part, *own: part.row_log_prob(*own)[..., None], [x], [out])
        return rows.sum(-1)

    def cell_score(self, x: Tensor, out: Tensor) -> Tensor:
        return self._joined(lambda part, x, out: part.cell_score(x, out), [x], [out])

    def information_product(self, out: Tensor, jacobian: Tensor) -> Tensor:
        outputs = [out, jacobian.mT]
        return self._joined(
            lambda part, out, j: part.information_product(out, j.mT).mT, [], outputs
        ).mT

    def cell_deviance(self, x: Tensor, out: Tensor) -> Tensor:
        return self._joined(lambda part, x, out: part.cell_deviance(x, out), [x], [out])

    def cell_squares(
        self, x: Tensor, out: Tensor, spread: Tensor | None, bessel: Tensor | float
    ) -> Tensor:
        def squares(
            part: Likelihood, x: Tensor, out: Tensor, spread: Tensor | None = None
        ) -> Tensor:
            return part.cell_squares(x, out, spread, bessel)

        return self._joined(squares, [x], [out] if spread is None else [out, spread])

    def mean(self, out: Tensor) -> Tensor:
        return self._joined(lambda part, out: part.mean(out), [], [out])

    def expected(self, out: Tensor) -> Tensor:
        return self._joined(lambda part, out: part.expected(out), [], [out])

    def sample(self, out: Tensor, draws: Draws) -> Tensor:
        return self._joined(lambda part, out: part.sample(out, draws), [], [out])

    def observed_outputs(self, observed: Tensor | None) -> Tensor | None:
        if observed is None:
            return None
        return self._joined(lambda part, own: part.observed_outputs(own), [observed], [])

    def _split_statistics(self, statistics: Statistics) -> list[tuple[Likelihood, Statistics]]:
        """Split the statistics by parts."""
        split = zip(*(sums.split(self.columns) for sums in statistics.values()), strict=True)
        own = [dict(zip(statistics, sums, strict=True)) for sums in split]
        return list(zip(self.parts, own, strict=True))

    def update(self, statistics: Statistics) -> Self:
        return type(self)([part.update(own) for part, own in self._split_statistics(statistics)])

    def corrected(self, statistics: Statistics) -> Self:
        return type(self)([part.corrected(own) for part, own in self._split_statistics(statistics)])

    def shrunk(self, training: Self, n_rows: Tensor) -> Self:
        rows = n_rows.expand(self.n_columns).split(self.columns)
        triples = zip(self.parts, training.parts, rows, strict=True)
        return type(self)([part.shrunk(own, n) for part, own, n in triples])

    def with_noise(self, variance: Tensor) -> Self:
        pairs = zip(self.parts, variance.split(self.columns), strict=True)
        return type(self)([part.with_noise(own) for part, own in pairs])

    def known(self, variance: Tensor) -> Self:
        pairs = zip(self.parts, variance.split(self.columns), strict=True)
        return type(self)([part.known(own) for part, own in pairs])

    def at(self, coordinates: Tensor) -> Self:
        pairs = zip(self.parts, coordinates.split(self.columns), strict=True)
        return type(self)([part.at(own) for part, own in pairs])

    def fixed(self) -> Self:
        return type(self)([part.fixed() for part in self.parts])
