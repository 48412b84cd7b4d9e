"""Kernels of the products with tiles (`engine.influence.rows.RowGroup` says what the arrays are)."""

import numpy as np

from engine._jit import inlined, kernel
from engine._vector import load, load_counts, spread, store, total
from engine.model.arrays import F32, F64, I32, I64, U16, Bool

_ONE, _TWO, _THREE, _FOUR = (np.uint64(n) for n in (1, 2, 3, 4))
"""Unsigned, so that numba does not look for negative indices."""
_LARGEST_COUNT = 65535.0


@kernel
def add_dose(
    brick_begin: I64, beamlet: I32, scale: F32, segment_begin: I64, mini: U16, value: U16,
    brick_size: int, weight: F64, wanted: Bool, dose_gy: F64,
) -> None:  # fmt: skip
    """Add every segment's dose for every set of weights; the order of additions to a row is that of segments.

    ``weight`` (n, n_beamlet), ``dose_gy`` (n, n_row). A segment is in the processor's cache after its first set. Four
    mini-blocks at a time are loaded before any is stored: they are different ones. They are read if any of the four is
    ``wanted`` (n, n_row / 8): then the others get what this segment gives them, too.
    """
    n_row = dose_gy.shape[1]
    n_mini = brick_size // 8
    some = np.zeros(weight.shape[0], dtype=np.bool_)
    for brick in range(brick_begin.size - 1):
        first, first_mini = brick * brick_size, np.uint64(brick * n_mini)
        for one in range(weight.shape[0]):
            some[one] = wanted[one, brick * n_mini : (brick + 1) * n_mini].any()
        if not some.any():
            continue
        for segment in range(brick_begin[brick], brick_begin[brick + 1]):
            for one in range(weight.shape[0]):
                gy = weight[one, beamlet[segment]] * scale[segment]
                if gy == 0.0 or not some[one]:
                    continue
                start, each = one * n_row + first, spread(gy)
                i, end = np.uint64(segment_begin[segment]), np.uint64(segment_begin[segment + 1])
                while i + _FOUR <= end:
                    j, k, m, n = mini[i], mini[i + _ONE], mini[i + _TWO], mini[i + _THREE]
                    count = np.int64(i) * 8
                    i += _FOUR
                    if not (
                        wanted[one, first_mini + j]
                        | wanted[one, first_mini + k]
                        | wanted[one, first_mini + m]
                        | wanted[one, first_mini + n]
                    ):
                        continue
                    p, q = start + np.int64(j) * 8, start + np.int64(k) * 8
                    r, s = start + np.int64(m) * 8, start + np.int64(n) * 8
                    a = load(dose_gy, p) + each * load_counts(value, count)
                    b = load(dose_gy, q) + each * load_counts(value, count + 8)
                    c = load(dose_gy, r) + each * load_counts(value, count + 16)
                    d = load(dose_gy, s) + each * load_counts(value, count + 24)
                    store(dose_gy, p, a)
                    store(dose_gy, q, b)
                    store(dose_gy, r, c)
                    store(dose_gy, s, d)
                while i < end:
                    p = start + np.int64(mini[i]) * 8
                    store(dose_gy, p, load(dose_gy, p) + each * load_counts(value, np.int64(i) * 8))
                    i += _ONE


