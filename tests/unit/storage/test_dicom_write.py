"""Written files: read again, compared, and looked at by another program where it is installed."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RTPlanStorage

from engine.errors import DicomError
from engine.model.case import Case, Contour, Structure
from engine.model.grid import Grid
from engine.phantoms import slabs, tg119_cshape
from storage.dicom.read_case import read_case
from storage.dicom.uids import CtReference, InstanceReference, content_uid
from storage.dicom.write_ct import ct_reference, write_ct
from storage.dicom.write_dose import write_dose
from storage.dicom.write_structures import write_structures

PLAN = InstanceReference(RTPlanStorage, content_uid("a plan"))
DOSE_GRID = Grid((-10.0, -12.5, 3.0), (2.5, 3.0, 4.0), (4, 6, 5))


@pytest.fixture(scope="module")
def phantom() -> Case:
    return tg119_cshape(voxel_mm=5.0, body_size_mm_xyz=(150.0, 100.0, 120.0))


@pytest.fixture(scope="module")
def written(phantom: Case, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CtReference]:
    folder = tmp_path_factory.mktemp("phantom")
    reference = write_ct(phantom, folder)
    write_structures(phantom, folder, reference)
    return folder, reference


def dose(seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.0, 70.0, DOSE_GRID.shape_zyx)


def test_phantom_comes_back_the_same(phantom: Case, written: tuple[Path, CtReference]) -> None:
    found = read_case(written[0])
    assert found.grid == phantom.grid
    np.testing.assert_array_equal(found.ct_hu, phantom.ct_hu)
    assert found.frame_of_reference_uid == written[1].frame_of_reference_uid
    assert [(s.name, s.kind) for s in found.structures] == [(s.name, s.kind) for s in phantom.structures]
    for structure in phantom.structures:
        again = found.structure(structure.name).coverage
        # Six decimals: a corner moves by 5e-7 mm at most, so a 5 mm voxel by 2e-7 per side; and float32 rounding.
        np.testing.assert_allclose(again, structure.coverage, atol=1e-6)
        assert again.sum(dtype=np.float64) == pytest.approx(
            structure.coverage.sum(dtype=np.float64), rel=1e-7
        )


def test_hounsfield_units_that_are_not_whole_come_back_to_half_a_step(tmp_path: Path) -> None:
    case = slabs([(21.3, 0.0), (30.2, 1234.5)], (60.0, 60.0), 4.0, (20.0, 20.0, 20.0))
    write_ct(case, tmp_path)
    step_hu = float(np.ptp(case.ct_hu)) / 65534
    # Half a step, and the rounding of the values to float32 (1e-4 HU).
    np.testing.assert_allclose(read_case(tmp_path).ct_hu, case.ct_hu, atol=0.5 * step_hu + 1e-4)


def test_case_that_was_read_is_written_again_with_its_frame_of_reference(
    written: tuple[Path, CtReference], tmp_path: Path
) -> None:
    found = read_case(written[0], name="again")
    assert write_ct(found, tmp_path).frame_of_reference_uid == written[1].frame_of_reference_uid


def test_same_case_gives_the_same_files(
    phantom: Case, written: tuple[Path, CtReference], tmp_path: Path
) -> None:
    write_structures(phantom, tmp_path, write_ct(phantom, tmp_path))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {
        p.name: p.read_bytes() for p in written[0].iterdir()
    }


def test_any_difference_gives_other_identifiers(phantom: Case) -> None:
    ct_hu = phantom.ct_hu.copy()
    ct_hu[3, 4, 5] += 1.0
    changed = Case(phantom.name, phantom.grid, ct_hu, phantom.structures)
    assert not set(ct_reference(changed).instance_uids) & set(ct_reference(phantom).instance_uids)


def test_references_between_the_files_fit(phantom: Case, written: tuple[Path, CtReference]) -> None:
    folder, reference = written
    plan_files = [dcmread(path) for path in folder.iterdir()]
    images = {str(d.SOPInstanceUID): d for d in plan_files if d.Modality == "CT"}
    structures = next(d for d in plan_files if d.Modality == "RTSTRUCT")
    assert set(images) == set(reference.instance_uids)
    assert {d.StudyInstanceUID for d in plan_files} == {reference.study_uid}
    assert {d.FrameOfReferenceUID for d in plan_files} == {reference.frame_of_reference_uid}
    series = (
        structures.ReferencedFrameOfReferenceSequence[0]
        .RTReferencedStudySequence[0]
        .RTReferencedSeriesSequence[0]
    )
    assert series.SeriesInstanceUID == reference.series_uid
    assert {item.ReferencedSOPInstanceUID for item in series.ContourImageSequence} == set(images)
    n_checked = 0
    for roi in structures.ROIContourSequence:
        for contour in roi.ContourSequence:
            for item in contour.get("ContourImageSequence", []):
                assert images[item.ReferencedSOPInstanceUID].ImagePositionPatient[2] == contour.ContourData[2]
                n_checked += 1
    assert n_checked == sum(len(structure.contours) for structure in phantom.structures)


def test_files_say_that_they_are_for_research_only_and_unapproved(written: tuple[Path, CtReference]) -> None:
    for path in written[0].iterdir():
        dataset = dcmread(path)
        assert "RESEARCH USE ONLY" in dataset.SeriesDescription
        assert dataset.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
        if dataset.Modality == "RTSTRUCT":
            assert dataset.ApprovalStatus == "UNAPPROVED"


def test_contour_too_long_for_an_explicit_file_is_written_and_read(phantom: Case, tmp_path: Path) -> None:
    angle = np.arange(5000) * 2.0 * np.pi / 5000
    circle = np.stack([30.0 * np.cos(angle), 30.0 * np.sin(angle)], axis=1)
    contours = (Contour(0.0, circle), Contour(2.0, circle))
    fine = Structure("Fine", "OTHER", phantom.structures[0].coverage, contours)
    case = Case("long", phantom.grid, phantom.ct_hu, (fine,))
    write_structures(case, tmp_path, write_ct(case, tmp_path))
    assert dcmread(next(tmp_path.glob("RTSTRUCT*"))).file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
    np.testing.assert_allclose(
        read_case(tmp_path).structure("Fine").contours[1].points_mm_xy, circle, atol=6e-7
    )


def test_structure_without_contours_and_foreign_reference_are_refused(
    phantom: Case, written: tuple[Path, CtReference], tmp_path: Path
) -> None:
    bare = Structure("Voxels", "OTHER", phantom.structures[0].coverage)
    with pytest.raises(DicomError, match="'Voxels' has no contours"):
        write_structures(Case("bare", phantom.grid, phantom.ct_hu, (bare,)), tmp_path, written[1])
    short = CtReference("1.2", "1.3", "1.4", written[1].instance_uids[:-1])
    with pytest.raises(DicomError, match="slices"):
        write_structures(phantom, tmp_path, short)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a\\b", "x" * 65])
def test_structure_name_that_dicom_cannot_hold_is_refused(
    phantom: Case, written: tuple[Path, CtReference], tmp_path: Path, name: str
) -> None:
    body = phantom.structures[0]
    case = Case("c", phantom.grid, phantom.ct_hu, (Structure(name, "OTHER", body.coverage, body.contours),))
    with pytest.raises(DicomError, match="structure name"):
        write_structures(case, tmp_path, written[1])


def test_case_name_with_separators_becomes_one_value(tmp_path: Path) -> None:
    case = Case("a\\b^c", DOSE_GRID, np.zeros(DOSE_GRID.shape_zyx, np.float32), ())
    write_ct(case, tmp_path)
    assert dcmread(next(tmp_path.iterdir())).PatientID == "a-b-c"


def test_dose_comes_back_within_its_scaling(written: tuple[Path, CtReference], tmp_path: Path) -> None:
    exact = dose()
    result = write_dose(
        tmp_path, DOSE_GRID, exact, case_name="c", ct=written[1], plan=PLAN, comment="5 fractions"
    )
    dataset = dcmread(next(tmp_path.glob("RTDOSE*")))
    assert dataset.SOPInstanceUID == result.sop_instance_uid
    found = dataset.pixel_array * float(dataset.DoseGridScaling)
    # Half a step of 2^16 - 1 for the maximum.
    np.testing.assert_allclose(found, exact, rtol=0.0, atol=0.51 * 70.0 / 2**16)
    assert [float(v) for v in dataset.ImagePositionPatient] == [-10.0, -12.5, 3.0]
    assert [float(v) for v in dataset.PixelSpacing] == [3.0, 2.5]
    assert [float(v) for v in dataset.GridFrameOffsetVector] == [0.0, 4.0, 8.0, 12.0]
    assert (dataset.NumberOfFrames, dataset.Rows, dataset.Columns) == DOSE_GRID.shape_zyx
    assert (dataset.DoseUnits, dataset.DoseType, dataset.DoseSummationType) == ("GY", "PHYSICAL", "PLAN")
    assert dataset.DoseComment == "RESEARCH USE ONLY. 5 fractions"
    assert dataset.ReferencedRTPlanSequence[0].ReferencedSOPInstanceUID == PLAN.sop_instance_uid
    assert dataset.StudyInstanceUID == written[1].study_uid
    assert dataset.FrameOfReferenceUID == written[1].frame_of_reference_uid


def test_dose_of_a_beam_names_the_beam(written: tuple[Path, CtReference], tmp_path: Path) -> None:
    write_dose(
        tmp_path, DOSE_GRID, dose(), case_name="c", ct=written[1], plan=PLAN, beam_number=3, comment="B"
    )
    dataset = dcmread(next(tmp_path.glob("RTDOSE*")))
    assert dataset.DoseSummationType == "BEAM"
    assert dataset.SeriesDescription == "RESEARCH USE ONLY. B"
    (group,) = dataset.ReferencedRTPlanSequence[0].ReferencedFractionGroupSequence
    assert [item.ReferencedBeamNumber for item in group.ReferencedBeamSequence] == [3]


def test_dose_of_zero_is_written(written: tuple[Path, CtReference], tmp_path: Path) -> None:
    write_dose(tmp_path, DOSE_GRID, 0.0 * dose(), case_name="c", ct=written[1], plan=PLAN)
    dataset = dcmread(next(tmp_path.glob("RTDOSE*")))
    assert float(dataset.DoseGridScaling) > 0.0
    assert not dataset.pixel_array.any()


@pytest.mark.parametrize("wrong", [-1.0, np.nan, np.inf])
def test_dose_that_cannot_be_is_refused(
    written: tuple[Path, CtReference], tmp_path: Path, wrong: float
) -> None:
    bad = dose()
    bad[1, 2, 3] = wrong
    with pytest.raises(DicomError, match="negative or not finite"):
        write_dose(tmp_path, DOSE_GRID, bad, case_name="c", ct=written[1], plan=PLAN)
    assert not list(tmp_path.iterdir())


def test_dose_that_does_not_fit_is_refused(written: tuple[Path, CtReference], tmp_path: Path) -> None:
    with pytest.raises(DicomError, match="does not fit"):
        write_dose(tmp_path, DOSE_GRID, dose()[:2], case_name="c", ct=written[1], plan=PLAN)
    with pytest.raises(DicomError, match="too long"):
        write_dose(tmp_path, DOSE_GRID, dose(), case_name="c", ct=written[1], plan=PLAN, comment="x" * 60)


def test_validator_finds_no_error(written: tuple[Path, CtReference], tmp_path: Path) -> None:
    validator = shutil.which("dciodvfy")
    if validator is None:
        pytest.skip("needs dciodvfy (Debian package dicom3tools)")
    write_dose(tmp_path, DOSE_GRID, dose(), case_name="c", ct=written[1], plan=PLAN)
    files = [next(written[0].glob("CT*")), next(written[0].glob("RTSTRUCT*")), next(tmp_path.glob("RTDOSE*"))]
    for file in files:
        result = subprocess.run([validator, str(file)], capture_output=True, text=True, check=False)
        found = result.stdout + result.stderr
        assert result.returncode == 0, found
        assert "Error" not in found, found
