"""Cases into the store: from DICOM folders, and from built-in phantoms by way of DICOM."""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from pydicom.uid import UID

from engine.errors import CaseError, StudyError
from engine.phantoms import PHANTOMS, slabs
from engine.spec.case import CaseSpec
from flows.run import Run
from storage.cases import KIND, REFERENCE, write_case, write_reference
from storage.dicom.read_case import Choice, read_case_with_reference
from storage.dicom.sanity import require_modest_files
from storage.dicom.write_ct import write_ct
from storage.dicom.write_structures import write_structures
from storage.digest import digest_of, digest_of_code, digest_of_files, provenance

IMPORT, NAME = "import", "case_name"
_READ_CODE = ("storage.dicom", "engine.geometry", "engine.model")


def write_phantom(name: str, folder: Path, layers: Sequence[tuple[float, float]] = ()) -> int:
    """Write a built-in phantom as a CT series and an RT Structure Set; returns the number of files.

    Parameters
    ----------
    name
        Name of the phantom.
    folder
        Where to write.
    layers
        Thickness in mm and Hounsfield units of every layer, for the phantom ``slabs`` alone.

    Raises
    ------
    CaseError
        If no phantom has that name, or layers were given for another one.
    """
    if name not in PHANTOMS:
        raise CaseError(f"there is no phantom '{name}' (there are: {', '.join(PHANTOMS)})")
    if layers and name != "slabs":
        raise CaseError(f"phantom '{name}' has no layers (they are for the phantom 'slabs')")
    folder.mkdir(parents=True, exist_ok=True)
    case = slabs(layers) if layers else PHANTOMS[name]()
    write_structures(case, folder, write_ct(case, folder))
    return len(list(folder.glob("*.dcm")))


def import_dicom(run: Run, folder: Path, choice: Choice, name: str | None) -> str:
    """Read a DICOM folder into the store and return the case's digest; the same files are read only once.

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
    made_from = {
        "files": digest_of_files(files),
        "choice": asdict(choice),
        "name": name,
        "code": digest_of_code(_READ_CODE),
    }
    key = digest_of(made_from)
    found = _imported(run, key)
    if found is not None:
        return found
    with run.reporter.stage("read", len(files), "files") as steps:
        case, ct = read_case_with_reference(folder, choice, name, steps.advance)
        digest = write_case(run.store, case, provenance(made_from, 0.0))
        write_reference(run.store, digest, ct)
        run.store.write_record(IMPORT, key, {"case": digest})
    for note in (
        *case.notes,
        *(f"image '{image.name}': {note}" for image in case.images for note in image.notes),
    ):
        run.reporter.say(f"  note: {note}")
    return digest


def without_names(run: Run, folder: Path, out: Path, choice: Choice) -> Choice:
    """De-identify a DICOM folder into another and return the choice of series with the new identifiers.

    Raises
    ------
    DicomError
        If the folder cannot be de-identified as a whole; then nothing is written.
    """
    from storage.dicom.deidentify import deidentify  # its table of attributes is needed here alone

    done = deidentify(folder, out)
    run.reporter.say(f"{done.n_file} files written without names to {out}")
    for note in done.notes:
        run.reporter.say(f"  note: {note}")

    def renewed(wanted: str | None) -> str | None:
        return done.new_uid(wanted) if wanted and "." in wanted and UID(wanted).is_valid else wanted

    second = tuple(renewed(wanted) or wanted for wanted in choice.second)
    return Choice(renewed(choice.series), renewed(choice.structure_set), second)


def is_whole(run: Run, digest: str) -> bool:
    """Return whether the store has both parts of a case: its arrays and its DICOM identifiers."""
    return run.store.has_arrays(KIND, digest) and run.store.has_record(REFERENCE, digest)


def _imported(run: Run, key: str) -> str | None:
    """Return the digest of the case that an earlier import with the same key made, if it is still whole."""
    if not run.store.has_record(IMPORT, key):
        return None
    digest = str(run.store.read_record(IMPORT, key)["case"])
    return digest if is_whole(run, digest) else None


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
                "bring it in with `nightbeam import DICOM_DIR --name NAME`"
            )
        digest = str(run.store.read_record(NAME, spec.imported)["case"])
        if not is_whole(run, digest):
            raise StudyError(
                f"case.imported: the stored case '{spec.imported}' was lost or damaged; bring it in again with "
                f"`nightbeam import DICOM_DIR --name {spec.imported}`"
            )
        return digest
    phantom = str(spec.phantom)
    key = digest_of({"phantom": phantom, "code": digest_of_code(("engine.phantoms", *_READ_CODE))})
    found = _imported(run, key)
    if found is not None:
        return found
    run.expect_computing()
    with tempfile.TemporaryDirectory(prefix="nightbeam-phantom-") as written:
        write_phantom(phantom, Path(written))
        digest = import_dicom(run, Path(written), Choice(), phantom)
    run.store.write_record(IMPORT, key, {"case": digest})
    return digest
