"""Objective functions of a dose: values, derivatives, convexity, limits."""

import numpy as np
import pytest
from pydantic import ValidationError

from engine.errors import OptimisationError
from engine.optimise.functions import (
    DoseFallOff,
    DvhDistance,
    DvhMeanTail,
    DvhPenalty,
    Eqd2,
    Geud,
    Homogeneity,
    LinearOverdose,
    LinearUnderdose,
    LkbNtcp,
    LowerMeanTail,
    MeanDose,
    PoissonTcp,
    SmoothMaximum,
    SmoothMinimum,
    SquaredDeviation,
    SquaredOverdose,
    SquaredUnderdose,
    UpperMeanTail,
    in_words,
    one_sided,
)

EQD2 = Eqd2(alpha_beta_gy=3.0, fractions=25)
FALL_OFF = DoseFallOff(from_structure="T", near_gy=50.0, far_gy=15.0, fall_off_per_mm=0.1, begin_mm=2.0)
# By every kind, side and sort of exponent.
FUNCTIONS = [
    SquaredOverdose(dose_gy=30.0),
    SquaredOverdose(dose_gy=0.0),
    SquaredUnderdose(dose_gy=50.0),
    SquaredDeviation(dose_gy=40.0),
    SquaredOverdose(reference_dose="other"),
    SquaredUnderdose(reference_dose="other"),
    SquaredDeviation(reference_dose="other"),
    FALL_OFF,
    LinearOverdose(dose_gy=30.0),
    LinearUnderdose(dose_gy=50.0),
    MeanDose(),
    Geud(a=5.0, limit="upper"),
    Geud(a=1.0, limit="upper", dose_gy=0.0),
    Geud(a=8.0, limit="upper", dose_gy=20.0),
    Geud(a=40.0, limit="upper", dose_gy=45.0),
    Geud(a=1.0, limit="lower", dose_gy=60.0),
    Geud(a=0.5, limit="lower", dose_gy=60.0),
    Geud(a=-8.0, limit="lower", dose_gy=55.0),
    Geud(a=-40.0, limit="lower", dose_gy=55.0),
    SmoothMaximum(temperature_gy=2.0),
    SmoothMaximum(temperature_gy=0.3, dose_gy=40.0),
    SmoothMinimum(temperature_gy=1.0, dose_gy=50.0),
    UpperMeanTail(volume_percent=30.0),
    UpperMeanTail(volume_percent=10.0, dose_gy=20.0),
    LowerMeanTail(volume_percent=30.0, dose_gy=60.0),
    DvhMeanTail(limit="upper", dose_gy=30.0, volume_percent=20.0),
    DvhMeanTail(limit="lower", dose_gy=50.0, volume_percent=80.0),
    DvhPenalty(limit="upper", dose_gy=30.0, volume_percent=20.0),
    DvhPenalty(limit="lower", dose_gy=50.0, volume_percent=80.0),
    DvhDistance(limit="upper", dose_gy=30.0, volume_percent=20.0),
    DvhDistance(limit="lower", dose_gy=50.0, volume_percent=80.0),
    PoissonTcp(alpha_per_gy=0.3, alpha_beta_gy=10.0, clonogens=1e6, fractions=25),
    LkbNtcp(td50_gy=45.0, m=0.15, n=0.1),
    Homogeneity(),
    SquaredOverdose(dose_gy=25.0, eqd2=EQD2),
    SquaredDeviation(dose_gy=40.0, eqd2=EQD2),
    UpperMeanTail(volume_percent=30.0, eqd2=EQD2),
    LkbNtcp(td50_gy=45.0, m=0.15, n=0.5, eqd2=EQD2),
]


def name_of(function):
    return in_words(function).replace(" ", "-")


each_function = pytest.mark.parametrize("function", FUNCTIONS, ids=name_of)


def shares(rng, n):
    share = rng.uniform(0.1, 1.0, n)
    return share / share.sum()


