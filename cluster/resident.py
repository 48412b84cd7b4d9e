"""Tiles resident on workers: the holders of rows that an optimisation talks to.

Every worker has one actor that keeps the groups it was given, for all scenarios, in memory. The actors are given a
picklable loader; this module opens no store. Which worker holds which group changes nothing in the results.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from distributed import CancelledError, Client, KilledWorker

from cluster.workers import known_workers
from engine.errors import ClusterError, NightbeamError
from engine.model.arrays import F64, I64
from engine.optimise.group import GroupEvaluator, Term

T = TypeVar("T")

_LOG = logging.getLogger("nightbeam")
_MAX_REBUILDS = 5
_LOOK_S = 1.0


class GroupLoader(Protocol):
    """Loads reduction groups on a worker; picklable."""

    def __call__(self, groups: Sequence[int]) -> list[GroupEvaluator]:
        """Return the evaluators of some consecutive groups."""
        ...


class RowsActor:
    """Lives on a worker and answers for its groups."""

    def __init__(self, load: GroupLoader, groups: Sequence[int]) -> None:
        self._groups = load(groups)
        self._cpu_s = 0.0

    def cpu_s(self) -> float:
        """Return the CPU seconds spent in `sums` and `gradients`."""
        return self._cpu_s

    def n_bytes(self) -> int:
        """Return the bytes of the resident tiles."""
        return sum(group.n_bytes for group in self._groups)

    def sums(
        self, weight: F64, terms: Sequence[Term], used: int, voxel_temperature_gy: float | None
    ) -> list[F64]:
        """Return the partial sums of every group here."""
        begin_s = time.thread_time()
        parts = [group.sums(weight, terms, used, voxel_temperature_gy) for group in self._groups]
        self._cpu_s += time.thread_time() - begin_s
        return parts

    def gradients(
        self,
        n_beamlet: int,
        terms: Sequence[Term],
        factor: F64,
        totals: F64,
        voxel_temperature_gy: float | None,
    ) -> list[F64]:
        """Return the gradient part of every group here, for the doses of the last `sums`."""
        begin_s = time.thread_time()
        parts = [
            group.gradient(n_beamlet, terms, factor, totals, voxel_temperature_gy) for group in self._groups
        ]
        self._cpu_s += time.thread_time() - begin_s
        return parts


class ResidentRows:
    """All groups, shared out over the workers of a cluster.

    Parameters
    ----------
    client
        The cluster.
    load
        Loader of groups.
    work
        Work of every group (such as its number of mini-blocks), for an even share, shape (n_group,).
    n_beamlet
        Beamlets of all beams.
    """

    def __init__(self, client: Client, load: GroupLoader, work: I64, n_beamlet: int) -> None:
        self.n_beamlet = n_beamlet
        self._client, self._load, self._work = client, load, work
        self._actors: list[tuple[Any, Any]] = []
        self._workers: list[str] = []
        self._persist(lambda: None)

    def close(self) -> None:
        """Let go of the actors and their memory."""
        self._actors = []

    def n_bytes(self) -> int:
        """Return the bytes of all resident tiles."""
        return sum(self._persist(lambda: self._ask("n_bytes")))

    def cpu_s(self) -> float:
        """Return the CPU seconds that the actors spent on evaluations; those of lost workers are not known."""
        return float(sum(self._persist(lambda: self._ask("cpu_s"))))

    def sums(
        self, weight: F64, terms: Sequence[Term], used: int, voxel_temperature_gy: float | None
    ) -> list[F64]:
        """Return `GroupEvaluator.sums` of every group, in group order."""
        return self._persist(lambda: self._ask_parts("sums", weight, terms, used, voxel_temperature_gy))

    def gradients(
        self,
        weight: F64,
        terms: Sequence[Term],
        used: int,
        factor: F64,
        totals: F64,
        voxel_temperature_gy: float | None,
    ) -> list[F64]:
        """Return `GroupEvaluator.gradient` of every group for the doses of ``weight``, in group order."""
        return self._persist(
            lambda: self._ask_parts("gradients", self.n_beamlet, terms, factor, totals, voxel_temperature_gy),
            # New actors have formed no doses yet.
            after_loss=lambda: self._ask_parts("sums", weight, terms, used, voxel_temperature_gy),
        )

    def _ask_parts(self, method: str, *arguments: Any) -> list[F64]:
        return [part for parts in self._ask(method, *arguments) for part in parts]

    def _ask(self, method: str, *arguments: Any) -> list[Any]:
        """Ask all actors at once and return their answers in their order."""
        answers = [(getattr(actor, method)(*arguments), future) for actor, future in self._actors]
        return [_wait(answer, future) for answer, future in answers]

    def _persist(self, ask: Callable[[], T], after_loss: Callable[[], Any] = lambda: None) -> T:
        last: Exception | None = None
        for _ in range(_MAX_REBUILDS + 1):
            try:
                if not self._actors:
                    self._build()
                    after_loss()
                return ask()
            except NightbeamError:
                raise
            except (OSError, ValueError, RuntimeError, KilledWorker, CancelledError) as error:
                # A lost actor shows as one of these, depending on when its worker went.
                if isinstance(error, ValueError | RuntimeError) and self._workers_are_there():
                    # No worker was lost: this is the work's own error, and would come again.
                    raise
                _LOG.warning("workers with resident tiles were lost (%s); loading the tiles again", error)
                self._actors = []
                last = error
        raise ClusterError(f"resident tiles were lost {_MAX_REBUILDS + 1} times in a row ({last})") from last

    def _workers_are_there(self) -> bool:
        """Return whether the scheduler still knows every worker that actors were built on.

        It learns of a lost connection first, and tells the client of a lost actor after that.
        """
        # Asked once, without waiting for workers that restart: what is left of lost actors must go first.
        return set(self._workers) <= set(self._client.scheduler_info(n_workers=-1)["workers"])

    def _build(self) -> None:
        workers = self._workers = known_workers(self._client)
        # Consecutive groups for each worker, because tiles are stored by brick and are read in slices.
        done = np.cumsum(self._work) / max(1, int(self._work.sum()))
        owner = np.minimum(((done - 1e-12) * len(workers)).astype(int), len(workers) - 1)
        futures = []
        for number, worker in enumerate(workers):
            groups = [int(g) for g in np.flatnonzero(owner == number)]
            if groups:
                futures.append(
                    self._client.submit(
                        RowsActor,
                        self._load,
                        groups,
                        actor=True,
                        workers=[worker],
                        # The worker may have left since it was listed: better elsewhere than never.
                        allow_other_workers=True,
                        pure=False,
                        retries=0,
                    )
                )
        self._actors = [(self._loaded(future), future) for future in futures]

    def _loaded(self, future: Any) -> Any:
        """Return an actor when it has loaded its groups, looking now and then whether any worker is left."""
        while True:
            try:
                return future.result(timeout=_LOOK_S)
            except TimeoutError:
                if future.status == "error":
                    raise
                known_workers(self._client)


def _wait(answer: Any, future: Any) -> Any:
    """Return an actor's answer, looking now and then whether the actor is still there.

    An answer that was on its way when its worker died sometimes never comes, nor any error.
    """
    while True:
        try:
            return answer.result(timeout=_LOOK_S)
        except TimeoutError:
            if answer.done():
                raise
            if future.status != "finished":
                raise RuntimeError(f"a worker with resident tiles was lost ({future.status})") from None
