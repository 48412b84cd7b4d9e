"""Cases at rest: CT, structures and second images in bricks, with contours."""

from dataclasses import asdict
from typing import Any

import numpy as np

from engine.model.case import Case, Contour, SecondImage, Structure
from engine.model.grid import Grid
from storage.dicom.uids import CtReference
from storage.digest import digest_of, digest_of_array
from storage.store import Store

KIND = "case"
REFERENCE = "case_reference"
_BRICK = 32


def case_digest(case: Case) -> str:
    """Return the digest of everything in a case that a plan can depend on, and of its second images."""
    content: dict[str, Any] = {
        "grid": case.grid.as_dict(),
        "ct_hu": digest_of_array(case.ct_hu),
        "position": case.patient_position,
        "frame_of_reference_uid": case.frame_of_reference_uid,
        "structures": [[s.name, s.kind, digest_of_array(s.coverage)] for s in case.structures],
    }
    if case.images:
        content["images"] = [[i.name, i.modality, i.unit, digest_of_array(i.values)] for i in case.images]
    return digest_of(content)


def write_case(store: Store, case: Case, provenance: dict[str, Any]) -> str:
    """Publish a case and return its digest."""
    digest = case_digest(case)
    if store.has_arrays(KIND, digest):
        return digest
    bricks = tuple(min(_BRICK, n) for n in case.grid.shape_zyx)
    arrays: dict[str, Any] = {"ct_hu": case.ct_hu}
    chunks: dict[str, tuple[int, ...]] = {"ct_hu": bricks}
    for number, structure in enumerate(case.structures):
        arrays[f"coverage_{number}"] = structure.coverage
        chunks[f"coverage_{number}"] = bricks
        contours = structure.contours
        arrays[f"contour_z_mm_{number}"] = np.array([c.z_mm for c in contours], dtype=np.float64)
        arrays[f"contour_size_{number}"] = np.array([len(c.points_mm_xy) for c in contours], dtype=np.int64)
        arrays[f"contour_points_mm_{number}"] = np.concatenate(
            [np.empty((0, 2)), *(c.points_mm_xy for c in contours)]
        )
    for number, image in enumerate(case.images):
        arrays[f"image_{number}"] = image.values
        chunks[f"image_{number}"] = bricks
    attributes = {
        "name": case.name,
        "grid": case.grid.as_dict(),
        "patient_position": case.patient_position,
        "frame_of_reference_uid": case.frame_of_reference_uid,
        "notes": list(case.notes),
        "structures": [[s.name, s.kind] for s in case.structures],
        "images": [[i.name, i.modality, i.unit, list(i.notes)] for i in case.images],
        "provenance": provenance,
    }
    store.write_arrays(KIND, digest, arrays, attributes, chunks)
    return digest


def read_case(store: Store, digest: str, images: bool = False) -> Case:
    """Return a case, with its second images only if ``images``: planning does not need them, and they are large.

    Raises
    ------
    DamagedObjectError
        If a checksum is wrong.
    """
    with store.open_arrays(KIND, digest) as (stored, attributes):
        wanted = [name for name in stored if images or not name.startswith("image_")]
        arrays = {name: stored[name][...] for name in wanted}
    structures = []
    for number, (name, kind) in enumerate(attributes["structures"]):
        ends = np.cumsum(arrays[f"contour_size_{number}"])[:-1]
        polygons = np.split(arrays[f"contour_points_mm_{number}"], ends)
        contours = tuple(
            Contour(float(z_mm), polygon)
            for z_mm, polygon in zip(arrays[f"contour_z_mm_{number}"], polygons, strict=False)
        )
        structures.append(Structure(name, kind, arrays[f"coverage_{number}"], contours))
    return Case(
        attributes["name"],
        Grid.from_dict(attributes["grid"]),
        arrays["ct_hu"],
        tuple(structures),
        attributes["patient_position"],
        attributes["frame_of_reference_uid"],
        tuple(attributes["notes"]),
        tuple(
            SecondImage(name, modality, unit, arrays[f"image_{number}"], tuple(notes))
            for number, (name, modality, unit, notes) in enumerate(
                attributes.get("images", ()) if images else ()
            )
        ),
    )


def stored_name(store: Store, digest: str) -> str:
    """Return the name under which a case was stored; a study may call it otherwise."""
    with store.open_arrays(KIND, digest) as (_, attributes):
        return str(attributes["name"])


def structure_names(store: Store, digest: str) -> set[str]:
    """Return the names of a case's structures."""
    return {name for name, _ in store.read_arrays(KIND, digest, ())[1]["structures"]}


def write_reference(store: Store, digest: str, reference: CtReference) -> None:
    """Keep the DICOM identifiers that files made from a case refer to."""
    store.write_record(REFERENCE, digest, asdict(reference))


def read_reference(store: Store, digest: str) -> CtReference:
    """Return the DICOM identifiers of a case's CT."""
    values = store.read_record(REFERENCE, digest)
    return CtReference(**{**values, "instance_uids": tuple(values["instance_uids"])})
