"""The contract of likelihoods: what every family must satisfy, whatever its distribution is.

Families are found in `LIKELIHOODS`. Every check is a function of one likelihood. It must pass for
each family, and it must fail for a likelihood that is wrong in the way that the check looks for.
"""

import math
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from contracts import (
    altered_class,
    assert_fails,
    assert_passes,
    concrete_classes,
    draws,
    named_checks,
    normal,
)

from skae.nn.batch import Batch
from skae.nn.likelihoods import LIKELIHOODS, OF_NUMBERS, make_likelihood
from skae.nn.likelihoods.base import Likelihood
from skae.nn.likelihoods.bernoulli import Bernoulli
from skae.nn.likelihoods.blocks import Blocks
from skae.nn.likelihoods.gaussian import CONSTANT_NOISE, Gaussian, rounding_variance

N, D, K = 60, 5, 3
NOISES = ("isotropic", "diagonal", 0.3)
PAIRS = [(0, 1), (1, 2), (3, 4)]
"""Columns over whose cells densities are summed: within and across the blocks below."""

EXACT = {"rtol": 1e-5, "atol": 1e-6}
"""Tolerance of a sum over a grid of cells."""

FAMILIES = {
    **{
        f"{name}-{noise}": lambda name=name, noise=noise: make_likelihood(name, D, noise)
        for name in OF_NUMBERS
        for noise in NOISES
    },
    **{
        f"{name}-{noise}-trained": lambda name=name, noise=noise: make_likelihood(
            name, D, noise, True
        )
        for name in OF_NUMBERS
        for noise in NOISES
        if make_likelihood(name, D, noise, True).is_trained
    },
    "blocks": lambda: Blocks([Gaussian(2, "diagonal"), Bernoulli(2), Gaussian(1, 0.3)]),
    "blocks-estimated": lambda: Blocks([Gaussian(3), Gaussian(2, "diagonal")]),
    "blocks-trained": lambda: Blocks([Gaussian(2, "isotropic", True), Bernoulli(3)]),
}


TABLE = normal(N, D).sigmoid()
"""Rows from which likelihoods start; the cells lie in the support of every family."""

OBSERVED = draws(1).uniform((N, D)) < 0.7
WEIGHT = draws(2).uniform((N,))
WEIGHT[::7] = 0
WEIGHT /= WEIGHT.sum()


def started(likelihood):
    """A likelihood that has started from the table, its noise estimated where it is not known."""
    likelihood = likelihood.double()
    likelihood.start(TABLE.mean(0), TABLE.var(0), TABLE.var(0).mean().sqrt())
    with torch.no_grad():
        likelihood.start_noise(torch.linspace(0.5, 2, D).double())
    if likelihood.is_known or likelihood.is_trained:
        return likelihood
    batch = Batch(TABLE, WEIGHT)
    squares = likelihood.squares(batch, normal(N, likelihood.n_outputs))
    return likelihood.update(likelihood.statistics(batch, squares, WEIGHT))


def case_of(likelihood):
    """A likelihood with rows that are drawn from it, some decoder's outputs for them and more."""
    out = normal(N, likelihood.n_outputs, seed=3)
    x = likelihood.sample(out, draws(4)).detach()
    return SimpleNamespace(
        likelihood=likelihood,
        fixed=likelihood.fixed(),
        out=out,
        x=x,
        jacobian=normal(N, likelihood.n_outputs, K, seed=5),
        spread=normal(N, likelihood.n_outputs, seed=6) ** 2,
        complete=Batch(x, WEIGHT),
        missing=Batch(torch.where(OBSERVED, x, torch.nan), WEIGHT, observed=OBSERVED),
    )


@cache
def case_named(name):
    return case_of(started(FAMILIES[name]()))


# ------------------------------------------------------------------------- sums over all rows


def supports(likelihood):
    """The support of each column."""
    parts = getattr(likelihood, "parts", [likelihood])
    return [part.support for part in parts for _ in range(part.n_columns)]


