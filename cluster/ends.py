"""Why a worker ended: what tells a task that kills its workers from one that was merely there when they had to go."""

from dataclasses import dataclass
from typing import Literal, Protocol

Cause = Literal["memory", "died", "left", "unknown"]
"""``memory``: killed because it used more than it may. ``died``: ended by itself or by a signal, which the task may be
to blame for. ``left``: its job ended (walltime, pre-emption, cancelled, node gone), which the task is not to blame for.
"""


@dataclass(frozen=True)
class WorkerEnd:
    """The end of one worker.

    Parameters
    ----------
    address
        Dask's address of the worker.
    cause
        What ended it.
    words
        What people need to know of it: signal or exit status, last words, state of its job.
    peak_bytes, limit_bytes
        Memory that it used at most, and that it might use; None where that is not known.
    """

    address: str
    cause: Cause
    words: str
    peak_bytes: int | None = None
    limit_bytes: int | None = None


class Ends(Protocol):
    """Knows why workers ended."""

    def why(self, address: str) -> WorkerEnd | None:
        """Return why the worker at an address ended, or None if that is not known (or not yet)."""
        ...
