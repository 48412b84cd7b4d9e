"""Kernels of the photon pencil beam: one mini-block of eight voxels at a time, so that they vectorise.

Everything lateral is measured in the isocentre plane. A Gaussian of the pencil kernel integrated over a rectangle is
a product of two differences of the normal distribution function, so the beamlets of a raster need that function
only at their shared edges.
"""

import math
from functools import cache
from typing import Any

import numpy as np

from engine._jit import inlined, kernel
from engine.model.arrays import F32, I32, I64, U16

Real = float | np.floating[Any]
"""A scalar of any float type: kernels mix float32 elements with float64 arguments."""
STEPS_PER_SIGMA = 256
REACH_SIGMA = 4.5
"""Beyond this the normal distribution differs from 0 or 1 by less than 3.4e-6."""


@cache
def normal_table() -> F32:
    """Return the normal distribution function at steps of 1/256 sigma from -4.5 to 4.5 sigma, exactly 0 and 1 there.

    Linear interpolation in it errs by less than 5e-7.
    """
    half = int(REACH_SIGMA * STEPS_PER_SIGMA)
    t = np.arange(-half, half + 2) / STEPS_PER_SIGMA
    table = np.array([0.5 * math.erfc(-v / math.sqrt(2.0)) for v in t])
    table = (table - table[0]) / (table[-2] - table[0])
    rounded: F32 = np.clip(table, 0.0, 1.0).astype(np.float32)
    return rounded


@inlined
def _raster_edges_mm(first: int, count: int, size_mm: Real) -> F32:
    """Return the edges of ``count`` cells, the first of which is centred at ``first * size_mm``.

    Each from its own number: so a beamlet's edges, and its dose to the last bit, do not depend on the raster it is in.
    """
    edge = np.empty(count + 1, dtype=np.float32)
    for cell in range(count + 1):
        edge[cell] = (first + cell - 0.5) * size_mm
    return edge


@inlined
def _edge_shares(
    position: F32, inverse_sigma: F32, edge: F32, begin: int, end: int, table: F32, share: F32
) -> None:
    """Fill ``share[begin:end, 8]`` with the part of a Gaussian that falls into cells of a raster, along one axis.

    ``position`` (8,) are the centres of the Gaussians, ``inverse_sigma`` (8,) their inverse widths; cell ``c`` reaches
    from ``edge[c]`` to ``edge[c + 1]``.
    """
    last = np.float32(2.0 * REACH_SIGMA * STEPS_PER_SIGMA)
    offset = np.float32(REACH_SIGMA * STEPS_PER_SIGMA)
    for k in range(8):
        scale = inverse_sigma[k] * np.float32(STEPS_PER_SIGMA)
        centre = position[k]
        clipped = min(max((edge[begin] - centre) * scale + offset, np.float32(0.0)), last)
        index = int(clipped)
        lower = table[index]
        below = lower + (clipped - np.float32(index)) * (table[index + 1] - lower)
        for cell in range(begin, end):
            clipped = min(max((edge[cell + 1] - centre) * scale + offset, np.float32(0.0)), last)
            index = int(clipped)
            lower = table[index]
            above = lower + (clipped - np.float32(index)) * (table[index + 1] - lower)
            share[cell, k] = above - below
            below = above


@inlined
def _amplitude(
    depth: F32, factor: F32, gauss: int, table: F32, step: float, density: float, out: F32
) -> None:
    """Interpolate Gaussian ``gauss`` of the depth table at eight depths, times ``factor``; writes ``out`` (8,)."""
    last = np.float32(table.shape[1] - 1)
    per_step = np.float32(density / step)
    for k in range(8):
        position = min(depth[k] * per_step, last)
        index = min(int(position), table.shape[1] - 2)
        lower = table[gauss, index]
        out[k] = factor[k] * (lower + (position - np.float32(index)) * (table[gauss, index + 1] - lower))


@inlined
def _cells(low: Real, high: Real, reach: Real, size: Real, first: int, count: int) -> tuple[int, int]:
    """Return the cells [begin, end) of a raster that lie within ``reach`` of the interval from ``low`` to ``high``."""
    begin = math.floor((low - reach) / size + 0.5) - first
    end = math.floor((high + reach) / size + 0.5) - first + 1
    return min(max(begin, 0), count), min(max(end, 0), count)


