"""The objective in the weights: gradients of all robust forms, groups, worst cases."""

import numpy as np
import pytest

from engine.errors import OptimisationError
from engine.optimise.functions import (
    DvhPenalty,
    Geud,
    Homogeneity,
    MeanDose,
    SmoothMaximum,
    SquaredDeviation,
    SquaredOverdose,
    SquaredUnderdose,
    UpperMeanTail,
)
from engine.optimise.group import Term
from engine.optimise.problem import Problem, split_terms
from tests.dense_tiles import small_problem

# Doses are 0 to 20 Gy here.
FUNCTIONS = {
    "overdose": SquaredOverdose(dose_gy=4.0),
    "underdose": SquaredUnderdose(dose_gy=9.0),
    "deviation": SquaredDeviation(dose_gy=6.0),
    "mean": MeanDose(),
    "geud upper": Geud(a=6.0, limit="upper", dose_gy=2.0),
    "geud lower": Geud(a=-3.0, limit="lower", dose_gy=9.0),
    "geud root": Geud(a=0.5, limit="lower", dose_gy=12.0),
}
WITH_MANY_SUMS = {
    "smooth maximum": SmoothMaximum(temperature_gy=0.5),
    "upper tail": UpperMeanTail(volume_percent=20.0, resolution_gy=0.2),
    "dvh": DvhPenalty(limit="upper", dose_gy=4.0, volume_percent=20.0, resolution_gy=0.2),
    "homogeneity": Homogeneity(),
}
# Form and temperature; a temperature of 0 has kinks, but not where random weights are.
FORMS = [
    ("nominal", 0.0),
    ("expected", 0.0),
    ("composite_worst_case", 0.0),
    ("composite_worst_case", 0.3),
    ("composite_worst_case", 5.0),
    ("voxel_worst_case", 0.0),
    ("voxel_worst_case", 0.05),
    ("voxel_worst_case", 1.0),
]
PROBABILITY = np.array([0.5, 0.3, 0.2])
EQUAL = np.full(3, 1.0 / 3.0)


@pytest.fixture(scope="module")
def small():
    return small_problem(seed=3, block_sizes=(5, 4))


def weights(n, seed=31):
    return np.random.default_rng(seed).uniform(0.5, 3.0, n)


def terms_with(function):
    """One function, robust and nominal, next to a robust term of another sort on an overlapping region."""
    return [
        Term("robust", 0, function, 2.0, robust=True),
        Term("nominal", 1, function, 0.7, robust=False),
        Term("other", 1, SquaredDeviation(dose_gy=5.0), 1.3, robust=True),
    ]


@pytest.mark.parametrize(("form", "temperature"), FORMS)
@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS.keys())
def test_the_gradient_matches_central_differences(small, form, temperature, function):
    assert len(small.bricks) == 2
    problem = Problem(small.rows, terms_with(function), form, PROBABILITY)
    weight = weights(small.n_beamlet)
    gradient = problem.evaluate(weight, temperature).gradient
    step = 1e-6
    difference = np.empty_like(gradient)
    for beamlet in range(weight.size):
        change = step * np.eye(weight.size)[beamlet]
        up, down = (problem.evaluate(weight + s * change, temperature).value for s in (1, -1))
        difference[beamlet] = (up - down) / (2.0 * step)
    # Rounding: 1e-15 * 300 / 1e-6 = 3e-7; where one voxel of 400 crosses a kink within the step, less than that.
    np.testing.assert_allclose(gradient, difference, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("name", "form", "temperature"),
    [
        (name, *form)
        for name in ("overdose", "geud upper", *WITH_MANY_SUMS)
        for form in FORMS
        if (name, form[0]) != ("homogeneity", "voxel_worst_case")  # it has no side
    ],
)
def test_the_product_with_the_hessian_matches_differences_of_gradients(small, form, temperature, name):
    function = {**FUNCTIONS, **WITH_MANY_SUMS}[name]
    problem = Problem(small.rows, terms_with(function), form, PROBABILITY)
    weight, direction = weights(small.n_beamlet), np.random.default_rng(32).normal(size=small.n_beamlet)
    step = 1e-6
    up, down = (problem.evaluate(weight + s * step * direction, temperature).gradient for s in (1, -1))
    difference = (up - down) / (2.0 * step)
    product = problem.hessian_product(weight, direction, temperature)
    # One voxel of 200 that crosses a kink within the step would be 1e-2.
    np.testing.assert_allclose(product, difference, rtol=1e-4, atol=1e-4 * np.abs(difference).max())


