"""The planning tests of AAPM Task Group 119, in water and without texture.

The report (Ezzell et al., Med. Phys. 36 (2009) 5359, and its instructions for users, draft of 15 September 2008)
describes the structures in words and with a few dimensions; it gives no coordinates of contours. Every docstring says
what is from the report and what was chosen here, so the phantoms are *after* the report and not copies of its
structure sets. The goals and the results of the report's institutions are in ``examples/tg119_*.toml``.
"""

import math
from functools import partial

import numpy as np

from engine.errors import CaseError
from engine.model.arrays import F64
from engine.model.case import Case, Contour, Structure
from engine.model.grid import Grid
from engine.phantoms.shapes import (
    WATER_HU,
    Ellipsoid,
    Oval,
    Solid,
    arc,
    grid_around,
    keep_out,
    mixed_hu,
    rectangle,
    stack,
    structure,
)

C_OUTER_MM, C_INNER_MM, C_LENGTH_MM = 37.0, 15.0, 80.0
CORE_RADIUS_MM, CORE_LENGTH_MM = 10.0, 100.0
C_END_MM = 6.5
"""Where the arms of the C end behind the core's axis; see `tg119_cshape`."""
TARGET_RADIUS_MM, TARGET_LENGTH_MM = 20.0, 40.0
SLAB_BODY_MM_XYZ = (300.0, 200.0, 200.0)
PROSTATE = Ellipsoid((0.0, 0.0, 0.0), (20.0, 13.0, 32.5))
PROSTATE_MARGIN_MM = 6.0
RECTUM = Oval(0.0, 19.5, 7.5, 7.5)
RECTUM_LENGTH_MM = 80.0
BLADDER = Ellipsoid((0.0, -19.0, 40.0), (25.0, 20.0, 25.0))
NECK = Oval(0.0, 0.0, 65.0, 75.0)
NECK_LENGTH_MM = 200.0
HN_PTV_MM_Z = (-45.0, 45.0)
CORD = Oval(0.0, 28.0, 6.0, 6.0)
CORD_GAP_MM, SKIN_GAP_MM = 15.0, 6.0
PAROTIDS = {
    side: Ellipsoid((x_mm, 5.0, 30.0), (10.0, 17.0, 20.0)) for side, x_mm in (("L", 48.0), ("R", -48.0))
}
PAROTID_GAP_MM = 5.0


def tg119_cshape(
    voxel_mm: float = 2.5, body_size_mm_xyz: tuple[float, float, float] = (300.0, 200.0, 200.0)
) -> Case:
    """Return the C-shaped target around a core, after the description of AAPM Task Group 119.

    From the report (Ezzell et al., Med. Phys. 36 (2009) 5359, section on the C-shape tests): the core is a cylinder of
    1 cm radius and 10 cm length; the target's inner surface has 1.5 cm radius (a gap of 0.5 cm), its outer surface
    3.7 cm; the target is 8 cm long; the phantom is a stack of water-equivalent slabs.

    Assumed here, as the report gives no numbers: the core's axis is the centre of the phantom; both shapes are centred
    along it; the C lies in front of the core and opens to the back (+y); its arms end in the plane 6.5 mm behind the
    axis, which makes the target 167 cm3, as large as that of the CORT data set of the same case
    (Craft et al., GigaScience 3 (2014) 37); the body is a box of water.

    Parameters
    ----------
    voxel_mm
        Edge length of the cubic voxels.
    body_size_mm_xyz
        Edge lengths of the box.

    Raises
    ------
    CaseError
        If the body is too small for the shapes, or a length is not positive.
    """
    least_mm = (2.0 * C_OUTER_MM, 2.0 * C_OUTER_MM, CORE_LENGTH_MM)
    if any(size < least for size, least in zip(body_size_mm_xyz, least_mm, strict=True)):
        raise CaseError(
            f"invalid body_size_mm_xyz={body_size_mm_xyz} (the C and its core need at least {least_mm})"
        )
    width_mm, height_mm, length_mm = body_size_mm_xyz
    grid = grid_around(body_size_mm_xyz, voxel_mm)
    body = stack(rectangle(-width_mm / 2, width_mm / 2, -height_mm / 2, height_mm / 2), length_mm, voxel_mm)
    outer_end_rad, inner_end_rad = math.asin(C_END_MM / C_OUTER_MM), math.asin(C_END_MM / C_INNER_MM)
    outer = arc(C_OUTER_MM, -math.pi - outer_end_rad, outer_end_rad)
    inner = arc(C_INNER_MM, inner_end_rad, -math.pi - inner_end_rad)
    target = stack(np.concatenate([outer, inner]), C_LENGTH_MM, voxel_mm)
    core = stack(arc(CORE_RADIUS_MM, 0.0, 2.0 * math.pi)[:-1], CORE_LENGTH_MM, voxel_mm)
    structures = (
        structure("BODY", "EXTERNAL", body, grid),
        structure("OuterTarget", "TARGET", target, grid),
        structure("Core", "ORGAN", core, grid),
    )
    ct_hu = mixed_hu(grid, [(structures[0].coverage, WATER_HU)])
    return Case("tg119-cshape", grid, ct_hu, structures)