def cell_values(case, column):
    """All values of a cell of the first row, as far as they matter, and the measure of each."""
    drawn = case.likelihood.sample(case.out[:1].expand(500, -1), draws())[:, column].detach()
    if (drawn == drawn.round()).all():
        low, high = supports(case.likelihood)[column]
        values = torch.arange(max(low, drawn.min() - 50), min(high, drawn.max() + 50) + 1)
        return values.double(), torch.ones(len(values)).double()
    # The steps grow with the distance, so that the grid also reaches the end of heavy tails.
    t = torch.linspace(-6, 6, 121, dtype=torch.float64)
    return drawn.mean() + drawn.std() * t.sinh(), (t[1] - t[0]) * drawn.std() * t.cosh()


def rows_of_pair(case, pair):
    """Copies of the first row with all values of two cells, and the measure of each copy."""
    (a, of_a), (b, of_b) = (cell_values(case, column) for column in pair)
    rows = case.x[0].repeat(len(a) * len(b), 1)
    rows[:, pair[0]] = a.repeat_interleave(len(b))
    rows[:, pair[1]] = b.repeat(len(a))
    return rows, torch.outer(of_a, of_b).flatten()


def pair_alone(case, pair):
    """A batch of rows of which only two cells are observed, their measure and their outputs."""
    rows, measure = rows_of_pair(case, pair)
    observed = torch.zeros(D, dtype=torch.bool)
    observed[[*pair]] = True
    batch = Batch(rows, measure, observed=observed.expand(len(rows), -1))
    return batch, measure, case.out[:1].expand(len(rows), -1)


def share_of_pair(case, pair):
    """The probability of each copy of the first row, given that only two cells are observed."""
    batch, measure, out = pair_alone(case, pair)
    return batch, measure * case.likelihood.log_prob(batch, out).exp().detach(), out


# --------------------------------------------------------------------------------- the contract


def check_density(case):
    """Densities integrate to 1 and masses sum to 1, over all values of every two cells."""
    for pair in PAIRS:
        _, share, _ = share_of_pair(case, pair)
        assert float(share.sum()) == pytest.approx(1, abs=1e-6)


def check_missing(case):
    """The density of the observed cells is that of the row, the missing cells integrated out."""
    for pair in PAIRS:
        rows, measure = rows_of_pair(case, pair)
        out = case.out[:1].expand(len(rows), -1)
        log_prob = case.likelihood.log_prob(Batch(rows, measure), out)
        observed = torch.ones(1, D, dtype=torch.bool)
        observed[:, [*pair]] = False
        rest = Batch(torch.where(observed, case.x[:1], torch.nan), WEIGHT[:1], observed=observed)
        torch.testing.assert_close(
            (log_prob + measure.log()).logsumexp(0, keepdim=True),
            case.likelihood.log_prob(rest, case.out[:1]),
            **EXACT,
        )


def check_score(case):
    """The score is the derivative of the log-density by the outputs, 0 for missing cells."""
    for batch in (case.complete, case.missing):
        out = case.out.clone().requires_grad_()
        (expected,) = torch.autograd.grad(case.likelihood.log_prob(batch, out).sum(), out)
        torch.testing.assert_close(case.likelihood.score(batch, out), expected)


def check_information(case):
    """The information is the expected outer product of the score, whose expectation is 0."""
    one = torch.eye(case.likelihood.n_outputs).double()[None]
    for pair in PAIRS:
        batch, share, out = share_of_pair(case, pair)
        score = case.likelihood.score(batch, out)
        torch.testing.assert_close(share @ score, torch.zeros_like(out[0]), **EXACT)
        first = batch.map(lambda t: t[:1])
        found = case.likelihood.information(first, out[:1], one)[0]
        torch.testing.assert_close((score.mT * share) @ score, found, **EXACT)
    for batch in (case.complete, case.missing):
        whole = case.likelihood.information(batch, case.out, one.expand(N, -1, -1))
        common = case.likelihood.common_information(batch)
        if common is not None:
            torch.testing.assert_close(whole, common.diag().expand_as(whole))
        torch.testing.assert_close(
            case.likelihood.information(batch, case.out, case.jacobian),
            case.jacobian.mT @ whole @ case.jacobian,
        )


def check_moments(case):
    """The expected row is `mean`, and `noise_variance`, where there is noise, its variance."""
    mean = case.likelihood.mean(case.out[:1])[0]
    noise = case.fixed.noise_variance
    for pair in PAIRS:
        batch, share, _ = share_of_pair(case, pair)
        for column in pair:
            cells = batch.x[:, column]
            torch.testing.assert_close(share @ cells, mean[column], **EXACT)
            if noise[column] > 0:
                variance = share @ (cells - mean[column]) ** 2
                torch.testing.assert_close(variance, noise[column], **EXACT)


