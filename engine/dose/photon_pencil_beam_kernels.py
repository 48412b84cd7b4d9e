"""Kernels of the photon pencil beam: one mini-block of eight voxels at a time, as vectors of eight.

Everything lateral is measured in the isocentre plane. A Gaussian of the pencil kernel integrated over a rectangle is
a product of two differences of the normal distribution function, so the beamlets of a raster need that function
only at their shared edges.
"""

import math
from functools import cache
from typing import Any

import numpy as np

from engine._jit import inlined, kernel
from engine._vector import (
    as_float,
    gather,
    larger,
    largest,
    least,
    load,
    root,
    smaller,
    spread,
    store,
    store_counts,
    total,
    whole,
)
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
def _shares(
    centre: Any, per_mm: Any, edge: F32, begin: int, end: int, table: F32, factor: Any, share: F32
) -> None:
    """Fill ``share[begin:end, 8]`` with ``factor`` times the part of a Gaussian that falls into cells of a raster.

    Along one axis, for eight Gaussians at ``centre`` with ``per_mm`` steps of the table to a mm; cell ``c`` reaches
    from ``edge[c]`` to ``edge[c + 1]``.
    """
    last = spread(np.float32(2.0 * REACH_SIGMA * STEPS_PER_SIGMA))
    offset = spread(np.float32(REACH_SIGMA * STEPS_PER_SIGMA))
    zero = spread(np.float32(0.0))
    at = smaller(larger((spread(edge[begin]) - centre) * per_mm + offset, zero), last)
    index = whole(at)
    lower = gather(table, 0, index)
    below = lower + (at - as_float(index)) * (gather(table, 1, index) - lower)
    for cell in range(begin, end):
        at = smaller(larger((spread(edge[cell + 1]) - centre) * per_mm + offset, zero), last)
        index = whole(at)
        lower = gather(table, 0, index)
        above = lower + (at - as_float(index)) * (gather(table, 1, index) - lower)
        store(share, cell * 8, factor * (above - below))
        below = above


@inlined
def _cells(low: Real, high: Real, reach: Real, size: Real, first: int, count: int) -> tuple[int, int]:
    """Return the cells [begin, end) of a raster that lie within ``reach`` of the interval from ``low`` to ``high``."""
    begin = math.floor((low - reach) / size + 0.5) - first
    end = math.floor((high + reach) / size + 0.5) - first + 1
    return min(max(begin, 0), count), min(max(end, 0), count)


@inlined
def _widths(distance: Any, sad_mm: float, collimator_mm: float, source_sigma_mm: float) -> tuple[Any, Any]:
    """Return magnification and squared width of the focal spot's image in mm², at distances from the source."""
    beyond = larger(distance - spread(np.float32(collimator_mm)), spread(np.float32(0.0)))
    spot = beyond * spread(np.float32(source_sigma_mm / collimator_mm))
    return distance * spread(np.float32(1.0 / sad_mm)), spot * spot


@inlined
def _table_position(depth: Any, per_mm: float, n_depth: int) -> tuple[Any, Any]:
    """Return the steps of the depth table below some depths, and how far beyond they are, in steps."""
    steps = larger(depth, spread(np.float32(0.0))) * spread(np.float32(per_mm))
    steps = smaller(steps, spread(np.float32(n_depth - 1)))
    index = whole(smaller(steps, spread(np.float32(n_depth - 2))))
    return index, steps - as_float(index)


