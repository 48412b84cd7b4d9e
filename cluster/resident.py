"""Tiles resident on workers: the holders of rows that an optimisation talks to.

Every worker has one actor (`cluster.rows_actor`) that keeps the groups it was given, for all scenarios, in memory, and
works on as many of them at a time as the worker has threads. Groups that do not fit are streamed: loaded whenever they
are asked for. The actors are given a picklable loader; this module opens no store. Which worker or thread has which
group, and whether it stays there, changes nothing in the results.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from distributed import CancelledError, Client, KilledWorker

from cluster.ends import Cause, Ends, WorkerEnd
from cluster.losses import LESS_MEMORY, MAX_LEFT, WHY_S, memory_words
from cluster.memory import Room
from cluster.rows_actor import GroupLoader, RowsActor, _WorkError
from cluster.workers import (
    TAKING,
    SupervisedClient,
    known_workers,
    listed_workers,
    lost_scheduler_told,
    require_scheduler,
    want,
)
from engine.errors import ClusterError, NightbeamError
from engine.influence.rows import owners
from engine.model.arrays import F64, I64
from engine.optimise.group import Question, RegionRows

T = TypeVar("T")

_LOG = logging.getLogger("nightbeam")
_MAX_REBUILDS = 5
"""Without an answer in between, if workers die; and if they run out of memory:"""
_MAX_OUT_OF_MEMORY = 2
_LOOK_S = 1.0
_POLL_S = 0.1
_FEARED: tuple[Cause, ...] = ("memory", "died", "unknown", "left")
_COME_BACK_S, _JOB_COMES_BACK_S = 5.0, 20.0
"""How long to wait for lost workers to come back before their rows go to the others: local ones take about a second,
jobs of a queue without others ten."""
_LOST = (OSError, ValueError, RuntimeError, KilledWorker, CancelledError)
"""A lost actor shows as one of these, depending on when its worker went."""
_LET_GO_S = 5.0
_SPREAD_S = 30.0
_SPREAD_LOADS = 10
"""Rows are shared out anew over more workers after so long, and not before so many times what loading them took."""


@dataclass(frozen=True)
class _Holder:
    """A worker's actor, the numbers of the groups that it answers for, and how many of the first ones it keeps."""

    worker: str
    groups: tuple[int, ...]
    n_resident: int
    actor: Any
    future: Any


