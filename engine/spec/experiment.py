"""An experiment: one forward dose of one beam, asked for in a TOML file. Units are part of every key.

The file says what is asked, not how it is computed: it has room for every particle and source that a dose engine of
this project may be made for. What the chosen engine cannot do is refused by that engine (`engine.experiment`).
"""

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from engine.model.arrays import F64
from engine.spec.base import Spec
from engine.spec.reading import read_spec

Point = tuple[float, float, float]
Axis = Literal["x", "y", "z"]
_MOST_EDGES = 5001


class MaterialSpec(Spec):
    """A material of one's own."""

    density_g_cm3: float = Field(gt=0.0)
    composition: dict[str, float] = Field(
        min_length=1, description="fraction by mass of every element, as { H = 0.112, O = 0.888 }"
    )


class OfMaterial(Spec):
    """Something made of a material."""

    material: str = Field(description="a named material, or one of [materials.NAME]")
    density_g_cm3: float | None = Field(None, gt=0.0, description="mass density, if not the material's own")


class BetweenPlanes(OfMaterial):
    """Something that two planes across an axis end."""

    axis: Axis
    from_mm: float
    to_mm: float

    @model_validator(mode="after")
    def _forwards(self) -> Self:
        if self.from_mm >= self.to_mm:
            raise ValueError(f"from_mm = {self.from_mm:g} is not below to_mm = {self.to_mm:g}")
        return self


class Slab(BetweenPlanes):
    """Everything between two planes."""

    shape: Literal["slab"]


class Box(OfMaterial):
    """A box between two corners."""

    shape: Literal["box"]
    low_mm: Point
    high_mm: Point

    @model_validator(mode="after")
    def _forwards(self) -> Self:
        _require_box(self.low_mm, self.high_mm)
        return self


class Sphere(OfMaterial):
    """A sphere."""

    shape: Literal["sphere"]
    centre_mm: Point
    radius_mm: float = Field(gt=0.0)


class Cylinder(BetweenPlanes):
    """A round rod between two planes."""

    shape: Literal["cylinder"]
    centre_mm: Point = Field(description="a point of the cylinder's axis")
    radius_mm: float = Field(gt=0.0)


Insert = Annotated[Slab | Box | Sphere | Cylinder, Field(discriminator="shape")]


class PhantomSpec(OfMaterial):
    """A box of one material in vacuum, with inserts of others; later inserts replace earlier ones."""

    low_mm: Point = Field(description="corner of the box, x, y, z")
    high_mm: Point = Field(description="the opposite corner")
    voxel_mm: float | Point = Field(
        description="voxel edge, or edges along x, y, z; faces of boxes and slabs must lie on voxel faces"
    )
    inserts: tuple[Insert, ...] = ()

    @model_validator(mode="after")
    def _a_box(self) -> Self:
        _require_box(self.low_mm, self.high_mm)
        if min(self.voxel_mm_xyz()) <= 0.0:
            raise ValueError("voxel_mm must be positive")
        return self

    def voxel_mm_xyz(self) -> Point:
        """Return the voxel edges along x, y, z."""
        return self.voxel_mm if isinstance(self.voxel_mm, tuple) else (self.voxel_mm,) * 3


class ImportedSpec(Spec):
    """A case that `nightbeam import` put into the store."""

    imported: str = Field(description="its name")
    hu_table: str = Field(description="a CSV file of the scanner's table, as in a study")
    external: str | None = Field(None, description="name of the body outline, if its type is not EXTERNAL")

    @field_validator("hu_table")
    @classmethod
    def _a_table_for_patients(cls, hu_table: str) -> str:
        if hu_table == "phantom":
            raise ValueError("'phantom' is no scanner's table (there is no default one); give a CSV file")
        return hu_table


