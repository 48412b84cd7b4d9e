"""How much dose the tiles of a pencil beam can lack: derivation in ``docs/methods/photon_pencil_beam.md``."""

from itertools import product

import numpy as np

from engine.dose.photon_pencil_beam_view import spot_sigma_mm
from engine.geometry.frames import project
from engine.model.arrays import F32, F64
from engine.model.beam import Beam
from engine.model.case import PatientPosition
from engine.model.grid import Grid
from engine.model.machine import PhotonMachine

HALF_COUNT = 0.5 / 65535.0
"""Rounding error of a stored value, as a share of the largest in its segment."""


def cut_reach_mm(
    beam: Beam, position: PatientPosition, grid: Grid, size_mm: tuple[float, float], cutoff_mm: float
) -> tuple[float, float, float]:
    """Return how near a voxel can be to a beamlet that is cut off there.

    A beamlet is cut off where its centre is further than ``cutoff_mm`` from the mean position of a mini-block. From
    its edge to one of the eight voxels it may be nearer by half the beamlet's diagonal and by the distance of the voxel
    from that mean: half the diagonal of the eight, magnified as the perspective does at the nearest and most oblique
    corner of the grid, and a second order term, because the mean of projections is not the projection of the mean.

    Returns
    -------
    tuple
        The radius in the isocentre plane in mm, at least 0; the least and the largest distance from the source.
    """
    spacing_mm = np.asarray(grid.spacing_mm_xyz)
    # A mini-block may reach one voxel beyond the grid.
    ends_mm = [
        (edges[0], edges[-1] + step) for edges, step in zip(grid.edges_mm_xyz, spacing_mm, strict=True)
    ]
    position_mm, distance_mm = project(np.array(list(product(*ends_mm))), beam, position)
    obliqueness = np.sqrt(1.0 + (np.hypot(position_mm[:, 0], position_mm[:, 1]).max() / beam.sad_mm) ** 2)
    half_mm = 0.5 * float(np.linalg.norm(spacing_mm))
    nearest_mm, farthest_mm = float(distance_mm.min()), float(distance_mm.max())
    spread = half_mm / nearest_mm + half_mm**2 / (nearest_mm**2 - half_mm**2)
    spread_mm = obliqueness * beam.sad_mm * spread
    radius_mm = max(cutoff_mm - 0.5 * float(np.hypot(*size_mm)) - spread_mm, 0.0)
    return radius_mm, nearest_mm, farthest_mm


def lost_dose_per_weight_gy(
    machine: PhotonMachine,
    sigma_mm: F64,
    depth_table_gy: F32,
    threshold_gy: float,
    size_mm: tuple[float, float],
    radius_mm: float,
    nearest_mm: float,
    farthest_mm: float,
) -> float:
    """Return the largest dose per weight that one beamlet can lack in a voxel.

    A voxel lacks a beamlet because it is cut off there, or because it lies below the threshold, or is rounded; never
    two of them, so the largest of the three counts.

    Parameters
    ----------
    machine
        Source and collimator.
    sigma_mm
        Widths of the kernel's Gaussians, shape (n_gauss,).
    depth_table_gy
        Their amplitudes per weight at all depths, shape (n_gauss, n_depth).
    threshold_gy
        Entries up to this are left out.
    size_mm
        Edges of a beamlet in the isocentre plane.
    radius_mm, nearest_mm, farthest_mm
        From `cut_reach_mm`.
    """
    nearest, farthest = np.hypot(sigma_mm, spot_sigma_mm(machine, np.array([[nearest_mm], [farthest_mm]])))
    largest_factor = (machine.sad_mm / nearest_mm) ** 2
    away_mm = radius_mm * nearest_mm / machine.sad_mm
    # At a fixed distance a Gaussian is highest if its width is that distance over the square root of 2.
    width_mm = np.clip(away_mm / np.sqrt(2.0), nearest, farthest)
    density_mm2 = np.exp(-0.5 * (away_mm / width_mm) ** 2) / (2.0 * np.pi * width_mm**2)
    share = np.minimum(size_mm[0] * size_mm[1] * density_mm2, largest_factor)
    cut_gy = float((share @ depth_table_gy).max())
    rounded_gy = HALF_COUNT * largest_factor * float(depth_table_gy.sum(axis=0).max())
    return max(cut_gy, threshold_gy, rounded_gy)
