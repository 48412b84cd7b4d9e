"""The peer's TG-119 problem, as nightbeam takes it up: the same density, beams, beamlets, grid and rows."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.dose.engine import Patient
from engine.geometry.beamlets import PATCH_EDGE
from engine.geometry.bricks import BrickLayout, choose_brick_edge
from engine.geometry.frames import project
from engine.model.arrays import I64, Bool
from engine.model.beam import Beam, BeamletGrid
from engine.model.grid import Grid
from engine.physics.hu_table import HuTable

TARGET = "OuterTarget"
POSITION = "HFS"
_TOLERANCE_MM = 1e-6
"""Rounding of the peer's coordinates, which are some hundreds of mm in float64, with room to spare."""


@dataclass(frozen=True)
class Problem:
    """What `engine.dose` needs, and how rows and beamlets are numbered on the peer's side.

    Parameters
    ----------
    patient
        Electron density on the CT grid; 0 outside all structures, as the peer has it.
    layout
        Row numbering of the dose grid.
    active
        Rows inside a structure: the only ones that get dose, shape (n_row,).
    beams, beamlets
        One entry a beam.
    peer_column
        For every beam, the peer's matrix column of each beamlet.
    target
        Voxels of the target, shape [z, y, x] of the dose grid.
    """

    patient: Patient
    layout: BrickLayout
    active: Bool
    beams: tuple[Beam, ...]
    beamlets: tuple[BeamletGrid, ...]
    peer_column: tuple[I64, ...]
    target: Bool

    @property
    def n_beamlet(self) -> int:
        """Beamlets of all beams."""
        return sum(beamlets.n_beamlet for beamlets in self.beamlets)


def read_problem(file: Path) -> Problem:
    """Read ``geometry.npz``, as benchmarks/peer/pyradplan_tg119.py writes it.

    Raises
    ------
    ValueError
        If a beamlet's centre, projected with nightbeam's own frames, is not where the peer says it is.
    """
    with np.load(file) as stored:
        fields = {name: stored[name] for name in stored.files}
    ct_grid, dose_grid = _grid(fields, "ct"), _grid(fields, "dose")
    table = HuTable("peer", tuple(fields["hu_table_hu"]), tuple(fields["hu_table_relative_electron_density"]))
    inside = fields["structure_masks"].any(axis=0)
    density = np.where(inside, table.density_of(fields["ct_hu"]), np.float32(0.0))
    layout = BrickLayout(dose_grid, choose_brick_edge(dose_grid))
    active = layout.to_rows(fields["dose_structure_masks"].any(axis=0).astype(np.float32)) > 0.0
    beams, beamlets, columns = [], [], []
    for number in range(fields["beam_gantry_deg"].size):
        x, y, z = (float(v) for v in fields["beam_isocentre_mm_xyz"][number])
        gantry_deg, couch_deg = (float(fields[f"beam_{name}_deg"][number]) for name in ("gantry", "couch"))
        beam = Beam(
            f"G{gantry_deg:g}", gantry_deg, couch_deg, 0.0, (x, y, z), float(fields["beam_sad_mm"][number])
        )
        grid, column = _beamlets(fields, number, beam)
        beams.append(beam)
        beamlets.append(grid)
        columns.append(column)
    target = fields["dose_structure_masks"][list(fields["structure_names"]).index(TARGET)]
    return Problem(
        Patient(ct_grid, density, POSITION),
        layout,
        active,
        tuple(beams),
        tuple(beamlets),
        tuple(columns),
        target,
    )


def _grid(fields: dict[str, np.ndarray], name: str) -> Grid:
    x, y, z = (float(v) for v in fields[f"{name}_origin_mm_xyz"])
    dx, dy, dz = (float(v) for v in fields[f"{name}_spacing_mm_xyz"])
    nz, ny, nx = (int(v) for v in fields[f"{name}_shape_zyx"])
    return Grid((x, y, z), (dx, dy, dz), (nz, ny, nx))


def _beamlets(fields: dict[str, np.ndarray], number: int, beam: Beam) -> tuple[BeamletGrid, I64]:
    """Return the peer's beamlets of one beam in nightbeam's order of blocks, and their columns in its matrix."""
    peer_column = np.flatnonzero(fields["beamlet_beam"] == number)
    size_mm = float(fields["beamlet_size_mm"])
    position_mm, distance_mm = project(fields["beamlet_centre_mm_xyz"][peer_column], beam, POSITION)
    said_mm = np.stack([fields["beamlet_x_mm"], fields["beamlet_z_mm"]], axis=1)[peer_column]
    raster = np.rint(position_mm / size_mm)
    worst_mm = max(
        float(np.abs(position_mm - said_mm).max()),
        float(np.abs(position_mm - raster * size_mm).max()),
        float(np.abs(distance_mm - beam.sad_mm).max()),
    )
    if worst_mm > _TOLERANCE_MM:
        raise ValueError(
            f"beam {beam.name}: the peer's beamlets lie up to {worst_mm:.3g} mm off nightbeam's raster"
        )
    column, row = raster.astype(np.int32).T
    order = np.lexsort((column, row, column // PATCH_EDGE, row // PATCH_EDGE))
    column, row = column[order], row[order]
    patch = np.stack([row // PATCH_EDGE, column // PATCH_EDGE], axis=1)
    starts = np.flatnonzero(np.any(patch[1:] != patch[:-1], axis=1)) + 1
    begin = np.concatenate([[0], starts, [row.size]]).astype(np.int64)
    return BeamletGrid((size_mm, size_mm), column, row, begin), peer_column[order]
