r"""Fewer scenarios than there are: problems over some of them, which are nowhere above that over all, and the others.

For the worst cases, the robust objective over a subset W of the scenarios is never above that over all of them:

* a maximum over fewer scenarios is no higher (composite and objective-wise worst case);
* ``cvar`` and ``soft_worst_case`` are the highest mean under some set of probabilities q. Those q that are 0 outside of
  W are fewer; with the probabilities of W scaled to 1, :math:`p'_s = p_s / p(W)`, they are exactly those of the same
  form with the part :math:`\alpha' = \alpha / p(W)`, because :math:`q_s \le p_s/\alpha = p'_s/\alpha'` and
  :math:`\sum q \ln(q/p) = \sum q \ln(q/p') - \ln p(W)`. There is one as long as :math:`p(W) \ge \alpha`.

So whatever lower bound is certified for a problem over W holds for all scenarios (limits that hold in fewer scenarios
leave more plans, so it does with them, too).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from engine.errors import OptimisationError
from engine.model.arrays import F64
from engine.optimise.constraints import Constraint
from engine.optimise.group import GroupEvaluator, Question, Term
from engine.optimise.robust import Form

GENERATED_FORMS: tuple[Form, ...] = (
    "composite_worst_case",
    "objective_worst_case",
    "cvar",
    "soft_worst_case",
)
"""Forms whose value over fewer scenarios is a lower bound of that over all."""
_WHY_NOT: dict[Form, str] = {
    "nominal": "it has one scenario alone",
    "expected": "every scenario counts in an expected value, so none can be left out",
    "voxel_worst_case": "every voxel has a worst scenario of its own, so hardly one can be left out",
    "percentile": "it is not convex, so fewer scenarios give no bound",
}


@dataclass(frozen=True)
class Whole:
    """The problem over all scenarios.

    Parameters
    ----------
    form, part
        Robust form, and the part of the probability that counts as worst, for the forms that have one.
    terms, constraints
        Objectives and limits.
    probability
        Of every scenario, the nominal one first, shape (n_scenario,).
    """

    form: Form
    part: float | None
    terms: tuple[Term, ...]
    constraints: tuple[Constraint, ...]
    probability: F64


def why_no_generation(form: Form) -> str:
    """Return in words why scenarios of a form cannot be generated; nothing if they can."""
    if form in GENERATED_FORMS:
        return ""
    return (
        f"robust = '{form}' cannot do with fewer scenarios: {_WHY_NOT[form]}; use one of "
        f"{', '.join(map(repr, GENERATED_FORMS))}, or leave scenario_generation out"
    )


def scenario_sums(groups: Iterable[GroupEvaluator], asked: tuple[Term, ...], weight: F64) -> F64:
    """Return the sums of some terms in one scenario, to the last bit those of a problem that holds it.

    Parameters
    ----------
    groups
        All groups in their order, with the rows of this scenario alone. Each can be let go of when the next one comes.
    asked
        The terms of all objectives and constraints.
    weight
        Weights of all beamlets, shape (n_beamlet,).

    Returns
    -------
    array
        Shape (n_sum,).
    """
    question = Question(weight, asked, 1)
    total: F64 | None = None
    for group in groups:
        (part,) = group.sums([question])
        total = part if total is None else total + part
    if total is None:
        raise OptimisationError("no beamlet reaches any voxel (there are no rows); check beams and cut-offs")
    return total[:, 0]


def scenario_values(asked: tuple[Term, ...], sums: F64) -> F64:
    """Return the value of every term in one scenario from its sums, shape (n_asked,)."""
    places = Question(np.zeros(0), asked, 1).places
    return np.array([term.function.value(sums[place]) for term, place in zip(asked, places, strict=True)])


def asked_terms(terms: Sequence[Term], constraints: Sequence[Constraint]) -> tuple[Term, ...]:
    """Return what is asked of every scenario: the terms of all objectives and, after them, of all constraints."""
    return (*terms, *(constraint.term for constraint in constraints))


def over_subset(whole: Whole, held: Sequence[int]) -> tuple[Form, float | None, F64] | None:
    """Return form, part and probabilities of a problem over some scenarios that is nowhere above that over all.

    None where there is none: these scenarios have too little probability.
    """
    p = whole.probability[list(held)]
    total = float(p.sum())
    if total <= 0.0 or (whole.part is not None and total < whole.part * (1.0 - 1e-12)):
        return None
    part = None if whole.part is None else min(whole.part / total, 1.0)
    return whole.form, part, p / total
