"""Cases from npz archives: what is read, and every way to get the format wrong."""

import json

import numpy as np
import pytest

from engine.errors import VolumeError
from storage.volumes.hounsfield import require_hounsfield
from storage.volumes.npz import read_npz_case

SHAPE = (4, 5, 6)


def good() -> dict:
    ct = np.full(SHAPE, -1000, dtype=np.int16)
    ct[:, 1:4, 1:5] = 20
    body = np.zeros(SHAPE, dtype=bool)
    body[:, 1:4, 1:5] = True
    target = np.zeros(SHAPE, dtype=bool)
    target[2, 2, 2:4] = True
    masks = [body, target]
    spacing, origin = np.array([2.0, 2.5, 3.0]), np.array([-5.0, 10.0, 0.25])
    x, y, z = (origin[i] + spacing[i] * np.arange(SHAPE[2 - i]) for i in range(3))
    return {
        "ct_hu": ct,
        "x_mm": x,
        "y_mm": y,
        "z_mm": z,
        "spacing_xyz_mm": spacing,
        "origin_xyz_mm": origin,
        "structure_names": np.array(["Outline", "PTV 70"]),
        "structure_types": np.array(["EXTERNAL", "TARGET"]),
        "structure_is_external": np.array([True, False]),
        "structure_nvox": np.array([mask.sum() for mask in masks], dtype=np.int64),
        "mask_bits": np.stack([np.packbits(mask) for mask in masks]),
        "meta_json": np.array(json.dumps({"patient_position": "HFS"})),
    }


def write(tmp_path, **changed):
    held = {**good(), **changed}
    path = tmp_path / "case.npz"
    np.savez_compressed(path, **{key: value for key, value in held.items() if value is not None})
    return path


def test_a_good_file_is_read_voxel_by_voxel(tmp_path):
    case = read_npz_case(write(tmp_path))
    assert case.name.startswith("ct-")
    assert case.patient_position == "HFS"
    assert case.grid.origin_mm_xyz == (-5.0, 10.0, 0.25)
    assert case.grid.spacing_mm_xyz == (2.0, 2.5, 3.0)
    assert [(s.name, s.kind) for s in case.structures] == [("Outline", "EXTERNAL"), ("PTV 70", "TARGET")]
    np.testing.assert_array_equal(case.ct_hu, good()["ct_hu"])
    np.testing.assert_array_equal(np.argwhere(case.structure("PTV 70").coverage), [[2, 2, 2], [2, 2, 3]])


def test_centres_flags_and_meta_may_be_absent_if_the_position_is_given(tmp_path):
    path = write(tmp_path, x_mm=None, y_mm=None, z_mm=None, structure_is_external=None, meta_json=None)
    case = read_npz_case(path, "label", "FFP")
    assert (case.name, case.patient_position) == ("label", "FFP")
    assert "given with the import" in case.notes[0]


def test_an_empty_structure_is_left_out_with_a_note(tmp_path):
    bits = good()["mask_bits"]
    bits[1] = 0
    case = read_npz_case(write(tmp_path, mask_bits=bits, structure_nvox=np.array([48, 0])))
    assert [s.name for s in case.structures] == ["Outline"]
    assert case.notes == ("structure 'PTV 70': left out, as it is empty",)


def _ct(change):
    ct = good()["ct_hu"].astype(np.float32)
    return change(ct)


def _nan(ct):
    ct[0, 0, 0] = np.nan
    return ct


