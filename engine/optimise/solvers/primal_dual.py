r"""Restarted primal-dual hybrid gradient for linear programs, in the manner of PDLP.

Chambolle and Pock, J. Math. Imaging Vis. 40 (2011) 120, with the diagonal steps of Pock and Chambolle (ICCV 2011,
1762): all entries of the matrix are doses and not negative, so that their sums by rows and columns take one pass each.
Steps that adapt, averages, restarts, and the balance between weights and multipliers are those of Applegate et al.,
NeurIPS 34 (2021) 20243, and Applegate, Hinder, Lu and Lubin, Math. Program. 201 (2023) 133.
"""

from dataclasses import dataclass, field

import numpy as np

from engine.errors import OptimisationError
from engine.model.arrays import F64
from engine.optimise.problem import Evaluation
from engine.optimise.solvers.base import Ending, Search
from engine.optimise.solvers.saddle import SaddlePoint

_CHECK_EVERY, _KEEP_EVERY = 10, 50
_ENOUGH, _NEEDED, _LONG = 0.2, 0.8, 0.36
"""Restart where the error has fallen to this share; or to that and no longer falls; or after so much of all steps."""
_BALANCE = 0.5


@dataclass
class _Point:
    """Weights, multipliers, and the products with both: doses of the rows, and the adjoint."""

    weight: F64
    multiplier: F64
    dose_gy: F64
    adjoint: F64

    def arrays(self) -> list[F64]:
        return [self.weight, self.multiplier, self.dose_gy, self.adjoint]


@dataclass
class _State:
    """All that the next step depends on."""

    at: _Point
    total: _Point
    """Sums of all points since the restart, each times its step."""
    begun: _Point
    lowest: _Point
    step: float = 1.0
    balance: float = 1.0
    total_step: float = 0.0
    n_step: float = 0.0
    n_since: float = 0.0
    error_begun: float = np.inf
    error_before: float = np.inf
    lowest_value: float = np.inf
    history: list[float] = field(default_factory=list)


_NUMBERS = (
    "step", "balance", "total_step", "n_step", "n_since", "error_begun", "error_before", "lowest_value",
)  # fmt: skip


def descend(search: Search) -> Ending:
    """Run one stage from the best point."""
    saddle = search.further.saddle
    if saddle is None:
        raise OptimisationError(
            "the primal-dual solver needs the problem as a linear program, and it was not given as one; "
            "use solver = 'lbfgsb'"
        )
    kept = search.further.restore() if search.further.restore else None
    if kept is None:
        state = _begin(saddle, search.weight)
    else:
        state = _unpacked(saddle, kept)
        for value in state.history:
            search.note(value)
    ending = _iterate(search, saddle, state)
    for point in (state.at, _average(state)):
        _take_lowest(saddle, state, point)
        _give_plane(search, saddle, point)
    search.evaluate(state.lowest.weight)
    return ending


def _iterate(search: Search, saddle: SaddlePoint, state: _State) -> Ending:
    """Step until the error is small, or one question is left: that for the value at the end."""
    while search.n_left > 1:
        if not _stepped(search, saddle, state):
            continue
        if state.n_step % _CHECK_EVERY == 0:
            candidates = [state.at, _average(state)]
            errors = [_error(saddle, point) for point in candidates]
            best = int(np.argmin(errors))
            value = _take_lowest(saddle, state, candidates[best])
            if errors[best] <= search.tolerance * abs(value):
                return Ending(
                    f"the duality gap and what the multipliers lack are below {search.tolerance:g} of the objective",
                    True,
                )
            _restart_where_due(saddle, state, candidates[best], errors[best])
        if state.n_step % _KEEP_EVERY == 0 and search.further.keep:
            search.further.keep(_packed(state))
    return Ending(f"the limit of {search.options.max_evaluations} evaluations was reached", False)


def _begin(saddle: SaddlePoint, weight: F64) -> _State:
    multiplier = saddle.start()
    at = _Point(weight, multiplier, saddle.dose(weight), saddle.adjoint(multiplier))
    zero = _Point(*(np.zeros_like(array) for array in at.arrays()))
    state = _State(at, zero, at, at)
    size = _weight_length(saddle, weight)
    state.balance = _multiplier_length(saddle, np.ones(saddle.n_row)) / size if size > 0.0 else 1.0
    state.balance = state.balance or 1.0
    return state


