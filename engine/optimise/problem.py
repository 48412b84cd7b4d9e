"""The optimisation problem as a solver sees it: a smooth function of the weights.

`Problem.evaluate` asks the holders of the rows for partial sums, merges them group by group in the order of the
groups, and asks for the gradient, merged in the same order. The order is fixed by the problem, so a value does not
depend on how many workers there are, or which of them answered first.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from engine.errors import OptimisationError
from engine.model.arrays import F64
from engine.optimise.constraints import Constraint, Pressure, excesses_gy
from engine.optimise.functions import MeanDose, one_sided
from engine.optimise.group import GroupEvaluator, Question, RegionRows, Term
from engine.optimise.risk import Judged
from engine.optimise.robust import Form, check_part, over_scenarios


class RowHolders(Protocol):
    """Whoever holds the groups: this process, or actors on a cluster."""

    n_beamlet: int

    def sums(self, questions: Sequence[Question]) -> list[list[F64]]:
        """Return `GroupEvaluator.sums` of every group, in group order."""
        ...

    def gradients(self, questions: Sequence[Question], slopes: Sequence[F64]) -> list[list[F64]]:
        """Return `GroupEvaluator.gradients` of every group, in group order; ``questions`` are those of `sums`."""
        ...

    def curvature_sums(self, questions: Sequence[Question], directions: Sequence[F64]) -> list[list[F64]]:
        """Return `GroupEvaluator.curvature_sums` of every group, in group order."""
        ...

    def curvature_products(
        self,
        questions: Sequence[Question],
        directions: Sequence[F64],
        slopes: Sequence[F64],
        changes: Sequence[F64],
    ) -> list[list[F64]]:
        """Return `GroupEvaluator.curvature_products` of every group; questions and directions are those of before."""
        ...

    def regions(self) -> list[tuple[RegionRows, ...]]:
        """Return the regions' rows of every group, in group order."""
        ...

    def doses(self, weight: F64, used: int) -> list[F64]:
        """Return `GroupEvaluator.doses` of every group, in group order."""
        ...

    def adjoints(self, by_rows: Sequence[F64]) -> list[F64]:
        """Return `GroupEvaluator.adjoint` of every group, in group order, for each group's own rows."""
        ...


class LocalRows:
    """All groups in this process."""

    def __init__(self, groups: Sequence[GroupEvaluator], n_beamlet: int) -> None:
        self.groups = tuple(groups)
        self.n_beamlet = n_beamlet

    def sums(self, questions: Sequence[Question]) -> list[list[F64]]:
        """Return the partial sums of every group."""
        return [group.sums(questions) for group in self.groups]

    def gradients(self, questions: Sequence[Question], slopes: Sequence[F64]) -> list[list[F64]]:
        """Return the gradient parts of every group; the doses are those of the last `sums`."""
        return [group.gradients(questions, slopes) for group in self.groups]

    def curvature_sums(self, questions: Sequence[Question], directions: Sequence[F64]) -> list[list[F64]]:
        """Return the partial sums of every group, and their changes."""
        return [group.curvature_sums(questions, directions) for group in self.groups]

    def curvature_products(
        self,
        questions: Sequence[Question],
        directions: Sequence[F64],
        slopes: Sequence[F64],
        changes: Sequence[F64],
    ) -> list[list[F64]]:
        """Return the parts of the products of every group; the doses are those of the last `curvature_sums`."""
        del directions
        return [group.curvature_products(questions, slopes, changes) for group in self.groups]

    def regions(self) -> list[tuple[RegionRows, ...]]:
        """Return the regions' rows of every group."""
        return [group.regions for group in self.groups]

    def doses(self, weight: F64, used: int) -> list[F64]:
        """Return the doses of every group."""
        return [group.doses(weight, used) for group in self.groups]

    def adjoints(self, by_rows: Sequence[F64]) -> list[F64]:
        """Return what numbers on the rows of every group come to for the beamlets."""
        return [group.adjoint(here, self.n_beamlet) for group, here in zip(self.groups, by_rows, strict=True)]


@dataclass(frozen=True)
class Evaluation:
    """The objective at one point.

    Parameters
    ----------
    value
        Smoothed, weighted objective, and what hard constraints add to it.
    gradient
        Its derivative by the weights, shape (n_beamlet,); (0,) if the value alone was asked for.
    term_values
        Unweighted value of every term in every state, shape (n_term, n_state).
    exact
        The objective without smoothing and constraints; for the voxel-wise worst case the smoothed value, whose exact
        twin would need another round. Where constraints alone are asked for, the value.
    limited
        Value of every constraint's function in every scenario, shape (n_constraint, n_scenario).
    """

    value: float
    gradient: F64
    term_values: F64
    exact: float
    limited: F64 = field(default_factory=lambda: np.zeros((0, 0)))