def check_draws(case):
    """Draws have the density's mean, covariance and entropy; the same seed gives the same draws."""
    n = 20_000
    out = case.out[:1].expand(n, -1)
    drawn = case.likelihood.sample(out, draws()).detach()
    assert torch.equal(drawn, case.likelihood.sample(out, draws()))
    for pair in PAIRS:
        batch, share, _ = share_of_pair(case, pair)
        cells, own = batch.x[:, [*pair]], drawn[:, [*pair]]
        mean = share @ cells
        covariance = ((cells - mean).mT * share) @ (cells - mean)
        deviation = covariance.diagonal().sqrt()
        assert ((own.mean(0) - mean).abs() <= 5 * deviation / n**0.5).all()
        error = (torch.cov(own.mT) - covariance) / torch.outer(deviation, deviation)
        assert error.abs().max() < 8 / n**0.5
        alone = Batch(drawn, share, observed=batch.observed[:1].expand(n, -1))
        nats = case.likelihood.log_prob(alone, out)
        entropy = -torch.special.xlogy(share, share / batch.weight).sum()
        assert abs(nats.mean() + entropy) <= 5 * nats.std() / n**0.5 + 1e-9


def check_deviance(case):
    """The deviance is 0 for the expected row, at least 0 for others and 0 for missing cells."""
    for batch in (case.complete, case.missing):
        cells = case.likelihood.deviance(batch, case.out)
        assert (cells >= 0).all()
        assert batch.observed is None or not cells[~OBSERVED].any()
    mean = Batch(case.likelihood.mean(case.out), WEIGHT)
    best = case.likelihood.deviance(mean, case.out)
    torch.testing.assert_close(best, torch.zeros_like(best), rtol=0, atol=1e-9)


def check_complete_rows(case):
    """Rows whose cells are all observed are complete rows, and rows without cells say nothing."""
    likelihood, out = case.likelihood, case.out
    every = case.complete._replace(observed=torch.ones_like(OBSERVED))
    nothing = case.missing._replace(observed=torch.zeros_like(OBSERVED))
    for method in (likelihood.log_prob, likelihood.score, likelihood.deviance, likelihood.squares):
        torch.testing.assert_close(method(every, out), method(case.complete, out))
        assert not method(nothing, out).any()
    assert not likelihood.information(nothing, out, case.jacobian).any()
    squares = case.fixed.squares(case.complete, out, case.spread, 1.1)
    torch.testing.assert_close(case.fixed.squares(every, out, case.spread, 1.1), squares)


def check_leading_axes(case):
    """Leading axes of the outputs stay: every entry is that of its own outputs."""
    several = torch.stack([case.out, case.out + 1, case.out - 1])
    for batch in (case.complete, case.missing):
        for method in ("log_prob", "score", "deviance"):
            function = getattr(case.likelihood, method)
            expected = torch.stack([function(batch, out) for out in several])
            torch.testing.assert_close(function(batch, several), expected)
    expected = torch.stack([case.likelihood.mean(out) for out in several])
    torch.testing.assert_close(case.likelihood.mean(several), expected)
    assert case.likelihood.sample(several, draws()).shape == expected.shape


def check_corrupted_rows(case):
    """Rows that the encoder sees corrupted are compared with the clean ones."""
    corrupted = case.complete._replace(x=torch.zeros_like(case.x), clean=case.x)
    for method in ("log_prob", "score", "deviance", "squares"):
        function = getattr(case.likelihood, method)
        torch.testing.assert_close(function(corrupted, case.out), function(case.complete, case.out))


def check_statistics(case):
    """The statistics of a table are the sums of those of its parts."""
    for batch in (case.complete, case.missing):
        squares = case.fixed.squares(batch, case.out, case.spread)
        whole = case.fixed.statistics(batch, squares, WEIGHT)
        parts = [
            case.fixed.statistics(batch.map(lambda t, s=s: t[s]), squares[s], WEIGHT[s])
            for s in (slice(25), slice(25, 26), slice(26, None))
        ]
        assert all(part.keys() == whole.keys() for part in parts)
        for name, expected in whole.items():
            torch.testing.assert_close(sum(part[name] for part in parts), expected)


