r"""Why limits cannot be met together: which of them fight, and by how much each would have to give.

The smallest compromise minimises :math:`q = \frac12 \sum_{c,s} \max(0, g_{cs})^2` over all weights. With
:math:`r = \max(0, g)` where q is least, :math:`\sum r\, \nabla g \ge 0` (and 0 for weights above 0), so that for
convex limits

.. math:: \sum_{cs} r_{cs}\, g_{cs}(x) \ge \sum_{cs} r_{cs}\, g_{cs}(\hat x) = \sum_{cs} r_{cs}^2 > 0

for all weights x: no plan has :math:`g \le 0` for all limits with r > 0. So these are the ones that fight, and the
others have no part in it. Rounding aside: `Diagnosis.proven` says whether planes of q prove that q is above 0 wherever
the caps that follow from the limits hold.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from engine.model.arrays import F64
from engine.optimise.augmented import Ask, AskFurther, solve_within_limits
from engine.optimise.bound import Cuts, LowerModel, caps_of_limits
from engine.optimise.constraints import TOLERANCE_GY, Constraint, Pressure
from engine.optimise.problem import Evaluation, Problem
from engine.optimise.solvers import Further, SolverOptions, solve

_HAS_A_PART = 1e-3
"""Excesses below this part of the largest one are rounding of the solver."""
_TOLERANCE = 1e-8
"""Excesses enter squared, and are wanted to about 1e-4: they tell which limits fight."""
_TOLERANCE_ALONE = 1e-6
"""How far a single limit would have to give is told with three digits."""


@dataclass(frozen=True)
class Fight:
    """A limit that fights with others.

    Parameters
    ----------
    constraint
        Its number.
    together
        By how much it gives in the smallest compromise, in the function's unit.
    alone
        By how much it would have to give if all others are kept, or None if these cannot be met either.
    """

    constraint: int
    together: float
    alone: float | None


@dataclass(frozen=True)
class Diagnosis:
    """Why limits were not met.

    Parameters
    ----------
    can_be_met
        Whether a plan was found that meets them.
    proven
        Whether it is proven that there is none; otherwise none was found.
    fights
        The limits that fight.
    """

    can_be_met: bool
    proven: bool
    fights: tuple[Fight, ...]

    def sentences(self, constraints: Sequence[Constraint]) -> tuple[str, ...]:
        """Return it in words."""
        if self.can_be_met:
            return (
                "The limits can be met (a plan that meets them was found), but the solver did not get there within its "
                "evaluations; allow more with max_evaluations.",
            )
        first = (
            "No plan meets all limits (proven)."
            if self.proven
            else "No plan was found that meets all limits."
        )
        if len(self.fights) == 1:
            (fight,) = self.fights
            constraint = constraints[fight.constraint]
            return (
                first,
                f"'{constraint.in_words()}' is out of reach by itself: the best that was found is "
                f"{_moved(constraint, fight.together)}.",
            )
        names = "; ".join(f"'{constraints[fight.constraint].in_words()}'" for fight in self.fights)
        return (
            first,
            f"These {len(self.fights)} fight: {names}.",
            *(self._alone(constraints[fight.constraint], fight) for fight in self.fights),
        )

    @staticmethod
    def _alone(constraint: Constraint, fight: Fight) -> str:
        together = (
            f"in the smallest compromise of all it gives {_amount(constraint, fight.together)}, "
            f"to {_moved(constraint, fight.together)}"
        )
        if fight.alone is None:
            return (
                f"If '{constraint.in_words()}' gave way alone, the others could still not be met; {together}."
            )
        return (
            f"If all others are kept, '{constraint.in_words()}' would have to give {_amount(constraint, fight.alone)}, "
            f"to {_moved(constraint, fight.alone)}; {together}."
        )


class _MetError(Exception):
    """Ends the search for the smallest compromise at weights that meet all limits."""

    def __init__(self, weight: F64) -> None:
        super().__init__()
        self.weight = weight


def diagnose(
    problem: Problem,
    ask: Ask,
    start: F64,
    options: SolverOptions,
    further: AskFurther = lambda problem: Further(),
) -> tuple[Diagnosis, F64, tuple[Constraint, ...]]:
    """Find out whether limits can be met, and if not, which fight.

    Parameters
    ----------
    problem
        What could not be solved within its limits.
    ask
        `Problem.evaluate`, or something like it.
    start
        Where the solver ended, shape (n_beamlet,).
    options
        Limits of each solve on the way.
    further
        What else can be asked, as for `engine.optimise.augmented.solve_within_limits`.

    Returns
    -------
    tuple
        The diagnosis, the weights of the smallest compromise, and the constraints relaxed to what it needs.
    """
    n_constraint, cuts = len(problem.constraints), Cuts()
    pressed = problem.pressed(
        Pressure(np.zeros((n_constraint, problem.used)), np.ones(n_constraint), objective=False)
    )

    def ask_for_planes(weight: F64, temperature: float) -> Evaluation:
        evaluation = ask(pressed, weight, temperature)
        cuts.add(weight, evaluation)
        if problem.excess_gy(evaluation.limited).max() <= TOLERANCE_GY:
            # Squares that can become 0 fall by the same share again and again, and reach no tolerance.
            raise _MetError(weight.copy())
        return evaluation

    to_the_end = replace(options, tolerance=min(options.tolerance, _TOLERANCE))
    try:
        found = solve(ask_for_planes, start, 1, lambda stage, at: 0.0, to_the_end, further(pressed))
    except _MetError as met:
        return Diagnosis(True, False, ()), met.weight, problem.constraints
    excess_gy = np.maximum(problem.excess_gy(found.limited).max(axis=1), 0.0)
    largest_gy = float(excess_gy.max())
    fighting = np.flatnonzero(excess_gy > _HAS_A_PART * largest_gy)
    roughly = replace(options, tolerance=max(options.tolerance, _TOLERANCE_ALONE))
    alone_gy = [
        _alone_gy(problem, ask, found.weight, roughly, further, int(number)) if fighting.size > 1 else None
        for number in fighting
    ]
    fights = tuple(
        Fight(
            int(number),
            float(excess_gy[number]) * problem.constraints[number].unit_per_gy,
            None if alone is None else alone * problem.constraints[number].unit_per_gy,
        )
        for number, alone in zip(fighting, alone_gy, strict=True)
    )
    relaxed = tuple(
        constraint.relaxed(float(by_gy) + TOLERANCE_GY) if by_gy > 0.0 else constraint
        for constraint, by_gy in zip(problem.constraints, excess_gy, strict=True)
    )
    return Diagnosis(False, _proven(problem, ask, cuts, found.value), fights), found.weight, relaxed


def _alone_gy(
    problem: Problem, ask: Ask, start: F64, options: SolverOptions, further: AskFurther, number: int
) -> float | None:
    """Return by how much a limit is exceeded at least if all others are kept; None if these cannot be met.

    Over several scenarios the sum of squares is minimised, so it may be a little more than the least.
    """
    rounds = solve_within_limits(
        problem, ask, start, 1, lambda stage, at: 0.0, options, soft=number, further=further
    )
    return max(float(rounds.excess_gy[number].max()), 0.0) if rounds.met else None


def _proven(problem: Problem, ask: Ask, cuts: Cuts, value: float) -> bool:
    """Return whether the planes of the squared excesses are above 0 wherever limits could hold."""
    if not all(constraint.convex and not constraint.function.rippled for constraint in problem.constraints):
        return False
    model = LowerModel(caps_of_limits(problem, ask), value).solve(*cuts.arrays())
    return model is not None and model.bound > 0.0


def _amount(constraint: Constraint, by: float) -> str:
    return f"{by:.3g} {constraint.unit}".rstrip()


def _moved(constraint: Constraint, by: float) -> str:
    return f"{constraint.limit + constraint.sign * by:.4g} {constraint.unit}".rstrip()
