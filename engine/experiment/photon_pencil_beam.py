"""Experiments by the photon pencil beam: what it cannot do, and the dose where it can."""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from engine.dose.monitor_units import weight_per_mu
from engine.dose.photon_pencil_beam import PhotonPencilBeam
from engine.errors import DoseError, ExperimentError
from engine.experiment.beam import place_beam
from engine.experiment.geometry import Geometry
from engine.experiment.scoring import samples_of
from engine.geometry.frames import project
from engine.model.arrays import F64
from engine.model.beam import Beam, BeamletGrid
from engine.model.machine import MACHINES, PhotonMachine
from engine.physics.photon_kernel import load_photon_kernel
from engine.spec.experiment import BeamSpec, Experiment

QUANTITY = "dose to water"
_NEAREST_MM = 500.0
_WIDEST_DEG = 20.0
_CELL_MM = 4.0
_LEAST_CELLS, _MOST_CELLS = 51, 101
_SUBSAMPLES = 16


def require_possible(experiment: Experiment) -> None:
    """Refuse what this engine cannot do.

    Raises
    ------
    ExperimentError
        With the key, the reason, and what to do instead.
    """
    beam = experiment.beam
    if beam.particle != "photon":
        raise ExperimentError(
            ("beam", "particle"),
            f"the photon pencil beam computes photons, not {beam.particle}s; ask for 'photon'",
        )
    if beam.source == "parallel":
        raise ExperimentError(
            ("beam", "source"),
            "the photon pencil beam knows point sources alone; take source = 'point' at a large distance (ssd_mm = "
            "100000 diverges by 0.1 % over 100 mm)",
        )
    made = "a kernel of another spectrum is made by engine/physics/kernel_calculation (docs/methods/photon_kernel.md)"
    if beam.energy_mev is not None:
        raise ExperimentError(
            ("beam", "energy_mev"),
            f"the photon pencil beam takes a kernel for a whole spectrum, by name (spectrum = 'mohan_6mv'); {made}",
        )
    if beam.machine is not None:
        if beam.machine not in MACHINES:
            raise ExperimentError(
                ("beam", "machine"),
                f"there is no machine '{beam.machine}' (there are: {', '.join(MACHINES)}); choose one",
            )
        sad_mm = MACHINES[beam.machine].sad_mm
        if beam.sad_mm is not None and beam.sad_mm != sad_mm:
            raise ExperimentError(
                ("beam", "sad_mm"),
                f"the source of {beam.machine} is {sad_mm:g} mm from its isocentre; write that, or ssd_mm",
            )
        return
    try:
        load_photon_kernel(str(beam.spectrum))
    except DoseError as error:
        raise ExperimentError(("beam", "spectrum"), f"{error}; {made}") from error


def unit_of(experiment: Experiment) -> str:
    """Return the unit of the scored dose, for people."""
    machine = experiment.beam.machine
    if experiment.score.unit == "per_mu" and machine is not None:
        return f"Gy per MU of {machine}; {MACHINES[machine].reference}"
    return f"Gy per 1e9 photons/mm2 (mean over the field, in its plane at the {experiment.beam.field_at}, no phantom)"


def forward_dose(experiment: Experiment, geometry: Geometry) -> Iterator[tuple[slice, F64, F64]]:
    """Yield the mean dose of every scoring voxel, some planes along z at a time.

    Parameters
    ----------
    experiment
        What is asked; `require_possible` has let it pass.
    geometry
        Its phantom or case.

    Yields
    ------
    tuple
        The planes; mean dose in `unit_of` over the part of each voxel that lies inside; the share of it that does: two
        arrays of shape (n_plane, n_y, n_x).

    Raises
    ------
    ExperimentError
        If the beam cannot be placed, or its geometry is beyond what the engine's model holds for.
    DoseError
        If a point lies deeper than the kernel reaches.
    """
    spec = experiment.beam
    beam = place_beam(spec, geometry)
    _require_geometry(spec, beam, geometry)
    machine = replace(_machine_of(spec), sad_mm=beam.sad_mm)
    # The full forward dose has neither cut-off nor threshold.
    engine = PhotonPencilBeam(machine, lateral_cutoff_mm=math.inf, threshold_fraction=0.0)
    beamlets, weight = field_beamlets(spec, beam.sad_mm)
    if experiment.score.unit == "per_mu":
        # Of the open field at the isocentre; in the plane of this field by inverse square.
        real = MACHINES[str(spec.machine)]
        weight = weight * weight_per_mu(real) * (real.sad_mm / beam.sad_mm) ** 2
    for planes, samples in samples_of(experiment.score):
        inside = geometry.inside(*samples.at_mm_xyz)
        active = samples.to_rows(inside.astype(np.float32)) > 0.0
        view = engine.view(geometry.patient, samples, active, beam, (0.0, 0.0, 0.0), None)
        dose_gy = samples.to_volume(engine.forward(view, beamlets, weight, 1.0))
        yield planes, *samples.mean(dose_gy, inside)


