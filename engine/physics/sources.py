"""Keep SOURCES.toml: for every data file its origin, vintage, maker and checksum."""

import hashlib
import json
import tomllib
from pathlib import Path

SOURCES_FILE = "SOURCES.toml"
_HEADING = "# Where every file of this folder comes from. Written by the scripts that make the files."


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def record_source(path: Path, *, origin: str, vintage: str, made_by: str) -> None:
    """Add or replace the entry of the data file ``path`` in the SOURCES.toml beside it; keep all others."""
    register = path.parent / SOURCES_FILE
    entries = tomllib.loads(register.read_text(encoding="utf-8")) if register.is_file() else {}
    entries[path.name] = {
        "origin": origin,
        "vintage": vintage,
        "made_by": made_by,
        "sha256": file_sha256(path),
    }
    lines = [_HEADING]
    for name in sorted(entries):
        lines.append(f'\n["{name}"]')
        # A JSON string is a valid TOML basic string.
        lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in entries[name].items()]
    register.write_text("\n".join(lines) + "\n", encoding="utf-8")
