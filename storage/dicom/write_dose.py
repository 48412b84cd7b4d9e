"""Write a dose distribution as DICOM RT Dose."""

import hashlib
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import RTDoseStorage

from engine.errors import DicomError
from engine.model.grid import Grid
from storage.dicom.datasets import (
    LO_LENGTH,
    RESEARCH_USE_ONLY,
    decimal_string,
    new_dataset,
    reference_item,
    save,
)
from storage.dicom.uids import CtReference, InstanceReference, content_uid

LARGEST_STORED = 2**16 - 1
"""Sixteen bits: Debian's dciodvfy gives up on more, and some readers, too."""
GRID_FRAME_OFFSET_VECTOR = Tag(0x3004, 0x000C)


def write_dose(
    folder: Path,
    grid: Grid,
    dose_gy: npt.NDArray[np.floating],
    *,
    case_name: str,
    ct: CtReference,
    plan: InstanceReference,
    beam_number: int | None = None,
    comment: str = "",
) -> InstanceReference:
    """Write physical dose of all fractions to ``RTDOSE.<uid>.dcm`` in ``folder``, 16 bits per voxel, as its own series.

    The scaling is chosen so that the largest dose is 2^16 - 1 steps: rounding is at most 8e-6 of the maximum.

    Parameters
    ----------
    folder
        Where to write.
    grid
        Grid of the dose; it need not be that of the CT.
    dose_gy
        Dose, shape ``grid.shape_zyx``; finite and not negative.
    case_name
        Label for Patient Name and Patient ID, without personal data; the same as for CT and plan.
    ct
        Identifiers of the CT that the dose was computed on: study and frame of reference are taken from it.
    plan
        The RT Plan or RT Ion Plan that the dose belongs to.
    beam_number
        The beam of the plan that gave the dose alone; None for all beams (PS3.3 C.8.8.3.1: BEAM and PLAN).
    comment
        Which dose it is, such as the name of a scenario: added behind ``RESEARCH USE ONLY`` in the dose comment and in
        the description of the series.

    Raises
    ------
    DicomError
        If the dose does not fit the grid, is negative or not finite, if the comment is too long, or if the grid has
        only one slice.
    """
    if dose_gy.shape != grid.shape_zyx:
        raise DicomError(f"dose of shape {dose_gy.shape} does not fit its grid {grid.shape_zyx}")
    if grid.shape_zyx[0] < 2:
        raise DicomError("the dose grid has a single slice (Grid Frame Offset Vector needs two or more)")
    if not np.isfinite(dose_gy).all() or float(dose_gy.min()) < 0.0:
        raise DicomError(
            "the dose has values that are negative or not finite (physical dose cannot be): nothing is written"
        )
    full_comment = f"{RESEARCH_USE_ONLY}. {comment}".strip() if comment else RESEARCH_USE_ONLY
    if len(full_comment) > LO_LENGTH:
        raise DicomError(
            f"comment '{comment}' is too long (with '{RESEARCH_USE_ONLY}. ' it may have {LO_LENGTH} characters)"
        )
    exact = dose_gy.astype(np.float64)
    digest = hashlib.sha256(
        json.dumps(
            [grid.as_dict(), case_name, ct.study_uid, plan.sop_instance_uid, beam_number, comment]
        ).encode()
    )
    digest.update(exact.astype("<f8").tobytes())
    uid = content_uid("dose", digest.hexdigest())
    dataset = new_dataset(
        RTDoseStorage, uid, "RTDOSE", ct.study_uid, content_uid("dose series", uid), case_name
    )
    dataset.SeriesDescription = full_comment if comment else f"{RESEARCH_USE_ONLY} dose"
    dataset.SeriesNumber = 4
    dataset.InstanceNumber = 1
    dataset.FrameOfReferenceUID = ct.frame_of_reference_uid
    dataset.PositionReferenceIndicator = ""
    x_mm, y_mm, z_mm = grid.centres_mm_xyz
    dx_mm, dy_mm, dz_mm = grid.spacing_mm_xyz
    dataset.ImagePositionPatient = [decimal_string(v) for v in (x_mm[0], y_mm[0], z_mm[0])]
    dataset.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    dataset.PixelSpacing = [decimal_string(dy_mm), decimal_string(dx_mm)]
    dataset.SliceThickness = decimal_string(dz_mm)
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = grid.shape_zyx
    dataset.FrameIncrementPointer = GRID_FRAME_OFFSET_VECTOR
    dataset.GridFrameOffsetVector = [decimal_string(n * dz_mm) for n in range(grid.shape_zyx[0])]
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = 0
    dataset.DoseUnits = "GY"
    dataset.DoseType = "PHYSICAL"
    dataset.DoseComment = full_comment
    dataset.DoseSummationType = "PLAN" if beam_number is None else "BEAM"
    dataset.ReferencedRTPlanSequence = [_referenced_plan(plan, beam_number)]
    dataset.DoseGridScaling = decimal_string(float(exact.max()) / LARGEST_STORED or 1.0)
    stored = np.rint(exact / float(dataset.DoseGridScaling))
    dataset.PixelData = np.minimum(stored, LARGEST_STORED).astype("<u2").tobytes()
    dataset["PixelData"].VR = "OW"
    save(dataset, folder)
    return InstanceReference(RTDoseStorage, uid)


def _referenced_plan(plan: InstanceReference, beam_number: int | None) -> Dataset:
    """Return the item that refers to the plan and, for the dose of a beam, to that beam in its fraction group."""
    item = reference_item(plan.sop_class_uid, plan.sop_instance_uid)
    if beam_number is not None:
        beam = Dataset()
        beam.ReferencedBeamNumber = beam_number
        group = Dataset()
        group.ReferencedFractionGroupNumber = 1
        group.ReferencedBeamSequence = [beam]
        item.ReferencedFractionGroupSequence = [group]
    return item