@kernel
def brick_dose(
    x: F32, y: F32, distance: F32, factor: F32, depth: F32, mini: U16,
    sad_mm: float, collimator_mm: float, source_sigma_mm: float, sigma: F32, depth_table: F32, steps_per_mm: float,
    raster: I32, first_column: int, first_row: int, size_x: float, size_y: float,
    cutoff_mm: float, threshold: float, table: F32,
    share_x: F32, share_y: F32, cell_dose: F32,
    count: I32, mini_out: U16, dose_out: F32,
) -> None:  # fmt: skip
    """Collect the dose per weight of every beamlet in one brick, mini-block by mini-block.

    Per mini-block (n, 8): ``x, y`` position in the isocentre plane, ``distance`` from the source, ``factor`` inverse
    square (0 where there is no row), ``depth`` radiological depth; ``mini`` (n,) number in the brick. ``sigma``
    (n_gauss,) widths and ``depth_table`` (n_gauss, n_depth) weights of the Gaussians. ``raster`` (n_row, n_column)
    holds beamlet numbers or -1. A beamlet gets a mini-block if its centre is within ``cutoff_mm`` of the mini-block's
    mean position and some entry exceeds ``threshold``. Scratch: ``share_x`` (n_column, 8), ``share_y`` (n_row, 8),
    ``cell_dose`` (n_row, n_column, 8). Appends to ``mini_out`` (n_beamlet, n_max), ``dose_out`` (n_beamlet, n_max, 8),
    at ``count``.
    """
    n_row, n_column = raster.shape
    n_gauss, n_depth = depth_table.shape
    n_max = mini_out.shape[1]
    edge_x = _raster_edges_mm(first_column, n_column, size_x)
    edge_y = _raster_edges_mm(first_row, n_row, size_y)
    one, zero = spread(np.float32(1.0)), spread(np.float32(0.0))
    for i in range(mini.size):
        at_x, at_y = load(x, i * 8), load(y, i * 8)
        mean_x, mean_y = total(at_x) * np.float32(0.125), total(at_y) * np.float32(0.125)
        c0, c1 = _cells(mean_x, mean_x, cutoff_mm, size_x, first_column, n_column)
        r0, r1 = _cells(mean_y, mean_y, cutoff_mm, size_y, first_row, n_row)
        if c0 >= c1 or r0 >= r1:
            continue
        for row in range(r0, r1):
            for column in range(c0, c1):
                store(cell_dose, (row * n_column + column) * 8, zero)
        magnification, spot = _widths(load(distance, i * 8), sad_mm, collimator_mm, source_sigma_mm)
        index, part = _table_position(load(depth, i * 8), steps_per_mm, n_depth)
        for gauss in range(n_gauss):
            width = spread(sigma[gauss])
            per_sigma = magnification / root(width * width + spot)
            reach = np.float32(REACH_SIGMA) / least(per_sigma)
            a0, a1 = _cells(least(at_x), largest(at_x), reach, size_x, first_column, n_column)
            b0, b1 = _cells(least(at_y), largest(at_y), reach, size_y, first_row, n_row)
            a0, a1, b0, b1 = max(a0, c0), min(a1, c1), max(b0, r0), min(b1, r1)
            if a0 >= a1 or b0 >= b1:
                continue
            lower = gather(depth_table, gauss * n_depth, index)
            weight = lower + part * (gather(depth_table, gauss * n_depth + 1, index) - lower)
            per_mm = per_sigma * spread(np.float32(STEPS_PER_SIGMA))
            _shares(at_x, per_mm, edge_x, a0, a1, table, one, share_x)
            _shares(at_y, per_mm, edge_y, b0, b1, table, load(factor, i * 8) * weight, share_y)
            for row in range(b0, b1):
                along_y = load(share_y, row * 8)
                for column in range(a0, a1):
                    cell = (row * n_column + column) * 8
                    store(cell_dose, cell, load(cell_dose, cell) + along_y * load(share_x, column * 8))
        for row in range(r0, r1):
            away_y = (first_row + row) * size_y - mean_y
            for column in range(c0, c1):
                beamlet = raster[row, column]
                away_x = (first_column + column) * size_x - mean_x
                if beamlet < 0 or away_x * away_x + away_y * away_y > cutoff_mm * cutoff_mm:
                    continue
                dose = load(cell_dose, (row * n_column + column) * 8)
                if largest(dose) > threshold:
                    slot = count[beamlet]
                    mini_out[beamlet, slot] = mini[i]
                    store(dose_out, (beamlet * n_max + slot) * 8, dose)
                    count[beamlet] = slot + 1


