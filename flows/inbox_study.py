"""A study file for a case from the inbox: the protocol's text with another case."""

from pathlib import Path
from typing import Any, cast

import tomlkit

from engine.errors import StudyError
from engine.spec.study import load_study
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
    study = load_study(protocol)
    if study.case.imported is None:
        raise StudyError(
            f"{protocol.name} cannot be used as a protocol (its case is a phantom or a folder): give case.imported = "
            '"any name" in its place'
        )
    document = tomlkit.parse(protocol.read_text(encoding="utf-8-sig"))
    # Comments and order of the file stay.
    case = cast("dict[str, Any]", document["case"])
    case["imported"] = case_name
    case["hu_table"] = str((protocol.parent / study.case.hu_table).resolve())
    with whole_file(path) as aside:
        aside.write_text(tomlkit.dumps(document), encoding="utf-8")
