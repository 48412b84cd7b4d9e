"""What a worker job runs: ``python -m cluster.slurm.keeper RUN_FOLDER``. It keeps workers and says how each ended.

A worker that dies is started again; five early deaths in a row end the job. One that uses more memory than its share
is killed here, before the kernel picks somebody else, and so is one that gives no sign of life. Workers leave without
losing what they do when the job is asked to end (SIGTERM), before its walltime is over, and when the supervisor asks
for it. The job ends when the scheduler cannot be reached for a minute.
"""

import logging
import math
import os
import random
import selectors
import signal
import socket
import sys
import time
from pathlib import Path
from types import FrameType

from cluster.child import MAX_EARLY_DEATHS, Child
from cluster.ends import Cause, WorkerEnd
from cluster.memory import gib
from cluster.slurm.notes import (
    JobNote,
    Orders,
    is_asked_to_leave,
    read_orders,
    read_scheduler,
    touch_job,
    write_end,
    write_job,
)
from cluster.slurm.surroundings import OomCount, can_connect, prepare_scratch, used_bytes
from cluster.slurm.worker import own_host
from engine.errors import ClusterError, reason_and_remedy

CERTIFICATE = "certificate.pem"
UNREACHABLE_S = 60.0
"""A scheduler that cannot be reached for so long is gone for good."""
SILENT_S = 300.0
"""A worker that has given no sign of life for so long stands still: whoever waits for it would wait for ever."""
_MARGIN_SHARE = 0.1
_SHORTEST_MARGIN_S, _LONGEST_MARGIN_S = 15.0, 300.0
_STAGGER = 0.5
_TICK_S = 0.25
_LOOK_S = 5.0
_TOUCH_S = 30.0
_SOON_KILL_S = 8.0
_LAST_SECONDS_S = 8.0
_NEAR_LIMIT = 0.95
_LONGEST_TICK_S = 5.0
_LOG = logging.getLogger("nightbeam")


def margin_s(walltime_s: float) -> float:
    """Return how long before its walltime a job begins to leave, without stagger: time to finish what runs."""
    return min(max(_MARGIN_SHARE * walltime_s, _SHORTEST_MARGIN_S), _LONGEST_MARGIN_S)


def longest_margin_s(walltime_s: float) -> float:
    """Return how long before its walltime a job begins to leave at the most."""
    return margin_s(walltime_s) * (1.0 + _STAGGER)


def _left_s(walltime_s: float) -> float:
    """Return how long this job may go on: its walltime, less what it has used of it if SLURM tells."""
    # Newer SLURMs than 22.05 say when it ends. An allocation that steps run in may end before their walltime, too.
    end = os.environ.get("SLURM_JOB_END_TIME", "")
    return min(walltime_s, float(end) - time.time()) if end.isdigit() else walltime_s


