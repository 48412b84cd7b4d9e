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
from engine.optimise.robust import Form, soft_maximum


class RowHolders(Protocol):
    """Whoever holds the groups: this process, or actors on a cluster."""

    n_beamlet: int

    def sums(self, questions: Sequence[Question]) -> list[list[F64]]:
        """Return `GroupEvaluator.sums` of every group, in group order."""
        ...

    def gradients(
        self, questions: Sequence[Question], factors: Sequence[F64], totals: Sequence[F64]
    ) -> list[list[F64]]:
        """Return `GroupEvaluator.gradients` of every group, in group order; ``questions`` are those of `sums`."""
        ...


class LocalRows:
    """All groups in this process."""

    def __init__(self, groups: Sequence[GroupEvaluator], n_beamlet: int) -> None:
        self.groups = tuple(groups)
        self.n_beamlet = n_beamlet

    def sums(self, questions: Sequence[Question]) -> list[list[F64]]:
        """Return the partial sums of every group."""
        return [group.sums(questions) for group in self.groups]

    def gradients(
        self, questions: Sequence[Question], factors: Sequence[F64], totals: Sequence[F64]
    ) -> list[list[F64]]:
        """Return the gradient parts of every group; the doses are those of the last `sums`."""
        return [group.gradients(questions, factors, totals) for group in self.groups]


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

    Raises
    ------
    OptimisationError
        If there is no objective, or a robust form has only one scenario.
    """

    def __init__(self, rows: RowHolders, terms: Sequence[Term], form: Form, probability: F64) -> None:
        if not terms:
            raise OptimisationError("no objective was given (nothing could be optimised); add [[objectives]]")
        if form != "nominal" and probability.size < 2:
            raise OptimisationError(
                f"robust form '{form}' needs more than one scenario; add [scenarios] or use 'nominal'"
            )
        self.rows = rows
        self.form: Form = form
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
            Smoothing: in units of the objective (composite worst case) or in Gy (voxel-wise worst case); 0 is none.
        """
        (evaluation,) = evaluate_together(self.rows, [(self, weight, temperature)])
        return evaluation

    def question(self, weight: F64, temperature: float) -> Question:
        """Return what the holders of the rows are asked for an evaluation."""
        voxel_temperature_gy = temperature if self.form == "voxel_worst_case" else None
        return Question(weight, self.terms, self.used, voxel_temperature_gy)

    def combine(self, totals: F64, temperature: float) -> tuple[F64, F64, float, float]:
        """Return term values, the objective's derivative by each of them, the objective, and its exact twin."""
        n_state = totals.shape[1]
        values = np.zeros_like(totals)
        weighted = np.zeros(n_state)
        for number, term in enumerate(self.terms):
            states = range(n_state) if term.robust else range(1)
            for state in states:
                values[number, state] = term.function.value(float(totals[number, state]))
            if not term.robust:
                values[number, 1:] = values[number, 0]
            weighted += term.weight * values[number]
        if self.form == "composite_worst_case":
            value, of_state = soft_maximum(weighted, self.probability, temperature)
            exact, _ = soft_maximum(weighted, self.probability, 0.0)
        else:
            of_state = self.probability if n_state > 1 else np.ones(1)
            value = exact = float((of_state * weighted).sum())
        factor = np.zeros_like(totals)
        for number, term in enumerate(self.terms):
            if term.robust:
                factor[number] = term.weight * of_state
            else:
                factor[number, 0] = term.weight * of_state.sum()
        return values, factor, value, exact


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
    factors = [factor for _, factor, _, _ in combined]
    gradients = [_merge(parts) for parts in zip(*rows.gradients(questions, factors, totals), strict=True)]
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
    """Return the terms as a form judges them: a voxel-wise worst case splits those with two sides."""
    if form != "voxel_worst_case":
        return tuple(terms)
    return tuple(
        Term(term.label, term.region, part, term.weight, term.robust)
        for term in terms
        for part in one_sided(term.function)
    )


def _merge(parts: Sequence[F64]) -> F64:
    total = parts[0].copy()
    for part in parts[1:]:
        total += part
    return total
