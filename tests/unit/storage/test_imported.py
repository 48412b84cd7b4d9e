"""Plans and doses beside a case: kept whole, found by name, added to by a later import."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.errors import CaseError
from engine.model.grid import Grid
from engine.model.plan import (
    ExternalBeam,
    ExternalPlan,
    FluenceMap,
    Opening,
    Prescription,
    RangeShifter,
    SpotLayer,
)
from storage.dicom.read_attached import Attached
from storage.dicom.read_dose import ReadDose
from storage.imported import (
    attached_is_whole,
    find_dose,
    find_plan,
    imported_dose_gy,
    imported_doses,
    imported_plans,
    write_attached,
)
from storage.maintenance import list_objects
from storage.store import Store

GRID = Grid((0.0, 1.0, 2.0), (1.0, 2.0, 3.0), (2, 3, 4))
BEAM = ExternalBeam(
    number=1, name="b", machine="m", delivery="TREATMENT", radiation="PHOTON", technique="STATIC",
    gantry_deg=(10.0, 10.0), couch_deg=0.0, collimator_deg=90.0, isocentre_mm=(1.0, 2.0, 3.0), sad_mm=(1000.0,),
    energies=(6.0,), meterset=101.5, meterset_unit="MU", final_weight=1.0, cumulative_weight=(0.0, 1.0),
    openings=(Opening("MLCX", (-5.0, 0.0, 5.0), ((-1.0, -2.0, 3.0, 4.0), ())),),
    fluence=FluenceMap((-5.0, 0.0), (5.0, 2.5), ((0.0, 1.0), (0.25, 1.0 / 3.0))),
    layers=(SpotLayer(150.0, (1.0, 2.0), (3.0, 4.0), (5.0, 6.0), (7.0, 8.0), 2),),
    range_shifters=(RangeShifter("RS", "BINARY", "IN", None, 57.0),),
)  # fmt: skip
PLAN = ExternalPlan(
    "1.2.3",
    "A",
    "first",
    "RT Plan",
    "APPROVED",
    "1.2.4",
    "HFS",
    5,
    (Prescription("PTV", "TARGET", 50.0),),
    (BEAM,),
)


def dose(uid: str, seed: int = 1) -> ReadDose:
    values = np.random.default_rng(seed).uniform(0.0, 2.0, GRID.shape_zyx).astype(np.float32)
    return ReadDose(uid, "d", GRID, values, "BEAM", "1.2.3", 1, False, "", ())


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_plan_and_dose_come_back_to_the_last_bit(store: Store) -> None:
    write_attached(store, "case", Attached((PLAN,), (dose("1.2.5"),), ()))
    assert imported_plans(store, "case") == [PLAN]
    (entry,) = imported_doses(store, "case")
    assert (entry.uid, entry.grid, entry.beam_number, entry.plan_uid) == ("1.2.5", GRID, 1, "1.2.3")
    np.testing.assert_array_equal(imported_dose_gy(store, entry), dose("1.2.5").dose_gy)
    assert entry.max_gy == dose("1.2.5").dose_gy.max()


def test_later_import_adds_to_an_earlier_one(store: Store) -> None:
    write_attached(store, "case", Attached((PLAN,), (dose("1.2.5"),), ()))
    other = replace(PLAN, uid="9.9", label="B", name="second")
    write_attached(store, "case", Attached((other, PLAN), (dose("1.2.6", 2), dose("1.2.5", 3)), ()))
    write_attached(store, "case", Attached((), (), ()))
    assert imported_plans(store, "case") == [PLAN, other]
    doses = imported_doses(store, "case")
    assert [entry.uid for entry in doses] == ["1.2.5", "1.2.6"]
    np.testing.assert_array_equal(imported_dose_gy(store, doses[0]), dose("1.2.5", 3).dose_gy)


def test_case_without_plans_has_none(store: Store) -> None:
    assert imported_plans(store, "case") == []
    assert imported_doses(store, "case") == []
    with pytest.raises(CaseError, match=r"no imported plans are called 'A'.*has: none"):
        find_plan(store, "case", "A")


def test_plan_is_found_by_label_name_and_uid_if_there_is_only_one(store: Store) -> None:
    other = replace(PLAN, uid="9.9", name="second")
    write_attached(store, "case", Attached((PLAN, other), (), ()))
    assert find_plan(store, "case", "first") == PLAN
    assert find_plan(store, "case", "9.9") == other
    with pytest.raises(CaseError, match=r"2 imported plans are called 'A'.*1\.2\.3.*9\.9"):
        find_plan(store, "case", "A")


def test_a_dose_of_a_whole_plan_is_found_by_label_and_uid(store: Store) -> None:
    whole = replace(dose("1.2.6", 2), summation="PLAN", label="accepted", beam_number=None)
    weighted = replace(whole, uid="1.2.7", label="weighted", is_effective=True)
    write_attached(store, "case", Attached((), (dose("1.2.5"), whole, weighted), ()))
    assert find_dose(store, "case", "accepted").uid == find_dose(store, "case", "1.2.6").uid == "1.2.6"
    # A beam's dose is none of a plan.
    with pytest.raises(CaseError, match=r"no imported doses of whole plans are called 'd'.*'accepted'"):
        find_dose(store, "case", "d")
    with pytest.raises(CaseError, match="biologically weighted"):
        find_dose(store, "case", "weighted")


@pytest.mark.parametrize("kind", ["attached", "imported_plan", "imported_dose"])
def test_what_was_lost_is_missed_and_a_plan_that_was_lost_has_to_be_imported_again(
    store: Store, kind: str
) -> None:
    write_attached(store, "case", Attached((PLAN,), (dose("1.2.5"),), ()))
    assert attached_is_whole(store, "case", True)
    (victim,) = [file for file in list_objects(store) if file.kind == kind]
    (store.folder / victim.key).unlink()
    assert not attached_is_whole(store, "case", True)
    if kind == "imported_plan":
        with pytest.raises(CaseError, match="nightbeam import"):
            find_plan(store, "case", "A")
    write_attached(store, "case", Attached((PLAN,), (dose("1.2.5"),), ()))
    assert attached_is_whole(store, "case", True)
    assert find_plan(store, "case", "A") == PLAN
    assert attached_is_whole(store, "another", False)


def test_damaged_record_is_missed(store: Store) -> None:
    write_attached(store, "case", Attached((PLAN,), (), ()))
    (victim,) = [file for file in list_objects(store) if file.kind == "attached"]
    path = store.folder / victim.key
    path.write_bytes(path.read_bytes()[:-5])
    assert not attached_is_whole(store, "case", True)
