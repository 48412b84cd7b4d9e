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
from engine.optimise.problem import LocalRows, Problem, split_terms
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
    ("objective_worst_case", 0.0),
    ("objective_worst_case", 3.0),
    ("cvar", 0.0),
    ("cvar", 3.0),
    ("soft_worst_case", 0.0),
    ("soft_worst_case", 30.0),
    ("percentile", 0.0),
    ("percentile", 3.0),
]
PARTS = {"cvar": 0.4, "soft_worst_case": 0.7, "percentile": 0.4}
PROBABILITY = np.array([0.5, 0.3, 0.2])
EQUAL = np.full(3, 1.0 / 3.0)


@pytest.fixture(scope="module")
def small():
    return small_problem(seed=3, block_sizes=(5, 4))


def weights(n, seed=31):
    return np.random.default_rng(seed).uniform(0.5, 3.0, n)


def problem_of(rows, terms, form, probability=None):
    return Problem(rows, terms, form, PROBABILITY if probability is None else probability, PARTS.get(form))


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
    problem = problem_of(small.rows, terms_with(function), form)
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
    problem = problem_of(small.rows, terms_with(function), form)
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
        "objective_worst_case": sum(max(of(t, d if t.robust else doses[0]) for d in doses) for t in terms),
        "cvar": worst_part_of(by_scenario),
        "percentile": percentile_of(by_scenario),
    }[form]


def worst_part_of(by_scenario):
    """Return the mean of the worst 0.4 of the probability, filled up scenario by scenario."""
    left, total = PARTS["cvar"], 0.0
    for scenario in np.argsort(-by_scenario):
        taken = min(left, PROBABILITY[scenario])
        left, total = left - taken, total + taken * by_scenario[scenario]
    return total / PARTS["cvar"]


def percentile_of(by_scenario):
    """Return the least value that no more than 0.4 of the probability exceeds."""
    return min(v for v in by_scenario if PROBABILITY[by_scenario > v].sum() <= PARTS["percentile"])


@pytest.mark.parametrize("form", sorted({form for form, _ in FORMS} - {"soft_worst_case"}))
@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS.keys())
def test_the_value_without_smoothing_is_that_of_the_dense_doses(small, form, function):
    terms, weight = terms_with(function), weights(small.n_beamlet)
    evaluation = problem_of(small.rows, terms, form).evaluate(weight, 0.0)
    # Rounding of sums of some hundred terms.
    assert evaluation.value == pytest.approx(dense_value(small, terms, form, weight), rel=1e-11)
    assert evaluation.exact == evaluation.value


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS.keys())
@pytest.mark.parametrize("seed", range(5))
def test_worst_cases_are_ordered(small, function, seed):
    weight, terms = weights(small.n_beamlet, seed), [Term("t", 0, function, 1.0), Term("u", 1, function, 1.0)]
    of = {
        form: problem_of(small.rows, terms, form).evaluate(weight, 0.0).value
        for form in sorted({form for form, _ in FORMS})
    }
    slack = 1e-12 * of["voxel_worst_case"]
    assert of["nominal"] <= of["composite_worst_case"] + slack
    assert of["expected"] <= of["composite_worst_case"] + slack
    assert of["composite_worst_case"] <= of["objective_worst_case"] + slack
    assert of["objective_worst_case"] <= of["voxel_worst_case"] + slack
    assert of["expected"] <= of["cvar"] + slack
    assert of["percentile"] <= of["cvar"] + slack
    assert of["cvar"] <= of["composite_worst_case"] + slack
    assert of["expected"] <= of["soft_worst_case"] + slack
    assert of["soft_worst_case"] <= of["composite_worst_case"] + slack


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
        problem_of(s.rows, terms_with(FUNCTIONS["geud upper"]), form).evaluate(weight, temperature)
        for s in (one, many)
    )
    assert a.value == pytest.approx(b.value, rel=1e-12)
    np.testing.assert_allclose(a.gradient, b.gradient, rtol=1e-11)


