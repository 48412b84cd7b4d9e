"""CT that does not lie along the patient's axes: values against the function of the place that was written."""

from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from engine.errors import DicomError
from engine.model.case import Case
from storage.dicom.read_case import read_case, read_folder
from tests.dicom_files import AXIAL, CT_FRAME, turned, write_contours, write_enhanced_ct, write_series

SLOPE_HU_PER_MM = np.array([3.0, -5.0, 7.0])


def linear(places: np.ndarray) -> np.ndarray:
    """Trilinear interpolation keeps this exactly, in any direction: what is off is misplaced."""
    return 100.0 + places @ SLOPE_HU_PER_MM


def places_of(case: Case) -> np.ndarray:
    x, y, z = case.grid.centres_mm_xyz
    zz, yy, xx = np.meshgrid(z, y, x, indexing="ij")
    return np.stack([xx, yy, zz], axis=-1)


def cosines_of(turn: np.ndarray) -> list[float]:
    return [float(v) for v in turn.T[:2].reshape(-1)]


def assert_linear(case: Case, least_inside: float, allowed_hu: float = 0.06) -> None:
    """Check every voxel that lies between voxel centres of the source; 0.05 HU is the rounding of the file."""
    inside = case.ct_hu > -1000.0
    assert inside.mean() > least_inside
    off_hu = np.abs(case.ct_hu - linear(places_of(case)))[inside]
    # The outermost half voxel holds the value of the outermost voxel.
    assert np.quantile(off_hu, 0.7) <= allowed_hu
    assert off_hu.max() <= 0.5 * np.abs(SLOPE_HU_PER_MM).sum() * 3.0 + allowed_hu


@pytest.mark.parametrize(
    ("axis", "angle_deg"),
    [((0, 0, 1), 12.0), ((1, 0, 0), 7.0), ((0, 1, 0), -20.0), ((1, 2, 3), 33.0), ((3, -1, 1), 120.0)],
)
def test_oblique_ct_keeps_values_at_their_places(
    tmp_path: Path, axis: tuple[int, int, int], angle_deg: float
) -> None:
    write_series(tmp_path, linear, cosines=cosines_of(turned(axis, angle_deg)))
    case = read_case(tmp_path)
    assert_linear(case, 0.2)
    (note,) = [note for note in case.notes if "interpolated" in note]
    nz, ny, nx = case.grid.shape_zyx
    assert f"{nx} × {ny} × {nz} voxels" in note


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_each_coordinate_of_an_oblique_ct_comes_back(tmp_path: Path, axis: int) -> None:
    """The image shows ten times a coordinate, so that values tell the place to 0.005 mm."""
    turn = turned((1, 2, 3), 33.0)
    write_series(tmp_path, lambda places: 10.0 * places[..., axis], cosines=cosines_of(turn))
    case = read_case(tmp_path)
    places = places_of(case)
    index = np.linalg.inv(turn) @ (places.reshape(-1, 3) - (-30.0, -20.0, -25.0)).T
    inside = ((index >= 0) & (index <= (np.array([31, 15, 20]) * (2.0, 3.0, 2.5))[:, None])).all(axis=0)
    assert inside.sum() > 5000
    off_hu = np.abs(case.ct_hu - 10.0 * places[..., axis]).reshape(-1)[inside]
    assert off_hu.max() <= 0.0505


def test_angles_and_spacing_are_noted(tmp_path: Path) -> None:
    write_series(tmp_path, linear, cosines=cosines_of(turned((1, 0, 0), 7.0)))
    case = read_case(tmp_path)
    assert case.grid.spacing_mm_xyz == pytest.approx((2.0, 3.0, 2.5))
    assert "columns, rows and planes 0.0°, 7.0° and 7.0° off" in " ".join(case.notes)


