"""Exact area coverage of pixels by polygons under the even-odd rule.

The plane is cut into horizontal strips at every corner and every pixel border, so that inside a strip all edges are
straight pieces which run from its bottom to its top. Sorted from left to right, edges open and close the inside in
turn (even-odd). The area to the right of an edge piece is added with the sign of its turn; a running sum along the
row completes the trapezoids, as in a coverage-accumulating scan converter. Where edges cross inside a strip, the strip
is cut again at the crossings, so overlapping and self-crossing polygons are exact, too.
"""

import numpy as np

from engine._jit import inlined, kernel
from engine.model.arrays import F64, I64

ORDER_TOLERANCE_PIXEL = 1e-9
"""Edges that swap sides by less than this inside a strip are not cut: the area at stake is smaller still."""
MOST_WORK = 2e8
"""Steps for one plane, a second or two: a hundred times those of the most ragged contours of a patient."""
MOST_CROSSING = 5000
"""Edges in one strip of which some cross: their pairs have to fit into memory."""
SNAP_FRACTION = 1e-9
"""Coverage this close to 0 or 1 is rounding of the running sum and becomes 0 or 1."""


@inlined
def _x_at(low_x: F64, low_y: F64, high_x: F64, high_y: F64, edge: int, y: float) -> float:
    """Return the column position of an edge at height ``y``; exact at both corners."""
    if y <= low_y[edge]:
        return float(low_x[edge])
    if y >= high_y[edge]:
        return float(high_x[edge])
    part = (y - low_y[edge]) / (high_y[edge] - low_y[edge])
    return float(low_x[edge] + part * (high_x[edge] - low_x[edge]))


@inlined
def _sort_by_middle(
    low_x: F64, low_y: F64, high_x: F64, high_y: F64, active: I64, n_active: int, y: float, key: F64
) -> None:
    """Sort the active edges by their position at height ``y``, in place; insertion, as they hardly change order."""
    for a in range(n_active):
        edge = active[a]
        x = _x_at(low_x, low_y, high_x, high_y, edge, y)
        b = a
        while b > 0 and key[b - 1] > x:
            active[b] = active[b - 1]
            key[b] = key[b - 1]
            b -= 1
        active[b] = edge
        key[b] = x


@inlined
def _add_right_area(cells: F64, x_bottom: float, x_top: float, height: float, sign: float) -> None:
    """Add the area right of one edge piece, as differences along the row ``cells`` of shape (nx + 1,)."""
    nx = cells.size - 1
    left = min(x_bottom, x_top)
    right = max(x_bottom, x_top)
    if left >= nx:
        return
    if right <= 0.0:
        cells[0] += sign * height
        return
    width = right - left
    start = max(left, 0.0)
    end = min(right, float(nx))
    if left < 0.0:
        cells[0] += sign * height * (-left / width)
    column = int(start)
    if end <= column + 1.0:
        part = height
        if width > 0.0:
            part = height * (end - start) / width
        mean = 0.5 * (start + end) - column
        cells[column] += sign * part * (1.0 - mean)
        cells[column + 1] += sign * part * mean
        return
    x = start
    while x < end:
        following = min(column + 1.0, end)
        part = height * (following - x) / width
        mean = 0.5 * (x + following) - column
        cells[column] += sign * part * (1.0 - mean)
        cells[column + 1] += sign * part * mean
        x = following
        column += 1


@inlined
def _add_strip(
    low_x: F64,
    low_y: F64,
    high_x: F64,
    high_y: F64,
    active: I64,
    n_active: int,
    bottom: float,
    top: float,
    cells: F64,
) -> None:
    """Add the inside of one strip whose edges are sorted and do not cross."""
    sign = 1.0
    for a in range(n_active):
        x_bottom = _x_at(low_x, low_y, high_x, high_y, active[a], bottom)
        x_top = _x_at(low_x, low_y, high_x, high_y, active[a], top)
        _add_right_area(cells, x_bottom, x_top, top - bottom, sign)
        sign = -sign


@inlined
def _is_ordered(
    low_x: F64, low_y: F64, high_x: F64, high_y: F64, active: I64, n_active: int, y: float
) -> bool:
    """Return whether the active edges have their order at height ``y``, too."""
    before = -np.inf
    for a in range(n_active):
        x = _x_at(low_x, low_y, high_x, high_y, active[a], y)
        if x < before - ORDER_TOLERANCE_PIXEL:
            return False
        before = x
    return True


