"""Beamlets over the projection of the target onto the isocentre plane."""

from collections.abc import Sequence

import numpy as np

from engine.errors import CaseError
from engine.geometry.frames import project
from engine.model.arrays import F64
from engine.model.beam import Beam, BeamletGrid
from engine.model.case import Case, PatientPosition, Structure
from engine.model.grid import Grid

PATCH_EDGE = 8
"""Beamlets along the edge of a block: 64 beamlets are enough work for one stored block of tiles."""


def centre_of_mass_mm(structure: Structure, grid: Grid) -> tuple[float, float, float]:
    """Return the centre of a structure, x, y, z, weighted by fractional coverage.

    Raises
    ------
    CaseError
        If the structure covers no voxel.
    """
    total = float(structure.coverage.sum(dtype=np.float64))
    if total <= 0.0:
        raise CaseError(f"structure '{structure.name}' covers no voxel of the CT; check its contours")
    x_mm, y_mm, z_mm = grid.centres_mm_xyz
    coverage = structure.coverage
    return (
        float((coverage.sum(axis=(0, 1), dtype=np.float64) * x_mm).sum() / total),
        float((coverage.sum(axis=(0, 2), dtype=np.float64) * y_mm).sum() / total),
        float((coverage.sum(axis=(1, 2), dtype=np.float64) * z_mm).sum() / total),
    )


def covered_points_mm(structure: Structure, grid: Grid) -> F64:
    """Return the corners of every voxel that a structure touches, shape (n, 3), without repetitions."""
    touched = structure.coverage > 0.0
    nz, ny, nx = touched.shape
    corner = np.zeros((nz + 1, ny + 1, nx + 1), dtype=np.bool_)
    for dz in (0, 1):
        for dy in (0, 1):
            for dx in (0, 1):
                corner[dz : dz + nz, dy : dy + ny, dx : dx + nx] |= touched
    index_z, index_y, index_x = np.nonzero(corner)
    x_mm, y_mm, z_mm = grid.edges_mm_xyz
    return np.stack([x_mm[index_x], y_mm[index_y], z_mm[index_z]], axis=1)


def united(case: Case, names: Sequence[str]) -> Structure:
    """Return some structures as one; a voxel is covered as much as by the one that covers it most."""
    structures = [case.structure(name) for name in names]
    coverage = np.maximum.reduce([structure.coverage for structure in structures])
    return Structure(" and ".join(names), structures[0].kind, coverage)


def place_beamlets(
    case: Case, target: str | Structure, beam: Beam, size_mm: tuple[float, float], margin_mm: float
) -> BeamletGrid:
    """Cover the projection of a target with beamlets.

    A beamlet is opened if the projection of a corner of any voxel that the target touches comes within
    ``margin_mm``, along either collimator axis, of the beamlet's rectangle.

    Parameters
    ----------
    case
        CT and structures.
    target
        Name of the target structure, or several as one from `united`.
    beam
        The beam.
    size_mm
        Beamlet edges at the isocentre plane, along the collimator x and y.
    margin_mm
        How far beamlets reach beyond the projection, at the isocentre plane; at least 0.

    Raises
    ------
    CaseError
        If the target is empty, or lies at or behind the source.
    """
    structure = case.structure(target) if isinstance(target, str) else target
    points_mm = covered_points_mm(structure, case.grid)
    if points_mm.shape[0] == 0:
        raise CaseError(f"target '{structure.name}' covers no voxel of the CT; check its contours")
    return _open_beamlets(points_mm, structure.name, beam, case.patient_position, size_mm, margin_mm)


def _open_beamlets(
    points_mm: F64,
    target: str,
    beam: Beam,
    patient_position: PatientPosition,
    size_mm: tuple[float, float],
    margin_mm: float,
) -> BeamletGrid:
    position_mm, distance_mm = project(points_mm, beam, patient_position)
    if distance_mm.min() <= 0.0:
        raise CaseError(
            f"target '{target}' reaches the source of beam '{beam.name}' (a part lies {beam.sad_mm:.0f} mm or more "
            "towards the source from the isocentre); check the isocentre and the units of the contours"
        )
    low = np.floor((position_mm - margin_mm) / size_mm + 0.5).astype(np.int64)
    high = np.floor((position_mm + margin_mm) / size_mm + 0.5).astype(np.int64)
    first = low.min(axis=0)
    shape = high.max(axis=0) - first + 2
    # Every point opens the rectangle of cells from low to high: add it as four corners, then sum up twice.
    change = np.zeros((shape[1], shape[0]), dtype=np.int64)
    low -= first
    high += 1 - first
    for rows, columns, sign in (
        (low[:, 1], low[:, 0], 1),
        (low[:, 1], high[:, 0], -1),
        (high[:, 1], low[:, 0], -1),
        (high[:, 1], high[:, 0], 1),
    ):
        np.add.at(change, (rows, columns), sign)
    row, column = np.nonzero(change.cumsum(axis=0).cumsum(axis=1) > 0)
    row += first[1]
    column += first[0]
    order = np.lexsort((column, row, column // PATCH_EDGE, row // PATCH_EDGE))
    row, column = row[order], column[order]
    patch = np.stack([row // PATCH_EDGE, column // PATCH_EDGE], axis=1)
    starts = np.flatnonzero(np.any(patch[1:] != patch[:-1], axis=1)) + 1
    block_begin = np.concatenate([[0], starts, [row.size]]).astype(np.int64)
    return BeamletGrid(size_mm, column.astype(np.int32), row.astype(np.int32), block_begin)
