"""Open a cluster: local processes, or a scheduler that already runs."""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import dask
from distributed import Client, LocalCluster
from distributed.comm.core import connect

from engine.errors import ClusterError

CONNECT_S = 20.0
"""How long a scheduler may take to answer."""
_TRIM_BYTES = 1 << 32
"""Free memory that a worker may keep."""


@contextmanager
def open_cluster(where: str, n_worker: int | None) -> Iterator[Client]:
    """Start or join a cluster and yield a Dask client; what was started is stopped again.

    Parameters
    ----------
    where
        ``local``, or the address of a scheduler such as ``tcp://host:8786``.
    n_worker
        Worker processes of a local cluster; one a core if None.

    Raises
    ------
    ClusterError
        If the scheduler cannot be reached, or has no workers.
    """
    # Prefect turns the logging of everything on; the chatter of processes that come and go helps nobody.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    if where == "local":
        # Dask has workers give every freed 64 KiB back to the system, at once; our arrays of some MiB come and go, and
        # the page faults cost more system time than the kernels (docs/benchmarks.md).
        dask.config.set({"distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": _TRIM_BYTES})
        with ExitStack() as stack:
            with _deaf_children():
                cluster = LocalCluster(  # type: ignore[no-untyped-call]
                    n_workers=n_worker or len(os.sched_getaffinity(0)),
                    threads_per_worker=1,
                    host="127.0.0.1",
                    dashboard_address="127.0.0.1:0",
                    memory_limit=None,
                    silence_logs=50,
                    # Attempts are counted by `run_tasks`, which knows the task; the scheduler adds none of its own.
                    scheduler_kwargs={"allowed_failures": 0},
                )
            stack.enter_context(cluster)
            yield stack.enter_context(Client(cluster))  # type: ignore[no-untyped-call]
        return
    try:
        # A thread of its own, because the caller may run inside an event loop.
        with ThreadPoolExecutor(1) as aside:
            aside.submit(asyncio.run, _shake_hands(where)).result()
        client = Client(where, timeout=CONNECT_S)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"no Dask scheduler answers at {where} ({str(error) or type(error).__name__}); check the address"
        ) from error
    with client:
        if not client.scheduler_info()["workers"]:
            raise ClusterError(f"the scheduler at {where} has no workers; start some and try again")
        yield client


@contextmanager
def _deaf_children() -> Iterator[None]:
    """Have processes that are started meanwhile ignore Ctrl-C: it is for their parent, which stops them in order."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


async def _shake_hands(where: str) -> None:
    """Connect once under a limit: `Client` itself waits without end for a peer that takes connections and is silent."""
    async with asyncio.timeout(CONNECT_S):
        comm = await connect(where, timeout=CONNECT_S)  # type: ignore[no-untyped-call]
        comm.abort()
