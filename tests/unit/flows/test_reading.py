"""Stage read: what is refused before anything is computed, and what the density depends on."""

from dataclasses import replace

import numpy as np
import pytest

from engine.errors import CaseError, StudyError
from engine.model.case import Case, Structure
from engine.model.grid import Grid
from engine.spec.study import Study, load_study
from flows.progress import Reporter
from flows.reading import take_case
from flows.run import Run
from flows.stages import place
from storage.cases import write_case
from storage.store import Store
from tests.e2e.small_study import STUDY, write_study

GRID = Grid((0.0, 0.0, 0.0), (5.0, 5.0, 5.0), (10, 10, 10))


def box(low: int, high: int) -> np.ndarray:
    coverage = np.zeros(GRID.shape_zyx, dtype=np.float32)
    coverage[low:high, low:high, low:high] = 1.0
    return coverage


def a_case(**structures: np.ndarray) -> Case:
    kinds = {"BODY": "EXTERNAL", "Target": "TARGET"}
    return Case(
        "test",
        GRID,
        np.zeros(GRID.shape_zyx, dtype=np.float32),
        tuple(Structure(name, kinds.get(name, "ORGAN"), coverage) for name, coverage in structures.items()),
    )


@pytest.fixture
def run(tmp_path):
    return Run(Store(tmp_path / "store"), Reporter(quiet=True))


@pytest.fixture
def study(tmp_path) -> Study:
    return load_study(write_study(tmp_path))


def take(run: Run, study: Study, case: Case, tmp_path):
    return take_case(run, study, write_case(run.store, case, {}), tmp_path)


def test_the_density_does_not_depend_on_other_organs(run, study, tmp_path):
    one = take(run, study, a_case(BODY=box(1, 9), Target=box(4, 6), Heart=box(2, 3)), tmp_path)
    other = take(run, study, a_case(BODY=box(1, 9), Target=box(4, 6), Heart=box(2, 4)), tmp_path)
    smaller = take(run, study, a_case(BODY=box(2, 9), Target=box(4, 6), Heart=box(2, 4)), tmp_path)
    assert one.digest != other.digest
    assert one.density_digest == other.density_digest
    assert smaller.density_digest != one.density_digest


def test_an_unknown_structure_is_told_with_its_key(run, study, tmp_path):
    with pytest.raises(StudyError, match=r"prescription.target: the case has no structure 'Target'"):
        take(run, study, a_case(BODY=box(1, 9)), tmp_path)


def test_an_empty_body_is_refused(run, study, tmp_path):
    with pytest.raises(CaseError, match="'BODY' covers no voxel"):
        take(run, study, a_case(BODY=box(1, 1), Target=box(4, 6)), tmp_path)


def test_a_target_outside_the_body_is_refused_and_a_little_of_it_is_noted(run, study, tmp_path):
    with pytest.raises(CaseError, match="lies outside of the body"):
        take(run, study, a_case(BODY=box(1, 5), Target=box(4, 6)), tmp_path)
    nearly = box(1, 9)
    nearly[4, 4, 4] = 0.8  # 0.2 of 8 voxels
    (note,) = take(run, study, a_case(BODY=nearly, Target=box(4, 6)), tmp_path).notes
    assert note.startswith("2.5 % of target 'Target' lies outside")


def test_a_goal_that_its_structure_cannot_answer_is_refused_before_any_dose(run, tmp_path):
    study = load_study(write_study(tmp_path, STUDY.replace("D95% >= 20 Gy", "D2cc <= 20 Gy")))
    with pytest.raises(StudyError, match=r"goals\[0\].*Target"):
        take(run, study, a_case(BODY=box(1, 9), Target=box(4, 6)), tmp_path)  # 1 cc


def test_voxels_beyond_the_hu_table_are_noted(run, tmp_path):
    study = load_study(write_study(tmp_path))
    study = study.model_copy(update={"case": study.case.model_copy(update={"hu_table": "short.csv"})})
    (tmp_path / "short.csv").write_text("hu,relative_electron_density\n-1000,0.0\n-500,0.5\n")
    (note,) = take(run, study, a_case(BODY=box(1, 9), Target=box(4, 6)), tmp_path).notes
    assert "100 % of the body's voxels lie beyond the HU table 'short.csv'" in note


