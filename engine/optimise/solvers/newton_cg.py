r"""Projected Newton-CG: exact curvature by products with the Hessian, within a trust region.

Lin and Moré, SIAM J. Optim. 9 (1999) 1100: a step along the projected gradient (the Cauchy point) chooses which
weights stay at 0, and conjugate gradients (Steihaug, SIAM J. Numer. Anal. 20 (1983) 626) go on over the others, in
rounds that may bring further weights to 0. The step is kept if the objective falls as its quadratic model foretells,
and the radius is fitted to how well it does. Nothing is factorised, and nothing but products is asked of the Hessian.
"""

from dataclasses import dataclass

import numpy as np

from engine.model.arrays import F64, Bool
from engine.optimise.solvers.base import Ending, Search

_SUFFICIENT = 1e-2
# Steps that follow the model further cost more products than they save evaluations (benchmarks/solvers.py).
_RESIDUAL = 0.5
_N_ROUND, _N_CG = 2, 10
_N_HALVED = 3
_POOR, _GOOD, _KEPT = 0.25, 0.75, 1e-4
_ROUNDING = 1e-15
_FIRST_CHANGE = 0.1


@dataclass(frozen=True)
class _Step:
    """A change of the weights, the Hessian's product with it, and the change of the model."""

    change: F64
    product: F64
    value: float


def descend(search: Search) -> Ending:
    """Run one stage from the best point."""
    weight, at = search.weight, search.evaluate(search.weight)
    radius = _length(weight) or 1.0
    model = _Model(search)
    while True:
        gradient = at.gradient
        if not np.where(weight > 0.0, gradient, np.minimum(gradient, 0.0)).any():
            return Ending("no weight can be changed so that the objective falls", True)
        step = model.step(weight, gradient, radius)
        there = search.evaluate(np.maximum(weight + step.change, 0.0))
        fall, foretold, length = at.value - there.value, -step.value, _length(step.change)
        if fall < _POOR * foretold:
            radius = _POOR * min(radius, length)
        elif fall > _GOOD * foretold:
            radius = max(radius, 2.0 * length)
        if fall > _KEPT * foretold:
            weight, at = np.maximum(weight + step.change, 0.0), there
            if max(fall, foretold) <= search.tolerance * abs(at.value):
                return Ending(
                    f"an iteration lowered the objective by less than {search.tolerance:g} of its value", True
                )
        elif foretold <= _ROUNDING * abs(at.value):
            return Ending("no step within the trust region lowered the objective", False)


class _Model:
    """Finds steps that lower the quadratic model, and remembers how long the last one along the gradient was."""

    def __init__(self, search: Search) -> None:
        self._search = search
        self._along = 0.0

    def step(self, weight: F64, gradient: F64, radius: float) -> _Step:
        """Return a step within the radius that keeps all weights from 0."""
        step = self._cauchy(weight, gradient, radius)
        wanted = _RESIDUAL * _length(np.where(weight > 0.0, gradient, np.minimum(gradient, 0.0)))
        for _ in range(_N_ROUND):
            free = weight + step.change > 0.0
            residual = np.where(free, gradient + step.product, 0.0)
            if _length(residual) <= wanted or self._search.n_left <= 2:
                break
            change, product, at_edge = self._conjugate(weight, step.change, residual, free, wanted, radius)
            found = self._projected(weight, gradient, step, change, product)
            if found is None:
                break
            step = found
            if at_edge:
                break
        return step

    def _cauchy(self, weight: F64, gradient: F64, radius: float) -> _Step:
        """Return a step along the projected gradient that lowers the model enough."""
        if self._along == 0.0:
            largest = float(weight.max(initial=0.0)) or 1.0
            self._along = _FIRST_CHANGE * largest / float(np.abs(gradient).max())
        while True:
            change = np.maximum(weight - self._along * gradient, 0.0) - weight
            length = _length(change)
            if length > radius:
                self._along *= max(0.1, 0.9 * radius / length)
                continue
            step = self._taken(weight, gradient, change)
            slope, bend = float(gradient @ change), float(change @ step.product)
            best = -slope / bend if bend > 0.0 else np.inf
            if step.value <= _SUFFICIENT * slope or length == 0.0:
                # Where the next one begins: at the least value along this one, roughly.
                self._along *= min(max(best, 0.1), 10.0)
                return step
            self._along *= min(max(best, 0.1), 0.5)

    def _conjugate(
        self, weight: F64, begin: F64, residual: F64, free: Bool, wanted: float, radius: float
    ) -> tuple[F64, F64, bool]:
        """Minimise the model over the free weights; returns change, product, and whether that ended at the radius."""
        change, product = np.zeros_like(weight), np.zeros_like(weight)
        direction, size = -residual, float(residual @ residual)
        for _ in range(_N_CG):
            if self._search.n_left <= 2:
                break
            turned = self._search.product(weight, direction)
            bend = float(direction @ turned)
            edge = _share_to_edge(begin + change, direction, radius)
            share = size / bend if bend > 0.0 else np.inf
            if share >= edge:
                return change + edge * direction, product + edge * turned, True
            change, product = change + share * direction, product + share * turned
            residual = np.where(free, residual + share * turned, 0.0)
            fresh = float(residual @ residual)
            if np.sqrt(fresh) <= wanted:
                break
            direction = -residual + (fresh / size) * direction
            size = fresh
        return change, product, False

    def _projected(self, weight: F64, gradient: F64, step: _Step, change: F64, product: F64) -> _Step | None:
        """Return the step with a share of a further change, so that the model falls; None if it does not."""
        begin = weight + step.change
        falling = change < 0.0
        whole = min(1.0, float((begin[falling] / -change[falling]).min(initial=np.inf)))
        share = 1.0
        while share > whole and share > 0.5**_N_HALVED and self._search.n_left > 2:
            moved = np.maximum(begin + share * change, 0.0) - weight
            found = self._taken(weight, gradient, moved)
            slope = float((gradient + step.product) @ (moved - step.change))
            if found.value <= step.value + _SUFFICIENT * slope:
                return found
            share *= 0.5
        # As far as no weight reaches 0 the product is known, and the model falls for sure.
        moved, turned = step.change + whole * change, step.product + whole * product
        value = float(gradient @ moved) + 0.5 * float(moved @ turned)
        return _Step(moved, turned, value) if value < step.value else None

    def _taken(self, weight: F64, gradient: F64, change: F64) -> _Step:
        product = self._search.product(weight, change)
        return _Step(change, product, float(gradient @ change) + 0.5 * float(change @ product))


def _length(vector: F64) -> float:
    return float(np.sqrt(vector @ vector))


def _share_to_edge(begin: F64, direction: F64, radius: float) -> float:
    """Return how much of a direction can be added to a vector until it is as long as the radius."""
    a, b = float(direction @ direction), float(begin @ direction)
    c = min(float(begin @ begin) - radius**2, 0.0)
    return (-b + float(np.sqrt(b**2 - a * c))) / a
