"""Memory of workers: what they have, what a run will need of it, and what to do where that is more.

Needs are projected before anything is computed. Rows that do not fit are streamed: loaded from the store whenever they
are asked for. Whatever cannot be streamed and does not fit ends the run with the numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from distributed import Client

from engine.errors import ClusterError

BASE_BYTES = 290 << 20
"""A worker process that has imported all and loaded its kernels, before it has any data."""
_SHARE_OF_FREE = 0.9
"""Of what is free on this machine when a run begins, local workers may use so much together."""
_CGROUP_FILES = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


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
        Bytes of tiles that a worker may keep, where they are streamed; None where all stay.
    """

    patient: int
    tasks: Mapping[str, int]
    n_thread: int
    rows: int
    rows_of_group: int
    loading: int
    evaluating: int
    room: int | None = None

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
        if self.peak <= limit:
            return self
        name, task = max(self.tasks.items(), key=lambda item: item[1])
        if BASE_BYTES + self.patient + task * self.n_thread > limit:
            raise ClusterError(
                f"{name} needs {gib(BASE_BYTES + self.patient + task * self.n_thread)} of memory in each worker "
                f"({gib(BASE_BYTES)} program, {gib(self.patient)} patient, {self.n_thread} × {gib(task)} task), and "
                f"a worker may use {gib(limit)}; use fewer --workers or --threads, or coarser dose grids"
            )
        # A group that is streamed is loaded by each thread beside what is resident.
        moving = self.rows_of_group * self.n_thread
        room = limit - BASE_BYTES - self.patient - max(self.loading, self.evaluating) - moving
        if room < 0:
            raise ClusterError(
                f"the optimisation needs {gib(limit - room)} of memory in each worker, even if it streams its tiles "
                f"({gib(BASE_BYTES)} program, {gib(self.patient)} patient, {gib(moving)} tiles of the largest group, "
                f"{gib(max(self.loading, self.evaluating))} doses and loading), and a worker may use {gib(limit)}; "
                "use fewer --workers or --threads, a coarser grid_mm, or a smaller lateral_cutoff_mm"
            )
        return replace(self, rows=room, evaluating=self.evaluating + moving, room=room)


def worker_limit(client: Client | None, n_worker: int, given: int | None) -> int:
    """Return the bytes that each worker may use.

    Parameters
    ----------
    client
        Of a cluster whose workers say themselves what they may use; None for local workers.
    n_worker
        Local workers, which share this machine.
    given
        Bytes of each worker, if somebody has said so.
    """
    if given is not None:
        return given
    if client is not None:
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        limits = [int(worker["memory_limit"]) for worker in workers if worker["memory_limit"]]
        if limits:
            return min(limits)
    return int(_free_bytes() * _SHARE_OF_FREE) // n_worker


def _free_bytes() -> int:
    """Return what this process and its children may still use: of the machine, and of the group it is held in."""
    meminfo = Path("/proc/meminfo").read_text().splitlines()
    (free_kib,) = (int(line.split()[1]) for line in meminfo if line.startswith("MemAvailable:"))
    free = free_kib << 10
    for file in map(Path, _CGROUP_FILES):
        if file.exists() and file.read_text().strip().isdigit():
            free = min(free, int(file.read_text()))
    return free


def peak_bytes(client: Client) -> int:
    """Return the most memory that any worker process has used since it started."""
    return max(client.run(_own_peak_bytes).values(), default=0)


def _own_peak_bytes() -> int:
    status = Path("/proc/self/status").read_text().splitlines()
    (peak_kib,) = (int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    return peak_kib << 10


def gib(n_byte: int) -> str:
    """Return bytes for people."""
    return f"{n_byte / (1 << 30):.2f} GiB"
