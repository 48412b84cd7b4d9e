"""Measures of risk over scenarios: against linear programs and other solvers, their limits, order and derivatives."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize

from engine.optimise.risk import mean, most_adverse, percentile, worst, worst_part
from engine.optimise.subsets import Whole, over_subset

EQUAL = np.full(20, 0.05)
MEASURES = {
    "worst": lambda v, p, t: worst(v, p, t),
    "worst half": lambda v, p, t: worst_part(v, p, 0.5, t),
    "worst tenth": lambda v, p, t: worst_part(v, p, 0.1, t),
    "adverse by a half": lambda v, p, t: most_adverse(v, p, np.log(2.0), t),
    "adverse by a tenth": lambda v, p, t: most_adverse(v, p, np.log(10.0), t),
}


@st.composite
def scenarios(draw):
    n = draw(st.integers(1, 9))
    values = np.array(draw(st.lists(st.floats(0.0, 100.0), min_size=n, max_size=n)))
    shares = np.array(draw(st.lists(st.floats(0.01, 1.0), min_size=n, max_size=n)))
    return values, shares / shares.sum()


def random_scenarios(seed, n=9):
    rng = np.random.default_rng(seed)
    return rng.uniform(0.0, 50.0, n), rng.dirichlet(np.full(n, 2.0))


@pytest.mark.parametrize("share", [0.02, 0.15, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_the_worst_part_is_the_optimum_of_its_linear_program(seed, share):
    values, prior = random_scenarios(seed)
    # Rockafellar and Uryasev: least of z + sum p u / share, u >= F - z, u >= 0.
    n = values.size
    found = linprog(
        np.concatenate([[1.0], prior / share]),
        A_ub=np.hstack([-np.ones((n, 1)), -np.eye(n)]),
        b_ub=-values,
        bounds=[(None, None)] + [(0.0, None)] * n,
    )
    assert worst_part(values, prior, share, 0.0).value == pytest.approx(found.fun, rel=1e-9)


@pytest.mark.parametrize("radius", [0.01, 0.3, 1.0, 2.3])
@pytest.mark.parametrize("seed", range(4))
def test_the_most_adverse_probabilities_are_those_that_another_solver_finds(seed, radius):
    values, prior = random_scenarios(seed, n=5)
    found = minimize(
        lambda q: -(q @ values), prior, jac=lambda _: -values, method="SLSQP", bounds=[(1e-9, 1.0)] * 5,
        constraints=[
            {"type": "eq", "fun": lambda q: q.sum() - 1.0, "jac": np.ones_like},
            {
                "type": "ineq",
                "fun": lambda q: radius - (q * np.log(q / prior)).sum(),
                "jac": lambda q: -np.log(q / prior) - 1.0,
            },
        ],
        options={"ftol": 1e-12, "maxiter": 500},
    )  # fmt: skip
    judged = most_adverse(values, prior, radius, 0.0)
    assert judged.value == pytest.approx(-found.fun, rel=1e-5)
    divergence = (judged.derivative * np.log(np.maximum(judged.derivative, 1e-300) / prior)).sum()
    assert divergence <= radius * (1.0 + 1e-9)
    assert judged.derivative @ values == pytest.approx(judged.value, rel=1e-9)


@given(scenarios())
def test_the_limits_are_the_mean_and_the_maximum(drawn):
    values, prior = drawn
    average, largest = mean(values, prior).value, values.max()
    assert worst_part(values, prior, 1.0, 0.0).value == pytest.approx(average, abs=1e-9)
    assert worst_part(values, prior, prior.min(), 0.0).value == pytest.approx(largest, abs=1e-9)
    assert most_adverse(values, prior, 0.0, 0.0).value == pytest.approx(average, abs=1e-9)
    # A divergence of ln(1/p) is reached where all probability is on that scenario.
    assert most_adverse(values, prior, -np.log(prior.min()), 0.0).value == pytest.approx(largest, abs=1e-6)
    assert most_adverse(values, prior, 1e-12, 0.0).value == pytest.approx(average, abs=1e-3)


@given(scenarios(), st.floats(0.02, 0.98))
def test_percentile_worst_part_and_adverse_mean_of_one_level_are_in_this_order(drawn, share):
    values, prior = drawn
    quantile = percentile(values, prior, share, 0.0).value
    part = worst_part(values, prior, share, 0.0).value
    adverse = most_adverse(values, prior, -np.log(share), 0.0).value
    assert quantile <= part + 1e-6
    assert mean(values, prior).value <= part + 1e-9
    assert part <= adverse + 1e-6
    assert adverse <= values.max() + 1e-9


@given(scenarios(), st.floats(1e-4, 50.0), st.sampled_from(sorted(MEASURES)))
def test_no_smoothed_measure_is_above_the_exact_one_or_far_below_it(drawn, temperature, name):
    values, prior = drawn
    smooth, exact = (MEASURES[name](values, prior, t).value for t in (temperature, 0.0))
    assert smooth <= exact + 1e-9
    assert smooth >= exact - temperature * np.log(1.0 / prior.min()) - 1e-9
    assert smooth >= mean(values, prior).value - 1e-9


@given(scenarios(), st.sampled_from([0.0, 1e-3, 0.3, 20.0]), st.sampled_from(sorted(MEASURES)))
def test_the_derivatives_are_probabilities(drawn, temperature, name):
    values, prior = drawn
    derivative = MEASURES[name](values, prior, temperature).derivative
    assert (derivative >= 0.0).all()
    assert derivative.sum() == pytest.approx(1.0, rel=1e-9)


@given(
    scenarios(), st.integers(0, 1000), st.sampled_from([0.0, 1e-2, 1.0]), st.sampled_from(sorted(MEASURES))
)
def test_a_plane_of_a_convex_measure_is_nowhere_above_it(drawn, seed, temperature, name):
    values, prior = drawn
    there = np.random.default_rng(seed).uniform(0.0, 100.0, values.size)
    here = MEASURES[name](values, prior, temperature)
    plane = here.value + here.derivative @ (there - values)
    assert plane <= MEASURES[name](there, prior, 0.0).value + 1e-8


# The adverse means are smooth by themselves unless the radius reaches the worst scenario.
@pytest.mark.parametrize(
    ("name", "temperature"),
    [(name, t) for name in MEASURES for t in (0.5, 5.0, 60.0)] + [("adverse by a half", 0.0)],
)
@pytest.mark.parametrize("seed", range(4))
def test_first_and_second_derivatives_match_central_differences(name, temperature, seed):
    values, prior = random_scenarios(seed)
    check_derivatives(lambda v: MEASURES[name](v, prior, temperature), values, seed)


@pytest.mark.parametrize("temperature", [0.5, 5.0, 60.0])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_the_derivatives_of_the_smoothed_percentile_match_central_differences(temperature, share):
    values, prior = random_scenarios(11)
    check_derivatives(lambda v: percentile(v, prior, share, temperature), values, 1)


def check_derivatives(measure, values, seed):
    change, step = np.random.default_rng(seed).normal(size=values.size), 1e-5
    up, down, here = (measure(values + s * step * change) for s in (1, -1, 0))
    # Rounding: 1e-14 * 50 / 1e-5 = 5e-8.
    assert here.derivative @ change == pytest.approx((up.value - down.value) / (2.0 * step), abs=1e-6)
    np.testing.assert_allclose(
        here.turned(change), (up.derivative - down.derivative) / (2.0 * step), atol=1e-7, rtol=1e-5
    )


def test_a_percentile_is_the_value_that_the_share_exceeds():
    values = np.random.default_rng(2).permutation(np.arange(1.0, 21.0))
    assert percentile(values, EQUAL, 0.12, 0.0).value == 18.0
    assert percentile(values, EQUAL, 0.04, 0.0).value == 20.0
    # At a step, a tenth exceeds 18 and no more than a tenth does.
    assert percentile(values, EQUAL, 0.1, 0.0).value == 18.0
    assert percentile(values, EQUAL, 0.5, 0.0).value == 10.0


def test_the_smoothed_percentile_is_the_mean_of_those_around_the_level():
    values = np.arange(1.0, 21.0)
    # Between the worst 0.3 and 0.5: 14, 13, 12 and 11.
    assert percentile(values, EQUAL, 0.4, 1e-6).value == pytest.approx(12.5, abs=1e-4)


@pytest.mark.parametrize("name", [*MEASURES, "percentile"])
@pytest.mark.parametrize("temperature", [0.0, 1e-3, 2.0])
def test_a_scenario_of_probability_zero_does_not_count(name, temperature):
    measure = MEASURES.get(name, lambda v, p, t: percentile(v, p, 0.3, t))
    values, prior = random_scenarios(3)
    with_it = measure(np.append(values, 1e4), np.append(prior, 0.0), temperature)
    without = measure(values, prior, temperature)
    assert with_it.value == pytest.approx(without.value, rel=1e-13)
    np.testing.assert_allclose(with_it.derivative, np.append(without.derivative, 0.0), rtol=1e-12)
    turned = with_it.turned(np.append(np.ones_like(values), 1e4))
    assert turned[-1] == 0.0
    np.testing.assert_allclose(turned[:-1], 0.0, atol=1e-12)


def test_nearly_equal_large_values_are_judged_to_their_last_digits():
    prior = np.array([0.5, 0.3, 0.2])
    small = np.array([1.0, 3.0, 2.0])
    for name, measure in MEASURES.items():
        near = measure(1e6 + 1e-6 * small, prior, 0.0).value - 1e6
        assert near == pytest.approx(1e-6 * measure(small, prior, 0.0).value, abs=1e-9), name


@pytest.mark.parametrize(
    "seed", [78, 294, 728]
)  # of values where rounding puts the divergence beyond the radius
def test_a_worst_value_whose_probability_is_the_part_is_the_most_adverse_mean(seed):
    values = np.sort(np.random.default_rng(seed).uniform(0.0, 100.0, 3))[::-1]
    assert most_adverse(values, np.array([0.5, 0.3, 0.2]), -np.log(0.5), 0.0).value == pytest.approx(
        values[0]
    )


@pytest.mark.parametrize(
    ("n", "nominal", "percent", "n_held"), [(15, 0.3, 90, 13), (27, 0.5, 75, 14), (7, 0.5, 75, 4)]
)
def test_scenarios_that_just_make_the_part_are_judged_by_their_mean(n, nominal, percent, n_held):
    probability = np.array([nominal, *[(1.0 - nominal) / (n - 1)] * (n - 1)])
    whole = Whole("soft_worst_case", percent / 100.0, (), (), probability)
    _, part, of_held = over_subset(whole, range(n_held))
    for seed in range(10):
        values = np.random.default_rng(seed).uniform(0.0, 100.0, n_held)
        judged = most_adverse(values, of_held, -np.log(part), 0.0)
        assert judged.value == pytest.approx(of_held @ values)
