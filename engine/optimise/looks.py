"""Looks at the plan of a round in all scenarios: what it comes to there, and which scenarios matter."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

import numpy as np

from engine.model.arrays import F64
from engine.optimise.bound import Certificate
from engine.optimise.constraints import TOLERANCE_GY, excesses_gy
from engine.optimise.limits import LimitsOutcome
from engine.optimise.robust import over_scenarios
from engine.optimise.solvers import SolveResult
from engine.optimise.subsets import Whole, asked_terms, over_subset

_MOST_ADDED = 3
_ENOUGH_SHARE = 0.3
"""Added with the scenario that matters most are those that have this part of its share, at least."""
_LEAST_SMOOTHING = 0.01
"""Shares are those of the objective smoothed by so much of it, at least, which is what the solver's last stage sees."""


class Solved(Protocol):
    """A solve over some scenarios."""

    @property
    def result(self) -> SolveResult:
        """The plan."""
        ...

    @property
    def certificate(self) -> Certificate:
        """How far it is from the best one for these scenarios."""
        ...

    @property
    def limits(self) -> LimitsOutcome | None:
        """What became of the limits in these scenarios."""
        ...


S = TypeVar("S", bound=Solved)


@dataclass(frozen=True)
class Look(Generic[S]):
    """A round's plan, looked at in all scenarios.

    Parameters
    ----------
    held, solved
        The scenarios of the round, and its solve.
    values, limited
        Value of every term and of every constraint's function, shape (n_term or n_constraint, n_scenario).
    value_held, value
        Objective over the scenarios that are held (None where these alone make none), and over all.
    share
        Of every scenario in the smoothed objective over all, shape (n_scenario,).
    excess_gy
        By how much the limits that the plan was made with are exceeded, shape (n_constraint, n_scenario).
    """

    held: tuple[int, ...]
    solved: S
    values: F64
    limited: F64
    value_held: float | None
    value: float
    share: F64
    excess_gy: F64

    @property
    def limits(self) -> tuple[float, ...]:
        """Limits that the plan was made with."""
        return () if self.solved.limits is None else self.solved.limits.limits

    @property
    def exceeded_gy(self) -> float:
        """By how much they are exceeded beyond the tolerance."""
        return max(0.0, float(self.excess_gy.max(initial=-np.inf)) - TOLERANCE_GY)

    @property
    def exceeds_outside(self) -> bool:
        """Whether they are exceeded in a scenario that is not held."""
        outside = np.delete(self.excess_gy, self.held, axis=1)
        return float(outside.max(initial=-np.inf)) > TOLERANCE_GY

    @property
    def lower_bound(self) -> float | None:
        """Lower bound for all scenarios that its certificate proves."""
        return None if self.value_held is None else self.solved.certificate.lower_bound

    @property
    def missing(self) -> float:
        """What the scenarios that are not held add to the objective."""
        return np.inf if self.value_held is None else self.value - self.value_held


def look_at(
    whole: Whole, held: tuple[int, ...], solved: S, view: Callable[[tuple[int, ...]], F64]
) -> Look[S]:
    """Look at a round's plan in all scenarios."""
    n_scenario, n_term = whole.probability.size, len(whole.terms)
    n_counted, result = np.count_nonzero(whole.probability), solved.result
    values = np.zeros((n_term + len(whole.constraints), n_scenario))
    values[:n_term, held] = result.term_values
    if whole.constraints:
        values[n_term:, held] = result.limited
    others = tuple(s for s in range(n_scenario) if s not in held and whole.probability[s] > 0.0)
    if others:
        values[:, others] = view(others)
    for row, term in zip(values, asked_terms(whole.terms, whole.constraints), strict=True):
        if not term.robust:
            row[1:] = row[0]
    values, limited = values[:n_term], values[n_term:]
    weighted = values * np.array([term.weight for term in whole.terms])[:, None]
    judged = over_scenarios(whole.form, weighted, whole.probability, whole.part, 0.0)
    over, value_held = over_subset(whole, held), None
    if over is not None:
        form, part, probability = over
        value_held = over_scenarios(form, weighted[:, list(held)], probability, part, 0.0).value
    # Smoothed by what the others add, all that are worse than those that are held have a share worth mentioning.
    smoothing = max(judged.value - (value_held or 0.0), _LEAST_SMOOTHING * judged.value)
    # The worst of some is the worst however probable it is.
    prior = whole.probability if whole.part is not None else (whole.probability > 0.0) / n_counted
    smoothed = over_scenarios(whole.form, weighted, prior, whole.part, smoothing)
    constraints = whole.constraints
    if solved.limits is not None:
        constraints = tuple(
            replace(constraint, limit=limit)
            for constraint, limit in zip(constraints, solved.limits.limits, strict=True)
        )
    return Look(
        held,
        solved,
        values,
        limited,
        value_held,
        judged.value,
        (smoothed.derivative * weighted).sum(axis=0),
        excesses_gy(constraints, whole.probability, limited),
    )


def best_of(looks: Sequence[Look[S]]) -> tuple[Look[S], float | None]:
    """Return the best plan within the limits that the last one was made with, and the highest lower bound for them."""
    of_limits = [look for look in looks if look.limits == looks[-1].limits]
    best = min(of_limits, key=lambda look: (look.exceeded_gy, look.value))
    bounds = [look.lower_bound for look in of_limits if look.lower_bound is not None]
    return best, max(bounds, default=None)


def scenarios_to_add(whole: Whole, look: Look[S]) -> tuple[int, ...]:
    """Return the scenarios that matter most: in which limits are exceeded first, and then by their share."""
    outside = [s for s in range(whole.probability.size) if s not in look.held and whole.probability[s] > 0.0]
    if not outside:
        return ()
    worst_gy = look.excess_gy.max(axis=0, initial=-np.inf)
    exceeded = sorted((s for s in outside if worst_gy[s] > TOLERANCE_GY), key=lambda s: (-worst_gy[s], s))
    by_share = sorted((s for s in outside if s not in exceeded), key=lambda s: (-look.share[s], s))
    least = _ENOUGH_SHARE * max(look.share[s] for s in outside)
    added = [*exceeded, *(s for s in by_share if look.share[s] >= least and look.share[s] > 0.0)][
        :_MOST_ADDED
    ]
    left = [s for s in (*exceeded, *by_share) if s not in added]
    while left and (not added or over_subset(whole, (*look.held, *added)) is None):
        added.append(left.pop(0))
    return tuple(added)
