"""Look through a folder for DICOM files and read their headers."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID, CTImageStorage, EnhancedCTImageStorage, RTStructureSetStorage

from engine.errors import DicomError

HEADER_KEYWORDS = [
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesDescription",
    "Modality",
    "FrameOfReferenceUID",
    "ImageType",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "Rows",
    "Columns",
    "PatientPosition",
    "GantryDetectorTilt",
    "SamplesPerPixel",
    "StructureSetLabel",
    "StructureSetROISequence",
]


@dataclass(frozen=True)
class Header:
    """The header of one file, without pixels and without anything personal.

    Parameters
    ----------
    path
        The file.
    dataset
        The attributes of `HEADER_KEYWORDS` that it has.
    """

    path: Path
    dataset: FileDataset

    def text(self, keyword: str) -> str:
        """Return an attribute as text, empty if absent or empty."""
        value = self.value(keyword)
        return "" if value is None else str(value).strip()

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
    """What a folder holds.

    Parameters
    ----------
    ct
        Headers of CT slices, all series.
    structure_sets
        Headers of RT Structure Sets.
    notes
        What was ignored or looks odd.
    """

    ct: tuple[Header, ...]
    structure_sets: tuple[Header, ...]
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


def scan_folder(folder: Path) -> ScannedFolder:
    """Read the headers of all files in ``folder`` and below.

    Files that are not DICOM, scout images and other kinds of objects are ignored with a note that counts them (names
    of files may be personal).

    Raises
    ------
    DicomError
        If the folder does not exist, a DICOM file is too damaged to tell what it is, or the CT is in the enhanced
        multi-frame form.
    """
    if not folder.is_dir():
        raise DicomError(f"'{folder}' is not a folder: name the folder that holds the CT and structure set")
    ct: list[Header] = []
    structure_sets: list[Header] = []
    notes: list[str] = []
    ignored: Counter[str] = Counter()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        header = read_header(path)
        if header is None:
            ignored["not DICOM"] += 1
            continue
        sop_class_uid = header.text("SOPClassUID")
        if sop_class_uid == CTImageStorage:
            if "LOCALIZER" in header.text("ImageType"):
                ignored["scout image"] += 1
            else:
                ct.append(header)
        elif sop_class_uid == EnhancedCTImageStorage:
            raise DicomError(
                f"'{path.name}' is an enhanced multi-frame CT (which is not supported): export the series as "
                "single-frame CT images"
            )
        elif sop_class_uid == RTStructureSetStorage or "StructureSetROISequence" in header.dataset:
            structure_sets.append(header)
            if header.text("Modality") != "RTSTRUCT":
                notes.append(
                    f"the structure set calls its modality '{header.text('Modality')}' instead of 'RTSTRUCT'; it was "
                    "read as a structure set because that is what it holds"
                )
        else:
            ignored[UID(sop_class_uid).name or "DICOM of unknown kind"] += 1
    notes += [f"ignored {count} file(s): {kind}" for kind, count in sorted(ignored.items())]
    return ScannedFolder(tuple(ct), tuple(structure_sets), tuple(notes))


def read_header(path: Path) -> Header | None:
    """Return the header of a file, or nothing if it is not DICOM.

    Raises
    ------
    DicomError
        If it begins as DICOM but cannot be read.
    """
    try:
        return Header(path, dcmread(path, stop_before_pixels=True, specific_tags=list(HEADER_KEYWORDS)))
    except InvalidDicomError:
        return None
    except Exception as error:  # pydicom raises many kinds on damaged files
        raise DicomError(
            f"'{path.name}' begins as DICOM but cannot be read ({type(error).__name__}: damaged or truncated?): "
            "export it again or take it out of the folder"
        ) from error
