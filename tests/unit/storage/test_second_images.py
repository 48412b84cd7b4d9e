"""MR, PET and further CTs on the grid of the CT: values against the function of the place that was written."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  # its usual name
from pydicom import Dataset, dcmread

from engine.errors import CaseError, DicomError
from engine.model.case import Case, SecondImage
from storage.cases import case_digest, write_case
from storage.cases import read_case as read_stored_case
from storage.dicom.read_case import Choice, read_case
from storage.store import Store
from tests.dicom_files import (
    CT_FRAME,
    OTHER_FRAME,
    rigid,
    turned,
    write_contours,
    write_registration,
    write_series,
)

SLOPE = np.array([2.0, -3.0, 5.0])
CT_FROM_MR = rigid(turned((1, 2, 3), 25.0), (12.0, -7.0, 30.0))
"""No turn about an axis, no symmetry: neither the inverse nor a transposed matrix can pass for it."""
BIG = {"first_mm": (-120.0, -120.0, -120.0), "shape_zyx": (49, 49, 49), "spacing_mm": (5.0, 5.0, 5.0)}


def in_ct_frame(places: np.ndarray) -> np.ndarray:
    """What the MR shows, as a function of the place in the CT's coordinates."""
    return 300.0 + places @ SLOPE


def in_mr_frame(places: np.ndarray) -> np.ndarray:
    """What the MR shows, as a function of the place in its own coordinates."""
    return in_ct_frame(places @ CT_FROM_MR[:3, :3].T + CT_FROM_MR[:3, 3])


def air(places: np.ndarray) -> np.ndarray:
    return np.full(places.shape[:-1], -1000.0)


def places_of(case: Case) -> np.ndarray:
    x, y, z = case.grid.centres_mm_xyz
    zz, yy, xx = np.meshgrid(z, y, x, indexing="ij")
    return np.stack([xx, yy, zz], axis=-1)


def assert_in_place(case: Case) -> None:
    (image,) = case.images
    assert np.isfinite(image.values).all()
    np.testing.assert_allclose(image.values, in_ct_frame(places_of(case)), atol=0.0505)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_series(tmp_path / "ct", air)
    return tmp_path


def write_mr(folder: Path, **more: Any) -> None:
    write_series(
        folder / "mr", in_mr_frame, **{"modality": "MR", "frame": OTHER_FRAME, "number": 5, **BIG, **more}
    )


def test_registration_places_points_of_the_item_in_the_registered_frame(folder: Path) -> None:
    """PS3.3 C.20.2.1: the matrix of an item turns its coordinates into those of the file's frame of reference."""
    write_mr(folder)
    write_registration(folder, [(CT_FRAME, [np.eye(4)]), (OTHER_FRAME, [CT_FROM_MR])], frame=CT_FRAME)
    case = read_case(folder)
    assert_in_place(case)
    assert (case.images[0].name, case.images[0].modality, case.images[0].unit) == ("MR 5", "MR", "")
    assert any("turn of 25.00°" in note for note in case.images[0].notes)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_each_coordinate_comes_back(folder: Path, axis: int) -> None:
    """The image shows ten times a coordinate of the CT, so that values tell the place to 0.005 mm."""
    write_series(
        folder / "mr",
        lambda places: 10.0 * (places @ CT_FROM_MR[:3, :3].T + CT_FROM_MR[:3, 3])[..., axis],
        **{"modality": "MR", "frame": OTHER_FRAME, **BIG},
    )
    write_registration(folder, [(OTHER_FRAME, [CT_FROM_MR])])
    case = read_case(folder)
    np.testing.assert_allclose(case.images[0].values, 10.0 * places_of(case)[..., axis], atol=0.0505)


