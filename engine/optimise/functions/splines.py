"""Volumes dealt onto the nodes of a dose axis, with B-splines of degree 5: volume and mean dose are kept.

A module of its own, because machine code is made anew whenever anything that its module imports has changed.
"""

import numpy as np

from engine._jit import kernel
from engine.model.arrays import F64, I64

N_NODE = 2048
DEGREE = 5
BELOW = 2
"""Nodes below dose 0, and as many above the axis: the splines of a dose reach so far beyond."""
LAST = N_NODE - DEGREE - 1.0
"""In spacings: beyond it, parts go on along straight lines."""


@kernel
def deal(position: F64, order: int, first: I64, parts: F64) -> None:
    """Write what each voxel deals onto ``parts`` (6, n), and the number of its first node (n,).

    B-splines by the recursion of de Boor, J Approx Theory 6 (1972) 50, for equal spacings; their derivatives are
    differences. From the last nodes on, values go on along straight lines.

    Parameters
    ----------
    position
        Dose in spacings, shape (n,).
    order
        0 for the values, 1 or 2 for a derivative by the position.
    first, parts
        Results.
    """
    spline = np.empty(DEGREE + 1)
    for i in range(position.size):
        inside = min(position[i], LAST)
        node = min(np.floor(inside), LAST - 1.0)
        t, beyond = inside - node, position[i] - inside
        first[i] = int(node)
        parts[:, i] = 0.0
        for derivative in range(order, 2 if order == 0 and beyond > 0.0 else order + 1):
            spline[0] = 1.0
            for degree in range(1, DEGREE + 1):
                # From the last on, because each needs the one before as it was.
                for j in range(degree, -1, -1):
                    below = spline[j - 1] if j > 0 else 0.0
                    above = spline[j] if j < degree else 0.0
                    if degree > DEGREE - derivative:
                        spline[j] = below - above
                    else:
                        spline[j] = ((t + (degree - j)) * below + (1.0 - t + j) * above) / degree
            factor = 1.0
            if derivative > order:
                factor = beyond
            elif order == 2 and beyond > 0.0:
                factor = 0.0
            for j in range(DEGREE + 1):
                parts[j, i] += factor * spline[j]
