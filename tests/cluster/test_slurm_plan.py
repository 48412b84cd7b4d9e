"""However the SLURM jobs of a run end, its result is that of a quiet local run, to the bit."""

import random
import time

import pytest

from tests.cluster.events import (
    cancel_a_job,
    kill_a_worker,
    preempt_a_job,
    set_down,
    set_up,
    stop_a_worker,
)
from tests.cluster.one_machine import wait_until
from tests.cluster.slurm_run import SITE, SlurmRun
from tests.faults.compare import damage, difference_of_plans
from tests.faults.trial import PLAN, uninterrupted

# Some ten seconds of dose, so that what is done to the jobs happens in its midst; three scenarios, soon judged.
SMALL = PLAN.replace("\ngrid_mm = 8.0", "\ngrid_mm = 4.0")
# Longer than a job of one minute.
LONG = SMALL.replace("beamlet_mm = 10.0", "beamlet_mm = 4.0")

DOSE = "dose: begins"
SOLVE = "optimise: begins"


@pytest.fixture(scope="module")
def quiet(prefect, tmp_path_factory):
    """Return the folder of a quiet local run."""
    return uninterrupted("plan", SMALL, tmp_path_factory.mktemp("quiet"), prefect, limit_s=550.0)


@pytest.fixture
def plan(slurm, prefect, tmp_path):
    """Return a function that starts the study on two worker jobs and returns the run as soon as both compute."""
    runs = []

    def start(study=SMALL, site=SITE):
        run = SlurmRun(slurm, tmp_path / "run", study, prefect, site)
        runs.append(run)
        run.start()
        run.reach(DOSE)
        wait_until(lambda: len(run.workers()) >= 2, "two workers")
        return run

    yield start
    for run in runs:
        run.clear()
    for node in slurm.nodes:
        set_up(slurm, node)


def ends_as(run, expected):
    """Assert that a run ends well, with the expected results, and leaves nothing behind."""
    run.finish()
    assert damage(run.folder) == ""
    assert difference_of_plans(run.folder, expected) == ""
    assert run.left_behind() == []


def test_a_quiet_run_on_two_jobs_gives_what_a_local_one_gives(plan, quiet):
    ends_as(plan(), quiet)


def test_every_job_of_a_run_is_in_its_usage(plan, quiet):
    run = plan()
    jobs = {job.number for job in run.worker_jobs()}
    run.finish()
    used = run.usage()
    assert {line["job"] for line in used} == jobs
    assert {line["cores"] for line in used} == {2}
    assert all(line["begin"] < line["end"] for line in used)


def test_a_job_that_is_cancelled_is_replaced(plan, quiet):
    run = plan()
    before = {job.number for job in run.worker_jobs()}
    assert cancel_a_job(run, random.Random(1))
    wait_until(lambda: {job.number for job in run.worker_jobs()} - before, "a job that replaces it")
    ends_as(run, quiet)


def test_a_worker_that_is_killed_in_mid_solve_is_started_again(plan, quiet):
    run = plan()
    run.reach(SOLVE)
    assert kill_a_worker(run, random.Random(2))
    ends_as(run, quiet)


def test_a_worker_that_stands_still_for_a_minute_does_no_harm(plan, quiet):
    run = plan()
    go_on = stop_a_worker(run, random.Random(3))
    assert go_on is not None
    time.sleep(60.0)  # that is the event
    go_on()
    ends_as(run, quiet)


def test_jobs_that_are_preempted_come_back(plan, quiet, slurm):
    run = plan()
    number = preempt_a_job(slurm, 10.0)
    wait_until(
        lambda: any(job.number == number for job in slurm.jobs(None, "RUNNING")), "the urgent job runs"
    )
    ends_as(run, quiet)


def test_a_node_that_vanishes_does_no_harm(plan, quiet, slurm):
    run = plan()
    slurm.do("lose", run.worker_jobs()[0].node)
    ends_as(run, quiet)


def test_a_node_that_is_set_down_does_no_harm(plan, quiet, slurm):
    run = plan()
    set_down(slurm, run.worker_jobs()[0].node)
    ends_as(run, quiet)


def test_a_controller_that_is_away_for_a_while_does_no_harm(plan, quiet, slurm):
    run = plan()
    slurm.do("restart-controller")
    ends_as(run, quiet)


def test_jobs_of_one_minute_hand_over_to_others(plan, prefect, tmp_path):
    expected = tmp_path / "expected"
    expected.mkdir()
    uninterrupted("plan", LONG, expected, prefect, limit_s=550.0)
    run = plan(LONG, SITE.replace("00:30:00", "00:01:00"))
    ends_as(run, expected)
    used = run.usage()
    assert len(used) > 2
    assert "walltime" in {line["how"] for line in used}
    assert "failed" not in {line["how"] for line in used}
