"""The log of evaluations: what was logged is replayed, what was cut off is forgotten, a killed solve goes on."""

import errno
import signal
import struct
import subprocess
import sys
from dataclasses import replace
from functools import partial
from itertools import count

import numpy as np
import pytest

from engine.errors import StaleLogError, StoreError
from engine.optimise.problem import Evaluation
from storage.evaluation_log import EvaluationLog
from storage.store import Store

SOLVE_NAME = "abc"


def questions(n):
    rng = np.random.default_rng(71)
    return [
        (
            rng.random(4),
            0.1 * k,
            Evaluation(
                rng.random(), rng.normal(size=4), rng.random((2, 3)), rng.random(), rng.random((5, 3))
            ),
        )
        for k in range(n)
    ]


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store").folder


_writers = count()


def open_log(store):
    """Return the log of a solve for another writer."""
    return EvaluationLog(store, SOLVE_NAME, f"writer{next(_writers)}")


def logs(store):
    return sorted((store / "solve_log").glob("*.log"))


def only_log(store):
    (path,) = logs(store)
    return path


def fill(store, n):
    """Log some evaluations, each of which costs a CPU second, and return the file."""
    log = open_log(store)
    for number, question in enumerate(questions(n), start=1):
        log.append(*question, float(number))
    log.close(finished=False)
    return only_log(store)


def same(a, b):
    return (
        (a.value, a.exact) == (b.value, b.exact)
        and a.gradient.tobytes() == b.gradient.tobytes()
        and np.array_equal(a.term_values, b.term_values)
        and np.array_equal(a.limited, b.limited)
    )


def replayed(store):
    """Return how many evaluations come back, each checked, and the new log's size in bytes."""
    log = open_log(store)
    n = log.n_replayable
    assert log.cpu_s == n
    for weight, temperature, evaluation in questions(n):
        assert same(log.replay(weight, temperature), evaluation)
    assert log.replay(np.zeros(4), 0.0) is None
    log.close(finished=False)
    return n, only_log(store).stat().st_size


def test_what_was_logged_is_replayed(store):
    fill(store, 5)
    assert replayed(store)[0] == 5


def test_an_evaluation_without_constraints_is_replayed_without_any(store):
    weight, temperature, evaluation = questions(1)[0]
    log = open_log(store)
    log.append(weight, temperature, replace(evaluation, limited=np.zeros((0, 0))), 1.0)
    log.close(finished=False)
    log = open_log(store)
    assert log.replay(weight, temperature).limited.shape == (0, 0)
    log.close(finished=False)


def test_a_new_log_has_nothing_to_replay(store):
    assert replayed(store) == (0, 0)


def test_a_log_that_was_replayed_goes_on(store):
    fill(store, 2)
    log = open_log(store)
    for number, (weight, temperature, evaluation) in enumerate(questions(4)):
        known = log.replay(weight, temperature)
        assert (known is not None) == (number < 2)
        if known is None:
            log.append(weight, temperature, evaluation, number + 1.0)
    log.close(finished=False)
    assert replayed(store)[0] == 4


def test_a_record_cut_at_any_byte_is_forgotten_and_the_ones_before_survive(store):
    raw = fill(store, 3).read_bytes()
    whole = len(raw) // 3
    for length in range(2 * whole, 3 * whole):
        only_log(store).write_bytes(raw[:length])
        assert replayed(store) == (2, 2 * whole)


def test_a_changed_byte_in_the_last_record_is_noticed(store):
    raw = fill(store, 3).read_bytes()
    whole = len(raw) // 3
    for position in range(2 * whole, 3 * whole):
        changed = bytearray(raw)
        changed[position] ^= 0x40
        only_log(store).write_bytes(changed)
        assert replayed(store) == (2, 2 * whole)


@pytest.mark.parametrize(
    "tail", [bytes(500), b"\xff" * 500, struct.pack("<II", 2**32 - 1, 2**32 - 1) + bytes(100)]
)
def test_garbage_at_the_end_is_cut_off(store, tail):
    path = fill(store, 2)
    size = path.stat().st_size
    path.write_bytes(path.read_bytes() + tail)
    assert replayed(store) == (2, size)


def test_a_log_goes_on_after_a_cut(store):
    path = fill(store, 3)
    path.write_bytes(path.read_bytes()[:-1])
    log = open_log(store)
    asked = questions(3)
    for weight, temperature, _ in asked[:2]:
        log.replay(weight, temperature)
    log.append(*asked[2], 3.0)
    log.close(finished=False)
    assert replayed(store)[0] == 3


@pytest.mark.parametrize("change", ["weight", "temperature"])
def test_a_log_of_other_questions_is_put_aside_and_the_next_one_begins_empty(store, change):
    path = fill(store, 2)
    content = path.read_bytes()
    log = open_log(store)
    weight, temperature, _ = questions(1)[0]
    if change == "weight":
        weight = np.nextafter(weight, 2.0)
    else:
        temperature = 1e-9
    with pytest.raises(StaleLogError, match=r"does not fit .* put aside as abc\.writer\d+\.stale"):
        log.replay(weight, temperature)
    log.close(finished=False)
    (stale,) = (store / "solve_log").glob("*.stale")
    assert stale.read_bytes() == content
    assert replayed(store) == (0, 0)


