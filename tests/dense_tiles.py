"""Tile columns and optimisation problems made from small dense matrices, whose products numpy can check."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.influence.rows import rows_of_columns, share_out
from engine.model.arrays import F32, F64, I64
from engine.model.influence import TileColumn
from engine.optimise.group import GroupEvaluator, regions_of_group
from engine.optimise.problem import LocalRows

MINI = 8
LARGEST_COUNT = 65535


def column_of_dense(dose_gy: F64, brick_size: int) -> TileColumn:
    """Return the tiles of one block, from its dense matrix (n_row, n_beamlet); each entry is rounded to a count."""
    n_beamlet = dose_gy.shape[1]
    bricks, begins, scales, minis, values = [], [0], [], [], []
    for brick in range(dose_gy.shape[0] // brick_size):
        part = dose_gy[brick * brick_size : (brick + 1) * brick_size]
        if not part.any():
            continue
        bricks.append(brick)
        for beamlet in range(n_beamlet):
            blocks = part[:, beamlet].reshape(-1, MINI)
            scale = np.float32(blocks.max() / LARGEST_COUNT)
            filled = np.flatnonzero(blocks.any(axis=1))
            scales.append(scale)
            minis.extend(int(i) for i in filled)
            values.extend(np.rint(blocks[i] / scale).clip(0, LARGEST_COUNT) for i in filled)
            begins.append(len(minis))
    return TileColumn(
        n_beamlet,
        np.array(bricks, np.int32),
        np.array(begins, np.int64),
        np.array(scales, np.float32),
        np.array(minis, np.uint16),
        np.array(values, np.uint16).reshape(-1, MINI),
        int(np.count_nonzero(dose_gy)),
    )


def columns_of_dense(
    dose_gy: F64, brick_size: int, block_sizes: Sequence[int]
) -> list[tuple[int, TileColumn]]:
    """Return the blocks of a dense matrix (n_row, n_beamlet), with the number of each block's first beamlet."""
    begins = np.cumsum([0, *block_sizes])
    return [(int(a), column_of_dense(dose_gy[:, a:b], brick_size)) for a, b in itertools.pairwise(begins)]


def dense_of_columns(columns: Sequence[tuple[int, TileColumn]], n_row: int, brick_size: int) -> F64:
    """Return the dense matrix (n_row, n_beamlet) that tiles stand for, read entry by entry."""
    dense = np.zeros((n_row, sum(column.n_beamlet for _, column in columns)))
    for first, column in columns:
        for tile, brick in enumerate(column.brick):
            for beamlet in range(column.n_beamlet):
                segment = tile * column.n_beamlet + beamlet
                for i in range(column.segment_begin[segment], column.segment_begin[segment + 1]):
                    row = int(brick) * brick_size + int(column.mini[i]) * MINI
                    dose_gy = np.float64(column.scale[segment]) * column.value[i]
                    dense[row : row + MINI, first + beamlet] = dose_gy
    return dense


def sparse_dose(rng: np.random.Generator, n_row: int, n_beamlet: int, filled: float = 0.3) -> F64:
    """Return a random non-negative matrix in which a share of the mini-blocks is filled, some entries with zeros."""
    dose_gy = rng.uniform(0.0, 2.0, (n_row // MINI, MINI, n_beamlet))
    dose_gy *= rng.random((n_row // MINI, 1, n_beamlet)) < filled
    dose_gy *= rng.random(dose_gy.shape) < 0.8
    return dose_gy.reshape(n_row, n_beamlet)


@dataclass(frozen=True)
class SmallProblem:
    """Three scenarios, two blocks of beamlets, two regions that overlap.

    Parameters
    ----------
    columns
        Tiles of every scenario.
    dense
        The matrices that the tiles stand for, one a scenario, (n_row, n_beamlet).
    shares
        Relative volumes of the regions on all rows.
    bricks
        First brick and number of bricks of every reduction group.
    work
        Mini-blocks of every group.
    """

    columns: tuple[list[tuple[int, TileColumn]], ...]
    dense: tuple[F64, ...]
    shares: tuple[F32, ...]
    bricks: tuple[tuple[int, int], ...]
    work: I64
    brick_size: int
    n_beamlet: int

    @property
    def rows(self) -> LocalRows:
        """All groups in this process."""
        return LocalRows(
            [
                GroupEvaluator(
                    [rows_of_columns(c, first, n, self.brick_size) for c in self.columns],
                    regions_of_group(self.shares, first * self.brick_size, n * self.brick_size),
                )
                for first, n in self.bricks
            ],
            self.n_beamlet,
        )


def small_problem(
    seed: int = 1,
    n_group: int = 2,
    block_sizes: Sequence[int] = (4, 3),
    n_brick: int = 6,
    n_scenario: int = 3,
) -> SmallProblem:
    """Return a random problem with bricks of 64 rows."""
    rng = np.random.default_rng(seed)
    brick_size, n_beamlet = 64, sum(block_sizes)
    n_row = n_brick * brick_size
    nominal = sparse_dose(rng, n_row, n_beamlet)
    columns = []
    for scenario in range(n_scenario):
        changed = nominal * rng.uniform(0.7, 1.3, nominal.shape) if scenario else nominal
        columns.append(columns_of_dense(changed, brick_size, block_sizes))
    shares = []
    for first, last in ((0, n_row // 2), (n_row // 3, n_row)):
        share = np.zeros(n_row, np.float32)
        share[first:last] = rng.uniform(0.0, 1.0, last - first).astype(np.float32)
        shares.append((share / share.sum(dtype=np.float64)).astype(np.float32))
    work = np.zeros(n_brick, np.int64)
    for of_scenario in columns:
        for _, column in of_scenario:
            work[column.brick] += np.diff(column.segment_begin[:: column.n_beamlet])
    bricks = tuple(share_out(work, n_group))
    return SmallProblem(
        tuple(columns),
        tuple(dense_of_columns(c, n_row, brick_size) for c in columns),
        tuple(shares),
        bricks,
        np.array([work[first : first + n].sum() for first, n in bricks]),
        brick_size,
        n_beamlet,
    )
