"""Where source and field of an experiment's beam are."""

import math

import numpy as np

from engine.errors import ExperimentError
from engine.experiment.geometry import Geometry
from engine.geometry.frames import bev_from_lps
from engine.model.arrays import F64
from engine.model.beam import Beam
from engine.spec.experiment import BeamSpec
from engine.units import RAD_PER_DEG

_PARALLEL = 1e-9


def place_beam(spec: BeamSpec, geometry: Geometry) -> Beam:
    """Return the beam of a point source, with the plane where its field is stated as isocentre plane.

    So ``sad_mm`` is the distance of that plane from the source, and ``isocentre_mm`` the middle of the field in it.

    Parameters
    ----------
    spec
        A beam with a point source.
    geometry
        What it hits.

    Raises
    ------
    ExperimentError
        If the axis misses the phantom where its surface is needed, or the plane lies behind the source.
    """
    angles = _angles(spec)
    turned = Beam("beam", *angles, spec.isocentre_mm, 1.0)
    flight = -bev_from_lps(turned, geometry.patient.position)[2]
    isocentre = np.array(spec.isocentre_mm)
    # Positions along the axis, counted from the isocentre.
    surface_mm = None
    if spec.ssd_mm is not None or spec.field_at == "surface":
        surface_mm = _entry_mm(isocentre, flight, geometry)
    source_mm = -spec.sad_mm if spec.sad_mm is not None else _given(surface_mm) - _given(spec.ssd_mm)
    plane_mm = 0.0 if spec.field_at == "isocentre" else _given(surface_mm)
    if plane_mm <= source_mm:
        raise ExperimentError(
            ("beam", "field_at"),
            f"the {spec.field_at} lies {source_mm - plane_mm:.0f} mm behind the source; check isocentre and distance",
        )
    x, y, z = (float(v) for v in isocentre + plane_mm * flight)
    return Beam("beam", *angles, (x, y, z), plane_mm - source_mm)


def _given(value: float | None) -> float:
    if value is None:
        raise ValueError("the specification should have seen to this key")
    return value


def _entry_mm(isocentre: F64, flight: F64, geometry: Geometry) -> float:
    """Return where the axis enters the phantom's box, counted from the isocentre along the flight."""
    enter, leave = -math.inf, math.inf
    for start, along, low, high in zip(isocentre, flight, geometry.low_mm, geometry.high_mm, strict=True):
        if abs(along) < _PARALLEL:
            if not low <= start <= high:
                leave = -math.inf
            continue
        near, far = sorted(((low - start) / along, (high - start) / along))
        enter, leave = max(enter, near), min(leave, far)
    if leave <= enter:
        raise ExperimentError(
            ("beam", "isocentre_mm"),
            "the beam's axis misses the phantom, so it has no surface there; check isocentre_mm and the direction",
        )
    return float(enter)


def _angles(spec: BeamSpec) -> tuple[float, float, float]:
    """Return gantry, couch and collimator angles.

    For a direction, they are those of a phantom that lies as a patient on the back, head first: with the collimator
    turned so that its x axis is the phantom's x axis, or the y axis if the beam flies along x.
    """
    if spec.direction is None:
        return _given(spec.gantry_deg), spec.couch_deg, spec.collimator_deg
    x, y, z = np.array(spec.direction) / np.linalg.norm(spec.direction)
    gantry_deg = math.degrees(math.acos(min(max(y, -1.0), 1.0)))
    # The couch turns the phantom until the source is above the gantry's circle; straight from above or below, none.
    couch_deg = math.degrees(math.atan2(z, -x)) if math.hypot(x, z) > _PARALLEL else 0.0
    beam = Beam("beam", gantry_deg, couch_deg, 0.0, (0.0, 0.0, 0.0), 1.0)
    along = np.array([0.0, 1.0, 0.0]) if math.hypot(y, z) < _PARALLEL else np.array([1.0, 0.0, 0.0])
    across = bev_from_lps(beam, "HFS") @ along
    return gantry_deg, couch_deg, math.atan2(across[1], across[0]) / RAD_PER_DEG
