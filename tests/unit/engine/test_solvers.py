"""All solvers behind one call: against independent answers, limits, reasons, the same bits again, and certificates."""

import sys
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
from scipy.optimize import linprog, nnls
from scipy.sparse import block_diag, eye_array, hstack, vstack

import engine.optimise.solvers.saddle
from engine.errors import OptimisationError
from engine.optimise.bound import Cuts, certify
from engine.optimise.functions import (
    DvhPenalty,
    Geud,
    LinearOverdose,
    LinearUnderdose,
    MeanDose,
    SquaredDeviation,
    SquaredOverdose,
    SquaredUnderdose,
    UpperMeanTail,
)
from engine.optimise.group import Term
from engine.optimise.problem import Evaluation, LocalRows, Problem
from engine.optimise.robust import n_smoothing_stage, smoothing
from engine.optimise.solvers import Further, SolverOptions, solve
from engine.optimise.solvers.saddle import SaddlePoint
from tests.dense_tiles import small_problem

PROBABILITY = np.array([0.5, 0.3, 0.2])
EXACT = SolverOptions(max_evaluations=6000, tolerance=1e-13)
SMOOTH = ["lbfgsb", "newton_cg", "projected_gradient"]
IPOPT = pytest.param(
    "ipopt", marks=pytest.mark.skipif(not find_spec("ipyopt"), reason="ipyopt is not installed")
)
ALL = [*SMOOTH, "simulated_annealing", "primal_dual"]
OF_LINEAR = ["primal_dual", "highs"]
TERMS = [
    Term("target", 0, SquaredDeviation(dose_gy=6.0), 3.0),
    Term("rest", 1, SquaredOverdose(dose_gy=0.0), 0.5),
]
LINEAR = [
    Term("cold", 0, LinearUnderdose(dose_gy=6.0), 5.0),
    Term("hot", 0, LinearOverdose(dose_gy=6.5), 3.0),
    Term("mean", 1, MeanDose(), 0.4, robust=False),
    Term("tail", 1, UpperMeanTail(volume_percent=20.0), 0.3),
]


def small_of_solvers():
    return small_problem(seed=5, block_sizes=(20, 20), n_brick=8)


def solved(problem, options, start=None, cuts=None):
    """Return the result of a problem by the solver that the options name."""

    def evaluate(weight, temperature):
        evaluation = problem.evaluate(weight, temperature)
        if cuts is not None:
            cuts.add(weight, evaluation)
        return evaluation

    linear = options.solver in OF_LINEAR
    return solve(
        evaluate,
        np.ones(problem.rows.n_beamlet) if start is None else start,
        n_smoothing_stage(problem.form),
        lambda stage, at: smoothing(problem.form, stage, at.exact, 6.0),
        options,
        Further(
            problem.hessian_product,
            problem.value,
            SaddlePoint(problem) if linear else None,
            None if cuts is None else cuts.add,
        ),
    )


def terms_for(solver):
    return LINEAR if solver == "primal_dual" else TERMS


def least_squares(small):
    roots = [np.sqrt(t.weight * small.shares[t.region].astype(float))[:, None] for t in TERMS]
    matrix = np.vstack([root * small.dense[0] for root in roots])
    wanted = np.concatenate([6.0 * roots[0][:, 0], np.zeros(small.dense[0].shape[0])])
    return nnls(matrix, wanted, maxiter=100 * matrix.shape[1])[1] ** 2


@pytest.mark.parametrize("solver", [*SMOOTH, IPOPT])
def test_squared_deviations_end_where_nonnegative_least_squares_does(solver):
    small = small_of_solvers()
    result = solved(Problem(small.rows, TERMS, "nominal", np.ones(1)), replace(EXACT, solver=solver))
    assert result.value == pytest.approx(least_squares(small), rel=1e-6)
    assert result.converged
    assert result.weight.min() >= 0.0


def test_newton_needs_fewer_iterations_than_questions_and_counts_both():
    small = small_of_solvers()
    problem = Problem(small.rows, TERMS, "nominal", np.ones(1))
    asked = []
    result = solve(
        problem.evaluate,
        np.ones(small.n_beamlet),
        1,
        lambda stage, at: 0.0,
        replace(EXACT, solver="newton_cg"),
        Further(product=lambda *of: asked.append(0) or problem.hessian_product(*of)),
    )
    assert result.n_product == len(asked)
    assert result.history.size < 30 < result.n_product


