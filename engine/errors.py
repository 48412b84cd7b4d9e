"""Every error that nightbeam raises on purpose. Messages say what, why it is wrong, and what to do."""


class NightbeamError(Exception):
    """The root of all deliberate errors; the command line prints it without a traceback."""


class CaseError(NightbeamError, ValueError):
    """A patient, phantom, image or structure that cannot be used."""


class DicomError(NightbeamError, ValueError):
    """A DICOM file or series that is damaged, incomplete or not supported."""


class StudyError(NightbeamError, ValueError):
    """A study file that does not say what is needed, or says what cannot be."""


class DoseError(NightbeamError, ValueError):
    """A dose calculation outside of what its engine can do."""


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


class ClusterError(NightbeamError, RuntimeError):
    """Workers that cannot be started, were lost too often, or differ from each other."""
