"""Sources: photons or electrons from a point, or parallel, through a rectangle."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from engine._jit import inlined
from engine.errors import DoseError
from engine.model.arrays import F64
from engine.physics.monte_carlo.particles import (
    ELECTRON,
    ENERGY,
    KIND,
    PHOTON,
    U,
    V,
    W,
    X,
    Y,
    Z,
)
from engine.physics.monte_carlo.random_numbers import U64, uniform


class Beam(NamedTuple):
    """A source above a grid of voxels, as kernels take it; made by `build_beam`."""

    kind: float
    low_mev: F64
    high_mev: F64
    summed_share: F64
    low_x_mm: float
    high_x_mm: float
    low_y_mm: float
    high_y_mm: float
    source_x_mm: float
    source_y_mm: float
    distance_mm: float


@dataclass(frozen=True)
class Rectangle:
    """Where a field lies on the plane z = 0, in the coordinates of the voxels, in mm."""

    low_x_mm: float
    high_x_mm: float
    low_y_mm: float
    high_y_mm: float

    @property
    def area_mm2(self) -> float:
        """Area of the field at z = 0."""
        return (self.high_x_mm - self.low_x_mm) * (self.high_y_mm - self.low_y_mm)


def build_beam(
    field: Rectangle,
    low_mev: F64,
    high_mev: F64,
    share: F64,
    *,
    photons: bool,
    source_distance_mm: float = math.inf,
) -> Beam:
    """Return a beam along +z whose energies are a histogram, even in each interval.

    Parameters
    ----------
    field
        Rectangle on the plane z = 0.
    low_mev, high_mev, share
        Edges and relative number of particles of every interval, shape (n_interval,); equal edges for one energy.
    photons
        Photons, or electrons.
    source_distance_mm
        Distance of a point source, over the middle of the field, that radiates evenly into all directions of the
        field; infinite for a parallel beam of even fluence.

    Raises
    ------
    DoseError
        If the field has no area, the distance is not above 0, or the histogram is none.
    """
    if not field.area_mm2 > 0.0 or field.high_x_mm <= field.low_x_mm or not source_distance_mm > 0.0:
        raise DoseError(
            f"a field of {field} from {source_distance_mm:g} mm; both sides and the distance must be above 0"
        )
    if not (low_mev.size == high_mev.size == share.size > 0) or share.min() < 0.0 or not share.sum() > 0.0:
        raise DoseError("a spectrum needs edges and a share, not below 0, for each of its intervals")
    if np.any(high_mev < low_mev) or low_mev.min() < 0.0:
        raise DoseError("intervals of a spectrum must begin at 0 MeV or above and not end before they begin")
    return Beam(
        PHOTON if photons else ELECTRON,
        np.ascontiguousarray(low_mev, dtype=np.float64),
        np.ascontiguousarray(high_mev, dtype=np.float64),
        np.cumsum(share) / share.sum(),
        field.low_x_mm,
        field.high_x_mm,
        field.low_y_mm,
        field.high_y_mm,
        0.5 * (field.low_x_mm + field.high_x_mm),
        0.5 * (field.low_y_mm + field.high_y_mm),
        source_distance_mm,
    )


@inlined
def emit(beam: Beam, particle: F64, random_state: U64) -> None:
    """Set ``particle`` to a new one of the beam, on the plane z = 0."""
    draw = uniform(random_state)
    interval = 0
    while interval < beam.summed_share.size - 1 and draw >= beam.summed_share[interval]:
        interval += 1
    low_mev, high_mev = beam.low_mev[interval], beam.high_mev[interval]
    particle[ENERGY] = low_mev + (high_mev - low_mev) * uniform(random_state)
    particle[KIND] = beam.kind
    while True:
        x_mm = beam.low_x_mm + (beam.high_x_mm - beam.low_x_mm) * uniform(random_state)
        y_mm = beam.low_y_mm + (beam.high_y_mm - beam.low_y_mm) * uniform(random_state)
        particle[X], particle[Y], particle[Z] = x_mm, y_mm, 0.0
        if beam.distance_mm == math.inf:
            particle[U], particle[V], particle[W] = 0.0, 0.0, 1.0
            return
        across_x = (x_mm - beam.source_x_mm) / beam.distance_mm
        across_y = (y_mm - beam.source_y_mm) / beam.distance_mm
        cosine = 1.0 / math.sqrt(1.0 + across_x * across_x + across_y * across_y)
        # Even in solid angle: the plane sees the cube of the cosine.
        if uniform(random_state) <= cosine * cosine * cosine:
            particle[U], particle[V], particle[W] = across_x * cosine, across_y * cosine, cosine
            return
