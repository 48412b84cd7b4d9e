"""The workers that a scheduler knows, and what to do when there are none, or no scheduler."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from distributed import Client

from engine.errors import ClusterError, NightbeamError, SchedulerLostError

WORKER_WAIT_S = 60.0
"""How long a cluster may be without any worker before a run ends: local workers restart in some seconds."""
_ANSWER_S = 20.0
"""How long a scheduler that we are connected to may take to answer."""
TAKING = frozenset({"running"})
"""States of workers that take tasks. What is meant for one that has only just come goes to another one."""
_THERE = TAKING | {"paused", "closing_gracefully"}
"""The same, and those that still finish what they do."""


class Supervision(Protocol):
    """Whoever looks after the workers of a cluster, beyond this machine."""

    def expects_workers(self) -> str:
        """Return what workers are waited for, in words; raises a `ClusterError` if none will come."""
        ...

    def want(self, n_task: int) -> None:
        """Take in how many tasks could be done at the same time, if there were workers for them."""
        ...

    def n_soon(self) -> int:
        """Return how many workers there are, or will be in some seconds."""
        ...


class SupervisedClient(Client):
    """A client of a cluster whose workers somebody looks after."""

    supervision: Supervision | None = None
    wait_s: float = math.inf
    """How long a worker is waited for where somebody looks after them."""


def want(client: Client, n_task: int) -> None:
    """Say how many tasks could be done at the same time, where the number of workers follows it."""
    if isinstance(client, SupervisedClient) and client.supervision is not None:
        client.supervision.want(n_task)


@contextmanager
def lost_scheduler_told(client: Client) -> Iterator[None]:
    """Turn whatever goes wrong because the scheduler is gone into a `SchedulerLostError`."""
    try:
        yield
    except NightbeamError:
        raise
    except Exception as error:
        require_scheduler(client, error)
        raise


def require_scheduler(client: Client, cause: Exception | None = None) -> None:
    """Raise if the connection to the scheduler is lost.

    Raises
    ------
    SchedulerLostError
        If so; a client that is connected again has lost all its futures.
    """
    if client.status != "running":
        raise SchedulerLostError("the connection to the Dask scheduler was lost") from cause


def known_workers(
    client: Client, n_wanted: int = 1, wait_s: float | None = None, states: frozenset[str] = _THERE
) -> dict[str, int]:
    """Return address and number of threads of all workers, sorted; where the last one has left, wait for the next.

    Parameters
    ----------
    client
        The cluster.
    n_wanted
        Workers to wait for: when time is up, fewer will do, but not none.
    wait_s
        How long to wait for more workers than one; never longer than for the first.
    states
        Workers in other states do not count.

    Raises
    ------
    ClusterError
        If no worker comes: for a minute, or where jobs are submitted for them, ever, or for as long as the client says.
    SchedulerLostError
        If the scheduler is gone.
    """
    begin_s = time.monotonic()
    while True:
        workers = listed_workers(client, states)
        waited_s = time.monotonic() - begin_s
        if len(workers) >= max(1, n_wanted) or (workers and waited_s > (wait_s or 0.0)):
            return dict(sorted(workers.items()))
        if isinstance(client, SupervisedClient) and client.supervision is not None:
            # Jobs may wait in a queue for hours: as long as some will come, they are waited for.
            why = client.supervision.expects_workers()
            if not workers and waited_s > client.wait_s:
                raise ClusterError(
                    f"no worker came within {client.wait_s:g} s: {why}; mend the SLURM file, or give them longer with "
                    "--wait"
                )
        elif not workers and waited_s > WORKER_WAIT_S:
            raise ClusterError(
                f"the cluster has been without workers for {WORKER_WAIT_S:g} s (they were killed, or their time is "
                "up); look at their logs, start some, and start again: what is finished is kept"
            )
        time.sleep(0.1)


def listed_workers(client: Client, states: frozenset[str] = _THERE) -> dict[str, int]:
    """Return address and number of threads of the workers that there are now, in some states; perhaps none.

    Raises
    ------
    SchedulerLostError
        If the scheduler is gone.
    """
    return {
        address: int(told["nthreads"])
        for address, told in _ask_scheduler(client).items()
        if told["status"] in states
    }


def working_on(client: Client) -> dict[str, str]:
    """Return, for every task that the scheduler has given to a worker, by its key, the worker's address.

    Raises
    ------
    SchedulerLostError
        If the scheduler is gone.
    """
    return {key: address for address, keys in _ask(client, "processing").items() for key in keys}


def _ask_scheduler(client: Client) -> dict[str, Any]:
    workers: dict[str, Any] = _ask(client, "identity", n_workers=-1)["workers"]
    return workers


def _ask(client: Client, what: str, **arguments: Any) -> Any:
    require_scheduler(client)
    try:
        question: Any = getattr(client.scheduler, what)
        return client.sync(question, callback_timeout=_ANSWER_S, **arguments)  # type: ignore[no-untyped-call]
    except (OSError, TimeoutError) as error:
        raise SchedulerLostError(
            f"the Dask scheduler does not answer ({str(error) or type(error).__name__})"
        ) from error
