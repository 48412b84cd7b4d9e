"""A small job whose bits are known: some dose, and both products with it, as every plan computes them.

Two workers that give the same bits here have the same code, libraries and kind of processor, as far as one can see in a
second.
"""

import hashlib

import numpy as np

from engine.dose.engine import Patient
from engine.dose.photon_pencil_beam import PhotonPencilBeam
from engine.geometry.bricks import BrickLayout
from engine.influence.rows import rows_of_columns
from engine.model.beam import Beam, BeamletGrid
from engine.model.grid import Grid
from engine.model.machine import MACHINES

_MACHINE = "generic-6mv"
_N_SIDE = 8
"""Beamlets along each side of the field."""


def known_bits() -> str:
    """Return the digest of a small influence matrix and of the results of both products.

    A beam on water with a slab of lung: 64 beamlets of 5 mm, 16³ voxels of 5 mm.
    """
    grid = Grid((-40.0, -40.0, -40.0), (5.0, 5.0, 5.0), (16, 16, 16))
    density = np.ones(grid.shape_zyx, dtype=np.float32)
    density[:, 4:8, :] = 0.3
    patient, layout = Patient(grid, density, "HFS"), BrickLayout(grid, 8)
    machine = MACHINES[_MACHINE]
    beam = Beam("known", 30.0, 0.0, 10.0, (0.0, 0.0, 0.0), machine.sad_mm)
    row, column = np.divmod(np.arange(_N_SIDE**2, dtype=np.int32), np.int32(_N_SIDE))
    half = np.int32(_N_SIDE // 2)
    beamlets = BeamletGrid((5.0, 5.0), column - half, row - half, np.array([0, 32, 64], dtype=np.int64))
    engine = PhotonPencilBeam(machine, lateral_cutoff_mm=40.0, threshold_fraction=1e-4)
    view = engine.view(patient, layout, np.ones(layout.n_row, dtype=np.bool_), beam, (0.0, 0.0, 0.0), None)
    columns = engine.tile_columns(view, beamlets, (0, 1), 1.0)
    rows = rows_of_columns([(0, columns[0]), (32, columns[1])], 0, layout.n_brick, layout.brick_size)
    dose_gy = rows.dose(np.linspace(0.5, 1.5, beamlets.n_beamlet))
    gradient = np.zeros(beamlets.n_beamlet)
    rows.add_adjoint(dose_gy, gradient)
    # Sums over arrays and the exponential are numpy's own vector code, which goes by the processor, too.
    total = np.array([np.sum(dose_gy), np.dot(gradient, gradient), np.sum(np.exp(-dose_gy))])
    digest = hashlib.sha256()
    for array in (rows.mini, rows.value, rows.scale, dose_gy, gradient, total):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]
