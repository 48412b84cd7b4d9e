"""What a run holds while it lasts: the store, the cluster (opened only when something has to be computed), progress."""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from cluster.where import is_site_file
from engine.errors import SchedulerLostError, StudyError
from flows.ending import first_of_all
from flows.progress import Reporter
from storage.lease import take_run_lease
from storage.places.address import Address, local_folder
from storage.places.place import CLUSTERS
from storage.store import Store

if TYPE_CHECKING:
    from distributed import Client

    from cluster.ends import Ends
    from cluster.memory import MemoryNeed
    from cluster.open import Cluster, JobFiles

_WORKERS_IMPORT = ("flows.work.matrix", "flows.work.rows", "flows.work.doses", "flows.work.plan_sums")
_COME_BACK_S = 60.0
"""How long a scheduler that others look after may take to come back."""


@dataclass(frozen=True)
class Computing:
    """Where a run computes.

    Parameters
    ----------
    cluster
        ``local``, the file of a SLURM site, or the address of a Dask scheduler.
    n_worker, n_thread
        Workers of a local cluster, one a core if None, and threads of each.
    memory_gib
        Memory that each worker may use; if None an equal share of what is free, or what the workers of a scheduler
        say themselves.
    """

    cluster: str = "local"
    n_worker: int | None = None
    n_thread: int = 1
    memory_gib: float | None = None

    @property
    def memory_bytes(self) -> int | None:
        """The same in bytes."""
        return None if self.memory_gib is None else int(self.memory_gib * (1 << 30))


