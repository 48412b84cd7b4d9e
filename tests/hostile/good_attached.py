"""A small good plan and dose beside the good CT, and an MR with its registration."""

import shutil
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import RTIonPlanStorage, RTStructureSetStorage, generate_uid

from engine.model.beam import Beam, BeamletGrid
from engine.model.machine import MACHINES
from storage.dicom.uids import InstanceReference
from storage.dicom.write_ct import ct_reference
from storage.dicom.write_dose import write_dose
from storage.dicom.write_plan import PlannedBeam, PlannedDose, write_plan
from tests.dicom_files import AXIAL, rigid, turned, write_enhanced_ct, write_registration, write_series
from tests.hostile.good import GRID, good_case

MR_FRAME = "1.2.826.0.1.2"


def write_attached(folder: Path) -> None:
    """Write ``plan.dcm`` (photons, with leaves), ``ion.dcm`` and ``dose.dcm`` into the good folder."""
    ct = ct_reference(good_case())
    structures = InstanceReference(RTStructureSetStorage, str(dcmread(folder / "rt.dcm").SOPInstanceUID))
    row, column = (a.ravel().astype(np.int32) for a in np.meshgrid(range(3), range(4), indexing="ij"))
    beamlets = BeamletGrid((5.0, 5.0), column, row, np.array([0, row.size]))
    beam = Beam(
        "1 G30",
        gantry_deg=30.0,
        couch_deg=0.0,
        collimator_deg=0.0,
        isocentre_mm=(0.0, 0.0, 20.0),
        sad_mm=1000.0,
    )
    planned = PlannedBeam(beam, beamlets, np.linspace(0.1, 2.0, row.size), 12.5)
    reference = write_plan(
        folder, "a plan", [planned], MACHINES["generic-6mv"], PlannedDose("PTV", 2, 50.0, 25, "normalised"),
        case_name="small", patient_position="HFS", ct=ct, structure_set=structures,
    )  # fmt: skip
    write_dose(folder, GRID, np.ones(GRID.shape_zyx), case_name="small", ct=ct, plan=reference)
    next(folder.glob("RTPLAN*")).rename(folder / "plan.dcm")
    next(folder.glob("RTDOSE*")).rename(folder / "dose.dcm")
    _same_patient(folder)
    plan = dcmread(folder / "plan.dcm")
    _with_leaves(plan.BeamSequence[0])
    plan.save_as(folder / "plan.dcm")
    _ion_plan(plan).save_as(folder / "ion.dcm")


def _same_patient(folder: Path) -> None:
    """Give all files one patient ID."""
    for path in folder.glob("*.dcm"):
        dataset = dcmread(path)
        dataset.PatientID = "small"
        dataset.save_as(path)


def _with_leaves(beam: Dataset) -> None:
    device, position = Dataset(), Dataset()
    device.RTBeamLimitingDeviceType = position.RTBeamLimitingDeviceType = "MLCX"
    device.NumberOfLeafJawPairs = 3
    device.LeafPositionBoundaries = [-15, -5, 5, 15]
    position.LeafJawPositions = [-10, -10, -10, 10, 10, 10]
    beam.BeamLimitingDeviceSequence.append(device)
    beam.ControlPointSequence[0].BeamLimitingDevicePositionSequence.append(position)


def _ion_plan(plan: Dataset) -> Dataset:
    """Make a scanned proton plan of one beam and two layers from a photon plan."""
    plan.SOPClassUID = plan.file_meta.MediaStorageSOPClassUID = RTIonPlanStorage
    plan.SOPInstanceUID = plan.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["ion"])
    plan.RTPlanLabel = "IONS"
    beam = Dataset()
    beam.BeamNumber, beam.BeamName, beam.BeamType, beam.ScanMode = 1, "P", "STATIC", "MODULATED"
    beam.RadiationType, beam.TreatmentMachineName, beam.FinalCumulativeMetersetWeight = (
        "PROTON",
        "gantry",
        20.0,
    )
    beam.VirtualSourceAxisDistances = [2000.0, 2500.0]
    points = []
    for number in range(4):
        point = Dataset()
        point.ControlPointIndex, point.NominalBeamEnergy = number, 150.0 - 5.0 * (number // 2)
        point.CumulativeMetersetWeight = 10.0 * ((number + 1) // 2)
        point.GantryAngle, point.IsocenterPosition = 90.0, [0.0, 0.0, 20.0]
        point.NumberOfScanSpotPositions = 2
        point.ScanSpotPositionMap = [0.0, 0.0, 5.0, 5.0]
        point.ScanSpotMetersetWeights = [5.0, 5.0] if number % 2 == 0 else [0.0, 0.0]
        point.ScanningSpotSize, point.NumberOfPaintings = [8.0, 8.0], 1
        points.append(point)
    beam.IonControlPointSequence = points
    shifter = Dataset()
    shifter.RangeShifterNumber, shifter.RangeShifterID, shifter.RangeShifterType = 1, "RS", "BINARY"
    beam.RangeShifterSequence = [shifter]
    plan.IonBeamSequence = [beam]
    del plan.BeamSequence
    return plan


def write_second(folder: Path) -> None:
    """Write an MR series (``mr1.dcm`` to ``mr3.dcm``) in coordinates of its own, and ``reg.dcm`` that places it."""
    made = folder / "made"
    matrix = rigid(turned((0, 0, 1), 10.0), (3.0, -2.0, 1.0))
    paths = write_series(
        made, lambda places: 100.0 + places[..., 0], modality="MR", frame=MR_FRAME, first_mm=(-40.0, -40.0, 0.0),
        cosines=AXIAL, spacing_mm=(8.0, 8.0, 15.0), shape_zyx=(3, 10, 10), PatientID="small",
    )  # fmt: skip
    for number, path in enumerate(paths, start=1):
        path.rename(folder / f"mr{number}.dcm")
    frame = str(dcmread(folder / "1.dcm").FrameOfReferenceUID)
    registration = write_registration(made, [(frame, [np.eye(4)]), (MR_FRAME, [matrix])], frame=frame)
    registration.rename(folder / "reg.dcm")
    dataset = dcmread(folder / "reg.dcm")
    dataset.PatientID = "small"
    dataset.save_as(folder / "reg.dcm")
    shutil.rmtree(made)


def write_enhanced(folder: Path) -> None:
    """Put one multi-frame CT, ``enhanced.dcm``, in place of the slices and structures."""
    for path in folder.glob("*.dcm"):
        path.unlink()
    write_enhanced_ct(folder, lambda places: 10.0 * places[..., 0], shape_zyx=(5, 6, 7))
