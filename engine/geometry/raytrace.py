"""Radiological depth: exact line integrals of relative electron density from the source to points."""

import numpy as np

from engine._jit import kernel
from engine.model.arrays import F32, F64
from engine.model.grid import Grid


@kernel
def _trace(density: F32, low_mm: F64, spacing_mm: F64, source_mm: F64, points_mm: F64, depth_mm: F32) -> None:
    """Integrate ``density``, shape [z, y, x], from ``source_mm`` (3,) to each of ``points_mm`` (n, 3).

    Walks from voxel face to voxel face (Siddon, Med Phys 12 (1985) 252, in the incremental form of Amanatides and
    Woo, Eurographics 1987). ``low_mm`` (3,) is the lower corner of voxel [0, 0, 0]. Writes ``depth_mm`` (n,).
    """
    count = np.array([density.shape[2], density.shape[1], density.shape[0]])
    step = np.empty(3, dtype=np.int64)
    voxel = np.empty(3, dtype=np.int64)
    next_face = np.empty(3, dtype=np.float64)
    face_distance = np.empty(3, dtype=np.float64)
    for point in range(points_mm.shape[0]):
        length_mm = 0.0
        for axis in range(3):
            length_mm += (points_mm[point, axis] - source_mm[axis]) ** 2
        length_mm = np.sqrt(length_mm)
        # Part of the ray, in fractions of its length, that lies inside the image.
        enter, leave = 0.0, 1.0
        for axis in range(3):
            start = source_mm[axis]
            along = points_mm[point, axis] - start
            low = low_mm[axis]
            high = low + count[axis] * spacing_mm[axis]
            if along == 0.0:
                if start < low or start > high:
                    leave = -1.0
            else:
                first = (low - start) / along
                second = (high - start) / along
                enter = max(enter, min(first, second))
                leave = min(leave, max(first, second))
        depth_mm[point] = 0.0
        if leave <= enter:
            continue
        middle = 1e-9 * (leave - enter) + enter
        for axis in range(3):
            start = source_mm[axis]
            along = points_mm[point, axis] - start
            position = (start + middle * along - low_mm[axis]) / spacing_mm[axis]
            voxel[axis] = min(max(int(np.floor(position)), 0), count[axis] - 1)
            if along > 0.0:
                step[axis] = 1
                face = low_mm[axis] + (voxel[axis] + 1) * spacing_mm[axis]
                next_face[axis] = (face - start) / along
                face_distance[axis] = spacing_mm[axis] / along
            elif along < 0.0:
                step[axis] = -1
                face = low_mm[axis] + voxel[axis] * spacing_mm[axis]
                next_face[axis] = (face - start) / along
                face_distance[axis] = -spacing_mm[axis] / along
            else:
                step[axis] = 0
                next_face[axis] = np.inf
                face_distance[axis] = np.inf
        x, y, z = voxel[0], voxel[1], voxel[2]
        next_x, next_y, next_z = next_face[0], next_face[1], next_face[2]
        here = enter
        total = 0.0
        while here < leave:
            value = density[z, y, x]
            if next_x <= next_y and next_x <= next_z:
                there = min(next_x, leave)
                total += (there - here) * value
                next_x += face_distance[0]
                x += step[0]
                if x < 0 or x >= count[0]:
                    break
            elif next_y <= next_z:
                there = min(next_y, leave)
                total += (there - here) * value
                next_y += face_distance[1]
                y += step[1]
                if y < 0 or y >= count[1]:
                    break
            else:
                there = min(next_z, leave)
                total += (there - here) * value
                next_z += face_distance[2]
                z += step[2]
                if z < 0 or z >= count[2]:
                    break
            here = there
        depth_mm[point] = total * length_mm


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
        np.ascontiguousarray(density, dtype=np.float32),
        low_mm,
        np.asarray(grid.spacing_mm_xyz, dtype=np.float64),
        np.asarray(source_mm, dtype=np.float64),
        np.ascontiguousarray(points_mm, dtype=np.float64),
        depth_mm,
    )
    return depth_mm
