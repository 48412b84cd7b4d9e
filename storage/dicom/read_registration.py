"""Read how frames of reference lie to each other, from Spatial Registrations."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset

from engine.errors import DicomError
from engine.model.arrays import F64
from storage.dicom.sanity import of_other_patient
from storage.dicom.scan import Header, read_whole

RIGID_TOLERANCE = 1e-4
"""Directions of a rigid matrix may be off by this much through rounding (0.03 mm over 300 mm)."""
AGREE_MM = 0.1
"""Two registrations agree if they place every point within `AGREE_RADIUS_MM` within this distance."""
AGREE_RADIUS_MM = 300.0


@dataclass(frozen=True)
class Registrations:
    """What is known on how frames of reference lie to each other.

    Parameters
    ----------
    links
        Pairs of frames of reference with the matrix, shape (4, 4), that makes coordinates of the second out of
        coordinates of the first.
    notes
        What was not used, and why.
    """

    links: tuple[tuple[str, str, F64], ...] = ()
    notes: tuple[str, ...] = ()

    def matrix(self, source_uid: str, target_uid: str) -> F64 | None:
        """Return the matrix from one frame of reference to another, over others if need be; None if there is none.

        Raises
        ------
        DicomError
            If two registrations say different things about the same pair.
        """
        known: dict[str, F64] = {source_uid: np.eye(4)}
        fresh = [source_uid]
        while fresh:
            found: dict[str, F64] = {}
            for uid in fresh:
                for other_uid, matrix in self._from(uid):
                    if other_uid in known:
                        continue
                    candidate = matrix @ known[uid]
                    if other_uid in found and not _agree(found[other_uid], candidate):
                        raise DicomError(
                            "two registrations in the folder place the same images differently: take out the one that "
                            "is not to be used"
                        )
                    found.setdefault(other_uid, candidate)
            known |= found
            fresh = list(found)
        return known.get(target_uid)

    def _from(self, uid: str) -> list[tuple[str, F64]]:
        """Return all frames of reference that are linked to one, with matrices to them."""
        forward = [(target, matrix) for source, target, matrix in self.links if source == uid]
        return forward + [(source, inverse(matrix)) for source, target, matrix in self.links if target == uid]


def read_registrations(headers: Sequence[Header], ct: Header | None = None) -> Registrations:
    """Read Spatial Registrations (PS3.3 A.39).

    The Frame of Reference UID of the file is that of the registered coordinates. Every item of its Registration
    Sequence names another frame of reference, whose points its matrices turn into registered coordinates, the first
    matrix first (PS3.3 C.20.2.1). Only rigid ones are used: a scaled or sheared image is another patient. A file with
    another patient ID than ``ct`` is left out with a note.

    Raises
    ------
    DicomError
        If a file is damaged.
    """
    links: list[tuple[str, str, F64]] = []
    notes: list[str] = []
    for header in headers:
        if ct is not None and of_other_patient(ct, header):
            notes.append("left out a registration with another patient ID than the CT")
            continue
        dataset = read_whole(header, pixels=False)
        target_uid = header.text("FrameOfReferenceUID")
        try:
            items = [
                (str(item.get("FrameOfReferenceUID") or ""), _matrix(item, header))
                for item in dataset.get("RegistrationSequence") or []
            ]
        except DicomError:
            raise
        except Exception as error:  # pydicom raises many kinds on damaged sequences
            raise DicomError(
                f"the registration '{header.path.name}' cannot be understood ({type(error).__name__}: damaged?): "
                "export it again or take it out of the folder"
            ) from error
        for source_uid, matrix in items:
            if matrix is None:
                notes.append("left out a registration that is not rigid (scaled, sheared or of unknown type)")
            elif not source_uid or not target_uid:
                notes.append("left out a registration that does not name its frames of reference")
            elif source_uid != target_uid:
                links.append((source_uid, target_uid, matrix))
    return Registrations(tuple(links), tuple(notes))


def inverse(matrix: F64) -> F64:
    """Return the inverse of a matrix between coordinates."""
    inverted: F64 = np.linalg.inv(matrix).astype(np.float64)
    return inverted


def rotation_deg(matrix: F64) -> float:
    """Return the angle of a rigid matrix."""
    return float(np.degrees(np.arccos(np.clip(0.5 * (np.trace(matrix[:3, :3]) - 1.0), -1.0, 1.0))))


def _matrix(item: Dataset, header: Header) -> F64 | None:
    """Return the product of all matrices of an item; None if one is not rigid, or there is none."""
    product = np.eye(4)
    n_matrix = 0
    for registration in item.get("MatrixRegistrationSequence") or []:
        for part in registration.get("MatrixSequence") or []:
            value = part.get("FrameOfReferenceTransformationMatrix")
            try:
                matrix = np.array(value, dtype=np.float64).reshape(4, 4)
            except (TypeError, ValueError) as error:
                raise DicomError(
                    f"the registration '{header.path.name}' has a matrix that is not 4 × 4 numbers: export it again or "
                    "take it out of the folder"
                ) from error
            if str(part.get("FrameOfReferenceTransformationMatrixType") or "RIGID") != "RIGID":
                return None
            if not _is_rigid(matrix):
                return None
            product = matrix @ product
            n_matrix += 1
    return product if n_matrix else None


def _is_rigid(matrix: F64) -> bool:
    rotation = matrix[:3, :3]
    return bool(
        np.isfinite(matrix).all()
        and np.abs(matrix[3] - (0, 0, 0, 1)).max() <= RIGID_TOLERANCE
        and np.abs(rotation @ rotation.T - np.eye(3)).max() <= 2.0 * RIGID_TOLERANCE
        and np.linalg.det(rotation) > 0.0
    )


def _agree(one: F64, other: F64) -> bool:
    turned = np.linalg.norm((one - other)[:3, :3], 2) * AGREE_RADIUS_MM
    return bool(turned + np.linalg.norm((one - other)[:3, 3]) <= AGREE_MM)
