"""RT Dose in: our own, those of others, every orientation along the axes, and what must be refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import RTPlanStorage

from engine.errors import DicomError
from engine.model.grid import Grid
from storage.dicom.read_attached import read_attached
from storage.dicom.read_dose import ReadDose, read_dose
from storage.dicom.scan import read_header, scan_folder
from storage.dicom.uids import CtReference, InstanceReference, content_uid
from storage.dicom.write_dose import write_dose

PLAN = InstanceReference(RTPlanStorage, content_uid("a plan"))
CT = CtReference(content_uid("s"), content_uid("c"), content_uid("f"), (content_uid("i"),))
GRID = Grid((-10.0, -12.5, 3.0), (2.5, 3.0, 4.0), (4, 6, 5))
DOSE_GY = np.random.default_rng(1).uniform(0.0, 70.0, GRID.shape_zyx)
STEP_GY = DOSE_GY.max() / 65535


def read(path: Path) -> ReadDose:
    header = read_header(path)
    assert header is not None
    return read_dose(header)


def changed(folder: Path, change: Callable[[Dataset], object]) -> Path:
    reference = write_dose(
        folder, GRID, DOSE_GY, case_name="c", ct=CT, plan=PLAN, beam_number=2, comment="Beam 2"
    )
    path = folder / f"RTDOSE.{reference.sop_instance_uid}.dcm"
    dataset = dcmread(path)
    change(dataset)
    dataset.save_as(path)
    return path


def test_own_dose_comes_back(tmp_path: Path) -> None:
    found = read(changed(tmp_path, lambda dataset: None))
    assert found.grid == GRID
    # Half a step, and the rounding of the values to float32.
    np.testing.assert_allclose(found.dose_gy, DOSE_GY, rtol=1e-6, atol=0.501 * STEP_GY)
    assert (found.summation, found.beam_number, found.plan_uid) == ("BEAM", 2, PLAN.sop_instance_uid)
    assert found.label == "RESEARCH USE ONLY. Beam 2"
    assert not found.is_effective
    assert not found.notes


def turn(dataset: Dataset, axes: tuple[int, int, int], signs: tuple[int, int, int]) -> None:
    """Write the same dose with frames, rows and columns along other axes of the patient (0 is x) and directions."""
    values = dataset.pixel_array.transpose([2 - axis for axis in axes])[
        tuple(slice(None, None, s) for s in signs)
    ]
    centres = GRID.centres_mm_xyz
    cosines = np.zeros((3, 3))
    for array_axis, (axis, sign) in enumerate(zip(axes, signs, strict=True)):
        cosines[array_axis, axis] = sign
    dataset.ImageOrientationPatient = [*cosines[2], *cosines[1]]
    sign_of = dict(zip(axes, signs, strict=True))
    dataset.ImagePositionPatient = [centres[axis][0 if sign_of[axis] > 0 else -1] for axis in range(3)]
    dataset.PixelSpacing = [GRID.spacing_mm_xyz[axes[1]], GRID.spacing_mm_xyz[axes[2]]]
    # Offsets count along the cross product of row and column direction, which may run against the frames.
    along = float(np.cross(cosines[2], cosines[1]) @ cosines[0])
    dataset.GridFrameOffsetVector = [along * n * GRID.spacing_mm_xyz[axes[0]] for n in range(values.shape[0])]
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = values.shape
    dataset.PixelData = np.ascontiguousarray(values).tobytes()


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, 1), (1, -1, -1), (-1, -1, 1), (1, 1, -1), (-1, -1, -1)])
@pytest.mark.parametrize("axes", [(2, 1, 0), (2, 0, 1), (1, 2, 0), (0, 2, 1)])
def test_every_orientation_along_the_axes_gives_the_same_dose(
    tmp_path: Path, axes: tuple[int, int, int], signs: tuple[int, int, int]
) -> None:
    found = read(changed(tmp_path, lambda dataset: turn(dataset, axes, signs)))
    np.testing.assert_allclose(found.grid.origin_mm_xyz, GRID.origin_mm_xyz, atol=1e-9)
    assert found.grid.spacing_mm_xyz == GRID.spacing_mm_xyz
    np.testing.assert_allclose(found.dose_gy, DOSE_GY, rtol=1e-6, atol=0.501 * STEP_GY)


def absolute_offsets(dataset: Dataset) -> None:
    dataset.GridFrameOffsetVector = [3.0, 7.0, 11.0, 15.0]


def wide_pixels(dataset: Dataset) -> None:
    dataset.PixelData = (dataset.pixel_array.astype("<u4") * 65536).tobytes()
    dataset.DoseGridScaling = f"{float(dataset.DoseGridScaling) / 65536:.9e}"
    dataset.BitsAllocated = dataset.BitsStored = 32
    dataset.HighBit = 31


@pytest.mark.parametrize("change", [absolute_offsets, wide_pixels])
def test_absolute_offsets_and_32_bits_are_read(tmp_path: Path, change: Callable[[Dataset], None]) -> None:
    found = read(changed(tmp_path, change))
    assert found.grid == GRID
    np.testing.assert_allclose(found.dose_gy, DOSE_GY, rtol=1e-6, atol=0.501 * STEP_GY)


def test_biologically_weighted_dose_is_noted(tmp_path: Path) -> None:
    found = read(changed(tmp_path, lambda dataset: setattr(dataset, "DoseType", "EFFECTIVE")))
    assert found.is_effective
    assert any("biological" in note for note in found.notes)


REFUSED = {
    "relative": (lambda d: setattr(d, "DoseUnits", "RELATIVE"), "no dose in Gy"),
    "error": (lambda d: setattr(d, "DoseType", "ERROR"), "neither physical nor effective"),
    "gap": (lambda d: setattr(d, "GridFrameOffsetVector", [0, 4, 12, 16]), "lost frames"),
    "offsets": (lambda d: setattr(d, "GridFrameOffsetVector", [0, 4, 8]), "3 frame offsets for 4 frames"),
    "start": (lambda d: setattr(d, "GridFrameOffsetVector", [5, 9, 13, 17]), "neither 0 nor the position"),
    "askew": (lambda d: setattr(d, "ImageOrientationPatient", [0.8, 0.6, 0, -0.6, 0.8, 0]), "askew"),
    "scaling": (lambda d: delattr(d, "DoseGridScaling"), "no Dose Grid Scaling"),
    "cut": (lambda d: setattr(d, "PixelData", d.PixelData[:-100]), "cut short"),
    "empty": (lambda d: delattr(d, "PixelData"), "no values"),
    "place": (lambda d: delattr(d, "ImagePositionPatient"), "cannot be understood"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_dose_that_would_be_wrong_is_refused(tmp_path: Path, kind: str) -> None:
    change, expected = REFUSED[kind]
    with pytest.raises(DicomError, match=rf"RTDOSE.*{expected}"):
        read(changed(tmp_path, change))


def relative_of_its_own(dataset: Dataset) -> None:
    dataset.DoseUnits, dataset.SOPInstanceUID = "RELATIVE", "1.2.3.4"


def test_dose_of_other_coordinates_and_damaged_ones_are_left_out_with_a_note(tmp_path: Path) -> None:
    changed(tmp_path / "good", lambda dataset: None)
    changed(tmp_path / "bad", relative_of_its_own)
    found = read_attached(scan_folder(tmp_path), CT.frame_of_reference_uid)
    assert len(found.doses) == 1
    assert any("no dose in Gy" in note for note in found.notes)
    elsewhere = read_attached(scan_folder(tmp_path / "good"), "1.2.3")
    assert not elsewhere.doses
    assert any("another frame of reference" in note for note in elsewhere.notes)


def test_files_of_another_patient_are_left_out_and_no_note_names_a_file(tmp_path: Path) -> None:
    path = changed(tmp_path, lambda dataset: setattr(dataset, "FrameOfReferenceUID", "")).rename(
        tmp_path / "Quixotham.dcm"
    )
    mine = scan_folder(tmp_path).doses[0]
    assert len(read_attached(scan_folder(tmp_path), CT.frame_of_reference_uid, mine).doses) == 1
    other = read_attached(scan_folder(tmp_path), CT.frame_of_reference_uid, replace(mine, patient="another"))
    assert not other.doses
    assert any("another patient ID" in note for note in other.notes)
    dataset = dcmread(path)
    dataset.DoseGridScaling = None
    dataset.save_as(path)
    bad = read_attached(scan_folder(tmp_path), CT.frame_of_reference_uid, mine)
    assert any("left out: the dose has no Dose Grid Scaling" in note for note in bad.notes)
    assert "Quixotham" not in str(bad.notes)


def test_two_doses_of_one_identifier_are_refused_unless_they_say_the_same(tmp_path: Path) -> None:
    path = changed(tmp_path, lambda dataset: None)
    copy = tmp_path / "copy.dcm"
    copy.write_bytes(path.read_bytes())
    assert len(read_attached(scan_folder(tmp_path), "").doses) == 1
    dataset = dcmread(copy)
    dataset.DoseGridScaling = "0.5"
    dataset.save_as(copy)
    with pytest.raises(DicomError, match="same SOP Instance UID"):
        read_attached(scan_folder(tmp_path), "")


def test_doses_of_raystation(reference_data: Path) -> None:
    found = read_attached(scan_folder(reference_data / "dicom/dcpt_raystation_ramp_full"), "")
    by_beam = {dose.beam_number: dose for dose in found.doses}
    assert set(by_beam) == {None, 1, 2}
    assert all(dose.is_effective for dose in found.doses)
    assert {dose.grid for dose in found.doses} == {
        Grid((-104.5, -105.5, -108.5), (2.0, 2.0, 2.0), (110, 107, 107))
    }
    # Beams add up to the plan; its maximum is 2.21 Gy, stored with 16 bits each.
    np.testing.assert_allclose(by_beam[1].dose_gy + by_beam[2].dose_gy, by_beam[None].dose_gy, atol=2e-4)
