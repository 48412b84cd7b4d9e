"""The surface of a structure from the coverage of its voxels: a plane in every voxel that is covered in part.

A voxel that is covered in part is cut by a plane whose normal is the falling coverage around it (differences over
3×3×3 voxels, weights 1-2-1 across: Youngs 1982, in Numerical Methods for Fluid Dynamics, Academic Press, 273), and
whose position gives the voxel its coverage: "piecewise linear interface", as in codes for free surfaces of fluids.
Plane surfaces are exact at any angle and spacing; curved ones are off by about the spacing squared over eight radii.
Where a full voxel touches an empty one, the surface is the face between them.
"""

import numpy as np

from engine._jit import inlined, kernel
from engine.model.arrays import F32, F64

FULL = 1.0 - 1e-3
EMPTY = 1e-3
"""Coverage beyond these is that of a whole voxel, or of none."""
_THINNEST = 1e-3
"""A box seen face on is taken as this much tilted, against division by zero; part of the widest projection."""
_N_HALVING = 30


@inlined
def half_space_fraction(s: float, wx: float, wy: float, wz: float) -> float:
    """Return the part of a box on one side of a plane.

    The part is the integral of a sum of three independent uniform numbers, a cubic spline in ``s``.

    Parameters
    ----------
    s
        Distance of the plane from the centre of the box, along its normal; the part behind the plane counts.
    wx, wy, wz
        Edges of the box times the components of the unit normal, not negative.
    """
    thinnest = _THINNEST * max(wx, max(wy, wz))
    wx, wy, wz = max(wx, thinnest), max(wy, thinnest), max(wz, thinnest)
    reach = 0.5 * (wx + wy + wz)
    if s >= reach:
        return 1.0
    if s <= -reach:
        return 0.0
    total = 0.0
    for corner in range(8):
        x = wx if corner & 1 else -wx
        y = wy if corner & 2 else -wy
        z = wz if corner & 4 else -wz
        beyond = s + 0.5 * (x + y + z)
        if beyond > 0.0:
            sign = 1.0 if (x > 0.0) ^ (y > 0.0) ^ (z > 0.0) else -1.0
            total += sign * beyond * beyond * beyond
    return float(min(max(total / (6.0 * wx * wy * wz), 0.0), 1.0))


@inlined
def half_space_position(fraction: float, wx: float, wy: float, wz: float) -> float:
    """Return the distance of the plane that leaves ``fraction`` of the box: `half_space_fraction` the other way."""
    high = 0.5 * (wx + wy + wz)
    low = -high
    for _ in range(_N_HALVING):
        middle = 0.5 * (low + high)
        if half_space_fraction(middle, wx, wy, wz) < fraction:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


@inlined
def outward_normal(
    coverage: F32, k: int, j: int, i: int, dx: float, dy: float, dz: float
) -> tuple[float, float, float]:
    """Return the unit vector in which coverage falls, in x, y, z; zeros where it does not."""
    nz, ny, nx = coverage.shape
    gx = gy = gz = 0.0
    for c in range(-1, 2):
        for b in range(-1, 2):
            for a in range(-1, 2):
                value = coverage[
                    min(max(k + c, 0), nz - 1), min(max(j + b, 0), ny - 1), min(max(i + a, 0), nx - 1)
                ]
                gx -= a * (2 - abs(b)) * (2 - abs(c)) * value
                gy -= b * (2 - abs(a)) * (2 - abs(c)) * value
                gz -= c * (2 - abs(a)) * (2 - abs(b)) * value
    gx, gy, gz = gx / dx, gy / dy, gz / dz
    length = np.sqrt(gx * gx + gy * gy + gz * gz)
    if length * max(dx, max(dy, dz)) < 1e-3:
        return 0.0, 0.0, 0.0
    return gx / length, gy / length, gz / length


