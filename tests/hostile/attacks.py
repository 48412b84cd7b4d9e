"""Ways to break a small good DICOM folder."""

import math
import os
import shutil
import socket
import struct
import zlib
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.config import disable_value_validation
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    generate_uid,
)

from tests.hostile.good import (
    cut,
    each_slice,
    edit,
    header_at,
    put_raw,
    slices,
)


def set_in(name: str, keyword: str, value: object) -> Callable[[Path], None]:
    return lambda folder: edit(folder / name, lambda dataset: setattr(dataset, keyword, value))


def set_in_all(keyword: str, value: object) -> Callable[[Path], None]:
    return lambda folder: each_slice(folder, lambda dataset: setattr(dataset, keyword, value))


def rt(change: Callable[[Dataset], object]) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "rt.dcm", change)


def rename_roi(name: bytes) -> Callable[[Path], None]:
    return rt(
        lambda dataset: put_raw(dataset.StructureSetROISequence[1], "ROIName", name + b" " * (len(name) % 2))
    )


def move(folder: Path, shift_mm: float, names: list[str] | None = None) -> None:
    def shift(dataset: Dataset) -> None:
        x, y, z = (float(v) for v in dataset.ImagePositionPatient)
        dataset.ImagePositionPatient = [f"{x:.6g}", f"{y:.6g}", f"{z + shift_mm:.9g}"]

    for path in slices(folder):
        if names is None or path.name in names:
            edit(path, shift)


def double(folder: Path, change: Callable[[Dataset], object]) -> None:
    shutil.copy(folder / "3.dcm", folder / "3b.dcm")
    edit(folder / "3b.dcm", change)


def other_pixels(dataset: Dataset) -> None:
    dataset.PixelData = bytes(len(dataset.PixelData))


def second_series(folder: Path) -> None:
    uid = generate_uid()
    for path in slices(folder):
        copy = folder / f"other-{path.name}"
        shutil.copy(path, copy)
        edit(
            copy, lambda dataset: dataset.update({"SeriesInstanceUID": uid, "SOPInstanceUID": generate_uid()})
        )


def second_structure_set(folder: Path) -> None:
    shutil.copy(folder / "rt.dcm", folder / "rt2.dcm")
    edit(folder / "rt2.dcm", lambda dataset: setattr(dataset, "SOPInstanceUID", generate_uid()))


def in_syntax(uid: str, little: bool = True, implicit: bool = False) -> Callable[[Path], None]:
    """Return an attack that writes all slices in another transfer syntax."""

    def attack(folder: Path) -> None:
        for path in slices(folder):
            with disable_value_validation():
                dataset = dcmread(path)
                pixels = dataset.pixel_array
                for element in dataset:  # decoded, so that they are encoded anew
                    assert element is not None
                dataset.file_meta.TransferSyntaxUID = uid
                dataset.PixelData = pixels.astype("<i2" if little else ">i2").tobytes()
                dcmwrite(path, dataset, little_endian=little, implicit_vr=implicit, force_encoding=True)

    return attack


def called_syntax(uid: str) -> Callable[[Path], None]:
    """Return an attack on what the third slice says about its transfer syntax, and nothing else."""
    return lambda folder: _rewrite_syntax(folder / "3.dcm", uid)


def _rewrite_syntax(path: Path, uid: str) -> None:
    data = path.read_bytes()
    at = header_at(data, "TransferSyntaxUID")
    length = struct.unpack("<H", data[at + 6 : at + 8])[0]
    value = uid.encode() + b"\0" * (len(uid) % 2)
    changed = data[: at + 6] + struct.pack("<H", len(value)) + value + data[at + 8 + length :]
    group = header_at(changed, "FileMetaInformationGroupLength") + 8
    total = struct.unpack("<I", changed[group : group + 4])[0] + len(value) - length
    path.write_bytes(changed[:group] + struct.pack("<I", total) + changed[group + 4 :])


