"""Unique identifiers made from content, and the references between files."""

import hashlib
import json
from dataclasses import dataclass

from pydicom.uid import generate_uid

from engine.model.case import Case


@dataclass(frozen=True)
class CtReference:
    """What other files need to refer to a CT series.

    Parameters
    ----------
    study_uid, series_uid, frame_of_reference_uid
        Identifiers of the study, the series and the coordinates (the last may be empty in a file from outside).
    instance_uids
        SOP Instance UIDs of the slices from feet to head (increasing z).
    """

    study_uid: str
    series_uid: str
    frame_of_reference_uid: str
    instance_uids: tuple[str, ...]


@dataclass(frozen=True)
class InstanceReference:
    """What other files need to refer to one file: its SOP Class UID and SOP Instance UID."""

    sop_class_uid: str
    sop_instance_uid: str


def content_uid(*parts: str) -> str:
    """Return an identifier that depends on ``parts`` only, so that equal content has equal identifiers."""
    return str(generate_uid(entropy_srcs=list(parts)))


def case_digest(case: Case) -> str:
    """Return a digest of everything in a case that its CT files hold."""
    content = hashlib.sha256(
        json.dumps(
            [case.name, case.patient_position, case.frame_of_reference_uid, case.grid.as_dict()]
        ).encode()
    )
    content.update(case.ct_hu.astype("<f4").tobytes())
    return content.hexdigest()


def structures_digest(case: Case) -> str:
    """Return a digest of the structures' names, kinds and contours."""
    content = hashlib.sha256()
    for structure in case.structures:
        content.update(json.dumps([structure.name, structure.kind, len(structure.contours)]).encode())
        for contour in structure.contours:
            content.update(json.dumps([contour.z_mm, len(contour.points_mm_xy)]).encode())
            content.update(contour.points_mm_xy.astype("<f8").tobytes())
    return content.hexdigest()
