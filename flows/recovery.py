"""What to do when a stored result turns out to be damaged: put it aside and go through the stages again."""

from collections.abc import Callable
from typing import TypeVar

from engine.errors import DamagedObjectError
from flows.run import Run

R = TypeVar("R")
_MAX_DAMAGED = 1000


def until_whole(run: Run, work: Callable[[], R]) -> R:
    """Return ``work()``; each damaged object it meets is discarded, named, and made again by starting over.

    Stages that are done cost look-ups only, so starting over is cheap.
    """
    for _ in range(_MAX_DAMAGED):
        try:
            return work()
        except DamagedObjectError as error:
            run.reporter.say(f"{error}; making it again")
            run.store.discard(error.kind, error.digest)
    return work()
