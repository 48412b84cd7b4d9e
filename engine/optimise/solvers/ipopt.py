"""IPOPT, if the package ipyopt is installed: an interior point method, to compare with.

Wächter and Biegler, Math. Program. 106 (2006) 25, with a limited-memory approximation of the Hessian. It decides by
its own measure when it is done; besides, it is ended by the tolerance and the limit of evaluations that all have.
"""

import importlib
from collections import deque
from typing import Any

import numpy as np

from engine.errors import OptimisationError
from engine.model.arrays import F64
from engine.optimise.problem import Evaluation
from engine.optimise.solvers.base import Ending, Search

_N_ITERATION = 10
"""Iterations by which the tolerance is judged."""
_SOLVED, _ACCEPTABLE = 0, 1


def descend(search: Search) -> Ending:
    """Run one stage from the best point."""
    asked = _Asked(search)
    n, none = search.weight.size, np.zeros(0)
    no_entry = (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
    problem = _ipyopt().Problem(
        n=n, x_l=np.zeros(n), x_u=np.full(n, 1e20), m=0, g_l=none, g_u=none,
        sparsity_indices_jac_g=no_entry, sparsity_indices_h=no_entry,
        eval_f=asked.value, eval_grad_f=asked.gradient,
        eval_g=lambda weight, out: None, eval_jac_g=lambda weight, out: None,
        intermediate_callback=asked.goes_on,
    )  # fmt: skip
    problem.set(
        hessian_approximation="limited-memory",
        limited_memory_max_history=search.options.memory,
        max_iter=search.options.max_evaluations,
        # Weights below 0 by a little, as it would allow, give doses below 0.
        bound_relax_factor=0.0,
        print_level=0,
        sb="yes",
    )
    _, _, status = problem.solve(search.weight.copy())
    if asked.error is not None:
        raise asked.error
    if asked.slow:
        return Ending(
            f"{_N_ITERATION} iterations lowered the objective by less than {search.tolerance:g} of its value",
            True,
        )
    if status in (_SOLVED, _ACCEPTABLE):
        return Ending("IPOPT found the optimality conditions fulfilled", True)
    return Ending(f"IPOPT ended with its status {status}", False)


class _Asked:
    """Answers IPOPT, which asks for value and gradient one by one, and cannot be left by an error."""

    def __init__(self, search: Search) -> None:
        self._search = search
        self._weight: F64 | None = None
        self._evaluation: Evaluation | None = None
        self._lowest: deque[float] = deque(maxlen=_N_ITERATION + 1)
        self.error: BaseException | None = None
        self.slow = False

    def value(self, weight: F64) -> float:
        at = self._at(weight)
        return np.nan if at is None else at.value

    def gradient(self, weight: F64, out: F64) -> None:
        at = self._at(weight)
        out[:] = np.nan if at is None else at.gradient

    def goes_on(self, mode: int, iteration: int, value: float, *more: Any) -> bool:
        """Return whether to go on, after an iteration."""
        del mode, iteration, more
        lowest = self._lowest
        lowest.append(min(value, lowest[-1]) if lowest else value)
        self.slow = len(lowest) > _N_ITERATION and lowest[0] - lowest[-1] <= self._search.tolerance * abs(
            lowest[-1]
        )
        return self.error is None and not self.slow

    def _at(self, weight: F64) -> Evaluation | None:
        if self.error is not None:
            return None
        if self._weight is None or not np.array_equal(weight, self._weight):
            self._weight, self._evaluation = weight.copy(), None
            with self:
                self._evaluation = self._search.evaluate(weight.copy())
        return self._evaluation

    def __enter__(self) -> None:
        """Keep an error of what follows until IPOPT has ended."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        self.error = error
        return error is not None


def _ipyopt() -> Any:
    try:
        return importlib.import_module("ipyopt")
    except ImportError as error:
        raise OptimisationError(
            "solver = 'ipopt' needs the package ipyopt, which is not installed; "
            "run `pip install ipyopt`, on the machine that plans, or use solver = 'lbfgsb'"
        ) from error
