"""What a run holds while it lasts: the store, the cluster (opened only when something has to be computed), progress."""

from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING

from engine.errors import StudyError
from flows.progress import Reporter
from storage.store import Store

if TYPE_CHECKING:
    from distributed import Client


@dataclass
class Run:
    """A context manager: what it started is stopped at its end.

    Parameters
    ----------
    store
        Where results are found and kept.
    reporter
        Progress.
    cluster
        ``local``, or the address of a Dask scheduler.
    n_worker
        Workers of a local cluster; one a core if None.
    may_compute
        False for commands that only tell again what is in the store.
    """

    store: Store
    reporter: Reporter
    cluster: str = "local"
    n_worker: int | None = None
    may_compute: bool = True
    _open: ExitStack = field(default_factory=ExitStack)
    _client: "Client | None" = None

    def __enter__(self) -> "Run":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)

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

    @property
    def client(self) -> "Client":
        """The Dask client; the first use starts or joins the cluster.

        Raises
        ------
        StudyError
            If this run may not compute, and so was asked for something that is not in the store.
        """
        self.require_computing()
        if self._client is None:
            # Imported late: a study whose results are all in the store needs no Dask.
            from cluster.open import open_cluster

            self._client = self._open.enter_context(open_cluster(self.cluster, self.n_worker))
            n = len(self._client.scheduler_info(n_workers=-1)["workers"])
            self.reporter.say(f"cluster: {n} workers ({self.cluster})")
        return self._client
