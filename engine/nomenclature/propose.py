"""Propose a standard name for what a clinic wrote; no proposal is better than a wrong one."""

import csv
import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from engine.model.case import StructureKind
from engine.nomenclature.spelling import nearest
from engine.nomenclature.standard import SIDE, is_standard, kind_of_standard, reverse_names, standard_names
from engine.nomenclature.targets import propose_target

_SYNONYMS = Path(__file__).with_name("synonyms.csv")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_SIDES = {
    **dict.fromkeys(("l", "lt", "lft", "left", "li", "links", "gauche"), "L"),
    **dict.fromkeys(("r", "rt", "rgt", "right", "re", "rechts", "droit", "droite"), "R"),
}
_FRENCH_SIDES = {
    **dict.fromkeys(("g", "gch", "gche", "ghe"), "L"),
    **dict.fromkeys(("d", "dt", "dte"), "R"),
}
_BOTH = {"both", "bilateral", "bilat", "bil"}
_GENERIC = {"spc", "musc", "ln", "vb", "strct", "tendon", "valve", "eval", "idl", "edema", "leads", "boost"}
"""Standard words that clinics use for something else, or that say too little, when in other letters."""
_LEAST_RUN_ON = 3
_LEAST_SPELT = 7
_SHORT_PART = 3
_MINUS_TARGET = re.compile(r"(?P<organ>.*[^-\s])\s*-\s*(?P<target>[GCIP]TV)s?", re.IGNORECASE)
_LIKE_TARGET = re.compile(r"(?:I?[GC]TV|[IP]TV)(?!.*(?:ring|avoid|shell|block))", re.IGNORECASE)
_PRV = re.compile(r"[\s_+-]*PRV[\s_]*(?P<mm>\d{1,2})?\s*(?:mm)?", re.IGNORECASE)


@dataclass(frozen=True)
class Proposal:
    """A standard name for a structure.

    Parameters
    ----------
    name
        The standard name.
    kind
        What it stands for.
    certain
        False where the spelling had to be guessed.
    """

    name: str
    kind: StructureKind
    certain: bool = True

    @property
    def doubt(self) -> str:
        """Text that says so where the spelling was guessed."""
        return "" if self.certain else " (spelling guessed)"


def propose(name: str) -> Proposal | None:
    """Return the standard name for a structure's name, itself if it is one, None where that is not clear.

    Sides, word order, upper and lower case, separators, common abbreviations, English, German and French words, margins
    of planning risk volumes and doses of targets are understood. Every word of the name has to be: ``Brain avoid`` has
    no proposal. Single wrong letters in longer words are forgiven, with a note.
    """
    if is_standard(name):
        return Proposal(name, kind_of_standard(name))
    target = propose_target(name)
    if target is not None:
        return Proposal(target, "TARGET")
    minus = _MINUS_TARGET.fullmatch(name.strip())
    if minus:
        organ = _organ(minus["organ"])
        return None if organ is None else _proposal(f"{organ[0]}-{minus['target'].upper()}", organ[1])
    margin = _PRV.search(name)
    if margin:
        rest = _organ(name[: margin.start()] + " " + name[margin.end() :])
        return None if rest is None else _proposal(_with_margin(rest[0], margin["mm"]), rest[1])
    organ = _organ(name)
    return None if organ is None else _proposal(*organ)


def kind_by_name(name: str) -> StructureKind:
    """Return what a structure most likely is by its name alone; OTHER where it is not clear."""
    found = propose(name)
    if found is not None:
        return found.kind
    return "TARGET" if _LIKE_TARGET.match(name) else "OTHER"


def _proposal(name: str, certain: bool) -> Proposal:
    return Proposal(name, kind_of_standard(name), certain)


def _with_margin(organ: str, margin_mm: str | None) -> str:
    side = SIDE.search(organ)
    base = SIDE.sub("", organ)
    return f"{base}_PRV{f'{int(margin_mm):02d}' if margin_mm else ''}{side[0] if side else ''}"


def _organ(name: str) -> tuple[str, bool] | None:
    """Return the standard name of an organ, and whether no letter had to be guessed."""
    words = _words(name)
    whole = "".join(words)
    if not whole:
        return None
    found = _families().get(whole, {}).get("") if whole not in _GENERIC or whole in _synonyms() else None
    if found is not None:
        return found, True
    # First at the ends: the first L of LN_AX_L3_L is no side.
    for word, others in ((words[-1], words[:-1]), (words[0], words[1:])):
        found = _families().get("".join(others), {}).get(_SIDES.get(word, "none"))
        if found is not None:
            return found, True
    sides = [_SIDES[word] for word in words if word in _SIDES]
    rest = "".join(word for word in words if word not in _SIDES)
    if len(sides) == 1:
        return _of_side(rest, sides[0], [word for word in words if word not in _SIDES])
    if sides:
        return None
    return _both(words) or _french(words) or _run_on(whole) or _spelt(whole, "", words)


