"""Scores against what they claim to be: textbook estimates, likelihoods and neighbours."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import t as student
from sklearn.covariance import EmpiricalCovariance

from skae._compat.sklearn import weighted_percentile
from skae.table import rows as table_rows
from skae.tasks.outlier_scores import (
    DEGREES_OF_FREEDOM,
    SCORES,
    ModelOutputs,
    Neighbors,
    OfPatterns,
    Reconstruction,
    Robust,
    Tails,
)
from skae.tasks.robust_statistics import (
    GROUP_ROWS,
    MAX_COVARIANCE_COLUMNS,
    VARIANCE_FLOOR,
    concentrate,
    group_means,
    mean_and_deviation,
    robust_center_scale,
    scale_within_reach,
    trimmed_means,
    trimmed_weights,
    weighted_median,
    whiten,
)

RNG = np.random.default_rng(0)
ONES = np.ones(500)


def made(code, residual, log_prob):
    """Outputs for complete rows of numbers."""
    return ModelOutputs(code, residual, log_prob, np.zeros(residual.shape[1], dtype=bool))


def evidence(n=500, k=2, d=4, outliers=0):
    rng = np.random.default_rng(1)
    code, residual = rng.normal(size=(n, k)), rng.normal(size=(n, d)) @ rng.normal(size=(d, d))
    residual[:outliers] += 20
    return made(code, residual, lambda: -(residual**2).sum(axis=1))


def test_central_leaves_out_the_farthest_weight():
    kept = trimmed_weights(np.array([3.0, 1.0, 2.0]), np.array([1.0, 1.0, 2.0]), 0.5)
    np.testing.assert_array_equal(kept, [0, 1, 1])
    np.testing.assert_array_equal(trimmed_weights(RNG.normal(size=500), ONES, 0.0), ONES)


@pytest.mark.parametrize("weight", [ONES[:60], np.arange(60) % 3 + 1.0], ids=["equal", "unequal"])
@pytest.mark.parametrize("n", [59, 60])
def test_medians_are_scikit_learns(n, weight):
    values = np.random.default_rng(0).normal(size=(n, 4)).round(1)
    values[:20, 1], values[:, 2] = np.nan, np.nan
    expected = weighted_percentile(values, weight[:n], 50, average=True)
    np.testing.assert_allclose(weighted_median(values, weight[:n]), expected, rtol=1e-15)


@pytest.mark.parametrize("trim", [0.0, 0.3, 0.95])
def test_trimmed_means_are_those_of_trimmed_weights(trim):
    values = RNG.normal(size=(61, 3)) ** 2
    for weight in (np.full(61, 0.7), np.arange(61) % 3 + 1.0):
        kept = np.stack([trimmed_weights(column, weight, trim) for column in values.T], axis=1)
        assert kept.sum(axis=0) == pytest.approx((1 - trim) * weight.sum())
        expected = np.average(values, axis=0, weights=kept)
        np.testing.assert_allclose(trimmed_means(values, weight, trim), expected, rtol=1e-12)


@pytest.mark.parametrize("n_columns", [4, MAX_COVARIANCE_COLUMNS + 1])
def test_statistics_do_not_depend_on_the_size_of_blocks(n_columns, monkeypatch):
    points, weight = RNG.normal(size=(90, n_columns)), np.arange(90) % 3 + 1.0
    results = []
    for n_cells in (2**18, 97):
        monkeypatch.setattr(table_rows, "CHUNK_CELLS", n_cells)
        scale = robust_center_scale(points, weight, 0.3)
        results.append([*scale, *concentrate(points, weight, 0.3), group_means(points, 8)])
    for first, second in zip(*results, strict=True):
        np.testing.assert_allclose(second, first, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("trim", [0.0, 0.1, 0.3, 0.7])
def test_spread_is_that_of_a_normal_distribution(trim):
    values = np.random.default_rng(0).normal(3, 2, size=(200_000, 1))
    center, scale = robust_center_scale(values, np.ones(len(values)), trim)
    np.testing.assert_allclose([center[0], scale[0]], [3, 2], rtol=0.02)


def test_spread_resists_what_is_trimmed():
    values = RNG.normal(size=(500, 1))
    values[:100] = 1e9
    center, scale = robust_center_scale(values, ONES, 0.3)
    assert abs(center[0]) < 0.5
    assert scale[0] < 2


def test_equal_values_have_a_scale():
    same = np.zeros((500, 1))
    np.testing.assert_allclose(robust_center_scale(same, ONES, 0.3)[1], VARIANCE_FLOOR**0.5)
    np.testing.assert_array_equal(robust_center_scale(same, ONES, 0.3, floor=0.0)[1], 1)


@pytest.mark.parametrize("trim", [0.0, 0.3])
@pytest.mark.parametrize("statistic", [robust_center_scale, concentrate])
def test_weighted_statistics_are_those_of_repeated_rows(statistic, trim):
    points, count = RNG.normal(size=(60, 3)), np.arange(60) % 3 + 1
    weighted = statistic(points, count * 1.0, trim)
    repeated = statistic(np.repeat(points, count, axis=0), np.ones(count.sum()), trim)
    for first, second in zip(weighted[:2], repeated[:2], strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-10)


def test_without_trimming_the_metric_is_the_covariances():
    points = evidence().residual
    center, whitening, usual = concentrate(points, ONES, 0.0)
    reference = EmpiricalCovariance().fit(points)
    np.testing.assert_allclose(center, reference.location_)
    ridge = VARIANCE_FLOOR + np.trace(reference.covariance_) / len(points)
    covariance = reference.covariance_ + ridge * np.eye(4)
    np.testing.assert_allclose(whitening @ whitening.T, np.linalg.inv(covariance))
    assert usual.all()


def test_concentration_steps_resist_outliers():
    clean, spoilt = evidence().residual, evidence(outliers=100).residual
    center, whitening, usual = concentrate(spoilt, ONES, 0.3)
    assert not usual[:100].any()
    squares = (whiten(clean[100:], center, whitening) ** 2).sum(axis=1)
    spoilt_squares = (whiten(spoilt[:100], center, whitening) ** 2).sum(axis=1)
    assert spoilt_squares.min() > squares.max()


def test_of_long_rows_only_variances_are_estimated():
    points = RNG.normal(size=(30, MAX_COVARIANCE_COLUMNS + 1)) * 3
    center, whitening, _ = concentrate(points, np.ones(30), 0.0)
    np.testing.assert_allclose(center, points.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(whitening, (points.var(axis=0) + VARIANCE_FLOOR) ** -0.5)


@pytest.mark.parametrize("size", [1, 5, 16, 1000])
@pytest.mark.parametrize("n", [1, 3, 4, 7, 8, 200])
def test_reference_points_are_means_of_groups_of_rows(n, size):
    """No group is smaller than the stated size, and together they contain every row once."""
    rows = np.random.default_rng(n).normal(size=(n, 3))
    # Further columns, which are too small to affect the groups, mark which rows a mean contains.
    means = group_means(np.c_[rows, 1e-9 * np.eye(n)], size)
    member = means[:, 3:] > 1e-15
    assert len(means) <= size
    assert (member.sum(axis=0) == 1).all()
    assert member.sum(axis=1).min() >= min(n, GROUP_ROWS)
    np.testing.assert_allclose(means[:, :3], member @ rows / member.sum(axis=1)[:, None])


def test_tails_are_students():
    seen = evidence()
    score = Tails().fit(seen, ONES, 0.3)
    deviation = (seen.residual - score.center) / score.scale
    nats = -student(DEGREES_OF_FREEDOM).logpdf(deviation).mean(axis=1)
    slope = (DEGREES_OF_FREEDOM + 1) / 2
    np.testing.assert_allclose(np.diff(nats), slope * np.diff(score(seen)))


@pytest.mark.parametrize("trim", [0.0, 0.3])
def test_neighbours_are_those_of_a_search(trim):
    seen = evidence()
    score = Neighbors(size=50, rank=3).fit(seen, ONES, trim)
    points = np.hstack([(seen.code - score.code_center) / score.code_scale, seen.residual])
    _, whitening, usual = concentrate(points, ONES, trim, floor=0.3)
    reference = group_means(whiten(points[usual], score.center, whitening), 50)
    reference = reference @ np.linalg.inv(whitening) + score.center
    metric = {"metric": "mahalanobis", "VI": whitening @ whitening.T}
    distance = np.sort(cdist(points, reference, **metric), axis=1)[:, 2]
    np.testing.assert_allclose(score(seen), np.log(distance / 6**0.5), atol=1e-6)


def test_reconstruction_is_squared_error():
    seen = evidence()
    got = Reconstruction().fit(seen, ONES, 0.3)(seen)
    np.testing.assert_allclose(np.exp(got), (seen.residual**2).mean(axis=1))


def test_robust_joins_two_standardised_scores():
    seen = evidence(outliers=20)
    score = Robust().fit(seen, ONES, 0.3)
    together = sum(
        (part(seen) - part(seen).mean()) / part(seen).std()
        for part in (score.distance, score.tails)
    )
    np.testing.assert_allclose(score(seen), together)


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("trim", [0.0, 0.3])
def test_every_score(name, trim):
    """Outliers are stranger than all others, rows are scored one by one, parts are not negative."""
    seen = evidence(outliers=20)
    score = SCORES[name]().fit(seen, ONES, trim)
    strangeness = score(seen)
    assert np.isfinite(strangeness).all()
    if trim > 0 or name != "neighbors":  # nothing says that these outliers are not usual
        assert strangeness[:20].min() > strangeness[20:].max()
    one = made(seen.code[:1], seen.residual[:1], lambda: seen.log_prob()[:1])
    np.testing.assert_allclose(score(one), strangeness[:1], rtol=1e-9)
    parts = score.cell_terms(seen.residual)
    assert parts.shape == seen.residual.shape
    assert (parts >= 0).all()


@pytest.mark.parametrize("name", SCORES)
def test_a_score_of_equal_rows_is_finite(name):
    seen = made(np.zeros((3, 2)), np.zeros((3, 4)), lambda: np.zeros(3))
    strangeness = SCORES[name]().fit(seen, np.ones(3), 0.3)(seen)
    assert np.isfinite(strangeness).all()
    assert np.ptp(strangeness) == 0


def with_gaps(values, share=0.4, seed=0):
    gaps = np.random.default_rng(seed).random(values.shape) < share
    return np.where(gaps, np.nan, values)


@pytest.mark.parametrize("weight", [ONES, np.arange(500) % 3 + 1.0], ids=["equal", "unequal"])
@pytest.mark.parametrize("statistic", [mean_and_deviation, robust_center_scale, scale_within_reach])
def test_statistics_of_columns_are_those_of_observed_cells(statistic, weight):
    values = with_gaps(RNG.normal(size=(500, 4)) * [1, 10, 100, 1000])
    rest = (0.3, 0.0) if statistic is robust_center_scale else ()
    found = np.array(statistic(values, weight, *rest))
    for j in range(4):
        known = ~np.isnan(values[:, j])
        alone = np.array(statistic(values[known, j, None], weight[known], *rest))
        np.testing.assert_allclose(found[:, j, None], alone, rtol=1e-12)
    values[:, 1] = np.nan
    assert np.isfinite(robust_center_scale(values, weight, 0.3)).all()


@pytest.mark.parametrize("trim", [0.0, 0.3])
def test_missing_cells_do_not_shrink_variances(trim):
    values = np.random.default_rng(0).normal(size=(5000, 3)) * [1, 5, 25]
    gaps = values.copy()
    gaps[:4000, 1] = np.nan
    weight = np.ones(5000)
    scales = [
        np.diagonal(np.linalg.inv(whitening @ whitening.T)) ** 0.5
        for _, whitening, _ in (concentrate(rows, weight, trim) for rows in (values, gaps))
    ]
    np.testing.assert_allclose(scales[1], scales[0], rtol=0.1)


@pytest.mark.parametrize("name", sorted(SCORES.keys() - {"deviance"}))
def test_scores_do_not_depend_on_the_number_of_missing_cells(name):
    seen = evidence(d=8)
    gaps = with_gaps(seen.residual, 0.3)
    # The log-densities of rows are higher by 3 for each missing cell.
    made_with_gaps = made(
        seen.code, gaps, lambda: -np.nansum(gaps**2, 1) + 3 * np.isnan(gaps).sum(1)
    )
    n_missing = np.isnan(gaps).sum(axis=1)
    score = OfPatterns(SCORES[name]()).fit(made_with_gaps, ONES, 0.3)
    rank = score(made_with_gaps).argsort().argsort()
    assert abs(np.corrcoef(rank, n_missing)[0, 1]) < 0.15


def test_scores_of_few_rows_survive_many_patterns_of_missing_cells():
    """More columns with missing cells than rows cannot explain the scores of training rows."""
    rng = np.random.default_rng(0)
    code, residual = rng.normal(size=(60, 2)), with_gaps(rng.normal(size=(60, 200)), 0.2)
    residual[:3] *= 3
    score = OfPatterns(Reconstruction())
    seen = made(code, residual, None)
    own, of_pattern = score.score(seen), score.fit(seen, ONES[:60], 0.3)(seen)
    assert np.corrcoef(own, of_pattern)[0, 1] > 0.95
    assert set(of_pattern.argsort()[-3:]) == {0, 1, 2}


@pytest.mark.parametrize("n_missing", [1, 8])
def test_an_outlier_with_a_unique_pattern_of_missing_cells_is_found(n_missing):
    rng = np.random.default_rng(0)
    residual = rng.normal(size=(300, 12))
    residual[0] *= 10
    residual[0, :n_missing] = np.nan
    seen = made(rng.normal(size=(300, 2)), residual, None)
    score = OfPatterns(Reconstruction()).fit(seen, ONES[:300], 0.3)
    assert score(seen).argmax() == 0


def test_deviances_of_numbers_are_in_units_of_their_noise():
    rng = np.random.default_rng(0)
    residual = rng.normal(size=(2000, 3)) * [0.1, 1, 1]
    residual[0, 0] = 2.0
    is_category = np.array([False, False, True])
    seen = ModelOutputs(np.zeros((2000, 1)), residual, None, is_category)
    score = SCORES["deviance"]().fit(seen, np.ones(2000), 0.3)
    assert score(seen).argmax() == 0
    share = residual[:, :2].var(axis=0) / (residual[:, :2].var(axis=0) + VARIANCE_FLOOR)
    np.testing.assert_allclose(score.mean[:2], share / 2, atol=0.1)
