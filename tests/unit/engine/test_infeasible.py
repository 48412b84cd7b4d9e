"""Limits that cannot be met: ten sets with known answers, on structures that get one dose each."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from engine.influence.rows import rows_of_columns
from engine.optimise.constraints import Constraint
from engine.optimise.functions import (
    DvhDistance,
    Geud,
    MeanDose,
    PoissonTcp,
    SmoothMaximum,
    SmoothMinimum,
    SquaredDeviation,
)
from engine.optimise.group import GroupEvaluator, Term, regions_of_group
from engine.optimise.infeasible import diagnose
from engine.optimise.limits import plan_within_limits
from engine.optimise.problem import LocalRows, Problem
from engine.optimise.solvers import SolverOptions
from tests.dense_tiles import columns_of_dense

BRICK = 64
# Dose of each structure by each beamlet: a target with an organ beside it and the body, another pair, and one that no
# beamlet reaches.
REGIONS = ("target", "organ", "body", "target 2", "organ 2", "far away")
DOSE = np.array(
    [
        [1.0, 1.0, 0.0],
        [0.5, 0.25, 0.0],
        [0.2, 0.8, 0.0],
        [0.0, 0.0, 1.0],
        [0.0, 0.0, 0.4],
        [0.0, 0.0, 0.0],
    ]
)
TARGET, ORGAN, BODY, TARGET_2, ORGAN_2, FAR = range(6)
OBJECTIVES = [
    Term("target", TARGET, SquaredDeviation(dose_gy=50.0), 1.0),
    Term("target 2", TARGET_2, SquaredDeviation(dose_gy=20.0), 1.0),
]
TCP = PoissonTcp(alpha_per_gy=0.3, alpha_beta_gy=10.0, clonogens=1e6, fractions=25)


def rows():
    """Return rows of two scenarios: in the second, everything gets a tenth less."""
    dense = np.zeros((2 * BRICK, DOSE.shape[1]))
    shares = []
    for region, of_beamlet in enumerate(DOSE):
        inside = slice(16 * region, 16 * region + 16)
        dense[inside] = of_beamlet
        share = np.zeros(2 * BRICK, np.float32)
        share[inside] = 1.0 / 16.0
        shares.append(share)
    scenarios = [columns_of_dense(factor * dense, BRICK, [2, 1]) for factor in (1.0, 0.9)]
    groups = [
        GroupEvaluator(
            [rows_of_columns(columns, brick, 1, BRICK) for columns in scenarios],
            regions_of_group(shares, BRICK * brick, BRICK),
        )
        for brick in range(2)
    ]
    return LocalRows(groups, DOSE.shape[1])


def limit(region, function, sense, number):
    return Constraint(REGIONS[region], region, function, sense, number)


def mean(region, sense, number):
    return limit(region, MeanDose(), sense, number)


@dataclass(frozen=True)
class Case:
    """Limits, and by how much each that fights would have to give alone (None: that would not help)."""

    limits: list[Constraint]
    alone: dict[int, float | None]
    form: str = "nominal"
    proven: bool = True
    within: float = 0.02
    words: list[str] = field(default_factory=list)


HARMLESS = mean(BODY, "at_most", 100.0)
CASES = {
    "an organ too near its target": Case(
        [mean(TARGET, "at_least", 50.0), mean(ORGAN, "at_most", 10.0), HARMLESS],
        {0: 10.0, 1: 2.5},
        words=[
            "These 2 fight: 'target at least 50 Gy'; 'organ at most 10 Gy'.",
            "'organ at most 10 Gy' would have to give 2.5 Gy, to 12.5 Gy",
        ],
    ),
    "three, of which any two are possible": Case(
        [mean(TARGET, "at_least", 50.0), mean(ORGAN, "at_most", 20.0), mean(BODY, "at_most", 15.0)],
        {0: 5.0, 1: 35.0 / 12.0, 2: 7.0},
    ),
    "a structure that no beam reaches": Case(
        [mean(FAR, "at_least", 5.0), HARMLESS],
        {0: None},
        words=["'far away at least 5 Gy' is out of reach by itself: the best that was found is 0 Gy"],
    ),
    "more than at most": Case(
        [mean(TARGET, "at_least", 50.0), mean(TARGET, "at_most", 45.0), HARMLESS], {0: 5.0, 1: 5.0}
    ),
    "a square and a mean": Case(
        [limit(TARGET, SquaredDeviation(dose_gy=50.0), "at_most", 1.0), mean(TARGET, "at_most", 40.0)],
        {0: 99.0, 1: 9.0},
    ),
    "two conflicts that have nothing to do with each other": Case(
        [
            mean(TARGET, "at_least", 50.0),
            mean(ORGAN, "at_most", 10.0),
            mean(TARGET_2, "at_least", 30.0),
            mean(ORGAN_2, "at_most", 8.0),
        ],
        {0: None, 1: None, 2: None, 3: None},
        words=["the others could still not be met"],
    ),
    "extremes": Case(
        [
            limit(TARGET, SmoothMinimum(temperature_gy=0.5, dose_gy=50.0), "at_least", 50.0),
            limit(ORGAN, SmoothMaximum(temperature_gy=0.5), "at_most", 10.0),
            HARMLESS,
        ],
        {0: 10.0, 1: 2.5},
    ),
    "one scenario against another": Case(
        [mean(TARGET, "at_least", 50.0), mean(TARGET, "at_most", 52.0), HARMLESS],
        {0: 3.2, 1: 50.0 / 0.9 - 52.0},
        form="expected",
    ),
    "control of a tumour that may not be dosed": Case(
        [limit(TARGET, TCP, "at_most", 0.05), mean(TARGET, "at_most", 40.0), HARMLESS],
        {
            0: TCP.value(np.array([np.exp(-0.3 * 40.0 - 0.03 * 40.0**2 / 25)])) - 0.05,
            # Where 0.3 D + 0.03 D² / 25 = ln(1e6 / 0.05).
            1: (np.sqrt(0.3**2 + 4.0 * 0.0012 * np.log(2e7)) - 0.3) / 0.0024 - 40.0,
        },
        within=0.05,
    ),
    "a point of the DVH, which is not convex": Case(
        [
            limit(TARGET, DvhDistance(volume_percent=95.0, dose_gy=50.0, limit="lower"), "at_least", 50.0),
            limit(ORGAN, Geud(a=6.0, limit="upper", dose_gy=10.0), "at_most", 10.0),
            HARMLESS,
        ],
        {0: 10.0, 1: 2.5},
        proven=False,
        within=0.05,
        words=["No plan was found that meets all limits."],
    ),
}


def solved(limits, form="nominal"):
    problem = Problem(rows(), OBJECTIVES, form, np.array([0.5, 0.5]), constraints=limits)
    return plan_within_limits(
        problem, Problem.evaluate, np.full(3, 10.0), 1, lambda stage, at: 0.0, SolverOptions(2000, 1e-9)
    )


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_limits_that_cannot_be_met_are_explained(case):
    result, _, outcome = solved(case.limits, case.form)
    diagnosis = outcome.diagnosis
    assert {fight.constraint for fight in diagnosis.fights} == set(case.alone)
    assert not diagnosis.can_be_met
    assert diagnosis.proven == case.proven
    for fight in diagnosis.fights:
        alone = case.alone[fight.constraint]
        if alone is None:
            assert fight.alone is None
        else:
            # Others may be exceeded by the tolerance of 0.05 Gy meanwhile.
            assert fight.alone == pytest.approx(alone, rel=case.within, abs=0.1)
            assert 0.0 < fight.together < fight.alone
    text = " ".join(diagnosis.sentences(case.limits))
    assert all(REGIONS[case.limits[number].region] in text for number in case.alone)
    assert all(words in text for words in case.words)
    # The plan is within the limits that gave; the others hold, and what does not is told.
    for number, constraint in enumerate(case.limits):
        assert outcome.met[number] == (constraint.excess_gy(result.limited[number]).max() <= 0.05)
        if number not in case.alone:
            assert outcome.limits[number] == pytest.approx(constraint.limit, abs=1e-3)
            assert outcome.met[number]


def test_a_tight_set_that_can_be_met_is_not_diagnosed():
    # 12.5 Gy is the least that the organ can have.
    limits = [mean(TARGET, "at_least", 50.0), mean(ORGAN, "at_most", 12.6), mean(BODY, "at_most", 41.0)]
    result, _, outcome = solved(limits)
    assert outcome.diagnosis is None
    assert all(outcome.met)
    assert result.converged


def test_the_search_for_a_compromise_ends_where_all_limits_are_met():
    # 12.5 Gy is the least that the organ can have: the squared excesses fall towards 0, which they need not reach.
    limits = [mean(TARGET, "at_least", 50.0), mean(ORGAN, "at_most", 12.5), mean(BODY, "at_most", 40.0)]
    problem = Problem(rows(), OBJECTIVES, "nominal", np.ones(1), constraints=limits)
    largest_gy = []

    def ask(asked, weight, temperature):
        evaluation = asked.evaluate(weight, temperature)
        largest_gy.append(problem.excess_gy(evaluation.limited).max())
        return evaluation

    diagnosis, weight, kept = diagnose(problem, ask, np.full(3, 10.0), SolverOptions(2000, 1e-9))
    assert diagnosis.can_be_met
    assert kept == problem.constraints
    assert [excess <= 0.05 for excess in largest_gy] == [False] * (len(largest_gy) - 1) + [True]
    assert problem.excess_gy(problem.value(weight, 0.0).limited).max() == largest_gy[-1]


def test_what_a_limit_would_have_to_give_is_found_in_few_questions():
    asked = []

    def ask(problem, weight, temperature):
        asked.append(weight)
        return problem.evaluate(weight, temperature)

    limits = CASES["three, of which any two are possible"].limits
    problem = Problem(rows(), OBJECTIVES, "nominal", np.ones(1), constraints=limits)
    diagnosis, _, _ = diagnose(problem, ask, np.full(3, 10.0), SolverOptions(2000, 1e-9))
    assert [fight.alone for fight in diagnosis.fights] == pytest.approx([5.0, 35.0 / 12.0, 7.0], abs=0.01)
    # Three solves. With multipliers that settle to a 1e-6 of the squares, which nobody reads, it took 900.
    assert len(asked) < 400
