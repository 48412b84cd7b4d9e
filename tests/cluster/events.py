"""What happens to jobs and processes at a site: each event as a function of a run, and what undoes it."""

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress

from tests.cluster.one_machine import OneMachine, wait_until
from tests.cluster.slurm_run import SlurmRun


def cancel_a_job(run: SlurmRun, chance: random.Random) -> bool:
    """Cancel a worker job; returns False if there was none."""
    jobs = run.worker_jobs("RUNNING", "PENDING")
    if jobs:
        run.slurm.says("scancel", chance.choice(jobs).number)
    return bool(jobs)


def kill_a_worker(run: SlurmRun, chance: random.Random) -> bool:
    """Kill a Dask worker with SIGKILL; returns False if there was none."""
    return _signal(run, chance, signal.SIGKILL) is not None


def stop_a_worker(run: SlurmRun, chance: random.Random) -> Callable[[], None] | None:
    """Stop a Dask worker with SIGSTOP; returns what lets it go on, or None if there was none."""
    pid = _signal(run, chance, signal.SIGSTOP)
    if pid is None:
        return None

    def go_on() -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    return go_on


def kill_the_command(run: SlurmRun) -> bool:
    """Kill the planning process with SIGKILL; returns False if there was none."""
    for pid in run.commands():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            return True
    return False


def preempt_a_job(slurm: OneMachine, lasts_s: float, node: str = "") -> str:
    """Submit a job that needs a whole node at once, and goes before the others; returns its number."""
    where = (f"--nodelist={node}",) if node else ()
    return slurm.submit(
        "--partition=urgent", "--job-name=urgent", f"--ntasks={slurm.n_core}", "--nodes=1", "--mem=100M",
        *where, f"--wrap=sleep {lasts_s:g}",
    )  # fmt: skip


def set_down(slurm: OneMachine, node: str) -> None:
    """Set a node down, as an operator does."""
    slurm.says("scontrol", "update", f"nodename={node}", "state=down", "reason=test")


def set_up(slurm: OneMachine) -> None:
    """Have all nodes take jobs again, whatever was done to them."""
    for node in slurm.nodes:
        slurm.do("restore", node)
        state = slurm.says("sinfo", "-h", "-n", node, "-p", "batch", "-o", "%t").strip()
        if state.startswith(("down", "drain")):
            with suppress(AssertionError):
                slurm.says("scontrol", "update", f"nodename={node}", "state=resume")
    wait_until(slurm.all_up, "all nodes take jobs again")


def requeue(slurm: OneMachine, job: str) -> bool:
    """Send a job back into the queue; returns False if it does not run."""
    if not any(found.number == job for found in slurm.jobs(None, "RUNNING")):
        return False
    slurm.says("scontrol", "requeue", job)
    return True


def _signal(run: SlurmRun, chance: random.Random, how: signal.Signals) -> int | None:
    # A worker may end between being seen and being met.
    for _ in range(5):
        pids = run.workers()
        if not pids:
            return None
        pid = chance.choice(sorted(pids))
        try:
            os.kill(pid, how)
        except ProcessLookupError:
            time.sleep(0.2)
            continue
        return pid
    return None
