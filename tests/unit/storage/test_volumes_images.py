"""Cases from NRRD, NIfTI and MetaImage: the same patient, however the file turns, flips or names it."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from engine.errors import VolumeError
from storage.volumes.frames import data_file
from storage.volumes.images import read_volume_case

ENDINGS = (".nrrd", ".nhdr", ".nii", ".nii.gz", ".mha", ".mhd")
SPACING = (2.0, 2.5, 3.0)
ORIGIN = (-20.0, 5.0, 40.0)


def patient() -> tuple[np.ndarray, np.ndarray]:
    """Return CT and target of a lopsided patient, arrays [z, y, x]."""
    ct = np.full((6, 9, 12), -1000, dtype=np.int16)
    ct[:, 2:8, 2:10] = 30
    ct[1, 3, 4] = 1200
    ct[4, 6, 8] = -700
    target = np.zeros(ct.shape, dtype=np.uint8)
    target[2:4, 3:5, 6:9] = 1
    return ct, target


def image_of(array, *, direction=None, origin=ORIGIN, spacing=SPACING):
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    if direction is not None:
        image.SetDirection(np.asarray(direction, dtype=float).ravel().tolist())
    return image


def write(image, path: Path) -> Path:
    SimpleITK.WriteImage(image, str(path))
    return path


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_format_gives_the_patient_back(ending, tmp_path):
    ct, target = patient()
    files = [
        write(image_of(a), tmp_path / f"{n}{ending}")
        for n, a in (("ct", ct), ("PTV_5000", target), ("Body", ct))
    ]
    write(image_of((ct > -900).astype(np.uint8)), files[2])
    case = read_volume_case(files[0], files[1:], "HFS")
    assert case.name.startswith("ct-")
    np.testing.assert_array_equal(case.ct_hu, ct)
    np.testing.assert_allclose(case.grid.origin_mm_xyz, ORIGIN, atol=1e-5)
    np.testing.assert_allclose(case.grid.spacing_mm_xyz, SPACING, atol=1e-6)
    assert [(s.name, s.kind) for s in case.structures] == [("PTV_5000", "TARGET"), ("Body", "EXTERNAL")]
    np.testing.assert_array_equal(case.structure("PTV_5000").coverage, target)
    assert not any("averaged" in note for note in case.notes)


@pytest.mark.parametrize("ending", [".nrrd", ".nii.gz", ".mha"])
@pytest.mark.parametrize(
    "flips", [(True, False, False), (True, True, False), (False, False, True), (True, True, True)]
)
def test_flipped_axes_are_turned_back_exactly(ending, flips, tmp_path):
    ct, target = patient()
    stored = [SimpleITK.Flip(image_of(array), flips, False) for array in (ct, target)]
    files = [
        write(image, tmp_path / f"{name}{ending}") for name, image in zip(("ct", "T"), stored, strict=True)
    ]
    assert np.diag(
        np.reshape(SimpleITK.ReadImage(str(files[0])).GetDirection(), (3, 3))
    ).min() == pytest.approx(-1.0)
    case = read_volume_case(files[0], files[1:], "HFS")
    np.testing.assert_array_equal(case.ct_hu, ct)
    np.testing.assert_array_equal(case.structures[0].coverage, target)
    np.testing.assert_allclose(case.grid.origin_mm_xyz, ORIGIN, atol=1e-5)


@pytest.mark.parametrize("order", [(2, 0, 1), (0, 2, 1), (1, 0, 2)])
def test_swapped_axes_are_turned_back_exactly(order, tmp_path):
    ct, _ = patient()
    swapped = SimpleITK.PermuteAxes(image_of(ct), order)
    case = read_volume_case(write(swapped, tmp_path / "ct.nrrd"), (), "FFS")
    np.testing.assert_array_equal(case.ct_hu, ct)
    np.testing.assert_allclose(case.grid.spacing_mm_xyz, SPACING)
    assert case.patient_position == "FFS"


def turned(degrees: float) -> np.ndarray:
    a = np.radians(degrees)
    return np.array([[np.cos(a), -np.sin(a), 0.0], [np.sin(a), np.cos(a), 0.0], [0.0, 0.0, 1.0]])


def test_an_oblique_ct_is_interpolated_in_place_with_a_note(tmp_path):
    # A ball of water somewhere off the centre: its place and volume must survive the turn.
    shape, spacing = (24, 60, 60), (1.5, 1.5, 2.0)
    direction = turned(17.0)
    image = image_of(
        np.zeros(shape, np.float32), direction=direction, origin=(3.0, -8.0, 1.0), spacing=spacing
    )
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)[..., ::-1]
    point = (index * spacing) @ direction.T + np.array([3.0, -8.0, 1.0])
    centre, radius = np.array([38.0, 49.0, 22.0]), 15.0
    inside = ((point - centre) ** 2).sum(axis=-1) <= radius**2
    ct = write(
        SimpleITK.Cast(_like(image, np.where(inside, 0.0, -1000.0)), SimpleITK.sitkInt16),
        tmp_path / "ct.nrrd",
    )
    mask = write(_like(image, inside.astype(np.uint8)), tmp_path / "Ball.nrrd")
    case = read_volume_case(ct, [mask], "HFS")
    assert any("turned by 17.0°" in note for note in case.notes)
    assert "structure 'Ball': interpolated linearly from oblique axes" in case.notes
    ball = case.structures[0].coverage
    cells = ball.sum(dtype=float)
    found = [(ball.sum(axis=axes) * mm).sum() / cells for axes, mm in
             zip(((0, 1), (0, 2), (1, 2)), case.grid.centres_mm_xyz, strict=True)]  # fmt: skip
    np.testing.assert_allclose(found, centre, atol=0.1)
    volume_mm3 = inside.sum() * np.prod(spacing)
    assert cells * case.grid.voxel_volume_mm3 == pytest.approx(volume_mm3, rel=0.01)
    water_mm3 = ((case.ct_hu + 1000.0).clip(min=0) / 1000.0).sum() * case.grid.voxel_volume_mm3
    assert water_mm3 == pytest.approx(volume_mm3, rel=0.02)
    # What the turned image did not reach is air.
    assert case.ct_hu[:, 0, 0].max() <= -1000.0


def _like(image, array):
    made = SimpleITK.GetImageFromArray(array)
    made.CopyInformation(image)
    return made


def test_a_finer_mask_keeps_its_volume_and_what_lies_outside_is_told(tmp_path):
    ct, _ = patient()
    fine = np.zeros((30, 40, 40), np.uint8)
    fine[5:20, 10:25, 3:28] = 255
    files = [
        write(image_of(ct), tmp_path / "ct.mha"),
        write(image_of(fine, spacing=(0.7, 0.7, 0.6), origin=(-19.0, 6.0, 41.0)), tmp_path / "Liver.mha"),
        write(image_of(fine, spacing=(0.7, 0.7, 0.6), origin=(-30.0, 6.0, 41.0)), tmp_path / "Spleen.mha"),
    ]
    case = read_volume_case(files[0], files[1:], "HFS")
    volume_mm3 = (fine > 0).sum() * 0.7 * 0.7 * 0.6
    liver = case.structure("Liver").coverage.sum(dtype=float) * case.grid.voxel_volume_mm3
    assert liver == pytest.approx(volume_mm3, rel=1e-5)
    assert "structure 'Liver': averaged onto the voxels of the CT from another grid" in case.notes
    assert any(note.startswith("structure 'Spleen':") and "outside of the CT" in note for note in case.notes)


def test_a_label_map_is_named_by_the_table_beside_it(tmp_path):
    ct, target = patient()
    labels = target * 3
    labels[0, 4, 4] = 7
    files = [write(image_of(ct), tmp_path / "ct.nii.gz"), write(image_of(labels), tmp_path / "organs.nii.gz")]
    with pytest.raises(VolumeError, match=r"put 'organs.toml' with its names beside it"):
        read_volume_case(files[0], files[1:], "HFS")
    (tmp_path / "organs.toml").write_text(
        '[labels]\n3 = "CTV"\n7 = "Lens_L"\n9 = "Liver"\n', encoding="utf-8"
    )
    case = read_volume_case(files[0], files[1:], "HFS")
    assert [(s.name, s.kind) for s in case.structures] == [("CTV", "TARGET"), ("Lens_L", "ORGAN")]
    np.testing.assert_array_equal(case.structures[0].coverage, target)
    assert "structure 'Liver': left out, as it is empty" in case.notes
    (tmp_path / "organs.toml").write_text('[labels]\n3 = "CTV"\n', encoding="utf-8")
    with pytest.raises(VolumeError, match="label 7 has no name"):
        read_volume_case(files[0], files[1:], "HFS")


@pytest.mark.parametrize(
    "table", ["", "labels = 3", "[labels]\n", '[labels]\nx = "A"', "[labels]\n1 = 2", "[", "[other]"]
)
def test_a_bad_table_of_names_is_refused(table, tmp_path):
    ct, target = patient()
    files = [write(image_of(ct), tmp_path / "ct.mha"), write(image_of(target), tmp_path / "m.mha")]
    (tmp_path / "m.toml").write_text(table, encoding="utf-8")
    with pytest.raises(VolumeError, match=r"'m\.toml' is no table of names"):
        read_volume_case(files[0], files[1:], "HFS")


def test_overlapping_segments_of_slicer_are_read_from_their_layers(tmp_path):
    ct, target = patient()
    wide = np.zeros_like(target)
    wide[1:5, 2:7, 4:10] = 1
    layers = np.stack([target + 2 * (ct == 1200).astype(np.uint8), wide], axis=-1)
    image = SimpleITK.GetImageFromArray(layers, isVector=True)
    image.SetSpacing(SPACING)
    image.SetOrigin(ORIGIN)
    for key, value in {
        "Segment0_Name": "GTV", "Segment0_LabelValue": "1", "Segment0_Layer": "0",
        "Segment1_Name": "Bone", "Segment1_LabelValue": "2", "Segment1_Layer": "0",
        "Segment2_Name": "PTV", "Segment2_LabelValue": "1", "Segment2_Layer": "1",
    }.items():  # fmt: skip
        image.SetMetaData(key, value)
    files = [write(image_of(ct), tmp_path / "ct.nrrd"), write(image, tmp_path / "Segmentation.seg.nrrd")]
    case = read_volume_case(files[0], files[1:], "HFS")
    assert [s.name for s in case.structures] == ["GTV", "Bone", "PTV"]
    np.testing.assert_array_equal(case.structure("GTV").coverage, target)
    np.testing.assert_array_equal(case.structure("PTV").coverage, wide)
    assert case.structure("Bone").coverage.sum() == 1


def test_fractional_coverage_is_kept_and_other_numbers_are_refused(tmp_path):
    ct, target = patient()
    ct_file = write(image_of(ct), tmp_path / "ct.nrrd")
    half = write(image_of(target * np.float32(0.5)), tmp_path / "half.nrrd")
    assert read_volume_case(ct_file, [half], "HFS").structures[0].coverage.max() == 0.5
    for number, array in enumerate(
        (ct, target.astype(np.float32) * 0.3 - 0.1, np.full_like(target, 3) - target)
    ):
        other = write(image_of(array), tmp_path / f"other{number}.nrrd")
        with pytest.raises(VolumeError, match="a mask has 0 outside and one number inside"):
            read_volume_case(ct_file, [other], "HFS")


def test_the_position_must_be_given(tmp_path):
    ct, _ = patient()
    with pytest.raises(VolumeError, match="give --position, one of HFS, HFP, FFS, FFP"):
        read_volume_case(write(image_of(ct), tmp_path / "ct.nrrd"))


def test_numbers_that_are_no_hounsfield_units_are_refused(tmp_path):
    ct, _ = patient()
    with pytest.raises(VolumeError, match="offset"):
        read_volume_case(write(image_of(ct + 1024), tmp_path / "ct.nrrd"), (), "HFS")


def test_names_that_occur_twice_are_refused(tmp_path):
    ct, target = patient()
    (tmp_path / "more").mkdir()
    files = [write(image_of(target), folder / "PTV.mha") for folder in (tmp_path, tmp_path / "more")]
    with pytest.raises(VolumeError, match=r"\['PTV'\] occur more than once"):
        read_volume_case(write(image_of(ct), tmp_path / "ct.mha"), files, "HFS")


def test_external_comes_before_body_as_the_outline(tmp_path):
    ct, target = patient()
    files = [write(image_of(target), tmp_path / f"{name}.mha") for name in ("BODY", "External")]
    case = read_volume_case(write(image_of(ct), tmp_path / "ct.mha"), files, "HFS")
    assert {s.name: s.kind for s in case.structures} == {"BODY": "OTHER", "External": "EXTERNAL"}


def test_a_colour_image_and_four_dimensions_are_refused(tmp_path):
    colour = SimpleITK.GetImageFromArray(np.zeros((4, 4, 4, 3), np.uint8), isVector=True)
    with pytest.raises(VolumeError, match="3 numbers a voxel"):
        read_volume_case(write(colour, tmp_path / "ct.mha"), (), "HFS")
    with pytest.raises(VolumeError, match="dimensions"):
        read_volume_case(
            write(SimpleITK.Image([4, 4, 4, 2], SimpleITK.sitkInt16), tmp_path / "ct.nii"), (), "HFS"
        )


def test_files_without_axes_are_refused(tmp_path):
    ct, _ = patient()
    nrrd = write(image_of(ct), tmp_path / "ct.nrrd")
    header, data = nrrd.read_bytes().split(b"\n\n", 1)
    kept = [line for line in header.split(b"\n") if not line.startswith(b"space")]
    nrrd.write_bytes(b"\n".join([*kept, b"spacings: 2 2.5 3"]) + b"\n\n" + data)
    nifti = write(image_of(ct), tmp_path / "ct.nii")
    content = bytearray(nifti.read_bytes())
    content[252:256] = bytes(4)  # qform_code and sform_code, 16 bits each
    nifti.write_bytes(content)
    for path in (nrrd, nifti):
        with pytest.raises(VolumeError, match="does not say how its axes lie"):
            read_volume_case(path, (), "HFS")


@pytest.mark.parametrize("space", [b"scanner-xyz", b"3D-right-handed", b"3D-left-handed"])
def test_a_nrrd_space_that_is_not_anatomical_is_refused(space, tmp_path):
    ct, _ = patient()
    nrrd = write(image_of(ct), tmp_path / "ct.nrrd")
    content = nrrd.read_bytes()
    nrrd.write_bytes(content.replace(b"left-posterior-superior", b"LPS", 1))
    assert read_volume_case(nrrd, (), "HFS").ct_hu.shape == ct.shape
    nrrd.write_bytes(content.replace(b"left-posterior-superior", space, 1))
    with pytest.raises(VolumeError, match="does not say how its axes lie"):
        read_volume_case(nrrd, (), "HFS")


def test_a_nifti_file_that_contradicts_itself_is_refused(tmp_path):
    ct, _ = patient()
    nifti = write(image_of(ct), tmp_path / "ct.nii")
    content = bytearray(nifti.read_bytes())
    content[268:272] = np.float32(-7.0).tobytes()  # qoffset_x
    nifti.write_bytes(content)
    with pytest.raises(VolumeError, match=r"qform and sform put the image up to 27\.0 mm apart"):
        read_volume_case(nifti, (), "HFS")


def test_oblique_nifti_files_do_not_contradict_themselves(tmp_path):
    ct, _ = patient()
    turn = turned(30.0) @ np.diag([1.0, -1.0, -1.0])
    case = read_volume_case(write(image_of(ct, direction=turn), tmp_path / "ct.nii.gz"), (), "HFS")
    assert any("turned by 30.0°" in note for note in case.notes)


@pytest.mark.parametrize("ending", [".nrrd", ".nii.gz", ".mha", ".mhd"])
def test_a_damaged_file_is_refused(ending, tmp_path):
    path = tmp_path / f"ct{ending}"
    path.write_bytes(b"NRRD0004\nnothing")
    with pytest.raises(VolumeError, match=r"cannot be read|no data file"):
        read_volume_case(path, (), "HFS")


def test_a_cut_off_file_is_refused(tmp_path):
    ct, _ = patient()
    path = write(image_of(ct), tmp_path / "ct.nrrd")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(VolumeError, match=r"'ct\.nrrd'"):
        read_volume_case(path, (), "HFS")


def test_other_files_are_refused_by_their_ending(tmp_path):
    with pytest.raises(VolumeError, match="DICOM is given as a folder"):
        read_volume_case(tmp_path / "ct.dcm", (), "HFS")


def test_the_file_of_numbers_is_found_by_its_header(tmp_path):
    ct, _ = patient()
    for ending in (".nhdr", ".mhd"):
        path = write(image_of(ct), tmp_path / f"ct{ending}")
        assert data_file(path).suffix == ".raw"
    assert data_file(write(image_of(ct), tmp_path / "ct.nrrd")) is None
    path.write_text("NDims = 3\n")
    with pytest.raises(VolumeError, match="names no data file"):
        data_file(path)
    path.write_text("ElementDataFile = LIST\n")
    with pytest.raises(VolumeError, match="single file"):
        data_file(path)
