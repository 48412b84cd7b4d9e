"""Homogeneity, conformity, gradient, and near-extreme doses of a target."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from engine.errors import CaseError
from engine.evaluate.dvh import ROUNDING_FRACTION, Dvh
from engine.evaluate.region import Region
from engine.units import MM3_PER_CM3, PERCENT

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
        fit, 0 where no voxel reaches the isodose.
    gradient_index
        Volume of half the isodose over that of the isodose (Paddick and Lippitz, J Neurosurg 105 suppl (2006) 194; ICRU
        Report 91); None where no voxel reaches the isodose.
    """

    isodose_gy: float
    target_cc: float
    isodose_cc: float
    covered_cc: float
    half_isodose_cc: float
    coverage_percent: float
    paddick_conformity: float
    gradient_index: float | None


def isodose_fit(
    target: Region, body: Region, dose_gy: npt.NDArray[np.floating], isodose_gy: float
) -> IsodoseFit:
    """Measure an isodose against a target.

    A voxel counts as a whole for its dose and with its coverage for its volume. In a voxel that target and body both
    cover in part they are taken to overlap as far as they can.

    Parameters
    ----------
    target, body
        The regions, on the grid of the dose.
    dose_gy
        Dose, shape ``body.grid_shape_zyx``.
    isodose_gy
        The prescription isodose, positive.

    Raises
    ------
    CaseError
        If the grids differ or the isodose is not positive.
    """
    if not (target.grid_shape_zyx == body.grid_shape_zyx == dose_gy.shape):
        raise CaseError(
            f"conformity needs one grid for target {target.grid_shape_zyx}, body {body.grid_shape_zyx} "
            f"and dose {dose_gy.shape}"
        )
    if isodose_gy <= 0.0:
        raise CaseError(f"conformity to an isodose of {isodose_gy:g} Gy has no meaning (it must be positive)")
    flat_gy = dose_gy.ravel()
    limit_gy = isodose_gy * (1.0 - ROUNDING_FRACTION)
    voxel_cc = body.voxel_volume_mm3 / MM3_PER_CM3
    in_body_gy = flat_gy[body.voxel]
    # Both lists of voxels ascend.
    place = np.minimum(np.searchsorted(body.voxel, target.voxel), body.voxel.size - 1)
    in_body = np.where(body.voxel[place] == target.voxel, body.coverage[place], np.float32(0.0))
    shared = np.minimum(target.coverage, in_body)

    def cc(coverage: npt.NDArray[np.floating]) -> float:
        return voxel_cc * float(coverage.sum(dtype=np.float64))

    target_cc, isodose_cc = cc(target.coverage), cc(body.coverage[in_body_gy >= limit_gy])
    covered_cc = cc(shared[flat_gy[target.voxel] >= limit_gy])
    half_isodose_cc = cc(body.coverage[in_body_gy >= 0.5 * limit_gy])
    return IsodoseFit(
        isodose_gy=isodose_gy,
        target_cc=target_cc,
        isodose_cc=isodose_cc,
        covered_cc=covered_cc,
        half_isodose_cc=half_isodose_cc,
        coverage_percent=PERCENT * covered_cc / target_cc,
        paddick_conformity=covered_cc**2 / (target_cc * isodose_cc) if isodose_cc > 0.0 else 0.0,
        gradient_index=half_isodose_cc / isodose_cc if isodose_cc > 0.0 else None,
    )
