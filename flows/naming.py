"""Structures under other names: a mapping file renames them on import, and proposals are written into one."""

import json
from dataclasses import replace
from difflib import get_close_matches

from engine.errors import CaseError
from engine.model.case import Case, Structure
from engine.nomenclature.propose import propose
from engine.spec.names import NamesSpec


def rename(case: Case, mapping: NamesSpec | None) -> Case:
    """Return the case with the structures' names and kinds of a mapping; the notes keep what they were called.

    Structures that the mapping does not name stay as they are.

    Parameters
    ----------
    case
        The case as it was read.
    mapping
        The mapping; None changes nothing.

    Raises
    ------
    CaseError
        If the mapping names a structure that the case lacks, or two structures would have the same name.
    """
    if mapping is None:
        return case
    known = [structure.name for structure in case.structures]
    for name in mapping.structures:
        if name not in known:
            near = get_close_matches(name, known, 1, 0.5)
            hint = f"did you mean '{near[0]}'?" if near else f"it has {', '.join(sorted(known)) or 'none'}"
            raise CaseError(f"the mapping names '{name}', which is no structure of this case; {hint}")
    structures: list[Structure] = []
    came_from: dict[str, str] = {}
    notes: list[str] = []
    for structure in case.structures:
        wanted = mapping.structures.get(structure.name)
        name = structure.name if wanted is None else wanted.name
        kind = structure.kind if wanted is None or wanted.kind is None else wanted.kind
        if name in came_from:
            raise CaseError(
                f"by the mapping, '{came_from[name]}' and '{structure.name}' would both be called '{name}'; "
                "give one of them another name"
            )
        came_from[name] = structure.name
        if name != structure.name:
            notes.append(f"structure '{structure.name}' was renamed '{name}' by the mapping file")
        if kind != structure.kind:
            notes.append(f"structure '{name}' was made {kind} by the mapping file (it was {structure.kind})")
        structures.append(replace(structure, name=name, kind=kind))
    return replace(case, structures=tuple(structures), notes=(*case.notes, *notes))


def proposals_as_toml(case: Case) -> str:
    """Return a mapping file with a line for each structure: the proposed name where there is one, its own otherwise.

    Two structures are never given the same name: then both keep their own, and a comment says why.
    """
    proposed = {s.name: found for s in case.structures if (found := propose(s.name)) is not None}
    wanted = [proposed[s.name].name if s.name in proposed else s.name for s in case.structures]
    lines = [
        "# Names of structures after AAPM TG-263, proposed for this case. Check every line, then give the file to",
        "# `nightbeam import ... --names FILE`. kind is EXTERNAL, TARGET, ORGAN or OTHER.",
        "[structures]",
    ]
    for structure, name in zip(case.structures, wanted, strict=True):
        found = proposed.get(structure.name)
        remark = "" if found is not None else "  # no proposal"
        if found is not None and not found.certain:
            remark = "  # spelling guessed"
        if wanted.count(name) > 1 and name != structure.name:
            remark, name = f"  # would be {name}, as another one", structure.name
        # A role that the source gives is kept; that of a standard name fills in where it gives none.
        kind = found.kind if found is not None and structure.kind == "OTHER" else structure.kind
        # Strings of JSON are basic strings of TOML.
        key, value = (json.dumps(text, ensure_ascii=False) for text in (structure.name, name))
        lines.append(f'{key} = {{ name = {value}, kind = "{kind}" }}{remark}')
    return "\n".join(lines) + "\n"
