"""From doses of mini-blocks to tiles: beamlets on their raster, and columns of tiles gathered brick by brick."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.dose.photon_pencil_beam_kernels import quantise
from engine.geometry.bricks import MINI_SIZE
from engine.model.arrays import F32, I32, I64, U16
from engine.model.beam import BeamletGrid
from engine.model.influence import TileColumn


def raster_of(beamlets: BeamletGrid, chosen: I64) -> tuple[I32, int, int]:
    """Return where the chosen beamlets lie.

    Parameters
    ----------
    beamlets
        All beamlets of a beam.
    chosen
        Numbers of some, shape (n,).

    Returns
    -------
    tuple
        Positions in ``chosen`` on the smallest raster, shape (n_row, n_column), -1 where there is none; column and
        row of the raster's corner.
    """
    column, row = beamlets.column[chosen], beamlets.row[chosen]
    first_column, first_row = int(column.min()), int(row.min())
    raster = np.full((int(row.max()) - first_row + 1, int(column.max()) - first_column + 1), -1, np.int32)
    raster[row - first_row, column - first_column] = np.arange(chosen.size)
    return raster, first_column, first_row


@dataclass(frozen=True)
class BrickTile:
    """What some beamlets of one beam give one brick, beamlet by beamlet.

    Parameters
    ----------
    brick
        The brick.
    begin
        First mini-block of every beamlet and, last, their number, shape (n_beamlet + 1,).
    scale, n_entry
        Gy per weight of one count, and entries above the threshold, of every beamlet, shape (n_beamlet,).
    mini, value
        Mini-block numbers (n_mini,) and counts (n_mini, 8).
    """

    brick: int
    begin: I64
    scale: F32
    n_entry: I64
    mini: U16
    value: U16


def quantised(brick: int, count: I32, mini: U16, dose_gy: F32, threshold_gy: float) -> BrickTile:
    """Return the tile of ``count`` (n_beamlet,) mini-blocks of each beamlet.

    They are the first of ``mini`` (n_beamlet, n_max) and ``dose_gy`` (n_beamlet, n_max, 8).
    """
    n_mini = int(count.sum())
    tile = BrickTile(
        brick,
        np.empty(count.size + 1, dtype=np.int64),
        np.empty(count.size, dtype=np.float32),
        np.empty(count.size, dtype=np.int64),
        np.empty(n_mini, dtype=np.uint16),
        np.empty((n_mini, MINI_SIZE), dtype=np.uint16),
    )
    quantise(count, mini, dose_gy, threshold_gy, tile.begin, tile.scale, tile.n_entry, tile.mini, tile.value)
    return tile


def column_of(tiles: Sequence[BrickTile], first: int, n_beamlet: int) -> TileColumn:
    """Return the tiles of consecutive beamlets, the ``first`` and those after it, as a block; empty ones are left out.

    Parameters
    ----------
    tiles
        In ascending order of bricks.
    first, n_beamlet
        The block's beamlets, counted as in the tiles.
    """
    end = first + n_beamlet
    filled = [tile for tile in tiles if tile.begin[end] > tile.begin[first]]
    begin, at = [], 0
    for tile in filled:
        begin.append(tile.begin[first:end] - tile.begin[first] + at)
        at += int(tile.begin[end] - tile.begin[first])
    parts = [slice(int(tile.begin[first]), int(tile.begin[end])) for tile in filled]
    return TileColumn(
        n_beamlet,
        np.array([tile.brick for tile in filled], dtype=np.int32),
        np.concatenate([*begin, np.array([at], dtype=np.int64)]),
        np.concatenate([np.empty(0, np.float32), *(tile.scale[first:end] for tile in filled)]),
        np.concatenate([np.empty(0, np.uint16), *(t.mini[p] for t, p in zip(filled, parts, strict=True))]),
        np.concatenate(
            [np.empty((0, MINI_SIZE), np.uint16), *(t.value[p] for t, p in zip(filled, parts, strict=True))]
        ),
        sum(int(tile.n_entry[first:end].sum()) for tile in filled),
    )
