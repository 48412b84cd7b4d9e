"""Run folders: whose they are, what is left of killed runs, and what their jobs used."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster.slurm import cluster
from cluster.slurm.cluster import clear_left_over, hand_over_usage
from cluster.slurm.commands import Job
from cluster.slurm.folder import OWNER, SILENCE_S, beat, left_over, make_run_folder
from cluster.slurm.notes import JobNote, Orders, write_job, write_orders
from cluster.slurm.usage import USAGE, Used, append_usage, read_usage
from engine.errors import SlurmAwayError


def killed(folder: Path) -> None:
    """Have a folder belong to a process of this machine that is gone."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    owner = json.loads((folder / OWNER).read_text())
    (folder / OWNER).write_text(json.dumps({**owner, "pid": ended.pid}))


def elsewhere(folder: Path) -> None:
    owner = json.loads((folder / OWNER).read_text())
    (folder / OWNER).write_text(json.dumps({**owner, "machine": "another one"}))


def test_only_the_user_may_look_into_a_run_folder(tmp_path):
    assert make_run_folder(tmp_path, None).stat().st_mode & 0o777 == 0o700


def test_a_folder_is_left_over_when_its_process_is_gone(tmp_path):
    make_run_folder(tmp_path, None)
    gone = make_run_folder(tmp_path, None)
    killed(gone)
    assert left_over(tmp_path) == [gone]


def test_the_folder_of_another_user_is_none_of_ours(tmp_path, monkeypatch):
    gone, hidden = make_run_folder(tmp_path, None), make_run_folder(tmp_path, None)
    killed(gone)
    killed(hidden)
    stat, opened = Path.stat, Path.open

    def guarded(function):
        def call(path, *args, **kwargs):
            if hidden in path.parents:
                raise PermissionError(13, "Permission denied")
            return function(path, *args, **kwargs)

        return call

    monkeypatch.setattr(Path, "stat", guarded(stat))
    monkeypatch.setattr(Path, "open", guarded(opened))
    assert left_over(tmp_path) == [gone]


def test_on_another_machine_an_owner_is_gone_after_minutes_of_silence(tmp_path):
    folder = make_run_folder(tmp_path, None)
    elsewhere(folder)
    assert left_over(tmp_path) == []
    before_s = time.time() - SILENCE_S - 60.0
    os.utime(folder / OWNER, (before_s, before_s))
    assert left_over(tmp_path) == [folder]
    beat(folder)
    assert left_over(tmp_path) == []


class Slurm:
    def __init__(self, jobs: list[Job]) -> None:
        self.jobs, self.cancelled, self.is_away = jobs, list[str](), False

    def __call__(self, name: str) -> "Slurm":
        self.name = name
        return self

    def listing(self) -> list[Job]:
        if self.is_away:
            raise SlurmAwayError("squeue failed: timed out")
        return self.jobs

    def cancel_all(self) -> None:
        self.cancelled.append(self.name)


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> Slurm:
    found = Slurm([Job("7", "RUNNING", 4, 1000.0, None, 60.0, "node1", "None")])
    monkeypatch.setattr(cluster, "SlurmJobs", found)
    return found


def test_jobs_of_a_killed_run_are_cancelled_and_counted_where_it_would_have(tmp_path, slurm):
    usage = tmp_path / "usage.jsonl"
    folder = make_run_folder(tmp_path / "clusters", usage)
    append_usage(folder / USAGE, [Used("5", "node1", 4, 10.0, 20.0, "walltime")])
    write_orders(folder, Orders(2, 2, 1, 60, [], None, None, None))
    write_job(folder, JobNote("6", "node2", 30.0))  # SLURM has forgotten it
    killed(folder)
    said: list[str] = []
    clear_left_over(tmp_path / "clusters", said.append)
    assert slurm.cancelled == [f"nightbeam-{folder.name}"]
    assert said == ["1 worker jobs of a run that was killed were cancelled"]
    assert list((tmp_path / "clusters").iterdir()) == []
    assert [(line.job, line.host, line.cores, line.how) for line in read_usage(usage)] == [
        ("5", "node1", 4, "walltime"),
        ("7", "node1", 4, "cancelled"),
        ("6", "node2", 4, "lost"),
    ]


def test_what_a_killed_run_left_stays_while_slurm_is_away(tmp_path, slurm):
    folder = make_run_folder(tmp_path, None)
    killed(folder)
    slurm.is_away = True
    clear_left_over(tmp_path)
    assert folder.is_dir()


def test_a_torn_line_of_usage_costs_only_itself(tmp_path):
    file = tmp_path / USAGE
    file.write_text('{"job": "4", "ho\n')
    append_usage(file, [Used("5", "node1", 4, 10.0, 20.0, "completed")])
    assert [line.job for line in read_usage(file)] == ["5"]


def test_usage_is_handed_over_once(tmp_path):
    usage = tmp_path / "usage.jsonl"
    folder = make_run_folder(tmp_path / "clusters", usage)
    append_usage(folder / USAGE, [Used("5", "node1", 4, 10.0, 20.0, "completed")])
    hand_over_usage(folder)
    hand_over_usage(folder)
    assert [line.job for line in read_usage(usage)] == ["5"]
