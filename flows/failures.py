"""How errors are told: the sentence that the command line prints, and that a progress file and a batch repeat."""

import re

from engine.errors import CaseError, DicomError, NightbeamError, VolumeError, printable, reason_and_remedy

LONGEST_MESSAGE = 2000


def in_words(error: BaseException) -> str | None:
    """Return what to tell of an error; None if it is a mistake of the program, which is told as a traceback.

    Names in messages come from files, and files from anywhere, so what no terminal should get is left out.
    """
    if isinstance(error, NightbeamError):
        text = str(error)
        if isinstance(error, CaseError | DicomError | VolumeError):
            # Lists in our messages are indented; any other line end is part of a name.
            text = re.sub(r"\n(?!  )", "?", text)
        return printable(text, newlines=True)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else "cannot read or write: "
        text = printable(f"{where}{reason_and_remedy(error)}")
        return text if len(text) <= LONGEST_MESSAGE else f"{text[:LONGEST_MESSAGE]} …"
    if isinstance(error, MemoryError):
        return "not enough memory; use a coarser dose grid or fewer scenarios"
    behind = deliberate(error)
    return None if behind is error else in_words(behind)


def deliberate(error: BaseException) -> BaseException:
    """Return the deliberate error that was being handled when another came up; else that other one.

    Prefect notes an error in its database, and on a full disk fails at that itself.
    """
    if isinstance(error, NightbeamError | OSError | MemoryError):
        return error
    behind = error.__cause__ or error.__context__
    while behind is not None and not isinstance(behind, NightbeamError):
        behind = behind.__cause__ or behind.__context__
    return behind or error
