"""Read a case from a CT and structures in NRRD, NIfTI or MetaImage files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engine.errors import VolumeError
from engine.model.case import Case, PatientPosition, Structure, StructureKind
from engine.nomenclature.propose import kind_by_name, propose
from storage.volumes.frames import (
    IMAGE_ENDINGS,
    is_straight,
    onto,
    read_image,
    straight_grid,
    straight_volume,
    turn_deg,
)
from storage.volumes.hounsfield import LOWEST_HU, require_hounsfield
from storage.volumes.label import label_of
from storage.volumes.masks import Region, read_regions
from storage.volumes.position import position_of
from storage.volumes.sanity import naming


def read_volume_case(
    ct: Path,
    structures: Sequence[Path] = (),
    position: PatientPosition | None = None,
    name: str | None = None,
) -> Case:
    """Read a CT and its structures; an oblique CT is interpolated onto straight axes.

    Parameters
    ----------
    ct
        The CT in Hounsfield units.
    structures
        Masks (named by their files), label maps (named by a table beside them), or 3D Slicer's .seg.nrrd.
    position
        Patient position: these files never say it.
    name
        Label of the case; without it, one is made from the CT's numbers.

    Raises
    ------
    VolumeError
        If a file cannot be read, holds no Hounsfield units or no masks, does not say how its axes lie, or if names of
        structures occur twice.
    """
    if not ct.name.lower().endswith(IMAGE_ENDINGS):
        raise VolumeError(
            f"'{ct.name}' is none of the files that can be read (.npz, {', '.join(IMAGE_ENDINGS)}); DICOM is given as "
            "a folder"
        )
    with naming(ct):
        return _read(ct, structures, position, name)


def _read(ct: Path, structures: Sequence[Path], position: PatientPosition | None, name: str | None) -> Case:
    place, position_notes = position_of(None, position, ct.name)
    image = read_image(ct)
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise VolumeError(
            f"'{ct.name}' has {image.GetNumberOfComponentsPerPixel()} numbers a voxel; a CT has one"
        )
    notes = list(position_notes)
    # Before interpolation, which would hide that a CT was clipped.
    volume = straight_volume(image)
    grid = volume.grid
    values, hu_notes = require_hounsfield(np.asarray(volume.layers[0], dtype=np.float32), ct.name)
    notes += hu_notes
    if not is_straight(image):
        notes.append(
            f"the CT's axes are turned by {turn_deg(image):.1f}° against the patient's; it was interpolated onto "
            f"straight ones, with {LOWEST_HU:.0f} HU where there was none"
        )
        grid = straight_grid(image)
        values = np.maximum(onto(image, grid, LOWEST_HU), np.float32(LOWEST_HU))
    regions = [region for path in structures for region in read_regions(path, grid)]
    kept, structure_notes = _structures(regions)
    return Case(name or label_of(values), grid, values, kept, place, notes=(*notes, *structure_notes))


def _structures(regions: Sequence[Region]) -> tuple[tuple[Structure, ...], tuple[str, ...]]:
    """Return the structures that are not empty, with roles by their names."""
    names = [region.name for region in regions]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise VolumeError(
            f"structures {doubled} occur more than once in these files; rename or leave out some"
        )
    notes: list[str] = []
    kept: list[Structure] = []
    outline = _outline(names)
    for region in regions:
        notes += [f"structure '{region.name}': {note}" for note in region.notes]
        if not (region.coverage > 0.0).any():
            notes.append(f"structure '{region.name}': left out, as it is empty")
            continue
        kind: StructureKind = kind_by_name(region.name)
        if kind == "EXTERNAL" and region.name != outline:
            kind = "OTHER"
        kept.append(Structure(region.name, kind, region.coverage))
    if kept:
        notes.append("the files do not say what the structures are; it was taken from their names")
    return tuple(kept), tuple(notes)


def _outline(names: Sequence[str]) -> str | None:
    """Return the structure that is the body outline by its name: External before Body, if both are there."""
    standard = {(found.name if (found := propose(name)) else ""): name for name in reversed(names)}
    return standard.get("External", standard.get("Body"))
