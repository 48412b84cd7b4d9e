"""Images as SimpleITK reads them, on grids along the axes of patient coordinates."""

import gzip
import math
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt
import SimpleITK

from engine.errors import VolumeError, shortened
from engine.model.arrays import F32
from engine.model.grid import Grid
from storage.dicom.sanity import LARGEST_COORDINATE_MM
from storage.volumes.sanity import (
    MOST_STRUCTURES,
    naming,
    require_file,
    require_held,
    require_packed,
    require_place,
    without_chatter,
)

IMAGE_ENDINGS = (".nrrd", ".nhdr", ".nii", ".nii.gz", ".mha", ".mhd")
_STRAIGHT_MM = 0.02
"""How far the corner of an image may lie from where straight axes would put it; headers hold rounded numbers."""
_SAME_FRAME_MM = 0.5
_ANATOMICAL = re.compile(r"(right|left)-(anterior|posterior)-(superior)|ras|las|lps", re.IGNORECASE)
"""Spaces of NRRD that say which side is left; of those SimpleITK knows these, and takes all others for LPS."""
_LONGEST_HEADER = 1 << 20
_LONGEST_FIELD = 255
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
    require_file(path)
    data_file(path)
    with naming(path), without_chatter():
        return _read_image(path)


def _read_image(path: Path) -> Any:
    try:
        reader = SimpleITK.ImageFileReader()
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        n_voxel, n_layer = math.prod(reader.GetSize()), reader.GetNumberOfComponents()
        if n_layer > MOST_STRUCTURES:
            raise VolumeError(
                f"'{path.name}' has {n_layer} numbers a voxel (at most {MOST_STRUCTURES} can be)"
            )
        n_byte = n_voxel * n_layer * _pixel_bytes(reader.GetPixelID())
        require_held(path, n_voxel, n_byte)
        data = data_file(path)
        require_packed(path, path.stat().st_size + (0 if data is None else data.stat().st_size), n_byte)
        if path.name.lower().endswith((".nii", ".nii.gz")):
            _require_whole_nifti(path, n_voxel * n_layer)
        image = reader.Execute()
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise VolumeError(
            f"'{path.name}' cannot be read ({shortened(lines[-1] if lines else str(error))}): damaged, incomplete or "
            "no image of this sort; write it again"
        ) from error
    if image.GetDimension() != 3 or min(image.GetSize()) < 1:
        raise VolumeError(
            f"'{path.name}' has {image.GetDimension()} dimensions of size {image.GetSize()}; it needs three"
        )
    placed = np.array([*image.GetOrigin(), *image.GetSpacing(), *image.GetDirection()])
    if not np.isfinite(placed).all() or np.abs(placed).max() > LARGEST_COORDINATE_MM:
        raise VolumeError(
            f"'{path.name}' does not say in numbers that can be where it lies; write it again in mm"
        )
    require_place(path, Grid((0.0, 0.0, 0.0), image.GetSpacing(), (1, 1, 1)))
    _require_axes(image, path)
    straight = SimpleITK.DICOMOrient(image, "LPS")
    for key in image.GetMetaDataKeys():
        if key.startswith("Segment"):
            straight.SetMetaData(key, image.GetMetaData(key))
    return straight


