"""Regions of a study's objectives, with the reference doses of those that have them."""

from dataclasses import replace

import numpy as np
import pytest

from engine.errors import StudyError
from engine.geometry.bricks import BrickLayout
from engine.geometry.resample import grid_over
from engine.phantoms import tg119_cshape
from engine.spec.study import load_study
from flows.objective_regions import reference_doses, regions_of_study, store_regions, terms_of_study
from flows.progress import Reporter
from flows.references import CaseRef
from flows.run import Run
from flows.work.rows import REGIONS, StoredGroups, StoredTiles
from storage.dicom.read_attached import Attached
from storage.dicom.read_dose import ReadDose
from storage.imported import write_attached
from storage.store import Store
from tests.e2e.small_study import STUDY, write_study

CASE = replace(tg119_cshape(voxel_mm=10.0, body_size_mm_xyz=(120.0, 100.0, 120.0)), name="stored")
LAYOUT = BrickLayout(grid_over(CASE.grid, 12.0, CASE.external.coverage), 8)
DOSE = ReadDose(
    "1.2.5", "accepted", CASE.grid, np.full(CASE.grid.shape_zyx, 12.5, np.float32),
    "PLAN", "1.2.3", None, False, "", (),
)  # fmt: skip
MIMICRY = 'function = "squared_deviation"\nreference_dose = "accepted"'
FALL_OFF = (
    'function = "dose_fall_off"\nfrom_structure = "OuterTarget"\nnear_gy = 20.0\nfar_gy = 4.0\n'
    "fall_off_per_mm = 0.1"
)
TEXT = (
    STUDY.replace('phantom = "water-box"', 'imported = "x"')
    .replace('"phantom"', '"table.csv"')
    .replace('"Target"', '"OuterTarget"')
    .replace('function = "squared_deviation"\ndose_gy = 20.0', MIMICRY)
    .replace('function = "squared_overdose"\ndose_gy = 8.0', FALL_OFF)
    .replace('function = "mean"', 'function = "mean"\neqd2 = { alpha_beta_gy = 3.0 }')
)


@pytest.fixture
def study(tmp_path):
    return load_study(write_study(tmp_path, TEXT))


@pytest.fixture
def run(tmp_path):
    with Run(Store(tmp_path / "store"), Reporter(quiet=True)) as run:
        write_attached(run.store, "case", Attached((), (DOSE,), ()))
        yield run


def test_every_combination_of_structure_and_reference_is_a_region_of_its_own(study):
    target, mimicked, falling, plain = regions_of_study(study)
    assert (target.structure, target.reference_dose) == ("OuterTarget", None)
    assert (mimicked.structure, mimicked.reference_dose) == ("OuterTarget", "accepted")
    assert falling.fall_off == study.objectives[1].function
    assert (plain.structure, plain.excluding, plain.fall_off) == ("BODY", ("OuterTarget",), None)
    assert [term.region for term in terms_of_study(study)] == [1, 2, 3]


def test_terms_get_the_fractions_of_the_prescription_and_read_well(study):
    terms = terms_of_study(study)
    assert terms[2].function.eqd2.fractions == 10
    assert terms[0].label == "OuterTarget: squared deviation (reference dose accepted)"
    assert terms[2].label == "BODY without OuterTarget: mean (EQD2 with alpha/beta 3 Gy)"


def test_groups_get_the_reference_doses_of_their_rows(run, study):
    reference = CaseRef("case", CASE, "density", "phantom", ())
    digest = store_regions(run, study, reference, LAYOUT)
    assert store_regions(run, study, reference, LAYOUT) == digest
    bricks = ((0, 1), (1, LAYOUT.n_brick - 1))
    groups = StoredGroups(run.store.folder, LAYOUT, bricks, (StoredTiles(()),), digest)(range(2))
    whole, _ = run.store.read_arrays(REGIONS, digest)
    for group, (first, _) in zip(groups, bricks, strict=True):
        target, mimicked, falling, plain = group.regions
        assert target.reference_gy is plain.reference_gy is None
        assert (mimicked.reference_gy == 12.5).all()
        expected = whole["reference_2"][first * LAYOUT.brick_size + falling.row]
        np.testing.assert_array_equal(falling.reference_gy, expected)
    level_gy = whole["reference_2"][whole["share_2"] > 0.0]
    assert 4.0 < level_gy.min() < 6.0 < 18.0 < level_gy.max() <= 20.0


def test_another_dose_of_the_same_name_is_another_region(run, study):
    reference = CaseRef("case", CASE, "density", "phantom", ())
    first = store_regions(run, study, reference, LAYOUT)
    write_attached(run.store, "case", Attached((), (replace(DOSE, dose_gy=2.0 * DOSE.dose_gy),), ()))
    assert store_regions(run, study, reference, LAYOUT) != first


def test_a_dose_that_the_case_does_not_have_is_told_with_its_objective(run, study):
    with pytest.raises(StudyError, match=r"objectives\[0\]\.reference_dose: no imported doses .* has: none"):
        reference_doses(run.store, study, "another")
