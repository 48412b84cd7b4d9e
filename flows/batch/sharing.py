"""How the jobs that run at once share this machine's workers, or are given a cluster."""

import os
from collections.abc import Collection
from dataclasses import dataclass

from cluster.memory import worker_limit
from flows.run import Computing

_GIB = 1 << 30


@dataclass(frozen=True)
class Share:
    """What one job computes with.

    Parameters
    ----------
    n_worker
        Workers on this machine; 0 if it computes elsewhere.
    of_machine
        Which part of this machine's workers they are.
    options
        The same as options of the command line.
    """

    n_worker: int
    of_machine: float
    options: tuple[str, ...]


class Sharing:
    """Shares workers out; elsewhere every job has a cluster of its own, or all have one scheduler.

    Parameters
    ----------
    computing
        Where the batch computes; workers are those of all jobs together.
    n_at_once
        Jobs that may run at once.
    """

    def __init__(self, computing: Computing, n_at_once: int) -> None:
        self._computing, self._n_at_once = computing, n_at_once
        self._is_local = computing.cluster == "local"
        self.n_worker = computing.n_worker or len(os.sched_getaffinity(0))
        if self._is_local:
            given = None if computing.memory_gib is None else int(computing.memory_gib * _GIB)
            # Asked once, when nothing runs: what is free later is what the jobs leave over.
            self._memory_gib = worker_limit(None, max(self.n_worker, n_at_once), given) / _GIB

    def for_one_more(self, running: Collection[Share], n_waiting: int) -> Share:
        """Return what the next job gets.

        Parameters
        ----------
        running
            What the running ones have.
        n_waiting
            Jobs that wait, this one among them; the last ones of a night get the workers of those that will not come.
        """
        if not self._is_local:
            return Share(0, 0.0, self.by_hand())
        n_place = max(1, min(self._n_at_once - len(running), n_waiting))
        n_free = self.n_worker - sum(share.n_worker for share in running)
        # The first ones get what does not divide.
        n_worker = max(1, -(-n_free // n_place))
        options = (
            *("--workers", str(n_worker)),
            *("--threads", str(self._computing.n_thread)),
            *("--memory", f"{self._memory_gib:.3f}"),
        )
        return Share(n_worker, n_worker / max(self.n_worker, self._n_at_once), options)

    def by_hand(self) -> tuple[str, ...]:
        """Return the options that the batch was given, for a command that works on one job alone or on all."""
        where, default = self._computing, Computing()
        given = {
            "--cluster": (where.cluster, default.cluster),
            "--workers": (where.n_worker, default.n_worker),
            "--threads": (where.n_thread, default.n_thread),
            "--memory": (where.memory_gib, default.memory_gib),
        }
        return tuple(
            text for name, (value, usual) in given.items() if value != usual for text in (name, str(value))
        )
