"""Standard names of structures after AAPM TG-263 (Mayo et al., Int. J. Radiat. Oncol. Biol. Phys. 100 (2018) 1057)."""

import csv
import re
from functools import cache
from pathlib import Path

from engine.model.case import StructureKind

_NAMES = Path(__file__).with_name("tg263_names.csv")
SIDE = re.compile(r"_([LR])$")
TARGET = re.compile(
    r"(?:IGTV|ICTV|GTV|CTV|ITV|PTV)!?(?:n|p|sb|par|v|vas)?[1-9]?"  # sort, classifier, enumerator
    r"(?:_(?:High|Low|Mid(?:0[1-9]|[1-9])?|\d{3,5}(?:x\d+)?))?"  # relative or absolute dose, cGy
    r"(?:-\d{2})?"  # cropped back from the skin, mm
)
"""Names of targets by the rules of section 8 of the report; letters of clinics' own are not among them."""
_PRV = re.compile(r"_PRV(\d{2})?(?=_[LR]$|$)")
_PATTERN = re.compile(r"(?:xx|PRVx)")


@cache
def standard_names() -> dict[str, str]:
    """Return the sort of every standard name without placeholders: Anatomic, PRV, Derived, Target and others."""
    return {row["name"]: row["sort"] for row in _rows()}


@cache
def reverse_names() -> dict[str, str]:
    """Return the standard name for every name in reverse order."""
    return {row["reverse_name"]: row["name"] for row in _rows() if row["reverse_name"]}


def _rows() -> list[dict[str, str]]:
    with _NAMES.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(line for line in stream if not line.startswith("#")))
    return [row for row in rows if not _PATTERN.search(row["name"])]


def is_standard(name: str) -> bool:
    """Return whether a name keeps to the standard, upper and lower case included.

    Beside the list these are names of targets, planning risk volumes of listed organs (``Lens_PRV03_L``), listed
    organs without another structure (``Cavity_Oral-PTV``), parts of organs (``Lung~_L``) and names with free text
    behind a caret.
    """
    plain = name.partition("^")[0].replace("~", "")
    if plain in standard_names() or TARGET.fullmatch(plain):
        return True
    margin = _PRV.search(plain)
    if margin:
        # The side comes last: Lens_PRV_L.
        before = plain[: margin.start()]
        return not SIDE.search(before) and before + plain[margin.end() :] in standard_names()
    organ, minus, other = plain.partition("-")
    return (
        bool(minus)
        and organ in standard_names()
        and bool(other in standard_names() or TARGET.fullmatch(other))
    )


def kind_of_standard(name: str) -> StructureKind:
    """Return what a standard name stands for; Body and External are the body outline."""
    plain = name.partition("^")[0]
    if plain in ("External", "Body"):
        return "EXTERNAL"
    if TARGET.fullmatch(plain):
        return "TARGET"
    sort = standard_names().get(plain, "Anatomic" if is_standard(name) else "")
    return "ORGAN" if sort in ("Anatomic", "PRV", "Derived") else "OTHER"
