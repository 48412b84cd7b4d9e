"""Objective functions of a dose: values, derivatives, convexity, limits."""

import numpy as np
import pytest
from pydantic import ValidationError

from engine.optimise.functions import (
    MeanDose,
    SquaredDeviation,
    Geud,
    SquaredOverdose,
    SquaredUnderdose,
    one_sided,
)

# By every kind, side and sort of exponent.
FUNCTIONS = [
    SquaredOverdose(dose_gy=30.0),
    SquaredOverdose(dose_gy=0.0),
    SquaredUnderdose(dose_gy=50.0),
    SquaredDeviation(dose_gy=40.0),
    MeanDose(),
    Geud(a=1.0, limit="upper", dose_gy=0.0),
    Geud(a=8.0, limit="upper", dose_gy=20.0),
    Geud(a=40.0, limit="upper", dose_gy=45.0),
    Geud(a=1.0, limit="lower", dose_gy=60.0),
    Geud(a=0.5, limit="lower", dose_gy=60.0),
    Geud(a=-8.0, limit="lower", dose_gy=55.0),
    Geud(a=-40.0, limit="lower", dose_gy=55.0),
]


def name_of(function):
    return "-".join(str(v) for v in function.model_dump().values())


each_function = pytest.mark.parametrize("function", FUNCTIONS, ids=name_of)


def shares(rng, n):
    share = rng.uniform(0.1, 1.0, n)
    return share / share.sum()


def value(function, dose_gy, share):
    return function.value(function.sums(dose_gy, share))


def test_the_squared_forms_have_their_closed_values():
    dose_gy, share = np.array([10.0, 20.0, 40.0]), np.array([0.5, 0.3, 0.2])
    # Excess over 15 Gy: 0, 5, 25; missing to 15 Gy: 5, 0, 0. Rounding only.
    assert value(SquaredOverdose(dose_gy=15.0), dose_gy, share) == pytest.approx(
        0.3 * 25 + 0.2 * 625, rel=1e-14
    )
    assert value(SquaredUnderdose(dose_gy=15.0), dose_gy, share) == pytest.approx(0.5 * 25, rel=1e-14)
    assert value(SquaredDeviation(dose_gy=15.0), dose_gy, share) == pytest.approx(
        0.5 * 25 + 0.3 * 25 + 0.2 * 625, rel=1e-14
    )
    assert value(MeanDose(), dose_gy, share) == pytest.approx(19.0, rel=1e-14)


def test_the_geud_has_its_closed_value():
    dose_gy, share = np.array([10.0, 20.0]), np.array([0.75, 0.25])
    upper = Geud(a=2.0, limit="upper", dose_gy=5.0)
    lower = Geud(a=-1.0, limit="lower", dose_gy=15.0)
    assert value(upper, dose_gy, share) == pytest.approx(
        (np.sqrt(0.75 * 100 + 0.25 * 400) - 5.0) ** 2, rel=1e-13
    )
    assert value(lower, dose_gy, share) == pytest.approx(
        (15.0 - 1.0 / (0.75 / 10 + 0.25 / 20)) ** 2, rel=1e-13
    )


def test_the_geud_of_order_one_is_the_mean():
    rng = np.random.default_rng(2)
    dose_gy, share = rng.uniform(1.0, 60.0, 50), shares(rng, 50)
    geud = Geud(a=1.0, limit="upper", dose_gy=0.0)
    assert np.sqrt(value(geud, dose_gy, share)) == pytest.approx(value(MeanDose(), dose_gy, share), rel=1e-14)


@pytest.mark.parametrize("a", [-40.0, -1.0, 0.01, 0.5, 1.0])
def test_the_geud_of_a_uniform_dose_is_that_dose(a):
    share = shares(np.random.default_rng(3), 200)
    # The root of order 1/a turns a rounding error of 2e-16 in the sum into 2e-14 at most (a = 0.01).
    lower = Geud(a=a, limit="lower", dose_gy=50.0)
    assert value(lower, np.full(200, 30.0), share) == pytest.approx(400.0, rel=1e-11)
    assert value(lower, np.full(200, 50.1), share) == 0.0


def test_the_geud_lies_between_mean_and_maximum_and_grows_with_its_order():
    rng = np.random.default_rng(4)
    dose_gy, share = rng.uniform(1.0, 60.0, 50), shares(rng, 50)
    geud_gy = [
        np.sqrt(value(Geud(a=a, limit="upper", dose_gy=0.0), dose_gy, share))
        for a in (1, 2, 5, 10, 20, 40)
    ]
    assert (np.diff(geud_gy) > 0.0).all()
    assert geud_gy[-1] < dose_gy.max()
    # By its largest term alone, the EUD is at least max * share^(1/a).
    assert geud_gy[-1] > dose_gy.max() * share[dose_gy.argmax()] ** (1 / 40)


