"""Folders as they come: several series, duplicates, junk, character sets, odd contours."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.config import disable_value_validation
from pydicom.uid import (
    ImplicitVRLittleEndian,
    RTDoseStorage,
    RTIonPlanStorage,
    RTPlanStorage,
    SecondaryCaptureImageStorage,
)

from engine.errors import DicomError
from storage.dicom.read_case import Choice, read_case
from storage.dicom.scan import scan_folder
from tests.dicom_files import (
    OTHER_FRAME,
    base,
    rigid,
    save,
    turned,
    write_contours,
    write_registration,
    write_series,
)

SQUARE = np.array([[-10, -5, 0], [10, -5, 0], [10, 5, 0], [-10, 5, 0]], float)
"""200 mm²; the CT spans x -31..33, y -21.5..26.5, z -26.25..26.25."""


def at(z: float, points: np.ndarray = SQUARE) -> np.ndarray:
    return points + np.array([0.0, 0.0, z])


def water(places: np.ndarray) -> np.ndarray:
    return places[..., 0] * 1.0


def edit(path: Path, change: Callable[[Dataset], None]) -> None:
    dataset = dcmread(path)
    change(dataset)
    dataset.save_as(path)


def set_to(keyword: str, value: Any) -> Callable[[Dataset], None]:
    return lambda dataset: setattr(dataset, keyword, value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_series(tmp_path, water)
    return tmp_path


# -- what a folder holds ------------------------------------------------------------------------------------------


def test_scan_sorts_a_mixed_folder_by_kind(folder: Path) -> None:
    write_series(folder / "mr", water, modality="MR", shape_zyx=(3, 4, 4))
    write_series(folder / "pet", water, modality="PT", shape_zyx=(2, 4, 4))
    write_contours(folder, {"a": [at(0.0)]})
    write_registration(folder, [(OTHER_FRAME, [np.eye(4)])])
    for uid, modality in ((RTPlanStorage, "RTPLAN"), (RTIonPlanStorage, "RTPLAN"), (RTDoseStorage, "RTDOSE")):
        save(base(uid, modality, ""), folder / f"{uid}.dcm")
    save(base(SecondaryCaptureImageStorage, "OT", ""), folder / "screen.dcm")
    n_told = 0

    def advance() -> None:
        nonlocal n_told
        n_told += 1

    scanned = scan_folder(folder, advance)
    sizes = [
        len(getattr(scanned, kind))
        for kind in ("ct", "mr", "pet", "structure_sets", "registrations", "plans", "doses")
    ]
    assert sizes == [21, 3, 2, 1, 1, 2, 1]
    assert scanned.notes == ("ignored 1 file(s): Secondary Capture Image Storage",)
    assert n_told == 21 + 3 + 2 + 1 + 1 + 2 + 1 + 1


def test_folder_without_ct_says_what_it_holds(tmp_path: Path) -> None:
    write_series(tmp_path / "mr", water, modality="MR", shape_zyx=(3, 4, 4))
    save(base(RTPlanStorage, "RTPLAN", ""), tmp_path / "plan.dcm")
    with pytest.raises(DicomError, match=r"no CT images \(only 3 MR images, 1 plan\)"):
        read_case(tmp_path)


def test_what_is_no_dicom_is_counted(folder: Path) -> None:
    for name, content in {
        "empty": b"",
        "short": b"\x08",
        "text.txt": b"hello",
        "random": np.random.default_rng(1).bytes(5000),
        "like a bare file": b"\x08\x00\x05\x00" + np.random.default_rng(2).bytes(40),
        "zeros": bytes(1000),
        "archive.zip": b"PK\x03\x04" + bytes(200),
    }.items():
        (folder / name).write_bytes(content)
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "nowhere").symlink_to(folder / "not there")
    os.mkfifo(folder / "pipe")
    assert "ignored 7 file(s): not DICOM" in read_case(folder).notes


def test_private_junk_and_absent_optional_attributes_do_no_harm(folder: Path) -> None:
    before = read_case(folder).ct_hu

    def spoil(dataset: Dataset) -> None:
        block = dataset.private_block(0x0019, "JUNK", create=True)
        block.add_new(0x01, "UN", b"\xff\xfe\x00\xe0\xff\xff\xff\xff")
        block.add_new(0x02, "LO", "Mustermann^Erika")
        block.add_new(0x03, "SQ", [Dataset()])
        for keyword in ("SeriesDescription", "SeriesNumber", "StudyInstanceUID", "PatientPosition"):
            delattr(dataset, keyword)

    for path in folder.iterdir():
        edit(path, spoil)
    case = read_case(folder)
    np.testing.assert_array_equal(case.ct_hu, before)
    assert any("head first supine (HFS) was assumed" in note for note in case.notes)
    assert "Mustermann" not in " ".join(case.notes)


def test_class_said_in_the_file_header_alone_is_enough(folder: Path) -> None:
    for path in folder.iterdir():
        whole = path.read_bytes()
        at_uid = whole.index(b"\x08\x00\x16\x00UI")
        length = int.from_bytes(whole[at_uid + 6 : at_uid + 8], "little")
        path.write_bytes(whole[:at_uid] + whole[at_uid + 8 + length :])
    assert read_case(folder).grid.shape_zyx == (21, 16, 32)


# -- duplicates ---------------------------------------------------------------------------------------------------


def test_copies_are_left_out_with_a_note(folder: Path) -> None:
    paths = sorted(folder.iterdir())
    shutil.copy(paths[3], folder / "copy.dcm")
    edit(paths[4], set_to("SeriesDescription", "changed on the way"))
    shutil.copy(paths[4], folder / "other.dcm")
    dataset = dcmread(folder / "other.dcm")
    bare = Dataset(dataset)
    bare.file_meta = dataset.file_meta
    bare.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    bare.save_as(folder / "other.dcm", enforce_file_format=True)
    case = read_case(folder)
    assert case.grid.shape_zyx[0] == 21
    assert "left out 2 file(s) that are in the folder twice" in case.notes


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("RescaleIntercept", 1), ("ImagePositionPatient", [-30, -20, 100]), ("PixelData", bytes(1024))],
)
def test_copies_that_differ_in_what_matters_are_refused(folder: Path, keyword: str, value: Any) -> None:
    path = sorted(folder.iterdir())[3]
    shutil.copy(path, folder / "copy.dcm")
    edit(folder / "copy.dcm", set_to(keyword, value))
    with pytest.raises(DicomError, match=r"same SOP Instance UID but differ") as error:
        read_case(folder)
    assert path.name in str(error.value)


def test_copied_structure_set_counts_once_and_a_changed_one_is_refused(folder: Path) -> None:
    path = write_contours(folder, {"a": [at(0.0)]})
    shutil.copy(path, folder / "copy.dcm")
    case = read_case(folder)
    assert [structure.name for structure in case.structures] == ["a"]
    assert "left out 1 file(s) that are in the folder twice" in case.notes
    edit(folder / "copy.dcm", lambda d: setattr(d.StructureSetROISequence[0], "ROIName", "b"))
    with pytest.raises(DicomError, match="same SOP Instance UID but differ"):
        read_case(folder)


# -- asked for by name --------------------------------------------------------------------------------------------


@pytest.fixture
def three_series(tmp_path: Path) -> Path:
    for number, name in ((2, "Thorax 3.0 B30f"), (3, "Thorax 3.0 B70f"), (12, "Topogram late")):
        write_series(
            tmp_path, lambda places, n=number: np.full(places.shape[:-1], float(n)), number=number,
            shape_zyx=(3, 4, 4), scale=(1.0, 0.0), SeriesDescription=name,
        )  # fmt: skip
    return tmp_path


@pytest.mark.parametrize(
    ("wanted", "number"), [("2", 2), ("12", 12), ("b70", 3), ("thorax 3.0 B30F", 2), ("late", 12)]
)
def test_series_is_chosen_by_number_or_part_of_its_description(
    three_series: Path, wanted: str, number: int
) -> None:
    assert (read_case(three_series, Choice(wanted)).ct_hu == number).all()


def test_series_is_chosen_by_uid(three_series: Path) -> None:
    path = next(three_series.glob("CT3-*"))
    uid = str(dcmread(path).SeriesInstanceUID)
    assert (read_case(three_series, Choice(uid)).ct_hu == 3).all()


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (None, "the folder holds 3 CT series"),
        ("thorax", "'thorax' fits 2 CT series"),
        ("4", "'4' fits no CT series"),
        ("", "'' fits no CT series"),
    ],
)
def test_ambiguous_choice_is_answered_with_the_list(
    three_series: Path, wanted: str | None, message: str
) -> None:
    with pytest.raises(DicomError, match=message) as error:
        read_case(three_series, Choice(wanted))
    lines = str(error.value).splitlines()
    assert "--series" in lines[0]
    assert [line.split(",")[:2] for line in lines[1:]] == [
        ["  CT 2 'Thorax 3.0 B30f'", " 3 slices"],
        ["  CT 3 'Thorax 3.0 B70f'", " 3 slices"],
        ["  CT 12 'Topogram late'", " 3 slices"],
    ]


def test_descriptions_of_series_are_not_kept(three_series: Path) -> None:
    case = read_case(three_series, Choice("2"))
    assert "Thorax" not in " ".join([case.name, *case.notes])


def test_structure_set_is_chosen_by_label_or_uid(folder: Path) -> None:
    write_contours(folder, {"a": [at(0.0)]}, label="First plan")
    path = write_contours(folder, {"b": [at(0.0)], "c": [at(2.5)]}, label="Second plan")
    with pytest.raises(DicomError, match="2 structure sets") as error:
        read_case(folder)
    assert "'Second plan', 2 structures," in str(error.value)
    assert [s.name for s in read_case(folder, Choice(structure_set="first")).structures] == ["a"]
    uid = str(dcmread(path).SOPInstanceUID)
    assert [s.name for s in read_case(folder, Choice(structure_set=uid)).structures] == ["b", "c"]
    with pytest.raises(DicomError, match="'plan' fits 2 structure set"):
        read_case(folder, Choice(structure_set="plan"))


# -- structures ---------------------------------------------------------------------------------------------------


def volume_mm3(folder: Path, name: str = "a") -> float:
    case = read_case(folder)
    return float(case.structure(name).coverage.sum(dtype=np.float64)) * case.grid.voxel_volume_mm3


def test_single_points_lines_and_empty_regions_are_noted(folder: Path) -> None:
    write_contours(
        folder, {"a": [at(0.0), at(2.5)[:1], at(5.0)[:2]], "only a point": [at(0.0)[:1]], "empty": []}
    )
    case = read_case(folder)
    assert [structure.name for structure in case.structures] == ["a"]
    assert "structure 'a': skipped 2 contour(s) with fewer than 3 points" in case.notes
    assert "structure 'only a point': left out, as it is empty" in case.notes
    assert "structure 'empty': left out, as it is empty" in case.notes


def test_kind_of_contour_may_be_written_carelessly_and_open_lines_are_skipped(folder: Path) -> None:
    path = write_contours(folder, {"a": [at(0.0), at(2.5), at(5.0)]})

    def change(dataset: Dataset) -> None:
        items = dataset.ROIContourSequence[0].ContourSequence
        with disable_value_validation():
            items[0].ContourGeometricType = "closed_planar"
        items[2].ContourGeometricType = "OPEN_PLANAR"

    edit(path, change)
    case = read_case(folder)
    assert len(case.structure("a").contours) == 2
    assert "structure 'a': skipped 1 contour(s) OPEN_PLANAR" in case.notes


@pytest.mark.parametrize("text", ["nan", "inf", "one"])
def test_point_that_is_no_number_is_refused(folder: Path, text: str) -> None:
    path = write_contours(folder, {"a": [at(0.0)]})
    whole = path.read_bytes()
    assert whole.count(b"-10.000\\-5.000") == 1
    path.write_bytes(whole.replace(b"-10.000\\-5.000", text.encode().rjust(7) + b"\\-5.000"))
    with pytest.raises(DicomError, match=r"'a'.*(not finite|cannot be read)"):
        read_case(folder)


def test_part_outside_of_the_ct_is_said(folder: Path) -> None:
    """Moved by 31.5 mm along x, the square's right 8.5 of 20 mm lie beyond the edge at 33 mm."""
    write_contours(folder, {"a": [at(z) + np.array([31.5, 0.0, 0.0]) for z in (0.0, 2.5, 5.0)]})
    notes = read_case(folder).notes
    assert "structure 'a': sticks out of the grid by up to 8.5 mm and is cut there" in notes
    assert "structure 'a': 42.5 % of its volume lies outside of the CT" in notes


