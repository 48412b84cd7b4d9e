"""Read a case from a NumPy archive in the format that docs/volumes.md describes."""

import json
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import VolumeError, shortened
from engine.model.arrays import F32
from engine.model.case import Case, PatientPosition, Structure, StructureKind
from engine.model.grid import Grid
from storage.volumes.hounsfield import require_hounsfield
from storage.volumes.label import label_of
from storage.volumes.position import position_of
from storage.volumes.sanity import (
    MOST_STRUCTURES,
    naming,
    require_file,
    require_held,
    require_place,
    shown_name,
)

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
OPTIONAL = ("x_mm", "y_mm", "z_mm", "structure_is_external", "meta_json")
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
    require_file(path)
    with naming(path):
        return _read(path, name, position)


def _read(path: Path, name: str | None, position: PatientPosition | None) -> Case:
    held = _load(path)
    absent = [key for key in REQUIRED if key not in held]
    if absent:
        raise VolumeError(
            f"'{path.name}' has no {' and no '.join(absent)}; see docs/volumes.md for the format"
        )
    ct_hu, notes = _ct(held["ct_hu"], path)
    grid = _grid(held, ct_hu.shape, path)
    require_place(path, grid)
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
    """Return the arrays that a case has; those with Python objects inside could run code and are refused.

    Sizes are looked at before anything is unpacked: a few bytes can say that they are, or swell to, many GiB.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
            wanted = {key: members[key] for key in (*REQUIRED, *OPTIONAL) if key in members}
            require_held(path, 0, sum(member.file_size for member in wanted.values()))
            return {key: _array(archive, member, key, path) for key, member in wanted.items()}
    except zipfile.BadZipFile as error:
        raise VolumeError(
            f"'{path.name}' cannot be read ({shortened(str(error))}): damaged, or no npz archive of plain arrays; "
            "write it again"
        ) from error


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, key: str, path: Path) -> npt.NDArray[Any]:
    """Return one array of an archive whose header says what its size can hold (numpy.lib.format, version 1 to 3)."""
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version[0] == 1 else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
        begin = stream.tell()
    if dtype.hasobject:
        raise VolumeError(
            f"'{path.name}': {key} cannot be read (it holds Python objects, which could run code): write plain arrays"
        )
    said = math.prod(int(n) for n in shape) * dtype.itemsize
    if said != member.file_size - begin:
        raise VolumeError(
            f"'{path.name}': {key} says it has shape {shortened(str(shape))} of {dtype}, which are {said} bytes, and "
            f"has {member.file_size - begin}: damaged; write it again"
        )
    require_held(path, math.prod(shape) if key == "ct_hu" else 0, said)
    with archive.open(member) as stream:
        array: npt.NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
    return array


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
    except (ValueError, RecursionError) as error:
        raise VolumeError(f"'{path.name}': meta_json is not JSON ({shortened(str(error))})") from error
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
    if n > MOST_STRUCTURES:
        raise VolumeError(
            f"'{path.name}' has {n} structures (at most {MOST_STRUCTURES} are read): write fewer"
        )
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
    shown = [shown_name(name) for name in names.tolist()]
    _check_names(shown, path)
    structures: list[Structure] = []
    notes: list[str] = []
    if shown != names.tolist():
        notes.append("names of structures had control characters or were too long, and were changed")
    for name, type_, count, packed in zip(shown, types.tolist(), counts.tolist(), bits, strict=True):
        kind = KINDS.get(type_)
        if kind is None:
            raise VolumeError(
                f"'{path.name}': structure '{name}' has type '{shortened(type_)}' (known are {', '.join(KINDS)})"
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
    _check_external(held, shown, types.tolist(), path)
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
