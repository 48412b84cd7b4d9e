"""Keeps worker jobs in SLURM: a thread of the planning process that submits, lists, replaces and cancels them.

What exists is what the list of jobs by name shows, whatever sbatch said. A job that ends, for whatever reason, is
replaced; one whose walltime comes near is replaced before. Jobs that end at once, again and again, end the cluster with
their last words. SLURM may be away for a while: nothing is concluded from that.
"""

import errno
import logging
import math
import re
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cluster.ends import WorkerEnd
from cluster.slurm.commands import Job, Jobs
from cluster.slurm.folder import beat
from cluster.slurm.keeper import longest_margin_s
from cluster.slurm.notes import ask_to_leave, read_ends, read_job, read_jobs
from cluster.slurm.script import log_file
from cluster.slurm.site import SlurmSite
from cluster.slurm.usage import USAGE, How, append_usage, used
from engine.errors import ClusterError, SchedulerLostError, SlurmAwayError, reason_and_remedy

LOOK_S = 3.0
"""Between two looks at the list of jobs, while SLURM answers."""
_QUIET_LOOK_S = 10.0
"""The same while all wanted jobs run and nobody misses a worker: a batch of a dozen runs asks often enough."""
_NOTICE_S = 0.2
_SOON_S = 20.0
"""A cluster with room starts a job in a shorter time."""
_LONGEST_LOOK_S = 60.0
_MAX_EARLY_ENDS = 5
_LISTED_S = 15.0
"""A job that sbatch has named is in the list after so long, or never."""
_GONE_LOOKS = 2
_START_UP_S = 20.0
_LESS_AFTER_S = 60.0
_TELL_AGAIN_S = 900.0
_AT_ONCE = 20
_TASKS_PER_THREAD = 2
_READ_S = 0.5
_END_S = 15.0
_HASTY_END_S = 2.0
_LAST_WORDS = 600
_QUEUE_FULL = re.compile(r"MaxSubmit\w*Limit")
_LOG = logging.getLogger("nightbeam")


@dataclass
class _Seen:
    """What is known of one job."""

    job: Job
    since_s: float
    n_missing: int = 0
    over_s: float | None = None
    by_us: bool = False