@kernel
def brick_dose(
    x: F32, y: F32, depth: F32, factor: F32, inverse_sigma: F32, mini: U16,
    depth_table: F32, depth_step_mm: float, density: float,
    raster: I32, first_column: int, first_row: int, size_x: float, size_y: float,
    cutoff_mm: float, threshold: float, table: F32,
    share_x: F32, share_y: F32, cell_dose: F32,
    count: I32, mini_out: U16, dose_out: F32,
) -> None:  # fmt: skip
    """Collect the dose per weight of every beamlet in one brick, mini-block by mini-block.

    Per mini-block (n, 8): ``x, y`` position in the isocentre plane, ``depth`` radiological depth, ``factor`` inverse
    square (0 where there is no row), ``inverse_sigma`` (n, n_gauss, 8) inverse widths in the isocentre plane,
    ``mini`` (n,) number in the brick. ``depth_table`` (n_gauss, n_depth). ``raster`` (n_row, n_column) holds beamlet
    numbers or -1. A beamlet gets a mini-block if its centre is within ``cutoff_mm`` of the mini-block's mean position
    and some entry exceeds ``threshold``. Scratch: ``share_x`` (n_column, 8), ``share_y`` (n_row, 8), ``cell_dose``
    (n_row, n_column, 8). Appends to ``mini_out`` (n_beamlet, n_max), ``dose_out`` (n_beamlet, n_max, 8), at ``count``.
    """
    n_row, n_column = raster.shape
    n_gauss = depth_table.shape[0]
    edge_x = _raster_edges_mm(first_column, n_column, size_x)
    edge_y = _raster_edges_mm(first_row, n_row, size_y)
    amplitude = np.empty(8, dtype=np.float32)
    eighth = np.float32(0.125)
    for i in range(mini.size):
        mean_x = np.float32(0.0)
        mean_y = np.float32(0.0)
        low_x, high_x, low_y, high_y = x[i, 0], x[i, 0], y[i, 0], y[i, 0]
        for k in range(8):
            mean_x += x[i, k] * eighth
            mean_y += y[i, k] * eighth
            low_x, high_x = min(low_x, x[i, k]), max(high_x, x[i, k])
            low_y, high_y = min(low_y, y[i, k]), max(high_y, y[i, k])
        c0, c1 = _cells(mean_x, mean_x, cutoff_mm, size_x, first_column, n_column)
        r0, r1 = _cells(mean_y, mean_y, cutoff_mm, size_y, first_row, n_row)
        if c0 >= c1 or r0 >= r1:
            continue
        for row in range(r0, r1):
            for column in range(c0, c1):
                for k in range(8):
                    cell_dose[row, column, k] = np.float32(0.0)
        for gauss in range(n_gauss):
            least = inverse_sigma[i, gauss, 0]
            for k in range(1, 8):
                least = min(least, inverse_sigma[i, gauss, k])
            reach = np.float32(REACH_SIGMA) / least
            a0, a1 = _cells(low_x, high_x, reach, size_x, first_column, n_column)
            b0, b1 = _cells(low_y, high_y, reach, size_y, first_row, n_row)
            a0, a1, b0, b1 = max(a0, c0), min(a1, c1), max(b0, r0), min(b1, r1)
            if a0 >= a1 or b0 >= b1:
                continue
            _amplitude(depth[i], factor[i], gauss, depth_table, depth_step_mm, density, amplitude)
            _edge_shares(x[i], inverse_sigma[i, gauss], edge_x, a0, a1, table, share_x)
            _edge_shares(y[i], inverse_sigma[i, gauss], edge_y, b0, b1, table, share_y)
            for row in range(b0, b1):
                for k in range(8):
                    share_y[row, k] *= amplitude[k]
                for column in range(a0, a1):
                    for k in range(8):
                        cell_dose[row, column, k] += share_y[row, k] * share_x[column, k]
        for row in range(r0, r1):
            away_y = (first_row + row) * size_y - mean_y
            for column in range(c0, c1):
                beamlet = raster[row, column]
                away_x = (first_column + column) * size_x - mean_x
                if beamlet < 0 or away_x * away_x + away_y * away_y > cutoff_mm * cutoff_mm:
                    continue
                largest = np.float32(0.0)
                for k in range(8):
                    largest = max(largest, cell_dose[row, column, k])
                if largest > threshold:
                    slot = count[beamlet]
                    mini_out[beamlet, slot] = mini[i]
                    for k in range(8):
                        dose_out[beamlet, slot, k] = cell_dose[row, column, k]
                    count[beamlet] = slot + 1


