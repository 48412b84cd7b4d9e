"""Express ring doses of a pencil kernel as a mixture of Gaussians of fixed widths."""

import numpy as np
from scipy.optimize import nnls

from engine.model.arrays import F64

SIGMA_MM = np.round(np.geomspace(0.2, 175.0, 8), 3)
"""Widths of the mixture. Below 1 mm they only stand for the cusp of the kernel on its axis."""

_SMALLEST_RADIUS_MM = 1.0
_RING_WEIGHT = 0.05
_TOTAL_WEIGHT = 30.0
_LEAST_SHARE = 2.0e-4


def ring_share(radius_edges_mm: F64, sigma_mm: F64) -> F64:
    """Return the share of each Gaussian that falls into each ring, shape (n_ring, n_gauss)."""
    beyond = np.exp(-0.5 * (radius_edges_mm[:, None] / sigma_mm[None, :]) ** 2)
    return beyond[:-1] - beyond[1:]


def fit_gaussians(ring_dose: F64, radius_edges_mm: F64, sigma_mm: F64) -> F64:
    """Return non-negative mixture weights, shape (n_depth, n_gauss), unit of ``ring_dose`` (n_depth, n_ring).

    Depth by depth, least squares of three things: the dose within a radius (what a field's edge and output depend
    on), from 1 mm up; each ring relative to the square root of its dose (what keeps the weak tail); the sum over
    all rings, which is all but enforced.
    """
    in_ring = ring_share(radius_edges_mm, sigma_mm)
    within = np.cumsum(in_ring, axis=0)
    wide = radius_edges_mm[1:] >= _SMALLEST_RADIUS_MM
    weights = np.zeros((ring_dose.shape[0], sigma_mm.size))
    for depth, dose in enumerate(ring_dose):
        total = dose.sum()
        share = dose / total
        ring_weight = _RING_WEIGHT / (np.sqrt(share) + _LEAST_SHARE)
        matrix = np.vstack(
            [within[wide], in_ring * ring_weight[:, None], np.full((1, sigma_mm.size), _TOTAL_WEIGHT)]
        )
        target = np.concatenate([np.cumsum(share)[wide], share * ring_weight, [_TOTAL_WEIGHT]])
        weights[depth] = total * nnls(matrix, target)[0]
    return weights
