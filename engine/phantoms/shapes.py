"""Shapes as contours: prisms for the exact boxes and cylinders, solids by their cross-sections for anatomy.

Coverage comes from `engine.geometry.voxelise`, just as for a structure set that was read from DICOM. A case that was
written as DICOM and read again is therefore the same, up to the rounding of coordinates in the file.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.interpolate import PchipInterpolator

from engine.errors import CaseError
from engine.geometry.voxelise import voxelise
from engine.model.arrays import F32, F64
from engine.model.case import Contour, Structure, StructureKind
from engine.model.grid import Grid

AIR_HU = -1000.0
WATER_HU = 0.0
MARGIN_MM = 25.0
"""Least thickness of air around the body; it is rounded up to whole voxels."""
CORNERS_PER_TURN = 720
"""Relative area error of an inscribed polygon: (2 pi / n)^2 / 6 = 1.3e-5."""
SECTION_CORNERS = 120
"""Corners of a solid's cross-section. Polygons of ellipses are scaled to the area of the ellipse, so none is lost."""
LEAST_SECTION_MM2 = 1.0
"""Cross-sections smaller than this, at the very tip of a solid, get no contour."""
_GAUSS_AT = (0.5 - math.sqrt(0.15), 0.5, 0.5 + math.sqrt(0.15))
_GAUSS_WEIGHT = (5.0 / 18.0, 8.0 / 18.0, 5.0 / 18.0)

Section = Callable[[float], F64]
"""A polygon of shape (n_point, 2) in mm for every height z in mm."""


@dataclass(frozen=True)
class Oval:
    """A superellipse |x / a|^p + |y / b|^p = 1, turned about its centre.

    Parameters
    ----------
    x_mm, y_mm
        Centre.
    a_mm, b_mm
        Semi-axes along x and y before it is turned.
    power
        2 is an ellipse, more is boxier.
    turn_deg
        Turned from +x towards +y.
    """

    x_mm: float
    y_mm: float
    a_mm: float
    b_mm: float
    power: float = 2.0
    turn_deg: float = 0.0

    @property
    def area_mm2(self) -> float:
        """Area: 4 a b Gamma(1 + 1/p)^2 / Gamma(1 + 2/p)."""
        p = self.power
        return 4.0 * self.a_mm * self.b_mm * math.gamma(1.0 + 1.0 / p) ** 2 / math.gamma(1.0 + 2.0 / p)

    def polygon(self, n_corner: int = SECTION_CORNERS) -> F64:
        """Return a polygon of the same area, shape (n_corner, 2)."""
        angle = np.linspace(0.0, 2.0 * math.pi, n_corner, endpoint=False)
        cos, sin = np.cos(angle), np.sin(angle)
        exponent = 2.0 / self.power
        x = self.a_mm * np.sign(cos) * np.abs(cos) ** exponent
        y = self.b_mm * np.sign(sin) * np.abs(sin) ** exponent
        points = np.stack([x, y], axis=1)
        points *= math.sqrt(self.area_mm2 / polygon_area_mm2(points))
        turn_rad = math.radians(self.turn_deg)
        turn = np.array([[math.cos(turn_rad), math.sin(turn_rad)], [-math.sin(turn_rad), math.cos(turn_rad)]])
        moved: F64 = points @ turn + (self.x_mm, self.y_mm)
        return moved

    def radius(self, points_mm_xy: F64) -> F64:
        """Return how far out points lie, 1 on the border; shape (n_point,)."""
        turn_rad = math.radians(self.turn_deg)
        dx, dy = (points_mm_xy - (self.x_mm, self.y_mm)).T
        u = (dx * math.cos(turn_rad) + dy * math.sin(turn_rad)) / self.a_mm
        v = (dy * math.cos(turn_rad) - dx * math.sin(turn_rad)) / self.b_mm
        radius: F64 = (np.abs(u) ** self.power + np.abs(v) ** self.power) ** (1.0 / self.power)
        return radius

    def grown(self, by_mm: float) -> "Oval":
        """Return the oval with semi-axes longer (or, if negative, shorter) by a length."""
        return Oval(
            self.x_mm, self.y_mm, self.a_mm + by_mm, self.b_mm + by_mm, self.power, self.turn_deg
        )  # fmt: skip


