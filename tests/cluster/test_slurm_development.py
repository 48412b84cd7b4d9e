"""The development SLURM does what a site's does, as far as the other tests rely on it."""

import json
import os
from pathlib import Path

import pytest

from tests.cluster.events import preempt_a_job, requeue, set_down, set_up
from tests.cluster.one_machine import one_machine, wait_until


@pytest.fixture
def jobs(slurm):
    """Return a way to submit a job that holds a node, and clear all up at the end."""

    def submit(*arguments, node="dev1"):
        number = slurm.submit(
            f"--nodelist={node}", f"--ntasks={slurm.n_core}", "--mem=100M", *arguments, "--wrap=sleep 600"
        )
        wait_until(lambda: state(slurm, number) == "RUNNING", f"job {number} runs")
        return number

    yield submit
    for job in slurm.jobs():
        slurm.says("scancel", job.number)
    set_up(slurm)
    wait_until(lambda: slurm.jobs() == [], "all jobs are over")


def state(slurm, number):
    return next((job.state for job in slurm.jobs() if job.number == number), "OVER")


def pids(slurm):
    return {path.name: json.loads(path.read_text())[0] for path in (slurm.folder / "run").iterdir()}


def lives(pid):
    # One that has ended may still be listed, where nobody asks for its exit status.
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_second_start_changes_nothing(slurm):
    before = pids(slurm)
    slurm.do("start")
    assert pids(slurm) == before


def test_a_start_after_a_crash_starts_what_has_died(slurm):
    before = pids(slurm)
    os.kill(before["dev2"], 9)
    slurm.do("start")
    after = pids(slurm)
    assert after.pop("dev2") != before.pop("dev2")
    assert after == before


def test_two_run_side_by_side_and_stop_apart(slurm):
    with one_machine(n_node=1) as other:
        started = pids(other)
        assert other.jobs() == []
    assert not any(lives(pid) for pid in started.values())
    assert not other.folder.exists()
    assert all(lives(pid) for pid in pids(slurm).values())


def test_a_job_in_scavenge_makes_room_for_an_urgent_one_and_goes_back_into_the_queue(slurm, jobs):
    number = jobs("--partition=scavenge")
    urgent = preempt_a_job(slurm, 600.0, "dev1")
    wait_until(lambda: state(slurm, urgent) == "RUNNING", "the urgent job runs")
    assert state(slurm, number) == "PENDING"


def test_a_job_in_batch_makes_no_room(slurm, jobs):
    number = jobs("--partition=batch")
    urgent = preempt_a_job(slurm, 600.0, "dev1")
    # One that finds room elsewhere is proof that the urgent one has been looked at.
    jobs("--partition=urgent", node="dev2")
    assert (state(slurm, number), state(slurm, urgent)) == ("RUNNING", "PENDING")


def test_a_requeued_job_runs_again(slurm, jobs):
    number = jobs()
    assert requeue(slurm, number)
    wait_until(
        lambda: "Restarts=1 " in slurm.says("scontrol", "show", "job", "-o", number), "it is started again"
    )
    wait_until(lambda: state(slurm, number) == "RUNNING", "it runs again")


def test_a_node_that_is_set_down_stays_down(slurm, jobs):
    number = jobs("--no-requeue")
    set_down(slurm, "dev1")
    wait_until(lambda: state(slurm, number) == "OVER", "its job is over")
    jobs(node="dev2")
    assert not slurm.all_up()


def test_jobs_outlive_a_restart_of_the_controller(slurm, jobs):
    number = jobs()
    slurm.do("restart-controller")
    assert state(slurm, number) == "RUNNING"


def test_a_job_that_uses_more_memory_than_it_asked_for_is_killed(slurm, jobs):
    number = slurm.submit(
        "--mem=50M", "--wrap=python3 -c 'import time; x = b\"1\" * (200 << 20); time.sleep(600)'"
    )
    wait_until(lambda: state(slurm, number) == "OVER", "it is killed")
