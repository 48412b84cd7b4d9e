"""The only module that names numba's decorators, so that every kernel is compiled in one way.

``nogil`` lets threads run kernels side by side. ``fastmath`` stays off: it would make results depend on how a
compiler happened to reorder a sum. ``contract`` alone is allowed (fused multiply-add), which is fixed for one kind
of processor.

numba keeps machine code on disk, apart for each type of processor, and makes it anew when a kernel's own file changes,
not when a helper or a constant from another file does. So the machine code has a folder for each state of all those
sources.
"""

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., object])

_COMPILED = re.compile(rb"^(?:from|import) (?:engine\._(?:jit|vector)|numba)\b", re.MULTILINE)
_IMPORTED = re.compile(rb"^from (engine[\w.]*) import", re.MULTILINE)


def sources_digest(engine: Path) -> str:
    """Return the digest of all sources that machine code may come from.

    These are the modules with compiled functions, and whatever of the engine they import, directly or not: numba
    compiles helpers and constants from there into the kernels.

    Parameters
    ----------
    engine
        The folder of the package ``engine``.
    """
    sources = {file: file.read_bytes() for file in engine.rglob("*.py")}
    waiting = [file for file, source in sources.items() if _COMPILED.search(source)]
    found: set[Path] = set()
    while waiting:
        file = waiting.pop()
        if file in found:
            continue
        found.add(file)
        for name in _IMPORTED.findall(sources[file]):
            module = engine.parent.joinpath(*name.decode().split("."))
            waiting.extend({module.with_suffix(".py"), module / "__init__.py"} & sources.keys())
    digest = hashlib.sha256()
    for file in sorted(found):
        digest.update(f"{file.relative_to(engine)} {len(sources[file])} ".encode() + sources[file])
    return digest.hexdigest()[:16]


def cache_folder(engine: Path) -> Path | None:
    """Return this user's folder for machine code of these sources, or None where none can be written.

    Parameters
    ----------
    engine
        The folder of the package ``engine``.
    """
    # A relative path is to be ignored, says the XDG base directory specification.
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        if not base.is_absolute():
            base = Path("~/.cache").expanduser()
        folder = base / "nightbeam" / f"numba-{sources_digest(engine)}"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: nobody knows where home is
        return None
    return folder if os.access(folder, os.W_OK) else None


# Set here and not in the environment, so that every process goes by the sources that it has itself imported. A folder
# that the user chose (NUMBA_CACHE_DIR) stays; without any, numba takes its default.
if not numba.config.CACHE_DIR:  # type: ignore[attr-defined]
    numba.config.CACHE_DIR = str(cache_folder(Path(__file__).parent) or "")  # type: ignore[attr-defined]


def kernel(function: F) -> F:
    """Compile ``function`` on first use, cached on disk, without the interpreter lock."""
    return cast("F", numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})(function))


def inlined(function: F) -> F:
    """Compile a small helper that kernels call."""
    return cast(
        "F",
        numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"}, inline="never")(
            function
        ),
    )
