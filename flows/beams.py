"""What the report says and shows of every beam."""

from collections.abc import Iterator

import numpy as np

from engine.dose.monitor_units import beam_monitor_units, weight_per_mu
from engine.evaluate.skin_loading import SkinLoading, skin_loading
from engine.geometry.frames import source_mm
from engine.geometry.raytrace import radiological_depth_mm
from engine.geometry.skin import source_skin_distance_mm
from engine.model.arrays import F64
from engine.model.beam import Beam, BeamletGrid
from engine.model.case import Case
from engine.model.machine import PhotonMachine
from engine.spec.study import Study
from engine.structures.recipes import Crop
from flows.references import CaseRef, Placement
from flows.report.fluence import FluenceMap, fluence_map
from flows.report.summary import BeamSummary
from flows.run import Run
from flows.work.patient import DENSITY

SKIN_MM = 5.0
"""What lies nearer to the skin is in the build-up, if the study does not say it."""


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


def skin_loading_of(study: Study, case: Case, placement: Placement, weight: F64) -> SkinLoading | None:
    """Return the fluence along the skin of the target, the whole one if it was cropped; None where it is not there."""
    target, depth_mm = study.prescription.target, SKIN_MM
    for recipe in study.structures:
        if isinstance(recipe, Crop) and recipe.name == target:
            target, depth_mm = recipe.structure, recipe.depth_mm
    return skin_loading(
        case, target, depth_mm, placement.beams, placement.beamlets, placement.weights_of_beams(weight)
    )


def fluence_maps(
    placement: Placement, machine: PhotonMachine, weight: F64, n_fraction: int
) -> tuple[FluenceMap, ...]:
    """Return the fluence of every beam in MU per fraction."""
    weight_of_one = weight_per_mu(machine) * n_fraction
    return tuple(
        fluence_map(beam.name, beamlets, of_beam / weight_of_one)
        for beam, beamlets, of_beam in _of_beams(placement, weight)
    )