def test_what_an_orphan_still_writes_is_read_by_nobody(store):
    orphan = open_log(store)
    asked = questions(4)
    orphan.append(*asked[0], 1.0)
    log = open_log(store)
    assert log.n_replayable == 1
    for question in asked[1:]:
        orphan.append(*question, 9.0)
    log.replay(*asked[0][:2])
    log.append(*asked[1], 2.0)
    log.close(finished=False)
    assert replayed(store)[0] == 2
    orphan.close(finished=False)
    assert replayed(store)[0] == 2


def test_an_orphan_that_ends_its_solve_harms_no_log_in_use(store):
    orphan, log = open_log(store), open_log(store)
    log.append(*questions(1)[0], 1.0)
    orphan.close(finished=True)
    # The solve is in the store now; whoever is still solving it needs no log, but must not stumble.
    log.append(*questions(2)[1], 2.0)
    log.close(finished=True)
    assert logs(store) == []


def test_the_log_that_got_furthest_is_gone_on_with(store):
    fill(store, 2)
    short = only_log(store).read_bytes()
    fill_from = open_log(store)
    fill_from.append(*questions(3)[2], 3.0)
    fill_from.close(finished=False)
    for name in ("0", "zzz"):
        (store / "solve_log" / f"{SOLVE_NAME}.{name}.log").write_bytes(short)
    assert replayed(store)[0] == 3


def test_the_log_of_another_solve_is_left_alone(store):
    fill(store, 2)
    other = EvaluationLog(store, "abd", "writer")
    assert other.n_replayable == 0
    other.close(finished=True)
    assert replayed(store)[0] == 2


def test_a_finished_log_is_gone(store):
    fill(store, 1)
    log = open_log(store)
    log.close(finished=True)
    assert logs(store) == []


def test_a_log_that_cannot_be_made_is_a_clear_error(store):
    (store / "solve_log").write_text("a file in the way")
    with pytest.raises(StoreError, match="part of the path is a file"):
        open_log(store)


class AlmostFullDisk:
    """A file on a disk that has room for some bytes more."""

    def __init__(self, file, room):
        self._file, self._room = file, room
        self.fileno, self.close = file.fileno, file.close

    def write(self, content):
        taken = bytes(content[: min(self._room, 100)])
        if not taken:
            raise OSError(errno.ENOSPC, "No space left on device")
        self._room -= len(taken)
        return self._file.write(taken)