@pytest.mark.parametrize("solver", ["newton_cg", "projected_gradient"])
@pytest.mark.parametrize("form", ["expected", "composite_worst_case", "voxel_worst_case"])
def test_robust_forms_end_where_the_default_solver_does(solver, form):
    small = small_problem(seed=6, block_sizes=(6, 6))
    terms = [
        Term("target", 0, SquaredDeviation(dose_gy=6.0), 3.0),
        Term("cold", 0, SquaredUnderdose(dose_gy=5.0), 3.0, robust=False),
        Term("eud", 1, Geud(a=4.0, limit="upper", dose_gy=1.0), 0.5),
    ]
    problem = Problem(small.rows, terms, form, PROBABILITY)
    # Every stage is smoothed by a share of the objective it begins at: stages must end alike to be compared.
    exact = replace(EXACT, tolerance=1e-15, max_evaluations=20000)
    expected = solved(problem, exact)
    assert solved(problem, replace(exact, solver=solver)).value == pytest.approx(expected.value, rel=1e-5)


@pytest.mark.parametrize("solver", [*SMOOTH, IPOPT])
def test_what_is_not_convex_ends_below_its_start_too(solver):
    small = small_of_solvers()
    terms = [
        Term("target", 0, SquaredUnderdose(dose_gy=6.0), 3.0),
        Term("dvh", 1, DvhPenalty(limit="upper", dose_gy=2.0, volume_percent=30.0), 1.0),
    ]
    problem = Problem(small.rows, terms, "nominal", np.ones(1))
    result = solved(problem, SolverOptions(500, 1e-9, solver=solver))
    assert result.value < 0.5 * result.history[0]
    assert result.weight.min() >= 0.0


def test_annealing_ends_within_some_per_cent_of_the_optimum():
    small = small_problem(seed=5, block_sizes=(6, 6), n_brick=8)
    problem = Problem(small.rows, TERMS, "nominal", np.ones(1))
    result = solved(problem, SolverOptions(3000, solver="simulated_annealing"))
    optimum = solved(problem, EXACT).value
    assert optimum <= result.value < 1.03 * optimum < 0.9 * result.history[0]
    assert result.weight.min() >= 0.0
    assert not result.converged
    assert "random moves" in result.reason


def test_annealing_depends_on_its_seed_and_on_nothing_else():
    small = small_problem(seed=5, block_sizes=(6, 6))
    problem = Problem(small.rows, TERMS, "composite_worst_case", PROBABILITY)
    one, again, other = (
        solved(problem, SolverOptions(150, solver="simulated_annealing", seed=seed)) for seed in (7, 7, 8)
    )
    assert one.weight.tobytes() == again.weight.tobytes()
    assert one.history.tobytes() == again.history.tobytes()
    assert one.weight.tobytes() != other.weight.tobytes()


def test_annealing_asks_for_no_gradient_but_at_its_start_and_its_end():
    small = small_problem(seed=5, block_sizes=(6, 6))
    problem = Problem(small.rows, TERMS, "nominal", np.ones(1))
    asked = []
    result = solve(
        lambda w, t: asked.append(w) or problem.evaluate(w, t),
        np.ones(small.n_beamlet),
        1,
        lambda stage, at: 0.0,
        SolverOptions(100, solver="simulated_annealing"),
        Further(value=problem.value),
    )
    assert result.history.size == 100
    assert len(asked) == 2
    assert (asked[1] == result.weight).all()