def test_simpleitk_finds_the_same_values(folder: Path) -> None:
    """An oblique MR of waves, read, moved and interpolated by SimpleITK (GDCM reads the files for it)."""
    turn = turned((2, -1, 1), 15.0)
    cosines = [float(v) for v in turn.T[:2].reshape(-1)]

    def waves(places: np.ndarray) -> np.ndarray:
        return 1000.0 * np.cos(places / (9.0, 11.0, 13.0)).prod(axis=-1)

    first = turn @ np.array((-60.0, -60.0, -60.0))
    write_series(
        folder / "mr", waves, modality="MR", frame=OTHER_FRAME, cosines=cosines, first_mm=first,
        spacing_mm=(3.0, 3.5, 4.0), shape_zyx=(30, 32, 40),
    )  # fmt: skip
    write_registration(folder, [(OTHER_FRAME, [CT_FROM_MR])])
    case = read_case(folder)
    (image,) = case.images

    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder / "mr")))
    mr = sitk.Cast(reader.Execute(), sitk.sitkFloat32)
    nz, ny, nx = case.grid.shape_zyx
    ct = sitk.Image(nx, ny, nz, sitk.sitkFloat32)
    ct.SetOrigin(case.grid.origin_mm_xyz)
    ct.SetSpacing(case.grid.spacing_mm_xyz)
    back = np.linalg.inv(CT_FROM_MR)  # SimpleITK wants the way from where a value is put to where it is found
    transform = sitk.AffineTransform(back[:3, :3].reshape(-1).tolist(), back[:3, 3].tolist())
    expected = sitk.GetArrayFromImage(sitk.Resample(mr, ct, transform, sitk.sitkLinear, float("nan")))
    both = np.isfinite(expected) & np.isfinite(image.values)
    assert both.mean() > 0.6
    assert (np.isfinite(expected) == np.isfinite(image.values)).mean() > 0.999
    np.testing.assert_allclose(image.values[both], expected[both], atol=0.01)


def test_registration_the_other_way_round_is_inverted(folder: Path) -> None:
    write_mr(folder)
    write_registration(folder, [(CT_FRAME, [np.linalg.inv(CT_FROM_MR)])], frame=OTHER_FRAME)
    assert_in_place(read_case(folder))


def test_registration_over_a_third_frame_is_followed(folder: Path) -> None:
    """Some systems register both images to a frame of their own."""
    write_mr(folder)
    world_from_ct = rigid(turned((0, 1, 1), -40.0), (1.0, 2.0, 3.0))
    write_registration(
        folder, [(CT_FRAME, [world_from_ct]), (OTHER_FRAME, [world_from_ct @ CT_FROM_MR])], frame="1.2.9"
    )
    assert_in_place(read_case(folder))


def test_several_matrices_are_applied_first_to_last(folder: Path) -> None:
    write_mr(folder)
    first, second = (
        rigid(turned((0, 0, 1), 70.0), (5.0, 0.0, 0.0)),
        rigid(turned((1, 0, 0), 20.0), (0.0, 9.0, 0.0)),
    )
    last = CT_FROM_MR @ np.linalg.inv(second @ first)
    write_registration(folder, [(OTHER_FRAME, [first, second, last])])
    assert_in_place(read_case(folder))


@pytest.mark.parametrize("turn", [np.eye(3), turned((1, -2, 1), 50.0)], ids=["axial", "oblique"])
def test_same_frame_of_reference_needs_no_registration(folder: Path, turn: np.ndarray) -> None:
    cosines = [float(v) for v in turn.T[:2].reshape(-1)]
    first = turn @ np.array((-120.0, -120.0, -120.0))
    write_series(
        folder / "mr", in_ct_frame, **{**BIG, "first_mm": first}, modality="MR", cosines=cosines, number=7
    )
    assert_in_place(read_case(folder))


def test_image_without_connection_is_left_out_with_a_note(folder: Path) -> None:
    write_mr(folder)
    case = read_case(folder)
    assert case.images == ()
    assert any(
        "left out the second image 'MR 5'" in note and "cannot be placed" in note for note in case.notes
    )
    with pytest.raises(DicomError, match="add the Spatial Registration"):
        read_case(folder, Choice(second=("5",)))


def test_broken_second_image_is_left_out_without_names_of_files(folder: Path) -> None:
    paths = write_series(folder / "mr", in_ct_frame, modality="MR", number=5)
    paths[4].rename(folder / "mr" / "Mustermann.dcm")
    dataset = dcmread(folder / "mr" / "Mustermann.dcm")
    dataset.Rows = 8
    dataset.save_as(folder / "mr" / "Mustermann.dcm")
    case = read_case(folder)
    assert case.images == ()
    assert any("a file has Rows '8'" in note for note in case.notes)
    assert "Mustermann" not in " ".join(case.notes)


@pytest.mark.parametrize(
    ("matrix", "kind"),
    [
        (rigid(1.1 * np.eye(3), (0, 0, 0)), "RIGID"),
        (rigid(np.diag([1.0, 1.0, -1.0]), (0, 0, 0)), "RIGID"),
        (rigid(np.eye(3), (0, 0, 0)), "AFFINE"),
    ],
    ids=["scaled", "mirrored", "said to be affine"],
)
def test_registration_that_is_not_rigid_is_not_used(folder: Path, matrix: np.ndarray, kind: str) -> None:
    write_mr(folder)
    write_registration(folder, [(OTHER_FRAME, [matrix])], kind=kind)
    case = read_case(folder)
    assert case.images == ()
    assert any("not rigid" in note for note in case.notes)


