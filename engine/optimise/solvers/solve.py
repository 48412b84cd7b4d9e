"""One call for all solvers: stages of decreasing smoothing, each from the best point of the one before."""

from collections.abc import Callable

import numpy as np
from threadpoolctl import threadpool_limits

from engine.errors import OptimisationError
from engine.model.arrays import F64
from engine.optimise.problem import Evaluation
from engine.optimise.solvers import (
    annealing,
    highs,
    ipopt,
    lbfgsb,
    newton_cg,
    primal_dual,
    projected_gradient,
)
from engine.optimise.solvers.base import (
    Ending,
    Further,
    Search,
    SolveResult,
    SolverName,
    SolverOptions,
)

_SOLVERS: dict[SolverName, Callable[[Search], Ending]] = {
    "lbfgsb": lbfgsb.descend,
    "newton_cg": newton_cg.descend,
    "projected_gradient": projected_gradient.descend,
    "simulated_annealing": annealing.descend,
    "primal_dual": primal_dual.descend,
    "highs": highs.descend,
    "ipopt": ipopt.descend,
}


def solve(
    evaluate: Callable[[F64, float], Evaluation],
    start: F64,
    n_stage: int,
    temperature: Callable[[int, Evaluation], float],
    options: SolverOptions,
    further: Further = Further(),  # noqa: B008  (it is frozen)
) -> SolveResult:
    """Minimise a function of non-negative weights.

    Every solver is deterministic: given the same answers it asks the same questions.

    Parameters
    ----------
    evaluate
        Value and gradient at (weights, temperature).
    start
        Weights to start from, shape (n_beamlet,).
    n_stage
        Number of stages; every stage but the last may use a third of the evaluations that are left.
    temperature
        Smoothing of a stage, from its number and the evaluation it starts at.
    options
        Solver and limits.
    further
        What some solvers ask beside value and gradient.

    Raises
    ------
    OptimisationError
        If the objective is not a finite number, no evaluation is left for the last stage, or a solver cannot ask what
        it needs.
    """
    search = Search(evaluate, start, options, further)
    ending = Ending("", False)
    # One BLAS thread: with more, the order of sums, and so the last bits, would depend on the machine.
    with threadpool_limits(1, "blas"):
        for stage in range(n_stage):
            search.begin_stage(temperature(stage, search.best), last=stage == n_stage - 1)
            ending = search.descend(_SOLVERS[options.solver])
    if search.stage_begin[-1] >= len(search.history):
        raise OptimisationError(
            f"max_evaluations={options.max_evaluations} leaves none for the last stage; allow more"
        )
    return SolveResult(
        search.weight,
        search.best.exact,
        np.asarray(search.history),
        tuple(search.stage_begin),
        search.best.term_values,
        ending.reason,
        ending.converged,
        search.n_product,
        search.best.limited,
    )
