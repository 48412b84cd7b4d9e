"""Hard constraints by themselves: which limits there are, and what their pressure adds to value, gradient, Hessian."""

import numpy as np
import pytest

from engine.errors import OptimisationError
from engine.optimise.constraints import Constraint, Pressure
from engine.optimise.functions import (
    DvhDistance,
    DvhMeanTail,
    DvhPenalty,
    Eqd2,
    Geud,
    LkbNtcp,
    LowerMeanTail,
    MeanDose,
    PoissonTcp,
    SmoothMaximum,
    SmoothMinimum,
    SquaredDeviation,
    SquaredOverdose,
    UpperMeanTail,
)
from engine.optimise.group import Term
from engine.optimise.problem import Problem
from tests.dense_tiles import small_problem

PROBABILITY = np.array([0.5, 0.3, 0.2])
TERMS = [
    Term("deviation", 0, SquaredDeviation(dose_gy=6.0), 2.0),
    Term("mean", 1, MeanDose(), 0.5, robust=False),
]
CONSTRAINTS = [
    Constraint("mean", 1, MeanDose(), "at_most", 2.0),
    Constraint("minimum", 0, SmoothMinimum(temperature_gy=0.5, dose_gy=4.0), "at_least", 4.0),
    Constraint("overdose", 1, SquaredOverdose(dose_gy=2.0), "at_most", 0.5, robust=False),
    Constraint("tail", 0, UpperMeanTail(volume_percent=20.0, dose_gy=9.0), "at_most", 9.0),
    Constraint("ntcp", 1, LkbNtcp(td50_gy=5.0, m=0.2, n=0.5), "at_most", 0.3),
]
FORMS = [
    ("nominal", 0.0),
    ("expected", 0.0),
    ("composite_worst_case", 0.3),
    ("voxel_worst_case", 0.05),
    ("objective_worst_case", 3.0),
    ("cvar", 3.0),
    ("soft_worst_case", 30.0),
    ("percentile", 3.0),
]
PARTS = {"cvar": 0.4, "soft_worst_case": 0.7, "percentile": 0.4}


@pytest.fixture(scope="module")
def small():
    return small_problem(seed=3, block_sizes=(5, 4))


def pressed_problem(small, form, objective=True):
    problem = Problem(small.rows, TERMS, form, PROBABILITY, PARTS.get(form), CONSTRAINTS)
    rng = np.random.default_rng(4)
    shape = len(CONSTRAINTS), problem.used
    return problem.pressed(Pressure(rng.uniform(0.0, 3.0, shape), rng.uniform(1.0, 5.0, shape[0]), objective))


@pytest.mark.parametrize("objective", [True, False])
@pytest.mark.parametrize(("form", "temperature"), FORMS)
def test_gradient_and_hessian_product_of_a_pressed_problem_match_differences(
    small, form, temperature, objective
):
    problem = pressed_problem(small, form, objective)
    rng = np.random.default_rng(31)
    weight, direction, step = rng.uniform(0.5, 3.0, small.n_beamlet), rng.normal(size=small.n_beamlet), 1e-6
    assert (problem.excess_gy(problem.evaluate(weight, temperature).limited) > 0.0).any()
    up, down = (problem.evaluate(weight + s * step * direction, temperature) for s in (1, -1))
    gradient = problem.evaluate(weight, temperature).gradient
    assert gradient @ direction == pytest.approx((up.value - down.value) / (2.0 * step), rel=1e-5)
    difference = (up.gradient - down.gradient) / (2.0 * step)
    product = problem.hessian_product(weight, direction, temperature)
    # One voxel of 200 that crosses a kink within the step would be 1e-2.
    np.testing.assert_allclose(product, difference, rtol=1e-4, atol=1e-4 * np.abs(difference).max())


@pytest.mark.parametrize(("form", "temperature"), FORMS)
def test_the_values_of_constraints_are_those_of_each_scenario_whatever_the_form(small, form, temperature):
    problem = Problem(small.rows, TERMS, form, PROBABILITY, PARTS.get(form), CONSTRAINTS)
    weight = np.random.default_rng(5).uniform(0.5, 3.0, small.n_beamlet)
    limited = problem.evaluate(weight, temperature).limited
    for number, constraint in enumerate(CONSTRAINTS):
        share = small.shares[constraint.region].astype(float)
        for scenario in range(problem.used):
            dense = small.dense[scenario if constraint.robust else 0]
            sums = constraint.function.sums((dense @ weight)[share > 0.0], share[share > 0.0])
            assert limited[number, scenario] == pytest.approx(constraint.function.value(sums), rel=1e-9)


@pytest.mark.parametrize(("form", "temperature"), FORMS)
def test_without_pressure_constraints_change_neither_objective_nor_gradient(small, form, temperature):
    weight = np.random.default_rng(6).uniform(0.5, 3.0, small.n_beamlet)
    with_limits, without = (
        Problem(small.rows, TERMS, form, PROBABILITY, PARTS.get(form), limits).evaluate(weight, temperature)
        for limits in (CONSTRAINTS, ())
    )
    assert (with_limits.value, with_limits.exact) == (without.value, without.exact)
    assert with_limits.gradient.tobytes() == without.gradient.tobytes()
    assert with_limits.term_values.tobytes() == without.term_values.tobytes()


