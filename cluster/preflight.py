"""What workers are like: whether all have the same code, libraries and bits, and what each of them has to work with."""

import hashlib
import importlib.util
import os
import platform
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from distributed import Client, as_completed

from cluster.known_job import known_bits
from cluster.memory import BASE_BYTES, free_bytes
from cluster.workers import known_workers, lost_scheduler_told
from engine.errors import ClusterError

PACKAGES = ("engine", "storage", "cluster", "flows")
LIBRARIES = (
    "numpy", "numba", "llvmlite", "scipy", "zarr", "numcodecs", "crc32c",
    "dask", "distributed", "cloudpickle", "msgpack",
)  # fmt: skip
"""Those whose version goes into results, or into what processes say to each other."""
JOB_S = 300.0
"""How long the known job may take: kernels are compiled when they are first used."""
_TELL_TIME = 3
_LEAST_SCRATCH_BYTES = 1 << 30
_LEAST_MEMORY_BYTES = BASE_BYTES + (256 << 20)
_MOST_CLOCK_S = 30.0
_PROBE_BYTES = 1 << 20


@dataclass(frozen=True)
class Seen:
    """What a process is like.

    Parameters
    ----------
    host, interface
        Its machine, and the network interface that it listens on.
    code, folder
        Digest of nightbeam's packages, and where they are.
    python, libraries
        Versions.
    n_core
        Cores that it may use.
    free_bytes
        Memory that is free.
    scratch, scratch_bytes, scratch_trouble
        Folder for temporary files, what is free there, and why it cannot be written, if so.
    processor
        Type of processor.
    """

    host: str
    interface: str
    code: str
    folder: str
    python: str
    libraries: Mapping[str, str]
    n_core: int
    free_bytes: int
    scratch: str
    scratch_bytes: int
    scratch_trouble: str
    processor: str


@dataclass(frozen=True)
class Worker:
    """What was found out about one worker.

    Parameters
    ----------
    address
        Of the worker.
    n_thread, limit_bytes
        Its threads, and its limit of memory, if it has one.
    seen
        What it says of itself; None if it cannot.
    clock_s
        How far its clock is ahead of ours.
    bits, job_s
        Digest of the known job, and how long that took; empty if it failed.
    trouble
        Why something could not be found out.
    """

    address: str
    n_thread: int
    limit_bytes: int | None
    seen: Seen | None
    clock_s: float
    bits: str
    job_s: float
    trouble: str

    @property
    def name(self) -> str:
        """Host and port, for people."""
        where = self.address.rpartition("://")[2]
        return where if self.seen is None else f"{self.seen.host} ({where})"


