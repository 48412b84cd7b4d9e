r"""Photon finite-size pencil beam: Gaussian kernels of water, radiological depth, inverse square.

The dose at a point whose ray meets the isocentre plane at (u, v), at distance d from the source and radiological
depth z, from a beamlet of unit fluence over the rectangle [u1, u2] × [v1, v2] is

.. math:: D = \left(\frac{SAD}{d}\right)^2 \sum_m c_m(z)
    \left[\Phi\!\left(\frac{u_2-u}{s_m}\right)-\Phi\!\left(\frac{u_1-u}{s_m}\right)\right]
    \left[\Phi\!\left(\frac{v_2-v}{s_m}\right)-\Phi\!\left(\frac{v_1-v}{s_m}\right)\right]

with the normal distribution function :math:`\Phi` and the width :math:`s_m` of the kernel's Gaussian m and of the
focal spot's image, both scaled to the isocentre plane. Model, neglected effects and validation:
``docs/methods/photon_pencil_beam.md``. The form is that of Bourland and Chaney, Med Phys 19 (1992) 1401, with the
kernel decomposition of Bortfeld, Schlegel and Rhein, Med Phys 20 (1993) 311.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import erf

from engine.dose.engine import MatrixSize, Patient
from engine.dose.photon_pencil_beam_kernels import brick_dose, forward_dose, normal_table
from engine.dose.photon_pencil_beam_loss import cut_reach_mm, lost_dose_per_weight_gy
from engine.dose.photon_pencil_beam_size import matrix_size, scratch_bytes, view_bytes
from engine.dose.photon_pencil_beam_tiles import column_of, quantised, raster_of
from engine.dose.photon_pencil_beam_view import BeamView, spot_sigma_mm, trace_view, view_of_depths
from engine.errors import DoseError
from engine.geometry.bricks import MINI_SIZE, BrickLayout
from engine.model.arrays import F32, F64, I64, Bool
from engine.model.beam import Beam, BeamletGrid
from engine.model.case import PatientPosition
from engine.model.grid import Grid
from engine.model.influence import Tile, TileColumn
from engine.model.machine import PhotonMachine
from engine.physics.photon_kernel import PhotonKernel, load_photon_kernel

PHOTONS_PER_WEIGHT = 1e9
"""Weight 1 is a fluence of 1e9 photons per mm² at the isocentre plane."""
_DEPTH_STEP_MM = 0.5
_DEEPEST_MM = 600.0


@dataclass(frozen=True)
class PhotonPencilBeam:
    """The engine and its options.

    Parameters
    ----------
    machine
        Source, geometry and kernel.
    lateral_cutoff_mm
        Beamlets reach no further than this from their centre, in the isocentre plane.
    threshold_fraction
        Entries below this share of a beamlet's largest dose at the isocentre distance are left out.

    Raises
    ------
    DoseError
        If an option makes no sense.
    """

    machine: PhotonMachine
    lateral_cutoff_mm: float
    threshold_fraction: float

    name = "photon_pencil_beam"
    version = "3"

    def __post_init__(self) -> None:
        if self.lateral_cutoff_mm <= 0.0:
            raise DoseError(f"invalid lateral_cutoff_mm={self.lateral_cutoff_mm} (must be positive)")
        if not 0.0 <= self.threshold_fraction < 0.1:
            raise DoseError(f"invalid threshold_fraction={self.threshold_fraction} (must be in [0, 0.1))")

    @cached_property
    def kernel(self) -> PhotonKernel:
        """The pencil kernel in water."""
        return load_photon_kernel(self.machine.kernel)

    @cached_property
    def _depth_table(self) -> F32:
        """Gy per weight of each Gaussian at steps of 0.5 mm of depth, shape (n_gauss, n_depth).

        Beyond the kernel's last depth every Gaussian goes on falling as it does over the last 100 mm.
        """
        depth_mm = np.arange(0.0, _DEEPEST_MM + _DEPTH_STEP_MM, _DEPTH_STEP_MM)
        known_mm, weight = self.kernel.depth_mm, self.kernel.weight_gy_mm2
        table = np.stack([np.interp(depth_mm, known_mm, c) for c in weight.T])
        hundred_before = np.array([np.interp(known_mm[-1] - 100.0, known_mm, c) for c in weight.T])
        beyond_mm = np.maximum(depth_mm - known_mm[-1], 0.0)
        table *= (weight[-1] / hundred_before)[:, None] ** (beyond_mm / 100.0)
        return np.ascontiguousarray(table * PHOTONS_PER_WEIGHT, dtype=np.float32)

    def beamlet_peak_gy(self, size_mm: tuple[float, float]) -> float:
        """Return the largest dose per weight that one beamlet gives on its axis at the isocentre distance."""
        sigma_mm = np.hypot(
            self.kernel.sigma_mm, spot_sigma_mm(self.machine, np.array([self.machine.sad_mm]))
        )
        share = erf(size_mm[0] / sigma_mm / np.sqrt(8.0)) * erf(size_mm[1] / sigma_mm / np.sqrt(8.0))
        return float((share @ self._depth_table).max())

    def lost_dose_bound_gy(
        self, beam: Beam, beamlets: BeamletGrid, weight_sum: float, position: PatientPosition, grid: Grid
    ) -> float:
        """Return the dose that no voxel lacks more than, if it is summed up from tiles instead of by `forward`.

        Holds for any weights of that sum that are not negative, and any patient that fills ``grid`` or a part of it.

        Parameters
        ----------
        beam, beamlets
            The beam, and its beamlets.
        weight_sum
            Sum of the weights of all beamlets.
        position
            How the patient lies.
        grid
            The dose grid.
        """
        reach = cut_reach_mm(beam, position, grid, beamlets.size_mm, self.lateral_cutoff_mm)
        threshold_gy = self.threshold_fraction * self.beamlet_peak_gy(beamlets.size_mm)
        return weight_sum * lost_dose_per_weight_gy(
            self.machine, self.kernel.sigma_mm, self._depth_table, threshold_gy, beamlets.size_mm, *reach
        )

    def view(
        self,
        patient: Patient,
        layout: BrickLayout,
        active: Bool,
        beam: Beam,
        shift_mm: tuple[float, float, float],
        near: BeamletGrid | None,
    ) -> BeamView:
        """Trace the rays of a beam.

        Parameters
        ----------
        patient
            Electron density.
        layout
            Row numbering of the dose grid.
        active
            Rows that get dose, shape (n_row,).
        beam
            The beam.
        shift_mm
            Displacement of the patient against the beam, LPS.
        near
            Leave out rows that are out of the cut-off's reach of all these beamlets; None keeps all.

        Raises
        ------
        DoseError
            If a part of the patient comes too close to the source.
        """
        reached = None if near is None else (near, self.lateral_cutoff_mm)
        return trace_view(self.machine, patient, layout, active, beam, shift_mm, reached)

    def view_to_arrays(self, view: BeamView) -> dict[str, npt.NDArray[Any]]:
        """Return what of a view is worth keeping: the rays; the rest is geometry, which `view_of_arrays` adds again."""
        return {"first_row": view.first_row, "depth_mm": view.depth_mm}

    def view_of_arrays(
        self,
        arrays: Mapping[str, npt.NDArray[Any]],
        layout: BrickLayout,
        beam: Beam,
        shift_mm: tuple[float, float, float],
        position: PatientPosition,
        bricks: tuple[int, int],
    ) -> BeamView:
        """Return the part in some bricks of the view that was kept as arrays, to the last bit.

        Parameters
        ----------
        arrays
            From `view_to_arrays`.
        layout, beam, shift_mm, position
            As they were when the view was made.
        bricks
            First brick and number of bricks.
        """
        first_row, depth_mm = arrays["first_row"], arrays["depth_mm"]
        begin, end = np.searchsorted(first_row, np.array([bricks[0], sum(bricks)]) * layout.brick_size)
        return view_of_depths(layout, first_row[begin:end], depth_mm[begin:end], beam, shift_mm, position)

    def tile_columns(
        self, view: BeamView, beamlets: BeamletGrid, blocks: Sequence[int], density_factor: float
    ) -> list[TileColumn]:
        """Return the tiles of some blocks, one `TileColumn` each, in the order of ``blocks``.

        Parameters
        ----------
        view
            From `view` for the beam these beamlets belong to.
        beamlets
            All beamlets of the beam.
        blocks
            Block numbers.
        density_factor
            Factor on all densities.

        Raises
        ------
        DoseError
            If a row lies deeper than the tables reach.
        """
        tiles = list(self._tiles(view, beamlets, blocks, density_factor))
        sizes = [int(beamlets.block_begin[b + 1] - beamlets.block_begin[b]) for b in blocks]
        return [
            column_of(tiles, first, n)
            for first, n in zip(np.cumsum([0, *sizes[:-1]]).tolist(), sizes, strict=True)
        ]

    def tiles(
        self, view: BeamView, beamlets: BeamletGrid, blocks: Sequence[int], density_factor: float
    ) -> Iterator[Tile]:
        """Yield the tiles of some blocks together, brick by brick; empty ones are left out.

        They hold what those of `tile_columns` hold, to the last bit.

        Parameters
        ----------
        view, beamlets, blocks, density_factor
            As in `tile_columns`.

        Raises
        ------
        DoseError
            If a row lies deeper than the tables reach.
        """
        return (tile for tile, _ in self._tiles(view, beamlets, blocks, density_factor))

    def matrix_size(
        self, layout: BrickLayout, active: Bool, beam: Beam, beamlets: BeamletGrid, position: PatientPosition
    ) -> MatrixSize:
        """Return how large a beam's part of the matrix will be, without computing it: right to some percent.

        Parameters
        ----------
        layout, active
            Row numbering, and the rows that get dose, shape (n_row,).
        beam, beamlets, position
            The beam, its beamlets, and how the patient lies.
        """
        return matrix_size(layout, active, beam, beamlets, position, self.lateral_cutoff_mm)

    def view_bytes(self, n_view: int) -> int:
        """Return what a view of so many mini-blocks needs while it is made."""
        return view_bytes(n_view)

    def scratch_bytes(self, n_beamlet: int, brick_size: int) -> int:
        """Return what computing the tiles of so many beamlets at a time needs, apart from the tiles."""
        return scratch_bytes(n_beamlet, brick_size)

    def _tiles(
        self, view: BeamView, beamlets: BeamletGrid, blocks: Sequence[int], density_factor: float
    ) -> Iterator[tuple[Tile, I64]]:
        """Yield the tiles of some blocks, and each beamlet's entries above threshold, brick by brick."""
        self._require_depth(view, density_factor)
        chosen = np.concatenate(
            [np.arange(beamlets.block_begin[b], beamlets.block_begin[b + 1]) for b in blocks]
        )
        raster, first_column, first_row = raster_of(beamlets, chosen)
        threshold = self.threshold_fraction * self.beamlet_peak_gy(beamlets.size_mm)
        brick_size = view.layout.brick_size
        n_max = brick_size // MINI_SIZE
        count = np.zeros(chosen.size, dtype=np.int32)
        mini_out = np.empty((chosen.size, n_max), dtype=np.uint16)
        dose_out = np.empty((chosen.size, n_max, MINI_SIZE), dtype=np.float32)
        share_x = np.empty((raster.shape[1], MINI_SIZE), dtype=np.float32)
        share_y = np.empty((raster.shape[0], MINI_SIZE), dtype=np.float32)
        cell_dose = np.empty((*raster.shape, MINI_SIZE), dtype=np.float32)
        brick_of = view.first_row // brick_size
        bricks, starts = np.unique(brick_of, return_index=True)
        for brick, start, stop in zip(bricks, starts, np.append(starts, brick_of.size)[1:], strict=True):
            part = slice(start, stop)
            mini = ((view.first_row[part] % brick_size) // MINI_SIZE).astype(np.uint16)
            count[:] = 0
            brick_dose(
                view.x[part], view.y[part], view.distance_mm[part], view.factor[part], view.depth_mm[part], mini,
                *self._beam_constants(density_factor),
                raster, first_column, first_row, beamlets.size_mm[0], beamlets.size_mm[1],
                self.lateral_cutoff_mm, threshold, normal_table(),
                share_x, share_y, cell_dose, count, mini_out, dose_out,
            )  # fmt: skip
            if count.any():
                yield quantised(int(brick), count, mini_out, dose_out, threshold)

    def forward(self, view: BeamView, beamlets: BeamletGrid, weight: F64, density_factor: float) -> F32:
        """Return the dose of a fluence map in Gy, without cut-off and threshold.

        Parameters
        ----------
        view
            From `view`.
        beamlets
            All beamlets of the beam.
        weight
            Fluence of each beamlet in 1e9 photons per mm², shape (n_beamlet,).
        density_factor
            Factor on all densities.

        Returns
        -------
        array
            Dose on rows, shape (n_row,), float32.

        Raises
        ------
        DoseError
            If a row lies deeper than the tables reach.
        """
        self._require_depth(view, density_factor)
        index, first_column, first_row = raster_of(beamlets, np.arange(beamlets.n_beamlet))
        fluence = np.where(index >= 0, weight[np.maximum(index, 0)], 0.0).astype(np.float32)
        share_x = np.empty((index.shape[1], MINI_SIZE), dtype=np.float32)
        share_y = np.empty((index.shape[0], MINI_SIZE), dtype=np.float32)
        dose = np.empty(view.x.shape, dtype=np.float32)
        forward_dose(
            view.x, view.y, view.distance_mm, view.factor, view.depth_mm,
            *self._beam_constants(density_factor),
            fluence, first_column, first_row, beamlets.size_mm[0], beamlets.size_mm[1],
            normal_table(), share_x, share_y, dose,
        )  # fmt: skip
        rows = np.zeros(view.layout.n_row, dtype=np.float32)
        rows[view.first_row[:, None] + np.arange(MINI_SIZE)] = dose
        return rows

    def _beam_constants(self, density_factor: float) -> tuple[float, float, float, F32, F32, float]:
        """Return what both kernels are told of machine and kernel."""
        return (
            self.machine.sad_mm,
            self.machine.collimator_distance_mm,
            self.machine.source_sigma_mm,
            self.kernel.sigma_mm.astype(np.float32),
            self._depth_table,
            density_factor / _DEPTH_STEP_MM,
        )

    def _require_depth(self, view: BeamView, density_factor: float) -> None:
        deepest_mm = float(view.depth_mm.max(initial=0.0)) * density_factor
        if deepest_mm > _DEEPEST_MM:
            raise DoseError(
                f"radiological depth of {deepest_mm:.0f} mm (the tables of '{self.machine.kernel}' end at "
                f"{_DEEPEST_MM:.0f} mm); check the body outline and the HU table, or leave this beam out"
            )