def test_within_the_limits_no_pressure_adds_to_the_objective():
    rng = np.random.default_rng(7)
    for _ in range(100):
        pressure = Pressure(rng.exponential(2.0, (3, 2)), rng.exponential(2.0, 3) + 1e-3)
        assert pressure.value(-rng.exponential(2.0, (3, 2))) <= 0.0


def test_a_scenario_of_probability_zero_has_no_limit(small):
    problem = Problem(small.rows, TERMS, "expected", np.array([0.5, 0.5, 0.0]), constraints=CONSTRAINTS)
    excess_gy = problem.excess_gy(np.full((len(CONSTRAINTS), 3), 1e3))
    assert np.isneginf(excess_gy[:, 2]).all()
    assert np.isfinite(excess_gy[0, :2]).all()
    # One that is not robust holds in the first scenario alone.
    assert np.isneginf(excess_gy[2, 1])


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_a_square_exceeds_the_root_of_its_limit_by_no_more_gy_than_is_told(scale):
    constraint = Constraint("overdose", 0, SquaredOverdose(dose_gy=2.0), "at_most", scale)
    for root_gy in np.sqrt(scale) + np.array([0.001, 0.05, 1.0, 20.0]):
        told_gy = float(constraint.excess_gy(np.array(root_gy**2)))
        assert root_gy - np.sqrt(scale) <= told_gy * (1.0 + 1e-12)


EQD2 = Eqd2(alpha_beta_gy=3.0, fractions=5)
SENSES = [
    (MeanDose(), "at_most", True),
    (MeanDose(), "at_least", True),
    (MeanDose(eqd2=EQD2), "at_most", True),
    (MeanDose(eqd2=EQD2), "at_least", False),
    (Geud(a=8.0, limit="upper", dose_gy=2.0), "at_most", True),
    (Geud(a=-8.0, limit="lower", dose_gy=2.0), "at_least", True),
    (Geud(a=-8.0, limit="lower", dose_gy=2.0, eqd2=EQD2), "at_least", False),
    (SmoothMaximum(temperature_gy=0.5), "at_most", True),
    (SmoothMinimum(temperature_gy=0.5, dose_gy=2.0), "at_least", True),
    (LowerMeanTail(volume_percent=5.0, dose_gy=2.0), "at_least", True),
    (DvhMeanTail(volume_percent=95.0, dose_gy=2.0, limit="lower"), "at_least", True),
    (DvhDistance(volume_percent=95.0, dose_gy=2.0, limit="lower"), "at_least", False),
    (DvhDistance(volume_percent=5.0, dose_gy=2.0, limit="upper"), "at_most", False),
    (DvhPenalty(volume_percent=5.0, dose_gy=2.0, limit="upper"), "at_most", False),
    (SquaredDeviation(dose_gy=2.0), "at_most", True),
    (PoissonTcp(alpha_per_gy=0.6, alpha_beta_gy=10.0, clonogens=1e3, fractions=10), "at_most", True),
]


@pytest.mark.parametrize(("function", "sense", "convex"), SENSES)
def test_a_limit_is_told_as_convex_where_the_doses_within_it_are_a_convex_set(function, sense, convex):
    constraint = Constraint("c", 0, function, sense, 2.0)
    assert constraint.convex == convex
    rng = np.random.default_rng(8)
    share = rng.dirichlet(np.ones(40))

    def excess(dose_gy):
        return float(
            constraint.excess_gy(
                np.array(constraint.function.value(constraint.function.sums(dose_gy, share)))
            )
        )

    for _ in range(50 if convex else 0):
        a, b = rng.uniform(0.0, 12.0, (2, 40))
        # But for the ripple of a sampled dose axis.
        assert excess(0.5 * (a + b)) <= 0.5 * (excess(a) + excess(b)) + 1e-3


@pytest.mark.parametrize(
    ("function", "sense", "why"),
    [
        (SmoothMaximum(temperature_gy=0.5), "at_least", "by at_most alone"),
        (SquaredOverdose(dose_gy=2.0), "at_least", "by at_most alone"),
        (DvhPenalty(volume_percent=5.0, dose_gy=2.0, limit="lower"), "at_least", "by at_most alone"),
        (SmoothMinimum(temperature_gy=0.5, dose_gy=2.0), "at_most", "by at_least alone"),
        (LowerMeanTail(volume_percent=5.0, dose_gy=2.0), "at_most", "by at_least alone"),
    ],
)
def test_a_limit_that_would_ask_for_a_worse_plan_is_refused(function, sense, why):
    with pytest.raises(OptimisationError, match=why):
        Constraint("c", 0, function, sense, 2.0)


def test_a_dvh_function_keeps_the_dose_axis_that_its_limit_asks_for():
    constraint = Constraint(
        "c", 0, DvhMeanTail(volume_percent=2.0, dose_gy=120.0, limit="upper"), "at_most", 120.0
    )
    assert constraint.function.resolution_gy == 120.0 / 1024
    assert constraint.unit == "Gy"
