"""Tissues, head and neck, and pelvis: against published Hounsfield units and volumes."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest

from engine.model.case import Case
from engine.phantoms import TISSUE_PHANTOMS, head_and_neck, pelvis, tissues
from engine.physics.hu_table import load_hu_table

EXAMPLES = Path(__file__).parents[3] / "examples"
ICRP_89_CM3 = {
    # Masses of the reference man (ICRP Publication 89, 2002, table 2.8) over the tissues' densities.
    "Brain": 1450.0 / 1.04,
    "Parotid_L": 25.0 / 1.05,
    "Parotid_R": 25.0 / 1.05,
    "Eye_L": 7.5,
    "Eye_R": 7.5,
}


@pytest.fixture(scope="module")
def head() -> Case:
    return head_and_neck(5.0, texture=False)


@pytest.fixture(scope="module")
def hips() -> Case:
    return pelvis(5.0, texture=False)


def volume_cm3(case: Case, name: str) -> float:
    return float(case.structure(name).coverage.sum(dtype=np.float64)) * case.grid.voxel_volume_mm3 / 1000.0


@pytest.mark.parametrize(
    ("tissue", "published_hu", "within_hu"),
    [  # Schneider et al., Phys. Med. Biol. 45 (2000) 459, table 1
        (tissues.LUNG, -741.0, 1.0),
        (tissues.ADIPOSE, -77.0, 1.0),
        (tissues.MUSCLE, 43.0, 1.0),
        (tissues.CORTICAL_BONE, 1524.0, 1.0),
    ],
)
def test_hounsfield_units_are_those_of_the_paper(
    tissue: tissues.Tissue, published_hu: float, within_hu: float
) -> None:
    assert tissue.hu == pytest.approx(published_hu, abs=within_hu)


def test_electron_densities_are_those_of_icru_44() -> None:
    # 1e29 electrons / m3: water 3.343, muscle 3.48, adipose 3.18, cortical bone 5.95.
    assert tissues.MUSCLE.relative_electron_density == pytest.approx(3.48 / 3.343, rel=2e-3)
    assert tissues.ADIPOSE.relative_electron_density == pytest.approx(3.18 / 3.343, rel=2e-3)
    assert tissues.CORTICAL_BONE.relative_electron_density == pytest.approx(5.95 / 3.343, rel=2e-3)
    assert tissues.WATER.relative_electron_density == 1.0


def test_the_table_in_the_examples_belongs_to_the_tissues() -> None:
    table = load_hu_table("hu_tables/tissue_phantoms.csv", EXAMPLES)
    for name in (
        "LUNG",
        "ADIPOSE",
        "MUSCLE",
        "BLOOD",
        "BRAIN",
        "LIVER",
        "SPONGIOSA",
        "CRANIUM",
        "CORTICAL_BONE",
    ):
        tissue = getattr(tissues, name)
        found = float(table.density_of(np.array([tissue.hu], np.float32))[0])
        assert found == pytest.approx(tissue.relative_electron_density, abs=0.0025), name
    with (EXAMPLES / "hu_tables/tissue_phantoms.csv").open() as stream:
        assert len(list(csv.reader(line for line in stream if line[0] != "#"))) == 1 + 9


def test_organs_of_the_head_have_published_volumes(head: Case) -> None:
    for name, published_cm3 in ICRP_89_CM3.items():
        assert volume_cm3(head, name) == pytest.approx(published_cm3, rel=0.05), name


def test_targets_of_the_head_do_not_overlap_and_stay_off_the_skin(head: Case) -> None:
    names = ("PTV_7000", "PTV_6300", "PTV_5600")
    total = np.sum([head.structure(name).coverage for name in names], axis=0)
    over_cm3 = float(np.maximum(total - 1.0, 0.0).sum(dtype=np.float64)) * head.grid.voxel_volume_mm3 / 1000.0
    assert over_cm3 < 0.5
    body = {contour.z_mm: contour.points_mm_xy for contour in head.external.contours}
    for name in names:
        for contour in head.structure(name).contours:
            skin = body[contour.z_mm]
            nearest_mm = min(float(np.hypot(*(skin - point).T).min()) for point in contour.points_mm_xy[::5])
            assert nearest_mm > 4.9, (name, contour.z_mm)


def test_organs_of_the_pelvis_have_the_volumes_of_their_formulas(hips: Case) -> None:
    def ellipsoid_cm3(*semi_axes_cm: float) -> float:
        return 4.0 / 3.0 * math.pi * math.prod(semi_axes_cm)

    assert volume_cm3(hips, "Prostate") == pytest.approx(ellipsoid_cm3(2.4, 1.8, 2.2), rel=2e-3)
    assert volume_cm3(hips, "PTV") == pytest.approx(ellipsoid_cm3(3.1, 2.5, 2.9), rel=2e-3)
    assert volume_cm3(hips, "Femur_Head_L") == pytest.approx(ellipsoid_cm3(2.4, 2.4, 2.4), rel=2e-3)
    assert volume_cm3(hips, "Bladder") == pytest.approx(ellipsoid_cm3(4.2, 3.4, 3.3), rel=5e-3)


@pytest.mark.parametrize("name", ["head", "hips"])
def test_every_structure_lies_in_the_body(name: str, request: pytest.FixtureRequest) -> None:
    case = request.getfixturevalue(name)
    for structure in case.structures:
        assert (structure.coverage <= case.external.coverage + 1e-4).all(), structure.name


def test_organs_show_the_hounsfield_units_of_their_tissue(head: Case, hips: Case) -> None:
    for case, name, hu in (
        (head, "Brain", tissues.BRAIN.hu),
        (head, "Bone_Mandible", tissues.MANDIBLE.hu),
        (hips, "Bladder", tissues.URINE.hu),
        (hips, "Femur_Head_R", tissues.SPONGIOSA.hu),
    ):
        inside = case.ct_hu[case.structure(name).coverage == 1.0]
        assert float(np.median(inside)) == pytest.approx(hu, abs=1e-2), name


def test_texture_is_seeded_and_changes_no_contour(hips: Case) -> None:
    first, again, other = pelvis(10.0), pelvis(10.0), pelvis(10.0, seed=2)
    np.testing.assert_array_equal(first.ct_hu, again.ct_hu)
    assert (first.ct_hu != other.ct_hu).mean() > 0.9
    np.testing.assert_array_equal(first.structure("PTV").coverage, other.structure("PTV").coverage)
    np.testing.assert_array_equal(first.ct_hu, np.rint(first.ct_hu))
    assert TISSUE_PHANTOMS == ("lung-4d", "head-and-neck", "pelvis")
