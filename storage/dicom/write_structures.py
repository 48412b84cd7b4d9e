"""Write the structures of a case as a DICOM RT Structure Set."""

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RTStructureSetStorage

from engine.errors import DicomError
from engine.model.case import Case, Contour, Structure, StructureKind
from storage.dicom.datasets import (
    EXPLICIT_LENGTH_LIMIT,
    LO_LENGTH,
    RESEARCH_USE_ONLY,
    new_dataset,
    reference_item,
    save,
)
from storage.dicom.uids import CtReference, InstanceReference, content_uid, structures_digest

STUDY_COMPONENT_CLASS_UID = "1.2.840.10008.3.1.2.3.1"
"""Detached Study Management (retired): what PS3.3 C.8.8.5 asks for in RT Referenced Study Sequence."""
INTERPRETED_TYPES: dict[StructureKind, str] = {
    "EXTERNAL": "EXTERNAL",
    "TARGET": "PTV",
    "ORGAN": "ORGAN",
    "OTHER": "",
}
COLOURS = (
    (0, 170, 0),
    (220, 30, 30),
    (40, 90, 230),
    (240, 150, 0),
    (150, 60, 200),
    (0, 170, 190),
    (200, 60, 130),
)
ON_SLICE_MM = 0.01


def write_structures(case: Case, folder: Path, ct: CtReference) -> InstanceReference:
    """Write the structure set of a case, which refers to its CT, into ``folder``.

    Coordinates are written with six decimals, so they are off by at most half a nanometre. Contours in a CT slice
    name that slice. The file is explicit little endian, unless a contour has more points than a 16-bit length can say
    (about 1700); then it is implicit, as the standard offers no other way.

    Parameters
    ----------
    case
        The case; every structure must have contours.
    folder
        Where to write ``RTSTRUCT.<uid>.dcm``.
    ct
        Identifiers of the CT, from `write_ct` or `read_ct`.

    Raises
    ------
    DicomError
        If a structure has no contours or a name too long, or if ``ct`` has not as many slices as the case.
    """
    for structure in case.structures:
        if not structure.contours:
            raise DicomError(
                f"structure '{structure.name}' has no contours (it was made of voxels): leave it out"
            )
        if "\\" in structure.name:
            raise DicomError(
                f"structure name '{structure.name}' has a backslash (it separates values in DICOM): rename it"
            )
        if len(structure.name) > LO_LENGTH:
            raise DicomError(
                f"structure name '{structure.name}' is too long (DICOM allows {LO_LENGTH} characters)"
            )
    if len(ct.instance_uids) != case.grid.shape_zyx[0]:
        raise DicomError(
            f"the CT reference has {len(ct.instance_uids)} slices, the case {case.grid.shape_zyx[0]} "
            "(the structure set would point to wrong slices): pass the reference of this case's CT"
        )
    digest = structures_digest(case)
    uid = content_uid("structure set", ct.series_uid, digest)
    dataset = new_dataset(
        RTStructureSetStorage, uid, "RTSTRUCT", ct.study_uid, content_uid("structure series", uid), case.name
    )
    dataset.SeriesDescription = f"{RESEARCH_USE_ONLY} structures"
    dataset.SeriesNumber = 2
    dataset.FrameOfReferenceUID = ct.frame_of_reference_uid
    dataset.PositionReferenceIndicator = ""
    dataset.StructureSetLabel = "RESEARCH ONLY"
    dataset.StructureSetDescription = f"{RESEARCH_USE_ONLY}, not for clinical use"
    dataset.StructureSetDate = ""
    dataset.StructureSetTime = ""
    dataset.ApprovalStatus = "UNAPPROVED"
    dataset.ReferencedFrameOfReferenceSequence = [_referenced_frame(ct)]
    dataset.StructureSetROISequence = []
    dataset.ROIContourSequence = []
    dataset.RTROIObservationsSequence = []
    slices_mm = case.grid.centres_mm_xyz[2]
    longest = 0
    for number, structure in enumerate(case.structures, start=1):
        dataset.StructureSetROISequence.append(_roi(number, structure, ct))
        contours = [_contour(contour, slices_mm, ct) for contour in structure.contours]
        longest = max(longest, *(len("\\".join(map(str, item.ContourData))) for item in contours))
        roi_contour = Dataset()
        roi_contour.ROIDisplayColor = list(COLOURS[(number - 1) % len(COLOURS)])
        roi_contour.ContourSequence = contours
        roi_contour.ReferencedROINumber = number
        dataset.ROIContourSequence.append(roi_contour)
        observation = Dataset()
        observation.ObservationNumber = number
        observation.ReferencedROINumber = number
        observation.RTROIInterpretedType = INTERPRETED_TYPES[structure.kind]
        observation.ROIInterpreter = ""
        dataset.RTROIObservationsSequence.append(observation)
    save(
        dataset,
        folder,
        ExplicitVRLittleEndian if longest <= EXPLICIT_LENGTH_LIMIT else ImplicitVRLittleEndian,
    )
    return InstanceReference(RTStructureSetStorage, uid)


def _referenced_frame(ct: CtReference) -> Dataset:
    """Return the item that names frame of reference, study, series and every slice of the CT."""
    series = Dataset()
    series.SeriesInstanceUID = ct.series_uid
    series.ContourImageSequence = [reference_item(CTImageStorage, uid) for uid in ct.instance_uids]
    study = reference_item(STUDY_COMPONENT_CLASS_UID, ct.study_uid)
    study.RTReferencedSeriesSequence = [series]
    frame = Dataset()
    frame.FrameOfReferenceUID = ct.frame_of_reference_uid
    frame.RTReferencedStudySequence = [study]
    return frame


def _roi(number: int, structure: Structure, ct: CtReference) -> Dataset:
    """Return the item that names a structure."""
    roi = Dataset()
    roi.ROINumber = number
    roi.ReferencedFrameOfReferenceUID = ct.frame_of_reference_uid
    roi.ROIName = structure.name
    roi.ROIGenerationAlgorithm = ""
    return roi


def _contour(
    contour: Contour, slices_mm: np.ndarray[tuple[int], np.dtype[np.float64]], ct: CtReference
) -> Dataset:
    """Return the item of one polygon."""
    item = Dataset()
    nearest = int(np.abs(slices_mm - contour.z_mm).argmin())
    if abs(slices_mm[nearest] - contour.z_mm) <= ON_SLICE_MM:
        item.ContourImageSequence = [reference_item(CTImageStorage, ct.instance_uids[nearest])]
    item.ContourGeometricType = "CLOSED_PLANAR"
    item.NumberOfContourPoints = len(contour.points_mm_xy)
    z = _coordinate(contour.z_mm)
    item.ContourData = [v for x, y in contour.points_mm_xy for v in (_coordinate(x), _coordinate(y), z)]
    return item


def _coordinate(value_mm: float) -> str:
    """Return a coordinate with six decimals at most."""
    text = f"{value_mm:.6f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
