"""The log of evaluations: what was logged is replayed, what was cut off is forgotten, a killed solve goes on."""

import signal
import struct
import subprocess
import sys
from multiprocessing import get_context

import numpy as np
import pytest

from engine.errors import StoreError
from engine.optimise.problem import Evaluation
from storage.evaluation_log import EvaluationLog


def questions(n):
    rng = np.random.default_rng(71)
    return [
        (
            rng.random(4),
            0.1 * k,
            Evaluation(rng.random(), rng.normal(size=4), rng.random((2, 3)), rng.random()),
        )
        for k in range(n)
    ]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "solve_log" / "abc.log"


def fill(path, n):
    log = EvaluationLog(path)
    for question in questions(n):
        log.append(*question)
    log.close(finished=False)


def same(a, b):
    return (
        (a.value, a.exact) == (b.value, b.exact)
        and a.gradient.tobytes() == b.gradient.tobytes()
        and np.array_equal(a.term_values, b.term_values)
    )


def replayed(path):
    """Return how many evaluations come back, each checked, and the log's size in bytes."""
    log = EvaluationLog(path)
    n = log.n_replayable
    for weight, temperature, evaluation in questions(n):
        assert same(log.replay(weight, temperature), evaluation)
    assert log.replay(np.zeros(4), 0.0) is None
    log.close(finished=False)
    return n, path.stat().st_size


def test_what_was_logged_is_replayed(path):
    fill(path, 5)
    assert replayed(path)[0] == 5


def test_a_new_log_has_nothing_to_replay(path):
    assert replayed(path) == (0, 0)


def test_a_log_that_was_replayed_goes_on(path):
    fill(path, 2)
    log = EvaluationLog(path)
    for number, (weight, temperature, evaluation) in enumerate(questions(4)):
        known = log.replay(weight, temperature)
        assert (known is not None) == (number < 2)
        if known is None:
            log.append(weight, temperature, evaluation)
    log.close(finished=False)
    assert replayed(path)[0] == 4


def test_a_record_cut_at_any_byte_is_forgotten_and_the_ones_before_survive(path):
    fill(path, 3)
    raw = path.read_bytes()
    whole = len(raw) // 3
    for length in range(2 * whole, 3 * whole):
        path.write_bytes(raw[:length])
        assert replayed(path) == (2, 2 * whole)


def test_a_changed_byte_in_the_last_record_is_noticed(path):
    fill(path, 3)
    raw = path.read_bytes()
    whole = len(raw) // 3
    for position in range(2 * whole, 3 * whole):
        changed = bytearray(raw)
        changed[position] ^= 0x40
        path.write_bytes(changed)
        assert replayed(path) == (2, 2 * whole)


@pytest.mark.parametrize(
    "tail", [bytes(500), b"\xff" * 500, struct.pack("<II", 2**32 - 1, 2**32 - 1) + bytes(100)]
)
def test_garbage_at_the_end_is_cut_off(path, tail):
    fill(path, 2)
    size = path.stat().st_size
    path.write_bytes(path.read_bytes() + tail)
    assert replayed(path) == (2, size)


def test_a_log_goes_on_after_a_cut(path):
    fill(path, 3)
    path.write_bytes(path.read_bytes()[:-1])
    log = EvaluationLog(path)
    asked = questions(3)
    for weight, temperature, _ in asked[:2]:
        log.replay(weight, temperature)
    log.append(*asked[2])
    log.close(finished=False)
    assert replayed(path)[0] == 3


@pytest.mark.parametrize("change", ["weight", "temperature"])
def test_another_question_is_a_clear_error(path, change):
    fill(path, 2)
    log = EvaluationLog(path)
    weight, temperature, _ = questions(1)[0]
    if change == "weight":
        weight = np.nextafter(weight, 2.0)
    else:
        temperature = 1e-9
    with pytest.raises(StoreError, match=r"abc\.log\) does not fit .*delete it"):
        log.replay(weight, temperature)
    log.close(finished=False)


def test_a_second_writer_is_refused_and_does_no_harm(path):
    fill(path, 2)
    log = EvaluationLog(path)
    with pytest.raises(StoreError, match="another run is solving the same problem"):
        EvaluationLog(path)
    log.close(finished=False)
    assert replayed(path)[0] == 2


