"""Memory of workers: what they have, what a run will need of it, and what to do where that is more.

Needs are projected before anything is computed. Rows that do not fit are streamed: loaded from the store whenever they
are asked for. Whatever cannot be streamed and does not fit ends the run with the numbers.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import ClusterError

if TYPE_CHECKING:
    from distributed import Client

BASE_BYTES = 320 << 20
"""A worker process that has imported all and loaded its kernels, before it has any data."""
_SHARE_OF_FREE = 0.9
"""Of what is free on a machine when a run begins, workers may use so much together."""
_SHARE_OF_LIMIT = 0.75
"""Of the limit that a worker of somebody's cluster has: Dask pauses a worker at 80 % of it."""
_CGROUPS = (
    # Version 2 of control groups, and version 1: folder, files of limit and use, name of the cache in memory.stat.
    ("0::", "/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    (
        ":memory:",
        "/sys/fs/cgroup/memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
)


@dataclass(frozen=True)
class Room:
    """Bytes of tiles that a worker may keep.

    Parameters
    ----------
    alone
        If those are all that it answers for.
    beside_streams
        If it also loads others, group by group, for every answer.
    """

    alone: int
    beside_streams: int


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes that one worker needs at most.

    Parameters
    ----------
    patient
        What it keeps of the patient.
    tasks
        Of every kind of task, what one of them needs, by a name for people.
    n_thread
        Tasks at a time.
    rows
        Resident tiles.
    rows_of_group
        Tiles of the largest group.
    loading, evaluating
        What loading rows and evaluating them needs in addition.
    room
        Tiles that a worker may keep; None for all. Where all fit it may keep more, because the rows of workers that
        leave go to the others.
    """

    patient: int
    tasks: Mapping[str, int]
    n_thread: int
    rows: int
    rows_of_group: int
    loading: int
    evaluating: int
    room: Room | None = None

    @property
    def peak(self) -> int:
        """Most that it needs at any time."""
        tasks = max(self.tasks.values()) * self.n_thread
        return BASE_BYTES + self.patient + max(tasks, self.rows + max(self.loading, self.evaluating))

    def streaming(self, limit: int) -> "MemoryNeed":
        """Return the need if only so many rows are resident that it stays below a limit.

        Raises
        ------
        ClusterError
            If it cannot, with the numbers.
        """
        # A group that is streamed is loaded by each thread beside what is resident.
        moving = self.rows_of_group * self.n_thread
        free = limit - BASE_BYTES - self.patient
        if self.peak <= limit:
            # What is needed beside the rows grows with them.
            share = 1.0 / (1.0 + max(self.loading, self.evaluating) / max(1, self.rows))
            alone = max(self.rows, int(free * share))
            return replace(self, room=Room(alone, max(0, int((free - moving) * share))))
        name, task = max(self.tasks.items(), key=lambda item: item[1])
        if BASE_BYTES + self.patient + task * self.n_thread > limit:
            raise ClusterError(
                f"{name} needs {gib(BASE_BYTES + self.patient + task * self.n_thread)} of memory in each worker "
                f"({gib(BASE_BYTES)} program, {gib(self.patient)} patient, {self.n_thread} × {gib(task)} task), and "
                f"a worker may use {gib(limit)}; use fewer --workers or --threads, or coarser dose grids"
            )
        alone = free - max(self.loading, self.evaluating)
        room = alone - moving
        if room < 0:
            raise ClusterError(
                f"the optimisation needs {gib(limit - room)} of memory in each worker, even if it streams its tiles "
                f"({gib(BASE_BYTES)} program, {gib(self.patient)} patient, {gib(moving)} tiles of the largest group, "
                f"{gib(max(self.loading, self.evaluating))} doses and loading), and a worker may use {gib(limit)}; "
                "use fewer --workers or --threads, a coarser grid_mm, or a smaller lateral_cutoff_mm"
            )
        return replace(self, rows=room, evaluating=self.evaluating + moving, room=Room(alone, room))


def worker_limit(client: "Client | None", n_worker: int, given: int | None) -> int:
    """Return the bytes that each worker may use.

    Parameters
    ----------
    client
        Of somebody's cluster; None for local workers.
    n_worker
        Local workers, which share this machine.
    given
        Bytes of each worker, if somebody has said so.
    """
    if given is not None:
        return given
    if client is None:
        return int(free_bytes() * _SHARE_OF_FREE) // n_worker
    workers = client.scheduler_info(n_workers=-1)["workers"]
    free = client.run(free_bytes)
    on_host = Counter(worker["host"] for worker in workers.values())
    shares = [int(free[address] * _SHARE_OF_FREE) // on_host[workers[address]["host"]] for address in free]
    limits = [int(w["memory_limit"] * _SHARE_OF_LIMIT) for w in workers.values() if w["memory_limit"]]
    return min([*shares, *limits])


def free_bytes() -> int:
    """Return what may still be used here: of the machine, and of the control groups that this process is in."""
    meminfo = Path("/proc/meminfo").read_text().splitlines()
    (free_kib,) = (int(line.split()[1]) for line in meminfo if line.startswith("MemAvailable:"))
    free = free_kib << 10
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        for mark, root, limit_file, use_file, cache in _CGROUPS:
            if mark in line:
                group = Path(root, line.split(":", 2)[2].lstrip("/"))
                # Every group above counts, too; containers do not show those outside of them.
                for folder in (group, *group.parents):
                    if folder.is_relative_to(root):
                        free = min(free, _free_of_group(folder, limit_file, use_file, cache, free))
    return free


def _free_of_group(folder: Path, limit_file: str, use_file: str, cache: str, unlimited: int) -> int:
    try:
        limit = (folder / limit_file).read_text().strip()
        used = int((folder / use_file).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except OSError:
        return unlimited
    return max(0, int(limit) - used + int(stat.get(cache, 0))) if limit.isdigit() else unlimited


def n_oom_kill() -> int:
    """Return how many processes of this machine its kernel has killed for want of memory, control groups included."""
    counts = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    return int(counts.get("oom_kill", 0))


def peak_bytes(client: "Client") -> int:
    """Return the most memory that any worker process has used since it started."""
    return max(client.run(_own_peak_bytes).values(), default=0)


def _own_peak_bytes() -> int:
    status = Path("/proc/self/status").read_text().splitlines()
    (peak_kib,) = (int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    return peak_kib << 10


def gib(n_byte: int) -> str:
    """Return bytes for people."""
    return f"{n_byte / (1 << 30):.2f} GiB"
