"""Run many tasks on a cluster: a bounded number in flight, each released as it completes, attempts counted here.

Futures that are all held to the end keep results on workers that may leave; with `as_completed` and release, a task
that is done is done. A task's own error ends the run at once; what a lost worker costs, `cluster.losses` says.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from distributed import CancelledError, Client, KilledWorker, as_completed
from distributed.comm.core import CommClosedError

from cluster.ends import Ends, WorkerEnd
from cluster.losses import Losses
from cluster.pieces import Divisible, Piece, Supply
from cluster.workers import known_workers, lost_scheduler_told, require_scheduler, want, working_on

T = TypeVar("T")
R = TypeVar("R")

_IN_FLIGHT_PER_THREAD = 3
_POLL_S = 0.01
_LOOK_S = 1.0
_JUDGE_S = 0.1
_OLD_S = 10.0
"""What is in flight for so long is looked after: its workers may leave one after the other without a word."""


def run_tasks(
    client: Client,
    function: Callable[[T], R],
    tasks: Sequence[T],
    on_done: Callable[[int], None] = lambda _: None,
    ends: Ends | None = None,
) -> list[R]:
    """Return ``function(task)`` for every task, in the order of ``tasks``.

    Tasks that are `cluster.pieces.Divisible` are done piece by piece, and the results of their parts joined.

    Parameters
    ----------
    client
        The cluster.
    function
        Importable by name on the workers; returns a small record, its result proper goes to the store.
    tasks
        Small picklable arguments.
    on_done
        Called with the task's number after each completion; of a divisible task, once for each part.
    ends
        Who knows why workers ended; None if nobody does.

    Raises
    ------
    ClusterError
        If workers were lost too often with the same task, or it needs more memory than they have, or all workers are
        gone and none comes back.
    SchedulerLostError
        If the scheduler is gone.
    """
    with lost_scheduler_told(client):
        done = _run_pieces(client, function, tasks, on_done, ends)
    results: list[Any] = []
    for task, of_pieces in zip(tasks, done, strict=True):
        ordered = [of_pieces[begin] for begin in sorted(of_pieces)]
        results.append([r for part in ordered for r in part] if isinstance(task, Divisible) else ordered[0])
    return results


def _run_pieces(
    client: Client,
    function: Callable[[T], R],
    tasks: Sequence[T],
    on_done: Callable[[int], None],
    ends: Ends | None,
) -> list[dict[int, Any]]:
    """Return, for every task, the results of its pieces by their first part."""
    results: list[dict[int, Any]] = [{} for _ in tasks]
    supply = Supply(tasks)
    losses = Losses(supply, ends)
    in_flight: dict[Any, Piece] = {}
    done: Any = as_completed(loop=client.loop, raise_errors=False)  # type: ignore[no-untyped-call]
    crew, movers = _Crew(client), _Movers(client, losses)
    try:
        while supply or in_flight or losses:
            losses.judge()
            want(client, supply.n_left() + len(in_flight) + len(losses))
            while len(in_flight) < crew.n_thread * _IN_FLIGHT_PER_THREAD:
                piece = supply.next(crew.n_thread, len(in_flight) + len(losses))
                if piece is None:
                    break
                future = client.submit(_timed, function, piece.task, pure=False, retries=0)
                in_flight[future] = piece
                done.add(future)
            movers.watch(in_flight)
            future = _next_done(done, crew, _JUDGE_S if losses else _LOOK_S)
            if future is None:
                continue
            piece = in_flight.pop(future)
            try:
                results[piece.number][piece.begin], seconds = future.result()
                supply.done(piece, seconds)
                for _ in range(piece.n_part):
                    on_done(piece.number)
            except MemoryError as error:
                losses.settle(piece, WorkerEnd("", "memory", f"{type(error).__name__} {error}".strip()))
            except (KilledWorker, CancelledError, CommClosedError) as error:
                require_scheduler(client, error)
                losses.add(piece, error.last_worker.address if isinstance(error, KilledWorker) else "")
            finally:
                future.release()
    finally:
        # After an error: what is still queued would only keep the workers from what comes next.
        if in_flight and client.status == "running":
            client.cancel(list(in_flight))  # type: ignore[no-untyped-call]
    return results


def _timed(function: Callable[[T], R], task: T) -> tuple[R, float]:
    """Return the result of a task, and how many seconds it took: what runs on workers."""
    begin_s = time.monotonic()
    return function(task), time.monotonic() - begin_s


class _Crew:
    """How many threads there are: looked up now and then, as workers join and leave."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._look()

    def _look(self) -> None:
        self._n_thread, self._look_s = sum(known_workers(self._client).values()), time.monotonic() + _LOOK_S

    @property
    def n_thread(self) -> int:
        """Threads of all workers."""
        if time.monotonic() > self._look_s:
            self._look()
        return self._n_thread


class _Movers:
    """Looks after pieces that go from worker to worker, because each takes its leave before it has done them.

    The scheduler gives what such a worker had to another one, and tells nobody.
    """

    def __init__(self, client: Client, losses: Losses) -> None:
        self._client, self._losses = client, losses
        self._began_s: dict[Any, float] = {}
        self._at: dict[Any, str] = {}
        self._look_s = 0.0

    def watch(self, in_flight: dict[Any, Piece]) -> None:
        """Look where the pieces are that have been in flight for long.

        Raises
        ------
        ClusterError
            If one of them has been with too many workers that left.
        """
        now_s = time.monotonic()
        if now_s < self._look_s:
            return
        self._look_s = now_s + _LOOK_S
        self._began_s = {future: self._began_s.get(future, now_s) for future in in_flight}
        old = [future for future, began_s in self._began_s.items() if now_s > began_s + _OLD_S]
        at = working_on(self._client) if old else {}
        there = set(known_workers(self._client)) if old else set()
        for future in old:
            before = self._at.get(future)
            if before and before not in there:
                self._losses.count_left(in_flight[future], "it left by itself")
        self._at = {future: at.get(future.key, "") for future in old}


def _next_done(done: Any, crew: _Crew, wait_s: float) -> Any:
    """Return the next future that is done, or None if there may be something else to do before one is."""
    n_thread, limit_s = crew.n_thread, time.monotonic() + wait_s
    while not done.has_ready():
        time.sleep(_POLL_S)
        if crew.n_thread > n_thread or time.monotonic() > limit_s:
            return None
    return next(done)
