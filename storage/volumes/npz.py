"""Read a case from a NumPy archive in the format that docs/volumes.md describes."""

import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import CaseError, VolumeError
from engine.model.arrays import F32
from engine.model.case import Case, PatientPosition, Structure, StructureKind
from engine.model.grid import Grid
from storage.volumes.hounsfield import require_hounsfield
from storage.volumes.label import label_of
from storage.volumes.position import position_of

KINDS: dict[str, StructureKind] = {
    "EXTERNAL": "EXTERNAL",
    "TARGET": "TARGET",
    "OAR": "ORGAN",
    "ORGAN": "ORGAN",
    "POSSIBLE_DOSE": "OTHER",
    "OTHER": "OTHER",
}
"""Roles by structure type."""
REQUIRED = (
    "ct_hu",
    "spacing_xyz_mm",
    "origin_xyz_mm",
    "structure_names",
    "structure_types",
    "structure_nvox",
    "mask_bits",
)
CT_TYPES = ("int16", "int32", "float32", "float64")
CENTRE_TOLERANCE_MM = 1e-3


def read_npz_case(path: Path, name: str | None = None, position: PatientPosition | None = None) -> Case:
    """Read a case of voxels; its masks become coverages of 0 or 1.

    Parameters
    ----------
    path
        The archive.
    name
        Label of the case; without it, one is made from the CT's numbers.
    position
        Patient position, for files that do not say it in ``meta_json``.

    Raises
    ------
    VolumeError
        If the file is damaged or does not keep to the format; the message names the key.
    """
    held = _load(path)
    absent = [key for key in REQUIRED if key not in held]
    if absent:
        raise VolumeError(
            f"'{path.name}' has no {' and no '.join(absent)}; see docs/volumes.md for the format"
        )
    ct_hu, notes = _ct(held["ct_hu"], path)
    try:
        grid = _grid(held, ct_hu.shape, path)
    except CaseError as error:
        raise VolumeError(f"'{path.name}': {error}") from error
    meta = _meta(held, path)
    place, position_notes = position_of(meta.get("patient_position"), position, path.name)
    structures, structure_notes = _structures(held, grid, path)
    return Case(
        name or label_of(ct_hu),
        grid,
        ct_hu,
        structures,
        place,
        notes=(*position_notes, *notes, *structure_notes),
    )


