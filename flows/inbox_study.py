"""A study file for a case from the inbox: the protocol's text with another case."""

import json
import re
from pathlib import Path

from engine.errors import StudyError
from engine.spec.locate import line_of_key
from engine.spec.study import Study, load_study
from storage.whole_file import whole_file


def write_study(protocol: Path, case_name: str, path: Path) -> None:
    """Write a protocol's text as a study of an imported case, so that people can plan and change it as any other.

    Parameters
    ----------
    protocol
        A study file with ``case.imported``.
    case_name
        What comes in its place.
    path
        The file to write. A table of HU beside the protocol is named by its whole path.

    Raises
    ------
    StudyError
        If the protocol is no study of an imported case.
    """
    wanted = _with_case(load_study(protocol), protocol.parent, case_name)
    lines = protocol.read_text(encoding="utf-8-sig").splitlines()
    text = "\n".join(lines)
    for key in ("imported", "hu_table"):
        line = line_of_key(text, ("case", key))
        if line is not None:
            lines[line - 1] = _with_value(lines[line - 1], key, getattr(wanted.case, key))
    with whole_file(path) as aside:
        aside.write_text("\n".join(lines) + "\n", encoding="utf-8")
    if load_study(path) != wanted:
        raise StudyError(
            f"{protocol.name} cannot be used as a protocol: write case.imported and case.hu_table as plain strings, "
            "each on a line of its own below [case]"
        )


def _with_case(study: Study, folder: Path, case_name: str) -> Study:
    """Return the study with another case.

    Raises
    ------
    StudyError
        If its case is not an imported one.
    """
    if study.case.imported is None:
        raise StudyError(
            f"'{study.name}' cannot be used as a protocol (its case is a phantom or a folder): give case.imported = "
            '"any name" in its place'
        )
    case = study.case.model_copy(
        update={"imported": case_name, "hu_table": str((folder / study.case.hu_table).resolve())}
    )
    return study.model_copy(update={"case": case})


def _with_value(line: str, key: str, value: str) -> str:
    """Return a line with another string as the value of a key; what follows, such as a comment, stays."""
    found = re.match(rf"(\s*{key}\s*=\s*)(\"[^\"]*\"|'[^']*')", line)
    return line if found is None else found[1] + json.dumps(value, ensure_ascii=False) + line[found.end() :]
