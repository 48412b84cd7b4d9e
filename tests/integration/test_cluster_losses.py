"""Workers that are lost with their tasks on a real local cluster: what ended them decides what becomes of the tasks."""

import os
import resource
import signal
import sys
import threading
import time
from dataclasses import dataclass, replace

import numpy as np
import pytest

import cluster.losses
import cluster.submit
from cluster.ends import WorkerEnd
from cluster.open import Cluster
from cluster.submit import run_tasks
from cluster.workers import known_workers, working_on
from engine.errors import ClusterError

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def limit_bytes():
    """Return more memory than this process has ever had: the size of a child is counted from there."""
    return max(400 << 20, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) + (100 << 20)


@pytest.fixture(scope="module")
def local(limit_bytes):
    cluster = Cluster("local", 1, limit_bytes=limit_bytes)
    cluster.client()
    yield cluster
    cluster.close()


def numbers(*wanted):
    """Return a task of some numbers, all of which are in memory together; its class travels by value."""

    @dataclass(frozen=True)
    class Numbers:
        wanted: tuple[int, ...]
        n_at_once: int = 8

        def __str__(self):
            return f"{len(self.wanted)} numbers from {self.wanted[0]}"

        @property
        def n_part(self):
            return len(self.wanted)

        def piece(self, begin, end):
            return replace(self, wanted=self.wanted[begin:end])

    return Numbers(wanted)


def squares(bytes_of_number, limit_bytes):
    """Return work that is killed, as the system does it, if it uses more than the limit."""

    def work(task):
        used = np.ones(bytes_of_number * len(task.wanted), np.uint8)
        if used.nbytes > limit_bytes:
            os.kill(os.getpid(), signal.SIGKILL)
        return [n * n for n in task.wanted]

    return work


def test_a_task_that_does_not_fit_into_memory_is_done_in_smaller_pieces_with_the_same_results(
    local, limit_bytes
):
    finished = []
    results = run_tasks(
        local.client(),
        squares(limit_bytes // 3, limit_bytes),
        [numbers(*range(7))],
        finished.append,
        ends=local,
    )
    assert results == [[n * n for n in range(7)]]
    assert finished == [0] * 7


def test_a_task_whose_memory_is_refused_by_the_system_is_done_in_smaller_pieces_too(local):
    def work(task):
        if len(task.wanted) > 2:
            raise MemoryError("Unable to allocate 1. TiB")
        return list(task.wanted)

    assert run_tasks(local.client(), work, [numbers(*range(7))], ends=local) == [list(range(7))]


def test_a_task_that_does_not_fit_in_its_smallest_piece_is_refused_with_the_numbers(local, limit_bytes):
    with pytest.raises(ClusterError) as caught:
        run_tasks(local.client(), squares(limit_bytes + 1, limit_bytes), [numbers(3, 4)], ends=local)
    told = str(caught.value)
    assert told.startswith("a task needs more memory than a worker has (1 numbers from ")
    assert f"may use {limit_bytes / (1 << 30):.2f} GiB" in told
    assert "it used" in told
    assert "killed by SIGKILL" in told
    assert "give workers more memory" in told


def test_a_task_that_crashes_its_worker_every_time_is_named_with_the_last_words(local, monkeypatch):
    monkeypatch.setattr(cluster.losses, "MAX_LOST", 2)

    def work(name):
        print("the end is near", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)

    with pytest.raises(
        ClusterError, match=r"lost 2 times .*\(deadly\).* SIGSEGV; its last words: the end is near"
    ):
        run_tasks(local.client(), work, ["deadly"], ends=local)


class Leaving:
    """Says of every worker that its job has ended."""

    def why(self, address):
        return WorkerEnd(address, "left", "job 7 ended: TIMEOUT after 00:01:00")


def dies_so_often(n, folder):
    """Return work whose worker is killed the first times."""

    def work(task):
        begun = len(list(folder.iterdir()))
        if begun < n:
            (folder / f"{begun}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return task

    return work


def test_workers_whose_jobs_end_cost_a_task_no_attempt(local, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster.losses, "MAX_LOST", 1)
    assert run_tasks(local.client(), dies_so_often(2, tmp_path), ["unlucky"], ends=Leaving()) == ["unlucky"]


def test_a_task_that_takes_longer_than_jobs_last_is_told_in_the_end(local, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster.losses, "MAX_LEFT", 2)
    with pytest.raises(ClusterError, match=r"of 2 workers .*\(long;.* TIMEOUT after .*longer than jobs last"):
        run_tasks(local.client(), dies_so_often(2, tmp_path), ["long"], ends=Leaving())


def test_a_task_whose_workers_take_their_leave_one_after_the_other_is_told_in_the_end(monkeypatch):
    monkeypatch.setattr(cluster.losses, "MAX_LEFT", 2)
    monkeypatch.setattr(cluster.submit, "_OLD_S", 0.0)
    local = Cluster("local", 3)  # a worker that has left ends only with its task
    client = local.client()
    over = threading.Event()

    def retire_whoever_works():
        while not over.wait(0.5):
            busy = [address for address in working_on(client).values() if len(known_workers(client)) > 1]
            if busy:
                client.retire_workers(busy)

    def work(_):
        time.sleep(120.0)

    retiring = threading.Thread(target=retire_whoever_works)
    retiring.start()
    try:
        with pytest.raises(ClusterError, match=r"of 2 workers .*longer than jobs last"):
            run_tasks(client, work, ["long"], ends=local)
    finally:
        over.set()
        retiring.join()
        local.close()


def test_a_cause_that_is_known_only_after_a_while_is_waited_for(local, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster.losses, "MAX_LOST", 1)
    asked_s = []

    class Slow:
        def why(self, address):
            asked_s.append(time.monotonic())
            return Leaving().why(address) if asked_s[-1] > asked_s[0] + 1.0 else None

    assert run_tasks(local.client(), dies_so_often(1, tmp_path), ["x"], ends=Slow()) == ["x"]


def test_one_who_never_says_why_is_not_waited_for_for_ever(local, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster.losses, "WHY_S", 0.3)

    class Silent:
        def why(self, address):
            return None

    assert run_tasks(local.client(), dies_so_often(1, tmp_path), ["x"], ends=Silent()) == ["x"]
