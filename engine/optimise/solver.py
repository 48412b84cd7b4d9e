"""The default solver: L-BFGS-B on a smooth objective with bounds, in stages of decreasing smoothing."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from engine.errors import OptimisationError
from engine.model.arrays import F64
from engine.optimise.problem import Evaluation


@dataclass(frozen=True)
class SolverOptions:
    """How long and how exactly to solve.

    Parameters
    ----------
    max_evaluations
        Evaluations of value and gradient in all stages together.
    tolerance
        The last stage ends when an iteration lowers the objective by less than this share of it. On the TG-119 example
        1e-7 ends about 4e-5 above the optimum, 1e-5 about 4e-4.
    memory
        Correction pairs that L-BFGS-B keeps.
    max_bound_evaluations
        Further evaluations that the lower bound may take (`engine.optimise.bound`), besides one for each cap.
    gap
        Certified gap, as a share of the objective, at which the lower bound is good enough.
    """

    max_evaluations: int = 500
    tolerance: float = 1e-7
    memory: int = 20
    max_bound_evaluations: int = 20
    gap: float = 0.01


@dataclass(frozen=True)
class SolveResult:
    """A solution and how it was reached.

    Parameters
    ----------
    weight
        Best weights of the last stage, shape (n_beamlet,).
    value
        Exact (unsmoothed) objective at ``weight``.
    history
        Exact objective of every evaluation, shape (n_evaluation,).
    stage_begin
        First evaluation of every stage.
    term_values
        Unweighted term values at ``weight``, shape (n_term, n_state).
    reason
        Why the solver stopped, in words.
    converged
        Whether the tolerance was reached, rather than a limit.
    limited
        Value of every constraint's function at ``weight`` in every scenario, shape (n_constraint, n_scenario).
    """

    weight: F64
    value: float
    history: F64
    stage_begin: tuple[int, ...]
    term_values: F64
    reason: str
    converged: bool
    limited: F64 = field(default_factory=lambda: np.zeros((0, 0)))


def solve(
    evaluate: Callable[[F64, float], Evaluation],
    start: F64,
    n_stage: int,
    temperature: Callable[[int, Evaluation], float],
    options: SolverOptions,
) -> SolveResult:
    """Minimise a smooth function of non-negative weights.

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
        Limits.

    Raises
    ------
    OptimisationError
        If the objective is not a finite number, or no evaluation is left for the last stage.
    """
    run = _Run(evaluate, start, options)
    for stage in range(n_stage):
        run.stage(temperature(stage, run.best), last=stage == n_stage - 1)
    return run.result()


_SCALED_START = 1e8
"""Where a stage's scaled objective begins: it may fall by as much before the tolerance turns absolute."""


class _OutOfEvaluationsError(Exception):
    """Ends scipy's minimiser from within."""


class _Run:
    """State of one solve: the best point so far and the history."""

    def __init__(
        self, evaluate: Callable[[F64, float], Evaluation], start: F64, options: SolverOptions
    ) -> None:
        self._evaluate, self._options = evaluate, options
        self.weight = start
        self.best = _checked(evaluate(start, 0.0))
        self.history = [self.best.exact]
        self.stage_begin: list[int] = []
        self.reason, self.converged = "", False

    def stage(self, temperature: float, last: bool) -> None:
        """Run L-BFGS-B from the best point, which is judged anew with this smoothing."""
        options = self._options
        left = options.max_evaluations - len(self.history)
        allowed = len(self.history) + (left if last else left // 3)
        self.stage_begin.append(len(self.history))
        lowest = np.inf
        # scipy's tolerance is relative to the objective, but never to less than 1. A power of two keeps all bits.
        scale = 2.0 ** round(np.log2(_SCALED_START / self.best.exact)) if self.best.exact > 0.0 else 1.0

        def value_and_gradient(weight: F64) -> tuple[float, F64]:
            nonlocal lowest
            if len(self.history) >= allowed:
                raise _OutOfEvaluationsError
            evaluation = _checked(self._evaluate(weight, temperature))
            self.history.append(evaluation.exact)
            if evaluation.value < lowest:
                lowest, self.best, self.weight = evaluation.value, evaluation, weight.copy()
            return scale * evaluation.value, scale * evaluation.gradient

        tolerance = options.tolerance if last else 100.0 * options.tolerance
        try:
            # One BLAS thread: with more, the order of sums, and so the last bits, would depend on the machine.
            with threadpool_limits(1, "blas"):
                result = minimize(
                    value_and_gradient,
                    self.weight,
                    jac=True,
                    method="L-BFGS-B",
                    bounds=[(0.0, None)] * self.weight.size,
                    options={
                        "maxcor": options.memory,
                        "maxiter": options.max_evaluations,
                        "maxfun": options.max_evaluations + 1,
                        "ftol": tolerance,
                        "gtol": 0.0,
                        "maxls": 40,
                    },
                )
        except _OutOfEvaluationsError:
            self.converged = False
            self.reason = f"the limit of {options.max_evaluations} evaluations was reached"
            return
        self.converged = bool(result.status == 0)
        if not self.converged:
            self.reason = f"the line search found no lower value ({result.message})"
        elif "GRADIENT" in result.message:
            self.reason = "no weight can be changed so that the objective falls"
        else:
            self.reason = f"an iteration lowered the objective by less than {tolerance:g} of its value"

    def result(self) -> SolveResult:
        """Return the best point of the last stage."""
        if self.stage_begin[-1] >= len(self.history):
            raise OptimisationError(
                f"max_evaluations={self._options.max_evaluations} leaves none for the last stage; allow more"
            )
        return SolveResult(
            self.weight,
            self.best.exact,
            np.asarray(self.history),
            tuple(self.stage_begin),
            self.best.term_values,
            self.reason,
            self.converged,
            self.best.limited,
        )


def _checked(evaluation: Evaluation) -> Evaluation:
    if not np.isfinite(evaluation.value) or not np.isfinite(evaluation.gradient).all():
        raise OptimisationError(
            "the objective or its gradient is not a finite number; "
            "check the dose levels and exponents of the objectives"
        )
    return evaluation
