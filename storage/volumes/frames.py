"""Images as SimpleITK reads them, on grids along the axes of patient coordinates."""

import gzip
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK

from engine.errors import VolumeError
from engine.model.arrays import F32
from engine.model.grid import Grid

IMAGE_ENDINGS = (".nrrd", ".nhdr", ".nii", ".nii.gz", ".mha", ".mhd")
_STRAIGHT_MM = 0.02
"""How far the corner of an image may lie from where straight axes would put it; headers hold rounded numbers."""
_SAME_FRAME_MM = 0.5
_ANATOMICAL = re.compile(r"(right|left)-(anterior|posterior)-(superior)|ras|las|lps", re.IGNORECASE)
"""Spaces of NRRD that say which side is left; of those SimpleITK knows these, and takes all others for LPS."""
_NIFTI_1, _NIFTI_2 = 348, 540  # sizes of the headers, with which they begin


@dataclass(frozen=True)
class Volume:
    """Numbers on a grid of patient coordinates.

    Parameters
    ----------
    grid
        The grid.
    layers
        One array for each component of the image, of the file's type and of shape ``grid.shape_zyx``.
    """

    grid: Grid
    layers: tuple[npt.NDArray[Any], ...]


def read_image(path: Path) -> Any:
    """Return an image of three dimensions, its axes in the order x, y, z and turned to left, back and head.

    SimpleITK gives patient coordinates of DICOM (LPS), whatever the file's own are. Axes are swapped and flipped
    without any interpolation; what then remains is a turn by less than 45 degrees.

    Raises
    ------
    VolumeError
        If the file cannot be read, has other dimensions, or does not say how its axes lie in the patient.
    """
    try:
        image = SimpleITK.ReadImage(str(path))
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise VolumeError(
            f"'{path.name}' cannot be read ({lines[-1] if lines else error}): damaged, incomplete or no image of this "
            "sort; write it again"
        ) from error
    if image.GetDimension() != 3 or min(image.GetSize()) < 1:
        raise VolumeError(
            f"'{path.name}' has {image.GetDimension()} dimensions of size {image.GetSize()}; it needs three"
        )
    _require_axes(image, path)
    straight = SimpleITK.DICOMOrient(image, "LPS")
    for key in image.GetMetaDataKeys():
        if key.startswith("Segment"):
            straight.SetMetaData(key, image.GetMetaData(key))
    return straight


def _require_axes(image: Any, path: Path) -> None:
    """Refuse files whose headers say nothing of the patient's axes: left and right would be a guess."""
    name = path.name.lower()
    keys = image.GetMetaDataKeys()
    silent = False
    if name.endswith((".nrrd", ".nhdr")):
        silent = "NRRD_space" not in keys or not _ANATOMICAL.fullmatch(
            image.GetMetaData("NRRD_space").strip()
        )
    elif name.endswith((".nii", ".nii.gz")):
        codes = [int(float(image.GetMetaData(key))) for key in ("qform_code", "sform_code") if key in keys]
        silent = bool(codes) and not any(codes)
        if len(codes) == 2 and all(codes):
            _require_one_frame(image, path)
    if silent:
        raise VolumeError(
            f"'{path.name}' does not say how its axes lie in the patient (NRRD: no anatomical space, "
            "NIfTI: no form code): left and right would be a guess; write it with its directions"
        )


def _require_one_frame(image: Any, path: Path) -> None:
    """Refuse a NIfTI file whose two ways of saying where it lies contradict each other: programs choose differently."""

    def numbers(*keys: str) -> list[float]:
        return [float(text) for key in keys for text in image.GetMetaData(key).split()]

    sform = np.array(numbers("srow_x", "srow_y", "srow_z")).reshape(3, 4)
    b, c, d = numbers("quatern_b", "quatern_c", "quatern_d")
    a = np.sqrt(max(0.0, 1.0 - b * b - c * c - d * d))
    turn = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    spacing_mm = numbers("pixdim[1]", "pixdim[2]", "pixdim[3]")
    spacing_mm[2] *= -1.0 if _is_left_handed(path) else 1.0
    offset_mm = numbers("qoffset_x", "qoffset_y", "qoffset_z")
    qform = np.column_stack([turn * spacing_mm, offset_mm])
    end = np.array([*image.GetSize(), 1.0])
    apart_mm = max(np.abs((sform - qform) @ end).max(), np.abs(sform - qform)[:, 3].max())
    if apart_mm > _SAME_FRAME_MM:
        raise VolumeError(
            f"'{path.name}': its qform and sform put the image up to {apart_mm:.1f} mm apart; write it with one of them"
        )