@pytest.mark.parametrize("function", WITH_MANY_SUMS.values(), ids=WITH_MANY_SUMS.keys())
def test_value_and_gradient_of_many_sums_are_those_of_the_dense_doses(small, function):
    weight, terms = weights(small.n_beamlet), terms_with(function)
    problem = Problem(small.rows, terms, "expected", PROBABILITY)
    evaluation = problem.evaluate(weight, 0.0)
    assert evaluation.value == pytest.approx(dense_value(small, terms, "expected", weight), rel=1e-11)
    direction, step = np.random.default_rng(33).normal(size=weight.size), 1e-5
    up, down = (problem.evaluate(weight + s * step * direction, 0.0).value for s in (1, -1))
    assert evaluation.gradient @ direction == pytest.approx((up - down) / (2.0 * step), rel=1e-6)


def dense_value(small, terms, form, weight):
    """Return the exact objective from dense matrices and whole-region doses."""
    doses = [dense @ weight for dense in small.dense]

    def of(term, dose_gy):
        share = small.shares[term.region].astype(float)
        inside = share > 0.0
        return term.weight * term.function.value(term.function.sums(dose_gy[inside], share[inside]))

    if form == "voxel_worst_case":
        highest, lowest = np.max(doses, axis=0), np.min(doses, axis=0)
        total = 0.0
        for term in split_terms(terms, form):
            extreme = lowest if term.function.side == "under" else highest
            total += of(term, extreme if term.robust else doses[0])
        return total
    by_scenario = np.array([sum(of(t, d if t.robust else doses[0]) for t in terms) for d in doses])
    return {
        "nominal": by_scenario[0],
        "expected": PROBABILITY @ by_scenario,
        "composite_worst_case": by_scenario.max(),
    }[form]


@pytest.mark.parametrize("form", ["nominal", "expected", "composite_worst_case", "voxel_worst_case"])
@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS.keys())
def test_the_value_without_smoothing_is_that_of_the_dense_doses(small, form, function):
    terms, weight = terms_with(function), weights(small.n_beamlet)
    evaluation = Problem(small.rows, terms, form, PROBABILITY).evaluate(weight, 0.0)
    # Rounding of sums of some hundred terms.
    assert evaluation.value == pytest.approx(dense_value(small, terms, form, weight), rel=1e-11)
    assert evaluation.exact == evaluation.value


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS.keys())
@pytest.mark.parametrize("seed", range(5))
def test_worst_cases_are_ordered(small, function, seed):
    weight, terms = weights(small.n_beamlet, seed), [Term("t", 0, function, 1.0), Term("u", 1, function, 1.0)]
    of = {
        form: Problem(small.rows, terms, form, PROBABILITY).evaluate(weight, 0.0).value
        for form in ("nominal", "expected", "composite_worst_case", "voxel_worst_case")
    }
    slack = 1e-12 * of["voxel_worst_case"]
    assert of["nominal"] <= of["composite_worst_case"] + slack
    assert of["expected"] <= of["composite_worst_case"] + slack
    assert of["composite_worst_case"] <= of["voxel_worst_case"] + slack


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS.keys())
def test_smoothing_lowers_the_worst_case_less_and_less(small, function):
    weight, terms = weights(small.n_beamlet), terms_with(function)
    composite = Problem(small.rows, terms, "composite_worst_case", PROBABILITY)
    exact = composite.evaluate(weight, 0.0).value
    smoothed = [composite.evaluate(weight, t) for t in (10.0, 1.0, 0.1, 1e-3)]
    assert (np.diff([s.value for s in smoothed]) >= -1e-12 * exact).all()
    assert smoothed[-1].value <= exact
    # T ln(1 / p) with the smallest probability of 0.2.
    assert smoothed[-1].value >= exact - 1e-3 * np.log(5.0) - 1e-12
    assert all(s.exact == exact for s in smoothed)


