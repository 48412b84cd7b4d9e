"""Cases into the store: from DICOM folders, and from built-in phantoms by way of DICOM."""

import dataclasses
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.errors import CaseError, StudyError, printable
from engine.model.case import Case
from engine.phantoms import PHANTOMS, lung_4d_series, slabs
from engine.spec.case import CaseSpec
from engine.spec.names import NamesSpec
from flows.naming import rename
from flows.run import Run
from storage.cases import KIND, REFERENCE, structure_names, write_case, write_reference
from storage.dicom.read_case import Choice, read_folder
from storage.dicom.sanity import require_modest_files
from storage.dicom.uids import content_uid
from storage.dicom.write_ct import write_ct
from storage.dicom.write_structures import write_structures
from storage.digest import digest_of, digest_of_code, digest_of_files, provenance
from storage.imported import attached_is_whole, imported_doses, imported_plans, write_attached
from storage.places.address import Address
from storage.places.opening import place_at
from storage.store import Store

IMPORT, NAME = "import", "case_name"
_READ_CODE = ("storage.dicom", "storage.imported", "engine.geometry", "engine.model", "flows.naming")
_PHANTOM_CODE = ("engine.phantoms", "engine.physics", *_READ_CODE)


def write_phantom(
    name: str, folder: Path, layers: Sequence[tuple[float, float]] = (), voxel_mm: float | None = None
) -> int:
    """Write a built-in phantom as a CT series and an RT Structure Set; returns the number of files.

    The phantom ``lung-4d`` becomes eleven series of one study and frame of reference: its phases and their average,
    each with a structure set of its own.

    Parameters
    ----------
    name
        Name of the phantom.
    folder
        Where to write.
    layers
        Thickness in mm and Hounsfield units of every layer, for the phantom ``slabs`` alone.
    voxel_mm
        Edge of the voxels; the phantom's own if absent.

    Raises
    ------
    CaseError
        If no phantom has that name, or layers were given for another one.
    """
    if layers and name != "slabs":
        raise CaseError(f"phantom '{name}' has no layers (they are for the phantom 'slabs')")
    if name not in PHANTOMS:
        raise CaseError(f"there is no phantom '{name}' (there are: {', '.join(PHANTOMS)})")
    folder.mkdir(parents=True, exist_ok=True)
    size: dict[str, Any] = {} if voxel_mm is None else {"voxel_mm": voxel_mm}
    if name == "lung-4d":
        study_uid, frame_uid = (content_uid(what, name) for what in ("phantom study", "phantom frame"))
        for description, phase in lung_4d_series(**size):
            placed = dataclasses.replace(phase, frame_of_reference_uid=frame_uid)
            write_structures(placed, folder, write_ct(placed, folder, description, study_uid))
    elif layers:
        _write_case(slabs(layers, **size), folder)
    else:
        _write_case(PHANTOMS[name](**size), folder)
    return len(list(folder.glob("*.dcm")))


def _write_case(case: Case, folder: Path) -> None:
    """Write one CT series with its structure set."""
    write_structures(case, folder, write_ct(case, folder))


def import_dicom(
    run: Run, folder: Path, choice: Choice, name: str | None, names: NamesSpec | None = None
) -> str:
    """Read a DICOM folder into the store and return the case's digest; the same files are read only once.

    With ``names``, structures get other names on the way.

    Raises
    ------
    DicomError
        If the folder does not hold a usable CT and structure set.
    """
    if not folder.is_dir():
        raise CaseError(
            f"{folder} is not a folder; give the folder that holds the CT series and its structure set"
        )
    files = [path for path in folder.rglob("*") if path.is_file()]
    require_modest_files(files)
    made_from: dict[str, Any] = {
        "files": digest_of_files(files),
        "choice": asdict(choice),
        "name": name,
        "code": digest_of_code(_READ_CODE),
    }
    if names is not None:
        made_from["names"] = names.model_dump(mode="json")
    key = digest_of(made_from)
    found = imported_before(run, key)
    if found is not None:
        return found
    with run.reporter.stage("read", len(files), "files") as steps:
        there = read_folder(folder, choice, name, steps.advance)
        case = rename(there.case, names)
        digest = write_case(run.store, case, provenance(made_from, 0.0))
        write_reference(run.store, digest, there.reference)
        write_attached(run.store, digest, there.attached)
        any_attached = bool(there.attached.plans or there.attached.doses)
        run.store.write_record(IMPORT, key, {"case": digest, "attached": any_attached})
    for note in (
        *case.notes,
        *(f"image '{image.name}': {note}" for image in case.images for note in image.notes),
        *there.attached.notes,
    ):
        run.reporter.say(f"  note: {note}")
    return digest


