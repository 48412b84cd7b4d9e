"""Looks at all workers of a cluster, and has each of them do the known job."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from distributed import Client, as_completed

from cluster.known_job import known_bits
from cluster.seen import Seen, digest_of_packages, see
from cluster.workers import known_workers, lost_scheduler_told

JOB_S = 300.0
"""How long the known job may take: kernels are compiled when they are first used."""
_TELL_TIME = 3


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


def _see_worker(dask_worker: Any) -> Seen:
    return see(dask_worker.address)


def look_at_workers(
    client: Client, advance: Callable[[], None] = lambda: None, clocks: bool = True
) -> list[Worker]:
    """Look at all workers, and have each of them do the known job.

    Parameters
    ----------
    client
        The cluster.
    advance
        Called after each worker.
    clocks
        Whether to compare clocks, which takes a while where there are hundreds of workers.

    Raises
    ------
    SchedulerLostError
        If the scheduler is gone.
    """
    with lost_scheduler_told(client):
        threads = known_workers(client)
        info = client.scheduler_info(n_workers=-1)["workers"]
        seen = client.run(_see_worker, on_error="return")
        ahead_s = {address: _clock_ahead_s(client, address) if clocks else 0.0 for address in threads}
        # Those that have other code, or none, are told of that: what they would compute means nothing.
        able = [a for a, told in seen.items() if isinstance(told, Seen) and told.code == digest_of_packages()]
        done = do_on_each(client, able, known_bits, JOB_S, advance)
        staying = known_workers(client)
    workers = []
    for address, n_thread in threads.items():
        told = seen.get(address)
        if address not in staying or told is None or isinstance(told, OSError):
            # It left in the meantime, as workers of jobs may at any time: nothing is known of it, nor wrong with it.
            continue
        bits, job_s, trouble = done.get(address, (None, 0.0, ""))
        if not isinstance(told, Seen):
            trouble = _words(told)
        limit = info.get(address, {}).get("memory_limit") or None
        itself = told if isinstance(told, Seen) else None
        workers.append(
            Worker(address, n_thread, limit, itself, ahead_s[address], str(bits or ""), job_s, trouble)
        )
    return workers


def do_on_each(
    client: Client,
    workers: Sequence[str],
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


def _words(error: Any) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if isinstance(error, BaseException) else text
