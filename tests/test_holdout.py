"""Rows are held out by content: no order, number or dtype decides."""

import numpy as np
import pytest

from skae.table import rows as table_rows
from skae.table.rows import hash_rows
from skae.training.split import hold_out, select_by_hash


@pytest.fixture
def rows():
    return np.random.default_rng(0).normal(size=(500, 7))


def test_equal_rows_share_a_hash_and_others_do_not(rows):
    doubled = np.concatenate([rows, rows[::-1]])
    hashes = hash_rows(doubled, 0)
    assert len(np.unique(hashes)) == len(rows)
    np.testing.assert_array_equal(hashes[:500], hashes[500:][::-1])


def test_hash_is_of_values_not_of_memory(rows, monkeypatch):
    expected = hash_rows(rows, 3)
    np.testing.assert_array_equal(hash_rows(np.asfortranarray(rows), 3), expected)
    np.testing.assert_array_equal(hash_rows(rows[::-1], 3)[::-1], expected)
    with monkeypatch.context() as patch:
        patch.setattr(table_rows, "CHUNK_CELLS", 13)
        np.testing.assert_array_equal(hash_rows(rows, 3), expected)
    single = rows.astype(np.float32)
    np.testing.assert_array_equal(hash_rows(single, 3), hash_rows(single.astype(float), 3))


def test_negative_zero_is_zero():
    a, b = np.zeros((1, 3)), -np.zeros((1, 3))
    np.testing.assert_array_equal(hash_rows(a, 0), hash_rows(b, 0))


def test_small_differences_and_column_order_count():
    a = np.array([[1.0, 2.0], [2.0, 1.0], [1.0, np.nextafter(2.0, 3.0)]])
    assert len(np.unique(hash_rows(a, 0))) == 3
    grid = np.stack(np.meshgrid(np.arange(40.0), np.arange(40.0)), axis=-1).reshape(-1, 2)
    assert len(np.unique(hash_rows(grid, 0))) == 1600


def test_binary_rows_do_not_collide():
    bits = (np.arange(4096)[:, None] >> np.arange(12) & 1).astype(float)
    assert len(np.unique(hash_rows(bits, 0))) == 4096


def test_seeds_hold_out_different_rows(rows):
    a, b = (hold_out(hash_rows(rows, seed), 0.2) for seed in (0, 1))
    assert a.sum() == b.sum() == 100
    assert 5 <= (a & b).sum() <= 40  # 20 by chance


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
def test_share_of_distinct_rows_is_held_out(rows, fraction):
    hashes = hash_rows(np.concatenate([rows, rows[:100], rows[:50]]), 0)
    which = hold_out(hashes, fraction)
    assert len(np.unique(hashes[which])) == round(fraction * 500)
    assert not set(hashes[which]) & set(hashes[~which])


def test_no_side_is_ever_empty(rows):
    for n in (1, 2, 3, 4, 5, 10):
        for fraction in (0.01, 0.1, 0.5, 0.99):
            which = hold_out(hash_rows(rows[:n], 0), fraction)
            assert not which.all()
            expected = round(fraction * n)
            assert which.sum() == (expected if 0 < expected < n else 0)
    assert not hold_out(hash_rows(np.ones((50, 3)), 0), 0.5).any()


def test_held_out_rows_are_not_special(rows):
    """Each column's mean over held-out rows differs from the others' by chance only."""
    many = np.random.default_rng(1).normal(size=(20_000, 5))
    which = hold_out(hash_rows(many, 0), 0.5)
    difference = many[which].mean(axis=0) - many[~which].mean(axis=0)
    assert (abs(difference) < 5 * np.sqrt(4 / 20_000)).all()


def test_shuffle_is_decided_by_content(rows):
    order = np.random.default_rng(0).permutation(500)
    for size in (100, 500, 1000):
        a = select_by_hash(hash_rows(rows, 0), size)
        b = select_by_hash(hash_rows(rows[order], 0), size)
        np.testing.assert_array_equal(rows[a], rows[order][b])
        assert len(a) == len(np.unique(a)) == min(size, 500)


def test_shuffle_keeps_repetitions_together(rows):
    hashes = hash_rows(np.repeat(rows, 3, axis=0), 0)
    chosen = hashes[select_by_hash(hashes, 50)].reshape(-1, 3)
    assert len(chosen) == 50
    assert (chosen == chosen[:, :1]).all()


def test_shuffle_is_independent_of_the_split(rows):
    hashes = hash_rows(rows, 0)
    which = hold_out(hashes, 0.2)
    first = select_by_hash(hashes, 250)
    assert 30 <= which[first].sum() <= 70  # 50 by chance