class BeamSpec(Spec):
    """One beam, and the plane in which its field and fluence are stated (at right angles to its axis)."""

    particle: Literal["photon", "electron", "proton"]
    machine: str | None = Field(
        None, description="a machine's spectrum, focal spot and collimator, such as 'generic-6mv'"
    )
    spectrum: str | None = Field(None, description="name of a spectrum, such as 'mohan_6mv'")
    energy_mev: float | None = Field(None, gt=0.0, description="the same kinetic energy for every particle")
    source: Literal["point", "parallel"]
    source_sigma_mm: float = Field(0.0, ge=0.0, le=10.0, description="Gaussian focal spot; 0 is a point")
    collimator_mm: float | None = Field(
        None, gt=0.0, description="from the source to the collimator that shapes the edge; for a focal spot"
    )
    isocentre_mm: Point = Field(description="a point of the beam's axis, x, y, z")
    sad_mm: float | None = Field(None, gt=0.0, description="from the source to the isocentre")
    ssd_mm: float | None = Field(
        None, gt=0.0, description="from the source to where the axis enters the phantom"
    )
    direction: Point | None = Field(None, description="of flight, in the phantom's x, y, z")
    gantry_deg: float | None = Field(None, description="IEC 61217; or give a direction")
    couch_deg: float = 0.0
    collimator_deg: float = 0.0
    field_mm: tuple[float, float] | None = Field(
        None, description="edges of a rectangular field, along the collimator x and y"
    )
    field_diameter_mm: float | None = Field(None, gt=0.0, description="diameter of a round field")
    field_at: Literal["surface", "isocentre"] = Field(
        description="the plane where field and fluence are stated"
    )
    fluence: Literal["flat", "isotropic"] = Field(
        description="in that plane the same everywhere, or falling as the cosine cubed (uniform in solid angle)"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self._one_of("machine", "spectrum", "energy_mev")
        self._one_of("direction", "gantry_deg")
        self._one_of("field_mm", "field_diameter_mm")
        if self.field_mm is not None and min(self.field_mm) <= 0.0:
            raise ValueError("field_mm must be positive")
        if self.direction is not None:
            if not any(self.direction):
                raise ValueError("direction = [0, 0, 0] points nowhere")
            if {"couch_deg", "collimator_deg"} & self.model_fields_set:
                raise ValueError("couch_deg and collimator_deg go with gantry_deg, not with a direction")
        if self.source == "point":
            self._one_of("sad_mm", "ssd_mm")
        elif self.sad_mm is not None or self.ssd_mm is not None:
            raise ValueError("a parallel beam has no sad_mm or ssd_mm; leave it out")
        elif self.fluence == "isotropic" or self.source_sigma_mm > 0.0:
            raise ValueError("a parallel beam has flat fluence and no focal spot")
        if self.machine is not None and {"source_sigma_mm", "collimator_mm"} & self.model_fields_set:
            raise ValueError(
                "a machine has its own focal spot and collimator; leave source_sigma_mm and collimator_mm out"
            )
        if (self.source_sigma_mm > 0.0) != (self.collimator_mm is not None):
            raise ValueError(
                "source_sigma_mm and collimator_mm go together: a spot is seen through the collimator"
            )
        return self

    def _one_of(self, *keys: str) -> None:
        given = [key for key in keys if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of {' and '.join(keys)} (given: {' and '.join(given) or 'none'})"
            )


class EngineSpec(Spec):
    """Which engine answers."""

    name: Literal["photon_pencil_beam"]


class Steps(Spec):
    """Equal intervals."""

    start_mm: float
    stop_mm: float
    step_mm: float = Field(gt=0.0)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        n = (self.stop_mm - self.start_mm) / self.step_mm
        if not 1.0 - 1e-9 <= n < _MOST_EDGES or abs(n - round(n)) > 1e-6 * max(n, 1.0):
            raise ValueError(
                f"from {self.start_mm:g} to {self.stop_mm:g} in steps of {self.step_mm:g} makes {n:g} intervals (must "
                f"be a whole number from 1 to {_MOST_EDGES - 1})"
            )
        return self


class ScoreSpec(Spec):
    """The grid that dose is scored on: edges along each axis, as a list or as { start_mm, stop_mm, step_mm }."""

    x_mm: tuple[float, ...] | Steps
    y_mm: tuple[float, ...] | Steps
    z_mm: tuple[float, ...] | Steps
    sample_mm: float | Point = Field(
        1.0,
        description="dose is averaged over points of every voxel, no further apart than this (or than x, y, z)",
    )
    unit: Literal["per_fluence", "per_mu"] = Field(
        description="Gy per 1e9 photons/mm2 (mean over the field, in its plane), or Gy per MU of a machine"
    )

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if min(self.sample_mm_xyz()) <= 0.0:
            raise ValueError("sample_mm must be positive")
        for key, edges in zip(("x_mm", "y_mm", "z_mm"), self.edges_mm_xyz(), strict=True):
            if not 2 <= edges.size <= _MOST_EDGES:
                raise ValueError(f"{key} has {edges.size} edges (from 2 to {_MOST_EDGES} make sense)")
            if not np.all(np.diff(edges) > 0.0):
                raise ValueError(f"{key}: every edge must be above the one before")
        return self

    def sample_mm_xyz(self) -> Point:
        """Return the largest distance of points along x, y, z."""
        return self.sample_mm if isinstance(self.sample_mm, tuple) else (self.sample_mm,) * 3

    def edges_mm_xyz(self) -> tuple[F64, F64, F64]:
        """Return the edges along x, y and z, each one longer than the voxels."""
        x, y, z = (
            np.linspace(
                given.start_mm, given.stop_mm, round((given.stop_mm - given.start_mm) / given.step_mm) + 1
            )
            if isinstance(given, Steps)
            else np.array(given)
            for given in (self.x_mm, self.y_mm, self.z_mm)
        )
        return x, y, z


class Experiment(Spec):
    """A whole experiment."""

    keys_command: ClassVar[str] = "nightbeam dose --keys"

    name: str = Field(min_length=1, max_length=200)
    phantom: PhantomSpec | None = None
    case: ImportedSpec | None = None
    materials: dict[str, MaterialSpec] = Field(
        {}, description="materials of one's own, each [materials.NAME]"
    )
    beam: BeamSpec
    engine: EngineSpec
    score: ScoreSpec

    @model_validator(mode="after")
    def _one_geometry(self) -> Self:
        if (self.phantom is None) == (self.case is None):
            raise ValueError("give exactly one of [phantom] and [case]")
        if self.score.unit == "per_mu" and (self.beam.machine is None or self.beam.fluence != "flat"):
            raise ValueError(
                "unit = 'per_mu' needs beam.machine and fluence = 'flat': an MU is tied to a machine's open field"
            )
        if self.case is not None and (
            self.beam.ssd_mm is not None or self.beam.field_at == "surface" or self.beam.direction is not None
        ):
            raise ValueError(
                "a beam on a [case] is placed by gantry_deg, isocentre_mm and sad_mm, with field_at = 'isocentre' "
                "(the skin is no plane to state a field in)"
            )
        return self


def load_experiment(path: Path) -> Experiment:
    """Read and validate an experiment file.

    Raises
    ------
    StudyError
        As `engine.spec.reading.read_spec` does.
    """
    return read_spec(path, Experiment, "an experiment")


def _require_box(low_mm: Point, high_mm: Point) -> None:
    if any(low >= high for low, high in zip(low_mm, high_mm, strict=True)):
        raise ValueError(f"low_mm = {list(low_mm)} is not below high_mm = {list(high_mm)} along every axis")