@kernel
def surface_points(coverage: F32, spacing_mm: F64, n_across: F64, points_mm: F64, normals: F64) -> int:
    """Put points on the surface and return how many there are; with empty arrays, only count them (at most so many).

    Parameters
    ----------
    coverage
        Fraction of every voxel inside, shape (nz, ny, nx).
    spacing_mm
        Voxel edges along x, y, z.
    n_across
        How many points a voxel's surface gets along x, y, z; whole odd numbers, so that some lie on the lines through
        the centres of voxels.
    points_mm, normals
        Results, shape (n, 3): positions from the centre of voxel [0, 0, 0], and outward unit normals (zeros for a
        sheet so thin that it has none).
    """
    nz, ny, nx = coverage.shape
    n = 0
    most = int(max(n_across[0] * n_across[1], max(n_across[1] * n_across[2], n_across[0] * n_across[2])))
    counting = points_mm.shape[0] == 0
    step = (1, 1, 1)
    normal = np.empty(3)
    place = np.empty(3)
    for k in range(nz):
        for j in range(ny):
            for i in range(nx):
                value = coverage[k, j, i]
                if value <= EMPTY:
                    continue
                if value < FULL:
                    if counting:
                        n += most + 1
                        continue
                    gx, gy, gz = outward_normal(
                        coverage, k, j, i, spacing_mm[0], spacing_mm[1], spacing_mm[2]
                    )
                    normal[0], normal[1], normal[2] = gx, gy, gz
                    place[0], place[1], place[2] = i * spacing_mm[0], j * spacing_mm[1], k * spacing_mm[2]
                    n = _plane_points(value, normal, place, spacing_mm, n_across, n, points_mm, normals)
                    continue
                for axis in range(3):
                    for side in (-1, 1):
                        a = i + side * step[0] if axis == 0 else i
                        b = j + side * step[1] if axis == 1 else j
                        c = k + side * step[2] if axis == 2 else k
                        if a < 0 or b < 0 or c < 0 or a >= nx or b >= ny or c >= nz:
                            continue
                        if coverage[c, b, a] > EMPTY:
                            continue
                        if counting:
                            n += most
                            continue
                        normal[:] = 0.0
                        normal[axis] = side
                        place[0], place[1], place[2] = i * spacing_mm[0], j * spacing_mm[1], k * spacing_mm[2]
                        # The plane of the face, half a voxel from the centre.
                        n = _lattice(
                            0.5 * spacing_mm[axis], normal, place, spacing_mm, n_across, n, points_mm, normals
                        )
    return n


@inlined
def _plane_points(
    value: float,
    normal: F64,
    place: F64,
    spacing_mm: F64,
    n_across: F64,
    n: int,
    points_mm: F64,
    normals: F64,
) -> int:
    """Put points on the plane in one voxel."""
    if normal[0] == 0.0 and normal[1] == 0.0 and normal[2] == 0.0:
        points_mm[n] = place
        normals[n] = 0.0
        return n + 1
    wx = abs(normal[0]) * spacing_mm[0]
    wy = abs(normal[1]) * spacing_mm[1]
    wz = abs(normal[2]) * spacing_mm[2]
    s = half_space_position(value, wx, wy, wz)
    before = n
    n = _lattice(s, normal, place, spacing_mm, n_across, n, points_mm, normals)
    if n == before:
        # A corner between the points of the lattice: its plane, as near as it comes inside.
        for axis in range(3):
            offset = s * normal[axis]
            half = 0.5 * spacing_mm[axis]
            points_mm[n, axis] = place[axis] + min(max(offset, -half), half)
            normals[n, axis] = normal[axis]
        n += 1
    return n


@inlined
def _lattice(
    s: float, normal: F64, place: F64, spacing_mm: F64, n_across: F64, n: int, points_mm: F64, normals: F64
) -> int:
    """Put points on the part of a plane inside a voxel, regular as seen along the axis that it faces most."""
    main = 0
    for axis in range(1, 3):
        if abs(normal[axis]) * spacing_mm[axis] > abs(normal[main]) * spacing_mm[main]:
            main = axis
    one, two = (main + 1) % 3, (main + 2) % 3
    for p in range(int(n_across[one])):
        u = ((p + 0.5) / n_across[one] - 0.5) * spacing_mm[one]
        for q in range(int(n_across[two])):
            v = ((q + 0.5) / n_across[two] - 0.5) * spacing_mm[two]
            w = (s - normal[one] * u - normal[two] * v) / normal[main]
            if abs(w) <= 0.5 * spacing_mm[main] * (1.0 + 1e-6):
                points_mm[n, one] = place[one] + u
                points_mm[n, two] = place[two] + v
                points_mm[n, main] = place[main] + w
                normals[n] = normal
                n += 1
    return n
