"""Objective functions of the dose in one structure: docs/methods/optimisation.md lists them all."""

from collections.abc import Collection
from typing import Annotated

from pydantic import Field

from engine.errors import OptimisationError
from engine.optimise.functions.base import DoseFunction, Eqd2, LimitedFunction, ProjectedFunction, Side
from engine.optimise.functions.biological import LkbNtcp, PoissonTcp
from engine.optimise.functions.linear import LinearOverdose, LinearUnderdose
from engine.optimise.functions.means import Geud, Homogeneity, MeanDose, SmoothMaximum, SmoothMinimum
from engine.optimise.functions.squared import DoseFallOff, SquaredDeviation, SquaredOverdose, SquaredUnderdose
from engine.optimise.functions.tails import DvhDistance, DvhMeanTail, DvhPenalty, LowerMeanTail, UpperMeanTail

__all__ = [
    "DoseFallOff",
    "DoseFunction",
    "DvhDistance",
    "DvhMeanTail",
    "DvhPenalty",
    "Eqd2",
    "Function",
    "Geud",
    "Homogeneity",
    "LimitedFunction",
    "LinearOverdose",
    "LinearUnderdose",
    "LkbNtcp",
    "LowerMeanTail",
    "MeanDose",
    "PoissonTcp",
    "ProjectedFunction",
    "Side",
    "SmoothMaximum",
    "SmoothMinimum",
    "SquaredDeviation",
    "SquaredOverdose",
    "SquaredUnderdose",
    "UpperMeanTail",
    "in_words",
    "one_sided",
]

Function = Annotated[
    SquaredOverdose
    | SquaredUnderdose
    | SquaredDeviation
    | LinearOverdose
    | LinearUnderdose
    | MeanDose
    | Geud
    | SmoothMaximum
    | SmoothMinimum
    | UpperMeanTail
    | LowerMeanTail
    | DvhPenalty
    | DvhDistance
    | DvhMeanTail
    | PoissonTcp
    | LkbNtcp
    | Homogeneity
    | DoseFallOff,
    Field(discriminator="kind"),
]
"""Any objective function, chosen by its ``kind``."""


def one_sided(function: DoseFunction) -> tuple[DoseFunction, ...]:
    """Return functions of one side each whose values add up to the given one's.

    A voxel-wise worst case sees the hot side of a deviation in the highest dose and the cold side in the lowest.

    Raises
    ------
    OptimisationError
        If there are none.
    """
    if isinstance(function, SquaredDeviation):
        keys = function.model_dump(exclude={"kind"})
        return SquaredOverdose(**keys), SquaredUnderdose(**keys)
    if function.side == "both":
        raise OptimisationError(
            "a voxel-wise worst case cannot judge 'homogeneity', which has no hot and cold side; "
            "use squared_deviation, another robust form, or robust = false"
        )
    return (function,)


_WORDS = {"geud": "gEUD", "dvh": "DVH", "tcp": "TCP", "ntcp": "NTCP", "eqd2": "EQD2"}
_UNITS = {"_per_gy": "/Gy", "_per_mm": "/mm", "_gy": " Gy", "_mm": " mm", "_percent": " %"}


def in_words(function: DoseFunction, without: Collection[str] = ()) -> str:
    """Return kind and parameters of a function as a text for reports, such as ``gEUD (a 8, upper, dose 20 Gy)``.

    Parameters
    ----------
    function
        The function.
    without
        Parameters that are told elsewhere.
    """
    values = function.model_dump(exclude_defaults=True, exclude={"kind", *without})
    kind = " ".join(_WORDS.get(word, word) for word in type(function).model_fields["kind"].default.split("_"))
    details = ", ".join(_detail(key, value) for key, value in values.items())
    return f"{kind} ({details})" if details else kind


def _detail(key: str, value: object) -> str:
    if isinstance(value, dict):
        inside = ", ".join(_detail(k, v) for k, v in value.items() if v is not None)
        return f"{_WORDS.get(key, key)} with {inside}"
    if key == "limit":
        return str(value)
    number = f"{value:g}" if isinstance(value, float) else f"{value}"
    for ending, unit in _UNITS.items():
        if key.endswith(ending):
            return f"{_name(key.removesuffix(ending))} {number}{unit}"
    return f"{_name(key)} {number}"


def _name(key: str) -> str:
    return "alpha/beta" if key == "alpha_beta" else key.replace("_", " ")