class HeldApart:
    """Groups held by several, who answer whenever they are asked."""

    def __init__(self, groups, n_beamlet, held_by):
        self.n_beamlet, self._held_by = n_beamlet, held_by
        self._holders = {
            holder: LocalRows([g for g, h in zip(groups, held_by, strict=True) if h == holder], n_beamlet)
            for holder in sorted(set(held_by), reverse=True)
        }

    def __getattr__(self, name):
        def ask(*asked):
            answers = {holder: iter(getattr(rows, name)(*asked)) for holder, rows in self._holders.items()}
            return [next(answers[holder]) for holder in self._held_by]

        return ask


@pytest.mark.parametrize("held_by", [(0, 1, 2), (1, 0, 1), (2, 2, 0)])
@pytest.mark.parametrize(("form", "temperature"), FORMS)
def test_whoever_holds_the_groups_the_bits_are_the_same(form, temperature, held_by):
    small = small_problem(seed=3, n_group=3)
    weight, terms = weights(small.n_beamlet), terms_with(FUNCTIONS["geud upper"])
    together = problem_of(small.rows, terms, form)
    apart = problem_of(HeldApart(small.rows.groups, small.n_beamlet, held_by), terms, form)
    a, b = (problem.evaluate(weight, temperature) for problem in (together, apart))
    assert (a.value, a.exact, a.gradient.tobytes()) == (b.value, b.exact, b.gradient.tobytes())
    products = [problem.hessian_product(weight, weight[::-1], temperature) for problem in (together, apart)]
    assert products[0].tobytes() == products[1].tobytes()


@pytest.mark.parametrize("form", ["cvar", "soft_worst_case"])
def test_the_worst_part_goes_from_the_mean_to_the_worst_scenario(small, form):
    weight, terms = weights(small.n_beamlet), terms_with(FUNCTIONS["overdose"])

    def value(of_form, part=None):
        return Problem(small.rows, terms, of_form, PROBABILITY, part).evaluate(weight, 0.0).value

    parts = [value(form, part) for part in (1.0, 0.8, 0.5, 0.3, 0.2, 0.01)]
    assert parts[0] == pytest.approx(value("expected"), rel=1e-13)
    # The least probability is 0.2.
    assert parts[-2] == parts[-1] == pytest.approx(value("composite_worst_case"), rel=1e-13)
    assert (np.diff(parts) >= -1e-12).all()


def test_the_objective_wise_worst_case_of_one_objective_is_the_composite_one(small):
    weight, terms = weights(small.n_beamlet), [Term("t", 0, FUNCTIONS["deviation"], 2.0)]
    for temperature in (0.0, 3.0):
        composite, objective = (
            problem_of(small.rows, terms, form).evaluate(weight, temperature)
            for form in ("composite_worst_case", "objective_worst_case")
        )
        assert composite.value == objective.value
        assert composite.gradient.tobytes() == objective.gradient.tobytes()


def test_a_voxel_worst_case_sees_what_is_hot_in_one_scenario_and_cold_in_another(small):
    weight = weights(small.n_beamlet)
    doses = np.stack([dense @ weight for dense in small.dense])
    share = small.shares[0].astype(float)
    expected = share @ (
        np.maximum(doses.max(axis=0) - 6.0, 0.0) ** 2 + np.maximum(6.0 - doses.min(axis=0), 0.0) ** 2
    )
    problem = problem_of(small.rows, [Term("t", 0, SquaredDeviation(dose_gy=6.0), 1.0)], "voxel_worst_case")
    assert problem.evaluate(weight, 0.0).value == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize(
    ("form", "part", "why"),
    [
        ("cvar", None, "needs the part"),
        ("cvar", 1.1, "at most 1"),
        ("soft_worst_case", 0.0, "needs the part"),
        ("percentile", 1.0, "below 1"),
        ("expected", 0.5, "has no worst part"),
    ],
)
def test_a_part_that_means_nothing_is_refused(small, form, part, why):
    with pytest.raises(OptimisationError, match=why):
        Problem(small.rows, terms_with(FUNCTIONS["mean"]), form, PROBABILITY, part)


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
