"""What to do when a stored result turns out to be damaged, or the cluster is lost: go through the stages again."""

from collections.abc import Callable
from typing import TypeVar

from engine.errors import ClusterError, DamagedObjectError, SchedulerLostError
from flows.run import Run

R = TypeVar("R")
_MAX_DAMAGED = 1000
_MAX_LOST = 3


def until_whole(run: Run, work: Callable[[], R]) -> R:
    """Return ``work()``; starts over, on another cluster or without a damaged object, as often as that helps.

    Each damaged object is discarded, named, and made again. Stages that are done cost look-ups only, and a solve goes
    on where it was, so starting over is cheap.

    Raises
    ------
    ClusterError
        If schedulers are lost again and again without any progress in between, or a cluster cannot be started.
    """
    n_damaged = n_lost = 0
    done_at_loss = run.reporter.n_done
    while True:
        try:
            return work()
        except DamagedObjectError as error:
            n_damaged += 1
            if n_damaged > _MAX_DAMAGED:
                raise
            run.reporter.say(f"{error}; making it again")
            run.store.discard(error.kind, error.digest)
        except SchedulerLostError as error:
            why = run.lose_cluster(error)
            n_lost = n_lost + 1 if run.reporter.n_done == done_at_loss else 1
            done_at_loss = run.reporter.n_done
            if n_lost > _MAX_LOST:
                raise ClusterError(
                    f"{why}: that is {n_lost} times without any progress in between; find out what ends it, "
                    "then the same command goes on where this one was"
                ) from error
            run.reporter.say(f"{why}; going on from what is in the store, on another one")
