r"""Patient coordinates, IEC 61217 systems and the beam's eye view. Drawing: ``docs/methods/frames.md``.

Three right-handed systems, all in mm:

* **LPS**: DICOM patient coordinates, +x to the patient's left, +y posterior, +z to the head.
* **IEC fixed**: origin at the isocentre, seen by somebody who faces the gantry: +x right, +y into the gantry,
  +z up (IEC 61217, 3.3).
* **Beam's eye view (BEV)**: the collimator system; +z from the isocentre to the source, x and y along the
  collimator. The isocentre plane is z = 0; a point projects onto it along its ray.

The couch turns by its angle about the fixed +z (counter-clockwise seen from above), the gantry about the fixed +y
(clockwise for somebody who faces it), the collimator about the BEV +z (counter-clockwise seen from the source).
"""

import numpy as np

from engine.model.arrays import F64
from engine.model.beam import Beam
from engine.model.case import PatientPosition
from engine.units import RAD_PER_DEG

_COUCH_FROM_LPS: dict[str, tuple[tuple[int, int, int], ...]] = {
    # Rows: couch x, y, z in terms of LPS x, y, z, couch at angle 0.
    "HFS": ((1, 0, 0), (0, 0, 1), (0, -1, 0)),
    "HFP": ((-1, 0, 0), (0, 0, 1), (0, 1, 0)),
    "FFS": ((-1, 0, 0), (0, 0, -1), (0, -1, 0)),
    "FFP": ((1, 0, 0), (0, 0, -1), (0, 1, 0)),
}


def _rotation_y(angle_rad: float) -> F64:
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])


def _rotation_z(angle_rad: float) -> F64:
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def bev_from_lps(beam: Beam, patient_position: PatientPosition) -> F64:
    """Return the rotation, shape (3, 3), that takes ``point_lps - isocentre`` to BEV coordinates."""
    couch_from_lps = np.array(_COUCH_FROM_LPS[patient_position], dtype=np.float64)
    fixed_from_couch = _rotation_z(beam.couch_deg * RAD_PER_DEG)
    fixed_from_gantry = _rotation_y(beam.gantry_deg * RAD_PER_DEG)
    gantry_from_bev = _rotation_z(beam.collimator_deg * RAD_PER_DEG)
    rotation: F64 = gantry_from_bev.T @ fixed_from_gantry.T @ fixed_from_couch @ couch_from_lps
    return rotation


def source_mm(beam: Beam, patient_position: PatientPosition) -> F64:
    """Return the position of the source in LPS, shape (3,)."""
    towards_source = bev_from_lps(beam, patient_position).T @ np.array([0.0, 0.0, 1.0])
    position: F64 = np.asarray(beam.isocentre_mm) + beam.sad_mm * towards_source
    return position


def project(points_mm_lps: F64, beam: Beam, patient_position: PatientPosition) -> tuple[F64, F64]:
    """Project points along their rays onto the isocentre plane.

    Parameters
    ----------
    points_mm_lps
        Points, shape (n, 3).
    beam, patient_position
        The beam and how the patient lies.

    Returns
    -------
    tuple
        Coordinates along the collimator axes, shape (n, 2), and the distance of each point from the plane through
        the source that is parallel to the isocentre plane, shape (n,), both in mm.
    """
    bev = (points_mm_lps - np.asarray(beam.isocentre_mm)) @ bev_from_lps(beam, patient_position).T
    distance_mm = beam.sad_mm - bev[:, 2]
    return bev[:, :2] * (beam.sad_mm / distance_mm)[:, None], distance_mm
