"""Write a plan as DICOM RT Plan: static beams, each modulated by a compensator (decision 0010).

Attributes and codes: PS3.3 C.8.8.9 to C.8.8.16. Nothing is rounded but by the sixteen characters of a Decimal String.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RTPlanStorage

from engine.dose.monitor_units import BeamMonitorUnits, beam_monitor_units
from engine.errors import DicomError
from engine.model.arrays import F64
from engine.model.beam import Beam, BeamletGrid
from engine.model.case import PatientPosition
from engine.model.machine import PhotonMachine
from storage.dicom.datasets import (
    EXPLICIT_LENGTH_LIMIT,
    LO_LENGTH,
    RESEARCH_USE_ONLY,
    decimal_string,
    new_dataset,
    reference_item,
    save,
)
from storage.dicom.uids import CtReference, InstanceReference, content_uid

PLAN_LABEL = "RESEARCH ONLY"
"""A plan's label may have sixteen characters, one less than the usual words."""
SETUP_NUMBER = 1
FRACTION_GROUP_NUMBER = 1
DOSE_REFERENCE_NUMBER = 1


@dataclass(frozen=True)
class PlannedBeam:
    """A beam as it is written.

    Parameters
    ----------
    beam, beamlets
        Geometry.
    weight
        Fluence of every beamlet over the whole course, in 1e9 photons per mm²; shape (n_beamlet,).
    target_mean_gy
        Mean dose that this beam gives the target over the whole course.
    """

    beam: Beam
    beamlets: BeamletGrid
    weight: F64
    target_mean_gy: float


@dataclass(frozen=True)
class PlannedDose:
    """What was prescribed.

    Parameters
    ----------
    target
        Name of the structure that gets the dose.
    roi_number
        Its number in the structure set; None if it is not in there.
    dose_gy, n_fraction
        Dose of the course, and in how many equal parts.
    normalisation
        How the plan was scaled, in words; a plan that was not scaled says so.
    """

    target: str
    roi_number: int | None
    dose_gy: float
    n_fraction: int
    normalisation: str


def write_plan(
    folder: Path,
    name: str,
    beams: Sequence[PlannedBeam],
    machine: PhotonMachine,
    prescribed: PlannedDose,
    *,
    case_name: str,
    patient_position: PatientPosition,
    ct: CtReference,
    structure_set: InstanceReference | None,
) -> InstanceReference:
    """Write a photon plan to ``RTPLAN.<uid>.dcm`` in ``folder``; beams are numbered from 1 in their order.

    Parameters
    ----------
    folder
        Where to write.
    name
        Name of the plan, without personal data.
    beams
        The beams.
    machine
        The machine, which says what a monitor unit is.
    prescribed
        Prescription and normalisation.
    case_name
        Label for Patient Name and Patient ID; the same as for CT and structure set.
    patient_position
        How the patient lies.
    ct
        Identifiers of the CT that was planned on.
    structure_set
        The structure set; without one the plan says that its geometry is that of the machine alone.

    Raises
    ------
    DicomError
        If there is no beam.
    DoseError
        If a weight is negative or not finite.
    """
    if not beams:
        raise DicomError("a plan without beams cannot be written as RT Plan")
    units = [beam_monitor_units(machine, b.weight, prescribed.n_fraction) for b in beams]
    dataset = new_dataset(RTPlanStorage, "", "RTPLAN", ct.study_uid, "", case_name)
    dataset.SeriesDescription = f"{RESEARCH_USE_ONLY} plan"
    dataset.SeriesNumber = 3
    dataset.FrameOfReferenceUID = ct.frame_of_reference_uid
    dataset.PositionReferenceIndicator = ""
    dataset.RTPlanLabel = PLAN_LABEL
    dataset.RTPlanName = name.replace("\\", "-")[:LO_LENGTH]
    dataset.RTPlanDescription = (
        f"{RESEARCH_USE_ONLY}, not for clinical use. {prescribed.normalisation}. Meterset: {machine.reference}; no "
        "head scatter, no transmission of jaws. Fluence as transmission of an ideal compensator without thickness; "
        "Compensator Position is the centre of the first pixel."
    )
    dataset.RTPlanDate = ""
    dataset.RTPlanTime = ""
    dataset.PlanIntent = "RESEARCH"
    dataset.RTPlanGeometry = "TREATMENT_DEVICE" if structure_set is None else "PATIENT"
    if structure_set is not None:
        dataset.ReferencedStructureSetSequence = [
            reference_item(structure_set.sop_class_uid, structure_set.sop_instance_uid)
        ]
    dataset.PrescriptionDescription = (
        f"{prescribed.dose_gy:g} Gy in {prescribed.n_fraction} fractions to {prescribed.target}. "
        f"{prescribed.normalisation}."
    )
    dose_reference = _dose_reference(prescribed, ct)
    dataset.DoseReferenceSequence = [dose_reference]
    dataset.FractionGroupSequence = [
        _fraction_group(beams, units, prescribed, str(dose_reference.DoseReferenceUID))
    ]
    dataset.PatientSetupSequence = [_patient_setup(patient_position)]
    dataset.BeamSequence = [_beam(number, planned, machine) for number, planned in enumerate(beams, start=1)]
    dataset.ApprovalStatus = "UNAPPROVED"
    digest = hashlib.sha256(dataset.to_json().encode()).hexdigest()
    dataset.SOPInstanceUID = content_uid("plan", digest)
    dataset.SeriesInstanceUID = content_uid("plan series", digest)
    longest = max(
        len("\\".join(map(str, b.CompensatorSequence[0].CompensatorTransmissionData)))
        for b in dataset.BeamSequence
    )
    save(
        dataset,
        folder,
        ExplicitVRLittleEndian if longest <= EXPLICIT_LENGTH_LIMIT else ImplicitVRLittleEndian,
    )
    return InstanceReference(RTPlanStorage, str(dataset.SOPInstanceUID))


