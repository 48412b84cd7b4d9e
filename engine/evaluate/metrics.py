"""Dose and volume metrics written as clinics write them (nomenclature after AAPM TG-263, 2018, section 9).

==================  ==========================================  ====
expression          meaning                                     unit
==================  ==========================================  ====
``D95%``            least dose of the hottest 95 % of volume    Gy
``D2cc``            least dose of the hottest 2 cc              Gy
``V20Gy``           volume with at least 20 Gy                  %
``V20Gy[cc]``       the same                                    cc
``Dmean``           mean dose                                   Gy
``Dmin``, ``Dmax``  lowest and highest voxel                    Gy
==================  ==========================================  ====

A unit in brackets may be written where it is the only one: ``D95%[Gy]``.
"""

import re
from dataclasses import dataclass
from typing import Literal

from engine.errors import StudyError
from engine.evaluate.dvh import Dvh
from engine.units import PERCENT

Quantity = Literal["dose_at_percent", "dose_at_cc", "volume_at_dose", "mean", "min", "max"]
Unit = Literal["Gy", "%", "cc"]

_NUMBER = r"(?:\d+\.?\d*|\.\d+)"
_PATTERN = re.compile(
    rf"(?:D(?P<volume>{_NUMBER})(?P<volume_unit>%|cc)"
    rf"|V(?P<dose>{_NUMBER})(?P<dose_unit>Gy|cGy|%)"
    r"|D(?P<point>mean|min|max))"
    r"(?:\[(?P<unit>[^\]]*)\])?"
)
FORMS = "D95%, D2cc, V20Gy, V20Gy[cc], Dmean, Dmin, Dmax"


@dataclass(frozen=True, slots=True)
class Metric:
    """One number that is read from a dose-volume histogram.

    Parameters
    ----------
    quantity
        What is read.
    argument
        Volume in percent or cc, or dose in Gy; 0 where the quantity needs none.
    unit
        Unit of the result.
    """

    quantity: Quantity
    argument: float
    unit: Unit

    def __str__(self) -> str:
        match self.quantity:
            case "dose_at_percent":
                return f"D{self.argument:g}%"
            case "dose_at_cc":
                return f"D{self.argument:g}cc"
            case "volume_at_dose":
                return f"V{self.argument:g}Gy" + ("[cc]" if self.unit == "cc" else "")
            case _:
                return f"D{self.quantity}"

    def value(self, dvh: Dvh) -> float:
        """Read the metric, in ``unit``, from a histogram.

        Raises
        ------
        CaseError
            If the structure is smaller than the volume that is asked for.
        """
        match self.quantity:
            case "dose_at_percent":
                return dvh.dose_at_percent_gy(self.argument)
            case "dose_at_cc":
                return dvh.dose_at_volume_gy(self.argument)
            case "volume_at_dose":
                volume_cc = float(dvh.volume_at_dose_cc(self.argument))
                return volume_cc if self.unit == "cc" else PERCENT * volume_cc / dvh.total_cc
            case "mean":
                return dvh.mean_gy
            case "min":
                return dvh.min_gy
            case "max":
                return dvh.max_gy


def parse_metric(text: str) -> Metric:
    """Read a metric such as ``D95%`` or ``V20Gy[cc]``; spaces do not matter.

    Raises
    ------
    StudyError
        If the text is no metric; the message names the mistake.
    """
    found = _PATTERN.fullmatch("".join(text.split()))
    if found is None:
        raise StudyError(
            f"'{text}' is not a metric (known forms: {FORMS}); mind upper and lower case and the unit"
        )
    unit = found["unit"]
    if found["dose"] is not None:
        if found["dose_unit"] != "Gy":
            raise StudyError(
                f"'{text}' gives its dose in {found['dose_unit']} (only Gy is known); write V20Gy"
            )
        if unit not in (None, "%", "cc"):
            raise StudyError(
                f"'{text}' asks for a volume in '{unit}' (a volume comes in % or cc); write V20Gy[cc]"
            )
        return Metric("volume_at_dose", float(found["dose"]), "cc" if unit == "cc" else "%")
    if unit not in (None, "Gy"):
        raise StudyError(f"'{text}' asks for a dose in '{unit}' (a dose comes in Gy); leave the brackets out")
    match found["point"]:
        case "mean":
            return Metric("mean", 0.0, "Gy")
        case "min":
            return Metric("min", 0.0, "Gy")
        case "max":
            return Metric("max", 0.0, "Gy")
    volume = float(found["volume"])
    if volume <= 0.0:
        raise StudyError(
            f"'{text}' asks for the dose to no volume (it must be positive); write Dmax for the maximum"
        )
    if found["volume_unit"] == "cc":
        return Metric("dose_at_cc", volume, "Gy")
    if volume > PERCENT:
        raise StudyError(f"'{text}' asks for more than 100 % of a structure; write a percentage up to 100")
    return Metric("dose_at_percent", volume, "Gy")
