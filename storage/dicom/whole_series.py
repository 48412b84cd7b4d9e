"""Whether a CT series has come completely: as far as its structure set tells."""

from pathlib import Path

from storage.dicom.read_structures import referenced_slices
from storage.dicom.scan import read_whole, scan_folder


def missing_slices(folder: Path) -> tuple[int, int]:
    """Return how many slices are not in a folder that structure sets name of the CT series in it, and of how many.

    Series of which the folder holds nothing are not counted: they may be those of another image.

    Raises
    ------
    DicomError
        If a file is damaged.
    """
    scanned = scan_folder(folder)
    there = {header.text("SOPInstanceUID") for header in scanned.ct}
    series = {header.text("SeriesInstanceUID") for header in scanned.ct}
    named: set[str] = set()
    for header in scanned.structure_sets:
        for series_uid, slices in referenced_slices(read_whole(header)).items():
            if series_uid in series:
                named |= slices
    return len(named - there), len(named)