def deflated_bomb(folder: Path) -> None:
    """Make the third slice a deflated file of a few MB that swells to 3 GiB."""
    path = folder / "3.dcm"
    _rewrite_syntax(path, DeflatedExplicitVRLittleEndian)
    data = path.read_bytes()
    group = header_at(data, "FileMetaInformationGroupLength")
    start = group + 12 + struct.unpack("<I", data[group + 8 : group + 12])[0]
    packer = zlib.compressobj(9, wbits=-15)
    swollen, block = 3 << 30, bytes(1 << 24)
    body = packer.compress(data[start:] + struct.pack("<HH2sHI", 0x7FE1, 0x0010, b"OB", 0, swollen))
    with path.open("wb") as file:
        file.write(data[:start] + body)
        for _ in range(swollen // len(block)):
            file.write(packer.compress(block))
        file.write(packer.flush())


def rle_bomb(folder: Path) -> None:
    """Make the third slice claim 65535 by 65535 pixels in run lengths of one byte."""

    def change(dataset: Dataset) -> None:
        dataset.Rows = dataset.Columns = 65535
        segment = b"\x81\x00" * 1000
        frame = struct.pack("<16I", 2, 64, 64 + len(segment), *([0] * 13)) + segment * 2
        item = (
            struct.pack("<HHI", 0xFFFE, 0xE000, 0) + struct.pack("<HHI", 0xFFFE, 0xE000, len(frame)) + frame
        )
        dataset.PixelData = item + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = RLELossless

    edit(folder / "3.dcm", change)


def rle_garbage(folder: Path) -> None:
    def change(dataset: Dataset) -> None:
        frame = struct.pack("<16I", 15, *([0xFFFFFFF0] * 15)) + bytes(range(256))
        item = (
            struct.pack("<HHI", 0xFFFE, 0xE000, 0) + struct.pack("<HHI", 0xFFFE, 0xE000, len(frame)) + frame
        )
        dataset.PixelData = item + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = RLELossless

    edit(folder / "3.dcm", change)


def nested(levels: int) -> Callable[[Path], None]:
    """Return an attack that appends sequences in sequences to the structure set, all of undefined length."""

    def attack(folder: Path) -> None:
        start = struct.pack("<HH2sHI", 0x3006, 0x0080, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
            "<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF
        )
        end = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
        data = (folder / "rt.dcm").read_bytes()
        at = header_at(data, "RTROIObservationsSequence")
        (folder / "rt.dcm").write_bytes(data[:at] + start * levels + end * levels)

    return attack


def many_points(n: int) -> Callable[[Path], None]:
    def attack(folder: Path) -> None:
        values = "\\".join(f"{i % 40 - 20}\\{(i * 7919) % 30 - 15}\\22" for i in range(n)).encode()
        _implicit_contour(folder, values + b" " * (len(values) % 2))

    return attack


def round_contour(n: int) -> Callable[[Path], None]:
    def attack(folder: Path) -> None:
        turns = (2.0 * math.pi * i / n for i in range(n))
        values = "\\".join(f"{10 * math.cos(a):.6f}\\{8 * math.sin(a):.6f}\\22" for a in turns).encode()
        _implicit_contour(folder, values + b" " * (len(values) % 2))

    return attack


def _implicit_contour(folder: Path, value: bytes) -> None:
    """Set the coordinates of a contour in implicit encoding, which knows no 16-bit lengths."""
    path = folder / "rt.dcm"
    dataset = dcmread(path)
    put_raw(dataset.ROIContourSequence[1].ContourSequence[1], "ContourData", value)
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset.save_as(path, implicit_vr=True, little_endian=True)


def many_contours(n: int) -> Callable[[Path], None]:
    def change(dataset: Dataset) -> None:
        contours = dataset.ROIContourSequence[1].ContourSequence
        dataset.ROIContourSequence[1].ContourSequence = Sequence(
            [contours[i % len(contours)] for i in range(n)]
        )

    return rt(change)


def many_rois(n: int) -> Callable[[Path], None]:
    def change(dataset: Dataset) -> None:
        names, drawn = [], []
        for number in range(3, n + 3):
            roi, contours = Dataset(), Dataset()
            roi.ROINumber = contours.ReferencedROINumber = number
            roi.ROIName = f"R{number}"
            contours.ContourSequence = dataset.ROIContourSequence[1].ContourSequence
            names.append(roi)
            drawn.append(contours)
        dataset.StructureSetROISequence.extend(names)
        dataset.ROIContourSequence.extend(drawn)

    return rt(change)


def refer_to_itself(dataset: Dataset) -> None:
    for frame in dataset.ReferencedFrameOfReferenceSequence:
        for study in frame.RTReferencedStudySequence:
            for series in study.RTReferencedSeriesSequence:
                for image in series.ContourImageSequence:
                    image.ReferencedSOPInstanceUID = dataset.SOPInstanceUID
                    image.ReferencedSOPClassUID = dataset.SOPClassUID


def another_patient(dataset: Dataset) -> None:
    """Give a structure set another patient, and take out that it was drawn on this CT."""
    dataset.PatientID = "SOMEBODY-ELSE"
    del dataset.ReferencedFrameOfReferenceSequence
    for item in dataset.StructureSetROISequence:
        del item.ReferencedFrameOfReferenceUID


def private_junk(dataset: Dataset) -> None:
    block = dataset.private_block(0x0099, "JUNK", create=True)
    block.add_new(1, "UN", struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFF00) + b"\xff" * 30)
    block.add_new(2, "LO", "x" * 10)


