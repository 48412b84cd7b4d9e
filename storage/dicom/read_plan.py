"""Read an RT Plan (PS3.3 A.20) or RT Ion Plan (A.49): what can be compared or planned again, nothing personal.

A control point names only what has changed since the one before (C.8.8.14.5), so values are carried forward. Private
elements are not looked at.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.uid import RTIonPlanStorage

from engine.errors import DicomError, shortened
from engine.model.plan import (
    ExternalBeam,
    ExternalPlan,
    FluenceMap,
    Opening,
    Prescription,
    RangeShifter,
    SpotLayer,
)
from storage.dicom.scan import Header, read_file

_DOSES = ("TargetPrescriptionDose", "OrganAtRiskMaximumDose", "DeliveryMaximumDose")
_STILL = ("TableTopPitchAngle", "TableTopRollAngle", "TableTopEccentricAngle", "GantryPitchAngle")
_WEIGHT_TOLERANCE = 1e-3
"""Spot weights are single precision numbers, their sums are written as text."""


def read_plan(header: Header) -> ExternalPlan:
    """Read a plan.

    Parameters
    ----------
    header
        The plan, as found by `storage.dicom.scan.scan_folder`.

    Raises
    ------
    DicomError
        If the file is damaged, or holds no beams.
    """
    try:
        # Real plans write numbers with too many digits, and dates and names in ways of their own.
        with disable_value_validation():
            return _plan(read_file(header.path))
    except DicomError as error:
        raise DicomError(f"the plan '{header.path.name}' {error}") from error
    except Exception as error:  # sequences are decoded here; pydicom raises many kinds on damaged ones
        raise DicomError(
            f"the plan '{header.path.name}' cannot be understood ({type(error).__name__}: damaged?): export it "
            "again"
        ) from error


def _plan(dataset: Dataset) -> ExternalPlan:
    is_ion = dataset.SOPClassUID == RTIonPlanStorage
    items = dataset.get("IonBeamSequence" if is_ion else "BeamSequence") or []
    if not items:
        raise DicomError(
            "has no beams (brachytherapy, or cut short?): only plans with external beams can be read"
        )
    notes: list[str] = []
    groups = dataset.get("FractionGroupSequence") or []
    if len(groups) > 1:
        notes.append(f"{len(groups)} fraction groups; only the first is read")
    group = groups[0] if groups else Dataset()
    metersets = {
        int(item.ReferencedBeamNumber): _number(item, "BeamMeterset")
        for item in group.get("ReferencedBeamSequence") or []
    }
    numbers = [int(item.BeamNumber) for item in items]
    if len(set(numbers)) < len(numbers):
        raise DicomError(
            "has several beams of one number (metersets could be those of either): export it again"
        )
    setups = dataset.get("PatientSetupSequence") or []
    structure_sets = dataset.get("ReferencedStructureSetSequence") or []
    n_fraction = group.get("NumberOfFractionsPlanned")
    if n_fraction is not None and int(n_fraction) < 1:
        raise DicomError(f"has {int(n_fraction)} fractions: export it again")
    return ExternalPlan(
        uid=str(dataset.SOPInstanceUID),
        label=_text(dataset, "RTPlanLabel"),
        name=_text(dataset, "RTPlanName"),
        kind="RT Ion Plan" if is_ion else "RT Plan",
        approval=_text(dataset, "ApprovalStatus"),
        structure_set_uid=_text(structure_sets[0], "ReferencedSOPInstanceUID") if structure_sets else "",
        patient_position=_text(setups[0], "PatientPosition") if setups else "",
        n_fraction=None if n_fraction is None else int(n_fraction),
        prescriptions=tuple(_prescription(item) for item in dataset.get("DoseReferenceSequence") or []),
        beams=tuple(_beam(item, metersets, is_ion, notes) for item in items),
        notes=tuple(notes),
    )


def _prescription(item: Dataset) -> Prescription:
    doses = [_number(item, keyword) for keyword in _DOSES]
    return Prescription(
        _text(item, "DoseReferenceDescription"),
        _text(item, "DoseReferenceType"),
        next((dose for dose in doses if dose is not None), None),
    )


def _beam(item: Dataset, metersets: dict[int, float | None], is_ion: bool, notes: list[str]) -> ExternalBeam:
    number = int(item.BeamNumber)
    points = item.get("IonControlPointSequence" if is_ion else "ControlPointSequence") or []
    if not points:
        raise DicomError(f"has a beam {number} without control points: export it again")
    first = points[0]
    notes.extend(
        f"beam {number} has a {keyword}, which is not kept"
        for keyword in _STILL
        if any(abs(_number(point, keyword) or 0.0) > 0.0 for point in points)
    )
    isocentre = _numbers(first, "IsocenterPosition")
    if any(_numbers(point, "IsocenterPosition") not in ((), isocentre) for point in points):
        notes.append(f"beam {number} has several isocentres; the first is kept")
    weights = tuple(_forward(points, "CumulativeMetersetWeight"))
    layers = tuple(_layers(points)) if is_ion else ()
    final = _number(item, "FinalCumulativeMetersetWeight")
    final_weight = weights[-1] if final is None else final
    in_spots = sum(sum(layer.weight) for layer in layers)
    if layers and not np.isclose(in_spots, final_weight, rtol=_WEIGHT_TOLERANCE):
        notes.append(f"beam {number}: its spots add up to {in_spots:g} of a final weight of {final_weight:g}")
    return ExternalBeam(
        number=number,
        name=_text(item, "BeamName"),
        machine=_text(item, "TreatmentMachineName"),
        delivery=_text(item, "TreatmentDeliveryType"),
        radiation=_text(item, "RadiationType"),
        technique=" ".join(t for t in (_text(item, "BeamType"), _text(item, "ScanMode")) if t),
        gantry_deg=tuple(_forward(points, "GantryAngle")),
        couch_deg=_number(first, "PatientSupportAngle") or 0.0,
        collimator_deg=_number(first, "BeamLimitingDeviceAngle") or 0.0,
        isocentre_mm=(isocentre[0], isocentre[1], isocentre[2]) if len(isocentre) == 3 else None,
        sad_mm=_numbers(item, "VirtualSourceAxisDistances" if is_ion else "SourceAxisDistance"),
        energies=tuple(dict.fromkeys(_forward(points, "NominalBeamEnergy"))),
        meterset=metersets.get(number),
        meterset_unit=_text(item, "PrimaryDosimeterUnit"),
        final_weight=final_weight,
        cumulative_weight=weights,
        openings=tuple(_openings(item, points)),
        fluence=_fluence(item, number, notes),
        layers=layers,
        range_shifters=tuple(_range_shifters(item, first)),
    )


def _openings(beam: Dataset, points: Sequence[Dataset]) -> Iterator[Opening]:
    """Yield the beam-limiting devices with their positions at every control point."""
    devices = beam.get("BeamLimitingDeviceSequence") or beam.get("IonBeamLimitingDeviceSequence") or []
    for device in devices:
        kind = _text(device, "RTBeamLimitingDeviceType")
        boundary_mm = _numbers(device, "LeafPositionBoundaries")
        n_position = 2 * max(1, len(boundary_mm) - 1)
        now: tuple[float, ...] = ()
        positions = []
        for point in points:
            for item in point.get("BeamLimitingDevicePositionSequence") or []:
                if _text(item, "RTBeamLimitingDeviceType") == kind:
                    now = _numbers(item, "LeafJawPositions")
                    if len(now) not in (0, n_position):
                        raise DicomError(
                            f"has {len(now)} positions of {kind} where it should have {n_position}: export it again"
                        )
            positions.append(now)
        if any(positions):
            yield Opening(kind, boundary_mm, tuple(positions))


def _fluence(beam: Dataset, number: int, notes: list[str]) -> FluenceMap | None:
    """Return what the compensator lets through; rows of the file follow each other along -y (C.8.8.14.10)."""
    compensators = beam.get("CompensatorSequence") or []
    if not compensators:
        return None
    item = compensators[0]
    if len(compensators) > 1 or not item.get("CompensatorTransmissionData"):
        notes.append(
            f"beam {number} has compensators of which the transmission is not known; they are not kept"
        )
        return None
    shape = int(item.CompensatorRows), int(item.CompensatorColumns)
    transmission = np.array(_numbers(item, "CompensatorTransmissionData"))
    if transmission.size != shape[0] * shape[1]:
        raise DicomError(
            f"has a compensator of {shape[0]} × {shape[1]} pixels with {transmission.size} values in beam {number} "
            "(cut short?): export it again"
        )
    x_mm, top_mm = _numbers(item, "CompensatorPosition")
    row_mm, column_mm = _numbers(item, "CompensatorPixelSpacing")
    return FluenceMap(
        (x_mm, top_mm - (shape[0] - 1) * row_mm),
        (column_mm, row_mm),
        tuple(tuple(row) for row in transmission.reshape(shape)[::-1].tolist()),
    )


def _layers(points: Sequence[Dataset]) -> Iterator[SpotLayer]:
    """Yield the energy layers that get a part of the meterset; every second control point only ends one."""
    energies = _forward(points, "NominalBeamEnergy")
    size: tuple[float, ...] = ()
    for point, energy in zip(points, energies, strict=True):
        size = _numbers(point, "ScanningSpotSize") or size
        weight = _numbers(point, "ScanSpotMetersetWeights")
        if not any(weight):
            continue
        at = _numbers(point, "ScanSpotPositionMap")
        if len(at) != 2 * len(weight):
            raise DicomError(
                f"has {len(weight)} spot weights for {len(at)} coordinates at {energy:g} MeV (cut short?): export it "
                "again"
            )
        yield SpotLayer(energy, at[0::2], at[1::2], weight, size, int(point.get("NumberOfPaintings") or 1))


def _range_shifters(beam: Dataset, first: Dataset) -> Iterator[RangeShifter]:
    settings = {
        int(item.ReferencedRangeShifterNumber): item
        for item in first.get("RangeShifterSettingsSequence") or []
    }
    for item in beam.get("RangeShifterSequence") or []:
        setting = settings.get(int(item.RangeShifterNumber), Dataset())
        yield RangeShifter(
            _text(item, "RangeShifterID"),
            _text(item, "RangeShifterType"),
            _text(setting, "RangeShifterSetting"),
            _number(setting, "IsocenterToRangeShifterDistance"),
            _number(setting, "RangeShifterWaterEquivalentThickness"),
        )


def _forward(points: Sequence[Dataset], keyword: str) -> list[float]:
    """Return a number at every control point, the one before where it is not repeated; 0 before the first."""
    now = 0.0
    values = []
    for point in points:
        found = _number(point, keyword)
        now = now if found is None else found
        values.append(now)
    return values


def _text(item: Dataset, keyword: str) -> str:
    value = item.get(keyword)
    return "" if value is None else shortened(str(value).strip())


def _number(item: Dataset, keyword: str) -> float | None:
    numbers = _numbers(item, keyword)
    return numbers[0] if numbers else None


def _numbers(item: Dataset, keyword: str) -> tuple[float, ...]:
    """Return the numbers of an attribute, none if it is absent or empty.

    Raises
    ------
    DicomError
        If one is not finite.
    """
    value: Any = item.get(keyword)
    if value is None or value == "":
        return ()
    values = np.atleast_1d(np.asarray(value, dtype=np.float64))
    if not np.isfinite(values).all():
        raise DicomError(f"has a {keyword} that is not finite: export it again")
    return tuple(values.tolist())
