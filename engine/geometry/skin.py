"""Where a beam's axis enters the body."""

import numpy as np

from engine.model.arrays import F32, F64
from engine.model.grid import Grid

_STEP_MM = 0.1


def source_skin_distance_mm(body: F32, grid: Grid, source_mm: F64, isocentre_mm: F64) -> float | None:
    """Return the distance from the source to the first point of the axis inside the body, or None if there is none.

    A point is inside where the coverage of its voxel is at least one half, so the result is right to half a voxel.

    Parameters
    ----------
    body
        Coverage of the body, shape ``grid.shape_zyx``.
    grid
        Its grid.
    source_mm, isocentre_mm
        Two points of the axis, shape (3,); it is followed from the source to twice the distance of the isocentre.
    """
    axis = isocentre_mm - source_mm
    length_mm = float(np.linalg.norm(axis))
    along_mm = np.arange(0.0, 2.0 * length_mm, _STEP_MM)
    points_mm = source_mm + along_mm[:, None] * (axis / length_mm)
    low_mm = np.array([edges[0] for edges in grid.edges_mm_xyz])
    index = np.floor((points_mm - low_mm) / np.array(grid.spacing_mm_xyz)).astype(np.int64)
    on_grid = ((index >= 0) & (index < np.array(grid.shape_zyx[::-1]))).all(axis=1)
    x, y, z = index[on_grid].T
    inside = body[z, y, x] >= 0.5
    return float(along_mm[on_grid][inside.argmax()]) if inside.any() else None
