"""Dose inside of voxels: how it varies over the part of a voxel that a structure covers.

A voxel has one dose, that of its centre. Where dose changes from voxel to voxel, a histogram of whole voxels is a
staircase: it is off by up to half a voxel times the gradient. So the dose is continued inside the voxel to second
order (differences of the neighbours), and the covered part of the voxel (cut by a plane, see
`engine.structures.surface`) is described by its centroid and covariance. The mean dose of the part follows exactly to
second order, its variance to first; the part then counts as some doses, evenly spread with that mean and variance.
Where voxels are many, each gets few: their places within the spread differ from voxel to voxel (multiples of the
golden ratio, which fill an interval evenly), so that voxels of one dose together still make a ramp and no staircase.
"""

import numpy as np

from engine._jit import kernel
from engine.model.arrays import F32, F64, I32, I64
from engine.structures.surface import half_space_position, outward_normal

_N_ACROSS = 8
"""Points along each edge of a voxel that its covered part is measured with."""
STEP_FRACTION = 2.5e-4
"""Doses inside of a voxel are at most this part of the highest dose apart,"""
_MOST_PARTS = 64
_ENOUGH_PARTS = 400_000
"""unless that takes more parts than this in a voxel, or about so many in all (40 ms to sort); each voxel has one."""
_GOLDEN = 0.6180339887498949


@kernel
def part_moments(coverage: F32, voxel: I64, spacing_mm: F64, moments: F32) -> None:
    """Describe the covered part of voxels.

    Parameters
    ----------
    coverage
        Shape (nz, ny, nx).
    voxel
        C-order indices of voxels, shape (n,).
    spacing_mm
        Voxel edges along x, y, z.
    moments
        Result, shape (n, 9): centroid x, y, z from the voxel's centre in mm, and the covariance of positions in the
        part in mm²: xx, yy, zz, xy, xz, yz.
    """
    _, ny, nx = coverage.shape
    dx, dy, dz = spacing_mm
    total = np.empty(9)
    for n in range(voxel.size):
        k, rest = divmod(voxel[n], ny * nx)
        j, i = divmod(rest, nx)
        value = coverage[k, j, i]
        gx, gy, gz = outward_normal(coverage, k, j, i, dx, dy, dz)
        s = half_space_position(value, abs(gx) * dx, abs(gy) * dy, abs(gz) * dz)
        if value >= 1.0 or (gx == 0.0 and gy == 0.0 and gz == 0.0):
            s = np.inf
        total[:] = 0.0
        count = 0
        for c in range(_N_ACROSS):
            z = ((c + 0.5) / _N_ACROSS - 0.5) * dz
            for b in range(_N_ACROSS):
                y = ((b + 0.5) / _N_ACROSS - 0.5) * dy
                for a in range(_N_ACROSS):
                    x = ((a + 0.5) / _N_ACROSS - 0.5) * dx
                    if gx * x + gy * y + gz * z > s:
                        continue
                    count += 1
                    total[0] += x
                    total[1] += y
                    total[2] += z
                    total[3] += x * x
                    total[4] += y * y
                    total[5] += z * z
                    total[6] += x * y
                    total[7] += x * z
                    total[8] += y * z
        if count == 0:
            # A corner too small for the points: all of it lies at the corner.
            total[0] = -np.sign(gx) * 0.5 * dx
            total[1] = -np.sign(gy) * 0.5 * dy
            total[2] = -np.sign(gz) * 0.5 * dz
            moments[n, :3] = total[:3]
            moments[n, 3:] = 0.0
            continue
        total /= count
        moments[n, :3] = total[:3]
        moments[n, 3] = total[3] - total[0] * total[0]
        moments[n, 4] = total[4] - total[1] * total[1]
        moments[n, 5] = total[5] - total[2] * total[2]
        moments[n, 6] = total[6] - total[0] * total[1]
        moments[n, 7] = total[7] - total[0] * total[2]
        moments[n, 8] = total[8] - total[1] * total[2]


