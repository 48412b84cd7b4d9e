"""What tests of rows on workers have in common: a problem's terms, evaluations to the bit, workers that are killed."""

import os
import signal
import time

import numpy as np

from engine.optimise.functions import Geud, MeanDose, SquaredDeviation
from engine.optimise.group import Term
from engine.optimise.problem import Problem

PROBABILITY = np.array([0.5, 0.3, 0.2])
FORMS = [("nominal", 0.0), ("expected", 0.0), ("composite_worst_case", 0.5), ("voxel_worst_case", 0.1)]
TERMS = [
    Term("target", 0, SquaredDeviation(dose_gy=6.0), 3.0),
    Term("eud", 1, Geud(a=6.0, limit="upper", dose_gy=2.0), 1.0),
    Term("mean", 1, MeanDose(), 0.3, robust=False),
]


def bits(found):
    arrays = found.gradient, found.term_values, found.limited
    return found.value, found.exact, [array.tobytes() for array in arrays]


def evaluated(rows, form, temperature):
    weight = np.random.default_rng(81).uniform(0.0, 3.0, rows.n_beamlet)
    return bits(Problem(rows, TERMS, form, PROBABILITY).evaluate(weight, temperature))


def wait_until_all_run(client, n_worker=2):
    client.wait_for_workers(n_worker, timeout=60)


def kill_one_worker(client, n_worker=2):
    # One that an earlier kill has ended may still be listed.
    while len(pids := client.run(os.getpid, on_error="ignore")) < n_worker:
        time.sleep(0.1)
    os.kill(pids[sorted(pids)[0]], signal.SIGKILL)