def field_beamlets(spec: BeamSpec, distance_mm: float) -> tuple[BeamletGrid, F64]:
    """Return the field as beamlets with weights, whose mean over the field is 1.

    A flat rectangle is one beamlet. Cells of at most 4 mm hold the fluence of an isotropic source; a round field has
    51 to 101 cells across, of 1 mm if possible, and those at its edge count by the share that lies inside.

    Parameters
    ----------
    spec
        The beam.
    distance_mm
        From the source to the plane in which the field is stated.
    """
    if spec.field_mm is None:
        diameter_mm = float(spec.field_diameter_mm or 0.0)
        n = _odd(min(max(diameter_mm, _LEAST_CELLS), _MOST_CELLS))
        count, size_mm = (n, n), (diameter_mm / n, diameter_mm / n)
    else:
        x, y = (1 if spec.fluence == "flat" else _odd(edge / _CELL_MM) for edge in spec.field_mm)
        count, size_mm = (x, y), (spec.field_mm[0] / x, spec.field_mm[1] / y)
    row, column = (a.ravel().astype(np.int32) for a in np.mgrid[: count[1], : count[0]])
    beamlets = BeamletGrid(size_mm, column - count[0] // 2, row - count[1] // 2, np.array([0, row.size]))
    u_mm, v_mm = beamlets.centres_mm()
    share = np.ones(row.size)
    if spec.field_mm is None:
        within = ((np.arange(_SUBSAMPLES) + 0.5) / _SUBSAMPLES - 0.5) * size_mm[0]
        corner = np.square(u_mm[:, None, None] + within[:, None]) + np.square(v_mm[:, None, None] + within)
        share = np.mean(corner <= 0.25 * diameter_mm**2, axis=(1, 2))
    weight = share
    if spec.fluence == "isotropic":
        weight = share * (1.0 + (u_mm**2 + v_mm**2) / distance_mm**2) ** -1.5
    return beamlets, weight * (share.sum() / weight.sum())


def _odd(at_least: float) -> int:
    return 2 * math.ceil((max(at_least, 1.0) - 1.0) / 2.0 - 1e-9) + 1


def _machine_of(spec: BeamSpec) -> PhotonMachine:
    """Return the named machine, or one of the given spectrum and focal spot; a forward dose asks nothing else of it."""
    if spec.machine is not None:
        return MACHINES[spec.machine]
    return replace(
        MACHINES["point-source-6mv"],
        name="experiment",
        kernel=str(spec.spectrum),
        collimator_distance_mm=spec.collimator_mm or _NEAREST_MM,
        source_sigma_mm=spec.source_sigma_mm,
        largest_field_mm=math.inf,
    )


def _require_geometry(spec: BeamSpec, beam: Beam, geometry: Geometry) -> None:
    """Refuse distances and angles at which kernels that are not tilted, and that know no collimator, do not hold."""
    corners = np.array(
        [[(geometry.low_mm, geometry.high_mm)[(n >> axis) & 1][axis] for axis in range(3)] for n in range(8)]
    )
    nearest_mm = float(project(corners, beam, geometry.patient.position)[1].min())
    machine = _machine_of(spec)
    least_mm = max(_NEAREST_MM, machine.collimator_distance_mm)
    key = "sad_mm" if spec.sad_mm is not None else "ssd_mm"
    if nearest_mm < least_mm:
        raise ExperimentError(
            ("beam", key),
            f"the nearest part of the phantom or CT lies {nearest_mm:.0f} mm from the source along the beam's axis "
            f"(the photon pencil beam needs {least_mm:.0f} mm: its kernels are not tilted, and the collimator lies "
            "before the phantom); move the source away",
        )
    edge_mm = max(spec.field_mm) if spec.field_mm else float(spec.field_diameter_mm or 0.0)
    at_isocentre_mm = edge_mm * machine.sad_mm / beam.sad_mm
    if at_isocentre_mm > machine.largest_field_mm:
        raise ExperimentError(
            ("beam", "field_mm" if spec.field_mm else "field_diameter_mm"),
            f"the field is {at_isocentre_mm:.0f} mm wide at the isocentre (most: {machine.largest_field_mm:g} mm with "
            f"{machine.name}); take a smaller field",
        )
    half_mm = 0.5 * (math.hypot(*spec.field_mm) if spec.field_mm else float(spec.field_diameter_mm or 0.0))
    angle_deg = math.degrees(math.atan2(half_mm, beam.sad_mm))
    if angle_deg > _WIDEST_DEG:
        raise ExperimentError(
            ("beam", "field_mm" if spec.field_mm else "field_diameter_mm"),
            f"the field reaches {angle_deg:.0f}° from its axis (at most {_WIDEST_DEG:.0f}°: kernels are not tilted); "
            "take a smaller field",
        )