def check_update(case):
    """The updated noise has the largest expected log-density, of uncertain outputs, too."""
    spread = case.spread.sqrt()

    def expected(likelihood, batch):
        # Two points with the mean and variance of the outputs: exact for squares.
        both = (likelihood.log_prob(batch, case.out + side * spread) for side in (1, -1))
        return float(WEIGHT @ sum(both)) / 2

    for batch in (case.complete, case.missing):
        squares = case.fixed.squares(batch, case.out, case.spread)
        updated = case.fixed.update(case.fixed.statistics(batch, squares, WEIGHT))
        at = updated.coordinates()
        if case.fixed.is_known:
            torch.testing.assert_close(at, case.fixed.coordinates())
            continue
        best = expected(updated, batch)
        assert best > expected(case.fixed, batch)
        if batch.observed is None:  # else columns of few cells are drawn towards the mean
            free = updated.noise_variance > 0
            for step in (-0.05, 0.05):
                assert expected(updated.at(at + step * free), batch) < best


def check_coordinates(case):
    """Coordinates determine the noise, and a step of log 2 doubles it."""
    likelihood = case.fixed
    coordinates = likelihood.coordinates()
    assert coordinates.dtype == torch.float64
    again = likelihood.at(coordinates)
    torch.testing.assert_close(again.coordinates(), coordinates)
    assert torch.equal(again.noise_variance, likelihood.noise_variance)
    assert likelihood.change(again) == 0
    assert likelihood.is_finite()
    assert not likelihood.with_noise(torch.full((D,), torch.nan).double()).is_finite()
    if not likelihood.noise_variance.any():
        return
    twice = likelihood.at(coordinates + math.log(2))
    torch.testing.assert_close(twice.noise_variance, 2 * likelihood.noise_variance)
    moved = (twice.coordinates() - coordinates)[likelihood.noise_variance > 0]
    torch.testing.assert_close(moved, torch.full_like(moved, math.log(2)))
    assert likelihood.change(twice) == pytest.approx(0.5)


def check_rescaling(case):
    """Where it says so, another noise only scales scores and informations."""
    if case.fixed.has_common_scale:
        other = case.fixed.at(case.fixed.coordinates() + 0.7)
        factor = other.rescaled(case.fixed)
        torch.testing.assert_close(
            other.score(case.missing, case.out), factor * case.fixed.score(case.missing, case.out)
        )
        torch.testing.assert_close(
            other.information(case.complete, case.out, case.jacobian),
            factor * case.fixed.information(case.complete, case.out, case.jacobian),
        )


def check_fixed(case):
    """The fixed likelihood is the same distribution, without a noise that is trained."""
    assert not case.fixed.is_trained
    assert not any(p is not None for p in case.fixed.parameters())
    for batch in (case.complete, case.missing):
        for method in ("log_prob", "score", "deviance", "squares"):
            expected = getattr(case.likelihood, method)(batch, case.out)
            torch.testing.assert_close(getattr(case.fixed, method)(batch, case.out), expected)


def check_corrected(case):
    """The corrected noise is the old one times the factor by which the squares exceed it."""
    noise = case.fixed.noise_variance
    for batch in (case.complete, case.missing):
        squares = 3 * noise.expand(N, D)
        squares = squares if batch.observed is None else torch.where(OBSERVED, squares, 0.0)
        corrected = case.fixed.corrected(case.fixed.statistics(batch, squares, WEIGHT))
        known = torch.cat(
            [
                torch.full((part.n_columns,), part.is_known)
                for part in getattr(case.fixed, "parts", [case.fixed])
            ]
        )
        torch.testing.assert_close(corrected.noise_variance, torch.where(known, noise, 3 * noise))


