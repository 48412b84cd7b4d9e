"""The command ``nightbeam import``: one way in for DICOM folders and files of voxels."""

from collections.abc import Sequence
from pathlib import Path

import click
from pydicom.uid import UID

from engine.errors import CaseError
from engine.model.case import Case, PatientPosition
from engine.nomenclature.propose import propose
from engine.spec.names import load_names
from flows.cases import NAME, import_dicom, tell_imported
from flows.import_volumes import import_volume
from flows.naming import proposals_as_toml
from flows.progress import Reporter
from flows.recovery import until_whole
from flows.run import Run
from storage.cases import read_case
from storage.dicom.read_case import Choice
from storage.places.address import Address
from storage.store import Store
from storage.whole_file import whole_file


def import_source(
    source: Path,
    store: Address,
    name: str | None,
    choice: Choice,
    deidentify: Path | None,
    structures: Sequence[Path],
    position: PatientPosition | None,
    names: Path | None,
    write_names: Path | None,
    quiet: bool,
) -> None:
    """Import a case, tell what it holds, and which standard names its structures could have.

    Raises
    ------
    CaseError
        If options were given that mean nothing for this source.
    """
    mapping = None if names is None else load_names(names)
    if source.is_dir() and (structures or position):
        raise CaseError(
            "--structures and --position are for files of voxels; a DICOM folder says both itself, leave them out"
        )
    if not source.is_dir() and (choice != Choice() or deidentify is not None):
        raise CaseError(
            "--series, --structure-set, --second and --deidentify are for DICOM folders; leave them out"
        )
    with Run(Store(store), Reporter(quiet)) as run:
        if deidentify is not None:
            choice = _without_names(run, source, deidentify, choice)
            source = deidentify

        def read_in() -> tuple[str, Case, list[str]]:
            if source.is_dir():
                found = import_dicom(run, source, choice, name, mapping)
            else:
                found = import_volume(run, source, structures, position, name, mapping)
            return found, read_case(run.store, found, images=True), tell_imported(run.store, found)

        digest, case, attached = until_whole(run, read_in)
        # The same files may have been imported before, under another name: this one counts, too.
        label = name or case.name
        run.store.write_record(NAME, label, {"case": digest})
        attached = tell_imported(run.store, digest)
    if write_names is not None:
        with whole_file(write_names) as aside:
            aside.write_text(proposals_as_toml(case), encoding="utf-8")
    if not quiet:
        _tell(case, label)
        for line in attached:
            click.echo(f"  {line}")
        if write_names is not None:
            click.echo(f"proposed names written to {write_names}; check them, then import again with --names")


def _without_names(run: Run, folder: Path, out: Path, choice: Choice) -> Choice:
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


def _tell(case: Case, label: str) -> None:
    """Print size and structures, and beside each name what TG-263 calls it, where that differs."""
    nz, ny, nx = case.grid.shape_zyx
    dx_mm, dy_mm, dz_mm = case.grid.spacing_mm_xyz
    click.echo(
        f"case '{label}': CT of {nx} × {ny} × {nz} voxels of {dx_mm:.4g} × {dy_mm:.4g} × {dz_mm:.4g} mm, "
        f"patient position {case.patient_position}"
    )
    for structure in case.structures:
        volume_cc = float(structure.coverage.sum(dtype="float64")) * case.grid.voxel_volume_mm3 / 1000.0
        found = propose(structure.name)
        proposal = (
            "" if found is None or found.name == structure.name else f"   TG-263: {found.name}{found.doubt}"
        )
        click.echo(
            f"  {structure.kind:9} {structure.name:24} {volume_cc:10.{2 if volume_cc >= 0.1 else 4}f} cc{proposal}"
        )
    for image in case.images:
        click.echo(f"  {'IMAGE':9} {image.name:24} {f'in {image.unit}' if image.unit else ''}".rstrip())
