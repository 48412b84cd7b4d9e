"""Plans within limits: against independent solvers, multipliers, every scenario, certificates."""

import numpy as np
import pytest
from scipy.optimize import linprog

from engine.errors import OptimisationError
from engine.optimise.constraints import TOLERANCE_GY, Constraint
from engine.optimise.functions import (
    DvhDistance,
    DvhMeanTail,
    Geud,
    MeanDose,
    SmoothMaximum,
    SmoothMinimum,
    SquaredDeviation,
    SquaredOverdose,
    SquaredUnderdose,
)
from engine.optimise.group import Term
from engine.optimise.limits import plan_within_limits
from engine.optimise.problem import Problem
from engine.optimise.robust import n_smoothing_stage, smoothing
from engine.optimise.solvers import Further, SolverOptions
from tests.dense_tiles import small_problem

PROBABILITY = np.array([0.5, 0.3, 0.2])
FORMS = [
    "nominal", "expected", "composite_worst_case", "voxel_worst_case", "objective_worst_case", "cvar",
    "soft_worst_case",
]  # fmt: skip
PARTS = {"cvar": 0.4, "soft_worst_case": 0.7}
TERMS = [
    Term("target", 0, SquaredDeviation(dose_gy=6.0), 3.0),
    Term("rest", 1, SquaredOverdose(dose_gy=0.0), 0.5),
]
EXACTLY = SolverOptions(4000, 1e-10, gap=1e-3, solver="newton_cg")


@pytest.fixture(scope="module")
def small():
    return small_problem(seed=5, block_sizes=(10, 10))


def planned(small, limits, terms=TERMS, form="nominal", options=EXACTLY, ask=Problem.evaluate):
    problem = Problem(small.rows, terms, form, PROBABILITY, PARTS.get(form), limits)
    return plan_within_limits(
        problem,
        ask,
        np.ones(small.n_beamlet),
        n_smoothing_stage(form),
        lambda stage, at: smoothing(form, stage, at.exact, 6.0),
        options,
        lambda asked: Further(product=asked.hessian_product),
    )


MEAN = Constraint("rest mean", 1, MeanDose(), "at_most", 2.0)
MAXIMUM = Constraint("rest maximum", 1, SmoothMaximum(temperature_gy=0.5), "at_most", 4.5)
MINIMUM = Constraint("target minimum", 0, SmoothMinimum(temperature_gy=0.5, dose_gy=1.5), "at_least", 1.5)
SQUARES = Constraint("rest overdose", 1, SquaredOverdose(dose_gy=3.0), "at_most", 0.2)
COLD = Constraint("target underdose", 0, SquaredUnderdose(dose_gy=4.0), "at_most", 3.3)
SETS = {
    "a mean": ([MEAN], ("CLARABEL", "OSQP")),
    "two means": ([MEAN, Constraint("target mean", 0, MeanDose(), "at_least", 3.0)], ("CLARABEL", "OSQP")),
    "extremes": ([MAXIMUM, MINIMUM], ("CLARABEL",)),
    "squares": ([SQUARES, COLD], ("CLARABEL",)),
    "all": ([MEAN, MAXIMUM, SQUARES], ("CLARABEL",)),
}


def stated_for(cp, small, limits):
    """Return the problem as cvxpy knows it."""
    weight = cp.Variable(small.n_beamlet, nonneg=True)
    inside = [share > 0.0 for share in small.shares]
    share = [each[i].astype(float) for each, i in zip(small.shares, inside, strict=True)]
    dose_gy = [small.dense[0][i] @ weight for i in inside]

    def of(function, region):
        v, d = share[region], dose_gy[region]
        match function.kind:
            case "mean":
                return v @ d
            case "smooth_maximum":
                return function.temperature_gy * cp.log_sum_exp(d / function.temperature_gy + np.log(v))
            case "smooth_minimum":
                return -function.temperature_gy * cp.log_sum_exp(-d / function.temperature_gy + np.log(v))
            case "squared_overdose":
                return v @ cp.square(cp.pos(d - function.dose_gy))
            case "squared_underdose":
                return v @ cp.square(cp.pos(function.dose_gy - d))
            case "squared_deviation":
                return v @ cp.square(d - function.dose_gy)

    objective = sum(term.weight * of(term.function, term.region) for term in TERMS)
    stated = [
        of(limit.function, limit.region) <= limit.limit
        if limit.sense == "at_most"
        else of(limit.function, limit.region) >= limit.limit
        for limit in limits
    ]
    return cp.Problem(cp.Minimize(objective), stated), stated