def test_structure_wholly_outside_is_left_out(folder: Path) -> None:
    write_contours(
        folder,
        {"a": [at(0.0)], "couch": [at(z) + np.array([0, 500.0, 0]) for z in (0.0, 2.5)], "far": [at(400.0)]},
    )
    case = read_case(folder)
    assert [structure.name for structure in case.structures] == ["a"]
    for name in ("couch", "far"):
        assert f"structure '{name}': left out, as it lies outside of the CT" in case.notes


@pytest.mark.parametrize("axis", [(1, 0, 0), (0, 1, 0), (1, 1, 0)], ids=["coronal", "sagittal", "oblique"])
def test_contours_that_are_not_axial_go_by_voxels(folder: Path, axis: tuple[int, int, int]) -> None:
    turn = turned(axis, 90.0)
    write_contours(folder, {"a": [at(z) @ turn.T for z in np.arange(-8.0, 8.1, 2.0)]})
    case = read_case(folder)
    assert case.structure("a").contours == ()
    assert any("not axial; it was brought onto the CT grid as voxels" in note for note in case.notes)
    assert volume_mm3(folder) == pytest.approx(200.0 * 18.0, rel=0.01)


def test_contours_in_planes_that_cross_leave_the_structure_out(folder: Path) -> None:
    write_contours(folder, {"a": [at(0.0), at(0.0) @ turned((1, 0, 0), 90.0).T], "b": [at(0.0)]})
    case = read_case(folder)
    assert [structure.name for structure in case.structures] == ["b"]
    assert any("not axial, nor parallel" in note for note in case.notes)


