"""Worker steps inside an allocation, with commands that stand in for SLURM's."""

import os
from pathlib import Path

import pytest

import cluster.slurm.steps
from cluster.slurm.site import SlurmSite
from cluster.slurm.steps import StepJobs
from engine.errors import ClusterError, SlurmAwayError

SITE = SlurmSite(cores=2, memory_gib=3.0, jobs=2, start="srun")
_RUNS = """
for option in "$@"; do case $option in --job-name=*) name=${option#*=};; esac; done
echo "7.$(ls $FAKE | grep -c step)|n1|$name" > $FAKE/step-$name
echo $$ > $FAKE/pid
exec sleep 100
"""
_LISTS = "cat $FAKE/step-* 2>/dev/null; true"
_ENDS = "echo $* > $FAKE/cancelled; kill $(cat $FAKE/pid)"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a run folder on whose PATH there is a SLURM."""
    (tmp_path / "logs").mkdir()
    monkeypatch.setenv("FAKE", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    for name, does in (("srun", _RUNS), ("squeue", _LISTS), ("scancel", _ENDS)):
        tool(tmp_path, name, does)
    return tmp_path


def tool(folder: Path, name: str, does: str) -> None:
    (folder / name).write_text(f"#!/bin/bash\n{does}\n")
    (folder / name).chmod(0o755)


def end_of(jobs: StepJobs) -> None:
    for step in jobs._steps.values():
        step.srun.kill()
        step.srun.wait()
    jobs.listing()


def test_a_step_is_listed_by_the_number_that_slurm_gave_it(folder):
    jobs = StepJobs(SITE, folder)
    assert jobs.submit(folder / "worker.sh") == "7.0"
    (job,) = jobs.listing()
    assert (job.id, job.state, job.n_core, job.host) == ("7.0", "RUNNING", 2, "n1")
    end_of(jobs)


def test_a_step_that_is_cancelled_is_asked_to_leave(folder):
    jobs = StepJobs(SITE, folder)
    jobs.submit(folder / "worker.sh")
    jobs.cancel(["7.0"])
    jobs._steps["7.0"].srun.wait(10.0)
    assert (folder / "cancelled").read_text() == "--quiet --signal=TERM 7.0\n"
    (job,) = jobs.listing()
    assert job.state == "CANCELLED"
    assert job.is_over


def test_a_step_that_fails_is_listed_so(folder):
    jobs = StepJobs(SITE, folder)
    jobs.submit(folder / "worker.sh")
    end_of(jobs)
    (job,) = jobs.listing()
    assert job.state == "FAILED"


def test_an_srun_that_refuses_is_told_in_its_words(folder):
    tool(folder, "srun", "echo 'srun: error: Invalid node name' >&2; exit 1")
    with pytest.raises(ClusterError, match="srun failed: Invalid node name"):
        StepJobs(SITE, folder).submit(folder / "worker.sh")


def test_the_first_step_may_wait_for_room(folder, monkeypatch):
    monkeypatch.setattr(cluster.slurm.steps, "_ROOM_S", 0.5)
    tool(folder, "srun", "exec sleep 100")
    with pytest.raises(SlurmAwayError, match="no room for another worker of 2 cores and 3 GiB"):
        StepJobs(SITE, folder).submit(folder / "worker.sh")


def test_the_first_step_does_not_wait_for_ever(folder, monkeypatch):
    monkeypatch.setattr(cluster.slurm.steps, "_ROOM_S", 0.5)
    monkeypatch.setattr(cluster.slurm.steps, "_LEAVING_S", 0.0)
    tool(folder, "srun", "exec sleep 100")
    with pytest.raises(ClusterError, match="no room") as refused:
        StepJobs(SITE, folder).submit(folder / "worker.sh")
    assert not isinstance(refused.value, SlurmAwayError)


def test_a_step_that_nobody_can_look_for_is_ended(folder):
    tool(folder, "squeue", "until [ -e $FAKE/pid ]; do sleep 0.05; done; echo timed out >&2; exit 1")
    with pytest.raises(SlurmAwayError, match="timed out"):
        StepJobs(SITE, folder).submit(folder / "worker.sh")
    assert not Path("/proc", (folder / "pid").read_text().strip()).exists()


def test_a_further_step_for_which_there_is_no_room_is_refused(folder, monkeypatch):
    jobs = StepJobs(SITE, folder)
    jobs.submit(folder / "worker.sh")
    monkeypatch.setattr(cluster.slurm.steps, "_ROOM_S", 0.5)
    tool(folder, "srun", "exec sleep 100")
    with pytest.raises(ClusterError) as refused:
        jobs.submit(folder / "worker.sh")
    assert not isinstance(refused.value, SlurmAwayError)
    end_of(jobs)


def test_outside_of_an_allocation_there_are_no_steps(tmp_path, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(ClusterError, match="runs in no allocation; use `nightbeam submit`"):
        StepJobs(SITE, tmp_path)
