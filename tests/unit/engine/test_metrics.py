from dataclasses import replace

import numpy as np
import pytest

from engine.errors import CaseError, StudyError
from engine.evaluate.dvh import Dvh
from engine.evaluate.indices import IsodoseFit, homogeneity_index, isodose_fit, near_extremes
from engine.evaluate.metrics import Metric, parse_metric
from engine.evaluate.region import Region, region_from_coverage, remaining_volume
from engine.model.grid import Grid

RAMP = Dvh.from_voxels("A", np.arange(0.05, 100.0, 0.1), np.ones(1000), 10.0)
"""10 cc with a dose that rises linearly from 0 to 100 Gy: D_v is 100 - v."""


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("D95%", 5.0, "Gy"),
        ("D50%[Gy]", 50.0, "Gy"),
        ("D2cc", 80.0, "Gy"),
        ("D0.03cc", 99.7, "Gy"),
        ("V20Gy", 80.0, "%"),
        ("V20Gy[%]", 80.0, "%"),
        ("V20Gy[cc]", 8.0, "cc"),
        ("V 20 Gy", 80.0, "%"),
        ("Dmean", 50.0, "Gy"),
        ("Dmin", 0.05, "Gy"),
        ("Dmax", 99.95, "Gy"),
    ],
)
def test_metric_is_read_from_a_ramp(text: str, value: float, unit: str) -> None:
    metric = parse_metric(text)
    assert metric.unit == unit
    assert metric.value(RAMP) == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("text", ["D95%", "D0.03cc", "V20Gy", "V20Gy[cc]", "Dmean", "Dmin", "Dmax"])
def test_metric_is_printed_as_it_is_read(text: str) -> None:
    assert str(parse_metric(text)) == text


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("D95", "is not a metric"),
        ("d95%", "upper and lower case"),
        ("V20", "is not a metric"),
        ("", "is not a metric"),
        ("V95%", "gives its dose in %"),
        ("V2000cGy", "gives its dose in cGy"),
        ("V20Gy[ml]", "asks for a volume in 'ml'"),
        ("D95%[%]", "asks for a dose in '%'"),
        ("D0%", "no volume"),
        ("D101%", "more than 100 %"),
    ],
)
def test_mistake_in_a_metric_is_named(text: str, mistake: str) -> None:
    with pytest.raises(StudyError, match=mistake):
        parse_metric(text)


def test_dose_to_two_cc_of_a_smaller_structure_is_refused() -> None:
    with pytest.raises(CaseError, match="D20cc has no meaning"):
        Metric("dose_at_cc", 20.0, "Gy").value(RAMP)


def test_homogeneity_of_a_ramp_and_of_a_uniform_dose() -> None:
    assert homogeneity_index(RAMP) == pytest.approx(0.96 / 0.5)
    assert homogeneity_index(Dvh.from_voxels("A", np.full(5, 50.0), np.ones(5), 1.0)) == 0.0
    assert homogeneity_index(Dvh.from_voxels("A", np.zeros(5), np.ones(5), 1.0)) is None


