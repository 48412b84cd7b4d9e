import numpy as np
import pytest

from engine.errors import CaseError
from engine.evaluate.gamma import GammaCriteria, gamma_at_points, gamma_between_grids
from engine.model.grid import Grid

GRID = Grid((-20.0, -10.0, -8.0), (2.0, 2.0, 2.0), (9, 11, 21))
"""x from -20 to 20 mm."""


def _ramp(gradient: float, shift_mm: float = 0.0, plus_gy: float = 0.0, grid: Grid = GRID) -> np.ndarray:
    x = grid.centres_mm_xyz[0]
    return np.broadcast_to(50.0 + gradient * (x - shift_mm) + plus_gy, grid.shape_zyx).astype(np.float32)


def test_equal_doses_have_gamma_zero() -> None:
    result = gamma_between_grids((GRID, _ramp(0.5)), (GRID, _ramp(0.5)), GammaCriteria(3.0, 3.0))
    assert result.largest == 0.0
    assert result.pass_percent == 100.0
    assert result.n_point == GRID.n_voxel


def test_uniform_difference_has_gamma_of_the_ratio_to_the_criterion() -> None:
    reference, evaluated = (
        np.full(GRID.shape_zyx, 50.0, np.float32),
        np.full(GRID.shape_zyx, 50.75, np.float32),
    )
    result = gamma_between_grids((GRID, reference), (GRID, evaluated), GammaCriteria(3.0, 3.0))
    np.testing.assert_allclose(result.gamma, 0.5, rtol=1e-6)
    twice = gamma_between_grids((GRID, reference), (GRID, reference + 2.25), GammaCriteria(3.0, 3.0))
    np.testing.assert_allclose(twice.gamma, 1.5, rtol=1e-6)
    assert twice.pass_percent == 0.0


def test_shifted_ramp_has_the_closed_form() -> None:
    # min over s of (s/D)² + ((g·delta - g·s)/C)² is (g·delta)² / (C² + g²·D²).
    gradient, shift_mm, distance_mm, criterion_gy = 1.0, 2.0, 3.0, 1.5
    criteria = GammaCriteria(3.0, distance_mm, cutoff_percent=0.0)
    points = np.array([[x, 0.0, 0.0] for x in (-8.0, -1.3, 0.0, 5.1)])
    reference = (50.0 + gradient * points[:, 0]).astype(np.float32)
    found = gamma_at_points(
        points, reference, (GRID, _ramp(gradient, shift_mm)), criteria, maximum_gy=50.0
    ).gamma
    expected = gradient * shift_mm / np.hypot(criterion_gy, gradient * distance_mm)
    # The lattice is 0.3 mm; a best position that is missed by 0.15 mm costs at most this much in gamma².
    excess = 0.15**2 * (1.0 / distance_mm**2 + gradient**2 / criterion_gy**2)
    assert (found >= expected - 1e-5).all()
    assert (found <= np.sqrt(expected**2 + excess) + 1e-5).all()


def test_local_gamma_takes_percent_of_the_point() -> None:
    points = np.array([[-10.0, 0.0, 0.0], [10.0, 0.0, 0.0]])
    flat = (GRID, np.full(GRID.shape_zyx, 20.6, np.float32))
    reference = np.array([20.0, 40.0], np.float32)
    local = gamma_at_points(points, reference, flat, GammaCriteria(3.0, 3.0, "local", largest=5.0)).gamma
    np.testing.assert_allclose(local, [1.0, 5.0], rtol=1e-5)  # 19.4 Gy of 1.2 Gy is cut at the largest
    everywhere = gamma_at_points(
        points, reference, flat, GammaCriteria(3.0, 3.0, "global", largest=5.0)
    ).gamma
    assert everywhere[0] == pytest.approx(0.5, rel=1e-5)


def test_points_below_the_cutoff_and_outside_of_the_grid_are_left_out() -> None:
    points = np.array([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0], [21.0, 0.0, 0.0]])
    reference = np.array([50.0, 4.9, 50.0], np.float32)
    flat = (GRID, np.full(GRID.shape_zyx, 50.0, np.float32))
    result = gamma_at_points(points, reference, flat, GammaCriteria(3.0, 3.0))
    assert result.n_point == 1
    np.testing.assert_array_equal(np.isnan(result.gamma), [False, True, True])
    with pytest.raises(CaseError, match="no point to judge"):
        gamma_at_points(points + 100.0, reference, flat, GammaCriteria(3.0, 3.0))


def test_grids_of_different_spacing_agree_on_the_same_ramp() -> None:
    fine = Grid((-12.0, -6.0, -6.0), (1.0, 1.5, 1.5), (8, 8, 24))
    result = gamma_between_grids((fine, _ramp(0.7, grid=fine)), (GRID, _ramp(0.7)), GammaCriteria(1.0, 1.0))
    assert result.gamma.shape == fine.shape_zyx
    assert result.n_point == fine.n_voxel
    assert result.largest < 1e-4  # float32 rounding of 60 Gy against 0.6 Gy


def test_criteria_refuse_nonsense() -> None:
    with pytest.raises(CaseError, match="must be positive"):
        GammaCriteria(0.0, 3.0)
    with pytest.raises(CaseError, match="must not be negative"):
        GammaCriteria(3.0, 3.0, cutoff_percent=-1.0)
