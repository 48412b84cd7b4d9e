"""What the report says and shows of every beam."""

from collections.abc import Iterator

import numpy as np

from engine.dose.monitor_units import beam_monitor_units, weight_per_mu
from engine.geometry.frames import source_mm
from engine.geometry.raytrace import radiological_depth_mm
from engine.geometry.skin import source_skin_distance_mm
from engine.model.arrays import F64
from engine.model.beam import Beam, BeamletGrid
from engine.model.machine import PhotonMachine
from flows.references import CaseRef, Placement
from flows.report.fluence import FluenceMap, fluence_map
from flows.report.summary import BeamSummary
from flows.run import Run
from flows.work.patient import DENSITY


def _of_beams(placement: Placement, weight: F64) -> Iterator[tuple[Beam, BeamletGrid, F64]]:
    return zip(placement.beams, placement.beamlets, placement.weights_of_beams(weight), strict=True)


def beam_summaries(
    run: Run, reference: CaseRef, placement: Placement, machine: PhotonMachine, weight: F64, n_fraction: int
) -> tuple[BeamSummary, ...]:
    """Describe every beam; ``weight`` of all beamlets is that of the whole course, normalised if the plan is."""
    case = reference.case
    arrays, _ = run.store.read_arrays(DENSITY, reference.density_digest, ["density"])
    density, body = arrays["density"], case.external.coverage
    summaries: list[BeamSummary] = []
    for beam, beamlets, of_beam in _of_beams(placement, weight):
        source, isocentre = source_mm(beam, case.patient_position), np.asarray(beam.isocentre_mm)
        depth_mm = radiological_depth_mm(density, case.grid, source, isocentre[None, :])
        summaries.append(
            BeamSummary.of(
                beam,
                beamlets,
                beam_monitor_units(machine, of_beam, n_fraction),
                source_skin_distance_mm(body, case.grid, source, isocentre),
                float(depth_mm[0]),
            )
        )
    return tuple(summaries)


def fluence_maps(
    placement: Placement, machine: PhotonMachine, weight: F64, n_fraction: int
) -> tuple[FluenceMap, ...]:
    """Return the fluence of every beam in MU per fraction."""
    weight_of_one = weight_per_mu(machine) * n_fraction
    return tuple(
        fluence_map(beam.name, beamlets, of_beam / weight_of_one)
        for beam, beamlets, of_beam in _of_beams(placement, weight)
    )
