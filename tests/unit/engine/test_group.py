"""One reduction group: regions, partial sums, its part of the gradient."""

import numpy as np
import pytest

from engine.influence.rows import rows_of_columns
from engine.optimise.functions import MeanDose, SquaredOverdose, UpperMeanTail
from engine.optimise.group import GroupEvaluator, Question, RegionRows, Term, regions_of_group
from tests.dense_tiles import small_problem

WEIGHT = np.random.default_rng(21).uniform(0.0, 5.0, 7)


@pytest.fixture(scope="module")
def problem():
    return small_problem()


def whole(problem):
    n_brick = problem.dense[0].shape[0] // problem.brick_size
    return GroupEvaluator(
        [rows_of_columns(columns, 0, n_brick, problem.brick_size) for columns in problem.columns],
        regions_of_group(problem.shares, 0, n_brick * problem.brick_size),
    )


def test_regions_are_cut_without_loss(problem):
    n_row = problem.shares[0].size
    parts = [regions_of_group(problem.shares, first, 64) for first in range(0, n_row, 64)]
    for number, share in enumerate(problem.shares):
        again = np.zeros(n_row)
        for part, first in zip(parts, range(0, n_row, 64), strict=True):
            again[part[number].row + first] = part[number].share
        assert (again == share).all()


def test_the_sums_are_those_of_the_dense_doses(problem):
    terms = (Term("m", 0, MeanDose(), 1.0), Term("o", 1, SquaredOverdose(dose_gy=2.0), 3.0, robust=False))
    (sums,) = whole(problem).sums([Question(WEIGHT, terms, 3)])
    assert sums.shape == (2, 3)
    for scenario, dense in enumerate(problem.dense):
        # Rounding of sums of some hundred terms.
        assert sums[0, scenario] == pytest.approx(
            problem.shares[0].astype(float) @ (dense @ WEIGHT), rel=1e-12
        )
    excess_gy = np.maximum(problem.dense[0] @ WEIGHT - 2.0, 0.0)
    assert sums[1, 0] == pytest.approx(problem.shares[1].astype(float) @ excess_gy**2, rel=1e-12)
    # What is not robust is judged in the nominal scenario alone.
    assert not sums[1, 1:].any()


def test_only_the_scenarios_in_use_are_computed(problem):
    (sums,) = whole(problem).sums([Question(WEIGHT, (Term("m", 0, MeanDose(), 1.0),), 1)])
    assert sums.shape == (1, 1)


def test_the_gradient_of_a_mean_is_the_share_of_the_columns(problem):
    group, asked = whole(problem), [Question(WEIGHT, (Term("m", 0, MeanDose(), 1.0),), 3)]
    group.sums(asked)
    factor = np.array([[0.2, 0.5, 0.3]])
    (gradient,) = group.gradients(asked, [factor])
    expected = sum(
        p * (problem.shares[0].astype(float) @ dense)
        for p, dense in zip(factor[0], problem.dense, strict=True)
    )
    np.testing.assert_allclose(gradient, expected, rtol=1e-12)


def test_a_group_without_rows_of_a_region_adds_nothing(problem):
    nowhere = RegionRows(np.empty(0, np.int32), np.empty(0))
    group = GroupEvaluator(whole(problem).scenarios, [nowhere])
    terms = (Term("m", 0, MeanDose(), 1.0),)
    for temperature_gy in (None, 0.1):
        asked = [Question(WEIGHT, terms, 3, temperature_gy)]
        (totals,) = group.sums(asked)
        assert not totals.any()
        assert not group.gradients(asked, [np.ones_like(totals)])[0].any()


def test_questions_asked_together_get_the_bits_that_they_get_alone(problem):
    group, rng = whole(problem), np.random.default_rng(22)
    over, mean = Term("o", 1, SquaredOverdose(dose_gy=2.0), 3.0), Term("m", 0, MeanDose(), 1.0, robust=False)
    # More than four, so that those that are added in fours and those that are left over both occur.
    asked = [
        Question(rng.uniform(0.0, 5.0, 7), terms, used, temperature_gy)
        for terms in ((over,), (mean, over))
        for used, temperature_gy in ((1, None), (3, None), (3, 0.2))
    ]
    totals = group.sums(asked)
    factors = [np.full_like(total, 0.7) for total in totals]
    together = group.gradients(asked, factors)
    for question, total, factor, gradient in zip(asked, totals, factors, together, strict=True):
        (alone,) = group.sums([question])
        np.testing.assert_array_equal(alone, total)
        np.testing.assert_array_equal(group.gradients([question], [factor])[0], gradient)
        assert gradient.any()


def test_sums_of_terms_lie_one_below_the_other(problem):
    tail = UpperMeanTail(volume_percent=10.0)
    terms = (Term("m", 0, MeanDose(), 1.0), Term("t", 1, tail, 1.0), Term("m", 1, MeanDose(), 1.0))
    question = Question(WEIGHT, terms, 2)
    assert question.places == [slice(0, 1), slice(1, 1 + tail.n_sum), slice(1 + tail.n_sum, 2 + tail.n_sum)]
    (sums,) = whole(problem).sums([question])
    assert sums.shape == (question.n_sum, 2)
    share = problem.shares[1].astype(float)
    dose_gy = problem.dense[1] @ WEIGHT
    np.testing.assert_allclose(sums[question.places[1], 1], tail.sums(dose_gy, share), atol=1e-14)


def test_every_voxel_has_its_own_reference_dose(problem):
    n_row = problem.shares[0].size
    own_gy = np.linspace(0.0, 9.0, n_row).astype(np.float32)
    shares = [problem.shares[0], problem.shares[0]]
    regions = regions_of_group(shares, 64, n_row - 64, {1: own_gy})
    assert regions[0].reference_gy is None
    np.testing.assert_array_equal(regions[1].reference_gy, own_gy[64 + regions[1].row])
    group = GroupEvaluator(whole(problem).scenarios, regions_of_group(shares, 0, n_row, {1: own_gy}))
    asked = [Question(WEIGHT, (Term("o", 1, SquaredOverdose(reference_dose="other"), 1.0),), 1)]
    (sums,) = group.sums(asked)
    excess_gy = np.maximum(problem.dense[0] @ WEIGHT - own_gy, 0.0)
    assert sums[0, 0] == pytest.approx(shares[0].astype(float) @ excess_gy**2, rel=1e-12)


def test_the_changes_of_the_sums_are_their_derivatives(problem):
    group, direction = whole(problem), np.random.default_rng(23).normal(size=7)
    terms = (Term("o", 1, SquaredOverdose(dose_gy=2.0), 3.0), Term("m", 0, MeanDose(), 1.0, robust=False))
    for temperature_gy in (None, 0.2):
        question = Question(WEIGHT, terms, 3, temperature_gy)
        ((at, moved),) = group.curvature_sums([question], [direction])
        np.testing.assert_array_equal(at, group.sums([question])[0])
        step = 1e-6
        (up,), (down,) = (
            group.sums([Question(WEIGHT + s * step * direction, terms, 3, temperature_gy)]) for s in (1, -1)
        )
        np.testing.assert_allclose(moved, (up - down) / (2.0 * step), rtol=1e-6, atol=1e-8)


def test_the_bytes_are_those_of_all_scenarios(problem):
    group = whole(problem)
    assert group.n_bytes == sum(rows.n_bytes for rows in group.scenarios.matrices) > 0