@pytest.mark.parametrize("name", SETS)
def test_optimum_and_multipliers_are_those_of_an_independent_solver(small, name):
    cp = pytest.importorskip("cvxpy")
    limits, solvers = SETS[name]
    result, certificate, outcome = planned(small, limits)
    assert result.converged
    for solver in solvers:
        problem, stated = stated_for(cp, small, limits)
        exactly = {"OSQP": {"eps_abs": 1e-9, "eps_rel": 1e-9, "max_iter": 100_000}}
        problem.solve(solver=solver, **exactly.get(solver, {}))
        assert result.value == pytest.approx(problem.value, rel=1e-5)
        assert certificate.lower_bound <= problem.value * (1.0 + 1e-6)
        duals = [float(limit.dual_value) for limit in stated]
        np.testing.assert_allclose(outcome.multipliers, duals, rtol=0.01, atol=1e-3 * max(duals))


def test_the_optimum_of_a_linear_program_is_that_of_highs(small):
    # The least mean dose around a target that gets enough, while neither gets too much.
    limits = [
        Constraint("target", 0, MeanDose(), "at_least", 4.0),
        Constraint("target too", 0, MeanDose(), "at_most", 4.2),
        Constraint("rest", 1, MeanDose(), "at_most", 8.0),
    ]
    result, _, outcome = planned(small, limits, [Term("rest", 1, MeanDose(), 10.0)])
    means = [share.astype(float) @ small.dense[0] for share in small.shares]
    exact = linprog(10.0 * means[1], A_ub=[-means[0], means[0], means[1]], b_ub=[-4.0, 4.2, 8.0])
    assert result.value == pytest.approx(exact.fun, rel=1e-5)
    np.testing.assert_allclose(outcome.multipliers, -exact.ineqlin.marginals, rtol=0.01, atol=1e-3)


EUD = Constraint("eud", 0, Geud(a=-2.0, limit="lower", dose_gy=2.0), "at_least", 2.8)


@pytest.mark.parametrize(
    ("form", "active"),
    [
        ("nominal", MEAN),
        ("nominal", SQUARES),
        ("nominal", EUD),
        ("expected", EUD),
        ("voxel_worst_case", MEAN),
    ],
)
def test_a_multiplier_is_what_a_limit_that_gives_way_buys(small, form, active):
    others = [MAXIMUM.relaxed(3.0)]
    _, _, outcome = planned(small, [active, *others], form=form)
    assert outcome.multipliers[0] > 0.05
    step_gy = 0.01
    tighter, looser = (
        planned(small, [active.relaxed(by_gy), *others], form=form)[0].value for by_gy in (-step_gy, step_gy)
    )
    bought = (tighter - looser) / (2.0 * step_gy * active.unit_per_gy)
    assert outcome.multipliers[0] == pytest.approx(bought, rel=0.01)


@pytest.mark.parametrize("form", FORMS)
def test_limits_hold_in_every_scenario(small, form):
    limits = [MEAN, MAXIMUM, Constraint("nominal alone", 0, MeanDose(), "at_least", 2.6, robust=False)]
    result, _, outcome = planned(small, limits, form=form, options=SolverOptions(1500, 1e-8))
    assert outcome.diagnosis is None
    n_scenario = 1 if form == "nominal" else 3
    for limit in limits:
        for dense in small.dense[: n_scenario if limit.robust else 1]:
            share = small.shares[limit.region].astype(float)
            inside = share > 0.0
            sums = limit.function.sums((dense @ result.weight)[inside], share[inside])
            assert limit.excess_gy(np.array(limit.function.value(sums))) <= TOLERANCE_GY


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("seed", range(2))
def test_the_bound_of_a_plan_within_limits_is_below_every_other_and_near_this_one(form, seed):
    small = small_problem(seed=seed, block_sizes=(4, 3), n_brick=2)
    rng = np.random.default_rng(seed)
    limits = [
        Constraint("mean", 1, MeanDose(), "at_most", rng.uniform(1.5, 3.0)),
        Constraint("extreme", 0, SmoothMaximum(temperature_gy=0.5), "at_most", rng.uniform(5.0, 8.0)),
        Constraint("eud", 0, Geud(a=-2.0, limit="lower", dose_gy=1.0), "at_least", rng.uniform(0.1, 0.5)),
    ]
    _, certificate, outcome = planned(small, limits, form=form, options=SolverOptions(1000, 1e-9, gap=0.03))
    if outcome.diagnosis is not None:
        # These are other limits then.
        return
    assert certificate.gap <= 0.05
    problem = Problem(small.rows, TERMS, form, PROBABILITY, PARTS.get(form), limits)
    found = 0
    for _ in range(400):
        weight = rng.exponential(1.0, small.n_beamlet) * rng.uniform(0.0, 1.5)
        at = problem.evaluate(weight, 0.0)
        if problem.excess_gy(at.limited).max() <= 0.0:
            found += 1
            assert certificate.lower_bound <= at.value
    exactly, _, _ = planned(small, limits, form=form, options=SolverOptions(3000, 1e-11, gap=1.0))
    assert certificate.lower_bound <= problem.evaluate(exactly.weight, 0.0).value * (1.0 + 1e-5)


