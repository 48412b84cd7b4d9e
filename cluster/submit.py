"""Run many tasks on a cluster: a bounded number in flight, each released as it completes, attempts counted here.

Futures that are all held to the end keep results on workers that may leave; with `as_completed` and release, a task
that is done is done. A task's own error ends the run at once; a lost worker only costs another attempt.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from distributed import CancelledError, Client, KilledWorker, as_completed
from distributed.comm.core import CommClosedError

from cluster.workers import known_workers, lost_scheduler_told, require_scheduler, want
from engine.errors import ClusterError

T = TypeVar("T")
R = TypeVar("R")

_IN_FLIGHT_PER_THREAD = 3
_POLL_S = 0.01
_LOOK_S = 1.0
_MAX_ATTEMPTS = 5
_ATTEMPTS_IN_COMPANY = 2
"""A task that was lost this often runs alone at the end, so that the one that kills its worker is known by name."""


def run_tasks(
    client: Client,
    function: Callable[[T], R],
    tasks: Sequence[T],
    on_done: Callable[[int], None] = lambda _: None,
) -> list[R]:
    """Return ``function(task)`` for every task, in the order of ``tasks``.

    Parameters
    ----------
    client
        The cluster.
    function
        Importable by name on the workers; returns a small record, its result proper goes to the store.
    tasks
        Small picklable arguments.
    on_done
        Called with the task's number after each completion.

    Raises
    ------
    ClusterError
        If workers were lost five times with the same task, or all workers are gone and none comes back.
    SchedulerLostError
        If the scheduler is gone.
    """
    with lost_scheduler_told(client):
        return _run_tasks(client, function, tasks, on_done)


def _run_tasks(
    client: Client, function: Callable[[T], R], tasks: Sequence[T], on_done: Callable[[int], None]
) -> list[R]:
    results: dict[int, R] = {}
    attempts = [0] * len(tasks)
    waiting = list(reversed(range(len(tasks))))
    alone: list[int] = []
    in_flight: dict[Any, int] = {}
    done: Any = as_completed(loop=client.loop, raise_errors=False)  # type: ignore[no-untyped-call]

    def submit(number: int) -> None:
        attempts[number] += 1
        future = client.submit(function, tasks[number], pure=False, retries=0)
        in_flight[future] = number
        done.add(future)

    crew = _Crew(client)
    try:
        while waiting or alone or in_flight:
            want(client, len(waiting) + len(alone) + len(in_flight))
            while waiting and len(in_flight) < crew.n_task:
                submit(waiting.pop())
            if alone and not in_flight:
                submit(alone.pop())
            future = _next_done(done, crew)
            if future is None:
                continue
            number = in_flight.pop(future)
            try:
                results[number] = future.result()
                on_done(number)
            except (KilledWorker, CancelledError, CommClosedError) as error:
                require_scheduler(client, error)
                if attempts[number] >= _MAX_ATTEMPTS:
                    raise ClusterError(
                        f"workers were lost {_MAX_ATTEMPTS} times while they ran the same task "
                        f"({tasks[number]!r:.200}); it probably needs more memory than a worker has"
                    ) from error
                (waiting if attempts[number] < _ATTEMPTS_IN_COMPANY else alone).append(number)
            finally:
                future.release()
    finally:
        # After an error: what is still queued would only keep the workers from what comes next.
        if in_flight and client.status == "running":
            client.cancel(list(in_flight))  # type: ignore[no-untyped-call]
    return [results[number] for number in range(len(tasks))]


class _Crew:
    """How many tasks to have in flight: looked up now and then, as workers join and leave."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._look()

    def _look(self) -> None:
        n_thread = sum(known_workers(self._client).values())
        self._n_task, self._look_s = n_thread * _IN_FLIGHT_PER_THREAD, time.monotonic() + _LOOK_S

    @property
    def n_task(self) -> int:
        """Tasks to have in flight."""
        if time.monotonic() > self._look_s:
            self._look()
        return self._n_task


def _next_done(done: Any, crew: _Crew) -> Any:
    """Return the next future that is done, or None if there may be room for more before one is."""
    n_task = crew.n_task
    while not done.has_ready():
        time.sleep(_POLL_S)
        if crew.n_task > n_task:
            return None
    return next(done)
