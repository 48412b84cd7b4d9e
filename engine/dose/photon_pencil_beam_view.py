"""What a beam sees of the dose grid: the part of a pencil beam dose that no beamlet and no density scaling changes."""

from collections.abc import Iterator
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
_PART = 1 << 14
"""Mini-blocks at a time: a dozen MB of float64 coordinates."""


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
    # The eight bytes of a mini-block as one number: is any of them set?
    first_row = np.flatnonzero(np.ascontiguousarray(active).view(np.uint64)) * MINI_SIZE
    if near is not None:
        first_row = first_row[_in_reach(layout, first_row, beam, shift_mm, patient.position, *near)]
    moved = _as_the_patient_sees_it(beam, shift_mm)
    source = source_mm(moved, patient.position)
    depth_mm = np.empty((first_row.size, MINI_SIZE), dtype=np.float32)
    for part in _parts(first_row.size):
        rows = _rows_of(first_row[part])
        traced = radiological_depth_mm(
            patient.density, patient.grid, source, layout.centres_mm(rows.reshape(-1))
        )
        depth_mm[part] = np.where(active[rows], traced.reshape(rows.shape), NOT_ACTIVE)
    view = view_of_depths(layout, first_row, depth_mm, beam, shift_mm, patient.position)
    nearest_mm = float(view.distance_mm.min(initial=np.inf))
    if nearest_mm <= machine.collimator_distance_mm * 0.5:
        raise DoseError(
            f"beam '{beam.name}': a part of the patient is only {nearest_mm:.0f} mm from the source "
            f"(the collimator is at {machine.collimator_distance_mm:.0f} mm); check isocentre and couch"
        )
    return view


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
    x, y, distance_mm, factor = (np.empty((first_row.size, MINI_SIZE), dtype=np.float32) for _ in range(4))
    for part in _parts(first_row.size):
        along_mm, away_mm = _project(layout, first_row[part], beam, shift_mm, position)
        x[part], y[part], distance_mm[part] = along_mm[..., 0], along_mm[..., 1], away_mm
        factor[part] = np.where(depth_mm[part] == NOT_ACTIVE, 0.0, (beam.sad_mm / away_mm) ** 2)
    return BeamView(layout, first_row, x, y, distance_mm, factor, depth_mm)


def _parts(n: int) -> Iterator[slice]:
    """Cut mini-blocks into parts, so that the float64 coordinates of all are never in memory at once."""
    return (slice(begin, begin + _PART) for begin in range(0, n, _PART))


def _project(
    layout: BrickLayout,
    first_row: I64,
    beam: Beam,
    shift_mm: tuple[float, float, float],
    position: PatientPosition,
) -> tuple[F64, F64]:
    """Return positions in the isocentre plane, shape (n, 8, 2), and distances from the source, shape (n, 8)."""
    points_mm = layout.centres_mm(_rows_of(first_row).reshape(-1))
    along_mm, away_mm = project(points_mm, _as_the_patient_sees_it(beam, shift_mm), position)
    return along_mm.reshape(-1, MINI_SIZE, 2), away_mm.reshape(-1, MINI_SIZE)


def _as_the_patient_sees_it(beam: Beam, shift_mm: tuple[float, float, float]) -> Beam:
    """Return the beam for a patient who was moved: moving the patient is moving the isocentre the other way."""
    x_mm, y_mm, z_mm = (i - s for i, s in zip(beam.isocentre_mm, shift_mm, strict=True))
    return replace(beam, isocentre_mm=(x_mm, y_mm, z_mm))


def _rows_of(first_row: I64) -> I64:
    rows: I64 = first_row[:, None] + np.arange(MINI_SIZE)
    return rows


def _in_reach(
    layout: BrickLayout,
    first_row: I64,
    beam: Beam,
    shift_mm: tuple[float, float, float],
    position: PatientPosition,
    beamlets: BeamletGrid,
    reach_mm: float,
) -> Bool:
    """Return which mini-blocks lie around the beamlets' bounding box, shape (n,)."""
    inside = np.empty(first_row.size, dtype=np.bool_)
    for part in _parts(first_row.size):
        mean_mm = _project(layout, first_row[part], beam, shift_mm, position)[0].mean(axis=1)
        inside[part] = around(mean_mm, beamlets, reach_mm)
    return inside


def around(position_mm: F64, beamlets: BeamletGrid, reach_mm: float) -> Bool:
    """Return which positions (n, 2) lie within reach of the beamlets' bounding box, shape (n,)."""
    inside = np.ones(position_mm.shape[0], dtype=np.bool_)
    for axis, centre_mm in enumerate(beamlets.centres_mm()):
        inside &= position_mm[:, axis] >= centre_mm.min() - reach_mm
        inside &= position_mm[:, axis] <= centre_mm.max() + reach_mm
    return inside
