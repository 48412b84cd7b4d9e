"""What planning process and worker jobs tell each other through files of the run folder.

Every file is written aside and renamed, so that a reader sees all of it or none, and has one writer. On a network file
system a reader may see it some seconds late.
"""

import json
import os
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from cluster.ends import WorkerEnd
from cluster.slurm.json_file import read_json, write_json

ORDERS = "orders.json"
SCHEDULER = "scheduler.json"
ENDS = "ends"
JOBS = "jobs"
LEAVE = "leave"


@dataclass(frozen=True)
class Orders:
    """What the keeper of every worker job has to do.

    Parameters
    ----------
    n_process, n_thread
        Worker processes, and threads of each.
    limit_bytes
        Memory at which a worker is killed.
    walltime_s
        Of the job.
    imports
        Modules that workers import while they start.
    interface, ports
        Where workers listen; None for the default route, and for any port.
    scratch
        Folder on the node, if there is one.
    """

    n_process: int
    n_thread: int
    limit_bytes: int
    walltime_s: int
    imports: Sequence[str]
    interface: str | None
    ports: Sequence[int] | None
    scratch: str | None


@dataclass(frozen=True)
class JobNote:
    """What a keeper says of its job.

    Parameters
    ----------
    job, host
        Number of the job, and where it runs.
    begin_s
        When its keeper began, in seconds since 1970. The file's own time is when it was last seen alive.
    workers
        Addresses of all workers that ever joined from it.
    leaving
        Why it leaves by its own will; empty before.
    """

    job: str
    host: str
    begin_s: float
    workers: Sequence[str] = ()
    leaving: str = ""


def write_orders(folder: Path, orders: Orders) -> None:
    """Write the orders for all keepers of a run."""
    write_json(folder / ORDERS, asdict(orders))


def read_orders(folder: Path) -> Orders:
    """Return the orders for the keepers of a run."""
    return Orders(**json.loads((folder / ORDERS).read_text()))


def write_scheduler(folder: Path, address: str) -> None:
    """Say where the scheduler of a run is now."""
    write_json(folder / SCHEDULER, {"address": address})


def read_scheduler(folder: Path) -> str | None:
    """Return where the scheduler of a run is now; None if the run has ended, or cannot be read."""
    found = read_json(folder / SCHEDULER)
    return None if found is None else str(found["address"])


def write_end(folder: Path, end: WorkerEnd) -> None:
    """Note why a worker ended."""
    write_json(folder / ENDS / f"{uuid.uuid4().hex}.json", asdict(end))


def read_ends(folder: Path) -> list[WorkerEnd]:
    """Return why workers ended, of all that are noted."""
    found = [read_json(path) for path in (folder / ENDS).glob("*.json")]
    return [WorkerEnd(**values) for values in found if values is not None]


def write_job(folder: Path, note: JobNote) -> None:
    """Note what is known of a job inside of it."""
    write_json(folder / JOBS / f"{note.job}.json", asdict(note))


def touch_job(folder: Path, job: str) -> None:
    """Note that a job is alive."""
    with suppress(OSError):
        os.utime(folder / JOBS / f"{job}.json")


def read_jobs(folder: Path) -> dict[str, tuple[JobNote, float]]:
    """Return what keepers said of their jobs, with when each was last seen alive, by the number of the job."""
    notes = {}
    for path in (folder / JOBS).glob("*.json"):
        found = read_job(folder, path.stem)
        if found is not None:
            notes[path.stem] = found
    return notes


def read_job(folder: Path, job: str) -> tuple[JobNote, float] | None:
    """Return what a keeper said of its job, and when it was last seen alive; None if it never said anything."""
    path = folder / JOBS / f"{job}.json"
    values = read_json(path)
    try:
        return None if values is None else (JobNote(**values), path.stat().st_mtime)
    except FileNotFoundError:
        return None


def ask_to_leave(folder: Path, job: str) -> None:
    """Ask a keeper to leave when what its workers do is done."""
    write_json(folder / LEAVE / f"{job}.json", {})


def is_asked_to_leave(folder: Path, job: str) -> bool:
    """Return whether a keeper was asked to leave."""
    return read_json(folder / LEAVE / f"{job}.json") is not None


def make_folders(folder: Path) -> None:
    """Make the folders that notes go to."""
    for name in (ENDS, JOBS, LEAVE):
        (folder / name).mkdir(exist_ok=True)