def tg119_multitarget(voxel_mm: float = 2.5) -> Case:
    """Return three stacked cylinders that get different doses, after the description of AAPM Task Group 119.

    From the report (Ezzell et al., Med. Phys. 36 (2009) 5359): three cylindrical targets are stacked along the axis
    of rotation, each about 4 cm in diameter and 4 cm long; the central one gets the full dose, the superior one 50 %
    and the inferior one 25 %; the phantom is a stack of water-equivalent slabs.

    Chosen here: the cylinders touch; the centre of the middle one is the centre of the box of water, which is that of
    `tg119_cshape`.

    Structures: ``BODY``, ``CentralTarget``, ``SuperiorTarget``, ``InferiorTarget`` (50.3 cm3 each), and
    ``AllTargets``, the
    three together, which the beams have to cover.
    """
    grid, body = _slab_body(voxel_mm)
    outline = arc(TARGET_RADIUS_MM, 0.0, 2.0 * math.pi)[:-1]
    targets = (
        ("CentralTarget", 0.0),
        ("SuperiorTarget", TARGET_LENGTH_MM),
        ("InferiorTarget", -TARGET_LENGTH_MM),
    )
    structures = (
        body,
        *(
            structure(name, "TARGET", stack(outline, TARGET_LENGTH_MM, voxel_mm, z_mm), grid)
            for name, z_mm in targets
        ),
        structure("AllTargets", "TARGET", stack(outline, 3.0 * TARGET_LENGTH_MM, voxel_mm), grid),
    )
    return Case("tg119-multitarget", grid, mixed_hu(grid, [(body.coverage, WATER_HU)]), structures)


