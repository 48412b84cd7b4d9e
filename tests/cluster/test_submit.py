"""A command that was put into a job goes on whatever happens to that job, with the result of a quiet local run."""

import json
import os
import shlex
import signal
import subprocess
import sys

import pytest

from cluster.slurm.controlling_job import ControllingJob, controller_script
from cluster.slurm.site import read_site
from tests.cluster.events import requeue
from tests.cluster.one_machine import REPOSITORY, wait_until
from tests.cluster.slurm_run import SlurmRun
from tests.faults.compare import damage, difference_of_plans

SITE = """\
partition = "batch"
cores = 1
memory_gib = 1.5
jobs = 2
walltime = "00:30:00"
[controller]
walltime = "00:30:00"
memory_gib = 1.5
"""
DOSE, SOLVE = r"INFO memory: at most", r"INFO tiles: .* resident"


def read_site_text(folder, more):
    file = folder / "slurm.toml"
    file.write_text(f"cores = 1\nmemory_gib = 1.5\n{more}")
    return read_site(file)


@pytest.fixture(scope="module", autouse=True)
def short_job(slurm, tmp_path_factory):
    """Return number and files of a job of one minute, which runs beside the other tests.

    SLURM, which counts in minutes, would kill it after about a minute and a half.
    """
    folder = tmp_path_factory.mktemp("short")
    files = ControllingJob(folder / "out")
    site = read_site_text(folder, '[controller]\nwalltime = "00:01:00"\nmemory_gib = 1.0\n')
    # Instead of nightbeam a command that gets a step further in each start, and is done in the second one.
    script = controller_script(site, files, "nightbeam-short", ["plan"]).replace(
        f"{sys.executable} -P -m flows.cli plan", f"bash {folder}/work.sh"
    )
    (folder / "work.sh").write_text(
        f"trap 'exit 143' TERM; cd {files.output}; [ -e began ] && exit 0; touch began\n"
        'echo \'{"stage": "dose", "done": 1}\' > progress.json; while true; do sleep 0.1; done\n'
    )
    files.prepare(script)
    return slurm.submit(f"--output={files.log}", str(files.script)), files


@pytest.fixture
def run(slurm, prefect, small_study, tmp_path):
    """Return a function that makes a run with a SLURM file."""
    runs = []

    def make(site=SITE):
        runs.append(SlurmRun(slurm, tmp_path / "run", small_study, prefect, site))
        return runs[-1]

    yield make
    for made in runs:
        made.clear()


def state(run):
    file = run.output / "controller" / "state.json"
    return json.loads(file.read_text()) if file.exists() else {"state": "not begun", "n_start": 0}


def cluster_test(run):
    """Return the command that tests the cluster of a run."""
    file, store = str(run.folder / "slurm.toml"), str(run.store)
    return [sys.executable, "-m", "flows.cli", "cluster", "test", file, "--store", store]


def ends_as(run, job, expected):
    """Assert that a submitted run ends well, with the expected results, and leaves nothing behind."""
    wait_until(lambda: state(run)["state"] in ("done", "failed"), "the end of the run", 500.0)
    wait_until(lambda: not run.is_queued(job), "the end of its job")
    assert state(run)["state"] == "done", run.printed[-3000:]
    assert run.failure() == ""
    assert damage(run.folder) == ""
    assert difference_of_plans(run.folder, expected) == ""
    assert run.left_behind() == []


def test_a_planning_process_that_is_killed_is_started_again_and_goes_on_after_its_walltime(run, slurm, quiet):
    made = run()
    job = made.submit()
    made.reach(DOSE)
    (pid,) = made.commands()
    os.kill(pid, signal.SIGKILL)
    made.reach(SOLVE)
    # What SLURM sends some time before: how long before goes by the minute, and by how busy it is.
    slurm.says("scancel", "--batch", "--signal=USR1", job)
    ends_as(made, job, quiet)
    assert "killed by SIGKILL; starting it again" in made.printed
    assert "its walltime ends; going back into the queue" in made.printed
    assert state(made)["n_start"] == 3


def test_a_submitted_study_is_not_submitted_twice(run):
    made = run()
    job = made.submit()
    with pytest.raises(AssertionError, match=rf"is job {job} already \((pending|running|configuring)"):
        made.submit()


def test_a_job_that_is_cancelled_stays_so_and_one_that_slurm_puts_back_goes_on_where_it_was(
    run, slurm, quiet
):
    made = run()
    first = made.submit()
    made.reach(DOSE)
    slurm.says("scancel", first)
    wait_until(lambda: not made.is_queued(first), "the end of the job")
    assert state(made)["state"] == "stopped"
    second = made.submit()
    made.reach(SOLVE)
    wait_until(lambda: requeue(slurm, second), "a moment when it runs")
    ends_as(made, second, quiet)
    assert state(made)["n_start"] == 2
    # Each start has a line of its own; the last one counts.
    ends = {line["job"]: line["how"] for line in made.usage()}
    assert (ends[first], ends[second]) == ("cancelled", "completed")


def test_inside_one_allocation_workers_are_its_steps(run, slurm, quiet):
    made = run(f'start = "srun"\n{SITE}')
    job = made.submit()
    made.reach(DOSE)
    wait_until(lambda: len(made.workers()) == 2, "two workers")
    steps = slurm.says("squeue", "-h", "-s", f"--jobs={job}", "-o", "%i %j").split("\n")
    assert sum("nightbeam-" in step.partition(" ")[2] and ".batch" not in step for step in steps) == 2
    assert made.worker_jobs() == []
    ends_as(made, job, quiet)


def test_a_job_script_of_ones_own_has_its_workers_in_that_job(run, slurm):
    made = run(f'start = "srun"\n{SITE}')
    script = made.folder / "own.sh"
    script.write_text(f"#!/bin/bash\n{shlex.join(cluster_test(made))}\n")
    done = subprocess.run(
        ["sbatch", "--parsable", "--ntasks=3", "--mem-per-cpu=1536M", "--time=30", "--output=printed", script],
        cwd=made.folder, env=made.environment, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    wait_until(lambda: not made.is_queued(done.stdout.strip()), "the end of the job")
    assert "all is well: 2 workers" in made.printed, made.printed
    assert made.left_behind() == []


def test_a_cluster_is_tested_before_the_night(run):
    made = run()
    done = subprocess.run(
        cluster_test(made), cwd=REPOSITORY, env=made.environment, capture_output=True, text=True, timeout=500,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all is well: 2 workers" in done.stdout
    assert made.left_behind() == []


def test_slurm_warns_a_job_in_time_and_takes_it_back_into_the_queue(short_job, slurm):
    job, files = short_job
    wait_until(lambda: files.read_state().get("state") == "done", "the end of the second start")
    assert files.read_state()["n_start"] == 2
    wait_until(lambda: job not in {live.number for live in slurm.jobs()}, "the end of the job")