def test_a_full_disk_is_a_clear_error_and_the_log_goes_on_when_there_is_room(store):
    log = open_log(store)
    asked = questions(3)
    log.append(*asked[0], 1.0)
    whole = only_log(store).stat().st_size
    file = log._log._file
    log._log._file = AlmostFullDisk(file, room=whole // 2)
    with pytest.raises(StoreError, match="the disk is full"):
        log.append(*asked[1], 2.0)
    assert only_log(store).stat().st_size == whole
    log._log._file = file
    log.append(*asked[1], 2.0)
    log.close(finished=False)
    assert replayed(store) == (2, 2 * whole)


def test_a_disk_too_full_for_a_copy_leaves_the_log_that_was_there(store, monkeypatch):
    path = fill(store, 2)
    content = path.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(StoreError, match="the disk is full"):
            open_log(store)
    assert only_log(store) == path
    assert path.read_bytes() == content


SOLVE = """
import os, signal, sys
from pathlib import Path
import numpy as np
from engine.optimise.bound import Cuts, certify
from engine.optimise.functions import SquaredDeviation, SquaredUnderdose
from engine.optimise.group import Term
from engine.optimise.problem import Problem
from engine.optimise.robust import n_smoothing_stage, smoothing
from engine.optimise.solvers import SolverOptions, solve
from storage.evaluation_log import EvaluationLog
from tests.dense_tiles import small_problem

store, result, kill_at = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
small = small_problem(seed=8, block_sizes=(6, 6))
terms = [Term("t", 0, SquaredDeviation(dose_gy=6.0), 1.0), Term("u", 1, SquaredUnderdose(dose_gy=3.0), 2.0)]
problem = Problem(small.rows, terms, "composite_worst_case", np.array([0.5, 0.3, 0.2]))
log = EvaluationLog(store, "abc", f"process{os.getpid()}")
computed = 0

def evaluate(asked, weight, temperature):
    global computed
    known = log.replay(weight, temperature)
    if known is not None:
        return known
    computed += 1
    if computed == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
    evaluation = asked.evaluate(weight, temperature)
    log.append(weight, temperature, evaluation, log.cpu_s)
    return evaluation

cuts, options = Cuts(), SolverOptions(60, 1e-10, max_bound_evaluations=30, gap=0.0)

def evaluate_for_solver(weight, temperature):
    evaluation = evaluate(problem, weight, temperature)
    cuts.add(weight, evaluation)
    return evaluation

found = solve(
    evaluate_for_solver, np.ones(small.n_beamlet), n_smoothing_stage(problem.form),
    lambda stage, at: smoothing(problem.form, stage, at.exact, 6.0), options,
)
bound = certify(problem, evaluate, cuts, found, options).lower_bound
np.savez(
    result, weight=found.weight, history=found.history, bound=bound, computed=computed, replayable=log.n_replayable
)
log.close(finished=True)
"""


def exit_status(script, folder, store, result, kill_at):
    """Run a script that solves and kills itself at an evaluation, and return how it ended."""
    arguments = [sys.executable, "-c", script, str(store), str(result), str(kill_at)]
    return subprocess.run(arguments, cwd=folder, check=False).returncode


def test_a_killed_solve_goes_on_and_ends_bit_for_bit_where_an_undisturbed_one_does(store, tmp_path, request):
    run = partial(exit_status, SOLVE, request.config.rootpath)
    undisturbed_store = Store(tmp_path / "undisturbed").folder
    assert run(undisturbed_store, tmp_path / "undisturbed.npz", 0) == 0
    # In the first stage, later, and among the evaluations for the lower bound, which come after 36.
    assert run(store, tmp_path / "none.npz", 10) == -signal.SIGKILL
    assert run(store, tmp_path / "none.npz", 25) == -signal.SIGKILL
    assert run(store, tmp_path / "none.npz", 20) == -signal.SIGKILL
    assert not (tmp_path / "none.npz").exists()
    assert run(store, tmp_path / "again.npz", 0) == 0
    undisturbed, again = (np.load(tmp_path / name) for name in ("undisturbed.npz", "again.npz"))
    assert again["weight"].tobytes() == undisturbed["weight"].tobytes()
    assert again["history"].tobytes() == undisturbed["history"].tobytes()
    assert again["bound"].tobytes() == undisturbed["bound"].tobytes()
    # Nothing that was logged was computed again: 9, 24 and 19 evaluations survived the kills.
    assert again["replayable"] == 9 + 24 + 19
    assert again["computed"] == undisturbed["computed"] - 52
    assert logs(store) == []


SOLVE_WITHIN_LIMITS = """
import os, signal, sys
from pathlib import Path
import numpy as np
from engine.optimise.constraints import Constraint
from engine.optimise.functions import MeanDose, SquaredDeviation
from engine.optimise.group import Term
from engine.optimise.limits import plan_within_limits
from engine.optimise.problem import Problem
from engine.optimise.robust import n_smoothing_stage, smoothing
from engine.optimise.solvers import SolverOptions
from storage.evaluation_log import EvaluationLog
from tests.dense_tiles import small_problem

store, result, kill_at = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
small = small_problem(seed=8, block_sizes=(6, 6))
terms = [Term("t", 0, SquaredDeviation(dose_gy=6.0), 1.0)]
limits = [
    Constraint("low", 1, MeanDose(), "at_most", 1.5), Constraint("high", 0, MeanDose(), "at_least", 5.0),
]
problem = Problem(small.rows, terms, "composite_worst_case", np.array([0.5, 0.3, 0.2]), constraints=limits)
log = EvaluationLog(store, "abc", f"process{os.getpid()}")
computed = 0

def evaluate(asked, weight, temperature):
    global computed
    known = log.replay(weight, temperature)
    if known is not None:
        return known
    computed += 1
    if computed == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
    evaluation = asked.evaluate(weight, temperature)
    log.append(weight, temperature, evaluation, log.cpu_s)
    return evaluation

found, certificate, outcome = plan_within_limits(
    problem, evaluate, np.ones(small.n_beamlet), n_smoothing_stage(problem.form),
    lambda stage, at: smoothing(problem.form, stage, at.exact, 6.0), SolverOptions(80, 1e-7, max_bound_evaluations=5),
)
np.savez(
    result, weight=found.weight, history=found.history, bound=certificate.lower_bound, computed=computed,
    multipliers=outcome.multipliers, together=[fight.together for fight in outcome.diagnosis.fights],
)
log.close(finished=True)
"""


def test_a_killed_solve_within_limits_goes_on_and_ends_with_the_same_bits(store, tmp_path, request):
    run = partial(exit_status, SOLVE_WITHIN_LIMITS, request.config.rootpath)
    undisturbed_store = Store(tmp_path / "undisturbed").folder
    assert run(undisturbed_store, tmp_path / "undisturbed.npz", 0) == 0
    # In the rounds of the augmented Lagrangian, and in the diagnosis, which comes after at most 80.
    assert run(store, tmp_path / "none.npz", 40) == -signal.SIGKILL
    assert run(store, tmp_path / "none.npz", 60) == -signal.SIGKILL
    assert run(store, tmp_path / "resumed.npz", 0) == 0
    undisturbed, resumed = np.load(tmp_path / "undisturbed.npz"), np.load(tmp_path / "resumed.npz")
    assert resumed["computed"] == undisturbed["computed"] - 39 - 59
    for name in ("weight", "history", "bound", "multipliers", "together"):
        assert resumed[name].tobytes() == undisturbed[name].tobytes()
