"""Worker jobs in a real SLURM: what is cancelled comes back, none is too many, and what is left is cleared away."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.open import Cluster, JobFiles
from cluster.slurm import supervisor
from cluster.slurm.cluster import clear_left_over
from cluster.slurm.folder import OWNER
from cluster.slurm.usage import read_usage
from cluster.submit import run_tasks
from engine.errors import ClusterError
from tests.cluster.one_machine import OneMachine, wait_until

pytestmark = [pytest.mark.site, pytest.mark.filterwarnings("ignore::ResourceWarning")]
SITE = "cores = 1\nmemory_gib = 1.5\njobs = 2\n"


class Night:
    """A cluster of jobs, with what it said."""

    def __init__(self, slurm: OneMachine, folder: Path, more: str = "") -> None:
        self.slurm, self.said, self.usage = slurm, list[str](), folder / "usage.jsonl"
        file = folder / "slurm.toml"
        file.write_text(SITE + more)
        self.root = folder / "clusters"
        self.cluster = Cluster(str(file), jobs=JobFiles(self.root, self.usage, self.said.append))
        assert self.cluster.slurm is not None
        self.name = f"nightbeam-{self.cluster.slurm.folder.name}"

    def jobs(self, *states: str) -> list[str]:
        return [job.number for job in self.slurm.jobs(None, *states) if job.name == self.name]


@pytest.fixture
def slurm_here(slurm: OneMachine, monkeypatch: pytest.MonkeyPatch) -> OneMachine:
    for name, value in slurm.environment.items():
        if name.startswith("SLURM"):
            monkeypatch.setenv(name, value)
    return slurm


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the list of jobs looked at often."""
    monkeypatch.setattr(supervisor, "LOOK_S", 0.5)


@pytest.fixture
def nights(slurm_here: OneMachine, tmp_path: Path) -> Iterator[list[Night]]:
    begun: list[Night] = []
    yield begun
    for night in begun:
        night.cluster.close()
    # SLURM takes its time to clear away after a job that it was told to cancel.
    wait_until(lambda: slurm_here.jobs() == [], "no job is left", limit_s=120.0)


def begin(nights: list[Night], slurm: OneMachine, folder: Path, more: str = "") -> Night:
    nights.append(Night(slurm, folder, more))
    return nights[-1]


def test_a_cancelled_job_comes_back_and_no_task_is_lost(nights, slurm_here, tmp_path):
    def work(number):
        import time

        time.sleep(0.2)
        return number

    night = begin(nights, slurm_here, tmp_path)
    client = night.cluster.client()
    wait_until(lambda: len(night.jobs("RUNNING")) == 2, "two jobs run")
    first, second = night.jobs("RUNNING")

    def cancel(number: int) -> None:
        if number == 10:
            slurm_here.says("scancel", first)

    assert run_tasks(client, work, range(60), cancel) == list(range(60))
    wait_until(
        lambda: len(night.jobs("RUNNING")) == 2 and first not in night.jobs(), "another job in its place"
    )
    assert second in night.jobs()
    night.cluster.close()
    assert {line.job: line.how for line in read_usage(night.usage)}[first] == "cancelled"
    assert list(night.root.iterdir()) == []


def test_jobs_of_one_minute_hand_over_to_others_and_no_task_is_begun_twice(nights, slurm_here, tmp_path):
    begun = tmp_path / "begun"

    def work(number):
        import time

        with begun.open("a") as stream:
            stream.write(f"{number}\n")
        time.sleep(0.5)
        return number

    night = begin(nights, slurm_here, tmp_path, 'walltime = "00:01:00"\n')
    assert run_tasks(night.cluster.client(), work, range(260)) == list(range(260))
    assert sorted(map(int, begun.read_text().split())) == list(range(260))
    night.cluster.close()
    ends = [line.how for line in read_usage(night.usage)]
    assert ends.count("walltime") >= 2
    assert set(ends) == {"walltime", "completed"}


def test_a_controller_that_is_away_costs_no_job_and_brings_none_too_many(nights, slurm_here, tmp_path):
    night = begin(nights, slurm_here, tmp_path)
    wait_until(lambda: len(night.jobs("RUNNING")) == 2, "two jobs run")
    controller, _ = json.loads((slurm_here.folder / "run" / "slurmctld").read_text())
    slurm_here.says("scancel", night.jobs()[0])
    os.kill(controller, signal.SIGSTOP)
    try:
        wait_until(lambda: any("go on, asking again" in text for text in night.said), "it is noticed")
    finally:
        os.kill(controller, signal.SIGCONT)
    wait_until(lambda: "SLURM answers again" in night.said, "it is noticed that it is back")
    wait_until(lambda: len(night.jobs("RUNNING")) == 2, "two jobs run again")
    assert len(night.jobs("RUNNING", "PENDING")) == 2


def test_jobs_that_cannot_start_a_worker_end_the_cluster_with_their_last_words(
    nights, slurm_here, often, tmp_path
):
    night = begin(nights, slurm_here, tmp_path, 'setup = ["echo no such module >&2; exit 3"]\n')
    with pytest.raises(ClusterError, match=r"worker jobs in a row ended .*\(failed\).* no such module"):
        night.cluster.client()


def test_a_partition_that_does_not_exist_is_told_at_once(nights, slurm_here, tmp_path):
    night = begin(nights, slurm_here, tmp_path, 'partition = "nowhere"\n')
    with pytest.raises(ClusterError, match=r"SLURM does not take the worker jobs: .*partition"):
        night.cluster.client()


def test_jobs_that_have_to_wait_are_waited_for_and_the_reason_is_told(nights, slurm_here, often, tmp_path):
    blockers = [
        slurm_here.submit("--exclusive", "--nodes=1", "--mem=100M", "--wrap=exec sleep 600")
        for _ in slurm_here.nodes
    ]
    night = begin(nights, slurm_here, tmp_path)
    wait_until(lambda: any("wait in SLURM's queue" in text for text in night.said), "the reason is told")
    slurm_here.says("scancel", *blockers)
    assert night.cluster.client().scheduler_info()["workers"]


def test_the_next_run_cancels_what_a_killed_one_left(slurm_here, tmp_path):
    program = (
        "import sys, time; from pathlib import Path; from cluster.open import Cluster, JobFiles;"
        "cluster = Cluster(sys.argv[1], jobs=JobFiles(Path(sys.argv[2]))); cluster.client();"
        "print('ready', flush=True); time.sleep(600)"
    )
    file = tmp_path / "slurm.toml"
    file.write_text(SITE)
    root = tmp_path / "clusters"
    killed = subprocess.Popen(
        [sys.executable, "-c", program, str(file), str(root)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert killed.stdout is not None
    assert killed.stdout.readline() == b"ready\n"
    killed.kill()
    killed.wait()
    killed.stdout.close()
    (folder,) = root.iterdir()
    assert json.loads((folder / OWNER).read_text())["pid"] == killed.pid
    clear_left_over(root)
    assert list(root.iterdir()) == []
    wait_until(lambda: slurm_here.jobs() == [], "its jobs are gone")
