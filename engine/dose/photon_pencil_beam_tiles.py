"""From doses of mini-blocks to tiles: beamlets on their raster, and columns of tiles gathered brick by brick."""

from collections.abc import Sequence

import numpy as np

from engine.dose.photon_pencil_beam_kernels import quantise
from engine.geometry.bricks import MINI_SIZE
from engine.model.arrays import F32, I32, I64, U16
from engine.model.beam import BeamletGrid
from engine.model.influence import Tile, TileColumn


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


def quantised(brick: int, count: I32, mini: U16, dose_gy: F32, threshold_gy: float) -> tuple[Tile, I64]:
    """Return the tile of ``count`` (n_beamlet,) mini-blocks of each beamlet, and each one's entries above threshold.

    The mini-blocks are the first of ``mini`` (n_beamlet, n_max) and ``dose_gy`` (n_beamlet, n_max, 8).
    """
    n_mini = int(count.sum())
    n_entry = np.empty(count.size, dtype=np.int64)
    tile = Tile(
        brick,
        np.empty(count.size + 1, dtype=np.int64),
        np.empty(count.size, dtype=np.float32),
        np.empty(n_mini, dtype=np.uint16),
        np.empty((n_mini, MINI_SIZE), dtype=np.uint16),
    )
    quantise(count, mini, dose_gy, threshold_gy, tile.begin, tile.scale, n_entry, tile.mini, tile.value)
    return tile, n_entry


def column_of(tiles: Sequence[tuple[Tile, I64]], first: int, n_beamlet: int) -> TileColumn:
    """Return the tiles of consecutive beamlets, the ``first`` and those after it, as a block; empty ones are left out.

    Parameters
    ----------
    tiles
        Tiles and entries of every beamlet, in ascending order of bricks.
    first, n_beamlet
        The block's beamlets, counted as in the tiles.
    """
    end = first + n_beamlet
    filled = [(tile, n_entry) for tile, n_entry in tiles if tile.begin[end] > tile.begin[first]]
    begin, mini, value, at = [], [np.empty(0, np.uint16)], [np.empty((0, MINI_SIZE), np.uint16)], 0
    for tile, _ in filled:
        part = slice(int(tile.begin[first]), int(tile.begin[end]))
        begin.append(tile.begin[first:end] - part.start + at)
        mini.append(tile.mini[part])
        value.append(tile.value[part])
        at += part.stop - part.start
    return TileColumn(
        n_beamlet,
        np.array([tile.brick for tile, _ in filled], dtype=np.int32),
        np.concatenate([*begin, np.array([at], dtype=np.int64)]),
        np.concatenate([np.empty(0, np.float32), *(tile.scale[first:end] for tile, _ in filled)]),
        np.concatenate(mini),
        np.concatenate(value),
        sum(int(n_entry[first:end].sum()) for _, n_entry in filled),
    )