class ResidentRows:
    """All groups, shared out over the workers of a cluster.

    Parameters
    ----------
    client
        The cluster.
    load
        Loader of groups.
    n_bytes
        Bytes of every group's tiles, for an even share, shape (n_group,).
    n_beamlet
        Beamlets of all beams.
    room
        Tiles that each worker may keep; None for all.
    ends
        Who knows why workers ended; None if nobody does.
    """

    def __init__(
        self,
        client: Client,
        load: GroupLoader,
        n_bytes: I64,
        n_beamlet: int,
        room: Room | None = None,
        ends: Ends | None = None,
    ) -> None:
        self.n_beamlet = n_beamlet
        self._ends = ends
        self._client, self._load, self._n_bytes, self._room = client, load, n_bytes, room
        self._holders: list[_Holder] = []
        self._dropped: list[_Holder] = []
        self._addresses: list[str] = []
        self._n_worker, self._spread_s = 0, 0.0
        # Solves side by side ask for their CPU seconds each by itself: one rebuild at a time.
        self._lock = threading.RLock()
        self._persist(lambda: None)

    def close(self) -> None:
        """Let go of the actors and their memory."""
        self._dropped += self._holders
        self._holders = []
        self._free_memory()

    def resident_bytes(self) -> int:
        """Return the bytes of all resident tiles."""
        return sum(self._persist(lambda: self._ask("n_bytes")))

    def cpu_s(self) -> float:
        """Return the CPU seconds that the actors spent on evaluations; those of lost workers are not known."""
        with self._lock, lost_scheduler_told(self._client):
            while True:
                # Nothing is loaded anew for this: another solve may be between its sums and its gradients.
                try:
                    return float(sum(self._ask("cpu_s")))
                except _WorkError as failed:
                    raise failed.error from None
                except _LOST as error:
                    if isinstance(error, NightbeamError):
                        raise
                    require_scheduler(self._client, error)

    def sums(self, questions: Sequence[Question]) -> list[list[F64]]:
        """Return `GroupEvaluator.sums` of every group, in group order."""
        return self._persist(lambda: self._ask_parts("sums", questions))

    def gradients(self, questions: Sequence[Question], slopes: Sequence[F64]) -> list[list[F64]]:
        """Return `GroupEvaluator.gradients` of every group, in group order; ``questions`` are those of `sums`."""
        return self._persist(
            lambda: self._ask_parts("gradients", questions, slopes),
            # New actors have formed no doses yet.
            after_loss=lambda: self._ask_parts("sums", questions),
        )

    def curvature_sums(self, questions: Sequence[Question], directions: Sequence[F64]) -> list[list[F64]]:
        """Return `GroupEvaluator.curvature_sums` of every group, in group order."""
        return self._persist(lambda: self._ask_parts("curvature_sums", questions, directions))

    def curvature_products(
        self,
        questions: Sequence[Question],
        directions: Sequence[F64],
        slopes: Sequence[F64],
        changes: Sequence[F64],
    ) -> list[list[F64]]:
        """Return `GroupEvaluator.curvature_products` of every group; questions and directions are those of before."""
        return self._persist(
            lambda: self._ask_parts("curvature_products", questions, slopes, changes),
            after_loss=lambda: self._ask_parts("curvature_sums", questions, directions),
        )

    def regions(self) -> list[tuple[RegionRows, ...]]:
        """Return the regions' rows of every group, in group order."""
        return self._persist(lambda: self._ask_parts("regions"))

    def doses(self, weight: F64, used: int) -> list[F64]:
        """Return `GroupEvaluator.doses` of every group, in group order."""
        return self._persist(lambda: self._ask_parts("doses", weight, used))

    def adjoints(self, by_rows: Sequence[F64]) -> list[F64]:
        """Return `GroupEvaluator.adjoint` of every group, in group order, for each group's own rows."""
        return self._persist(lambda: self._ask_parts("adjoints", self.n_beamlet, of_groups=by_rows))

    def _ask_parts(self, method: str, *arguments: Any, of_groups: Sequence[Any] | None = None) -> list[Any]:
        """Return the parts of all groups in group order, whoever has which."""
        parts: list[Any] = [[]] * self._n_bytes.size
        answers = self._ask(method, *arguments, of_groups=of_groups)
        for holder, of_holder in zip(self._holders, answers, strict=True):
            for group, part in zip(holder.groups, of_holder, strict=True):
                parts[group] = part
        return parts

    def _ask(
        self,
        method: str,
        *arguments: Any,
        new: Sequence[_Holder] | None = None,
        of_groups: Sequence[Any] | None = None,
    ) -> list[Any]:
        """Ask all actors at once, or the new ones alone, and return their answers in their order.

        Each is sent what belongs to its own groups, if there is such a thing. Those that are found lost are let go,
        and the error of the first one is raised.
        """
        lost: list[Exception] = []
        asked, answers = [], []
        for holder in self._holders if new is None else new:
            own = [] if of_groups is None else [[of_groups[group] for group in holder.groups]]
            with self._letting_go(holder, lost):
                asked.append((holder, getattr(holder.actor, method)(*arguments, *own)))
        for holder, answer in asked:
            with self._letting_go(holder, lost):
                answers.append(_wait(answer, holder.future))
        if lost:
            raise lost[0]
        return answers

    @contextmanager
    def _letting_go(self, holder: _Holder, lost: list[Exception]) -> Iterator[None]:
        """Keep the error of a lost holder, and the holder no longer."""
        try:
            yield
        except _LOST as error:
            if isinstance(error, NightbeamError):
                raise
            lost.append(error)
            self._dropped.append(holder)
            self._holders = [other for other in self._holders if other is not holder]

    def _free_memory(self) -> None:
        """Have actors that are not wanted any more give back their tiles.

        Otherwise they have them until their workers hear of it, which is too late for those that come in their place.
        """
        dropped, self._dropped = self._dropped, []
        asked, until_s = [], time.monotonic() + _LET_GO_S
        for holder in dropped:
            with suppress(*_LOST):
                asked.append(holder.actor.let_go())
        for answer in asked:
            with suppress(*_LOST):
                answer.result(timeout=max(0.0, until_s - time.monotonic()))

    def _persist(self, ask: Callable[[], T], after_loss: Callable[[], Any] = lambda: None) -> T:
        n_lost: Counter[Cause] = Counter()
        with self._lock, lost_scheduler_told(self._client):
            while True:
                try:
                    if not self._orphans():
                        self._spread()
                    if self._orphans():
                        self._build()
                        after_loss()
                    return ask()
                except _WorkError as failed:
                    raise failed.error from None
                except _LOST as error:
                    if isinstance(error, NightbeamError):
                        raise
                    require_scheduler(self._client, error)
                    _LOG.warning(
                        "workers with resident tiles were lost (%s); loading their tiles again", error
                    )
                    self._count_loss(n_lost, error)

    def _orphans(self) -> list[int]:
        """Return the numbers of the groups that nobody has."""
        held = {group for holder in self._holders for group in holder.groups}
        return [group for group in range(self._n_bytes.size) if group not in held]

    def _count_loss(self, n_lost: "Counter[Cause]", error: Exception) -> None:
        """Count a loss by its cause.

        Raises
        ------
        ClusterError
            If that were too many without an answer in between.
        """
        end = self._why_lost()
        n_lost[end.cause] += 1
        if n_lost["memory"] > _MAX_OUT_OF_MEMORY:
            raise ClusterError(
                f"resident tiles and what is computed with them need more memory than a worker has: "
                f"{memory_words(end)}, {n_lost['memory']} times in a row; {LESS_MEMORY}"
            ) from error
        if n_lost["left"] >= MAX_LEFT:
            raise ClusterError(
                f"the jobs of workers with resident tiles ended {n_lost['left']} times before one evaluation was done "
                f"({end.words}): give jobs a longer walltime, or a queue that does not pre-empt them"
            ) from error
        n_death = n_lost["died"] + n_lost["unknown"]
        if n_death > _MAX_REBUILDS:
            raise ClusterError(
                f"resident tiles were lost {n_death} times in a row ({end.words or error})"
            ) from error

    def _why_lost(self) -> WorkerEnd:
        """Return why workers were lost: what is most to be feared, if several were for different reasons."""
        limit_s = time.monotonic() + WHY_S
        while self._ends is not None:
            gone = set(self._addresses) - set(known_workers(self._client))
            ends = [end for end in map(self._ends.why, gone) if end is not None]
            if ends and (len(ends) == len(gone) or time.monotonic() > limit_s):
                return min(ends, key=lambda end: _FEARED.index(end.cause))
            if time.monotonic() > limit_s:
                break
            time.sleep(_POLL_S)
        return WorkerEnd("", "unknown", "")

    def _spread(self) -> None:
        """Take rows from holders if workers without any have come, and their help is worth loading the rows anew.

        What is streamed is loaded anew for every answer anyway, and goes to newcomers at once if it fits there.
        Everything is shared out anew only after there have been more workers for long enough.
        """
        is_due = time.monotonic() > self._spread_s
        streamed = [group for holder in self._holders for group in holder.groups[holder.n_resident :]]
        if not (is_due or streamed):
            return
        workers = listed_workers(self._client, TAKING)
        if min(len(workers), self._n_bytes.size) <= self._n_worker:
            if is_due:
                self._spread_s = time.monotonic() + _SPREAD_S
        elif streamed and self._fit(
            streamed, len(set(workers) - {holder.worker for holder in self._holders})
        ):
            # First, so that the rest is right if one is found lost.
            self._holders = [
                replace(holder, groups=holder.groups[: holder.n_resident])
                for holder in self._holders
                if holder.n_resident
            ]
            self._ask("stop_streaming")
        elif is_due:
            self.close()

    def _fit(self, groups: Sequence[int], n_worker: int) -> bool:
        """Return whether so many workers without any rows could keep some groups."""
        if not n_worker:
            return False
        n_bytes = self._n_bytes[sorted(groups)]
        shares = np.bincount(owners(n_bytes, n_worker), n_bytes, minlength=n_worker)
        return self._room is None or bool(shares.max() <= self._room.alone)

    def _build(self) -> None:
        """Give the groups that nobody has to workers without any; if there are none, share everything out anew."""
        begin_s = time.monotonic()
        want(self._client, len(self._n_bytes))
        # As many as before, if they come back soon: rows that go to fewer workers stay with them for a while.
        n_worker, wait_s = self._n_worker, _COME_BACK_S
        if isinstance(self._client, SupervisedClient) and self._client.supervision is not None:
            n_worker, wait_s = max(n_worker, self._client.supervision.n_soon()), _JOB_COMES_BACK_S
        n_worker = min(n_worker, self._n_bytes.size)
        workers = list(known_workers(self._client, n_worker, wait_s, TAKING))
        # One that takes nothing any more still answers for what it has.
        there = {*workers, *listed_workers(self._client)}
        self._n_worker, self._addresses = len(workers), sorted(there)
        self._holders = [holder for holder in self._holders if holder.worker in there]
        self._dropped = [holder for holder in self._dropped if holder.worker in there]
        free = [worker for worker in workers if worker not in {holder.worker for holder in self._holders}]
        if not free:
            self.close()
            free = workers
        self._free_memory()
        orphans = np.array(self._orphans())
        owner = owners(self._n_bytes[orphans], len(free))
        futures: list[tuple[Any, str, list[int], int]] = []
        for number, worker in enumerate(free):
            groups = [int(group) for group in orphans[owner == number]]
            if groups:
                n_resident = self._n_resident(groups)
                future = self._client.submit(
                    RowsActor,
                    self._load,
                    groups,
                    n_resident,
                    actor=True,
                    workers=[worker],
                    # The worker may have left since it was listed: elsewhere it shows at once.
                    allow_other_workers=True,
                    pure=False,
                    retries=0,
                )
                futures.append((future, worker, groups, n_resident))
        new = []
        for future, worker, groups, n_resident in futures:
            actor = self._made(future, worker)
            if actor._address != worker:
                # Where it is now there may be as many rows as there is room for.
                raise RuntimeError("a worker left before it had its rows")
            new.append(_Holder(worker, tuple(groups), n_resident, actor, future))
        self._holders = [*self._holders, *new]
        n_streamed = sum(len(holder.groups) - holder.n_resident for holder in self._holders)
        if n_streamed:
            _LOG.warning(
                "%d of %d groups of tiles do not fit into the workers that are there, and are loaded for every answer",
                n_streamed, self._n_bytes.size,
            )  # fmt: skip
        self._ask("load", new=new)
        now_s = time.monotonic()
        self._spread_s = now_s + max(_SPREAD_S, _SPREAD_LOADS * (now_s - begin_s))

    def _n_resident(self, groups: Sequence[int]) -> int:
        """Return how many of a worker's groups, from the first, it has room for."""
        n_bytes = np.cumsum(self._n_bytes[list(groups)])
        if self._room is None or n_bytes[-1] <= self._room.alone:
            return len(groups)
        return int(np.searchsorted(n_bytes, self._room.beside_streams, side="right"))

    def _made(self, future: Any, worker: str) -> Any:
        """Return an actor when it is there, looking now and then whether its worker is left.

        Dask never makes an actor that it was told of when it had no worker: its scheduler refuses to move one on.
        """
        # An actor speaks through the current client: with another one's certificate it would get no answer.
        with self._client.as_current():
            while True:
                try:
                    return future.result(timeout=_LOOK_S)
                except TimeoutError:
                    if future.done():
                        return future.result()  # it came, or failed, between the two lines
                    if worker not in known_workers(self._client, states=TAKING):
                        raise RuntimeError("a worker left before it had its rows") from None


def _wait(answer: Any, future: Any) -> Any:
    """Return an actor's answer, looking now and then whether the actor is still there.

    An answer that was on its way when its worker died sometimes never comes, nor any error.
    """
    while True:
        try:
            return answer.result(timeout=_LOOK_S)
        except TimeoutError:
            if answer.done():
                return answer.result()  # it came between the two lines
            if future.status != "finished":
                raise RuntimeError(f"a worker with resident tiles was lost ({future.status})") from None
