"""Phantoms of boxes, slabs, rods and spheres, and cases, as what a dose engine sees: electron density on voxels."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from engine.dose.engine import Patient
from engine.errors import CaseError, ExperimentError
from engine.geometry.resample import interval_overlap
from engine.model.arrays import F32, F64, Bool
from engine.model.case import Case
from engine.model.grid import Grid
from engine.physics.hu_table import HuTable
from engine.physics.materials import MATERIALS, Material
from engine.spec.experiment import (
    Axis,
    Box,
    Cylinder,
    Insert,
    MaterialSpec,
    OfMaterial,
    PhantomSpec,
    Point,
    Slab,
)
from engine.structures.density import patient_density

_MOST_VOXELS = 300_000_000
_SUBSAMPLES = 8
"""Points along a voxel's edge, for the share of it that a round shape covers."""
_ON_FACE_MM = 1e-6


@dataclass(frozen=True)
class Geometry:
    """What is irradiated.

    Parameters
    ----------
    patient
        Electron density relative to water on voxels; vacuum beyond them.
    low_mm, high_mm
        Corners of the box outside of which there is vacuum.
    body
        Coverage of a case's body on the voxels: dose is scored inside; None for a phantom, which is all body.
    notes
        What a reader of the result should know.
    """

    patient: Patient
    low_mm: Point
    high_mm: Point
    body: F32 | None
    notes: tuple[str, ...]

    def inside(self, x_mm: F64, y_mm: F64, z_mm: F64) -> Bool:
        """Return which points of a raster lie inside the phantom or body, shape (n_z, n_y, n_x)."""
        along = [
            (at >= low) & (at <= high)
            for at, low, high in zip((x_mm, y_mm, z_mm), self.low_mm, self.high_mm, strict=True)
        ]
        found: Bool = along[2][:, None, None] & along[1][:, None] & along[0]
        if self.body is not None:
            grid = self.patient.grid
            index = [
                np.clip(np.floor((at - edges[0]) / step).astype(np.int64), 0, edges.size - 2)
                for at, edges, step in zip(
                    (x_mm, y_mm, z_mm), grid.edges_mm_xyz, grid.spacing_mm_xyz, strict=True
                )
            ]
            found &= self.body[np.ix_(index[2], index[1], index[0])] >= 0.5
        return found


def geometry_of_case(case: Case, table: HuTable) -> Geometry:
    """Return a case: density by the table inside its body, air outside, vacuum beyond the CT."""
    body = case.external.coverage
    x, y, z = case.grid.edges_mm_xyz
    low = (float(x[0]), float(y[0]), float(z[0]))
    high = (float(x[-1]), float(y[-1]), float(z[-1]))
    density = patient_density(case.ct_hu, case.grid, body, table)
    patient = Patient(case.grid, density, case.patient_position)
    return Geometry(patient, low, high, body, case.notes)


def build_phantom(spec: PhantomSpec, own: Mapping[str, MaterialSpec]) -> Geometry:
    """Return a phantom on voxels.

    Faces of the phantom, of slabs and of boxes must lie on voxel faces, so that nothing is smeared. Voxels at the
    surface of a round insert hold the mean electron density (shares from 8 points along each edge).

    Parameters
    ----------
    spec
        What to build.
    own
        Materials beside the named ones.

    Raises
    ------
    ExperimentError
        If a material is unknown or makes no sense, an insert lies outside, faces lie between voxel faces, or there are
        too many voxels.
    """
    materials = known_materials(own)
    grid = _grid_of(spec)
    density = np.full(grid.shape_zyx, _density_of(spec, ("phantom",), materials), dtype=np.float32)
    round_inserts = []
    for number, insert in enumerate(spec.inserts):
        key = ("phantom", "inserts", number)
        low_mm, high_mm = _corners(insert, spec)
        if any(a >= b for a, b in zip(low_mm, high_mm, strict=True)):
            raise ExperimentError(
                key, "this insert lies outside of the phantom; move it, or enlarge the phantom"
            )
        if isinstance(insert, Slab | Box):
            _require_faces(grid, low_mm, high_mm, key)
        else:
            round_inserts.append(str(number))
        where, share = _share(insert, grid, low_mm, high_mm)
        inside = density[where]
        inside += share * (np.float32(_density_of(insert, key, materials)) - inside)
    notes = (
        (
            f"voxels at the surface of round inserts ({', '.join(round_inserts)}) hold the mean electron density",
        )
        if round_inserts
        else ()
    )
    return Geometry(Patient(grid, density, "HFS"), spec.low_mm, spec.high_mm, None, notes)


def known_materials(own: Mapping[str, MaterialSpec]) -> dict[str, Material]:
    """Return the named materials and those of an experiment.

    Raises
    ------
    ExperimentError
        If one of them makes no sense, or takes the name of a named one.
    """
    found = dict(MATERIALS)
    for name, spec in own.items():
        if name in MATERIALS:
            raise ExperimentError(
                ("materials", name), "a named material has this name already; take another one"
            )
        try:
            found[name] = Material(name, spec.density_g_cm3, spec.composition)
        except CaseError as error:
            raise ExperimentError(("materials", name), str(error)) from error
    return found


