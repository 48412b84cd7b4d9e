"""Whether workers see the planning process's store: files written here are seen there, and the other way."""

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import StoreError
from storage.places.address import Address
from storage.places.opening import place_at
from storage.places.place import ASIDE, Place, clear_errors
from storage.store import MARKER, Store

if TYPE_CHECKING:
    from distributed import Client

_SEEN_S = 60.0
"""How late a file may be seen elsewhere: network file systems remember for a while what a folder held."""
_LOOK_S = 0.1
_LIMIT_S = 2.0 * _SEEN_S
_N_BYTE = 4096


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

    place, token = store.place, uuid.uuid4().hex
    found: dict[str, Probed] = {}
    wrote: dict[str, tuple[float, str]] = {}
    # Listed before anything is written, so that a file system which remembers folders has something to forget.
    list(place.files(ASIDE))
    place.publish(_key(token), bytes(_N_BYTE))
    try:
        done = do_on_each(client, workers, _probe_there, _LIMIT_S, advance, store.address, token)
        for address, (told, _, trouble) in done.items():
            if trouble:
                found[address] = Probed(
                    None, None, f"could not look at the store: {trouble}; look at its log"
                )
            elif isinstance(told, str):
                found[address] = Probed(None, None, told)
            else:
                wrote[address] = told
        late = (
            f"writes to {store.address}, but this process does not see it within {_SEEN_S:g} s; "
            f"{_remedy(store.address)}"
        )
        seen = _wait_for(place, [theirs for _, theirs in wrote.values()])
        for address, (there_s, theirs) in wrote.items():
            found[address] = Probed(there_s, seen.get(theirs), "" if theirs in seen else late)
    finally:
        place.delete([_key(token), *(theirs for _, theirs in wrote.values())])
    return found


def _probe_there(address: Address, token: str) -> tuple[float, str] | str:
    """Run on a worker: see the planning process's file, and write one.

    Returns the delay and the key of the file written, or what is wrong.
    """
    try:
        place = place_at(address)
        # Opening a store that is not there would make one.
        if not place.is_there(MARKER):
            return f"does not see the store {address}; {_remedy(address)}, or give another store with --store"
        there_s = _wait_for(place, [_key(token)]).get(_key(token))
        if there_s is None:
            return (
                f"sees another store at {address}: a file of this process does not come there within {_SEEN_S:g} s; "
                f"{_remedy(address)}"
            )
        Store(address).require_writable()
        theirs = _key(uuid.uuid4().hex)
        place.publish(theirs, bytes(_N_BYTE))
    except (StoreError, OSError) as error:
        return f"cannot use the store: {error}"
    return there_s, theirs


def _remedy(address: Address) -> str:
    if isinstance(address, Path):
        return "mount the same file system at the same path on all nodes"
    return "set the same AWS_ENDPOINT_URL on all nodes"


def _key(token: str) -> str:
    return f"{ASIDE}/{token}.probe"


def _wait_for(place: Place, keys: Sequence[str]) -> dict[str, float]:
    """Wait for all files at once; returns after how long each was seen, of those that were."""
    begin_s = time.monotonic()
    seen: dict[str, float] = {}
    with clear_errors(place.address, "read"):
        while len(seen) < len(keys) and time.monotonic() < begin_s + _SEEN_S:
            # A name that was not there may be remembered as absent; a listing asks again sooner.
            listed = {file.key for file in place.files(ASIDE)}
            for key in keys:
                if key not in seen and (key in listed or place.is_there(key)):
                    seen[key] = time.monotonic() - begin_s
            if len(seen) < len(keys):
                time.sleep(_LOOK_S)
    return seen
