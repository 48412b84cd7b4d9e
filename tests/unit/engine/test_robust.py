"""Robust forms: soft maxima, soft extreme doses, the smoothing schedule."""

import itertools
import warnings
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from engine.optimise.risk import soft_maximum
from engine.optimise.robust import (
    FORMS_OF_A_PART,
    Form,
    in_words,
    n_smoothing_stage,
    over_scenarios,
    smoothing,
    soft_extreme_dose,
)

values = arrays(np.float64, st.integers(1, 8), elements=st.floats(-100.0, 100.0))


def equal_prior(v):
    return np.full(v.size, 1.0 / v.size)


@given(values, st.floats(1e-3, 50.0))
def test_the_soft_maximum_never_exceeds_the_maximum_and_is_near_it(v, temperature):
    soft, _ = soft_maximum(v, equal_prior(v), temperature)
    # Rounding of numbers up to 100.
    assert soft <= v.max() + 1e-12
    # T ln sum p exp >= max + T ln p.
    assert soft >= v.max() + temperature * np.log(1.0 / v.size) - 1e-12
    assert soft >= v.mean() - 1e-12


@given(values)
def test_the_soft_maximum_tends_to_the_maximum(v):
    exact, _ = soft_maximum(v, equal_prior(v), 0.0)
    assert exact == v.max()
    gaps = [exact - soft_maximum(v, equal_prior(v), t)[0] for t in (10.0, 1.0, 0.1, 1e-6)]
    assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(gaps))
    # 1e-6 * ln 8.
    assert gaps[-1] <= 3e-6


@given(values, st.floats(0.5, 50.0))
def test_the_derivative_of_the_soft_maximum_matches_central_differences(v, temperature):
    prior = equal_prior(v)
    _, derivative = soft_maximum(v, prior, temperature)
    step = 1e-4
    for i in range(v.size):
        up, down = (
            soft_maximum(v + sign * step * np.eye(v.size)[i], prior, temperature)[0] for sign in (1, -1)
        )
        # Truncation step² / (6 T²) = 7e-9; rounding 1e-14 * 100 / 1e-4 = 1e-8.
        assert derivative[i] == pytest.approx((up - down) / (2 * step), abs=1e-7)
    assert derivative.sum() == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("temperature", [0.0, 1e-3, 1.0])
def test_a_value_of_weight_zero_does_not_count_however_high_it_is(temperature):
    v, prior = np.array([1e6, 2.0, 3.0]), np.array([0.0, 0.5, 0.5])
    soft, derivative = soft_maximum(v, prior, temperature)
    without, _ = soft_maximum(v[1:], prior[1:], temperature)
    assert soft == without
    assert derivative[0] == 0.0


def test_the_soft_maximum_is_the_log_of_the_mean_exponential():
    v, prior = np.array([1.0, 2.0, 4.0]), np.array([0.2, 0.3, 0.5])
    soft, _ = soft_maximum(v, prior, 2.0)
    assert soft == pytest.approx(2.0 * np.log((prior * np.exp(v / 2.0)).sum()), rel=1e-14)


doses = arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 6)), elements=st.floats(0.0, 80.0))


@given(doses, st.sampled_from([1, -1]), st.floats(1e-3, 5.0))
def test_the_soft_extreme_dose_lies_inside_the_band_and_near_its_edge(dose_gy, sign, temperature_gy):
    soft_gy, derivative = soft_extreme_dose(dose_gy, sign, temperature_gy)
    exact_gy, one_hot = soft_extreme_dose(dose_gy, sign, 0.0)
    assert (exact_gy == (dose_gy.max(axis=0) if sign == 1 else dose_gy.min(axis=0))).all()
    assert (soft_gy <= dose_gy.max(axis=0) + 1e-12).all()
    assert (soft_gy >= dose_gy.min(axis=0) - 1e-12).all()
    assert (np.abs(soft_gy - exact_gy) <= temperature_gy * np.log(dose_gy.shape[0]) + 1e-12).all()
    for d in (derivative, one_hot):
        assert (d >= 0.0).all()
        np.testing.assert_allclose(d.sum(axis=0), 1.0, rtol=1e-12)


@given(doses, st.sampled_from([1, -1]), st.floats(0.2, 5.0))
def test_the_derivative_of_the_soft_extreme_dose_matches_central_differences(dose_gy, sign, temperature_gy):
    _, derivative = soft_extreme_dose(dose_gy, sign, temperature_gy)
    step_gy = 1e-4
    for scenario in range(dose_gy.shape[0]):
        step = np.zeros_like(dose_gy)
        step[scenario] = step_gy
        up, down = (soft_extreme_dose(dose_gy + s * step, sign, temperature_gy)[0] for s in (1, -1))
        # Truncation step² / (6 T²) = 4e-8; rounding 1e-14 * 80 / 1e-4 = 8e-9.
        np.testing.assert_allclose(derivative[scenario], (up - down) / (2 * step_gy), atol=2e-7)


@pytest.mark.parametrize("form", [form for form in get_args(Form) if form not in ("nominal", "expected")])
def test_the_smoothing_of_worst_cases_falls_from_stage_to_stage(form):
    temperatures = [smoothing(form, stage, 12.0, 50.0) for stage in range(n_smoothing_stage(form))]
    assert len(temperatures) > 1
    assert (np.diff(temperatures) < 0.0).all()
    assert temperatures[-1] > 0.0


@pytest.mark.parametrize("form", ["nominal", "expected"])
def test_forms_without_a_maximum_have_one_stage_and_no_smoothing(form):
    assert n_smoothing_stage(form) == 1
    assert smoothing(form, 0, 12.0, 50.0) == 0.0


@pytest.mark.parametrize("form", get_args(Form))
def test_every_form_is_told_in_words_of_its_own(form):
    told = in_words(form, 0.1 if form in FORMS_OF_A_PART else None)
    assert told not in {in_words(other, 0.1) for other in get_args(Form) if other != form}
    assert ("10 %" in told) == (form in FORMS_OF_A_PART)


def test_smoothing_is_a_share_of_the_objective_or_of_the_prescription():
    assert smoothing("composite_worst_case", 0, 24.0, 50.0) == 2.0 * smoothing(
        "composite_worst_case", 0, 12.0, 70.0
    )
    assert smoothing("voxel_worst_case", 0, 24.0, 50.0) == 0.5 * smoothing("voxel_worst_case", 0, 12.0, 100.0)


@pytest.mark.parametrize("form", get_args(Form))
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_no_number_in_any_form(form, value):
    part = 0.4 if form in FORMS_OF_A_PART else None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        judged = over_scenarios(form, np.array([[1.0, value]]), np.array([0.6, 0.4]), part, 0.1)
    assert np.isnan(judged.value)
    assert np.isnan(judged.derivative).all()
