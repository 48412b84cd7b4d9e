"""Radiological depth: exact line integrals of relative electron density from the source to points."""

import numpy as np

from engine._jit import kernel
from engine._vector import as_double, gather, larger, least, load, smaller, spread, store, where_at_most
from engine.model.arrays import F32, F64, I64
from engine.model.grid import Grid


@kernel
def _trace(
    density: F32, count: I64, low_mm: F64, spacing_mm: F64, source_mm: F64, points_mm: F64, depth_mm: F32
) -> None:
    """Integrate ``density``, [z, y, x] flat in memory, from ``source_mm`` (3,) to each of ``points_mm`` (n, 3).

    Walks from voxel face to voxel face (Siddon, Med Phys 12 (1985) 252, in the incremental form of Amanatides and
    Woo, Eurographics 1987), eight neighbouring points at a time: a step of all eight costs hardly more than one.
    ``count`` (3,) voxels along x, y, z; ``low_mm`` (3,) the lower corner of voxel [0, 0, 0]. Writes ``depth_mm`` (n,).
    """
    stride = np.array([1, count[0], count[0] * count[1]])
    last = spread(np.int32(density.size - 1))
    zero, stay, never = spread(0.0), spread(np.int32(0)), spread(-np.inf)
    index = np.empty(8, dtype=np.int32)
    step = np.empty((3, 8), dtype=np.int32)
    face = np.empty((3, 8), dtype=np.float64)
    apart = np.empty((3, 8), dtype=np.float64)
    enter, leave, length_mm = np.empty(8), np.empty(8), np.empty(8)
    for begin in range(0, points_mm.shape[0], 8):
        for k in range(8):
            # What the last eight lack is filled up with the last point.
            point = min(begin + k, points_mm.shape[0] - 1)
            length_mm[k] = 0.0
            # Part of the ray, in fractions of its length, that lies inside the image.
            enter[k], leave[k] = 0.0, 1.0
            for axis in range(3):
                start = source_mm[axis]
                along = points_mm[point, axis] - start
                length_mm[k] += along * along
                low = low_mm[axis]
                high = low + count[axis] * spacing_mm[axis]
                if along == 0.0:
                    if start < low or start > high:
                        leave[k] = -1.0
                else:
                    first = (low - start) / along
                    second = (high - start) / along
                    enter[k] = max(enter[k], min(first, second))
                    leave[k] = min(leave[k], max(first, second))
            length_mm[k] = np.sqrt(length_mm[k])
            # A ray beside the image has no such part, and takes no step, however far its neighbours walk.
            beside = leave[k] <= enter[k]
            leave[k] = max(leave[k], enter[k])
            inside = 1e-9 * (leave[k] - enter[k]) + enter[k]
            index[k] = 0
            for axis in range(3):
                start = source_mm[axis]
                along = points_mm[point, axis] - start
                position = (start + inside * along - low_mm[axis]) / spacing_mm[axis]
                voxel = min(max(int(np.floor(position)), 0), count[axis] - 1)
                index[k] += voxel * stride[axis]
                if beside or along == 0.0:
                    step[axis, k], face[axis, k], apart[axis, k] = 0, np.inf, 0.0
                else:
                    ahead = 1 if along > 0.0 else 0
                    step[axis, k] = stride[axis] if along > 0.0 else -stride[axis]
                    face[axis, k] = (low_mm[axis] + (voxel + ahead) * spacing_mm[axis] - start) / along
                    apart[axis, k] = spacing_mm[axis] / abs(along)
        here, end, at, depth = load(enter, 0), load(leave, 0), load(index, 0), zero
        face_x, face_y, face_z = load(face, 0), load(face, 8), load(face, 16)
        while least(here - end) < 0.0:
            nearest = smaller(smaller(face_x, face_y), face_z)
            there = smaller(nearest, end)
            # Rounding may take a ray a voxel too far at its very end, for a length of nothing.
            value = gather(density, 0, smaller(larger(at, stay), last))
            depth = depth + (there - here) * as_double(value)
            here = there
            crossed = where_at_most(end, nearest, never, nearest)
            at = at + where_at_most(face_x, crossed, load(step, 0), stay)
            at = at + where_at_most(face_y, crossed, load(step, 8), stay)
            at = at + where_at_most(face_z, crossed, load(step, 16), stay)
            face_x = face_x + where_at_most(face_x, crossed, load(apart, 0), zero)
            face_y = face_y + where_at_most(face_y, crossed, load(apart, 8), zero)
            face_z = face_z + where_at_most(face_z, crossed, load(apart, 16), zero)
        store(enter, 0, depth * load(length_mm, 0))
        for k in range(min(8, points_mm.shape[0] - begin)):
            depth_mm[begin + k] = enter[k]


def radiological_depth_mm(density: F32, grid: Grid, source_mm: F64, points_mm: F64) -> F32:
    """Return the water-equivalent path from the source to each point.

    Parameters
    ----------
    density
        Electron density relative to water on ``grid``, shape ``grid.shape_zyx``; outside of the grid it is 0.
    grid
        The image grid.
    source_mm
        Start of all rays, shape (3,).
    points_mm
        Ends of the rays, shape (n, 3), x, y, z.

    Returns
    -------
    array
        Radiological depth in mm of water, shape (n,), float32.
    """
    depth_mm = np.empty(points_mm.shape[0], dtype=np.float32)
    low_mm = np.array([edges[0] for edges in grid.edges_mm_xyz])
    _trace(
        np.ascontiguousarray(density, dtype=np.float32).reshape(-1),
        np.array(grid.shape_zyx[::-1], dtype=np.int64),
        low_mm,
        np.asarray(grid.spacing_mm_xyz, dtype=np.float64),
        np.asarray(source_mm, dtype=np.float64),
        np.ascontiguousarray(points_mm, dtype=np.float64),
        depth_mm,
    )
    return depth_mm