def reference(n):
    """Return every voxel's own reference dose, for functions that have one."""
    return np.linspace(25.0, 45.0, n)


def value(function, dose_gy, share):
    return function.value(function.sums(dose_gy, share, reference(dose_gy.size)))


def gradient_of(function, dose_gy, share):
    own = reference(dose_gy.size)
    return function.gradient(dose_gy, share, function.slope(function.sums(dose_gy, share, own)), own)


def hessian_product(function, dose_gy, share, direction_gy):
    own = reference(dose_gy.size)
    totals = function.sums(dose_gy, share, own)
    moved = function.directional_sums(dose_gy, share, direction_gy, own)
    change = function.slope_change(totals, moved)
    return function.product(dose_gy, share, direction_gy, function.slope(totals), change, own)


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
    # Doses are raised by 1e-6 Gy, and the EUD is lowered by it.
    assert value(upper, dose_gy, share) == pytest.approx(
        (np.sqrt(0.75 * 100 + 0.25 * 400) - 5.0) ** 2, rel=1e-6
    )
    assert value(lower, dose_gy, share) == pytest.approx(
        (15.0 - 1.0 / (0.75 / 10 + 0.25 / 20)) ** 2, rel=1e-6
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
        np.sqrt(value(Geud(a=a, limit="upper", dose_gy=0.0), dose_gy, share)) for a in (1, 2, 5, 10, 20, 40)
    ]
    assert (np.diff(geud_gy) > 0.0).all()
    assert geud_gy[-1] < dose_gy.max()
    # By its largest term alone, the EUD is at least max * share^(1/a).
    assert geud_gy[-1] > dose_gy.max() * share[dose_gy.argmax()] ** (1 / 40)


@each_function
@pytest.mark.parametrize("seed", [5, 50, 500])
def test_gradient_and_curvature_match_central_differences(function, seed):
    rng = np.random.default_rng(seed)
    dose_gy, share = rng.uniform(20.0, 55.0, 400), shares(rng, 400)
    gradient = gradient_of(function, dose_gy, share)
    step_gy = 1e-4
    for _ in range(3):
        direction_gy = rng.normal(size=400)
        step = step_gy * direction_gy
        difference = (value(function, dose_gy + step, share) - value(function, dose_gy - step, share)) / (
            2.0 * step_gy
        )
        # Truncation: step² f'''/6; rounding: 2e-16 * f / step with f < 2000 gives 4e-9. Voxels on a kink add less.
        assert gradient @ direction_gy == pytest.approx(difference, rel=1e-5, abs=1e-6)
        product = hessian_product(function, dose_gy, share, direction_gy)
        turned = gradient_of(function, dose_gy + step, share) - gradient_of(function, dose_gy - step, share)
        # Third derivatives are large at the edge of a tail, where the histogram's nodes are 0.05 Gy apart.
        np.testing.assert_allclose(
            product, turned / (2.0 * step_gy), rtol=1e-4, atol=1e-3 * np.abs(product).max() + 1e-9
        )


SMOOTH = [function for function in FUNCTIONS if not isinstance(function, LinearOverdose | LinearUnderdose)]


@pytest.mark.parametrize("function", SMOOTH, ids=name_of)
@pytest.mark.parametrize("distance_gy", [-1e-3, -1e-6, 0.0, 1e-6, 1e-3])
def test_the_gradient_is_continuous_at_the_kink(function, distance_gy):
    # All but the linear ones have a continuous derivative, with a curvature that jumps; a mean has no kink.
    level_gy = getattr(function, "dose_gy", None) or 10.0
    dose_gy, share = np.array([max(level_gy, 1.0) + distance_gy, 30.0]), np.array([0.4, 0.6])
    gradient = gradient_of(function, dose_gy, share)
    step_gy = 1e-5
    for voxel in range(2):
        step = step_gy * np.eye(2)[voxel]
        difference = value(function, dose_gy + step, share) - value(function, dose_gy - step, share)
        # Across a kink, central differences are off by curvature * step / 2: 1e-5 for a curvature of 2, times 41 for
        # the steepest EUD.
        assert gradient[voxel] == pytest.approx(difference / (2.0 * step_gy), abs=5e-4, rel=1e-5)


