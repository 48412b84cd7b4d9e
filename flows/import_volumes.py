"""Cases into the store from files of voxels: npz, NRRD, NIfTI and MetaImage."""

from collections.abc import Sequence
from pathlib import Path

from engine.errors import VolumeError
from engine.model.case import Case, PatientPosition
from engine.spec.names import NamesSpec
from flows.cases import IMPORT, imported_before
from flows.naming import rename
from flows.run import Run
from storage.cases import read_case, write_case, write_reference
from storage.dicom.write_ct import ct_reference
from storage.digest import digest_of, digest_of_code, digest_of_files, provenance
from storage.volumes.frames import IMAGE_ENDINGS, data_file
from storage.volumes.images import read_volume_case
from storage.volumes.masks import table_beside
from storage.volumes.npz import read_npz_case
from storage.volumes.sanity import require_file

_READ_CODE = ("storage.volumes", "engine.geometry", "engine.model", "engine.nomenclature", "flows.naming")


def import_volume(
    run: Run,
    source: Path,
    structures: Sequence[Path] = (),
    position: PatientPosition | None = None,
    name: str | None = None,
    names: NamesSpec | None = None,
) -> str:
    """Read a file of voxels into the store and return the case's digest; the same files are read only once.

    Parameters
    ----------
    run
        The run.
    source
        An npz case, or a CT as NRRD, NIfTI or MetaImage.
    structures
        For a CT: files of masks or label maps, or folders of them.
    position
        Patient position, where the file does not say it.
    name
        Label of the case.
    names
        Mapping of structure names.

    Raises
    ------
    VolumeError
        If a file cannot be used.
    CaseError
        If the mapping does not fit the structures.
    """
    files = _mask_files(structures, source)
    for file in (source, *files):
        require_file(file)
    # The order of masks counts, and so does which of the files is the CT.
    made_from = {
        "files": [digest_of_files([part]) for file in (source, *files) for part in _parts(file)],
        "position": position,
        "name": name,
        "names": None if names is None else names.model_dump(mode="json"),
        "code": digest_of_code(_READ_CODE),
    }
    key = digest_of(made_from)
    found = imported_before(run, key)
    if found is not None:
        return found
    with run.reporter.stage("read", 1 + len(files), "files") as steps:
        case = rename(_read(source, files, position, name), names)
        digest = write_case(run.store, case, provenance(made_from, 0.0))
        # From the stored case, which an earlier import may have written under another name: identifiers depend on it.
        write_reference(run.store, digest, ct_reference(read_case(run.store, digest)))
        run.store.write_record(IMPORT, key, {"case": digest})
        steps.advance(1 + len(files))
    for note in case.notes:
        run.reporter.say(f"  note: {note}")
    return digest


def _read(source: Path, files: Sequence[Path], position: PatientPosition | None, name: str | None) -> Case:
    if source.suffix == ".npz":
        if files:
            raise VolumeError(f"'{source.name}' holds its own structures; leave --structures out")
        return read_npz_case(source, name, position)
    return read_volume_case(source, files, position, name)


def _mask_files(structures: Sequence[Path], source: Path) -> list[Path]:
    """Return the files of structures; folders stand for the images in them, in the order of their names."""
    files: list[Path] = []
    for path in structures:
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.name.lower().endswith(IMAGE_ENDINGS))
            inside = [file for file in inside if file.resolve() != source.resolve()]
            if not inside:
                raise VolumeError(
                    f"the folder '{path.name}' holds no image ({', '.join(IMAGE_ENDINGS)}); give the folder with one "
                    "mask for each structure"
                )
            files += inside
        else:
            files.append(path)
    return files


def _parts(file: Path) -> list[Path]:
    """Return a file with the file of its numbers and the table of its names, where it has such."""
    parts = [file, data_file(file), table_beside(file)]
    return [part for part in parts if part is not None and part.is_file()]
