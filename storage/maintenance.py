"""Looking after a store: what lies in it, whether it is whole, and what to put out of the way."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from engine.errors import DamagedObjectError, MissingObjectError, StoreError
from storage import lease, lease_files, log_files
from storage.places.place import ASIDE, CLUSTERS, DAMAGED, PlacedFile, clear_errors
from storage.store import ARRAYS_SUFFIX, RECORD_SUFFIX, Store, arrays_key

LOGS, LEASES, PREFECT = log_files.FOLDER, lease_files.FOLDER, "prefect"
LEFTOVERS = (ASIDE, DAMAGED, LOGS)
"""Folders of files that are no results, and of use for a while only."""
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
    placed
        Its key, its size, and when it was last used by the clock of the place.
    """

    kind: str
    name: str
    placed: PlacedFile

    @property
    def key(self) -> str:
        """Return its path inside the store."""
        return self.placed.key

    @property
    def n_byte(self) -> int:
        """Return its size."""
        return self.placed.n_byte

    @property
    def used_s(self) -> float:
        """Return when it was last used."""
        return self.placed.used_s


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
    with clear_errors(store.address, "read"):
        return [
            file
            for kind in store.place.folders()
            if kind not in NO_KINDS and not kind.startswith(".")
            for file in sorted(_files(store, kind), key=lambda file: file.name)
            if _is_object(file)
        ]


def list_folder(store: Store, folder: str) -> list[StoredFile]:
    """Return all files in one of the folders that hold no objects, or in any other.

    Raises
    ------
    StoreError
        If the store cannot be read.
    """
    with clear_errors(store.address, "read"):
        return list(_files(store, folder))


def n_byte_of_store(store: Store) -> int:
    """Return the size of all files in the store, but for those that live runs share with their jobs.

    Raises
    ------
    StoreError
        If the store cannot be read.
    """
    with clear_errors(store.address, "read"):
        return sum(file.n_byte for file in store.place.files(""))


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
    since_s = lease.live_since(store.address)
    left = [file for file in list_folder(store, ASIDE) if since_s is None or file.used_s < since_s - MARGIN_S]
    with clear_errors(store.address, "write"):
        store.place.delete(file.key for file in left)
    return left


def time_of_store_s(store: Store) -> float:
    """Return the present time by the clock that the store's files have.

    Raises
    ------
    StoreError
        If the store cannot be written.
    """
    with clear_errors(store.address, "write"):
        return store.place.time_s()


def _look_at(store: Store, file: StoredFile) -> Finding | None:
    try:
        if file.key.endswith(ARRAYS_SUFFIX):
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


def _is_object(file: StoredFile) -> bool:
    if file.key.endswith(ARRAYS_SUFFIX):
        return file.key == arrays_key(file.kind, file.name)
    return file.key.endswith(RECORD_SUFFIX) and file.key.rpartition("/")[0] == file.kind


def _files(store: Store, folder: str) -> Iterator[StoredFile]:
    for placed in store.place.files(folder):
        name = placed.key.rpartition("/")[2].removesuffix(ARRAYS_SUFFIX).removesuffix(RECORD_SUFFIX)
        yield StoredFile(folder, name, placed)
