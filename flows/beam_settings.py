"""The beams of a study: from its angles, or from a plan that was imported with the case."""

from engine.errors import StudyError
from engine.geometry.beamlets import centre_of_mass_mm, united
from engine.model.beam import Beam
from engine.model.case import Case, Structure
from engine.model.machine import MACHINES
from engine.model.plan import ExternalBeam
from engine.spec.study import Study
from flows.references import CaseRef
from flows.run import Run
from storage.imported import find_plan

_SAME_DEG, _SAME_MM = 1e-3, 1e-3
Setting = tuple[float, float, float, tuple[float, float, float]]
"""Gantry, couch and collimator angle, and isocentre."""


def beams_of_study(run: Run, study: Study, reference: CaseRef) -> list[Beam]:
    """Return the beams, named after number and angles.

    Raises
    ------
    StudyError
        If they come from a plan that has no photon beams at rest, or was made for another patient position.
    CaseError
        If the case has no such plan.
    """
    if study.beams.from_plan is not None:
        settings = _settings_of_plan(run, study.beams.from_plan, reference)
    else:
        case = reference.case
        isocentre = study.beams.isocentre_mm or centre_of_mass_mm(beam_target(study, case), case.grid)
        settings = [(*angles, isocentre) for angles in study.beams.angles()]
    sad_mm = MACHINES[study.beams.machine].sad_mm
    return [
        Beam(f"{number} G{gantry:g} T{couch:g}", gantry, couch, collimator, isocentre, sad_mm)
        for number, (gantry, couch, collimator, isocentre) in enumerate(settings, start=1)
    ]


def beam_target(study: Study, case: Case) -> Structure:
    """Return what beamlets have to cover: the prescription's target, united with those that the study adds."""
    return united(case, (study.prescription.target, *study.beams.also_cover))


def _settings_of_plan(run: Run, wanted: str, reference: CaseRef) -> list[Setting]:
    plan = find_plan(run.store, reference.digest, wanted)
    if plan.patient_position not in ("", reference.case.patient_position):
        raise StudyError(
            f"beams.from_plan: plan '{wanted}' is for patient position {plan.patient_position}, the CT was made in "
            f"{reference.case.patient_position}; give angles of your own"
        )
    settings: list[Setting] = []
    for beam in plan.beams:
        if beam.delivery not in ("", "TREATMENT"):
            continue
        setting = _setting(beam, wanted)
        if any(_same(setting, other) for other in settings):
            run.reporter.say(
                f"  note: beam {beam.number} of plan '{wanted}' comes from where another one does; both are one here"
            )
        else:
            settings.append(setting)
    if not settings:
        raise StudyError(f"beams.from_plan: plan '{wanted}' has no treatment beam; give angles of your own")
    return settings


def _setting(beam: ExternalBeam, plan: str) -> Setting:
    if beam.radiation != "PHOTON":
        raise StudyError(
            f"beams.from_plan: beam {beam.number} of plan '{plan}' is one of {beam.radiation or 'unknown radiation'} "
            "(only photons can be planned); give angles of your own"
        )
    if max(beam.gantry_deg) - min(beam.gantry_deg) > _SAME_DEG:
        raise StudyError(
            f"beams.from_plan: beam {beam.number} of plan '{plan}' is an arc (beams stand still here); give angles of "
            "your own"
        )
    if beam.isocentre_mm is None:
        raise StudyError(
            f"beams.from_plan: beam {beam.number} of plan '{plan}' has no isocentre; give angles and isocentre"
        )
    # Plans write angles with digits that mean nothing (8.5e-10): what no machine can tell apart is the same here.
    gantry, couch, collimator = (
        round(angle, 3) % 360.0 for angle in (beam.gantry_deg[0], beam.couch_deg, beam.collimator_deg)
    )
    return gantry, couch, collimator, beam.isocentre_mm


def _same(one: Setting, other: Setting) -> bool:
    near = all(abs(a - b) <= _SAME_MM for a, b in zip(one[3], other[3], strict=True))
    return near and one[:3] == other[:3]
