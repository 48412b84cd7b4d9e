"""Plans and doses that lie beside a CT."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from engine.errors import DicomError
from engine.model.plan import ExternalPlan
from storage.dicom.duplicates import without_duplicates
from storage.dicom.read_dose import ReadDose, read_dose
from storage.dicom.read_plan import read_plan
from storage.dicom.read_structures import frames_of_reference
from storage.dicom.scan import Header, ScannedFolder


@dataclass(frozen=True)
class Attached:
    """Plans and doses of a folder that belong to its CT.

    Parameters
    ----------
    plans, doses
        What could be read.
    notes
        What could not, what belongs to other images, and what looks odd.
    """

    plans: tuple[ExternalPlan, ...]
    doses: tuple[ReadDose, ...]
    notes: tuple[str, ...]


def read_attached(scanned: ScannedFolder, frame_of_reference_uid: str, patient: str = "") -> Attached:
    """Read plans and doses; one that cannot be used is left out with a note, as the case does not depend on it.

    Parameters
    ----------
    scanned
        The folder.
    frame_of_reference_uid
        That of the CT; a dose or plan in other coordinates is left out. Empty: not checked.
    patient
        Tells the CT's patient from others (`storage.dicom.scan.Header`); a dose or plan of another one, which does not
        name the CT's coordinates, is left out. Empty: not checked.

    Raises
    ------
    DicomError
        If two files have one identifier but differ in what they say.
    """
    notes: list[str] = []
    plans, doses = [], []
    of_plans, duplicate_plans = without_duplicates(scanned.plans)
    of_doses, duplicate_doses = without_duplicates(scanned.doses)
    notes += [*duplicate_plans, *duplicate_doses]
    drawn_in = {
        header.text("SOPInstanceUID"): frames_of_reference(header) for header in scanned.structure_sets
    }
    for header in of_plans:
        try:
            plan = read_plan(header)
        except DicomError as error:
            notes.append(_left_out(error, header))
            continue
        frames = drawn_in.get(plan.structure_set_uid, set()) | {header.text("FrameOfReferenceUID")} - {""}
        if frame_of_reference_uid and frames and frame_of_reference_uid not in frames:
            notes.append(f"left out: the plan '{plan.label}' was made on another image")
            continue
        if _is_of_another(header, patient, frame_of_reference_uid in frames):
            notes.append(f"left out: the plan '{plan.label}' gives another patient ID than the CT")
            continue
        plans.append(plan)
        notes.extend(f"plan '{plan.label}': {note}" for note in plan.notes)
    for header, dose in _doses(of_doses, notes):
        if frame_of_reference_uid and dose.frame_of_reference_uid not in ("", frame_of_reference_uid):
            notes.append(f"left out: the dose '{dose.label}' has another frame of reference than the CT")
            continue
        if _is_of_another(header, patient, dose.frame_of_reference_uid == frame_of_reference_uid != ""):
            notes.append(f"left out: the dose '{dose.label}' gives another patient ID than the CT")
            continue
        doses.append(dose)
        notes.extend(f"dose '{dose.label}': {note}" for note in dose.notes)
    return Attached(tuple(plans), tuple(doses), tuple(notes))


def _is_of_another(header: Header, patient: str, is_in_its_frame: bool) -> bool:
    """Return whether a file is of another patient than the CT; whoever names its coordinates is of the same one."""
    return not is_in_its_frame and "" not in (patient, header.patient) and header.patient != patient


def _left_out(error: DicomError, header: Header) -> str:
    """Return a note on a file; names of files may be personal, and notes are logged."""
    return f"left out: {error}".replace(f" '{header.path.name}'", "")


def _doses(headers: Sequence[Header], notes: list[str]) -> Iterator[tuple[Header, ReadDose]]:
    for header in headers:
        try:
            yield header, read_dose(header)
        except DicomError as error:
            notes.append(_left_out(error, header))
