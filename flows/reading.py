"""Stage read: the case out of the store, checked against the study before anything is computed."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from engine.errors import CaseError, StudyError, shortened
from engine.evaluate.goals import parse_goal
from engine.evaluate.region import region_from_coverage
from engine.model.case import Case
from engine.physics.hu_table import HuTable, load_hu_table
from engine.spec.study import Study
from flows.densities import keep_density
from flows.objective_regions import reference_doses
from flows.references import CaseRef
from flows.run import Run
from flows.structures import check_made_names, make_structures
from storage.cases import read_case

_LEAST_TOLD_FRACTION = 1e-4
_LARGEST_OUTSIDE_FRACTION = 0.05


def take_case(run: Run, study: Study, case_digest: str, folder: Path) -> CaseRef:
    """Take a case out of the store, check it against the study, and keep its electron density.

    Raises
    ------
    StudyError
        If the study names a structure or an imported dose that the case lacks, or a goal that its structure
        cannot answer.
    CaseError
        If body outline or target are empty, or the target lies outside of the body.
    """
    case = read_case(run.store, case_digest)
    if study.case.imported is not None:
        case = replace(case, name=study.case.imported)
    table = load_hu_table(study.case.hu_table, folder)
    # Before the structures are made, which takes a while.
    known = check_made_names(study, {structure.name for structure in case.structures})
    check_names(study, known, case.notes)
    reference_doses(run.store, study, case_digest)
    case, made = make_structures(run, study, case)
    _check_empty(study, case)
    _check_goals(study, case)
    density, densities = keep_density(run, study.case, case, table)
    return CaseRef(
        digest=case_digest,
        case=case,
        density_digest=density,
        hu_table=table.told,
        hu_points=tuple(zip(table.hu, table.density, strict=True)),
        notes=(*_target_notes(study, case), *_hu_notes(case, table)),
        made=made,
        densities=densities,
    )


def check_names(study: Study, known: set[str], notes: Sequence[str] = ()) -> None:
    """Refuse a study that names a structure which is neither in the case nor made.

    Parameters
    ----------
    study
        The study.
    known
        Names of all structures.
    notes
        Those of the case, which say why a structure of its files is not among them.

    Raises
    ------
    StudyError
        With the key of the first mistake.
    """
    for key, name in study.structure_names():
        if name not in known:
            left_out = f"structure '{name}': left out"
            why = next((note for note in notes if note.startswith(left_out)), None)
            if why is not None:
                told = why.removeprefix(f"structure '{name}': ")
                raise StudyError(
                    f"{key}: structure '{shortened(name)}' was {told}; check its contours and the series they belong to"
                )
            raise StudyError(
                f"{key}: the case has no structure '{shortened(name)}' (it has: {', '.join(sorted(known))})"
            )


def _check_empty(study: Study, case: Case) -> None:
    for structure in (case.external, case.structure(study.prescription.target)):
        if not (structure.coverage > 0.0).any():
            raise CaseError(f"structure '{structure.name}' covers no voxel of the CT; check its contours")


def _check_goals(study: Study, case: Case) -> None:
    """Judge the goals on a dose of zero: whatever they cannot be asked shows now, not after the night."""
    nothing = np.zeros(case.grid.shape_zyx, dtype=np.float32)
    for number, goal in enumerate(study.goals):
        structure = case.structure(goal.structure)
        region = region_from_coverage(structure.name, structure.kind, case.grid, structure.coverage)
        if region.voxel.size == 0:
            raise StudyError(f"goals[{number}]: structure '{structure.name}' covers no voxel of the CT")
        try:
            parse_goal(goal.structure, goal.goal, goal.published).judge(region.dvh(nothing))
        except CaseError as error:
            raise StudyError(f"goals[{number}]: {error}") from error


def _target_notes(study: Study, case: Case) -> tuple[str, ...]:
    target, body = case.structure(study.prescription.target), case.external
    total = float(target.coverage.sum(dtype=np.float64))
    outside = float((target.coverage * (1.0 - body.coverage)).sum(dtype=np.float64)) / total
    if outside > _LARGEST_OUTSIDE_FRACTION:
        raise CaseError(
            f"{100.0 * outside:.0f} % of target '{target.name}' lies outside of the body outline "
            f"'{body.name}'; check both contours, or crop the target"
        )
    if outside <= _LEAST_TOLD_FRACTION:
        return ()
    return (
        f"{100.0 * outside:.3g} % of target '{target.name}' lies outside of the body outline: DVHs and the "
        "normalisation count it as undosed, the optimiser leaves it out",
    )


def _hu_notes(case: Case, table: HuTable) -> tuple[str, ...]:
    inside = case.ct_hu[case.external.coverage > 0.5]
    beyond = float(((inside < table.hu[0]) | (inside > table.hu[-1])).mean()) if inside.size else 0.0
    if beyond <= _LEAST_TOLD_FRACTION:
        return ()
    return (
        f"{100.0 * beyond:.3g} % of the body's voxels lie beyond the HU table '{table.name}' "
        f"({table.hu[0]:g} to {table.hu[-1]:g} HU); they got the density of its end",
    )
