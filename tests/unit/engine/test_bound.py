"""The certified lower bound: against exact optima, for all robust forms, with and without caps."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, nnls

from engine.errors import OptimisationError
from engine.influence.rows import rows_of_columns
from engine.optimise.bound import (
    Caps,
    Cuts,
    LowerModel,
    certify,
    derive_caps,
    least_value,
    mean_dose_cap_gy,
    proven_bound,
    why_unproven,
)
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
)
from engine.optimise.group import GroupEvaluator, Term, regions_of_group
from engine.optimise.problem import Evaluation, LocalRows, Problem
from engine.optimise.robust import n_smoothing_stage, smoothing
from engine.optimise.solvers import SolverOptions, solve
from tests.dense_tiles import small_problem

PROBABILITY = np.array([0.5, 0.3, 0.2])
FORMS = [
    "nominal", "expected", "composite_worst_case", "objective_worst_case", "voxel_worst_case", "cvar",
    "soft_worst_case",
]  # fmt: skip
PARTS = {"cvar": 0.4, "soft_worst_case": 0.5, "percentile": 0.3}
TERMS = [
    Term("target", 0, SquaredDeviation(dose_gy=6.0), 3.0),
    Term("cold", 0, SquaredUnderdose(dose_gy=5.0), 3.0, robust=False),
    Term("rest", 1, SquaredOverdose(dose_gy=2.0), 0.5),
]


EQD2 = Eqd2(alpha_beta_gy=3.0, fractions=5)
PROVABLE = [
    SquaredOverdose(dose_gy=2.0),
    SquaredUnderdose(dose_gy=5.0),
    SquaredDeviation(dose_gy=5.0),
    SquaredDeviation(reference_dose="other"),
    SquaredOverdose(dose_gy=2.0, eqd2=EQD2),
    DoseFallOff(from_structure="T", near_gy=5.0, far_gy=1.0, fall_off_per_mm=0.1),
    LinearOverdose(dose_gy=2.0),
    LinearUnderdose(dose_gy=5.0),
    MeanDose(),
    MeanDose(eqd2=EQD2),
    Geud(a=1.0, limit="upper"),
    Geud(a=6.0, limit="upper"),
    Geud(a=6.0, limit="upper", dose_gy=2.0),
    Geud(a=1.5, limit="upper", eqd2=EQD2),
    Geud(a=0.5, limit="lower", dose_gy=5.0),
    Geud(a=-1.0, limit="lower", dose_gy=5.0),
    Geud(a=-20.0, limit="lower", dose_gy=5.0),
    SmoothMaximum(temperature_gy=0.3),
    SmoothMaximum(temperature_gy=3.0),
    SmoothMaximum(temperature_gy=0.3, dose_gy=2.0),
    SmoothMinimum(temperature_gy=0.3, dose_gy=5.0),
    PoissonTcp(alpha_per_gy=0.6, alpha_beta_gy=10.0, clonogens=1e3, fractions=10),
    LkbNtcp(td50_gy=5.0, m=0.2, n=0.2),
    LkbNtcp(td50_gy=5.0, m=0.2, n=1.0, eqd2=EQD2),
    Homogeneity(),
]
UNPROVABLE = [
    (UpperMeanTail(volume_percent=5.0), "ripple"),
    (LowerMeanTail(volume_percent=5.0, dose_gy=5.0), "ripple"),
    (DvhMeanTail(limit="lower", dose_gy=5.0, volume_percent=95.0), "ripple"),
    (DvhDistance(limit="lower", dose_gy=5.0, volume_percent=95.0), "not convex"),
    (DvhPenalty(limit="upper", dose_gy=5.0, volume_percent=95.0), "not convex"),
    (SquaredUnderdose(dose_gy=5.0, eqd2=EQD2), "not convex"),
    (SquaredDeviation(dose_gy=5.0, eqd2=EQD2), "not convex"),
    (Geud(a=-3.0, limit="lower", dose_gy=5.0, eqd2=EQD2), "not convex"),
    (SmoothMinimum(temperature_gy=0.3, dose_gy=5.0, eqd2=EQD2), "not convex"),
    (Homogeneity(eqd2=EQD2), "not convex"),
    (PoissonTcp(alpha_per_gy=0.1, alpha_beta_gy=2.0, clonogens=1e7, fractions=5), "not convex"),
]


def plan_and_certify(problem, options, start=None):
    cuts = Cuts()

    def evaluate(weight, temperature):
        evaluation = problem.evaluate(weight, temperature)
        cuts.add(weight, evaluation)
        return evaluation

    result = solve(
        evaluate,
        np.ones(problem.rows.n_beamlet) if start is None else start,
        n_smoothing_stage(problem.form),
        lambda stage, at: smoothing(problem.form, stage, at.exact, 6.0),
        options,
    )
    return result, certify(problem, Problem.evaluate, cuts, result, options)


@pytest.mark.parametrize("n_evaluation", [12, 60])
def test_the_bound_is_below_the_least_squares_optimum_and_near_it(n_evaluation):
    small = small_problem(seed=5, block_sizes=(20, 20), n_brick=8)
    terms = [
        Term("target", 0, SquaredDeviation(dose_gy=6.0), 3.0),
        Term("rest", 1, SquaredOverdose(dose_gy=0.0), 0.5),
    ]
    result, certificate = plan_and_certify(
        Problem(small.rows, terms, "nominal", np.ones(1)), SolverOptions(n_evaluation, 1e-12, gap=1e-3)
    )
    roots = [np.sqrt(t.weight * small.shares[t.region].astype(float))[:, None] for t in terms]
    matrix = np.vstack([root * small.dense[0] for root in roots])
    wanted = np.concatenate([6.0 * roots[0][:, 0], np.zeros(small.dense[0].shape[0])])
    optimum = nnls(matrix, wanted, maxiter=100 * matrix.shape[1])[1] ** 2
    assert certificate.lower_bound <= optimum * (1.0 + 1e-9)
    assert optimum <= result.value * (1.0 + 1e-9)
    assert certificate.gap <= 1e-3
    assert certificate.lower_bound >= 0.998 * optimum


@pytest.mark.parametrize("form", FORMS)
def test_every_form_ends_with_a_gap_below_its_aim(form):
    small = small_problem(seed=6, block_sizes=(6, 6))
    _, certificate = plan_and_certify(
        Problem(small.rows, TERMS, form, PROBABILITY, PARTS.get(form)), SolverOptions(400, 1e-10, gap=0.03)
    )
    assert certificate.lower_bound <= certificate.value
    assert certificate.gap <= 0.03
    assert "no weights give an objective below" in certificate.text


@pytest.mark.parametrize("form", FORMS[2:])
def test_the_bound_of_a_worst_case_is_near_the_least_of_all_pairs_of_weights(form):
    small = small_problem(seed=4, block_sizes=(1, 1), n_brick=2)
    problem = Problem(small.rows, TERMS, form, PROBABILITY, PARTS.get(form))
    result, certificate = plan_and_certify(problem, SolverOptions(200, 1e-10, gap=0.001))
    around = [np.linspace(0.97, 1.03, 25) * weight for weight in result.weight]
    least = min(problem.evaluate(np.array([a, b]), 0.0).value for a in around[0] for b in around[1])
    assert 0.99 * least <= certificate.lower_bound <= least


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000), st.integers(6, 25), st.integers(0, 12))
def test_the_bound_never_exceeds_the_objective_of_any_weights(form, seed, n_evaluation, n_more):
    rng = np.random.default_rng(seed)
    small = small_problem(seed=seed, block_sizes=(4, 3), n_brick=2)
    functions = [
        SquaredDeviation(dose_gy=rng.uniform(2.0, 9.0)),
        SquaredUnderdose(dose_gy=rng.uniform(2.0, 9.0)),
        SquaredOverdose(dose_gy=rng.uniform(0.0, 6.0)),
        MeanDose(),
        Geud(a=rng.uniform(1.0, 8.0), limit="upper", dose_gy=rng.uniform(0.0, 5.0)),
        Geud(a=rng.uniform(1.0, 8.0), limit="upper"),
        Geud(a=-3.0, limit="lower", dose_gy=rng.uniform(2.0, 9.0)),
        SmoothMaximum(temperature_gy=rng.uniform(0.1, 3.0)),
        SmoothMaximum(temperature_gy=rng.uniform(0.1, 3.0), dose_gy=rng.uniform(0.0, 6.0)),
        SmoothMinimum(temperature_gy=rng.uniform(0.1, 3.0), dose_gy=rng.uniform(2.0, 9.0)),
        PoissonTcp(alpha_per_gy=0.6, alpha_beta_gy=10.0, clonogens=1e3, fractions=10),
        LkbNtcp(td50_gy=rng.uniform(3.0, 9.0), m=0.2, n=rng.uniform(0.1, 1.0)),
        SquaredOverdose(dose_gy=rng.uniform(0.0, 6.0), eqd2=EQD2),
        Homogeneity(),
    ]
    chosen = rng.permutation(len(functions))[:3]
    terms = [
        Term(
            "t", int(rng.integers(2)), functions[i], rng.uniform(0.1, 5.0),
            # A voxel-wise worst case cannot judge what has no sides.
            robust=bool(rng.integers(2)) and not isinstance(functions[i], Homogeneity),
        )
        for i in chosen
    ]  # fmt: skip
    problem = Problem(small.rows, terms, form, PROBABILITY, PARTS.get(form))
    _, certificate = plan_and_certify(
        problem, SolverOptions(n_evaluation, 1e-9, max_bound_evaluations=n_more, gap=0.0)
    )
    if certificate.lower_bound is None:
        assert "without end" in certificate.text
        return
    # Well solved, and then judged without smoothing: above the optimum, and hardly so for smooth forms.
    try:
        with np.errstate(over="ignore"):
            better, _ = plan_and_certify(problem, SolverOptions(400, 1e-13, max_bound_evaluations=0))
        reached = problem.evaluate(better.weight, 0.0).value
    except OptimisationError:
        # So exact, that rounding has the solver step to doses whose smooth maximum is not finite.
        reached = certificate.value
    assert certificate.lower_bound <= reached + 1e-9 * (1.0 + abs(reached))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("function", PROVABLE, ids=in_words)
def test_no_plane_of_a_function_with_a_certificate_is_above_it_and_its_caps_hold(function, form):
    small = small_problem(seed=8, block_sizes=(4, 3), n_brick=2)
    reference_gy = np.random.default_rng(9).uniform(1.0, 6.0, small.shares[0].size).astype(np.float32)
    rows = rows_with_references(small, reference_gy)
    one_sided_too = form != "voxel_worst_case" or not isinstance(function, Homogeneity)
    rng = np.random.default_rng(10)
    for robust in (False, True) if one_sided_too else (False,):
        terms = [Term("t", 0, function, 2.0, robust)]
        problem = Problem(rows, terms, form, PROBABILITY, PARTS.get(form))
        assert why_unproven(problem.terms, form) == ""
        for _ in range(15):
            here, there = (
                rng.exponential(rng.uniform(0.0, 5.0), 7) * rng.integers(0, 2, 7) for _ in range(2)
            )
            cuts = Cuts()
            cuts.add(here, problem.evaluate(here, float(rng.choice([0.0, 0.05, 1.0]))))
            ((slope,), (offset,)) = cuts.arrays()
            value = problem.evaluate(there, 0.0).value
            assert slope @ there + offset <= value
            assert value >= least_value(terms)
            caps = derive_caps(problem, Problem.evaluate, value)
            assert (caps.rows @ there <= caps.limits).all()


def rows_with_references(small, reference_gy):
    return LocalRows(
        [
            GroupEvaluator(
                [rows_of_columns(columns, first, n, small.brick_size) for columns in small.columns],
                regions_of_group(
                    small.shares, first * small.brick_size, n * small.brick_size, {0: reference_gy}
                ),
            )
            for first, n in small.bricks
        ],
        small.n_beamlet,
    )


def test_the_highest_of_some_planes_has_the_bound_that_linear_programming_finds():
    rng = np.random.default_rng(3)
    slopes, offsets = rng.normal(size=(6, 5)), rng.normal(size=6)
    caps = Caps(rng.uniform(0.5, 1.0, (2, 5)), np.array([3.0, 4.0]))
    exact = linprog(
        np.append(np.zeros(5), 1.0),
        A_ub=np.vstack([np.hstack([slopes, -np.ones((6, 1))]), np.hstack([caps.rows, np.zeros((2, 1))])]),
        b_ub=np.concatenate([-offsets, caps.limits]),
        bounds=[(0.0, None)] * 5 + [(None, None)],
    ).fun
    assert LowerModel(caps, 1.0).solve(slopes, offsets).bound == pytest.approx(exact, abs=1e-6)
    # Any multipliers at all prove something.
    for _ in range(50):
        bound, _ = proven_bound(slopes, offsets, caps, rng.normal(size=6) ** 2, rng.normal(size=2))
        assert bound <= exact + 1e-12


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("seed", range(3))
def test_weights_no_worse_than_a_value_obey_its_caps(form, seed):
    small = small_problem(seed=seed, block_sizes=(4, 3), n_brick=2)
    terms = [
        *TERMS,
        Term("mean", 1, MeanDose(), 0.2, robust=False),
        Term("eud", 0, Geud(a=4.0, limit="upper", dose_gy=3.0), 2.0),
    ]
    problem = Problem(small.rows, terms, form, PROBABILITY, PARTS.get(form))
    rng = np.random.default_rng(seed)
    for _ in range(20):
        weight = rng.exponential(1.0, small.n_beamlet) * rng.uniform(0.0, 3.0)
        # Smoothed or not: the caps come from the value.
        value = problem.evaluate(weight, float(rng.choice([0.0, 0.5]))).value
        caps = derive_caps(problem, Problem.evaluate, value)
        assert caps.limits.size == 3
        assert (caps.rows @ weight <= caps.limits).all()


@pytest.mark.parametrize(
    ("function", "why"), UNPROVABLE, ids=lambda it: it if isinstance(it, str) else in_words(it)
)
def test_a_function_whose_planes_need_not_lie_below_it_has_no_certificate(function, why):
    terms = [*TERMS, Term("Core: wild", 0, function, 1.0)]
    result = SimpleNamespace(value=1.0, converged=True)
    problem = SimpleNamespace(terms=terms, form="nominal", constraints=())
    certificate = certify(problem, None, Cuts(), result, SolverOptions())
    assert (certificate.lower_bound, certificate.gap) == (None, None)
    assert certificate.text.startswith("stationary, no certificate (")
    assert why in certificate.text
    assert certificate.text.endswith(": Core: wild)")


def test_a_percentile_over_scenarios_is_lower_than_that_of_other_plans_and_has_no_certificate():
    small = small_problem(seed=6, block_sizes=(6, 6))
    problem = Problem(small.rows, TERMS, "percentile", PROBABILITY, PARTS["percentile"])
    result, certificate = plan_and_certify(problem, SolverOptions(200, 1e-8))
    for form in ("expected", "composite_worst_case"):
        other, _ = plan_and_certify(Problem(small.rows, TERMS, form, PROBABILITY), SolverOptions(200, 1e-8))
        assert result.value < problem.evaluate(other.weight, 0.0).value
    assert certificate.lower_bound is None
    assert certificate.text.endswith("no certificate (not convex: a percentile over scenarios)")


def test_no_mean_dose_follows_from_a_projected_dose_or_from_doses_of_each_voxels_own():
    assert mean_dose_cap_gy(SquaredOverdose(dose_gy=3.0), 4.0) == 5.0
    assert mean_dose_cap_gy(Geud(a=3.0, limit="upper"), 4.0) == 4.0
    for function in (
        SquaredOverdose(dose_gy=3.0, eqd2=EQD2),
        SquaredDeviation(reference_dose="other"),
        DoseFallOff(from_structure="T", near_gy=5.0, far_gy=1.0, fall_off_per_mm=0.1),
        Geud(a=3.0, limit="upper", eqd2=EQD2),
        Geud(a=1.0, limit="lower", dose_gy=3.0),
        MeanDose(eqd2=EQD2),
    ):
        assert mean_dose_cap_gy(function, 4.0) is None


def test_where_nothing_limits_the_dose_no_bound_is_given():
    small = small_problem(seed=2, block_sizes=(4, 3), n_brick=2)
    problem = Problem(
        small.rows, [Term("cold", 0, SquaredUnderdose(dose_gy=50.0), 1.0)], "nominal", np.ones(1)
    )
    _, certificate = plan_and_certify(problem, SolverOptions(4, 1e-9))
    assert certificate.lower_bound is None
    assert certificate.gap is None
    assert "without end" in certificate.text


def test_more_planes_never_lower_the_bound():
    small = small_problem(seed=6, block_sizes=(6, 6))
    problem = Problem(small.rows, TERMS, "expected", PROBABILITY)
    rng = np.random.default_rng(1)
    caps = derive_caps(problem, Problem.evaluate, problem.evaluate(np.ones(small.n_beamlet), 0.0).value)
    cuts, bounds = Cuts(), []
    for _ in range(12):
        weight = rng.uniform(0.0, 2.0, small.n_beamlet)
        cuts.add(weight, problem.evaluate(weight, 0.0))
        bounds.append(LowerModel(caps, 10.0).solve(*cuts.arrays()).bound)
    assert (np.diff(bounds) >= -1e-4 * 10.0).all()


def test_a_plan_that_meets_everything_has_no_gap():
    small = small_problem(seed=2, block_sizes=(4, 3), n_brick=2)
    problem = Problem(
        small.rows, [Term("cold", 0, SquaredOverdose(dose_gy=50.0), 1.0)], "nominal", np.ones(1)
    )
    _, certificate = plan_and_certify(problem, SolverOptions(4, 1e-9))
    assert (certificate.value, certificate.lower_bound, certificate.gap) == (0.0, 0.0, 0.0)


def test_of_many_planes_the_late_ones_are_kept():
    cuts = Cuts(20)
    for number in range(1, 101):
        cuts.add(np.zeros(2), Evaluation(float(number), np.zeros(2), np.zeros((1, 1)), float(number)))
    _, offsets = cuts.arrays()
    assert 10 <= offsets.size <= 20
    np.testing.assert_allclose(offsets[-8:], range(93, 101))
    assert (np.diff(offsets) >= 0.999).all()


def test_the_same_evaluations_give_the_same_bits():
    def once():
        small = small_problem(seed=7, block_sizes=(6, 6))
        return plan_and_certify(
            Problem(small.rows, TERMS, "composite_worst_case", PROBABILITY),
            SolverOptions(40, 1e-9, gap=0.001),
        )[1]

    assert once() == once()
