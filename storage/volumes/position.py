"""The patient position of a file of voxels: it is rarely in there, and beams come from elsewhere if it is wrong."""

from typing import cast, get_args

from engine.errors import VolumeError, shortened
from engine.model.case import PatientPosition

POSITIONS: tuple[str, ...] = get_args(PatientPosition)


def position_of(
    stated: object, given: PatientPosition | None, file_name: str
) -> tuple[PatientPosition, tuple[str, ...]]:
    """Return the patient position from what the file states and the user gives, and notes.

    Parameters
    ----------
    stated
        What the file says, such as ``HFS`` or ``HFS assumed``; None if nothing.
    given
        What the user says; None if nothing.
    file_name
        For messages.

    Raises
    ------
    VolumeError
        If neither says it, both contradict, or the file's word is unknown.
    """
    if stated is None:
        if given is None:
            raise VolumeError(
                f"'{file_name}' does not say how the patient lies: give --position, one of {', '.join(POSITIONS)}; "
                "beams would come from elsewhere if it were guessed"
            )
        return given, (f"the patient position {given} is not in the file; it was given with the import",)
    word, _, rest = str(stated).strip().partition(" ")
    if word not in POSITIONS:
        raise VolumeError(
            f"'{file_name}' states the patient position '{shortened(str(stated))}' (known are {', '.join(POSITIONS)})"
        )
    if given is not None and given != word:
        raise VolumeError(
            f"'{file_name}' states the patient position {word}, --position says {given}: leave the option out, or mend "
            "the file"
        )
    notes = (f"the file states the patient position as '{shortened(str(stated))}'",) if rest else ()
    return cast(PatientPosition, word), notes
