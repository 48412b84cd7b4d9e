"""Scenario generation: bounds from fewer scenarios, and plans within the certificate of a solve over all."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from engine.errors import OptimisationError
from engine.influence.rows import rows_of_columns
from engine.optimise.bound import Certificate, Cuts, certify
from engine.optimise.constraints import TOLERANCE_GY, Constraint
from engine.optimise.functions import (
    DvhDistance,
    MeanDose,
    SmoothMaximum,
    SquaredDeviation,
    SquaredOverdose,
)
from engine.optimise.generation import LOOSE_EVALUATIONS, generate
from engine.optimise.group import GroupEvaluator, Term, regions_of_group
from engine.optimise.limits import LimitsOutcome, plan_within_limits
from engine.optimise.problem import LocalRows, Problem
from engine.optimise.robust import n_smoothing_stage, over_scenarios, smoothing
from engine.optimise.solvers import Further, SolveResult, SolverOptions, solve
from engine.optimise.subsets import (
    GENERATED_FORMS,
    Whole,
    asked_terms,
    over_subset,
    scenario_sums,
    scenario_values,
)
from tests.dense_tiles import columns_of_dense, dense_of_columns, small_problem

N_SCENARIO, FAR = 9, (2, 5, 7)
TERMS = (
    Term("target", 0, SquaredDeviation(dose_gy=6.0), 3.0),
    Term("rest", 1, SquaredOverdose(dose_gy=2.0), 0.5),
    Term("mean, nominal", 1, MeanDose(), 0.2, robust=False),
)
PROBABILITY = np.append(0.2, np.full(N_SCENARIO - 1, 0.1))
PARTS = {"cvar": 0.25, "soft_worst_case": 0.4}
OPTIONS = SolverOptions(400, 1e-8, max_bound_evaluations=40, gap=0.01)


@dataclass(frozen=True)
class Plan:
    result: SolveResult
    certificate: Certificate
    limits: LimitsOutcome | None = None


@pytest.fixture(scope="module")
def small():
    """Return a problem of nine scenarios: three differ much from the nominal one, the others hardly."""
    made = small_problem(seed=6, block_sizes=(4, 4))
    rng, nominal = np.random.default_rng(9), made.dense[0]
    columns = [made.columns[0]]
    for scenario in range(1, N_SCENARIO):
        spread = 0.3 if scenario in FAR else 0.01
        changed = nominal * (1.0 + spread * rng.uniform(-1.0, 1.0, nominal.shape))
        columns.append(columns_of_dense(changed, made.brick_size, (4, 4)))
    dense = tuple(dense_of_columns(c, nominal.shape[0], made.brick_size) for c in columns)
    return replace(made, columns=tuple(columns), dense=dense)


def groups_of(small, scenarios):
    return [
        GroupEvaluator(
            [rows_of_columns(small.columns[s], first, n, small.brick_size) for s in scenarios],
            regions_of_group(small.shares, first * small.brick_size, n * small.brick_size),
        )
        for first, n in small.bricks
    ]


def solved_over(small, terms, constraints, held, form, probability, part, options, stages, start):
    rows = LocalRows(groups_of(small, held), small.n_beamlet)
    problem = Problem(rows, terms, form, probability, part, constraints)

    def temperature(stage, at):
        return smoothing(form, stages[stage], at.exact, 6.0)

    if constraints:
        return Plan(
            *plan_within_limits(
                problem, Problem.evaluate, start, len(stages), temperature, options,
                lambda asked: Further(product=asked.hessian_product),
            )
        )  # fmt: skip
    cuts = Cuts()

    def evaluate(weight, smoothed_by):
        evaluation = problem.evaluate(weight, smoothed_by)
        cuts.add(weight, evaluation)
        return evaluation

    result = solve(evaluate, start, len(stages), temperature, options)
    return Plan(result, certify(problem, Problem.evaluate, cuts, result, options))


def over_all(small, form, terms=TERMS, constraints=(), options=OPTIONS):
    return solved_over(
        small, terms, constraints, range(N_SCENARIO), form, PROBABILITY, PARTS.get(form), options,
        range(n_smoothing_stage(form)), np.ones(small.n_beamlet),
    )  # fmt: skip


def generated(
    small, form, terms=TERMS, constraints=(), options=OPTIONS, asked_for=None, probability=PROBABILITY
):
    """Return what scenario generation finds; what it asks for is appended to ``asked_for``."""

    def solve_over(number, asked, start_from):
        start = np.ones(small.n_beamlet) if start_from is None else start_from.result.weight
        if asked_for is not None:
            asked_for.append(asked)
        return solved_over(
            small, terms, constraints, asked.held, asked.form, asked.probability, asked.part, asked.options,
            asked.stages, start,
        )  # fmt: skip

    def view(number, weight, others):
        asked = asked_terms(terms, constraints)
        sums = [scenario_sums(groups_of(small, [s]), asked, weight) for s in others]
        return np.stack([scenario_values(asked, of_one) for of_one in sums], axis=1)

    whole = Whole(form, PARTS.get(form), terms, constraints, probability)
    return generate(whole, options, solve_over, view)


@given(
    form=st.sampled_from(GENERATED_FORMS),
    values=arrays(np.float64, (2, 6), elements=st.floats(0.0, 100.0)),
    p=arrays(np.float64, 6, elements=st.floats(0.01, 1.0)),
    part=st.floats(0.05, 1.0),
    held=st.sets(st.integers(0, 5), min_size=1),
)
def test_the_value_over_fewer_scenarios_is_nowhere_above_that_over_all(form, values, p, part, held):
    whole = Whole(form, part if form in PARTS else None, (), (), p / p.sum())
    over = over_subset(whole, sorted(held))
    if over is None:
        assert form in PARTS
        assert whole.probability[sorted(held)].sum() < part
        return
    fewer = over_scenarios(over[0], values[:, sorted(held)], over[2], over[1], 0.0).value
    most = over_scenarios(form, values, whole.probability, whole.part, 0.0).value
    assert fewer <= most + 1e-7 * (1.0 + most)


def test_a_scenario_that_is_not_held_has_the_bits_that_it_has_when_held(small):
    weight = np.linspace(0.0, 3.0, small.n_beamlet)
    terms = tuple(replace(term, robust=True) for term in TERMS)
    rows = LocalRows(groups_of(small, range(N_SCENARIO)), small.n_beamlet)
    together = Problem(rows, terms, "composite_worst_case", PROBABILITY).evaluate(weight, 0.0).term_values
    alone = [scenario_values(terms, scenario_sums(groups_of(small, [s]), terms, weight)) for s in range(9)]
    np.testing.assert_array_equal(together, np.stack(alone, axis=1))


@pytest.mark.parametrize("form", GENERATED_FORMS)
def test_the_plan_is_within_the_certificate_of_a_solve_over_all_scenarios(small, form):
    found, full = generated(small, form), over_all(small, form)
    assert found.certificate.gap <= OPTIONS.gap
    assert full.certificate.gap <= OPTIONS.gap
    assert found.certificate.lower_bound <= full.certificate.value
    assert full.certificate.lower_bound <= found.certificate.value
    assert found.certificate.value <= full.certificate.lower_bound / (1.0 - 2.0 * OPTIONS.gap)


@pytest.mark.parametrize("form", GENERATED_FORMS)
def test_what_is_told_of_the_plan_is_what_a_problem_over_all_scenarios_says(small, form):
    found = generated(small, form)
    rows = LocalRows(groups_of(small, range(N_SCENARIO)), small.n_beamlet)
    problem = Problem(rows, TERMS, form, PROBABILITY, PARTS.get(form))
    told = problem.evaluate(found.result.weight, 0.0)
    assert found.result.value == found.certificate.value == told.exact
    np.testing.assert_array_equal(found.result.term_values, told.term_values)


def test_scenarios_that_hardly_differ_from_the_nominal_one_are_not_built(small):
    found = generated(small, "composite_worst_case")
    built = set(found.generation.built)
    assert built <= {0, *FAR}
    assert len(built) > 1


def test_rounds_are_loose_until_nothing_that_is_left_out_matters_and_bounds_only_rise(small):
    asked_for = []
    rounds = generated(small, "composite_worst_case", asked_for=asked_for).generation.rounds
    loose = [told.loose for told in rounds]
    assert loose == sorted(loose, reverse=True)
    assert loose[0]
    assert not loose[-1]
    for told, asked in zip(rounds, asked_for, strict=True):
        assert asked.options.max_evaluations == (LOOSE_EVALUATIONS if told.loose else OPTIONS.max_evaluations)
        assert told.held == asked.held
        assert set(told.added) <= set(told.held)
    bounds = [told.lower_bound for told in rounds]
    assert bounds == sorted(bounds)
    assert all(told.value >= told.lower_bound for told in rounds)


def test_rounds_of_a_form_with_a_part_hold_as_much_probability(small):
    asked_for = []
    generated(small, "cvar", asked_for=asked_for)
    for asked in asked_for[1:]:
        assert PROBABILITY[list(asked.held)].sum() >= PARTS["cvar"]
        assert asked.part == pytest.approx(PARTS["cvar"] / PROBABILITY[list(asked.held)].sum())


def test_limits_hold_in_scenarios_that_were_not_held(small):
    limits = (Constraint("rest maximum", 1, SmoothMaximum(temperature_gy=0.5), "at_most", 5.0),)
    terms = TERMS[:1]
    options = SolverOptions(2000, 1e-8, max_bound_evaluations=40, gap=0.01, solver="newton_cg")
    found = generated(small, "composite_worst_case", terms, limits, options)
    assert len(found.generation.built) < N_SCENARIO
    for dense in small.dense:
        dose_gy = (dense @ found.result.weight)[small.shares[1] > 0.0]
        share = small.shares[1][small.shares[1] > 0.0].astype(float)
        maximum_gy = 0.5 * np.log(share @ np.exp(dose_gy / 0.5))
        assert maximum_gy <= 5.0 + TOLERANCE_GY + 1e-3
    assert found.limits.met == (True,)
    assert found.result.limited.shape == (1, N_SCENARIO)
    full = over_all(small, "composite_worst_case", terms, limits, options)
    assert found.certificate.lower_bound <= full.certificate.value * (1.0 + 1e-3)
    assert full.certificate.lower_bound <= found.certificate.value * (1.0 + 1e-3)


def test_without_a_certificate_it_ends_when_nothing_that_is_left_out_matters(small):
    rough = Term("rough", 1, DvhDistance(limit="upper", dose_gy=4.0, volume_percent=20.0), 0.5)
    found = generated(small, "composite_worst_case", (*TERMS, rough))
    assert found.certificate.lower_bound is None
    assert found.certificate.value == found.result.value
    assert "no scenario that was left out" in found.generation.reason


@pytest.mark.parametrize("form", ["nominal", "expected", "voxel_worst_case", "percentile"])
def test_forms_that_need_all_scenarios_are_refused(small, form):
    with pytest.raises(OptimisationError, match="cannot do with fewer scenarios"):
        generated(small, form)


def test_a_nominal_scenario_of_no_probability_is_held_but_proves_nothing(small):
    probability = np.append(0.0, np.full(N_SCENARIO - 1, 1.0 / (N_SCENARIO - 1)))
    found = generated(small, "composite_worst_case", probability=probability)
    assert found.generation.rounds[0].lower_bound is None
    assert 0 in found.generation.rounds[-1].held
    assert found.certificate.gap <= OPTIONS.gap
    assert found.result.value == pytest.approx(
        max((found.result.term_values * [[term.weight] for term in TERMS]).sum(axis=0)[1:])
    )


def test_limits_that_cannot_be_met_in_few_scenarios_are_told_as_for_all(small):
    limits = (
        Constraint("rest maximum", 1, SmoothMaximum(temperature_gy=0.5), "at_most", 2.0),
        Constraint("target mean", 0, MeanDose(), "at_least", 5.0),
    )
    options = SolverOptions(600, 1e-6, max_bound_evaluations=10, gap=0.01, solver="newton_cg")
    found = generated(small, "composite_worst_case", TERMS[:1], limits, options)
    assert not found.limits.diagnosis.can_be_met
    assert max(found.limits.excess_gy) > TOLERANCE_GY