@kernel
def add_adjoint(
    brick_begin: I64, beamlet: I32, scale: F32, segment_begin: I64, mini: U16, value: U16,
    brick_size: int, row_gradient: F64, weight_gradient: F64,
) -> None:  # fmt: skip
    """Add every segment's share of the transposed products, segment by segment.

    ``row_gradient`` (n, n_row), ``weight_gradient`` (n, n_beamlet). Four sets at a time share the reading of counts.
    Each has two sums side by side, of every second mini-block, so that one addition need not wait for the last. Where
    all sets are 0 the counts are not read, which leaves the sums as they are.
    """
    n, n_row = row_gradient.shape
    by_four = n - n % 4
    steep = np.zeros(brick_size // 8, dtype=np.bool_)
    for brick in range(brick_begin.size - 1):
        first = brick * brick_size
        if not _find_steep(row_gradient, first, steep):
            continue
        for segment in range(brick_begin[brick], brick_begin[brick + 1]):
            to, gy = beamlet[segment], scale[segment]
            begin, end = np.uint64(segment_begin[segment]), np.uint64(segment_begin[segment + 1])
            for one in range(0, by_four, 4):
                start = one * n_row + first
                a, b, c, d = spread(0.0), spread(0.0), spread(0.0), spread(0.0)
                e, f, g, h = spread(0.0), spread(0.0), spread(0.0), spread(0.0)
                i = begin
                while i < end:
                    if steep[mini[i]]:
                        counts, at = load_counts(value, np.int64(i) * 8), start + np.int64(mini[i]) * 8
                        a = a + load(row_gradient, at) * counts
                        b = b + load(row_gradient, at + n_row) * counts
                        c = c + load(row_gradient, at + 2 * n_row) * counts
                        d = d + load(row_gradient, at + 3 * n_row) * counts
                    i += _ONE
                    if i < end and steep[mini[i]]:
                        counts, at = load_counts(value, np.int64(i) * 8), start + np.int64(mini[i]) * 8
                        e = e + load(row_gradient, at) * counts
                        f = f + load(row_gradient, at + n_row) * counts
                        g = g + load(row_gradient, at + 2 * n_row) * counts
                        h = h + load(row_gradient, at + 3 * n_row) * counts
                    i += _ONE
                weight_gradient[one, to] += total(a + e) * gy
                weight_gradient[one + 1, to] += total(b + f) * gy
                weight_gradient[one + 2, to] += total(c + g) * gy
                weight_gradient[one + 3, to] += total(d + h) * gy
            for one in range(by_four, n):
                start = one * n_row + first
                a, b = spread(0.0), spread(0.0)
                i = begin
                while i + _FOUR <= end:
                    p, q, r, s = mini[i], mini[i + _ONE], mini[i + _TWO], mini[i + _THREE]
                    if steep[p] | steep[q] | steep[r] | steep[s]:
                        count = np.int64(i) * 8
                        a = a + load(row_gradient, start + np.int64(p) * 8) * load_counts(value, count)
                        b = b + load(row_gradient, start + np.int64(q) * 8) * load_counts(value, count + 8)
                        a = a + load(row_gradient, start + np.int64(r) * 8) * load_counts(value, count + 16)
                        b = b + load(row_gradient, start + np.int64(s) * 8) * load_counts(value, count + 24)
                    i += _FOUR
                while i < end:
                    a = a + load(row_gradient, start + np.int64(mini[i]) * 8) * load_counts(
                        value, np.int64(i) * 8
                    )
                    i += _ONE
                    if i < end:
                        b = b + load(row_gradient, start + np.int64(mini[i]) * 8) * load_counts(
                            value, np.int64(i) * 8
                        )
                    i += _ONE
                weight_gradient[one, to] += total(a + b) * gy


@inlined
def _find_steep(row_gradient: F64, first: int, steep: Bool) -> bool:
    """Note of every mini-block of a brick whether any set has numbers there that are not 0; returns whether one has."""
    some = False
    for mini in range(steep.size):
        here = False
        for one in range(row_gradient.shape[0]):
            for row in range(first + mini * 8, first + mini * 8 + 8):
                here |= row_gradient[one, row] != 0.0
        steep[mini] = here
        some |= here
    return some


@kernel
def add_rise(brick_begin: I64, beamlet: I32, scale: F32, more: F64, rise_gy: F64) -> None:
    """Add to every brick the most that any of its rows can get from ``more`` (n_beamlet,) weight of every beamlet."""
    for brick in range(brick_begin.size - 1):
        counts_gy = 0.0
        for segment in range(brick_begin[brick], brick_begin[brick + 1]):
            counts_gy += more[beamlet[segment]] * scale[segment]
        rise_gy[brick] += _LARGEST_COUNT * counts_gy
