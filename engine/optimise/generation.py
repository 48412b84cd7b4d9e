"""Scenario generation: solve over a few scenarios, look at the plan in all others, and add those that matter.

What is proven for a problem over few scenarios is a lower bound for all (`engine.optimise.subsets`), and the plan's own
objective over all scenarios is an upper one. The loop ends with both. See docs/methods/optimisation.md.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Generic, Protocol

import numpy as np

from engine.errors import OptimisationError
from engine.model.arrays import F64
from engine.optimise.bound import Certificate, certificate_of
from engine.optimise.constraints import excesses_gy
from engine.optimise.limits import LimitsOutcome
from engine.optimise.looks import Look, S, best_of, look_at, scenarios_to_add
from engine.optimise.robust import Form, n_smoothing_stage
from engine.optimise.solvers import SolveResult, SolverOptions
from engine.optimise.subsets import Whole, over_subset, why_no_generation

LOOSE_EVALUATIONS = 40
"""Evaluations of a round that only looks for the scenarios that matter."""
_MISSING_OF_GAP = 0.1
"""Scenarios that are left out matter while they make more than this part of the gap that is good enough."""


@dataclass(frozen=True)
class Subproblem:
    """The problem over some scenarios.

    Parameters
    ----------
    held
        Numbers of the scenarios, ascending; the nominal one, 0, is always among them.
    form, part
        Robust form over these, and its part.
    probability
        Of these, shape (n_held,); sums to 1.
    stages
        Numbers of the stages of smoothing.
    options
        How long and how exactly.
    """

    held: tuple[int, ...]
    form: Form
    part: float | None
    probability: F64
    stages: tuple[int, ...]
    options: SolverOptions


class Solver(Protocol[S]):
    """Solves over some scenarios, from the plan of the round before."""

    def __call__(self, number: int, asked: Subproblem, start_from: S | None) -> S:
        """Return the solve of a round, counted from 1."""
        ...


class Viewer(Protocol):
    """Looks at a plan in scenarios that are not held."""

    def __call__(self, number: int, weight: F64, others: tuple[int, ...]) -> F64:
        """Return the values of all terms and, after them, constraints in some scenarios, shape (n_asked, n_scenario).

        See `engine.optimise.subsets.scenario_values`.
        """
        ...


@dataclass(frozen=True)
class Round:
    """A round, told.

    Parameters
    ----------
    held, added
        Numbers of the scenarios it was solved over, and of those among them that the round before had not.
    loose
        Whether it was to find scenarios alone.
    n_evaluation
        Evaluations and products, those for the bound included.
    value_held
        Objective of its plan over the scenarios that were held, or None where these alone make none.
    value
        Objective of its plan over all scenarios.
    worst
        Number of the scenario that has the largest share in it.
    lower_bound
        What no plan can be below over all scenarios, as far as is proven by now.
    """

    held: tuple[int, ...]
    added: tuple[int, ...]
    loose: bool
    n_evaluation: int
    value_held: float | None
    value: float
    worst: int
    lower_bound: float | None


@dataclass(frozen=True)
class Generation:
    """How scenarios were generated: the rounds, how many scenarios there are, and why it ended, in words."""

    rounds: tuple[Round, ...]
    n_scenario: int
    reason: str

    @property
    def built(self) -> tuple[int, ...]:
        """Numbers of all scenarios whose matrix was built, ascending."""
        return tuple(sorted({number for told in self.rounds for number in told.held}))


@dataclass(frozen=True)
class Generated(Generic[S]):
    """The best plan that was found, judged over all scenarios.

    Parameters
    ----------
    solved
        The solve that it comes from.
    result, certificate, limits
        The same as of a solve over all scenarios; the history is that of all rounds.
    generation
        How it was found.
    """

    solved: S
    result: SolveResult
    certificate: Certificate
    limits: LimitsOutcome | None
    generation: Generation


def generate(
    whole: Whole,
    options: SolverOptions,
    solve_over: Solver[S],
    view: Viewer,
    tell: Callable[[int, Round], None] = lambda number, told: None,
) -> Generated[S]:
    """Solve over all scenarios, with the matrices of as few as are needed.

    The first round is nominal. Rounds are loose until no scenario that is left out makes the plan worse by more than
    the gap that is good enough, and then as exact as a solve over all scenarios. The loop ends when the certified gap
    is good enough, or nothing that is left out matters.

    Parameters
    ----------
    whole
        The problem.
    options
        Those of a solve over all scenarios.
    solve_over
        Solves over some scenarios.
    view
        Looks at a plan in others.
    tell
        Is told of every round, and its number.

    Raises
    ------
    OptimisationError
        If the form does not allow it.
    """
    why_not = why_no_generation(whole.form)
    if why_not:
        raise OptimisationError(why_not)
    # Rounds within limits find their multipliers anew, and cannot tell loosely what cannot be met.
    exact = bool(whole.constraints)
    held: tuple[int, ...] = (0,)
    before: tuple[int, ...] = ()
    looks: list[Look[S]] = []
    rounds: list[Round] = []
    while True:
        asked = _subproblem(whole, held, len(rounds), exact, options)
        solved = solve_over(len(rounds) + 1, asked, looks[-1].solved if looks else None)
        looks.append(look_at(whole, held, solved, partial(view, len(rounds) + 1, solved.result.weight)))
        best, lower = best_of(looks)
        missing = looks[-1].missing
        rounds.append(_told(looks[-1], tuple(set(held) - set(before)), not exact, lower))
        tell(len(rounds), rounds[-1])
        gap = None if lower is None else (best.value - lower) / best.value if best.value > lower else 0.0
        if exact and not best.exceeded_gy and gap is not None and gap <= options.gap:
            reason = f"the certified gap is within {100.0 * options.gap:g} %"
            break
        share = _MISSING_OF_GAP if exact else 1.0
        matters = looks[-1].exceeds_outside or missing > share * options.gap * looks[-1].value
        more = scenarios_to_add(whole, looks[-1]) if matters else ()
        if not more and exact:
            reason = (
                "all scenarios were held"
                if len(held) == whole.probability.size
                else "no scenario that was left out makes the plan worse by more than "
                f"{100.0 * _MISSING_OF_GAP * options.gap:g} %"
            )
            break
        before, held = held, tuple(sorted({*held, *more}))
        exact = exact or not more
    return _generated(whole, looks, rounds, reason)


def _subproblem(
    whole: Whole, held: tuple[int, ...], n_before: int, exact: bool, options: SolverOptions
) -> Subproblem:
    n_stage, over = n_smoothing_stage(whole.form), over_subset(whole, held)
    stages: tuple[int, ...]
    if len(held) == 1:
        form: Form = "nominal"
        part, probability, stages = None, np.ones(1), (0,)
    elif over is None:
        raise OptimisationError(f"{len(held)} scenarios are too improbable to be optimised by themselves")
    else:
        form, part, probability = over
        # Later rounds begin near the solution, and stronger smoothing would lead away from it.
        stages = (n_stage - 1 if exact else min(n_before - 1, n_stage - 1),)
        if whole.constraints:
            stages = tuple(range(n_stage))
    if not exact:
        options = replace(
            options,
            max_evaluations=min(LOOSE_EVALUATIONS, options.max_evaluations),
            tolerance=100.0 * options.tolerance,
            max_bound_evaluations=0,
        )
    return Subproblem(held, form, part, probability, stages, options)


def _told(look: Look[S], added: tuple[int, ...], loose: bool, lower: float | None) -> Round:
    solved = look.solved
    n_evaluation = solved.result.history.size + solved.result.n_product + solved.certificate.n_evaluation
    return Round(
        look.held,
        tuple(sorted(added)),
        loose,
        n_evaluation,
        look.value_held,
        look.value,
        int(look.share.argmax()),
        lower,
    )


def _generated(whole: Whole, looks: Sequence[Look[S]], rounds: Sequence[Round], reason: str) -> Generated[S]:
    best, lower = best_of(looks)
    results = [look.solved.result for look in looks]
    begins = np.cumsum([0, *(result.history.size for result in results)])
    result = replace(
        best.solved.result,
        value=best.value,
        history=np.concatenate([result.history for result in results]),
        stage_begin=tuple(
            int(begin) + stage
            for begin, of_round in zip(begins, results, strict=False)
            for stage in of_round.stage_begin
        ),
        term_values=best.values,
        n_product=sum(of_round.n_product for of_round in results),
        limited=best.limited if whole.constraints else best.solved.result.limited,
    )
    n_evaluation = sum(look.solved.certificate.n_evaluation for look in looks)
    unproven = best.solved.certificate
    if lower is None:
        certificate = replace(unproven, value=best.value, n_evaluation=n_evaluation)
        if certificate.lower_bound is not None:
            # Of too few scenarios to say anything of all.
            text = "no certificate: no lower bound over all scenarios was found"
            certificate = replace(certificate, lower_bound=None, gap=None, text=text)
    else:
        exceeded_gy = max(0.0, float(best.excess_gy.max(initial=-np.inf)))
        certificate = certificate_of(
            best.value, lower, n_evaluation, exceeded_gy if whole.constraints else None
        )
    limits = best.solved.limits
    if limits is not None:
        own_gy = excesses_gy(whole.constraints, whole.probability, best.limited)
        limits = replace(
            limits,
            excess_gy=tuple(float(excess) for excess in own_gy.max(axis=1)),
            worst_state=tuple(int(state) for state in own_gy.argmax(axis=1)),
        )
    told = Generation(tuple(rounds), whole.probability.size, reason)
    return Generated(best.solved, result, certificate, limits, told)
