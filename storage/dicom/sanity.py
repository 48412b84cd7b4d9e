"""What no image or structure of a patient has: mistakes and attacks, refused before anything is made of them."""

import hashlib
import re
import secrets
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, RTIonPlanStorage, RTPlanStorage

from engine.errors import DicomError, NightbeamError, shortened
from engine.model.arrays import F64

if TYPE_CHECKING:
    from storage.dicom.scan import Header

LARGEST_SIDE = 4096
LARGEST_N_VOXEL = 1 << 30
"""Of an image: four times that of 1000 slices of 512 × 512."""
LARGEST_FILE_BYTES = 4 << 30
"""Lengths in DICOM have 32 bits (PS3.5 section 7.1), so a file is hardly larger."""
LARGEST_INFLATED_BYTES = 256 << 20
SMALLEST_SPACING_MM, LARGEST_SPACING_MM = 1e-3, 100.0
LARGEST_COORDINATE_MM = 1e5
LARGEST_N_FRAME = 1 << 16
LARGEST_HU = 2e5
"""Stored numbers have 16 bits; some scanners multiply those of metal by ten."""
MOST_ITEMS = 200_000
"""Items of sequences in a plan; full arcs and scanned ions have some ten thousand."""
_ITEM = b"\xfe\xff\x00\xe0"
_UID = re.compile(r"[0-9.]{1,64}")
_UID_KEYWORDS = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
_MAY_BE_ABSENT = ("StudyInstanceUID", "FrameOfReferenceUID")
_NO_IDS = ("anonymous", "anonymized", "anonymised", "anon", "deidentified", "unknown", "none", "0")
"""What programs write for somebody whom they do not name."""
_SALT = secrets.token_bytes(16)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn what libraries raise on damaged values into an error that names the file.

    pydicom decodes values when they are first asked for, and raises errors of many kinds; no list of them is complete.

    Raises
    ------
    DicomError
        If anything but a deliberate error or one of the system comes up.
    """
    try:
        yield
    except (NightbeamError, OSError):
        raise
    except MemoryError as error:
        raise DicomError(
            f"'{path.name}' needs more memory than there is (damaged?): export it again"
        ) from error
    except Exception as error:
        raise DicomError(
            f"'{path.name}' cannot be understood ({type(error).__name__}: {shortened(str(error))}): export it again"
        ) from error


def require_sane(header: "Header", is_image: bool) -> None:
    """Refuse a file whose identifiers, encoding or size cannot be.

    Identifiers go into other files and messages, so they must be what the standard says: digits and points
    (PS3.5 section 9.1).

    Raises
    ------
    DicomError
        If they are not; the message names the file.
    """
    name = header.path.name
    for keyword in _UID_KEYWORDS:
        value = header.value(keyword)
        text = "" if value is None else str(value)
        if not text and (keyword in _MAY_BE_ABSENT or not is_image):
            continue
        if not _UID.fullmatch(text):
            raise DicomError(
                f"'{name}' has {keyword} '{shortened(text)}' (no identifier: digits and points, 64 at most): export it "
                "again"
            )
    syntax = str(header.dataset.file_meta.get("TransferSyntaxUID") or "")
    if not syntax or not UID(syntax).is_transfer_syntax or UID(syntax).is_private:
        raise DicomError(
            f"'{name}' has transfer syntax '{shortened(syntax)}' (unknown, so it cannot be read): "
            "export it as explicit little endian"
        )
    if not is_image:
        return
    for keyword, largest, absent in (
        ("Rows", LARGEST_SIDE, None),
        ("Columns", LARGEST_SIDE, None),
        ("NumberOfFrames", LARGEST_N_FRAME, 1),
    ):
        value = header.value(keyword)
        if value is None and absent is not None:
            continue
        try:
            number = int(value)
        except (TypeError, ValueError):
            number = 0
        if not 1 <= number <= largest:
            raise DicomError(
                f"'{name}' has {keyword} '{shortened(str(value))}' (it must be a number from 1 to {largest}): "
                "export it again"
            )


def require_size(shape_zyx: tuple[int, int, int], name: str) -> None:
    """Refuse an image that is too large to be one.

    Raises
    ------
    DicomError
        If it has more voxels than `LARGEST_N_VOXEL`.
    """
    n_voxel = int(np.prod([int(n) for n in shape_zyx], dtype=object))
    if n_voxel > LARGEST_N_VOXEL:
        raise DicomError(
            f"the series of '{name}' has {n_voxel} voxels (at most {LARGEST_N_VOXEL} are read): "
            "export fewer or coarser slices"
        )


def require_place(name: str, position_mm: F64, spacing_mm: F64) -> None:
    """Refuse a plane that lies nowhere near a scanner, or whose pixels have no reasonable size.

    Raises
    ------
    DicomError
        If so; the message names the file.
    """
    if not SMALLEST_SPACING_MM <= spacing_mm.min() <= spacing_mm.max() <= LARGEST_SPACING_MM:
        raise DicomError(
            f"'{name}' has PixelSpacing {spacing_mm.tolist()} (it must be from {SMALLEST_SPACING_MM} to "
            f"{LARGEST_SPACING_MM:.0f} mm): export it again"
        )
    if np.abs(position_mm).max() > LARGEST_COORDINATE_MM:
        raise DicomError(
            f"'{name}' has ImagePositionPatient {position_mm.tolist()} (more than {LARGEST_COORDINATE_MM / 1000:.0f} m "
            "away): export it again"
        )


def require_hu(name: str, values: F64) -> None:
    """Refuse values that cannot be Hounsfield units.

    Raises
    ------
    DicomError
        If one is beyond `LARGEST_HU`; the message names the file.
    """
    largest = float(np.abs(values).max(initial=0.0))
    if not largest <= LARGEST_HU:
        raise DicomError(
            f"'{name}' has values of {largest:.3g} HU (RescaleSlope or RescaleIntercept is wrong): export it again"
        )


def require_modest_deflation(path: Path) -> None:
    """Refuse a deflated file (PS3.5 annex A.5) that would fill the memory.

    Raises
    ------
    DicomError
        If it swells to more than `LARGEST_INFLATED_BYTES`.
    """
    with path.open("rb") as stream:
        begin = stream.read(4096)
        at = begin.find(DeflatedExplicitVRLittleEndian.encode())
        group = begin.find(b"\x02\x00\x00\x00UL\x04\x00")
        if at < 0 or group < 0:
            return
        stream.seek(group + 12 + int.from_bytes(begin[group + 8 : group + 12], "little"))
        inflater, n_byte = zlib.decompressobj(wbits=-zlib.MAX_WBITS), 0
        rest = b""
        while rest or (rest := stream.read(1 << 16)):
            try:
                n_byte += len(inflater.decompress(rest, 1 << 20))
            except zlib.error:
                return  # whoever reads it says so
            rest = inflater.unconsumed_tail
            if n_byte > LARGEST_INFLATED_BYTES:
                raise DicomError(
                    f"'{path.name}' is deflated and swells to more than {LARGEST_INFLATED_BYTES >> 20} MiB "
                    "(no slice or structure set is that large): export it uncompressed"
                )


def require_modest_plan(path: Path) -> None:
    """Refuse a plan with more items than one has, before it is read: each needs a hundred times its size in memory.

    Raises
    ------
    DicomError
        If so.
    """
    with path.open("rb") as stream:
        part = stream.read(1024)
        if RTPlanStorage.encode() not in part and RTIonPlanStorage.encode() not in part:
            return
        n_item, end = 0, b""
        while part:
            n_item += (end + part).count(_ITEM)
            end = part[-3:]
            part = stream.read(1 << 20)
    if n_item > MOST_ITEMS:
        raise DicomError(
            f"'{path.name}' has {n_item} items (control points and others; at most {MOST_ITEMS} are read)"
        )


def require_modest_files(paths: Sequence[Path]) -> None:
    """Refuse files that are larger than DICOM can be; to read them alone would take hours.

    Raises
    ------
    DicomError
        If there is one; the message names it.
    """
    for path in paths:
        size_bytes = path.stat().st_size
        if size_bytes > LARGEST_FILE_BYTES:
            raise DicomError(
                f"'{path.name}' has {size_bytes / (1 << 30):.0f} GiB (a DICOM file has at most "
                f"{LARGEST_FILE_BYTES >> 30}): take it out of the folder"
            )


def patient_mark(patient_id: str) -> str:
    """Return what tells patients apart in this process, and nothing about them; empty where nobody says who it is."""
    known = " ".join(patient_id.split()).casefold()
    if known in _NO_IDS:
        return ""
    return (
        hashlib.blake2b(known.encode(errors="replace"), key=_SALT, digest_size=16).hexdigest()
        if known
        else ""
    )


def of_other_patient(one: "Header", other: "Header") -> bool:
    """Return whether two files give different patient IDs; files that give none say nothing."""
    return "" not in (one.patient, other.patient) and one.patient != other.patient


def require_one_patient(headers: Sequence["Header"], what: str) -> None:
    """Refuse files of several patients.

    Raises
    ------
    DicomError
        If two of them give different patient IDs; the message names both files, and no ID.
    """
    named = [header for header in headers if header.patient]
    for header in named:
        if header.patient != named[0].patient:
            raise DicomError(
                f"{what}: '{named[0].path.name}' and '{header.path.name}' have different patient IDs (of one patient "
                "all must be the same): export the files of one patient"
            )