class Problem:
    """Objectives, robust form and scenarios over rows held by somebody.

    Parameters
    ----------
    rows
        Holders of the rows.
    terms
        The objectives; a voxel-wise worst case splits two-sided ones.
    form
        Robust form.
    probability
        Probability of every scenario, the nominal one first, shape (n_scenario,).
    part
        Part of the probability that counts as worst, for the forms that have one.
    constraints
        Limits that hold in every scenario that the form looks at. They count once there is a pressure (`pressed`).

    Raises
    ------
    OptimisationError
        If there is no objective, or a robust form has only one scenario, or lacks its part.
    """

    def __init__(
        self,
        rows: RowHolders,
        terms: Sequence[Term],
        form: Form,
        probability: F64,
        part: float | None = None,
        constraints: Sequence[Constraint] = (),
    ) -> None:
        if not terms:
            raise OptimisationError("no objective was given (nothing could be optimised); add [[objectives]]")
        if form != "nominal" and probability.size < 2:
            raise OptimisationError(
                f"robust form '{form}' needs more than one scenario; add [scenarios] or use 'nominal'"
            )
        check_part(form, part)
        self.rows = rows
        self.form: Form = form
        self.part = part
        self.probability = probability if form != "nominal" else np.ones(1)
        self.terms = split_terms(terms, form)
        self.pressure: Pressure | None = None
        self._limit(constraints)

    @property
    def used(self) -> int:
        """Number of scenarios that the form looks at."""
        return int(self.probability.size)

    def limited_by(self, constraints: Sequence[Constraint]) -> "Problem":
        """Return the same problem with other limits, and no pressure."""
        other = copy(self)
        other.pressure = None
        other._limit(constraints)
        return other

    def _limit(self, constraints: Sequence[Constraint]) -> None:
        self.constraints = tuple(constraints)
        self._asked = (*self.terms, *(constraint.term for constraint in self.constraints))

    def pressed(self, pressure: Pressure) -> "Problem":
        """Return the same problem with some pressure on its constraints."""
        other = copy(self)
        other.pressure = pressure
        return other

    @property
    def judges_objective(self) -> bool:
        """Whether the objective counts, and not the excesses of constraints alone."""
        return self.pressure is None or self.pressure.objective

    def excess_gy(self, limited: F64) -> F64:
        """Return by how much limits are exceeded in every scenario, (n_constraint, n_scenario); -inf where none is."""
        counts = np.ones(self.used) if self.form == "voxel_worst_case" else self.probability
        return excesses_gy(self.constraints, counts, limited)

    def evaluate(self, weight: F64, temperature: float) -> Evaluation:
        """Return value and gradient at ``weight``.

        Parameters
        ----------
        weight
            Weights of all beamlets, shape (n_beamlet,).
        temperature
            Smoothing: in Gy (voxel-wise worst case) or in units of the objective (all other forms); 0 is none.
        """
        (evaluation,) = evaluate_together(self.rows, [(self, weight, temperature)])
        return evaluation

    def value(self, weight: F64, temperature: float) -> Evaluation:
        """Return the value alone, with no gradient: one product instead of two. Parameters as for `evaluate`."""
        (evaluation,) = values_together(self.rows, [(self, weight, temperature)])
        return evaluation

    def question(self, weight: F64, temperature: float) -> Question:
        """Return what the holders of the rows are asked for an evaluation."""
        voxel_temperature_gy = temperature if self.form == "voxel_worst_case" else None
        return Question(weight, self._asked, self.used, voxel_temperature_gy)

    def combine(self, totals: F64, temperature: float) -> tuple[F64, Evaluation]:
        """Return the derivative by each sum, and all of the evaluation but its gradient."""
        values, inner = self._of_terms(totals)
        of_terms, limited = values[: len(self.terms), : self._n_state(totals)], values[len(self.terms) :]
        weighted = self._weighted(of_terms)
        judged = self._over_states(weighted, temperature)
        value, exact, of_states = judged.value, judged.value, judged.derivative
        if temperature > 0.0 and self.form != "voxel_worst_case":
            exact = self._over_states(weighted, 0.0).value
        of_limited = np.zeros_like(limited)
        if self.pressure is not None:
            excess_gy = self.excess_gy(limited)
            pressed = self.pressure.value(excess_gy)
            of_limited = self._by_value() * self.pressure.slope(excess_gy)
            if self.pressure.objective:
                value += pressed
            else:
                value, exact, of_states = pressed, pressed, np.zeros_like(of_states)
        slopes = self._factors(of_states, of_limited) * inner
        return slopes, Evaluation(value, np.zeros(0), of_terms, exact, limited)

    def hessian_product(self, weight: F64, direction: F64, temperature: float) -> F64:
        """Return the derivative of the gradient along a change of the weights, shape (n_beamlet,).

        Where functions have kinks in their gradient, it is that of one side.

        Parameters
        ----------
        weight, direction
            Weights and their change, shape (n_beamlet,).
        temperature
            Smoothing, as for `evaluate`.
        """
        (product,) = products_together(self.rows, [(self, weight, direction, temperature)])
        return product

    def slope_changes(self, totals: F64, moved: F64, temperature: float) -> tuple[F64, F64]:
        """Return the objective's derivative by each sum, and its change along a change of the sums."""
        values, inner = self._of_terms(totals)
        n_term, n_state = len(self.terms), self._n_state(totals)
        turned, values_moved = np.zeros_like(totals), np.zeros_like(values)
        for number, (term, place) in enumerate(zip(self._asked, self._places, strict=True)):
            of_term = (inner[place] * moved[place]).sum(axis=0)
            for state in self._states_of(term, totals.shape[1]):
                turned[place, state] = term.function.slope_change(totals[place, state], moved[place, state])
            values_moved[number] = of_term if term.robust else of_term[0]
        judged = self._over_states(self._weighted(values[:n_term, :n_state]), temperature)
        of_states = judged.derivative
        of_states_moved = judged.turned(self._weighted(values_moved[:n_term, :n_state]))
        limited = values[n_term:]
        of_limited, of_limited_moved = np.zeros_like(limited), np.zeros_like(limited)
        if self.pressure is not None:
            excess_gy, by_value = self.excess_gy(limited), self._by_value()
            of_limited = by_value * self.pressure.slope(excess_gy)
            of_limited_moved = by_value**2 * self.pressure.curvature(excess_gy) * values_moved[n_term:]
            if not self.pressure.objective:
                of_states, of_states_moved = np.zeros_like(of_states), np.zeros_like(of_states)
        factors = self._factors(of_states, of_limited)
        return factors * inner, factors * turned + self._factors(of_states_moved, of_limited_moved) * inner

    @property
    def _places(self) -> list[slice]:
        return self.question(np.zeros(0), 0.0).places

    def _n_state(self, totals: F64) -> int:
        """Return the number of states of the objectives: a voxel-wise worst case has one, whatever constraints have."""
        return 1 if self.form == "voxel_worst_case" else totals.shape[1]

    def _states_of(self, term: Term, n_state: int) -> range:
        all_in_one = self.form == "voxel_worst_case" and not term.each_scenario
        return range(n_state) if term.robust and not all_in_one else range(1)

    def _by_value(self) -> F64:
        """Return the derivative of every excess by the value of its function, shape (n_constraint, 1)."""
        return np.array([[constraint.sign / constraint.unit_per_gy] for constraint in self.constraints])

    def _of_terms(self, totals: F64) -> tuple[F64, F64]:
        """Return the value of every term in every state, and its derivative by each of its sums."""
        n_state = totals.shape[1]
        values, inner = np.zeros((len(self._asked), n_state)), np.zeros_like(totals)
        for number, (term, place) in enumerate(zip(self._asked, self._places, strict=True)):
            for state in self._states_of(term, n_state):
                values[number, state] = term.function.value(totals[place, state])
                inner[place, state] = term.function.slope(totals[place, state])
            if not term.robust:
                values[number, 1:] = values[number, 0]
        return values, inner

    def _weighted(self, values: F64) -> F64:
        weighted: F64 = values * np.array([term.weight for term in self.terms])[:, None]
        return weighted

    def _over_states(self, weighted: F64, temperature: float) -> Judged:
        """Return the objective from the weighted value of every term in every state."""
        return over_scenarios(self.form, weighted, self.probability, self.part, temperature)

    def _factors(self, of_states: F64, of_limited: F64) -> F64:
        """Return the derivative by the value of each objective and constraint, for every sum of it, (n_sum, n_state).

        Parameters
        ----------
        of_states
            Derivative by the weighted value of every objective in every state of it.
        of_limited
            Derivative by the value of every constraint in every scenario, shape (n_constraint, n_scenario).
        """
        n_own = of_states.shape[1]
        n_state = max(n_own, of_limited.shape[1] if self.constraints else 0)
        rows = []
        for number, term in enumerate(self._asked):
            factor = np.zeros(n_state)
            if term.each_scenario:
                factor[:] = of_limited[number - len(self.terms)]
            elif term.robust:
                factor[:n_own] = term.weight * of_states[number]
            else:
                factor[0] = term.weight * of_states[number].sum()
            rows.append(np.broadcast_to(factor, (term.function.n_sum, n_state)))
        return np.concatenate(rows)


