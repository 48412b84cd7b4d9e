"""What an inbox holds, and which protocol each set is planned by."""

import shutil
from pathlib import Path

import pytest

from engine.errors import StudyError
from flows.inbox_sets import InboxSet, find_sets, read_inbox
from flows.inbox_study import write_study
from tests.dicom_files import write_series

EXAMPLES = Path(__file__).parents[3] / "examples"


def make_inbox(folder: Path, *rules: tuple[str, str], settle_s: float = 0.0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    text = f"settle_s = {settle_s}\n"
    for match, protocol in rules:
        text += f'[[sets]]\nmatch = "{match}"\nprotocol = "{protocol}"\n'
        (folder / protocol).touch()
    (folder / "inbox.toml").write_text(text)
    return folder


def put(path: Path, text: str = "something") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def look(inbox: Path) -> dict[str, InboxSet]:
    return {found.name: found for found in find_sets(inbox, read_inbox(inbox))}


def test_a_folder_is_one_set_with_all_that_lies_below_it(tmp_path):
    inbox = make_inbox(tmp_path, ("pelvis-*", "p.toml"))
    put(inbox / "pelvis-1/ct/1.dcm")
    put(inbox / "pelvis-1/rs/2.dcm")
    (found,) = look(inbox).values()
    assert (found.name, len(found.files), found.protocol) == ("pelvis-1", 2, inbox / "p.toml")


def test_the_first_rule_that_fits_counts(tmp_path):
    inbox = make_inbox(tmp_path, ("a*", "first.toml"), ("*", "second.toml"))
    put(inbox / "ab/1")
    put(inbox / "c/1")
    assert {name: found.protocol.name for name, found in look(inbox).items()} == {
        "ab": "first.toml",
        "c": "second.toml",
    }


def test_a_rule_may_speak_of_folders_in_folders(tmp_path):
    inbox = make_inbox(tmp_path, ("pelvis/*", "p.toml"))
    put(inbox / "pelvis/one/1")
    put(inbox / "pelvis/two/1")
    assert set(look(inbox)) == {"pelvis/one", "pelvis/two"}


def test_what_fits_no_rule_is_not_lost(tmp_path):
    inbox = make_inbox(tmp_path, ("pelvis/*", "p.toml"))
    put(inbox / "head/1")
    put(inbox / "pelvis/loose")
    put(inbox / "loose")
    found = look(inbox)
    assert set(found) == {"head", "pelvis", "loose files without a study"}
    assert all(one.protocol is None for one in found.values())


def test_loose_files_are_told_apart_by_their_study(tmp_path):
    inbox = make_inbox(tmp_path, (".", "p.toml"))
    write_series(
        inbox, lambda places: places[..., 0], shape_zyx=(2, 4, 4), number=1, StudyInstanceUID="1.2.3.4"
    )
    write_series(
        inbox, lambda places: places[..., 0], shape_zyx=(3, 4, 4), number=2, StudyInstanceUID="1.2.3.5"
    )
    found = look(inbox)
    assert sorted(len(one.files) for one in found.values()) == [2, 3]
    assert {one.protocol for one in found.values()} == {inbox / "p.toml"}


def test_hidden_files_and_the_inboxs_own_are_no_sets(tmp_path):
    inbox = make_inbox(tmp_path, ("*", "p.toml"), (".", "q.toml"))
    put(inbox / ".snapshot/1")
    assert look(inbox) == {}


def test_another_size_or_time_of_a_file_is_another_listing(tmp_path):
    inbox = make_inbox(tmp_path, ("*", "p.toml"))
    file = put(inbox / "one/1")
    first = look(inbox)["one"].listing
    assert look(inbox)["one"].listing == first
    put(inbox / "one/1", "something else")
    second = look(inbox)["one"].listing
    shutil.copystat(inbox / "inbox.toml", file)
    assert len({first, second, look(inbox)["one"].listing}) == 3


def test_a_protocol_that_is_not_there_is_refused(tmp_path):
    inbox = make_inbox(tmp_path, ("*", "p.toml"))
    (inbox / "p.toml").unlink()
    with pytest.raises(StudyError, match=r"sets\[0\].protocol: there is no file"):
        read_inbox(inbox)


@pytest.mark.parametrize("match", ["/etc/*", "../*", "a/../../*", "**"])
def test_a_rule_that_leads_out_of_the_inbox_is_refused(tmp_path, match):
    with pytest.raises(StudyError, match="relative to the inbox"):
        read_inbox(make_inbox(tmp_path, (match, "p.toml")))


def test_a_study_is_the_protocol_with_another_case(tmp_path):
    write_study(EXAMPLES / "imported_case.toml", "one-3f2a", tmp_path / "study.toml")
    text = (tmp_path / "study.toml").read_text()
    assert 'imported = "one-3f2a"' in text
    assert f'hu_table = "{EXAMPLES}/hu_tables/two_lines.csv"' in text


def test_a_protocol_with_a_phantom_is_refused(tmp_path):
    with pytest.raises(StudyError, match=r"give case\.imported"):
        write_study(EXAMPLES / "tg119_cshape.toml", "one", tmp_path / "study.toml")
