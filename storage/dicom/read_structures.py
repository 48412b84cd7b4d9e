"""Read an RT Structure Set."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom.charset import python_encoding
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from engine.errors import CaseError, DicomError, printable, shortened
from engine.geometry.tilted_contours import voxelise_tilted
from engine.geometry.voxelise import Voxelised, voxelise
from engine.model.arrays import F64
from engine.model.case import Contour, Structure, StructureKind
from engine.model.grid import Grid
from storage.dicom.datasets import LO_LENGTH
from storage.dicom.read_images import numbered, placing
from storage.dicom.read_registration import Registrations
from storage.dicom.sanity import LARGEST_COORDINATE_MM, naming
from storage.dicom.scan import Header, read_whole
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
MOST_ROIS = 500
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
    header: Header, ct: CtReference, grid: Grid, registrations: Registrations
) -> tuple[tuple[Structure, ...], tuple[str, ...]]:
    """Read a structure set and voxelise it on the grid of its CT.

    Contours are given in patient coordinates, so they need no turning, whatever the orientation of the CT slices. Only
    closed contours make a structure; points and open lines are skipped with a note, as are regions that are empty or
    lie outside of the CT. Contours need not lie in CT slices. Those drawn in another frame of reference are moved by a
    rigid registration. Contours that are not axial, as drawn or after moving, but parallel to each other go by way of
    voxels of their own, and the structure has no contours.

    Parameters
    ----------
    header
        The structure set.
    ct
        Identifiers of the CT.
    grid
        Grid of the CT.
    registrations
        How other frames of reference lie to that of the CT.

    Raises
    ------
    DicomError
        If the file is damaged, or a region belongs to another frame of reference that is not registered to the CT.
    """
    with naming(header.path):
        return _read_structures(header, ct, grid, registrations)


def _read_structures(
    header: Header, ct: CtReference, grid: Grid, registrations: Registrations
) -> tuple[tuple[Structure, ...], tuple[str, ...]]:
    """Return structures and notes."""
    dataset = _read(header)
    try:
        rois = _rois(dataset)
        of_series = referenced_slices(dataset)
    except Exception as error:  # sequences are decoded here; pydicom raises many kinds on damaged ones
        raise DicomError(
            f"the structure set '{header.path.name}' cannot be understood ({type(error).__name__}: {error}): "
            "export it again"
        ) from error
    if len(rois) > MOST_ROIS:
        raise DicomError(
            f"the structure set '{header.path.name}' has {len(rois)} regions (at most {MOST_ROIS} are read): export "
            "those that the plan needs"
        )
    notes: list[str] = _character_set_notes(dataset, rois)
    n_changed = sum(
        _shown(name) != name.strip()
        for name in (str(item.get("ROIName") or "") for item in dataset.StructureSetROISequence)
    )
    if n_changed:
        notes.append(
            f"{n_changed} name(s) of structures had control characters or were too long, and were changed"
        )
    moved: Counter[str] = Counter()
    structures: list[Structure] = []
    taken: set[str] = set()
    for roi in rois:
        matrix, how = _placing(roi, ct, header, registrations)
        name = numbered(roi.name, taken)
        taken.add(name)
        if name != roi.name:
            notes.append(f"a second structure called '{roi.name}' was renamed '{name}'")
        polygons_mm, roi_notes = _polygons_mm(roi, header)
        if how:
            moved[how] += 1
            polygons_mm = [points @ matrix[:3, :3].T + matrix[:3, 3] for points in polygons_mm]
        try:
            structure, voxel_notes = _structure(name, roi.kind, polygons_mm, grid)
        except CaseError as error:
            raise DicomError(f"structure '{name}' in '{header.path.name}': {error}") from error
        notes += [f"structure '{name}': {note}" for note in (*roi_notes, *voxel_notes)]
        if structure is not None:
            structures.append(structure)
    notes += [f"{count} structure(s) were drawn on another image and {how}" for how, count in moved.items()]
    n_unsaid = sum(not roi.frame_of_reference_uid for roi in rois)
    if n_unsaid and ct.frame_of_reference_uid:
        notes.append(
            f"{n_unsaid} structure(s) name no frame of reference, so they could not be checked against the CT"
        )
    referenced = of_series.get(ct.series_uid, set())
    if of_series and not referenced and not moved:
        notes.append(
            "the structure set was drawn on another series than this CT (another phase or reconstruction?); it was "
            "read as it stands"
        )
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
    with naming(header.path):
        regions = header.dataset.get("StructureSetROISequence") or []
        return {str(item.get("ReferencedFrameOfReferenceUID") or "") for item in regions} - {""}


def refers_to_series(header: Header, series_uid: str) -> bool:
    """Return whether a structure set was drawn on the CT series."""
    with naming(header.path):
        return bool(referenced_slices(_read(header)).get(series_uid))


def _read(header: Header) -> Dataset:
    """Return the whole structure set; a file that was cut short would otherwise lose structures without a word."""
    dataset = read_whole(header)
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
        if number in {roi.number for roi in rois}:
            raise ValueError(f"two regions have the number {number}, so their contours cannot be told apart")
        rois.append(
            _Roi(
                number=number,
                name=_shown(str(item.get("ROIName") or "")) or f"ROI {number}",
                kind=kinds.get(number, "OTHER"),
                frame_of_reference_uid=str(item.get("ReferencedFrameOfReferenceUID") or ""),
                items=items.get(number, ()),
            )
        )
    return rois


def _placing(roi: _Roi, ct: CtReference, header: Header, registrations: Registrations) -> tuple[F64, str]:
    """Return the matrix into the coordinates of the CT, and how it is known where it is not the same frame.

    Either file may leave its frame of reference unsaid.
    """
    if "" in (roi.frame_of_reference_uid, ct.frame_of_reference_uid):
        return np.eye(4), ""
    what = (
        f"structure '{roi.name}' in '{header.path.name}' (frame of reference "
        f"{shortened(roi.frame_of_reference_uid)}, the CT: {ct.frame_of_reference_uid})"
    )
    return placing(registrations, roi.frame_of_reference_uid, ct.frame_of_reference_uid, what)


def _character_set_notes(dataset: Dataset, rois: Sequence[_Roi]) -> list[str]:
    """Return a note if names may have been read wrongly: their character set is unknown or not said."""
    value = dataset.get("SpecificCharacterSet") or ""
    said = [value] if isinstance(value, str) else list(value)
    unknown = [name for name in said if name and name not in python_encoding]
    if unknown:
        return [
            f"the structure set has an unknown character set ({', '.join(unknown)}); names may be misspelt"
        ]
    if not any(said) and not all(roi.name.isascii() for roi in rois):
        return [
            "the structure set does not say its character set; names were read as Latin 1 and may be misspelt"
        ]
    return []


def _shown(name: str) -> str:
    """Return a name without control characters and of at most the standard's 64 characters."""
    return printable(name.strip()).strip()[:LO_LENGTH]


