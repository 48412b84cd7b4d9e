"""Tiles by rows: what an optimiser worker holds of the influence matrix, and the two products.

A `RowGroup` covers consecutive bricks for one scenario: their tiles of all beamlet blocks, brick by brick, and inside
a brick block by block, so that both products walk through memory once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from engine._jit import kernel
from engine._vector import load, load_counts, spread, store, total
from engine.geometry.bricks import MINI_SIZE
from engine.model.arrays import F32, F64, I32, I64, U16
from engine.model.influence import TileColumn


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
        Mini-block numbers (n_mini,) and counts (n_mini, 8).
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

    def dose(self, weight: F64) -> F64:
        """Return the dose on the group's rows, shape (n_row,), for the weights of all beamlets."""
        dose_gy = np.zeros(self.n_row, dtype=np.float64)
        _forward(
            self.brick_begin, self.beamlet, self.scale, self.segment_begin, self.mini, self.value,
            self.brick_size, np.ascontiguousarray(weight), dose_gy,
        )  # fmt: skip
        return dose_gy

    def add_adjoint(self, row_gradient: F64, weight_gradient: F64) -> None:
        """Add the product of the transposed matrix with ``row_gradient`` (n_row,) to ``weight_gradient``."""
        _adjoint(
            self.brick_begin, self.beamlet, self.scale, self.segment_begin, self.mini, self.value,
            self.brick_size, np.ascontiguousarray(row_gradient), weight_gradient,
        )  # fmt: skip


@kernel
def _forward(
    brick_begin: I64, beamlet: I32, scale: F32, segment_begin: I64, mini: U16, value: U16,
    brick_size: int, weight: F64, dose_gy: F64,
) -> None:  # fmt: skip
    """Add every segment's dose to ``dose_gy``; the order of additions to a row is the order of segments."""
    for brick in range(brick_begin.size - 1):
        first = brick * brick_size
        for segment in range(brick_begin[brick], brick_begin[brick + 1]):
            gy = weight[beamlet[segment]] * scale[segment]
            if gy == 0.0:
                continue
            for i in range(segment_begin[segment], segment_begin[segment + 1]):
                row = first + np.int64(mini[i]) * 8
                store(dose_gy, row, load(dose_gy, row) + spread(gy) * load_counts(value, i * 8))


@kernel
def _adjoint(
    brick_begin: I64, beamlet: I32, scale: F32, segment_begin: I64, mini: U16, value: U16,
    brick_size: int, row_gradient: F64, weight_gradient: F64,
) -> None:  # fmt: skip
    """Add every segment's share of the transposed product to ``weight_gradient``, segment by segment."""
    for brick in range(brick_begin.size - 1):
        first = brick * brick_size
        for segment in range(brick_begin[brick], brick_begin[brick + 1]):
            found = spread(0.0)
            for i in range(segment_begin[segment], segment_begin[segment + 1]):
                row = first + np.int64(mini[i]) * 8
                found = found + load(row_gradient, row) * load_counts(value, i * 8)
            weight_gradient[beamlet[segment]] += total(found) * scale[segment]


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
    tiles: list[list[tuple[int, TileColumn, int]]] = [[] for _ in range(n_brick)]
    for first_beamlet, column in columns:
        begin, end = np.searchsorted(column.brick, [first_brick, first_brick + n_brick])
        for tile in range(begin, end):
            tiles[int(column.brick[tile]) - first_brick].append((first_beamlet, column, tile))
    brick_begin = np.zeros(n_brick + 1, dtype=np.int64)
    beamlet, scale, size, mini, value = [], [], [], [], []
    for brick, here in enumerate(tiles):
        n_segment = 0
        for first_beamlet, column, tile in here:
            a, b = tile * column.n_beamlet, (tile + 1) * column.n_beamlet
            begins = column.segment_begin[a : b + 1]
            filled = np.flatnonzero(np.diff(begins))
            n_segment += filled.size
            beamlet.append((first_beamlet + filled).astype(np.int32))
            scale.append(column.scale[a:b][filled])
            size.append(np.diff(begins)[filled])
            mini.append(column.mini[begins[0] : begins[-1]])
            value.append(column.value[begins[0] : begins[-1]])
        brick_begin[brick + 1] = brick_begin[brick] + n_segment
    return RowGroup(
        first_brick,
        n_brick,
        brick_size,
        brick_begin,
        np.concatenate(beamlet) if beamlet else np.empty(0, np.int32),
        np.concatenate(scale) if scale else np.empty(0, np.float32),
        np.concatenate([np.zeros(1, np.int64), np.cumsum(np.concatenate(size))])
        if size
        else np.zeros(1, np.int64),
        np.concatenate(mini) if mini else np.empty(0, np.uint16),
        np.concatenate(value) if value else np.empty((0, MINI_SIZE), np.uint16),
    )


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
