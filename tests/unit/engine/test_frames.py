"""Frames against expectations written down by hand from IEC 61217, never computed by the code under test."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.dose.engine import Patient
from engine.dose.photon_pencil_beam import PhotonPencilBeam
from engine.geometry.bricks import BrickLayout
from engine.geometry.frames import bev_from_lps, project, source_mm
from engine.model.beam import Beam, BeamletGrid
from engine.model.case import PatientPosition
from engine.model.grid import Grid
from engine.model.machine import MACHINES

ISOCENTRE_MM = (11.0, -7.0, 5.0)
LEFT, RIGHT, POSTERIOR, ANTERIOR = (1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0)
HEAD, FEET = (0, 0, 1), (0, 0, -1)
POSITIONS: tuple[PatientPosition, ...] = ("HFS", "HFP", "FFS", "FFP")


def _beam(gantry: float, couch: float = 0.0, collimator: float = 0.0) -> Beam:
    return Beam("b", gantry, couch, collimator, ISOCENTRE_MM, 1000.0)


@pytest.mark.parametrize(
    ("position", "gantry", "couch", "side"),
    [
        # Gantry 0 is above, 90 at the right of somebody who faces the gantry, 180 below.
        ("HFS", 0, 0, ANTERIOR),
        ("HFS", 90, 0, LEFT),
        ("HFS", 180, 0, POSTERIOR),
        ("HFS", 270, 0, RIGHT),
        ("HFP", 0, 0, POSTERIOR),
        ("HFP", 90, 0, RIGHT),
        ("FFS", 0, 0, ANTERIOR),
        ("FFS", 90, 0, RIGHT),
        ("FFP", 0, 0, POSTERIOR),
        ("FFP", 90, 0, LEFT),
        # Couch 90 turns the end next to the gantry to the left of the observer, so gantry 270 looks at the vertex.
        ("HFS", 270, 90, HEAD),
        ("HFS", 90, 90, FEET),
        ("HFS", 90, 270, HEAD),
        ("HFP", 270, 90, HEAD),
        ("FFS", 270, 90, FEET),
        ("FFP", 270, 90, FEET),
    ],
)
def test_source_stands_at_the_side_of_the_patient_that_iec_61217_says(
    position: PatientPosition, gantry: float, couch: float, side: tuple[int, int, int]
) -> None:
    away_mm = source_mm(_beam(gantry, couch), position) - np.array(ISOCENTRE_MM)
    np.testing.assert_allclose(away_mm, 1000.0 * np.array(side), atol=1e-9)


@pytest.mark.parametrize(
    ("position", "gantry", "couch", "collimator", "along_x", "along_y"),
    [
        ("HFS", 0, 0, 0, LEFT, HEAD),
        ("HFS", 90, 0, 0, POSTERIOR, HEAD),
        ("HFS", 180, 0, 0, RIGHT, HEAD),
        ("HFS", 270, 0, 0, ANTERIOR, HEAD),
        # Couch 90 is counter-clockwise from above: the head goes to the observer's left, the left side to the gantry.
        ("HFS", 0, 90, 0, FEET, LEFT),
        # Collimator 90 is counter-clockwise seen from the source: its x axis goes to where y was.
        ("HFS", 0, 0, 90, HEAD, RIGHT),
        ("HFS", 90, 0, 90, HEAD, ANTERIOR),
        ("HFP", 0, 0, 0, RIGHT, HEAD),
        ("HFP", 90, 0, 0, ANTERIOR, HEAD),
        ("FFS", 0, 0, 0, RIGHT, FEET),
        ("FFS", 90, 0, 0, POSTERIOR, FEET),
        ("FFP", 0, 0, 0, LEFT, FEET),
        ("FFP", 90, 0, 0, ANTERIOR, FEET),
    ],
)
def test_collimator_axes_point_where_iec_61217_says(
    position: PatientPosition,
    gantry: float,
    couch: float,
    collimator: float,
    along_x: tuple[int, int, int],
    along_y: tuple[int, int, int],
) -> None:
    rotation = bev_from_lps(_beam(gantry, couch, collimator), position)
    np.testing.assert_allclose(rotation[0], along_x, atol=1e-12)
    np.testing.assert_allclose(rotation[1], along_y, atol=1e-12)


angle = st.floats(-360.0, 360.0)


@given(angle, angle, angle, st.sampled_from(POSITIONS))
def test_rotation_is_orthonormal_and_not_a_mirror(
    gantry: float, couch: float, collimator: float, position: PatientPosition
) -> None:
    rotation = bev_from_lps(_beam(gantry, couch, collimator), position)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1.0, abs=1e-12)


@given(angle, angle, angle, st.sampled_from(POSITIONS), st.tuples(angle, angle, angle))
def test_a_point_comes_back_from_its_projection(
    gantry: float,
    couch: float,
    collimator: float,
    position: PatientPosition,
    offset_mm: tuple[float, float, float],
) -> None:
    beam = _beam(gantry, couch, collimator)
    point_mm = np.array([ISOCENTRE_MM]) + np.array([offset_mm])
    on_plane_mm, distance_mm = project(point_mm, beam, position)
    bev_mm = np.append(on_plane_mm[0] * distance_mm[0] / beam.sad_mm, beam.sad_mm - distance_mm[0])
    back_mm = bev_from_lps(beam, position).T @ bev_mm + np.array(ISOCENTRE_MM)
    np.testing.assert_allclose(back_mm, point_mm[0], atol=1e-9)


def test_projection_lies_on_the_ray_in_the_isocentre_plane() -> None:
    beam = _beam(40.0, 25.0, 70.0)
    point_mm = np.array([[31.0, -60.0, 44.0]])
    on_plane_mm, _ = project(point_mm, beam, "HFS")
    rotation = bev_from_lps(beam, "HFS")
    hit_mm = np.array(ISOCENTRE_MM) + rotation.T @ np.array([*on_plane_mm[0], 0.0])
    ray_mm = point_mm[0] - source_mm(beam, "HFS")
    assert np.linalg.norm(np.cross(ray_mm, hit_mm - source_mm(beam, "HFS"))) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("position", "gantry", "couch", "collimator", "offset_mm", "source_side"),
    [
        # Where the beamlet 15 mm along x and 25 mm along y of the collimator meets the patient, from the isocentre;
        # None along the beam.
        ("HFS", 0, 0, 0, (15, None, 25), -1),
        ("HFS", 0, 0, 90, (-25, None, 15), -1),
        ("HFS", 90, 0, 0, (None, 15, 25), 1),
        ("HFS", 90, 0, 90, (None, -25, 15), 1),
        ("HFS", 180, 0, 0, (-15, None, 25), 1),
        ("HFS", 270, 0, 0, (None, -15, 25), -1),
        ("HFS", 0, 90, 0, (25, None, -15), -1),
        ("HFS", 90, 90, 0, (25, 15, None), -1),
        ("HFP", 0, 0, 0, (-15, None, 25), 1),
        ("HFP", 90, 0, 0, (None, -15, 25), -1),
        ("FFS", 0, 0, 0, (-15, None, -25), -1),
        ("FFS", 90, 0, 90, (None, -25, -15), -1),
        ("FFP", 0, 0, 0, (15, None, -25), 1),
        ("FFP", 90, 0, 0, (None, -15, -25), 1),
    ],
)
def test_dose_of_a_single_beamlet_lies_where_a_physicist_expects_it(
    position: PatientPosition,
    gantry: float,
    couch: float,
    collimator: float,
    offset_mm: tuple[float | None, float | None, float | None],
    source_side: int,
) -> None:
    grid = Grid(tuple(i - 58.0 for i in ISOCENTRE_MM), (4.0, 4.0, 4.0), (30, 30, 30))  # type: ignore[arg-type]
    layout = BrickLayout(grid, 8)
    active = layout.to_rows(np.ones(grid.shape_zyx, np.float32)) > 0.0
    engine = PhotonPencilBeam(MACHINES["point-source-6mv"], 50.0, 0.0)
    patient = Patient(grid, np.ones(grid.shape_zyx, np.float32), position)
    beamlet = BeamletGrid((5.0, 5.0), np.array([3], np.int32), np.array([5], np.int32), np.array([0, 1]))
    view = engine.view(patient, layout, active, _beam(gantry, couch, collimator), (0.0, 0.0, 0.0), None)
    dose = layout.to_volume(engine.forward(view, beamlet, np.ones(1), 1.0)).astype(np.float64)
    dose[dose < 0.1 * dose.max()] = 0.0  # The core alone: scatter would pull the centre to the middle.
    for axis, expected_mm in enumerate(offset_mm):
        others = tuple(2 - a for a in range(3) if a != axis)
        away_mm = grid.centres_mm_xyz[axis] - ISOCENTRE_MM[axis]
        profile = dose.sum(axis=others)
        centre_mm = float((profile * away_mm).sum() / profile.sum())
        if expected_mm is None:
            assert np.sign(centre_mm) == source_side, "dose must fall with depth, away from the source"
        else:
            # Divergence over ±60 mm moves the beamlet by up to 1.5 mm; any wrong sign or axis by 10 mm or more.
            assert centre_mm == pytest.approx(expected_mm, abs=2.0)


@pytest.mark.parametrize(
    ("position", "gantry", "couch", "collimator", "marker_mm"),
    [
        # The marker 20 mm left, 30 mm anterior, 10 mm to the head: x and y of the collimator, and towards the source.
        ("HFS", 0, 0, 0, (20, 10, 30)),
        ("HFS", 90, 0, 0, (-30, 10, 20)),
        ("HFS", 90, 0, 90, (10, 30, 20)),
        ("HFS", 0, 90, 0, (-10, 20, 30)),
        ("HFS", 270, 90, 0, (30, 20, 10)),
        ("HFP", 0, 0, 0, (-20, 10, -30)),
        ("FFS", 0, 0, 0, (-20, -10, 30)),
        ("FFS", 270, 0, 0, (30, -10, 20)),
        ("FFP", 0, 0, 0, (20, -10, -30)),
    ],
)
def test_shadow_of_a_dense_marker_falls_on_its_projection(
    position: PatientPosition,
    gantry: float,
    couch: float,
    collimator: float,
    marker_mm: tuple[float, float, float],
) -> None:
    grid = Grid(tuple(i - 58.0 for i in ISOCENTRE_MM), (4.0, 4.0, 4.0), (30, 30, 30))  # type: ignore[arg-type]
    layout = BrickLayout(grid, 8)
    active = layout.to_rows(np.ones(grid.shape_zyx, np.float32)) > 0.0
    density = np.ones(grid.shape_zyx, np.float32)
    x_mm, y_mm, z_mm = (
        np.abs(centres - i - offset) < 4.1
        for centres, i, offset in zip(grid.centres_mm_xyz, ISOCENTRE_MM, (20.0, -30.0, 10.0), strict=True)
    )
    density[np.ix_(z_mm, y_mm, x_mm)] = 20.0
    engine = PhotonPencilBeam(MACHINES["point-source-6mv"], 50.0, 0.0)
    beam = _beam(gantry, couch, collimator)
    plain = engine.view(
        Patient(grid, np.ones_like(density), position), layout, active, beam, (0.0, 0.0, 0.0), None
    )
    marked = replace(
        plain,
        depth_mm=engine.view(
            Patient(grid, density, position), layout, active, beam, (0.0, 0.0, 0.0), None
        ).depth_mm,
    )
    shadow = marked.depth_mm - plain.depth_mm > 75.0  # Half of the marker's 19 * 8 mm of additional water.
    magnification = 1000.0 / (1000.0 - marker_mm[2])
    # A voxel is 4 mm, the marker 8 mm wide.
    assert marked.x[shadow].mean() == pytest.approx(marker_mm[0] * magnification, abs=1.5)
    assert marked.y[shadow].mean() == pytest.approx(marker_mm[1] * magnification, abs=1.5)
    towards_source_mm = 1000.0 - 1000.0 / np.sqrt(marked.factor[shadow])
    assert towards_source_mm.max() <= marker_mm[2] + 6.0, "the shadow begins in the marker"
