"""Every error that nightbeam raises on purpose. Messages say what, why it is wrong, and what to do."""

import errno
import unicodedata


class NightbeamError(Exception):
    """The root of all deliberate errors; the command line prints it without a traceback."""


class CaseError(NightbeamError, ValueError):
    """A patient, phantom, image or structure that cannot be used."""


class DicomError(NightbeamError, ValueError):
    """A DICOM file or series that is damaged, incomplete or not supported."""


class VolumeError(NightbeamError, ValueError):
    """A file of voxels (npz, NRRD, NIfTI, MetaImage) that is damaged, contradicts itself, or holds no CT numbers."""


class StudyError(NightbeamError, ValueError):
    """A study file that does not say what is needed, or says what cannot be."""


class TemplateError(StudyError):
    """A template that does not fit its study, or what it adds and ``key`` do not fit; ``key`` is what is wrong."""

    def __init__(self, key: str, why: str) -> None:
        super().__init__(key, why)
        self.key, self.why = key, why

    def __str__(self) -> str:
        return f"{self.key}: {self.why}"


class DoseError(NightbeamError, ValueError):
    """A dose calculation outside of what its engine can do."""


class ExperimentError(NightbeamError, ValueError):
    """Something in an experiment that cannot be, or that its engine cannot do; ``key`` is where the file says it."""

    def __init__(self, key: tuple[str | int, ...], why: str) -> None:
        super().__init__(key, why)
        self.key, self.why = key, why

    def __str__(self) -> str:
        name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.key)
        return f"{name.lstrip('.')}: {self.why}"


class OptimisationError(NightbeamError, ValueError):
    """An optimisation problem that has no meaning."""


class StoreError(NightbeamError, OSError):
    """A result store that cannot be read or written."""


class DamagedObjectError(StoreError):
    """A stored result whose checksum or content is wrong; it is recomputed, never used."""

    def __init__(self, kind: str, digest: str, why: str) -> None:
        super().__init__(kind, digest, why)
        self.kind, self.digest, self.why = kind, digest, why

    def __str__(self) -> str:
        return f"stored {self.kind} {self.digest} is damaged ({self.why}); it has to be made again"


class MissingObjectError(DamagedObjectError):
    """A stored result that is not there: it was deleted, pruned, or never made."""

    def __init__(self, kind: str, digest: str, why: str = "it was deleted, or never made") -> None:
        super().__init__(kind, digest, why)

    def __str__(self) -> str:
        return f"stored {self.kind} {self.digest} is missing ({self.why}); it has to be made again"


class StaleLogError(StoreError):
    """A log of a half-finished solve that another program or processor wrote; the solve begins from the start."""


class LeaseLostError(StoreError):
    """A lease that another process took over, because its holder was stopped for too long."""


class ClusterError(NightbeamError, RuntimeError):
    """Workers that cannot be started, were lost too often, or differ from each other."""


class SchedulerLostError(ClusterError):
    """The scheduler is gone, and all it knew; with another one the work can go on from what is in the store."""


class SlurmAwayError(ClusterError):
    """SLURM does not answer, or not now: it may a little later."""


class NoSlurmError(ClusterError):
    """There are no commands of SLURM on this machine."""


_FREE_SPACE = "free some space and give the same command again, finished results are kept"
_REASONS = {
    errno.ENOSPC: f"the disk is full; {_FREE_SPACE}",
    errno.EDQUOT: f"the disk quota is used up; {_FREE_SPACE}",
    errno.EFBIG: "a file would be larger than the system allows; raise its limit (ulimit -f) and start again",
    errno.EACCES: "permission denied; check the owner and mode of the folder",
    errno.EPERM: "the system does not permit it; check the owner and mode of the folder, and its file system",
    errno.EROFS: "the file system is read-only; give another folder, or have it mounted for writing",
    errno.ENOTDIR: "a part of the path is a file; give another folder",
    errno.EEXIST: "a part of the path is a file; give another folder",
    errno.EIO: "the disk or its server reports an I/O error; look for its cause in the system's log, then start again",
    errno.ESTALE: "the file server has lost the file; see whether it is well, then start again",
    errno.EMFILE: "too many open files; raise the limit (ulimit -n), or use fewer workers, and start again",
    errno.ENFILE: "too many open files on this machine; end other programs, or use fewer workers, and start again",
    errno.ENOMEM: "the system has no memory left; use fewer workers, and start again",
}


def reason_and_remedy(error: OSError) -> str:
    """Return what the operating system complains of, and what to do about it, as half a sentence."""
    return _REASONS.get(error.errno or 0, f"{error}; check path, permissions and disk")


LONGEST_SHOWN = 120
"""Characters of a name or value from a file that a message shows."""


def printable(text: str, newlines: bool = False) -> str:
    """Return text that came from a file so that a terminal, a log and a report can show it on one line.

    Control characters (among them the escapes that rewrite a terminal), characters that turn the writing direction,
    and what is no character at all are shown as ``?``.

    Parameters
    ----------
    text
        Anything.
    newlines
        Whether line ends stay.
    """
    return "".join(
        c if c.isprintable() or (newlines and c == "\n") or unicodedata.category(c) == "Zs" else "?"
        for c in text
    )


def shortened(text: str) -> str:
    """Return `printable` text cut to what a message can hold."""
    shown = printable(text)
    return shown if len(shown) <= LONGEST_SHOWN else f"{shown[: LONGEST_SHOWN - 1]}…"
