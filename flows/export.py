"""Write a plan as DICOM: RT Plan, RT Dose of plan, beams and scenarios, structure set, and the CT where none exists."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from engine.geometry.resample import average_onto
from engine.model.arrays import F32
from engine.model.case import Case
from engine.model.scenario import Scenario
from engine.spec.study import Study
from engine.structures.contouring import with_contours
from flows.judging import Judgement, beam_doses, forward_doses
from flows.references import CaseRef, Placement, Solve
from flows.run import Run
from storage.cases import read_reference, stored_name
from storage.dicom.datasets import LO_LENGTH
from storage.dicom.uids import CtReference, InstanceReference
from storage.dicom.write_ct import ct_reference, write_ct
from storage.dicom.write_dose import write_dose
from storage.dicom.write_plan import PlannedBeam, PlannedDose, write_plan
from storage.dicom.write_structures import write_structures


@dataclass(frozen=True)
class ExportChoice:
    """What to write beside plan, its dose and the structure set.

    Parameters
    ----------
    beams
        The dose of every beam.
    scenarios
        The dose of every scenario but the nominal one, which is the plan's dose.
    ct
        The CT, even if it came from DICOM: a set of new files that depends on no other.
    """

    beams: bool = False
    scenarios: bool = False
    ct: bool = False


@dataclass(frozen=True)
class Exported:
    """What was written.

    Parameters
    ----------
    n_file
        Number of files by kind, in the order of their references.
    notes
        What a reader should know, such as structures that were left out.
    """

    n_file: dict[str, int]
    notes: tuple[str, ...]


def export_plan(
    run: Run,
    study: Study,
    reference: CaseRef,
    placement: Placement,
    scenarios: Sequence[Scenario],
    solve: Solve,
    judgement: Judgement,
    folder: Path,
    choice: ExportChoice = ExportChoice(),
) -> Exported:
    """Write a consistent set of files into ``folder``; every dose comes out of the store.

    The files refer to the CT that was planned on. Where that is in no DICOM file, has no frame of reference, or has
    other slices than the case (interpolated, multi-frame), the CT is written, too.

    Raises
    ------
    DicomError
        If something cannot be said in DICOM.
    """
    case = reference.case
    n_file = {"CT": 0, "RTSTRUCT": 0, "RTPLAN": 1, "RTDOSE": 1}
    ct, writes_ct = choose_ct(run, study, reference, choice.ct)
    if writes_ct:
        write_ct(case, folder)
        n_file["CT"] = case.grid.shape_zyx[0]
    drawn, notes = writable_structures(case)
    structure_set: InstanceReference | None = None
    if drawn.structures:
        structure_set = write_structures(drawn, folder, ct)
        n_file["RTSTRUCT"] = 1
    factor = np.float32(1.0 if judgement.factor is None else judgement.factor)
    weight = solve.result.weight
    of_beams = [
        final.dose_gy * factor for final in beam_doses(run, placement, placement.report, scenarios[0], weight)
    ]
    grid = placement.report.layout.grid
    in_target = average_onto(case.structure(study.prescription.target).coverage, case.grid, grid)
    in_target /= in_target.sum(dtype=np.float64)
    plan = write_plan(
        folder,
        study.name,
        [
            PlannedBeam(beam, beamlets, of_beam, float((dose_gy * in_target).sum(dtype=np.float64)))
            for beam, beamlets, of_beam, dose_gy in zip(
                placement.beams,
                placement.beamlets,
                placement.weights_of_beams(judgement.weight),
                of_beams,
                strict=True,
            )
        ],
        placement.engine.machine,
        _prescribed(study, drawn, judgement.factor),
        case_name=case.name,
        patient_position=case.patient_position,
        ct=ct,
        structure_set=structure_set,
    )

    def dose(dose_gy: F32, beam_number: int | None, comment: str) -> None:
        write_dose(
            folder,
            grid,
            np.maximum(dose_gy, 0.0),
            case_name=case.name,
            ct=ct,
            plan=plan,
            beam_number=beam_number,
            comment=comment,
        )

    dose(judgement.report_dose_gy, None, "")
    if choice.beams:
        for number, dose_gy in enumerate(of_beams, start=1):
            dose(dose_gy, number, f"Beam {number}")
        n_file["RTDOSE"] += len(of_beams)
    if choice.scenarios:
        for number, scenario in enumerate(scenarios[1:], start=1):
            # One at a time: all of them may be more than fits into memory.
            ((final,),) = forward_doses(run, placement, [(placement.report, scenario)], [weight], "export")
            dose(final.dose_gy * factor, None, f"Scenario {number}: {scenario.name}")
        n_file["RTDOSE"] += len(scenarios) - 1
    return Exported({kind: n for kind, n in n_file.items() if n}, notes)


def choose_ct(run: Run, study: Study, reference: CaseRef, asked: bool) -> tuple[CtReference, bool]:
    """Return the identifiers of the CT that all files refer to, and whether it has to be written."""
    stored = read_reference(run.store, reference.digest)
    # A case from files other than DICOM was given the identifiers under which it would be written.
    as_stored = replace(reference.case, name=stored_name(run.store, reference.digest))
    nowhere = study.case.phantom is not None or stored == ct_reference(as_stored)
    is_sliced = len(stored.instance_uids) == reference.case.grid.shape_zyx[0]
    if asked or nowhere or not stored.frame_of_reference_uid or not is_sliced:
        return ct_reference(reference.case), True
    return stored, False


def writable_structures(case: Case) -> tuple[Case, tuple[str, ...]]:
    """Return the case with the structures that a structure set can hold, and notes on the others.

    Those that are known as voxels alone, because a study made them or they came so, get contours.
    """
    kept, notes = [], []
    for structure in with_contours(case).structures:
        if not structure.contours:
            notes.append(f"structure '{structure.name}' is left out of the structure set: it has no contours")
        elif len(structure.name) > LO_LENGTH or "\\" in structure.name:
            notes.append(
                f"structure '{structure.name}' is left out of the structure set: DICOM cannot hold its name"
            )
        else:
            kept.append(structure)
    return replace(case, structures=tuple(kept)), tuple(notes)


def _prescribed(study: Study, drawn: Case, factor: float | None) -> PlannedDose:
    target = study.prescription.target
    numbers = {structure.name: number for number, structure in enumerate(drawn.structures, start=1)}
    return PlannedDose(
        target,
        numbers.get(target),
        study.prescription.dose_gy,
        study.prescription.fractions,
        "Not normalised" if factor is None else f"Normalised: {study.prescription.normalise}",
    )
