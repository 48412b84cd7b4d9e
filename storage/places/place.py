"""What a store needs of the place where its files lie; `storage.places.opening` finds the place of an address.

A key is the path of a file inside the store, with slashes. What cannot be done is an OSError, or a StoreError that
says it in one sentence; a file that is not there is a FileNotFoundError or NotADirectoryError.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from zarr.abc.store import Store as ZarrStore

from engine.errors import StoreError, reason_and_remedy
from storage.places.address import Address

ASIDE, DAMAGED = "aside", "damaged"
CLUSTERS = "clusters"
"""Folder of what runs on a cluster of jobs share with their jobs, while they last."""


@dataclass(frozen=True)
class PlacedFile:
    """A file: its key, its size, and when it was last used by the clock of the place."""

    key: str
    n_byte: int
    used_s: float


class Place(Protocol):
    """A folder or a bucket."""

    @property
    def address(self) -> Address:
        """Return where it is."""
        ...

    def exists(self) -> bool:
        """Return whether there is anything that could be a store."""
        ...

    def holds_others(self) -> bool:
        """Return whether there is something that a store which is just being made does not have."""
        ...

    def prepare(self) -> None:
        """Make what has to be there before files can be published."""
        ...

    def require_writable(self) -> None:
        """Raise if files cannot be published as they have to be; leaves nothing."""
        ...

    def publish(self, key: str, content: bytes) -> None:
        """Have a file there whole or not at all, in place of what was there."""
        ...

    def publish_parts(self, key: str, parts: Mapping[str, bytes]) -> None:
        """Publish a sealed file (`storage.sealing`)."""
        ...

    def read(self, key: str) -> bytes:
        """Return a file."""
        ...

    def open_parts(self, key: str, whole: bool) -> ZarrStore:
        """Open a sealed file for zarr, after a look at its seal; ``whole`` if most of it will be read.

        Raises
        ------
        ValueError, zipfile.BadZipFile
            If it is damaged; also when something is read.
        """
        ...

    def verify(self, key: str) -> None:
        """Read a sealed file, and compare all its checksums, as `storage.sealing.verify`."""
        ...

    def is_there(self, key: str) -> bool:
        """Return whether there is such a file."""
        ...

    def use(self, key: str) -> bool:
        """Return whether there is such a file, and have the place note that it was used now."""
        ...

    def put_away(self, key: str, to: str) -> None:
        """Give a file another key, if it is still there."""
        ...

    def delete(self, keys: Iterable[str]) -> None:
        """Delete files, if they are still there."""
        ...

    def delete_unused_since(self, file: PlacedFile) -> bool:
        """Delete a file unless it was used since it was listed; return whether it was deleted."""
        ...

    def folders(self) -> list[str]:
        """Return the first parts of all keys."""
        ...

    def files(self, folder: str) -> Iterator[PlacedFile]:
        """Yield all files in a folder and those below it; if it is empty, in the whole place but `CLUSTERS`."""
        ...

    def time_s(self) -> float:
        """Return the present time by the clock that the times of files come from."""
        ...


@contextmanager
def clear_errors(where: object, verb: str) -> Iterator[None]:
    """Turn what the operating system says into one clear sentence."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(f"cannot {verb} the store {where}: {reason_and_remedy(error)}") from error
