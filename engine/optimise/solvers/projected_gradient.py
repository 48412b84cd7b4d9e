r"""Spectral projected gradient with a non-monotone line search.

Birgin, Martínez and Raydan, SIAM J. Optim. 10 (2000) 1196, algorithm SPG2: along
:math:`d = P(x - \lambda g) - x` with the step of Barzilai and Borwein (IMA J. Numer. Anal. 8 (1988) 141),
:math:`\lambda = s \cdot s / s \cdot y`, to a value below the highest of the last ten (Grippo, Lampariello and Lucidi,
SIAM J. Numer. Anal. 23 (1986) 707).
"""

from collections import deque

import numpy as np

from engine.model.arrays import F64
from engine.optimise.problem import Evaluation
from engine.optimise.solvers.base import Ending, Search

_N_VALUE = 10
"""Values of which the highest may be reached again, and iterations by which the tolerance is judged."""
_SUFFICIENT = 1e-4
_SHRINK = (0.1, 0.9)
_FIRST_CHANGE = 0.1
"""Largest change of a weight in the first step, as a share of the largest weight."""
_STEP_RANGE = 1e10
"""Steps are kept within this factor of the first one."""
_LEAST_SHARE = 1e-12


def descend(search: Search) -> Ending:
    """Run one stage from the best point."""
    weight, at = search.weight, search.evaluate(search.weight)
    first = step = _first_step(weight, at.gradient)
    recent = deque([at.value], maxlen=_N_VALUE)
    lowest: deque[float] = deque([at.value], maxlen=_N_VALUE + 1)
    while True:
        direction = np.maximum(weight - step * at.gradient, 0.0) - weight
        slope = float(at.gradient @ direction)
        if slope >= 0.0:
            return Ending("no weight can be changed so that the objective falls", True)
        found = _along(search, weight, at, direction, slope, max(recent))
        if found is None:
            return Ending("the line search found no lower value", False)
        moved, there = found
        change, turned = moved - weight, there.gradient - at.gradient
        curvature = float(change @ turned)
        longest = _STEP_RANGE * first
        step = longest if curvature <= 0.0 else float(change @ change) / curvature
        step = min(max(step, first / _STEP_RANGE), longest)
        weight, at = moved, there
        recent.append(at.value)
        lowest.append(min(lowest[-1], at.value))
        if len(lowest) > _N_VALUE and lowest[0] - lowest[-1] <= search.tolerance * abs(lowest[-1]):
            return Ending(
                f"{_N_VALUE} iterations lowered the objective by less than {search.tolerance:g} of its value",
                True,
            )


def _first_step(weight: F64, gradient: F64) -> float:
    steepest = float(np.abs(gradient).max(initial=0.0))
    largest = float(weight.max(initial=0.0))
    return (_FIRST_CHANGE * largest if largest > 0.0 else 1.0) / steepest if steepest > 0.0 else 1.0


def _along(
    search: Search, weight: F64, at: Evaluation, direction: F64, slope: float, highest: float
) -> tuple[F64, Evaluation] | None:
    """Return a point along a direction with a value low enough, or None if there is none."""
    share = 1.0
    while share > _LEAST_SHARE:
        # The projection keeps weights that a rounded sum would take below 0.
        moved = np.maximum(weight + share * direction, 0.0)
        there = search.evaluate(moved)
        if there.value <= highest + _SUFFICIENT * share * slope:
            return moved, there
        parabola = -0.5 * share**2 * slope / (there.value - at.value - share * slope)
        inside = _SHRINK[0] * share <= parabola <= _SHRINK[1] * share
        share = parabola if inside else 0.5 * share
    return None