def _load(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Return all arrays; those with Python objects inside could run code and are refused."""
    try:
        with path.open("rb") as stream:
            archive = np.load(stream, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise VolumeError(f"'{path.name}' is a single array (an npz archive is needed)")
            return {key: archive[key] for key in archive.files}
    except VolumeError:
        raise
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise VolumeError(
            f"'{path.name}' cannot be read ({error}): damaged, or no npz archive of plain arrays; write it again"
        ) from error


def _ct(values: npt.NDArray[Any], path: Path) -> tuple[F32, tuple[str, ...]]:
    if values.dtype.name not in CT_TYPES or values.ndim != 3 or min(values.shape) < 1:
        raise VolumeError(
            f"'{path.name}': ct_hu is {values.dtype.name} of shape {values.shape} (it must be one of "
            f"{', '.join(CT_TYPES)} of shape [nz, ny, nx])"
        )
    return require_hounsfield(values.astype(np.float32), path.name)


def _grid(held: dict[str, npt.NDArray[Any]], shape: tuple[int, ...], path: Path) -> Grid:
    """Return the grid; the voxel centres, where given, must agree with origin and spacing."""
    spacing_mm, origin_mm = (_three(held, key, path) for key in ("spacing_xyz_mm", "origin_xyz_mm"))
    grid = Grid(origin_mm, spacing_mm, (shape[0], shape[1], shape[2]))
    for key, expected_mm in zip(("x_mm", "y_mm", "z_mm"), grid.centres_mm_xyz, strict=True):
        if key not in held:
            continue
        centres_mm = held[key]
        if centres_mm.dtype.kind not in "fi" or centres_mm.shape != expected_mm.shape:
            raise VolumeError(
                f"'{path.name}': {key} has shape {centres_mm.shape} (the CT has {expected_mm.size} voxels that way)"
            )
        # Written so that NaN fails, too.
        if not (np.abs(centres_mm - expected_mm) <= CENTRE_TOLERANCE_MM).all():
            raise VolumeError(
                f"'{path.name}': {key} is not origin + index × spacing; voxels must be regular and run to larger "
                f"{key[0]} (flip the array, or resample it)"
            )
    return grid


def _three(held: dict[str, npt.NDArray[Any]], key: str, path: Path) -> tuple[float, float, float]:
    values = held[key]
    if values.dtype.kind not in "fi" or values.shape != (3,):
        raise VolumeError(f"'{path.name}': {key} must be three numbers in the order x, y, z")
    return float(values[0]), float(values[1]), float(values[2])


def _meta(held: dict[str, npt.NDArray[Any]], path: Path) -> dict[str, Any]:
    if "meta_json" not in held:
        return {}
    try:
        meta = json.loads(str(held["meta_json"]))
    except json.JSONDecodeError as error:
        raise VolumeError(f"'{path.name}': meta_json is not JSON ({error})") from error
    if not isinstance(meta, dict):
        raise VolumeError(f"'{path.name}': meta_json is not a JSON object")
    return meta


def _structures(
    held: dict[str, npt.NDArray[Any]], grid: Grid, path: Path
) -> tuple[tuple[Structure, ...], tuple[str, ...]]:
    names, types, counts, bits = (
        held[key] for key in ("structure_names", "structure_types", "structure_nvox", "mask_bits")
    )
    n = names.size
    n_byte = -(-grid.n_voxel // 8)
    wanted: dict[str, tuple[str, tuple[int, ...]]] = {
        "structure_names": ("U", (n,)),
        "structure_types": ("U", (n,)),
        "structure_nvox": ("iu", (n,)),
        "mask_bits": ("u", (n, n_byte)),
    }
    for key, (kinds, shape) in wanted.items():
        if held[key].dtype.kind not in kinds or held[key].shape != shape:
            raise VolumeError(
                f"'{path.name}': {key} is {held[key].dtype.name} of shape {held[key].shape}, with {n} structures of "
                f"{grid.n_voxel} voxels it must have shape {shape} (see docs/volumes.md)"
            )
    if bits.dtype != np.uint8:
        raise VolumeError(
            f"'{path.name}': mask_bits is {bits.dtype.name} (it must be uint8, from np.packbits)"
        )
    _check_names(names.tolist(), path)
    structures: list[Structure] = []
    notes: list[str] = []
    for name, type_, count, packed in zip(names.tolist(), types.tolist(), counts.tolist(), bits, strict=True):
        kind = KINDS.get(type_)
        if kind is None:
            raise VolumeError(
                f"'{path.name}': structure '{name}' has type '{type_}' (known are {', '.join(KINDS)})"
            )
        mask = np.unpackbits(packed, count=grid.n_voxel)
        if int(mask.sum()) != count:
            raise VolumeError(
                f"'{path.name}': structure '{name}' has {int(mask.sum())} voxels, structure_nvox says {count} "
                "(other bit order, axis order or shape?); pack it with np.packbits(mask), mask [nz, ny, nx]"
            )
        if count == 0:
            notes.append(f"structure '{name}': left out, as it is empty")
            continue
        structures.append(Structure(name, kind, mask.reshape(grid.shape_zyx).astype(np.float32)))
    _check_external(held, names.tolist(), types.tolist(), path)
    return tuple(structures), tuple(notes)


def _check_names(names: list[str], path: Path) -> None:
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise VolumeError(f"'{path.name}': structure names {doubled} occur more than once; rename them")
    if any(not name.strip() for name in names):
        raise VolumeError(f"'{path.name}': a structure has no name; name every one")


def _check_external(
    held: dict[str, npt.NDArray[Any]], names: list[str], types: list[str], path: Path
) -> None:
    """Refuse more than one body outline, and flags that contradict the types."""
    outlines = [name for name, type_ in zip(names, types, strict=True) if type_ == "EXTERNAL"]
    if len(outlines) > 1:
        raise VolumeError(f"'{path.name}': {outlines} are all of type EXTERNAL; only one body outline can be")
    if "structure_is_external" not in held:
        return
    flags = held["structure_is_external"]
    if flags.dtype != np.bool_ or flags.shape != (len(names),):
        raise VolumeError(f"'{path.name}': structure_is_external must be {len(names)} truth values")
    flagged = [name for name, flag in zip(names, flags.tolist(), strict=True) if flag]
    if flagged != outlines:
        raise VolumeError(
            f"'{path.name}': structure_is_external names {flagged}, structure_types {outlines}; make them agree"
        )
