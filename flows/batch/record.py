"""``job.json``: what became of one job, attempt by attempt; written whole at each change."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from storage.whole_file import whole_file

NAME = "job.json"
_LONGEST = 50
How = Literal["running", "done", "failed", "lost", "stopped"]
"""Failed: there is something to mend. Lost: killed, or without a cluster; it may go better next time."""


@dataclass(frozen=True)
class Attempt:
    """One process that worked on a job.

    Parameters
    ----------
    begun, ended
        When, in s since 1970.
    how, why
        How it ended, and why, in one sentence.
    machine_share
        Of this machine's workers, what part it had; 0 if it computed elsewhere.
    cpu_s
        CPU time of the process and its children, as far as known.
    """

    begun: float
    ended: float | None = None
    how: How = "running"
    why: str = ""
    machine_share: float = 0.0
    cpu_s: float = 0.0


@dataclass(frozen=True)
class Record:
    """All attempts at a job.

    Parameters
    ----------
    inputs
        Digest of what the last attempt was made from.
    attempts
        From the first to the last.
    """

    inputs: str = ""
    attempts: tuple[Attempt, ...] = ()

    @property
    def last(self) -> Attempt | None:
        """The last attempt."""
        return self.attempts[-1] if self.attempts else None

    def begin(self, inputs: str, attempt: Attempt) -> "Record":
        """Return the record with one more attempt."""
        return Record(inputs, (*self.attempts, attempt)[-_LONGEST:])

    def end(self, how: How, why: str, ended: float, cpu_s: float = 0.0) -> "Record":
        """Return the record with its last attempt ended."""
        last = replace(self.attempts[-1], how=how, why=why, ended=ended, cpu_s=cpu_s)
        return replace(self, attempts=(*self.attempts[:-1], last))


def read_record(folder: Path) -> Record:
    """Return the record of the job with this folder; an empty one if there is none, or one that cannot be read."""
    try:
        values = json.loads((folder / NAME).read_text(encoding="utf-8"))
        return Record(values["inputs"], tuple(Attempt(**attempt) for attempt in values["attempts"]))
    except (OSError, ValueError, TypeError, KeyError):
        return Record()


def write_record(folder: Path, record: Record) -> None:
    """Keep the record of a job."""
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / NAME) as aside:
        aside.write_text(json.dumps(asdict(record), indent=1) + "\n", encoding="utf-8")
