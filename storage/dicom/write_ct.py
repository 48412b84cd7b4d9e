"""Write the CT of a case as a DICOM series."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from pydicom.uid import CTImageStorage

from engine.errors import DicomError
from engine.model.arrays import F32
from engine.model.case import Case
from storage.dicom.datasets import RESEARCH_USE_ONLY, decimal_string, new_dataset, save
from storage.dicom.uids import CtReference, case_digest, content_uid

INT16_STEPS = 65534
LOWEST_INT16 = -32767


def ct_reference(case: Case) -> CtReference:
    """Return the identifiers under which `write_ct` writes a case; equal cases have equal identifiers."""
    digest = case_digest(case)
    return CtReference(
        study_uid=content_uid("study", digest),
        series_uid=content_uid("ct series", digest),
        frame_of_reference_uid=case.frame_of_reference_uid or content_uid("frame of reference", digest),
        instance_uids=tuple(
            content_uid("ct slice", digest, str(slice_)) for slice_ in range(case.grid.shape_zyx[0])
        ),
    )


def write_ct(case: Case, folder: Path, description: str = "CT", study_uid: str = "") -> CtReference:
    """Write one file per slice into ``folder`` and return the identifiers of the series.

    Whole Hounsfield units are kept exactly. Otherwise the range of the CT is divided into 65534 steps, so that a value
    is off by at most half a step (0.03 HU for a range of 4000 HU). Rows run to the patient's left and columns to the
    back, whatever the patient position is (PS3.3 C.7.6.2.1.1 leaves it free).

    Parameters
    ----------
    case
        The case.
    folder
        Where to write ``CT.<uid>.dcm``.
    description
        What Series Description says after the words that the files are for research only.
    study_uid
        Study that the series belongs to; a study of its own if absent.

    Raises
    ------
    DicomError
        If the CT has fewer than two slices: the file could not say how thick one is.
    """
    if case.grid.shape_zyx[0] < 2:
        raise DicomError(
            f"case '{case.name}' has a single slice (a series needs two or more to tell their distance)"
        )
    reference = ct_reference(case)
    if study_uid:
        reference = replace(reference, study_uid=study_uid)
    slope, intercept = _rescale(case.ct_hu)
    x_mm, y_mm, z_mm = case.grid.centres_mm_xyz
    dx_mm, dy_mm, dz_mm = case.grid.spacing_mm_xyz
    for slice_, uid in enumerate(reference.instance_uids):
        dataset = new_dataset(CTImageStorage, uid, "CT", reference.study_uid, reference.series_uid, case.name)
        dataset.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
        dataset.SeriesDescription = f"{RESEARCH_USE_ONLY} {description}"
        dataset.SeriesNumber = 1
        dataset.Laterality = ""
        dataset.AcquisitionNumber = None
        dataset.InstanceNumber = slice_ + 1
        dataset.PatientPosition = case.patient_position
        dataset.FrameOfReferenceUID = reference.frame_of_reference_uid
        dataset.PositionReferenceIndicator = ""
        dataset.KVP = None
        dataset.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
        dataset.ImagePositionPatient = [decimal_string(v) for v in (x_mm[0], y_mm[0], z_mm[slice_])]
        dataset.PixelSpacing = [decimal_string(dy_mm), decimal_string(dx_mm)]
        dataset.SliceThickness = decimal_string(dz_mm)
        dataset.SamplesPerPixel = 1
        dataset.PhotometricInterpretation = "MONOCHROME2"
        dataset.Rows, dataset.Columns = case.grid.shape_zyx[1:]
        dataset.BitsAllocated = dataset.BitsStored = 16
        dataset.HighBit = 15
        dataset.PixelRepresentation = 1
        dataset.RescaleSlope = slope
        dataset.RescaleIntercept = intercept
        dataset.RescaleType = "HU"
        stored = np.rint((case.ct_hu[slice_].astype(np.float64) - float(intercept)) / float(slope))
        dataset.PixelData = np.clip(stored, -32768, 32767).astype("<i2").tobytes()
        dataset["PixelData"].VR = "OW"
        save(dataset, folder)
    return reference


def _rescale(ct_hu: F32) -> tuple[str, str]:
    """Return slope and intercept, as they are written, that make 16-bit numbers of Hounsfield units."""
    low_hu, high_hu = float(ct_hu.min()), float(ct_hu.max())
    if low_hu >= LOWEST_INT16 and high_hu <= -LOWEST_INT16 and bool((ct_hu == np.rint(ct_hu)).all()):
        return "1", "0"
    slope = decimal_string((high_hu - low_hu) / INT16_STEPS or 1.0)
    return slope, decimal_string(low_hu - LOWEST_INT16 * float(slope))
