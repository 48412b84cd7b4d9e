"""What a beam sees of the dose grid: the part of a pencil beam dose that no beamlet and no density scaling changes."""

from dataclasses import dataclass, replace

import numpy as np

from engine.dose.engine import Patient
from engine.errors import DoseError
from engine.geometry.bricks import MINI_SIZE, BrickLayout
from engine.geometry.frames import project, source_mm
from engine.geometry.raytrace import radiological_depth_mm
from engine.model.arrays import F32, F64, I64, Bool
from engine.model.beam import Beam, BeamletGrid
from engine.model.machine import PhotonMachine


@dataclass(frozen=True)
class BeamView:
    """What a beam sees of the active rows: geometry and radiological depth, in mini-blocks of eight.

    Parameters
    ----------
    layout
        Row numbering of the dose grid.
    first_row
        First row of every mini-block, ascending, shape (n,).
    x, y
        Position in the isocentre plane in mm, shape (n, 8).
    depth_mm
        Radiological depth at density factor 1, shape (n, 8).
    factor
        Inverse square factor, 0 for rows that are not active, shape (n, 8).
    inverse_sigma
        Inverse widths of the Gaussians in the isocentre plane in 1/mm, shape (n, n_gauss, 8).
    """

    layout: BrickLayout
    first_row: I64
    x: F32
    y: F32
    depth_mm: F32
    factor: F32
    inverse_sigma: F32


def spot_sigma_mm(machine: PhotonMachine, distance_mm: F64) -> F64:
    """Return the width of the focal spot's image through the collimator's edge, at a distance from the source."""
    scd_mm = machine.collimator_distance_mm
    sigma_mm: F64 = machine.source_sigma_mm * np.maximum(distance_mm - scd_mm, 0.0) / scd_mm
    return sigma_mm


def beam_view(
    machine: PhotonMachine,
    sigma_mm: F64,
    patient: Patient,
    layout: BrickLayout,
    active: Bool,
    beam: Beam,
    shift_mm: tuple[float, float, float],
    near: tuple[BeamletGrid, float] | None,
) -> BeamView:
    """Project the active rows and trace a ray to each.

    Parameters
    ----------
    machine
        Source and collimator.
    sigma_mm
        Widths of the kernel's Gaussians, shape (n_gauss,).
    patient
        Electron density.
    layout
        Row numbering of the dose grid.
    active
        Rows that get dose, shape (n_row,).
    beam
        The beam.
    shift_mm
        Displacement of the patient against the beam, LPS.
    near
        Beamlets and how far they reach: rows out of reach of all of them are left out; None keeps all.

    Raises
    ------
    DoseError
        If a part of the patient comes too close to the source.
    """
    # Moving the patient by a shift is moving the isocentre, as the patient sees it, the other way.
    x_mm, y_mm, z_mm = (i - s for i, s in zip(beam.isocentre_mm, shift_mm, strict=True))
    moved = replace(beam, isocentre_mm=(x_mm, y_mm, z_mm))
    first_row = np.flatnonzero(active.reshape(-1, MINI_SIZE).any(axis=1)) * MINI_SIZE
    position_mm, distance_mm = _project(machine, layout, first_row, moved, patient)
    if near is not None:
        keep = _in_reach(position_mm, *near)
        first_row, position_mm, distance_mm = first_row[keep], position_mm[keep], distance_mm[keep]
    rows = first_row[:, None] + np.arange(MINI_SIZE)
    on = active[rows]
    depth_mm = np.zeros(rows.shape, dtype=np.float32)
    depth_mm[on] = radiological_depth_mm(
        patient.density, patient.grid, source_mm(moved, patient.position), layout.centres_mm(rows[on])
    )
    magnification = distance_mm / beam.sad_mm
    inverse_sigma = magnification[:, None, :] / np.hypot(
        sigma_mm[None, :, None], spot_sigma_mm(machine, distance_mm)[:, None, :]
    )
    return BeamView(
        layout,
        first_row,
        np.ascontiguousarray(position_mm[..., 0], dtype=np.float32),
        np.ascontiguousarray(position_mm[..., 1], dtype=np.float32),
        depth_mm,
        np.where(on, magnification**-2, 0.0).astype(np.float32),
        inverse_sigma.astype(np.float32),
    )


def _project(
    machine: PhotonMachine, layout: BrickLayout, first_row: I64, beam: Beam, patient: Patient
) -> tuple[F64, F64]:
    """Return positions in the isocentre plane, shape (n, 8, 2), and distances from the source, shape (n, 8)."""
    rows = (first_row[:, None] + np.arange(MINI_SIZE)).reshape(-1)
    position_mm, distance_mm = project(layout.centres_mm(rows), beam, patient.position)
    if distance_mm.size and distance_mm.min() <= machine.collimator_distance_mm * 0.5:
        raise DoseError(
            f"beam '{beam.name}': a part of the patient is only {distance_mm.min():.0f} mm from the source "
            f"(the collimator is at {machine.collimator_distance_mm:.0f} mm); check isocentre and couch"
        )
    return position_mm.reshape(-1, MINI_SIZE, 2), distance_mm.reshape(-1, MINI_SIZE)


def _in_reach(position_mm: F64, beamlets: BeamletGrid, reach_mm: float) -> Bool:
    """Return which mini-blocks, positions of shape (n, 8, 2), lie around the beamlets' bounding box."""
    centre_x, centre_y = beamlets.centres_mm()
    mean_mm = position_mm.mean(axis=1)
    inside: Bool = (
        (mean_mm[:, 0] >= centre_x.min() - reach_mm)
        & (mean_mm[:, 0] <= centre_x.max() + reach_mm)
        & (mean_mm[:, 1] >= centre_y.min() - reach_mm)
        & (mean_mm[:, 1] <= centre_y.max() + reach_mm)
    )
    return inside
