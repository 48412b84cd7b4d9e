"""The optimisation problem as a solver sees it: a smooth function of the weights.

`Problem.evaluate` asks the holders of the rows for partial sums, merges them group by group in the order of the
groups, and asks for the gradient, merged in the same order. The order is fixed by the problem, so a value does not
depend on how many workers there are, or which of them answered first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from engine.errors import OptimisationError
from engine.model.arrays import F64
from engine.optimise.functions import MeanDose, one_sided
from engine.optimise.group import GroupEvaluator, Question, Term
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


@dataclass(frozen=True)
class Evaluation:
    """The objective at one point.

    Parameters
    ----------
    value
        Smoothed, weighted objective.
    gradient
        Its derivative by the weights, shape (n_beamlet,).
    term_values
        Unweighted value of every term in every state, shape (n_term, n_state).
    exact
        The objective without smoothing; for the voxel-wise worst case the smoothed value, whose exact twin would
        need another round.
    """

    value: float
    gradient: F64
    term_values: F64
    exact: float


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

    @property
    def used(self) -> int:
        """Number of scenarios that the form looks at."""
        return int(self.probability.size)

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

    def question(self, weight: F64, temperature: float) -> Question:
        """Return what the holders of the rows are asked for an evaluation."""
        voxel_temperature_gy = temperature if self.form == "voxel_worst_case" else None
        return Question(weight, self.terms, self.used, voxel_temperature_gy)

    def combine(self, totals: F64, temperature: float) -> tuple[F64, F64, float, float]:
        """Return term values, the objective's derivative by each sum, the objective, and its exact twin."""
        values, inner = self._of_terms(totals)
        judged = self._over_states(self._weighted(values), temperature)
        exact = judged.value
        if temperature > 0.0 and self.form != "voxel_worst_case":
            exact = self._over_states(self._weighted(values), 0.0).value
        return values, self._factors(judged.derivative) * inner, judged.value, exact

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
        question = self.question(weight, temperature)
        ((totals, moved),) = (
            _merge(parts) for parts in zip(*self.rows.curvature_sums([question], [direction]), strict=True)
        )
        slopes, changes = self._slope_changes(totals, moved, temperature)
        parts = self.rows.curvature_products([question], [direction], [slopes], [changes])
        return _merge([part for (part,) in parts])

    def _slope_changes(self, totals: F64, moved: F64, temperature: float) -> tuple[F64, F64]:
        """Return the objective's derivative by each sum, and its change along a change of the sums."""
        values, inner = self._of_terms(totals)
        turned, values_moved = np.zeros_like(totals), np.zeros_like(values)
        for number, (term, place) in enumerate(zip(self.terms, self._places, strict=True)):
            of_term = (inner[place] * moved[place]).sum(axis=0)
            for state in self._states_of(term, totals.shape[1]):
                turned[place, state] = term.function.slope_change(totals[place, state], moved[place, state])
            values_moved[number] = of_term if term.robust else of_term[0]
        judged = self._over_states(self._weighted(values), temperature)
        factors = self._factors(judged.derivative)
        factors_moved = self._factors(judged.turned(self._weighted(values_moved)))
        return factors * inner, factors * turned + factors_moved * inner

    @property
    def _places(self) -> list[slice]:
        return self.question(np.zeros(0), 0.0).places

    def _states_of(self, term: Term, n_state: int) -> range:
        return range(n_state) if term.robust else range(1)

    def _of_terms(self, totals: F64) -> tuple[F64, F64]:
        """Return the value of every term in every state, and its derivative by each of its sums."""
        n_state = totals.shape[1]
        values, inner = np.zeros((len(self.terms), n_state)), np.zeros_like(totals)
        for number, (term, place) in enumerate(zip(self.terms, self._places, strict=True)):
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

    def _factors(self, of_states: F64) -> F64:
        """Return the objective's derivative by each term's value, for every sum of the term, (n_sum, n_state)."""
        rows = []
        for term, of_state in zip(self.terms, of_states, strict=True):
            factor = np.zeros(of_state.size)
            if term.robust:
                factor[:] = term.weight * of_state
            else:
                factor[0] = term.weight * of_state.sum()
            rows.append(np.broadcast_to(factor, (term.function.n_sum, of_state.size)))
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
    slopes = [slope for _, slope, _, _ in combined]
    gradients = [_merge(parts) for parts in zip(*rows.gradients(questions, slopes), strict=True)]
    return [
        Evaluation(value, gradient, values, exact)
        for (values, _, value, exact), gradient in zip(combined, gradients, strict=True)
    ]


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
