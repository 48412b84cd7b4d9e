"""De-identification: nothing that tells who it is comes out, and everything that a plan needs does."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from pydicom import Dataset, dcmread
from pydicom.uid import RTPlanStorage, generate_uid

from engine.errors import DicomError
from flows.cli import main
from storage.dicom.deidentify import deidentify
from storage.dicom.read_case import read_case
from storage.dicom.uids import InstanceReference
from storage.dicom.write_ct import ct_reference
from storage.dicom.write_dose import write_dose
from tests.hostile.good import GRID, edit, good_case, put_raw, write_good
from tests.hostile.identity import identify, leaks, name_structures, names, uids


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with CT, structures, a plan and a dose that all tell who it is."""
    found = tmp_path / "Quixotham"
    write_good(found)
    ct = ct_reference(good_case())
    plan = InstanceReference(RTPlanStorage, generate_uid())
    write_dose(found, GRID, np.ones(GRID.shape_zyx), case_name="small", ct=ct, plan=plan)
    dataset = dcmread(found / "rt.dcm")
    for keyword in ("StructureSetROISequence", "ROIContourSequence", "RTROIObservationsSequence"):
        delattr(dataset, keyword)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = RTPlanStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = plan.sop_instance_uid
    dataset.Modality = "RTPLAN"
    dataset.RTPlanLabel = "Zebulonia"
    dataset.RTPlanDate = "20231228"
    reference = Dataset()
    reference.ReferencedSOPInstanceUID = dcmread(found / "rt.dcm").SOPInstanceUID
    dataset.ReferencedStructureSetSequence = [reference]
    dataset.save_as(found / "plan-of-Quixotham.dcm")
    identify(found)
    edit(found / "rt.dcm", name_structures)
    return found


def test_no_name_date_or_identifier_comes_out(folder, tmp_path):
    secrets = names() | uids(folder)
    assert len(secrets) > 40
    assert leaks([folder], secrets)
    answer = CliRunner().invoke(
        main,
        ["import", str(folder), "--deidentify", str(tmp_path / "clean"), "--store", str(tmp_path / "store")],
    )
    assert answer.exit_code == 0, answer.output
    assert leaks([tmp_path / "clean", tmp_path / "store"], secrets) == set()
    assert not [secret for secret in secrets if secret.decode().lower() in answer.output.lower()]
    assert "masked" in answer.output
    assert "PTV_***" in answer.output
    # Compressed in the store: look at what was kept, as well.
    case = read_case(tmp_path / "clean")
    assert not [
        s for s in secrets if s.decode() in repr((case.name, case.notes, case.frame_of_reference_uid))
    ]


def test_references_hold_and_the_case_is_the_same(folder, tmp_path):
    before = read_case(folder)
    done = deidentify(folder, tmp_path / "clean")
    assert done.n_file == GRID.shape_zyx[0] + 3
    after = read_case(tmp_path / "clean")
    np.testing.assert_array_equal(after.ct_hu, before.ct_hu)
    assert after.grid == before.grid
    assert [s.kind for s in after.structures] == [s.kind for s in before.structures]
    assert [s.name for s in after.structures] == ["BODY", "PTV_***"]
    for old, new in zip(before.structures, after.structures, strict=True):
        np.testing.assert_array_equal(new.coverage, old.coverage)
        for a, b in zip(old.contours, new.contours, strict=True):
            assert a.z_mm == b.z_mm
            np.testing.assert_array_equal(a.points_mm_xy, b.points_mm_xy)
    read = [dcmread(path) for path in (tmp_path / "clean").glob("*.dcm")]
    instances = {dataset.SOPInstanceUID for dataset in read}
    by_modality = {dataset.Modality: dataset for dataset in read}
    plan, dose, structures = (by_modality[name] for name in ("RTPLAN", "RTDOSE", "RTSTRUCT"))
    assert plan.ReferencedStructureSetSequence[0].ReferencedSOPInstanceUID == structures.SOPInstanceUID
    assert dose.ReferencedRTPlanSequence[0].ReferencedSOPInstanceUID == plan.SOPInstanceUID
    named = (
        structures.ReferencedFrameOfReferenceSequence[0]
        .RTReferencedStudySequence[0]
        .RTReferencedSeriesSequence[0]
    )
    assert named.SeriesInstanceUID == by_modality["CT"].SeriesInstanceUID
    assert {image.ReferencedSOPInstanceUID for image in named.ContourImageSequence} <= instances
    assert {dataset.FrameOfReferenceUID for dataset in read} == {structures.FrameOfReferenceUID}
    assert {dataset.PatientID for dataset in read} == {plan.PatientID}


