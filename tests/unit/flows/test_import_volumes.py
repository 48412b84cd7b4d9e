"""Import of files of voxels: into the store once, found again, and with identifiers that fit what is exported."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from click.testing import CliRunner

from engine.errors import VolumeError
from engine.geometry.voxelise import voxelise
from engine.model.case import Case, Contour, Structure
from engine.model.grid import Grid
from engine.spec.names import NamesSpec, load_names
from flows.cli import main
from flows.import_volumes import import_volume
from flows.progress import Reporter
from flows.run import Run
from storage.cases import read_case, read_reference
from storage.dicom.write_ct import write_ct
from storage.dicom.write_structures import write_structures
from storage.store import Store


@pytest.fixture
def run(tmp_path):
    return Run(Store(tmp_path / "store"), Reporter(quiet=True))


def write(tmp_path, array, name):
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing((2.0, 2.0, 2.5))
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    SimpleITK.WriteImage(image, str(path))
    return path


def ct_array():
    ct = np.full((6, 8, 8), -1000, dtype=np.int16)
    ct[:, 1:7, 1:7] = 15
    return ct


@pytest.fixture
def ct(tmp_path):
    return write(tmp_path, ct_array(), "ct.nhdr")


@pytest.fixture
def masks(tmp_path):
    body = (ct_array() > -500).astype(np.uint8)
    cord = np.zeros_like(body)
    cord[:, 4, 4] = 1
    write(tmp_path, body, "masks/BODY.nrrd")
    write(tmp_path, cord, "masks/Spinal Cord.nrrd")
    return tmp_path / "masks"


def npz(tmp_path):
    body = ct_array() > -500
    path = tmp_path / "patient.npz"
    np.savez(
        path,
        ct_hu=ct_array(),
        spacing_xyz_mm=np.array([2.0, 2.0, 2.5]),
        origin_xyz_mm=np.zeros(3),
        structure_names=np.array(["outline"]),
        structure_types=np.array(["EXTERNAL"]),
        structure_nvox=np.array([body.sum()]),
        mask_bits=np.packbits(body)[None],
        meta_json=np.array(json.dumps({"patient_position": "HFP"})),
    )
    return path


def test_the_same_files_are_read_once(run, ct, masks, monkeypatch):
    first = import_volume(run, ct, [masks], "HFS")
    monkeypatch.setattr("flows.import_volumes.read_volume_case", None)
    assert import_volume(run, ct, [masks], "HFS") == first
    assert [s.name for s in read_case(run.store, first).structures] == ["BODY", "Spinal Cord"]


def test_whatever_changes_the_case_is_noticed(run, ct, masks, tmp_path):
    first = import_volume(run, ct, [masks], "HFS")
    assert import_volume(run, ct, [masks], "HFP") != first
    assert import_volume(run, ct, [masks / "BODY.nrrd"], "HFS") != first
    names = NamesSpec.model_validate({"structures": {"Spinal Cord": {"name": "SpinalCord"}}})
    assert import_volume(run, ct, [masks], "HFS", names=names) != first
    # The numbers of a .nhdr lie in another file.
    raw = ct.with_suffix(".raw")
    values = np.fromfile(raw, np.int16)
    values[200:210] = 100
    values.tofile(raw)
    assert import_volume(run, ct, [masks], "HFS") != first


def test_a_table_of_names_is_part_of_what_was_imported(run, ct, tmp_path):
    labels = (ct_array() > -500).astype(np.uint8)
    path = write(tmp_path, labels, "labels.nrrd")
    (tmp_path / "labels.toml").write_text('[labels]\n1 = "BODY"\n', encoding="utf-8")
    first = import_volume(run, ct, [path], "HFS")
    (tmp_path / "labels.toml").write_text('[labels]\n1 = "External"\n', encoding="utf-8")
    assert import_volume(run, ct, [path], "HFS") != first


def test_identifiers_are_those_of_the_series_that_would_be_written(run, tmp_path):
    path = npz(tmp_path)
    digest = import_volume(run, path)
    other = import_volume(run, path, name="another name")
    assert other == digest
    case = read_case(run.store, digest)
    assert case.patient_position == "HFP"
    assert write_ct(case, _folder(tmp_path)) == read_reference(run.store, digest)


def _folder(tmp_path):
    folder = tmp_path / "dicom"
    folder.mkdir()
    return folder


def test_an_npz_case_takes_no_structures_beside_it(run, masks, tmp_path):
    with pytest.raises(VolumeError, match="holds its own structures"):
        import_volume(run, npz(tmp_path), [masks])


def test_an_empty_folder_of_structures_is_refused(run, ct, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(VolumeError, match="holds no image"):
        import_volume(run, ct, [tmp_path / "empty"], "HFS")


def test_the_ct_is_not_taken_for_a_structure_of_its_own_folder(run, ct, tmp_path):
    write(tmp_path, (ct_array() > -500).astype(np.uint8), "BODY.nrrd")
    digest = import_volume(run, ct, [tmp_path], "HFS")
    assert [s.name for s in read_case(run.store, digest).structures] == ["BODY"]


def call(*arguments: object):
    return CliRunner().invoke(main, ["import", *map(str, arguments)])


def test_the_command_tells_proposals_writes_them_and_takes_them_back(ct, masks, tmp_path):
    names, store = tmp_path / "names.toml", tmp_path / "store"
    common = (ct, "--store", store, "--structures", masks, "--position", "FFS", "--name", "a")
    told = call(*common, "--write-names", names)
    assert told.exit_code == 0, told.output
    assert "patient position FFS" in told.output
    assert "TG-263: SpinalCord" in told.output
    assert '"Spinal Cord" = { name = "SpinalCord", kind = "ORGAN" }' in names.read_text(encoding="utf-8")
    renamed = call(*common, "--names", names)
    assert renamed.exit_code == 0, renamed.output
    assert "SpinalCord" in renamed.output
    assert "TG-263" not in renamed.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("CT",), "give --position"),
        (("CT", "--position", "HFS", "--series", "1.2"), "are for DICOM folders"),
        (("FOLDER", "--position", "HFS"), "for files of voxels"),
        (("FOLDER", "--structures", "FOLDER"), "for files of voxels"),
    ],
)
def test_options_that_mean_nothing_are_refused(arguments, message, ct, masks, tmp_path):
    places = {"CT": ct, "FOLDER": masks}
    told = call(*(places.get(a, a) for a in arguments), "--store", tmp_path / "store")
    assert told.exit_code == 2
    assert message in told.output


def test_a_patient_is_the_same_case_from_npz_and_from_image_files(run, reference_data, tmp_path):
    path = reference_data / "cases" / "OPENKBP_pt_201.npz"
    names = load_names(Path(__file__).parents[3] / "examples" / "names" / "openkbp.toml")
    digest = import_volume(run, path, names=names)
    with np.load(path) as held:
        ct, spacing, origin = held["ct_hu"], held["spacing_xyz_mm"], held["origin_xyz_mm"]
        masks = [np.unpackbits(bits, count=ct.size).reshape(ct.shape) for bits in held["mask_bits"]]
        organs = held["structure_names"].tolist()

    def put(array, name):
        image = SimpleITK.GetImageFromArray(array)
        image.SetSpacing(spacing.tolist())
        image.SetOrigin(origin.tolist())
        # As another program might store it: from left to right and from head to feet.
        image = SimpleITK.Flip(image, (True, False, True), False)
        SimpleITK.WriteImage(image, str(tmp_path / f"{name}.mha"), useCompression=False)
        return tmp_path / f"{name}.mha"

    files = [put(mask, organ) for organ, mask in zip(organs, masks, strict=True)]
    case = read_case(run.store, import_volume(run, put(ct, "ct"), files, "HFS", names=names))
    expected = read_case(run.store, digest)
    np.testing.assert_array_equal(case.ct_hu, expected.ct_hu)
    np.testing.assert_allclose(case.grid.origin_mm_xyz, expected.grid.origin_mm_xyz, atol=1e-9)
    assert [(s.name, s.kind) for s in case.structures] == [(s.name, s.kind) for s in expected.structures]
    for one, other in zip(case.structures, expected.structures, strict=True):
        np.testing.assert_array_equal(one.coverage, other.coverage)


def test_structures_from_dicom_are_renamed_the_same_way(tmp_path):
    # Three slices of a box with an outline are enough of a patient.
    square = np.array([[-9.0, -9.0], [9.0, -9.0], [9.0, 9.0], [-9.0, 9.0]])
    grid = Grid((-12.0, -12.0, 0.0), (3.0, 3.0, 3.0), (3, 9, 9))
    contours = tuple(Contour(z_mm, square) for z_mm in (0.0, 3.0, 6.0))
    outline = Structure("Outline", "OTHER", voxelise(contours, grid).coverage, contours)
    case = Case("box", grid, np.zeros(grid.shape_zyx, np.float32), (outline,))
    folder = _folder(tmp_path)
    write_structures(case, folder, write_ct(case, folder))
    names = tmp_path / "names.toml"
    store = ("--store", tmp_path / "store", "--name", "a")
    told = call(folder, *store, "--write-names", names)
    assert "TG-263: External" in told.output
    assert '"Outline" = { name = "External", kind = "EXTERNAL" }' in names.read_text(encoding="utf-8")
    renamed = call(folder, *store, "--names", names)
    assert renamed.exit_code == 0, renamed.output
    assert "EXTERNAL  External" in renamed.output
    assert "Outline" in call(folder, *store).output
