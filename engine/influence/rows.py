"""Tiles by rows: what an optimiser worker holds of the influence matrix, and the two products.

A `RowGroup` covers consecutive bricks for one scenario: their tiles of all beamlet blocks, brick by brick, and inside
a brick block by block, so that both products walk through memory once.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from engine._vector import aligned, aligned_zeros
from engine.geometry.bricks import MINI_SIZE
from engine.influence.products import add_adjoint, add_dose, add_rise
from engine.model.arrays import F32, F64, I32, I64, U16, Bool
from engine.model.influence import Tile, TileColumn


@dataclass(frozen=True)
class RowGroup:
    """The rows of some consecutive bricks in one scenario.

    Parameters
    ----------
    first_brick, n_brick
        The bricks.
    brick_size
        Rows of one brick.
    brick_begin
        First segment of every brick and, last, their number, shape (n_brick + 1,).
    beamlet
        Beamlet of every segment, numbered over all beams, shape (n_segment,).
    scale
        Gy per weight of one count, shape (n_segment,).
    segment_begin
        First mini-block of every segment and, last, their number, shape (n_segment + 1,).
    mini, value
        Mini-block numbers (n_mini,) and counts (n_mini, 8); in a segment, every mini-block at most once.
    """

    first_brick: int
    n_brick: int
    brick_size: int
    brick_begin: I64
    beamlet: I32
    scale: F32
    segment_begin: I64
    mini: U16
    value: U16

    @property
    def n_row(self) -> int:
        """Rows of the group."""
        return self.n_brick * self.brick_size

    @property
    def n_bytes(self) -> int:
        """Bytes of all arrays."""
        return sum(
            a.nbytes
            for a in (self.brick_begin, self.beamlet, self.scale, self.segment_begin, self.mini, self.value)
        )

    @property
    def n_mini_row(self) -> int:
        """Mini-blocks of the group's rows, whether any beamlet reaches them or not."""
        return self.n_row // MINI_SIZE

    def dose(self, weight: F64, wanted: Bool | None = None) -> F64:
        """Return the dose on the group's rows for the weights of all beamlets.

        Parameters
        ----------
        weight
            Weights, shape (n_beamlet,), or several sets of them, shape (n, n_beamlet): several take less time at once
            than one after the other, and give the same bits.
        wanted
            Of which mini-blocks each set's dose is wanted, shape (n, n_mini_row); all, if it is not given. The others
            have 0, and most of what they have in the tiles is not read.

        Returns
        -------
        array
            Dose in Gy, shape (n_row,) or (n, n_row).
        """
        weights = np.ascontiguousarray(np.atleast_2d(weight), dtype=np.float64)
        dose_gy = aligned_zeros((weights.shape[0], self.n_row))
        everything = wanted is None
        if wanted is None:
            wanted = np.ones((weights.shape[0], self.n_mini_row), dtype=np.bool_)
        add_dose(
            self.brick_begin, self.beamlet, self.scale, self.segment_begin, self.mini, self.value,
            self.brick_size, weights, wanted, dose_gy,
        )  # fmt: skip
        if not everything:
            # Of those read beside others there is a part of the dose.
            dose_gy.reshape(-1, MINI_SIZE)[~wanted.reshape(-1)] = 0.0
        return dose_gy.reshape(*weight.shape[:-1], self.n_row)

    def most_rise_gy(self, change: F64) -> F64:
        """Return what a change of the weights, shape (n_beamlet,), can raise any dose of each brick by, (n_brick,).

        Only the largest entry of every segment counts, so this takes a few per cent of a product.
        """
        rise_gy = np.zeros(self.n_brick)
        add_rise(self.brick_begin, self.beamlet, self.scale, np.maximum(change, 0.0), rise_gy)
        return rise_gy

    def add_adjoint(self, row_gradient: F64, weight_gradient: F64) -> None:
        """Add the product of the transposed matrix with ``row_gradient`` to ``weight_gradient``.

        Shapes are (n_row,) and (n_beamlet,), or (n, n_row) and (n, n_beamlet) for several at once. Counts of
        mini-blocks where ``row_gradient`` is 0 are not read.
        """
        add_adjoint(
            self.brick_begin, self.beamlet, self.scale, self.segment_begin, self.mini, self.value,
            self.brick_size, aligned(np.atleast_2d(row_gradient)), np.atleast_2d(weight_gradient),
        )  # fmt: skip


def rows_of_columns(
    columns: Sequence[tuple[int, TileColumn]], first_brick: int, n_brick: int, brick_size: int
) -> RowGroup:
    """Cut the rows of some bricks out of tile columns.

    Parameters
    ----------
    columns
        Pairs of the number, over all beams, of a block's first beamlet and the block's tiles; in beamlet order.
    first_brick, n_brick
        The bricks.
    brick_size
        Rows of one brick.
    """
    return rows_of_tiles(
        [(first, column.tiles()) for first, column in columns], first_brick, n_brick, brick_size
    )