def beside(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content)


def sparse(folder: Path, head: bytes) -> None:
    """Lay a file of 1 TB beside, which takes no room on the disk."""
    with (folder / "big.dcm").open("wb") as file:
        file.write(head)
        file.truncate(1 << 40)


def sparse_slice(folder: Path) -> None:
    """Make the third slice 100 GB long, by pixels that are a hole."""
    with (folder / "3.dcm").open("r+b") as file:
        file.truncate(100 << 30)


def loop(folder: Path) -> None:
    (folder / "a.dcm").symlink_to("b.dcm")
    (folder / "b.dcm").symlink_to("a.dcm")
    (folder / "up").symlink_to("..")
    (folder / "self").symlink_to(".")
    (folder / "gone.dcm").symlink_to("nothing")


def odd_files(folder: Path) -> None:
    os.mkfifo(folder / "pipe.dcm")
    (folder / "dir.dcm").mkdir()
    (folder / "zero.dcm").symlink_to("/dev/zero")
    with chdir(folder), socket.socket(socket.AF_UNIX) as listener:  # a socket's path has to be short
        listener.bind("socket.dcm")


def many_files(folder: Path) -> None:
    for number in range(5000):
        (folder / f"note-{number}.txt").write_bytes(b"x")


def deep_folders(folder: Path) -> None:
    with chdir(folder):
        for _ in range(300):
            Path("d" * 10).mkdir()
            os.chdir("d" * 10)


def another_extension(folder: Path, name: bytes) -> None:
    """Break the third slice and give it a name."""
    cut("3.dcm", 0.6)(folder)
    (folder / "3.dcm").rename(folder / os.fsdecode(name))


def only(*names: str) -> Callable[[Path], None]:
    def attack(folder: Path) -> None:
        for path in folder.iterdir():
            if path.name not in names:
                path.unlink()

    return attack


def odd_length(folder: Path) -> None:
    """Make the image position, with its header, one byte longer than the standard's even length."""
    data = (folder / "3.dcm").read_bytes()
    at = header_at(data, "ImagePositionPatient")
    length = struct.unpack("<H", data[at + 6 : at + 8])[0]
    changed = data[: at + 6] + struct.pack("<H", length + 1) + data[at + 8 : at + 8 + length] + b" "
    (folder / "3.dcm").write_bytes(changed + data[at + 8 + length :])


def explicit_called_implicit(folder: Path) -> None:
    _rewrite_syntax(folder / "3.dcm", ImplicitVRLittleEndian)


def rename_rois(first: str, second: str) -> Callable[[Path], None]:
    def change(dataset: Dataset) -> None:
        dataset.StructureSetROISequence[0].ROIName = first
        dataset.StructureSetROISequence[1].ROIName = second

    return rt(change)


def swap_z(dataset: Dataset) -> None:
    data = list(dataset.ROIContourSequence[1].ContourSequence[1].ContourData)
    data[2] = "99"
    dataset.ROIContourSequence[1].ContourSequence[1].ContourData = data
