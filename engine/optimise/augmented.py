r"""Solves within limits: an augmented Lagrangian around the solver.

Each round minimises the objective and what the limits' pressure adds to it (`engine.optimise.constraints`), beginning
where the round before ended. Then multipliers become :math:`\lambda \leftarrow \max(0, \lambda + \rho g)`; the penalty
grows where a round has not brought excesses and multipliers nearer to agreement (Birgin and Martínez, Practical
Augmented Lagrangian Methods, SIAM 2014, algorithm 4.1).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from engine.errors import OptimisationError
from engine.model.arrays import F64
from engine.optimise.constraints import TOLERANCE_GY, Pressure
from engine.optimise.problem import Evaluation, Problem
from engine.optimise.solvers import Further, SolveResult, SolverName, SolverOptions, solve

Ask = Callable[[Problem, F64, float], Evaluation]
"""`Problem.evaluate`, or something that asks together with others, or from a log."""
AskFurther = Callable[[Problem], Further]
"""What else can be asked of a problem under some pressure."""
SOLVERS_WITHIN_LIMITS: tuple[SolverName, ...] = ("lbfgsb", "newton_cg", "projected_gradient")
"""Solvers that a round can use: they begin where the one before ended, and minimise any smooth objective."""
_LOOSER = (100.0, 30.0, 10.0, 3.0)
"""The first rounds end at so many times the tolerance: their multipliers are but guesses."""
_DISAGREEMENT = 100.0
"""How far multipliers times excesses may be from 0 at the end, as a share of the objective: so many tolerances."""
_TO_HOLD = 10.0
"""First penalty of the others where one excess is minimised, whose own is 1."""
_GROWTH = 5.0
_ENOUGH = 0.25
"""The penalty grows unless disagreement falls below this part of what it was."""
_NEGLIGIBLE_GY = 1e-4
"""It does not grow for less: what the solver leaves of an excess goes into the multipliers, times the penalty."""
_HARDLY = 0.9
_MOST_IN_VAIN = 3
"""Rounds in a row, with growing penalty, that hardly lower the largest excess: then there is something to diagnose."""
_MOST_ROUNDS = 60
_FEWEST_EVALUATIONS = 10


@dataclass(frozen=True)
class Rounds:
    """How some rounds ended.

    Parameters
    ----------
    result
        The point that was reached; its history is that of all rounds.
    pressure
        Multipliers at the end, and the penalty that they were found with.
    excess_gy
        By how much limits are exceeded in every scenario, (n_constraint, n_scenario); -inf where none is.
    temperature
        Smoothing of the last round.
    met
        Whether no limit that has to be held is exceeded by more than the tolerance.
    """

    result: SolveResult
    pressure: Pressure
    excess_gy: F64
    temperature: float
    met: bool


def solve_within_limits(
    problem: Problem,
    ask: Ask,
    start: F64,
    n_stage: int,
    temperature: Callable[[int, Evaluation], float],
    options: SolverOptions,
    soft: int | None = None,
    further: AskFurther = lambda problem: Further(),
) -> Rounds:
    """Minimise the objective within the limits, or the excess over one of them within all others.

    Parameters
    ----------
    problem
        Objective and constraints.
    ask
        `Problem.evaluate`, or something like it.
    start
        Weights to start from, shape (n_beamlet,).
    n_stage, temperature
        Stages of the first round, as for `engine.optimise.solvers.solve`; later rounds have the last one's smoothing.
    options
        Limits of all rounds together.
    soft
        Number of a constraint whose squared excess is minimised, instead of the objective.
    further
        What else can be asked of a problem under some pressure, such as products with its Hessian.

    Raises
    ------
    OptimisationError
        If the solver cannot do it.
    """
    if options.solver not in SOLVERS_WITHIN_LIMITS:
        raise OptimisationError(why_not_within_limits(options.solver))
    pressure = _first_pressure(problem, ask(problem, start, 0.0), soft)
    held = np.arange(len(problem.constraints)) != (-1 if soft is None else soft)
    used_temperature = 0.0
    histories: list[F64] = []
    begins: list[int] = []
    weight, n_used, n_product = start, 1, 0
    best: Rounds | None = None
    number, settled, n_in_vain = 0, False, 0
    disagreement = violation = np.inf

    def of_stage(stage: int, at: Evaluation) -> float:
        nonlocal used_temperature
        if not histories:
            used_temperature = temperature(stage, at)
        return used_temperature

    while best is None or number < _MOST_ROUNDS:
        looser = _LOOSER[number] if number < len(_LOOSER) else 1.0
        pressed = problem.pressed(pressure)
        found = solve(
            lambda at, smoothing, pressed=pressed: ask(pressed, at, smoothing),  # type: ignore[misc]
            weight,
            n_stage if number == 0 else 1,
            of_stage,
            replace(
                options,
                tolerance=looser * options.tolerance,
                max_evaluations=options.max_evaluations - n_used,
            ),
            further(pressed),
        )
        begins.extend(1 + sum(part.size for part in histories) + begin for begin in found.stage_begin)
        histories.append(found.history)
        n_used += found.history.size + found.n_product
        n_product += found.n_product
        weight = found.weight
        excess_gy = problem.excess_gy(found.limited)
        agreed = np.where(
            held[:, None], np.maximum(excess_gy, -pressure.multiplier / pressure.penalty[:, None]), 0.0
        )
        largest, violation_before = float(np.abs(agreed).max()), violation
        violation = float(np.maximum(excess_gy[held], 0.0).max(initial=0.0))
        multiplier = np.where(held[:, None], pressure.slope(excess_gy), 0.0)
        off = float((multiplier * np.where(np.isfinite(excess_gy), np.abs(excess_gy), 0.0)).sum())
        met = violation <= TOLERANCE_GY
        ended = Rounds(found, replace(pressure, multiplier=multiplier), excess_gy, used_temperature, met)
        if met or best is None or not best.met:
            best = ended
        settled = met and off <= _DISAGREEMENT * options.tolerance * abs(found.value) and looser == 1.0
        if settled or options.max_evaluations - n_used < _FEWEST_EVALUATIONS:
            break
        grows = number > 0 and largest > max(_ENOUGH * disagreement, _NEGLIGIBLE_GY)
        hardly = not met and grows and violation > _HARDLY * violation_before
        n_in_vain = n_in_vain + 1 if hardly else 0
        if n_in_vain == _MOST_IN_VAIN:
            break
        penalty = np.where(held, pressure.penalty * (_GROWTH if grows else 1.0), pressure.penalty)
        pressure = replace(pressure, multiplier=multiplier, penalty=penalty)
        disagreement = largest
        number += 1
    history = np.concatenate([[histories[0][0]], *histories])
    told = _told(best, history, begins, number + 1, settled)
    return replace(best, result=replace(told, n_product=n_product))


def why_not_within_limits(solver: SolverName) -> str:
    """Return in words why a solver is none for hard constraints."""
    return (
        f"solver '{solver}' knows no hard constraints; use {', '.join(map(repr, SOLVERS_WITHIN_LIMITS[:-1]))} or "
        f"'{SOLVERS_WITHIN_LIMITS[-1]}', or make the constraints objectives"
    )


def _told(best: Rounds, history: F64, begins: list[int], n_round: int, settled: bool) -> SolveResult:
    """Return the result with the history of all rounds, and why they ended."""
    why = (
        best.result.reason
        if settled or not best.met
        else f"{best.result.reason}; multipliers had not settled"
    )
    return replace(
        best.result,
        history=history,
        stage_begin=tuple(begins),
        converged=best.result.converged and settled,
        reason=f"{why}, in {n_round} rounds of the augmented Lagrangian",
    )


def _first_pressure(problem: Problem, at: Evaluation, soft: int | None) -> Pressure:
    """Return multipliers of 0, and a penalty for which excesses at the start weigh about as much as the objective."""
    excess_gy = problem.excess_gy(at.limited)
    squares = np.maximum(excess_gy, 0.0) ** 2
    penalty = np.full(len(problem.constraints), 2.0 * at.exact / max(float(squares.sum()), 1.0) or 1.0)
    if soft is not None:
        # All are in Gy: what is to hold weighs more than what is to be small, even at the smallest compromise.
        penalty[:] = _TO_HOLD
        penalty[soft] = 1.0
    return Pressure(np.zeros_like(excess_gy), penalty, objective=soft is None)
