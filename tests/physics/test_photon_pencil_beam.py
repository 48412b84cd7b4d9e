"""The whole dose engine against Monte Carlo that had no part in making its kernel."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from engine.dose.engine import Patient
from engine.dose.photon_pencil_beam import PHOTONS_PER_WEIGHT, PhotonPencilBeam
from engine.evaluate.gamma import GammaCriteria, gamma_at_points
from engine.geometry.bricks import BrickLayout
from engine.model.arrays import F64
from engine.model.beam import Beam, BeamletGrid
from engine.model.grid import Grid
from engine.model.machine import MACHINES
from engine.units import CM_PER_MM, MM_PER_CM

GANTRY_0 = Beam("down", 0.0, 0.0, 0.0, (0.0, 0.0, 0.0), 1000.0)
"""HFS: the reference's x is LPS x, its depth LPS y, its y LPS z; the surface lies at the isocentre, SSD is 1000 mm."""

# Of the reference's slabs; electrons per gram relative to water: aluminium 0.4818 / 0.5551, ICRU lung 0.5497 / 0.5551.
ALUMINIUM_DENSITY = 2.702 * 0.4818 / 0.5551
LUNG_DENSITY = 0.26 * 0.5497 / 0.5551


def _reference(folder: Path, case: str) -> dict[str, F64]:
    with np.load(folder / f"reference/egsnrc/{case}.npz") as stored:
        assert json.loads(str(stored["meta"]))["case"] == case
        # Edges were stored as sums of float32 steps: round to 1 um.
        edges = {axis: np.round(stored[f"{axis}_edges_cm"] * MM_PER_CM, 3) for axis in "xyz"}
        return {
            "x_mm": edges["x"],
            "z_mm": edges["z"],
            "dose": stored["dose"][:, 1, :].astype(np.float64),
            "sigma": stored["sigma"][:, 1, :].astype(np.float64),
        }


def _dose_of_field(
    density_of_depth: F64, n_edge: int, size_mm: float, x_mm: tuple[float, float, int], y_mm: float
) -> tuple[F64, F64]:
    """Return the dose in Gy cm2 of a square field of ``n_edge`` × ``n_edge`` beamlets, averaged over |y| < ``y_mm``.

    Of shape [depth, x], voxels 1 mm deep; with the x of voxel centres. ``x_mm`` is first face, voxel, number.
    """
    low_mm, step_mm, n_x = x_mm
    n_depth, n_y = density_of_depth.size, 8
    grid = Grid(
        (low_mm + step_mm / 2, 0.5, -y_mm * (1.0 - 1.0 / n_y)),
        (step_mm, 1.0, 2 * y_mm / n_y),
        (n_y, n_depth, n_x),
    )
    layout = BrickLayout(grid, 8)
    phantom = Grid((-75.0, 0.5, -75.0), (150.0, 1.0, 150.0), (2, n_depth, 2))
    density = np.broadcast_to(density_of_depth[None, :, None], phantom.shape_zyx).astype(np.float32)
    engine = PhotonPencilBeam(MACHINES["point-source-6mv"], 50.0, 0.0)
    half = n_edge // 2
    row, column = (a.ravel().astype(np.int32) for a in np.mgrid[-half : half + 1, -half : half + 1])
    beamlets = BeamletGrid((size_mm, size_mm), column, row, np.array([0, row.size]))
    u_mm, v_mm = beamlets.centres_mm()
    # The reference's source is uniform in solid angle: its fluence on a plane falls as the cosine cubed.
    weight = (1.0 + (u_mm**2 + v_mm**2) / GANTRY_0.sad_mm**2) ** -1.5
    active = layout.to_rows(np.ones(grid.shape_zyx, np.float32)) > 0.0
    view = engine.view(Patient(phantom, density, "HFS"), layout, active, GANTRY_0, (0.0, 0.0, 0.0), None)
    dose_gy = layout.to_volume(engine.forward(view, beamlets, weight / weight.mean(), 1.0))
    per_fluence = dose_gy.mean(axis=0, dtype=np.float64) / PHOTONS_PER_WEIGHT * CM_PER_MM**2
    return per_fluence, grid.centres_mm_xyz[0]


