"""Read a folder of DICOM files as a case."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from pydicom.config import disable_value_validation

from engine.errors import DicomError
from engine.model.case import Case, Structure
from storage.dicom.read_ct import CtImage, read_ct
from storage.dicom.read_structures import frames_of_reference, read_structures, refers_to_series
from storage.dicom.scan import Header, scan_folder
from storage.dicom.uids import CtReference


def read_case(
    folder: Path,
    series_uid: str | None = None,
    structure_set_uid: str | None = None,
    name: str | None = None,
) -> Case:
    """Read the CT and the structure set in a folder (and below) as a case; nothing personal is kept.

    Parameters
    ----------
    folder
        Where to look; other files may lie there, too.
    series_uid
        Series Instance UID of the CT; may be left out if there is only one.
    structure_set_uid
        SOP Instance UID of the structure set; may be left out if only one belongs to the CT.
    name
        Label of the case; without it, one is made from the series' identifier.

    Raises
    ------
    DicomError
        If a CT or structure set is ambiguous, damaged, incomplete or not supported; the message names the file.
    """
    return read_case_with_reference(folder, series_uid, structure_set_uid, name)[0]


def read_case_with_reference(
    folder: Path,
    series_uid: str | None = None,
    structure_set_uid: str | None = None,
    name: str | None = None,
) -> tuple[Case, CtReference]:
    """Return the case as `read_case` does, and the identifiers that files written for it refer to."""
    # Real files break the rules on how values are written (too many digits, stray characters) in harmless ways.
    with disable_value_validation():
        return _read(folder, series_uid, structure_set_uid, name)


def _read(
    folder: Path, series_uid: str | None, structure_set_uid: str | None, name: str | None
) -> tuple[Case, CtReference]:
    """Return the case and the identifiers of its CT."""
    scanned = scan_folder(folder)
    ct = read_ct(scanned.ct, series_uid)
    notes = (*scanned.notes, *ct.notes)
    chosen = _choose_structure_set(scanned.structure_sets, structure_set_uid, ct)
    structures: tuple[Structure, ...] = ()
    structure_notes: tuple[str, ...] = ("there is no structure set",)
    if chosen is not None:
        structures, structure_notes = read_structures(chosen, ct.reference, ct.grid)
    label = name or f"ct-{hashlib.sha256(ct.reference.series_uid.encode()).hexdigest()[:8]}"
    case = Case(
        label,
        ct.grid,
        ct.ct_hu,
        structures,
        ct.patient_position,
        ct.reference.frame_of_reference_uid,
        (*notes, *structure_notes),
    )
    return case, ct.reference


def _choose_structure_set(
    headers: Sequence[Header], structure_set_uid: str | None, ct: CtImage
) -> Header | None:
    """Return the structure set that was asked for, or the only one that belongs to the CT."""
    listed = ", ".join(
        f"{header.text('SOPInstanceUID')} '{header.text('StructureSetLabel')}'" for header in headers
    )
    if structure_set_uid is not None:
        for header in headers:
            if header.text("SOPInstanceUID") == structure_set_uid:
                return header
        raise DicomError(
            f"there is no structure set {structure_set_uid}: the folder holds {listed or 'none'}"
        )
    if len(headers) <= 1:
        return headers[0] if headers else None
    frame_uid = ct.reference.frame_of_reference_uid
    fitting = [header for header in headers if not frame_uid or frames_of_reference(header) <= {frame_uid}]
    if len(fitting) > 1:
        fitting = [header for header in fitting if refers_to_series(header, ct.reference.series_uid)]
    if len(fitting) != 1:
        raise DicomError(
            f"the folder holds {len(headers)} structure sets, of which not exactly one belongs to the CT series: "
            f"choose one by its UID among {listed}"
        )
    return fitting[0]
