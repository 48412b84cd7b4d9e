"""A Dask worker inside of a job: it listens on the site's network, and can leave without losing what it computes."""

import asyncio
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from cluster.process import JOINED, LOOPBACK

SOON_S = 4.0
"""At SIGTERM, tasks that run may take so long to finish: SLURM kills what is left some seconds later."""
_FETCHED_S = 2.0
_LOOK_S = 0.05


def own_host(interface: str | None) -> str:
    """Return this machine's address on a network interface, or on the default route."""
    from distributed.utils import get_ip, get_ip_interface

    found: str = get_ip() if interface is None else get_ip_interface(interface)  # type: ignore[no-untyped-call]
    return found


def port_argument(ports: Sequence[int] | None) -> str | int:
    """Return a range of ports as Dask takes it; 0 for any."""
    return f"{ports[0]}:{ports[1] + 1}" if ports and ports[0] != ports[1] else (ports[0] if ports else 0)


async def work(
    say: Callable[[str], None], certificate: Path, scheduler: str, name: str, n_thread: int, host: str, port: str | int
) -> None:
    """Work until the scheduler is gone or this process is asked to leave.

    SIGUSR1 asks it to finish what it does, and to take nothing new; SIGTERM the same within `SOON_S`.
    """
    from distributed import Worker

    from cluster.security import security

    worker = Worker(
        scheduler,
        name=name,
        nthreads=n_thread,
        host=host,
        port=port,
        protocol="tls",
        security=security(certificate),
        dashboard_address=f"{LOOPBACK}:0",
        memory_limit=None,  # type: ignore[arg-type]
    )
    async with worker:
        leave = _Leave(worker)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, leave.begin, None)
        loop.add_signal_handler(signal.SIGTERM, leave.begin, SOON_S)
        say(f"{JOINED} {worker.address}")
        await worker.finished()  # type: ignore[no-untyped-call]


class _Leave:
    """How a worker leaves: it takes no new tasks, finishes, lets its results be fetched, and signs off."""

    def __init__(self, worker: "object") -> None:
        self._worker = worker
        self._limit_s: float | None = None
        self._leaving: asyncio.Task[None] | None = None

    def begin(self, patience_s: float | None) -> None:
        """Leave, with so much time for tasks that run; may be called again with less."""
        if patience_s is not None:
            self._limit_s = min(self._limit_s or float("inf"), time.monotonic() + patience_s)
        if self._leaving is None:
            self._leaving = asyncio.create_task(self._leave())

    async def _leave(self) -> None:
        from typing import Any

        from distributed.core import Status

        worker: Any = self._worker
        worker.status = Status.paused
        while worker.state.executing and not self._is_late():
            await asyncio.sleep(_LOOK_S)
        # A small result that nobody has fetched yet would be computed again.
        limit_s = time.monotonic() + _FETCHED_S
        while worker.data and time.monotonic() < limit_s and not self._is_late():
            await asyncio.sleep(_LOOK_S)
        with suppress(OSError, TimeoutError):
            # Told like this, the scheduler gives waiting tasks to others and suspects none of them.
            await asyncio.wait_for(
                worker.scheduler.unregister(
                    address=worker.address, expected=True, close=False, stimulus_id="worker-leaves"
                ),
                _FETCHED_S,
            )
        await worker.close(nanny=False, executor_wait=False, reason="its job ends")

    def _is_late(self) -> bool:
        return self._limit_s is not None and time.monotonic() > self._limit_s