def _dose_reference(prescribed: PlannedDose, ct: CtReference) -> Dataset:
    """Return the item of the prescription (C.8.8.10)."""
    item = Dataset()
    item.DoseReferenceNumber = DOSE_REFERENCE_NUMBER
    item.DoseReferenceUID = content_uid(
        "dose reference", ct.series_uid, prescribed.target, decimal_string(prescribed.dose_gy)
    )
    if prescribed.roi_number is None:
        item.DoseReferenceStructureType = "SITE"
    else:
        item.DoseReferenceStructureType = "VOLUME"
        item.ReferencedROINumber = prescribed.roi_number
    item.DoseReferenceDescription = prescribed.target.replace("\\", "-")[:LO_LENGTH]
    item.DoseReferenceType = "TARGET"
    item.TargetPrescriptionDose = decimal_string(prescribed.dose_gy)
    return item


def _fraction_group(
    beams: Sequence[PlannedBeam],
    units: Sequence[BeamMonitorUnits],
    prescribed: PlannedDose,
    dose_reference_uid: str,
) -> Dataset:
    """Return the item that gives every beam its monitor units and mean target dose of one fraction (C.8.8.13)."""
    group = Dataset()
    group.FractionGroupNumber = FRACTION_GROUP_NUMBER
    group.NumberOfFractionsPlanned = prescribed.n_fraction
    group.NumberOfBeams = len(beams)
    group.NumberOfBrachyApplicationSetups = 0
    reference = Dataset()
    reference.ReferencedDoseReferenceNumber = DOSE_REFERENCE_NUMBER
    reference.TargetPrescriptionDose = decimal_string(prescribed.dose_gy)
    group.ReferencedDoseReferenceSequence = [reference]
    group.ReferencedBeamSequence = []
    for number, (planned, of_beam) in enumerate(zip(beams, units, strict=True), start=1):
        item = Dataset()
        item.ReferencedBeamNumber = number
        item.BeamMeterset = decimal_string(of_beam.mu_per_fraction)
        item.BeamDose = decimal_string(planned.target_mean_gy / prescribed.n_fraction)
        item.BeamDoseType = "PHYSICAL"
        item.ReferencedDoseReferenceUID = dose_reference_uid
        group.ReferencedBeamSequence.append(item)
    return group


def _patient_setup(patient_position: PatientPosition) -> Dataset:
    """Return the item that says how the patient lies (C.8.8.12)."""
    setup = Dataset()
    setup.PatientSetupNumber = SETUP_NUMBER
    setup.PatientPosition = patient_position
    return setup


