r"""Objectives in the form of a linear program, as a saddle point: what the primal-dual solver works on.

.. math::

    \min_{x \ge 0} \max_{y \in Y}\; c \cdot x + \sum_i s_i\, y_i (d_i - p_i), \qquad d = A x

Means are in :math:`c`. Every row of a linear overdose, of the term's weight times the row's relative volume
:math:`s_i`, has a multiplier between 0 and 1 (-1 and 0 for an underdose). The multipliers of a mean tail of the part
:math:`\alpha` are between 0 and :math:`1/\alpha`, with :math:`\sum_i v_i y_i = 1`: the dual form of the mean of the
hottest part (Rockafellar and Uryasev, J. Risk 2 (2000) 21), which needs no threshold of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csc_array, diags_array, eye_array, hstack

from engine.errors import OptimisationError
from engine.model.arrays import F64, I32
from engine.optimise.functions import (
    DoseFunction,
    LinearOverdose,
    LinearUnderdose,
    MeanDose,
    UpperMeanTail,
)
from engine.optimise.group import Term
from engine.optimise.problem import Problem
from engine.optimise.robust import Form

_MOST_ENTRIES = 5_000_000
"""Of a matrix that is formed: with more, HiGHS takes hours."""
_N_HALVED = 80
_LEAST = 1e-12
"""Rows and columns without dose are treated as if they had this share of the largest sum."""


def is_linear(function: DoseFunction) -> bool:
    """Return whether a function is piecewise linear in the dose, so that linear programs can have it."""
    if isinstance(function, MeanDose):
        return function.eqd2 is None
    if isinstance(function, UpperMeanTail):
        return function.eqd2 is None and function.dose_gy is None
    return isinstance(function, LinearOverdose | LinearUnderdose)


def why_no_linear_program(functions: Sequence[tuple[str, DoseFunction]], form: Form) -> str:
    """Return in words why objectives are no linear program here; nothing if they are one.

    Parameters
    ----------
    functions
        Label and function of every objective.
    form
        Robust form.
    """
    others = dict.fromkeys(label for label, function in functions if not is_linear(function))
    if others:
        return (
            f"this solver is for linear programs, and these are not linear: {', '.join(others)}; use mean, "
            "linear_overdose, linear_underdose, upper_mean_tail without dose_gy (all without eqd2), or another solver"
        )
    if form not in ("nominal", "expected"):
        return f"this solver is for the robust forms nominal and expected, not for {form}; use another one"
    return ""


@dataclass(frozen=True)
class _Part:
    """The rows of a term in one scenario: where they are among all, and in each group."""

    function: DoseFunction
    factor: float
    scenario: int
    place: slice
    share: F64
    rows: tuple[I32, ...]

    @property
    def dose_gy(self) -> float:
        return self.function.dose_gy if isinstance(self.function, LinearOverdose | LinearUnderdose) else 0.0


@dataclass(frozen=True)
class LinearProgram:
    """Least ``cost . variables`` with ``matrix @ variables <= limit`` and bounds.

    Variables are the weights, how far every row is beyond its limit, and the threshold of every tail. ``sign`` is -1
    for rows that are to get dose, and 1 for all others.
    """

    cost: F64
    matrix: Any
    limit: F64
    bounds: list[tuple[float | None, float | None]]
    sign: F64


class SaddlePoint:
    """The saddle point of a problem, whose rows' doses and multipliers the caller keeps, shape (n_row,) each.

    They travel to and from the holders of the rows in every step: some 8 bytes a row of a region and scenario.

    Parameters
    ----------
    problem
        The problem.

    Raises
    ------
    OptimisationError
        If it is no linear program.
    """

    def __init__(self, problem: Problem) -> None:
        refusal = why_no_linear_program([(t.label, t.function) for t in problem.terms], problem.form)
        if refusal:
            raise OptimisationError(refusal)
        if problem.constraints:
            raise OptimisationError("this solver is for problems without hard constraints; use another one")
        self._rows, self._used = problem.rows, problem.used
        regions = problem.rows.regions()
        means: list[_Part] = []
        self._parts: list[_Part] = []
        n_row = 0
        for term in problem.terms:
            for scenario, factor in _states(term, problem):
                of_groups = [of_group[term.region] for of_group in regions]
                share = np.concatenate([region.share for region in of_groups])
                rows = tuple(region.row for region in of_groups)
                n = 0 if isinstance(term.function, MeanDose) else share.size
                part = _Part(term.function, factor, scenario, slice(n_row, n_row + n), share, rows)
                (self._parts if n else means).append(part)
                n_row += n
        self.n_row = n_row
        self._n_row_of_groups = [dose_gy.shape[1] for dose_gy in self._doses(np.zeros(self.n_beamlet))]
        scale = [part.factor * part.share for part in self._parts]
        self.scale = np.concatenate([*scale, np.zeros(0)])
        self._aim_gy = np.concatenate([*(np.full(p.share.size, p.dose_gy) for p in self._parts), np.zeros(0)])
        self.cost = self._adjoint([(part, part.factor * part.share) for part in means])
        ones = np.ones(self.n_beamlet)
        self.row_sum = _not_zero(self.dose(ones))
        self.column_sum = _not_zero(self.adjoint(np.ones(n_row)))

    @property
    def n_beamlet(self) -> int:
        """Number of weights."""
        return self._rows.n_beamlet

    def start(self) -> F64:
        """Return multipliers to start from, shape (n_row,)."""
        result = np.zeros(self.n_row)
        for part in self._parts:
            if isinstance(part.function, UpperMeanTail):
                result[part.place] = 1.0 / float(part.share.sum())
        return result

    def dose(self, weight: F64) -> F64:
        """Return the dose of every row in Gy, shape (n_row,): one pass over the matrix."""
        doses = self._doses(weight)
        found = [
            dose_gy[part.scenario][row]
            for part in self._parts
            for dose_gy, row in zip(doses, part.rows, strict=True)
        ]
        return np.concatenate([*found, np.zeros(0)])

    def adjoint(self, multiplier: F64) -> F64:
        """Return the derivative of the sum by the weights but for ``cost``, shape (n_beamlet,): one pass."""
        scaled = self.scale * multiplier
        return self._adjoint([(part, scaled[part.place]) for part in self._parts])

    def value(self, weight: F64, dose_gy: F64) -> float:
        """Return the objective: the highest over all multipliers."""
        total = float((self.cost * weight).sum())
        for part in self._parts:
            here = dose_gy[part.place]
            if isinstance(part.function, UpperMeanTail):
                total += part.factor * _tail_mean(here, part.share, part.function.volume_percent / 100.0)
            else:
                sign = 1.0 if isinstance(part.function, LinearOverdose) else -1.0
                total += part.factor * float(
                    (part.share * np.maximum(sign * (here - part.dose_gy), 0.0)).sum()
                )
        return total

    def offset(self, multiplier: F64) -> float:
        """Return what the multipliers take off whatever the weights are."""
        return float((self.scale * multiplier * self._aim_gy).sum())

    def raised(self, multiplier: F64, dose_gy: F64, step: float) -> F64:
        """Return the multipliers after a step up, brought back to where they may be."""
        return self.allowed(multiplier + step * (dose_gy - self._aim_gy) / self.row_sum)

    def allowed(self, multiplier: F64) -> F64:
        """Return the nearest multipliers that may be."""
        result = multiplier.copy()
        for part in self._parts:
            place = part.place
            if isinstance(part.function, UpperMeanTail):
                most = 100.0 / part.function.volume_percent
                result[place] = _onto_tail(result[place], part.share, self.row_sum[place], most)
            elif isinstance(part.function, LinearOverdose):
                result[place] = np.clip(result[place], 0.0, 1.0)
            else:
                result[place] = np.clip(result[place], -1.0, 0.0)
        return result

    def linear_program(self) -> "LinearProgram":
        """Return the same as a linear program, whose matrix takes a pass a beamlet; for few of them.

        Raises
        ------
        OptimisationError
            If the matrix is too large.
        """
        columns, n_entry = [], 0
        for beamlet in range(self.n_beamlet):
            dose_gy = self.dose(np.arange(self.n_beamlet) == beamlet)
            columns.append(csc_array(dose_gy[:, None]))
            n_entry += columns[-1].nnz
            if n_entry > _MOST_ENTRIES:
                raise OptimisationError(
                    f"a linear program with more than {_MOST_ENTRIES} entries is too large for HiGHS "
                    f"({beamlet + 1} of {self.n_beamlet} beamlets have them); use solver = 'primal_dual'"
                )
        sign, slack_cost, tails, tail_cost = np.ones(self.n_row), self.scale.copy(), [], []
        for part in self._parts:
            if isinstance(part.function, UpperMeanTail):
                slack_cost[part.place] *= 100.0 / part.function.volume_percent
                of_tail = np.zeros(self.n_row)
                of_tail[part.place] = -1.0
                tails.append(csc_array(of_tail[:, None]))
                tail_cost.append(part.factor)
            elif isinstance(part.function, LinearUnderdose):
                sign[part.place] = -1.0
        return LinearProgram(
            np.concatenate([self.cost, slack_cost, tail_cost]),
            hstack([diags_array(sign) @ hstack(columns), -eye_array(self.n_row), *tails], format="csc"),
            sign * self._aim_gy,
            [(0.0, None)] * (self.n_beamlet + self.n_row) + [(None, None)] * len(tails),
            sign,
        )

    def _doses(self, weight: F64) -> list[F64]:
        return self._rows.doses(weight, self._used)

    def _adjoint(self, of_parts: Sequence[tuple[_Part, F64]]) -> F64:
        by_rows = [np.zeros((self._used, n)) for n in self._n_row_of_groups]
        for part, values in of_parts:
            first = 0
            for here, row in zip(by_rows, part.rows, strict=True):
                here[part.scenario, row] += values[first : first + row.size]
                first += row.size
        parts = self._rows.adjoints(by_rows)
        total: F64 = parts[0].copy()
        for of_group in parts[1:]:
            total += of_group
        return total


def _states(term: Term, problem: Problem) -> list[tuple[int, float]]:
    """Return the scenarios that a term is judged in, and the factor on it in each."""
    if not term.robust or problem.used == 1:
        return [(0, term.weight)]
    return [(s, term.weight * float(p)) for s, p in enumerate(problem.probability) if p > 0.0]


def _not_zero(sums: F64) -> F64:
    result: F64 = np.maximum(sums, _LEAST * (float(sums.max(initial=0.0)) or 1.0))
    return result


def _tail_mean(dose_gy: F64, share: F64, part: float) -> float:
    """Return the mean dose of the hottest part of a region."""
    order = np.argsort(-dose_gy, kind="stable")
    end = np.cumsum(share[order])
    # Relative volumes sum to 1 but for rounding.
    taken = np.diff(np.minimum(end, part * end[-1]), prepend=0.0)
    return float((taken * dose_gy[order]).sum()) / part


def _onto_tail(moved: F64, share: F64, row_sum: F64, most: float) -> F64:
    """Return the nearest multipliers between 0 and ``most`` whose mean over the region is 1."""
    low = float((row_sum * (moved - most)).min())
    high = float((row_sum * moved).max())
    for _ in range(_N_HALVED):
        middle = 0.5 * (low + high)
        if not low < middle < high:
            break
        if (share * np.clip(moved - middle / row_sum, 0.0, most)).sum() > share.sum():
            low = middle
        else:
            high = middle
    return np.clip(moved - high / row_sum, 0.0, most)