GRID = Grid((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (1, 1, 20))


def _region(kind: str, begin: int, end: int, edge: float = 1.0) -> Region:
    coverage = np.zeros(GRID.shape_zyx, np.float32)
    coverage[0, 0, begin:end] = 1.0
    coverage[0, 0, end - 1] = edge
    return region_from_coverage(kind, "TARGET" if kind == "target" else "EXTERNAL", GRID, coverage)


def _dose(begin: int, end: int) -> np.ndarray:
    dose_gy = np.zeros(GRID.shape_zyx, np.float32)
    dose_gy[0, 0, begin:end] = 50.0
    return dose_gy


def _fit(target: Region, body: Region, dose_gy: np.ndarray, isodose_gy: float) -> IsodoseFit:
    return isodose_fit(target.dvh(dose_gy), body.dvh(dose_gy), isodose_gy)


def test_conformity_is_one_for_a_perfect_fit() -> None:
    fit = _fit(_region("target", 5, 10), _region("body", 0, 20), _dose(5, 10), 50.0)
    assert fit.paddick_conformity == pytest.approx(1.0)
    assert fit.coverage_percent == pytest.approx(100.0)
    assert fit.gradient_index == pytest.approx(1.0)


def test_conformity_of_a_shifted_box() -> None:
    # Target of 5 voxels, dose over 4 of them and 6 others: 4² / (5 · 10).
    fit = _fit(_region("target", 5, 10), _region("body", 0, 20), _dose(6, 16), 50.0)
    assert fit.paddick_conformity == pytest.approx(16.0 / 50.0)
    assert fit.coverage_percent == pytest.approx(80.0)


def test_conformity_counts_parts_of_voxels() -> None:
    # Target 4.5 voxels; body and dose end at 12.
    fit = _fit(_region("target", 5, 10, 0.5), _region("body", 0, 12), _dose(5, 12), 50.0)
    assert fit.paddick_conformity == pytest.approx(4.5**2 / (4.5 * 7.0))
    assert (fit.target_cc, fit.isodose_cc) == pytest.approx((0.0045, 0.007))


def test_conformity_is_zero_where_the_isodose_is_never_reached() -> None:
    target, body = _region("target", 5, 10), _region("body", 0, 20)
    fit = _fit(target, body, _dose(5, 10), 50.1)
    assert fit.paddick_conformity == 0.0
    assert fit.gradient_index is None
    with pytest.raises(CaseError, match="must be positive"):
        _fit(target, body, _dose(5, 10), 0.0)


def test_indices_of_a_gaussian_dose_around_a_sphere_are_the_closed_forms() -> None:
    # D(r) = D0 exp(-r²/2s²): the isodose D has radius s √(2 ln(D0/D)). Voxels of 1 mm whose centres lie
    # in a sphere of 13.5 mm make a volume that is right to 1 % (0.7 % here: how many lattice points a sphere holds).
    n, sigma_mm, d0_gy, isodose_gy = 61, 15.0, 30.0, 20.0
    grid = Grid((-30.0,) * 3, (1.0,) * 3, (n, n, n))
    x, y, z = grid.centres_mm_xyz
    r_mm = np.sqrt(z[:, None, None] ** 2 + y[None, :, None] ** 2 + x[None, None, :] ** 2)
    dose_gy = (d0_gy * np.exp(-0.5 * (r_mm / sigma_mm) ** 2)).astype(np.float32)
    radius_mm = 14.0
    coverage = np.clip(radius_mm - r_mm + 0.5, 0.0, 1.0).astype(np.float32)
    target = region_from_coverage("target", "TARGET", grid, coverage)
    body = region_from_coverage("body", "EXTERNAL", grid, np.ones((n, n, n), np.float32))
    fit = _fit(target, body, dose_gy, isodose_gy)
    full_mm = sigma_mm * np.sqrt(2.0 * np.log(d0_gy / isodose_gy))
    half_mm = sigma_mm * np.sqrt(2.0 * np.log(2.0 * d0_gy / isodose_gy))
    assert fit.target_cc == pytest.approx(4.0 / 3.0 * np.pi * radius_mm**3 / 1000.0, rel=2e-3)
    assert fit.isodose_cc == pytest.approx(4.0 / 3.0 * np.pi * full_mm**3 / 1000.0, rel=1e-2)
    assert fit.gradient_index == pytest.approx((half_mm / full_mm) ** 3, rel=1e-2)
    # The isodose lies inside the target: coverage is the ratio of volumes, and so is conformity.
    assert fit.coverage_percent == pytest.approx(100.0 * (full_mm / radius_mm) ** 3, rel=1e-2)
    assert fit.paddick_conformity == pytest.approx((full_mm / radius_mm) ** 3, rel=1e-2)


@pytest.mark.parametrize(("volume_cc", "rule"), [(2.0, "D2%, D98%"), (1.9, "D35mm3"), (0.035, "D35mm3")])
def test_near_extremes_of_a_ramp_are_taken_at_the_volumes_of_icru_83_and_91(
    volume_cc: float, rule: str
) -> None:
    # Doses from 0 to 1 Gy spread evenly over the volume: D_V = 1 - V / volume.
    n = 10_000
    ramp = Dvh.from_voxels("A", (np.arange(n) + 0.5) / n, np.ones(n), 1000.0 * volume_cc / n)
    near = near_extremes(ramp)
    assert near is not None
    assert near.rule == rule
    share = 0.02 if rule == "D2%, D98%" else 0.035 / volume_cc
    assert (near.near_max_gy, near.near_min_gy) == pytest.approx((1.0 - share, share), abs=1.0 / n)


def test_a_target_below_35_cubic_millimetres_has_no_near_extremes() -> None:
    assert near_extremes(Dvh.from_voxels("A", np.ones(34), np.ones(34), 1.0)) is None


def test_remaining_volume_is_the_body_without_targets_and_organs() -> None:
    body, target, organ = _region("body", 0, 20), _region("target", 5, 10, 0.5), _region("organ", 8, 12)
    helper = replace(_region("helper", 0, 3), kind="OTHER")
    left = remaining_volume((body, target, replace(organ, kind="ORGAN"), helper))
    assert left is not None
    # Voxels 5 to 11 are taken whole, as the organ fills the half of voxel 9 that the target leaves.
    assert left.voxel.tolist() == [0, 1, 2, 3, 4, *range(12, 20)]
    assert left.coverage.tolist() == [1.0] * 13
    assert remaining_volume((target,)) is None
    assert remaining_volume((body, replace(body, kind="ORGAN"))) is None
