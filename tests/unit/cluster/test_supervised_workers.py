"""Waiting for workers that somebody looks after: as long as some will come, and no longer."""

import pytest

import cluster.workers
from cluster.workers import TAKING, SupervisedClient, known_workers, want
from engine.errors import ClusterError


class Client(SupervisedClient):
    """A client of a scheduler that a test plays."""

    def __init__(self, answers):  # no connection is made
        self.status, self.answers = "running", iter(answers)
        self.supervision = self
        self.n_wanted = 0

    def expects_workers(self):
        answer = next(self.answers)
        if isinstance(answer, ClusterError):
            raise answer
        return answer

    def want(self, n_task):
        self.n_wanted = n_task


@pytest.fixture
def no_patience(monkeypatch):
    monkeypatch.setattr(cluster.workers, "WORKER_WAIT_S", 0.0)


def test_jobs_in_the_queue_are_waited_for_beyond_a_minute(no_patience, monkeypatch):
    client = Client(["2 of 2 worker jobs wait"] * 3)
    told = iter([{}, {}, {}, {"tls://a": {"nthreads": 4, "status": "running"}}])
    monkeypatch.setattr(cluster.workers, "_ask_scheduler", lambda _: next(told))
    assert known_workers(client) == {"tls://a": 4}


def test_a_worker_that_has_only_just_come_is_waited_for_and_one_that_leaves_takes_nothing(
    no_patience, monkeypatch
):
    def told(**states):
        return {f"tls://{name}": {"nthreads": 1, "status": state} for name, state in states.items()}

    client = Client(["1 worker jobs are starting"] * 2)
    answers = iter([told(a="init", b="paused"), told(a="init", b="paused"), told(a="running", b="paused")])
    monkeypatch.setattr(cluster.workers, "_ask_scheduler", lambda _: next(answers))
    assert list(known_workers(client)) == ["tls://b"]
    assert list(known_workers(client, states=TAKING)) == ["tls://a"]


def test_the_wait_ends_when_no_job_will_come(no_patience, monkeypatch):
    client = Client(["2 of 2 worker jobs wait", ClusterError("SLURM does not take the worker jobs")])
    monkeypatch.setattr(cluster.workers, "_ask_scheduler", lambda _: {})
    with pytest.raises(ClusterError, match="does not take"):
        known_workers(client)


def test_whoever_looks_after_workers_is_told_how_much_there_is_to_do():
    client = Client([])
    want(client, 17)
    assert client.n_wanted == 17


def test_where_the_first_worker_may_take_only_so_long_the_wait_ends_with_the_reason(monkeypatch):
    client = Client(["2 of 2 worker jobs wait in SLURM's queue (Priority)"] * 3)
    client.wait_s = 0.0
    monkeypatch.setattr(cluster.workers, "_ask_scheduler", lambda _: {})
    with pytest.raises(
        ClusterError, match=r"no worker came within 0 s: 2 of 2 worker jobs wait .*\(Priority\)"
    ):
        known_workers(client)