def keep_out(points_mm_xy: F64, oval: Oval) -> F64:
    """Return a polygon that an oval has dented: corners inside are moved onto its border along rays."""
    radius = np.maximum(oval.radius(points_mm_xy), 1e-9)
    return _moved(points_mm_xy, oval, np.where(radius < 1.0, 1.0 / radius, 1.0))


def keep_in(points_mm_xy: F64, oval: Oval) -> F64:
    """Return a polygon cut by an oval: corners outside are moved onto its border, along rays from its centre."""
    radius = oval.radius(points_mm_xy)
    return _moved(points_mm_xy, oval, np.where(radius > 1.0, 1.0 / np.maximum(radius, 1.0), 1.0))


def _moved(points_mm_xy: F64, oval: Oval, factor: F64) -> F64:
    """Return points at a multiple of their distance from the centre of an oval."""
    centre = np.array([oval.x_mm, oval.y_mm])
    moved: F64 = centre + (points_mm_xy - centre) * factor[:, None]
    return moved


def polygon_area_mm2(points_mm_xy: F64) -> float:
    """Return the area of a polygon (positive whichever way it runs)."""
    x, y = points_mm_xy.T
    return 0.5 * abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))))


@dataclass(frozen=True)
class Solid:
    """A solid by its cross-section at every height.

    Parameters
    ----------
    bottom_mm, top_mm
        Where it begins and ends along z.
    section
        Its cross-section.
    """

    bottom_mm: float
    top_mm: float
    section: Section

    def contours(self, grid: Grid) -> tuple[Contour, ...]:
        """Return one polygon on every slice of the grid that the solid touches.

        The polygon has the shape of the cross-section in the middle of the part of the solid that lies in the slice,
        and is scaled about its centre to the mean area over the slice (three-point Gauss quadrature, exact for areas
        that are polynomials of height up to degree 5, as of ellipsoids). Areas times slice thickness therefore add up
        to the volume of the solid, whatever the slices.
        """
        edges_mm = grid.edges_mm_xyz[2].tolist()
        found = [
            self._contour(z_mm, below_mm, above_mm)
            for z_mm, below_mm, above_mm in zip(
                grid.centres_mm_xyz[2].tolist(), edges_mm[:-1], edges_mm[1:], strict=True
            )
        ]
        return tuple(contour for contour in found if contour is not None)

    def planes(self, voxel_mm: float) -> tuple[Contour, ...]:
        """Return contour planes, at most a voxel apart, whose slabs fill the solid's length exactly, as `stack` does.

        For solids with flat ends and a hollow cross-section: scaled down on a slice that they fill in part, the polygon
        would move towards what it goes round.
        """
        n_plane = max(2, math.ceil((self.top_mm - self.bottom_mm) / voxel_mm - 1e-9))
        edges_mm = np.linspace(self.bottom_mm, self.top_mm, n_plane + 1).tolist()
        found = [
            self._contour(0.5 * (low_mm + high_mm), low_mm, high_mm) for low_mm, high_mm in pairwise(edges_mm)
        ]
        return tuple(contour for contour in found if contour is not None)

    def _contour(self, z_mm: float, below_mm: float, above_mm: float) -> Contour | None:
        """Return the polygon of the slab between two heights; none where there is next to nothing of the solid."""
        low_mm, high_mm = max(self.bottom_mm, below_mm), min(self.top_mm, above_mm)
        if high_mm - low_mm <= 1e-6 * (above_mm - below_mm):
            return None
        at_mm = [low_mm + part * (high_mm - low_mm) for part in _GAUSS_AT]
        sections = [self.section(height_mm) for height_mm in at_mm]
        areas_mm2 = [polygon_area_mm2(section) for section in sections]
        mean_mm2 = math.fsum(w * a for w, a in zip(_GAUSS_WEIGHT, areas_mm2, strict=True))
        mean_mm2 *= (high_mm - low_mm) / (above_mm - below_mm)
        if mean_mm2 < LEAST_SECTION_MM2:
            return None
        centre = sections[1].mean(axis=0)
        return Contour(z_mm, centre + (sections[1] - centre) * math.sqrt(mean_mm2 / areas_mm2[1]))


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid with axes along the patient's.

    Parameters
    ----------
    centre_mm_xyz, semi_axis_mm_xyz
        Centre and semi-axes.
    """

    centre_mm_xyz: tuple[float, float, float]
    semi_axis_mm_xyz: tuple[float, float, float]

    @property
    def volume_mm3(self) -> float:
        """Volume: 4/3 pi a b c."""
        return 4.0 / 3.0 * math.pi * math.prod(self.semi_axis_mm_xyz)

    def oval(self, z_mm: float) -> Oval:
        """Return the cross-section at a height; as small as a point at the tips and beyond."""
        x_mm, y_mm, centre_z_mm = self.centre_mm_xyz
        a_mm, b_mm, c_mm = self.semi_axis_mm_xyz
        shrink = math.sqrt(max(1.0 - ((z_mm - centre_z_mm) / c_mm) ** 2, 1e-12))
        return Oval(x_mm, y_mm, a_mm * shrink, b_mm * shrink)

    @property
    def solid(self) -> Solid:
        """The ellipsoid as a solid."""
        z_mm, c_mm = self.centre_mm_xyz[2], self.semi_axis_mm_xyz[2]
        return Solid(z_mm - c_mm, z_mm + c_mm, lambda height_mm: self.oval(height_mm).polygon())


class Tube:
    """A tube whose oval cross-section changes smoothly with height, such as a limb, a vessel or the whole body.

    Parameters
    ----------
    rows
        (z, x, y, a, b) in mm with rising z: height, centre and semi-axes. Between them, every value is interpolated by
        a cubic polynomial that does not overshoot (PCHIP: Fritsch and Carlson, SIAM J. Numer. Anal. 17 (1980) 238).
    power
        Of the superellipse.
    """

    def __init__(self, rows: Sequence[tuple[float, float, float, float, float]], power: float = 2.0) -> None:
        table = np.array(rows)
        self.bottom_mm, self.top_mm = float(table[0, 0]), float(table[-1, 0])
        self.power = power
        self._values = PchipInterpolator(table[:, 0], table[:, 1:])

    def oval(self, z_mm: float, grown_mm: float = 0.0) -> Oval:
        """Return the cross-section at a height, grown on all sides; beyond the ends that of the end."""
        x, y, a, b = (float(v) for v in self._values(min(max(z_mm, self.bottom_mm), self.top_mm)))
        return Oval(x, y, a + grown_mm, b + grown_mm, self.power)

    def solid(self, grown_mm: float = 0.0) -> Solid:
        """Return the tube as a solid, grown sideways."""
        return Solid(self.bottom_mm, self.top_mm, lambda z_mm: self.oval(z_mm, grown_mm).polygon())


def grid_around(size_mm_xyz: tuple[float, float, float], voxel_mm: float) -> Grid:
    """Return a grid around a centred box; voxel borders lie on its faces where its size is a multiple of a voxel.

    Raises
    ------
    CaseError
        If a length is not positive.
    """
    if not (voxel_mm > 0.0 and min(size_mm_xyz) > 0.0):
        raise CaseError(f"invalid voxel_mm={voxel_mm} or size {size_mm_xyz} (every length must be positive)")
    rounding = 1e-9
    counts = [
        math.ceil(size_mm / voxel_mm - rounding) + 2 * math.ceil(MARGIN_MM / voxel_mm - rounding)
        for size_mm in size_mm_xyz
    ]
    x_mm, y_mm, z_mm = (-0.5 * (count - 1) * voxel_mm for count in counts)
    return Grid((x_mm, y_mm, z_mm), (voxel_mm, voxel_mm, voxel_mm), (counts[2], counts[1], counts[0]))


def scan_grid(
    size_mm_xy: tuple[float, float],
    bottom_mm: float,
    top_mm: float,
    voxel_mm: float,
    centre_y_mm: float = 0.0,
) -> Grid:
    """Return the grid of a scan: no air beyond its first and last slice, as the body goes on there.

    Raises
    ------
    CaseError
        If a length is not positive.
    """
    if not (voxel_mm > 0.0 and top_mm > bottom_mm):
        raise CaseError(f"invalid voxel_mm={voxel_mm} (it must be positive)")
    nx, ny = (2 * math.ceil(0.5 * size_mm / voxel_mm - 1e-9) for size_mm in size_mm_xy)
    nz = max(2, math.ceil((top_mm - bottom_mm) / voxel_mm - 1e-9))
    origin = (
        -0.5 * (nx - 1) * voxel_mm,
        centre_y_mm - 0.5 * (ny - 1) * voxel_mm,
        bottom_mm + 0.5 * voxel_mm,
    )
    return Grid(origin, (voxel_mm, voxel_mm, voxel_mm), (nz, ny, nx))


def rectangle(left_mm: float, right_mm: float, front_mm: float, back_mm: float) -> F64:
    """Return the corners of a rectangle, shape (4, 2)."""
    return np.array([[left_mm, front_mm], [right_mm, front_mm], [right_mm, back_mm], [left_mm, back_mm]])


def arc(radius_mm: float, start_rad: float, end_rad: float) -> F64:
    """Return points on an arc around the origin, both ends included, shape (n_point, 2)."""
    n_step = max(1, math.ceil(abs(end_rad - start_rad) / (2.0 * math.pi) * CORNERS_PER_TURN - 1e-9))
    angle = np.linspace(start_rad, end_rad, n_step + 1)
    return np.stack([radius_mm * np.cos(angle), radius_mm * np.sin(angle)], axis=1)


def stack(
    outline_mm_xy: F64, length_mm: float, voxel_mm: float, centre_mm: float = 0.0
) -> tuple[Contour, ...]:
    """Return a prism as contour planes, at most a voxel apart, whose slabs fill its length exactly.

    There are at least two, as the slab of a lone plane would be as thick as whatever grid it is put on.
    """
    n_plane = max(2, math.ceil(length_mm / voxel_mm - 1e-9))
    step_mm = length_mm / n_plane
    return tuple(
        Contour(centre_mm + (n - 0.5 * (n_plane - 1)) * step_mm, outline_mm_xy) for n in range(n_plane)
    )


def structure(name: str, kind: StructureKind, contours: tuple[Contour, ...], grid: Grid) -> Structure:
    """Return a structure with the coverage of its contours."""
    return Structure(name, kind, voxelise(contours, grid).coverage, contours)


def mixed_hu(grid: Grid, materials: Sequence[tuple[F32, float]]) -> F32:
    """Return the coverage-weighted mean of materials in air; the materials lie side by side."""
    ct_hu = np.full(grid.shape_zyx, AIR_HU, np.float64)
    for coverage, hu in materials:
        ct_hu += coverage.astype(np.float64) * (hu - AIR_HU)
    return ct_hu.astype(np.float32)


def paint(ct_hu: F32, coverage: F32, hu: float) -> None:
    """Paint a material over what is there already, in place; a voxel that is covered in part keeps the rest."""
    inside = coverage > 0.0
    ct_hu[inside] += coverage[inside] * (np.float32(hu) - ct_hu[inside])