class Keeper:
    """Keeps the workers of one job.

    Parameters
    ----------
    folder
        The run folder.
    job
        Number of the job.
    host
        Where workers listen.
    """

    def __init__(self, folder: Path, job: str, host: str) -> None:
        self._folder, self._job, self._host = folder, job, host
        self._orders: Orders = read_orders(folder)
        self._note = JobNote(job, os.environ.get("SLURMD_NODENAME", socket.gethostname()), time.time())
        self._children: dict[int, Child] = {}
        self._peaks: dict[int, int] = {}
        self._silent_s: dict[int, float] = {}
        self._killed: set[int] = set()
        self._early_deaths: dict[int, int] = {}
        self._noted: set[str] = set()
        self._scheduler: str | None = None
        self._lost_s: float | None = None
        self._failure = ""
        self._told = False
        self._selector = selectors.DefaultSelector()
        self._oom = OomCount()
        begin_s = time.monotonic()
        # Jobs that began together do not leave together.
        margin = margin_s(self._orders.walltime_s) * (1.0 + _STAGGER * random.Random(job).random())
        self._walltime_s = begin_s + _left_s(self._orders.walltime_s)
        self._leave_s = self._walltime_s - margin
        self._kill_s: float | None = None
        self._look_s = self._touch_s = 0.0
        self._tick_s = begin_s

    def terminate(self, number: int, frame: FrameType | None) -> None:
        """Leave within some seconds: the handler of SIGTERM."""
        self._told = True

    def run(self) -> int:
        """Keep workers until the job has to end; returns its exit status."""
        self._write_note()
        try:
            while True:
                self._tick()
                if not self._children and self._kill_s is not None:
                    return 1 if self._failure else 0
        finally:
            for number in list(self._children):
                self._children[number].process.kill()
                self._bury(number)

    def _tick(self) -> None:
        now_s = time.monotonic()
        if self._told:
            # Also where it is leaving already, and would take more time.
            self._told = False
            self._leave("its job was asked to end", _SOON_KILL_S, signal.SIGTERM)
        if now_s > self._touch_s:
            self._touch_s = now_s + _TOUCH_S
            touch_job(self._folder, self._job)
        if now_s > self._look_s and not self._note.leaving:
            self._look_s = now_s + _LOOK_S
            self._look(now_s)
        for key, _ in self._selector.select(_TICK_S):
            self._hear(key.data)
        self._watch_memory()
        self._watch_silence(now_s)
        if self._kill_s is not None and now_s > self._kill_s:
            for child in self._children.values():
                child.process.kill()

    def _look(self, now_s: float) -> None:
        """See whether it is time to leave, and whether the scheduler is there."""
        if now_s > self._leave_s:
            left_s = self._walltime_s - _LAST_SECONDS_S - now_s
            self._leave("the walltime of its job was nearly over", left_s, signal.SIGUSR1, "walltime")
            return
        if is_asked_to_leave(self._folder, self._job):
            left_s = self._walltime_s - _LAST_SECONDS_S - now_s
            self._leave("it was not needed any more", left_s, signal.SIGUSR1, "asked")
            return
        address = read_scheduler(self._folder)
        if address is not None and can_connect(address):
            self._lost_s = None
            if address != self._scheduler:
                # Workers that have not joined a scheduler which is gone would try for ever.
                self._kill_unjoined()
            self._scheduler = address
            for number in range(1, self._orders.n_process + 1):
                if number not in self._children:
                    self._start(number)
        elif not any(child.has_joined for child in self._children.values()):
            # Workers that have joined see for themselves whether their scheduler is there, and end when it is not.
            self._lost_s = self._lost_s or now_s
            if now_s - self._lost_s > UNREACHABLE_S:
                self._fail(
                    f"the scheduler ({address or 'of a run that is over'}) cannot be reached from {self._note.host}"
                )

    def _kill_unjoined(self) -> None:
        for child in self._children.values():
            if not child.has_joined:
                child.process.kill()

    def _leave(self, why: str, patience_s: float, ask: signal.Signals, note: str = "told") -> None:
        self._note = JobNote(**{**vars(self._note), "leaving": note})
        self._kill_s = min(self._kill_s or math.inf, time.monotonic() + patience_s)
        self._kill_unjoined()
        for child in self._children.values():
            if child.has_joined:
                child.process.send_signal(ask)
                if ask == signal.SIGTERM:
                    # Now, as SLURM may kill this process in a moment.
                    self._note_end(child, WorkerEnd(child.address or "", "left", why))
        self._why_left = why
        self._write_note()

    def _fail(self, words: str) -> None:
        self._failure = words
        print(f"nightbeam: {words}", file=sys.stderr, flush=True)
        self._leave(words, _SOON_KILL_S, signal.SIGTERM)

    def _start(self, number: int) -> None:
        orders = self._orders
        ports = ":".join(map(str, orders.ports)) if orders.ports else ""
        child = Child(
            f"worker {self._job}-{number}",
            [
                "job-worker", str(self._folder / CERTIFICATE), f"{self._job}-{number}", str(orders.n_thread),
                self._host, ports, *orders.imports,
            ],
        )  # fmt: skip
        child.tell(self._scheduler or "")
        self._children[number], self._peaks[number], self._silent_s[number] = child, 0, 0.0
        self._selector.register(child.process.stdout, selectors.EVENT_READ, number)  # type: ignore[arg-type]

    def _hear(self, number: int) -> None:
        child = self._children[number]
        joined_before = child.has_joined
        if not child.listen():
            self._end_of(number)
            return
        self._silent_s[number] = 0.0
        if child.has_joined and not joined_before:
            self._early_deaths.pop(number, None)
            self._note = JobNote(**{**vars(self._note), "workers": [*self._note.workers, child.address]})
            self._write_note()
            print(f"{child.role}: {child.address}", flush=True)

    def _end_of(self, number: int) -> None:
        """Note the end of a worker; the next look starts another one, if the scheduler is there."""
        child, peak = self._children[number], self._peaks[number]
        how = self._bury(number)
        cause, words = self._cause(number, child, how, peak)
        limit = self._orders.limit_bytes if cause == "memory" else None
        if child.address is not None:
            self._note_end(child, WorkerEnd(child.address, cause, words, peak or None, limit))
        if self._note.leaving:
            return
        print(f"{child.role} ended: {words}", file=sys.stderr, flush=True)
        self._look_s = 0.0
        if child.has_joined or self._scheduler is None or not can_connect(self._scheduler):
            return
        n_early = self._early_deaths[number] = self._early_deaths.get(number, 0) + 1
        if n_early >= MAX_EARLY_DEATHS:
            self._fail(f"a worker ended {n_early} times before it could start working ({words})")

    def _bury(self, number: int) -> str:
        child = self._children.pop(number)
        self._selector.unregister(child.process.stdout)  # type: ignore[arg-type]
        return child.bury()

    def _cause(self, number: int, child: Child, how: str, peak: int) -> tuple[Cause, str]:
        limit = self._orders.limit_bytes
        code = child.process.returncode
        n_oom = self._oom.news()
        if number in self._killed:
            self._killed.discard(number)
            return (
                "memory",
                f"it used {peak / (1 << 30):.2f} GiB of memory, and its share is {limit / (1 << 30):.2f} GiB",
            )
        if self._note.leaving:
            return "left", self._why_left
        if code == -signal.SIGKILL and (n_oom or peak > _NEAR_LIMIT * limit):
            return (
                "memory",
                f"the system killed it as memory ran out, when it used {gib(peak)}",
            )
        if self._silent_s[number] > SILENT_S:
            return "died", f"it gave no sign of life for {SILENT_S:g} s"
        if code == 0:
            return "left", "its scheduler was gone, or sent it away"
        return "died", how

    def _write_note(self) -> None:
        try:
            write_job(self._folder, self._note)
        except OSError as error:
            # Workers that compute are worth more than a note.
            print(f"job {self._job} cannot be noted ({error})", file=sys.stderr, flush=True)

    def _note_end(self, child: Child, end: WorkerEnd) -> None:
        if end.address in self._noted:
            return
        self._noted.add(end.address)
        try:
            write_end(self._folder, end)
        except OSError as error:
            print(f"{child.role}: its end cannot be noted ({error})", file=sys.stderr, flush=True)

    def _watch_memory(self) -> None:
        for number, child in self._children.items():
            now, most = used_bytes(child.process.pid)
            self._peaks[number] = max(self._peaks[number], most)
            if now > self._orders.limit_bytes and number not in self._killed:
                self._killed.add(number)
                child.process.kill()

    def _watch_silence(self, now_s: float) -> None:
        # Where the whole job stands still, as SLURM may have it do, that time is not the worker's.
        ticked_s = min(now_s - self._tick_s, _LONGEST_TICK_S)
        self._tick_s = now_s
        for number, child in self._children.items():
            self._silent_s[number] += ticked_s
            # Also one that has not joined by then, as it hangs where it starts, or where it registers.
            if self._silent_s[number] > SILENT_S:
                child.process.kill()


def main(folder: str) -> int:
    """Run the keeper of this job; returns the exit status."""
    logging.getLogger("nightbeam").setLevel(logging.ERROR)
    path = Path(folder)
    # Batch jobs have no step; several steps that srun starts in one allocation have the same job.
    job = ".".join(filter(None, (os.environ.get("SLURM_JOB_ID", "0"), os.environ.get("SLURM_STEP_ID"))))
    try:
        orders = read_orders(path)
    except (OSError, ValueError) as error:
        print(
            f"nightbeam: this job's run is over, or its folder is not seen here ({error})",
            file=sys.stderr,
        )
        return 1
    try:
        prepare_scratch(orders.scratch)
        host = own_host(orders.interface)
    except OSError as error:
        print(
            f"nightbeam: {socket.gethostname()}: no scratch folder: {reason_and_remedy(error)}",
            file=sys.stderr,
        )
        return 1
    except ClusterError as error:
        print(f"nightbeam: {error}", file=sys.stderr)
        return 1
    keeper = Keeper(path, job, host)
    signal.signal(signal.SIGTERM, keeper.terminate)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return keeper.run()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
