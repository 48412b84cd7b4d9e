"""The command ``nightbeam dose``: one forward dose on the bench top, in this process."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from engine.dose.photon_pencil_beam import PhotonPencilBeam
from engine.errors import CaseError, ExperimentError, StudyError
from engine.experiment.geometry import Geometry, build_phantom, geometry_of_case, known_materials
from engine.experiment.photon_pencil_beam import QUANTITY, forward_dose, require_possible, unit_of
from engine.model.arrays import F64
from engine.physics.hu_table import load_hu_table
from engine.spec.case import CaseSpec
from engine.spec.experiment import Experiment, ImportedSpec, load_experiment
from engine.spec.locate import line_of_key
from flows.cases import case_of_study
from flows.progress import Reporter
from flows.run import Run
from storage.cases import read_case
from storage.digest import digest_of_code, provenance
from storage.dose_file import write_dose_file
from storage.places.address import Address
from storage.store import Store
from storage.whole_file import whole_file

_CODE = ("engine.dose", "engine.experiment", "engine.geometry", "engine.model", "engine.physics")


def dose_of_experiment(path: Path, out: Path, store: Address, quiet: bool) -> tuple[F64, dict[str, Any]]:
    """Compute an experiment, write it to ``out``, and return the dose and what was written about it.

    Parameters
    ----------
    path
        The experiment file.
    out
        The file to write; it is there whole or not at all.
    store
        Where imported cases are.
    quiet
        Show no progress.

    Raises
    ------
    StudyError
        If the file says what cannot be, or what its engine cannot do; with the line.
    """
    experiment = load_experiment(path)
    reporter = Reporter(quiet)
    with _lines_of(path):
        require_possible(experiment)
        geometry = _geometry(experiment, path.parent, store, reporter)
        out.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(out) as aside:
            aside.touch()  # a folder that cannot be written is told before anything is computed
            begin_s = time.process_time()
            dose_gy, inside = _compute(experiment, geometry, reporter)
            meta = _describe(experiment, geometry, time.process_time() - begin_s)
            write_dose_file(aside, dose_gy, inside, experiment.score.edges_mm_xyz(), meta)
    for note in geometry.notes:
        reporter.say(f"  note: {note}")
    return dose_gy, meta


def _compute(experiment: Experiment, geometry: Geometry, reporter: Reporter) -> tuple[F64, F64]:
    n_x, n_y, n_z = (edges.size - 1 for edges in experiment.score.edges_mm_xyz())
    dose_gy, inside = np.zeros((n_z, n_y, n_x)), np.zeros((n_z, n_y, n_x))
    with reporter.stage("dose", n_z, "planes") as steps:
        for planes, mean_gy, share in forward_dose(experiment, geometry):
            dose_gy[planes], inside[planes] = mean_gy, share
            steps.advance(mean_gy.shape[0])
    if not inside.any():
        raise ExperimentError(("score",), "no voxel touches the phantom or body; check the edges")
    return dose_gy, inside


def _geometry(experiment: Experiment, folder: Path, store: Address, reporter: Reporter) -> Geometry:
    known_materials(experiment.materials)
    if experiment.phantom is not None:
        return build_phantom(experiment.phantom, experiment.materials)
    spec = experiment.case
    if spec is None:
        raise StudyError("the experiment has neither phantom nor case")
    with _key("case", "hu_table"):
        table = load_hu_table(spec.hu_table, folder)
    with _key("case", "imported"), Run(Store(store), reporter) as run:
        case = read_case(run.store, case_of_study(run, _as_in_a_study(spec), folder))
    with _key("case", "external"):
        if spec.external is not None:
            case = case.with_external(spec.external)
        return geometry_of_case(case, table)


def _as_in_a_study(spec: ImportedSpec) -> CaseSpec:
    return CaseSpec(imported=spec.imported, hu_table=spec.hu_table, external=spec.external)


def _describe(experiment: Experiment, geometry: Geometry, cpu_s: float) -> dict[str, Any]:
    materials = known_materials(experiment.materials)
    parts = [] if experiment.phantom is None else [experiment.phantom, *experiment.phantom.inserts]
    return {
        "quantity": QUANTITY,
        "unit": unit_of(experiment),
        "engine": {"name": PhotonPencilBeam.name, "version": PhotonPencilBeam.version},
        "materials": {
            part.material: {
                "density_g_cm3": materials[part.material].density_g_cm3,
                "composition": materials[part.material].composition,
            }
            for part in parts
        },
        "notes": list(geometry.notes),
        "experiment": experiment.model_dump(mode="json", exclude_none=True),
        "provenance": provenance({"code": digest_of_code(_CODE)}, cpu_s),
    }


@contextmanager
def _key(*key: str) -> Iterator[None]:
    """Say which key led to a case or table that cannot be used."""
    try:
        yield
    except (CaseError, StudyError) as error:
        raise ExperimentError(key, str(error).removeprefix(f"{'.'.join(key)}: ")) from error


@contextmanager
def _lines_of(path: Path) -> Iterator[None]:
    """Say on which line of a file something stands that cannot be."""
    try:
        yield
    except ExperimentError as error:
        line = line_of_key(path.read_text(encoding="utf-8"), error.key)
        raise StudyError(
            f"{path.name} cannot be computed:\n  {f'line {line}: ' if line else ''}{error}"
        ) from error