def bends(function, rng, n, low_gy, high_gy):
    """Return how far chords lie above the function, along random lines, rounding forgiven."""
    found = []
    for _ in range(150):
        share, t = shares(rng, n), rng.uniform()
        a_gy, b_gy = rng.uniform(low_gy, high_gy, (2, n))
        chord = t * value(function, a_gy, share) + (1.0 - t) * value(function, b_gy, share)
        below = value(function, t * a_gy + (1.0 - t) * b_gy, share)
        found.append(chord - below + 1e-12 * (1.0 + abs(chord)))
    return np.array(found)


@each_function
def test_what_is_called_convex_is_so_along_random_lines_and_nothing_else(function):
    rng = np.random.default_rng(6)
    if function.convex:
        assert bends(function, rng, 20, 0.0, 80.0).min() >= 0.0
    else:
        # Far below its dose a deviation of EQD2 bends the wrong way, at the edge of its tail a DVH does.
        low, high = (0.0, 12.0) if function.eqd2 is not None else (20.0, 50.0)
        assert bends(function, rng, 5, low, high).min() < 0.0


@pytest.mark.parametrize("part", [5.0, 30.0])
def test_a_mean_tail_is_convex_but_for_the_ripple_of_its_axis(part):
    # So few voxels, so close together, that the nodes show most.
    found = bends(UpperMeanTail(volume_percent=part), np.random.default_rng(16), 3, 30.0, 30.2)
    assert found.min() > -2e-4 * 0.05 / (part / 100.0)
    assert found.max() > 1e-3


@each_function
def test_the_sums_of_parts_are_those_of_the_whole(function):
    rng = np.random.default_rng(7)
    dose_gy, share = rng.uniform(1.0, 60.0, 40), shares(rng, 40)
    own = reference(40)
    parts = [function.sums(dose_gy[cut], share[cut], own[cut]) for cut in (slice(13), slice(13, None))]
    whole = function.sums(dose_gy, share, own)
    assert whole.shape == (function.n_sum,)
    # Parts that cancel, as the outer splines of the histogram nearly do, keep their absolute error.
    np.testing.assert_allclose(parts[0] + parts[1], whole, rtol=1e-12, atol=1e-14)


@each_function
def test_finer_voxels_of_the_same_doses_have_the_same_value(function):
    rng = np.random.default_rng(17)
    dose_gy, share = np.repeat(rng.uniform(20.0, 55.0, 30), 2), shares(rng, 30)
    coarse = function.value(function.sums(dose_gy[::2], share, reference(60)[::2]))
    fine = function.sums(dose_gy, np.repeat(0.5 * share, 2), np.repeat(reference(60)[::2], 2))
    assert function.value(fine) == pytest.approx(coarse, rel=1e-10)


@each_function
@pytest.mark.parametrize("level_gy", [0.0, 1.0, 150.0, 3000.0])
def test_any_uniform_dose_gives_finite_numbers(function, level_gy):
    dose_gy, share = np.full(4, level_gy), np.full(4, 0.25)
    assert np.isfinite(value(function, dose_gy, share))
    assert np.isfinite(gradient_of(function, dose_gy, share)).all()
    assert np.isfinite(hessian_product(function, dose_gy, share, np.ones(4))).all()


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
    of_eqd2 = one_sided(SquaredDeviation(dose_gy=30.0, eqd2=EQD2))
    assert [part.eqd2 for part in of_eqd2] == [EQD2, EQD2]


def test_homogeneity_has_no_sides():
    with pytest.raises(OptimisationError, match="no hot and cold side"):
        one_sided(Homogeneity())


