"""What jobs have used, counted here, as many sites keep no accounts: one line of JSON for each job."""

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from cluster.slurm.commands import Job

USAGE = "usage.jsonl"
How = Literal["completed", "walltime", "preempted", "cancelled", "lost", "failed"]
_HOW: dict[str, How] = {
    "COMPLETED": "completed",
    "TIMEOUT": "walltime",
    "PREEMPTED": "preempted",
    "CANCELLED": "cancelled",
    "NODE_FAIL": "lost",
    "BOOT_FAIL": "lost",
}


@dataclass(frozen=True)
class Used:
    """One job that ran.

    Parameters
    ----------
    job, host
        Its number, and where it ran.
    cores
        Cores that it had.
    begin, end
        In seconds since 1970.
    how
        How it ended.
    """

    job: str
    host: str
    cores: int
    begin: float
    end: float
    how: How


def used(job: Job, now_s: float, how: How | None = None) -> Used | None:
    """Return what a job used; None if it never ran.

    Parameters
    ----------
    job
        As it was last listed.
    now_s
        When it is over, where SLURM does not say it.
    how
        How it ended, where that is known better than from its state.
    """
    if job.begin_s is None or not job.host:
        return None
    end_s = job.end_s if job.is_over and job.end_s is not None else now_s
    return Used(
        job.id, job.host, job.n_core, job.begin_s, max(end_s, job.begin_s), how or _HOW.get(job.state, "failed")
    )  # fmt: skip


def append_usage(file: Path, lines: Iterable[Used]) -> None:
    """Add lines to a file; several processes may do so at the same time."""
    text = "".join(json.dumps(asdict(line)) + "\n" for line in lines)
    if text:
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)


def read_usage(file: Path) -> list[Used]:
    """Return the lines of a file, but for those that were torn by a full disk; none if there is no such file."""
    if not file.exists():
        return []
    lines = []
    for line in file.read_text().splitlines():
        with suppress(ValueError, TypeError):
            lines.append(Used(**json.loads(line)))
    return lines
