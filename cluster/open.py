"""A cluster to compute on: local processes, jobs of a SLURM cluster, or a scheduler that already runs."""

import asyncio
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from distributed import Client, Security
from distributed.comm.core import connect

from cluster.ends import WorkerEnd
from cluster.local import START_S, LocalProcesses
from cluster.slurm.cluster import SlurmCluster
from cluster.slurm.site import read_site
from cluster.where import is_site_file
from cluster.workers import SupervisedClient, known_workers
from engine.errors import ClusterError

CONNECT_S = 20.0
"""How long a scheduler may take to answer."""
_CONNECT_LOCAL_S = 5.0
"""The same for one attempt at our own, which may have died in the meantime."""
_TRY_AGAIN_S = 1.0
_ALL_JOINED_S = 20.0
_LOG = logging.getLogger("nightbeam")


@dataclass(frozen=True)
class JobFiles:
    """Where jobs on a SLURM cluster keep their files.

    Parameters
    ----------
    root
        Folder that every node sees: each run has one of its own in it, while it lasts.
    usage
        File that is told what every job used, if any.
    say
        Tells a person one line.
    """

    root: Path
    usage: Path | None = None
    say: Callable[[str], None] = _LOG.info


class Cluster:
    """What a run computes on.

    Local processes are starting when the constructor returns; nobody waits for them before `client` is called.

    Parameters
    ----------
    where
        ``local``, the ``.toml`` file of a SLURM site, or the address of a scheduler such as ``tcp://host:8786`` or
        ``tls://host:8786``.
    n_worker, n_thread
        Worker processes of a local cluster, one a core if None, and threads of each.
    imports
        Modules that local workers import while they start.
    patience_s
        How long to go on asking for a scheduler that does not answer.
    jobs
        Where jobs on a SLURM cluster keep their files, and whom they tell of.
    limit_bytes
        Memory that each local worker may use; if None, an equal share of what is free.
    wait_s
        How long to wait for a worker where jobs are submitted for them.
    """

    def __init__(
        self,
        where: str,
        n_worker: int | None = None,
        n_thread: int = 1,
        imports: Sequence[str] = (),
        patience_s: float = 0.0,
        jobs: "JobFiles | None" = None,
        limit_bytes: int | None = None,
        wait_s: float = math.inf,
    ) -> None:
        self._where, self._patience_s, self._wait_s = where, patience_s, wait_s
        self._client: Client | None = None
        self.local: LocalProcesses | None = None
        self.slurm: SlurmCluster | None = None
        # Prefect turns the logging of everything on; the chatter of processes that come and go helps nobody.
        for name in ("distributed", "distributed.client", "distributed.utils", "tornado.application"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        if where == "local":
            n_worker = n_worker or len(os.sched_getaffinity(0))
            self.local = LocalProcesses(n_worker, n_thread, imports, limit_bytes=limit_bytes)
        elif is_site_file(where):
            if jobs is None:
                raise ClusterError("jobs on a SLURM cluster need a folder that all nodes see")
            self.slurm = SlurmCluster(read_site(Path(where)), jobs.root, jobs.usage, imports, jobs.say)

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
            elif self.slurm is not None:
                self._client = _client_of_jobs(self.slurm, self._wait_s)
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

    def why(self, address: str) -> WorkerEnd | None:
        """Return why a worker ended, or None if that is not known yet; of a scheduler of others nobody knows."""
        started = self.local or self.slurm
        return WorkerEnd(address, "unknown", "") if started is None else started.why(address)

    def why_lost(self) -> ClusterError | None:
        """Return what ended the processes that were started here, or None if that is not known."""
        started = self.local or self.slurm
        return started.failure() if started is not None else None

    def renew(self) -> bool:
        """Start another scheduler if that is all it takes to go on; returns False where it takes another cluster."""
        if self.slurm is None or self.slurm.supervisor.failure() is not None:
            return False
        self._leave_client()
        self.slurm.renew_scheduler()
        return True

    def cancel_jobs(self) -> None:
        """Cancel the jobs of a SLURM cluster at once; from any thread, before `close`, when there is little time."""
        if self.slurm is not None:
            self.slurm.supervisor.cancel_now()

    def close(self) -> None:
        """Stop what was started."""
        self._leave_client()
        for started in (self.local, self.slurm):
            if started is not None:
                started.close()

    def _leave_client(self) -> None:
        if self._client is not None:
            self._client.close()  # type: ignore[no-untyped-call]
            self._client = None


def _client_of_jobs(slurm: SlurmCluster, wait_s: float) -> Client:
    address = slurm.address()
    limit_s = time.monotonic() + START_S
    while True:
        try:
            client = _connect(address, _CONNECT_LOCAL_S, slurm.security())
            break
        except ClusterError as error:
            failure = slurm.failure()
            if failure is not None or time.monotonic() > limit_s:
                raise failure or error from error
    client.supervision, client.wait_s = slurm.supervisor, wait_s
    try:
        known_workers(client)
        # Those that run already will join in a moment; resident tiles stay where they are first put.
        known_workers(client, slurm.supervisor.n_running() * slurm.site.processes, _ALL_JOINED_S)
    except ClusterError:
        client.close()  # type: ignore[no-untyped-call]
        raise
    return client


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


def _connect(where: str, limit_s: float, security: Security) -> SupervisedClient:
    try:
        # A thread of its own, because the caller may run inside an event loop.
        with ThreadPoolExecutor(1) as aside:
            aside.submit(asyncio.run, _shake_hands(where, limit_s, security)).result()
        return SupervisedClient(where, timeout=limit_s, security=security)  # type: ignore[no-untyped-call]
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
