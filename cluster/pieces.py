"""Pieces of tasks: how much of a task a worker is given at a time.

Tasks of several parts are cut while the work goes on, into pieces that last some seconds: long enough that sending them
costs nothing beside them, and short enough that little is lost with a worker and all are busy to the end. How long a
part takes is known from the pieces that are done. How a task is cut changes nothing in its results.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

TARGET_S = 3.0
"""How long a piece shall last at most."""
_LEAST_S = 0.5
"""How long it shall last at least, if there is so much left."""
_PIECES_PER_THREAD = 4
"""Of what is left each thread shall get so many pieces, so that all end at about the same time."""
_GROWTH = 4
"""A piece has at most so many times the parts of the largest that is done: what was quick may be an exception."""
_WEIGHT_OF_LAST = 0.3


@runtime_checkable
class Divisible(Protocol):
    """A task of several parts, for which the work gives a list of results, one for each."""

    @property
    def n_part(self) -> int:
        """How many parts it has."""
        ...

    @property
    def n_at_once(self) -> int:
        """How many of them are in memory at a time."""
        ...

    def piece(self, begin: int, end: int) -> Self:
        """Return a task of some of its parts."""
        ...


@dataclass(eq=False)
class Piece:
    """What a worker is given: some parts of a task, or a task that has none.

    Parameters
    ----------
    number
        Of the task.
    begin, end
        Its parts.
    task
        What is sent.
    n_lost, n_left
        How often its worker was lost with it, and how often because the worker's job ended.
    is_alone
        Whether it runs without any other.
    """

    number: int
    begin: int
    end: int
    task: Any
    n_lost: int = 0
    n_left: int = 0
    is_alone: bool = False

    @property
    def n_part(self) -> int:
        """How many parts it has."""
        return self.end - self.begin


class _Pace:
    """What is known of one kind of task."""

    def __init__(self) -> None:
        self.part_s: float | None = None
        self.n_uncut = 0
        self.n_largest = 0
        self.n_most: float = math.inf


class Supply:
    """Gives out the pieces of some tasks.

    Parameters
    ----------
    tasks
        Some of which may be `Divisible`.
    """

    def __init__(self, tasks: Sequence[Any]) -> None:
        self._tasks = tasks
        self._uncut = deque((number, 0) for number, task in enumerate(tasks) if n_part_of(task))
        self._again: list[Piece] = []
        self._alone: list[Piece] = []
        self._paces: dict[type, _Pace] = {}
        for task in tasks:
            self._paces.setdefault(type(task), _Pace()).n_uncut += n_part_of(task)

    def __bool__(self) -> bool:
        return bool(self._uncut or self._again or self._alone)

    def n_left(self) -> int:
        """Return about how many pieces of full size are not given out yet."""
        lengths_s = [(pace.n_uncut, pace.part_s) for pace in self._paces.values()]
        uncut = sum(n if part_s is None else math.ceil(n * part_s / TARGET_S) for n, part_s in lengths_s)
        return uncut + len(self._again) + len(self._alone)

    def next(self, n_thread: int, n_in_flight: int) -> Piece | None:
        """Return the next piece, or None if there is none, or none as long as others are in flight."""
        if self._again:
            return self._again.pop()
        if self._uncut:
            return self._cut_off(*self._uncut.popleft(), n_thread)
        if self._alone and not n_in_flight:
            piece = self._alone.pop()
            piece.is_alone = True
            return piece
        return None

    def done(self, piece: Piece, seconds: float) -> None:
        """Take note of how long a piece took."""
        pace = self._paces[type(piece.task)]
        part_s = max(seconds, 1e-6) / piece.n_part
        weight = 1.0 if pace.part_s is None else _WEIGHT_OF_LAST
        pace.part_s = weight * part_s + (1.0 - weight) * (pace.part_s or 0.0)
        pace.n_largest = max(pace.n_largest, piece.n_part)

    def typical_s(self, piece: Piece) -> float | None:
        """Return how long a piece should take, or None if that is not known."""
        part_s = self._paces[type(piece.task)].part_s
        return None if part_s is None else part_s * piece.n_part

    def again(self, piece: Piece) -> None:
        """Take a piece back, for another attempt."""
        self._again.append(piece)

    def alone(self, piece: Piece) -> None:
        """Take a piece back, for an attempt at the end, without any other."""
        self._alone.append(piece)

    def smaller(self, piece: Piece) -> bool:
        """Take a piece back that needed too much memory, in smaller ones; returns False if it has but one part."""
        if piece.n_part == 1:
            return False
        n = max(1, min(piece.n_part, piece.task.n_at_once) // 2)
        pace = self._paces[type(piece.task)]
        pace.n_most = min(pace.n_most, n)
        self._again.extend(
            self._piece(piece.number, begin, min(begin + n, piece.end))
            for begin in reversed(range(piece.begin, piece.end, n))
        )
        return True

    def _piece(self, number: int, begin: int, end: int) -> Piece:
        task = self._tasks[number]
        return Piece(number, begin, end, task.piece(begin, end) if isinstance(task, Divisible) else task)

    def _cut_off(self, number: int, begin: int, n_thread: int) -> Piece:
        task = self._tasks[number]
        end = min(begin + self._size(task, n_thread), n_part_of(task))
        self._paces[type(task)].n_uncut -= end - begin
        if end < n_part_of(task):
            self._uncut.appendleft((number, end))
        return self._piece(number, begin, end)

    def _size(self, task: Any, n_thread: int) -> int:
        if not isinstance(task, Divisible):
            return 1
        pace = self._paces[type(task)]
        if pace.part_s is None:
            return int(min(task.n_at_once, pace.n_most))
        left_s = sum(p.n_uncut * (p.part_s or 0.0) for p in self._paces.values())
        wanted_s = min(TARGET_S, max(_LEAST_S, left_s / (n_thread * _PIECES_PER_THREAD)))
        n = min(wanted_s / pace.part_s, pace.n_most, pace.n_largest * _GROWTH)
        # Whole rounds of what is in memory at a time.
        return max(1, int(n) if n < task.n_at_once else int(n) // task.n_at_once * task.n_at_once)


def n_part_of(task: Any) -> int:
    """Return how many parts a task has: one, if it is not divisible."""
    return task.n_part if isinstance(task, Divisible) else 1
