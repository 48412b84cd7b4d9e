"""Phantoms against the formulas of their shapes."""

import math

import numpy as np
import pytest

from engine.errors import CaseError
from engine.model.case import Case
from engine.phantoms import PHANTOMS, slabs, tg119_cshape, water_box

POLYGON_RELATIVE = 2e-5
"""720 corners per turn take (2 pi / 720)^2 / 6 = 1.3e-5 off the area of a circle; the rest is float32."""


@pytest.fixture(scope="module")
def cshape() -> Case:
    return tg119_cshape()


def volume_cm3(case: Case, name: str) -> float:
    return float(case.structure(name).coverage.sum(dtype=np.float64)) * case.grid.voxel_volume_mm3 / 1000.0


def test_core_is_a_cylinder_of_1_cm_radius_and_10_cm_length(cshape: Case) -> None:
    assert volume_cm3(cshape, "Core") == pytest.approx(math.pi * 10.0, rel=POLYGON_RELATIVE)


def test_target_is_the_ring_in_front_of_its_end_plane(cshape: Case) -> None:
    def below_chord(radius_cm: float) -> float:
        """Area of a disc where y < 0.65 cm: half of it and the strip between 0 and 0.65."""
        h = 0.65
        strip = h * math.sqrt(radius_cm**2 - h**2) + radius_cm**2 * math.asin(h / radius_cm)
        return math.pi * radius_cm**2 / 2.0 + strip

    assert volume_cm3(cshape, "OuterTarget") == pytest.approx(
        8.0 * (below_chord(3.7) - below_chord(1.5)), rel=POLYGON_RELATIVE
    )


def test_target_lies_in_front_of_the_core_and_opens_to_the_back(cshape: Case) -> None:
    coverage = cshape.structure("OuterTarget").coverage.sum(axis=(0, 2))
    y_mm = cshape.grid.centres_mm_xyz[1]
    assert y_mm[coverage > 0].min() == pytest.approx(-36.25)
    assert y_mm[coverage > 0].max() == pytest.approx(6.25)


def test_target_leaves_half_a_centimetre_around_the_core(cshape: Case) -> None:
    assert not (cshape.structure("OuterTarget").coverage * cshape.structure("Core").coverage).any()
    radii = np.hypot(*cshape.structure("OuterTarget").contours[0].points_mm_xy.T)
    assert radii.min() == pytest.approx(15.0)
    assert radii.max() == pytest.approx(37.0)
    assert np.hypot(*cshape.structure("Core").contours[0].points_mm_xy.T).max() == pytest.approx(10.0)


def test_cshape_is_the_same_left_and_right_and_head_and_foot(cshape: Case) -> None:
    for structure in cshape.structures:
        # Sums from the left and from the right round differently.
        np.testing.assert_allclose(structure.coverage, structure.coverage[:, :, ::-1], atol=1e-6)
        np.testing.assert_array_equal(structure.coverage, structure.coverage[::-1])


def test_default_cshape_has_whole_voxels_of_water_in_air(cshape: Case) -> None:
    assert cshape.grid.spacing_mm_xyz == (2.5, 2.5, 2.5)
    assert volume_cm3(cshape, "BODY") == pytest.approx(30 * 20 * 20, rel=1e-12)
    body = cshape.external.coverage
    assert set(np.unique(body)) == {0.0, 1.0}
    assert set(np.unique(cshape.ct_hu[body == 1.0])) == {0.0}
    assert set(np.unique(cshape.ct_hu[body == 0.0])) == {-1000.0}


def test_volumes_do_not_depend_on_the_voxel_size(cshape: Case) -> None:
    odd = tg119_cshape(voxel_mm=3.7)
    for name in ("BODY", "OuterTarget", "Core"):
        assert volume_cm3(odd, name) == pytest.approx(volume_cm3(cshape, name), rel=1e-6)


def test_partial_voxels_at_faces_keep_the_mass_of_the_body() -> None:
    case = water_box((100.0, 90.0, 80.0), voxel_mm=7.0)
    mass_g = float((case.ct_hu.astype(np.float64) / 1000.0 + 1.0).sum()) * case.grid.voxel_volume_mm3 / 1000.0
    assert mass_g == pytest.approx(10 * 9 * 8, rel=1e-6)


def test_water_box_has_its_target_in_the_centre() -> None:
    case = water_box()
    assert volume_cm3(case, "Target") == pytest.approx(216.0, rel=1e-12)
    for axis, centres_mm in zip((2, 1, 0), case.grid.centres_mm_xyz, strict=True):
        others = tuple(other for other in range(3) if other != axis)
        weight = case.structure("Target").coverage.sum(axis=others, dtype=np.float64)
        assert np.average(centres_mm, weights=weight) == pytest.approx(0.0, abs=1e-9)


def test_slabs_follow_each_other_from_front_to_back() -> None:
    case = slabs([(20.0, 0.0), (10.0, 800.0), (30.0, -750.0)], target_size_mm_xyz=(20.0, 20.0, 20.0))
    nz, _, nx = case.grid.shape_zyx
    line_hu = case.ct_hu[nz // 2, :, nx // 2]
    inside = line_hu[line_hu > -1000.0]
    np.testing.assert_array_equal(inside, [0.0] * 8 + [800.0] * 4 + [-750.0] * 12)
    assert volume_cm3(case, "Layer2") == pytest.approx(1.0 * 20 * 20, rel=1e-12)


def test_face_between_slabs_inside_a_voxel_gives_the_mean_of_both() -> None:
    case = slabs([(21.0, 0.0), (29.0, 1000.0)], target_size_mm_xyz=(20.0, 20.0, 20.0))
    nz, _, nx = case.grid.shape_zyx
    line_hu = case.ct_hu[nz // 2, :, nx // 2]
    inside = line_hu[line_hu > -1000.0]
    # The ninth voxel spans 20 to 22.5 mm: 1 mm of the first and 1.5 mm of the second; float32 coverage.
    assert inside[8] == pytest.approx(600.0, abs=1e-3)


def test_every_phantom_can_be_planned() -> None:
    for name, build in PHANTOMS.items():
        case = build(voxel_mm=10.0)
        assert case.name == name
        assert case.external.name == "BODY"
        assert any(structure.kind == "TARGET" for structure in case.structures)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(CaseError, match="at least"):
        tg119_cshape(body_size_mm_xyz=(50.0, 200.0, 200.0))
    with pytest.raises(CaseError, match="must fit"):
        water_box((50.0, 50.0, 50.0))
    with pytest.raises(CaseError, match="positive thickness"):
        slabs([(20.0, 0.0), (0.0, 100.0)])
    with pytest.raises(CaseError, match="must be positive"):
        tg119_cshape(voxel_mm=0.0)
