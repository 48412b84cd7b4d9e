"""What all solvers have in common: options, result, and the questions of a stage, counted and within their limit."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from engine.errors import OptimisationError
from engine.model.arrays import F64
from engine.optimise.problem import Evaluation

if TYPE_CHECKING:
    from engine.optimise.solvers.saddle import SaddlePoint

SolverName = Literal[
    "lbfgsb", "newton_cg", "projected_gradient", "simulated_annealing", "primal_dual", "highs", "ipopt"
]
SOLVER_WORDS: dict[SolverName, str] = {
    "lbfgsb": "L-BFGS-B",
    "newton_cg": "projected Newton-CG",
    "projected_gradient": "spectral projected gradient",
    "simulated_annealing": "simulated annealing",
    "primal_dual": "primal-dual hybrid gradient",
    "highs": "HiGHS",
    "ipopt": "IPOPT",
}
"""Names of the solvers for reports."""


@dataclass(frozen=True)
class SolverOptions:
    """How to solve, how long and how exactly.

    Parameters
    ----------
    max_evaluations
        Questions in all stages together: evaluations of value and gradient, and products with the Hessian, each of
        which reads the matrix twice. (Simulated annealing asks for values alone, which read it once.)
    tolerance
        The last stage ends when an iteration lowers the objective by less than this share of it (projected gradient
        and IPOPT: ten iterations; primal-dual: when the distance from a solution is less than this share). On the
        TG-119 example and with L-BFGS-B, 1e-7 ends about 4e-5 above the optimum, 1e-5 about 4e-4.
    memory
        Correction pairs that L-BFGS-B keeps.
    max_bound_evaluations
        Further evaluations that the lower bound may take (`engine.optimise.bound`), besides one for each cap.
    gap
        Certified gap, as a share of the objective, at which the lower bound is good enough.
    solver
        Which solver.
    seed
        Of the random moves of simulated annealing; others have none.
    """

    max_evaluations: int = 500
    tolerance: float = 1e-7
    memory: int = 20
    max_bound_evaluations: int = 20
    gap: float = 0.01
    solver: SolverName = "lbfgsb"
    seed: int = 0


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
    n_product
        Products with the Hessian, beside the evaluations.
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
    n_product: int = 0
    limited: F64 = field(default_factory=lambda: np.zeros((0, 0)))


@dataclass(frozen=True)
class Further:
    """What some solvers ask beside value and gradient.

    Parameters
    ----------
    product
        Product of the Hessian with a direction, at (weights, direction, smoothing): for projected Newton-CG.
    value
        Value without gradient at (weights, smoothing): for simulated annealing, which else asks for both.
    saddle
        The problem as a saddle point: for the primal-dual solver and HiGHS.
    plane
        Whom that tells of planes below the objective, as value and slope at some weights.
    keep, restore
        Keep the state of the primal-dual solver, and return the one that was kept last, if any: so an interrupted
        solve goes on. The others go on by answers that are replayed.
    """

    product: Callable[[F64, F64, float], F64] | None = None
    value: Callable[[F64, float], Evaluation] | None = None
    saddle: "SaddlePoint | None" = None
    plane: Callable[[F64, Evaluation], None] | None = None
    keep: Callable[[F64], None] | None = None
    restore: Callable[[], F64 | None] | None = None


@dataclass(frozen=True)
class Ending:
    """Why a stage ended, in words, and whether that was its tolerance rather than a limit."""

    reason: str
    converged: bool


class _OutOfQuestionsError(Exception):
    """Ends a solver from within when its stage has had all questions that it is allowed."""


class Search:
    """State of one solve: the questions asked so far, and the best point of the present stage.

    Parameters
    ----------
    evaluate
        Value and gradient at (weights, smoothing).
    start
        Weights to start from, shape (n_beamlet,).
    options
        Limits.
    further
        What else can be asked.
    """

    def __init__(
        self,
        evaluate: Callable[[F64, float], Evaluation],
        start: F64,
        options: SolverOptions,
        further: Further,
    ) -> None:
        self._evaluate, self.options, self.further = evaluate, options, further
        self.weight = start
        self.best = _checked(evaluate(start, 0.0))
        self.history = [self.best.exact]
        self.n_product = 0
        self.stage_begin: list[int] = []
        self.temperature, self._lowest = 0.0, np.inf
        self._allowed = options.max_evaluations
        self.tolerance = options.tolerance

    def begin_stage(self, temperature: float, last: bool) -> None:
        """Set smoothing, limit and tolerance of a stage, in which the best point is judged anew."""
        left = self.options.max_evaluations - self.n_asked
        self._allowed = self.n_asked + (left if last else left // 3)
        self.stage_begin.append(len(self.history))
        self.temperature, self._lowest = temperature, np.inf
        self.tolerance = self.options.tolerance if last else 100.0 * self.options.tolerance

    def descend(self, solver: Callable[["Search"], Ending]) -> Ending:
        """Let a solver run the stage, until it ends or has asked all questions that the stage may ask."""
        try:
            return solver(self)
        except _OutOfQuestionsError:
            return Ending(f"the limit of {self.options.max_evaluations} evaluations was reached", False)

    @property
    def n_asked(self) -> int:
        """Questions so far."""
        return len(self.history) + self.n_product

    @property
    def n_left(self) -> int:
        """Questions that the stage may still ask."""
        return self._allowed - self.n_asked

    def evaluate(self, weight: F64) -> Evaluation:
        """Return value and gradient."""
        self._count()
        return self._taken(weight, self._evaluate(weight, self.temperature))

    def value(self, weight: F64) -> Evaluation:
        """Return the value, without a gradient if it can be had without."""
        self._count()
        return self._taken(weight, (self.further.value or self._evaluate)(weight, self.temperature))

    def product(self, weight: F64, direction: F64) -> F64:
        """Return the product of the Hessian with a direction."""
        if self.further.product is None:
            raise OptimisationError(
                "projected Newton-CG needs products with the Hessian, and nobody gives them; use solver = 'lbfgsb'"
            )
        self._count()
        product = self.further.product(weight, direction, self.temperature)
        if not np.isfinite(product).all():
            raise OptimisationError(
                "a product with the Hessian is not finite; check dose levels and exponents"
            )
        self.n_product += 1
        return product

    def note(self, exact: float) -> None:
        """Take note of a question that was asked elsewhere, and of the objective that it found."""
        self._count()
        self.history.append(exact)

    def _count(self) -> None:
        if self.n_left <= 0:
            raise _OutOfQuestionsError

    def _taken(self, weight: F64, evaluation: Evaluation) -> Evaluation:
        _checked(evaluation)
        self.history.append(evaluation.exact)
        if evaluation.value < self._lowest:
            self._lowest, self.best, self.weight = evaluation.value, evaluation, weight.copy()
        return evaluation


def _checked(evaluation: Evaluation) -> Evaluation:
    if not np.isfinite(evaluation.value) or not np.isfinite(evaluation.gradient).all():
        raise OptimisationError(
            "the objective or its gradient is not a finite number; "
            "check the dose levels and exponents of the objectives"
        )
    return evaluation