BROKEN = {
    "no CT": ({"ct_hu": None}, "has no ct_hu"),
    "no masks": ({"mask_bits": None, "structure_nvox": None}, "no structure_nvox and no mask_bits"),
    "flat CT": ({"ct_hu": good()["ct_hu"].ravel()}, "shape \\[nz, ny, nx\\]"),
    "complex CT": ({"ct_hu": good()["ct_hu"].astype(np.complex64)}, "complex64"),
    "empty CT": ({"ct_hu": np.zeros((0, 5, 6), np.int16)}, "shape \\(0, 5, 6\\)"),
    "NaN": ({"ct_hu": _ct(_nan)}, "not finite"),
    "offset CT": ({"ct_hu": good()["ct_hu"] + np.int16(1024)}, "subtract it"),
    "CT of 0..1": ({"ct_hu": _ct(lambda ct: (ct + 1000.0) / 1020.0)}, "scaled to 0..1"),
    "windowed CT": ({"ct_hu": np.clip(good()["ct_hu"], -160, 240)}, "windowed"),
    "CT without water": ({"ct_hu": np.where(good()["ct_hu"] > 0, -700, -1000).astype(np.int16)}, "of water"),
    "axes of CT swapped": ({"ct_hu": good()["ct_hu"].transpose(2, 1, 0)}, "that way"),
    "text spacing": ({"spacing_xyz_mm": np.array(["2", "2", "3"])}, "three numbers"),
    "two spacings": ({"spacing_xyz_mm": np.array([2.0, 3.0])}, "three numbers"),
    "negative spacing": ({"spacing_xyz_mm": np.array([2.0, 2.5, -3.0])}, "must be positive"),
    "infinite origin": ({"origin_xyz_mm": np.array([np.inf, 0.0, 0.0])}, "finite"),
    "irregular slices": ({"z_mm": np.array([0.25, 3.25, 6.25, 10.0])}, "z_mm is not origin"),
    "slices to the feet": ({"z_mm": good()["z_mm"][::-1]}, "flip the array"),
    "NaN in centres": ({"x_mm": np.full(6, np.nan)}, "x_mm is not origin"),
    "short centres": ({"y_mm": good()["y_mm"][:3]}, "y_mm has shape"),
    "double name": ({"structure_names": np.array(["A", "A"])}, "more than once"),
    "no name": ({"structure_names": np.array(["A", " "])}, "has no name"),
    "unknown type": ({"structure_types": np.array(["EXTERNAL", "AVOID"])}, "type 'AVOID'"),
    "two outlines": ({"structure_types": np.array(["EXTERNAL", "EXTERNAL"])}, "only one body outline"),
    "flags contradict": ({"structure_is_external": np.array([False, True])}, "make them agree"),
    "flags as numbers": ({"structure_is_external": np.array([1, 0])}, "truth values"),
    "wrong count": ({"structure_nvox": np.array([48, 3])}, "structure_nvox says 3"),
    "fractional count": ({"structure_nvox": np.array([48.0, 2.0])}, "structure_nvox is float64"),
    "too few bits": ({"mask_bits": good()["mask_bits"][:, :-1]}, "mask_bits is uint8 of shape"),
    "masks not packed": ({"mask_bits": np.zeros((2, *SHAPE), np.uint8)}, "mask_bits is uint8 of shape"),
    "bits as int64": ({"mask_bits": good()["mask_bits"].astype(np.uint64)}, "it must be uint8"),
    "fewer types": ({"structure_types": np.array(["EXTERNAL"])}, "structure_types is"),
    "meta no JSON": ({"meta_json": np.array("{")}, "not JSON"),
    "meta a list": ({"meta_json": np.array("[]")}, "no.* JSON object"),
    "no position": ({"meta_json": np.array("{}")}, "give --position"),
    "other position": ({"meta_json": np.array('{"patient_position": "SUPINE"}')}, "known are HFS"),
    "objects": ({"meta_json": np.array([{}], dtype=object)}, "plain arrays"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_breaks_the_format_is_named(what, tmp_path):
    changed, message = BROKEN[what]
    with pytest.raises(VolumeError, match=message) as raised:
        read_npz_case(write(tmp_path, **changed))
    assert "'case.npz'" in str(raised.value)


def test_a_position_that_contradicts_the_file_is_refused(tmp_path):
    with pytest.raises(VolumeError, match="states the patient position HFS, --position says HFP"):
        read_npz_case(write(tmp_path), position="HFP")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"no archive at all"])
def test_a_damaged_file_is_refused(content, tmp_path):
    path = tmp_path / "damaged.npz"
    path.write_bytes(content)
    with pytest.raises(VolumeError, match=r"'damaged\.npz'"):
        read_npz_case(path, position="HFS")


def test_a_single_array_is_refused(tmp_path):
    path = tmp_path / "array.npz"
    with path.open("wb") as stream:
        np.save(stream, np.zeros(3))
    with pytest.raises(VolumeError, match="no npz archive"):
        read_npz_case(path)


def patient(ceiling_hu: float) -> np.ndarray:
    """Return a CT with a smooth spectrum of densities up to 2500 HU, cut off at a ceiling."""
    rng = np.random.default_rng(3)
    hu = np.concatenate([np.full(20000, -1000.0), rng.normal(20, 60, 30000), rng.exponential(350, 14000)])
    return np.minimum(hu.round(), ceiling_hu).reshape(40, 40, 40).astype(np.float32)


def test_a_ct_clipped_below_bone_is_refused_and_one_clipped_at_its_twelve_bits_is_not():
    with pytest.raises(VolumeError, match="clipped at 400 HU"):
        require_hounsfield(patient(400.0), "ct")
    assert require_hounsfield(patient(2500.0), "ct")[1] == ()


def test_padding_is_raised_to_the_least_ct_number():
    values = patient(2500.0)
    values[0, 0, :7] = -3024.0
    hu, notes = require_hounsfield(values, "ct")
    assert hu.min() == -1024.0
    assert notes[0].startswith("7 voxels below -1024 HU")


@pytest.mark.parametrize("name", ["OPENKBP_pt_236", "OPENKBP_pt_201", "OPENKBP_pt_99", "TG119", "BOXPHANTOM"])
def test_the_reference_cases_are_read(name, reference_data):
    case = read_npz_case(reference_data / "cases" / f"{name}.npz")
    assert case.external.coverage.any()
    with np.load(reference_data / "cases" / f"{name}.npz") as held:
        counts = dict(zip(held["structure_names"].tolist(), held["structure_nvox"].tolist(), strict=True))
        np.testing.assert_array_equal(case.ct_hu, held["ct_hu"])
    assert {s.name: int(s.coverage.sum()) for s in case.structures} == counts