def test_keyhole_and_crossing_contours_follow_the_even_odd_rule(folder: Path) -> None:
    outer, inner = SQUARE, 0.5 * SQUARE
    keyhole = np.concatenate([outer, outer[:1], inner[:1], inner[::-1], outer[:1]])
    bow_tie = np.array([[-10, -5, 0], [10, 5, 0], [10, -5, 0], [-10, 5, 0]], float)
    write_contours(folder, {"a": [at(0.0, keyhole)], "bow": [at(0.0, bow_tie)]})
    assert volume_mm3(folder, "a") == pytest.approx(2.5 * (200.0 - 50.0), rel=1e-5)
    assert volume_mm3(folder, "bow") == pytest.approx(2.5 * 100.0, rel=1e-5)


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        ("ISO_IR 100", "Schilddrüse"),
        ("ISO_IR 144", "Лёгкое"),
        ("ISO_IR 192", "肺 – Größe"),
        ("GB18030", "左肺"),
        (["", "ISO 2022 IR 87"], "左肺"),
        (["", "ISO 2022 IR 149"], "폐"),
    ],
)
def test_names_in_every_character_set_are_read(folder: Path, character_set: Any, name: str) -> None:
    write_contours(folder, {name: [at(0.0)]}, SpecificCharacterSet=character_set)
    case = read_case(folder)
    assert [structure.name for structure in case.structures] == [name]
    assert not any("character set" in note for note in case.notes)