def tg119_prostate(voxel_mm: float = 2.5) -> Case:
    """Return the mock prostate with rectum and bladder, after the description of AAPM Task Group 119.

    From the report (Ezzell et al., Med. Phys. 36 (2009) 5359): the CTV is roughly ellipsoidal with a concavity at the
    back and measures 4.0 cm right-left, 2.6 cm front-back and 6.5 cm along the patient; the PTV is the CTV with
    0.6 cm around it; the rectum is a cylinder of 1.5 cm diameter that abuts the dented back of the prostate; the PTV
    takes in about a third of the rectum on the widest slice of the PTV; the bladder is roughly ellipsoidal, 5.0 cm x
    4.0 cm x 5.0 cm, and centred on the superior aspect of the prostate.

    Chosen here: the CTV is an exact ellipsoid, out of which the rectum is cut; the dent is 1 mm deep,
    with which the PTV takes in 42 % of the rectum on its middle slice (a third would leave next to no dent); the rectum
    is 8 cm long; the centre of the bladder lies 7.5 mm above the top of the CTV and 1.9 cm in front of
    its axis, so that they touch and 7 % of the bladder lie in the PTV; the body is the box of `tg119_cshape`.

    Structures: ``BODY``, ``PTV``, ``CTV``, ``Rectum``, ``Bladder`` (the bladder without what the CTV has of it).
    """
    grid, body = _slab_body(voxel_mm)
    ctv = Solid(PROSTATE.solid.bottom_mm, PROSTATE.solid.top_mm, _prostate_section)
    structures = (
        body,
        structure("PTV", "TARGET", _grown(ctv, PROSTATE_MARGIN_MM).contours(grid), grid),
        structure("CTV", "TARGET", ctv.contours(grid), grid),
        structure("Rectum", "ORGAN", stack(RECTUM.polygon(360), RECTUM_LENGTH_MM, voxel_mm), grid),
        structure("Bladder", "ORGAN", _bladder().contours(grid), grid),
    )
    return Case("tg119-prostate", grid, mixed_hu(grid, [(body.coverage, WATER_HU)]), structures)


def tg119_head_neck(voxel_mm: float = 2.5) -> Case:
    """Return the mock head and neck with cord and parotids, after the description of AAPM Task Group 119.

    From the report (Ezzell et al., Med. Phys. 36 (2009) 5359): the PTV takes in all anterior volume from the base of
    the skull to the upper neck, with the posterior neck nodes, and stays 0.6 cm away from the skin; between cord and
    PTV is a gap of about 1.5 cm; the parotids, to be spared, lie at the superior aspect of the PTV.

    Chosen here, as the report gives no other number: the body is an elliptic cylinder of water, 13 cm wide, 15 cm from
    front to back and 20 cm long; the cord is a cylinder of 1.2 cm diameter, 2.8 cm behind the centre of the body; the
    PTV is 9 cm long and reaches round the cord to 115 degrees from the front on both sides; each parotid is an
    ellipsoid of 2.0 cm x 3.4 cm x 4.0 cm that begins 3.5 cm below the top of the PTV and lies beside it, 0.5 cm away.

    Structures: ``BODY``, ``PTV``, ``SpinalCord``, ``Parotid_L``, ``Parotid_R``.
    """
    grid = grid_around((2.0 * NECK.a_mm, 2.0 * NECK.b_mm, NECK_LENGTH_MM), voxel_mm)
    body = structure("BODY", "EXTERNAL", stack(NECK.polygon(720), NECK_LENGTH_MM, voxel_mm), grid)
    structures = (
        body,
        structure("PTV", "TARGET", _head_neck_ptv(voxel_mm), grid),
        structure("SpinalCord", "ORGAN", stack(CORD.polygon(360), NECK_LENGTH_MM, voxel_mm), grid),
        *(
            structure(f"Parotid_{side}", "ORGAN", shape.solid.contours(grid), grid)
            for side, shape in PAROTIDS.items()
        ),
    )
    return Case("tg119-head-neck", grid, mixed_hu(grid, [(body.coverage, WATER_HU)]), structures)


def _slab_body(voxel_mm: float) -> tuple[Grid, Structure]:
    """Return the grid and the box of water of the tests in slabs."""
    width_mm, height_mm, length_mm = SLAB_BODY_MM_XYZ
    grid = grid_around(SLAB_BODY_MM_XYZ, voxel_mm)
    outline = rectangle(-width_mm / 2, width_mm / 2, -height_mm / 2, height_mm / 2)
    return grid, structure("BODY", "EXTERNAL", stack(outline, length_mm, voxel_mm), grid)


def _prostate_section(z_mm: float) -> F64:
    """Return the CTV's cross-section: that of the ellipsoid, dented by the rectum."""
    return keep_out(PROSTATE.oval(z_mm).polygon(240), RECTUM)