@inlined
def _crossings(
    low_x: F64, low_y: F64, high_x: F64, high_y: F64, active: I64, n_active: int, bottom: float, top: float
) -> F64:
    """Return the heights at which edges cross inside the strip, sorted, with its bottom and top at the ends."""
    heights = np.empty(n_active * (n_active - 1) // 2 + 2, np.float64)
    heights[0] = bottom
    n_height = 1
    for a in range(n_active):
        for b in range(a + 1, n_active):
            below = _x_at(low_x, low_y, high_x, high_y, active[a], bottom) - _x_at(
                low_x, low_y, high_x, high_y, active[b], bottom
            )
            above = _x_at(low_x, low_y, high_x, high_y, active[a], top) - _x_at(
                low_x, low_y, high_x, high_y, active[b], top
            )
            if below * above < 0.0:
                heights[n_height] = bottom + (top - bottom) * below / (below - above)
                n_height += 1
    heights[n_height] = top
    return np.sort(heights[: n_height + 1])


@kernel
def even_odd_coverage(low_x: F64, low_y: F64, high_x: F64, high_y: F64, event_y: F64, coverage: F64) -> bool:
    """Fill ``coverage`` with the fraction of every pixel that lies inside the polygons.

    Returns False, with ``coverage`` unfinished, if edges cross so often that it would take more than `MOST_WORK`: the
    crossings of n edges are up to n²/2, and each cuts all of them again.

    Pixel ``[row, column]`` spans ``row <= y <= row + 1`` and ``column <= x <= column + 1``.

    Parameters
    ----------
    low_x, low_y, high_x, high_y
        Ends of all edges of all polygons, lower end first (``low_y < high_y``), sorted by ``low_y``; shape (n_edge,).
    event_y
        All corner heights and whole numbers between the lowest and the highest corner, inside the picture, sorted,
        without repetition.
    coverage
        Result, shape (ny, nx).
    """
    ny, nx = coverage.shape
    cells = np.zeros((ny, nx + 1), np.float64)
    active = np.empty(low_y.size, np.int64)
    key = np.empty(low_y.size, np.float64)
    n_active = 0
    next_edge = 0
    work = 0.0
    for strip in range(event_y.size - 1):
        bottom = event_y[strip]
        top = event_y[strip + 1]
        n_kept = 0
        for a in range(n_active):
            if high_y[active[a]] > bottom:
                active[n_kept] = active[a]
                n_kept += 1
        n_active = n_kept
        first_new = next_edge
        while next_edge < low_y.size and low_y[next_edge] <= bottom:
            if high_y[next_edge] > bottom:
                active[n_active] = next_edge
                n_active += 1
            next_edge += 1
        if n_active == 0:
            continue
        work += float(next_edge - first_new) * n_active
        if work > MOST_WORK:
            return False
        row = cells[int(bottom)]
        _sort_by_middle(low_x, low_y, high_x, high_y, active, n_active, 0.5 * (bottom + top), key)
        if _is_ordered(low_x, low_y, high_x, high_y, active, n_active, bottom) and _is_ordered(
            low_x, low_y, high_x, high_y, active, n_active, top
        ):
            _add_strip(low_x, low_y, high_x, high_y, active, n_active, bottom, top, row)
            continue
        work += float(n_active) * n_active
        if work > MOST_WORK or n_active > MOST_CROSSING:
            return False
        heights = _crossings(low_x, low_y, high_x, high_y, active, n_active, bottom, top)
        work += float(heights.size) * n_active
        if work > MOST_WORK:
            return False
        for part in range(heights.size - 1):
            middle = 0.5 * (heights[part] + heights[part + 1])
            _sort_by_middle(low_x, low_y, high_x, high_y, active, n_active, middle, key)
            _add_strip(low_x, low_y, high_x, high_y, active, n_active, heights[part], heights[part + 1], row)
    for j in range(ny):
        total = 0.0
        for i in range(nx):
            total += cells[j, i]
            fraction = total
            if fraction < SNAP_FRACTION:
                fraction = 0.0
            elif fraction > 1.0 - SNAP_FRACTION:
                fraction = 1.0
            coverage[j, i] = fraction
    return True
