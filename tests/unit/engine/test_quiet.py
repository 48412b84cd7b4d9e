"""What cannot count is not read, and no result shows it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.influence.rows import RowGroup, rows_of_columns
from engine.optimise.functions import (
    DoseFallOff,
    Eqd2,
    LinearOverdose,
    LinearUnderdose,
    MeanDose,
    SquaredDeviation,
    SquaredOverdose,
    SquaredUnderdose,
)
from engine.optimise.group import GroupEvaluator, Question, RegionRows, Term, regions_of_group
from engine.optimise.quiet import QuietRows, silent_to_gy
from tests.dense_tiles import small_problem

N_BEAMLET = 7
PROBLEM = small_problem()
N_ROW = PROBLEM.shares[0].size
MEAN = Term("mean", 0, MeanDose(), 1.0)
OVER = Term("over", 1, SquaredOverdose(dose_gy=10.0), 1.0)
NOMINAL_OVER = Term("nominal over", 0, SquaredOverdose(dose_gy=6.0), 2.0, robust=False)


def rows_of(scenario: int) -> RowGroup:
    return rows_of_columns(PROBLEM.columns[scenario], 0, N_ROW // PROBLEM.brick_size, PROBLEM.brick_size)


def new_group() -> GroupEvaluator:
    return GroupEvaluator([rows_of(s) for s in range(3)], regions_of_group(PROBLEM.shares, 0, N_ROW))


def reading_everything() -> GroupEvaluator:
    """Return a group that leaves nothing unread."""

    class All(GroupEvaluator):
        def _wanted(self, question, known):
            return super()._wanted(question, None)

    return All(new_group().scenarios, new_group().regions)


def walk(seed: int, n: int) -> list[np.ndarray]:
    """Return weights that change by less and less, with a jump now and then."""
    rng = np.random.default_rng(seed)
    weight, found = rng.uniform(0.0, 2.0, N_BEAMLET), []
    for step in range(n):
        found.append(weight)
        size = 3.0 if step % 5 == 4 else 0.5 / (1 + step)
        weight = np.maximum(weight + size * rng.normal(size=N_BEAMLET), 0.0)
    return found


@pytest.mark.parametrize("terms", [(OVER,), (OVER, NOMINAL_OVER), (OVER, MEAN)], ids=["one", "two", "mean"])
@pytest.mark.parametrize("temperature_gy", [None, 0.3], ids=["by scenario", "voxel-wise"])
def test_no_bit_depends_on_what_was_left_unread(terms, temperature_gy):
    group, other = new_group(), reading_everything()
    direction = np.random.default_rng(5).normal(size=N_BEAMLET)
    for weight in walk(1, 12):
        asked = [Question(weight, terms, 3, temperature_gy)]
        (sums,), (expected,) = group.sums(asked), other.sums(asked)
        np.testing.assert_array_equal(sums, expected)
        slopes = [np.full_like(sums, 0.7)]
        np.testing.assert_array_equal(group.gradients(asked, slopes)[0], other.gradients(asked, slopes)[0])
        moved = [of.curvature_sums(asked, [direction])[0] for of in (group, other)]
        np.testing.assert_array_equal(*moved)
        changes = [0.3 * slopes[0]]
        products = [of.curvature_products(asked, slopes, changes)[0] for of in (group, other)]
        np.testing.assert_array_equal(*products)


def test_solves_side_by_side_do_not_disturb_each_other():
    group, other = new_group(), reading_everything()
    heavier = Term("over", 1, SquaredOverdose(dose_gy=10.0), 5.0)
    for first, second in zip(walk(2, 10), walk(3, 10), strict=True):
        # Twice the same terms, at other weights: as for the best point and the one after it.
        asked = [Question(first, (OVER,), 3), Question(second, (heavier,), 3), Question(second, (OVER,), 3)]
        for sums, expected in zip(group.sums(asked), other.sums(asked), strict=True):
            np.testing.assert_array_equal(sums, expected)


@given(seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_no_dose_rises_by_more_than_the_most(seed):
    rng, rows = np.random.default_rng(seed), rows_of(0)
    before, after = rng.uniform(0.0, 3.0, N_BEAMLET), rng.uniform(0.0, 3.0, N_BEAMLET)
    rise_gy = (rows.dose(after) - rows.dose(before)).reshape(rows.n_brick, -1).max(axis=1)
    assert (rise_gy <= rows.most_rise_gy(after - before) * (1.0 + 1e-12) + 1e-12).all()
    # One beamlet's rise is reached.
    alone = np.zeros(N_BEAMLET)
    alone[seed % N_BEAMLET] = 1.0
    np.testing.assert_allclose(
        rows.dose(alone).reshape(rows.n_brick, -1).max(axis=1), rows.most_rise_gy(alone), rtol=1e-6
    )


def test_what_is_far_below_its_level_is_read_once():
    rows, weight = rows_of(0), np.ones(N_BEAMLET)
    level_gy = np.full(N_ROW, 100.0)
    quiet = QuietRows(rows, level_gy)
    first = quiet.may_count(weight)
    assert first.all()
    quiet.note(first, rows.dose(weight))
    assert not quiet.may_count(1.1 * weight).any()
    # Not noted anew, so that rises add up until they could reach the level.
    assert quiet.may_count(100.0 * weight).any()


def test_doses_near_their_level_are_read_again():
    rows, weight = rows_of(0), np.ones(N_BEAMLET)
    dose_gy = rows.dose(weight)
    quiet = QuietRows(rows, np.full(N_ROW, np.median(dose_gy)))
    quiet.note(quiet.may_count(weight), dose_gy)
    above = (dose_gy > np.median(dose_gy)).reshape(-1, 8).any(axis=1)
    again = quiet.may_count(weight)
    np.testing.assert_array_equal(again, above)
    assert 0 < np.count_nonzero(again) < again.size


def test_weights_that_are_no_numbers_show_in_the_sums():
    group = new_group()
    for weight in (np.full(N_BEAMLET, 0.1), np.full(N_BEAMLET, np.nan), np.full(N_BEAMLET, 0.1)):
        (sums,) = group.sums([Question(weight, (OVER,), 3)])
        assert np.isnan(sums).any() == np.isnan(weight).any()


def test_rows_in_no_region_are_never_read():
    only = np.arange(64, 128, dtype=np.int32)
    regions = [RegionRows(only, np.full(64, 1 / 64))]
    quiet = QuietRows(rows_of(0), silent_to_gy([Term("m", 0, MeanDose(), 1.0)], regions, N_ROW))
    for weight in walk(4, 3):
        np.testing.assert_array_equal(np.flatnonzero(quiet.may_count(weight)), np.arange(8, 16))


def test_wanted_mini_blocks_have_the_bits_of_the_whole_product():
    rng, rows = np.random.default_rng(6), rows_of(0)
    weight, wanted = rng.uniform(0.0, 3.0, (3, N_BEAMLET)), rng.random((3, N_ROW // 8)) < 0.4
    whole, part = rows.dose(weight), rows.dose(weight, wanted)
    of_rows = np.repeat(wanted, 8, axis=1)
    np.testing.assert_array_equal(part, np.where(of_rows, whole, 0.0))


@pytest.mark.parametrize(
    ("function", "reference_gy"),
    [
        (SquaredOverdose(dose_gy=10.0), None),
        (SquaredOverdose(reference_dose="other"), np.array([4.0, 10.0, 30.0])),
        (
            DoseFallOff(from_structure="PTV", near_gy=40.0, far_gy=10.0, fall_off_per_mm=0.1),
            np.array([40.0, 20.0, 11.0]),
        ),
        (LinearOverdose(dose_gy=10.0), None),
    ],
    ids=["squared", "reference", "fall-off", "linear"],
)  # fmt: skip
def test_a_function_says_nothing_up_to_where_it_is_silent(function, reference_gy):
    share, one = np.full(3, 1 / 3), np.ones(1)
    level_gy = np.broadcast_to(function.silent_to_gy(reference_gy), 3)
    for dose_gy in (np.zeros(3), 0.5 * level_gy, level_gy.copy()):
        assert not function.sums(dose_gy, share, reference_gy).any()
        assert not function.gradient(dose_gy, share, one, reference_gy).any()
        assert not function.product(dose_gy, share, np.ones(3), one, one, reference_gy).any()
    assert function.gradient(1.01 * level_gy, share, one, reference_gy).all()


def test_functions_that_look_at_every_dose_are_never_silent():
    projected = SquaredOverdose(dose_gy=10.0, eqd2=Eqd2(alpha_beta_gy=3.0, fractions=25))
    for function in (
        MeanDose(),
        SquaredDeviation(dose_gy=10.0),
        SquaredUnderdose(dose_gy=10.0),
        LinearUnderdose(dose_gy=10.0),
        projected,
    ):
        assert function.silent_to_gy() is None
