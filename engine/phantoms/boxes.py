"""Boxes of water and slabs, exact to the last digit and without texture."""

import math
from collections.abc import Sequence

from engine.errors import CaseError
from engine.model.arrays import F32
from engine.model.case import Case
from engine.phantoms.shapes import WATER_HU, grid_around, mixed_hu, rectangle, stack, structure

DEFAULT_LAYERS = ((40.0, WATER_HU), (20.0, 800.0), (80.0, -750.0), (60.0, WATER_HU))
"""Soft tissue, bone, lung, soft tissue, like a path through a chest: thickness in mm and Hounsfield units."""


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
    grid = grid_around(size_mm_xyz, voxel_mm)
    half_x_mm, half_y_mm, _ = (0.5 * size_mm for size_mm in size_mm_xyz)
    body = stack(rectangle(-half_x_mm, half_x_mm, -half_y_mm, half_y_mm), size_mm_xyz[2], voxel_mm)
    half_target_x_mm, half_target_y_mm, _ = (0.5 * size_mm for size_mm in target_size_mm_xyz)
    target_outline = rectangle(-half_target_x_mm, half_target_x_mm, -half_target_y_mm, half_target_y_mm)
    structures = [
        structure("BODY", "EXTERNAL", body, grid),
        structure("Target", "TARGET", stack(target_outline, target_size_mm_xyz[2], voxel_mm), grid),
    ]
    materials: list[tuple[F32, float]] = []
    front_mm = -half_y_mm
    for number, (thickness_mm, hu) in enumerate(layers, start=1):
        outline = rectangle(-half_x_mm, half_x_mm, front_mm, front_mm + thickness_mm)
        layer = structure(f"Layer{number}", "OTHER", stack(outline, size_mm_xyz[2], voxel_mm), grid)
        materials.append((layer.coverage, hu))
        if len(layers) > 1:
            structures.append(layer)
        front_mm += thickness_mm
    return Case(name, grid, mixed_hu(grid, materials), tuple(structures))
