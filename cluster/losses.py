"""What becomes of a piece of work whose worker was lost: that depends on why the worker ended.

A worker whose job ended costs nothing but time. One that ran out of memory has its piece done in smaller ones, or, if
it has but one part, alone, once. One that died for any other reason costs an attempt. Nothing is tried for ever.
"""

import time
from dataclasses import dataclass

from cluster.ends import Ends, WorkerEnd
from cluster.memory import gib
from cluster.pieces import Piece, Supply
from engine.errors import ClusterError, shortened

MAX_LOST = 5
"""Attempts that a piece has, if its workers die with it."""
MAX_LEFT = 20
"""The same, if they leave because their jobs end."""
_LOST_IN_COMPANY = 2
"""A piece that was lost this often runs alone at the end, so that the one that kills its worker is known by name."""
WHY_S = 20.0
"""How long to wait until somebody knows why a worker ended."""
LESS_MEMORY = "give workers more memory (fewer --workers or --threads, or larger jobs), or use coarser grids"


@dataclass
class _Loss:
    piece: Piece
    address: str
    lost_s: float


class Losses:
    """Pieces whose workers were lost, until it is known why.

    Parameters
    ----------
    supply
        Where they go back to.
    ends
        Who knows why workers ended; None if nobody does.
    """

    def __init__(self, supply: Supply, ends: Ends | None) -> None:
        self._supply, self._ends = supply, ends
        self._losses: list[_Loss] = []

    def __len__(self) -> int:
        return len(self._losses)

    def add(self, piece: Piece, address: str) -> None:
        """Take note of a piece that was lost with its worker."""
        self._losses.append(_Loss(piece, address, time.monotonic()))

    def judge(self) -> None:
        """Give back the pieces of which it is known why they were lost.

        Raises
        ------
        ClusterError
            If one of them is not worth another attempt.
        """
        waiting = []
        for loss in self._losses:
            end = self._ends.why(loss.address) if self._ends else None
            if end is None and self._ends and loss.address and time.monotonic() < loss.lost_s + WHY_S:
                waiting.append(loss)
            else:
                self.settle(loss.piece, end or WorkerEnd(loss.address, "unknown", ""))
        self._losses = waiting

    def settle(self, piece: Piece, end: WorkerEnd) -> None:
        """Give a piece back, knowing why it was lost.

        Raises
        ------
        ClusterError
            If it is not worth another attempt.
        """
        if end.cause == "left":
            self.count_left(piece, end.words)
            self._supply.again(piece)
        elif end.cause == "memory":
            self._settle_memory(piece, end)
        else:
            self._settle_death(piece, end)

    def count_left(self, piece: Piece, words: str) -> None:
        """Count that a piece was lost because the job of its worker ended.

        Raises
        ------
        ClusterError
            If that was too often.
        """
        piece.n_left += 1
        if piece.n_left < MAX_LEFT:
            return
        typical_s = self._supply.typical_s(piece)
        known = (
            f"it should take about {typical_s:.1f} s" if typical_s else "none of its kind was ever finished"
        )
        raise ClusterError(
            f"the jobs of {MAX_LEFT} workers in a row ended while they ran the same task ({name_of(piece)}; {known}; "
            f"the last one: {words or 'no reason known'}): tasks take longer than jobs last; give jobs a longer "
            "walltime, or a queue that does not pre-empt them"
        )

    def _settle_memory(self, piece: Piece, end: WorkerEnd) -> None:
        if self._supply.smaller(piece):
            return
        if not piece.is_alone:
            self._supply.alone(piece)
            return
        raise ClusterError(
            f"a task needs more memory than a worker has ({name_of(piece)}, alone and in its smallest piece): "
            f"{memory_words(end)}; {LESS_MEMORY}"
        )

    def _settle_death(self, piece: Piece, end: WorkerEnd) -> None:
        piece.n_lost += 1
        if piece.n_lost >= MAX_LOST:
            why = (
                f"the last one: {end.words}; it may be a defect of the program: report it with these words"
                if end.words
                else "it may need more memory than a worker has; look at the logs of the workers"
            )
            raise ClusterError(
                f"workers were lost {piece.n_lost} times while they ran the same task ({name_of(piece)}); {why}"
            )
        if piece.n_lost < _LOST_IN_COMPANY:
            self._supply.again(piece)
        else:
            self._supply.alone(piece)


def memory_words(end: WorkerEnd) -> str:
    """Return what is known of the memory of a worker that ran out of it."""
    used = f"it used {gib(end.peak_bytes)}" if end.peak_bytes else "what it used is not known"
    limit = f"may use {gib(end.limit_bytes)}" if end.limit_bytes else "has no limit of its own"
    return f"{used}, {limit} ({end.words})"


def name_of(piece: Piece) -> str:
    """Return what people call a piece."""
    return shortened(str(piece.task))