@cache
def digest_of_packages() -> str:
    """Return the digest of all modules and tables of nightbeam that this process would import."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        folder = _folder_of(package)
        if folder is None:
            digest.update(f"no {package}".encode())
            continue
        for file in sorted(found for found in folder.rglob("*") if found.suffix in (".py", ".csv", ".toml")):
            content = file.read_bytes()
            digest.update(f"{package}/{file.relative_to(folder)} {len(content)} ".encode() + content)
    return digest.hexdigest()[:16]


def see(address: str = "") -> Seen:
    """Look at this process.

    Parameters
    ----------
    address
        What it listens on.
    """
    scratch = Path(tempfile.gettempdir())
    trouble, n_free = "", 0
    try:
        n_free = shutil.disk_usage(scratch).free
        with tempfile.NamedTemporaryFile(dir=scratch) as probe:
            probe.write(bytes(_PROBE_BYTES))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        trouble = error.strerror or str(error)
    return Seen(
        socket.gethostname(), _interface_of(address), digest_of_packages(), str(_folder_of("engine") or "nowhere"),
        platform.python_version(), {name: _version(name) for name in LIBRARIES}, len(os.sched_getaffinity(0)),
        free_bytes(), str(scratch), n_free, trouble, processor(),
    )  # fmt: skip


def _see_worker(dask_worker: Any) -> Seen:
    return see(dask_worker.address)


def processor() -> str:
    """Return the type of this machine's processor."""
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def look_at_workers(client: Client, advance: Callable[[], None] = lambda: None) -> list[Worker]:
    """Look at all workers, and have each of them do the known job.

    Parameters
    ----------
    client
        The cluster.
    advance
        Called after each worker.

    Raises
    ------
    SchedulerLostError
        If the scheduler is gone.
    """
    with lost_scheduler_told(client):
        threads = known_workers(client)
        info = client.scheduler_info(n_workers=-1)["workers"]
        seen = client.run(_see_worker, on_error="return")
        clocks = {address: _clock_ahead_s(client, address) for address in threads}
        done = do_on_each(client, threads, known_bits, JOB_S, advance)
    workers = []
    for address, n_thread in threads.items():
        told = seen.get(address, "it left in the meantime")
        bits, job_s, trouble = done[address]
        if not isinstance(told, Seen):
            trouble = f"it cannot tell what it is like ({_words(told)})"
        limit = info.get(address, {}).get("memory_limit") or None
        itself = told if isinstance(told, Seen) else None
        ahead_s = clocks[address]
        workers.append(Worker(address, n_thread, limit, itself, ahead_s, str(bits or ""), job_s, trouble))
    return workers


def do_on_each(
    client: Client,
    workers: Sequence[str] | Mapping[str, int],
    work: Callable[..., Any],
    limit_s: float,
    advance: Callable[[], None] = lambda: None,
    *arguments: Any,
) -> dict[str, tuple[Any, float, str]]:
    """Have every worker do one thing at the same time; returns result, seconds and what went wrong, by address."""
    begin_s = time.monotonic()
    futures = {
        client.submit(work, *arguments, workers=[address], allow_other_workers=False, pure=False): address
        for address in workers
    }
    silent = (None, limit_s, f"it did not answer within {limit_s:g} s")
    found: dict[str, tuple[Any, float, str]] = dict.fromkeys(workers, silent)
    try:
        for future in as_completed(list(futures), timeout=limit_s):  # type: ignore[no-untyped-call]
            address, took_s = futures[future], time.monotonic() - begin_s
            if future.status == "finished":
                found[address] = (future.result(), took_s, "")
            else:
                found[address] = (None, took_s, _words(future.exception()))
            advance()
    except TimeoutError:
        pass
    finally:
        client.cancel(list(futures), force=True)  # type: ignore[no-untyped-call]
    return found


def complaints(workers: Sequence[Worker], here: Seen) -> list[str]:
    """Return what is wrong, one sentence each, with what to do.

    Parameters
    ----------
    workers
        From `look_at_workers`.
    here
        The planning process.
    """
    wrong = other_code(workers, here)
    for worker in workers:
        seen = worker.seen
        if seen is None:
            continue
        if worker.n_thread > seen.n_core:
            wrong.append(
                f"worker {worker.name} has {worker.n_thread} threads but may use {seen.n_core} cores; give its job more "
                "cores, or start it with fewer threads"
            )
        usable = min(seen.free_bytes, worker.limit_bytes or seen.free_bytes)
        if usable < _LEAST_MEMORY_BYTES:
            wrong.append(
                f"worker {worker.name} has {_gib(usable)} of memory left, and needs {_gib(_LEAST_MEMORY_BYTES)} at the "
                "very least; give it more, or end what else uses it"
            )
        if seen.scratch_trouble:
            wrong.append(
                f"worker {worker.name} cannot write to its scratch folder {seen.scratch} ({seen.scratch_trouble}); name "
                "another one (scratch in the SLURM file, or TMPDIR)"
            )
        elif seen.scratch_bytes < _LEAST_SCRATCH_BYTES:
            wrong.append(
                f"worker {worker.name} has {_gib(seen.scratch_bytes)} free in its scratch folder {seen.scratch}; free some, "
                "or name another one (scratch in the SLURM file, or TMPDIR)"
            )
        if abs(worker.clock_s) > _MOST_CLOCK_S:
            wrong.append(
                f"the clock of worker {worker.name} is {abs(worker.clock_s):.0f} s "
                f"{'ahead of' if worker.clock_s > 0.0 else 'behind'} this machine's; have both set by NTP"
            )
        if worker.trouble:
            wrong.append(
                f"worker {worker.name} could not do the known job: {worker.trouble}; look at its log"
            )
    return wrong + other_bits(workers)


