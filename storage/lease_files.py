"""The files of leases: made by one of many, touched by their holder, looked at by others; in a folder or a bucket."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from storage.holder import Holder, this_process
from storage.places.address import Address
from storage.places.opening import bucket_at
from storage.places.place import clear_errors

if TYPE_CHECKING:
    from storage.places.bucket import Bucket

FOLDER = "leases"


@dataclass(frozen=True)
class Seen:
    """A lease's file as it was found.

    Parameters
    ----------
    version
        Another one each time that its holder touches it.
    modified_s
        When that was, by the clock of the store.
    holder
        Who signed it; None for somebody who has not signed yet.
    """

    version: int | str
    modified_s: float
    holder: Holder | None


class LeaseFiles(Protocol):
    """The leases of a store."""

    def prepare(self) -> None:
        """Make what has to be there before leases can be made."""
        ...

    def names(self, start: str) -> list[str]:
        """Return the names of all files that begin so."""
        ...

    def look(self, name: str) -> Seen | None:
        """Return what is in a file; None if it is gone."""
        ...

    def make(self, name: str) -> Holder | None:
        """Make a file, and return this process as its holder; None if it exists."""
        ...

    def touch(self, name: str, holder: Holder) -> bool:
        """Give a file another version; False if it is gone, or signed by another holder."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file, if it is still there."""
        ...


def lease_files(address: Address) -> LeaseFiles:
    """Return the leases of a store."""
    if isinstance(address, Path):
        return _InFolder(address / FOLDER)
    return _InBucket(bucket_at(address))


class _InFolder:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def prepare(self) -> None:
        self._folder.mkdir(exist_ok=True)

    def names(self, start: str) -> list[str]:
        return [path.name for path in self._folder.glob(f"{start}*")]

    def look(self, name: str) -> Seen | None:
        try:
            # Opened, because an open file's time is asked of a network server, and a closed one's may be remembered.
            with (self._folder / name).open() as stream:
                modified_ns = os.fstat(stream.fileno()).st_mtime_ns
                text = stream.read()
        except FileNotFoundError:
            return None
        return Seen(modified_ns, modified_ns * 1e-9, _holder_in(text))

    def make(self, name: str) -> Holder | None:
        path = self._folder / name
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return None
        try:
            with os.fdopen(descriptor, "w") as stream:
                holder = this_process(os.fstat(descriptor).st_mtime)
                json.dump(asdict(holder), stream)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        return holder

    def touch(self, name: str, holder: Holder) -> bool:
        found = self.look(name)
        if found is None or found.holder != holder:
            return False
        # No time is given, so that it is the file server's.
        os.utime(self._folder / name)
        return True

    def remove(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)


class _InBucket:
    """Objects that are put under conditions: only if there is none, only in place of the version that was put last.

    An answer may be lost after its request has done its work, and the client asks again: so who is refused looks
    whether it was itself that came first.
    """

    def __init__(self, bucket: "Bucket") -> None:
        self._bucket = bucket
        self._versions: dict[str, str] = {}
        self._n_touch = 0

    def prepare(self) -> None:
        pass

    def names(self, start: str) -> list[str]:
        with clear_errors(self._bucket.address, "read"):
            found = [file.key.removeprefix(f"{FOLDER}/") for file in self._bucket.files(FOLDER)]
        return [name for name in found if name.startswith(start)]

    def look(self, name: str) -> Seen | None:
        found = self._bucket.look(f"{FOLDER}/{name}")
        if found is None:
            return None
        content, version, modified_s = found
        return Seen(version, modified_s, _holder_in(content.decode(errors="replace")))

    def make(self, name: str) -> Holder | None:
        holder = this_process(self._bucket.time_s())
        version = self._bucket.make(f"{FOLDER}/{name}", self._signed(holder))
        if version is None:
            found = self.look(name)
            if found is None or found.holder != holder:
                return None
            version = str(found.version)
        self._versions[name] = version
        return holder

    def touch(self, name: str, holder: Holder) -> bool:
        version = self._bucket.change(f"{FOLDER}/{name}", self._signed(holder), self._versions[name])
        if version is None:
            found = self.look(name)
            if found is None or found.holder != holder:
                return False
            version = str(found.version)
        self._versions[name] = version
        return True

    def remove(self, name: str) -> None:
        self._bucket.delete([f"{FOLDER}/{name}"])

    def _signed(self, holder: Holder) -> bytes:
        # The version of an object is made from its content, so that has to change.
        self._n_touch += 1
        return json.dumps({**asdict(holder), "touched": self._n_touch}).encode()


def _holder_in(text: str) -> Holder | None:
    try:
        fields = json.loads(text)
        fields.pop("touched", None)
        return Holder(**fields)
    except (ValueError, TypeError, AttributeError):
        return None
