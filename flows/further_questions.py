"""What a solve asks beside value and gradient: answered, counted and logged, so that it can be interrupted."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.model.arrays import F64
from engine.optimise.bound import Cuts
from engine.optimise.problem import Evaluation, Problem
from engine.optimise.solvers import Further, SolverOptions
from engine.optimise.solvers.saddle import SaddlePoint
from engine.optimise.together import Meeting
from flows.progress import Steps
from storage.evaluation_log import EvaluationLog
from storage.lease import Lease

if TYPE_CHECKING:
    from flows.solving import ResidentTiles

_CPU_EVERY_S = 1.0


class CpuSeconds:
    """CPU seconds that a solve has cost, those before an interruption included.

    Of what workers spend while several solves run side by side, each has its share by evaluations.
    """

    def __init__(self, tiles: "ResidentTiles", before_s: float) -> None:
        self._tiles, self._before_s, self._n_own = tiles, before_s, 0
        self._begin_s, self._n_begin = tiles.cpu_s(), tiles.n_evaluation
        self._recent_s, self._asked_s = before_s, time.monotonic()

    def count(self) -> None:
        """Take note of an evaluation of this solve."""
        self._n_own += 1
        self._tiles.count()

    def now(self) -> float:
        """Ask the workers."""
        share = self._n_own / max(1, self._tiles.n_evaluation - self._n_begin)
        # Not below what was: what lost workers had spent is not known.
        spent_s = self._before_s + (self._tiles.cpu_s() - self._begin_s) * share
        self._recent_s = max(self._recent_s, spent_s)
        self._asked_s = time.monotonic()
        return self._recent_s

    def recent(self) -> float:
        """Return what is known, asking once a second: often enough for a log, and no load on short evaluations."""
        return self.now() if time.monotonic() - self._asked_s > _CPU_EVERY_S else self._recent_s


@dataclass(frozen=True)
class Asking:
    """What stands by while a solve asks: its lease, its log, who is told of progress, its CPU seconds, its planes."""

    lease: Lease
    log: EvaluationLog
    steps: Steps
    cpu: CpuSeconds
    cuts: Cuts


def further_questions(
    problem: Problem, options: SolverOptions, meeting: Meeting | None, asking: Asking
) -> Further:
    """Return what a study's solver may ask beside value and gradient.

    Parameters
    ----------
    problem
        The problem.
    options
        Solver and limits.
    meeting
        Where solves side by side meet.
    asking
        What stands by.
    """
    log, cpu = asking.log, asking.cpu
    ask_product = Problem.hessian_product if meeting is None else meeting.hessian_product
    ask_value = Problem.value if meeting is None else meeting.value

    def product(weight: F64, direction: F64, temperature: float) -> F64:
        asking.lease.require_held()
        known = log.replay_product(weight, direction, temperature)
        if known is not None:
            return known
        product = ask_product(problem, weight, direction, temperature)
        cpu.count()
        log.append_product(weight, direction, temperature, product, cpu.recent())
        asking.steps.advance(1)
        return product

    def value(weight: F64, temperature: float) -> Evaluation:
        asking.lease.require_held()
        known = log.replay(weight, temperature)
        if known is not None:
            return known
        evaluation = ask_value(problem, weight, temperature)
        cpu.count()
        log.append(weight, temperature, evaluation, cpu.recent())
        asking.steps.advance(1, f"objective {evaluation.exact:.6g}")
        return evaluation

    if options.solver not in ("primal_dual", "highs"):
        return Further(product=product, value=value)
    return Further(
        saddle=_CountedSaddlePoint(problem, asking),
        plane=asking.cuts.add,
        keep=lambda state: log.keep_state(state, cpu.recent()),
        restore=log.restore_state,
    )


class _CountedSaddlePoint(SaddlePoint):
    """A saddle point that counts its steps, each of which ends with the adjoint."""

    def __init__(self, problem: Problem, asking: Asking) -> None:
        self._asking = asking
        super().__init__(problem)

    def adjoint(self, multiplier: F64) -> F64:
        self._asking.lease.require_held()
        product = super().adjoint(multiplier)
        self._asking.cpu.count()
        self._asking.steps.advance(1)
        return product