@kernel
def quantise(
    count: I32,
    mini_in: U16,
    dose: F32,
    threshold: float,
    begin: I64,
    scale: F32,
    n_entry: I64,
    mini: U16,
    value: U16,
) -> None:
    """Turn the mini-blocks collected for some beamlets in one brick into counts of 16 bits, beamlet by beamlet.

    ``count`` (n,), ``mini_in`` (n, n_max), ``dose`` (n, n_max, 8). Writes ``begin`` (n + 1,), the first mini-block of
    each beamlet and their number; ``scale`` (n,); ``n_entry`` (n,), the entries above ``threshold``; ``mini``
    (n_mini,), ``value`` (n_mini, 8).
    """
    at = 0
    n_max = mini_in.shape[1]
    half = spread(np.float32(0.5))
    for beamlet in range(count.size):
        begin[beamlet] = at
        most = spread(np.float32(0.0))
        above = 0
        for i in range(count[beamlet]):
            most = larger(most, load(dose, (beamlet * n_max + i) * 8))
            for k in range(8):
                above += dose[beamlet, i, k] > threshold
        n_entry[beamlet] = above
        top = largest(most)
        scale[beamlet] = top / np.float32(65535.0)
        if top > np.float32(0.0):
            per_gy = spread(np.float32(65535.0) / top)
            for i in range(count[beamlet]):
                mini[at] = mini_in[beamlet, i]
                store_counts(value, at * 8, load(dose, (beamlet * n_max + i) * 8) * per_gy + half)
                at += 1
    begin[count.size] = at


@kernel
def forward_dose(
    x: F32, y: F32, distance: F32, factor: F32, depth: F32,
    sad_mm: float, collimator_mm: float, source_sigma_mm: float, sigma: F32, depth_table: F32, steps_per_mm: float,
    weight: F32, first_column: int, first_row: int, size_x: float, size_y: float,
    table: F32, share_x: F32, share_y: F32, dose: F32,
) -> None:  # fmt: skip
    """Sum the dose of a whole fluence map, without cut-off, into ``dose`` (n, 8).

    ``weight`` (n_row, n_column) is the fluence raster, 0 where there is no beamlet; the rest as in `brick_dose`.
    """
    n_row, n_column = weight.shape
    n_gauss, n_depth = depth_table.shape
    edge_x = _raster_edges_mm(first_column, n_column, size_x)
    edge_y = _raster_edges_mm(first_row, n_row, size_y)
    one, zero = spread(np.float32(1.0)), spread(np.float32(0.0))
    for i in range(x.shape[0]):
        at_x, at_y = load(x, i * 8), load(y, i * 8)
        magnification, spot = _widths(load(distance, i * 8), sad_mm, collimator_mm, source_sigma_mm)
        index, part = _table_position(load(depth, i * 8), steps_per_mm, n_depth)
        result = zero
        for gauss in range(n_gauss):
            width = spread(sigma[gauss])
            per_sigma = magnification / root(width * width + spot)
            reach = np.float32(REACH_SIGMA) / least(per_sigma)
            a0, a1 = _cells(least(at_x), largest(at_x), reach, size_x, first_column, n_column)
            b0, b1 = _cells(least(at_y), largest(at_y), reach, size_y, first_row, n_row)
            if a0 >= a1 or b0 >= b1:
                continue
            lower = gather(depth_table, gauss * n_depth, index)
            amplitude = lower + part * (gather(depth_table, gauss * n_depth + 1, index) - lower)
            per_mm = per_sigma * spread(np.float32(STEPS_PER_SIGMA))
            _shares(at_x, per_mm, edge_x, a0, a1, table, one, share_x)
            _shares(at_y, per_mm, edge_y, b0, b1, table, amplitude, share_y)
            for row in range(b0, b1):
                along_x = zero
                for column in range(a0, a1):
                    along_x = along_x + spread(weight[row, column]) * load(share_x, column * 8)
                result = result + along_x * load(share_y, row * 8)
        store(dose, i * 8, load(factor, i * 8) * result)
