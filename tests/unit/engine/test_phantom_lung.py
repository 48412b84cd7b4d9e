"""The chest that breathes: the tumour is where the formula says, and no lung tissue is lost."""

import math

import numpy as np
import pytest

from engine.model.case import Case
from engine.phantoms.lung import (
    APEX_MM,
    EXHALE_DENSITY_G_CM3,
    GTV_EXHALE,
    PHASES,
    displacement_mm,
    gtv,
    itv_solid,
    lung_4d_series,
    stretch,
)
from engine.phantoms.tissues import LUNG

VOXEL_MM = 6.0


@pytest.fixture(scope="module")
def series() -> dict[str, Case]:
    """All phases without texture, on coarse voxels."""
    return dict(lung_4d_series(VOXEL_MM, texture=False))


def test_tumour_follows_the_published_curve() -> None:
    # Lujan et al. (1999), n = 2, from the end of inhalation; a quarter of the amplitude is left after a quarter cycle.
    assert displacement_mm(0.5)[2] == pytest.approx(0.0, abs=1e-12)
    assert displacement_mm(0.0)[2] == pytest.approx(-12.0)
    assert displacement_mm(0.25)[2] == pytest.approx(-3.0)
    assert displacement_mm(0.1)[1] == pytest.approx(-3.0)  # furthest forwards after the end of inhalation
    assert displacement_mm(0.2)[1] - displacement_mm(0.8)[1] < -1.0  # a loop, not a line


def test_gtv_of_every_phase_is_where_the_trajectory_says(series: dict[str, Case]) -> None:
    for phase in PHASES:
        case = series[f"phase {100 * phase:02.0f} %"]
        coverage = case.structure("GTV").coverage.astype(np.float64)
        assert coverage.sum() * VOXEL_MM**3 == pytest.approx(4 / 3 * math.pi * 14 * 13 * 15, rel=2e-3)
        for axis, centres_mm, start_mm, moved_mm in zip(
            (2, 1, 0),
            case.grid.centres_mm_xyz,
            GTV_EXHALE.centre_mm_xyz,
            displacement_mm(phase),
            strict=True,
        ):
            found_mm = np.average(centres_mm, weights=coverage.sum(axis=tuple({0, 1, 2} - {axis})))
            assert found_mm == pytest.approx(start_mm + moved_mm, abs=0.1)


def test_mass_of_the_lungs_is_conserved(series: dict[str, Case]) -> None:
    # Lung tissue from the Hounsfield units alone, in voxels that nothing but lung fills.
    masses_g, volumes_cm3 = [], []
    hu_per_density = (LUNG.hu + 1000.0) / LUNG.density_g_cm3
    for name, case in series.items():
        if name == "average":
            continue
        lungs = case.structure("Lung_L").coverage + case.structure("Lung_R").coverage
        free = lungs.astype(np.float64) * (1.0 - case.structure("GTV").coverage)
        for organ in ("Heart", "Esophagus"):
            free *= 1.0 - case.structure(organ).coverage
        pure = (free > 0.999) & (case.ct_hu < -600.0)
        density_g_cm3 = (np.median(case.ct_hu[pure]) + 1000.0) / hu_per_density
        volume_cm3 = free.sum() * VOXEL_MM**3 / 1000.0
        volumes_cm3.append(volume_cm3)
        masses_g.append(density_g_cm3 * volume_cm3)
    assert max(volumes_cm3) > 1.06 * min(volumes_cm3)
    assert np.ptp(masses_g) < 0.005 * masses_g[0]
    assert masses_g[5] == pytest.approx(EXHALE_DENSITY_G_CM3 * volumes_cm3[5], rel=2e-3)


def test_lung_at_the_tumours_height_moves_down_with_it() -> None:
    for phase in PHASES:
        height_mm = APEX_MM - stretch(phase) * (APEX_MM - GTV_EXHALE.centre_mm_xyz[2])
        assert height_mm == pytest.approx(gtv(phase).centre_mm_xyz[2], abs=1e-9)


def test_itv_is_the_union_of_the_tumours(series: dict[str, Case]) -> None:
    axes = [np.arange(low, high, 0.5) for low, high in ((-100, -55), (10, 55), (-80, -20))]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    inside = np.zeros(tuple(map(len, axes)), bool)
    for phase in PHASES:
        (cx, cy, cz), (a, b, c) = gtv(phase).centre_mm_xyz, gtv(phase).semi_axis_mm_xyz
        inside |= ((x - cx) / a) ** 2 + ((y - cy) / b) ** 2 + ((z - cz) / c) ** 2 <= 1.0
    found_mm3 = float(series["average"].structure("ITV").coverage.sum(dtype=np.float64)) * VOXEL_MM**3
    assert found_mm3 == pytest.approx(inside.sum() * 0.125, rel=0.01)
    # Every corner of the union lies on one of the tumours.
    for z_mm in (-65.0, -50.0, -35.0):
        points = itv_solid().section(z_mm)
        nearest = np.min(
            [
                gtv(phase).oval(z_mm).radius(points)
                for phase in PHASES
                if abs(z_mm - gtv(phase).centre_mm_xyz[2]) < 15.0
            ],
            axis=0,
        )
        np.testing.assert_allclose(nearest, 1.0, atol=1e-9)


def test_average_is_the_mean_of_the_phases(series: dict[str, Case]) -> None:
    phases = [case.ct_hu for name, case in series.items() if name != "average"]
    assert len(phases) == 10
    np.testing.assert_allclose(series["average"].ct_hu, np.mean(phases, axis=0, dtype=np.float64), atol=1e-3)


def test_texture_changes_neither_contours_nor_the_mean(series: dict[str, Case]) -> None:
    first = next(iter(lung_4d_series(VOXEL_MM, texture=True)))[1]
    clean = series["phase 00 %"]
    np.testing.assert_array_equal(first.structure("GTV").coverage, clean.structure("GTV").coverage)
    lung = clean.structure("Lung_L").coverage > 0.999
    added_hu = (first.ct_hu - clean.ct_hu)[lung]
    assert abs(float(added_hu.mean())) < 10.0  # few lumps fit into a lung
    assert 28.0 < float(added_hu.std()) < 46.0  # 12 HU of noise and 35 HU of unevenness
    air = clean.external.coverage == 0.0
    assert float((first.ct_hu - clean.ct_hu)[air].std()) == pytest.approx(12.0, abs=1.5)
