"""The solver: against non-negative least squares, optimality conditions, limits, reasons, reproducibility."""

import numpy as np
import pytest
from scipy.optimize import nnls

from engine.errors import OptimisationError
from engine.optimise.functions import MeanDose, SquaredDeviation, SquaredOverdose, SquaredUnderdose
from engine.optimise.group import Term
from engine.optimise.problem import Evaluation, Problem
from engine.optimise.robust import n_smoothing_stage, smoothing
from engine.optimise.solvers import SolverOptions, solve
from tests.dense_tiles import small_problem

EXACT = SolverOptions(max_evaluations=3000, tolerance=1e-15)
PROBABILITY = np.array([0.5, 0.3, 0.2])


def no_smoothing(stage, at):
    return 0.0


def solve_problem(problem, start, options=EXACT, prescription_gy=6.0):
    form = problem.form
    return solve(
        problem.evaluate,
        start,
        n_smoothing_stage(form),
        lambda stage, at: smoothing(form, stage, at.exact, prescription_gy),
        options,
    )


@pytest.mark.parametrize("block_sizes", [(4, 3), (20, 20), (30, 40, 30)])
def test_squared_deviations_end_where_nonnegative_least_squares_does(block_sizes):
    small = small_problem(seed=5, block_sizes=block_sizes, n_brick=8)
    terms = [
        Term("target", 0, SquaredDeviation(dose_gy=6.0), 3.0),
        Term("rest", 1, SquaredOverdose(dose_gy=0.0), 0.5),
    ]
    result = solve_problem(Problem(small.rows, terms, "nominal", np.ones(1)), np.ones(small.n_beamlet))
    roots = [np.sqrt(t.weight * small.shares[t.region].astype(float))[:, None] for t in terms]
    matrix = np.vstack([root * small.dense[0] for root in roots])
    wanted = np.concatenate([6.0 * roots[0][:, 0], np.zeros(small.dense[0].shape[0])])
    _, residual = nnls(matrix, wanted, maxiter=100 * matrix.shape[1])
    assert result.weight.min() >= 0.0
    # Both are exact but for rounding; L-BFGS-B creeps at the end, so 1e-9 of the value.
    assert result.value == pytest.approx(residual**2, rel=1e-9)


@pytest.mark.parametrize("form", ["nominal", "expected", "composite_worst_case", "voxel_worst_case"])
def test_solutions_satisfy_the_optimality_conditions(form):
    small = small_problem(seed=6, block_sizes=(6, 6))
    terms = [
        Term("target", 0, SquaredDeviation(dose_gy=6.0), 3.0),
        Term("cold", 0, SquaredUnderdose(dose_gy=5.0), 3.0, robust=False),
        Term("rest", 1, MeanDose(), 0.1),
    ]
    problem = Problem(small.rows, terms, form, PROBABILITY)
    temperatures = []

    def evaluate(weight, temperature):
        temperatures.append(temperature)
        return problem.evaluate(weight, temperature)

    start = np.ones(small.n_beamlet)
    result = solve(
        evaluate,
        start,
        n_smoothing_stage(form),
        lambda stage, at: smoothing(form, stage, at.exact, 6.0),
        EXACT,
    )
    final = problem.evaluate(result.weight, temperatures[-1]).gradient
    first = problem.evaluate(start, temperatures[-1]).gradient
    # Projected gradient: what points into the allowed region. An error of 1e-12 in a quadratic value is one of 1e-6 in
    # its gradient; a smoothed maximum is stiffer by the inverse temperature.
    projected = np.where(result.weight > 0.0, final, np.minimum(final, 0.0))
    assert np.abs(projected).max() < 1e-4 * np.abs(first).max()
    assert result.weight.min() >= 0.0


def test_a_worst_case_solution_is_better_in_its_worst_scenario_than_the_nominal_one():
    small = small_problem(seed=6, block_sizes=(6, 6))
    terms = [Term("target", 0, SquaredDeviation(dose_gy=6.0), 1.0)]
    start = np.ones(small.n_beamlet)
    composite = Problem(small.rows, terms, "composite_worst_case", PROBABILITY)
    robust = solve_problem(composite, start)
    nominal = solve_problem(Problem(small.rows, terms, "nominal", PROBABILITY), start)
    assert robust.value < composite.evaluate(nominal.weight, 0.0).exact


def quadratic(target, calls=None):
    """Return a stiff quadratic with its minimum, 1, at ``target``, clipped at 0."""
    stiffness = np.logspace(0, 4, target.size)

    def evaluate(weight, temperature):
        if calls is not None:
            calls.append(weight.copy())
        off = weight - target
        value = 1.0 + float(stiffness @ off**2)
        return Evaluation(value, 2.0 * stiffness * off, np.array([[value]]), value)

    return evaluate


TARGET = np.random.default_rng(41).uniform(-1.0, 3.0, 30)


