"""Read a TOML file as a model; mistakes are told with the line of their key."""

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from engine.errors import NightbeamError, StudyError
from engine.spec.base import Spec
from engine.spec.locate import line_of_key

S = TypeVar("S", bound=Spec)


def read_spec(path: Path, model: type[S], what: str) -> S:
    """Read and validate a file.

    Parameters
    ----------
    path
        The TOML file.
    model
        What it should describe.
    what
        The same for people, such as ``a study``.

    Raises
    ------
    StudyError
        If the file cannot be read, is not TOML, or does not describe what it should; the message lists every mistake
        with the line of its key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(
            f"cannot read the file {path} ({error}); check the path and that it is UTF-8"
        ) from error
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise StudyError(f"{path.name} is not valid TOML: {error}") from error
    try:
        # As JSON, where pydantic's strict types take arrays for tuples, text for paths and whole numbers for others,
        # but neither text nor truth values. TOML's dates fit no key: as a table they are refused everywhere.
        return model.model_validate_json(
            json.dumps(values, default=lambda date: {"date": str(date)}), strict=True
        )
    except ValidationError as error:
        lines = [_explain(mistake, values, text) for mistake in error.errors(include_url=False)]
        raise StudyError(f"{path.name} does not describe {what}:\n" + "\n".join(lines)) from error
    except NightbeamError as error:
        raise StudyError(f"{path.name}: {error}") from error


def _explain(mistake: ErrorDetails, values: dict[str, Any], text: str) -> str:
    location = _as_written(mistake["loc"], values)
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    line = line_of_key(text, location)
    where = f"line {line}: " if line else ""
    message = mistake["msg"].removeprefix("Value error, ")
    if mistake["type"] == "extra_forbidden":
        message = "there is no such key; see `nightbeam check --keys` for all of them"
    if mistake["type"] == "missing":
        message = "this key is needed but absent"
    if mistake["type"] == "union_tag_invalid":
        known = mistake["ctx"]["expected_tags"].replace("'", "")
        what = location[-1] if isinstance(location[-1], str) else mistake["ctx"]["discriminator"].strip("'")
        message = f"unknown {what} '{mistake['ctx']['tag']}'; known are {known}"
    if mistake["type"] == "union_tag_not_found":
        message = f"the key {mistake['ctx']['discriminator']} is needed but absent"
    return f"  {where}{key or 'the file'}: {message}"


def _as_written(location: Sequence[int | str], values: dict[str, Any]) -> tuple[int | str, ...]:
    """Return a place that pydantic names without what is only our own nesting: people write flat keys.

    Of a key that takes one number or several, pydantic names the sort it tried; of an objective, the chosen function.
    """
    parts = [part for part in location if not str(part).startswith(("float", "tuple["))]
    written: list[int | str] = []
    inside: Any = values
    for part in parts[:-1]:
        there = isinstance(inside, dict) and part in inside
        there = there or (isinstance(inside, list) and isinstance(part, int) and part < len(inside))
        if there and isinstance(inside[part], dict | list):
            written.append(part)
            inside = inside[part]
    if parts and isinstance(inside, dict) and parts[-1] not in inside and parts[-1] in inside.values():
        return tuple(written)  # the sort of the table itself, such as make = "margin"
    return (*written, *parts[-1:])
