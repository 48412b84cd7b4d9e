"""One run, from sbatch to the report, with events at random moments; everything random follows from a seed."""

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.events import (
    cancel_a_job,
    kill_a_worker,
    kill_the_command,
    preempt_a_job,
    requeue,
    stop_a_worker,
)
from tests.cluster.slurm_run import SlurmRun
from tests.faults.compare import damage, difference_of_plans

CANCEL, KILL, STOP, COMMAND, REQUEUE, PREEMPT = (
    "worker job cancelled", "worker killed", "worker stopped", "planning process killed",
    "controlling job requeued", "worker job pre-empted",
)  # fmt: skip
KINDS = (CANCEL, KILL, STOP, COMMAND, REQUEUE, PREEMPT)
_LOG = logging.getLogger("nightbeam.chaos")
_MAX_IN_A_ROW = 2
"""A planning process that is killed a third time without any progress is not started again, on purpose."""
_PREEMPT_S = 3.0
_NOBODY_S = 120.0
"""A run without any worker for so long is not waited for: whether it is lost, its end will show."""


@dataclass(frozen=True)
class Event:
    """What happened, when (seconds since the submission), and in the midst of what."""

    kind: str
    at_s: float
    stage: str


@dataclass
class Outcome:
    """What became of a run: what happened to it, and what went wrong, if anything."""

    seed: int
    events: list[Event] = field(default_factory=list)
    wall_s: float = 0.0
    lost: str = ""
    different: str = ""


class Chaos:
    """Does things to a submitted run.

    Parameters
    ----------
    run
        The run.
    job
        Its controlling job.
    seed
        Everything random follows from it.
    stop_s
        How long a stopped worker stands still.
    """

    def __init__(self, run: SlurmRun, job: str, seed: int, stop_s: float) -> None:
        self.outcome = Outcome(seed)
        self.chance = random.Random(seed)
        self._run, self._job, self._stop_s = run, job, stop_s
        self._begin_s = time.monotonic()
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._n_command = 0

    @property
    def is_over(self) -> bool:
        """Whether the controlling job has left the queue."""
        return not self._run.is_queued(self._job)

    def happens(self, kind: str) -> bool:
        """Have something happen as soon as it can; returns False if the run ends before."""
        if kind == COMMAND:
            if self._n_command >= _MAX_IN_A_ROW:
                kind = KILL
            else:
                self._n_command += 1
        elif kind != REQUEUE:
            self._n_command = 0
        until_s = time.monotonic() + _NOBODY_S
        while True:
            stage = self._run.stage()
            if self.is_over or time.monotonic() > until_s:
                return False
            if self._do(kind):
                break
            self.wait(0.3)
        event = Event(kind, time.monotonic() - self._begin_s, stage)
        self.outcome.events.append(event)
        _LOG.info("seed %d: %.1f s, %s, while: %s", self.outcome.seed, event.at_s, event.kind, event.stage)
        return True

    def wait(self, span_s: float) -> None:
        """Let some time go by, or less if the run ends."""
        until_s = time.monotonic() + span_s
        while True:
            for due in [due for due in self._later if due[0] < time.monotonic()]:
                self._later.remove(due)
                due[1]()
            if time.monotonic() > until_s or self.is_over:
                return
            time.sleep(min(0.5, max(0.01, until_s - time.monotonic())))

    def finish(self, limit_s: float) -> None:
        """Wait for the run's end and note how it was."""
        until_s = self._begin_s + limit_s
        while not self.is_over and time.monotonic() < until_s:
            self.wait(1.0)
        self.outcome.wall_s = time.monotonic() - self._begin_s
        for _, undo in self._later:
            undo()
        if not self.is_over:
            self.outcome.lost = f"not over after {limit_s:g} s: {self._run.printed[-2000:]}"
        else:
            self.outcome.lost = self._run.failure()

    def _do(self, kind: str) -> bool:
        run, chance = self._run, self.chance
        if kind == CANCEL:
            return cancel_a_job(run, chance)
        if kind == KILL:
            return kill_a_worker(run, chance)
        if kind == COMMAND:
            return kill_the_command(run)
        if kind == REQUEUE:
            return requeue(run.slurm, self._job)
        if kind == PREEMPT:
            jobs = run.worker_jobs()
            if jobs:
                preempt_a_job(run.slurm, _PREEMPT_S, chance.choice(jobs).node)
            return bool(jobs)
        go_on = stop_a_worker(run, chance)
        if go_on is not None:
            self._later.append((time.monotonic() + self._stop_s, go_on))
        return go_on is not None


def judge(run: SlurmRun, outcome: Outcome, expected: Path) -> None:
    """Note whether a run that ended well has the expected results and has left nothing behind."""
    if not outcome.lost:
        outcome.different = (
            damage(run.folder) or difference_of_plans(run.folder, expected) or "; ".join(run.left_behind())
        )