def _is_left_handed(path: Path) -> bool:
    """Return whether pixdim[0] of a NIfTI file is negative, that is, the third axis is flipped (SimpleITK hides it)."""
    with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as stream:
        header = stream.read(112)
    order = "<" if struct.unpack("<i", header[:4])[0] in (_NIFTI_1, _NIFTI_2) else ">"
    form, begin = ("f", 76) if struct.unpack(f"{order}i", header[:4])[0] == _NIFTI_1 else ("d", 104)
    return bool(struct.unpack_from(f"{order}{form}", header, begin)[0] < 0.0)


def turn_deg(image: Any) -> float:
    """Return by how many degrees the axes are turned against the patient's."""
    matrix = np.array(image.GetDirection()).reshape(3, 3)
    return float(np.degrees(np.arccos(np.clip(np.diag(matrix).min(), -1.0, 1.0))))


def is_straight(image: Any) -> bool:
    """Return whether the axes are the patient's, but for rounding."""
    matrix = np.array(image.GetDirection()).reshape(3, 3) - np.eye(3)
    corner_mm = np.array(image.GetSize()) * np.array(image.GetSpacing())
    return bool(np.abs(matrix @ np.diag(corner_mm)).sum(axis=1).max() <= _STRAIGHT_MM)


def straight_volume(image: Any) -> Volume:
    """Return the numbers and the grid of an image whose axes are the patient's."""
    x_mm, y_mm, z_mm = image.GetOrigin()
    dx_mm, dy_mm, dz_mm = image.GetSpacing()
    nx, ny, nz = image.GetSize()
    array = SimpleITK.GetArrayFromImage(image)
    n_layer = image.GetNumberOfComponentsPerPixel()
    layers = (array,) if n_layer == 1 else tuple(array[..., layer] for layer in range(n_layer))
    return Volume(Grid((x_mm, y_mm, z_mm), (dx_mm, dy_mm, dz_mm), (nz, ny, nx)), layers)


def straight_grid(image: Any) -> Grid:
    """Return a grid along the patient's axes, with the spacing of an oblique image, that covers all of it."""
    size = np.array(image.GetSize())
    corners = np.array(
        [
            image.TransformContinuousIndexToPhysicalPoint(
                [float(i * (n - 1)) for i, n in zip(which, size, strict=True)]
            )
            for which in np.ndindex(2, 2, 2)
        ]
    )
    dx_mm, dy_mm, dz_mm = image.GetSpacing()
    low_mm, high_mm = corners.min(axis=0), corners.max(axis=0)
    nx, ny, nz = (int(n) + 1 for n in np.ceil((high_mm - low_mm) / (dx_mm, dy_mm, dz_mm) - 1e-6))
    x_mm, y_mm, z_mm = low_mm.tolist()
    return Grid((x_mm, y_mm, z_mm), (dx_mm, dy_mm, dz_mm), (nz, ny, nx))


def onto(image: Any, grid: Grid, outside: float = 0.0) -> F32:
    """Return an image of one component interpolated linearly at the voxel centres of a grid; ``outside`` beyond it."""
    nz, ny, nx = grid.shape_zyx
    resampled = SimpleITK.Resample(
        SimpleITK.Cast(image, SimpleITK.sitkFloat32),
        [nx, ny, nz],
        SimpleITK.Transform(),
        SimpleITK.sitkLinear,
        list(grid.origin_mm_xyz),
        list(grid.spacing_mm_xyz),
        np.eye(3).ravel().tolist(),
        outside,
    )
    return np.asarray(SimpleITK.GetArrayFromImage(resampled), dtype=np.float32)


def data_file(path: Path) -> Path | None:
    """Return the file that a header (.nhdr, .mhd) says its numbers are in; None for files that hold them themselves.

    Raises
    ------
    VolumeError
        If the header names none, or several, or one that is not there.
    """
    keys = {".nhdr": ("data file", "datafile"), ".mhd": ("elementdatafile",)}.get(path.suffix.lower())
    if keys is None:
        return None
    for line in path.read_bytes()[:65536].decode("latin-1").splitlines():
        key, _, value = line.replace(":", "=", 1).partition("=")
        if key.strip().lower() in keys:
            file = path.parent / value.strip()
            if value.strip().upper().startswith(("LIST", "LOCAL")) or "%" in value or not file.is_file():
                raise VolumeError(
                    f"'{path.name}' says its numbers are in '{value.strip()}' (one file beside it is needed); write "
                    "the image as a single file"
                )
            return file
    raise VolumeError(f"'{path.name}' names no data file; write the image as a single file")