def _polygons_mm(roi: _Roi, header: Header) -> tuple[list[F64], list[str]]:
    """Return the closed contours of a region, each of shape (n_point, 3), and notes on those that were left out."""
    polygons_mm: list[F64] = []
    skipped: Counter[str] = Counter()
    for item in roi.items:
        kind = str(item.get("ContourGeometricType") or "of no kind").strip().upper()
        if kind not in AREA_TYPES:
            skipped[kind] += 1
            continue
        points_mm = _points(item, roi, header)
        if len(points_mm) < 3:
            skipped["with fewer than 3 points"] += 1
        else:
            polygons_mm.append(points_mm)
    return polygons_mm, [f"skipped {count} contour(s) {kind}" for kind, count in sorted(skipped.items())]


def _structure(
    name: str, kind: StructureKind, polygons_mm: Sequence[F64], grid: Grid
) -> tuple[Structure | None, list[str]]:
    """Return a structure on the grid, if anything of it lies there, and notes."""
    if not polygons_mm:
        return None, ["left out, as it is empty"]
    if all(float(np.ptp(points[:, 2])) <= PLANAR_TOLERANCE_MM for points in polygons_mm):
        contours = tuple(Contour(float(points[:, 2].mean()), points[:, :2].copy()) for points in polygons_mm)
        voxelised = voxelise(contours, grid)
        notes = list(voxelised.notes)
        if notes:
            notes += _outside_note(contours, voxelised, grid)
    else:
        tilted = voxelise_tilted(polygons_mm, grid)
        if tilted is None:
            return None, ["left out, as it has contours that are not axial, nor parallel to each other"]
        contours, voxelised = (), tilted
        notes = [*tilted.notes, "its contours are not axial; it was brought onto the CT grid as voxels"]
    if not voxelised.coverage.any():
        return None, ["left out, as it lies outside of the CT"]
    return Structure(name, kind, voxelised.coverage, contours), notes


def _outside_note(contours: Sequence[Contour], voxelised: Voxelised, grid: Grid) -> list[str]:
    """Return how much of a structure lies outside of the grid."""
    points = np.concatenate([contour.points_mm_xy for contour in contours])
    heights_mm = [contour.z_mm for contour in contours]
    dz = grid.spacing_mm_xyz[2]
    reach_mm = max(heights_mm) - min(heights_mm) + 4.0 * dz
    (left, front), (right, back) = points.min(axis=0) - 1.0, points.max(axis=0) + 1.0
    # Areas of polygons in pixels are exact whatever the size of the pixels, so that one pixel tells the whole volume.
    column = Grid(
        (0.5 * (left + right), 0.5 * (front + back), min(heights_mm) - 0.5 * reach_mm),
        (right - left, back - front, dz),
        (1 + int(np.ceil(2.0 * reach_mm / dz)), 1, 1),
    )
    whole_mm3 = float(voxelise(contours, column).coverage.sum(dtype=np.float64)) * column.voxel_volume_mm3
    inside_mm3 = float(voxelised.coverage.sum(dtype=np.float64)) * grid.voxel_volume_mm3
    share = 1.0 - inside_mm3 / whole_mm3 if whole_mm3 > 0.0 else 0.0
    return [f"{100.0 * share:.1f} % of its volume lies outside of the CT"] if share > 5e-4 else []


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
            known = element is not None and element.value is not None and element.value != ""
            values = np.array(element.value if known else [], dtype=np.float64)
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
    if np.abs(points_mm).max(initial=0.0) > LARGEST_COORDINATE_MM:
        raise DicomError(
            f"structure '{roi.name}' in '{header.path.name}' has a point that is more than "
            f"{LARGEST_COORDINATE_MM / 1000:.0f} m away: export it again"
        )
    return points_mm


def referenced_slices(dataset: Dataset) -> dict[str, set[str]]:
    """Return the slices that the structure set names, by series."""
    found: dict[str, set[str]] = {}
    for frame in dataset.get("ReferencedFrameOfReferenceSequence") or []:
        for study in frame.get("RTReferencedStudySequence") or []:
            for series in study.get("RTReferencedSeriesSequence") or []:
                found.setdefault(str(series.get("SeriesInstanceUID")), set()).update(
                    str(image.get("ReferencedSOPInstanceUID"))
                    for image in series.get("ContourImageSequence") or []
                )
    return found
