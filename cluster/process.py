"""What the processes of a local cluster run: ``python -m cluster.process scheduler|worker PARENT CERTIFICATE ...``.

The scheduler says its address on standard output. A worker imports what its tasks will need, reads the scheduler's
address from standard input, and says that it has joined, and at which address. Both end with their parent, whatever
happens to it. They speak TLS, and only with who holds the certificate; of their small web servers no page is left.
"""

import asyncio
import ctypes
import importlib
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

_PR_SET_PDEATHSIG = 1
LOOPBACK = "127.0.0.1"
JOINED = "joined"
"""What a worker says when it is part of the cluster; its address follows."""
_CONFIG: dict[str, list[str]] = {
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}


def die_with(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends.

    Parameters
    ----------
    parent
        Process id of the parent: if it is gone already, this process ends here.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


def _take_stdout() -> Callable[[str], None]:
    """Return a way to say a line to the parent; whatever else is printed goes to standard error."""
    parent = os.dup(1)
    os.dup2(2, 1)

    def say(line: str) -> None:
        os.write(parent, f"{line}\n".encode())

    return say


async def _schedule(say: Callable[[str], None], certificate: Path) -> None:
    from distributed import Scheduler

    from cluster.security import security

    # Attempts are counted by `cluster.submit`, which knows the task; the scheduler adds none of its own.
    scheduler = Scheduler(
        host=LOOPBACK,
        port=0,
        protocol="tls",
        security=security(certificate),
        dashboard_address=f"{LOOPBACK}:0",
        allowed_failures=0,
    )
    async with scheduler:
        say(scheduler.address)
        await scheduler.finished()  # type: ignore[no-untyped-call]


async def _work(say: Callable[[str], None], certificate: Path, name: str, n_thread: int) -> None:
    from distributed import Worker

    from cluster.security import security

    address = sys.stdin.readline().strip()
    worker = Worker(
        address,
        name=name,
        nthreads=n_thread,
        host=LOOPBACK,
        protocol="tls",
        security=security(certificate),
        dashboard_address=f"{LOOPBACK}:0",
        memory_limit=None,  # type: ignore[arg-type]
    )
    async with worker:
        say(f"{JOINED} {worker.address}")
        await worker.finished()  # type: ignore[no-untyped-call]


def main(kind: str, parent: str, certificate: str, *more: str) -> None:
    """Run one process until it is told to end.

    Parameters
    ----------
    kind
        ``scheduler`` or ``worker``.
    parent
        Process id of the parent.
    certificate
        File with certificate and key of the cluster.
    more
        Of a worker: its name, its number of threads, and modules to import before it joins.
    """
    die_with(int(parent))
    say = _take_stdout()
    import dask
    import distributed  # noqa: F401

    dask.config.set(_CONFIG)
    # What a person needs to know, the planning process says.
    logging.getLogger("distributed").setLevel(logging.ERROR)
    if kind == "scheduler":
        asyncio.run(_schedule(say, Path(certificate)))
        return
    name, n_thread, *modules = more
    for module in modules:
        importlib.import_module(module)
    asyncio.run(_work(say, Path(certificate), name, int(n_thread)))


if __name__ == "__main__":
    main(*sys.argv[1:])