# Closed forms.

EVEN = np.linspace(10.0, 50.0, 40_001), np.full(40_001, 1.0 / 40_001)
"""Doses that are spread evenly: the hottest part v begins at 50 - 40 v."""


@pytest.mark.parametrize("part", [1.0, 5.0, 50.0, 95.0])
def test_the_tails_of_an_even_dose_have_their_closed_means(part):
    v = part / 100.0
    hot, cold = (
        kind(volume_percent=part, dose_gy=limit_gy)
        for kind, limit_gy in ((UpperMeanTail, 0.0), (LowerMeanTail, 60.0))
    )
    # The smearing of the axis adds (1.22 h)² / (2 * 40 v) Gy to a tail of density 1 / (40 v).
    smear_gy = 1.5 * (1.22 * 0.06) ** 2 / (80.0 * v)
    assert hot.quantity(hot.sums(*EVEN)) == pytest.approx(50.0 - 20.0 * v, abs=smear_gy + 1e-3)
    assert cold.quantity(cold.sums(*EVEN)) == pytest.approx(10.0 + 20.0 * v, abs=smear_gy + 1e-3)


def test_the_forms_of_a_dvh_point_have_their_closed_values_for_an_even_dose():
    # D20% is 42 Gy; 10 % of the voxels lie between 38 Gy and it; the mean of the hottest 20 % is 46 Gy.
    upper = {"limit": "upper", "dose_gy": 38.0, "volume_percent": 20.0}
    # Squares from 0 to 4 Gy over a tenth of the volume: 16 / 3 / 10.
    assert value(DvhPenalty(**upper), *EVEN) == pytest.approx(16.0 / 30.0, rel=2e-3)
    assert value(DvhDistance(**upper), *EVEN) == pytest.approx(16.0, rel=1e-3)
    assert value(DvhMeanTail(**upper), *EVEN) == pytest.approx(64.0, rel=1e-3)
    # And the mirror image: D80% is 18 Gy, the mean of the coldest 20 % is 14 Gy.
    lower = {"limit": "lower", "dose_gy": 22.0, "volume_percent": 80.0}
    assert value(DvhPenalty(**lower), *EVEN) == pytest.approx(16.0 / 30.0, rel=2e-3)
    assert value(DvhDistance(**lower), *EVEN) == pytest.approx(16.0, rel=1e-3)
    assert value(DvhMeanTail(**lower), *EVEN) == pytest.approx(64.0, rel=1e-3)


@pytest.mark.parametrize("kind", [DvhPenalty, DvhDistance, DvhMeanTail])
def test_a_point_that_is_met_costs_nothing(kind):
    for limit, dose_gy in (("upper", 47.0), ("lower", 13.0)):
        function = kind(limit=limit, dose_gy=dose_gy, volume_percent=20.0 if limit == "upper" else 80.0)
        assert value(function, *EVEN) == 0.0
        assert not gradient_of(function, *EVEN).any()


def test_a_tail_of_a_uniform_dose_is_off_by_what_its_docstring_says():
    share = np.full(5, 0.2)
    tail = UpperMeanTail(volume_percent=5.0)
    assert value(tail, np.full(5, 40.0), share) - 40.0 == pytest.approx(2.5 * 0.05, rel=0.03)


def test_a_tail_whose_edge_is_in_a_gap_between_doses_has_its_mean():
    for n in range(2, 12):
        dose_gy, share = np.arange(1.0, n + 1.0) * 5.0, np.full(n, 1.0 / n)
        for hot in range(1, n):
            upper = UpperMeanTail(volume_percent=100.0 * hot / n)
            lower = LowerMeanTail(volume_percent=100.0 * hot / n, dose_gy=60.0)
            assert value(upper, dose_gy, share) == pytest.approx(dose_gy[-hot:].mean(), rel=1e-6)
            assert lower.quantity(lower.sums(dose_gy, share)) == pytest.approx(dose_gy[:hot].mean(), rel=1e-6)
            gradient = gradient_of(upper, dose_gy, share)
            np.testing.assert_allclose(
                gradient, np.where(dose_gy > dose_gy[-hot - 1], 1.0 / hot, 0.0), atol=1e-6
            )


