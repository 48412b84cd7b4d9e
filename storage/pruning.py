"""Deleting what was not used for long: never what a live run needs, and by default nothing that has to be imported."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from storage import lease
from storage.maintenance import (
    LEFTOVERS,
    LOGS,
    MARGIN_S,
    StoredFile,
    list_folder,
    list_objects,
    n_byte_of_store,
    time_of_store_s,
)
from storage.places.place import clear_errors
from storage.store import Store


@dataclass(frozen=True)
class Pruning:
    """What is to go, or has gone.

    Parameters
    ----------
    files
        Files to delete, those unused for longest first.
    n_byte_left
        Size of the store, everything in it, without them.
    n_held
        Files that would go as well if no run were live.
    """

    files: tuple[StoredFile, ...]
    n_byte_left: int
    n_held: int


def choose(
    store: Store, older_than_s: float | None, to_byte: float | None, spared: Collection[str]
) -> Pruning:
    """Choose what to delete: all that was not used for so long, then the longest unused until the store is small.

    Parameters
    ----------
    store
        The store.
    older_than_s
        Age, since the last use, above which everything goes; None for no such limit.
    to_byte
        Size of the store to come down to; None for no such limit.
    spared
        Kinds of objects that stay.

    Raises
    ------
    StoreError
        If the store cannot be read.
    """
    held_since_s = lease.live_since(store.address)
    now_s = time_of_store_s(store)
    candidates = [file for file in list_objects(store) if file.kind not in spared]
    for folder in LEFTOVERS:
        candidates += list_folder(store, folder)
    candidates.sort(key=lambda file: (file.used_s, file.key))
    n_byte = n_byte_of_store(store)
    chosen: list[StoredFile] = []
    n_held = 0
    for file in candidates:
        too_old = older_than_s is not None and now_s - file.used_s > older_than_s
        too_much = to_byte is not None and n_byte > to_byte
        if not (too_old or too_much):
            continue
        if _is_held(file, held_since_s):
            n_held += 1
            continue
        chosen.append(file)
        n_byte -= file.n_byte
    return Pruning(tuple(chosen), n_byte, n_held)


def delete(store: Store, files: Sequence[StoredFile]) -> list[StoredFile]:
    """Delete files that `choose` chose, except those that were used since; return what is gone.

    A run that looked an object up just before may miss it when it reads it; it makes it again then.

    Raises
    ------
    StoreError
        If the store cannot be written.
    """
    held_since_s = lease.live_since(store.address)
    gone = []
    with clear_errors(store.address, "write"):
        for file in files:
            # A run may have begun since they were chosen: it notes what it finds, but logs only when it goes on.
            if _is_held(file, held_since_s):
                continue
            if store.place.delete_unused_since(file.placed):
                gone.append(file)
    return gone


def _is_held(file: StoredFile, held_since_s: float | None) -> bool:
    """Return whether a live run may use a file: it has since it began, or it may go on with the log of a solve."""
    if held_since_s is None:
        return False
    return file.kind == LOGS or file.used_s >= held_since_s - MARGIN_S
