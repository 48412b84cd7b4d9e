"""What a batch knows of its jobs while it works: who waits, runs, is done or has failed; told as page and numbers."""

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flows.batch.goals import read_goals
from flows.batch.inputs import digest_of_job
from flows.batch.jobs import Job
from flows.batch.night import Night
from flows.batch.page import BatchSummary, JobRow, State, write_page
from flows.batch.process import command_of
from flows.batch.record import Record, read_record, write_record
from flows.batch.usage import Usage, usage_of
from flows.progress_file import Progress, read_progress
from storage.holder import this_process
from storage.store import Store


@dataclass
class Entry:
    """One job, and what became of it so far."""

    job: Job
    record: Record
    state: State
    why: str = ""
    n_lost: int = 0
    """How often it was lost since the batch was started."""


@dataclass
class Board:
    """All jobs.

    Parameters
    ----------
    title
        Name of the batch.
    output
        Folder of its results.
    store
        The store, as on a command line.
    by_hand
        Options of a command that works on one job alone.
    retry_all
        The command that works on all that is not done.
    night
        The night that it is.
    entries
        All jobs, in the order of their work.
    """

    title: str
    output: Path
    store: str
    by_hand: Sequence[str]
    retry_all: str
    night: Night
    entries: list[Entry]
    no_more: str = ""
    """Why no case is started any more."""
    night_used: Usage = field(default_factory=Usage)

    def of_state(self, state: State) -> list[Entry]:
        """Return the entries with a state."""
        return [entry for entry in self.entries if entry.state == state]

    def write(self, state: str = "running") -> BatchSummary:
        """Write page and numbers as things are now, and count what was used."""
        now = time.time()
        process = this_process(now)
        rows, total, night_used = [], Usage(), Usage()
        for entry in self.entries:
            folder, attempts = entry.job.folder, entry.record.attempts
            used = usage_of(folder, attempts, 0.0, now)
            total += used
            night_used += usage_of(folder, attempts, self.night.begun, now)
            rows.append(self._row(entry, used))
        self.night_used = night_used
        summary = BatchSummary.model_validate(
            {
                "title": self.title,
                "what": self.entries[0].job.what,
                "state": state,
                "begun": self.night.begun,
                "ended": None if state == "running" else now,
                "updated": now,
                "stop_starting": self.night.stop_starting,
                "no_more": self.no_more,
                "host": process.host,
                "machine": process.machine,
                "pid": process.pid,
                "started": process.started,
                "night_node_hours": night_used.node_hours,
                "night_core_hours": night_used.core_hours,
                "node_hours": total.node_hours,
                "core_hours": total.core_hours,
                "retry_all": self.retry_all,
                "rows": rows,
            }
        )
        write_page(summary, self.output)
        return summary

    def _row(self, entry: Entry, used: Usage) -> JobRow:
        job, last = entry.job, entry.record.last

        def link(path: Path) -> str | None:
            return str(path.relative_to(self.output)) if path.exists() else None

        is_done = entry.state == "done"
        return JobRow(
            case=job.case,
            protocol=job.protocol,
            state=entry.state,
            why=entry.why or (self.no_more if entry.state == "waiting" else ""),
            stage=stage_in_words(read_progress(job.folder)) if entry.state == "running" else "",
            n_attempt=len(entry.record.attempts),
            goals=read_goals(job.numbers) if is_done else None,
            begun=last.begun if last else None,
            ended=last.ended if last else None,
            node_hours=used.node_hours,
            core_hours=used.core_hours,
            report=link(job.page) if is_done else None,
            pdf=link(job.page.with_suffix(".pdf")) if is_done else None,
            log=link(job.folder / "nightbeam.log"),
            folder=str(job.folder.relative_to(self.output)),
            retry=shlex.join(command_of(job, self.store, self.by_hand)),
        )


def take_stock(jobs: Sequence[Job], store: Store) -> list[Entry]:
    """Return every job with what earlier nights made of it: done ones stay so while nothing they are made from changes.

    One that ran when its batch was killed is lost; what it had computed is in the store.
    """
    entries = []
    for job in jobs:
        record = read_record(job.folder)
        last = record.last
        if last is not None and last.how == "running":
            found = read_progress(job.folder)
            seen = found.updated if found is not None and found.begun >= last.begun else last.begun
            record = record.end("lost", "the batch was ended while this was running", max(seen, last.begun))
            write_record(job.folder, record)
        entry = Entry(job, record, "waiting")
        if last is not None and last.how == "done":
            if not (job.page.exists() and job.numbers.exists()):
                entry.why = "its report is no longer there"
            elif not record.inputs or record.inputs != digest_of_job(job, store):
                entry.why = "its study, its case or the program has changed since it was done"
            else:
                entry.state = "done"
        entries.append(entry)
    return entries


def stage_in_words(found: Progress | None) -> str:
    """Return how far a run is, for people."""
    if found is None:
        return "starting"
    if found.total is None:
        return found.stage
    return f"{found.stage}: {found.done} of {found.total} {found.unit}".strip()
