"""Several runs that need the same result: one makes it, the others wait, whoever is killed or stopped meanwhile."""

import json
import random
import signal
import subprocess
import sys
import time
from contextlib import ExitStack

import numpy as np
import pytest

from engine.errors import LeaseLostError, StaleLogError, StoreError, StudyError
from flows.progress import Reporter
from flows.run import Run
from flows.turns import find_or_make
from storage.lease import Claim
from storage.store import Store


@pytest.fixture
def run(tmp_path):
    with Run(Store(tmp_path / "store"), Reporter(quiet=True)) as run:
        said = []
        run.reporter.say = said.append
        run.said = said
        yield run


def leases(run):
    return list((run.store.folder / "leases").glob("solve-*"))


def nothing():
    return None


def test_what_is_found_is_not_made(run):
    assert find_or_make(run, "solve-a", lambda: 5, lambda lease: pytest.fail("made")) == 5
    assert leases(run) == []


def test_what_is_not_found_is_made_under_a_lease(run):
    def make(lease):
        assert lease.is_held()
        assert Claim(run.store.folder, "solve-a").try_take() is None
        return 6

    assert find_or_make(run, "solve-a", nothing, make) == 6
    assert leases(run) == []


def test_a_run_that_may_not_compute_makes_nothing_and_writes_nothing(tmp_path):
    with Run(Store(tmp_path / "store"), Reporter(quiet=True), may_compute=False) as run:
        with pytest.raises(StudyError, match="run `nightbeam plan` first"):
            find_or_make(run, "solve-a", nothing, lambda lease: pytest.fail("made"))
        assert not (run.store.folder / "leases").exists()


def test_what_another_run_makes_is_waited_for_and_that_is_said_once(run):
    held = Claim(run.store.folder, "solve-a").try_take()
    answers = iter([None, None, None, 7])
    with held:
        assert find_or_make(run, "solve-a", lambda: next(answers), lambda lease: pytest.fail("made")) == 7
    (line,) = run.said
    assert "process" in line
    assert "is solving this; waiting for it" in line


def test_what_appears_just_before_the_lease_is_not_made_again(run):
    answers = iter([None, 8])
    assert find_or_make(run, "solve-a", lambda: next(answers), lambda lease: pytest.fail("made")) == 8


@pytest.mark.parametrize("error", [LeaseLostError("taken over"), StaleLogError("does not fit")])
def test_a_lost_lease_or_a_stale_log_is_said_and_tried_again(run, error):
    answers = iter([error, 9])

    def make(lease):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert find_or_make(run, "solve-a", nothing, make) == 9
    assert str(error) in run.said[0]


def test_another_error_gives_the_lease_back(run):
    def make(lease):
        raise StoreError("the disk is full")

    with pytest.raises(StoreError, match="disk is full"):
        find_or_make(run, "solve-a", nothing, make)
    assert leases(run) == []


MAKER = """
import sys, time
from pathlib import Path
import numpy as np
from engine.optimise.problem import Evaluation
from flows import turns
from flows.progress import Reporter
from flows.run import Run
from storage import lease as leases
from storage.evaluation_log import EvaluationLog, remove_logs
from storage.store import Store

leases.LEASE_S, leases._BEAT_S, turns._LOOK_S = 0.4, 0.05, 0.02
store = Store(Path(sys.argv[1]))

def find():
    return store.read_record("result", "a") if store.has_record("result", "a") else None

def make(lease):
    log = EvaluationLog(store.folder, "a", lease.id)
    finished = False
    try:
        weight = np.zeros(50)
        for step in range(60):
            lease.require_held()
            answer = log.replay(weight, float(step))
            if answer is None:
                time.sleep(0.005)
                answer = Evaluation(0.0, np.cos(weight + step), np.zeros((1, 1)), 0.0)
                log.append(weight, float(step), answer, 0.0)
            weight = weight + answer.gradient
        store.write_record("result", "a", [float(w).hex() for w in weight])
        finished = True
    finally:
        log.close(finished)
    return find()

print("ready", flush=True)
with Run(store, Reporter(quiet=True)) as run:
    for line in sys.stdin:
        turns.find_or_make(run, "solve-a", find, make)
        print("done", flush=True)
"""


def test_runs_that_are_killed_and_stopped_at_random_leave_the_right_result(tmp_path):
    expected = np.zeros(50)
    for step in range(60):
        expected = expected + np.cos(expected + step)
    dice = random.Random(5)
    store = Store(tmp_path / "store")

    def start():
        child = subprocess.Popen(
            [sys.executable, "-c", MAKER, str(store.folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        stack.callback(lambda: (child.kill(), child.wait(), child.stdin.close(), child.stdout.close()))
        return child

    with ExitStack() as stack:
        survivors = [start() for _ in range(2)]
        for _ in range(6):
            victim, sleeper = start(), start()
            working = [victim, sleeper, *survivors]
            for child in (victim, sleeper):
                assert child.stdout.readline() == "ready\n"
            for child in working:
                child.stdin.write("go\n")
                child.stdin.flush()
            time.sleep(dice.uniform(0.0, 0.3))
            sleeper.send_signal(signal.SIGSTOP)
            time.sleep(dice.uniform(0.0, 0.3))
            victim.kill()
            for child in survivors:
                while (line := child.stdout.readline()) == "ready\n":
                    pass
                assert line == "done\n"
            (result,) = (store.folder / "result").glob("*.json")
            found = [float.fromhex(w) for w in store.read_record("result", "a")]
            np.testing.assert_array_equal(found, expected)
            sleeper.send_signal(signal.SIGCONT)
            assert sleeper.stdout.readline() == "done\n"
            np.testing.assert_array_equal(
                [float.fromhex(w) for w in json.loads(json.loads(result.read_text())["content"])], expected
            )
            result.unlink()
    assert list((store.folder / "solve_log").glob("*.stale")) == []
