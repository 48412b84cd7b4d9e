import numpy as np
import pytest

from engine.errors import CaseError, StudyError
from engine.evaluate.dvh import Dvh
from engine.evaluate.indices import homogeneity_index, paddick_conformity_index
from engine.evaluate.metrics import Metric, parse_metric
from engine.evaluate.region import Region, region_from_coverage
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


def test_conformity_is_one_for_a_perfect_fit() -> None:
    value = paddick_conformity_index(_region("target", 5, 10), _region("body", 0, 20), _dose(5, 10), 50.0)
    assert value == pytest.approx(1.0)


def test_conformity_of_a_shifted_box() -> None:
    # Target of 5 voxels, dose over 4 of them and 6 others: 4² / (5 · 10).
    value = paddick_conformity_index(_region("target", 5, 10), _region("body", 0, 20), _dose(6, 16), 50.0)
    assert value == pytest.approx(16.0 / 50.0)


def test_conformity_counts_dose_inside_the_body_only_and_parts_of_voxels() -> None:
    # Target 4.5 voxels; the body ends at 12, so that PIV is 7 (5 to 12) and not 15.
    value = paddick_conformity_index(
        _region("target", 5, 10, 0.5), _region("body", 0, 12), _dose(5, 20), 50.0
    )
    assert value == pytest.approx(4.5**2 / (4.5 * 7.0))


def test_conformity_is_zero_where_the_isodose_is_never_reached() -> None:
    target, body = _region("target", 5, 10), _region("body", 0, 20)
    assert paddick_conformity_index(target, body, _dose(5, 10), 50.1) == 0.0
    with pytest.raises(CaseError, match="must be positive"):
        paddick_conformity_index(target, body, _dose(5, 10), 0.0)
    with pytest.raises(CaseError, match="one grid"):
        paddick_conformity_index(target, body, _dose(5, 10)[:, :, :10], 50.0)
