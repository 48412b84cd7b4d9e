"""Doses of setup scenarios as the nominal one, moved: against dense matrices, and doses that are recomputed."""

import numpy as np
import pytest

from engine.dose.engine import Patient
from engine.dose.photon_pencil_beam import PhotonPencilBeam
from engine.geometry.bricks import BrickLayout
from engine.geometry.resample import moved_against
from engine.influence.halo import halo_of, held_by_groups, stencil_of, stencils_of
from engine.influence.rows import rows_of_columns, rows_within
from engine.influence.scenarios import MovedDose, OwnMatrices
from engine.model.arrays import F32, F64, Bool
from engine.model.beam import Beam, BeamletGrid
from engine.model.grid import Grid
from engine.model.influence import TileColumn
from engine.model.machine import MACHINES
from engine.optimise.functions import SquaredDeviation, SquaredOverdose
from engine.optimise.group import GroupEvaluator, Term, regions_of_group
from engine.optimise.problem import LocalRows, Problem
from tests.dense_tiles import columns_of_dense, dense_of_columns, sparse_dose

GRID = Grid((-20.0, -30.0, 5.0), (4.0, 2.0, 8.0), (9, 13, 17))
"""Odd numbers of voxels: bricks reach beyond the grid."""
LAYOUT = BrickLayout(GRID, 4)
N_BEAMLET = 7
SHIFTS_MM = ((5.0, -3.0, 2.0), (-8.0, 0.0, 0.0), (0.0, 0.7, -11.0))
GROUPS = ((0, 13), (13, 20), (33, 27))


def _matrix(seed: int = 3) -> list[tuple[int, TileColumn]]:
    """Return a random nominal matrix with entries on the grid's voxels alone."""
    dose_gy = sparse_dose(np.random.default_rng(seed), LAYOUT.n_row, N_BEAMLET)
    on_grid = np.zeros(LAYOUT.n_row)
    on_grid[LAYOUT.row_of_voxel] = 1.0
    return columns_of_dense(dose_gy * on_grid[:, None], LAYOUT.brick_size, (4, 3))


def _group(
    columns: list[tuple[int, TileColumn]], first: int, n: int, wanted: Bool, shifts_mm: tuple = SHIFTS_MM
) -> MovedDose:
    size, stencils = LAYOUT.brick_size, stencils_of(LAYOUT, shifts_mm)
    row = np.flatnonzero(wanted[first * size : (first + n) * size])
    halo = halo_of(LAYOUT, first * size, row, stencils)
    return MovedDose(n * size, rows_within(columns, halo.bricks, halo.keep, size), halo, tuple(stencils))


def _moved_rows(dose_rows: F64, shift_mm: tuple[float, float, float]) -> F64:
    """Return what a whole volume makes of it."""
    rows = np.zeros(LAYOUT.n_row)
    rows[LAYOUT.row_of_voxel] = moved_against(dose_rows[LAYOUT.row_of_voxel], GRID, shift_mm)
    return rows


def _on_grid() -> Bool:
    wanted = np.zeros(LAYOUT.n_row, dtype=np.bool_)
    wanted[LAYOUT.row_of_voxel] = True
    return wanted


def test_groups_together_have_the_moved_dose_of_the_whole_matrix() -> None:
    columns, weight = _matrix(), np.random.default_rng(5).uniform(0.0, 1.0, N_BEAMLET)
    nominal_gy = dense_of_columns(columns, LAYOUT.n_row, LAYOUT.brick_size) @ weight
    found = [_group(columns, first, n, _on_grid()).doses([(4, weight)])[0] for first, n in GROUPS]
    for scenario, shift_mm in enumerate(((0.0, 0.0, 0.0), *SHIFTS_MM)):
        rows = np.concatenate([of_group[scenario] for of_group in found])
        np.testing.assert_allclose(rows, _moved_rows(nominal_gy, shift_mm), rtol=0.0, atol=1e-12)


def test_the_dose_at_rest_has_the_bits_of_the_nominal_matrix() -> None:
    columns, weight = _matrix(), np.random.default_rng(5).uniform(0.0, 1.0, N_BEAMLET)
    own = OwnMatrices((rows_of_columns(columns, 13, 20, LAYOUT.brick_size),))
    moved = _group(columns, 13, 20, _on_grid())
    np.testing.assert_array_equal(moved.doses([(1, weight)])[0][0], own.doses([(1, weight)])[0][0])


def test_whole_voxels_have_one_neighbour_and_need_no_row_beyond_it() -> None:
    stencil = stencil_of((-8.0, 6.0, 16.0), GRID.spacing_mm_xyz)
    np.testing.assert_array_equal(stencil.offset_zyx, [[2, 3, -2]])
    np.testing.assert_array_equal(stencil.factor, [1.0])


