"""Read further images of the patient (MR, PET, other CTs) on the grid of the CT."""

from collections.abc import Sequence

import numpy as np
from pydicom.dataset import Dataset

from engine.errors import DicomError, shortened
from engine.geometry.resample import sample_onto
from engine.model.arrays import F32, F64
from engine.model.case import SecondImage
from engine.model.grid import Grid
from storage.dicom.choosing import by_series, choose_series
from storage.dicom.duplicates import without_duplicates
from storage.dicom.pixels import read_volume, rescaled, rescaling
from storage.dicom.planes import Plane, is_multi_frame, planes_of
from storage.dicom.read_registration import Registrations, inverse, rotation_deg
from storage.dicom.sanity import of_other_patient, require_one_patient
from storage.dicom.scan import Header, ScannedFolder
from storage.dicom.slice_geometry import Stack, stack_planes
from storage.dicom.suv import suv_factor
from storage.dicom.uids import CtReference

_UNIT_LENGTH = 16
"""Of a Code String (PS3.5 section 6.2)."""


def read_images(
    scanned: ScannedFolder,
    registrations: Registrations,
    ct: CtReference,
    grid: Grid,
    wanted: Sequence[str] = (),
    of_ct: Header | None = None,
) -> tuple[tuple[SecondImage, ...], tuple[str, ...]]:
    """Read second images, interpolated trilinearly at the voxel centres of the CT.

    Without ``wanted``, these are all MR and PET series that share the frame of reference of the CT or are registered to
    it; one that cannot be read or placed is left out with a note, since no dose depends on it.

    Parameters
    ----------
    scanned
        What the folder holds.
    registrations
        How frames of reference lie to each other.
    ct
        Identifiers of the CT.
    grid
        Grid of the CT.
    wanted
        Series by UID, number or part of the description, instead of all; also those of other CTs.
    of_ct
        A slice of the CT. An image with another patient ID is read only if it has the CT's frame of reference.

    Raises
    ------
    DicomError
        If a wanted series is not there, or cannot be read or placed.
    """
    series = by_series((*scanned.mr, *scanned.pet))
    images: list[SecondImage] = []
    notes: list[str] = []
    if wanted:
        every = by_series((*scanned.ct, *scanned.mr, *scanned.pet))
        every.pop(ct.series_uid, None)
        if not every:
            raise DicomError("the folder holds no image series besides the CT: leave --second out")
        chosen = [choose_series(every, text, "second image", "--second") for text in wanted]
        series = {headers[0].text("SeriesInstanceUID"): list(headers) for headers in chosen}
    for _, headers in sorted(series.items()):
        name = _name(headers[0], {image.name for image in images})
        try:
            images.append(_read(name, headers, registrations, ct, grid, of_ct))
        except DicomError as error:
            if wanted:
                raise
            notes.append(f"left out the second image '{name}': {_without_file_names(str(error), headers)}")
    return tuple(images), tuple(notes)


def placing(registrations: Registrations, frame_uid: str, ct_uid: str, what: str) -> tuple[F64, str]:
    """Return the matrix from a frame of reference into that of the CT, shape (4, 4), and how it is known.

    Raises
    ------
    DicomError
        If they are not connected, or in two ways that contradict each other.
    """
    if frame_uid and frame_uid == ct_uid:
        return np.eye(4), ""
    matrix = registrations.matrix(frame_uid, ct_uid) if frame_uid and ct_uid else None
    if matrix is None:
        raise DicomError(
            f"{what} has another frame of reference than the CT, and no rigid registration in the folder connects them "
            "(it cannot be placed): add the Spatial Registration, or leave it out"
        )
    shift_mm = float(np.linalg.norm(matrix[:3, 3]))
    return matrix, (
        f"moved into the CT's coordinates by a rigid registration (turn of {rotation_deg(matrix):.2f}°, shift of "
        f"{shift_mm:.1f} mm at the origin)"
    )


def _read(
    name: str,
    headers: Sequence[Header],
    registrations: Registrations,
    ct: CtReference,
    grid: Grid,
    of_ct: Header | None,
) -> SecondImage:
    """Return one series on the CT grid."""
    chosen, notes = without_duplicates(headers)
    frame_uid = chosen[0].text("FrameOfReferenceUID")
    require_one_patient(chosen, "its files are of several patients")
    if of_ct is not None and of_other_patient(of_ct, chosen[0]):
        if not frame_uid or frame_uid != ct.frame_of_reference_uid:
            raise DicomError(
                "it has another patient ID than the CT and another frame of reference (of another patient?): export it "
                "with the CT's patient ID, or leave it out"
            )
        notes += ("it has another patient ID than the CT; it was read because it has its frame of reference",)
    ct_from_image, how = placing(registrations, frame_uid, ct.frame_of_reference_uid, "it")
    stack = stack_planes(planes_of(chosen))
    volume, unit, value_notes = _read_values(stack)
    index_from_ct = inverse(ct_from_image @ stack.patient_from_index)
    values = sample_onto(volume, index_from_ct, grid, np.nan)
    reached = float(np.isfinite(values).mean())
    if reached == 0.0:
        raise DicomError("it does not reach into the CT")
    return SecondImage(
        name,
        chosen[0].text("Modality"),
        unit,
        values,
        notes
        + ((how,) if how else ())
        + value_notes
        + (f"interpolated onto the CT grid, of which it covers {100.0 * reached:.0f} %",),
    )


def _read_values(stack: Stack) -> tuple[F32, str, tuple[str, ...]]:
    """Return values in the order of the stack, their unit, and notes."""
    header = stack.planes[0].header
    modality = header.text("Modality")
    units: set[str] = set()
    why_not: set[str] = set()

    def convert(plane: Plane, dataset: Dataset, stored: F64) -> F64:
        values = rescaled(plane, dataset, stored, needed=modality != "MR")
        unit = str(rescaling(plane, dataset).get("RescaleType") or "")
        if modality == "CT":
            unit = "HU" if unit in ("", "US") else unit
        elif modality == "PT" and not is_multi_frame(header):
            unit = str(dataset.get("Units") or "")
            if unit == "BQML":
                factor, why = suv_factor(dataset)
                unit = "g/ml" if factor else "Bq/ml"
                values = values * factor if factor else values
                why_not.update({why} - {""})
            elif unit == "GML":
                unit = "g/ml"
        units.add("" if unit == "US" else shortened(unit)[:_UNIT_LENGTH])
        return values

    volume, notes = read_volume(stack, convert)
    if len(units) > 1:
        raise DicomError(f"its slices have values of different units ({', '.join(sorted(units))})")
    (unit,) = units
    if why_not:
        notes += (f"no standardised uptake values could be made: {'; '.join(sorted(why_not))}",)
    return volume, unit, notes


def _without_file_names(text: str, headers: Sequence[Header]) -> str:
    """Return a message as a note, which is kept: names of files may be personal."""
    for header in headers:
        text = text.replace(f"'{header.path.name}'", "a file")
    return text


def _name(header: Header, taken: set[str]) -> str:
    """Return a label without anything personal: modality and series number."""
    stem = " ".join(part for part in (header.text("Modality"), header.text("SeriesNumber")) if part)
    return numbered(stem, taken)


def numbered(name: str, taken: set[str]) -> str:
    """Return the name, with a number if it is taken."""
    candidate, number = name, 2
    while candidate in taken:
        candidate, number = f"{name} ({number})", number + 1
    return candidate
