"""Whether workers see the planning process's store: files written here are seen there, and the other way."""

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import StoreError
from storage.store import MARKER, Store

if TYPE_CHECKING:
    from distributed import Client

_SEEN_S = 60.0
"""How late a file may be seen elsewhere: network file systems remember for a while what a folder held."""
_LOOK_S = 0.05
_KIND = "aside"
_LIMIT_S = 2.0 * _SEEN_S


@dataclass(frozen=True)
class Probed:
    """What a worker found out about the store.

    Parameters
    ----------
    there_s, back_s
        After how long it saw our file, and we saw its; None if that did not happen.
    trouble
        What is wrong, and what to do; empty if nothing is.
    """

    there_s: float | None
    back_s: float | None
    trouble: str


def probe_store(
    client: "Client", store: Store, workers: Sequence[str], advance: Callable[[], None]
) -> dict[str, Probed]:
    """Have every worker read what is written here, and read here what it writes; returns findings by address."""
    from cluster.preflight import do_on_each

    token = uuid.uuid4().hex
    ours = _path(store.folder, token)
    found = {}
    # Listed before anything is written, so that a file system which remembers folders has something to forget.
    list(ours.parent.iterdir())
    _publish(ours)
    try:
        done = do_on_each(client, workers, _probe_there, _LIMIT_S, advance, store.folder, token)
        for address, (told, _, trouble) in done.items():
            if trouble:
                found[address] = Probed(
                    None, None, f"could not look at the store: {trouble}; look at its log"
                )
            elif isinstance(told, str):
                found[address] = Probed(None, None, told)
            else:
                there_s, theirs = told
                back_s = _wait_for(theirs)
                late = (
                    f"writes to {store.folder}, but this process does not see it within {_SEEN_S:g} s; mount the same "
                    "folder on all nodes"
                )
                found[address] = Probed(there_s, back_s, "" if back_s is not None else late)
                theirs.unlink(missing_ok=True)
    finally:
        ours.unlink(missing_ok=True)
    return found


def _probe_there(folder: Path, token: str) -> tuple[float, Path] | str:
    """Run on a worker: see the planning process's file, and write one.

    Returns the delay and the file written, or what is wrong.
    """
    # Opening a store that is not there would make one.
    if not (folder / MARKER).is_file():
        return (
            f"does not see the store {folder}; put it on a file system that all nodes have at the same path, or "
            "give another one with --store"
        )
    there_s = _wait_for(_path(folder, token))
    if there_s is None:
        return (
            f"sees another store at {folder}: a file of this process does not come there within {_SEEN_S:g} s; "
            "mount the same folder on all nodes"
        )
    try:
        Store(folder).require_writable()
        theirs = _path(folder, uuid.uuid4().hex)
        _publish(theirs)
    except (StoreError, OSError) as error:
        return f"cannot write to the store: {error}"
    return there_s, theirs


def _path(folder: Path, token: str) -> Path:
    return folder / _KIND / f"{token}.probe"


def _publish(path: Path) -> None:
    aside = path.with_suffix(".half")
    aside.write_bytes(bytes(4096))
    aside.replace(path)


def _wait_for(path: Path) -> float | None:
    begin_s = time.monotonic()
    while time.monotonic() < begin_s + _SEEN_S:
        # A name that was not there may be remembered as absent; a listing asks again sooner.
        if path.is_file() or path in list(path.parent.iterdir()):
            return time.monotonic() - begin_s
        time.sleep(_LOOK_S)
    return None
