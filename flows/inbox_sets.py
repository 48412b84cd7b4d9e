"""What lies in an inbox: sets of DICOM files, and the protocol that each is planned by."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import Field, field_validator

from engine.errors import DicomError, StudyError
from engine.spec.base import Spec
from engine.spec.reading import read_spec
from storage.dicom.scan import read_header
from storage.digest import digest_of

SPEC = "inbox.toml"
LOOSE = "."


class InboxRule(Spec):
    """Which sets are planned by which protocol."""

    match: str = Field(
        min_length=1,
        max_length=200,
        description="folders that hold a set each, relative to the inbox, such as 'prostate-*' or 'prostate/*'; "
        "'.' for files that lie loose in the inbox, which are told apart by their study",
    )
    protocol: Path = Field(
        description="study file with case.imported, in whose place the set comes; relative to inbox.toml"
    )

    @field_validator("match")
    @classmethod
    def _inside(cls, match: str) -> str:
        if match.startswith("/") or ".." in match.split("/") or "**" in match:
            raise ValueError("is relative to the inbox, and has neither .. nor ** in it")
        return match


class InboxSpec(Spec):
    """The file ``inbox.toml`` in an inbox."""

    keys_command: ClassVar[str] = "docs/schedules.md"

    settle_s: float = Field(
        60.0,
        ge=0.0,
        le=86400.0,
        description="how long nothing may change in a set until it counts as complete",
    )
    sets: tuple[InboxRule, ...] = Field(min_length=1, description="the first rule that fits a set counts")


@dataclass(frozen=True)
class InboxSet:
    """Files that belong together.

    Parameters
    ----------
    name
        Its folder relative to the inbox, or what loose files are called.
    files
        The files, sorted.
    protocol
        Study file that it is planned by; None if no rule fits.
    listing
        Digest of paths, sizes and times of the files: another one means that something has changed.
    """

    name: str
    files: tuple[Path, ...]
    protocol: Path | None
    listing: str


def read_inbox(inbox: Path) -> InboxSpec:
    """Read ``inbox.toml``.

    Raises
    ------
    StudyError
        If it cannot be read or does not describe an inbox, or a protocol is not there.
    """
    spec = read_spec(inbox / SPEC, InboxSpec, "an inbox")
    for number, rule in enumerate(spec.sets):
        if not (inbox / rule.protocol).is_file():
            raise StudyError(
                f"{SPEC}: sets[{number}].protocol: there is no file {inbox / rule.protocol}; give the study file "
                "relative to the inbox"
            )
    return spec


def find_sets(inbox: Path, spec: InboxSpec) -> list[InboxSet]:
    """Return all sets in an inbox, and whatever else lies in it as sets without a protocol, by name."""
    sets: dict[str, InboxSet] = {}
    taken: set[Path] = set()
    for rule in spec.sets:
        if rule.match == LOOSE:
            continue
        for folder in sorted(inbox.glob(rule.match)):
            name = folder.relative_to(inbox).as_posix()
            files = (
                set(_files(folder)) - taken if folder.is_dir() and not _is_hidden(folder, inbox) else set()
            )
            if files and name not in sets:
                sets[name] = _as_set(inbox, name, files, inbox / rule.protocol)
                taken |= files
    left: dict[str, set[Path]] = defaultdict(set)
    loose: set[Path] = set()
    for path in _files(inbox):
        if path in taken or path == inbox / SPEC or _is_hidden(path, inbox):
            continue
        if path.parent == inbox:
            loose.add(path)
        else:
            left[path.relative_to(inbox).parts[0]].add(path)
    protocols = {inbox / rule.protocol for rule in spec.sets}
    by_study = _by_study(loose - protocols)
    of_loose = next((inbox / rule.protocol for rule in spec.sets if rule.match == LOOSE), None)
    for study, files in by_study.items():
        name = f"loose-{digest_of(study)[:8]}" if study else "loose files without a study"
        sets[name] = _as_set(inbox, name, files, of_loose if study else None)
    for name, files in left.items():
        if files - protocols:
            sets[name] = _as_set(inbox, name, files - protocols, None)
    return [sets[name] for name in sorted(sets)]


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _is_hidden(path: Path, inbox: Path) -> bool:
    return path.relative_to(inbox).parts[0].startswith(".")


def _as_set(inbox: Path, name: str, files: set[Path], protocol: Path | None) -> InboxSet:
    ordered = tuple(sorted(files))
    entries: list[tuple[str, int, int]] = []
    for path in ordered:
        try:
            status = path.stat()
        except FileNotFoundError:  # taken away meanwhile; it will be seen as a change
            continue
        entries.append((path.relative_to(inbox).as_posix(), status.st_size, status.st_mtime_ns))
    return InboxSet(name, ordered, protocol, digest_of({"inbox": str(inbox), "files": entries}))


def _by_study(files: set[Path]) -> dict[str, set[Path]]:
    """Return files by study; those that are not DICOM, or not yet, under an empty name."""
    found: dict[str, set[Path]] = defaultdict(set)
    for path in files:
        try:
            header = read_header(path)
            study = header.text("StudyInstanceUID") if header is not None else ""
        except (DicomError, OSError):
            study = ""
        found[study].add(path)
    return found