def check_shrunk(case):
    """Own noise of columns moves towards that of training rows if there are few validation rows."""
    noise, unequal = case.fixed.noise_variance, torch.linspace(0.1, 1.5, D).double()
    parts = getattr(case.fixed, "parts", [case.fixed])
    stays = torch.cat([torch.full((p.n_columns,), p.is_known or p.is_pooled) for p in parts])
    one, many = torch.tensor(1.0), torch.tensor(1e12)
    for factor in (torch.tensor(0.5), unequal):
        training = case.fixed.with_noise(factor * noise)
        torch.testing.assert_close(case.fixed.shrunk(training, many).noise_variance, noise)
    # A factor that all columns have in common has no influence.
    half = case.fixed.with_noise(noise / 2)
    torch.testing.assert_close(case.fixed.shrunk(half, one).noise_variance, noise)
    few = case.fixed.shrunk(case.fixed.with_noise(unequal * noise), one).noise_variance
    torch.testing.assert_close(few[stays], noise[stays])
    if len(parts) == 1 and not stays.any():
        assert (few[1:] / noise[1:] > few[:-1] / noise[:-1]).all()
        assert few[0] < noise[0]
        assert few[-1] > noise[-1]


def check_start(case):
    """A linear decoder starts at the columns' means, and its slope is one of rows on the scale."""
    scale = TABLE.var(0).mean().sqrt()
    with torch.no_grad():
        bias, slope = case.likelihood.start(TABLE.mean(0), TABLE.var(0), scale)
        case.likelihood.start_noise(torch.linspace(0.5, 2, D).double())
    assert bias.shape == slope.shape == (case.likelihood.n_outputs,)
    torch.testing.assert_close(case.likelihood.mean(bias), TABLE.mean(0))
    moved = torch.autograd.functional.jacobian(case.likelihood.mean, bias) @ slope
    torch.testing.assert_close(moved, scale.expand(D))
    assert case.likelihood.baseline().shape == ()


def check_single_block(case):
    """A block alone is the plain likelihood."""
    block = Blocks([case.likelihood])
    assert block.n_outputs == case.likelihood.n_outputs
    for batch in (case.complete, case.missing):
        for method in ("log_prob", "score", "deviance", "squares"):
            expected = getattr(case.likelihood, method)(batch, case.out)
            torch.testing.assert_close(getattr(block, method)(batch, case.out), expected)
        torch.testing.assert_close(
            block.information(batch, case.out, case.jacobian),
            case.likelihood.information(batch, case.out, case.jacobian),
        )
        squares = block.squares(batch, case.out, case.spread, 1.3)
        expected = case.likelihood.squares(batch, case.out, case.spread, 1.3)
        torch.testing.assert_close(squares, expected)
        updated = [
            some.update(some.statistics(batch, squares, WEIGHT)).noise_variance
            for some in (block.fixed(), case.fixed)
        ]
        torch.testing.assert_close(*updated)
    torch.testing.assert_close(block.mean(case.out), case.likelihood.mean(case.out))
    drawn = (some.sample(case.out, draws()) for some in (block, case.likelihood))
    torch.testing.assert_close(*drawn)
    torch.testing.assert_close(block.baseline(), case.likelihood.baseline())
    assert (block.is_known, block.is_trained) == (case.fixed.is_known, case.likelihood.is_trained)


CHECKS = named_checks(globals())


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("family", FAMILIES)
def test_contract(family, check):
    assert_passes(CHECKS[check], case_named(family))


def test_every_family_is_checked():
    assert concrete_classes(Likelihood) == {*LIKELIHOODS.values(), Blocks}


# ---------------------------------------------------------------------------- negative controls