@pytest.mark.parametrize(
    "cosines",
    [(0, 1, 0, 0, 0, -1), (1, 0, 0, 0, 0, -1), (0, 1, 0, 1, 0, 0)],
    ids=["sagittal", "coronal", "swapped"],
)
def test_planes_along_other_axes_lose_nothing(tmp_path: Path, cosines: tuple[int, ...]) -> None:
    write_series(tmp_path, linear, cosines=cosines)
    case = read_case(tmp_path)
    assert case.grid.n_voxel == 21 * 16 * 32
    np.testing.assert_allclose(case.ct_hu, linear(places_of(case)), atol=0.0501)


def test_smooth_content_is_off_by_what_trilinear_interpolation_allows(tmp_path: Path) -> None:
    """The error of linear interpolation is at most h²/8 times the second derivative along each axis."""
    waves = 2.0 * np.pi / np.array([60.0, 70.0, 80.0])

    def smooth(places: np.ndarray) -> np.ndarray:
        return 500.0 * np.cos(places * waves).prod(axis=-1)

    turn = turned((1, 2, 3), 33.0)
    write_series(tmp_path, smooth, cosines=cosines_of(turn))
    case = read_case(tmp_path)
    # A point that lies between the centres of voxels of the source, away from the padding.
    index = np.linalg.inv(turn) @ (places_of(case).reshape(-1, 3) - (-30.0, -20.0, -25.0)).T
    inside = ((index >= 0) & (index <= (np.array([31, 15, 20]) * (2.0, 3.0, 2.5))[:, None])).all(axis=0)
    assert inside.sum() > 5000
    off_hu = np.abs(case.ct_hu.reshape(-1) - smooth(places_of(case)).reshape(-1))[inside]
    bound_hu = 500.0 / 8.0 * sum((waves.max() * h) ** 2 for h in (2.0, 3.0, 2.5)) + 0.05
    assert off_hu.max() <= bound_hu


@pytest.mark.parametrize("tag", [True, False], ids=["with tag", "without tag"])
def test_tilted_gantry_is_straightened(tmp_path: Path, tag: bool) -> None:
    cosines = cosines_of(turned((1, 0, 0), 15.0))
    more = {"GantryDetectorTilt": -15.0} if tag else {}
    write_series(tmp_path, linear, cosines=cosines, step_mm=(0.0, 0.0, 2.5), **more)
    case = read_case(tmp_path)
    assert_linear(case, 0.4)
    assert any("a gantry tilt of 15.0°; it was interpolated" in note for note in case.notes)


def test_tilt_that_contradicts_positions_is_refused(tmp_path: Path) -> None:
    cosines = cosines_of(turned((1, 0, 0), 15.0))
    write_series(tmp_path, linear, cosines=cosines, step_mm=(0.0, 0.0, 2.5), GantryDetectorTilt=12.0)
    with pytest.raises(DicomError, match=r"gantry tilt of 12.*show 15\.0"):
        read_case(tmp_path)


def test_stack_that_is_sheared_in_another_way_is_refused(tmp_path: Path) -> None:
    cosines = cosines_of(turned((0, 1, 0), 15.0))
    write_series(tmp_path, linear, cosines=cosines, step_mm=(0.0, 0.0, 2.5))
    with pytest.raises(DicomError, match="shifted sideways"):
        read_case(tmp_path)


def test_directions_that_are_not_at_a_right_angle_are_refused(tmp_path: Path) -> None:
    write_series(tmp_path, linear, cosines=(1, 0, 0, 0.1, 0.995, 0))
    with pytest.raises(DicomError, match="right angle"):
        read_case(tmp_path)


def test_oblique_ct_without_patient_position_is_refused_if_sides_are_in_doubt(tmp_path: Path) -> None:
    write_series(tmp_path, linear, cosines=(0, 1, 0, 0, 0, -1), PatientPosition=None)
    with pytest.raises(DicomError, match="left and right cannot be told"):
        read_case(tmp_path)