def other_code(workers: Sequence[Worker], here: Seen) -> list[str]:
    """Return which workers have other code or libraries than the planning process."""
    wrong = []
    for worker in workers:
        seen = worker.seen
        if seen is None:
            wrong.append(
                f"worker {worker.name} does not have this nightbeam: {worker.trouble}; start it with the same Python "
                "environment as the planning process"
            )
            continue
        if seen.code != here.code:
            wrong.append(
                f"worker {worker.name} has other code ({seen.code} in {seen.folder}; here {here.code} in {here.folder}); "
                "start it from the same installation"
            )
        ours = {"Python": here.python, **here.libraries}
        theirs = {"Python": seen.python, **seen.libraries}
        differing = [
            f"{name} {theirs[name]} (here {ours[name]})" for name in ours if theirs.get(name) != ours[name]
        ]
        if differing:
            wrong.append(
                f"worker {worker.name} has other versions: {', '.join(differing)}; install the same requirements.lock there"
            )
    return wrong


def other_bits(workers: Sequence[Worker]) -> list[str]:
    """Return whether the known job has given different bits, and on which processors."""
    by_bits: dict[str, list[Worker]] = {}
    for worker in workers:
        if worker.bits:
            by_bits.setdefault(worker.bits, []).append(worker)
    if len(by_bits) < 2:
        return []
    groups = [
        f"{bits} on {', '.join(sorted({w.seen.processor if w.seen else '?' for w in group}))} "
        f"({', '.join(w.name for w in group)})"
        for bits, group in sorted(by_bits.items(), key=lambda item: -len(item[1]))
    ]
    return [
        f"the known job has different bits: {'; '.join(groups)}; the same answer to the last bit needs one kind of "
        'processor: have SLURM choose it (directives = ["--constraint=..."])'
    ]


def require_same_code(client: Client) -> list[str]:
    """Compare code, versions and bits of all workers before a run, and return what is worth a notice.

    Raises
    ------
    ClusterError
        If workers have other code or libraries: what they compute would be kept under this program's name.
    """
    workers = look_at_workers(client)
    wrong = other_code(workers, see())
    if wrong:
        raise ClusterError("; ".join(wrong))
    return other_bits(workers)


def _clock_ahead_s(client: Client, address: str) -> float:
    """Return how far a worker's clock is ahead: the best of some exchanges, right to half their duration."""
    found = []
    for _ in range(_TELL_TIME):
        begin_s = time.time()
        told = client.run(time.time, workers=[address], on_error="return").get(address)
        end_s = time.time()
        if isinstance(told, float):
            found.append((end_s - begin_s, told - (begin_s + end_s) / 2.0))
    return min(found)[1] if found else 0.0


def _interface_of(address: str) -> str:
    """Return the name of the network interface that has an address."""
    import psutil  # type: ignore[import-untyped]  # Dask brings it

    host = address.rpartition("://")[2].rpartition(":")[0].strip("[]")
    for name, addresses in psutil.net_if_addrs().items():
        if host and any(one.address == host for one in addresses):
            return str(name)
    return ""


def _folder_of(package: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _words(error: Any) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if isinstance(error, BaseException) else text


def _gib(n_byte: int) -> str:
    return f"{n_byte / (1 << 30):.2f} GiB"
