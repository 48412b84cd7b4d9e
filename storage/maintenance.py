"""Looking after a store: what lies in it, whether it is whole, and what to put out of the way."""

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from engine.errors import DamagedObjectError, MissingObjectError, StoreError
from storage import evaluation_log, lease
from storage.store import ARRAYS_SUFFIX, ASIDE, DAMAGED, RECORD_SUFFIX, Store, clear_errors

LOGS, LEASES, PREFECT = evaluation_log.FOLDER, lease.FOLDER, "prefect"
LEFTOVERS = (ASIDE, DAMAGED, LOGS)
"""Folders of files that are no results, and of use for a while only."""
CLUSTERS = "clusters"
"""Folder of what runs on a cluster of jobs share with their jobs, while they last."""
NO_KINDS = (*LEFTOVERS, LEASES, PREFECT, CLUSTERS)
"""Folders that hold no objects."""
_N_THREAD = 4
"""Readers of `check`: more gain nothing on a local disk; one alone waits for the disk most of the time."""
MARGIN_S = 60.0
"""How much older than the oldest live run a file must be, to be surely none that it uses."""


@dataclass(frozen=True)
class StoredFile:
    """A file in the store.

    Parameters
    ----------
    kind
        Kind of the object, or folder of what is no object.
    name
        Digest or name of the object, or name of the file.
    path
        Where it lies.
    n_byte
        Its size.
    used_s
        When it was last used, by the clock of its file system.
    """

    kind: str
    name: str
    path: Path
    n_byte: int
    used_s: float


@dataclass(frozen=True)
class Finding:
    """An object that is not as it was written, or that could not be read; then nothing is known about it."""

    file: StoredFile
    why: str
    is_damaged: bool


def list_objects(store: Store) -> list[StoredFile]:
    """Return all objects, by kind and name.

    Raises
    ------
    StoreError
        If the store cannot be read.
    """
    with clear_errors(store.folder, "read"):
        kinds = sorted(entry.name for entry in os.scandir(store.folder) if entry.is_dir())
        return [
            file
            for kind in kinds
            if kind not in NO_KINDS and not kind.startswith(".")
            for file in sorted(_files(store.folder / kind, kind), key=lambda file: file.name)
            if _is_object(store, file)
        ]


def list_folder(store: Store, folder: str) -> list[StoredFile]:
    """Return all files in one of the folders that hold no objects, or in any other.

    Raises
    ------
    StoreError
        If the store cannot be read.
    """
    with clear_errors(store.folder, "read"):
        return list(_files(store.folder / folder, folder))


def n_byte_of_store(store: Store) -> int:
    """Return the size of all files in the store, whatever they are.

    Raises
    ------
    StoreError
        If the store cannot be read.
    """
    with clear_errors(store.folder, "read"):
        return sum(file.n_byte for file in _files(store.folder, ""))


def check(
    store: Store, files: Sequence[StoredFile], on_done: Callable[[], None] = lambda: None
) -> list[Finding]:
    """Read objects completely, compare all their checksums, and return those that are not whole.

    Parameters
    ----------
    store
        The store.
    files
        Objects, from `list_objects`; what is no longer there is passed over.
    on_done
        Called for every object.
    """
    findings = []
    with ThreadPoolExecutor(_N_THREAD) as readers:
        try:
            for finding in readers.map(lambda file: _look_at(store, file), files):
                if finding is not None:
                    findings.append(finding)
                on_done()
        finally:
            # After Ctrl-C: what waits is not begun.
            readers.shutdown(cancel_futures=True)
    return findings


def put_away(store: Store, findings: Iterable[Finding]) -> list[Finding]:
    """Put damaged objects out of the way, and return those that were: some may be whole again by now.

    Raises
    ------
    StoreError
        If the store cannot be written.
    """
    done = []
    for finding in findings:
        now = _look_at(store, finding.file)
        if now is not None and now.is_damaged:
            store.discard(finding.file.kind, finding.file.name)
            done.append(now)
    return done


def clear_aside(store: Store) -> list[StoredFile]:
    """Delete what killed writers left half written, nothing that a live run may be writing; return what it was.

    Raises
    ------
    StoreError
        If the store cannot be written.
    """
    since_s = lease.live_since(store.folder)
    left = [file for file in list_folder(store, ASIDE) if since_s is None or file.used_s < since_s - MARGIN_S]
    with clear_errors(store.folder, "write"):
        for file in left:
            file.path.unlink(missing_ok=True)
    return left


def file_system_time_s(store: Store) -> float:
    """Return the present time by the clock that the store's files have.

    Raises
    ------
    StoreError
        If the store cannot be written.
    """
    with clear_errors(store.folder, "write"), tempfile.TemporaryFile(dir=store.folder / ASIDE) as stream:
        return os.fstat(stream.fileno()).st_mtime


def _look_at(store: Store, file: StoredFile) -> Finding | None:
    try:
        if file.path.name.endswith(ARRAYS_SUFFIX):
            store.verify_arrays(file.kind, file.name)
        else:
            store.read_record(file.kind, file.name)
    except MissingObjectError:
        return None
    except DamagedObjectError as error:
        return Finding(file, error.why, True)
    except StoreError as error:
        return Finding(file, str(error), False)
    return None


def _is_object(store: Store, file: StoredFile) -> bool:
    if file.path.name.endswith(ARRAYS_SUFFIX):
        return file.path == store.arrays_path(file.kind, file.name)
    return file.path.suffix == RECORD_SUFFIX and file.path.parent == store.folder / file.kind


def _files(folder: Path, kind: str) -> Iterator[StoredFile]:
    """Yield all files in a folder and those below it; files that vanish meanwhile are left out."""
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                # Some file servers show earlier states of a folder in a hidden one.
                if not entry.name.startswith("."):
                    yield from _files(Path(entry.path), kind)
                continue
            with suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                name = entry.name.removesuffix(ARRAYS_SUFFIX).removesuffix(RECORD_SUFFIX)
                yield StoredFile(kind, name, Path(entry.path), status.st_size, status.st_mtime)
