"""Look through a folder for DICOM files and read their headers."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    EnhancedPETImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    LegacyConvertedEnhancedCTImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    LegacyConvertedEnhancedPETImageStorage,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    RTDoseStorage,
    RTIonPlanStorage,
    RTPlanStorage,
    RTStructureSetStorage,
    SpatialRegistrationStorage,
)

from engine.errors import DicomError, printable
from storage.dicom.sanity import (
    naming,
    patient_mark,
    require_modest_deflation,
    require_modest_plan,
    require_sane,
)

HEADER_KEYWORDS = [
    "SpecificCharacterSet",
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SeriesDescription",
    "Modality",
    "FrameOfReferenceUID",
    "ImageType",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "PatientPosition",
    "GantryDetectorTilt",
    "SamplesPerPixel",
    "StructureSetLabel",
    "StructureSetROISequence",
    "RTPlanLabel",
    "DoseSummationType",
    "ReferencedStructureSetSequence",
    "ReferencedRTPlanSequence",
]

KIND_OF_SOP_CLASS: dict[str, str] = {
    CTImageStorage: "ct",
    EnhancedCTImageStorage: "ct",
    LegacyConvertedEnhancedCTImageStorage: "ct",
    MRImageStorage: "mr",
    EnhancedMRImageStorage: "mr",
    LegacyConvertedEnhancedMRImageStorage: "mr",
    PositronEmissionTomographyImageStorage: "pet",
    EnhancedPETImageStorage: "pet",
    LegacyConvertedEnhancedPETImageStorage: "pet",
    RTStructureSetStorage: "structure_sets",
    SpatialRegistrationStorage: "registrations",
    RTPlanStorage: "plans",
    RTIonPlanStorage: "plans",
    RTDoseStorage: "doses",
}
"""What is read, by SOP Class (PS3.4 B.5); all else is counted in a note."""
IMAGES = ("ct", "mr", "pet")
NOT_NEEDED = ("plans", "doses")
"""What a case does not depend on: damaged ones are left out."""
_BARE_GROUPS = (b"\x02\x00", b"\x08\x00")
"""How a file begins that has DICOM's elements without the preamble of PS3.10 7.1 (old exports)."""


@dataclass(frozen=True)
class Header:
    """The header of one file, without pixels and without anything personal.

    Parameters
    ----------
    path
        The file.
    dataset
        The attributes of `HEADER_KEYWORDS` that it has.
    patient
        Tells patients apart and nothing about them (see `patient_mark`).
    """

    path: Path
    dataset: FileDataset
    patient: str = ""

    def text(self, keyword: str) -> str:
        """Return an attribute as text, empty if absent or empty; without control characters, as messages show it."""
        value = self.value(keyword)
        return "" if value is None else printable(str(value).strip())

    def value(self, keyword: str) -> Any:
        """Return an attribute, or nothing if it is absent.

        Raises
        ------
        DicomError
            If it cannot be understood; values are decoded on first use.
        """
        return attribute(self.dataset, keyword, self.path)


@dataclass(frozen=True)
class ScannedFolder:
    """What a folder holds: headers by kind, each in the order of the files' paths.

    Parameters
    ----------
    ct, mr, pet
        Slices, or whole multi-frame images, of all series.
    structure_sets
        RT Structure Sets.
    registrations
        Spatial Registrations.
    plans
        RT Plans and RT Ion Plans.
    doses
        RT Doses.
    notes
        What was ignored or looks odd.
    """

    ct: tuple[Header, ...]
    mr: tuple[Header, ...]
    pet: tuple[Header, ...]
    structure_sets: tuple[Header, ...]
    registrations: tuple[Header, ...]
    plans: tuple[Header, ...]
    doses: tuple[Header, ...]
    notes: tuple[str, ...]


def attribute(dataset: Dataset, keyword: str, path: Path) -> Any:
    """Return an attribute of a dataset from ``path``, or nothing if it is absent.

    Raises
    ------
    DicomError
        If it cannot be understood.
    """
    try:
        return dataset.get(keyword)
    except Exception as error:  # pydicom raises many kinds on damaged values
        raise DicomError(
            f"'{path.name}' has an unreadable {keyword} ({type(error).__name__}: damaged?): export it again"
        ) from error