@each_function
def test_the_gradient_matches_central_differences(function):
    rng = np.random.default_rng(5)
    dose_gy, share = rng.uniform(20.0, 55.0, 30), shares(rng, 30)
    total = function.sum(dose_gy, share)
    gradient = function.gradient(dose_gy, share, total)
    step_gy = 1e-4
    for voxel in range(dose_gy.size):
        more, less = dose_gy.copy(), dose_gy.copy()
        more[voxel] += step_gy
        less[voxel] -= step_gy
        difference = (value(function, more, share) - value(function, less, share)) / (2.0 * step_gy)
        # Truncation: step² f'''/6; rounding: 2e-16 * f / step with f < 2000 gives 4e-9.
        assert gradient[voxel] == pytest.approx(difference, rel=1e-5, abs=1e-7)


@each_function
@pytest.mark.parametrize("distance_gy", [-1e-3, -1e-6, 0.0, 1e-6, 1e-3])
def test_the_gradient_is_continuous_at_the_kink(function, distance_gy):
    # All functions have a continuous derivative, with a curvature that jumps; a mean has no kink.
    level_gy = getattr(function, "dose_gy", 10.0)
    dose_gy, share = np.array([max(level_gy, 1.0) + distance_gy, 30.0]), np.array([0.4, 0.6])
    gradient = function.gradient(dose_gy, share, function.sum(dose_gy, share))
    step_gy = 1e-5
    for voxel in range(2):
        step = step_gy * np.eye(2)[voxel]
        difference = value(function, dose_gy + step, share) - value(function, dose_gy - step, share)
        # Across a kink, central differences are off by curvature * step / 2: 1e-5 for a curvature of 2, times 41 for
        # the steepest EUD.
        assert gradient[voxel] == pytest.approx(difference / (2.0 * step_gy), abs=5e-4, rel=1e-6)


@each_function
def test_the_function_is_convex_along_random_lines(function):
    rng = np.random.default_rng(6)
    share = shares(rng, 20)
    for _ in range(200):
        a_gy, b_gy = rng.uniform(0.0, 80.0, (2, 20))
        t = rng.uniform()
        chord = t * value(function, a_gy, share) + (1.0 - t) * value(function, b_gy, share)
        assert value(function, t * a_gy + (1.0 - t) * b_gy, share) <= chord * (1.0 + 1e-12) + 1e-12


@each_function
def test_the_sum_of_parts_is_the_sum_of_the_whole(function):
    rng = np.random.default_rng(7)
    dose_gy, share = rng.uniform(1.0, 60.0, 40), shares(rng, 40)
    parts = function.sum(dose_gy[:13], share[:13]) + function.sum(dose_gy[13:], share[13:])
    assert parts == pytest.approx(function.sum(dose_gy, share), rel=1e-13)


@each_function
def test_a_dose_of_zero_gives_finite_numbers(function):
    dose_gy, share = np.zeros(4), np.full(4, 0.25)
    total = function.sum(dose_gy, share)
    assert np.isfinite(function.value(total))
    assert np.isfinite(function.gradient(dose_gy, share, total)).all()


@each_function
def test_more_dose_moves_the_value_to_the_side_that_the_function_names(function):
    rng = np.random.default_rng(8)
    dose_gy, share = rng.uniform(1.0, 60.0, 40), shares(rng, 40)
    change = value(function, dose_gy + 1.0, share) - value(function, dose_gy, share)
    assert {"over": change >= 0.0, "under": change <= 0.0, "both": True}[function.side]


def test_the_two_sides_of_a_deviation_add_up_to_it():
    rng = np.random.default_rng(9)
    dose_gy, share = rng.uniform(1.0, 60.0, 40), shares(rng, 40)
    deviation = SquaredDeviation(dose_gy=30.0)
    parts = one_sided(deviation)
    assert [part.side for part in parts] == ["over", "under"]
    assert sum(value(part, dose_gy, share) for part in parts) == pytest.approx(
        value(deviation, dose_gy, share), rel=1e-13
    )
    assert one_sided(MeanDose()) == (MeanDose(),)


@pytest.mark.parametrize(
    ("limit", "a", "why"),
    [
        ("upper", 0.5, "needs a >= 1"),
        ("upper", -3.0, "needs a >= 1"),
        ("lower", 2.0, "not convex"),
        ("lower", 0.0, "order near 0"),
        ("lower", -0.005, "order near 0"),
    ],
)
def test_a_geud_that_is_not_convex_or_not_exact_is_refused(limit, a, why):
    with pytest.raises(ValidationError, match=why):
        Geud(a=a, limit=limit, dose_gy=10.0)


def test_an_unknown_key_is_refused():
    with pytest.raises(ValidationError, match="dose_cgy"):
        SquaredOverdose(dose_gy=1.0, dose_cgy=100.0)
