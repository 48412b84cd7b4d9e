"""How large the matrix of a pencil beam will be, and what memory its tasks need, before any of it is computed."""

import numpy as np

from engine.dose.engine import MatrixSize
from engine.dose.photon_pencil_beam_view import around
from engine.geometry.bricks import MINI_SIZE, BrickLayout
from engine.geometry.frames import project
from engine.model.arrays import F64, I64, Bool
from engine.model.beam import Beam, BeamletGrid
from engine.model.case import PatientPosition

_SAMPLE = 4096
"""Mini-blocks that are looked at; their beamlets in reach vary so little that sums are right to some percent."""
_VIEW_BYTES = MINI_SIZE * 5 * 4 + 8
"""Of one mini-block in a view: five float32 arrays and a row number."""
_SCRATCH_BYTES = 16 << 20
"""Coordinates of the mini-blocks that are projected at a time, and small arrays."""


def matrix_size(
    layout: BrickLayout,
    active: Bool,
    beam: Beam,
    beamlets: BeamletGrid,
    position: PatientPosition,
    reach_mm: float,
) -> MatrixSize:
    """Count what lies within the cut-off; what the threshold leaves out is counted, too.

    Parameters
    ----------
    layout, active
        Row numbering, and the rows that get dose, shape (n_row,).
    beam, beamlets, position
        The beam, its beamlets, and how the patient lies.
    reach_mm
        The cut-off.
    """
    first_row = np.flatnonzero(np.ascontiguousarray(active).view(np.uint64)) * MINI_SIZE
    step = max(1, first_row.size // _SAMPLE)
    sample = first_row[step // 2 :: step]
    position_mm = _mean_mm(layout, sample, beam, position)
    n_mini = np.zeros(layout.n_brick, dtype=np.int64)
    np.add.at(n_mini, sample // layout.brick_size, _in_reach(position_mm, beamlets, reach_mm) * step)
    bricks = np.unique(first_row // layout.brick_size)
    corner_mm = _mean_mm(layout, bricks * layout.brick_size, beam, position)
    # A brick is reached if its centre is within the cut-off and half its diagonal; its first mini-block lies up to
    # half a diagonal from there. Counted generously: segments are a few percent of a matrix.
    diagonal_mm = layout.edge * float(np.linalg.norm(layout.grid.spacing_mm_xyz))
    touched = _in_reach(corner_mm, beamlets, reach_mm + diagonal_mm)
    return MatrixSize(n_mini, int(touched.sum()), int(around(position_mm, beamlets, reach_mm).sum()) * step)


def _mean_mm(layout: BrickLayout, first_row: I64, beam: Beam, position: PatientPosition) -> F64:
    """Return the mean position of mini-blocks in the isocentre plane, shape (n, 2)."""
    rows = (first_row[:, None] + np.arange(MINI_SIZE)).reshape(-1)
    along_mm, _ = project(layout.centres_mm(rows), beam, position)
    mean: F64 = along_mm.reshape(-1, MINI_SIZE, 2).mean(axis=1)
    return mean


def _in_reach(position_mm: F64, beamlets: BeamletGrid, reach_mm: float) -> I64:
    """Return how many beamlets are centred within reach of each of some positions, shape (n,)."""
    x_mm, y_mm = beamlets.centres_mm()
    count = np.empty(position_mm.shape[0], dtype=np.int64)
    for begin in range(0, count.size, 256):
        part = position_mm[begin : begin + 256]
        away = (part[:, :1] - x_mm) ** 2 + (part[:, 1:] - y_mm) ** 2
        count[begin : begin + 256] = np.count_nonzero(away <= reach_mm**2, axis=1)
    return count


def view_bytes(n_view: int) -> int:
    """Return what a view of so many mini-blocks needs while it is made."""
    return n_view * (_VIEW_BYTES + MINI_SIZE * 4) + _SCRATCH_BYTES


def scratch_bytes(n_beamlet: int, brick_size: int) -> int:
    """Return the scratch memory for the tiles of so many beamlets at a time."""
    return n_beamlet * (brick_size // MINI_SIZE) * (MINI_SIZE * 4 + 2)
