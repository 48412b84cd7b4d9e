"""Phantoms that are voxelised exactly from shapes, so that everyone has the same cases without any file.

Every shape is a stack of polygons (circles are drawn with 720 corners), placed so that the slabs of the contour planes
fill its length exactly; coverage comes from `engine.geometry.voxelise`, just as for a structure set that was read
from DICOM. A case that was written as DICOM and read again is therefore the same, up to the rounding of coordinates
in the file. An inscribed polygon of 720 corners has 0.0013 % less area than its circle.

Hounsfield units are the coverage-weighted mean of what lies in a voxel: a face between voxel borders gives a partial
volume, as in a scanner. The origin of the coordinates is the centre of the body; it is surrounded by air.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from engine.errors import CaseError
from engine.geometry.voxelise import voxelise
from engine.model.arrays import F32, F64
from engine.model.case import Case, Contour, Structure, StructureKind
from engine.model.grid import Grid

AIR_HU = -1000.0
WATER_HU = 0.0
MARGIN_MM = 25.0
"""Least thickness of air around the body; it is rounded up to whole voxels."""
CORNERS_PER_TURN = 720
"""Relative area error of an inscribed polygon: (2 pi / n)^2 / 6 = 1.3e-5."""
C_OUTER_MM, C_INNER_MM, C_LENGTH_MM = 37.0, 15.0, 80.0
CORE_RADIUS_MM, CORE_LENGTH_MM = 10.0, 100.0
C_END_MM = 6.5
"""Where the arms of the C end behind the core's axis; see `tg119_cshape`."""
DEFAULT_LAYERS = ((40.0, WATER_HU), (20.0, 800.0), (80.0, -750.0), (60.0, WATER_HU))
"""Soft tissue, bone, lung, soft tissue, like a path through a chest: thickness in mm and Hounsfield units."""


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
    grid = _grid_around(body_size_mm_xyz, voxel_mm)
    body = _stack(_rectangle(-width_mm / 2, width_mm / 2, -height_mm / 2, height_mm / 2), length_mm, voxel_mm)
    outer_end_rad, inner_end_rad = math.asin(C_END_MM / C_OUTER_MM), math.asin(C_END_MM / C_INNER_MM)
    outer = _arc(C_OUTER_MM, -math.pi - outer_end_rad, outer_end_rad)
    inner = _arc(C_INNER_MM, inner_end_rad, -math.pi - inner_end_rad)
    target = _stack(np.concatenate([outer, inner]), C_LENGTH_MM, voxel_mm)
    core = _stack(_arc(CORE_RADIUS_MM, 0.0, 2.0 * math.pi)[:-1], CORE_LENGTH_MM, voxel_mm)
    structures = (
        _structure("BODY", "EXTERNAL", body, grid),
        _structure("OuterTarget", "TARGET", target, grid),
        _structure("Core", "ORGAN", core, grid),
    )
    ct_hu = _mixed_hu(grid, [(structures[0].coverage, WATER_HU)])
    return Case("tg119-cshape", grid, ct_hu, structures)


def water_box(
    size_mm_xyz: tuple[float, float, float] = (300.0, 300.0, 300.0),
    voxel_mm: float = 2.5,
    target_size_mm_xyz: tuple[float, float, float] = (60.0, 60.0, 60.0),
) -> Case:
    """Return a box of water with a box-shaped target in its centre: structures ``BODY`` and ``Target``.

    Parameters
    ----------
    size_mm_xyz
        Edge lengths of the box.
    voxel_mm
        Edge length of the cubic voxels.
    target_size_mm_xyz
        Edge lengths of the target.

    Raises
    ------
    CaseError
        If the target does not fit into the box, or a length is not positive.
    """
    return _layered("water-box", size_mm_xyz, ((size_mm_xyz[1], WATER_HU),), voxel_mm, target_size_mm_xyz)


def slabs(
    layers: Sequence[tuple[float, float]] = DEFAULT_LAYERS,
    size_mm_xz: tuple[float, float] = (200.0, 200.0),
    voxel_mm: float = 2.5,
    target_size_mm_xyz: tuple[float, float, float] = (50.0, 50.0, 50.0),
) -> Case:
    """Return slabs of different materials behind each other, as a beam from the front (gantry 0) meets them.

    Structures are ``BODY``, ``Target`` (a box in the centre) and ``Layer1``, ``Layer2``, … from front to back (-y to
    +y). Which material a Hounsfield unit means is said by the study's conversion table.

    Parameters
    ----------
    layers
        Thickness in mm and Hounsfield units of every layer.
    size_mm_xz
        Width and length of the layers.
    voxel_mm
        Edge length of the cubic voxels.
    target_size_mm_xyz
        Edge lengths of the target.

    Raises
    ------
    CaseError
        If there is no layer, the target does not fit, or a length is not positive.
    """
    if not layers or min(thickness_mm for thickness_mm, _ in layers) <= 0.0:
        raise CaseError(
            f"invalid layers={tuple(layers)} (there must be one or more, each of positive thickness)"
        )
    size_mm_xyz = (size_mm_xz[0], math.fsum(thickness_mm for thickness_mm, _ in layers), size_mm_xz[1])
    return _layered("slabs", size_mm_xyz, layers, voxel_mm, target_size_mm_xyz)