def tell_imported(store: Store, digest: str) -> list[str]:
    """Return a line for every plan and dose that was imported with a case."""
    lines = []
    for plan in imported_plans(store, digest):
        units = {beam.meterset_unit for beam in plan.beams}
        total = sum(beam.meterset or 0.0 for beam in plan.beams)
        radiation = "/".join(sorted({beam.radiation for beam in plan.beams}))
        lines.append(
            f"{plan.kind} '{plan.label}': {len(plan.beams)} beams ({radiation}), {plan.n_fraction or '?'} fractions, "
            f"{total:.6g} {'/'.join(sorted(units)) or 'meterset'} a fraction"
        )
    for dose in sorted(
        imported_doses(store, digest), key=lambda dose: (dose.summation != "PLAN", dose.label)
    ):
        nz, ny, nx = dose.grid.shape_zyx
        beam = "" if dose.beam_number is None else f" {dose.beam_number}"
        lines.append(
            f"RT Dose '{dose.label}': {dose.summation}{beam}, {nx} × {ny} × {nz} voxels, maximum {dose.max_gy:.4g} Gy"
            + (" (biologically weighted)" if dose.is_effective else "")
        )
    return [printable(line) for line in lines]


def is_whole(run: Run, digest: str) -> bool:
    """Return whether the store has both parts of a case: its arrays and its DICOM identifiers."""
    return run.store.has_arrays(KIND, digest) and run.store.has_record(REFERENCE, digest)


def imported_before(run: Run, key: str) -> str | None:
    """Return the digest of the case that an earlier import with the same key made, if it is still whole."""
    if not run.store.has_record(IMPORT, key):
        return None
    record = run.store.read_record(IMPORT, key)
    digest = str(record["case"])
    whole = is_whole(run, digest) and attached_is_whole(run.store, digest, record.get("attached", False))
    return digest if whole else None


def names_of_case(store: Address, spec: CaseSpec) -> set[str] | None:
    """Return the names of the structures of a study's case, where the case is a phantom or in the store."""
    if spec.phantom is not None:
        return {structure.name for structure in PHANTOMS[spec.phantom]().structures}
    if (
        spec.imported is None
        or not place_at(store).exists()
        or not Store(store).has_record(NAME, spec.imported)
    ):
        return None
    return structure_names(Store(store), str(Store(store).read_record(NAME, spec.imported)["case"]))


def case_of_study(run: Run, spec: CaseSpec, folder: Path) -> str:
    """Return the digest of the study's case; phantoms take the same way as everybody's DICOM files.

    Raises
    ------
    StudyError
        If the study names a case that was not imported.
    """
    if spec.dicom is not None:
        choice = Choice(spec.series, spec.structure_set, spec.second)
        return import_dicom(run, folder / spec.dicom, choice, None)
    if spec.imported is not None:
        if not run.store.has_record(NAME, spec.imported):
            known = ", ".join(run.store.record_names(NAME)) or "none"
            raise StudyError(
                f"case.imported: the store has no case '{spec.imported}' (it has: {known}); "
                "bring it in with `nightbeam import SOURCE --name NAME`"
            )
        digest = str(run.store.read_record(NAME, spec.imported)["case"])
        if not is_whole(run, digest):
            raise StudyError(
                f"case.imported: the stored case '{spec.imported}' was lost or damaged; bring it in again with "
                f"`nightbeam import SOURCE --name {spec.imported}`"
            )
        return digest
    phantom = str(spec.phantom)
    if phantom not in PHANTOMS:
        raise CaseError(f"there is no phantom '{phantom}' (there are: {', '.join(PHANTOMS)})")
    key = digest_of({"phantom": phantom, "code": digest_of_code(_PHANTOM_CODE)})
    found = imported_before(run, key)
    if found is not None:
        return found
    run.expect_computing()
    with tempfile.TemporaryDirectory(prefix="nightbeam-phantom-") as written:
        _write_case(PHANTOMS[phantom](), Path(written))
        digest = import_dicom(run, Path(written), Choice(), phantom)
    run.store.write_record(IMPORT, key, {"case": digest})
    return digest
