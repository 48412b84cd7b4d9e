"""Hostile files of voxels: archives that swell, headers that lie, and files that point at others."""

import gzip
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.hostile.dicom_kinds import ESCAPE, Kind
from tests.hostile.good_volumes import arrays


@dataclass(frozen=True)
class VolumeKind(Kind):
    """An attack on files of voxels.

    Parameters
    ----------
    source
        What is imported.
    """

    source: str = "case.npz"


def npz(**changed: np.ndarray) -> Callable[[Path], None]:
    """Return an attack that puts other arrays into the case."""
    return lambda folder: np.savez(folder / "case.npz", **{**arrays(), **changed})  # type: ignore[arg-type]


def member(name: str, content: bytes) -> Callable[[Path], None]:
    """Return an attack that replaces a member of the case by bytes."""

    def attack(folder: Path) -> None:
        np.savez(folder / "case.npz", **{k: v for k, v in arrays().items() if f"{k}.npy" != name})  # type: ignore[arg-type]
        with zipfile.ZipFile(folder / "case.npz", "a") as archive:
            archive.writestr(name, content)

    return attack


def header(shape: str, dtype: str = "<i2") -> bytes:
    """Return the header of a .npy file (numpy.lib.format, version 1)."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"
    text += " " * (-(len(text) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def bomb(folder: Path) -> None:
    """Write an archive of some MB whose CT swells to 6 GiB: one compressed block of zeros after another."""
    block = 1 << 24
    packer = zlib.compressobj(9, wbits=-15)
    zeros = packer.compress(bytes(block)) + packer.flush(zlib.Z_FULL_FLUSH)
    begin = zlib.compressobj(9, wbits=-15)
    head = header("(12, 16384, 16384)")
    data = begin.compress(head) + begin.flush(zlib.Z_FULL_FLUSH) + zeros * (6 << 6) + b"\x03\x00"
    size = len(head) + (6 << 30)
    np.savez(folder / "case.npz", **{k: v for k, v in arrays().items() if k != "ct_hu"})  # type: ignore[arg-type]
    with zipfile.ZipFile(folder / "case.npz", "a") as archive:
        info = zipfile.ZipInfo("ct_hu.npy")
        info.compress_type, info.file_size, info.compress_size = zipfile.ZIP_DEFLATED, size, len(data)
        info.header_offset, info.CRC = archive.start_dir, 0
        assert archive.fp is not None
        archive.fp.seek(archive.start_dir)
        archive.fp.write(info.FileHeader(zip64=True) + data)
        archive.start_dir = archive.fp.tell()
        archive.filelist.append(info)
        archive.NameToInfo[info.filename] = info
        archive._didModify = True  # type: ignore[attr-defined]


def pickled(folder: Path) -> None:
    """Put an object into the case that would make a file if it were unpacked."""

    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str, ...]]:
            return os.mkdir, (str(folder / "owned"),)

    held: dict[str, np.ndarray] = {**arrays(), "meta_json": np.array([Trap()], dtype=object)}
    np.savez(folder / "case.npz", **held)  # type: ignore[arg-type]


def nrrd(*lines: str, name: str = "ct.nrrd", data: bytes = bytes(700)) -> Callable[[Path], None]:
    """Return an attack that writes a NRRD file with lines in its header that replace those of the same field."""
    good = {
        "type": "short", "dimension": "3", "space": "left-posterior-superior", "sizes": "8 7 6",
        "space directions": "(2,0,0) (0,2.5,0) (0,0,3)", "kinds": "domain domain domain", "endian": "little",
        "encoding": "raw", "space origin": "(-5,10,0.25)",
    }  # fmt: skip
    good |= dict(line.split(": ", 1) for line in lines)
    text = "NRRD0004\n" + "".join(f"{key}: {value}\n" for key, value in good.items()) + "\n"
    return lambda folder: (folder / name).write_bytes(text.encode() + data) and None


def mha(*lines: str, name: str = "ct.mha") -> Callable[[Path], None]:
    good = {
        "ObjectType": "Image", "NDims": "3", "BinaryData": "True", "BinaryDataByteOrderMSB": "False",
        "CompressedData": "False", "TransformMatrix": "1 0 0 0 1 0 0 0 1", "Offset": "-5 10 0.25",
        "ElementSpacing": "2 2.5 3", "DimSize": "8 7 6", "ElementType": "MET_SHORT", "ElementDataFile": "LOCAL",
    }  # fmt: skip
    good |= dict(line.split(" = ", 1) for line in lines)
    text = "".join(f"{key} = {value}\n" for key, value in good.items())
    return lambda folder: (folder / name).write_bytes(text.encode() + bytes(700)) and None


def nifti(at: int, value: bytes, length: int | None = None) -> Callable[[Path], None]:
    """Return an attack that changes bytes of the header of a NIfTI file (nifti1.h), or cuts it."""

    def attack(folder: Path) -> None:
        data = (folder / "ct.nii").read_bytes()
        (folder / "ct.nii").write_bytes((data[:at] + value + data[at + len(value) :])[:length])

    return attack


def pipe(folder: Path) -> None:
    (folder / "case.npz").unlink()
    os.mkfifo(folder / "case.npz")


def vast(name: str) -> Callable[[Path], None]:
    """Return an attack that makes a file 1 TB long by a hole at its end."""

    def attack(folder: Path) -> None:
        with (folder / name).open("r+b") as file:
            file.truncate(1 << 40)

    return attack


def label_table(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "PTV.toml").write_text(text) and None


def named(first: str) -> np.ndarray:
    return np.array([first, "PTV"])


def meta(text: str) -> np.ndarray:
    return np.array(text)


IN_NPZ = r"'case\.npz'"
NPZ = {
    "a zip bomb": VolumeKind(bomb, f"{IN_NPZ} says it holds .* 6.0 GiB"),
    "pickled objects": VolumeKind(pickled, f"{IN_NPZ}.*plain arrays"),
    "an array that claims 10^18 numbers": VolumeKind(
        member("ct_hu.npy", header("(1000000, 1000000, 1000000)") + bytes(100)), f"{IN_NPZ}.*has 100"
    ),
    "an array of negative size": VolumeKind(member("ct_hu.npy", header("(-1, 5, 6)") + bytes(100)), IN_NPZ),
    "an array without header": VolumeKind(member("ct_hu.npy", b"no array"), IN_NPZ),
    "a header that is code": VolumeKind(
        member("ct_hu.npy", header("__import__('os').mkdir('owned')")), IN_NPZ
    ),
    "a header 10000 deep": VolumeKind(member("ct_hu.npy", header("(" * 10_000 + ")" * 10_000)), IN_NPZ),
    "an archive cut short": VolumeKind(
        lambda f: (f / "case.npz").write_bytes((f / "case.npz").read_bytes()[:900]), IN_NPZ
    ),
    "an empty archive": VolumeKind(lambda f: (f / "case.npz").write_bytes(b""), IN_NPZ),
    "an archive of noise": VolumeKind(
        lambda f: (f / "case.npz").write_bytes(b"PK\3\4" + b"\xa5" * 900), IN_NPZ
    ),
    "a member with a path": VolumeKind(member("../../../owned.npy", b"x"), "case 'x'", read=True),
    "spacing that is no number": VolumeKind(npz(spacing_xyz_mm=np.array([2.0, np.nan, 3.0])), IN_NPZ),
    "spacing of 1e30": VolumeKind(npz(spacing_xyz_mm=np.array([2.0, 1e30, 3.0])), f"{IN_NPZ} has voxels of"),
    "an origin of 1e300": VolumeKind(npz(origin_xyz_mm=np.array([0.0, 1e300, 3.0])), f"{IN_NPZ} begins at"),
    "infinite Hounsfield units": VolumeKind(npz(ct_hu=np.full((6, 7, 8), np.inf)), f"{IN_NPZ}.*finite"),
    "Hounsfield units of 1e300": VolumeKind(
        npz(ct_hu=np.where(arrays()["ct_hu"] < 0, -1000.0, 1e300)), IN_NPZ
    ),
    "a count of voxels that lies": VolumeKind(npz(structure_nvox=np.array([10**18, -5])), IN_NPZ),
    "2000 structures": VolumeKind(
        npz(structure_names=np.array([f"S{n}" for n in range(2000)])), "2000 structures"
    ),
    "escapes in a name": VolumeKind(npz(structure_names=named(ESCAPE)), "control", read=True),
    "a name of 10 kB": VolumeKind(npz(structure_names=named("A" * 10_000)), "too long", read=True),
    "a name that is half a character": VolumeKind(
        npz(structure_names=named("\ud800x")), "control", read=True
    ),
    "escapes in a type": VolumeKind(npz(structure_types=named(ESCAPE)), f"{IN_NPZ}.*type"),
    "escapes in a position": VolumeKind(
        npz(meta_json=meta(json.dumps({"patient_position": ESCAPE}))), IN_NPZ
    ),
    "JSON 100000 deep": VolumeKind(npz(meta_json=meta("[" * 100_000)), f"{IN_NPZ}.*not JSON"),
    "a number of 5000 digits": VolumeKind(npz(meta_json=meta("9" * 5000)), f"{IN_NPZ}.*not JSON"),
    "a pipe": VolumeKind(pipe, f"{IN_NPZ} is no file"),
    "an archive of 1 TB": VolumeKind(vast("case.npz"), IN_NPZ),
}

IN_NRRD, IN_MHA, IN_NII = r"'ct\.nrrd'", r"'ct\.mha'", r"'ct\.nii'"
IMAGES = {
    "NRRD of 65535 by 65535 by 65535": VolumeKind(
        nrrd("sizes: 65535 65535 65535"), f"{IN_NRRD} says it holds", source="ct.nrrd"
    ),
    "NRRD of 1000 by 1000 by 1000 in 700 bytes": VolumeKind(nrrd("sizes: 1000 1000 1000"), IN_NRRD, source="ct.nrrd"),
    "NRRD of minus eight": VolumeKind(nrrd("sizes: -8 7 6"), IN_NRRD, source="ct.nrrd"),
    "NRRD of 16 dimensions": VolumeKind(nrrd("dimension: 16"), IN_NRRD, source="ct.nrrd"),
    "NRRD with NaN": VolumeKind(nrrd("space directions: (nan,0,0) (0,2,0) (0,0,3)"), IN_NRRD, source="ct.nrrd"),
    "NRRD with directions of zero": VolumeKind(
        nrrd("space directions: (0,0,0) (0,0,0) (0,0,0)"), IN_NRRD, source="ct.nrrd"
    ),
    "NRRD with voxels of 1e30 mm": VolumeKind(
        nrrd("space directions: (1e30,0,0) (0,2,0) (0,0,3)"), IN_NRRD, source="ct.nrrd"
    ),
    "NRRD that points at /etc/passwd": VolumeKind(
        nrrd("data file: /etc/passwd"), f"{IN_NRRD}.*beside it", source="ct.nrrd"
    ),
    "NHDR that points at /etc/passwd": VolumeKind(
        nrrd("data file: /etc/passwd", name="ct.nhdr"), r"'ct\.nhdr'.*beside it", source="ct.nhdr"
    ),
    "NHDR that points outside": VolumeKind(
        nrrd("data file: ../../secret.raw", name="ct.nhdr"), r"'ct\.nhdr'.*beside it", source="ct.nhdr"
    ),
    "NRRD whose header never ends": VolumeKind(
        nrrd("content: x\n#" + "x" * (1 << 20)), f"{IN_NRRD}.*does not end", source="ct.nrrd"
    ),
    "NRRD with escapes in its type": VolumeKind(nrrd(f"type: {ESCAPE}"), IN_NRRD, source="ct.nrrd"),
    "NRRD that says gzip and is not": VolumeKind(nrrd("encoding: gzip"), IN_NRRD, source="ct.nrrd"),
    "an empty NRRD": VolumeKind(lambda f: (f / "ct.nrrd").write_bytes(b""), IN_NRRD, source="ct.nrrd"),
    "NRRD of 1 TB": VolumeKind(vast("ct.nrrd"), f"{IN_NRRD} has 1048576 MiB", source="ct.nrrd"),
    "MHA that points at /etc/passwd": VolumeKind(
        mha("ElementDataFile = /etc/passwd"), f"{IN_MHA}.*beside it", source="ct.mha"
    ),
    "MHA of 65535 by 65535 by 65535": VolumeKind(mha("DimSize = 65535 65535 65535"), IN_MHA, source="ct.mha"),
    "NRRD with an origin of 70000 letters": VolumeKind(
        nrrd("space origin: (-5,10,0" + "x" * 70_000), f"{IN_NRRD} has a line", source="ct.nrrd"
    ),
    "MHA with a size of 70000 letters": VolumeKind(mha("DimSize = 8 7 " + "6" * 70_000), IN_MHA, source="ct.mha"),
    "MHA of 10^20 dimensions": VolumeKind(mha("NDims = 99999999999999999999"), IN_MHA, source="ct.mha"),
    "MHA with spacing that is no number": VolumeKind(mha("ElementSpacing = nan nan nan"), IN_MHA, source="ct.mha"),
    "NIfTI of 32767 by 32767 by 32767": VolumeKind(
        nifti(40, struct.pack("<4h", 3, 32767, 32767, 32767)), IN_NII, source="ct.nii"
    ),
    "NIfTI of minus one": VolumeKind(nifti(40, struct.pack("<4h", 3, -1, 7, 6)), IN_NII, source="ct.nii"),
    "NIfTI with voxels that are no numbers": VolumeKind(
        nifti(80, struct.pack("<3f", *[float("nan")] * 3)), IN_NII, source="ct.nii"
    ),
    "NIfTI that begins beyond its end": VolumeKind(nifti(108, struct.pack("<f", 1e9)), IN_NII, source="ct.nii"),
    "NIfTI of 200 bytes": VolumeKind(nifti(0, b"", 200), IN_NII, source="ct.nii"),
    "NIfTI cut in its voxels": VolumeKind(nifti(0, b"", 500), IN_NII, source="ct.nii"),
    "NIfTI, packed, cut in its voxels": VolumeKind(
        lambda f: (f / "ct.nii.gz").write_bytes(gzip.compress((f / "ct.nii").read_bytes()[:500])),
        r"'ct\.nii\.gz'", source="ct.nii.gz",
    ),
    "NIfTI, packing cut": VolumeKind(
        lambda f: (f / "ct.nii.gz").write_bytes((f / "ct.nii.gz").read_bytes()[:200]), r"'ct\.nii\.gz'",
        source="ct.nii.gz",
    ),
    "NIfTI that says it is packed": VolumeKind(
        lambda f: (f / "ct.nii.gz").write_bytes(b"\x1f\x8b" + bytes(400)), r"'ct\.nii\.gz'", source="ct.nii.gz"
    ),
    "MHA cut in its voxels": VolumeKind(mha("DimSize = 8 7 9"), IN_MHA, source="ct.mha"),
    "NIfTI with a slope (good)": VolumeKind(
        nifti(112, struct.pack("<2f", 1.0, 10.0)), "case 'x'", read=True, source="ct.nii"
    ),
    "NIfTI of an unknown kind": VolumeKind(nifti(70, struct.pack("<h", 31000)), IN_NII, source="ct.nii"),
    "NIfTI in another file": VolumeKind(nifti(344, b"ni1\0"), IN_NII, source="ct.nii"),
    "a table of names 10000 deep": VolumeKind(
        label_table("[labels]\n1=" + "[" * 10_000), r"'PTV\.toml'", source="ct.nrrd"
    ),
    "a label of 400 digits": VolumeKind(
        label_table(f'[labels]\n{"9" * 400} = "PTV"\n'), r"'PTV\.nrrd'", source="ct.nrrd"
    ),
    "a table with escapes": VolumeKind(
        label_table('[labels]\n1 = "\\u001b[2J"\n'), "case 'x'", read=True, source="ct.nrrd"
    ),
    "a table of 2 MiB": VolumeKind(label_table("#" * (2 << 20)), r"'PTV\.toml'", source="ct.nrrd"),
}  # fmt: skip

VOLUMES = {**NPZ, **IMAGES}
