"""Cut a case and its dose in three planes, the way a radiologist looks at them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from engine.model.arrays import F32, F64, I64
from engine.model.case import Case

MARGIN_MM = 10.0
"""What is shown around the body."""


@dataclass(frozen=True, slots=True)
class Plane:
    """One plane; all images have shape (n_up, n_across) and axes in patient coordinates.

    Parameters
    ----------
    name, normal_axis, position_mm
        Plane, the axis across it and where it cuts that.
    across_mm, up_mm
        Voxel centres along the axes of the image; ``up_mm`` may run down the page, see ``ylim_mm``.
    ct_hu, dose_gy, body
        Images.
    coverages
        Coverage of the chosen structures.
    extent_mm
        Outer edges of the image: left, right, bottom, top.
    xlim_mm, ylim_mm
        The part to show, from left to right and from bottom to top of the page.
    point_mm
        The point that all planes share, in the axes of the image.
    letters
        Where the patient's sides are: left, right, bottom and top of the page.
    """

    name: Literal["axial", "coronal", "sagittal"]
    normal_axis: Literal["x", "y", "z"]
    position_mm: float
    across_mm: F64
    up_mm: F64
    ct_hu: F32
    dose_gy: F32
    body: F32
    coverages: tuple[F32, ...]
    extent_mm: tuple[float, float, float, float]
    xlim_mm: tuple[float, float]
    ylim_mm: tuple[float, float]
    point_mm: tuple[float, float]
    letters: tuple[str, str, str, str]


def planes_through(
    case: Case, dose_gy: F32, point_mm_xyz: tuple[float, float, float], structures: Sequence[str]
) -> tuple[Plane, Plane, Plane]:
    """Cut axial, coronal and sagittal at the voxel nearest to a point.

    The patient's right is on the left of axial and coronal planes, the head on top of coronal and sagittal
    ones, and the front on the left of sagittal ones. A point outside of the CT is moved to its edge.

    Raises
    ------
    CaseError
        If the case has no body or no structure of a name.
    """
    nz, ny, nx = case.grid.shape_zyx
    nearest = [
        int(np.clip(round((p - o) / s), 0, n - 1))
        for p, o, s, n in zip(
            point_mm_xyz, case.grid.origin_mm_xyz, case.grid.spacing_mm_xyz, (nx, ny, nz), strict=True
        )
    ]
    chosen = [case.structure(name).coverage for name in structures]
    body = case.external.coverage
    return (
        _plane(case, dose_gy, body, chosen, nearest, "axial"),
        _plane(case, dose_gy, body, chosen, nearest, "coronal"),
        _plane(case, dose_gy, body, chosen, nearest, "sagittal"),
    )


def _limits_mm(centres: F64, edges: F64, touched: I64) -> tuple[float, float]:
    """Return what to show along an axis of a plane: the voxels that the body touches and a margin, inside the CT."""
    if touched.size == 0:
        return float(edges[0]), float(edges[-1])
    low, high = centres[touched[0]] - MARGIN_MM, centres[touched[-1]] + MARGIN_MM
    return float(max(low, edges[0])), float(min(high, edges[-1]))


def _plane(
    case: Case,
    dose_gy: F32,
    body: F32,
    chosen: Sequence[F32],
    nearest: Sequence[int],
    name: Literal["axial", "coronal", "sagittal"],
) -> Plane:
    # Image axes across and up the page, the axis across the plane, whether the page turns the upward one.
    across, up, normal, turned, letters = {
        "axial": (0, 1, 2, True, ("R", "L", "P", "A")),
        "coronal": (0, 2, 1, False, ("R", "L", "F", "H")),
        "sagittal": (1, 2, 0, False, ("A", "P", "F", "H")),
    }[name]
    cut: list[slice | int] = [slice(None), slice(None), slice(None)]
    cut[2 - normal] = nearest[normal]
    key = tuple(cut)
    edges_across, edges_up = case.grid.edges_mm_xyz[across], case.grid.edges_mm_xyz[up]
    centres = case.grid.centres_mm_xyz
    inside = body[key] >= 0.5
    limits_across = _limits_mm(centres[across], edges_across, np.flatnonzero(inside.any(axis=0)))
    limits_up = _limits_mm(centres[up], edges_up, np.flatnonzero(inside.any(axis=1)))
    normal_axis: Literal["x", "y", "z"] = "z" if name == "axial" else "y" if name == "coronal" else "x"
    return Plane(
        name=name,
        normal_axis=normal_axis,
        position_mm=float(centres[normal][nearest[normal]]),
        across_mm=centres[across],
        up_mm=centres[up],
        ct_hu=case.ct_hu[key],
        dose_gy=dose_gy[key],
        body=body[key],
        coverages=tuple(coverage[key] for coverage in chosen),
        extent_mm=(float(edges_across[0]), float(edges_across[-1]), float(edges_up[0]), float(edges_up[-1])),
        xlim_mm=limits_across,
        ylim_mm=limits_up[::-1] if turned else limits_up,
        point_mm=(float(centres[across][nearest[across]]), float(centres[up][nearest[up]])),
        letters=letters,
    )
