"""Read a folder of DICOM files as a case."""

import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.config import disable_value_validation

from engine.errors import DicomError
from engine.model.case import Case, Structure
from storage.dicom.choosing import choose_structure_set, list_structure_sets
from storage.dicom.duplicates import without_duplicates
from storage.dicom.read_attached import Attached, read_attached
from storage.dicom.read_ct import read_ct
from storage.dicom.read_images import read_images
from storage.dicom.read_registration import read_registrations
from storage.dicom.read_structures import frames_of_reference, read_structures, refers_to_series
from storage.dicom.sanity import of_other_patient, require_one_patient
from storage.dicom.scan import Header, ScannedFolder, scan_folder
from storage.dicom.uids import CtReference


@dataclass(frozen=True)
class Choice:
    """What a person asked for in a folder that holds more than one of a kind.

    Parameters
    ----------
    series
        The CT: Series Instance UID, series number, or a part of the description.
    structure_set
        The structure set: SOP Instance UID or a part of the label.
    second
        Second images, as ``series``; without any, all MR and PET series that can be placed.
    """

    series: str | None = None
    structure_set: str | None = None
    second: tuple[str, ...] = ()


@dataclass(frozen=True)
class DicomFolder:
    """What a folder holds: the case, the identifiers that files written for it refer to, and its plans and doses."""

    case: Case
    reference: CtReference
    attached: Attached


def read_case(folder: Path, choice: Choice | None = None, name: str | None = None) -> Case:
    """Read the CT, the structure set and second images in a folder (and below) as a case; nothing personal is kept.

    Parameters
    ----------
    folder
        Where to look; other files may lie there, too.
    choice
        Which CT, structure set and second images; needed only where there are several.
    name
        Label of the case; without it, one is made from the series' identifier.

    Raises
    ------
    DicomError
        If a CT or structure set is ambiguous, damaged, incomplete or not supported; the message names the file.
    """
    return read_folder(folder, choice, name).case


def read_folder(
    folder: Path,
    choice: Choice | None = None,
    name: str | None = None,
    advance: Callable[[], None] | None = None,
) -> DicomFolder:
    """Return the case as `read_case` does, and what belongs to it.

    ``advance`` is called once for every file of the folder.
    """
    # Real files break the rules on how values are written (too many digits, stray characters) in harmless ways.
    # pydicom warns of it with the values themselves, which may be personal.
    with disable_value_validation(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pydicom")
        return _read(folder, choice or Choice(), name, advance)


def _read(folder: Path, choice: Choice, name: str | None, advance: Callable[[], None] | None) -> DicomFolder:
    scanned = scan_folder(folder, advance)
    if not scanned.ct:
        raise DicomError(
            f"the folder holds no CT images ({_contents(scanned)}): name the folder with the planning CT"
        )
    ct = read_ct(scanned.ct, choice.series)
    of_ct = [h for h in scanned.ct if h.text("SeriesInstanceUID") == ct.reference.series_uid]
    registrations = read_registrations(without_duplicates(scanned.registrations)[0], of_ct[0])
    notes = (*scanned.notes, *ct.notes, *registrations.notes)
    structure_sets, duplicate_notes = without_duplicates(scanned.structure_sets)
    chosen = _choose_structure_set(structure_sets, choice.structure_set, ct.reference)
    patient_notes: tuple[str, ...] = ()
    if chosen is not None:
        same_frame = frames_of_reference(chosen) == {ct.reference.frame_of_reference_uid}
        if same_frame or refers_to_series(chosen, ct.reference.series_uid):
            patient_notes = _patient_notes(of_ct[0], chosen)
        else:
            require_one_patient([*of_ct, chosen], "the structure set is not that of the CT's patient")
    structures: tuple[Structure, ...] = ()
    structure_notes: tuple[str, ...] = ("there is no structure set",)
    if chosen is not None:
        structures, structure_notes = read_structures(chosen, ct.reference, ct.grid, registrations)
    images, image_notes = read_images(scanned, registrations, ct.reference, ct.grid, choice.second, of_ct[0])
    label = name or f"ct-{hashlib.sha256(ct.reference.series_uid.encode()).hexdigest()[:8]}"
    case = Case(
        label,
        ct.grid,
        ct.ct_hu,
        structures,
        ct.patient_position,
        ct.reference.frame_of_reference_uid,
        (*notes, *duplicate_notes, *patient_notes, *structure_notes, *image_notes),
        images,
    )
    return DicomFolder(
        case, ct.reference, read_attached(scanned, ct.reference.frame_of_reference_uid, of_ct[0])
    )


def _contents(scanned: ScannedFolder) -> str:
    """Return how many files of each kind a folder without CT holds."""
    kinds = (
        (scanned.mr, "MR image"),
        (scanned.pet, "PET image"),
        (scanned.structure_sets, "structure set"),
        (scanned.registrations, "registration"),
        (scanned.plans, "plan"),
        (scanned.doses, "dose"),
    )
    found = [f"{len(headers)} {kind}{'s' * (len(headers) != 1)}" for headers, kind in kinds if headers]
    return f"only {', '.join(found)}" if found else "nor anything else that could be read"


def _patient_notes(ct: Header, structure_set: Header) -> tuple[str, ...]:
    """Return a note if CT and structure set, of which the second names the first, give different patient IDs."""
    if not of_other_patient(ct, structure_set):
        return ()
    return (
        "CT and structure set give different patient IDs; they were read together because the structure set names "
        "this CT series or its frame of reference",
    )


def _choose_structure_set(headers: Sequence[Header], wanted: str | None, ct: CtReference) -> Header | None:
    """Return the structure set that was asked for, or the only one that belongs to the CT."""
    if wanted is not None:
        return choose_structure_set(headers, wanted)
    if len(headers) <= 1:
        return headers[0] if headers else None
    ct_uid = ct.frame_of_reference_uid
    fitting = [header for header in headers if not ct_uid or frames_of_reference(header) <= {ct_uid}]
    if len(fitting) > 1:
        fitting = [header for header in fitting if refers_to_series(header, ct.series_uid)] or fitting
    if len(fitting) != 1:
        raise DicomError(
            f"the folder holds {len(headers)} structure sets, of which not exactly one belongs to the CT series: "
            "choose one with --structure-set TEXT (UID, or a part of the label that no other has) among\n"
            f"{list_structure_sets(headers)}"
        )
    return fitting[0]
