"""Structures from images: one mask a file, label maps with a table of names, and 3D Slicer's segmentations."""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK

from engine.errors import VolumeError, shortened
from engine.geometry.resample import average_onto
from engine.model.arrays import F32
from engine.model.grid import Grid
from storage.volumes.frames import IMAGE_ENDINGS, is_straight, onto, read_image, straight_volume
from storage.volumes.sanity import LARGEST_TABLE_BYTES, MOST_STRUCTURES, naming, require_file, shown_name

_SAME_PLACE_MM = 1e-3
_MOST_LABELS = 4096
_LEAST_TOLD = 1e-3


@dataclass(frozen=True)
class Region:
    """A structure without its role.

    Parameters
    ----------
    name
        Its name.
    coverage
        Fraction of each voxel inside, on the grid of the CT.
    notes
        What was done to it.
    """

    name: str
    coverage: F32
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Label:
    """Where a structure is in a file: which numbers of which layer."""

    name: str
    layer: int
    value: int | None  # None: the whole layer is the mask


def read_regions(path: Path, grid: Grid) -> list[Region]:
    """Return the structures of a file on the grid of the CT.

    Masks on another grid are averaged over the CT's voxels, which keeps their volume; oblique ones are interpolated.

    Raises
    ------
    VolumeError
        If the file is no mask, or a label map without names.
    """
    with naming(path):
        return _read_regions(path, grid)


def _read_regions(path: Path, grid: Grid) -> list[Region]:
    image = read_image(path)
    labels = _slicer_labels(image) or _table_labels(path)
    n_layer = image.GetNumberOfComponentsPerPixel()
    layers = [image]
    if n_layer > 1:
        layers = [SimpleITK.VectorIndexSelectionCast(image, layer) for layer in range(n_layer)]
    if labels:
        _check_labels(labels, layers, path)
    else:
        if len(layers) > 1:
            raise VolumeError(
                f"'{path.name}' has {len(layers)} numbers a voxel and no names of segments; it is no mask"
            )
        labels = [_Label(stem(path), 0, None)]
    if len(labels) > MOST_STRUCTURES:
        raise VolumeError(f"'{path.name}' has {len(labels)} structures (at most {MOST_STRUCTURES} are read)")
    return [
        Region(shown_name(label.name), *_coverage(_mask(layers[label.layer], label, path), grid))
        for label in labels
    ]


def stem(path: Path) -> str:
    """Return the name of a file without its ending, the long ones included."""
    for ending in sorted((*IMAGE_ENDINGS, ".seg.nrrd"), key=len, reverse=True):
        if path.name.lower().endswith(ending):
            return path.name[: -len(ending)]
    return path.stem


def table_beside(path: Path) -> Path:
    """Return where the table of names of a label map would be: beside it, with the ending .toml."""
    return path.with_name(f"{stem(path)}.toml")


def _slicer_labels(image: Any) -> list[_Label]:
    """Return the segments that 3D Slicer wrote into the header of a .seg.nrrd."""
    found: list[_Label] = []
    keys = set(image.GetMetaDataKeys())
    for key in sorted(keys, key=lambda k: [int(n) for n in re.findall(r"\d+", k)]):
        segment = re.fullmatch(r"Segment(\d+)_Name", key)
        if segment:
            value, layer = (
                int(image.GetMetaData(other)) if other in keys else default
                for other, default in (
                    (f"Segment{segment[1]}_LabelValue", 1),
                    (f"Segment{segment[1]}_Layer", 0),
                )
            )
            found.append(_Label(image.GetMetaData(key).strip(), layer, value))
    return found


def _table_labels(path: Path) -> list[_Label]:
    """Return what the table beside a label map says."""
    table = table_beside(path)
    if not table.is_file():
        return []
    try:
        require_file(table, LARGEST_TABLE_BYTES)
        held = tomllib.loads(table.read_text(encoding="utf-8"))
        labels = held["labels"]
        found = [_Label(str(name), 0, int(value)) for value, name in labels.items() if isinstance(name, str)]
    except (
        OSError,
        UnicodeDecodeError,
        tomllib.TOMLDecodeError,
        KeyError,
        ValueError,
        AttributeError,
        RecursionError,
    ) as error:
        raise VolumeError(
            f"'{table.name}' is no table of names ({shortened(str(error))}); {_TABLE}"
        ) from error
    if len(found) != len(labels) or set(held) != {"labels"} or not found:
        raise VolumeError(f"'{table.name}' is no table of names; {_TABLE}")
    return found


