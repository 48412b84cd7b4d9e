"""Homogeneity, conformity, gradient, and near-extreme doses of a target."""

from dataclasses import dataclass
from typing import Literal

from engine.errors import CaseError
from engine.evaluate.dvh import ROUNDING_FRACTION, Dvh
from engine.units import PERCENT

SMALL_TARGET_CC = 2.0
"""Below this volume ICRU Report 91 (2017) takes near-extreme doses at an absolute volume."""
NEAR_VOLUME_CC = 0.035
"""That volume: 35 mm³."""
NearRule = Literal["D2%, D98%", "D35mm3"]


def homogeneity_index(dvh: Dvh) -> float | None:
    """Return (D2% − D98%) / D50% of a target (ICRU Report 83, 2010, section 3.7.1); 0 is a uniform dose.

    None where D50% is zero.
    """
    d50_gy = dvh.dose_at_percent_gy(50.0)
    if d50_gy <= 0.0:
        return None
    return (dvh.dose_at_percent_gy(2.0) - dvh.dose_at_percent_gy(98.0)) / d50_gy


@dataclass(frozen=True, slots=True)
class NearExtremes:
    """Near-minimum and near-maximum dose of a target; ``rule`` says at which volumes."""

    near_min_gy: float
    near_max_gy: float
    rule: NearRule


def near_extremes(dvh: Dvh) -> NearExtremes | None:
    """Return the near-minimum and near-maximum dose after ICRU Reports 83 (2010) and 91 (2017).

    D98% and D2%; of targets below 2 cm³ the dose to all but the coldest 35 mm³ (D of V − 35 mm³) and to the hottest
    35 mm³. None for a target that has not even 35 mm³.
    """
    if dvh.total_cc >= SMALL_TARGET_CC * (1.0 - ROUNDING_FRACTION):
        return NearExtremes(dvh.dose_at_percent_gy(98.0), dvh.dose_at_percent_gy(2.0), "D2%, D98%")
    if dvh.total_cc < NEAR_VOLUME_CC * (1.0 - ROUNDING_FRACTION):
        return None
    return NearExtremes(
        dvh.dose_at_volume_gy(max(dvh.total_cc - NEAR_VOLUME_CC, 0.0)),
        dvh.dose_at_volume_gy(NEAR_VOLUME_CC),
        "D35mm3",
    )


@dataclass(frozen=True, slots=True)
class IsodoseFit:
    """How an isodose and a target lie to each other; all volumes inside the body.

    Parameters
    ----------
    isodose_gy
        The isodose, usually that of the prescription.
    target_cc
        Volume of the target, TV.
    isodose_cc
        Volume with at least the isodose, PIV.
    covered_cc
        Part of the target with at least the isodose, TV_PIV.
    half_isodose_cc
        Volume with at least half of the isodose.
    coverage_percent
        Share of the target with at least the isodose, TV_PIV / TV.
    paddick_conformity
        TV_PIV² / (TV · PIV) (Paddick, J Neurosurg 93 suppl 3 (2000) 219; recommended by ICRU Report 91): 1 is a perfect
        fit, 0 where nothing reaches the isodose.
    gradient_index
        Volume of half the isodose over that of the isodose (Paddick and Lippitz, J Neurosurg 105 suppl (2006) 194; ICRU
        Report 91); None where nothing reaches the isodose.
    """

    isodose_gy: float
    target_cc: float
    isodose_cc: float
    covered_cc: float
    half_isodose_cc: float
    coverage_percent: float
    paddick_conformity: float
    gradient_index: float | None


def isodose_fit(target: Dvh, body: Dvh, isodose_gy: float) -> IsodoseFit:
    """Measure an isodose against a target, with the same histograms as all other figures.

    Parameters
    ----------
    target, body
        Histograms of a dose that is 0 outside of the body.
    isodose_gy
        The prescription isodose, positive.

    Raises
    ------
    CaseError
        If the isodose is not positive.
    """
    if isodose_gy <= 0.0:
        raise CaseError(f"conformity to an isodose of {isodose_gy:g} Gy has no meaning (it must be positive)")
    isodose_cc, half_isodose_cc = (float(cc) for cc in body.volume_at_dose_cc([isodose_gy, 0.5 * isodose_gy]))
    covered_cc = float(target.volume_at_dose_cc(isodose_gy))
    return IsodoseFit(
        isodose_gy=isodose_gy,
        target_cc=target.total_cc,
        isodose_cc=isodose_cc,
        covered_cc=covered_cc,
        half_isodose_cc=half_isodose_cc,
        coverage_percent=PERCENT * covered_cc / target.total_cc,
        paddick_conformity=covered_cc**2 / (target.total_cc * isodose_cc) if isodose_cc > 0.0 else 0.0,
        gradient_index=half_isodose_cc / isodose_cc if isodose_cc > 0.0 else None,
    )
