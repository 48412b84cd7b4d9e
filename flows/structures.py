"""Structures that a study makes: computed once, kept in the store, and added to the case."""

from dataclasses import replace

import numpy as np

from engine.errors import StudyError, shortened
from engine.model.arrays import F32
from engine.model.case import Case, Structure
from engine.spec.study import Study
from engine.structures.recipes import Recipe
from flows.references import MadeStructure
from flows.run import Run
from storage.digest import digest_of, digest_of_array, digest_of_code, provenance

STRUCTURE = "structure"
_CODE = (
    "engine.structures.booleans",
    "engine.structures.margins",
    "engine.structures.recipes",
    "engine.structures.surface",
)

_LEAST_CC = 0.002
"""Less is what rounding leaves of a structure that was shrunk away, not a volume."""


def make_structures(run: Run, study: Study, case: Case) -> tuple[Case, tuple[MadeStructure, ...]]:
    """Return the case with the study's body outline and made structures, and what was made.

    Raises
    ------
    StudyError
        If a name is taken or unknown, or a structure comes out empty; the message names the key.
    """
    check_made_names(study, {structure.name for structure in case.structures})
    external = study.case.external
    if external is not None and any(s.name == external for s in case.structures):
        case = case.with_external(external)
    made: list[MadeStructure] = []
    for number, recipe in enumerate(study.structures):
        coverage = _kept(run, case, recipe)
        volume_cc = float(coverage.sum(dtype=np.float64)) * case.grid.voxel_volume_mm3 / 1000.0
        if volume_cc < _LEAST_CC:
            raise StudyError(
                f"structures[{number}]: '{recipe.name}' ({recipe.text()}) is empty; check its distances and the "
                "structures that it is made from"
            )
        case = replace(case, structures=(*case.structures, Structure(recipe.name, recipe.kind, coverage)))
        made.append(MadeStructure(recipe.name, recipe.kind, recipe.text(), volume_cc))
    if external is not None:
        case = case.with_external(external)
    return case, tuple(made)


def check_made_names(study: Study, names: set[str]) -> set[str]:
    """Return the names of a case and of all that is made; refuse those that are taken, and inputs that are unknown.

    Raises
    ------
    StudyError
        With the key of the first mistake.
    """
    known = set(names)
    there = known | {recipe.name for recipe in study.structures}
    for key, name in (pair for template in study.from_templates for pair in template.inputs):
        if name not in there:
            raise StudyError(
                f"{key}: the case has no structure '{shortened(name)}' (it has: {', '.join(sorted(known))})"
            )
    for number, recipe in enumerate(study.structures):
        if recipe.name in known:
            raise StudyError(
                f"structures[{number}].name: the case has a structure '{recipe.name}' already; give another name"
            )
        for key, name in recipe.inputs():
            if name not in known:
                raise StudyError(
                    f"structures[{number}].{key}: the case has no structure '{shortened(name)}' "
                    f"(it has: {', '.join(sorted(known))})"
                )
        known.add(recipe.name)
    return known


def _kept(run: Run, case: Case, recipe: Recipe) -> F32:
    """Return a recipe's coverage, from the store if it was made before."""
    inputs = [case.structure(name).coverage for _, name in recipe.inputs()]
    made_from = {
        "recipe": recipe.model_dump(mode="json", exclude={"name", "kind"}),
        "inputs": [digest_of_array(coverage) for coverage in inputs],
        "body": digest_of_array(case.external.coverage) if recipe.needs_body else None,
        "grid": case.grid.as_dict(),
        "code": digest_of_code(_CODE),
    }
    digest = digest_of(made_from)
    if not run.store.has_arrays(STRUCTURE, digest):
        run.expect_computing()
        run.reporter.say(f"making structure '{recipe.name}': {recipe.text()}")
        run.store.write_arrays(
            STRUCTURE,
            digest,
            {"coverage": recipe.coverage(case)},
            {"provenance": provenance(made_from, 0.0)},
            {"coverage": tuple(min(32, n) for n in case.grid.shape_zyx)},
        )
    coverage: F32 = run.store.read_arrays(STRUCTURE, digest)[0]["coverage"]
    return coverage