WRONG = {
    "density": {  # lacks the normalizer
        "row_log_prob": lambda self, x, out: self.cell_log_prob(x, out).sum(-1),
        "cell_log_prob": lambda self, x, out: -0.5 * self._squares(x, out),
    },
    "missing": {  # counts missing cells as zeros
        "log_prob": lambda self, batch, out: self.row_log_prob(batch.original.nan_to_num(), out)
    },
    "score": {"cell_score": lambda self, x, out: -Gaussian.cell_score(self, x, out)},
    "information": {
        "information_product": lambda self, out, jacobian: (
            2 * Gaussian.information_product(self, out, jacobian)
        )
    },
    "moments": {"mean": lambda self, out: self.center + out},
    "draws": {"sample": lambda self, out, draws: self.mean(out) + draws.normal(out.shape)},
    "deviance": {"cell_deviance": lambda self, x, out: x - self.mean(out)},
    "complete_rows": {  # rescales rows by their share of observed cells, but not complete ones
        "log_prob": lambda self, batch, out: (
            Gaussian.log_prob(self, batch, out) * (1 if batch.observed is None else 1.01)
        )
    },
    "leading_axes": {  # looks at the first of several outputs only
        "log_prob": lambda self, batch, out: Gaussian.log_prob(
            self, batch, out.reshape(-1, N, D)[0]
        )
    },
    "corrupted_rows": {
        "log_prob": lambda self, batch, out: Gaussian.log_prob(
            self, batch._replace(clean=None), out
        )
    },
    "statistics": {  # are means over the rows of a part
        "statistics": lambda self, batch, squares, weight: {
            name: sums / weight.sum()
            for name, sums in Gaussian.statistics(self, batch, squares, weight).items()
        }
    },
    "update": {
        "update": lambda self, statistics: self.with_noise(
            Gaussian.update(self, statistics).noise_variance.sqrt()
        )
    },
    "coordinates": {"coordinates": lambda self: self.noise_variance.double()},
    "rescaling": {"rescaled": lambda self, old: Gaussian.rescaled(old, self)},
    "fixed": {"fixed": lambda self: self.with_noise(2 * self.noise_variance)},
    "corrected": {"corrected": lambda self, statistics: self},
    "shrunk": {"shrunk": lambda self, training, n_rows: training},
    "start": {
        "start": lambda self, center, variance, scale: (
            center,
            Gaussian.start(self, center, variance, scale)[1],
        )
    },
    "single_block": {  # states something of rows that blocks, which ask for cells, never hear of
        "log_prob": lambda self, batch, out: Gaussian.log_prob(self, batch, out) + 1
    },
}


@pytest.mark.parametrize("check", CHECKS)
def test_a_wrong_likelihood_fails(check):
    wrong = altered_class(Gaussian, WRONG[check])
    assert_fails(CHECKS[check], case_of(started(wrong(D))))


# ----------------------------------------------------------------------------- single families


def test_expected_squares_of_moved_codes_follow_from_log_densities():
    """To second order, which is exact for a linear decoder, where one noise scales all."""
    case = case_named("gaussian-isotropic")
    likelihood, J = case.fixed, case.jacobian
    shift, root = normal(N, K, seed=7), normal(N, K, K, seed=8)
    covariance, bessel = root @ root.mT, torch.tensor(1.3).double()
    gradient = (J.mT @ likelihood.score(case.complete, case.out)[..., None])[..., 0]
    information = likelihood.information(case.complete, case.out, J)
    moved = (information @ shift[..., None])[..., 0] - 2 * gradient
    found = likelihood.row_squares(
        likelihood.squares(case.complete, case.out).sum(-1),
        (moved * shift).sum(-1),
        torch.einsum("nij,nij->n", information, covariance),
        bessel,
    )
    out = case.out + (J @ shift[..., None])[..., 0]
    expected = likelihood.squares(case.complete, out, (J @ covariance * J).sum(-1), bessel)
    torch.testing.assert_close(found, expected.mean(-1, keepdim=True))


def floors(name):
    """The smallest noise variances that a likelihood estimates, from errors of 0."""
    fixed = case_named(name).fixed
    statistics = fixed.statistics(Batch(TABLE, WEIGHT), torch.zeros_like(TABLE), WEIGHT)
    return fixed.update(statistics).noise_variance


def test_the_floor_of_the_noise_is_the_variance_of_rounding_errors():
    size = TABLE.mean(0).abs() + TABLE.std(0)
    expected = (torch.finfo(TABLE.dtype).eps * size) ** 2
    torch.testing.assert_close(floors("gaussian-diagonal"), expected, rtol=1e-10, atol=0)
    pooled = expected.mean().expand(D)
    torch.testing.assert_close(floors("gaussian-isotropic"), pooled, rtol=1e-10, atol=0)


def test_a_constant_column_has_a_share_of_the_noise_of_the_others():
    """Its noise cannot be estimated from its own cells."""
    likelihood = make_likelihood("gaussian", 2, "diagonal").double()
    likelihood.start(torch.tensor([1.0, 5.0]), torch.tensor([4.0, 0.0]), torch.tensor(2.0))
    assert float(likelihood.smallest_noise[1]) == pytest.approx(4 * CONSTANT_NOISE)