def test_terms_that_are_not_robust_have_one_value_in_all_scenarios(small):
    terms = terms_with(FUNCTIONS["overdose"])
    values = (
        Problem(small.rows, terms, "expected", PROBABILITY)
        .evaluate(weights(small.n_beamlet), 0.0)
        .term_values
    )
    assert values.shape == (3, 3)
    assert len(set(values[1])) == 1
    assert len(set(values[0])) == 3


def test_a_scenario_of_probability_zero_is_no_worst_case(small):
    weight, terms = weights(small.n_beamlet), [Term("t", 0, FUNCTIONS["overdose"], 1.0)]
    by_scenario = Problem(small.rows, terms, "expected", EQUAL).evaluate(weight, 0.0).term_values[0]
    worst = int(by_scenario.argmax())
    probability = np.where(np.arange(3) == worst, 0.0, 0.5)
    evaluation = Problem(small.rows, terms, "composite_worst_case", probability).evaluate(weight, 1e-4)
    assert evaluation.exact == np.delete(by_scenario, worst).max()
    assert np.isfinite(evaluation.value)


@pytest.mark.parametrize(("form", "temperature"), FORMS)
def test_the_number_of_groups_changes_values_by_rounding_alone(form, temperature):
    one, many = small_problem(seed=3, n_group=1), small_problem(seed=3, n_group=3)
    assert (len(one.bricks), len(many.bricks)) == (1, 3)
    weight = weights(one.n_beamlet)
    a, b = (
        Problem(s.rows, terms_with(FUNCTIONS["geud upper"]), form, PROBABILITY).evaluate(weight, temperature)
        for s in (one, many)
    )
    assert a.value == pytest.approx(b.value, rel=1e-12)
    np.testing.assert_allclose(a.gradient, b.gradient, rtol=1e-11)


def test_the_same_question_gets_the_same_bits(small):
    problem = Problem(small.rows, terms_with(FUNCTIONS["mean"]), "voxel_worst_case", PROBABILITY)
    weight = weights(small.n_beamlet)
    first = problem.evaluate(weight, 0.1)
    problem.evaluate(2.0 * weight, 0.1)
    again = problem.evaluate(weight, 0.1)
    assert (first.value, first.gradient.tobytes()) == (again.value, again.gradient.tobytes())


def test_a_voxel_worst_case_splits_two_sided_terms_and_keeps_the_others(small):
    terms = terms_with(FUNCTIONS["mean"])
    split = split_terms(terms, "voxel_worst_case")
    assert [t.label for t in split] == ["robust", "nominal", "other", "other"]
    assert [t.function.side for t in split] == ["over", "over", "over", "under"]
    assert split_terms(terms, "expected") == tuple(terms)


def test_a_problem_without_objectives_is_refused(small):
    with pytest.raises(OptimisationError, match="no objective"):
        Problem(small.rows, [], "nominal", PROBABILITY)


@pytest.mark.parametrize("form", ["expected", "composite_worst_case", "voxel_worst_case"])
def test_a_robust_form_with_one_scenario_is_refused(small, form):
    with pytest.raises(OptimisationError, match="more than one scenario"):
        Problem(small.rows, terms_with(FUNCTIONS["mean"]), form, np.ones(1))
