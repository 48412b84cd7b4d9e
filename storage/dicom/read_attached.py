"""Plans and doses that lie beside a CT."""

from collections.abc import Iterator
from dataclasses import dataclass

from engine.errors import DicomError
from engine.model.plan import ExternalPlan
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


def read_attached(scanned: ScannedFolder, frame_of_reference_uid: str) -> Attached:
    """Read plans and doses; one that cannot be used is left out with a note, as the case does not depend on it.

    Parameters
    ----------
    scanned
        The folder.
    frame_of_reference_uid
        That of the CT; a dose or plan in other coordinates is left out. Empty: not checked.
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
            notes.append(f"left out: {error}")
            continue
        frames = drawn_in.get(plan.structure_set_uid, set())
        if frame_of_reference_uid and frames and frame_of_reference_uid not in frames:
            notes.append(f"left out: the plan '{header.path.name}' was made on another image")
            continue
        plans.append(plan)
        notes.extend(f"plan '{plan.label}': {note}" for note in plan.notes)
    for dose in _doses(scanned.doses, notes):
        if frame_of_reference_uid and dose.frame_of_reference_uid not in ("", frame_of_reference_uid):
            notes.append(f"left out: the dose '{dose.label}' has another frame of reference than the CT")
            continue
        doses.append(dose)
        notes.extend(f"dose '{dose.label}': {note}" for note in dose.notes)
    return Attached(tuple(plans), tuple(doses), tuple(notes))


def _doses(headers: tuple[Header, ...], notes: list[str]) -> Iterator[ReadDose]:
    for header in headers:
        try:
            yield read_dose(header)
        except DicomError as error:
            notes.append(f"left out: {error}")