def rows_of_tiles(
    tiles: Sequence[tuple[int, Iterable[Tile]]], first_brick: int, n_brick: int, brick_size: int
) -> RowGroup:
    """Put the tiles of some bricks together.

    Parameters
    ----------
    tiles
        Pairs of the number, over all beams, of a first beamlet and the tiles of it and the beamlets after it; in
        beamlet order. Tiles of other bricks are passed over.
    first_brick, n_brick
        The bricks.
    brick_size
        Rows of one brick.
    """
    by_brick: list[list[tuple[int, Tile]]] = [[] for _ in range(n_brick)]
    for first_beamlet, of_block in tiles:
        for tile in of_block:
            if first_brick <= tile.brick < first_brick + n_brick:
                by_brick[tile.brick - first_brick].append((first_beamlet, tile))
    brick_begin = np.zeros(n_brick + 1, dtype=np.int64)
    beamlet, scale, size = [np.empty(0, np.int32)], [np.empty(0, np.float32)], [np.zeros(1, np.int64)]
    mini, value = [np.empty(0, np.uint16)], [np.empty((0, MINI_SIZE), np.uint16)]
    for brick, here in enumerate(by_brick):
        n_segment = 0
        for first_beamlet, tile in here:
            of_beamlet = np.diff(tile.begin)
            filled = np.flatnonzero(of_beamlet)
            n_segment += filled.size
            beamlet.append((first_beamlet + filled).astype(np.int32))
            scale.append(tile.scale[filled])
            size.append(of_beamlet[filled])
            part = slice(int(tile.begin[0]), int(tile.begin[-1]))
            mini.append(tile.mini[part])
            value.append(tile.value[part])
        brick_begin[brick + 1] = brick_begin[brick] + n_segment
    return RowGroup(
        first_brick,
        n_brick,
        brick_size,
        brick_begin,
        np.concatenate(beamlet),
        np.concatenate(scale),
        np.cumsum(np.concatenate(size)),
        np.concatenate(mini),
        np.concatenate(value),
    )


def rows_within(
    columns: Sequence[tuple[int, TileColumn]], bricks: I64, keep: Bool, brick_size: int
) -> RowGroup:
    """Cut some mini-blocks of some bricks out of tile columns.

    The rows are numbered brick by brick, in the order of ``bricks``: the group's first brick is 0.

    Parameters
    ----------
    columns
        As for `rows_of_columns`.
    bricks
        The bricks, shape (n_brick,).
    keep
        Which mini-blocks of each are wanted, shape (n_brick, mini-blocks of a brick).
    brick_size
        Rows of one brick.
    """
    place_of = {int(brick): place for place, brick in enumerate(bricks)}

    def chosen(column: TileColumn) -> Iterator[Tile]:
        for tile in column.tiles():
            place = place_of.get(tile.brick)
            if place is not None:
                yield _some_of(tile, place, keep[place])

    return rows_of_tiles([(first, chosen(column)) for first, column in columns], 0, bricks.size, brick_size)


def _some_of(tile: Tile, brick: int, keep: Bool) -> Tile:
    """Return the wanted mini-blocks of a tile, as those of another brick."""
    part = slice(int(tile.begin[0]), int(tile.begin[-1]))
    wanted = keep[tile.mini[part]]
    n_before = np.concatenate([[0], np.cumsum(wanted)])
    begin = n_before[tile.begin - tile.begin[0]]
    return Tile(brick, begin, tile.scale, tile.mini[part][wanted], tile.value[part][wanted])


def rows_bytes(n_mini: int, n_segment: int) -> int:
    """Return the bytes of a `RowGroup` with so many mini-blocks and segments."""
    return n_mini * (2 + 2 * MINI_SIZE) + n_segment * (4 + 4 + 8)


def share_out(work_per_brick: I64, n_group: int) -> list[tuple[int, int]]:
    """Cut the bricks into at most ``n_group`` consecutive groups of about equal work.

    Depends on the problem alone, never on the workers, so that sums over groups are always formed in one way.

    Parameters
    ----------
    work_per_brick
        Mini-blocks of every brick, over all scenarios, shape (n_brick,).
    n_group
        Wanted number of groups.

    Returns
    -------
    list
        ``(first_brick, n_brick)`` of every group with work, covering all bricks that have any.
    """
    total = int(work_per_brick.sum())
    if total == 0:
        return []
    done = np.cumsum(work_per_brick)
    edges = np.searchsorted(done, total * np.arange(1, n_group) / n_group)
    edges = np.unique(np.concatenate([[0], edges + 1, [work_per_brick.size]]))
    return [(int(a), int(b - a)) for a, b in pairwise(edges) if work_per_brick[a:b].sum() > 0]


def owners(n_bytes: I64, n_worker: int) -> I64:
    """Return which worker gets each group, shape (n_group,).

    Consecutive groups for each, because tiles are stored by brick and are read in slices; a group goes where its middle
    lies.
    """
    middle = (np.cumsum(n_bytes) - 0.5 * n_bytes) / max(1, int(n_bytes.sum()))
    owner: I64 = np.clip((middle * n_worker).astype(np.int64), 0, n_worker - 1)
    return owner
