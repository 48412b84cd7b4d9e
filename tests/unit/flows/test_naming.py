"""Structures under other names: mapping files, what they may not say, and what is proposed into them."""

import numpy as np
import pytest

from engine.errors import CaseError, StudyError
from engine.model.case import Case, Structure
from engine.model.grid import Grid
from engine.spec.names import NamesSpec, load_names
from flows.naming import proposals_as_toml, rename

GRID = Grid((0.0, 0.0, 0.0), (5.0, 5.0, 5.0), (2, 2, 2))


def a_case(**structures: str) -> Case:
    ones = np.ones(GRID.shape_zyx, dtype=np.float32)
    return Case(
        "a", GRID, ones, tuple(Structure(n, kind, ones) for n, kind in structures.items()), notes=("read",)
    )


def mapping(**structures: dict) -> NamesSpec:
    return NamesSpec.model_validate({"structures": structures})


def test_names_and_kinds_are_changed_and_the_old_ones_noted():
    case = rename(
        a_case(Mandible="ORGAN", Outline="OTHER", Heart="ORGAN"),
        mapping(Mandible={"name": "Bone_Mandible"}, Outline={"name": "External", "kind": "EXTERNAL"}),
    )
    assert [(s.name, s.kind) for s in case.structures] == [
        ("Bone_Mandible", "ORGAN"), ("External", "EXTERNAL"), ("Heart", "ORGAN"),
    ]  # fmt: skip
    assert case.external.name == "External"
    assert case.notes == (
        "read",
        "structure 'Mandible' was renamed 'Bone_Mandible' by the mapping file",
        "structure 'Outline' was renamed 'External' by the mapping file",
        "structure 'External' was made EXTERNAL by the mapping file (it was OTHER)",
    )


def test_two_structures_may_swap_their_names():
    case = rename(a_case(A="ORGAN", B="TARGET"), mapping(A={"name": "B"}, B={"name": "A"}))
    assert [(s.name, s.kind) for s in case.structures] == [("B", "ORGAN"), ("A", "TARGET")]


def test_no_mapping_changes_nothing():
    case = a_case(A="ORGAN")
    assert rename(case, None) is case


def test_a_name_that_does_not_occur_is_told_with_the_nearest():
    with pytest.raises(
        CaseError, match=r"'Mandibel', which is no structure of this case; did you mean 'Mandible'\?"
    ):
        rename(a_case(Mandible="ORGAN", Heart="ORGAN"), mapping(Mandibel={"name": "Bone_Mandible"}))
    with pytest.raises(CaseError, match="it has Heart, Mandible"):
        rename(a_case(Mandible="ORGAN", Heart="ORGAN"), mapping(Xyz={"name": "Bone_Mandible"}))


@pytest.mark.parametrize("names", [{"A": {"name": "B"}}, {"A": {"name": "C"}, "B": {"name": "C"}}])
def test_two_structures_of_one_name_are_refused(names):
    with pytest.raises(CaseError, match="'A' and 'B' would both be called"):
        rename(a_case(A="ORGAN", B="ORGAN"), mapping(**names))


def test_proposals_are_a_mapping_file_that_can_be_used(tmp_path):
    case = a_case(**{
        "Lt Parotid": "ORGAN", "parotid l": "ORGAN", "CORD": "OTHER", "manbible": "ORGAN", 'odd "\\ name': "OTHER",
        "PTV70": "TARGET", "Brain": "ORGAN",
    })  # fmt: skip
    text = proposals_as_toml(case)
    path = tmp_path / "names.toml"
    path.write_text(text, encoding="utf-8")
    renamed = rename(case, load_names(path))
    assert [(s.name, s.kind) for s in renamed.structures] == [
        ("Lt Parotid", "ORGAN"), ("parotid l", "ORGAN"), ("SpinalCord", "ORGAN"), ("Bone_Mandible", "ORGAN"),
        ('odd "\\ name', "OTHER"), ("PTV_7000", "TARGET"), ("Brain", "ORGAN"),
    ]  # fmt: skip
    assert text.count("# would be Parotid_L, as another one") == 2
    assert text.count("# spelling guessed") == 1
    assert text.count("# no proposal") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "structures: this key is needed"),
        ('[structures]\nA = { name = "" }', "line 2"),
        ('[structures]\nA = { name = "B", kind = "ORGANS" }', "kind"),
        ('[structures]\nA = { nam = "B" }', "there is no such key"),
        ('[structures]\nA = "B"', "line 2"),
        ("[structures", "not valid TOML"),
    ],
)
def test_mistakes_in_a_mapping_file_are_told(text, message, tmp_path):
    path = tmp_path / "names.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(StudyError, match=message):
        load_names(path)