@kernel
def part_doses(
    dose_gy: F32,
    shape_zyx: I64,
    voxel: I64,
    kind_of_part: I32,
    moments: F32,
    spacing_mm: F64,
    mean_gy: F64,
    spread_gy: F64,
) -> None:
    """Find mean and standard deviation of the dose in the covered part of every voxel.

    A neighbour without dose lies outside the body and says nothing of the gradient inside. There, the part's mean is
    interpolated to the neighbour inside, and dose is level around it: continued outwards to the skin, the slope gave
    doses that no voxel has. Slopes are limited as in van Leer's scheme (J Comput Phys 32 (1979) 101): none at an
    extremum, and at most twice the smaller of the slopes to both neighbours, so that no dose inside a voxel goes
    beyond those around it, and a step of dose stays a step.

    Parameters
    ----------
    dose_gy
        Dose of all voxels of the grid, flat.
    shape_zyx
        Shape of the grid.
    voxel
        C-order indices of voxels, shape (n,).
    kind_of_part, moments
        Row of ``moments`` for every voxel, shape (n,), and what `part_moments` found.
    spacing_mm
        Voxel edges along x, y, z.
    mean_gy, spread_gy
        Results, shape (n,).
    """
    count = (shape_zyx[2], shape_zyx[1], shape_zyx[0])
    stride = (1, shape_zyx[2], shape_zyx[1] * shape_zyx[2])
    g = np.empty(3)
    for n in range(voxel.size):
        here = voxel[n]
        dose = float(dose_gy[here])
        part = kind_of_part[n]
        mean = dose
        bend, n_extremum = 0.0, 0
        for axis in range(3):
            at = (here // stride[axis]) % count[axis]
            below = float(dose_gy[here - stride[axis]]) if at > 0 else 0.0
            above = float(dose_gy[here + stride[axis]]) if at < count[axis] - 1 else 0.0
            h = spacing_mm[axis]
            r = moments[part, axis]
            g[axis] = 0.0
            if below > 0.0 and above > 0.0:
                up, down = (above - dose) / h, (dose - below) / h
                least = 2.0 * min(abs(up), abs(down))
                slope = 0.5 * (up + down)
                bent = 0.5 * (up - down) / h * (moments[part, 3 + axis] + r * r)
                if up * down < 0.0 or up == down == 0.0:
                    n_extremum += 1
                    bend += bent
                elif abs(slope) <= least:
                    g[axis] = slope
                    bend += bent
                else:
                    g[axis] = np.sign(slope) * least
            elif below > 0.0 and r < 0.0:
                mean += (dose - below) / h * r
            elif above > 0.0 and r > 0.0:
                mean += (above - dose) / h * r
            mean += g[axis] * r
        # The lowest and the highest voxel stay what they are: no plan is to look better at its extremes.
        if n_extremum < 3:
            mean += bend
        variance = (
            g[0] * g[0] * moments[part, 3] + g[1] * g[1] * moments[part, 4] + g[2] * g[2] * moments[part, 5]
        ) + 2.0 * (
            g[0] * g[1] * moments[part, 6] + g[0] * g[2] * moments[part, 7] + g[1] * g[2] * moments[part, 8]
        )
        if dose <= 0.0:
            mean, variance = dose, 0.0
        mean_gy[n] = max(mean, 0.0)
        spread_gy[n] = np.sqrt(max(variance, 0.0))


def spread_out(mean_gy: F64, spread_gy: F64, coverage: F32) -> tuple[F64, F64]:
    """Return doses and coverages of parts of voxels that have the given mean and standard deviation.

    Parameters
    ----------
    mean_gy, spread_gy, coverage
        Of every voxel, shape (n,).
    """
    step_gy = STEP_FRACTION * float(mean_gy.max(initial=0.0))
    if step_gy <= 0.0:
        return mean_gy, coverage.astype(np.float64)
    width_gy = np.sqrt(12.0) * spread_gy  # of the even distribution with this standard deviation
    phase = 0.5 + _GOLDEN * np.arange(mean_gy.size)
    phase -= np.floor(phase)
    most = min(_MOST_PARTS, _ENOUGH_PARTS // mean_gy.size)
    if most <= 1:
        return np.maximum(mean_gy + (phase - 0.5) * width_gy, 0.0), coverage.astype(np.float64)
    n_part = np.clip(np.ceil(width_gy / step_gy), 1, most).astype(np.int64)
    voxel = np.repeat(np.arange(mean_gy.size), n_part)
    first = np.concatenate([[0], np.cumsum(n_part)[:-1]])
    number = np.arange(voxel.size) - first[voxel]
    place = (number + phase[voxel]) / n_part[voxel] - 0.5
    dose_gy = mean_gy[voxel] + place * width_gy[voxel]
    return np.maximum(dose_gy, 0.0), coverage[voxel].astype(np.float64) / n_part[voxel]