_TABLE = 'write [labels] and below it one line for each structure, such as 1 = "PTV_7000"'


def _check_labels(labels: list[_Label], layers: list[Any], path: Path) -> None:
    for label in labels:
        if not 0 <= label.layer < len(layers) or not label.name:
            raise VolumeError(
                f"'{path.name}': segment '{shortened(label.name)}' has no name, or is in layer {label.layer} of "
                f"{len(layers)}"
            )
    for number, layer in enumerate(layers):
        values = _values(layer, path)
        known = {label.value for label in labels if label.layer == number}
        nameless = sorted(set(values.tolist()) - known - {0})
        if nameless:
            raise VolumeError(f"'{path.name}': label {nameless[0]:g} has no name; {_TABLE}")


def _values(image: Any, path: Path) -> npt.NDArray[Any]:
    """Return the different numbers of an image; more than a label map can have are refused."""
    values = np.unique(SimpleITK.GetArrayViewFromImage(image))
    if values.size > _MOST_LABELS or not np.isfinite(values).all():
        raise VolumeError(
            f"'{path.name}' holds {values.size} different numbers; it is neither a mask nor a label map"
        )
    return values


def _mask(image: Any, label: _Label, path: Path) -> Any:
    """Return an image of numbers from 0 to 1."""
    if label.value is not None:
        return SimpleITK.Cast(image == float(label.value), SimpleITK.sitkFloat32)
    array = SimpleITK.GetArrayViewFromImage(image)
    low, high = float(array.min()), float(array.max())
    if array.dtype.kind == "f" and low >= 0.0 and high <= 1.0:
        return SimpleITK.Cast(image, SimpleITK.sitkFloat32)
    values = _values(image, path)
    if low < 0.0 or not np.isfinite(high) or values.size > 2 or (values.size == 2 and low != 0.0):
        raise VolumeError(
            f"'{path.name}' holds {values.size} different numbers from {low:g} to {high:g}: a mask has 0 outside and "
            f"one number inside. For a label map, put '{table_beside(path).name}' with its names beside it: {_TABLE}"
        )
    return SimpleITK.Cast(image > 0.0, SimpleITK.sitkFloat32)


def _coverage(mask: Any, grid: Grid) -> tuple[F32, tuple[str, ...]]:
    if not is_straight(mask):
        return onto(mask, grid), ("interpolated linearly from oblique axes",)
    volume = straight_volume(mask)
    values = np.asarray(volume.layers[0], dtype=np.float32)
    if _same(volume.grid, grid):
        return values, ()
    coverage = average_onto(values, volume.grid, grid)
    before_mm3 = float(values.sum(dtype=np.float64)) * volume.grid.voxel_volume_mm3
    after_mm3 = float(coverage.sum(dtype=np.float64)) * grid.voxel_volume_mm3
    notes = ["averaged onto the voxels of the CT from another grid"]
    if before_mm3 and after_mm3 < (1.0 - _LEAST_TOLD) * before_mm3:
        lost = 100.0 * (1.0 - after_mm3 / before_mm3)
        notes.append(f"{lost:.2g} % of it lies outside of the CT and was cut off")
    return np.clip(coverage, 0.0, 1.0), tuple(notes)


def _same(one: Grid, other: Grid) -> bool:
    """Return whether two grids have the same voxels, but for rounding in headers."""
    return one.shape_zyx == other.shape_zyx and all(
        np.abs(a[[0, -1]] - b[[0, -1]]).max() <= _SAME_PLACE_MM
        for a, b in zip(one.centres_mm_xyz, other.centres_mm_xyz, strict=True)
    )
