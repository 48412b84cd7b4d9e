"""Monitor units: how fluence becomes the number that a machine counts.

A machine says how much dose one monitor unit (MU) gives in its reference condition. The engine computes the dose of the
same open field for a fluence of weight 1, and the quotient is the fluence of one MU. A beam whose fluence is modulated
by a compensator, as it is written to an RT Plan, delivers its largest fluence where nothing is in the way, so this is
what its MU are counted for. Choices and what is neglected: ``docs/methods/monitor_units.md``.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from engine.dose.engine import Patient
from engine.dose.photon_pencil_beam import PhotonPencilBeam
from engine.errors import DoseError
from engine.geometry.bricks import BrickLayout
from engine.model.arrays import F64
from engine.model.beam import Beam, BeamletGrid
from engine.model.grid import Grid
from engine.model.machine import PhotonMachine

_VOXEL_MM = 1.0
_WIDE_MM = 4000.0
"""Width of the phantom: a ray never leaves it at its side."""


@dataclass(frozen=True)
class BeamMonitorUnits:
    """What a machine would count for one beam.

    Parameters
    ----------
    mu_per_fraction
        Monitor units of one fraction, for the largest fluence of the beam.
    peak_weight
        Largest weight of a beamlet over the whole course, in 1e9 photons per mm².
    modulation_factor
        Largest weight over mean weight of all beamlets of the beam: 1 for an open field.
    """

    mu_per_fraction: float
    peak_weight: float
    modulation_factor: float


@cache
def reference_dose_gy(machine: PhotonMachine, depth_mm: float | None = None) -> float:
    """Return the dose that a fluence of weight 1 gives in the machine's reference condition.

    Parameters
    ----------
    machine
        The machine.
    depth_mm
        Another depth than that of the reference condition.

    Raises
    ------
    DoseError
        If the condition lies outside of what the engine can compute.
    """
    condition = machine.reference
    depth_mm = condition.depth_mm if depth_mm is None else depth_mm
    surface_mm = condition.ssd_mm - machine.sad_mm
    # Gantry 0, patient HFS: the beam goes along +y of LPS, and the isocentre is the origin.
    n_deep = int(np.ceil(2.0 * depth_mm / _VOXEL_MM)) + 1
    water = Grid(
        (-0.5 * _WIDE_MM, surface_mm + 0.5 * _VOXEL_MM, -0.5 * _WIDE_MM),
        (_WIDE_MM, _VOXEL_MM, _WIDE_MM),
        (2, n_deep, 2),
    )
    density = np.ones(water.shape_zyx, dtype=np.float32)
    layout = BrickLayout(Grid((0.0, surface_mm + depth_mm, 0.0), (1.0, 1.0, 1.0), (1, 1, 1)), 8)
    active = layout.to_rows(np.ones(layout.grid.shape_zyx, np.float32)) > 0.0
    beam = Beam("reference", 0.0, 0.0, 0.0, (0.0, 0.0, 0.0), machine.sad_mm)
    field = BeamletGrid(
        (condition.field_mm, condition.field_mm),
        np.zeros(1, np.int32),
        np.zeros(1, np.int32),
        np.array([0, 1]),
    )
    # The engine's cut-off and threshold do not enter a forward dose.
    engine = PhotonPencilBeam(machine, 50.0, 0.0)
    view = engine.view(Patient(water, density, "HFS"), layout, active, beam, (0.0, 0.0, 0.0), None)
    return float(layout.to_volume(engine.forward(view, field, np.ones(1), 1.0))[0, 0, 0])


def weight_per_mu(machine: PhotonMachine) -> float:
    """Return the open fluence of one MU, in 1e9 photons per mm² at the isocentre plane."""
    return machine.reference.gy_per_mu / reference_dose_gy(machine)


def beam_monitor_units(machine: PhotonMachine, weight: F64, n_fraction: int) -> BeamMonitorUnits:
    """Return the monitor units of a beam that a compensator modulates.

    Parameters
    ----------
    machine
        The machine.
    weight
        Weights of all beamlets of the beam over the whole course, normalised or not; shape (n_beamlet,).
    n_fraction
        Number of fractions that share them equally.

    Raises
    ------
    DoseError
        If a weight is negative or not finite, or there are no fractions.
    """
    if weight.size == 0 or not np.isfinite(weight).all() or float(weight.min()) < 0.0:
        raise DoseError("no monitor units for fluence that is absent, negative or not finite")
    if n_fraction < 1:
        raise DoseError(f"invalid n_fraction={n_fraction} (must be at least 1)")
    peak, mean = float(weight.max()), float(weight.mean(dtype=np.float64))
    return BeamMonitorUnits(
        mu_per_fraction=peak / weight_per_mu(machine) / n_fraction,
        peak_weight=peak,
        modulation_factor=peak / mean if mean > 0.0 else 1.0,
    )
