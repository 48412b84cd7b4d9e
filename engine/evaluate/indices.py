"""Homogeneity and conformity of a target dose."""

import numpy as np
import numpy.typing as npt

from engine.errors import CaseError
from engine.evaluate.dvh import ROUNDING_FRACTION, Dvh
from engine.evaluate.region import Region


def homogeneity_index(dvh: Dvh) -> float | None:
    """Return (D2% − D98%) / D50% of a target (ICRU Report 83, 2010, section 3.7.1); 0 is a uniform dose.

    None where D50% is zero.
    """
    d50_gy = dvh.dose_at_percent_gy(50.0)
    if d50_gy <= 0.0:
        return None
    return (dvh.dose_at_percent_gy(2.0) - dvh.dose_at_percent_gy(98.0)) / d50_gy


def paddick_conformity_index(
    target: Region, body: Region, dose_gy: npt.NDArray[np.floating], isodose_gy: float
) -> float:
    """Return TV_PIV² / (TV · PIV) (Paddick 2000, J Neurosurg 93 suppl 3, 219-222); 1 is a perfect fit.

    TV is the target volume, PIV the volume inside the body with at least ``isodose_gy`` and TV_PIV the part
    of the target inside that; a voxel counts as a whole for its dose and with its coverage for its volume. In
    a voxel that target and body both cover in part they are taken to overlap as far as they can. The result
    is 0 where no voxel reaches the isodose.

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
    piv = float(body.coverage[flat_gy[body.voxel] >= limit_gy].sum(dtype=np.float64))
    if piv == 0.0:
        return 0.0
    _, in_target, in_body = np.intersect1d(target.voxel, body.voxel, assume_unique=True, return_indices=True)
    shared = np.minimum(target.coverage[in_target], body.coverage[in_body])
    tv_piv = float(shared[flat_gy[target.voxel[in_target]] >= limit_gy].sum(dtype=np.float64))
    return tv_piv**2 / (float(target.coverage.sum(dtype=np.float64)) * piv)
