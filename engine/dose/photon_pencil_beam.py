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

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from engine.dose.engine import Patient
from engine.dose.photon_pencil_beam_kernels import brick_dose, forward_dose, normal_table, quantise
from engine.errors import DoseError
from engine.geometry.bricks import MINI_SIZE, BrickLayout
from engine.geometry.frames import project, source_mm
from engine.geometry.raytrace import radiological_depth_mm
from engine.model.arrays import F32, F64, I32, I64, U16, Bool
from engine.model.beam import Beam, BeamletGrid
from engine.model.influence import TileColumn
from engine.model.machine import PhotonMachine
from engine.physics.photon_kernel import PhotonKernel, load_photon_kernel

PHOTONS_PER_WEIGHT = 1e9
"""Weight 1 is a fluence of 1e9 photons per mm² at the isocentre plane."""
_DEPTH_STEP_MM = 0.5


@dataclass(frozen=True)
class BeamView:
    """What a beam sees of the active rows: geometry and radiological depth, in mini-blocks of eight.

    Parameters
    ----------
    layout
        Row numbering of the dose grid.
    first_row
        First row of every mini-block, ascending, shape (n,).
    x, y
        Position in the isocentre plane in mm, shape (n, 8).
    depth_mm
        Radiological depth at density factor 1, shape (n, 8).
    factor
        Inverse square factor, 0 for rows that are not active, shape (n, 8).
    inverse_sigma
        Inverse widths of the Gaussians in the isocentre plane in 1/mm, shape (n, n_gauss, 8).
    """

    layout: BrickLayout
    first_row: I64
    x: F32
    y: F32
    depth_mm: F32
    factor: F32
    inverse_sigma: F32


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
    version = "1"

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
        """Gy per weight of each Gaussian at steps of 0.5 mm of depth, shape (n_gauss, n_depth)."""
        depth_mm = np.arange(0.0, self.kernel.depth_mm[-1] + _DEPTH_STEP_MM, _DEPTH_STEP_MM)
        table = np.stack(
            [np.interp(depth_mm, self.kernel.depth_mm, c) for c in self.kernel.weight_gy_mm2.T]
        )
        return np.ascontiguousarray(table * PHOTONS_PER_WEIGHT, dtype=np.float32)

    def beamlet_peak_gy(self, size_mm: tuple[float, float]) -> float:
        """Return the largest dose per weight that one beamlet gives on its axis at the isocentre distance."""
        from math import erf, sqrt

        share = np.array(
            [
                erf(size_mm[0] / 2 / (s * sqrt(2.0))) * erf(size_mm[1] / 2 / (s * sqrt(2.0)))
                for s in self._sigma_at_isocentre_mm()
            ]
        )
        return float((self._depth_table * share[:, None]).sum(axis=0).max())

    def _sigma_at_isocentre_mm(self) -> F64:
        scd = self.machine.collimator_distance_mm
        spot_mm = self.machine.source_sigma_mm * (self.machine.sad_mm - scd) / scd
        sigma: F64 = np.hypot(self.kernel.sigma_mm, spot_mm)
        return sigma

    def lost_fraction_bound(self, radius_mm: float | None = None) -> float:
        """Return the largest share of a broad uniform field's dose, over all depths, that the cut-off can leave out.

        The bound is for points at the isocentre distance; nearer to the source the same cut-off, which is an angle,
        covers a smaller radius: give the smallest ``radius_mm`` in the patient for a bound that holds everywhere.
        """
        radius = self.lateral_cutoff_mm if radius_mm is None else radius_mm
        return float(self.kernel.fraction_beyond(radius).max())

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
            If an active row lies at or behind the source.
        """
        moved = Beam(
            beam.name,
            beam.gantry_deg,
            beam.couch_deg,
            beam.collimator_deg,
            (
                beam.isocentre_mm[0] - shift_mm[0],
                beam.isocentre_mm[1] - shift_mm[1],
                beam.isocentre_mm[2] - shift_mm[2],
            ),
            beam.sad_mm,
        )
        first_row = np.flatnonzero(active.reshape(-1, MINI_SIZE).any(axis=1)) * MINI_SIZE
        position_mm, distance_mm = self._project(layout, first_row, moved, patient)
        if near is not None:
            keep = self._in_reach(position_mm, near)
            first_row, position_mm, distance_mm = first_row[keep], position_mm[keep], distance_mm[keep]
        n = first_row.size
        rows = first_row[:, None] + np.arange(MINI_SIZE)
        on = active[rows]
        points_mm = layout.centres_mm(rows.reshape(-1).astype(np.int64))
        depth_mm = np.zeros((n, MINI_SIZE), dtype=np.float32)
        depth_mm[on] = radiological_depth_mm(
            patient.density, patient.grid, source_mm(moved, patient.position), points_mm[on.reshape(-1)]
        )
        sad, scd = beam.sad_mm, self.machine.collimator_distance_mm
        magnification = distance_mm / sad
        spot_mm = self.machine.source_sigma_mm * np.maximum(distance_mm - scd, 0.0) / scd
        inverse_sigma = magnification[:, None, :] / np.hypot(
            self.kernel.sigma_mm[None, :, None], spot_mm[:, None, :]
        )
        return BeamView(
            layout,
            first_row,
            np.ascontiguousarray(position_mm[..., 0], dtype=np.float32),
            np.ascontiguousarray(position_mm[..., 1], dtype=np.float32),
            depth_mm,
            np.where(on, magnification**-2, 0.0).astype(np.float32),
            inverse_sigma.astype(np.float32),
        )

    def _project(
        self, layout: BrickLayout, first_row: I64, beam: Beam, patient: Patient
    ) -> tuple[F64, F64]:
        rows = (first_row[:, None] + np.arange(MINI_SIZE)).reshape(-1)
        position_mm, distance_mm = project(layout.centres_mm(rows), beam, patient.position)
        if distance_mm.size and distance_mm.min() <= self.machine.collimator_distance_mm * 0.5:
            raise DoseError(
                f"beam '{beam.name}': a part of the patient is only {distance_mm.min():.0f} mm from the source "
                f"(the collimator is at {self.machine.collimator_distance_mm:.0f} mm); check isocentre and couch"
            )
        return position_mm.reshape(-1, MINI_SIZE, 2), distance_mm.reshape(-1, MINI_SIZE)

    def _in_reach(self, position_mm: F64, near: BeamletGrid) -> Bool:
        centre_x, centre_y = near.centres_mm()
        mean_mm = position_mm.mean(axis=1)
        reach_mm = self.lateral_cutoff_mm
        inside: Bool = (
            (mean_mm[:, 0] >= centre_x.min() - reach_mm)
            & (mean_mm[:, 0] <= centre_x.max() + reach_mm)
            & (mean_mm[:, 1] >= centre_y.min() - reach_mm)
            & (mean_mm[:, 1] <= centre_y.max() + reach_mm)
        )
        return inside

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
        """
        chosen = np.concatenate(
            [np.arange(beamlets.block_begin[b], beamlets.block_begin[b + 1]) for b in blocks]
        )
        sizes = [int(beamlets.block_begin[b + 1] - beamlets.block_begin[b]) for b in blocks]
        raster, first_column, first_row = _raster(beamlets, chosen)
        threshold = self.threshold_fraction * self.beamlet_peak_gy(beamlets.size_mm)
        layout, table = view.layout, normal_table()
        n_max = layout.brick_size // MINI_SIZE
        count = np.zeros(chosen.size, dtype=np.int32)
        mini_out = np.empty((chosen.size, n_max), dtype=np.uint16)
        dose_out = np.empty((chosen.size, n_max, MINI_SIZE), dtype=np.float32)
        share_x = np.empty((raster.shape[1], MINI_SIZE), dtype=np.float32)
        share_y = np.empty((raster.shape[0], MINI_SIZE), dtype=np.float32)
        cell_dose = np.empty((*raster.shape, MINI_SIZE), dtype=np.float32)
        columns = [_ColumnBuilder(n) for n in sizes]
        brick_of = view.first_row // layout.brick_size
        bricks, starts = np.unique(brick_of, return_index=True)
        for brick, start, stop in zip(bricks, starts, [*starts[1:], brick_of.size], strict=True):
            part = slice(start, stop)
            mini = ((view.first_row[part] % layout.brick_size) // MINI_SIZE).astype(np.uint16)
            count[:] = 0
            brick_dose(
                view.x[part], view.y[part], view.depth_mm[part], view.factor[part], view.inverse_sigma[part], mini,
                self._depth_table, _DEPTH_STEP_MM, density_factor,
                raster, first_column, first_row, beamlets.size_mm[0], beamlets.size_mm[1],
                self.lateral_cutoff_mm, threshold, table,
                share_x, share_y, cell_dose, count, mini_out, dose_out,
            )  # fmt: skip
            begin = 0
            for column, size in zip(columns, sizes, strict=True):
                end = begin + size
                column.add(int(brick), count[begin:end], mini_out[begin:end], dose_out[begin:end], threshold)
                begin = end
        return [column.finish() for column in columns]

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
        """
        index, first_column, first_row = _raster(beamlets, np.arange(beamlets.n_beamlet))
        fluence = np.where(index >= 0, weight[np.maximum(index, 0)], 0.0).astype(np.float32)
        share_x = np.empty((index.shape[1], MINI_SIZE), dtype=np.float32)
        share_y = np.empty((index.shape[0], MINI_SIZE), dtype=np.float32)
        dose = np.empty(view.x.shape, dtype=np.float32)
        forward_dose(
            view.x, view.y, view.depth_mm, view.factor, view.inverse_sigma,
            self._depth_table, _DEPTH_STEP_MM, density_factor,
            fluence, first_column, first_row, beamlets.size_mm[0], beamlets.size_mm[1],
            normal_table(), share_x, share_y, dose,
        )  # fmt: skip
        rows = np.zeros(view.layout.n_row, dtype=np.float32)
        rows[view.first_row[:, None] + np.arange(MINI_SIZE)] = dose
        return rows


def _raster(beamlets: BeamletGrid, chosen: I64) -> tuple[I32, int, int]:
    """Return beamlet positions in ``chosen`` on their raster, shape (n_row, n_column), -1 elsewhere, and its corner."""
    column, row = beamlets.column[chosen], beamlets.row[chosen]
    first_column, first_row = int(column.min()), int(row.min())
    raster = np.full((int(row.max()) - first_row + 1, int(column.max()) - first_column + 1), -1, np.int32)
    raster[row - first_row, column - first_column] = np.arange(chosen.size)
    return raster, first_column, first_row


class _ColumnBuilder:
    """Gathers the tiles of one block, brick by brick."""

    def __init__(self, n_beamlet: int) -> None:
        self.n_beamlet = n_beamlet
        self.brick: list[int] = []
        self.parts: list[tuple[I64, F32, U16, U16]] = []
        self.n_mini = 0
        self.n_entry = 0

    def add(self, brick: int, count: I32, mini: U16, dose: F32, threshold: float) -> None:
        n_mini = int(count.sum())
        if n_mini == 0:
            return
        begin = np.full(self.n_beamlet, self.n_mini, dtype=np.int64)
        scale = np.empty(self.n_beamlet, dtype=np.float32)
        tile_mini = np.empty(n_mini, dtype=np.uint16)
        value = np.empty((n_mini, MINI_SIZE), dtype=np.uint16)
        begin[0] = 0
        self.n_entry += quantise(count, mini, dose, threshold, begin, scale, tile_mini, value)
        self.brick.append(brick)
        self.parts.append((begin + self.n_mini, scale, tile_mini, value))
        self.n_mini += n_mini

    def finish(self) -> TileColumn:
        begin, scale, mini, value = (
            np.concatenate(arrays) if arrays else empty
            for arrays, empty in zip(
                zip(*self.parts, strict=True) if self.parts else ((), (), (), ()),
                (
                    np.empty(0, np.int64),
                    np.empty(0, np.float32),
                    np.empty(0, np.uint16),
                    np.empty((0, MINI_SIZE), np.uint16),
                ),
                strict=True,
            )
        )
        return TileColumn(
            self.n_beamlet,
            np.asarray(self.brick, dtype=np.int32),
            np.append(begin, self.n_mini).astype(np.int64),
            scale,
            mini,
            value,
            self.n_entry,
        )
