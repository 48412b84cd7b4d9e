"""Work through the jobs of a batch: start them in their order, look after them, note what becomes of each."""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from flows.batch.board import Board, Entry
from flows.batch.inputs import digest_of_job
from flows.batch.jobs import STUDY
from flows.batch.night import keep_night
from flows.batch.page import lasted
from flows.batch.process import Ended, JobProcess
from flows.batch.record import Attempt, How, write_record
from flows.batch.sharing import Share, Sharing
from flows.batch.spec import Batch
from flows.failures import in_words
from storage.lease import Lease
from storage.store import Store
from storage.whole_file import whole_file

_LOOK_S = 0.2
_SIGN_OF_LIFE_S = 20.0
_END_S = 5.0
"""How long all cases together may take to stop: less than the batch itself (`flows.ending.END_S`)."""
_LOG = logging.getLogger("nightbeam")


class Work:
    """One night's work.

    Parameters
    ----------
    batch
        What was asked for.
    board
        All jobs.
    store
        Where results are.
    sharing
        What each job computes with.
    lease
        That of the batch on its output folder.
    say
        Tells people one line.
    """

    def __init__(
        self,
        batch: Batch,
        board: Board,
        store: Store,
        sharing: Sharing,
        lease: Lease,
        say: Callable[[str], None],
    ) -> None:
        self._batch, self._board, self._store = batch, board, store
        self._sharing, self._lease, self._say = sharing, lease, say
        self._running: list[tuple[Entry, JobProcess, Share]] = []
        self._written_s = 0.0

    def through_the_night(self) -> None:
        """Return when all jobs are done or have failed, or the night is over and none runs any more.

        Raises
        ------
        LeaseLostError
            If this batch was stopped for so long that another one has taken over.
        """
        try:
            self._write()
            while self._running or self._board.of_state("waiting"):
                self._lease.require_held()
                changed = self._collect()
                if changed:
                    self._write()
                changed = self._start()
                if changed or time.monotonic() - self._written_s > _SIGN_OF_LIFE_S:
                    self._write()
                if self._board.no_more and not self._running:
                    break
                time.sleep(_LOOK_S)
        finally:
            self._stop()

    def _write(self) -> None:
        self._written_s = time.monotonic()
        board = self._board
        board.night = replace(board.night, seen=time.time())
        try:
            keep_night(board.output, board.night)
            board.write()
        except OSError as error:
            # A disk that does not answer for a while ends no night; all is written again soon.
            _LOG.warning("the batch's page cannot be written: %s", in_words(error))

    def _collect(self) -> bool:
        """Note which jobs have ended; returns whether any has."""
        n_before = len(self._running)
        for entry, process, share in list(self._running):
            ended = process.ended()
            if ended is not None:
                self._running.remove((entry, process, share))
                self._note(entry, ended)
        return len(self._running) < n_before

    def _note(self, entry: Entry, ended: Ended) -> None:
        job, now = entry.job, time.time()
        entry.record = entry.record.end(ended.how, ended.why, now, ended.cpu_s)
        _keep(entry)
        last = entry.record.attempts[-1]
        entry.n_lost += ended.how == "lost"
        if ended.how == "done":
            entry.state, entry.why = "done", ""
            self._say(f"{job.name}: done in {lasted(now - last.begun)}")
        elif ended.how == "lost" and entry.n_lost <= self._batch.retries:
            entry.state, entry.why = "waiting", f"to be started again: {ended.why}"
            # After all others of its priority.
            self._board.entries.remove(entry)
            self._board.entries.append(entry)
            self._board.entries.sort(key=lambda other: -other.job.priority)
            self._say(f"{job.name}: lost ({ended.why}); it will be started again")
        else:
            entry.state, entry.why = "failed", ended.why
            self._say(f"{job.name}: failed: {ended.why}")

    def _start(self) -> bool:
        """Start what may be started; returns whether anything has changed."""
        board, waiting = self._board, self._board.of_state("waiting")
        reason = board.night.used_up(self._batch.night, board.night_used, time.time()) if waiting else ""
        changed = reason != board.no_more
        if reason and changed:
            self._say(f"{len(waiting)} will have to wait: {reason}")
        board.no_more = reason
        while not reason and waiting and len(self._running) < self._batch.cases_at_once:
            share = self._sharing.for_one_more([share for _, _, share in self._running], len(waiting))
            self._start_one(waiting.pop(0), share)
            changed = True
        return changed

    def _start_one(self, entry: Entry, share: Share) -> None:
        job = entry.job
        # What one case's data or folder do must not end the others' night.
        inputs = digest_of_job(job, self._store)
        entry.record = entry.record.begin(inputs, Attempt(time.time(), machine_share=share.of_machine))
        try:
            job.folder.mkdir(parents=True, exist_ok=True)
            _write_study(job.folder / STUDY, job.study)
            write_record(job.folder, entry.record)
            process = JobProcess(job, self._board.store, share.options)
        except OSError as error:
            self._note(entry, Ended("lost", in_words(error) or str(error), 0.0))
            return
        entry.state, entry.why = "running", ""
        self._running.append((entry, process, share))
        workers = f" with {share.n_worker} worker{'s' * (share.n_worker != 1)}" if share.n_worker else ""
        self._say(f"{job.name}: started{workers}")

    def _stop(self) -> None:
        """Ask all processes to end at once, and wait for each."""
        for _, process, _ in self._running:
            process.ask_to_end()
        limit_s = time.monotonic() + _END_S
        for entry, process, _ in self._running:
            ended = process.stop(limit_s)
            # One that had come to its end just before is done.
            how: How = "done" if ended.how == "done" else "stopped"
            entry.state, entry.why = (
                ("done", "") if how == "done" else ("waiting", "the batch was asked to end")
            )
            entry.record = entry.record.end(how, entry.why, time.time(), ended.cpu_s)
            if self._lease.is_held():
                _keep(entry)
        self._running.clear()


def _keep(entry: Entry) -> None:
    try:
        write_record(entry.job.folder, entry.record)
    except OSError as error:
        _LOG.warning("%s: what became of it cannot be written down: %s", entry.job.name, in_words(error))


def _write_study(path: Path, text: str) -> None:
    with whole_file(path) as aside:
        aside.write_text(
            "# Written by `nightbeam batch` from a protocol and a case of the batch file; change those.\n"
            + text,
            encoding="utf-8",
        )
