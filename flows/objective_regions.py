"""Regions of a study's objectives: which there are, and what each of their rows has."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import CaseError, DamagedObjectError, StudyError
from engine.geometry.bricks import BrickLayout
from engine.model.arrays import F32, F64
from engine.optimise.constraints import Constraint
from engine.optimise.functions import DoseFallOff, SquaredDeviation, SquaredOverdose, SquaredUnderdose
from engine.optimise.group import Term
from engine.optimise.regions import fall_off_gy, imported_gy, region_share
from engine.spec.constraints import ConstraintSpec
from engine.spec.study import ObjectiveSpec, Study
from flows.references import CaseRef
from flows.run import Run
from flows.work.rows import REGIONS
from storage.digest import digest_of, digest_of_array, digest_of_code, provenance
from storage.imported import DoseEntry, find_dose, imported_dose_gy
from storage.store import Store

_CODE = (
    "engine.geometry", "engine.optimise.regions", "engine.optimise.functions.squared",
    "engine.structures.distance", "engine.structures.surface",
)  # fmt: skip


@dataclass(frozen=True)
class RegionKey:
    """What a region is made from.

    Parameters
    ----------
    structure, excluding
        The structure, and those that are taken away from it.
    fall_off
        The function whose level each voxel gets.
    reference_dose
        The imported dose that each voxel gets.
    """

    structure: str
    excluding: tuple[str, ...] = ()
    fall_off: DoseFallOff | None = None
    reference_dose: str | None = None

    @classmethod
    def of(cls, objective: ObjectiveSpec | ConstraintSpec) -> "RegionKey":
        """Return the key of the region of an objective or a constraint."""
        function = objective.function
        if isinstance(function, DoseFallOff):
            return cls(objective.structure, objective.excluding, fall_off=function)
        if isinstance(function, SquaredDeviation | SquaredOverdose | SquaredUnderdose):
            return cls(objective.structure, objective.excluding, reference_dose=function.reference_dose)
        return cls(objective.structure, objective.excluding)

    def names(self) -> set[str]:
        """Return the structures that it is made from."""
        from_structure = {self.fall_off.from_structure} if self.fall_off is not None else set()
        return {self.structure, *self.excluding} | from_structure


def regions_of_study(study: Study) -> list[RegionKey]:
    """Return the target's region, and those of all objectives and constraints."""
    judged: list[ObjectiveSpec | ConstraintSpec] = [*study.objectives, *study.constraints]
    return list(dict.fromkeys([RegionKey(study.prescription.target), *map(RegionKey.of, judged)]))


def terms_of_study(study: Study) -> tuple[Term, ...]:
    """Return the objectives with the numbers of their regions and the prescription's fractions."""
    regions = regions_of_study(study)
    return tuple(
        Term(
            objective.label(),
            regions.index(RegionKey.of(objective)),
            objective.function.of_course(study.prescription.fractions),
            objective.weight,
            objective.robust,
        )
        for objective in study.objectives
    )


def constraints_of_study(study: Study) -> tuple[Constraint, ...]:
    """Return the hard constraints with the numbers of their regions."""
    regions = regions_of_study(study)
    return tuple(
        constraint.constraint(regions.index(RegionKey.of(constraint)), study.prescription.fractions)
        for constraint in study.constraints
    )


def store_regions(run: Run, study: Study, reference: CaseRef, layout: BrickLayout) -> str:
    """Store what the rows of every region have, if it is not there yet; returns the digest.

    Raises
    ------
    StudyError
        If an objective refers to a dose that the case does not have.
    """
    case, regions = reference.case, regions_of_study(study)
    doses = reference_doses(run.store, study, reference.digest)
    made_from = {
        "ct_grid": case.grid.as_dict(),
        "grid": layout.grid.as_dict(),
        "brick_edge": layout.edge,
        "external": digest_of_array(case.external.coverage),
        "regions": [
            [
                key.structure,
                list(key.excluding),
                key.fall_off.model_dump() if key.fall_off is not None else None,
                doses[key.reference_dose].digest if key.reference_dose is not None else None,
            ]
            for key in regions
        ],
        "structures": {
            name: digest_of_array(case.structure(name).coverage)
            for name in sorted(set().union(*(key.names() for key in regions)))
        },
        "code": digest_of_code(_CODE),
    }
    digest = digest_of(made_from)
    if run.store.has_arrays(REGIONS, digest):
        return digest
    arrays: dict[str, npt.NDArray[Any]] = {}
    for number, key in enumerate(regions):
        share = region_share(case, layout, key.structure, key.excluding)
        arrays[f"share_{number}"] = share
        if key.fall_off is not None:
            arrays[f"reference_{number}"] = fall_off_gy(case, layout, share, key.fall_off)
        elif key.reference_dose is not None:
            entry = doses[key.reference_dose]
            dose_gy = _read(run.store, entry)
            arrays[f"reference_{number}"] = imported_gy(
                dose_gy, entry.grid, layout, share, key.reference_dose
            )
    run.store.write_arrays(REGIONS, digest, arrays, {"provenance": provenance(made_from, 0.0)})
    return digest


def values_in_dose(
    arrays: Mapping[str, npt.NDArray[Any]], judged: Sequence[Term | Constraint], on_rows: F64
) -> list[float]:
    """Return the value of the function of every objective or constraint in a dose.

    Parameters
    ----------
    arrays
        The stored regions.
    judged
        The objectives or constraints.
    on_rows
        Dose of every row, shape (n_row,).
    """
    values = []
    for one in judged:
        share = arrays[f"share_{one.region}"].astype(np.float64)
        row = np.flatnonzero(share)
        levels = arrays.get(f"reference_{one.region}")
        reference_gy = None if levels is None else levels[row].astype(np.float64)
        values.append(float(one.function.value(one.function.sums(on_rows[row], share[row], reference_gy))))
    return values


def reference_doses(store: Store, study: Study, case_digest: str) -> dict[str, DoseEntry]:
    """Return the imported doses that objectives and constraints refer to, by the names that they use.

    Raises
    ------
    StudyError
        If the case does not have one of them.
    """
    doses: dict[str, DoseEntry] = {}
    judged: list[tuple[str, ObjectiveSpec | ConstraintSpec]] = [
        *((f"objectives[{number}]", objective) for number, objective in enumerate(study.objectives)),
        *((f"constraints[{number}]", constraint) for number, constraint in enumerate(study.constraints)),
    ]
    for where, of_dose in judged:
        name = RegionKey.of(of_dose).reference_dose
        if name is not None:
            try:
                doses[name] = find_dose(store, case_digest, name)
            except CaseError as error:
                raise StudyError(f"{where}.reference_dose: {error}") from error
    return doses


def _read(store: Store, entry: DoseEntry) -> F32:
    try:
        return imported_dose_gy(store, entry)
    except DamagedObjectError as error:
        store.discard(error.kind, error.digest)
        raise CaseError(
            f"{error}: bring the case in again with `nightbeam import DICOM_DIR --name NAME`"
        ) from error
