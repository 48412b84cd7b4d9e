"""A Dask worker inside of a job: it listens on the site's network, and can leave without losing what it computes."""

import asyncio
import random
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from cluster.process import JOINED, LOOPBACK
from engine.errors import ClusterError

SOON_S = 4.0
"""At SIGTERM, tasks that run may take so long to finish: SLURM kills what is left some seconds later."""
_FETCHED_S = 2.0
_LOOK_S = 0.05
_SIGN_S = 1.0


def own_host(interface: str | None) -> str:
    """Return this machine's address on a network interface, or on the default route.

    Raises
    ------
    ClusterError
        If there is no such interface, with those that there are.
    """
    if interface is None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
            # Nothing is sent: it only asks which way a packet would take. The address is reserved for documentation.
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        return LOOPBACK
    from distributed.utils import get_ip_interface

    try:
        return str(get_ip_interface(interface))  # type: ignore[no-untyped-call]
    except ValueError as error:
        raise ClusterError(f"{socket.gethostname()}: no network interface to use ({error})") from error


def free_port(host: str, ports: str) -> int:
    """Return a port of a range such as ``9000:9010`` on which nobody listens; 0, for any, if there is no range.

    Raises
    ------
    ClusterError
        If all are taken.
    """
    if not ports:
        return 0
    first, last = map(int, ports.split(":"))
    # Not always from the first: those who look at the same time are less in each other's way.
    numbers = list(range(first, last + 1))
    for number in random.sample(numbers, len(numbers)):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, number))
            return number
    raise ClusterError(
        f"all ports from {first} to {last} are taken on {socket.gethostname()}; allow more in ports"
    )


async def work(
    say: Callable[[str], None], certificate: Path, name: str, n_thread: int, host: str, ports: str
) -> None:
    """Work until the scheduler is gone or this process is asked to leave.

    SIGUSR1 asks it to finish what it does, and to take nothing new; SIGTERM the same within `SOON_S`.
    """
    from distributed import Worker

    from cluster.security import security

    scheduler = sys.stdin.readline().strip()
    worker = Worker(
        scheduler,
        name=name,
        nthreads=n_thread,
        host=host,
        port=free_port(host, ports),
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
        signs = asyncio.create_task(_give_signs_of_life(say))
        await worker.finished()  # type: ignore[no-untyped-call]
        signs.cancel()


async def _give_signs_of_life(say: Callable[[str], None]) -> None:
    while True:
        say("")
        await asyncio.sleep(_SIGN_S)


class _Leave:
    """How a worker leaves: it takes no new tasks, finishes, lets its results be fetched, and signs off."""

    def __init__(self, worker: Any) -> None:
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
        from distributed.core import Status

        worker = self._worker
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
