"""What the keeper of a worker job decides, with workers that only remember what was done to them."""

import os
import signal
import socket
import time
from pathlib import Path

import pytest

from cluster.slurm import keeper
from cluster.slurm.keeper import Keeper
from cluster.slurm.notes import Orders, make_folders, read_job, write_orders, write_scheduler


class Worker:
    """A child that is its own process."""

    role, pid = "worker 7-1", os.getpid()

    def __init__(self, address: str | None) -> None:
        self.address, self.has_joined = address, address is not None
        self.process, self.got = self, list[str]()

    def kill(self) -> None:
        self.got.append("kill")

    def send_signal(self, number: signal.Signals) -> None:
        self.got.append(number.name)


def keeper_of(folder: Path, worker: Worker) -> Keeper:
    make_folders(folder)
    write_orders(folder, Orders(1, 1, 1 << 50, 3600, [], "lo", None, None))
    found = Keeper(folder, "7", "127.0.0.1")
    found._children, found._peaks, found._silent_s = {1: worker}, {1: 0}, {1: 0.0}
    return found


@pytest.mark.parametrize(("address", "got"), [(None, ["kill"]), ("tls://127.0.0.1:2", [])])
def test_workers_that_have_not_joined_a_lost_scheduler_are_replaced_when_there_is_another(
    tmp_path, address, got
):
    worker = Worker(address)
    kept = keeper_of(tmp_path, worker)
    kept._scheduler = "tls://127.0.0.1:1"
    with socket.create_server(("127.0.0.1", 0)) as server:
        write_scheduler(tmp_path, f"tls://127.0.0.1:{server.getsockname()[1]}")
        kept._look(time.monotonic())
    assert worker.got == got


def test_a_job_whose_workers_never_join_ends_when_the_scheduler_is_gone(tmp_path, monkeypatch):
    monkeypatch.setattr(keeper, "UNREACHABLE_S", -1.0)
    worker = Worker(None)
    kept = keeper_of(tmp_path, worker)
    kept._look(time.monotonic())
    assert worker.got == ["kill"]
    assert read_job(tmp_path, "7")[0].leaving


def test_a_job_that_leaves_before_its_walltime_leaves_at_once_when_it_is_asked_to_end(tmp_path):
    worker = Worker("tls://127.0.0.1:2")
    kept = keeper_of(tmp_path, worker)
    kept._leave("walltime", 300.0, signal.SIGUSR1, "walltime")
    kept.terminate(signal.SIGTERM, None)
    kept._tick()
    assert worker.got == ["SIGUSR1", "SIGTERM"]
    assert kept._kill_s < time.monotonic() + 60.0


def test_a_run_folder_that_cannot_be_written_ends_no_worker(tmp_path, monkeypatch):
    worker = Worker("tls://127.0.0.1:2")
    kept = keeper_of(tmp_path, worker)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keeper, "write_job", full)
    kept._leave("walltime", 300.0, signal.SIGUSR1, "walltime")
    assert worker.got == ["SIGUSR1"]


def test_walltime_is_counted_from_the_begin_of_the_job_where_slurm_says_when_that_ends(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) - 1))
    worker = Worker("tls://127.0.0.1:2")
    keeper_of(tmp_path, worker)._look(time.monotonic())
    assert worker.got == ["SIGUSR1"]
    assert read_job(tmp_path, "7")[0].leaving == "walltime"


@pytest.mark.parametrize("address", [None, "tls://127.0.0.1:2"])
def test_a_worker_that_is_silent_for_too_long_is_killed_whether_it_has_joined_or_not(tmp_path, address):
    worker = Worker(address)
    kept = keeper_of(tmp_path, worker)
    kept._silent_s[1] = keeper.SILENT_S + 1.0
    kept._watch_silence(time.monotonic())
    assert worker.got == ["kill"]