def _beam(number: int, planned: PlannedBeam, machine: PhotonMachine) -> Dataset:
    """Return the item of a beam (C.8.8.14)."""
    beam = planned.beam
    item = Dataset()
    item.BeamNumber = number
    item.BeamName = beam.name.replace("\\", "-")[:LO_LENGTH]
    item.BeamType = "STATIC"
    item.RadiationType = "PHOTON"
    item.TreatmentMachineName = machine.name[:16]
    item.PrimaryDosimeterUnit = "MU"
    item.SourceAxisDistance = decimal_string(beam.sad_mm)
    item.TreatmentDeliveryType = "TREATMENT"
    item.NumberOfWedges = 0
    item.NumberOfCompensators = 1
    item.TotalCompensatorTrayFactor = "1"
    item.NumberOfBoli = 0
    item.NumberOfBlocks = 0
    item.CompensatorSequence = [_compensator(planned, machine)]
    item.BeamLimitingDeviceSequence = []
    for kind in ("ASYMX", "ASYMY"):
        device = Dataset()
        device.RTBeamLimitingDeviceType = kind
        device.NumberOfLeafJawPairs = 1
        item.BeamLimitingDeviceSequence.append(device)
    item.ReferencedPatientSetupNumber = SETUP_NUMBER
    item.FinalCumulativeMetersetWeight = "1"
    item.NumberOfControlPoints = 2
    last = Dataset()
    last.ControlPointIndex = 1
    last.CumulativeMetersetWeight = "1"
    item.ControlPointSequence = [_first_control_point(planned, machine), last]
    return item


def _first_control_point(planned: PlannedBeam, machine: PhotonMachine) -> Dataset:
    """Return the control point that holds the whole geometry: nothing moves while a static beam is on."""
    beam, beamlets = planned.beam, planned.beamlets
    point = Dataset()
    point.ControlPointIndex = 0
    point.CumulativeMetersetWeight = "0"
    point.NominalBeamEnergy = decimal_string(machine.nominal_energy_mv)
    point.BeamLimitingDevicePositionSequence = []
    for kind, index, size_mm in zip(
        ("ASYMX", "ASYMY"), (beamlets.column, beamlets.row), beamlets.size_mm, strict=True
    ):
        jaws = Dataset()
        jaws.RTBeamLimitingDeviceType = kind
        jaws.LeafJawPositions = [
            decimal_string((int(index.min()) - 0.5) * size_mm),
            decimal_string((int(index.max()) + 0.5) * size_mm),
        ]
        point.BeamLimitingDevicePositionSequence.append(jaws)
    point.GantryAngle = decimal_string(beam.gantry_deg % 360.0)
    point.GantryRotationDirection = "NONE"
    point.BeamLimitingDeviceAngle = decimal_string(beam.collimator_deg % 360.0)
    point.BeamLimitingDeviceRotationDirection = "NONE"
    point.PatientSupportAngle = decimal_string(beam.couch_deg % 360.0)
    point.PatientSupportRotationDirection = "NONE"
    point.TableTopEccentricAngle = "0"
    point.TableTopEccentricRotationDirection = "NONE"
    point.TableTopVerticalPosition = None
    point.TableTopLongitudinalPosition = None
    point.TableTopLateralPosition = None
    point.IsocenterPosition = [decimal_string(v) for v in beam.isocentre_mm]
    return point


def _compensator(planned: PlannedBeam, machine: PhotonMachine) -> Dataset:
    """Return the compensator that turns an open field into the beam's fluence.

    Rows run along +x of the collimator and follow each other along -y (C.8.8.14.10), so the first pixel is the one of
    least x and largest y. Its centre is the position, as for the "upper left hand corner" of an RT Image (C.8.8.2).
    """
    beamlets = planned.beamlets
    column, row = beamlets.column - beamlets.column.min(), beamlets.row.max() - beamlets.row
    transmission = np.zeros((int(row.max()) + 1, int(column.max()) + 1))
    peak = float(planned.weight.max())
    if peak > 0.0:
        transmission[row, column] = planned.weight / peak
    item = Dataset()
    item.CompensatorDescription = f"{RESEARCH_USE_ONLY} fluence of the beam over its largest value"
    item.MaterialID = ""
    item.CompensatorNumber = 1
    item.CompensatorType = "STANDARD"
    item.CompensatorID = ""
    item.SourceToCompensatorTrayDistance = decimal_string(machine.collimator_distance_mm)
    item.CompensatorDivergence = "PRESENT"
    item.CompensatorRows, item.CompensatorColumns = transmission.shape
    size_x_mm, size_y_mm = beamlets.size_mm
    item.CompensatorPixelSpacing = [decimal_string(size_y_mm), decimal_string(size_x_mm)]
    item.CompensatorPosition = [
        decimal_string(int(beamlets.column.min()) * size_x_mm),
        decimal_string(int(beamlets.row.max()) * size_y_mm),
    ]
    item.CompensatorTransmissionData = [decimal_string(v) for v in transmission.ravel()]
    # It has no material, so the standard leaves it open whether there are thicknesses; Debian's dciodvfy insists.
    item.CompensatorThicknessData = ["0"] * transmission.size
    return item
