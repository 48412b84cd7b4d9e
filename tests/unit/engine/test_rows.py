"""Rows of tiles: the two products against their dense twins, cutting, sharing out."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from engine.influence.rows import rows_of_columns, share_out
from tests.dense_tiles import LARGEST_COUNT, columns_of_dense, dense_of_columns, sparse_dose

BRICK = 64
N_BRICK = 5
BLOCKS = (4, 1, 6)
N_ROW, N_BEAMLET = BRICK * N_BRICK, sum(BLOCKS)


@pytest.fixture(scope="module", params=[0.05, 0.5, 1.0])
def tiles(request):
    dose_gy = sparse_dose(np.random.default_rng(11), N_ROW, N_BEAMLET, request.param)
    columns = columns_of_dense(dose_gy, BRICK, BLOCKS)
    return dose_gy, columns, dense_of_columns(columns, N_ROW, BRICK)


def test_tiles_keep_every_entry_to_half_a_count(tiles):
    dose_gy, _, dense = tiles
    by_brick = dose_gy.reshape(N_BRICK, BRICK, N_BEAMLET)
    # Half a count of the largest entry of the segment; float32 scales are off by 6e-8 of 65535 counts: 0.004 more.
    half_gy = 0.51 * by_brick.max(axis=1, keepdims=True) / LARGEST_COUNT
    assert (np.abs(by_brick - dense.reshape(by_brick.shape)) <= half_gy).all()


def test_the_forward_product_is_the_dense_one(tiles):
    dose_gy, columns, dense = tiles
    rows = rows_of_columns(columns, 0, N_BRICK, BRICK)
    weight = np.random.default_rng(12).uniform(0.0, 3.0, N_BEAMLET)
    # Rounding of float64 sums of 11 terms.
    np.testing.assert_allclose(rows.dose(weight), dense @ weight, rtol=1e-14)
    # Against the matrix before quantisation: half a count of each entry.
    np.testing.assert_allclose(
        rows.dose(weight), dose_gy @ weight, atol=0.51 * 2.0 / LARGEST_COUNT * weight.sum()
    )


def test_the_transposed_product_is_the_dense_one_and_is_added(tiles):
    _, columns, dense = tiles
    rows = rows_of_columns(columns, 0, N_BRICK, BRICK)
    rng = np.random.default_rng(13)
    slope, before = rng.normal(size=N_ROW), rng.normal(size=N_BEAMLET)
    result = before.copy()
    rows.add_adjoint(slope, result)
    # Rounding of sums of up to 320 terms, relative to the sum of their sizes.
    np.testing.assert_allclose(
        result - before, dense.T @ slope, atol=1e-13 * (dense.T @ np.abs(slope)).max() + 1e-14
    )


@given(
    weight=arrays(np.float64, N_BEAMLET, elements=st.floats(-1e3, 1e3)),
    slope=arrays(np.float64, N_ROW, elements=st.floats(-1e3, 1e3)),
)
@settings(max_examples=30)
def test_the_products_are_adjoint(weight, slope):
    columns = columns_of_dense(sparse_dose(np.random.default_rng(14), N_ROW, N_BEAMLET), BRICK, BLOCKS)
    rows = rows_of_columns(columns, 0, N_BRICK, BRICK)
    transposed = np.zeros(N_BEAMLET)
    rows.add_adjoint(slope, transposed)
    forward = rows.dose(weight)
    # Rounding, relative to the sizes that are summed.
    size = np.abs(forward) @ np.abs(slope) + np.abs(weight) @ np.abs(transposed)
    assert forward @ slope == pytest.approx(weight @ transposed, abs=1e-12 * size + 1e-300)


@given(cuts=st.sets(st.integers(1, N_BRICK - 1)))
@settings(max_examples=16)
def test_doses_do_not_depend_on_how_bricks_are_grouped(cuts):
    columns = columns_of_dense(sparse_dose(np.random.default_rng(15), N_ROW, N_BEAMLET), BRICK, BLOCKS)
    weight = np.random.default_rng(16).uniform(0.0, 3.0, N_BEAMLET)
    whole = rows_of_columns(columns, 0, N_BRICK, BRICK).dose(weight)
    edges = [0, *sorted(cuts), N_BRICK]
    parts = [rows_of_columns(columns, a, b - a, BRICK).dose(weight) for a, b in itertools.pairwise(edges)]
    assert np.concatenate(parts).tobytes() == whole.tobytes()


@given(first=st.integers(0, N_BRICK - 1), n_brick=st.integers(1, N_BRICK))
def test_a_group_holds_the_rows_of_its_bricks_and_no_others(first, n_brick):
    n_brick = min(n_brick, N_BRICK - first)
    columns = columns_of_dense(sparse_dose(np.random.default_rng(17), N_ROW, N_BEAMLET), BRICK, BLOCKS)
    dense = dense_of_columns(columns, N_ROW, BRICK)
    rows = rows_of_columns(columns, first, n_brick, BRICK)
    assert (rows.first_brick, rows.n_brick, rows.n_row) == (first, n_brick, n_brick * BRICK)
    weight = np.arange(1.0, N_BEAMLET + 1)
    np.testing.assert_allclose(
        rows.dose(weight), dense[first * BRICK : (first + n_brick) * BRICK] @ weight, rtol=1e-14
    )


def test_bricks_without_tiles_give_no_dose_and_no_gradient():
    rows = rows_of_columns([], 2, 3, BRICK)
    assert not rows.dose(np.ones(N_BEAMLET)).any()
    gradient = np.zeros(N_BEAMLET)
    rows.add_adjoint(np.ones(rows.n_row), gradient)
    assert not gradient.any()
    assert rows.n_bytes > 0


def test_the_bytes_of_a_group_are_those_of_its_arrays(tiles):
    _, columns, _ = tiles
    rows = rows_of_columns(columns, 0, N_BRICK, BRICK)
    assert rows.n_bytes >= rows.value.nbytes + rows.mini.nbytes
    assert rows.value.shape == (rows.mini.size, 8)


works = arrays(np.int64, st.integers(1, 40), elements=st.integers(0, 1000) | st.just(0))


@given(work=works, n_group=st.integers(1, 20))
def test_sharing_out_covers_every_brick_with_work_exactly_once(work, n_group):
    groups = share_out(work, n_group)
    times = np.zeros(work.size, int)
    for first, n_brick in groups:
        assert n_brick > 0
        assert work[first : first + n_brick].sum() > 0
        times[first : first + n_brick] += 1
    assert (times <= 1).all()
    assert (times[work > 0] == 1).all()
    assert len(groups) <= n_group
    assert [first for first, _ in groups] == sorted(first for first, _ in groups)


@given(work=works, n_group=st.integers(1, 20))
def test_no_group_has_more_than_its_share_and_one_brick(work, n_group):
    for first, n_brick in share_out(work, n_group):
        assert work[first : first + n_brick].sum() <= work.sum() / n_group + work.max()


def test_bricks_without_work_make_no_groups():
    assert share_out(np.zeros(7, np.int64), 4) == []


@pytest.mark.parametrize("n", [1, 2, 4, 7])
def test_several_products_at_once_have_the_bits_of_one_after_the_other(tiles, n):
    _, columns, _ = tiles
    rows = rows_of_columns(columns, 0, N_BRICK, BRICK)
    rng = np.random.default_rng(17)
    weight, slope = rng.uniform(0.0, 3.0, (n, N_BEAMLET)), rng.normal(size=(n, N_ROW))
    added = np.zeros((n, N_BEAMLET))
    rows.add_adjoint(slope, added)
    for one, dose_gy in enumerate(rows.dose(weight)):
        np.testing.assert_array_equal(rows.dose(weight[one]), dose_gy)
        alone = np.zeros(N_BEAMLET)
        rows.add_adjoint(slope[one], alone)
        np.testing.assert_array_equal(alone, added[one])
