"""Pieces of tasks: all parts once, some seconds each, even at the end, smaller where memory is short."""

from dataclasses import dataclass, replace
from typing import Any

import pytest

from cluster.pieces import TARGET_S, Divisible, Piece, Supply


@dataclass(frozen=True)
class Parts:
    """A task of numbered parts."""

    parts: tuple[int, ...]
    n_at_once: int = 1

    @property
    def n_part(self) -> int:
        return len(self.parts)

    def piece(self, begin: int, end: int) -> "Parts":
        return replace(self, parts=self.parts[begin:end])


def drained(supply: Supply, n_thread: int, part_s: float) -> list[Piece]:
    pieces = []
    while supply:
        piece = supply.next(n_thread, 0)
        assert piece is not None
        pieces.append(piece)
        supply.done(piece, part_s * piece.n_part)
    return pieces


@pytest.mark.parametrize("part_s", [1e-5, 0.01, 0.3, 2.0, 20.0])
def test_every_part_is_given_out_once_whatever_it_takes(part_s: float) -> None:
    tasks: list[Any] = [Parts(tuple(range(0, 700))), "whole", Parts(tuple(range(700, 1000)), 12)]
    pieces = drained(Supply(tasks), 4, part_s)
    assert sorted(n for p in pieces if isinstance(p.task, Parts) for n in p.task.parts) == list(range(1000))
    assert [p.task for p in pieces if not isinstance(p.task, Divisible)] == ["whole"]


def test_pieces_last_some_seconds() -> None:
    seconds = [0.05 * p.n_part for p in drained(Supply([Parts(tuple(range(20000)), 12)]), 4, 0.05)]
    assert max(seconds) <= TARGET_S
    assert sum(s > TARGET_S / 2 for s in seconds) > 0.8 * len(seconds)


def test_all_threads_have_several_pieces_even_if_that_makes_them_short() -> None:
    # 8 s of work for 4 threads: not three pieces.
    pieces = drained(Supply([Parts(tuple(range(80)))]), 4, 0.1)
    assert len(pieces) >= 16


def test_pieces_become_shorter_towards_the_end_but_not_shorter_than_worthwhile() -> None:
    seconds = [0.01 * p.n_part for p in drained(Supply([Parts(tuple(range(4000)))]), 2, 0.01)]
    assert seconds[-2] == pytest.approx(0.5)
    assert max(seconds) > 2.0


def test_pieces_are_whole_rounds_of_what_is_in_memory_at_a_time() -> None:
    pieces = drained(Supply([Parts(tuple(range(1200)), 12)]), 2, 0.02)
    assert len({p.n_part for p in pieces}) > 1
    assert all(p.n_part % 12 == 0 for p in pieces)


def test_a_piece_that_took_no_time_does_not_lead_to_one_that_takes_for_ever() -> None:
    supply = Supply([Parts(tuple(range(1000)))])
    first = supply.next(1, 0)
    assert first is not None
    supply.done(first, 0.0)  # somebody else had published it
    second = supply.next(1, 0)
    assert second is not None
    assert second.n_part <= 4 * first.n_part


def test_a_piece_that_needed_too_much_memory_comes_back_in_smaller_ones_and_the_others_stay_small() -> None:
    supply = Supply([Parts(tuple(range(48)), 12)])
    first = supply.next(1, 0)
    assert first is not None
    assert first.n_part == 12
    assert supply.smaller(first)
    assert [p.task.parts for p in drained(supply, 1, 0.001)] == [
        tuple(range(begin, begin + 6)) for begin in range(0, 48, 6)
    ]


def test_one_part_cannot_be_made_smaller() -> None:
    supply = Supply([Parts((1,)), "whole"])
    pieces = [supply.next(1, 0), supply.next(1, 0)]
    assert [supply.smaller(piece) for piece in pieces if piece] == [False, False]


def test_a_suspect_runs_when_nothing_else_does() -> None:
    supply = Supply(["suspect"])
    piece = supply.next(1, 0)
    assert piece is not None
    supply.alone(piece)
    assert supply.next(1, 1) is None
    assert supply.next(1, 0) is piece
    assert piece.is_alone