def scan_folder(folder: Path, advance: Callable[[], None] | None = None) -> ScannedFolder:
    """Read the headers of all files in ``folder`` and below; about 10 kB of memory a file.

    Files that are not DICOM, scout images and other kinds of objects are ignored with a note that counts them (names
    of files may be personal).

    Parameters
    ----------
    folder
        Where to look.
    advance
        Called after every file.

    Raises
    ------
    DicomError
        If the folder does not exist, or a DICOM file is too damaged to tell what it is.
    """
    if not folder.is_dir():
        raise DicomError(f"'{folder}' is not a folder: name the folder that holds the CT and structure set")
    found: dict[str, list[Header]] = {kind: [] for kind in KIND_OF_SOP_CLASS.values()}
    notes: list[str] = []
    ignored: Counter[str] = Counter()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if advance is not None:
            advance()
        try:
            with naming(path):
                header = read_header(path)
                if header is not None and _kind(header) in NOT_NEEDED:
                    require_sane(header, is_image=False)
        except DicomError as error:
            ignored[f"damaged {_not_needed(path, error)}"] += 1
            continue
        if header is None:
            ignored["not DICOM"] += 1
            continue
        kind = _kind(header)
        if kind is None:
            ignored[UID(header.text("SOPClassUID")).name or "DICOM of unknown kind"] += 1
        elif kind in IMAGES and "LOCALIZER" in header.text("ImageType"):
            ignored["scout image"] += 1
        else:
            require_sane(header, kind in IMAGES)
            found[kind].append(header)
            if kind == "structure_sets" and header.text("Modality") != "RTSTRUCT":
                notes.append(
                    f"the structure set calls its modality '{header.text('Modality')}' instead of 'RTSTRUCT'; it was "
                    "read as a structure set because that is what it holds"
                )
    notes += [f"ignored {count} file(s): {kind}" for kind, count in sorted(ignored.items())]
    return ScannedFolder(**{kind: tuple(headers) for kind, headers in found.items()}, notes=tuple(notes))


def _kind(header: Header) -> str | None:
    """Return where a file belongs in `ScannedFolder`; None for what is not read."""
    kind = KIND_OF_SOP_CLASS.get(header.text("SOPClassUID"))
    return "structure_sets" if kind is None and "StructureSetROISequence" in header.dataset else kind


def _not_needed(path: Path, error: DicomError) -> str:
    """Return the name of the SOP Class of a damaged file that the case does not depend on.

    Raises
    ------
    DicomError
        The error that its reading ended with, if the case may depend on it, or its file meta information (PS3.10
        section 7.1) does not say.
    """
    try:
        uid = str(read_file_meta_info(path).get("MediaStorageSOPClassUID") or "")
    except Exception as unreadable:  # pydicom raises many kinds on damaged files
        raise error from unreadable
    if KIND_OF_SOP_CLASS.get(uid) not in NOT_NEEDED:
        raise error
    return str(UID(uid).name)


def read_header(path: Path) -> Header | None:
    """Return the header of a file, or nothing if it is not DICOM.

    Raises
    ------
    DicomError
        If it begins as DICOM but cannot be read.
    """
    try:
        dataset = read_file(path, False, [*HEADER_KEYWORDS, "PatientID"])
        patient = patient_mark(str(dataset.get("PatientID") or ""))
        dataset.pop("PatientID", None)
        return Header(path, dataset, patient)
    except InvalidDicomError:
        return None
    except DicomError:
        raise
    except Exception as error:  # pydicom raises many kinds on damaged files
        raise DicomError(
            f"'{path.name}' begins as DICOM but cannot be read ({type(error).__name__}: damaged or truncated?): "
            "export it again or take it out of the folder"
        ) from error


def read_file(path: Path, pixels: bool = True, keywords: Sequence[str] | None = None) -> FileDataset:
    """Return a file, also one without preamble, with the identifiers that it says in either of two places.

    Parameters
    ----------
    path
        The file.
    pixels
        Whether to read pixels, too.
    keywords
        Attributes to read; by default all.

    Raises
    ------
    InvalidDicomError
        If it is not DICOM.
    """
    require_modest_deflation(path)
    require_modest_plan(path)
    with path.open("rb") as stream:
        bare = stream.read(132)[128:] != b"DICM" and _begins_bare(path)
    dataset = dcmread(
        path,
        stop_before_pixels=not pixels,
        specific_tags=None if keywords is None else list(keywords),
        force=bare,
    )
    if bare:
        if "SOPClassUID" not in dataset:
            raise InvalidDicomError("two bytes that look like DICOM by chance")
        if "TransferSyntaxUID" not in dataset.file_meta:
            implicit, _ = dataset.original_encoding
            dataset.file_meta.TransferSyntaxUID = (
                ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
            )
    for keyword in ("SOPClassUID", "SOPInstanceUID"):
        of_file = dataset.file_meta.get(f"MediaStorage{keyword}")
        if of_file and not dataset.get(keyword):
            setattr(dataset, keyword, of_file)
    return dataset


def read_whole(header: Header, pixels: bool = True) -> FileDataset:
    """Return a file with all that is in it, or all but its pixels.

    Raises
    ------
    DicomError
        If it is damaged.
    """
    try:
        return read_file(header.path, pixels)
    except DicomError:
        raise
    except Exception as error:  # pydicom raises many kinds on damaged files
        raise DicomError(
            f"'{header.path.name}' cannot be read ({type(error).__name__}: damaged?): export it again"
        ) from error


def _begins_bare(path: Path) -> bool:
    """Return whether a file begins like a data element of the first groups in little endian."""
    with path.open("rb") as stream:
        begin = stream.read(8)
    return len(begin) == 8 and begin[:2] in _BARE_GROUPS and begin[3] == 0