def test_adjoint_is_the_transposed_of_the_moved_matrix_to_the_last_bit() -> None:
    # Quarters of voxels and counts that are powers of 2: no product or sum is rounded, so both ways must agree exactly.
    shifts_mm = ((3.0, 1.0, 4.0), (-5.0, -0.5, 2.0))
    rng = np.random.default_rng(7)
    on_grid = _on_grid()
    dense = 2.0 ** -rng.integers(0, 8, (LAYOUT.n_row, N_BEAMLET)) * (rng.random((LAYOUT.n_row, 1)) < 0.5)
    columns = columns_of_dense(dense * on_grid[:, None] * 65535.0, LAYOUT.brick_size, (4, 3))
    group = _group(columns, 13, 20, on_grid, shifts_mm)
    by_beamlet = np.stack([np.stack(group.doses([(3, unit)])[0]) for unit in np.eye(N_BEAMLET)], axis=-1)
    assert np.abs(by_beamlet).sum() > 0.0
    rows = rng.choice(np.flatnonzero(by_beamlet.any(axis=(0, 2))), 40, replace=False)
    for scenario in range(3):
        for row in rows:
            unit = np.zeros(group.n_row)
            unit[row] = 1.0
            result = np.zeros(N_BEAMLET)
            group.add_adjoints([{scenario: unit}], [result])
            np.testing.assert_array_equal(result, by_beamlet[scenario, row])


def test_several_sets_of_weights_have_the_bits_that_each_has_alone() -> None:
    rng, group = np.random.default_rng(1), _group(_matrix(), 13, 20, _on_grid())
    weights, used = rng.uniform(0.0, 1.0, (3, N_BEAMLET)), (4, 2, 3)
    together = group.doses(list(zip(used, weights, strict=True)))
    by_rows = [{n: rng.normal(size=group.n_row) for n in range(count)} for count in used]
    results = [np.zeros(N_BEAMLET) for _ in used]
    group.add_adjoints(by_rows, results)
    for number, asked in enumerate(zip(used, weights, strict=True)):
        for one, other in zip(group.doses([asked])[0], together[number], strict=True):
            np.testing.assert_array_equal(one, other)
        alone = np.zeros(N_BEAMLET)
        group.add_adjoints([by_rows[number]], [alone])
        np.testing.assert_array_equal(alone, results[number])


def _shares() -> list[F32]:
    """Return two regions that leave most of the rows out, one of them in the corner where the grid ends."""
    inside, corner = np.zeros(GRID.shape_zyx, np.float32), np.zeros(GRID.shape_zyx, np.float32)
    inside[3:6, 4:9, 5:11] = 1.0
    corner[7:, 9:, 13:] = 0.5
    return [LAYOUT.to_rows(volume / volume.sum()) for volume in (inside, corner)]


def _problem(form: str, groups: tuple = GROUPS, density_gy: F64 | None = None) -> Problem:
    columns, shares, size = _matrix(), _shares(), LAYOUT.brick_size
    wanted = np.any([share > 0.0 for share in shares], axis=0)
    evaluators = []
    for first, n in groups:
        rows = _group(columns, first, n, wanted)
        if density_gy is not None:
            denser = rows_of_columns(columns_of_dense(density_gy, size, (4, 3)), first, n, size)
            rows = MovedDose(
                rows.n_row, rows.nominal, rows.halo, (*rows.scenarios[:2], denser, *rows.scenarios[2:])
            )
        evaluators.append(GroupEvaluator(rows, regions_of_group(shares, first * size, n * size)))
    terms = [
        Term("a", 0, SquaredDeviation(dose_gy=2.0), 3.0),
        Term("b", 1, SquaredOverdose(dose_gy=0.5), 2.0, robust=False),
        Term("c", 1, SquaredOverdose(dose_gy=0.3), 5.0),
    ]
    n_scenario = 4 if density_gy is None else 5
    return Problem(LocalRows(evaluators, N_BEAMLET), terms, form, np.full(n_scenario, 1.0 / n_scenario))


@pytest.mark.parametrize("form", ["expected", "composite_worst_case", "voxel_worst_case"])
def test_gradient_and_hessian_product_are_those_of_finite_differences(form: str) -> None:
    problem, rng = _problem(form), np.random.default_rng(9)
    weight, direction = rng.uniform(0.2, 1.0, N_BEAMLET), rng.normal(size=N_BEAMLET)
    temperature, h = (0.0 if form == "expected" else 0.3), 1e-5
    above, below = (problem.evaluate(weight + s * h * direction, temperature) for s in (1, -1))
    slope = problem.evaluate(weight, temperature).gradient @ direction
    assert (above.value - below.value) / (2 * h) == pytest.approx(slope, rel=1e-6)
    product = problem.hessian_product(weight, direction, temperature)
    np.testing.assert_allclose((above.gradient - below.gradient) / (2 * h), product, rtol=1e-5, atol=1e-6)


