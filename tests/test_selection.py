"""Rows that an index selects: blocks, hashes of ranks, and merged rows."""

import numpy as np
import pytest

from skae.table import rows as table_rows
from skae.table.rows import hash_rows, merge_equal_rows
from skae.table.selection import DistinctRows, Selection, assemble

RNG = np.random.default_rng(0)
TABLE = RNG.integers(0, 4, size=(300, 5)).astype(np.float32)
INDEX = RNG.permutation(300)[:200]


@pytest.fixture(params=[13, 2**18], autouse=True)
def chunk_cells(request, monkeypatch):
    monkeypatch.setattr(table_rows, "CHUNK_CELLS", request.param)


def test_blocks_make_up_the_selected_rows():
    rows = Selection(TABLE, INDEX)
    expected = TABLE[INDEX]
    np.testing.assert_array_equal(assemble(len(rows), rows.row_blocks(), np.float32), expected)
    columns = ((block, cells.T) for block, cells in rows.column_blocks())
    np.testing.assert_array_equal(assemble(rows.n_columns, columns).T, expected)
    some = slice(5, 50)
    np.testing.assert_array_equal(assemble(45, rows.take(some).row_blocks()), expected[some])


def test_hashes_of_ranks_are_those_of_a_table_of_ranks():
    cells = TABLE[INDEX]
    ranks = [np.unique(column, return_inverse=True)[1] for column in cells.T]
    expected = hash_rows(np.stack(ranks, axis=1).astype(np.float64), 3)
    rows = Selection(TABLE, INDEX)
    np.testing.assert_array_equal(rows.hash_ranks(3), expected)
    in_other_units = Selection(TABLE * np.float32(1e-3) - 7, INDEX)
    np.testing.assert_array_equal(in_other_units.hash_ranks(3), expected)


def test_merged_rows_are_sorted_by_hash_and_have_summed_weights():
    weight = RNG.integers(0, 3, len(TABLE)).astype(np.float64)
    rows = DistinctRows.merge(TABLE, weight, 3)
    assert (rows.hashes[1:] > rows.hashes[:-1]).all()
    assert rows.share.mean() == pytest.approx(1)
    np.testing.assert_allclose(rows.share / rows.weight, rows.share[0] / rows.weight[0])
    cells = TABLE[rows.index]
    assert len(np.unique(cells, axis=0)) == len(cells)
    for row, total in zip(cells, rows.weight, strict=True):
        assert weight[(row == TABLE).all(axis=1)].sum() == total
    assert rows.weight.sum() == weight.sum()
    again = np.repeat(TABLE, weight.astype(int), axis=0)
    repeated = DistinctRows.merge(again, np.ones(len(again)), 3)
    for name in ("weight", "share", "hashes"):
        np.testing.assert_array_equal(getattr(repeated, name), getattr(rows, name))


def test_a_merge_finds_the_groups_of_equal_rows():
    rows = DistinctRows.merge(TABLE, np.ones(len(TABLE)), 0)
    _, total = merge_equal_rows(np.ones(len(TABLE)), hash_rows(TABLE, 0))
    np.testing.assert_array_equal(np.sort(rows.weight), np.sort(total))


def test_only_large_tables_are_copied_in_their_dtype():
    wide = np.zeros((3, 2**17), dtype=np.float32)
    assert Selection.all(wide).copy_dtype == np.float32
    assert Selection.all(wide[:2]).copy_dtype == np.float64
    assert Selection.all(wide.astype(np.float64)).copy_dtype == np.float64
