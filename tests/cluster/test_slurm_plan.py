"""However the SLURM jobs of a run end, its result is that of a quiet local run, to the bit."""

import os
import random
import re
import signal
import time

import pytest

from tests.cluster.events import (
    preempt_a_job,
    set_down,
    set_up,
    stop_a_worker,
)
from tests.cluster.one_machine import wait_until
from tests.cluster.slurm_run import SlurmRun
from tests.faults.compare import damage, difference_of_plans

# Workers have joined and are about to get blocks of dose; tiles are in memory, and the solve begins.
DOSE = r"INFO memory: at most"
SOLVE = r"INFO tiles: .* resident"
STOP_S = 10.0


@pytest.fixture
def plan(slurm, prefect, small_study, tmp_path):
    """Return a function that starts the study on two worker jobs and returns the run as soon as they compute."""
    runs = []

    def start():
        runs.append(run := SlurmRun(slurm, tmp_path / "run", small_study, prefect))
        run.start()
        wait_until(lambda: len(run.worker_jobs()) == 2, "two jobs run")
        run.reach(DOSE)
        wait_until(run.computing_jobs, "a job's worker is noted to have joined")
        return run

    yield start
    for run in runs:
        run.clear()
    set_up(slurm)


def ends_as(run, expected):
    """Assert that a run ends well, with the expected results, and leaves nothing behind."""
    run.finish()
    assert damage(run.folder) == ""
    assert difference_of_plans(run.folder, expected) == ""
    assert run.left_behind() == []


def ends_of_jobs(run):
    """Return how each job ended, by its number."""
    return {str(line["job"]): line["how"] for line in run.usage()}


def numbers(jobs):
    return {job.number for job in jobs}


def test_a_job_that_is_cancelled_is_replaced_and_a_worker_that_is_killed_in_mid_solve_started_again(
    plan, quiet, slurm
):
    run = plan()
    before = run.worker_jobs()
    keeps = run.computing_jobs()[0]
    ended = next(job for job in before if job != keeps)
    slurm.says("scancel", ended.number)
    run.reach(SOLVE)
    os.kill(run.workers(keeps.number)[0], signal.SIGKILL)
    run.reach("workers with resident tiles were lost")
    wait_until(lambda: numbers(run.worker_jobs()) - numbers(before), "a job that replaces the cancelled one")
    ends_as(run, quiet)
    assert sorted(ends_of_jobs(run).values()) == ["cancelled", "completed", "completed"]


def test_a_controller_that_is_restarted_and_a_worker_that_stands_still_do_no_harm(plan, quiet, slurm):
    run = plan()
    jobs = numbers(run.worker_jobs())
    slurm.do("restart-controller")
    run.reach(SOLVE)
    go_on = stop_a_worker(run, random.Random(3))
    assert go_on is not None
    time.sleep(STOP_S)  # that is the event
    assert run.stage() == "optimise"
    go_on()
    ends_as(run, quiet)
    assert ends_of_jobs(run) == dict.fromkeys(jobs, "completed")
    assert {line["cores"] for line in run.usage()} == {2}
    assert all(line["begin"] < line["end"] for line in run.usage())


def test_a_job_that_is_preempted_and_one_whose_node_is_set_down_are_replaced(plan, quiet, slurm):
    run = plan()
    first, second = sorted(run.worker_jobs(), key=lambda job: job.node)
    preempt_a_job(slurm, 1.0, first.node)
    run.reach(f"worker job {first.number} on {first.node} was pre-empted; replacing it")
    set_down(slurm, second.node)
    ends_as(run, quiet)
    ends = ends_of_jobs(run)
    assert (ends[first.number], ends[second.number]) == ("preempted", "lost")


def test_a_node_that_vanishes_in_mid_solve_does_no_harm(plan, quiet, slurm):
    run = plan()
    job = run.computing_jobs()[0]  # it will have tiles; one that joins during the solve has none
    run.reach(SOLVE)
    slurm.do("lose", job.node)
    run.reach("workers with resident tiles were lost")
    ends_as(run, quiet)
    assert ends_of_jobs(run)[job.number] == "lost"


def test_jobs_outlive_a_scheduler_that_is_killed(plan, quiet):
    run = plan()
    jobs = numbers(run.worker_jobs())
    for moment in (DOSE, SOLVE):
        run.reach(moment)
        os.kill(int(re.findall(r"INFO scheduler: pid (\d+)", run.log())[-1]), signal.SIGKILL)
    ends_as(run, quiet)
    assert run.log().count("INFO scheduler: pid") == 3
    assert ends_of_jobs(run) == dict.fromkeys(jobs, "completed")