def _density_of(part: OfMaterial, key: tuple[str | int, ...], materials: Mapping[str, Material]) -> float:
    """Return the electron density of a part relative to water."""
    if part.material not in materials:
        raise ExperimentError(
            (*key, "material"),
            f"there is no material '{part.material}' (there are: {', '.join(materials)}); choose one, or describe it "
            f"in [materials.{part.material}]",
        )
    material = materials[part.material]
    try:
        return replace(
            material, density_g_cm3=part.density_g_cm3 or material.density_g_cm3
        ).relative_electron_density
    except CaseError as error:
        raise ExperimentError((*key, "density_g_cm3"), str(error)) from error


def _grid_of(spec: PhantomSpec) -> Grid:
    voxel_mm = spec.voxel_mm_xyz()
    count = [
        int(np.ceil((high - low) / step - 1e-9))
        for low, high, step in zip(spec.low_mm, spec.high_mm, voxel_mm, strict=True)
    ]
    if np.prod(count, dtype=np.float64) > _MOST_VOXELS:
        raise ExperimentError(
            ("phantom", "voxel_mm"),
            f"{count[0]} × {count[1]} × {count[2]} voxels are too many (at most {_MOST_VOXELS / 1e6:.0f} million); "
            "take larger ones, at least along the axes where little changes",
        )
    x_mm, y_mm, z_mm = (low + 0.5 * step for low, step in zip(spec.low_mm, voxel_mm, strict=True))
    grid = Grid((x_mm, y_mm, z_mm), voxel_mm, (count[2], count[1], count[0]))
    _require_faces(grid, spec.low_mm, spec.high_mm, ("phantom", "voxel_mm"))
    return grid


def _corners(insert: Insert, spec: PhantomSpec) -> tuple[Point, Point]:
    """Return the corners of the box around an insert, cut off at the phantom."""
    low_mm, high_mm = list(spec.low_mm), list(spec.high_mm)
    if isinstance(insert, Box):
        found_low, found_high = list(insert.low_mm), list(insert.high_mm)
    elif isinstance(insert, Slab):
        found_low, found_high = list(low_mm), list(high_mm)
    else:
        found_low = [centre - insert.radius_mm for centre in insert.centre_mm]
        found_high = [centre + insert.radius_mm for centre in insert.centre_mm]
    if isinstance(insert, Slab | Cylinder):
        axis = _number(insert.axis)
        found_low[axis], found_high[axis] = insert.from_mm, insert.to_mm
    x0, y0, z0 = (max(a, b) for a, b in zip(low_mm, found_low, strict=True))
    x1, y1, z1 = (min(a, b) for a, b in zip(high_mm, found_high, strict=True))
    return (x0, y0, z0), (x1, y1, z1)


def _share(insert: Insert, grid: Grid, low_mm: Point, high_mm: Point) -> tuple[tuple[slice, ...], F32]:
    """Return the voxels around an insert (slices along z, y, x) and the share of each that it covers."""
    overlaps = _overlaps(grid, low_mm, high_mm)
    where = [slice(int(touched[0]), int(touched[-1]) + 1) for touched in map(np.flatnonzero, overlaps)]
    x, y, z = (overlap[part] for overlap, part in zip(overlaps, where, strict=True))
    share = (z[:, None, None] * y[:, None] * x).astype(np.float32)
    if not isinstance(insert, Slab | Box):
        # Squared distances from the centre, at points inside the voxels; none along a cylinder's axis.
        along = []
        for axis, part in enumerate(where):
            first = (np.arange(_SUBSAMPLES) + 0.5) / _SUBSAMPLES
            edges_mm = grid.edges_mm_xyz[axis][part.start : part.stop]
            at_mm = edges_mm[:, None] + first * grid.spacing_mm_xyz[axis]
            round_here = not (isinstance(insert, Cylinder) and axis == _number(insert.axis))
            along.append(
                (at_mm - insert.centre_mm[axis]) ** 2 if round_here else np.zeros((edges_mm.size, 1))
            )
        within = np.zeros(share.shape, dtype=np.float32)
        dx, dy, dz = along
        for a in dz.T:
            for b in dy.T:
                for c in dx.T:
                    within += a[:, None, None] + b[:, None] + c <= insert.radius_mm**2
        within /= dx.shape[1] * dy.shape[1] * dz.shape[1]
        if isinstance(insert, Cylinder):
            axis = _number(insert.axis)
            within *= overlaps[axis][where[axis]].reshape([-1 if 2 - axis == a else 1 for a in range(3)])
        share = within
    return (where[2], where[1], where[0]), share


def _overlaps(grid: Grid, low_mm: Point, high_mm: Point) -> tuple[F64, F64, F64]:
    """Return the share of every voxel interval along x, y and z that lies between two corners."""
    x, y, z = (
        interval_overlap(np.array([low, high]), edges)[:, 0]
        for low, high, edges in zip(low_mm, high_mm, grid.edges_mm_xyz, strict=True)
    )
    return x, y, z


def _require_faces(grid: Grid, low_mm: Point, high_mm: Point, key: tuple[str | int, ...]) -> None:
    """Refuse a box that does not end where voxels end: the voxels in between would hold a mean of its material."""
    for corner in (low_mm, high_mm):
        for name, at, edges in zip("xyz", corner, grid.edges_mm_xyz, strict=True):
            if float(np.abs(edges - at).min()) > _ON_FACE_MM:
                raise ExperimentError(
                    key,
                    f"the face at {name} = {at:g} mm lies inside a voxel (voxels begin at {edges[0]:g} mm and are "
                    f"{edges[1] - edges[0]:g} mm long); choose voxel_mm so that faces lie between voxels",
                )


def _number(axis: Axis) -> int:
    return "xyz".index(axis)
