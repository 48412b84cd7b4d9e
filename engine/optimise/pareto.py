"""Weightings that spread over a Pareto front, and which of its points are dominated."""

import numpy as np

from engine.model.arrays import F64, Bool


def emphasis_lattice(divisions: int) -> tuple[tuple[float, float, float], ...]:
    """Return all triples of multiples of ``1 / divisions`` that sum to 1 (Das and Dennis, SIAM J Optim 8 (1998) 631).

    There are ``(divisions + 1) (divisions + 2) / 2`` of them, the three corners among them.
    """
    return tuple(
        (first / divisions, second / divisions, (divisions - first - second) / divisions)
        for first in range(divisions, -1, -1)
        for second in range(divisions - first, -1, -1)
    )


def dominated(values: F64) -> Bool:
    """Return for every point whether another is nowhere worse and somewhere better.

    Parameters
    ----------
    values
        Criterion values, smaller is better, shape (n_point, n_criterion).
    """
    no_worse = (values[:, None, :] <= values[None, :, :]).all(axis=2)
    better = (values[:, None, :] < values[None, :, :]).any(axis=2)
    return np.asarray((no_worse & better).any(axis=0), dtype=np.bool_)
