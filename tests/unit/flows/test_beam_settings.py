"""Beams of a study: from angles, and from an imported plan."""

from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import CaseError, NightbeamError, StudyError
from engine.model.beam import Beam
from engine.model.plan import ExternalBeam, ExternalPlan
from engine.phantoms import tg119_cshape
from engine.spec.study import Study, load_study
from flows.beam_settings import beams_of_study
from flows.progress import Reporter
from flows.references import CaseRef
from flows.run import Run
from storage.dicom.read_attached import Attached
from storage.imported import write_attached
from storage.store import Store
from tests.e2e.small_study import STUDY, write_study

CASE = replace(tg119_cshape(voxel_mm=10.0, body_size_mm_xyz=(120.0, 100.0, 120.0)), name="c")
FIRST = ExternalBeam(
    number=1, name="b", machine="m", delivery="TREATMENT", radiation="PHOTON", technique="DYNAMIC",
    gantry_deg=(327.0, 327.0), couch_deg=8.5e-10, collimator_deg=15.0, isocentre_mm=(1.0, 2.0, 3.0), sad_mm=(1000.0,),
    energies=(6.0,), meterset=1.0, meterset_unit="MU", final_weight=1.0, cumulative_weight=(0.0, 1.0),
)  # fmt: skip
SECOND = replace(FIRST, number=2, gantry_deg=(0.0, 0.0), isocentre_mm=(1.0, 2.0, 9.0))
SETUP = replace(FIRST, number=3, delivery="SETUP", gantry_deg=(90.0,))
PLAN = ExternalPlan("1.2", "Old plan", "", "RT Plan", "", "", "HFS", 5, (), (FIRST, SECOND, SETUP))
SPEC = STUDY.replace("gantry_deg = [0, 90, 200]", 'from_plan = "Old plan"').replace(
    '"Target"', '"OuterTarget"'
)


class Said(Reporter):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def study_of(folder: Path, text: str = SPEC) -> Study:
    return load_study(write_study(folder, text))


def beams_from(folder: Path, plan: ExternalPlan, said: Said | None = None) -> list[Beam]:
    with Run(Store(folder / "store"), said or Said()) as run:
        write_attached(run.store, "case", Attached((plan,), (), ()))
        return beams_of_study(run, study_of(folder), CaseRef("case", CASE, "density", "phantom", ()))


def test_beams_of_a_plan_keep_their_angles_and_isocentres(tmp_path: Path) -> None:
    first, second = beams_from(tmp_path, PLAN)
    assert (first.gantry_deg, first.couch_deg, first.collimator_deg) == (327.0, 0.0, 15.0)
    assert (first.isocentre_mm, first.sad_mm) == ((1.0, 2.0, 3.0), 1000.0)
    assert (second.gantry_deg, second.isocentre_mm) == (0.0, (1.0, 2.0, 9.0))
    assert first.name == "1 G327 T0"


def test_two_beams_from_one_place_become_one_and_it_is_said(tmp_path: Path) -> None:
    said = Said()
    beams = beams_from(tmp_path, replace(PLAN, beams=(FIRST, replace(FIRST, number=7), SECOND)), said)
    assert [beam.gantry_deg for beam in beams] == [327.0, 0.0]
    assert any("beam 7" in line for line in said.lines)


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        (replace(PLAN, beams=(replace(FIRST, radiation="PROTON"),)), "one of PROTON"),
        (replace(PLAN, beams=(replace(FIRST, gantry_deg=(180.0, 170.0)),)), "is an arc"),
        (replace(PLAN, beams=(replace(FIRST, isocentre_mm=None),)), "has no isocentre"),
        (replace(PLAN, beams=(SETUP,)), "no treatment beam"),
        (replace(PLAN, patient_position="FFS"), "position FFS.*HFS"),
        (replace(PLAN, label="other"), "no imported plans are called 'Old plan'"),
    ],
)
def test_plan_whose_beams_cannot_be_used_is_refused(
    tmp_path: Path, plan: ExternalPlan, expected: str
) -> None:
    with pytest.raises(NightbeamError, match=expected) as caught:
        beams_from(tmp_path, plan)
    assert isinstance(caught.value, StudyError | CaseError)


def test_study_takes_angles_from_one_place_only(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="not both"):
        study_of(tmp_path, SPEC.replace("[beams]", "[beams]\ngantry_deg = [0]"))
    with pytest.raises(StudyError, match=r"couch_deg.*come from the plan"):
        study_of(tmp_path, SPEC.replace("[beams]", "[beams]\ncouch_deg = 5"))


def test_beams_from_angles_meet_in_the_middle_of_the_target(tmp_path: Path) -> None:
    text = STUDY.replace('"Target"', '"OuterTarget"')
    with Run(Store(tmp_path / "store"), Said()) as run:
        beams = beams_of_study(run, study_of(tmp_path, text), CaseRef("case", CASE, "density", "phantom", ()))
    assert [beam.gantry_deg for beam in beams] == [0.0, 90.0, 200.0]
    assert len({beam.isocentre_mm for beam in beams}) == 1
    assert abs(beams[0].isocentre_mm[0]) < 1e-6
