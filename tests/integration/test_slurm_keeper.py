"""The keeper of a worker job with real Dask workers, and without SLURM: it is started as a job would start it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from distributed import Client

from cluster.ends import WorkerEnd
from cluster.local import LocalProcesses
from cluster.process import LOOPBACK
from cluster.security import make_certificate
from cluster.slurm.keeper import CERTIFICATE
from cluster.slurm.notes import (
    ENDS,
    Orders,
    ask_to_leave,
    make_folders,
    read_ends,
    read_job,
    write_orders,
    write_scheduler,
)
from cluster.submit import run_tasks

# Functions for workers are made inside the tests, so that they travel by value: workers need not find this file.
pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("ignore::ResourceWarning")]
MIB = 1 << 20
LIMIT_S = 120.0


def wait_for(what: Callable[[], object]) -> None:
    limit_s = time.monotonic() + LIMIT_S
    while not what():
        assert time.monotonic() < limit_s, "it never came"
        time.sleep(0.05)


class Site:
    """A scheduler, and keepers that a test starts and ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        make_folders(folder)
        (folder / CERTIFICATE).write_bytes(make_certificate())
        write_orders(folder, Orders(1, 1, 600 * MIB, 3600, [], "lo", None, None))
        self.keepers: dict[str, subprocess.Popen[bytes]] = {}
        self.scheduler: LocalProcesses
        self.client: Client
        self.start_scheduler()

    def start_scheduler(self) -> None:
        self.scheduler = LocalProcesses(0, certificate=self.folder / CERTIFICATE, listen=(LOOPBACK, ""))
        address = self.scheduler.address()
        write_scheduler(self.folder, address)
        self.client = Client(address, security=self.scheduler.security(), timeout=60)

    def start_keeper(self, job: str, silent_s: float = 300.0) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "SLURM_JOB_ID": job, "PYTHONPATH": os.pathsep.join(sys.path)}
        environment.pop("SLURM_STEP_ID", None)
        program = (
            f"import sys; from cluster.slurm import keeper; keeper.SILENT_S = {silent_s};"
            "sys.exit(keeper.main(sys.argv[1]))"
        )
        self.keepers[job] = subprocess.Popen(
            [sys.executable, "-P", "-c", program, str(self.folder)], env=environment
        )
        self.client.wait_for_workers(len(self.keepers), timeout=LIMIT_S)
        wait_for(lambda: (found := read_job(self.folder, job)) and found[0].workers)
        return self.keepers[job]

    def ends(self) -> list[WorkerEnd]:
        return read_ends(self.folder)

    def end_keepers(self) -> None:
        for keeper in self.keepers.values():
            keeper.terminate()
        for keeper in self.keepers.values():
            keeper.wait(LIMIT_S)
        self.keepers.clear()
        for note in (self.folder / ENDS).iterdir():
            note.unlink()
        wait_for(lambda: not self.client.scheduler_info()["workers"])

    def close(self) -> None:
        self.client.close()
        self.scheduler.close()


@pytest.fixture(scope="module")
def scheduled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("site"))
    yield site
    site.close()


@pytest.fixture
def site(scheduled: Site) -> Iterator[Site]:
    yield scheduled
    scheduled.end_keepers()


def test_a_worker_that_is_killed_is_started_again_and_its_end_noted(site):
    site.start_keeper("11")
    (pid,) = site.client.run(os.getpid).values()
    (address,) = read_job(site.folder, "11")[0].workers
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: len(read_job(site.folder, "11")[0].workers) == 2)
    (end,) = site.ends()
    assert (end.address, end.cause) == (address, "died")
    assert "SIGKILL" in end.words


def test_a_worker_that_stands_still_for_too_long_is_killed_and_started_again(site):
    site.start_keeper("14", silent_s=20.0)
    (pid,) = site.client.run(os.getpid).values()
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: len(read_job(site.folder, "14")[0].workers) == 2)
    (end,) = site.ends()
    assert (end.cause, end.words) == ("died", "it gave no sign of life for 20 s")


def test_a_worker_that_uses_more_than_its_share_is_killed_and_the_figures_noted(site):
    def fill(n_mib):
        kept = [bytearray(os.urandom(1 << 20)) for _ in range(n_mib)]
        time.sleep(60.0)
        return len(kept)

    site.start_keeper("12")
    future = site.client.submit(fill, 1500)
    wait_for(site.ends)
    (end,) = site.ends()
    assert end.cause == "memory"
    assert end.limit_bytes == 600 * MIB
    assert end.peak_bytes is not None
    assert end.peak_bytes > 600 * MIB
    future.cancel()


def test_a_job_that_is_asked_to_end_notes_that_its_workers_left(site):
    keeper = site.start_keeper("13")
    (address,) = read_job(site.folder, "13")[0].workers
    keeper.terminate()
    assert keeper.wait(LIMIT_S) == 0
    (end,) = site.ends()
    assert (end.address, end.cause) == (address, "left")
    wait_for(lambda: not site.client.scheduler_info()["workers"])


def test_no_task_is_begun_twice_when_a_job_leaves(site):
    begun = site.folder / "begun"

    def work(number):
        with begun.open("a") as stream:
            stream.write(f"{number}\n")
        time.sleep(0.5)
        return number

    leaving, _ = [site.start_keeper(job) for job in ("21", "22")]

    def leave(number: int) -> None:
        if number == 3:
            ask_to_leave(site.folder, "21")

    assert run_tasks(site.client, work, range(40), leave) == list(range(40))
    assert leaving.wait(LIMIT_S) == 0
    assert sorted(map(int, begun.read_text().split())) == list(range(40))
    assert {end.cause for end in site.ends()} == {"left"}


def test_workers_join_the_next_scheduler(site):
    keeper = site.start_keeper("31")
    os.kill(site.scheduler.pids()["scheduler"], signal.SIGKILL)
    wait_for(lambda: site.scheduler.failure() is not None)
    site.client.close()
    site.scheduler.close()
    site.start_scheduler()
    site.client.wait_for_workers(1, timeout=LIMIT_S)
    assert keeper.poll() is None
    assert {end.cause for end in site.ends()} == {"left"}


def test_a_keeper_whose_run_is_over_says_so_and_ends(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "cluster.slurm.keeper", str(tmp_path / "gone")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "this job's run is over, or its folder is not seen here" in done.stderr