def _require_whole_nifti(path: Path, n_number: int) -> None:
    """Refuse a NIfTI file that was cut short, of which SimpleITK reads what is not there as if it were.

    Raises
    ------
    VolumeError
        If so, or if its voxels are in another file.
    """
    try:
        with _opened_nifti(path) as stream:
            header = stream.read(_NIFTI_2)
            order = "<" if struct.unpack("<i", header[:4])[0] in (_NIFTI_1, _NIFTI_2) else ">"
            first = struct.unpack(f"{order}i", header[:4])[0] == _NIFTI_1
            magic = header[344:347] if first else header[4:7]
            begin = struct.unpack_from(f"{order}{'f' if first else 'q'}", header, 108 if first else 168)[0]
            # Not the size of SimpleITK's numbers, which are larger where the file has a slope.
            n_byte = n_number * struct.unpack_from(f"{order}h", header, 72 if first else 14)[0] // 8
            held = len(header)
            while part := stream.read(1 << 20):
                held += len(part)
                if held >= begin + n_byte:
                    break
    except (EOFError, OSError, struct.error, zlib.error) as error:
        raise VolumeError(
            f"'{path.name}' cannot be read ({shortened(str(error))}): damaged or cut short; write it again"
        ) from error
    if magic not in (b"n+1", b"n+2"):
        raise VolumeError(
            f"'{path.name}' says its voxels are in another file; write the image as a single file"
        )
    if not 0 <= begin <= held - n_byte:
        raise VolumeError(
            f"'{path.name}' has {held} bytes, and says it has {n_byte} of voxels from byte {begin:g} on: cut short; "
            "write it again"
        )


def _opened_nifti(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path)) if path.name.lower().endswith(".gz") else path.open("rb")


def _pixel_bytes(pixel_id: int) -> int:
    """Return how many bytes a number of an image has."""
    return max(1, int("".join(filter(str.isdigit, SimpleITK.GetPixelIDValueAsString(pixel_id))) or 64) // 8)


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
    with _opened_nifti(path) as stream:
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
    require_held(Path("the interpolated image"), nx * ny * nz, 4 * nx * ny * nz)
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
    """Return the file that a header says its numbers are in; None for files that hold them themselves.

    NRRD and MetaImage may name another file whatever their own is called (https://teem.sourceforge.net/nrrd/format.html,
    section 5; ElementDataFile of MetaImage). It must lie beside the header: files from outside are not to choose what
    else is read.

    Raises
    ------
    VolumeError
        If the header names none where it must, or several, or one that is not beside it.
    """
    ending = path.suffix.lower()
    keys = {
        ".nhdr": ("data file", "datafile"), ".nrrd": ("data file", "datafile"),
        ".mhd": ("elementdatafile",), ".mha": ("elementdatafile",),
    }.get(ending)  # fmt: skip
    if keys is None:
        return None
    require_file(path)
    with path.open("rb") as stream:
        begin = stream.read(_LONGEST_HEADER)
    named = []
    ended = False
    for line in begin.decode("latin-1").split("\n"):
        ended = not line.strip() and keys[0] == "data file"  # an empty line ends the header of NRRD
        if ended:
            break
        if len(line) > _LONGEST_FIELD and not line.startswith("#") and ":=" not in line:
            # The libraries that read these headers overrun buffers of fixed size when they complain of longer ones.
            raise VolumeError(
                f"'{path.name}' has a line of {len(line)} letters in its header; write it again"
            )
        key, _, value = line.replace(":", "=", 1).partition("=")
        if keys[0] == "elementdatafile" and key.strip().lower() == "ndims" and value.strip() != "3":
            # The library that reads MetaImage ends the process on numbers that cannot be.
            raise VolumeError(f"'{path.name}' has {shortened(value.strip())} dimensions; it needs three")
        if "".join(key.lower().split()) in [name.replace(" ", "") for name in keys]:
            named.append(value.strip())
            ended = keys[0] == "elementdatafile"  # the last line of that of MetaImage
            if ended:
                break
    own = ending in (".nrrd", ".mha")
    if len(begin) == _LONGEST_HEADER and not ended:
        raise VolumeError(f"'{path.name}' has a header that does not end; write it again")
    if own and all(name.upper() == "LOCAL" for name in named):
        return None
    if not named:
        raise VolumeError(f"'{path.name}' names no data file; write the image as a single file")
    name = named[0]
    file = path.parent / name
    if (
        len(named) > 1
        or name.upper().startswith(("LIST", "LOCAL"))
        or "%" in name
        or name != Path(name).name
        or not file.is_file()
    ):
        raise VolumeError(
            f"'{path.name}' says its numbers are in '{shortened(name)}' (one file beside it is needed); write the "
            "image as a single file"
        )
    require_file(file)
    return file
