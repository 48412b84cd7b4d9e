"""A small good DICOM folder that the attacks begin with, and the tools to break it."""

import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.config import disable_value_validation
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from engine.geometry.voxelise import voxelise
from engine.model.case import Case, Contour, Structure
from engine.model.grid import Grid
from storage.dicom.write_ct import write_ct
from storage.dicom.write_structures import write_structures

GRID = Grid((-33.0, -24.0, 10.0), (6.0, 5.0, 4.0), (6, 10, 12))


def _box(left: float, front: float, width: float, height: float) -> np.ndarray:
    return np.array(
        [[left, front], [left + width, front], [left + width, front + height], [left, front + height]]
    )


def good_case() -> Case:
    """Return a tiny patient: noise, a body and a target."""
    ct_hu = np.random.default_rng(1).integers(-1000, 1500, GRID.shape_zyx).astype(np.float32)
    z_mm = GRID.centres_mm_xyz[2]
    body = tuple(Contour(float(z), _box(-34.0, -22.0, 60.0, 38.0)) for z in z_mm)
    target = tuple(Contour(float(z), _box(-10.0, -8.0, 18.0, 12.0)) for z in z_mm[2:5])
    return Case(
        "small",
        GRID,
        ct_hu,
        (
            Structure("BODY", "EXTERNAL", voxelise(body, GRID).coverage, body),
            Structure("PTV", "TARGET", voxelise(target, GRID).coverage, target),
        ),
    )


def write_good(folder: Path) -> None:
    """Write a CT series of six slices, ``1.dcm`` to ``6.dcm`` from feet to head, and ``rt.dcm``."""
    folder.mkdir(parents=True, exist_ok=True)
    case = good_case()
    write_structures(case, folder, write_ct(case, folder))
    paths = sorted(folder.glob("CT.*"), key=lambda path: float(dcmread(path).ImagePositionPatient[2]))
    for number, path in enumerate(paths, start=1):
        path.rename(folder / f"{number}.dcm")
    next(folder.glob("RTSTRUCT.*")).rename(folder / "rt.dcm")


def slices(folder: Path) -> list[Path]:
    """Return the CT files from feet to head."""
    return [folder / f"{number}.dcm" for number in range(1, GRID.shape_zyx[0] + 1)]


def edit(path: Path, change: Callable[[Dataset], object]) -> None:
    """Change the content of a file; what is written is not checked."""
    with disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = dcmread(path)
        change(dataset)
        dataset.save_as(path)


def put_raw(dataset: Dataset, keyword: str, value: bytes, vr: str | None = None) -> None:
    """Set an attribute to bytes, whatever they are."""
    tag = Tag(tag_for_keyword(keyword))
    dataset[tag] = RawDataElement(tag, vr or dictionary_VR(tag), len(value), value, 0, False, True)


def each_slice(folder: Path, change: Callable[[Dataset], object]) -> None:
    """Change all CT files."""
    for path in slices(folder):
        edit(path, change)


def raw_in_slice(keyword: str, value: bytes, vr: str | None = None) -> Callable[[Path], None]:
    """Return an attack that sets an attribute of the third slice to bytes."""
    return lambda folder: edit(folder / "3.dcm", lambda dataset: put_raw(dataset, keyword, value, vr))


def raw_in_all(keyword: str, value: bytes, vr: str | None = None) -> Callable[[Path], None]:
    """Return an attack that sets an attribute of all slices to bytes."""
    return lambda folder: each_slice(folder, lambda dataset: put_raw(dataset, keyword, value, vr))


def without(name: str, keyword: str) -> Callable[[Path], None]:
    """Return an attack that takes an attribute away."""
    return lambda folder: edit(folder / name, lambda dataset: delattr(dataset, keyword))


def cut(name: str, length: int | float) -> Callable[[Path], None]:
    """Return an attack that cuts a file to a number of bytes, or to a fraction of its length."""

    def attack(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: length if isinstance(length, int) else int(length * len(data))])

    return attack


def header_at(data: bytes, keyword: str) -> int:
    """Return where the first explicit header of an attribute begins."""
    tag = Tag(tag_for_keyword(keyword))
    at = data.find(struct.pack("<HH", tag.group, tag.element) + dictionary_VR(tag)[:2].encode())
    if at < 0:  # pixel data are OB or OW
        at = data.find(struct.pack("<HH", tag.group, tag.element) + b"O")
    assert at >= 0, keyword
    return at


def claim_length(name: str, keyword: str, length: int) -> Callable[[Path], None]:
    """Return an attack that makes the header of an attribute claim another length."""

    def attack(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        at = header_at(bytes(data), keyword)
        if data[at + 4 : at + 6] in (b"OB", b"OW", b"SQ", b"UN", b"UT"):
            data[at + 8 : at + 12] = struct.pack("<I", length)
        else:
            data[at + 6 : at + 8] = struct.pack("<H", length)
        (folder / name).write_bytes(data)

    return attack


def patch(name: str, old: bytes, new: bytes) -> Callable[[Path], None]:
    """Return an attack that replaces the first occurrence of bytes in a file."""

    def attack(folder: Path) -> None:
        data = (folder / name).read_bytes()
        assert old in data
        (folder / name).write_bytes(data.replace(old, new, 1))

    return attack


def contour_data(value: bytes) -> Callable[[Path], None]:
    """Return an attack on the coordinates of the target's second contour."""
    return lambda folder: edit(
        folder / "rt.dcm",
        lambda dataset: put_raw(dataset.ROIContourSequence[1].ContourSequence[1], "ContourData", value),
    )
