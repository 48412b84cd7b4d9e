"""Rows with moved doses on workers: the same bits on any number of them, and a solve that ends at its optimum."""

import numpy as np
import pytest
from scipy.optimize import minimize

from cluster.memory import Room
from cluster.open import open_cluster
from cluster.resident import ResidentRows
from engine.optimise.functions import SquaredDeviation, SquaredOverdose
from engine.optimise.group import Term
from engine.optimise.problem import LocalRows, Problem
from engine.optimise.solvers import SolverOptions, solve
from tests.integration.rows_on_workers import FORMS, PROBABILITY, evaluated

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def here(small, moved_groups):
    """Return the same groups in this process, each loaded by itself."""
    groups = [moved_groups([number])[0] for number in range(len(small.bricks))]
    return LocalRows(groups, small.n_beamlet)


@pytest.mark.parametrize("n_worker", [1, 2])
def test_one_and_two_workers_give_the_bits_of_one_process(small, moved_groups, here, n_worker):
    with open_cluster("local", n_worker) as client:
        for room in (None, Room(0, 0)):  # resident, and streamed
            resident = ResidentRows(client, moved_groups, small.work, small.n_beamlet, room)
            for form, temperature in FORMS:
                assert evaluated(resident, form, temperature) == evaluated(here, form, temperature)
            resident.close()


def test_moved_doses_are_others_than_those_of_the_scenario_s_own_matrix(small, groups, here):
    own = LocalRows(groups(range(len(small.bricks))), small.n_beamlet)
    assert evaluated(own, "nominal", 0.0) == evaluated(here, "nominal", 0.0)
    assert evaluated(own, "expected", 0.0) != evaluated(here, "expected", 0.0)


def test_a_solve_ends_at_the_optimum_of_the_moved_dense_matrices(small, here):
    terms = [
        Term("a", 0, SquaredDeviation(dose_gy=6.0), 3.0),
        Term("b", 1, SquaredOverdose(dose_gy=2.0), 1.0),
    ]
    problem = Problem(here, terms, "expected", PROBABILITY)
    start = np.ones(small.n_beamlet)
    solved = solve(problem.evaluate, start, 1, lambda stage, at: 0.0, SolverOptions(300, 1e-10))
    units = [
        np.concatenate([g.doses(unit, 3) for g in here.groups], axis=1) for unit in np.eye(small.n_beamlet)
    ]
    dense = np.stack(units, axis=-1)
    a, b = (np.concatenate([share]) for share in small.shares)

    def objective(weight):
        dose_gy = dense @ weight
        over, off = np.maximum(dose_gy - 2.0, 0.0), dose_gy - 6.0
        value = PROBABILITY @ (3.0 * (off**2 @ a) + over**2 @ b)
        by_dose = PROBABILITY[:, None] * (6.0 * a * off + 2.0 * b * over)
        return value, np.einsum("sr,srj->j", by_dose, dense)

    bounds = [(0.0, None)] * small.n_beamlet
    expected = minimize(
        objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-13, "maxiter": 2000}
    )
    assert solved.value == pytest.approx(expected.fun, rel=1e-6)
