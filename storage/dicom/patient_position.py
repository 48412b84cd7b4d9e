"""Check the patient position against the orientation of the pictures."""

import numpy as np

from engine.errors import DicomError
from engine.model.case import PatientPosition
from storage.dicom.planes import Plane

SUPINE_HEAD_FIRST_VIEW = (1, 1)
GANTRY_VIEWS: dict[PatientPosition, tuple[int, int]] = {
    "HFS": (1, 1),
    "HFP": (-1, -1),
    "FFS": (-1, 1),
    "FFP": (1, -1),
}
"""Signs of x along rows and of y along columns when an image is seen from the foot end of the couch (PS3.3
C.7.3.1.1.2: the picture is that of the gantry, the coordinates are those of the patient)."""
NEARLY_AXIAL = np.cos(np.radians(45.0))


def patient_position(plane: Plane) -> tuple[PatientPosition, tuple[str, ...]]:
    """Return the patient position, after checking it against the orientation of the picture.

    Pictures come as the gantry sees them, or turned so that the patient's left is always on the right. Anything else
    means that somebody entered a position which is not the one that the coordinates were made for, so left and right
    cannot be trusted. Pictures that are further than 45° from axial were reformatted, and say nothing about it.

    Raises
    ------
    DicomError
        If it contradicts the picture, is not known, or is absent where left and right cannot be told without it.
    """
    header, cosines = plane.header, plane.cosines
    view: tuple[int, int] | None = (int(np.sign(cosines[0])), int(np.sign(cosines[4])))
    if min(abs(cosines[0]), abs(cosines[4])) < NEARLY_AXIAL:
        view = None
    name = header.text("PatientPosition")
    if not name:
        if view != SUPINE_HEAD_FIRST_VIEW:
            raise DicomError(
                f"'{header.path.name}' has no PatientPosition and an unusual orientation (left and right cannot be "
                "told): enter the patient position"
            )
        return "HFS", ("the CT does not say the patient position; head first supine (HFS) was assumed",)
    for position, gantry_view in GANTRY_VIEWS.items():
        if name == position:
            if view not in (gantry_view, SUPINE_HEAD_FIRST_VIEW, None):
                raise DicomError(
                    f"'{header.path.name}' has PatientPosition {name} but an orientation that contradicts it "
                    "(left and right cannot be trusted): correct the patient position at its source"
                )
            return position, ()
    raise DicomError(
        f"'{header.path.name}' has PatientPosition '{name}' (known are {', '.join(GANTRY_VIEWS)}; the angles of beams "
        "have no meaning in others): patients on their side, sitting or standing are not supported"
    )