def test_extrapolated_noise_respects_the_floor():
    for name in ("gaussian-isotropic", "gaussian-diagonal"):
        fixed = case_named(name).fixed
        found = fixed.at(torch.full_like(fixed.coordinates(), -1e3)).noise_variance
        torch.testing.assert_close(found, floors(name), rtol=0, atol=0)


@pytest.mark.parametrize("noise", ["isotropic", "diagonal"])
def test_noise_is_estimated_from_observed_cells(noise):
    """Of a column with few observed cells, the mean of all columns counts as one row more."""
    likelihood = make_likelihood("gaussian", 3, noise).double()
    likelihood.start(torch.zeros(3), torch.ones(3), torch.tensor(1.0))
    observed = torch.tensor([[True, True, True], [True, True, False], [True, False, False]])
    squares = torch.tensor([[1.0, 4.0, 9.0], [2.0, 6.0, 0.0], [3.0, 0.0, 0.0]]).double()
    share = torch.tensor([0.5, 0.25, 0.25]).double()
    batch = Batch(squares, share, observed=observed)
    found = likelihood.update(likelihood.statistics(batch, squares, share)).noise_variance
    columns = [1.75, (0.5 * 4 + 0.25 * 6) / 0.75, 9.0]
    pooled = (1.75 + 3.5 + 4.5) / (1 + 0.75 + 0.5)
    each = [(n * own + pooled) / (n + 1) for n, own in zip((3, 2, 1), columns, strict=True)]
    expected = each if noise == "diagonal" else [pooled] * 3
    torch.testing.assert_close(found, torch.tensor(expected).double())


def test_means_of_coin_flips_are_rows_of_a_bernoulli():
    """Cells between 0 and 1 count as the mean of the log-masses of the flips."""
    case = case_named("bernoulli-isotropic")
    one, zero = (Batch(torch.full_like(TABLE, value), WEIGHT) for value in (1.0, 0.0))
    of_one, of_zero = (case.likelihood.cell_log_prob(flip.x, case.out) for flip in (one, zero))
    expected = (TABLE * of_one + (1 - TABLE) * of_zero).sum(-1)
    torch.testing.assert_close(case.likelihood.log_prob(Batch(TABLE, WEIGHT), case.out), expected)
    check_score(SimpleNamespace(**vars(case) | {"complete": Batch(TABLE, WEIGHT)}))


@pytest.mark.parametrize("name", ["complete", "missing"])
def test_blocks_are_their_parts(name):
    """Each part sees its own columns and outputs; the noise of each is estimated on its own."""
    parts = [Gaussian(2, "diagonal"), Bernoulli(3)]
    case = case_of(started(Blocks(parts)))
    batch, out = getattr(case, name), case.out
    blocks, (first, second) = case.likelihood, case.likelihood.parts
    columns = slice(2), slice(2, D)
    total = 0.0
    for part, some in zip((first, second), columns, strict=True):
        own = batch.map(lambda t, some=some: t if t.ndim == 1 else t[:, some])
        for method in ("score", "deviance"):
            expected = getattr(part, method)(own, out[:, some])
            torch.testing.assert_close(getattr(blocks, method)(batch, out)[:, some], expected)
        total = total + part.log_prob(own, out[:, some])
    torch.testing.assert_close(blocks.log_prob(batch, out), total)
    updated = blocks.update(
        blocks.statistics(batch, blocks.squares(batch, out, case.spread), WEIGHT)
    )
    own = batch.map(lambda t: t if t.ndim == 1 else t[:, :2])
    squares = first.squares(own, out[:, :2], case.spread[:, :2])
    expected = first.update(first.statistics(own, squares, WEIGHT)).noise_variance
    torch.testing.assert_close(updated.noise_variance[:2], expected)
    assert not updated.noise_variance[2:].any()
    assert (blocks.is_known, blocks.has_common_scale, blocks.is_trained) == (False, False, False)


