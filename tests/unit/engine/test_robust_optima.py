"""Optima of the robust forms: those of other solvers, on other formulations, and no certified bound above them."""

import numpy as np
import pytest
from scipy.optimize import linprog, minimize

from engine.optimise.bound import Cuts, certify
from engine.optimise.functions import MeanDose, SquaredDeviation, SquaredOverdose
from engine.optimise.group import Term
from engine.optimise.problem import Problem
from engine.optimise.robust import Form
from engine.optimise.solvers import SolverOptions, solve
from tests.dense_tiles import small_problem

PROBABILITY = np.array([0.5, 0.3, 0.2])
PART = 0.4
TERMS = [
    Term("target", 0, SquaredDeviation(dose_gy=6.0), 3.0),
    Term("rest", 1, SquaredOverdose(dose_gy=2.0), 0.5),
    Term("mean", 1, MeanDose(), 0.2),
]


@pytest.fixture(scope="module")
def small():
    return small_problem(seed=4, block_sizes=(3, 3), n_brick=2)


def dense_terms(small, x):
    """Return the weighted value of every term in every scenario, and its derivative by the weights."""
    values, slopes = np.zeros((3, 3)), np.zeros((3, 3, x.size))
    target, rest = (share.astype(float) for share in small.shares)
    for scenario, dense in enumerate(small.dense):
        dose = dense @ x
        high = np.maximum(dose - 2.0, 0.0)
        values[:, scenario] = 3.0 * target @ (dose - 6.0) ** 2, 0.5 * rest @ high**2, 0.2 * rest @ dose
        slopes[0, scenario] = 6.0 * (target * (dose - 6.0)) @ dense
        slopes[1, scenario] = rest * high @ dense
        slopes[2, scenario] = 0.2 * rest @ dense
    return values, slopes


def in_epigraph(small, n_more, cost, values_below):
    """Minimise ``cost @ (weights, more)`` where what ``values_below`` gives, with its derivative, is not negative."""
    n = small.n_beamlet
    start = np.concatenate([np.ones(n), np.full(n_more, 500.0)])
    found = minimize(
        lambda y: cost @ y, start, jac=lambda _: cost, method="SLSQP",
        bounds=[(0.0, None)] * start.size,
        constraints={
            "type": "ineq",
            "fun": lambda y: values_below(y[:n], y[n:])[0],
            "jac": lambda y: values_below(y[:n], y[n:])[1],
        },
        options={"ftol": 1e-13, "maxiter": 1000},
    )  # fmt: skip
    assert found.status in (0, 8), found.message
    return found.fun


def objective_wise(small):
    def below(x, z):
        values, slopes = dense_terms(small, x)
        by_z = np.repeat(np.eye(3), 3, axis=0)
        return z.repeat(3) - values.ravel(), np.hstack([-slopes.reshape(9, -1), by_z])

    return in_epigraph(small, 3, np.concatenate([np.zeros(small.n_beamlet), np.ones(3)]), below)


def cvar(small):
    def below(x, more):
        values, slopes = dense_terms(small, x)
        by_more = np.hstack([np.ones((3, 1)), np.eye(3)])
        return more[0] + more[1:] - values.sum(axis=0), np.hstack([-slopes.sum(axis=0), by_more])

    cost = np.concatenate([np.zeros(small.n_beamlet), [1.0], PROBABILITY / PART])
    return in_epigraph(small, 4, cost, below)


def soft_worst_case(small):
    def dual(y):
        """Return the dual of the adverse mean at weights and multiplier, which are minimised together."""
        values, slopes = dense_terms(small, y[:-1])
        of_scenario, multiplier = values.sum(axis=0), y[-1]
        x = of_scenario / multiplier
        raised = PROBABILITY * np.exp(x - x.max())
        soft, q = x.max() + np.log(raised.sum()), raised / raised.sum()
        by_multiplier = -np.log(PART) + soft - q @ x
        return multiplier * (soft - np.log(PART)), np.append(q @ slopes.sum(axis=0), by_multiplier)

    n = small.n_beamlet
    found = minimize(
        dual, np.append(np.ones(n), 10.0), jac=True, method="L-BFGS-B",
        bounds=[(0.0, None)] * n + [(1e-3, None)], options={"ftol": 1e-15, "gtol": 1e-9, "maxiter": 5000},
    )  # fmt: skip
    return found.fun


OTHERS: dict[Form, object] = {
    "objective_worst_case": objective_wise, "cvar": cvar, "soft_worst_case": soft_worst_case,
}  # fmt: skip


@pytest.mark.parametrize("form", OTHERS)
def test_the_optimum_is_that_of_another_formulation_and_no_bound_is_above_it(small, form):
    optimum = OTHERS[form](small)
    problem = Problem(small.rows, TERMS, form, PROBABILITY, PART if form != "objective_worst_case" else None)
    cuts = Cuts()

    def evaluate(weight, temperature):
        evaluation = problem.evaluate(weight, temperature)
        cuts.add(weight, evaluation)
        return evaluation

    # Smoothed less and less, so that the last stage is as good as exact.
    options = SolverOptions(4000, 1e-12, gap=1e-4, max_bound_evaluations=60)
    result = solve(
        evaluate, np.ones(small.n_beamlet), 9, lambda stage, at: 0.1 * at.exact * 0.2**stage, options
    )
    assert result.value == pytest.approx(optimum, rel=1e-5)
    certificate = certify(problem, Problem.evaluate, cuts, result, options)
    assert certificate.lower_bound <= optimum * (1.0 + 1e-8)
    assert certificate.lower_bound >= 0.999 * optimum


def test_the_cvar_of_mean_doses_is_the_optimum_of_a_linear_program(small):
    # Least CVaR of the mean dose outside, with a mean dose of 6 Gy in the target, the penalty of which is exact enough.
    target, rest = (share.astype(float) for share in small.shares)
    means, n = np.stack([rest @ dense for dense in small.dense]), small.n_beamlet
    found = linprog(
        np.concatenate([np.zeros(n), [1.0], PROBABILITY / PART]),
        A_ub=np.hstack([means, -np.ones((3, 1)), -np.eye(3)]),
        b_ub=np.zeros(3),
        A_eq=np.concatenate([target @ small.dense[0], np.zeros(4)])[None],
        b_eq=[6.0],
        bounds=[(0.0, None)] * (n + 4),
    )
    problem = Problem(small.rows, [Term("mean", 1, MeanDose(), 1.0)], "cvar", PROBABILITY, PART)
    evaluation = problem.evaluate(found.x[:n], 0.0)
    assert evaluation.value == pytest.approx(found.fun, rel=1e-9)
    # No weights that give the target as much have a lower one, and the derivative says so: duality.
    prices = evaluation.gradient / (target @ small.dense[0])
    assert 6.0 * prices.min() <= found.fun * (1.0 + 1e-9)
