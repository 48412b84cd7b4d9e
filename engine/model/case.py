"""A patient or phantom: one CT, its structures, and images that were registered to it."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from engine.errors import CaseError
from engine.model.arrays import F32, F64
from engine.model.grid import Grid

PatientPosition = Literal["HFS", "HFP", "FFS", "FFP"]
StructureKind = Literal["EXTERNAL", "TARGET", "ORGAN", "OTHER"]


@dataclass(frozen=True)
class Contour:
    """A closed planar polygon in an axial plane.

    Parameters
    ----------
    z_mm
        Position of the plane, patient coordinates.
    points_mm_xy
        Corners in order, shape (n_point, 2); the last corner is joined to the first.
    """

    z_mm: float
    points_mm_xy: F64


@dataclass(frozen=True)
class Structure:
    """A named region as fractional voxel coverage on the CT grid.

    Parameters
    ----------
    name
        Name as in the structure set.
    kind
        Role: the body outline, a target, an organ, or something else.
    coverage
        Fraction of each voxel that lies inside, in [0, 1]; shape ``grid.shape_zyx`` of the case.
    contours
        The polygons the coverage was made from (may be empty for voxel-only sources).
    """

    name: str
    kind: StructureKind
    coverage: F32
    contours: tuple[Contour, ...] = ()


@dataclass(frozen=True)
class SecondImage:
    """Another image of the same patient, on the CT grid. Dose is never computed from it.

    Parameters
    ----------
    name
        Label without personal data, unique in a case: modality and series number.
    modality
        DICOM modality: MR, PT (positron emission tomography) or CT.
    unit
        What the values are: ``HU``, ``g/ml`` (standardised uptake by body weight), ``Bq/ml``, another unit as the
        file says it, or nothing (MR, in arbitrary units).
    values
        Values, shape ``grid.shape_zyx`` of the case; not a number where the image does not reach.
    notes
        How it was brought onto the CT grid, and what was assumed.
    """

    name: str
    modality: str
    unit: str
    values: F32
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Case:
    """A CT in Hounsfield units with its structures.

    Parameters
    ----------
    name
        Label without personal data.
    grid
        The CT grid.
    ct_hu
        Hounsfield units, shape ``grid.shape_zyx``.
    structures
        Structures on the same grid; names are unique.
    patient_position
        How the patient lies on the couch: head or feet first, supine or prone.
    frame_of_reference_uid
        DICOM frame of reference of the CT; empty where there is none.
    notes
        What was read, mended or ignored, one sentence each.
    images
        Other images on the same grid; names are unique.
    """

    name: str
    grid: Grid
    ct_hu: F32
    structures: tuple[Structure, ...]
    patient_position: PatientPosition = "HFS"
    frame_of_reference_uid: str = ""
    notes: tuple[str, ...] = ()
    images: tuple[SecondImage, ...] = ()

    def __post_init__(self) -> None:
        if self.ct_hu.shape != self.grid.shape_zyx:
            raise CaseError(f"CT of shape {self.ct_hu.shape} does not fit its grid {self.grid.shape_zyx}")
        if not np.isfinite(self.ct_hu).all():
            raise CaseError("the CT holds values that are not finite numbers")
        names = [structure.name for structure in self.structures]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise CaseError(f"structure names {doubled} occur more than once; rename them in the source")
        for structure in self.structures:
            if structure.coverage.shape != self.grid.shape_zyx:
                raise CaseError(
                    f"structure '{structure.name}' has shape {structure.coverage.shape}, "
                    f"the CT has {self.grid.shape_zyx}"
                )
        if len({image.name for image in self.images}) < len(self.images):
            raise CaseError("two second images have the same name; give them names of their own")
        for image in self.images:
            if image.values.shape != self.grid.shape_zyx:
                raise CaseError(
                    f"image '{image.name}' has shape {image.values.shape}, the CT has {self.grid.shape_zyx}"
                )

    def structure(self, name: str) -> Structure:
        """Return the structure called ``name``.

        Raises
        ------
        CaseError
            If there is none; the message lists the known names.
        """
        for structure in self.structures:
            if structure.name == name:
                return structure
        known = ", ".join(structure.name for structure in self.structures) or "none"
        raise CaseError(f"no structure is called '{name}' (this case has: {known})")

    @property
    def external(self) -> Structure:
        """The body outline.

        Raises
        ------
        CaseError
            If the case has no structure of kind EXTERNAL, or more than one.
        """
        found = [structure for structure in self.structures if structure.kind == "EXTERNAL"]
        if len(found) != 1:
            names = [structure.name for structure in found]
            raise CaseError(
                f"the case needs exactly one structure of kind EXTERNAL (found {names or 'none'}); "
                "name the body outline in the study with case.external"
            )
        return found[0]

    def with_external(self, name: str) -> "Case":
        """Return the case with the structure ``name``, and no other, as body outline."""
        self.structure(name)
        changed: list[Structure] = []
        for structure in self.structures:
            kind: StructureKind = structure.kind
            if structure.name == name:
                kind = "EXTERNAL"
            elif kind == "EXTERNAL":
                kind = "OTHER"
            changed.append(replace(structure, kind=kind))
        return replace(self, structures=tuple(changed))