def evaluate_together(rows: RowHolders, asked: Sequence[tuple[Problem, F64, float]]) -> list[Evaluation]:
    """Return the evaluations of several problems on the same rows, to the last bit those of `Problem.evaluate`.

    Parameters
    ----------
    rows
        Holders of the rows of all these problems.
    asked
        Problem, weights and temperature of every evaluation.
    """
    questions = [problem.question(weight, temperature) for problem, weight, temperature in asked]
    totals = [_merge(parts) for parts in zip(*rows.sums(questions), strict=True)]
    combined = [
        problem.combine(total, temperature)
        for (problem, _, temperature), total in zip(asked, totals, strict=True)
    ]
    slopes = [slope for slope, _ in combined]
    gradients = [_merge(parts) for parts in zip(*rows.gradients(questions, slopes), strict=True)]
    return [
        replace(evaluation, gradient=gradient)
        for (_, evaluation), gradient in zip(combined, gradients, strict=True)
    ]


def values_together(rows: RowHolders, asked: Sequence[tuple[Problem, F64, float]]) -> list[Evaluation]:
    """Return the values of several problems on the same rows, without gradients. Parameters as before."""
    questions = [problem.question(weight, temperature) for problem, weight, temperature in asked]
    totals = [_merge(parts) for parts in zip(*rows.sums(questions), strict=True)]
    return [
        problem.combine(total, temperature)[1]
        for (problem, _, temperature), total in zip(asked, totals, strict=True)
    ]


