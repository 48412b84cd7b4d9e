"""What every dose engine takes and gives."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

from engine.geometry.bricks import BrickLayout
from engine.model.arrays import F32, F64, I64, Bool
from engine.model.beam import Beam, BeamletGrid
from engine.model.case import PatientPosition
from engine.model.grid import Grid
from engine.model.influence import Tile, TileColumn


@dataclass(frozen=True)
class Patient:
    """What a photon beam sees of a patient.

    Parameters
    ----------
    grid
        Grid of ``density``, usually the CT's.
    density
        Electron density relative to water, shape ``grid.shape_zyx``.
    position
        How the patient lies.
    """

    grid: Grid
    density: F32
    position: PatientPosition


@dataclass(frozen=True)
class MatrixSize:
    """What one beam's part of an influence matrix will have in one scenario, right to some percent.

    Parameters
    ----------
    n_mini
        Mini-blocks of its tiles in every brick, shape (n_brick,).
    n_segment
        Segments (beamlets in bricks) of all its tiles, at most.
    n_view
        Mini-blocks of the grid that its view keeps.
    """

    n_mini: I64
    n_segment: int
    n_view: int


class DoseEngine(Protocol):
    """Fills influence tiles and computes forward doses.

    ``view`` does what depends on beam and setup only, so that its result serves every density scaling and every
    beamlet block. Weights are fluence at the isocentre plane in 1e9 photons per mm².
    """

    name: str
    version: str

    def view(
        self,
        patient: Patient,
        layout: BrickLayout,
        active: Bool,
        beam: Beam,
        shift_mm: tuple[float, float, float],
        near: BeamletGrid | None,
    ) -> Any:
        """Prepare a beam: geometry and radiological depth of every active row (near the beamlets)."""
        ...

    def view_to_arrays(self, view: Any) -> dict[str, npt.NDArray[Any]]:
        """Return what of a view is worth keeping."""
        ...

    def view_of_arrays(
        self,
        arrays: Mapping[str, npt.NDArray[Any]],
        layout: BrickLayout,
        beam: Beam,
        shift_mm: tuple[float, float, float],
        position: PatientPosition,
        bricks: tuple[int, int],
    ) -> Any:
        """Return the part in some bricks (the first and how many) of a view that was kept, to the last bit."""
        ...

    def tile_columns(
        self, view: Any, beamlets: BeamletGrid, blocks: Sequence[int], density_factor: float
    ) -> list[TileColumn]:
        """Return the tiles of ``blocks``."""
        ...

    def tiles(
        self, view: Any, beamlets: BeamletGrid, blocks: Sequence[int], density_factor: float
    ) -> Iterator[Tile]:
        """Yield the tiles of ``blocks`` together, brick by brick."""
        ...

    def matrix_size(
        self, layout: BrickLayout, active: Bool, beam: Beam, beamlets: BeamletGrid, position: PatientPosition
    ) -> MatrixSize:
        """Return how large a beam's part of the matrix will be, without computing it."""
        ...

    def view_bytes(self, n_view: int) -> int:
        """Return what a view of so many mini-blocks needs while it is made."""
        ...

    def scratch_bytes(self, n_beamlet: int, brick_size: int) -> int:
        """Return what computing the tiles of so many beamlets at a time needs, apart from the tiles."""
        ...

    def forward(self, view: Any, beamlets: BeamletGrid, weight: F64, density_factor: float) -> F32:
        """Return the dose of all beamlets in Gy on rows, without lateral cut-off or threshold."""
        ...
