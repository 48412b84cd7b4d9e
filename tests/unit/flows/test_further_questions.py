"""What solvers ask beside value and gradient: a solve that is killed at any question goes on, bit for bit."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from engine.optimise.bound import Cuts, certify
from engine.optimise.constraints import Constraint
from engine.optimise.functions import LinearOverdose, LinearUnderdose, MeanDose, SquaredDeviation
from engine.optimise.group import Term
from engine.optimise.limits import plan_within_limits
from engine.optimise.problem import Problem
from engine.optimise.robust import n_smoothing_stage, smoothing
from engine.optimise.solvers import SolverOptions, solve
from flows.further_questions import Asking, further_questions
from storage.evaluation_log import EvaluationLog
from storage.store import Store
from tests.dense_tiles import small_problem

PROBABILITY = np.array([0.5, 0.3, 0.2])
SMOOTH = [Term("t", 0, SquaredDeviation(dose_gy=6.0), 1.0), Term("m", 1, MeanDose(), 0.1)]
LINEAR = [
    Term("u", 0, LinearUnderdose(dose_gy=6.0), 5.0),
    Term("o", 0, LinearOverdose(dose_gy=6.5), 3.0),
    Term("m", 1, MeanDose(), 0.4),
]
LIMITS = [Constraint("low", 1, MeanDose(), "at_most", 1.5)]
SOLVERS = {
    "newton_cg": ("composite_worst_case", SMOOTH, 90, (1, 7, 30)),
    "newton_cg within limits": ("composite_worst_case", SMOOTH, 300, (1, 7, 130)),
    "projected_gradient": ("composite_worst_case", SMOOTH, 90, (1, 7, 30)),
    "simulated_annealing": ("composite_worst_case", SMOOTH, 90, (1, 7, 30)),
    # Its state is kept after every 50 steps; the last of these kills it among the questions for the bound.
    "primal_dual": ("expected", LINEAR, 180, (20, 70, 91)),
}
WRITER = itertools.count()


class KilledError(BaseException):
    """Ends a solve as a signal would: nothing is written any more."""


def attempt(store, case, kill_at, request):
    """Solve until so many answers were computed; returns bits of all results, and how many were."""
    form, terms, n_most, _ = SOLVERS[case]
    solver, _, limited = case.partition(" ")
    rows = small_problem(seed=8, block_sizes=(6, 6)).rows
    problem = Problem(rows, terms, form, PROBABILITY, constraints=LIMITS if limited else ())
    log, cuts = EvaluationLog(store, "abc", f"writer{next(WRITER)}"), Cuts()
    request.addfinalizer(lambda: log.close(finished=False))
    n_computed = 0

    def count():
        nonlocal n_computed
        n_computed += 1
        if n_computed == kill_at:
            raise KilledError

    def evaluate(asked, weight, temperature):
        known = log.replay(weight, temperature)
        if known is not None:
            return known
        evaluation = asked.evaluate(weight, temperature)
        count()
        log.append(weight, temperature, evaluation, 0.0)
        return evaluation

    def evaluate_for_solver(weight, temperature):
        evaluation = evaluate(problem, weight, temperature)
        cuts.add(weight, evaluation)
        return evaluation

    asking = Asking(
        SimpleNamespace(require_held=lambda: None),
        log,
        SimpleNamespace(advance=lambda n, note="": None),
        SimpleNamespace(count=count, recent=lambda: 0.0),
        cuts,
    )
    options = SolverOptions(n_most, 1e-12, max_bound_evaluations=10, gap=0.0, solver=solver, seed=3)
    start, n_stage = np.ones(12), n_smoothing_stage(form)

    def temperature(stage, at):
        return smoothing(form, stage, at.exact, 6.0)

    def further(asked):
        return further_questions(asked, options, None, asking)

    if limited:
        result, *told = plan_within_limits(problem, evaluate, start, n_stage, temperature, options, further)
    else:
        result = solve(evaluate_for_solver, start, n_stage, temperature, options, further(problem))
        told = [certify(problem, evaluate, cuts, result, options)]
    log.close(finished=True)
    return (result.weight.tobytes(), result.history.tobytes(), result.n_product, told), n_computed


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_solve_that_is_killed_again_and_again_ends_with_the_same_bits(solver, tmp_path, request):
    undisturbed, n_all = attempt(Store(tmp_path / "undisturbed").folder, solver, 0, request)
    store = Store(tmp_path / "killed").folder
    for kill_at in SOLVERS[solver][3]:
        with pytest.raises(KilledError):
            attempt(store, solver, kill_at, request)
    again, n_rest = attempt(store, solver, 0, request)
    assert again == undisturbed
    if solver == "primal_dual":
        # Steps since the last state that was kept are made again: no more than 50, and two products to begin with.
        assert n_rest <= n_all - 100
    else:
        assert n_rest == n_all - sum(kill_at - 1 for kill_at in SOLVERS[solver][3])
