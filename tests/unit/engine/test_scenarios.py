from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import StudyError
from engine.scenarios.sets import NOMINAL, SetupPattern, scenario_set, setup_shifts

HALF_AXES_MM = (3.0, 4.0, 5.0)


@pytest.mark.parametrize(
    ("pattern", "number"), [("none", 0), ("axes", 6), ("corners14", 14), ("corners26", 26), ("cube26", 26)]
)
def test_pattern_has_its_number_of_different_shifts(pattern: SetupPattern, number: int) -> None:
    shifts = setup_shifts(pattern, HALF_AXES_MM, 0, 0)
    assert len({shift for _, shift in shifts}) == len({name for name, _ in shifts}) == len(shifts) == number


@pytest.mark.parametrize("pattern", ["axes", "corners14", "corners26"])
def test_design_shifts_are_symmetric_and_lie_on_the_ellipsoid(pattern: SetupPattern) -> None:
    shifts = np.array([shift for _, shift in setup_shifts(pattern, HALF_AXES_MM, 0, 0)])
    np.testing.assert_allclose(((shifts / HALF_AXES_MM) ** 2).sum(axis=1), 1.0, rtol=1e-12)
    found = {tuple(shift) for shift in shifts.round(9) + 0.0}
    for axis in range(3):
        mirror = np.ones(3)
        mirror[axis] = -1.0
        assert {tuple(shift) for shift in (shifts * mirror).round(9) + 0.0} == found


def test_a_cube_and_the_nominal_setup_are_a_grid_of_three_shifts_along_each_axis() -> None:
    shifts = {shift for _, shift in setup_shifts("cube26", HALF_AXES_MM, 0, 0)}
    expected = set(product((-3.0, 0.0, 3.0), (-4.0, 0.0, 4.0), (-5.0, 0.0, 5.0))) - {(0.0, 0.0, 0.0)}
    assert shifts == expected


def test_names_say_the_direction() -> None:
    shifts = dict(setup_shifts("corners26", HALF_AXES_MM, 0, 0))
    assert shifts["+x"] == (3.0, 0.0, 0.0)
    assert shifts["-z"] == (0.0, 0.0, -5.0)
    assert shifts["+x -y"] == pytest.approx((3.0 / np.sqrt(2.0), -4.0 / np.sqrt(2.0), 0.0))
    assert shifts["-x +y -z"] == pytest.approx(np.array([-3.0, 4.0, -5.0]) / np.sqrt(3.0))


def test_random_shifts_are_the_same_again_and_begin_alike() -> None:
    few, many = (setup_shifts("random", HALF_AXES_MM, number, seed=11) for number in (5, 500))
    assert few == setup_shifts("random", HALF_AXES_MM, 5, seed=11)
    assert few == many[:5]
    assert few != setup_shifts("random", HALF_AXES_MM, 5, seed=12)


def test_random_shifts_have_the_standard_deviations_that_were_asked_for() -> None:
    shifts = np.array([shift for _, shift in setup_shifts("random", HALF_AXES_MM, 4000, seed=3)])
    # Four standard errors of mean and deviation; the seed is fixed.
    np.testing.assert_allclose(shifts.std(axis=0), HALF_AXES_MM, rtol=4.0 / np.sqrt(2.0 * 4000))
    np.testing.assert_allclose(shifts.mean(axis=0) / HALF_AXES_MM, 0.0, atol=4.0 / np.sqrt(4000))


@given(
    st.sampled_from(["none", "axes", "corners14", "corners26", "cube26", "random"]),
    st.lists(st.sampled_from([0.9, 0.97, 1.03, 1.1]), unique=True),
    st.floats(0.0, 0.99),
)
def test_probabilities_sum_to_one(pattern: SetupPattern, factors: list[float], nominal: float) -> None:
    shifts = setup_shifts(pattern, HALF_AXES_MM, 7 if pattern == "random" else 0, 1)
    scenarios = scenario_set(shifts, factors, nominal)
    assert len(scenarios) == 1 + len(shifts) + len(factors)
    assert sum(s.probability for s in scenarios) == pytest.approx(1.0, abs=1e-12)
    assert scenarios[0].name == NOMINAL.name
    assert scenarios[0].shift_mm == (0.0, 0.0, 0.0)
    assert scenarios[0].density_factor == 1.0
    if len(scenarios) > 1:
        assert scenarios[0].probability == nominal
    assert len({s.name for s in scenarios}) == len(scenarios)


def test_density_factors_keep_the_nominal_setup() -> None:
    _, _, light, dense = scenario_set([("+x", (3.0, 0.0, 0.0))], (0.97, 1.03), 0.4)
    assert (light.name, light.shift_mm, light.density_factor) == ("density -3.0 %", (0.0, 0.0, 0.0), 0.97)
    assert (dense.name, dense.density_factor, dense.probability) == (
        "density +3.0 %",
        1.03,
        pytest.approx(0.2),
    )


@pytest.mark.parametrize("factor", [1.0, 0.4, 2.1])
def test_density_factors_without_sense_are_refused(factor: float) -> None:
    with pytest.raises(StudyError, match="density factor"):
        scenario_set([], (factor,), 0.5)


@pytest.mark.parametrize("nominal", [-0.1, 1.0])
def test_nominal_probability_must_leave_something(nominal: float) -> None:
    with pytest.raises(StudyError, match="nominal probability"):
        scenario_set([], (0.97,), nominal)


def test_an_axis_without_error_has_no_scenarios_of_its_own():
    shifts = setup_shifts("corners26", (3.0, 3.0, 0.0), 0, 0)
    assert len(shifts) == 8
    assert len({shift for _, shift in shifts}) == 8
    assert all(shift[2] == 0.0 and shift != (0.0, 0.0, 0.0) for _, shift in shifts)
