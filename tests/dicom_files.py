"""DICOM files as others write them: images of a known function of the place, registrations and structure sets."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    RTStructureSetStorage,
    SpatialRegistrationStorage,
    generate_uid,
)

SOP_CLASSES = {"CT": CTImageStorage, "MR": MRImageStorage, "PT": PositronEmissionTomographyImageStorage}
CT_FRAME, OTHER_FRAME = "1.2.826.0.1.1", "1.2.826.0.1.2"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
Function = Callable[[np.ndarray], np.ndarray]
"""From patient coordinates, shape (..., 3), to values."""


def save(dataset: Dataset, path: Path) -> Path:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def turned(axis: Sequence[float], angle_deg: float) -> np.ndarray:
    """Return the matrix of a turn about an axis (Rodrigues), shape (3, 3)."""
    unit = np.array(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -unit[2], unit[1]], [unit[2], 0, -unit[0]], [-unit[1], unit[0], 0]])
    angle = np.radians(angle_deg)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def rigid(turn: np.ndarray, shift_mm: Sequence[float]) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = turn, shift_mm
    return matrix


def base(sop_class: str, modality: str, frame: str) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, generate_uid()
    dataset.StudyInstanceUID = dataset.SeriesInstanceUID = "1.2.3"
    dataset.Modality, dataset.FrameOfReferenceUID = modality, frame
    return dataset


def pixel_module(dataset: Dataset, values: np.ndarray, scale: tuple[float, float]) -> np.ndarray:
    """Fill in the attributes of 16-bit signed pixels and return what is to be stored."""
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = values.shape[-2:]
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 1
    return np.rint((values - scale[1]) / scale[0]).astype("<i2")


def write_series(
    folder: Path,
    function: Function,
    modality: str = "CT",
    frame: str = CT_FRAME,
    first_mm: Sequence[float] = (-30.0, -20.0, -25.0),
    cosines: Sequence[float] = AXIAL,
    spacing_mm: tuple[float, float, float] = (2.0, 3.0, 2.5),
    shape_zyx: tuple[int, int, int] = (21, 16, 32),
    step_mm: Sequence[float] | None = None,
    scale: tuple[float, float] = (0.1, 0.0),
    number: int = 1,
    **attributes: Any,
) -> list[Path]:
    """Write a series whose pixels are a function of the place; spacing is that of columns, rows and planes."""
    row, column = np.array(cosines[:3]), np.array(cosines[3:])
    step = np.cross(row, column) * spacing_mm[2] if step_mm is None else np.array(step_mm)
    nz, ny, nx = shape_zyx
    uid = generate_uid()
    paths = []
    for k in range(nz):
        position = np.array(first_mm) + k * step
        places = (
            position
            + np.arange(nx)[None, :, None] * row * spacing_mm[0]
            + np.arange(ny)[:, None, None] * column * spacing_mm[1]
        )
        dataset = base(SOP_CLASSES[modality], modality, frame)
        dataset.SeriesInstanceUID, dataset.SeriesNumber, dataset.SeriesDescription = (
            uid,
            number,
            f"series {number}",
        )
        dataset.PatientPosition = "HFS"
        dataset.ImagePositionPatient = [f"{v:.10g}" for v in position]
        dataset.ImageOrientationPatient = [f"{v:.12g}" for v in cosines]
        dataset.PixelSpacing = [spacing_mm[1], spacing_mm[0]]
        dataset.RescaleSlope, dataset.RescaleIntercept = scale
        stored = pixel_module(dataset, function(places), scale)
        dataset.PixelData = stored.tobytes()
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)
        paths.append(save(dataset, folder / f"{modality}{number}-{k:03}.dcm"))
    return paths


def write_enhanced_ct(folder: Path, function: Function, shape_zyx=(9, 16, 32), order=None) -> Path:
    """Write a multi-frame CT; spacing and orientation are shared, position and rescale are each frame's own."""
    nz, ny, nx = shape_zyx
    first, spacing = np.array([-30.0, -20.0, -25.0]), np.array([2.0, 3.0, 2.5])
    dataset = base(EnhancedCTImageStorage, "CT", CT_FRAME)
    dataset.PatientPosition, dataset.NumberOfFrames, dataset.ImageType = (
        "HFS",
        nz,
        ["ORIGINAL", "PRIMARY", "VOLUME"],
    )
    measures, orientation, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = [spacing[1], spacing[0]]
    orientation.ImageOrientationPatient = list(AXIAL)
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    dataset.SharedFunctionalGroupsSequence = [shared]
    frames, groups = [], []
    for k in order or range(nz):
        i, j = np.meshgrid(np.arange(nx), np.arange(ny))
        places = first + np.stack([i, j, np.full_like(i, k)], axis=-1) * spacing
        scale = (0.1, 0.0) if k % 2 else (0.2, -7.0)
        position, rescale, group = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [float(v) for v in places[0, 0]]
        rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = *scale, "HU"
        group.PlanePositionSequence, group.PixelValueTransformationSequence = [position], [rescale]
        groups.append(group)
        frames.append(pixel_module(dataset, function(places), scale))
    dataset.PerFrameFunctionalGroupsSequence = groups
    dataset.PixelData = np.stack(frames).tobytes()
    return save(dataset, folder / "enhanced.dcm")