def _stepped(search: Search, saddle: SaddlePoint, state: _State) -> bool:
    """Try a step; keep it if it is not too long, and fit the next one."""
    at, balance = state.at, state.balance
    slope = saddle.cost + at.adjoint
    weight = np.maximum(at.weight - state.step / balance * slope / saddle.column_sum, 0.0)
    dose_gy = saddle.dose(weight)
    multiplier = saddle.raised(at.multiplier, 2.0 * dose_gy - at.dose_gy, state.step * balance)
    moved = _Point(weight, multiplier, dose_gy, saddle.adjoint(multiplier))
    value = saddle.value(weight, dose_gy)
    search.note(value)
    state.history.append(value)
    raised = multiplier - at.multiplier
    together = abs(float((saddle.scale * raised * (dose_gy - at.dose_gy)).sum()))
    length = (
        balance * _weight_length(saddle, weight - at.weight) ** 2
        + _multiplier_length(saddle, raised) ** 2 / balance
    )
    longest = length / (2.0 * together) if together > 0.0 else np.inf
    step = state.step
    kept = step <= longest
    n = len(state.history) + 1.0
    state.step = min((1.0 - n**-0.3) * longest, (1.0 + n**-0.6) * step)
    if kept:
        state.at = moved
        for total, array in zip(state.total.arrays(), moved.arrays(), strict=True):
            total += step * array
        state.total_step += step
        state.n_step += 1.0
        state.n_since += 1.0
    return kept


def _average(state: _State) -> _Point:
    """Return the mean of all points since the restart: also its products are means."""
    if state.total_step == 0.0:
        return state.at
    return _Point(*(array / state.total_step for array in state.total.arrays()))


def _error(saddle: SaddlePoint, point: _Point) -> float:
    """Return how far a point is from a solution, in units of the objective; 0 at one, and nowhere less."""
    slope = saddle.cost + point.adjoint
    gap = saddle.value(point.weight, point.dose_gy) + saddle.offset(point.multiplier)
    # A weight whose slope is negative would grow: counted by what that brings for it and for a mean weight more.
    lacking = np.minimum(slope, 0.0) * (point.weight + point.weight.mean())
    return abs(gap) - float(lacking.sum())


def _restart_where_due(saddle: SaddlePoint, state: _State, best: _Point, error: float) -> None:
    due = (
        error <= _ENOUGH * state.error_begun
        or (error <= _NEEDED * state.error_begun and error > state.error_before)
        or state.n_since >= _LONG * state.n_step
    )
    state.error_before = error
    if not due:
        return
    by_weight = _weight_length(saddle, best.weight - state.begun.weight)
    by_multiplier = _multiplier_length(saddle, best.multiplier - state.begun.multiplier)
    if by_weight > 0.0 and by_multiplier > 0.0:
        state.balance = float((by_multiplier / by_weight) ** _BALANCE * state.balance ** (1.0 - _BALANCE))
    state.at = state.begun = best
    state.total = _Point(*(np.zeros_like(array) for array in best.arrays()))
    state.total_step = state.n_since = 0.0
    state.error_begun, state.error_before = error, np.inf


def _take_lowest(saddle: SaddlePoint, state: _State, point: _Point) -> float:
    value = saddle.value(point.weight, point.dose_gy)
    if value < state.lowest_value:
        state.lowest_value, state.lowest = value, point
    return value


def _give_plane(search: Search, saddle: SaddlePoint, point: _Point) -> None:
    """Tell of the plane below the objective that the multipliers make."""
    if search.further.plane is None:
        return
    slope = saddle.cost + point.adjoint
    value = float((slope * point.weight).sum()) - saddle.offset(point.multiplier)
    search.further.plane(point.weight, Evaluation(value, slope, np.zeros((0, 1)), value))


def _weight_length(saddle: SaddlePoint, change: F64) -> float:
    return float(np.sqrt((saddle.column_sum * change**2).sum()))


def _multiplier_length(saddle: SaddlePoint, change: F64) -> float:
    return float(np.sqrt((saddle.scale * saddle.row_sum * change**2).sum()))


def _packed(state: _State) -> F64:
    """Return a state as one array."""
    points = [state.at, state.total, state.begun, state.lowest]
    numbers = np.array([getattr(state, name) for name in _NUMBERS])
    return np.concatenate([numbers, *(a for p in points for a in p.arrays()), np.array(state.history)])


def _unpacked(saddle: SaddlePoint, packed: F64) -> _State:
    n, m = saddle.n_beamlet, saddle.n_row
    sizes = [len(_NUMBERS)] + [n, m, m, n] * 4
    numbers, *arrays, history = np.split(packed, np.cumsum(sizes))
    points = [_Point(*(a.copy() for a in arrays[i : i + 4])) for i in range(0, 16, 4)]
    state = _State(points[0], points[1], points[2], points[3], history=[float(v) for v in history])
    for name, number in zip(_NUMBERS, numbers, strict=True):
        setattr(state, name, float(number))
    return state
