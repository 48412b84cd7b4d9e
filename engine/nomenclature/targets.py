"""Standard names of targets: sort, classifier, number and dose (TG-263 report, section 8)."""

import re

_BEGIN = re.compile(r"\s*(?P<sort>i?gtv|i?ctv|itv|ptv)(?![a-z]{2})", re.IGNORECASE)
_PART = re.compile(r"\d+(?:\.\d+)?|[a-z]+", re.IGNORECASE)
_CLASSIFIERS = {
    **dict.fromkeys(("p", "primary", "prim", "tumor", "tumour"), "p"),
    **dict.fromkeys(("n", "node", "nodes", "nodal", "ln"), "n"),
}
_RELATIVE = {"high": "High", "mid": "Mid", "low": "Low"}
_GY = (20.0, 90.0)
_LEAST_CGY = 1000.0


def propose_target(name: str) -> str | None:
    """Return the standard name of a target, or None if a part of its name is not understood.

    Numbers from 20 to 90 are doses in Gy, from 1000 to 9000 in cGy, and whole ones up to 9 count targets; with a unit
    behind it any number up to 90 Gy is a dose.
    """
    begin = _BEGIN.match(name)
    if begin is None or set(name) & set("+&/^~!-,"):
        return None
    classifier = number = dose = ""
    parts = [part.lower() for part in _PART.findall(name[begin.end() :])]
    while parts:
        part = parts.pop(0)
        unit = parts.pop(0) if parts and parts[0] in ("gy", "cgy") else ""
        if part in _CLASSIFIERS and not classifier and not unit:
            classifier = _CLASSIFIERS[part]
        elif part in _RELATIVE and not dose and not unit:
            dose = f"_{_RELATIVE[part]}"
        elif part[0].isdigit() and not dose and (cgy := _dose_cgy(float(part), unit)) is not None:
            dose = f"_{cgy}"
        elif part.isdigit() and 1 <= int(part) <= 9 and not number and not dose and not unit:
            number = part
        else:
            return None
    return begin["sort"].upper() + classifier + number + dose


def _dose_cgy(value: float, unit: str) -> int | None:
    """Return a dose in cGy if the number can only be one."""
    if unit == "gy" or (not unit and _GY[0] <= value <= _GY[1]):
        value *= 100.0
    elif unit != "cgy" and value < _LEAST_CGY:
        return None
    # More than that is a number of a target run into its dose: PTV154Gy.
    return round(value) if value <= 100.0 * _GY[1] else None