def write_registration(
    folder: Path,
    links: Sequence[tuple[str, Sequence[np.ndarray]]],
    frame: str = CT_FRAME,
    kind: str = "RIGID",
) -> Path:
    """Write a Spatial Registration: ``frame`` is the registered one, every link is a source and its matrices."""
    dataset = base(SpatialRegistrationStorage, "REG", frame)
    dataset.RegistrationSequence = []
    for source, matrices in links:
        item, registration = Dataset(), Dataset()
        item.FrameOfReferenceUID = source
        registration.MatrixSequence = []
        for matrix in matrices:
            part = Dataset()
            part.FrameOfReferenceTransformationMatrixType = kind
            part.FrameOfReferenceTransformationMatrix = [f"{v:.12g}" for v in matrix.reshape(-1)]
            registration.MatrixSequence.append(part)
        item.MatrixRegistrationSequence = [registration]
        dataset.RegistrationSequence.append(item)
    return save(dataset, folder / f"REG{dataset.SOPInstanceUID[-12:]}.dcm")


def write_contours(
    folder: Path,
    rois: dict[str, Sequence[np.ndarray]],
    frame: str = CT_FRAME,
    label: str = "plan",
    **more: Any,
) -> Path:
    """Write a structure set; every region is a list of contours, each of shape (n, 3)."""
    dataset = base(RTStructureSetStorage, "RTSTRUCT", frame)
    dataset.StructureSetLabel = label
    dataset.StructureSetROISequence, dataset.ROIContourSequence, dataset.RTROIObservationsSequence = (
        [],
        [],
        [],
    )
    for keyword, value in more.items():
        setattr(dataset, keyword, value)
    for number, (name, contours) in enumerate(rois.items(), start=1):
        roi, contour_set, observation = Dataset(), Dataset(), Dataset()
        roi.ROINumber, roi.ReferencedFrameOfReferenceUID, roi.ROIName = number, frame, name
        contour_set.ReferencedROINumber, contour_set.ContourSequence = number, []
        for points in contours:
            item = Dataset()
            item.ContourGeometricType, item.NumberOfContourPoints = "CLOSED_PLANAR", len(points)
            item.ContourData = [f"{v:.3f}" for v in np.asarray(points, float).reshape(-1)]
            contour_set.ContourSequence.append(item)
        observation.ObservationNumber = observation.ReferencedROINumber = number
        observation.RTROIInterpretedType = "ORGAN"
        dataset.StructureSetROISequence.append(roi)
        dataset.ROIContourSequence.append(contour_set)
        dataset.RTROIObservationsSequence.append(observation)
    return save(dataset, folder / f"RTSTRUCT{dataset.SOPInstanceUID[-12:]}.dcm")