def linear_optimum(small, form):
    """Return the least objective of LINEAR by HiGHS, with a slack for each row and a threshold for each tail."""
    probability = [1.0] if form == "nominal" else PROBABILITY
    n = small.n_beamlet
    cost = 0.4 * (small.shares[1].astype(float) @ small.dense[0])
    blocks, limits, slack_cost, threshold = [], [], [], []
    for s, p in enumerate(probability):
        target = small.shares[0] > 0.0
        share = small.shares[0][target].astype(float)
        blocks += [-small.dense[s][target], small.dense[s][target]]
        limits += [np.full(share.size, -6.0), np.full(share.size, 6.5)]
        slack_cost += [5.0 * p * share, 3.0 * p * share]
        threshold += [None, None]
        rest = small.shares[1] > 0.0
        blocks.append(small.dense[s][rest])
        limits.append(np.zeros(np.count_nonzero(rest)))
        slack_cost.append(0.3 * p * small.shares[1][rest].astype(float) / 0.2)
        threshold.append(0.3 * p)
    tails = [number for number, cost_of in enumerate(threshold) if cost_of is not None]
    columns = block_diag([np.full((len(limit), 1), 1.0) for limit in limits], format="csc")[:, tails]
    n_slack = sum(len(limit) for limit in limits)
    found = linprog(
        np.concatenate([cost, *slack_cost, [threshold[number] for number in tails]]),
        A_ub=hstack([vstack(blocks), -eye_array(n_slack), -columns]),
        b_ub=np.concatenate(limits),
        bounds=[(0.0, None)] * (n + n_slack) + [(None, None)] * len(tails),
        method="highs",
    )
    assert found.status == 0
    return found.fun


@pytest.mark.parametrize("solver", OF_LINEAR)
@pytest.mark.parametrize("form", ["nominal", "expected"])
def test_linear_programs_end_where_their_textbook_form_does(form, solver):
    small = small_problem(seed=5, block_sizes=(10, 10), n_brick=4)
    problem = Problem(small.rows, LINEAR, form, np.ones(1) if form == "nominal" else PROBABILITY)
    options = SolverOptions(20000, 1e-6, solver=solver)
    result = solved(problem, options)
    saddle = SaddlePoint(problem)
    assert result.converged
    assert result.weight.min() >= 0.0
    # The objective of reports has tails that are smeared by the spacing of a dose axis; this one has not.
    value = saddle.value(result.weight, saddle.dose(result.weight))
    assert value == pytest.approx(linear_optimum(small, form), rel=1e-5)
    assert result.value == pytest.approx(value, rel=1e-2)


@pytest.mark.parametrize("solver", OF_LINEAR)
def test_the_planes_of_linear_programs_prove_how_good_their_solutions_are(solver):
    small = small_of_solvers()
    problem = Problem(small.rows, LINEAR[:3], "nominal", np.ones(1))
    cuts, options = Cuts(), SolverOptions(5000, 1e-6, max_bound_evaluations=0, solver=solver)
    result = solved(problem, options, cuts=cuts)
    certificate = certify(problem, Problem.evaluate, cuts, result, options)
    assert certificate.gap < 1e-5


def test_values_and_products_of_a_saddle_point_are_those_of_the_dense_matrix():
    small = small_problem(seed=4, block_sizes=(5, 4))
    problem = Problem(small.rows, LINEAR[:3], "expected", PROBABILITY)
    saddle = SaddlePoint(problem)
    weight = np.random.default_rng(3).uniform(0.0, 2.0, small.n_beamlet)
    assert saddle.value(weight, saddle.dose(weight)) == pytest.approx(problem.evaluate(weight, 0.0).value)
    multiplier = np.random.default_rng(4).uniform(0.0, 1.0, saddle.n_row)
    # What the multipliers prove lies below the objective, wherever they may be.
    raised = saddle.raised(multiplier, saddle.dose(weight), 1e-3)
    slope = saddle.cost + saddle.adjoint(raised)
    assert (slope * weight).sum() - saddle.offset(raised) <= problem.evaluate(weight, 0.0).value
    by_rows = (saddle.scale * raised) @ saddle.dose(weight)
    assert saddle.adjoint(raised) @ weight == pytest.approx(by_rows)


@pytest.mark.parametrize("solver", [*ALL, IPOPT])
@pytest.mark.parametrize("limit", [3, 10, 25])
def test_the_limit_of_questions_is_kept_exactly(solver, limit):
    small = small_of_solvers()
    problem = Problem(small.rows, terms_for(solver), "nominal", np.ones(1))
    result = solved(problem, SolverOptions(limit, 0.0, solver=solver))
    assert result.history.size + result.n_product == limit
    assert not result.converged
    assert result.value <= result.history[0]


@pytest.mark.parametrize("solver", SMOOTH)
def test_a_start_at_the_optimum_ends_at_once(solver):
    def evaluate(weight, temperature):
        value = 1.0 + float((weight + 1.0) @ (weight + 1.0))
        return Evaluation(value, 2.0 * (weight + 1.0), np.array([[value]]), value)

    result = solve(evaluate, np.zeros(5), 1, lambda stage, at: 0.0, SolverOptions(solver=solver))
    assert result.converged
    assert "no weight can be changed" in result.reason
    assert result.history.size == 2