def test_a_mean_tail_beyond_the_axis_still_falls_with_the_dose():
    tail, share = UpperMeanTail(volume_percent=50.0), np.full(4, 0.25)
    gradient = gradient_of(tail, np.array([150.0, 160.0, 170.0, 180.0]), share)
    assert (gradient > 0.0).all()


def test_a_large_limit_widens_the_axis():
    tail = UpperMeanTail(volume_percent=50.0, dose_gy=150.0)
    share = np.full(4, 0.25)
    # The mean of 180 and 190 Gy.
    assert tail.quantity(tail.sums(np.array([160.0, 170.0, 180.0, 190.0]), share)) == pytest.approx(
        185.0, abs=0.01
    )


@pytest.mark.parametrize("temperature_gy", [0.05, 1.0, 20.0])
def test_smooth_extremes_of_a_uniform_dose_are_that_dose(temperature_gy):
    dose_gy, share = np.full(10, 42.0), shares(np.random.default_rng(3), 10)
    assert value(SmoothMaximum(temperature_gy=temperature_gy), dose_gy, share) == pytest.approx(
        42.0, rel=1e-13
    )
    minimum = SmoothMinimum(temperature_gy=temperature_gy, dose_gy=50.0)
    assert value(minimum, dose_gy, share) == pytest.approx(64.0, rel=1e-12)


def test_smooth_extremes_lie_inside_by_no_more_than_the_bound():
    rng = np.random.default_rng(4)
    # Doses of several slots.
    dose_gy, share = rng.uniform(5.0, 120.0, 50), shares(rng, 50)
    for temperature_gy in (0.05, 0.5, 5.0):
        low = SmoothMinimum(temperature_gy=temperature_gy, dose_gy=200.0)
        smooth = value(SmoothMaximum(temperature_gy=temperature_gy), dose_gy, share)
        bound_gy = temperature_gy * np.log(1.0 / share.min())
        assert dose_gy.max() - bound_gy <= smooth <= dose_gy.max()
        assert dose_gy.min() <= low.quantity(low.sums(dose_gy, share)) <= dose_gy.min() + bound_gy


def test_half_of_all_have_a_complication_at_td50():
    function = LkbNtcp(td50_gy=40.0, m=0.2, n=0.3)
    share = shares(np.random.default_rng(5), 10)
    assert value(function, np.full(10, 40.0), share) == pytest.approx(np.log(2.0), rel=1e-13)
    # One standard deviation above: the normal distribution's 0.8413.
    assert 1.0 - np.exp(-value(function, np.full(10, 48.0), share)) == pytest.approx(0.8413447, rel=1e-6)


def test_surviving_clonogens_have_their_closed_number():
    function = PoissonTcp(alpha_per_gy=0.3, alpha_beta_gy=10.0, clonogens=1e7, fractions=30)
    # Thirty fractions of 2 Gy: effect 0.3 * 60 * (1 + 2 / 10) = 21.6.
    assert value(function, np.full(4, 60.0), np.full(4, 0.25)) == pytest.approx(
        1e7 * np.exp(-21.6), rel=1e-12
    )


def test_a_tcp_of_few_large_fractions_and_flat_response_is_not_called_convex():
    assert not PoissonTcp(alpha_per_gy=0.1, alpha_beta_gy=2.0, clonogens=1e7, fractions=5).convex


