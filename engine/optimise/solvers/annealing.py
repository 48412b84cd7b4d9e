r"""Simulated annealing: the historical baseline of inverse planning, not a solver to choose for a plan.

Webb, Phys. Med. Biol. 34 (1989) 1349: one weight at a time is changed at random, and a change that raises the
objective by :math:`\Delta` is kept with probability :math:`e^{-\Delta/T}` (Metropolis et al., J. Chem. Phys. 21 (1953)
1087; Kirkpatrick, Gelatt and Vecchi, Science 220 (1983) 671). Steps are fitted to the share of moves that is kept
(Corana et al., ACM Trans. Math. Softw. 13 (1987) 262).
"""

import numpy as np

from engine.model.arrays import F64
from engine.optimise.solvers.base import Ending, Search

_N_PROBE = 20
_KEPT_AT_FIRST = 0.5
"""Share of rising moves that is kept at first; the temperature is chosen by that."""
_COOLED = 1e-4
"""Last temperature, as a share of the first."""
_FIRST_STEP = 0.5
"""Standard deviation of the first moves, as a share of the mean weight."""
_KEPT_WANTED = 0.4
_STEP_FACTOR = 1.1


def descend(search: Search) -> Ending:
    """Run one stage from the best point: as many moves as the limit allows."""
    random = np.random.default_rng([search.options.seed, len(search.stage_begin)])
    weight = search.weight.copy()
    value = search.value(weight).value
    step = _FIRST_STEP * (float(weight.mean()) or 1.0)
    n_probe = min(_N_PROBE, (search.n_left - 1) // 2)
    rises = [max(search.value(_moved(weight, step, random)).value - value, 0.0) for _ in range(n_probe)]
    first = float(np.mean(rises)) / -np.log(_KEPT_AT_FIRST) if rises else 0.0
    n_move = max(search.n_left - 1, 0)
    for move in range(n_move):
        temperature = first * _COOLED ** (move / n_move)
        tried = _moved(weight, step, random)
        there = search.value(tried).value
        rise = there - value
        kept = rise <= 0.0 or (temperature > 0.0 and random.random() < np.exp(-rise / temperature))
        # In balance where as many moves are kept as wanted.
        step *= _STEP_FACTOR ** (1.0 - _KEPT_WANTED) if kept else _STEP_FACTOR**-_KEPT_WANTED
        if kept:
            weight, value = tried, there
    # The last question is for a gradient: the lower bound needs a plane here.
    search.evaluate(search.weight)
    return Ending(f"the annealing's {n_probe + n_move} random moves were made", False)


def _moved(weight: F64, step: float, random: np.random.Generator) -> F64:
    """Return the weights with one changed at random, reflected at 0."""
    result = weight.copy()
    chosen = int(random.integers(weight.size))
    result[chosen] = abs(result[chosen] + step * random.standard_normal())
    return result
