"""From doses of mini-blocks to tiles: beamlets on their raster, and columns of tiles gathered brick by brick."""

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


class ColumnBuilder:
    """Gathers the tiles of one block, brick by brick.

    Parameters
    ----------
    n_beamlet
        Beamlets of the block.
    threshold_gy
        Entries above this are counted.
    """

    def __init__(self, n_beamlet: int, threshold_gy: float) -> None:
        self._n_beamlet = n_beamlet
        self._threshold_gy = threshold_gy
        self._brick: list[int] = []
        self._begin: list[I64] = [np.empty(0, np.int64)]
        self._scale: list[F32] = [np.empty(0, np.float32)]
        self._mini: list[U16] = [np.empty(0, np.uint16)]
        self._value: list[U16] = [np.empty((0, MINI_SIZE), np.uint16)]
        self._n_mini = 0
        self._n_entry = 0

    def add(self, brick: int, count: I32, mini: U16, dose_gy: F32) -> None:
        """Add the tile of one brick, higher than those before.

        ``count`` (n_beamlet,) mini-blocks of each beamlet are used of ``mini`` (n_beamlet, n_max) and
        ``dose_gy`` (n_beamlet, n_max, 8). A brick without any gets no tile.
        """
        n_mini = int(count.sum())
        if n_mini == 0:
            return
        begin = np.zeros(self._n_beamlet, dtype=np.int64)
        scale = np.empty(self._n_beamlet, dtype=np.float32)
        tile_mini = np.empty(n_mini, dtype=np.uint16)
        value = np.empty((n_mini, MINI_SIZE), dtype=np.uint16)
        self._n_entry += quantise(count, mini, dose_gy, self._threshold_gy, begin, scale, tile_mini, value)
        self._brick.append(brick)
        self._begin.append(begin + self._n_mini)
        self._scale.append(scale)
        self._mini.append(tile_mini)
        self._value.append(value)
        self._n_mini += n_mini

    def finish(self) -> TileColumn:
        """Return all tiles."""
        end = np.array([self._n_mini], dtype=np.int64)
        return TileColumn(
            self._n_beamlet,
            np.array(self._brick, dtype=np.int32),
            np.concatenate([*self._begin, end]),
            np.concatenate(self._scale),
            np.concatenate(self._mini),
            np.concatenate(self._value),
            self._n_entry,
        )