def products_together(rows: RowHolders, asked: Sequence[tuple[Problem, F64, F64, float]]) -> list[F64]:
    """Return several problems' Hessians' products, to the last bit those of `Problem.hessian_product`.

    Parameters
    ----------
    rows
        Holders of the rows of all these problems.
    asked
        Problem, weights, direction and temperature of every product.
    """
    questions = [problem.question(weight, temperature) for problem, weight, _, temperature in asked]
    directions = [direction for _, _, direction, _ in asked]
    sums = [_merge(parts) for parts in zip(*rows.curvature_sums(questions, directions), strict=True)]
    found = [
        problem.slope_changes(totals, moved, temperature)
        for (problem, _, _, temperature), (totals, moved) in zip(asked, sums, strict=True)
    ]
    slopes, changes = [slope for slope, _ in found], [change for _, change in found]
    parts = rows.curvature_products(questions, directions, slopes, changes)
    return [_merge(of_question) for of_question in zip(*parts, strict=True)]


def uniform_start(rows: RowHolders, target_region: int, prescription_gy: float) -> F64:
    """Return equal weights that give the target the prescription as mean dose, shape (n_beamlet,).

    Raises
    ------
    OptimisationError
        If no beamlet reaches the target.
    """
    ones = np.ones(rows.n_beamlet)
    mean = Term("mean dose of the target", target_region, MeanDose(), 1.0)
    mean_gy = sum(float(part[0, 0]) for (part,) in rows.sums([Question(ones, (mean,), 1)]))
    if mean_gy <= 0.0:
        raise OptimisationError(
            "no beamlet gives the target any dose; check target, beams, isocentre and cut-offs"
        )
    return ones * (prescription_gy / mean_gy)


def split_terms(terms: Sequence[Term], form: Form) -> tuple[Term, ...]:
    """Return the terms as a form judges them: a voxel-wise worst case splits robust ones with two sides."""
    if form != "voxel_worst_case":
        return tuple(terms)
    return tuple(
        Term(term.label, term.region, part, term.weight, term.robust)
        for term in terms
        for part in (one_sided(term.function) if term.robust else (term.function,))
    )


def _merge(parts: Sequence[F64]) -> F64:
    total = parts[0].copy()
    for part in parts[1:]:
        total += part
    return total
