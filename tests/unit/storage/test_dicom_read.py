"""Reading of CT series and structure sets: good ones, turned ones and broken ones."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import RLELossless, generate_uid

from engine.errors import DicomError
from engine.geometry.voxelise import voxelise
from engine.model.case import Case, Contour, Structure
from engine.model.grid import Grid
from storage.dicom.read_case import Choice, read_case, read_folder
from storage.dicom.scan import scan_folder
from storage.dicom.write_ct import write_ct
from storage.dicom.write_structures import write_structures
from tests.archives import unpack

GRID = Grid((-21.0, -30.0, 5.0), (2.0, 3.0, 2.5), (9, 16, 20))
"""No side is as long as another, none is centred: a swap or a wrong flip cannot hide."""


def rectangle(left: float, front: float, width: float, height: float) -> np.ndarray:
    return np.array(
        [[left, front], [left + width, front], [left + width, front + height], [left, front + height]]
    )


def marked_case() -> Case:
    ct_hu = np.random.default_rng(7).integers(-1000, 1500, GRID.shape_zyx).astype(np.float32)
    marker = tuple(Contour(float(z), rectangle(8.0, -31.5, 8.0, 4.0)) for z in (20.0, 22.5, 25.0))
    body = tuple(Contour(float(z), rectangle(-20.5, -29.0, 36.5, 40.0)) for z in GRID.centres_mm_xyz[2])
    ct_hu[voxelise(marker, GRID).coverage > 0.5] = 2500.0
    return Case(
        "marked",
        GRID,
        ct_hu,
        (
            Structure("Outline", "EXTERNAL", voxelise(body, GRID).coverage, body),
            Structure("Marker", "TARGET", voxelise(marker, GRID).coverage, marker),
        ),
    )


@pytest.fixture(scope="module")
def case() -> Case:
    return marked_case()


@pytest.fixture
def folder(case: Case, tmp_path: Path) -> Path:
    """Return a folder with a good series and its structure set."""
    reference = write_ct(case, tmp_path)
    write_structures(case, tmp_path, reference)
    return tmp_path


def slices(folder: Path) -> list[Path]:
    """Return the CT files from feet to head."""
    return sorted(folder.glob("CT.*"), key=lambda path: float(dcmread(path).ImagePositionPatient[2]))


def edit(path: Path, change: Callable[[Dataset], None]) -> None:
    dataset = dcmread(path)
    change(dataset)
    dataset.save_as(path)


def edit_structures(folder: Path, change: Callable[[Dataset], None]) -> None:
    edit(next(folder.glob("RTSTRUCT*")), change)


def set_to(keyword: str, value: object) -> Callable[[Dataset], None]:
    return lambda dataset: setattr(dataset, keyword, value)


def turn(dataset: Dataset, sign_x: int, sign_y: int) -> None:
    """Store a slice as a scanner does that looks at the patient from another side."""
    pixels = dataset.pixel_array
    x, y, z = (float(v) for v in dataset.ImagePositionPatient)
    dy, dx = (float(v) for v in dataset.PixelSpacing)
    if sign_x < 0:
        pixels, x = pixels[:, ::-1], x + (dataset.Columns - 1) * dx
    if sign_y < 0:
        pixels, y = pixels[::-1], y + (dataset.Rows - 1) * dy
    dataset.ImagePositionPatient = [x, y, z]
    dataset.ImageOrientationPatient = [sign_x, 0, 0, 0, sign_y, 0]
    dataset.PixelData = np.ascontiguousarray(pixels).tobytes()


VIEWS = [("HFS", 1, 1), ("HFP", -1, -1), ("FFS", -1, 1), ("FFP", 1, -1), ("FFS", 1, 1), ("HFP", 1, 1)]


@pytest.mark.parametrize(("position", "sign_x", "sign_y"), VIEWS)
def test_marker_in_the_left_anterior_superior_corner_comes_back_there(
    folder: Path, case: Case, position: str, sign_x: int, sign_y: int
) -> None:
    for path in slices(folder):
        edit(path, lambda dataset: turn(dataset, sign_x, sign_y))
        edit(path, set_to("PatientPosition", position))
    found = read_case(folder)
    assert found.patient_position == position
    assert found.grid == case.grid
    np.testing.assert_array_equal(found.ct_hu, case.ct_hu)
    marker = found.structure("Marker").coverage
    k, j, i = np.nonzero(marker > 0.5)
    # Left is +x (columns to 19), anterior -y (from row 0), superior +z (slices to 8).
    assert (i.min(), i.max()) == (15, 18)
    assert (j.min(), j.max()) == (0, 0)
    assert (k.min(), k.max()) == (6, 8)
    assert (found.ct_hu[k, j, i] == 2500.0).all()


def test_slices_are_ordered_by_position_not_by_number_or_name(folder: Path, case: Case) -> None:
    numbers = np.random.default_rng(3).permutation(100)
    for number, path in zip(numbers, slices(folder), strict=False):
        edit(path, set_to("InstanceNumber", int(number)))
        path.rename(folder / f"x{(number * 37) % 101}.img")
    np.testing.assert_array_equal(read_case(folder).ct_hu, case.ct_hu)


def test_files_in_folders_below_are_found(folder: Path, case: Case) -> None:
    (folder / "below").mkdir()
    for path in slices(folder)[::2]:
        path.rename(folder / "below" / path.name)
    assert read_case(folder).grid == case.grid


def test_rescale_of_every_slice_is_its_own(folder: Path, case: Case) -> None:
    def rescale(dataset: Dataset) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = 2, -1024

    edit(slices(folder)[4], rescale)
    found = read_case(folder).ct_hu
    np.testing.assert_array_equal(found[4], 2.0 * case.ct_hu[4] - 1024.0)
    np.testing.assert_array_equal(found[3], case.ct_hu[3])


def test_compressed_slices_are_read(folder: Path, case: Case) -> None:
    for path in slices(folder):
        edit(path, lambda dataset: dataset.compress(RLELossless, generate_instance_uid=False))
    np.testing.assert_array_equal(read_case(folder).ct_hu, case.ct_hu)


def test_padding_around_the_scanned_circle_is_raised_to_nothing_and_noted(folder: Path) -> None:
    def pad(dataset: Dataset) -> None:
        pixels = dataset.pixel_array.copy()
        pixels[0, :3] = -2000
        dataset.PixelData = pixels.tobytes()
        dataset.add_new("PixelPaddingValue", "SS", -2000)

    edit(slices(folder)[0], pad)
    found = read_case(folder)
    np.testing.assert_array_equal(found.ct_hu[0, 0, :3], -1024.0)
    assert any("3 voxels of padding" in note for note in found.notes)


def test_nothing_personal_is_kept(folder: Path) -> None:
    for path in folder.iterdir():
        edit(path, set_to("PatientName", "Mustermann^Erika"))
        edit(path, set_to("PatientID", "4711-0815"))
        path.rename(folder / f"Mustermann_{path.name}")
    (folder / "Mustermann.txt").write_text("not DICOM")
    found = read_case(folder)
    text = " ".join([found.name, found.frame_of_reference_uid, *found.notes])
    assert "Mustermann" not in text
    assert "4711" not in text


def test_files_that_are_not_dicom_are_ignored_with_a_note(folder: Path) -> None:
    (folder / "readme.txt").write_text("hello")
    (folder / "empty").write_bytes(b"")
    assert "ignored 2 file(s): not DICOM" in read_case(folder).notes


def test_scout_image_in_the_series_is_ignored(folder: Path, case: Case) -> None:
    scout = folder / "scout.dcm"
    shutil.copy(slices(folder)[0], scout)
    edit(scout, set_to("ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"]))
    found = read_case(folder)
    assert found.grid == case.grid
    assert "ignored 1 file(s): scout image" in found.notes


def test_reference_names_the_slices_from_feet_to_head(folder: Path) -> None:
    reference = read_folder(folder).reference
    assert reference.instance_uids == tuple(str(dcmread(path).SOPInstanceUID) for path in slices(folder))


def test_folder_that_does_not_exist_or_holds_no_ct_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DicomError, match="not a folder"):
        read_case(tmp_path / "nowhere")
    with pytest.raises(DicomError, match="no CT images"):
        read_case(tmp_path)


def test_missing_slices_are_refused(folder: Path) -> None:
    first, *_, last = (slices(folder)[3], slices(folder)[6])
    for path in slices(folder)[4:6]:
        path.unlink()
    with pytest.raises(DicomError, match="2 slice") as error:
        read_case(folder)
    assert first.name in str(error.value)
    assert last.name in str(error.value)


def test_doubled_slice_is_refused(folder: Path) -> None:
    shutil.copy(slices(folder)[2], folder / "copy.dcm")
    edit(folder / "copy.dcm", set_to("SOPInstanceUID", "1.2.3.4"))
    with pytest.raises(DicomError, match=r"copy\.dcm.*doubled"):
        read_case(folder)


def test_uneven_spacing_is_refused(folder: Path) -> None:
    for path in slices(folder)[5:]:
        edit(
            path,
            lambda dataset: setattr(
                dataset,
                "ImagePositionPatient",
                [*dataset.ImagePositionPatient[:2], float(dataset.ImagePositionPatient[2]) + 0.4],
            ),
        )
    with pytest.raises(DicomError, match=r"uneven.*2\.900 mm instead of 2\.500"):
        read_case(folder)


def test_single_slice_is_refused(folder: Path) -> None:
    for path in slices(folder)[1:]:
        path.unlink()
    with pytest.raises(DicomError, match="only one slice"):
        read_case(folder)


def test_mixed_frames_of_reference_are_refused(folder: Path) -> None:
    path = slices(folder)[5]
    edit(path, set_to("FrameOfReferenceUID", "1.2.3.4"))
    with pytest.raises(DicomError, match="2 frames of reference"):
        read_case(folder)


def test_two_series_are_refused_until_one_is_chosen(folder: Path, case: Case) -> None:
    other = Case("other", GRID, np.full(GRID.shape_zyx, 17.0, np.float32), ())
    reference = write_ct(other, folder)
    with pytest.raises(DicomError, match="2 CT series") as error:
        read_case(folder)
    assert reference.series_uid in str(error.value)
    assert "RESEARCH USE ONLY CT" in str(error.value)
    structure_set = str(dcmread(next(folder.glob("RTSTRUCT*"))).SOPInstanceUID)
    chosen = str(dcmread(slices(folder)[0]).SeriesInstanceUID)
    wanted = next(
        uid
        for uid in {str(dcmread(p).SeriesInstanceUID) for p in slices(folder)}
        if uid != reference.series_uid
    )
    assert chosen in (wanted, reference.series_uid)
    found = read_case(folder, Choice(wanted, structure_set))
    np.testing.assert_array_equal(found.ct_hu, case.ct_hu)
    with pytest.raises(DicomError, match="no CT series"):
        read_case(folder, Choice("1.2.3"))


def tilted(dataset: Dataset) -> None:
    dataset.ImageOrientationPatient = [1, 0, 0, 0, round(np.cos(0.1), 9), round(-np.sin(0.1), 9)]


BROKEN: list[tuple[str, Callable[[Dataset], None], str]] = [
    ("tilted orientation", tilted, "turned against"),
    ("sagittal", set_to("ImageOrientationPatient", [0, 1, 0, 0, 0, -1]), "turned against"),
    ("tilt in the tag alone", set_to("GantryDetectorTilt", 12.5), "gantry tilt of 12.5"),
    ("position contradicts", set_to("PatientPosition", "HFP"), "PatientPosition"),
    ("other rows", set_to("Rows", 15), "Rows"),
    ("other pixel spacing", set_to("PixelSpacing", [3.0, 2.1]), "another PixelSpacing"),
    ("no position", set_to("ImagePositionPatient", None), "no usable ImagePositionPatient"),
    ("no slope", set_to("RescaleSlope", None), "no RescaleSlope"),
    ("no bits", lambda dataset: dataset.__delattr__("BitsAllocated"), "no complete pixel data"),
    ("electron density", set_to("RescaleType", "ED"), "'ED' values"),
    ("shifted sideways", set_to("ImagePositionPatient", [-20.5, -30, 17.5]), "shifted sideways by 0.50 mm"),
    ("turned", set_to("ImageOrientationPatient", [-1, 0, 0, 0, -1, 0]), "turned against"),
]


@pytest.mark.parametrize(("change", "message"), [b[1:] for b in BROKEN], ids=[b[0] for b in BROKEN])
def test_one_broken_slice_is_refused_by_name(
    folder: Path, change: Callable[[Dataset], None], message: str
) -> None:
    path = slices(folder)[5]
    edit(path, change)
    with pytest.raises(DicomError, match=message) as error:
        read_case(folder)
    assert path.name in str(error.value)


def test_sheared_stack_of_a_tilted_gantry_is_refused(folder: Path) -> None:
    for n, path in enumerate(slices(folder)):
        edit(
            path,
            lambda dataset, n=n: setattr(  # type: ignore[misc]
                dataset, "ImagePositionPatient", [-21.0, -30.0 + 0.3 * n, dataset.ImagePositionPatient[2]]
            ),
        )
    with pytest.raises(DicomError, match="shifted sideways"):
        read_case(folder)


def test_position_that_contradicts_the_orientation_is_refused(folder: Path) -> None:
    for path in slices(folder):
        edit(path, lambda dataset: turn(dataset, -1, -1))
    with pytest.raises(DicomError, match="left and right cannot be trusted"):
        read_case(folder)


def test_patient_on_the_side_is_refused(folder: Path) -> None:
    for path in slices(folder):
        edit(path, set_to("PatientPosition", "HFDL"))
    with pytest.raises(DicomError, match="not supported"):
        read_case(folder)


def test_truncated_pixels_are_refused(folder: Path) -> None:
    path = slices(folder)[5]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DicomError, match=r"truncated|damaged") as error:
        read_case(folder)
    assert path.name in str(error.value)


@pytest.mark.parametrize("kept_bytes", [140, 200, 400, 700, 900, 1100])
def test_file_cut_anywhere_is_refused(folder: Path, kept_bytes: int) -> None:
    path = slices(folder)[5]
    path.write_bytes(path.read_bytes()[:kept_bytes])
    with pytest.raises(DicomError):
        read_case(folder)


def test_values_with_too_many_digits_are_read(folder: Path, case: Case) -> None:
    for path in slices(folder):
        whole = path.read_bytes()
        at = whole.index(b"-21.0\\-30.0\\")
        assert whole[at - 8 : at - 2] == b"\x20\x00\x32\x00DS"
        length = int.from_bytes(whole[at - 2 : at], "little")
        long = b"-21.00000000000000000\\-30.0\\" + whole[at + 12 : at + length].strip()
        long += b" " * (len(long) % 2)
        path.write_bytes(whole[: at - 2] + len(long).to_bytes(2, "little") + long + whole[at + length :])
    assert read_case(folder).grid == case.grid


def test_value_that_is_no_number_is_refused_by_name(folder: Path) -> None:
    path = slices(folder)[5]
    path.write_bytes(path.read_bytes().replace(b"-21.0\\-30.0\\", b"-21.x\\-30.0\\"))
    with pytest.raises(DicomError, match="ImagePositionPatient") as error:
        read_case(folder)
    assert path.name in str(error.value)


@pytest.mark.parametrize("part", [0.2, 0.35, 0.5, 0.7, 0.9, 0.95])
def test_structure_set_cut_anywhere_is_refused(folder: Path, part: float) -> None:
    path = next(folder.glob("RTSTRUCT*"))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(DicomError, match=r"truncated|damaged|cannot be understood"):
        read_case(folder)


def test_structure_without_a_number_is_refused(folder: Path) -> None:
    edit_structures(folder, lambda d: d.StructureSetROISequence[1].__delattr__("ROINumber"))
    with pytest.raises(DicomError, match="cannot be understood"):
        read_case(folder)


def test_structures_come_back_with_kind_and_contours(folder: Path, case: Case) -> None:
    found = read_case(folder)
    assert [(s.name, s.kind) for s in found.structures] == [("Outline", "EXTERNAL"), ("Marker", "TARGET")]
    for structure in case.structures:
        # Coordinates are written with six decimals; coverage moves by 1e-6 mm of a 2 mm pixel at most.
        np.testing.assert_allclose(found.structure(structure.name).coverage, structure.coverage, atol=1e-6)
        assert len(found.structure(structure.name).contours) == len(structure.contours)


def test_case_without_structure_set_says_so(folder: Path) -> None:
    next(folder.glob("RTSTRUCT*")).unlink()
    found = read_case(folder)
    assert found.structures == ()
    assert "there is no structure set" in found.notes


@pytest.mark.parametrize(
    ("written", "kind"),
    [
        ("PTV", "TARGET"),
        ("CTV", "TARGET"),
        ("GTV", "TARGET"),
        ("ORGAN", "ORGAN"),
        ("AVOIDANCE", "ORGAN"),
        ("BOLUS", "OTHER"),
        ("", "OTHER"),
        ("EXTERNAL", "EXTERNAL"),
    ],
)
def test_interpreted_type_becomes_a_kind(folder: Path, written: str, kind: str) -> None:
    edit_structures(
        folder, lambda d: setattr(d.RTROIObservationsSequence[1], "RTROIInterpretedType", written)
    )
    assert read_case(folder).structure("Marker").kind == kind


def test_wrong_modality_of_a_structure_set_is_noted(folder: Path) -> None:
    edit_structures(folder, set_to("Modality", "RTDOSE"))
    found = read_case(folder)
    assert found.structure("Marker").coverage.any()
    assert any("'RTDOSE' instead of 'RTSTRUCT'" in note for note in found.notes)


def test_structure_set_of_another_frame_of_reference_is_refused(folder: Path) -> None:
    edit_structures(
        folder, lambda d: setattr(d.StructureSetROISequence[1], "ReferencedFrameOfReferenceUID", "1.2.3")
    )
    with pytest.raises(DicomError, match=r"'Marker'.*frame of reference 1\.2\.3"):
        read_case(folder)


def test_doubled_names_are_made_unique_with_a_note(folder: Path) -> None:
    edit_structures(folder, lambda d: setattr(d.StructureSetROISequence[1], "ROIName", "Outline"))
    found = read_case(folder)
    assert [structure.name for structure in found.structures] == ["Outline", "Outline (2)"]
    assert any("renamed 'Outline (2)'" in note for note in found.notes)


def test_empty_structure_is_left_out_with_a_note(folder: Path) -> None:
    edit_structures(folder, lambda d: d.ROIContourSequence[1].__delattr__("ContourSequence"))
    found = read_case(folder)
    assert [structure.name for structure in found.structures] == ["Outline"]
    assert any("'Marker': left out, as it is empty" in note for note in found.notes)


def test_points_are_skipped_with_a_note(folder: Path) -> None:
    def to_point(dataset: Dataset) -> None:
        item = dataset.ROIContourSequence[0].ContourSequence[0]
        item.ContourGeometricType, item.ContourData = "POINT", [1, 2, 3]

    edit_structures(folder, to_point)
    found = read_case(folder)
    assert len(found.structure("Outline").contours) == 8
    assert any("skipped 1 contour(s) POINT" in note for note in found.notes)


def test_contours_that_are_not_axial_leave_the_structure_out(folder: Path) -> None:
    edit_structures(
        folder,
        lambda d: setattr(
            d.ROIContourSequence[1].ContourSequence[0], "ContourData", [0, 0, 0, 0, 5, 5, 0, 5, 0]
        ),
    )
    found = read_case(folder)
    assert [structure.name for structure in found.structures] == ["Outline"]
    assert any("not axial" in note for note in found.notes)


def test_contour_with_half_a_point_is_refused(folder: Path) -> None:
    edit_structures(
        folder,
        lambda d: setattr(
            d.ROIContourSequence[1].ContourSequence[0], "ContourData", [0, 0, 0, 0, 5, 0, 5, 5]
        ),
    )
    with pytest.raises(DicomError, match=r"'Marker'.*cannot be read"):
        read_case(folder)


def test_second_structure_set_is_refused_until_one_is_chosen(folder: Path, case: Case) -> None:
    first = next(folder.glob("RTSTRUCT*"))
    second = folder / "second.dcm"
    shutil.copy(first, second)
    edit(second, set_to("SOPInstanceUID", generate_uid(entropy_srcs=["second"])))
    edit(second, lambda d: setattr(d.StructureSetROISequence[1], "ROIName", "Chosen"))
    with pytest.raises(DicomError, match="2 structure sets"):
        read_case(folder)
    uid = str(dcmread(second).SOPInstanceUID)
    assert read_case(folder, Choice(structure_set=uid)).structure("Chosen").coverage.any()
    with pytest.raises(DicomError, match="no structure set"):
        read_case(folder, Choice(structure_set="1.2.3"))


def test_structure_set_of_another_image_is_passed_over_when_one_fits(folder: Path) -> None:
    second = folder / "second.dcm"
    shutil.copy(next(folder.glob("RTSTRUCT*")), second)

    def move(dataset: Dataset) -> None:
        dataset.SOPInstanceUID = "1.2.3.4"
        for roi in dataset.StructureSetROISequence:
            roi.ReferencedFrameOfReferenceUID = "1.2.3"
            roi.ROIName = f"Other {roi.ROINumber}"

    edit(second, move)
    assert [structure.name for structure in read_case(folder).structures] == ["Outline", "Marker"]


def test_slice_lost_at_the_end_is_noticed_through_the_structure_set(folder: Path) -> None:
    slices(folder)[-1].unlink()
    assert any(
        "of 9 CT slices that the structure set names, 8 are" in note for note in read_case(folder).notes
    )


def test_scan_tells_structure_sets_from_slices(folder: Path) -> None:
    scanned = scan_folder(folder)
    assert len(scanned.ct) == 9
    assert len(scanned.structure_sets) == 1


def shoelace_mm2(contour: Contour) -> float:
    x, y = contour.points_mm_xy.T
    return 0.5 * abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))))


def lies_in_another(contour: Contour, contours: tuple[Contour, ...]) -> bool:
    """Return whether a contour is a hole, judged by bounding boxes (good enough for the one hole in the CTV)."""
    low, high = contour.points_mm_xy.min(axis=0), contour.points_mm_xy.max(axis=0)
    return any(
        other is not contour
        and other.z_mm == contour.z_mm
        and (other.points_mm_xy.min(axis=0) < low).all()
        and (other.points_mm_xy.max(axis=0) > high).all()
        for other in contours
    )


def test_head_phantom_of_a_clinic_is_read(reference_data: Path, tmp_path: Path) -> None:
    archive = reference_data / "dicom" / "dcpt_head_phantom" / "DCPT_headphantom.tar.xz"
    if not archive.is_file():
        pytest.skip("the outside data have no dicom/dcpt_head_phantom")
    unpack(archive, tmp_path)
    found = read_case(tmp_path)
    assert found.grid == Grid(
        (-149.70703125, -316.20703125, -139.0), (0.5859375, 0.5859375, 1.5), (177, 512, 512)
    )
    assert found.patient_position == "HFS"
    assert len(found.structures) == 11
    assert found.external.name == "BODY"
    assert found.structure("CTV").kind == "TARGET"
    for name in ("BODY", "CTV", "BrainStem"):
        contours = found.structure(name).contours
        expected_mm3 = sum(
            1.5 * (-1 if lies_in_another(c, contours) else 1) * shoelace_mm2(c) for c in contours
        )
        coverage = found.structure(name).coverage
        assert coverage.sum(dtype=np.float64) * found.grid.voxel_volume_mm3 == pytest.approx(
            expected_mm3, rel=1e-5
        )
    inside = found.ct_hu[found.structure("BrainStem").coverage > 0.99]
    assert -300.0 < np.median(inside) < 300.0


def test_set_with_a_wrong_modality_tag_is_read(reference_data: Path) -> None:
    folder = reference_data / "dicom" / "opentps_simple_phantom"
    if not folder.is_dir():
        pytest.skip("the outside data have no dicom/opentps_simple_phantom")
    found = read_case(folder)
    assert found.grid == Grid((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (200, 200, 200))
    assert any("'RTDOSE' instead of 'RTSTRUCT'" in note for note in found.notes)
    assert any("HFS" in note for note in found.notes)
    coverage = found.structure("TargetVolume").coverage
    # A ball of 2 cm radius around (100, 100, 100), drawn along pixel centres, so that it lacks about half a pixel all
    # round: a shell of 0.5 mm is 7 % of it.
    assert coverage.sum(dtype=np.float64) == pytest.approx(4.0 / 3.0 * np.pi * 20.0**3, rel=0.08)
    centre = [
        np.average(np.arange(200), weights=coverage.sum(axis=axes, dtype=np.float64))
        for axes in ((1, 2), (0, 2), (0, 1))
    ]
    np.testing.assert_allclose(centre, 100.0, atol=0.5)
