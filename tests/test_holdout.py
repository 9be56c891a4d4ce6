"""Rows are held out by content: no order, number or dtype decides."""

from itertools import combinations

import numpy as np
import pytest
import torch

from skae.nn.draws import KeyedDraws
from skae.table import rows as table_rows
from skae.table.rows import Rows, hash_rows, merge_equal_rows
from skae.training.split import MAX_FOLDS, Split, hold_out, select_by_hash


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


def random_bits(n):
    """Distinct rows of 64 random bits."""
    numbers = np.random.default_rng(0).integers(2**63, size=n).astype(np.uint64) * np.uint64(2)
    bytes_ = np.unique(numbers)[:, None].view(np.uint8)
    bits = np.unpackbits(bytes_, axis=1)
    assert len(bits) == n
    return bits


def few_bits():
    """All rows of 64 bits of which at most three are set."""
    sets = [s for size in range(4) for s in combinations(range(64), size)]
    bits = np.zeros((len(sets), 64), dtype=np.uint8)
    for row, chosen in zip(bits, sets, strict=True):
        row[list(chosen)] = 1
    return bits


def content_numbers(X):
    """Random numbers that a model draws for rows, by their content."""
    return KeyedDraws(torch.from_numpy(X)).uniform((len(X), 1))[:, 0].numpy()


def row_hashes(X):
    return hash_rows(X, 0)


@pytest.mark.parametrize("keys", [row_hashes, content_numbers])
@pytest.mark.parametrize("values", [(0, 1), (0, 2), (0, -2), (0, 2.0**-40), (1, -1), (2, 4)])
@pytest.mark.parametrize("bits", [few_bits, lambda: random_bits(40_000)], ids=["few", "random"])
def test_rows_of_two_values_do_not_collide(bits, values, keys):
    """Such cells differ in few bits, which the products of cells and keys would not mix."""
    X = np.array(values, dtype=float)[bits()]
    assert len(np.unique(keys(X))) == len(X)


@pytest.mark.parametrize("keys", [row_hashes, content_numbers])
def test_many_rows_of_two_values_do_not_collide(keys):
    X = 2.0 * random_bits(400_000)
    assert len(np.unique(keys(X))) == 400_000


def test_zero_cells_do_not_enter_a_hash(rows):
    """A zero adds nothing, wherever it is, so that the nonzero cells alone decide."""
    sparse = rows * (np.random.default_rng(1).random(rows.shape) < 0.3)
    for seed in (0, 7):
        hashes = hash_rows(sparse, seed)
        wide = np.column_stack([sparse, np.zeros((len(sparse), 5)), -np.zeros((len(sparse), 2))])
        np.testing.assert_array_equal(hash_rows(wide, seed), hashes)
        empty = hash_rows(np.zeros((1, 1)), seed)
        for d in (2, 64):
            np.testing.assert_array_equal(hash_rows(np.zeros((1, d)), seed), empty)
    assert len(np.unique(hashes)) == len(np.unique(sparse, axis=0))


def test_equal_rows_alone_are_merged():
    """Each distinct row remains, with the exact sum of the weights of its copies."""
    distinct = 2.0 * few_bits()
    rng = np.random.default_rng(0)
    source = np.concatenate([np.arange(len(distinct)), rng.integers(len(distinct), size=20_000)])
    source = rng.permutation(source)
    X, weight = distinct[source], rng.integers(1, 5, size=len(source)).astype(float)
    index, total = merge_equal_rows(weight, hash_rows(X, 3))
    assert sorted(source[index]) == list(range(len(distinct)))
    np.testing.assert_array_equal(total, np.bincount(source, weight)[source[index]])


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


# ----------------------------------------------------------------------------- parts of a split


def split_of(rows, validation=0.1, repeated=0, seed=0):
    """The split of a table whose first rows are repeated, with random weights."""
    table = Rows(np.concatenate([rows, rows[:repeated]]))
    weight = np.random.default_rng(0).random(len(table)) + 0.5
    hashes = table.hash(seed)
    return Split.from_hashes(hashes, hashes, weight, np.zeros(len(table), dtype=bool), validation)


def pairs(split):
    """Index and weight of each row, by whether it is held out."""
    table = zip(split.index, split.weight, split.held_out, strict=True)
    return {(int(i), float(w)): bool(held_out) for i, w, held_out in table}


@pytest.mark.parametrize("repeated", [0, 60])
@pytest.mark.parametrize("n", [3, 40, 500])
def test_training_part_has_the_training_rows_only(rows, n, repeated):
    split = split_of(rows[:n], 0.3, min(n, repeated))
    part = split.training_part()
    assert split.held_out.any()
    assert not part.held_out.any()
    assert pairs(part) == {row: False for row, held_out in pairs(split).items() if not held_out}
    np.testing.assert_array_equal(part.training, split.training)
    chosen = split.index[split.representatives]
    expected = chosen[~split.held_out[split.representatives]]
    np.testing.assert_array_equal(part.index[part.representatives], expected)


def test_joined_split_holds_out_nothing(rows):
    split = split_of(rows, 0.3)
    joined = split.joined()
    assert pairs(joined) == dict.fromkeys(pairs(split), False)
    np.testing.assert_array_equal(joined.representatives, split.representatives)
    assert sorted(joined.training) == sorted([*split.training, *split.validation])
    assert joined.normalized_weight(500)[joined.index].mean() == pytest.approx(1)
    assert split.held_out.any()


@pytest.mark.parametrize("fraction", [0.02, 0.1, 0.3, 0.5])
@pytest.mark.parametrize("n", [2, 7, 40, 99])
def test_folds_hold_out_each_row_once(rows, n, fraction):
    split = split_of(rows[:n], max(fraction, 1 / n))
    folds = split.folds()
    assert 2 <= len(folds) <= MAX_FOLDS
    assert sum(fold.held_out.astype(int) for fold in folds).tolist() == [1] * n
    sizes = [int(fold.held_out.sum()) for fold in folds]
    assert max(sizes) == sizes[0] >= split.held_out.sum()
    for fold in folds:
        assert 0 < fold.held_out.sum() < n
        assert pairs(fold).keys() == pairs(split).keys()


def test_folds_do_not_depend_on_the_order_of_rows(rows):
    order = np.random.default_rng(1).permutation(99)
    folds = [
        [table[fold.validation].tolist() for fold in split_of(table).folds()]
        for table in (rows[:99], rows[:99][order])
    ]
    assert folds[0] == folds[1]