@pytest.mark.parametrize("solver", [*SMOOTH, IPOPT])
def test_convergence_is_said_with_its_tolerance(solver):
    small = small_of_solvers()
    problem = Problem(small.rows, TERMS, "nominal", np.ones(1))
    result = solved(problem, SolverOptions(2000, 1e-5, solver=solver))
    assert result.converged
    assert "by less than 1e-05 of its value" in result.reason


def test_a_linear_program_that_is_too_large_for_highs_is_refused(monkeypatch):
    monkeypatch.setattr(engine.optimise.solvers.saddle, "_MOST_ENTRIES", 1000)
    problem = Problem(small_of_solvers().rows, LINEAR, "nominal", np.ones(1))
    with pytest.raises(OptimisationError, match="use solver = 'primal_dual'"):
        solved(problem, SolverOptions(solver="highs"))


@pytest.mark.parametrize("solver", ["newton_cg", *OF_LINEAR])
def test_a_solver_that_cannot_ask_what_it_needs_says_so(solver):
    small = small_of_solvers()
    problem = Problem(small.rows, TERMS, "nominal", np.ones(1))
    with pytest.raises(OptimisationError, match="use solver = 'lbfgsb'"):
        solve(problem.evaluate, np.ones(40), 1, lambda stage, at: 0.0, SolverOptions(solver=solver))


def test_ipopt_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipyopt", None)
    problem = Problem(small_of_solvers().rows, TERMS, "nominal", np.ones(1))
    with pytest.raises(OptimisationError, match="pip install ipyopt"):
        solved(problem, SolverOptions(solver="ipopt"))


def test_what_is_no_linear_program_is_refused_by_its_name():
    small = small_of_solvers()
    with pytest.raises(OptimisationError, match="not linear: target, rest;"):
        SaddlePoint(Problem(small.rows, TERMS, "nominal", np.ones(1)))
    with pytest.raises(OptimisationError, match="not for composite_worst_case"):
        SaddlePoint(Problem(small.rows, LINEAR, "composite_worst_case", PROBABILITY))


class TwoWorkers:
    """Rows of which each half is held by another, who are asked in the other order."""

    def __init__(self, rows):
        half = len(rows.groups) // 2
        self.n_beamlet = rows.n_beamlet
        self._halves = [
            LocalRows(rows.groups[:half], self.n_beamlet),
            LocalRows(rows.groups[half:], self.n_beamlet),
        ]

    def __getattr__(self, method):
        def ask(*arguments):
            second = getattr(self._halves[1], method)(*arguments)
            return [*getattr(self._halves[0], method)(*arguments), *second]

        return ask

    def adjoints(self, by_rows):
        half = len(self._halves[0].groups)
        second = self._halves[1].adjoints(by_rows[half:])
        return [*self._halves[0].adjoints(by_rows[:half]), *second]


@pytest.mark.parametrize("solver", ALL)
def test_one_and_two_holders_of_the_rows_give_the_same_bits(solver):
    small = small_problem(seed=7, block_sizes=(6, 6), n_group=4)
    options = SolverOptions(80, 1e-9, solver=solver)
    one, two = (
        solved(Problem(rows, terms_for(solver), "expected", PROBABILITY), options)
        for rows in (small.rows, TwoWorkers(small.rows))
    )
    assert one.weight.tobytes() == two.weight.tobytes()
    assert one.history.tobytes() == two.history.tobytes()


@pytest.mark.parametrize("solver", [*SMOOTH, "simulated_annealing"])
def test_every_solver_ends_with_a_certificate(solver):
    small = small_problem(seed=5, block_sizes=(8, 8), n_brick=8)
    problem = Problem(small.rows, TERMS, "nominal", np.ones(1))
    cuts, options = Cuts(), SolverOptions(1500, 1e-9, max_bound_evaluations=60, gap=0.02, solver=solver)
    result = solved(problem, options, cuts=cuts)
    certificate = certify(problem, Problem.evaluate, cuts, result, options)
    assert certificate.lower_bound <= solved(problem, EXACT).value
    assert certificate.gap < (0.1 if solver == "simulated_annealing" else 0.02)