def _box_mean(dose: F64, z_mm: F64, x_mm: F64, z_voxel_mm: float, x_voxel_mm: float, x_low_mm: float) -> F64:
    """Return means over the reference's boxes, whose edges lie on voxel faces, shape (n_z, n_x)."""
    summed = np.pad(dose.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    z_at = np.rint(z_mm / z_voxel_mm).astype(int)
    x_at = np.rint((x_mm - x_low_mm) / x_voxel_mm).astype(int)
    boxes = np.diff(np.diff(summed[z_at][:, x_at], axis=0), axis=1)
    mean: F64 = boxes / np.outer(np.diff(z_at), np.diff(x_at))
    return mean


@pytest.fixture(scope="module")
def field() -> F64:
    """The 100 mm × 100 mm field in 300 mm of water on voxels of 1 mm depth and 1.25 mm width, from x = -150 mm."""
    # 25 beamlets of 4 mm tile it exactly.
    return _dose_of_field(np.ones(300), 25, 4.0, (-150.0, 1.25, 240), 20.0)[0]


def test_field_agrees_with_egsnrc_in_absolute_terms(field: F64, reference_data: Path) -> None:
    reference = _reference(reference_data, "photon_6MV_10x10")
    computed = _box_mean(field, reference["z_mm"], reference["x_mm"], 1.0, 1.25, -150.0)
    depth_mm = 0.5 * (reference["z_mm"][1:] + reference["z_mm"][:-1])
    axis = int(np.flatnonzero(reference["x_mm"] < 0.0)[-1])
    near = np.abs(depth_mm - 100.0) < 8.0
    ratio = (computed[near, axis] / reference["dose"][near, axis]).mean()
    # Statistics 0.3 %; found is +0.5 %.
    assert ratio == pytest.approx(1.0, abs=0.02)


def test_field_passes_gamma_of_2_percent_and_2_mm_against_egsnrc(field: F64, reference_data: Path) -> None:
    reference = _reference(reference_data, "photon_6MV_10x10")
    n_point, n_pass = 0, 0.0
    for z_width_mm, x_width_mm in itertools.product(
        np.unique(np.diff(reference["z_mm"]).round(3)), np.unique(np.diff(reference["x_mm"]).round(3))
    ):
        judged, passed = _gamma_of_boxes(field, reference, float(z_width_mm), float(x_width_mm))
        n_point, n_pass = n_point + judged, n_pass + passed
    assert n_point > 2000
    assert n_pass / n_point >= 0.95


def _gamma_of_boxes(field: F64, reference: dict[str, F64], z_mm: float, x_mm: float) -> tuple[int, int]:
    """Judge the reference's boxes of one size against means of the computed dose over boxes of that size."""
    n_z, n_x = round(z_mm / 1.0), round(x_mm / 1.25)
    windows = np.lib.stride_tricks.sliding_window_view(field, (n_z, n_x))
    moving = windows.mean(axis=(2, 3)).astype(np.float32)
    grid = Grid((-150.0 + x_mm / 2, z_mm / 2, 0.0), (1.25, 1.0, 1.0), (1, *moving.shape))  # type: ignore[arg-type]
    chosen = np.outer(
        np.isclose(np.diff(reference["z_mm"]), z_mm), np.isclose(np.diff(reference["x_mm"]), x_mm)
    )
    depth_mm, across_mm = np.meshgrid(
        0.5 * (reference["z_mm"][1:] + reference["z_mm"][:-1]),
        0.5 * (reference["x_mm"][1:] + reference["x_mm"][:-1]),
        indexing="ij",
    )
    maximum = float(reference["dose"].max())
    chosen &= (depth_mm > 15.0) & (reference["dose"] > 0.1 * maximum)
    if not chosen.any():
        return 0, 0
    points_mm = np.stack([across_mm[chosen], depth_mm[chosen], np.zeros(int(chosen.sum()))], axis=1)
    result = gamma_at_points(
        points_mm,
        reference["dose"][chosen].astype(np.float32),
        (grid, moving[None]),
        GammaCriteria(2.0, 2.0, cutoff_percent=10.0),
        maximum,
    )
    return result.n_point, int(np.sum(result.gamma <= 1.0))


@pytest.fixture(scope="module")
def slab_deviation_percent(reference_data: Path) -> dict[str, float]:
    """Deviations on the axis from EGSnrc, of the 15 mm × 15 mm field through water, aluminium, lung and water."""
    reference = _reference(reference_data, "slab_6MV_1.5x1.5")
    layers = np.repeat([1.0, ALUMINIUM_DENSITY, LUNG_DENSITY, 1.0], [30, 20, 70, 180])
    dose, _ = _dose_of_field(layers, 5, 3.0, (-2.5, 0.5, 10), 2.5)
    axis = int(np.flatnonzero(reference["x_mm"] < 0.0)[-1])
    x_mm = reference["x_mm"][axis : axis + 2]
    computed = _box_mean(dose, reference["z_mm"], x_mm, 1.0, 0.5, -2.5)[:, 0]
    expected = reference["dose"][:, axis]
    depth_mm = 0.5 * (reference["z_mm"][1:] + reference["z_mm"][:-1])
    found = {}
    for name, low_mm, high_mm in (
        ("water before", 15, 26),
        ("aluminium", 30, 50),
        ("lung entrance", 50, 60),
        ("lung", 60, 110),
        ("water behind, first 10 mm", 120, 130),
        ("water behind, 130 to 160 mm", 130, 160),
        ("water behind, 160 to 280 mm", 160, 280),
    ):
        inside = (depth_mm > low_mm) & (depth_mm < high_mm)
        found[name] = 100.0 * float(computed[inside].sum() / expected[inside].sum() - 1.0)
    return found


def test_small_field_in_water_before_a_slab_agrees_with_egsnrc(
    slab_deviation_percent: dict[str, float],
) -> None:
    # Backscatter and lateral disequilibrium come on top of the kernel's 1 to 2 %; figures: docs/methods.
    assert abs(slab_deviation_percent["water before"]) < 4.0


def test_neglected_lateral_electron_transport_overdoses_lung(
    slab_deviation_percent: dict[str, float],
) -> None:
    # A density-scaled depth cannot know that electrons leave a narrow field in lung. Should this fail because the
    # deviation has become small, the engine has learned something and its methods page is out of date.
    assert slab_deviation_percent["lung"] > 10.0
