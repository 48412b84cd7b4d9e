"""Beams and their beamlets."""

from dataclasses import dataclass

import numpy as np

from engine.model.arrays import F64, I32, I64


@dataclass(frozen=True)
class Beam:
    """One treatment beam, angles after IEC 61217.

    Parameters
    ----------
    name
        Label that is unique in its plan.
    gantry_deg, couch_deg, collimator_deg
        Angles of gantry, patient support and beam-limiting device.
    isocentre_mm
        Isocentre in patient coordinates (LPS), x, y, z.
    sad_mm
        Distance from source to isocentre.
    """

    name: str
    gantry_deg: float
    couch_deg: float
    collimator_deg: float
    isocentre_mm: tuple[float, float, float]
    sad_mm: float


@dataclass(frozen=True)
class BeamletGrid:
    """The beamlets of one beam: rectangles in the isocentre plane, numbered block by block.

    Blocks are square patches of the beamlet raster, so that the beamlets of one block are neighbours.

    Parameters
    ----------
    size_mm
        Edge lengths of one beamlet at the isocentre plane along the collimator axes x and y.
    column, row
        Raster position of every beamlet, shape (n_beamlet,); beamlet ``(column, row)`` is centred at
        ``(column * size_x, row * size_y)`` in the collimator system.
    block_begin
        First beamlet of every block and, last, the number of beamlets; shape (n_block + 1,).
    """

    size_mm: tuple[float, float]
    column: I32
    row: I32
    block_begin: I64

    @property
    def n_beamlet(self) -> int:
        """Number of beamlets."""
        return int(self.column.size)

    @property
    def n_block(self) -> int:
        """Number of beamlet blocks."""
        return int(self.block_begin.size) - 1

    def centres_mm(self) -> tuple[F64, F64]:
        """Return beamlet centres along the collimator axes x and y, two arrays of shape (n_beamlet,)."""
        return self.column.astype(np.float64) * self.size_mm[0], self.row.astype(np.float64) * self.size_mm[1]
