"""Volumes from one grid to another: conservative averages of coverage, trilinear dose."""

import numpy as np
from scipy.ndimage import map_coordinates, shift

from engine.geometry.bricks import BrickLayout
from engine.model.arrays import F32, F64, Bool
from engine.model.grid import Grid

_ROUNDING = 1e-6
"""Fraction of a voxel by which a coordinate may be off through rounding."""


def grid_over(source: Grid, spacing_mm: float, inside: F32) -> Grid:
    """Return a grid of cubic voxels over the part of ``source`` where ``inside`` is positive.

    The new grid is centred on that part's bounding box and covers it wholly.

    Parameters
    ----------
    source
        Grid of ``inside``.
    spacing_mm
        Edge of the new voxels.
    inside
        Coverage, shape ``source.shape_zyx``, positive somewhere.
    """
    origin_mm, count = [], []
    for axis_array, edges_mm in zip((2, 1, 0), source.edges_mm_xyz, strict=True):
        others = tuple(axis for axis in range(3) if axis != axis_array)
        touched = np.flatnonzero((inside > 0.0).any(axis=others))
        low_mm, high_mm = float(edges_mm[touched[0]]), float(edges_mm[touched[-1] + 1])
        n = int(np.ceil((high_mm - low_mm) / spacing_mm - 1e-9))
        origin_mm.append(0.5 * (low_mm + high_mm) - 0.5 * (n - 1) * spacing_mm)
        count.append(n)
    return Grid((origin_mm[0], origin_mm[1], origin_mm[2]), (spacing_mm,) * 3, (count[2], count[1], count[0]))


def interval_overlap(source_edges_mm: F64, target_edges_mm: F64) -> F64:
    """Return the share of every target interval that each source interval covers, shape (n_target, n_source)."""
    low = np.maximum(target_edges_mm[:-1, None], source_edges_mm[None, :-1])
    high = np.minimum(target_edges_mm[1:, None], source_edges_mm[None, 1:])
    share: F64 = np.clip(high - low, 0.0, None) / np.diff(target_edges_mm)[:, None]
    return share


def average_onto(volume: F32, source: Grid, target: Grid) -> F32:
    """Return the mean of ``volume`` over every voxel of ``target``; outside of ``source`` it counts as 0.

    Conservative: the integral over space is kept wherever ``target`` covers ``source``.
    """
    share_x, share_y, share_z = (
        interval_overlap(source_edges, target_edges)
        for source_edges, target_edges in zip(source.edges_mm_xyz, target.edges_mm_xyz, strict=True)
    )
    result = np.zeros(target.shape_zyx, dtype=np.float32)
    # Slice by slice, because a CT in float64 would be the largest array of all.
    for index, shares in enumerate(share_z):
        covered = np.flatnonzero(shares)
        if covered.size:
            plane = np.tensordot(shares[covered], volume[covered[0] : covered[-1] + 1], axes=1)
            result[index] = share_y @ plane @ share_x.T
    return result


def touched_rows(layout: BrickLayout, inside: F32, source: Grid) -> Bool:
    """Return the rows whose voxels a volume with ``inside > 0`` on ``source`` touches, shape (n_row,)."""
    touched: Bool = layout.to_rows(average_onto(inside, source, layout.grid)) > 0.0
    return touched


def _linear_weights(source_centres_mm: F64, target_centres_mm: F64) -> tuple[F64, F64]:
    """Return lower neighbour (as integers) and weight of the upper one for linear interpolation."""
    n = source_centres_mm.size
    spacing_mm = source_centres_mm[1] - source_centres_mm[0] if n > 1 else 1.0
    position = (target_centres_mm - source_centres_mm[0]) / spacing_mm
    lower = np.clip(np.floor(position), 0, max(n - 2, 0))
    return lower, np.clip(position - lower, 0.0, 1.0 if n > 1 else 0.0)


def interpolate_onto(volume: F32, source: Grid, target: Grid, valid: F32) -> F32:
    """Interpolate ``volume`` trilinearly at the voxel centres of ``target``.

    Only voxels with ``valid > 0`` take part: next to the skin, the dose is continued from inside the body instead of
    being mixed with the zeros outside. Where no neighbour is valid the result is 0.

    Parameters
    ----------
    volume, valid
        Values and where they mean something, shape ``source.shape_zyx``.
    source, target
        The grids.
    """
    mask = (valid > 0.0).astype(np.float32)
    numerator, denominator = (volume * mask).astype(np.float32), mask
    for axis_array, source_centres, target_centres in zip(
        (2, 1, 0), source.centres_mm_xyz, target.centres_mm_xyz, strict=True
    ):
        lower_float, upper_weight = _linear_weights(source_centres, target_centres)
        lower = lower_float.astype(np.int64)
        upper = np.minimum(lower + 1, source_centres.size - 1)
        shape = [-1 if axis == axis_array else 1 for axis in range(3)]
        w = upper_weight.reshape(shape).astype(np.float32)
        numerator = numerator.take(lower, axis_array) * (1 - w) + numerator.take(upper, axis_array) * w
        denominator = denominator.take(lower, axis_array) * (1 - w) + denominator.take(upper, axis_array) * w
    result: F32 = np.divide(
        numerator, denominator, out=np.zeros_like(numerator), where=denominator > 1e-3
    ).astype(np.float32)
    return result


def moved_against(volume: F32 | F64, grid: Grid, shift_mm: tuple[float, float, float]) -> F64:
    """Return what the voxels of a patient meet who is displaced against a volume that stays where it is.

    At every voxel that is the value at its centre plus the displacement, trilinear, and 0 beyond the grid.

    Parameters
    ----------
    volume
        Values, shape ``grid.shape_zyx``.
    grid
        Grid of the volume and of the patient as planned.
    shift_mm
        Displacement of the patient, x, y, z.
    """
    voxels = [-mm / spacing for mm, spacing in zip(shift_mm, grid.spacing_mm_xyz, strict=True)]
    moved: F64 = shift(volume, voxels[::-1], order=1, mode="grid-constant", prefilter=False)
    return moved


def sample_onto(volume: F32, index_from_patient: F64, target: Grid, outside: float) -> F32:
    """Interpolate a volume that lies anyhow in the patient trilinearly at the voxel centres of ``target``.

    A voxel reaches half-way to its neighbours, also at the border: there the value is that of the outermost voxel.

    Parameters
    ----------
    volume
        Values, shape (planes, rows, columns).
    index_from_patient
        From patient coordinates x, y, z (and 1) in mm to column, row and plane as fractions (and 1), shape (4, 4).
    target
        The grid.
    outside
        Value of voxels whose centre lies outside of the volume.
    """
    result = np.empty(target.shape_zyx, np.float32)
    x_mm, y_mm, z_mm = target.centres_mm_xyz
    in_plane = (
        index_from_patient[:3, 0, None, None] * x_mm
        + index_from_patient[:3, 1, None, None] * y_mm[:, None]
        + index_from_patient[:3, 3, None, None]
    )
    last = np.array(volume.shape[::-1])[:, None, None] - 0.5 + _ROUNDING
    for index, z in enumerate(z_mm):
        column_row_plane = in_plane + index_from_patient[:3, 2, None, None] * z
        inside = ((column_row_plane > -0.5 - _ROUNDING) & (column_row_plane < last)).all(axis=0)
        result[index] = outside
        if inside.any():
            result[index][inside] = map_coordinates(
                volume, column_row_plane[::-1, inside], order=1, mode="nearest", output=np.float32
            )
    return result