def test_an_imported_case_goes_by_the_name_the_study_uses(run, study, tmp_path):
    named = study.model_copy(
        update={"case": study.case.model_copy(update={"phantom": None, "imported": "mine"})}
    )
    case = replace(a_case(BODY=box(1, 9), Target=box(4, 6)), name="theirs")
    assert take(run, named, case, tmp_path).case.name == "mine"


def test_an_isocentre_far_from_the_target_is_refused(run, tmp_path):
    far = STUDY.replace("beamlet_mm = 10.0", "beamlet_mm = 10.0\nisocentre_mm = [500.0, 25.0, 25.0]")
    study = load_study(write_study(tmp_path, far))
    reference = take(run, study, a_case(BODY=box(1, 9), Target=box(4, 6)), tmp_path)
    with pytest.raises(CaseError, match="would have to reach"):
        place(run, study, reference)


# -- made structures and densities of structures ---------------------------------------------------------------------

MADE = """
[[structures]]
make = "margin"
name = "Target+5"
kind = "TARGET"
structure = "Target"
margin_mm = 5.0

[[structures]]
make = "rest"
name = "RVR"
without = ["Target+5", "Heart"]
"""
BOLUS = """
[[case.overrides]]
structure = "Heart"
relative_electron_density = 3.0
reason = "a test"
"""
CASE = {"BODY": box(1, 9), "Target": box(4, 6), "Heart": box(2, 3)}


def with_text(tmp_path, text: str) -> Study:
    # The tables of the case come directly behind it, all others at the end.
    return load_study(write_study(tmp_path, text))


def test_made_structures_are_made_once_and_can_be_named_anywhere(run, tmp_path):
    study = with_text(tmp_path, STUDY.replace('structure = "BODY"', 'structure = "RVR"') + MADE)
    found = take(run, study, a_case(**CASE), tmp_path)
    assert [(made.name, made.kind) for made in found.made] == [("Target+5", "TARGET"), ("RVR", "OTHER")]
    # A cube of 10 mm with 5 mm around: faces, quarter columns, an octant at each corner.
    volume_mm3 = 1000.0 + 6 * 500.0 + 3.0 * np.pi * 25.0 * 10.0 + 4.0 / 3.0 * np.pi * 125.0
    assert found.made[0].volume_cc == pytest.approx(volume_mm3 / 1000.0, rel=0.08)
    assert found.made[1].volume_cc == pytest.approx(64.0 - found.made[0].volume_cc - 0.125, rel=1e-3)
    assert found.case.structure("RVR").coverage[2, 2, 2] == 0.0
    kept = {path: path.stat().st_ino for path in (run.store.folder / "structure").rglob("*.zip")}
    assert len(kept) == 2
    again = take(run, study, a_case(**CASE), tmp_path)
    assert again.made == found.made
    assert kept == {path: path.stat().st_ino for path in (run.store.folder / "structure").rglob("*.zip")}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "RVR"', 'name = "BODY"', r"structures\[1\].name: the case has a structure 'BODY' already"),
        ('"Heart"]', '"Hart"]', r"structures\[1\].without: the case has no structure 'Hart' \(it has: BODY"),
        ("margin_mm = 5.0", "margin_mm = -6.0", r"structures\[0\]: 'Target\+5' .* is empty"),
    ],
)
def test_mistakes_in_made_structures_name_their_key(run, tmp_path, old, new, message):
    study = with_text(tmp_path, STUDY + MADE.replace(old, new))
    with pytest.raises(StudyError, match=message):
        take(run, study, a_case(**CASE), tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "RVR"', 'name = "Target+5"', r"structures\[1\].name: 'Target\+5' is made by structures\[0\]"),
        ('structure = "Target"\nmargin', 'structure = "RVR"\nmargin', r"is made only by structures\[1\]"),
        ("margin_mm = 5.0", "left_mm = 5.0", r"line \d+: structures\[0\]: give margin_mm for all"),
        ("margin_mm = 5.0", "margin_mm = 5.0\nleft_mm = -1.0", "two structures, one after the other"),
        ('make = "rest"', 'make = "remainder"', r"unknown make 'remainder'; known are margin, ptv_recipe, ring"),
        ('make = "rest"\n', "", r"line \d+: structures\[1\]: the key 'make' is needed"),
        ("margin_mm = 5.0", "margin_mm = 5.0\nmargn_mm = 1.0", r"line \d+: structures\[0\].margn_mm: there is no"),
    ],
)  # fmt: skip
def test_a_study_whose_structures_cannot_be_is_refused_when_read(tmp_path, old, new, message):
    text = STUDY + MADE
    assert old in text
    start = text.index("[[structures]]")
    with pytest.raises(StudyError, match=message):
        with_text(tmp_path, text[:start] + text[start:].replace(old, new, 1))


