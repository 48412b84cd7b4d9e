"""A run whose scheduler is lost: it goes on with another one, from what is in the store, or ends with one sentence."""

import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

import cluster.open
import flows.run
from cluster.submit import run_tasks
from engine.errors import ClusterError
from flows.progress import Reporter
from flows.recovery import until_whole
from flows.run import Computing, Run
from storage.store import Store

pytestmark = pytest.mark.cluster


@pytest.fixture
def run(tmp_path):
    with Run(Store(tmp_path / "store"), Reporter(quiet=True), Computing(n_worker=1)) as run:
        yield run


@pytest.fixture
def said(run, monkeypatch):
    lines = []
    monkeypatch.setattr(run.reporter, "say", lines.append)
    return lines


def kill_scheduler(run):
    os.kill(run._cluster.local.pids()["scheduler"], signal.SIGKILL)
    assert run._cluster.why_lost()  # it is gone, and not only about to go


def test_a_run_goes_on_by_itself_after_its_scheduler_was_killed(run, said):
    done = []

    def work():
        with run.reporter.stage("dose", 3, "blocks") as steps:

            def on_done(number):
                done.append(number)
                steps.advance(1)
                if len(done) == 1:
                    kill_scheduler(run)

            return run_tasks(run.client, abs, [-1, -2, -3], on_done)

    assert until_whole(run, work) == [1, 2, 3]
    (line,) = [line for line in said if "scheduler" in line]
    assert re.fullmatch(
        r"the Dask scheduler .* ended \(killed by SIGKILL\); going on from what is in the store.*", line
    )
    assert run.reporter.n_done >= 3


def test_a_scheduler_killed_again_and_again_does_not_end_a_run_that_gets_further(run, said):
    done = set()

    def work():
        with run.reporter.stage("dose", 6, "blocks") as steps:
            for number in range(6):
                if number not in done:
                    run_tasks(run.client, abs, [-number])
                    done.add(number)
                    steps.advance(1)
                    kill_scheduler(run)
        return len(done)

    assert until_whole(run, work) == 6
    assert len([line for line in said if "SIGKILL" in line]) == 5


def test_a_scheduler_that_is_lost_without_any_progress_ends_the_run(run, said):
    def work():
        run.client  # noqa: B018  (starts the cluster)
        kill_scheduler(run)
        run_tasks(run.client, abs, [-1])

    with pytest.raises(ClusterError, match=r"4 times without any progress.*the same command goes on"):
        until_whole(run, work)
    assert len([line for line in said if "SIGKILL" in line]) == 3


class Outside:
    """A scheduler and a worker that somebody else looks after."""

    def __init__(self):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{self.port}"
        self._processes = []

    def start(self):
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._processes = [
            subprocess.Popen([sys.executable, "-m", f"distributed.cli.dask_{what}", *arguments], **quiet)
            for what, arguments in (
                ("scheduler", ["--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard"]),
                ("worker", [self.address, "--no-nanny", "--nthreads", "1", "--no-dashboard"]),
            )
        ]

    def kill(self):
        for process in self._processes:
            process.kill()
            process.wait()


@pytest.fixture
def outside(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # where Dask puts its scratch folders
    found = Outside()
    yield found
    found.kill()


def test_a_scheduler_of_others_that_comes_back_is_joined_again(tmp_path, outside):
    outside.start()
    attempts = []
    with Run(Store(tmp_path / "store"), Reporter(quiet=True), Computing(outside.address)) as run:

        def work():
            attempts.append(len(run_tasks(run.client, abs, [-1])))
            if len(attempts) == 1:
                outside.kill()
                outside.start()
                run_tasks(run.client, abs, [-1])
            return run_tasks(run.client, abs, [-1, -2])

        wait_until_it_works(run)
        assert until_whole(run, work) == [1, 2]
    assert len(attempts) == 2


def wait_until_it_works(run):
    """Join the scheduler as soon as it has a worker."""
    begin_s = time.monotonic()
    while True:
        try:
            return run.client
        except ClusterError:
            assert time.monotonic() - begin_s < 60.0


def test_a_scheduler_of_others_that_stays_away_ends_the_run_with_one_sentence(tmp_path, outside, monkeypatch):
    outside.start()
    with Run(Store(tmp_path / "store"), Reporter(quiet=True), Computing(outside.address)) as run:
        wait_until_it_works(run)
        monkeypatch.setattr(flows.run, "_COME_BACK_S", 1.0)
        monkeypatch.setattr(cluster.open, "CONNECT_S", 1.0)
        outside.kill()
        begin_s = time.monotonic()
        with pytest.raises(ClusterError, match=r"was lost and has not come back within 1 s; .* goes on"):
            until_whole(run, lambda: run_tasks(run.client, abs, [-1]))
        assert time.monotonic() - begin_s < 30.0