def test_registrations_that_contradict_each_other_are_not_used(folder: Path) -> None:
    write_mr(folder)
    write_registration(folder, [(OTHER_FRAME, [CT_FROM_MR])])
    write_registration(folder, [(OTHER_FRAME, [CT_FROM_MR @ rigid(np.eye(3), (0, 0, 0.05))])])
    assert len(read_case(folder).images) == 1
    write_registration(folder, [(OTHER_FRAME, [CT_FROM_MR @ rigid(np.eye(3), (0, 0, 2.0))])])
    case = read_case(folder)
    assert case.images == ()
    assert any("place the same images differently" in note for note in case.notes)


def test_beyond_the_image_there_is_no_value(folder: Path) -> None:
    write_series(folder / "mr", in_ct_frame, modality="MR", shape_zyx=(5, 16, 32))
    (image,) = read_case(folder).images
    assert np.isfinite(image.values[:5]).all()
    assert np.isnan(image.values[5:]).all()
    assert any("covers 24 %" in note for note in image.notes)


def test_another_ct_is_read_only_when_asked_for(folder: Path) -> None:
    write_series(folder / "ct2", in_ct_frame, number=2)
    with pytest.raises(DicomError, match="2 CT series"):
        read_case(folder)
    assert read_case(folder, Choice(series="1")).images == ()
    case = read_case(folder, Choice(series="1", second=("series 2",)))
    assert_in_place(case)
    assert (case.images[0].name, case.images[0].unit) == ("CT 2", "HU")


def pet(dataset: Dataset, **changes: Any) -> Dataset:
    info = Dataset()
    info.RadionuclideTotalDose, info.RadionuclideHalfLife = 3.7e8, 6586.2
    info.RadiopharmaceuticalStartTime = "110000.00"
    dataset.RadiopharmaceuticalInformationSequence = [info]
    dataset.Units, dataset.CorrectedImage, dataset.DecayCorrection = "BQML", ["NORM", "ATTN", "DECY"], "START"
    dataset.PatientWeight = 75.0
    dataset.SeriesDate = dataset.AcquisitionDate = "20200101"
    dataset.SeriesTime, dataset.AcquisitionTime = "120000", "120500.5"
    for keyword, value in changes.items():
        setattr(info if keyword.startswith("Radio") else dataset, keyword, value)
    return dataset


ONE_HOUR = 1000.0 * 75.0 / (3.7e8 * 0.5 ** (3600.0 / 6586.2))
"""Worked out by hand: 75 kg, 370 MBq of fluorine-18, one hour from injection to scan."""
SUVS = [
    ({}, ONE_HOUR, ""),
    ({"DecayCorrection": "ADMIN"}, 1000.0 * 75.0 / 3.7e8, ""),
    ({"RadiopharmaceuticalStartDateTime": "20200101110000.000000"}, ONE_HOUR, ""),
    (
        {"SeriesTime": "003000", "AcquisitionTime": "003100", "RadiopharmaceuticalStartTime": "233000"},
        ONE_HOUR,
        "",
    ),
    ({"PatientWeight": None}, None, "says no weight"),
    ({"RadionuclideTotalDose": None}, None, "says no injected activity"),
    ({"CorrectedImage": ["NORM"]}, None, "not corrected for decay and attenuation"),
    ({"DecayCorrection": "NONE"}, None, "to what time it is corrected"),
    ({"SeriesTime": "130000"}, None, "made after the acquisition"),
    ({"RadiopharmaceuticalStartTime": ""}, None, "when it was taken"),
    ({"RadiopharmaceuticalStartDateTime": "20200102110000"}, None, "contradict each other"),
]


@pytest.mark.parametrize(("changes", "factor", "why"), SUVS)
def test_pet_becomes_standardised_uptake_where_the_tags_allow(
    folder: Path, changes: dict[str, Any], factor: float | None, why: str
) -> None:
    for path in write_series(folder / "pet", in_ct_frame, modality="PT", shape_zyx=(21, 16, 32)):
        pet(dcmread(path), **changes).save_as(path)
    case = read_case(folder)
    (image,) = case.images
    becquerel = in_ct_frame(places_of(case))
    if factor is None:
        assert image.unit == "Bq/ml"
        assert any(why in note for note in image.notes)
        np.testing.assert_allclose(image.values, becquerel, atol=0.0505)
    else:
        assert image.unit == "g/ml"
        np.testing.assert_allclose(image.values, factor * becquerel, atol=0.0505 * factor)
    assert "2020" not in " ".join([*case.notes, *image.notes])