def _of_side(core: str, side: str, words: list[str]) -> tuple[str, bool] | None:
    found = _families().get(core, {}).get(side)
    return (found, True) if found is not None else _spelt(core, side, words)


def _both(words: list[str]) -> tuple[str, bool] | None:
    core = "".join(word for word in words if word not in _BOTH)
    if core == "".join(words):
        return None
    for plural in (core, f"{core}s"):
        found = _families().get(plural, {}).get("")
        if found is not None and plural.endswith("s"):
            return found, True
    return None


def _french(words: list[str]) -> tuple[str, bool] | None:
    """Return a French organ with its side as one letter, which would be too little with words of other languages."""
    core, last = "".join(words[:-1]), words[-1]
    if last in _FRENCH_SIDES and _language(core) == "fr":
        found = _families()[core].get(_FRENCH_SIDES[last])
        return None if found is None else (found, True)
    return None


def _run_on(whole: str) -> tuple[str, bool] | None:
    """Return an organ whose side was written without a space: ``rightlens``, ``parotidl``, ``parotideg``."""
    found: set[str] = set()
    for word, side in (*_SIDES.items(), *_FRENCH_SIDES.items()):
        for core in (whole.removeprefix(word), whole.removesuffix(word)):
            if core == whole or len(core) < _LEAST_RUN_ON:
                continue
            if word in _FRENCH_SIDES and (_language(core) != "fr" or not whole.endswith(word)):
                continue
            name = _families().get(core, {}).get(side)
            if name is not None:
                found.add(name)
    return (found.pop(), True) if len(found) == 1 else None


def _spelt(core: str, side: str, words: list[str]) -> tuple[str, bool] | None:
    """Return the organ of the one family that is spelt almost so; short words and stray letters are not guessed."""
    if core in _families() or not core.isalpha() or min(map(len, words), default=0) < 3:
        return None
    found = {_families()[key][side] for key in nearest(core, _spellable(side))}
    return (found.pop(), False) if len(found) == 1 else None


@cache
def _spellable(side: str) -> tuple[str, ...]:
    """Return the longer words that have a side; not those with a short part, as in Esophagus_S or Spc_Bowel."""
    return tuple(
        key
        for key, family in _families().items()
        if side in family
        and key.isalpha()
        and len(key) >= _LEAST_SPELT
        and min(map(len, SIDE.sub("", family[side]).split("_"))) > _SHORT_PART
    )


def _words(name: str) -> list[str]:
    """Return the words of a name in lower case, without accents; capitals inside begin a word."""
    text = name.replace("ä", "ae").replace("ö", "oe").replace("ü", "ue").replace("ß", "ss").replace("œ", "oe")
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    if set(plain) & set("+&/^~!<>") or re.search(r"\d[.,]\d", plain):
        return []
    return [word.lower() for word in _WORD.findall(plain)]


@cache
def _families() -> dict[str, dict[str, str]]:
    """Return, for every known word or words run together, the standard names by side (L, R, or empty for none)."""
    families: dict[str, dict[str, str]] = {}

    def add(written: str, name: str) -> None:
        side = SIDE.search(name)
        families.setdefault("".join(_words(written)), {}).setdefault(side[1] if side else "", name)

    known = standard_names()
    for name, sort in known.items():
        if sort != "Target" and "-" not in name:
            add(SIDE.sub("", name), name)
    for reverse, name in reverse_names().items():
        if name in known and known[name] != "Target" and "-" not in name:
            add(re.sub(r"^[LR]_", "", reverse) if SIDE.search(name) else reverse, name)
    for word, (standard, _) in _synonyms().items():
        for name in (standard, f"{standard}_L", f"{standard}_R"):
            if name in known:
                # Over a standard word of another meaning, such as Spc for a space.
                side = SIDE.search(name)
                families.setdefault(word, {})[side[1] if side else ""] = name
    return families


@cache
def _synonyms() -> dict[str, tuple[str, str]]:
    """Return standard name (without side) and language of every synonym."""
    with _SYNONYMS.open(newline="", encoding="utf-8") as stream:
        rows = csv.DictReader(line for line in stream if not line.startswith("#"))
        return {row["word"]: (row["standard"], row["language"]) for row in rows}


def _language(word: str) -> str:
    return _synonyms().get(word, ("", ""))[1]
