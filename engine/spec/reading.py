"""Read a TOML file as a model; mistakes are told with the line of their key."""

import json
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from engine.errors import NightbeamError, StudyError, printable, shortened
from engine.spec.base import Spec
from engine.spec.locate import line_of_key

S = TypeVar("S", bound=Spec)
LARGEST_BYTES = 1 << 20
"""Of a file that a person wrote: what is larger is another file."""
_LONG_KEY = re.compile(r"^[ \t\[]*[\w.\"'-]{1000}", re.MULTILINE)
_LONG_NUMBER = re.compile(r"\d{1000}")


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
    text = _text(path)
    values, as_json = _values(path, text)
    try:
        return model.model_validate_json(as_json, strict=True)
    except ValidationError as error:
        lines = [
            _explain(mistake, values, text, model.keys_command) for mistake in error.errors(include_url=False)
        ]
        raise StudyError(f"{path.name} does not describe {what}:\n" + "\n".join(lines)) from error
    except NightbeamError as error:
        raise StudyError(f"{path.name}: {error}") from error


def where(path: Path, key: str) -> str:
    """Return the line of a key such as ``templates[0].order`` in a file that was read, as the begin of a message."""
    location = [int(part) if part.isdecimal() else part for part in re.findall(r"[^.\[\]]+", key)]
    line = line_of_key(_text(path), location)
    return f"line {line}: " if line else ""


def _text(path: Path) -> str:
    """Return the text of a file of reasonable size; the mark that some editors put at the begin is left out."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise StudyError(f"cannot read the file {path} ({error}); check the path") from error
    if len(raw) > LARGEST_BYTES:
        raise StudyError(f"{path.name} has more than {LARGEST_BYTES >> 20} MiB; is it the right file?")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise StudyError(
            f"cannot read the file {path.name}: line {line} is not UTF-8 text; save it in that encoding"
        ) from error
    too_long = _LONG_KEY.search(text)
    if too_long:
        line = text.count("\n", 0, too_long.start()) + 1
        raise StudyError(f"{path.name} is not usable: line {line} has a key of more than 1000 characters")
    return text


def _values(path: Path, text: str) -> tuple[dict[str, Any], str]:
    """Return the tables of a TOML text as they are, and as JSON.

    As JSON, pydantic's strict types take arrays for tuples, text for paths and whole numbers for others, but neither
    text nor truth values. TOML's dates fit no key: as a table they are refused everywhere.
    """
    try:
        values = tomllib.loads(text.replace("\r\n", "\n"))
        return values, json.dumps(values, default=lambda date: {"date": str(date)})
    except tomllib.TOMLDecodeError as error:
        why = str(error).replace(
            "at end of document", f"at line {len(text.splitlines())}, the end of the file"
        )
        raise StudyError(f"{path.name} is not valid TOML: {shortened(why)}") from error
    except RecursionError as error:
        raise StudyError(
            f"{path.name} is not usable: line {_deepest_line(text)} nests too deeply; no key needs more than two levels"
        ) from error
    except ValueError as error:  # Python reads no whole number of thousands of digits
        found = _LONG_NUMBER.search(text)
        line = text.count("\n", 0, found.start()) + 1 if found else 1
        raise StudyError(f"{path.name} is not usable: line {line} has a number of too many digits") from error


def _deepest_line(text: str) -> int:
    """Return the line with the most brackets."""
    lines = text.splitlines()
    return 1 + max(range(len(lines)), key=lambda n: lines[n].count("[") + lines[n].count("{"))


def _explain(mistake: ErrorDetails, values: dict[str, Any], text: str, keys_command: str) -> str:
    location = _as_written(mistake["loc"], values)
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    line = line_of_key(text, location)
    where = f"line {line}: " if line else ""
    message = mistake["msg"].removeprefix("Value error, ")
    if mistake["type"] == "extra_forbidden":
        message = f"there is no such key; see `{keys_command}` for all of them"
    if mistake["type"] == "missing":
        message = "this key is needed but absent"
    if mistake["type"] == "model_type":
        message = f"this is a table: write [{key}] once, with its keys below"
    if mistake["type"] == "union_tag_not_found":
        message = f"the key {mistake['ctx']['discriminator']} is needed but absent"
    if mistake["type"] == "union_tag_invalid":
        known = mistake["ctx"]["expected_tags"].replace("'", "")
        tag = mistake["ctx"]["tag"]
        what = location[-1] if isinstance(location[-1], str) else mistake["ctx"]["discriminator"].strip("'")
        wrong = "this key is needed but absent" if tag == "None" else f"unknown {what} '{tag}'"
        message = f"{wrong}; known are {known}"
    return f"  {where}{shortened(key) or 'the file'}: {printable(message)}"


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
