import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.geometry.bricks import MINI_SIZE, BrickLayout, choose_brick_edge
from engine.model.grid import Grid

layouts = st.builds(
    lambda shape, edge: BrickLayout(Grid((-7.0, 3.0, 11.0), (2.0, 3.0, 2.5), shape), edge),
    st.tuples(st.integers(1, 21), st.integers(1, 19), st.integers(1, 23)),
    st.sampled_from([2, 4, 8, 16]),
)


@settings(max_examples=50)
@given(layouts)
def test_every_voxel_has_a_row_of_its_own_at_its_own_centre(layout: BrickLayout) -> None:
    rows = layout.row_of_voxel.ravel()
    assert np.unique(rows).size == layout.grid.n_voxel
    assert rows.min() >= 0
    assert rows.max() < layout.n_row
    x_mm, y_mm, z_mm = layout.grid.centres_mm_xyz
    z, y, x = np.meshgrid(z_mm, y_mm, x_mm, indexing="ij")
    expected_mm = np.stack([x.ravel(), y.ravel(), z.ravel()], axis=1)
    np.testing.assert_allclose(layout.centres_mm(rows), expected_mm, atol=1e-9)


@settings(max_examples=50)
@given(layouts, st.integers(0, 1000))
def test_a_volume_comes_back_from_its_rows(layout: BrickLayout, seed: int) -> None:
    volume = np.random.default_rng(seed).random(layout.grid.shape_zyx).astype(np.float32) + 1.0
    rows = layout.to_rows(volume)
    np.testing.assert_array_equal(layout.to_volume(rows), volume)
    assert np.count_nonzero(rows) == layout.grid.n_voxel, "rows beyond the grid stay empty"


@settings(max_examples=30)
@given(layouts)
def test_eight_rows_are_a_cube_of_neighbours_in_c_order(layout: BrickLayout) -> None:
    centres_mm = layout.centres_mm(np.arange(layout.n_row)).reshape(-1, MINI_SIZE, 3)
    dx, dy, dz = layout.grid.spacing_mm_xyz
    steps_mm = np.array([[dx * x, dy * y, dz * z] for z in (0, 1) for y in (0, 1) for x in (0, 1)])
    np.testing.assert_allclose(
        centres_mm - centres_mm[:, :1], np.broadcast_to(steps_mm, centres_mm.shape), atol=1e-9
    )


def test_rows_of_a_brick_are_one_piece() -> None:
    layout = BrickLayout(Grid((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (9, 10, 20)), 8)
    assert layout.bricks_zyx == (2, 2, 3)
    brick = layout.row_of_voxel // layout.brick_size
    z, y, x = np.meshgrid(*(np.arange(n) // 8 for n in layout.grid.shape_zyx), indexing="ij")
    np.testing.assert_array_equal(brick, (z * 2 + y) * 3 + x)


@pytest.mark.parametrize(
    ("shape_zyx", "edge"),
    [((128, 128, 128), 32), ((127, 128, 96), 16), ((64, 64, 64), 16), ((40, 40, 40), 8), ((1, 1, 1), 8)],
)
def test_brick_edge_is_the_largest_that_gives_64_bricks(shape_zyx: tuple[int, int, int], edge: int) -> None:
    assert choose_brick_edge(Grid((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), shape_zyx)) == edge


def test_what_was_worked_out_does_not_travel() -> None:
    layout = BrickLayout(Grid((1.0, 2.0, 3.0), (2.0, 2.0, 2.5), (40, 50, 60)), 16)
    before = pickle.dumps(layout)
    assert layout.row_of_voxel.nbytes > 400_000
    assert layout.grid.centres_mm_xyz
    assert layout.grid.edges_mm_xyz
    assert len(pickle.dumps(layout)) == len(before) < 1000
    assert len(pickle.dumps(layout.grid)) < 1000
    again = pickle.loads(pickle.dumps(layout))
    assert again == layout
    np.testing.assert_array_equal(again.row_of_voxel, layout.row_of_voxel)