def test_a_limit_that_is_not_convex_is_held_and_leaves_no_certificate(small):
    limits = [
        Constraint("D60", 0, DvhDistance(volume_percent=60.0, dose_gy=4.3, limit="lower"), "at_least", 4.3)
    ]
    result, certificate, outcome = planned(small, limits, options=SolverOptions(1000, 1e-8))
    assert outcome.diagnosis is None
    share = small.shares[0].astype(float)
    dose_gy = small.dense[0] @ result.weight
    order = np.argsort(-dose_gy)
    at_volume_gy = dose_gy[order][np.searchsorted(np.cumsum(share[order]), 0.6)]
    # But for the band of 2 % of the volume, and the smearing of doses.
    assert at_volume_gy == pytest.approx(4.3, abs=0.25)
    assert certificate.lower_bound is None
    assert "not convex: D60 at least 4.3 Gy" in certificate.text


def test_a_limit_of_a_mean_tail_is_held_and_its_point_of_the_dvh_with_it(small):
    limits = [
        Constraint("D60", 0, DvhMeanTail(volume_percent=60.0, dose_gy=2.5, limit="lower"), "at_least", 2.5)
    ]
    result, certificate, outcome = planned(small, limits, options=SolverOptions(1000, 1e-8))
    assert all(outcome.met)
    share = small.shares[0].astype(float)
    assert share[small.dense[0] @ result.weight >= 2.5 - TOLERANCE_GY].sum() >= 0.6
    assert "ripple" in certificate.text


@pytest.mark.parametrize("solver", ["lbfgsb", "projected_gradient"])
@pytest.mark.parametrize("form", ["nominal", "cvar"])
def test_solvers_of_smooth_objectives_find_the_same_plan_within_the_limits(small, solver, form):
    limits = [MEAN, SQUARES]
    expected, _, costs = planned(small, limits, form=form)
    found, _, outcome = planned(small, limits, form=form, options=SolverOptions(4000, 1e-8, solver=solver))
    assert (found.n_product == 0, expected.n_product > 0) == (True, True)
    assert found.value == pytest.approx(expected.value, rel=1e-5)
    assert all(outcome.met)
    np.testing.assert_allclose(outcome.multipliers, costs.multipliers, rtol=0.01)


@pytest.mark.parametrize("solver", ["simulated_annealing", "primal_dual", "highs", "ipopt"])
def test_solvers_that_know_no_limits_are_refused(small, solver):
    with pytest.raises(OptimisationError, match="knows no hard constraints; use 'lbfgsb'"):
        planned(small, [MEAN], options=SolverOptions(solver=solver))


def test_limits_that_cost_nothing_change_nothing(small):
    free, _, _ = planned(small, [MEAN.relaxed(100.0)])
    _, certificate, outcome = planned(small, [MAXIMUM.relaxed(100.0)])
    assert outcome.multipliers == (0.0,)
    assert certificate.value == pytest.approx(free.value, rel=1e-8)


def test_a_solve_within_limits_that_was_interrupted_ends_with_the_same_bits(small):
    limits = [MEAN, Constraint("target", 0, MeanDose(), "at_least", 6.0)]
    # They cannot be met: all solves are made.
    options = SolverOptions(200, 1e-7, max_bound_evaluations=5)
    known = []

    def logged(answers):
        asked = iter(answers)

        def ask(problem, weight, temperature):
            evaluation = next(asked, None)
            if evaluation is None:
                evaluation = problem.evaluate(weight, temperature)
                known.append(evaluation)
            return evaluation

        return ask

    result, certificate, outcome = planned(small, limits, options=options, ask=logged([]))
    assert outcome.diagnosis.fights
    for n_kept in (1, 50, len(known) - 3):
        answers = known[:n_kept]
        n_before = len(known)
        again = planned(small, limits, options=options, ask=logged(answers))
        assert len(known) - n_before == n_before - n_kept
        del known[n_before:]
        assert again[0].weight.tobytes() == result.weight.tobytes()
        assert again[0].history.tobytes() == result.history.tobytes()
        assert again[1:] == (certificate, outcome)
