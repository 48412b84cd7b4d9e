"""Plans and doses from elsewhere, kept beside the case that they were imported with."""

from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter

from engine.errors import CaseError, DamagedObjectError
from engine.model.arrays import F32
from engine.model.grid import Grid
from engine.model.plan import ExternalPlan
from storage.dicom.read_attached import Attached
from storage.dicom.read_dose import ReadDose
from storage.digest import digest_of, digest_of_array, provenance
from storage.store import Store

ATTACHED, PLAN, DOSE = "attached", "imported_plan", "imported_dose"
KINDS = (ATTACHED, PLAN, DOSE)
_WHOLE_PLANS = ("PLAN", "MULTI_PLAN")
_PLANS = TypeAdapter(ExternalPlan)


@dataclass(frozen=True)
class DoseEntry:
    """What is known of a stored dose without reading its values; fields as in `ReadDose`."""

    digest: str
    uid: str
    label: str
    summation: str
    plan_uid: str
    beam_number: int | None
    is_effective: bool
    max_gy: float
    grid: Grid


def write_attached(store: Store, case_digest: str, attached: Attached) -> None:
    """Keep plans and doses with a case, beside those that it has from an earlier import."""
    if not attached.plans and not attached.doses:
        return
    kept = _entries(store, case_digest)
    for plan in attached.plans:
        content = _PLANS.dump_python(plan, mode="json")
        digest = digest_of(content)
        store.write_record(PLAN, digest, content)
        kept["plans"][plan.uid] = digest
    for dose in attached.doses:
        kept["doses"][dose.uid] = _write_dose(store, dose)
    store.write_record(ATTACHED, case_digest, kept)


def imported_plans(store: Store, case_digest: str) -> list[ExternalPlan]:
    """Return the plans that were imported with a case."""
    return [
        _PLANS.validate_python(store.read_record(PLAN, digest))
        for digest in _entries(store, case_digest)["plans"].values()
    ]


def imported_doses(store: Store, case_digest: str) -> list[DoseEntry]:
    """Return what doses were imported with a case, without their values."""
    return [
        DoseEntry(**{**values, "grid": Grid.from_dict(values["grid"])})
        for values in _entries(store, case_digest)["doses"].values()
    ]


def imported_dose_gy(store: Store, entry: DoseEntry) -> F32:
    """Return the values of an imported dose, shape ``entry.grid.shape_zyx``.

    Raises
    ------
    DamagedObjectError
        If a checksum is wrong.
    """
    values: F32 = store.read_arrays(DOSE, entry.digest)[0]["dose_gy"]
    return values


def attached_is_whole(store: Store, case_digest: str, any_expected: bool) -> bool:
    """Return whether everything that was imported with a case is still in the store."""
    if any_expected and not store.has_record(ATTACHED, case_digest):
        return False
    try:
        kept = _entries(store, case_digest)
    except DamagedObjectError as error:
        store.discard(error.kind, error.digest)
        return False
    return all(store.has_record(PLAN, digest) for digest in kept["plans"].values()) and all(
        store.has_arrays(DOSE, entry["digest"]) for entry in kept["doses"].values()
    )


def find_plan(store: Store, case_digest: str, wanted: str) -> ExternalPlan:
    """Return the plan of a case with this label, name or SOP Instance UID.

    Raises
    ------
    CaseError
        If there is not exactly one (the message lists what there is), or one was lost and has to be imported again.
    """
    try:
        plans = imported_plans(store, case_digest)
    except DamagedObjectError as error:
        store.discard(error.kind, error.digest)
        raise CaseError(
            f"{error}: bring the case in again with `nightbeam import DICOM_DIR --name NAME`"
        ) from error
    found = [plan for plan in plans if wanted in (plan.label, plan.name, plan.uid)]
    if len(found) != 1:
        known = ", ".join(f"'{plan.label}' ({plan.uid})" for plan in plans) or "none"
        raise CaseError(
            f"{len(found) or 'no'} imported plans are called '{wanted}' (the case has: {known}); give a label or UID"
        )
    return found[0]


def find_dose(store: Store, case_digest: str, wanted: str) -> DoseEntry:
    """Return the dose of a whole plan with this label or SOP Instance UID, among those of a case.

    Raises
    ------
    CaseError
        If there is not exactly one (the message lists what there is), or it is biologically weighted.
    """
    doses = [dose for dose in imported_doses(store, case_digest) if dose.summation in _WHOLE_PLANS]
    found = [dose for dose in doses if wanted in (dose.label, dose.uid)]
    if len(found) != 1:
        known = ", ".join(f"'{dose.label}' ({dose.uid})" for dose in doses) or "none"
        raise CaseError(
            f"{len(found) or 'no'} imported doses of whole plans are called '{wanted}' (the case has: {known}); "
            "give a label or UID"
        )
    if found[0].is_effective:
        raise CaseError(
            f"the imported dose '{wanted}' is biologically weighted, and cannot be compared with photon dose; "
            "name a physical one"
        )
    return found[0]


def _entries(store: Store, case_digest: str) -> dict[str, Any]:
    if not store.has_record(ATTACHED, case_digest):
        return {"plans": {}, "doses": {}}
    found: dict[str, Any] = store.read_record(ATTACHED, case_digest)
    return found


def _write_dose(store: Store, dose: ReadDose) -> dict[str, Any]:
    """Publish the values of a dose and return its entry."""
    made_from = {"uid": dose.uid, "grid": dose.grid.as_dict(), "values": digest_of_array(dose.dose_gy)}
    digest = digest_of(made_from)
    if not store.has_arrays(DOSE, digest):
        store.write_arrays(
            DOSE,
            digest,
            {"dose_gy": dose.dose_gy},
            {"grid": dose.grid.as_dict(), "provenance": provenance(made_from, 0.0)},
            {"dose_gy": tuple(min(32, n) for n in dose.grid.shape_zyx)},
        )
    entry = DoseEntry(
        digest,
        dose.uid,
        dose.label,
        dose.summation,
        dose.plan_uid,
        dose.beam_number,
        dose.is_effective,
        float(dose.dose_gy.max()),
        dose.grid,
    )
    return {**asdict(entry), "grid": dose.grid.as_dict()}