def test_structures_of_a_registered_image_are_moved_to_the_ct(folder: Path) -> None:
    """A turn about z and a shift keep contours axial; they stay contours."""
    ct_from_mr = rigid(turned((0, 0, 1), 30.0), (5.0, 3.0, 2.5))
    square = np.array([[-10, -5, 0], [10, -5, 0], [10, 5, 0], [-10, 5, 0]], float)
    levels = [square + np.array([0, 0, z]) for z in (0.0, 2.5, 5.0)]
    write_contours(folder, {"drawn on MR": levels}, frame=OTHER_FRAME)
    with pytest.raises(DicomError, match=r"'drawn on MR'.*no rigid registration"):
        read_case(folder)
    write_registration(folder, [(OTHER_FRAME, [ct_from_mr])])
    case = read_case(folder)
    (structure,) = case.structures
    expected = levels[1] @ ct_from_mr[:3, :3].T + ct_from_mr[:3, 3]
    assert structure.contours[1].z_mm == pytest.approx(5.0)
    np.testing.assert_allclose(structure.contours[1].points_mm_xy, expected[:, :2], atol=1e-6)
    assert any("1 structure(s) were drawn on another image and moved" in note for note in case.notes)


def test_structures_that_a_registration_tilts_go_by_voxels(folder: Path) -> None:
    """An ellipsoid drawn in MR coordinates: volume and centre in the CT's are known."""
    ct_from_mr = rigid(turned((1, 2, 0), 20.0), (2.0, 1.0, -3.0))
    angle = np.linspace(0.0, 2.0 * np.pi, 90, endpoint=False)
    contours = []
    for z in np.arange(-14.5, 15.0, 1.0):
        share = np.sqrt(1.0 - (z / 15.0) ** 2)
        contours.append(
            np.stack(
                [12.0 * share * np.cos(angle), 9.0 * share * np.sin(angle), np.full_like(angle, z)], axis=1
            )
        )
    write_contours(folder, {"lesion": contours}, frame=OTHER_FRAME)
    write_registration(folder, [(OTHER_FRAME, [ct_from_mr])])
    case = read_case(folder)
    (structure,) = case.structures
    assert structure.contours == ()
    assert any("'lesion': its contours are not axial" in note for note in case.notes)
    coverage = structure.coverage.astype(np.float64)
    volume_mm3 = coverage.sum() * case.grid.voxel_volume_mm3
    assert volume_mm3 == pytest.approx(4.0 / 3.0 * np.pi * 12.0 * 9.0 * 15.0, rel=0.01)
    places = places_of(case)
    centre = (places * coverage[..., None]).sum(axis=(0, 1, 2)) / coverage.sum()
    np.testing.assert_allclose(centre, ct_from_mr[:3, 3], atol=0.1)
    # The second moments tell the direction of the axes.
    moment = np.einsum("zyxi,zyxj,zyx->ij", places - centre, places - centre, coverage) / coverage.sum()
    expected = ct_from_mr[:3, :3] @ np.diag(np.array([12.0, 9.0, 15.0]) ** 2 / 5.0) @ ct_from_mr[:3, :3].T
    np.testing.assert_allclose(moment, expected, atol=3.0)


def test_second_images_are_stored_and_read_when_asked_for(tmp_path: Path, folder: Path) -> None:
    write_series(folder / "mr", in_ct_frame, modality="MR", shape_zyx=(5, 16, 32))
    case = read_case(folder)
    store = Store(tmp_path / "store")
    digest = write_case(store, case, {})
    assert read_stored_case(store, digest).images == ()
    (image,) = read_stored_case(store, digest, images=True).images
    np.testing.assert_array_equal(image.values, case.images[0].values)
    assert (image.name, image.modality, image.unit, image.notes) == (
        "MR 1",
        "MR",
        "",
        case.images[0].notes,
    )
    assert digest != case_digest(read_stored_case(store, digest))


def test_images_of_a_case_fit_its_grid_and_have_names_of_their_own(folder: Path) -> None:
    case = read_case(folder)
    image = SecondImage("MR 1", "MR", "", case.ct_hu)
    for images in ((image, image), (SecondImage("MR 1", "MR", "", case.ct_hu[1:]),)):
        with pytest.raises(CaseError):
            Case("x", case.grid, case.ct_hu, (), images=images)
