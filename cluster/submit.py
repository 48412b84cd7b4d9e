"""Run many tasks on a cluster: a bounded number in flight, each released as it completes, attempts counted here.

Futures that are all held to the end keep results on workers that may leave; with `as_completed` and release, a task
that is done is done. A task's own error ends the run at once; a lost worker only costs another attempt.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from distributed import Client, CancelledError, KilledWorker, as_completed
from distributed.comm import CommClosedError

from engine.errors import ClusterError

T = TypeVar("T")
R = TypeVar("R")

_IN_FLIGHT_PER_WORKER = 3
_MAX_ATTEMPTS = 5


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
        If workers were lost five times with the same task.
    """
    results: dict[int, R] = {}
    attempts = [0] * len(tasks)
    number_of: dict[str, int] = {}
    waiting = list(reversed(range(len(tasks))))
    done: Any = as_completed(loop=client.loop, raise_errors=False)

    def submit_next() -> None:
        number = waiting.pop()
        attempts[number] += 1
        future = client.submit(function, tasks[number], pure=False, retries=0)
        number_of[future.key] = number
        done.add(future)

    n_worker = max(1, len(client.scheduler_info(n_workers=-1)["workers"]))
    for _ in range(min(len(waiting), n_worker * _IN_FLIGHT_PER_WORKER)):
        submit_next()
    while number_of:
        future = next(done)
        number = number_of.pop(future.key)
        try:
            results[number] = future.result()
            on_done(number)
        except (KilledWorker, CancelledError, CommClosedError) as error:
            if attempts[number] >= _MAX_ATTEMPTS:
                raise ClusterError(
                    f"workers were lost {_MAX_ATTEMPTS} times while they ran the same task ({tasks[number]!r:.200}); "
                    "it probably needs more memory than a worker has"
                ) from error
            waiting.append(number)
        finally:
            future.release()
        if waiting:
            submit_next()
    return [results[number] for number in range(len(tasks))]