def test_an_override_changes_the_density_and_is_told(run, study, tmp_path):
    plain = take(run, study, a_case(**CASE), tmp_path)
    overridden = with_text(tmp_path, STUDY.replace("\n[prescription]", BOLUS + "\n[prescription]"))
    found = take(run, overridden, a_case(**CASE), tmp_path)
    assert found.density_digest != plain.density_digest
    assert any("'Heart'" in note and "density 3," in note and "a test" in note for note in found.densities)
    density = run.store.read_arrays("density", found.density_digest)[0]["density"]
    assert density[2, 2, 2] == pytest.approx(3.0)
    assert density[5, 5, 5] == pytest.approx(1.0)
    # Redrawing another organ changes nothing, redrawing this one does.
    lung = take(run, overridden, a_case(**CASE, Lung=box(7, 8)), tmp_path)
    assert lung.density_digest == found.density_digest
    larger = take(run, overridden, a_case(**{**CASE, "Heart": box(2, 4)}), tmp_path)
    assert larger.density_digest != found.density_digest


def test_an_object_outside_the_body_is_no_longer_air(run, tmp_path):
    couch = STUDY.replace("\n[prescription]", '\n[[case.outside]]\nstructure = "Couch"\n\n[prescription]')
    found = take(run, with_text(tmp_path, couch), a_case(**CASE, Couch=box(0, 1)), tmp_path)
    density = run.store.read_arrays("density", found.density_digest)[0]["density"]
    assert density[0, 0, 0] == pytest.approx(1.0)
    assert density[9, 9, 9] == pytest.approx(0.00108)
    assert any("'Couch'" in note and "from the CT" in note for note in found.densities)
    with pytest.raises(StudyError, match=r"case.outside\[0\].structure: 'Couch' covers no voxel"):
        take(run, with_text(tmp_path, couch), a_case(**CASE, Couch=box(1, 1)), tmp_path)
    with pytest.raises(StudyError, match=r"case.outside\[0\].structure: the case has no structure 'Couch'"):
        take(run, with_text(tmp_path, couch), a_case(**CASE), tmp_path)


def test_beamlets_cover_the_further_targets_that_the_study_names(run, study, tmp_path):
    case = a_case(BODY=box(1, 9), Target=box(4, 6), Low=box(6, 8))
    alone = place(run, study, take(run, study, case, tmp_path))
    wide = study.model_copy(update={"beams": study.beams.model_copy(update={"also_cover": ("Low",)})})
    both = place(run, wide, take(run, wide, case, tmp_path))
    assert [b.n_beamlet for b in both.beamlets] > [b.n_beamlet for b in alone.beamlets]
    # The isocentre is the centre of both: they are of the same size.
    assert alone.beams[0].isocentre_mm == pytest.approx((22.5, 22.5, 22.5))
    assert both.beams[0].isocentre_mm == pytest.approx((27.5, 27.5, 27.5))


def test_a_further_target_that_the_case_lacks_is_refused(run, study, tmp_path):
    wide = study.model_copy(update={"beams": study.beams.model_copy(update={"also_cover": ("Elsewhere",)})})
    with pytest.raises(StudyError, match=r"beams\.also_cover: the case has no structure 'Elsewhere'"):
        take(run, wide, a_case(BODY=box(1, 9), Target=box(4, 6)), tmp_path)
