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
from engine.model.case import PatientPosition
from engine.model.machine import PhotonMachine

NOT_ACTIVE = np.float32(-1.0)
"""Radiological depth of a row that gets no dose."""


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
    distance_mm
        Distance from the source, along the beam's axis, shape (n, 8).
    factor
        Inverse square factor, 0 for rows that are not active, shape (n, 8).
    depth_mm
        Radiological depth at density factor 1, `NOT_ACTIVE` for rows that are not active, shape (n, 8).
    """

    layout: BrickLayout
    first_row: I64
    x: F32
    y: F32
    distance_mm: F32
    factor: F32
    depth_mm: F32


def spot_sigma_mm(machine: PhotonMachine, distance_mm: F64) -> F64:
    """Return the width of the focal spot's image through the collimator's edge, at a distance from the source."""
    scd_mm = machine.collimator_distance_mm
    sigma_mm: F64 = machine.source_sigma_mm * np.maximum(distance_mm - scd_mm, 0.0) / scd_mm
    return sigma_mm


def trace_view(
    machine: PhotonMachine,
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
    moved = _as_the_patient_sees_it(beam, shift_mm)
    # The eight bytes of a mini-block as one number: is any of them set?
    first_row = np.flatnonzero(np.ascontiguousarray(active).view(np.uint64)) * MINI_SIZE
    points_mm = layout.centres_mm(_rows_of(first_row).reshape(-1))
    position_mm, distance_mm = project(points_mm, moved, patient.position)
    if distance_mm.size and distance_mm.min() <= machine.collimator_distance_mm * 0.5:
        raise DoseError(
            f"beam '{beam.name}': a part of the patient is only {distance_mm.min():.0f} mm from the source "
            f"(the collimator is at {machine.collimator_distance_mm:.0f} mm); check isocentre and couch"
        )
    if near is not None:
        keep = _in_reach(position_mm.reshape(-1, MINI_SIZE, 2), *near)
        first_row, points_mm = first_row[keep], points_mm[np.repeat(keep, MINI_SIZE)]
    depth_mm = radiological_depth_mm(
        patient.density, patient.grid, source_mm(moved, patient.position), points_mm
    ).reshape(-1, MINI_SIZE)
    depth_mm[~active[_rows_of(first_row)]] = NOT_ACTIVE
    return view_of_depths(layout, first_row, depth_mm, beam, shift_mm, patient.position)


def view_of_depths(
    layout: BrickLayout,
    first_row: I64,
    depth_mm: F32,
    beam: Beam,
    shift_mm: tuple[float, float, float],
    position: PatientPosition,
) -> BeamView:
    """Return the view whose radiological depths are known; all else in it is geometry.

    Parameters
    ----------
    layout, first_row, depth_mm
        As in `BeamView`.
    beam, shift_mm, position
        The beam, the displacement of the patient against it, and how the patient lies.
    """
    moved = _as_the_patient_sees_it(beam, shift_mm)
    position_mm, distance_mm = project(layout.centres_mm(_rows_of(first_row).reshape(-1)), moved, position)
    inverse_square = (beam.sad_mm / distance_mm.reshape(-1, MINI_SIZE)) ** 2
    x, y = (np.ascontiguousarray(position_mm[:, k], dtype=np.float32).reshape(-1, MINI_SIZE) for k in (0, 1))
    return BeamView(
        layout,
        first_row,
        x,
        y,
        distance_mm.astype(np.float32).reshape(-1, MINI_SIZE),
        np.where(depth_mm == NOT_ACTIVE, 0.0, inverse_square).astype(np.float32),
        depth_mm,
    )


def _as_the_patient_sees_it(beam: Beam, shift_mm: tuple[float, float, float]) -> Beam:
    """Return the beam for a patient who was moved: moving the patient is moving the isocentre the other way."""
    x_mm, y_mm, z_mm = (i - s for i, s in zip(beam.isocentre_mm, shift_mm, strict=True))
    return replace(beam, isocentre_mm=(x_mm, y_mm, z_mm))


def _rows_of(first_row: I64) -> I64:
    rows: I64 = first_row[:, None] + np.arange(MINI_SIZE)
    return rows


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