def test_contours_stay_as_they_were_byte_by_byte(folder, tmp_path):
    edit(
        folder / "rt.dcm",
        lambda d: put_raw(
            d.ROIContourSequence[0].ContourSequence[0],
            "ContourData",
            b"+1.50\\ 2\\10 \\30\\2.000\\10\\30\\20\\1.0e1 ",
        ),
    )
    deidentify(folder, tmp_path / "clean")
    (found,) = (dcmread(p) for p in (tmp_path / "clean").glob("*.dcm") if dcmread(p).Modality == "RTSTRUCT")
    before = dcmread(folder / "rt.dcm")
    for old_roi, new_roi in zip(before.ROIContourSequence, found.ROIContourSequence, strict=True):
        for old, new in zip(old_roi.ContourSequence, new_roi.ContourSequence, strict=True):
            assert old.get_item("ContourData").value == new.get_item("ContourData").value


def test_files_say_how_they_were_deidentified(folder, tmp_path):
    deidentify(folder, tmp_path / "clean")
    for path in (tmp_path / "clean").glob("*.dcm"):
        dataset = dcmread(path)
        assert dataset.PatientIdentityRemoved == "YES"
        assert [item.CodeValue for item in dataset.DeidentificationMethodCodeSequence] == ["113100", "113105"]
        assert dataset.LongitudinalTemporalInformationModified == "REMOVED"
        assert dataset.SOPInstanceUID in path.name
        assert path.read_bytes()[:128] == bytes(128)
        assert not [element for element in dataset if element.tag.is_private]


def test_new_identifiers_are_others_every_time(folder, tmp_path):
    first, second = deidentify(folder, tmp_path / "one"), deidentify(folder, tmp_path / "two")
    assert first.new_uid("1.2.3") != second.new_uid("1.2.3")
    assert first.new_uid("1.2.3") == first.new_uid("1.2.3")


def test_two_patients_stay_two(folder, tmp_path):
    edit(folder / "3.dcm", lambda dataset: setattr(dataset, "PatientID", "another"))
    deidentify(folder, tmp_path / "clean")
    assert len({dcmread(path).PatientID for path in (tmp_path / "clean").glob("*.dcm")}) == 2


def test_a_short_name_is_masked_where_it_stands_alone(folder, tmp_path):
    for path in folder.glob("*.dcm"):
        edit(path, lambda dataset: setattr(dataset, "PatientName", "Li^Bo"))

    def change(dataset: Dataset) -> None:
        dataset.StructureSetROISequence[0].ROIName = "Liver Bolus"
        dataset.StructureSetROISequence[1].ROIName = "PTV_Li bo"

    edit(folder / "rt.dcm", change)
    deidentify(folder, tmp_path / "clean")
    assert [s.name for s in read_case(tmp_path / "clean").structures] == ["Liver Bolus", "PTV_*** ***"]


@pytest.mark.parametrize("who", ["reviewer", "interpreter"])
def test_names_of_whoever_worked_on_it_are_masked_too(who, folder, tmp_path):
    def change(dataset):
        dataset.StructureSetROISequence[0].ROIName = "BODY Brandywine"
        if who == "reviewer":
            dataset.ReviewerName = "Brandywine^A"
        else:
            dataset.RTROIObservationsSequence[0].ROIInterpreter = "Brandywine^A"

    edit(folder / "rt.dcm", change)
    deidentify(folder, tmp_path / "clean")
    assert read_case(tmp_path / "clean").structures[0].name == "BODY ***"


def test_a_text_that_is_written_as_bytes_is_removed(folder, tmp_path):
    edit(folder / "rt.dcm", lambda dataset: dataset.add_new(0x300A00C2, "OB", b"Beam Quixotham"))
    deidentify(folder, tmp_path / "clean")
    assert leaks([tmp_path / "clean"], {b"Quixotham"}) == set()


def test_other_kinds_of_files_are_left_out(folder, tmp_path):
    (folder / "letter of Quixotham.txt").write_text("Dear Quixotham")
    edit(
        folder / "plan-of-Quixotham.dcm", lambda d: setattr(d, "SOPClassUID", "1.2.840.10008.5.1.4.1.1.104.1")
    )
    done = deidentify(folder, tmp_path / "clean")
    assert done.n_file == GRID.shape_zyx[0] + 2
    assert "left out 1 file(s): not DICOM" in done.notes
    assert "left out 1 file(s): Encapsulated PDF Storage" in done.notes


BROKEN = {
    "burned-in text": (
        lambda f: edit(f / "3.dcm", lambda d: setattr(d, "BurnedInAnnotation", "YES")),
        "burned",
    ),
    "a file that was cut": (lambda f: (f / "3.dcm").write_bytes((f / "3.dcm").read_bytes()[:400]), "3.dcm"),
    "a file twice": (lambda f: (f / "3b.dcm").write_bytes((f / "3.dcm").read_bytes()), "3b.dcm"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_cannot_be_cleaned_is_refused_and_nothing_is_left(kind, folder, tmp_path):
    attack, expected = BROKEN[kind]
    attack(folder)
    before = set(tmp_path.iterdir())
    with pytest.raises(DicomError, match=expected):
        deidentify(folder, tmp_path / "clean")
    assert set(tmp_path.iterdir()) == before


def test_a_folder_that_is_in_use_is_refused(folder, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    for out in (tmp_path / "full", folder / "in it", folder, tmp_path):
        with pytest.raises(DicomError):
            deidentify(folder, out)
