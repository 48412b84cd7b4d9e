"""Where in a TOML text a key stands, so that errors can name the line (tomllib keeps no positions)."""

import re
from collections.abc import Sequence

_HEADER = re.compile(r"^\s*(\[\[?)\s*([^\]]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(
    r"""^\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*="""
)


def line_of_key(text: str, location: Sequence[str | int]) -> int | None:
    """Return the line, from 1, of a key such as ``("objectives", 2, "weight")``, or of the table it should be in.

    Parameters
    ----------
    text
        The TOML text.
    location
        Keys and, for arrays, positions from 0.
    """
    wanted = tuple(location)
    table: tuple[str | int, ...] = ()
    counts: dict[tuple[str, ...], int] = {}
    best: tuple[int, int] | None = None

    def consider(path: tuple[str | int, ...], line: int) -> None:
        nonlocal best
        common = 0
        for a, b in zip(path, wanted, strict=False):
            if a != b:
                break
            common += 1
        if common == len(path) and common and (best is None or common > best[0]):
            best = (common, line)

    for line, content in enumerate(text.splitlines(), start=1):
        header = _HEADER.match(content)
        if header:
            names = tuple(_names(header[2]))
            if header[1] == "[[":
                counts[names] = counts.get(names, -1) + 1
                table = (*names, counts[names])
                consider(names, line)
            else:
                table = names
            consider(table, line)
            continue
        key = _KEY.match(content)
        if key:
            consider((*table, *_names(key[1])), line)
    return best[1] if best else None


def _names(dotted: str) -> list[str]:
    return [part.strip().strip("\"'") for part in dotted.split(".")]
