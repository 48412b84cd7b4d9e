"""An anatomy as a list of parts, painted one over the other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from engine.geometry.voxelise import voxelise
from engine.model.arrays import F64
from engine.model.case import Case, Contour, Structure, StructureKind
from engine.model.grid import Grid
from engine.phantoms.shapes import AIR_HU, Oval, Solid, paint
from engine.phantoms.texture import lumps, scanned

TISSUE_UNEVENNESS_HU = 6.0
"""Standard deviation of the unevenness of everything inside the body but its air."""


@dataclass(frozen=True)
class Part:
    """A part of the body.

    Parameters
    ----------
    solids
        Its shape; several must not overlap.
    hu
        What it is painted with; none for a region that is only contoured, such as a target.
    name
        Name of its structure; none if it has no contours.
    kind
        Kind of its structure.
    """

    solids: Sequence[Solid]
    hu: float | None
    name: str = ""
    kind: StructureKind = "ORGAN"


def build(name: str, grid: Grid, parts: Sequence[Part], seed: int | None) -> Case:
    """Return the case of parts painted in their order; the texture's seed, or none for no texture."""
    ct_hu = np.full(grid.shape_zyx, AIR_HU, np.float32)
    structures = []
    for part in parts:
        contours: tuple[Contour, ...] = ()
        for solid in part.solids:
            contours += solid.contours(grid)
        coverage = voxelise(contours, grid).coverage
        if part.hu is not None:
            paint(ct_hu, coverage, part.hu)
        if part.name:
            structures.append(Structure(part.name, part.kind, coverage, contours))
    if seed is not None:
        uneven = lumps(grid.shape_zyx, 5.0 / grid.spacing_mm_xyz[0], seed, 100)
        solid_share = np.clip((ct_hu - AIR_HU) / -AIR_HU, 0.0, 1.0)
        ct_hu = scanned(ct_hu, seed, 0, TISSUE_UNEVENNESS_HU * uneven * solid_share)
    return Case(name, grid, ct_hu, tuple(structures))


def prism(bottom_mm: float, top_mm: float, oval: Oval) -> Solid:
    """Return a solid of constant oval cross-section."""
    return Solid(bottom_mm, top_mm, lambda _: oval.polygon())


def with_section(solid: Solid, change: Callable[[F64, float], F64]) -> Solid:
    """Return a solid whose cross-sections are changed, such as dented by a neighbour: ``change(polygon, z_mm)``."""
    return Solid(solid.bottom_mm, solid.top_mm, lambda z_mm: change(solid.section(z_mm), z_mm))
