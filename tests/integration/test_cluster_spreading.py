"""Rows are shared out among the workers that there are, and anew when others join."""

import gc
import os
import signal
import time

import numpy as np
import pytest
from distributed import Client, LocalCluster, Status

import cluster.resident
import cluster.workers
from cluster.memory import Room
from cluster.resident import ResidentRows
from cluster.workers import TAKING, SupervisedClient, listed_workers
from engine.optimise.group import GroupEvaluator
from tests.integration.rows_on_workers import evaluated, wait_until_all_run

pytestmark = pytest.mark.cluster


def test_rows_are_shared_out_anew_when_a_worker_has_joined(small, groups, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster.resident, "_SPREAD_S", 0.0)
    monkeypatch.setattr(cluster.resident, "_SPREAD_LOADS", 0)
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None, silence_logs=50) as growing,
        Client(growing) as client,
    ):

        def load(numbers):
            # In the worker's process: how many are there already.
            n_there = sum(isinstance(thing, GroupEvaluator) for thing in gc.get_objects())
            (tmp_path / f"{n_there} there, {numbers[0]} comes, {time.monotonic_ns()}").touch()
            return groups(numbers)

        resident = ResidentRows(client, load, small.work, small.n_beamlet)
        before = evaluated(resident, "expected", 0.0)
        assert len(resident._holders) == 1
        late = list(resident._holders)  # whose release reaches the worker late
        growing.scale(2)
        client.wait_for_workers(2, timeout=60)
        assert evaluated(resident, "expected", 0.0) == before
        assert len(resident._holders) == 2
        del late
    # Nobody has old rows beside new ones.
    loaded = [file.name for file in tmp_path.iterdir()]
    assert len(loaded) == 3
    assert all(name.startswith("0 there") for name in loaded)


def test_a_worker_that_joins_takes_over_what_another_one_streams_and_nothing_else(small, groups, tmp_path):
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None, silence_logs=50) as growing,
        Client(growing) as client,
    ):

        def load(numbers):
            (tmp_path / f"{time.monotonic_ns()}").write_text(" ".join(map(str, numbers)))
            return groups(numbers)

        room = int(np.cumsum(small.work)[1])
        resident = ResidentRows(client, load, small.work, small.n_beamlet, Room(room, room))
        before = evaluated(resident, "expected", 0.0)
        growing.scale(2)
        client.wait_for_workers(2, timeout=60)
        for file in tmp_path.iterdir():
            file.unlink()
        assert evaluated(resident, "expected", 0.0) == before
        assert [holder.groups for holder in resident._holders] == [(0, 1), (2, 3)]
        assert [holder.n_resident for holder in resident._holders] == [2, 2]
        assert [file.read_text() for file in tmp_path.iterdir()] == ["2 3"]


def test_what_does_not_fit_into_the_workers_that_join_is_shared_out_evenly_when_it_is_time(
    small, groups, monkeypatch
):
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None, silence_logs=50) as growing,
        Client(growing) as client,
    ):
        # Half of it fits, if nothing is streamed beside it.
        even = np.ones(4, np.int64)
        resident = ResidentRows(client, groups, even, small.n_beamlet, Room(2, 1))
        before = evaluated(resident, "expected", 0.0)
        assert [holder.n_resident for holder in resident._holders] == [1]
        growing.scale(2)
        client.wait_for_workers(2, timeout=60)
        assert evaluated(resident, "expected", 0.0) == before
        assert len(resident._holders) == 1
        resident._spread_s = 0.0
        assert evaluated(resident, "expected", 0.0) == before
        assert [holder.n_resident for holder in resident._holders] == [2, 2]


def test_a_worker_that_dies_while_another_takes_over_what_it_streams_changes_nothing(
    small, groups, monkeypatch
):
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50) as growing,
        Client(growing) as client,
    ):
        wait_until_all_run(client)
        resident = ResidentRows(client, groups, np.ones(4, np.int64), small.n_beamlet, Room(1, 1))
        before = evaluated(resident, "expected", 0.0)
        growing.scale(4)
        client.wait_for_workers(4, timeout=60)
        pid = client.run(os.getpid)[resident._holders[0].worker]
        listed_workers = cluster.resident.listed_workers

        def outdated(*args):
            listed = listed_workers(*args)
            monkeypatch.setattr(cluster.resident, "listed_workers", listed_workers)
            os.kill(pid, signal.SIGKILL)
            return listed

        monkeypatch.setattr(cluster.resident, "listed_workers", outdated)
        assert evaluated(resident, "expected", 0.0) == before
        assert sorted(group for holder in resident._holders for group in holder.groups) == [0, 1, 2, 3]


def test_workers_that_take_nothing_any_more_still_answer_for_what_they_have(small, groups, monkeypatch):
    monkeypatch.setattr(cluster.resident, "_SPREAD_S", 0.0)
    monkeypatch.setattr(cluster.resident, "_SPREAD_LOADS", 0)
    monkeypatch.setattr(cluster.workers, "WORKER_WAIT_S", 0.5)

    def pause(dask_worker):
        dask_worker.status = Status.paused

    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None, silence_logs=50
        ) as own,
        Client(own) as client,
    ):
        resident = ResidentRows(client, groups, small.work, small.n_beamlet)
        before = evaluated(resident, "expected", 0.0)
        client.run(pause)
        while listed_workers(client, TAKING):
            time.sleep(0.01)
        assert evaluated(resident, "expected", 0.0) == before


def test_workers_that_will_soon_be_there_are_waited_for_before_rows_are_shared_out(small, groups):
    class Supervision:
        def expects_workers(self):
            growing.scale(2)
            return "1 worker jobs are starting"

        def want(self, n_task):
            pass

        def n_soon(self):
            return 2

    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None, silence_logs=50
        ) as growing,
        SupervisedClient(growing) as client,
    ):
        client.supervision = Supervision()
        loaded = [small.rows.groups[n] for n in range(4)]
        resident = ResidentRows(
            client, lambda numbers: [loaded[n] for n in numbers], small.work, small.n_beamlet
        )
        assert len(resident._holders) == 2