def test_value_is_that_of_moved_dense_matrices_beside_a_matrix_of_another_scenario() -> None:
    nominal = dense_of_columns(_matrix(), LAYOUT.n_row, LAYOUT.brick_size)
    weight = np.random.default_rng(4).uniform(0.2, 1.0, N_BEAMLET)
    density_gy = nominal * 0.9
    problem = _problem("expected", density_gy=density_gy)
    size = LAYOUT.brick_size
    stored = dense_of_columns(columns_of_dense(density_gy, size, (4, 3)), LAYOUT.n_row, size)
    at_rest = nominal @ weight
    doses_gy = [at_rest, _moved_rows(at_rest, SHIFTS_MM[0]), stored @ weight]
    doses_gy += [_moved_rows(at_rest, shift_mm) for shift_mm in SHIFTS_MM[1:]]
    a, b = _shares()
    expected = 2.0 * b @ np.maximum(at_rest - 0.5, 0.0) ** 2 + np.mean(
        [3.0 * a @ (gy - 2.0) ** 2 + 5.0 * b @ np.maximum(gy - 0.3, 0.0) ** 2 for gy in doses_gy]
    )
    assert problem.evaluate(weight, 0.0).value == pytest.approx(expected, rel=1e-6)


def test_groups_hold_what_was_projected() -> None:
    columns, shares = _matrix(), _shares()
    wanted = np.any([share > 0.0 for share in shares], axis=0)
    n_mini = np.zeros(LAYOUT.n_brick, np.int64)
    for _, column in columns:
        np.add.at(n_mini, column.brick, np.diff(column.segment_begin[:: column.n_beamlet]))
    held = held_by_groups(LAYOUT, GROUPS, wanted, _on_grid(), n_mini, stencils_of(LAYOUT, SHIFTS_MM))
    for (first, n), projected in zip(GROUPS, held, strict=True):
        group = _group(columns, first, n, wanted)
        assert projected.n_place == group.nominal.n_row + group.halo.n_box
        assert projected.n_bytes == group.halo.n_bytes
        assert projected.n_mini == pytest.approx(group.nominal.mini.size, rel=0.15)
        assert projected.n_mini <= projected.n_mini_read


def test_a_group_without_any_voxel_of_a_region_holds_nothing() -> None:
    group = _group(_matrix(), 0, 2, np.zeros(LAYOUT.n_row, dtype=np.bool_))
    assert group.nominal.n_row == 0
    (doses,) = group.doses([(4, np.ones(N_BEAMLET))])
    assert [dose_gy.shape for dose_gy in doses] == [(2 * LAYOUT.brick_size,)] * 4
    assert not np.any(doses)


WATER = Grid((-80.0, -80.0, -80.0), (4.0, 4.0, 4.0), (41, 41, 41))


@pytest.mark.parametrize(
    ("gantry_deg", "shift_mm", "allowed"),
    [
        # Whole voxels: nothing is interpolated, and what is left is rounding and the inverse square along oblique rays.
        (0.0, (8.0, 0.0, -4.0), 1e-4),
        (90.0, (0.0, -8.0, 4.0), 1e-4),
        (0.0, (5.0, 0.0, -3.0), 0.02),
        (90.0, (0.0, -5.0, 3.0), 0.02),
    ],
)
def test_dose_moved_across_the_beam_is_the_recomputed_one_in_a_box_of_water(
    gantry_deg: float, shift_mm: tuple[float, float, float], allowed: float
) -> None:
    layout = BrickLayout(WATER, 8)
    engine = PhotonPencilBeam(MACHINES["generic-6mv"], 500.0, 0.0)
    beam = Beam("one", gantry_deg, 0.0, 0.0, (0.0, 0.0, 0.0), 1000.0)
    row, column = (a.ravel().astype(np.int32) for a in np.mgrid[-3:4, -3:4])
    beamlets = BeamletGrid((8.0, 8.0), column, row, np.array([0, row.size]))
    # A lopsided field: moved the wrong way, or along the wrong axis, it would not agree.
    weight = 1.0 + 0.2 * column - 0.1 * row
    patient = Patient(WATER, np.ones(WATER.shape_zyx, np.float32), "HFS")
    active = layout.to_rows(np.ones(WATER.shape_zyx, np.float32)) > 0.0

    def recomputed(by_mm: tuple[float, float, float]) -> F64:
        view = engine.view(patient, layout, active, beam, by_mm, None)
        return layout.to_volume(engine.forward(view, beamlets, weight, 1.0)).astype(np.float64)

    nominal = recomputed((0.0, 0.0, 0.0))
    far = (slice(6, -6),) * 3  # from the surface

    def error(by_mm: tuple[float, float, float]) -> float:
        """Return the root mean square difference as a share of the largest dose."""
        moved = moved_against(nominal, WATER, by_mm)
        return float(np.sqrt(np.mean((moved - recomputed(shift_mm))[far] ** 2)) / nominal[far].max())

    x, y, z = shift_mm
    assert error(shift_mm) < allowed
    for wrong in ((0.0, 0.0, 0.0), (-x, -y, -z), (z, y, x), (x, y, -z)):
        assert error(wrong) > 2.0 * allowed