class Supervisor:
    """Keeps as many worker jobs as a run needs; `start` begins, `close` ends all of them.

    Parameters
    ----------
    site
        The site's file.
    folder
        The run folder, with everything that keepers read.
    script
        The job script.
    jobs
        How jobs are submitted, listed and cancelled.
    say
        Tells a person one line.
    """

    def __init__(
        self, site: SlurmSite, folder: Path, script: Path, jobs: Jobs, say: Callable[[str], None] = _LOG.info
    ) -> None:
        self._site, self._folder, self._script, self._jobs, self._say = site, folder, script, jobs, say
        self._seen: dict[str, _Seen] = {}
        self._named: dict[str, float] = {}
        self._waits_s: list[float] = []
        self._n_wanted = site.n_job_min
        self._n_enough = site.n_job_min
        self._less_since_s: float | None = None
        self._n_early = 0
        self._n_taken = 0
        self._away_s = LOOK_S
        self._is_away = self._all_run = False
        self._look_first = False
        self._not_before_s = 0.0
        self._told: dict[str, float] = {}
        self._ends: dict[str, WorkerEnd] = {}
        self._job_of: dict[str, str] = {}
        self._read_s = 0.0
        self._failure: ClusterError | None = None
        self._lock = threading.RLock()
        self._ended, self._missed = threading.Event(), threading.Event()
        self._in_haste = False
        self._thread = threading.Thread(target=self._look_after, name="nightbeam-jobs", daemon=True)

    def start(self) -> None:
        """Begin to look after the jobs."""
        self._thread.start()

    def failure(self) -> ClusterError | None:
        """Return why no job will be started any more, or None."""
        return self._failure

    def expects_workers(self) -> str:
        """Return what workers are waited for, in words; raises if none will come.

        Raises
        ------
        ClusterError
            If jobs end at once again and again, or SLURM refuses them.
        """
        self._missed.set()
        if self._failure is not None:
            raise self._failure
        if self._is_away:
            return "SLURM does not answer"
        live = [seen.job for seen in self._live()]
        pending = [job for job in live if job.is_pending]
        if pending:
            reasons = sorted({job.reason for job in pending if job.reason not in ("", "None")})
            why = f" ({', '.join(reasons)})" if reasons else ""
            return f"{len(pending)} of {len(live)} worker jobs wait in SLURM's queue{why}"
        n_suspended = sum(job.is_suspended for job in live)
        if n_suspended:
            return f"{n_suspended} of {len(live)} worker jobs are suspended by SLURM"
        return f"{len(live)} worker jobs are starting"

    def _live(self) -> list[_Seen]:
        """Return the jobs that are in SLURM, as far as is known."""
        with self._lock:
            return [seen for seen in self._seen.values() if seen.over_s is None]

    def n_running(self) -> int:
        """Return how many jobs run."""
        live = [seen.job for seen in self._live()]
        return sum(not job.is_pending and not job.is_suspended for job in live)

    def n_soon(self) -> int:
        """Return how many workers run, start, or may start at once: a job that waits for longer may do so for hours."""
        now_s = time.time()
        with self._lock:
            live, n_named = self._live(), len(self._named)
        n_seen = sum(
            not seen.by_us
            and not self._expires(seen.job)
            and not seen.job.is_suspended
            and (not seen.job.is_pending or now_s - seen.since_s < _SOON_S)
            for seen in live
        )
        return min(n_seen + n_named, self._n_wanted) * self._site.processes

    def want(self, n_task: int) -> None:
        """Say how many tasks could be done at the same time, if there were workers for them."""
        n_job = math.ceil(n_task / (self._site.cores * _TASKS_PER_THREAD))
        self._n_enough = min(max(n_job, self._site.n_job_min), self._site.n_job_max)

    def why(self, address: str) -> WorkerEnd | None:
        """Return why the worker at an address ended, or None if that is not known, or not yet."""
        self._missed.set()
        with self._lock:
            now_s = time.monotonic()
            if now_s > self._read_s:
                # Whoever asks does so again and again; files of a network file system are not for that.
                self._read_s = now_s + _READ_S
                self._ends.update((end.address, end) for end in read_ends(self._folder))
                self._job_of = {
                    worker: number
                    for number, (note, _) in read_jobs(self._folder).items()
                    for worker in note.workers
                }
            end = self._ends.get(address)
            # A keeper that was killed with its workers says nothing: its job's state does.
            seen = self._seen.get(self._job_of.get(address, ""))
            if end is not None or seen is None or not (seen.job.has_ended or seen.over_s is not None):
                return end
        job = seen.job
        if job.state == "OUT_OF_MEMORY":
            return WorkerEnd(
                address, "memory", f"job {job.id} ran out of memory", None, self._site.worker_bytes
            )
        return WorkerEnd(address, "left", f"job {job.id} on {job.host}: {_state(job)}")

    def cancel_now(self) -> None:
        """Submit no further job and cancel all that are known; from any thread. `close` then soon returns.

        Whatever SLURM says to it: `close` tries again.
        """
        self._in_haste = True
        self._ended.set()
        self._cancel_known()
        if self._thread.is_alive():
            # What it submits at this moment.
            self._thread.join()
            self._cancel_known()

    def _cancel_known(self) -> None:
        live = [seen for seen in list(self._seen.values()) if seen.over_s is None and not seen.by_us]
        for seen in live:
            seen.by_us = True
        try:
            self._jobs.cancel([*(seen.job.id for seen in live), *list(self._named)])
        except ClusterError:
            for seen in live:
                seen.by_us = False

    def close(self) -> None:
        """Cancel all jobs, wait until SLURM has ended them, and note what they used."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        limit_s = time.monotonic() + (_HASTY_END_S if self._in_haste else _END_S)
        pause_s = 0.1
        while True:
            try:
                listing = self._jobs.listing()
                self._note(listing)
                # All that is in the list, also what was taken for lost and has come back.
                live = [job.id for job in listing if not job.is_over]
                late = [number for number in self._named if number not in self._seen]
                begun = [number for number in live if not self._seen[number].by_us]
                for number in begun:
                    self._seen[number].by_us = True
                self._jobs.cancel([*begun, *late])
                if not live and not late:
                    break
            except ClusterError as error:
                _LOG.warning("worker jobs may be left in SLURM: %s; look with `squeue --me`", error)
                break
            if time.monotonic() > limit_s:
                break
            time.sleep(pause_s)
            pause_s = min(1.0, 2.0 * pause_s)
        now_s = time.time()
        for seen in self._seen.values():
            if seen.over_s is None:
                self._end(seen, now_s)

    def _look_after(self) -> None:
        while not self._ended.is_set() and self._failure is None:
            beat(self._folder)
            try:
                self.look(time.time())
            except ClusterError as error:
                self._failure = error
            except OSError as error:
                self._failure = ClusterError(
                    f"worker jobs cannot be looked after any more: {reason_and_remedy(error)}"
                )
            except (LookupError, RuntimeError, TypeError, ValueError) as error:
                # SLURM said what this program does not understand. Workers go on with what they do, and need an owner
                # that is seen to be alive.
                self._failure = ClusterError(f"worker jobs cannot be looked after any more ({error!r})")
                _LOG.exception("worker jobs cannot be looked after any more")
            self._rest()
        while not self._ended.wait(LOOK_S):
            beat(self._folder)

    def _rest(self) -> None:
        """Wait until it is time for the next look: sooner if a worker is missed while all jobs were seen to run."""
        begin_s = time.monotonic()
        while not self._ended.wait(_NOTICE_S):
            rested_s = time.monotonic() - begin_s
            is_missed = self._all_run and self._missed.is_set()
            if rested_s > (LOOK_S if is_missed else self._away_s):
                break
        self._missed.clear()

    def look(self, now_s: float) -> None:
        """Look at the list of jobs once, and submit or end what is missing or too much.

        Parameters
        ----------
        now_s
            Time in seconds since 1970.
        """
        try:
            self._note(self._jobs.listing())
        except SlurmAwayError as error:
            self._wait_for_slurm(error)
            return
        self._look_first = False
        if self._is_away:
            self._say("SLURM answers again")
        self._is_away, self._away_s = False, LOOK_S
        if self._failure is None and _is_gone(self._script):
            self._failure = SchedulerLostError(
                f"the folder {self._folder} of this run is gone: another run found this one silent for minutes "
                "and cleared it away with its jobs"
            )
        if self._failure is not None:
            return
        staying = [
            seen for seen in self._seen.values() if seen.over_s is None and not self._expires(seen.job)
        ]
        n_coming = len(staying) + sum(number not in self._seen for number in self._named)
        self._follow_demand(now_s)
        if n_coming < self._n_wanted:
            self._submit(min(self._n_wanted - n_coming, _AT_ONCE), now_s)
        elif n_coming > self._n_wanted:
            self._send_away(staying, n_coming - self._n_wanted)
        self._tell_waiting(now_s)
        self._tell_suspended(now_s)
        self._all_run = n_coming == self._n_wanted == self.n_running()
        if self._all_run:
            self._away_s = _QUIET_LOOK_S

    def _wait_for_slurm(self, error: SlurmAwayError) -> None:
        if not self._is_away:
            self._say(f"{error}; worker jobs that run go on, asking again until it answers")
        self._is_away, self._all_run = True, False
        self._away_s = min(2.0 * self._away_s, _LONGEST_LOOK_S)

    def _note(self, listing: list[Job]) -> None:
        """Take in a list of jobs."""
        now_s = time.time()
        with self._lock:
            for job in listing:
                self._named.pop(job.id, None)
                seen = self._seen.get(job.id)
                if seen is None:
                    seen = self._seen[job.id] = _Seen(job, now_s)
                elif seen.over_s is not None:
                    continue
                before, seen.job, seen.n_missing = seen.job, job, 0
                if before.is_pending and not job.is_pending:
                    self._waits_s.append(now_s - seen.since_s)
                if not before.is_pending and job.is_pending:
                    # Started again by SLURM, against what its script asks for: what it was ends here.
                    self._append(before, now_s, "preempted")
                if job.is_over:
                    self._end(seen, now_s)
            there = {job.id for job in listing}
            for number, seen in self._seen.items():
                if seen.over_s is None and number not in there:
                    seen.n_missing += 1
                    if seen.n_missing >= _GONE_LOOKS:
                        self._end(seen, now_s, "lost")
            for number, named_s in list(self._named.items()):
                if now_s - named_s > _LISTED_S:
                    del self._named[number]
                    self._count_early(
                        f"job {number} (sbatch has named it, and squeue does not list it)", number, now_s
                    )

    def _end(self, seen: _Seen, now_s: float, how: How | None = None) -> None:
        """Take in the end of a job: count what it used, say what is worth saying, and see whether it was too early."""
        seen.over_s = now_s
        job = seen.job
        note = read_job(self._folder, job.id)
        if seen.by_us and not seen.job.is_over:
            how = "completed"
        elif job.state == "COMPLETED" and note is not None and note[0].leaving == "walltime":
            how = "walltime"
        elif job.state == "CANCELLED" and seen.by_us:
            how = "completed"
        self._append(job, now_s, how)
        if seen.by_us:
            return
        if note is not None and note[0].workers:
            self._n_early = self._n_taken = 0
        elif job.state in ("COMPLETED", "FAILED", "OUT_OF_MEMORY", "BOOT_FAIL", "TIMEOUT"):
            self._count_early(f"job {job.id}{_on(job)} ({_state(job)})", job.id, now_s)
        else:
            # Somebody's will or bad luck, and no reason to give up: but there is no use in hurrying either.
            self._n_taken += 1
            self._pause(self._n_taken, now_s)
        if how != "walltime" or job.state == "TIMEOUT":
            what = "is not known to SLURM any more" if how == "lost" else _state(job)
            self._say(f"worker job {job.id}{_on(job)} {what}; replacing it")

    def _append(self, job: Job, now_s: float, how: How | None) -> None:
        line = used(job, now_s, how)
        if line is not None:
            try:
                append_usage(self._folder / USAGE, [line])
            except OSError as error:
                _LOG.warning("what job %s used cannot be noted: %s", job.id, error)

    def _count_early(self, which: str, number: str, now_s: float) -> None:
        """Count a job that ended before it was of any use, and give up after some in a row, if no other job works."""
        self._n_early += 1
        self._pause(self._n_early, now_s)
        if self._n_early < _MAX_EARLY_ENDS:
            return
        words = (
            f"{self._n_early} worker jobs in a row ended before a worker could start; the last one was {which}"
            f"{self._last_words(number)}"
        )
        if self._some_work():
            # It may be one node that is at fault, and takes every job that others end on.
            self._tell("early ends", f"{words}; trying again every minute, as others work", now_s)
        else:
            self._failure = ClusterError(words)

    def _pause(self, n_before: int, now_s: float) -> None:
        """Submit nothing for a while, which grows with the number of jobs that ended early before."""
        self._not_before_s = now_s + min(LOOK_S * 2.0 ** min(n_before, 10), _LONGEST_LOOK_S)

    def _some_work(self) -> bool:
        """Return whether a worker has joined from a job that runs."""
        running = [
            seen.job.id for seen in self._seen.values() if seen.over_s is None and not seen.job.is_pending
        ]
        notes = (read_job(self._folder, number) for number in running)
        return any(note is not None and note[0].workers for note in notes)

    def _last_words(self, number: str) -> str:
        file = log_file(self._site, self._folder, number)
        try:
            words = " ".join(file.read_bytes()[-8 * _LAST_WORDS :].decode(errors="replace").split())
        except OSError:
            return f"; it wrote no log {file}"
        return f"; its last words: {words[-_LAST_WORDS:]}" if words else "; its log is empty"

    def _expires(self, job: Job) -> bool:
        """Return whether a job's walltime is so near that its replacement should be in the queue."""
        if job.has_ended:
            return True
        if job.left_s is None or job.is_pending:
            return False
        wait_s = statistics.median(self._waits_s[-10:]) if self._waits_s else 0.0
        ahead_s = longest_margin_s(self._site.walltime_s) + _START_UP_S + wait_s
        return job.left_s < min(ahead_s, self._site.walltime_s / 2.0)

    def _follow_demand(self, now_s: float) -> None:
        """Have more jobs at once where there is more to do, and fewer when there has been less for a while."""
        if self._n_enough >= self._n_wanted:
            self._n_wanted, self._less_since_s = self._n_enough, None
            return
        self._less_since_s = self._less_since_s or now_s
        if now_s - self._less_since_s > _LESS_AFTER_S:
            self._n_wanted, self._less_since_s = self._n_enough, None

    def _submit(self, n_job: int, now_s: float) -> None:
        if now_s < self._not_before_s or self._look_first:
            return
        for _ in range(n_job):
            if self._ended.is_set():
                return
            # A busy sbatch takes its time, and a silent owner loses its folder to the next run.
            beat(self._folder)
            try:
                number = self._jobs.submit(self._script)
            except SlurmAwayError as error:
                # It may be in the queue nevertheless: the next list tells.
                self._wait_for_slurm(error)
                self._look_first = True
                return
            except ClusterError as error:
                self._refused(error, now_s)
                return
            if number is None:
                self._look_first = True
                return
            self._named[number] = now_s
            _LOG.info("worker job %s: submitted", number)

    def _refused(self, error: ClusterError, now_s: float) -> None:
        """Fail where SLURM never took any job; where it did, it is a limit, and there may be room later."""
        # Jobs of other runs may fill the user's share of the queue.
        if not self._seen and not self._named and not _QUEUE_FULL.search(str(error)):
            self._failure = ClusterError(
                f"SLURM does not take the worker jobs: {error}; see `nightbeam cluster show`"
            )
            return
        self._not_before_s = now_s + _LONGEST_LOOK_S
        self._tell(
            "refused", f"SLURM takes no further worker job now ({error}); trying again every minute", now_s
        )

    def _send_away(self, staying: list[_Seen], n_job: int) -> None:
        """End the jobs that are needed least: those that wait, then those that would end first."""
        waiting = [seen for seen in staying if seen.job.is_pending]
        running = [seen for seen in staying if not seen.job.is_pending and not seen.by_us]
        away = waiting[:n_job]
        for seen in away:
            seen.by_us = True
        try:
            self._jobs.cancel([seen.job.id for seen in away])
        except ClusterError as error:
            _LOG.warning("%s", error)
        n_asked = sum(seen.by_us and not seen.job.is_pending for seen in staying)
        running.sort(key=lambda seen: seen.job.left_s or math.inf)
        for seen in running[: max(0, n_job - len(away) - n_asked)]:
            seen.by_us = True
            ask_to_leave(self._folder, seen.job.id)

    def _tell_waiting(self, now_s: float) -> None:
        reasons = {
            seen.job.reason
            for seen in self._seen.values()
            if seen.over_s is None and seen.job.is_pending and now_s - seen.since_s > 5.0 * LOOK_S
        } - {"", "None"}
        for reason in sorted(reasons):
            self._tell(
                f"reason {reason}",
                f"worker jobs wait in SLURM's queue: {reason}; waiting for them (Ctrl-C stops, and nothing is lost)",
                now_s,
            )

    def _tell_suspended(self, now_s: float) -> None:
        n_suspended = sum(seen.over_s is None and seen.job.is_suspended for seen in self._seen.values())
        if n_suspended:
            # Not replaced: another one would wait for the same place, and be one too many when it is over.
            self._tell(
                "suspended",
                f"{n_suspended} worker jobs are suspended by SLURM; they go on when it lets them",
                now_s,
            )

    def _tell(self, about: str, words: str, now_s: float) -> None:
        if now_s - self._told.get(about, -math.inf) > _TELL_AGAIN_S:
            self._told[about] = now_s
            self._say(words)


def _state(job: Job) -> str:
    """Return the state of a job that ended for people."""
    return {
        "CANCELLED": "was cancelled",
        "TIMEOUT": "reached its walltime",
        "PREEMPTED": "was pre-empted",
        "NODE_FAIL": "lost its node",
        "BOOT_FAIL": "lost its node",
        "COMPLETED": "ended",
        "COMPLETING": "is ending",
        "FAILED": "failed",
        "OUT_OF_MEMORY": "ran out of memory",
        "DEADLINE": "reached its deadline",
    }.get(job.state, f"has state {job.state}")


def _on(job: Job) -> str:
    """Return where a job ran, for people."""
    return f" on {job.host}" if job.host else ""


def _is_gone(file: Path) -> bool:
    """Return whether a file is surely not there any more; a file server that is away is no proof."""
    try:
        file.stat()
    except OSError as error:
        return error.errno in (errno.ENOENT, errno.ESTALE)
    return False
