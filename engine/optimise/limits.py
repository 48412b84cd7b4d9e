"""A plan within limits: solved, diagnosed if there is none, and certified."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from engine.model.arrays import F64
from engine.optimise.augmented import Ask, AskFurther, Rounds, solve_within_limits
from engine.optimise.bound import Certificate, Cuts, certify
from engine.optimise.constraints import TOLERANCE_GY
from engine.optimise.infeasible import Diagnosis, Fight, diagnose
from engine.optimise.problem import Evaluation, Problem
from engine.optimise.solvers import Further, SolveResult, SolverOptions


@dataclass(frozen=True)
class LimitsOutcome:
    """What became of the limits.

    Parameters
    ----------
    limits
        Those that the plan was made with: the constraints' own, but for those that had to give.
    excess_gy
        By how much each constraint's own limit is exceeded in its worst scenario, in Gy or what stands for it.
    worst_state
        Number of that scenario.
    multipliers
        By how much the objective would fall if each limit gave by one unit of its function: its derivative.
    diagnosis
        Why limits are not met; None if they are.
    """

    limits: tuple[float, ...]
    excess_gy: tuple[float, ...]
    worst_state: tuple[int, ...]
    multipliers: tuple[float, ...]
    diagnosis: Diagnosis | None

    @classmethod
    def read(cls, kept: Mapping[str, Any]) -> "LimitsOutcome":
        """Return an outcome from its numbers in the store, nested as `dataclasses.asdict` leaves them."""
        told = kept["diagnosis"]
        diagnosis = None
        if told is not None:
            fights = tuple(Fight(**fight) for fight in told["fights"])
            diagnosis = Diagnosis(told["can_be_met"], told["proven"], fights)
        return cls(
            tuple(kept["limits"]),
            tuple(kept["excess_gy"]),
            tuple(kept["worst_state"]),
            tuple(kept["multipliers"]),
            diagnosis,
        )

    @property
    def met(self) -> tuple[bool, ...]:
        """Whether each limit is met within the tolerance."""
        return tuple(excess <= TOLERANCE_GY for excess in self.excess_gy)


def plan_within_limits(
    problem: Problem,
    ask: Ask,
    start: F64,
    n_stage: int,
    temperature: Callable[[int, Evaluation], float],
    options: SolverOptions,
    further: AskFurther = lambda problem: Further(),
) -> tuple[SolveResult, Certificate, LimitsOutcome]:
    """Solve within limits; where they cannot be met, say why, and solve with those relaxed that fight.

    Parameters
    ----------
    problem
        Objective and constraints.
    ask
        `Problem.evaluate`, or something like it.
    start, n_stage, temperature, options, further
        As for `engine.optimise.augmented.solve_within_limits`; every solve on the way may use up the options.
    """
    given, diagnosis = problem, None

    def attempt(begin: F64) -> tuple[Rounds, Cuts]:
        cuts = Cuts()

        def ask_for_planes(asked: Problem, weight: F64, smoothing: float) -> Evaluation:
            evaluation = ask(asked, weight, smoothing)
            # Without pressure the plane is that of the objective, which is good everywhere.
            cuts.add(weight, evaluation)
            return evaluation

        rounds = solve_within_limits(
            problem, ask_for_planes, begin, n_stage, temperature, options, further=further
        )
        return rounds, cuts

    rounds, cuts = attempt(start)
    if not rounds.met:
        diagnosis, weight, relaxed = diagnose(problem, ask, rounds.result.weight, options, further)
        problem = problem.limited_by(relaxed)
        before = rounds.result
        rounds, cuts = attempt(weight)
        rounds = replace(rounds, result=_after(before, rounds.result))
        if diagnosis.can_be_met and rounds.met:
            diagnosis = None
    certificate = certify(problem.pressed(rounds.pressure), ask, cuts, rounds.result, options)
    excess_gy = given.excess_gy(rounds.result.limited)
    multipliers = rounds.pressure.multiplier.sum(axis=1)
    outcome = LimitsOutcome(
        tuple(constraint.limit for constraint in problem.constraints),
        tuple(float(excess) for excess in excess_gy.max(axis=1)),
        tuple(int(state) for state in excess_gy.argmax(axis=1)),
        tuple(
            float(multiplier) / constraint.unit_per_gy
            for multiplier, constraint in zip(multipliers, problem.constraints, strict=True)
        ),
        diagnosis,
    )
    return rounds.result, certificate, outcome


def _after(before: SolveResult, result: SolveResult) -> SolveResult:
    """Return the result with the history of an attempt before."""
    n_before = before.history.size
    return replace(
        result,
        history=np.concatenate([before.history, result.history]),
        stage_begin=(*before.stage_begin, *(n_before + begin for begin in result.stage_begin)),
        n_product=before.n_product + result.n_product,
    )