@dataclass
class Run:
    """A context manager: what it started is stopped at its end.

    Parameters
    ----------
    store
        Where results are found and kept.
    reporter
        Progress.
    computing
        Where it computes.
    output
        Folder that is told what every worker job used, if any.
    may_compute
        False for commands that only tell again what is in the store.
    need
        What every worker will use at most, when the first thing has to be computed.
    checks_workers
        Whether workers on other machines are looked at before they compute.
    wait_s
        How long to wait for a worker where jobs are submitted for them.
    """

    store: Store
    reporter: Reporter
    computing: Computing = Computing()
    output: Path | None = None
    may_compute: bool = True
    need: "MemoryNeed | None" = None
    checks_workers: bool = True
    wait_s: float = math.inf
    _size: "Callable[[], MemoryNeed] | None" = None
    _open: ExitStack = field(default_factory=ExitStack)
    _cluster: "Cluster | None" = None
    _has_client: bool = False
    _patience_s: float = 0.0

    def __enter__(self) -> "Run":
        if self.may_compute:
            # Taken before anything is looked up: what this run finds must not be pruned while it lasts.
            self._open.enter_context(take_run_lease(self.store.address))
            self._clear_left_over()
        self._open.callback(self._close_cluster)
        self._open.enter_context(first_of_all(self._cancel_jobs))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)

    def _clear_left_over(self) -> None:
        """Clear away jobs of runs that were killed, also where this one finds all it needs and opens no cluster."""
        if is_site_file(self.computing.cluster):
            from cluster.slurm.folder import left_over

            root = self._jobs_root()
            if left_over(root):
                from cluster.slurm.cluster import clear_left_over

                clear_left_over(root, self.reporter.say)

    def _job_files(self) -> "JobFiles":
        from cluster.open import JobFiles

        usage = None if self.output is None else self.output / "usage.jsonl"
        return JobFiles(self._jobs_root(), usage, self.reporter.say)

    def _jobs_root(self) -> Path:
        # A store in a bucket has no folder that the nodes see: then the output folder has to be one.
        return local_folder(self.store.address, self.output or Path.cwd()) / CLUSTERS

    def require_computing(self) -> None:
        """Raise if this run may only look things up.

        Raises
        ------
        StudyError
            If it may not compute, and so was asked for something that is not in the store.
        """
        if not self.may_compute:
            raise StudyError(
                "not everything that this study needs is in the store; run `nightbeam plan` first"
            )

    def expect_computing(self) -> None:
        """Begin to start local processes, as they will be needed; does nothing if they were begun before."""
        if self.may_compute:
            self._started()

    def _started(self) -> "Cluster":
        if self._cluster is None:
            # Imported late: a study whose results are all in the store needs no Dask.
            from cluster.open import Cluster

            where = self.computing
            self._cluster = Cluster(
                where.cluster,
                where.n_worker,
                where.n_thread,
                _WORKERS_IMPORT,
                self._patience_s,
                self._job_files(),
                where.memory_bytes,
                self.wait_s,
            )
        return self._cluster

    @property
    def ends(self) -> "Ends":
        """Who knows why workers ended."""
        return self._started()

    @property
    def client(self) -> "Client":
        """The Dask client; the first use starts or joins the cluster.

        Raises
        ------
        StudyError
            If this run may not compute, and so was asked for something that is not in the store.
        ClusterError
            If there is no cluster to be had.
        """
        self.require_computing()
        client = self._started().client()
        if not self._has_client:
            from cluster.workers import known_workers

            self._has_client = True
            threads = known_workers(client)
            self.reporter.say(
                f"cluster: {len(threads)} workers, {sum(threads.values())} threads ({self.computing.cluster})"
            )
            if self.checks_workers and self.computing.cluster != "local":
                self._check_workers(client)
            if self._size is not None:
                self.need = self._size()
        return client

    def _check_workers(self, client: "Client") -> None:
        from cluster.findings import SameCode, require_same_code

        for notice in require_same_code(client):
            self.reporter.say(notice)
        if is_site_file(self.computing.cluster):
            # On a scheduler of our own, which ends with this run: somebody else's would go on refusing workers.
            client.register_plugin(SameCode())

    def before_computing(self, size: "Callable[[], MemoryNeed]") -> None:
        """Have the need of memory looked at when the first thing has to be computed, and again on another cluster."""
        self._size = size

    def workers(self) -> tuple[int, int, int]:
        """Return the number of workers, the most threads of one, and the bytes of memory that each may use.

        Where jobs are submitted for them it is at least as many as will usually be there: one may be just starting.

        Raises
        ------
        ClusterError
            If there is no cluster to be had.
        """
        from cluster.memory import worker_limit
        from cluster.workers import known_workers

        where = self.computing
        given = where.memory_bytes
        if where.cluster == "local":
            n_worker = where.n_worker or len(os.sched_getaffinity(0))
            return n_worker, where.n_thread, worker_limit(None, n_worker, given)
        threads, n_usual = known_workers(self.client), 0
        if self._cluster is not None and self._cluster.slurm is not None:
            site = self._cluster.slurm.site
            planned, n_usual = site.planned_bytes, site.n_job_min * site.processes
            given = planned if given is None else min(given, planned)
        return (
            max(len(threads), n_usual),
            max(threads.values()),
            worker_limit(self.client, len(threads), given),
        )

    def tell_peak(self) -> None:
        """Say what memory workers have used at most, if any have computed."""
        if self._cluster is not None and self._has_client:
            from cluster.memory import gib, peak_bytes

            # For information only: workers may go as they like now.
            with suppress(OSError, RuntimeError):
                self.reporter.say(f"memory: a worker used {gib(peak_bytes(self.client))} at most")

    def lose_cluster(self, error: SchedulerLostError) -> str:
        """Let go of a cluster whose scheduler is gone; returns why it is. The next use of `client` finds another.

        Raises
        ------
        ClusterError
            If local processes ended for a reason that another cluster would meet, too.
        """
        why = (self._cluster.why_lost() if self._cluster is not None else None) or error
        if isinstance(why, SchedulerLostError) and self._cluster is not None and self._cluster.renew():
            self._has_client = False
            return str(why)
        self._close_cluster()
        if not isinstance(why, SchedulerLostError):
            raise why from error
        self._patience_s = _COME_BACK_S
        return str(why)

    def _cancel_jobs(self) -> None:
        cluster = self._cluster
        if cluster is not None:
            cluster.cancel_jobs()

    def _close_cluster(self) -> None:
        if self._cluster is not None:
            self._cluster.close()
            self._cluster, self._has_client = None, False


_begun: Run | None = None


@contextmanager
def open_run(store: Address, quiet: bool, computing: Computing, output: Path) -> Iterator[Run]:
    """Yield the run that this process has begun with the same arguments, or begin one.

    So the command can begin before the Prefect flow, which has to wait for its server, and the flow takes over. The
    arguments are those of `flows.plan_case.plan_case`.
    """
    global _begun
    wanted = (Store(store).address, quiet, computing, output)
    if _begun is not None and wanted == (
        _begun.store.address,
        _begun.reporter.console.quiet,
        _begun.computing,
        _begun.output,
    ):
        yield _begun
        return
    before = _begun
    with Run(Store(store), Reporter(quiet), computing, output) as run:
        _begun = run
        try:
            yield run
        finally:
            _begun = before
