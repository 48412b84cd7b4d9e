"""Tiles as columns and as rows: both stand for one matrix."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.geometry.bricks import MINI_SIZE
from engine.influence.rows import RowGroup, rows_of_columns, share_out
from engine.model.influence import TileColumn
from tests.dense_tiles import dense_of_columns

BRICK_SIZE, N_BRICK = 512, 7


def _column(random: np.random.Generator, n_beamlet: int) -> TileColumn:
    """Return a column with random content: some bricks missing, some segments empty."""
    brick = np.flatnonzero(random.random(N_BRICK) < 0.6).astype(np.int32)
    mini = [
        np.sort(random.choice(BRICK_SIZE // MINI_SIZE, random.integers(0, 9), replace=False))
        for _ in range(brick.size * n_beamlet)
    ]
    begin = np.cumsum([0, *(m.size for m in mini)]).astype(np.int64)
    value = random.integers(0, 65536, (int(begin[-1]), MINI_SIZE)).astype(np.uint16)
    flat = np.concatenate([np.empty(0, np.int64), *mini]).astype(np.uint16)
    scale = random.random(brick.size * n_beamlet).astype(np.float32)
    return TileColumn(n_beamlet, brick, begin, scale, flat, value, int(np.count_nonzero(value)))


def _columns(seed: int) -> tuple[list[tuple[int, TileColumn]], int]:
    random = np.random.default_rng(seed)
    columns, first = [], 0
    for _ in range(4):
        n_beamlet = int(random.integers(1, 6))
        columns.append((first, _column(random, n_beamlet)))
        first += n_beamlet
    return columns, first


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(0, N_BRICK - 1), st.integers(1, N_BRICK))
def test_products_are_those_of_the_dense_matrix(seed: int, first: int, n_brick: int) -> None:
    n_brick = min(n_brick, N_BRICK - first)
    columns, n_beamlet = _columns(seed)
    rows = slice(first * BRICK_SIZE, (first + n_brick) * BRICK_SIZE)
    matrix = dense_of_columns(columns, N_BRICK * BRICK_SIZE, BRICK_SIZE)[rows]
    group = rows_of_columns(columns, first, n_brick, BRICK_SIZE)
    random = np.random.default_rng(seed + 1)
    weight, gradient = random.random(n_beamlet), random.normal(size=matrix.shape[0])
    weight[0] = 0.0
    # Sums of float64 in another order.
    np.testing.assert_allclose(group.dose(weight), matrix @ weight, rtol=1e-12, atol=1e-9)
    added = np.ones(n_beamlet)
    group.add_adjoint(gradient, added)
    np.testing.assert_allclose(added, 1.0 + matrix.T @ gradient, rtol=1e-9, atol=1e-6)


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_dose_does_not_depend_on_how_bricks_are_grouped(seed: int) -> None:
    columns, n_beamlet = _columns(seed)
    weight = np.random.default_rng(seed).random(n_beamlet)
    whole = rows_of_columns(columns, 0, N_BRICK, BRICK_SIZE).dose(weight)
    cut = [rows_of_columns(columns, a, n, BRICK_SIZE).dose(weight) for a, n in ((0, 2), (2, 1), (3, 4))]
    np.testing.assert_array_equal(np.concatenate(cut), whole)


def test_bytes_are_those_of_the_arrays() -> None:
    column = _column(np.random.default_rng(1), 3)
    expected = (
        4 * column.brick.size
        + 8 * column.segment_begin.size
        + 4 * column.scale.size
        + 2 * column.mini.size * 9
    )
    assert column.n_bytes == expected
    group = rows_of_columns([(0, column)], 0, N_BRICK, BRICK_SIZE)
    assert isinstance(group, RowGroup)
    n_segment = group.beamlet.size
    assert group.n_bytes == 8 * (N_BRICK + 1) + 8 * n_segment + 8 * (n_segment + 1) + 2 * column.mini.size * 9


@settings(max_examples=100)
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=60), st.integers(1, 20))
def test_shares_are_disjoint_and_hold_all_work(work: list[int], n_group: int) -> None:
    bricks = np.array(work, dtype=np.int64)
    groups = share_out(bricks, n_group)
    assert len(groups) <= n_group
    seen = np.zeros(bricks.size, dtype=int)
    for first, n in groups:
        assert bricks[first : first + n].sum() > 0
        # No group has more than an equal share and one brick more.
        assert bricks[first : first + n].sum() <= bricks.sum() / n_group + bricks.max()
        seen[first : first + n] += 1
    assert seen.max(initial=0) <= 1
    assert bricks[seen == 1].sum() == bricks.sum()


def test_nothing_to_share_gives_no_group() -> None:
    assert share_out(np.zeros(5, dtype=np.int64), 3) == []


@pytest.mark.parametrize("first", [0, 3])
def test_columns_without_content_give_a_group_without_dose(first: int) -> None:
    empty = TileColumn(
        2,
        np.empty(0, np.int32),
        np.zeros(1, np.int64),
        np.empty(0, np.float32),
        np.empty(0, np.uint16),
        np.empty((0, MINI_SIZE), np.uint16),
        0,
    )
    group = rows_of_columns([(0, empty)], first, 2, BRICK_SIZE)
    np.testing.assert_array_equal(group.dose(np.ones(2)), 0.0)
