"""Plans and doses that lie beside a CT."""

from collections.abc import Iterator
from dataclasses import dataclass

from engine.errors import DicomError
from engine.model.plan import ExternalPlan
from storage.dicom.read_dose import ReadDose, read_dose
from storage.dicom.read_plan import read_plan
from storage.dicom.read_structures import frames_of_reference
from storage.dicom.sanity import of_other_patient
from storage.dicom.scan import Header, ScannedFolder

_OTHER_PATIENT = "has another patient ID than the CT, and does not say that it belongs to it"
_SAME_FRAME = (
    "it has another patient ID than the CT; it was read because it was made in its frame of reference"
)


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


def read_attached(
    scanned: ScannedFolder, frame_of_reference_uid: str, of_ct: Header | None = None
) -> Attached:
    """Read plans and doses; one that cannot be used is left out with a note, as the case does not depend on it.

    Parameters
    ----------
    scanned
        The folder.
    frame_of_reference_uid
        That of the CT; a dose or plan in other coordinates is left out. Empty: not checked.
    of_ct
        A slice of the CT. What has another patient ID is read only if it was made in the CT's frame of reference.
    """
    notes: list[str] = []
    plans, doses = [], []
    drawn_in = {
        header.text("SOPInstanceUID"): frames_of_reference(header) for header in scanned.structure_sets
    }
    for header in scanned.plans:
        try:
            plan = read_plan(header)
        except DicomError as error:
            notes.append(_left_out(error, header))
            continue
        frames = drawn_in.get(plan.structure_set_uid, set())
        if frame_of_reference_uid and frames and frame_of_reference_uid not in frames:
            notes.append(f"left out: the plan '{plan.label}' was made on another image")
            continue
        if of_ct is not None and of_other_patient(of_ct, header):
            if frame_of_reference_uid not in frames:
                notes.append(f"left out: the plan '{plan.label}' {_OTHER_PATIENT}")
                continue
            notes.append(f"plan '{plan.label}': {_SAME_FRAME}")
        plans.append(plan)
        notes.extend(f"plan '{plan.label}': {note}" for note in plan.notes)
    for header, dose in _doses(scanned.doses, notes):
        if frame_of_reference_uid and dose.frame_of_reference_uid not in ("", frame_of_reference_uid):
            notes.append(f"left out: the dose '{dose.label}' has another frame of reference than the CT")
            continue
        if of_ct is not None and of_other_patient(of_ct, header):
            if not frame_of_reference_uid or dose.frame_of_reference_uid != frame_of_reference_uid:
                notes.append(f"left out: the dose '{dose.label}' {_OTHER_PATIENT}")
                continue
            notes.append(f"dose '{dose.label}': {_SAME_FRAME}")
        doses.append(dose)
        notes.extend(f"dose '{dose.label}': {note}" for note in dose.notes)
    return Attached(tuple(plans), tuple(doses), tuple(notes))


def _left_out(error: DicomError, header: Header) -> str:
    """Return a note that names the identifier instead of the file: notes are kept, and names may be personal."""
    uid = header.text("SOPInstanceUID") or "without identifier"
    text = str(error).replace(f"'{header.path.name}'", uid)
    return f"left out: {text}"


def _doses(headers: tuple[Header, ...], notes: list[str]) -> Iterator[tuple[Header, ReadDose]]:
    for header in headers:
        try:
            yield header, read_dose(header)
        except DicomError as error:
            notes.append(_left_out(error, header))
