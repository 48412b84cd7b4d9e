"""Read an RT Structure Set."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from engine.errors import DicomError
from engine.geometry.voxelise import voxelise
from engine.model.arrays import F64
from engine.model.case import Contour, Structure, StructureKind
from engine.model.grid import Grid
from storage.dicom.scan import Header
from storage.dicom.uids import CtReference

KINDS: dict[str, StructureKind] = {
    "EXTERNAL": "EXTERNAL",
    "PTV": "TARGET",
    "CTV": "TARGET",
    "GTV": "TARGET",
    "ORGAN": "ORGAN",
    "AVOIDANCE": "ORGAN",
}
"""Roles by RT ROI Interpreted Type (PS3.3 C.8.8.8); all others are OTHER."""
AREA_TYPES = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
PLANAR_TOLERANCE_MM = 0.01
REQUIRED_KEYWORDS = ("StructureSetROISequence", "ROIContourSequence", "RTROIObservationsSequence")
"""Sequences that every structure set must have (PS3.3 C.8.8.5, C.8.8.6, C.8.8.8)."""
UNDEFINED_LENGTH = 0xFFFFFFFF


@dataclass(frozen=True)
class _Roi:
    """The parts of one region that are spread over three sequences."""

    number: int
    name: str
    kind: StructureKind
    frame_of_reference_uid: str
    items: tuple[Dataset, ...]


def read_structures(
    header: Header, ct: CtReference, grid: Grid
) -> tuple[tuple[Structure, ...], tuple[str, ...]]:
    """Read a structure set and voxelise it on the grid of its CT.

    Contours are given in patient coordinates, so they need no turning, whatever the orientation of the CT slices. Only
    closed axial contours make a structure; points and open lines are skipped with a note, as are empty regions and
    those with contours that are not axial. Contours need not lie in CT slices.

    Parameters
    ----------
    header
        The structure set.
    ct
        Identifiers of the CT.
    grid
        Grid of the CT.

    Raises
    ------
    DicomError
        If the file is damaged, or a region belongs to another frame of reference than the CT.
    """
    dataset = _read(header)
    try:
        rois = _rois(dataset)
        referenced = _referenced_slices(dataset, ct.series_uid)
    except Exception as error:  # sequences are decoded here; pydicom raises many kinds on damaged ones
        raise DicomError(
            f"the structure set '{header.path.name}' cannot be understood ({type(error).__name__}: {error}): "
            "export it again"
        ) from error
    notes: list[str] = []
    structures: list[Structure] = []
    taken: set[str] = set()
    for roi in rois:
        _check_frame(roi, ct, header)
        name = _unique(roi.name, taken)
        taken.add(name)
        if name != roi.name:
            notes.append(f"a second structure called '{roi.name}' was renamed '{name}'")
        contours, roi_notes = _contours(roi, header)
        notes += [f"structure '{name}': {note}" for note in roi_notes]
        if contours:
            voxelised = voxelise(contours, grid)
            notes += [f"structure '{name}': {note}" for note in voxelised.notes]
            structures.append(Structure(name, roi.kind, voxelised.coverage, contours))
    n_absent = len(referenced - set(ct.instance_uids))
    if n_absent:
        which = "none is" if n_absent == len(referenced) else f"{len(referenced) - n_absent} are"
        notes.append(
            f"of {len(referenced)} CT slices that the structure set names, {which} in the folder (were identifiers "
            "changed, or slices lost at an end?)"
        )
    return tuple(structures), tuple(notes)


def frames_of_reference(header: Header) -> set[str]:
    """Return the frames of reference that the regions of a structure set name."""
    regions = header.dataset.get("StructureSetROISequence") or []
    return {str(item.get("ReferencedFrameOfReferenceUID") or "") for item in regions} - {""}


def refers_to_series(header: Header, series_uid: str) -> bool:
    """Return whether a structure set was drawn on the CT series."""
    return bool(_referenced_slices(_read(header), series_uid))


def _read(header: Header) -> Dataset:
    """Return the whole structure set; a file that was cut short would otherwise lose structures without a word."""
    try:
        dataset = dcmread(header.path)
    except Exception as error:  # pydicom raises many kinds on damaged files
        raise DicomError(
            f"'{header.path.name}' cannot be read ({type(error).__name__}: damaged?): export it again"
        ) from error
    cut = any(
        isinstance(element, RawDataElement)
        and element.length < UNDEFINED_LENGTH
        and len(element.value or b"") < element.length
        for element in dataset.values()
    )
    absent = [keyword for keyword in REQUIRED_KEYWORDS if keyword not in dataset]
    if cut or absent:
        what = f"has no {' and no '.join(absent)}" if absent else "ends too early"
        raise DicomError(f"the structure set '{header.path.name}' {what} (truncated?): export it again")
    return dataset


def _rois(dataset: Dataset) -> list[_Roi]:
    """Return the regions in the order of the file."""
    kinds = {
        int(item.ReferencedROINumber): KINDS.get(str(item.get("RTROIInterpretedType") or "").upper(), "OTHER")
        for item in dataset.get("RTROIObservationsSequence") or []
    }
    items: dict[int, tuple[Dataset, ...]] = {}
    for contour_set in dataset.get("ROIContourSequence") or []:
        number = contour_set.get("ReferencedROINumber")
        if number is not None:
            items[int(number)] = items.get(int(number), ()) + tuple(contour_set.get("ContourSequence") or ())
    rois: list[_Roi] = []
    for item in dataset.get("StructureSetROISequence") or []:
        number = int(item.ROINumber)
        rois.append(
            _Roi(
                number=number,
                name=str(item.get("ROIName") or "").strip() or f"ROI {number}",
                kind=kinds.get(number, "OTHER"),
                frame_of_reference_uid=str(item.get("ReferencedFrameOfReferenceUID") or ""),
                items=items.get(number, ()),
            )
        )
    return rois


def _check_frame(roi: _Roi, ct: CtReference, header: Header) -> None:
    """Refuse a region in other coordinates than those of the CT (either may leave them unsaid)."""
    if roi.frame_of_reference_uid and ct.frame_of_reference_uid not in ("", roi.frame_of_reference_uid):
        raise DicomError(
            f"structure '{roi.name}' in '{header.path.name}' has frame of reference {roi.frame_of_reference_uid}, "
            f"the CT {ct.frame_of_reference_uid} (it was drawn on another image): export the structure set of this CT"
        )


def _unique(name: str, taken: set[str]) -> str:
    """Return the name, with a number if it is taken."""
    candidate, number = name, 2
    while candidate in taken:
        candidate, number = f"{name} ({number})", number + 1
    return candidate


def _contours(roi: _Roi, header: Header) -> tuple[tuple[Contour, ...], tuple[str, ...]]:
    """Return the closed axial contours of a region, and notes on those that were left out."""
    contours: list[Contour] = []
    skipped: Counter[str] = Counter()
    for item in roi.items:
        kind = str(item.get("ContourGeometricType") or "of no kind")
        if kind not in AREA_TYPES:
            skipped[kind] += 1
            continue
        points_mm = _points(item, roi, header)
        if len(points_mm) < 3:
            skipped["with fewer than 3 points"] += 1
        elif np.ptp(points_mm[:, 2]) > PLANAR_TOLERANCE_MM:
            return (), ("left out, as it has contours that are not axial",)
        else:
            contours.append(Contour(float(points_mm[:, 2].mean()), points_mm[:, :2].copy()))
    notes = [f"skipped {count} contour(s) {kind}" for kind, count in sorted(skipped.items())]
    if not contours:
        notes.append("left out, as it is empty")
    return tuple(contours), tuple(notes)


def _points(item: Dataset, roi: _Roi, header: Header) -> F64:
    """Return the points of a contour, shape (n_point, 3).

    The text is taken as it is in the file where possible: making an object of each number takes many times as long.
    """
    element: Any = item.get_item("ContourData")
    try:
        if isinstance(element, RawDataElement):
            raw = element.value or b""
            values = np.array(raw.rstrip(b"\0 ").split(b"\\") if raw.strip(b"\0 ") else [], dtype=np.float64)
        else:
            values = np.array(element.value if element is not None else [], dtype=np.float64)
        points_mm: F64 = values.reshape(-1, 3)
    except (ValueError, TypeError) as error:
        raise DicomError(
            f"structure '{roi.name}' in '{header.path.name}' has a contour whose points cannot be read "
            "(their number is no multiple of 3, or one is no number): export it again"
        ) from error
    if not np.isfinite(points_mm).all():
        raise DicomError(
            f"structure '{roi.name}' in '{header.path.name}' has a point that is not finite: export it again"
        )
    return points_mm


def _referenced_slices(dataset: Dataset, series_uid: str) -> set[str]:
    """Return the slices of a CT series that the structure set names."""
    return {
        str(image.get("ReferencedSOPInstanceUID"))
        for frame in dataset.get("ReferencedFrameOfReferenceSequence") or []
        for study in frame.get("RTReferencedStudySequence") or []
        for series in study.get("RTReferencedSeriesSequence") or []
        if str(series.get("SeriesInstanceUID")) == series_uid
        for image in series.get("ContourImageSequence") or []
    }
