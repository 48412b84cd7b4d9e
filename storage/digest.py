"""Digests: what a result was made from, as one short name."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

DIGEST_LENGTH = 32
"""Hexadecimal digits kept of a SHA-256: 128 bits."""


def digest_of(value: Any) -> str:
    """Return the digest of nested plain values (dicts, lists, strings, numbers, None), independent of key order.

    Floats enter with all their digits. Arrays do not belong here: use `digest_of_array`.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]


def digest_of_array(array: npt.NDArray[Any]) -> str:
    """Return the digest of an array's dtype, shape and bytes."""
    h = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    h.update(np.ascontiguousarray(array).data)
    return h.hexdigest()[:DIGEST_LENGTH]


@cache
def digest_of_code(modules: tuple[str, ...]) -> str:
    """Return the digest of the sources of some modules and, for packages, of all modules and tables inside.

    A result that was made by other code has another digest, so old results are never mistaken for new ones.
    """
    h = hashlib.sha256()
    for name in sorted(modules):
        module = import_module(name)
        file = Path(str(module.__file__))
        inside = (found for found in file.parent.rglob("*") if found.suffix in (".py", ".csv", ".toml"))
        files = sorted(inside) if file.name == "__init__.py" else [file]
        for source in files:
            h.update(source.name.encode())
            h.update(source.read_bytes())
    return h.hexdigest()[:DIGEST_LENGTH]


def digest_of_files(files: Sequence[Path]) -> str:
    """Return the digest of the names and contents of some files, whatever order they come in."""
    found = []
    for file in files:
        with file.open("rb") as stream:
            found.append((os.fsencode(file.name), hashlib.file_digest(stream, "sha256").digest()))
    h = hashlib.sha256()
    # Two files of one name, in different folders, come by content: folders are listed in any order.
    for name, content in sorted(found):
        h.update(name)
        h.update(content)
    return h.hexdigest()[:DIGEST_LENGTH]


def provenance(made_from: Mapping[str, Any], cpu_s: float) -> dict[str, Any]:
    """Return what is kept with a result: its inputs, how long it took, when, and with which versions."""
    from datetime import UTC, datetime

    return {
        "made_from": dict(made_from),
        "cpu_s": cpu_s,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": dict(_versions()),
    }


@cache
def _versions() -> dict[str, str]:
    """Look the versions up once a process: it reads a file a package, which for small results would cost most."""
    from importlib.metadata import version

    return {name: version(name) for name in ("nightbeam", "numpy", "numba", "scipy", "zarr")}