PHANTOMS: Mapping[str, Callable[[], Case]] = {
    "tg119-cshape": tg119_cshape,
    "water-box": water_box,
    "slabs": slabs,
}
"""Builders by the names that the command line and study files use."""


def _layered(
    name: str,
    size_mm_xyz: tuple[float, float, float],
    layers: Sequence[tuple[float, float]],
    voxel_mm: float,
    target_size_mm_xyz: tuple[float, float, float],
) -> Case:
    """Return a box of layers along y with a box-shaped target in its centre."""
    if any(not 0.0 < target <= size for target, size in zip(target_size_mm_xyz, size_mm_xyz, strict=True)):
        raise CaseError(
            f"invalid target_size_mm_xyz={target_size_mm_xyz} (it must fit into the body of {size_mm_xyz})"
        )
    grid = _grid_around(size_mm_xyz, voxel_mm)
    half_x_mm, half_y_mm, _ = (0.5 * size_mm for size_mm in size_mm_xyz)
    body = _stack(_rectangle(-half_x_mm, half_x_mm, -half_y_mm, half_y_mm), size_mm_xyz[2], voxel_mm)
    half_target_x_mm, half_target_y_mm, _ = (0.5 * size_mm for size_mm in target_size_mm_xyz)
    target_outline = _rectangle(-half_target_x_mm, half_target_x_mm, -half_target_y_mm, half_target_y_mm)
    structures = [
        _structure("BODY", "EXTERNAL", body, grid),
        _structure("Target", "TARGET", _stack(target_outline, target_size_mm_xyz[2], voxel_mm), grid),
    ]
    materials: list[tuple[F32, float]] = []
    front_mm = -half_y_mm
    for number, (thickness_mm, hu) in enumerate(layers, start=1):
        outline = _rectangle(-half_x_mm, half_x_mm, front_mm, front_mm + thickness_mm)
        layer = _structure(f"Layer{number}", "OTHER", _stack(outline, size_mm_xyz[2], voxel_mm), grid)
        materials.append((layer.coverage, hu))
        if len(layers) > 1:
            structures.append(layer)
        front_mm += thickness_mm
    return Case(name, grid, _mixed_hu(grid, materials), tuple(structures))


def _grid_around(size_mm_xyz: tuple[float, float, float], voxel_mm: float) -> Grid:
    """Return a grid around a centred box; voxel borders lie on its faces where its size is a multiple of a voxel."""
    if not (voxel_mm > 0.0 and min(size_mm_xyz) > 0.0):
        raise CaseError(f"invalid voxel_mm={voxel_mm} or size {size_mm_xyz} (every length must be positive)")
    rounding = 1e-9
    counts = [
        math.ceil(size_mm / voxel_mm - rounding) + 2 * math.ceil(MARGIN_MM / voxel_mm - rounding)
        for size_mm in size_mm_xyz
    ]
    x_mm, y_mm, z_mm = (-0.5 * (count - 1) * voxel_mm for count in counts)
    return Grid((x_mm, y_mm, z_mm), (voxel_mm, voxel_mm, voxel_mm), (counts[2], counts[1], counts[0]))


def _rectangle(left_mm: float, right_mm: float, front_mm: float, back_mm: float) -> F64:
    """Return the corners of a rectangle, shape (4, 2)."""
    return np.array([[left_mm, front_mm], [right_mm, front_mm], [right_mm, back_mm], [left_mm, back_mm]])


def _arc(radius_mm: float, start_rad: float, end_rad: float) -> F64:
    """Return points on an arc around the origin, both ends included, shape (n_point, 2)."""
    n_step = max(1, math.ceil(abs(end_rad - start_rad) / (2.0 * math.pi) * CORNERS_PER_TURN - 1e-9))
    angle = np.linspace(start_rad, end_rad, n_step + 1)
    return np.stack([radius_mm * np.cos(angle), radius_mm * np.sin(angle)], axis=1)


def _stack(outline_mm_xy: F64, length_mm: float, voxel_mm: float) -> tuple[Contour, ...]:
    """Return a centred prism as contour planes, at most a voxel apart, whose slabs fill its length exactly.

    There are at least two, as the slab of a lone plane would be as thick as whatever grid it is put on.
    """
    n_plane = max(2, math.ceil(length_mm / voxel_mm - 1e-9))
    step_mm = length_mm / n_plane
    return tuple(Contour((n - 0.5 * (n_plane - 1)) * step_mm, outline_mm_xy) for n in range(n_plane))


def _structure(name: str, kind: StructureKind, contours: tuple[Contour, ...], grid: Grid) -> Structure:
    """Return a structure with the coverage of its contours."""
    return Structure(name, kind, voxelise(contours, grid).coverage, contours)


def _mixed_hu(grid: Grid, materials: Sequence[tuple[F32, float]]) -> F32:
    """Return the coverage-weighted mean of materials in air."""
    ct_hu = np.full(grid.shape_zyx, AIR_HU, np.float64)
    for coverage, hu in materials:
        ct_hu += coverage.astype(np.float64) * (hu - AIR_HU)
    return ct_hu.astype(np.float32)