def _bladder() -> Solid:
    """Return the bladder, dented by the CTV where both meet."""
    return Solid(
        BLADDER.solid.bottom_mm,
        BLADDER.solid.top_mm,
        lambda z_mm: keep_out(BLADDER.oval(z_mm).polygon(360), PROSTATE.oval(z_mm)),
    )


def _head_neck_ptv(voxel_mm: float) -> tuple[Contour, ...]:
    """Return the PTV: below the parotids, and between them."""
    bottom_mm, top_mm = HN_PTV_MM_Z
    parotids_mm = PAROTIDS["L"].solid.bottom_mm - PAROTID_GAP_MM
    below, between = _head_neck_section(False), _head_neck_section(True)
    return (
        *Solid(bottom_mm, parotids_mm, lambda _: below).planes(voxel_mm),
        *Solid(parotids_mm, top_mm, lambda _: between).planes(voxel_mm),
    )


def _head_neck_section(between_parotids: bool) -> F64:
    """Return the PTV's cross-section: a sector of a ring round the cord, cut by the skin or by the parotids."""
    end_rad = math.radians(115.0)
    angle = np.linspace(-end_rad, end_rad, 241)
    direction = np.stack([np.sin(angle), -np.cos(angle)], axis=1)
    cord = np.array([CORD.x_mm, CORD.y_mm])
    # A radius of 20 cm lies outside the neck everywhere; it is found again on the border by halving.
    low, high = np.full(angle.shape, CORD.a_mm + CORD_GAP_MM), np.full(angle.shape, 200.0)
    limits = [NECK.grown(-SKIN_GAP_MM)]
    parotid = PAROTIDS["L"]
    if between_parotids:
        half_mm = parotid.centre_mm_xyz[0] - parotid.semi_axis_mm_xyz[0] - PAROTID_GAP_MM
        limits.append(Oval(0.0, 0.0, half_mm, NECK.b_mm, 8.0))
    for _ in range(40):
        middle = 0.5 * (low + high)
        points = cord + middle[:, None] * direction
        inside = np.all([oval.radius(points) <= 1.0 for oval in limits], axis=0)
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    inner = cord + (CORD.a_mm + CORD_GAP_MM) * direction[::-1]
    return np.concatenate([cord + low[:, None] * direction, inner])


def _grown(solid: Solid, margin_mm: float) -> Solid:
    """Return a solid round the z axis with a margin on all sides, in three dimensions.

    A cross-section of the result holds, in every direction from the axis, the last point that is no further than the
    margin from the solid's surface (drawn as points at most 1 mm apart: within 0.02 mm for a margin of 6 mm).
    """
    heights_mm = np.linspace(solid.bottom_mm, solid.top_mm, math.ceil(solid.top_mm - solid.bottom_mm) + 1)
    surface = np.concatenate([np.insert(solid.section(z), 2, z, axis=1) for z in heights_mm.tolist()])
    return Solid(solid.bottom_mm - margin_mm, solid.top_mm + margin_mm, partial(_near, surface, margin_mm))


def _near(surface_mm_xyz: F64, margin_mm: float, z_mm: float) -> F64:
    """Return the polygon at a height round everything that is near to a surface: the border of balls on its points."""
    near_mm2 = margin_mm**2 - (surface_mm_xyz[:, 2] - z_mm) ** 2
    points, near_mm2 = surface_mm_xyz[near_mm2 > 0.0, :2], near_mm2[near_mm2 > 0.0]
    angle = np.linspace(0.0, 2.0 * math.pi, 240, endpoint=False)
    direction = np.stack([np.cos(angle), np.sin(angle)])
    along_mm = points @ direction
    left_mm2 = near_mm2[:, None] - (points**2).sum(axis=1)[:, None] + along_mm**2
    radius_mm = np.where(left_mm2 > 0.0, along_mm + np.sqrt(np.maximum(left_mm2, 0.0)), 0.0).max(axis=0)
    polygon: F64 = (np.maximum(radius_mm, 1e-3) * direction).T
    return polygon