def test_unknown_and_unsaid_character_sets_are_noted(folder: Path) -> None:
    path = write_contours(folder, {"Größe": [at(0.0)]}, SpecificCharacterSet="ISO_IR 100")
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"ISO_IR 100", b"ISO_IR 999"))
    case = read_case(folder)
    assert len(case.structures) == 1
    assert any("unknown character set (ISO_IR 999)" in note for note in case.notes)
    path.write_bytes(whole)
    dataset = dcmread(path)
    path.write_bytes(whole.replace(b"ISO_IR 100", b" " * 10))
    assert dataset.SpecificCharacterSet == "ISO_IR 100"
    case = read_case(folder)
    assert [structure.name for structure in case.structures] == ["Größe"]
    assert any("does not say its character set" in note for note in case.notes)


def test_two_structure_sets_of_which_one_is_registered_take_the_one_of_the_ct(folder: Path) -> None:
    write_contours(folder, {"a": [at(0.0)]})
    write_contours(folder, {"b": [at(0.0)]}, frame=OTHER_FRAME)
    write_registration(folder, [(OTHER_FRAME, [rigid(np.eye(3), (0, 0, 2.5))])])
    assert [s.name for s in read_case(folder).structures] == ["a"]
    assert [s.name for s in read_case(folder, Choice(structure_set=None)).structures] == ["a"]