@kernel
def quantise(
    count: I32, mini_in: U16, dose: F32, threshold: float, begin: I64, scale: F32, mini: U16, value: U16
) -> int:
    """Turn collected mini-blocks of some beamlets into counts of 16 bits; returns the entries above threshold.

    ``count`` (n,), ``mini_in`` (n, n_max), ``dose`` (n, n_max, 8). Writes ``begin`` (n,) starting at the value already
    in ``begin[0]``, ``scale`` (n,), and ``mini`` (n_mini,), ``value`` (n_mini, 8) from that start.
    """
    at = begin[0]
    n_entry = 0
    for beamlet in range(count.size):
        begin[beamlet] = at
        largest = np.float32(0.0)
        for i in range(count[beamlet]):
            for k in range(8):
                largest = max(largest, dose[beamlet, i, k])
        scale[beamlet] = largest / np.float32(65535.0)
        if largest > np.float32(0.0):
            per_gy = np.float32(65535.0) / largest
            for i in range(count[beamlet]):
                mini[at] = mini_in[beamlet, i]
                for k in range(8):
                    n_entry += dose[beamlet, i, k] > threshold
                    value[at, k] = np.uint16(dose[beamlet, i, k] * per_gy + np.float32(0.5))
                at += 1
    return n_entry


@kernel
def forward_dose(
    x: F32, y: F32, depth: F32, factor: F32, inverse_sigma: F32,
    depth_table: F32, depth_step_mm: float, density: float,
    weight: F32, first_column: int, first_row: int, size_x: float, size_y: float,
    table: F32, share_x: F32, share_y: F32, dose: F32,
) -> None:  # fmt: skip
    """Sum the dose of a whole fluence map, without cut-off, into ``dose`` (n, 8).

    ``weight`` (n_row, n_column) is the fluence raster, 0 where there is no beamlet; the rest as in `brick_dose`.
    """
    n_row, n_column = weight.shape
    n_gauss = depth_table.shape[0]
    edge_x = _raster_edges_mm(first_column, n_column, size_x)
    edge_y = _raster_edges_mm(first_row, n_row, size_y)
    amplitude = np.empty(8, dtype=np.float32)
    along = np.empty(8, dtype=np.float32)
    total = np.empty(8, dtype=np.float32)
    for i in range(x.shape[0]):
        low_x, high_x, low_y, high_y = x[i, 0], x[i, 0], y[i, 0], y[i, 0]
        for k in range(8):
            low_x, high_x = min(low_x, x[i, k]), max(high_x, x[i, k])
            low_y, high_y = min(low_y, y[i, k]), max(high_y, y[i, k])
            dose[i, k] = np.float32(0.0)
        for gauss in range(n_gauss):
            least = inverse_sigma[i, gauss, 0]
            for k in range(1, 8):
                least = min(least, inverse_sigma[i, gauss, k])
            reach = np.float32(REACH_SIGMA) / least
            a0, a1 = _cells(low_x, high_x, reach, size_x, first_column, n_column)
            b0, b1 = _cells(low_y, high_y, reach, size_y, first_row, n_row)
            if a0 >= a1 or b0 >= b1:
                continue
            _amplitude(depth[i], factor[i], gauss, depth_table, depth_step_mm, density, amplitude)
            _edge_shares(x[i], inverse_sigma[i, gauss], edge_x, a0, a1, table, share_x)
            _edge_shares(y[i], inverse_sigma[i, gauss], edge_y, b0, b1, table, share_y)
            for k in range(8):
                total[k] = np.float32(0.0)
            for row in range(b0, b1):
                for k in range(8):
                    along[k] = np.float32(0.0)
                for column in range(a0, a1):
                    w = weight[row, column]
                    for k in range(8):
                        along[k] += w * share_x[column, k]
                for k in range(8):
                    total[k] += along[k] * share_y[row, k]
            for k in range(8):
                dose[i, k] += amplitude[k] * total[k]