@pytest.mark.parametrize("n_stage", [1, 3])
@pytest.mark.parametrize("limit", [2, 3, 5, 10, 25])
def test_the_limit_of_evaluations_is_kept_exactly(limit, n_stage):
    calls = []
    options = SolverOptions(max_evaluations=limit, tolerance=0.0)
    result = solve(quadratic(TARGET, calls), np.ones(30), n_stage, no_smoothing, options)
    assert len(calls) == limit
    assert result.history.size == limit
    assert not result.converged
    assert str(limit) in result.reason
    assert "limit" in result.reason


def test_the_best_point_is_returned_when_the_limit_is_reached():
    calls = []
    result = solve(quadratic(TARGET, calls), np.ones(30), 1, no_smoothing, SolverOptions(12, 0.0))
    values = [quadratic(TARGET)(weight, 0.0).value for weight in calls[1:]]
    assert result.value == min(values)
    assert (result.weight == calls[1 + int(np.argmin(values))]).all()


def test_a_limit_that_leaves_nothing_for_the_last_stage_is_refused():
    with pytest.raises(OptimisationError, match="max_evaluations=1 leaves none"):
        solve(quadratic(TARGET), np.ones(30), 1, no_smoothing, SolverOptions(max_evaluations=1))


def test_convergence_is_said_with_its_tolerance():
    result = solve(quadratic(TARGET), np.ones(30), 1, no_smoothing, SolverOptions(500, 1e-6))
    assert result.converged
    assert "less than 1e-06 of its value" in result.reason
    expected = 1.0 + float(np.logspace(0, 4, 30) @ np.minimum(TARGET, 0.0) ** 2)
    assert result.value == pytest.approx(expected, rel=1e-4)


def test_a_start_at_the_optimum_ends_at_once():
    result = solve(quadratic(-np.ones(5)), np.zeros(5), 1, no_smoothing, SolverOptions())
    assert result.converged
    assert "no weight can be changed" in result.reason
    assert not result.weight.any()
    assert result.history.size == 2


def test_every_stage_begins_where_the_one_before_ended():
    asked = []

    def temperature(stage, at):
        asked.append((stage, at.value))
        return 0.0

    result = solve(quadratic(TARGET), np.ones(30), 3, temperature, SolverOptions(60, 0.0))
    assert [stage for stage, _ in asked] == [0, 1, 2]
    assert asked[0][1] == result.history[0]
    for (_, value), begin in zip(asked, result.stage_begin, strict=True):
        assert result.history[begin] == value
    # Of 59 evaluations after the first: a third, a third of the rest, the rest.
    assert result.stage_begin == (1, 20, 33)


@pytest.mark.parametrize("bad", ["value", "gradient"])
@pytest.mark.parametrize("number", [0, 3])
def test_an_objective_that_is_not_finite_is_refused(bad, number):
    calls = []
    good = quadratic(TARGET, calls)

    def evaluate(weight, temperature):
        e = good(weight, temperature)
        if len(calls) <= number:
            return e
        if bad == "value":
            return Evaluation(np.inf, e.gradient, e.term_values, e.exact)
        return Evaluation(e.value, np.where(np.arange(30) == 7, np.nan, e.gradient), e.term_values, e.exact)

    with pytest.raises(OptimisationError, match="not a finite number"):
        solve(evaluate, np.ones(30), 1, no_smoothing, SolverOptions())


@pytest.mark.parametrize("form", ["expected", "composite_worst_case", "voxel_worst_case"])
def test_the_same_problem_gives_the_same_bits_twice(form):
    def once():
        small = small_problem(seed=7, block_sizes=(6, 6))
        terms = [Term("target", 0, SquaredDeviation(dose_gy=6.0), 1.0), Term("rest", 1, MeanDose(), 0.1)]
        problem = Problem(small.rows, terms, form, PROBABILITY)
        return solve_problem(problem, np.ones(small.n_beamlet), SolverOptions(80, 1e-9))

    first, second = once(), once()
    assert first.weight.tobytes() == second.weight.tobytes()
    assert first.history.tobytes() == second.history.tobytes()


def test_a_change_of_the_answers_to_the_caller_does_not_change_the_start():
    start = np.ones(30)
    solve(quadratic(TARGET), start, 1, no_smoothing, SolverOptions(20))
    assert (start == 1.0).all()


@pytest.mark.parametrize("scale", [1e3, 1.0, 1e-3, 1e-6])
def test_the_tolerance_is_relative_however_small_the_objective(scale):
    # scipy's own test is absolute below an objective of 1, which would stop early here.
    rng = np.random.default_rng(7)
    matrix, wanted = rng.random((60, 40)), rng.random(60)

    def evaluate(weight, temperature):
        del temperature
        rest = matrix @ weight - wanted
        value = scale * float(rest @ rest)
        return Evaluation(value, 2.0 * scale * (matrix.T @ rest), np.array([[value]]), value)

    result = solve(evaluate, np.ones(40), 1, lambda stage, at: 0.0, SolverOptions(2000, 1e-9))
    reference = nnls(matrix, wanted)[1] ** 2
    assert result.converged
    assert result.value / scale == pytest.approx(reference, rel=1e-5)