def test_homogeneity_is_the_variance():
    rng = np.random.default_rng(6)
    dose_gy, share = rng.uniform(40.0, 60.0, 50), shares(rng, 50)
    variance = share @ (dose_gy - share @ dose_gy) ** 2
    assert value(Homogeneity(), dose_gy, share) == pytest.approx(variance, rel=1e-11)
    # Relative volumes that are rounded, as stored ones are, do not make an even dose uneven.
    assert value(Homogeneity(), np.full(50, 60.0), share.astype(np.float32)) == pytest.approx(0.0, abs=1e-9)


def test_eqd2_leaves_fractions_of_2_gy_as_they_are():
    eqd2 = MeanDose(eqd2=EQD2)
    share = np.full(4, 0.25)
    assert value(eqd2, np.full(4, 50.0), share) == pytest.approx(50.0, rel=1e-14)
    # 25 fractions of 3 Gy: 75 * (3 + 3) / (2 + 3).
    assert value(eqd2, np.full(4, 75.0), share) == pytest.approx(90.0, rel=1e-14)


def test_the_fractions_come_from_the_course_unless_they_are_given():
    open_one = MeanDose(eqd2=Eqd2(alpha_beta_gy=3.0))
    assert open_one.of_course(25) == MeanDose(eqd2=EQD2)
    assert MeanDose(eqd2=EQD2).of_course(5) == MeanDose(eqd2=EQD2)
    with pytest.raises(OptimisationError, match="of_course"):
        open_one.sums(np.ones(2), np.full(2, 0.5))


def test_the_level_falls_off_from_the_target():
    level_gy = FALL_OFF.level_gy(np.array([0.0, 2.0, 12.0, 1000.0]))
    np.testing.assert_allclose(level_gy, [50.0, 50.0, 15.0 + 35.0 / np.e, 15.0], rtol=1e-12)


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (SquaredOverdose(dose_gy=20.0), "squared overdose (dose 20 Gy)"),
        (MeanDose(eqd2=Eqd2(alpha_beta_gy=3.0)), "mean (EQD2 with alpha/beta 3 Gy)"),
        (Geud(a=8.0, limit="upper", dose_gy=20.0), "gEUD (dose 20 Gy, a 8, upper)"),
        (
            DvhMeanTail(limit="lower", dose_gy=50.0, volume_percent=95.0),
            "DVH mean tail (dose 50 Gy, volume 95 %, lower)",
        ),
        (
            FALL_OFF,
            "dose fall off (from structure T, near 50 Gy, far 15 Gy, fall off 0.1/mm, begin 2 mm)",
        ),
        (
            PoissonTcp(alpha_per_gy=0.3, alpha_beta_gy=10.0, clonogens=1e7),
            "TCP (alpha 0.3/Gy, alpha/beta 10 Gy, clonogens 1e+07)",
        ),
        (LkbNtcp(td50_gy=45.0, m=0.15, n=0.5), "NTCP (td50 45 Gy, m 0.15, n 0.5)"),
    ],
)
def test_functions_read_well_in_reports(function, text):
    assert in_words(function) == text


@pytest.mark.parametrize(
    ("kind", "keys", "why"),
    [
        (SquaredOverdose, {}, "needs dose_gy or reference_dose"),
        (SquaredOverdose, {"dose_gy": 1.0, "reference_dose": "a"}, "and not both"),
        (SquaredDeviation, {"reference_dose": "a", "eqd2": EQD2}, "leave eqd2 out"),
        (SquaredUnderdose, {"dose_gy": 0.0}, "greater than 0"),
        (LowerMeanTail, {"volume_percent": 5.0}, "needs dose_gy"),
        (SmoothMinimum, {"temperature_gy": 1.0}, "needs dose_gy"),
        (Geud, {"a": -5.0, "limit": "lower"}, "needs dose_gy"),
        (
            DoseFallOff,
            {"from_structure": "T", "near_gy": 1.0, "far_gy": 2.0, "fall_off_per_mm": 0.1},
            "would grow",
        ),
    ],
)
def test_parameters_that_mean_nothing_are_refused(kind, keys, why):
    with pytest.raises(ValidationError, match=why):
        kind(**keys)


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
