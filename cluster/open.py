"""A cluster to compute on: local processes, or a scheduler that already runs."""

import asyncio
import logging
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from distributed import Client, Security
from distributed.comm.core import connect

from cluster.local import START_S, LocalProcesses
from cluster.workers import known_workers
from engine.errors import ClusterError

CONNECT_S = 20.0
"""How long a scheduler may take to answer."""
_CONNECT_LOCAL_S = 5.0
"""The same for one attempt at our own, which may have died in the meantime."""
_TRY_AGAIN_S = 1.0


class Cluster:
    """What a run computes on.

    Local processes are starting when the constructor returns; nobody waits for them before `client` is called.

    Parameters
    ----------
    where
        ``local``, or the address of a scheduler such as ``tcp://host:8786`` or ``tls://host:8786``.
    n_worker, n_thread
        Worker processes of a local cluster, one a core if None, and threads of each.
    imports
        Modules that local workers import while they start.
    patience_s
        How long to go on asking for a scheduler that does not answer.
    """

    def __init__(
        self,
        where: str,
        n_worker: int | None = None,
        n_thread: int = 1,
        imports: Sequence[str] = (),
        patience_s: float = 0.0,
    ) -> None:
        self._where, self._patience_s = where, patience_s
        self._client: Client | None = None
        self.local: LocalProcesses | None = None
        # Prefect turns the logging of everything on; the chatter of processes that come and go helps nobody.
        for name in ("distributed", "distributed.client", "distributed.utils", "tornado.application"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        if where == "local":
            self.local = LocalProcesses(n_worker or len(os.sched_getaffinity(0)), n_thread, imports)

    def client(self) -> Client:
        """Return a Dask client, connected at the first call.

        Raises
        ------
        ClusterError
            If the scheduler cannot be reached, or has no workers.
        """
        if self._client is None:
            if self.local is not None:
                self._client = self._first_client(self.local)
            else:
                self._client = _join(self._where, self._patience_s)
        return self._client

    @staticmethod
    def _first_client(local: LocalProcesses) -> Client:
        address = local.address()
        limit_s = time.monotonic() + START_S
        while True:
            try:
                client = _connect(address, _CONNECT_LOCAL_S, local.security())
                break
            except ClusterError as error:
                failure = local.failure()
                if failure is not None or time.monotonic() > limit_s:
                    raise failure or error from error
        try:
            # All of them, because resident tiles stay where they are first put.
            known_workers(client, local.n_worker, START_S)
        except ClusterError as error:
            client.close()  # type: ignore[no-untyped-call]
            raise local.failure() or error from error
        return client

    def why_lost(self) -> ClusterError | None:
        """Return what ended local processes, or None if that is not known."""
        return self.local.failure() if self.local is not None else None

    def close(self) -> None:
        """Stop what was started."""
        if self._client is not None:
            self._client.close()  # type: ignore[no-untyped-call]
            self._client = None
        if self.local is not None:
            self.local.close()


@contextmanager
def open_cluster(where: str, n_worker: int | None, n_thread: int = 1) -> Iterator[Client]:
    """Start or join a `Cluster` and yield its client; what was started is stopped again.

    Raises
    ------
    ClusterError
        If the scheduler cannot be reached, or has no workers.
    """
    cluster = Cluster(where, n_worker, n_thread)
    try:
        yield cluster.client()
    finally:
        cluster.close()


def _join(where: str, patience_s: float) -> Client:
    limit_s = time.monotonic() + patience_s
    while True:
        try:
            # Of somebody's cluster, Dask's own configuration says where the certificates are.
            client = _connect(where, CONNECT_S, Security())  # type: ignore[no-untyped-call]
            break
        except ClusterError as error:
            if not patience_s:
                raise
            if time.monotonic() > limit_s:
                raise ClusterError(
                    f"the scheduler at {where} was lost and has not come back within {patience_s:g} s; "
                    "when it is there again, the same command goes on where this one was"
                ) from error
            time.sleep(_TRY_AGAIN_S)
    # A scheduler that has come back waits for its workers to do the same (`cluster.workers.known_workers`).
    if not patience_s and not client.scheduler_info()["workers"]:
        client.close()  # type: ignore[no-untyped-call]
        raise ClusterError(f"the scheduler at {where} has no workers; start some and try again")
    return client


def _connect(where: str, limit_s: float, security: Security) -> Client:
    try:
        # A thread of its own, because the caller may run inside an event loop.
        with ThreadPoolExecutor(1) as aside:
            aside.submit(asyncio.run, _shake_hands(where, limit_s, security)).result()
        return Client(where, timeout=limit_s, security=security)  # type: ignore[no-untyped-call]
    # The last two: a certificate is needed and there is none, or there is one and the address is not of TLS.
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise ClusterError(
            f"no Dask scheduler answers at {where} ({str(error) or type(error).__name__}); check the address"
        ) from error


async def _shake_hands(where: str, limit_s: float, security: Security) -> None:
    """Connect once under a limit: `Client` itself waits without end for a peer that takes connections and is silent."""
    async with asyncio.timeout(limit_s):
        # As `Client` does, without what TLS needs for an address without it.
        arguments = security.get_connection_args("client")  # type: ignore[no-untyped-call]
        comm = await connect(where, timeout=limit_s, **arguments)  # type: ignore[no-untyped-call]
        comm.abort()