def test_multi_frame_ct_is_read_with_the_rescale_of_each_frame(tmp_path: Path) -> None:
    order = [3, 0, 8, 1, 2, 7, 4, 6, 5]
    write_enhanced_ct(tmp_path, linear, order=order)
    case = read_case(tmp_path)
    assert case.grid.shape_zyx == (9, 16, 32)
    assert case.grid.origin_mm_xyz == (-30.0, -20.0, -25.0)
    assert case.grid.spacing_mm_xyz == pytest.approx((2.0, 3.0, 2.5))
    np.testing.assert_allclose(case.ct_hu, linear(places_of(case)), atol=0.101)


def test_multi_frame_ct_with_a_frame_missing_is_refused(tmp_path: Path) -> None:
    write_enhanced_ct(tmp_path, linear, order=[0, 1, 2, 3, 5, 6, 7, 8])
    path = tmp_path / "enhanced.dcm"
    dataset = dcmread(path)
    dataset.NumberOfFrames = 8
    dataset.save_as(path)
    with pytest.raises(DicomError, match=r"1 slice\(s\) are missing"):
        read_case(tmp_path)


def test_multi_frame_ct_that_does_not_say_where_it_lies_is_refused(tmp_path: Path) -> None:
    path = write_enhanced_ct(tmp_path, linear)
    dataset = dcmread(path)
    del dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
    dataset.save_as(path)
    with pytest.raises(DicomError, match="no usable ImageOrientationPatient"):
        read_case(tmp_path)


def test_axial_ct_is_not_interpolated(tmp_path: Path) -> None:
    write_series(tmp_path, linear, cosines=AXIAL)
    case = read_case(tmp_path)
    np.testing.assert_allclose(case.ct_hu, linear(places_of(case)), atol=0.0501)
    assert not any("interpolated" in note for note in case.notes)


def test_files_of_a_ct_that_are_not_slices_of_the_case_are_not_named_as_such(tmp_path: Path) -> None:
    write_series(tmp_path / "axial", linear)
    write_enhanced_ct(tmp_path / "enhanced", linear)
    sagittal = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)  # as many slices across as files
    write_series(
        tmp_path / "sagittal", linear, cosines=sagittal, shape_zyx=(16, 16, 16), spacing_mm=(2.0, 2.0, 2.0)
    )
    found = {name: read_folder(tmp_path / name) for name in ("axial", "enhanced", "sagittal")}
    assert found["sagittal"].case.grid.shape_zyx == (16, 16, 16)
    assert {name: len(there.reference.instance_uids) for name, there in found.items()} == {
        "axial": 21,
        "enhanced": 0,
        "sagittal": 0,
    }


def test_structures_of_another_phase_or_without_coordinates_are_told_of(tmp_path: Path) -> None:
    square = np.array([[-20, -10, -15], [10, -10, -15], [10, 10, -15], [-20, 10, -15]], float)
    (first, *_) = write_series(tmp_path / "same", linear)
    series_uid = str(dcmread(first).SeriesInstanceUID)
    notes: dict[str, str] = {}
    for name, uid in (("same", series_uid), ("other", "1.2.99"), ("unsaid", "")):
        if name != "same":
            write_series(tmp_path / name, linear, SeriesInstanceUID=series_uid)
        frame, study, series, image = Dataset(), Dataset(), Dataset(), Dataset()
        image.ReferencedSOPInstanceUID = str(dcmread(first).SOPInstanceUID)
        series.SeriesInstanceUID, series.ContourImageSequence = uid, [image]
        study.RTReferencedSeriesSequence, frame.RTReferencedStudySequence = [series], [study]
        write_contours(
            tmp_path / name,
            {"A": [square, square + np.array([0.0, 0.0, 2.5])]},
            frame=CT_FRAME if uid else "",
            ReferencedFrameOfReferenceSequence=[frame] if uid else [],
        )
        notes[name] = " ".join(read_case(tmp_path / name).notes)
    assert {name: "drawn on another series" in text for name, text in notes.items()} == {
        "same": False,
        "other": True,
        "unsaid": False,
    }
    assert [name for name, text in notes.items() if "name no frame of reference" in text] == ["unsaid"]
