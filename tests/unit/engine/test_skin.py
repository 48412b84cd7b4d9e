import numpy as np
import pytest

from engine.geometry.frames import source_mm
from engine.geometry.skin import source_skin_distance_mm
from engine.model.beam import Beam
from engine.model.grid import Grid

GRID = Grid((-59.0, -49.0, -39.0), (2.0, 2.0, 2.0), (40, 50, 60))
BOX = np.zeros(GRID.shape_zyx, np.float32)
BOX[:, 10:, 10:50] = 1.0  # x from -40 to 40, y from -30 to 50


@pytest.mark.parametrize(
    ("gantry_deg", "depth_mm"),
    # The front is at y = -30, the back at 50, the sides at 40; at 45 degrees the corner (40, -30) is missed by the
    # axis, which enters by the front at 30 √2.
    [(0.0, 30.0), (180.0, 50.0), (90.0, 40.0), (270.0, 40.0), (45.0, 30.0 * np.sqrt(2.0))],
)
def test_skin_of_a_box_is_where_its_faces_are(gantry_deg: float, depth_mm: float) -> None:
    beam = Beam("1", gantry_deg, 0.0, 0.0, (0.0, 0.0, 0.0), 1000.0)
    found = source_skin_distance_mm(BOX, GRID, source_mm(beam, "HFS"), np.zeros(3))
    assert found == pytest.approx(1000.0 - depth_mm, abs=0.11)  # the axis is followed in steps of 0.1 mm


def test_an_axis_beside_the_body_has_no_skin() -> None:
    beam = Beam("1", 0.0, 0.0, 0.0, (100.0, 0.0, 0.0), 1000.0)
    isocentre = np.array([100.0, 0.0, 0.0])
    assert source_skin_distance_mm(BOX, GRID, source_mm(beam, "HFS"), isocentre) is None
