"""The photon pencil beam against a slow twin of its formula, and the laws that its tiles keep."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import erf

from engine.dose.engine import Patient
from engine.dose.photon_pencil_beam import PHOTONS_PER_WEIGHT, PhotonPencilBeam
from engine.dose.photon_pencil_beam_loss import cut_reach_mm
from engine.dose.photon_pencil_beam_view import BeamView
from engine.errors import DoseError
from engine.geometry.bricks import MINI_SIZE, BrickLayout
from engine.influence.rows import rows_of_columns
from engine.model.arrays import F64, Bool
from engine.model.beam import Beam, BeamletGrid
from engine.model.grid import Grid
from engine.model.influence import TileColumn
from engine.model.machine import MACHINES

GRID = Grid((-36.0, -30.0, -33.0), (4.0, 4.0, 4.0), (17, 16, 19))
"""Odd numbers of voxels: some mini-blocks and bricks reach beyond the grid."""
LAYOUT = BrickLayout(GRID, 8)
LAYERS = np.random.default_rng(2).uniform(0.2, 1.8, GRID.shape_zyx[1])
"""Density of each layer along y, which is along the beam at gantry 0."""
DOWN = Beam("down", 0.0, 0.0, 0.0, (1.0, 2.0, -3.0), 1000.0)
NO_SHIFT = (0.0, 0.0, 0.0)


def _engine(
    cutoff_mm: float = 500.0, threshold: float = 0.0, machine: str = "generic-6mv"
) -> PhotonPencilBeam:
    return PhotonPencilBeam(MACHINES[machine], cutoff_mm, threshold)


def _patient(factor: float = 1.0, grid: Grid = GRID) -> Patient:
    density = np.broadcast_to(LAYERS[None, :, None] * factor, GRID.shape_zyx).astype(np.float32)
    return Patient(grid, density, "HFS")


def _body(layout: BrickLayout = LAYOUT) -> Bool:
    active: Bool = layout.to_rows(np.ones(layout.grid.shape_zyx, np.float32)) > 0.0
    return active


def _beamlets(half: int = 3, size_mm: float = 5.0, edge: int = 2) -> BeamletGrid:
    """Return a square of beamlets without its corner, in blocks of ``edge`` × ``edge``."""
    row, column = (a.ravel() for a in np.mgrid[-half : half + 1, -half : half + 1])
    row, column = row[1:], column[1:]
    order = np.lexsort((column, row, column // edge, row // edge))
    row, column = row[order], column[order]
    patch = np.stack([row // edge, column // edge], axis=1)
    starts = np.flatnonzero(np.any(patch[1:] != patch[:-1], axis=1)) + 1
    begin = np.concatenate([[0], starts, [row.size]]).astype(np.int64)
    return BeamletGrid((size_mm, size_mm), column.astype(np.int32), row.astype(np.int32), begin)


def _view(engine: PhotonPencilBeam, patient: Patient | None = None, beam: Beam = DOWN) -> BeamView:
    return engine.view(patient or _patient(), LAYOUT, _body(), beam, NO_SHIFT, None)


def _twin_gy(engine: PhotonPencilBeam, beamlets: BeamletGrid) -> F64:
    """Return the dose per weight of every beamlet at gantry 0 on the volume, shape (n_beamlet, *shape_zyx)."""
    x_mm, y_mm, z_mm = (c - i for c, i in zip(GRID.centres_mm_xyz, DOWN.isocentre_mm, strict=True))
    x, y, z = x_mm[None, None, :], y_mm[None, :, None], z_mm[:, None, None]
    distance = DOWN.sad_mm + y
    secant = np.sqrt(x**2 + z**2 + distance**2) / distance
    depth = (np.cumsum(LAYERS) - 0.5 * LAYERS)[None, :, None] * GRID.spacing_mm_xyz[1] * secant
    machine, kernel = engine.machine, engine.kernel
    spot = (
        machine.source_sigma_mm * (distance - machine.collimator_distance_mm) / machine.collimator_distance_mm
    )
    size_x, size_y = beamlets.size_mm
    dose = np.zeros((beamlets.n_beamlet, *GRID.shape_zyx))
    for sigma, weight in zip(kernel.sigma_mm, kernel.weight_gy_mm2.T, strict=True):
        width = np.sqrt(2.0) * np.hypot(sigma, spot)
        amplitude = (
            np.interp(depth, kernel.depth_mm, weight) * PHOTONS_PER_WEIGHT * (DOWN.sad_mm / distance) ** 2
        )
        for number, (u, v) in enumerate(zip(*beamlets.centres_mm(), strict=True)):
            # The beamlet's edges at the voxel's distance, where the kernel's widths are what they are.
            edges_x = [(u + s * size_x / 2) * distance / DOWN.sad_mm - x for s in (-1, 1)]
            edges_y = [(v + s * size_y / 2) * distance / DOWN.sad_mm - z for s in (-1, 1)]
            share_x = 0.5 * (erf(edges_x[1] / width) - erf(edges_x[0] / width))
            share_y = 0.5 * (erf(edges_y[1] / width) - erf(edges_y[0] / width))
            dose[number] += amplitude * share_x * share_y
    return dose


def _matrix(columns: list[TileColumn], beamlets: BeamletGrid) -> F64:
    """Return the dense matrix that tiles stand for, shape (n_row, n_beamlet)."""
    matrix = np.zeros((LAYOUT.n_row, beamlets.n_beamlet))
    for begin, column in zip(beamlets.block_begin, columns, strict=False):
        for segment, scale in enumerate(column.scale):
            tile, beamlet = divmod(segment, column.n_beamlet)
            a, b = column.segment_begin[segment : segment + 2]
            first = int(column.brick[tile]) * LAYOUT.brick_size + column.mini[a:b].astype(int) * MINI_SIZE
            rows = (first[:, None] + np.arange(MINI_SIZE)).ravel()
            matrix[rows, begin + beamlet] = float(scale) * column.value[a:b].ravel()
    return matrix


@pytest.mark.parametrize("machine", ["generic-6mv", "point-source-6mv"])
def test_forward_dose_is_that_of_the_slow_twin_in_a_layered_phantom(machine: str) -> None:
    engine, beamlets = _engine(machine=machine), _beamlets()
    weight = np.random.default_rng(1).random(beamlets.n_beamlet)
    expected = np.tensordot(weight, _twin_gy(engine, beamlets), axes=1)
    found = LAYOUT.to_volume(engine.forward(_view(engine), beamlets, weight, 1.0))
    # The table of the normal distribution errs by 3.4e-6 at its ends and 5e-7 elsewhere.
    np.testing.assert_allclose(found, expected, atol=1e-5 * expected.max(), rtol=0.0)


def test_every_tile_holds_the_slow_twin_s_dose_within_half_a_count() -> None:
    engine, beamlets = _engine(), _beamlets()
    view = _view(engine)
    matrix = _matrix(engine.tile_columns(view, beamlets, range(beamlets.n_block), 1.0), beamlets)
    twin = _twin_gy(engine, beamlets)
    peak = twin.max()
    for number in range(beamlets.n_beamlet):
        unit = np.zeros(beamlets.n_beamlet)
        unit[number] = 1.0
        exact = engine.forward(view, beamlets, unit, 1.0).astype(np.float64).reshape(-1, LAYOUT.brick_size)
        found = matrix[:, number].reshape(-1, LAYOUT.brick_size)
        largest = exact.max(axis=1, keepdims=True)
        # Half a count, and rounding of float32.
        assert np.all(np.abs(found - exact) <= 0.5 / 65535.0 * largest + 1e-6 * largest)
        volume = LAYOUT.to_volume(matrix[:, number])
        # The table of the normal distribution misses up to 3.4e-6 at each of four edges.
        np.testing.assert_allclose(volume, twin[number], atol=(1.4e-5 + 0.5 / 65535.0) * peak, rtol=0.0)


def test_tiles_keep_exactly_the_mini_blocks_within_cut_off_and_above_threshold() -> None:
    cutoff_mm, threshold = 12.0, 0.02
    engine, beamlets = _engine(cutoff_mm, threshold), _beamlets()
    view = _view(engine)
    columns = engine.tile_columns(view, beamlets, range(beamlets.n_block), 1.0)
    kept = (_matrix(columns, beamlets) > 0.0).reshape(-1, MINI_SIZE, beamlets.n_beamlet).any(axis=1)
    limit = threshold * engine.beamlet_peak_gy(beamlets.size_mm)
    centre_x, centre_y = beamlets.centres_mm()
    away = np.hypot(view.x.mean(axis=1)[:, None] - centre_x, view.y.mean(axis=1)[:, None] - centre_y)
    for number in range(beamlets.n_beamlet):
        unit = np.zeros(beamlets.n_beamlet)
        unit[number] = 1.0
        exact = engine.forward(view, beamlets, unit, 1.0).reshape(-1, MINI_SIZE)[view.first_row // MINI_SIZE]
        largest = exact.max(axis=1)
        # What lies on the limit to rounding may fall on either side.
        clear = (np.abs(away[:, number] - cutoff_mm) > 1e-4) & (np.abs(largest / limit - 1.0) > 1e-5)
        expected = (away[:, number] < cutoff_mm) & (largest > limit)
        found = kept[view.first_row // MINI_SIZE, number]
        np.testing.assert_array_equal(found[clear], expected[clear])
        assert expected.any()
        assert not expected.all()


def test_entries_above_the_threshold_are_counted() -> None:
    engine, beamlets = _engine(30.0, 1e-3), _beamlets()
    columns = engine.tile_columns(_view(engine), beamlets, range(beamlets.n_block), 1.0)
    matrix = _matrix(columns, beamlets)
    limit = 1e-3 * engine.beamlet_peak_gy(beamlets.size_mm)
    counted = sum(column.n_entry for column in columns)
    # Rounding to counts moves few entries across the limit.
    assert counted == pytest.approx(np.sum(matrix > limit), rel=1e-3)


def test_tiles_do_not_depend_on_which_blocks_are_computed_together() -> None:
    # 4.7 mm has no exact binary form, so edges would round differently if counted from another first column.
    engine, beamlets = _engine(25.0, 1e-4), _beamlets(half=5, size_mm=4.7, edge=3)
    view = engine.view(_patient(), LAYOUT, _body(), DOWN, NO_SHIFT, beamlets)
    together = engine.tile_columns(view, beamlets, range(beamlets.n_block), 1.0)
    backwards = engine.tile_columns(view, beamlets, range(beamlets.n_block - 1, -1, -1), 1.0)[::-1]
    for block, expected in enumerate(together):
        (alone,) = engine.tile_columns(view, beamlets, [block], 1.0)
        for found in (alone, backwards[block]):
            assert found.n_entry == expected.n_entry
            for name in ("brick", "segment_begin", "scale", "mini", "value"):
                # To the last bit: a resumed run computes other blocks together than the first one did.
                np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_view_near_the_beamlets_loses_nothing_of_the_tiles() -> None:
    engine, beamlets = _engine(10.0, 0.0), _beamlets(half=1)
    everywhere = engine.tile_columns(_view(engine), beamlets, range(beamlets.n_block), 1.0)
    near_view = engine.view(_patient(), LAYOUT, _body(), DOWN, NO_SHIFT, beamlets)
    assert near_view.first_row.size < _view(engine).first_row.size
    near = engine.tile_columns(near_view, beamlets, range(beamlets.n_block), 1.0)
    np.testing.assert_array_equal(_matrix(near, beamlets), _matrix(everywhere, beamlets))


@pytest.mark.parametrize("factor", [0.97, 1.03])
def test_density_factor_equals_a_patient_of_scaled_density(factor: float) -> None:
    engine, beamlets = _engine(), _beamlets()
    weight = np.random.default_rng(4).random(beamlets.n_beamlet)
    scaled = engine.forward(_view(engine), beamlets, weight, factor)
    dense = engine.forward(_view(engine, _patient(factor)), beamlets, weight, 1.0)
    np.testing.assert_allclose(
        scaled, dense, rtol=2e-5
    )  # Rounding of depths of some 50 mm, near the steep surface.
    unscaled = engine.forward(_view(engine), beamlets, weight, 1.0)
    assert np.abs(scaled - unscaled).max() > 1e-3 * unscaled.max()


def test_setup_shift_equals_a_patient_who_lies_elsewhere() -> None:
    engine, beamlets = _engine(), _beamlets()
    weight = np.random.default_rng(4).random(beamlets.n_beamlet)
    shift_mm = (5.0, -3.0, 7.0)
    beam = replace(DOWN, gantry_deg=35.0, couch_deg=10.0, collimator_deg=20.0)
    shifted = engine.view(_patient(), LAYOUT, _body(), beam, shift_mm, None)
    x, y, z = (o + s for o, s in zip(GRID.origin_mm_xyz, shift_mm, strict=True))
    there = replace(GRID, origin_mm_xyz=(x, y, z))
    moved = engine.view(_patient(grid=there), BrickLayout(there, 8), _body(), beam, NO_SHIFT, None)
    found = engine.forward(shifted, beamlets, weight, 1.0)
    expected = engine.forward(moved, beamlets, weight, 1.0)
    np.testing.assert_allclose(found, expected, atol=1e-6 * expected.max())
    unmoved = engine.forward(_view(engine, beam=beam), beamlets, weight, 1.0)
    assert np.abs(unmoved - expected).max() > 0.1 * expected.max()


def test_rows_outside_of_the_body_get_nothing() -> None:
    body = np.zeros(GRID.shape_zyx, np.float32)
    body[3:12, 2:13, 5:14] = 1.0
    active = LAYOUT.to_rows(body) > 0.0
    engine, beamlets = _engine(), _beamlets()
    view = engine.view(_patient(), LAYOUT, active, DOWN, NO_SHIFT, None)
    dose = engine.forward(view, beamlets, np.ones(beamlets.n_beamlet), 1.0)
    matrix = _matrix(engine.tile_columns(view, beamlets, range(beamlets.n_block), 1.0), beamlets)
    assert np.all(dose[active] > 0.0)
    assert np.all(matrix[active].sum(axis=1) > 0.0)
    assert np.all(dose[~active] == 0.0)
    assert np.all(matrix[~active] == 0.0)


def test_energy_in_a_plane_does_not_depend_on_its_distance() -> None:
    # Without attenuation the inverse square of the fluence and the growth of the beamlet's area cancel.
    grid = Grid((-700.0, -100.0, -700.0), (5.0, 200.0, 5.0), (281, 2, 281))
    layout = BrickLayout(grid, 32)
    vacuum = Patient(grid, np.zeros(grid.shape_zyx, np.float32), "HFS")
    engine = _engine(machine="point-source-6mv")
    centred = replace(DOWN, isocentre_mm=(0.0, 0.0, 0.0))
    view = engine.view(vacuum, layout, _body(layout), centred, NO_SHIFT, None)
    beamlet = BeamletGrid((50.0, 50.0), np.zeros(1, np.int32), np.zeros(1, np.int32), np.array([0, 1]))
    dose = layout.to_volume(engine.forward(view, beamlet, np.ones(1), 1.0))
    energy = dose.sum(axis=(0, 2), dtype=np.float64) * 25.0
    expected = 50.0**2 * engine.kernel.weight_gy_mm2[0].sum() * PHOTONS_PER_WEIGHT
    # ±700 mm are 4 sigma of the widest Gaussian; the beamlet covers 45 and 55 mm, whole voxels.
    np.testing.assert_allclose(energy, expected, rtol=1e-3)


def test_dose_is_linear_in_the_weights() -> None:
    engine, beamlets = _engine(), _beamlets()
    view = _view(engine)
    a, b = np.random.default_rng(8).random((2, beamlets.n_beamlet))
    both = engine.forward(view, beamlets, 2.0 * a + 3.0 * b, 1.0)
    parts = 2.0 * engine.forward(view, beamlets, a, 1.0) + 3.0 * engine.forward(view, beamlets, b, 1.0)
    np.testing.assert_allclose(both, parts, rtol=1e-5)  # Sums of float32.


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    gantry=st.floats(0.0, 360.0),
    couch=st.floats(0.0, 360.0),
    machine=st.sampled_from(["generic-6mv", "point-source-6mv"]),
    cutoff_mm=st.floats(6.0, 80.0),
    threshold=st.sampled_from([0.0, 1e-5, 1e-4, 1e-3, 1e-2]),
    size_mm=st.floats(2.0, 10.0),
    away_mm=st.tuples(st.floats(-150.0, 150.0), st.floats(-150.0, 150.0), st.floats(-150.0, 150.0)),
)
def test_tiles_never_lack_more_than_the_stated_bound(
    seed: int,
    gantry: float,
    couch: float,
    machine: str,
    cutoff_mm: float,
    threshold: float,
    size_mm: float,
    away_mm: tuple[float, float, float],
) -> None:
    engine = _engine(cutoff_mm, threshold, machine)
    beam = Beam("b", gantry, couch, 0.0, away_mm, 1000.0)
    beamlets = _beamlets(half=3, size_mm=size_mm)
    weight = np.random.default_rng(seed).random(beamlets.n_beamlet) ** 4
    lost, dose = _lost_gy(engine, beam, beamlets, weight)
    bound = engine.lost_dose_bound_gy(beam, beamlets, float(weight.sum()), "HFS", GRID)
    # Sums of float32, and 3.4e-6 of the table of the normal distribution, which is exactly 0 and 1 beyond 4.5 sigma.
    rounding = 1e-6 * dose.max() + 1e-6 * weight.sum() * engine.beamlet_peak_gy(beamlets.size_mm)
    assert lost.max() <= bound + rounding


@settings(max_examples=40)
@given(
    gantry=st.floats(0.0, 360.0),
    couch=st.floats(0.0, 360.0),
    cutoff_mm=st.floats(15.0, 40.0),
    size_mm=st.floats(2.0, 8.0),
    away_mm=st.tuples(st.floats(-150.0, 150.0), st.floats(-150.0, 150.0), st.floats(-150.0, 150.0)),
)
def test_no_voxel_is_nearer_to_a_beamlet_that_is_cut_off_there_than_the_bound_says(
    gantry: float, couch: float, cutoff_mm: float, size_mm: float, away_mm: tuple[float, float, float]
) -> None:
    beam, beamlets = Beam("b", gantry, couch, 0.0, away_mm, 1000.0), _beamlets(half=9, size_mm=size_mm)
    view = _view(_engine(), beam=beam)
    radius_mm, nearest_mm, farthest_mm = cut_reach_mm(beam, "HFS", GRID, beamlets.size_mm, cutoff_mm)
    centres = beamlets.centres_mm()
    cut = (
        np.hypot(*(p.mean(axis=1)[:, None] - c for p, c in zip((view.x, view.y), centres, strict=True)))
        > cutoff_mm
    )
    outside = [
        np.maximum(np.abs(p[:, None, :] - c[None, :, None]) - size_mm / 2, 0.0)
        for p, c in zip((view.x, view.y), centres, strict=True)
    ]
    apart_mm = np.hypot(*outside).min(axis=2)
    if cut.any():
        assert apart_mm[cut].min() >= radius_mm - 1e-3
    distance_mm = beam.sad_mm / np.sqrt(view.factor[view.factor > 0.0])
    assert nearest_mm - 1e-2 <= distance_mm.min()
    assert distance_mm.max() <= farthest_mm + 1e-2


def _lost_gy(engine: PhotonPencilBeam, beam: Beam, beamlets: BeamletGrid, weight: F64) -> tuple[F64, F64]:
    near = engine.view(_patient(), LAYOUT, _body(), beam, NO_SHIFT, beamlets)
    columns = engine.tile_columns(near, beamlets, range(beamlets.n_block), 1.0)
    numbered = list(zip((int(b) for b in beamlets.block_begin), columns, strict=False))
    matrix_gy = rows_of_columns(numbered, 0, LAYOUT.n_brick, LAYOUT.brick_size).dose(weight)
    exact_gy = engine.forward(_view(engine, beam=beam), beamlets, weight, 1.0).astype(np.float64)
    return exact_gy - matrix_gy, exact_gy


@pytest.mark.parametrize(("cutoff_mm", "threshold"), [(25.0, 0.0), (25.0, 1e-4), (35.0, 1e-3), (500.0, 1e-3)])
def test_stated_bound_is_near_enough_to_be_of_use(cutoff_mm: float, threshold: float) -> None:
    engine, beamlets = _engine(cutoff_mm, threshold), _beamlets(half=3)
    weight = np.ones(beamlets.n_beamlet)
    lost, _ = _lost_gy(engine, DOWN, beamlets, weight)
    bound = engine.lost_dose_bound_gy(DOWN, beamlets, float(weight.sum()), "HFS", GRID)
    assert 0.0 < lost.max() <= bound < 20.0 * lost.max()


def test_bound_is_rounding_alone_without_cut_off_and_threshold() -> None:
    engine, beamlets = _engine(1e5, 0.0), _beamlets()
    bound = engine.lost_dose_bound_gy(DOWN, beamlets, 1.0, "HFS", GRID)
    assert 0.0 < bound < 2e-5 * engine.kernel.weight_gy_mm2.sum(axis=1).max() * PHOTONS_PER_WEIGHT


def test_depths_beyond_the_kernel_fall_exponentially_and_beyond_the_tables_are_refused() -> None:
    grid = Grid((0.0, 0.0, 0.0), (10.0, 10.0, 10.0), (2, 59, 2))
    layout = BrickLayout(grid, 8)
    water = Patient(grid, np.ones(grid.shape_zyx, np.float32), "HFS")
    # Isocentre 45 mm off the surface and the source far away: the inverse square is nearly 1.
    beam = Beam("far", 0.0, 0.0, 0.0, (5.0, -45.0, 5.0), 1e7)
    engine, beamlet = _engine(machine="point-source-6mv"), _beamlets(half=1, size_mm=50.0)
    view = engine.view(water, layout, _body(layout), beam, NO_SHIFT, None)
    dose = layout.to_volume(engine.forward(view, beamlet, np.ones(beamlet.n_beamlet), 1.0))[0, :, 0]
    falling = dose[1:] / dose[:-1]
    # 6 MV falls by 3 to 5 % in 10 mm, slower as the wide Gaussians take over: no step, no level at 400 mm.
    assert falling[41:58].mean() == pytest.approx(falling[30:38].mean(), abs=0.005)
    assert np.abs(np.diff(falling[30:58])).max() < 0.002
    with pytest.raises(DoseError, match="depth of 608 mm"):
        engine.forward(view, beamlet, np.ones(beamlet.n_beamlet), 1.04)
    with pytest.raises(DoseError, match="tables"):
        engine.tile_columns(view, beamlet, [0], 1.04)


def test_patient_who_reaches_the_head_of_the_machine_is_refused() -> None:
    beam = replace(DOWN, isocentre_mm=(0.0, 800.0, 0.0))
    with pytest.raises(
        DoseError, match=r"beam 'down': a part of the patient is only 17\d mm from the source"
    ):
        _view(_engine(), beam=beam)


@pytest.mark.parametrize(
    ("cutoff_mm", "threshold", "message"),
    [(0.0, 0.0, "lateral_cutoff_mm"), (50.0, 0.1, "threshold"), (50.0, -1e-9, "threshold")],
)
def test_options_without_sense_are_refused(cutoff_mm: float, threshold: float, message: str) -> None:
    with pytest.raises(DoseError, match=message):
        _engine(cutoff_mm, threshold)