@pytest.mark.parametrize("n_training", [20, 100])
@pytest.mark.parametrize("n_rows", [1, 2, 5, 20])
@pytest.mark.parametrize("d", [2, 8, 100])
def test_shrunk_noise_is_nearer_to_that_of_fresh_rows(d, n_rows, n_training):
    """By the log-density of fresh rows; also if training rows fit some columns perfectly."""
    rng = np.random.default_rng(0)
    for fitted in (0.6, 1e-9):
        gain = []
        for _ in range(100):
            true = np.exp(rng.normal(size=d))
            own, training = (true * rng.chisquare(n, d) / n for n in (n_rows, n_training))
            training *= np.where(rng.random(d) < 0.2, fitted, 0.6)
            likelihood = Gaussian(d, "diagonal").double()
            likelihood.floor.fill_(1e-20)
            estimate, other = (
                likelihood.with_noise(torch.from_numpy(noise)) for noise in (own, training)
            )
            shrunk = estimate.shrunk(other, torch.tensor(n_rows)).noise_variance.numpy()
            losses = [(np.log(noise) + true / noise).sum() / 2 for noise in (own, shrunk)]
            gain.append(losses[0] - losses[1])
        assert np.mean(gain) > (0 if n_rows <= 5 else -0.01)


def test_noise_of_one_column_is_not_shrunk():
    likelihood = Gaussian(1, "diagonal").double()
    likelihood.floor.fill_(1e-20)
    own, training = (likelihood.with_noise(torch.tensor([noise]).double()) for noise in (2.0, 0.5))
    assert own.shrunk(training, torch.tensor(2)).noise_variance.item() == pytest.approx(2)


def test_noise_of_columns_without_validation_cells_is_that_of_training_rows():
    likelihood = started(Gaussian(D, "diagonal"))
    training = likelihood.with_noise(torch.full((D,), 0.5).double())
    n_rows = torch.tensor([0.0, 10, 10, 10, 10])
    own = likelihood.with_noise(torch.tensor([1e6, 1, 1, 1, 1]).double())
    shrunk = own.shrunk(training, n_rows).noise_variance
    torch.testing.assert_close(shrunk, torch.ones(D).double())


def test_noise_at_the_limit_of_rounding_is_not_shrunk():
    """Such a column of the training rows is constant, or they are reproduced exactly."""
    likelihood = started(Gaussian(D, "diagonal"))
    limit = likelihood.smallest_noise
    training = torch.where(torch.arange(D) < 2, limit, 0.5)
    own = torch.tensor([3.0, limit[1].item(), 1, 1, 1]).double()
    shrunk = likelihood.with_noise(own).shrunk(likelihood.with_noise(training), torch.tensor(2.0))
    torch.testing.assert_close(shrunk.noise_variance, own)
    all_at_limit = likelihood.with_noise(own).shrunk(likelihood.with_noise(limit), torch.ones(()))
    torch.testing.assert_close(all_at_limit.noise_variance, own)


def test_blocks_of_known_noise_are_one_gaussian():
    """Also where the noise of all rows has a common scale."""
    whole = case_named("gaussian-0.3")
    blocks = started(Blocks([Gaussian(2, 0.3), Gaussian(3, 0.3)]))
    for batch in (whole.complete, whole.missing):
        expected = whole.likelihood.log_prob(batch, whole.out)
        torch.testing.assert_close(blocks.log_prob(batch, whole.out), expected)
    assert (blocks.is_known, blocks.has_common_scale) == (True, True)


def test_blocks_train_the_noise_of_their_parts():
    blocks = started(Blocks([Gaussian(2, "isotropic", True), Gaussian(3, 0.3, True)]))
    assert blocks.is_trained
    assert len([*blocks.parameters()]) == 1
    known = torch.full((3,), 0.3, dtype=torch.float64)
    torch.testing.assert_close(blocks.fixed().noise_variance[2:], known, rtol=0, atol=0)


def test_a_trained_noise_starts_where_it_is_asked_to():
    """At column variances in units of the table's scale; its gradient is that of the density."""
    likelihood = started(Gaussian(D, "diagonal", True))
    scale = TABLE.var(0).mean()
    rounding = rounding_variance(TABLE.mean(0), TABLE.var(0), scale.sqrt())
    expected = scale * torch.linspace(0.5, 2, D).double() + rounding
    torch.testing.assert_close(likelihood.fixed().noise_variance, expected)
    case = case_of(likelihood)
    loss = likelihood.log_prob(case.complete, case.out).sum()
    assert torch.autograd.grad(loss, likelihood.log_noise)[0].all()