def try_to_open(path, answers):
    try:
        EvaluationLog(path)
    except StoreError as error:
        answers.put(str(error))
    else:
        answers.put("opened")


def test_a_writer_in_another_process_is_refused(path):
    log = EvaluationLog(path)
    context = get_context("spawn")
    answers = context.SimpleQueue()
    child = context.Process(target=try_to_open, args=(path, answers))
    child.start()
    child.join(60)
    log.close(finished=False)
    assert "another run is solving" in answers.get()


def test_a_finished_log_is_gone(path):
    log = EvaluationLog(path)
    log.append(*questions(1)[0])
    log.close(finished=True)
    assert not path.exists()


def test_a_log_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "solve_log").write_text("a file in the way")
    with pytest.raises(StoreError, match="part of the path is a file"):
        EvaluationLog(tmp_path / "solve_log" / "abc.log")


def test_a_full_disk_is_a_clear_error(path):
    log = EvaluationLog(path)

    class FullFile:
        def write(self, content):
            raise OSError(28, "No space left on device")

    log._file, real = FullFile(), log._file
    with pytest.raises(StoreError, match="the disk is full"):
        log.append(*questions(1)[0])
    log._file = real
    log.close(finished=False)


SOLVE = """
import os, signal, sys
from pathlib import Path
import numpy as np
from engine.optimise.functions import SquaredDeviation, SquaredUnderdose
from engine.optimise.group import Term
from engine.optimise.problem import Problem
from engine.optimise.robust import n_smoothing_stage, smoothing
from engine.optimise.solver import SolverOptions, solve
from storage.evaluation_log import EvaluationLog
from tests.dense_tiles import small_problem

path, result, kill_at = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
small = small_problem(seed=8, block_sizes=(6, 6))
terms = [Term("t", 0, SquaredDeviation(dose_gy=6.0), 1.0), Term("u", 1, SquaredUnderdose(dose_gy=3.0), 2.0)]
problem = Problem(small.rows, terms, "composite_worst_case", np.array([0.5, 0.3, 0.2]))
log = EvaluationLog(path)
computed = 0

def evaluate(weight, temperature):
    global computed
    known = log.replay(weight, temperature)
    if known is not None:
        return known
    computed += 1
    if computed == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
    evaluation = problem.evaluate(weight, temperature)
    log.append(weight, temperature, evaluation)
    return evaluation

found = solve(
    evaluate, np.ones(small.n_beamlet), n_smoothing_stage(problem.form),
    lambda stage, at: smoothing(problem.form, stage, at.exact, 6.0), SolverOptions(60, 1e-10),
)
np.savez(result, weight=found.weight, history=found.history, computed=computed, replayable=log.n_replayable)
log.close(finished=True)
"""


def test_a_killed_solve_goes_on_and_ends_bit_for_bit_where_an_undisturbed_one_does(path, tmp_path, request):
    def run(log, result, kill_at):
        return subprocess.run(
            [sys.executable, "-c", SOLVE, str(log), str(result), str(kill_at)],
            cwd=request.config.rootpath,
            check=False,
        ).returncode

    assert run(tmp_path / "undisturbed.log", tmp_path / "undisturbed.npz", 0) == 0
    # Twice: in the first stage, and later.
    assert run(path, tmp_path / "none.npz", 10) == -signal.SIGKILL
    assert run(path, tmp_path / "none.npz", 25) == -signal.SIGKILL
    assert not (tmp_path / "none.npz").exists()
    assert run(path, tmp_path / "again.npz", 0) == 0
    undisturbed, again = (np.load(tmp_path / name) for name in ("undisturbed.npz", "again.npz"))
    assert again["weight"].tobytes() == undisturbed["weight"].tobytes()
    assert again["history"].tobytes() == undisturbed["history"].tobytes()
    # Nothing that was logged was computed again: 9 and 24 evaluations survived the two kills.
    assert again["replayable"] == 9 + 24
    assert again["computed"] == undisturbed["computed"] - 33
    assert not path.exists()
