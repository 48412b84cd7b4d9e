"""A bucket: every file is one object, which a PUT makes whole or not at all.

An object's time is when it was made, and cannot be set. When it was last used is the time of an empty object
``used/KEY``, which is put again whenever the object is looked up (docs/decisions/0013).
"""

import io
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from zarr.storage import MemoryStore

from engine.errors import StoreError
from storage.places.address import BucketAddress
from storage.places.bucket_client import clear, connect
from storage.places.bucket_parts import TAIL_BYTES, open_remote_parts
from storage.places.place import ASIDE, PlacedFile
from storage.sealing import seal, verify

_USED = "used"
_NOTE_S = 50.0
"""How often one process notes the use of one object: more often than `storage.maintenance.MARGIN_S`."""
_PART_BYTES = 32 << 20
"""What is larger is sent in parts of this size."""
_N_NOTING = 4
_LIST_CHUNK = 1000


class Bucket:
    """A `storage.places.place.Place` in S3-compatible object storage.

    Parameters
    ----------
    address
        Bucket and prefix.

    Raises
    ------
    StoreError
        If the environment does not say what is needed to reach it.
    """

    def __init__(self, address: BucketAddress) -> None:
        self.address = address
        self._client, self._quick = connect(address, patient=True), connect(address, patient=False)
        self._noted_s: dict[str, float] = {}
        self._noting = ThreadPoolExecutor(_N_NOTING, "note-use")
        self._lock = threading.Lock()

    def exists(self) -> bool:
        """Return whether there is anything under the prefix."""
        return self.holds_others()

    def holds_others(self) -> bool:
        """Return whether there is anything under the prefix."""
        with self._clear("open"):
            return any(obstore.list(self._client, chunk_size=1))

    def prepare(self) -> None:
        """Do nothing: a bucket has no folders."""

    def require_writable(self) -> None:
        """Put a small object, see that it is put only under the conditions that leases need, and delete it."""
        key = f"{ASIDE}/{uuid.uuid4().hex}.probe"
        try:
            made = self.make(key, b"1")
            again = self.make(key, b"2")
            of_another = self.change(key, b"3", '"00000000000000000000000000000000"')
            changed = None if made is None else self.change(key, b"4", made)
        finally:
            with suppress(StoreError):
                self.delete([key])
        if changed is None or again is not None or of_another is not None:
            raise StoreError(
                f"cannot write the store {self.address}: its server does not obey the conditions under which objects "
                "are put (If-None-Match, If-Match), so runs could not keep out of each other's way; use a newer or "
                "another one"
            )

    def publish(self, key: str, content: bytes) -> None:
        """Put an object, a large one in parts, which become one object at the end."""
        with self._clear("write"):
            obstore.put(self._client, key, content, chunk_size=_PART_BYTES, max_concurrency=_N_NOTING)

    def publish_parts(self, key: str, parts: Mapping[str, bytes]) -> None:
        """Put a sealed file."""
        stream = io.BytesIO()
        seal(stream, parts)
        self.publish(key, stream.getvalue())

    def read(self, key: str) -> bytes:
        """Get an object."""
        with self._clear("read"):
            return bytes(obstore.get(self._client, key).bytes())

    def open_parts(self, key: str, whole: bool) -> MemoryStore:
        """Get the end of a sealed file, and the rest at once or in parts."""
        with self._clear("read"):
            try:
                found = obstore.get(self._client, key, options={"range": {"suffix": TAIL_BYTES}})
            except BaseError:
                # An empty object has no last bytes that could be sent.
                if obstore.head(self._client, key)["size"]:
                    raise
                raise ValueError("it is empty") from None
            tail, n_byte = bytes(found.bytes()), int(found.meta["size"])

        def get(begin: int, end: int) -> bytes:
            # Should the object be replaced in the meantime, what does not fit together is found as damage.
            with self._clear("read"):
                return bytes(obstore.get_range(self._client, key, start=begin, end=end))

        return open_remote_parts(tail, n_byte, get, whole)

    def verify(self, key: str) -> None:
        """Get a sealed file, and compare all its checksums."""
        verify(io.BytesIO(self.read(key)))

    def is_there(self, key: str) -> bool:
        """Return whether there is such an object."""
        try:
            with self._clear("read"):
                obstore.head(self._client, key)
        except FileNotFoundError:
            return False
        return True

    def use(self, key: str) -> bool:
        """Return whether there is such an object, and have another thread note that it was used now."""
        if not self.is_there(key):
            return False
        with self._lock:
            now_s = time.monotonic()
            if now_s - self._noted_s.get(key, -_NOTE_S) >= _NOTE_S:
                self._noted_s[key] = now_s
                self._noting.submit(self._note, key)
        return True

    def _note(self, key: str) -> None:
        # A store that may only be read cannot be pruned either; and a note that is lost costs work, no result.
        with suppress(OSError), self._clear("write"):
            obstore.put(self._quick, f"{_USED}/{key}", b"")

    def put_away(self, key: str, to: str) -> None:
        """Copy an object inside the server, and delete the original."""
        with suppress(FileNotFoundError):
            with self._clear("write"):
                obstore.copy(self._client, key, to)
            self.delete([key])

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects, and the notes of their use."""
        both = [key for file in keys for key in (file, f"{_USED}/{file}")]
        if both:
            with self._clear("write"), suppress(FileNotFoundError):
                obstore.delete(self._client, both)

    def delete_unused_since(self, file: PlacedFile) -> bool:
        """Delete an object unless a use was noted since it was listed."""
        times = [self._time_s(key) for key in (file.key, f"{_USED}/{file.key}")]
        if times[0] is None or max(time_s for time_s in times if time_s is not None) != file.used_s:
            return False
        self.delete([file.key])
        return True

    def folders(self) -> list[str]:
        """Return the first parts of all keys."""
        with self._clear("read"):
            found = obstore.list_with_delimiter(self._client)["common_prefixes"]
        return sorted(set(found) - {_USED})

    def files(self, folder: str) -> Iterator[PlacedFile]:
        """Yield all objects in a folder and those below it, with the times of their last use."""
        used = f"{_USED}/{folder}" if folder else _USED
        noted_s = {meta["path"].removeprefix(f"{_USED}/"): _seconds(meta) for meta in self._list(used)}
        for meta in self._list(folder):
            key = meta["path"]
            if not key.startswith(f"{_USED}/"):
                yield PlacedFile(key, int(meta["size"]), max(_seconds(meta), noted_s.get(key, 0.0)))

    def time_s(self) -> float:
        """Return the time that a new object gets; the server's, in whole seconds."""
        key = f"{ASIDE}/{uuid.uuid4().hex}.clock"
        self.publish(key, b"")
        try:
            found = self._time_s(key)
        finally:
            self.delete([key])
        return time.time() if found is None else found

    # -- for leases and logs ------------------------------------------------------------------------------------

    def make(self, key: str, content: bytes) -> str | None:
        """Put an object if there is none, and return its version; None if there is one."""
        try:
            with self._clear("write"):
                return _version(obstore.put(self._quick, key, content, mode="create"))
        except FileExistsError:
            return None

    def change(self, key: str, content: bytes, version: str) -> str | None:
        """Put an object in place of one version of it, and return the new one; None if there is another or none."""
        try:
            with self._clear("write"):
                return _version(obstore.put(self._quick, key, content, mode={"e_tag": version}))
        except (FileExistsError, FileNotFoundError):
            return None

    def look(self, key: str) -> tuple[bytes, str, float] | None:
        """Return content, version and time of an object; None if there is none."""
        try:
            with self._clear("read"):
                found = obstore.get(self._quick, key)
                return bytes(found.bytes()), str(found.meta["e_tag"]), _seconds(found.meta)
        except FileNotFoundError:
            return None

    def _time_s(self, key: str) -> float | None:
        try:
            with self._clear("read"):
                return _seconds(obstore.head(self._client, key))
        except FileNotFoundError:
            return None

    def _list(self, folder: str) -> Iterator[Mapping[str, Any]]:
        with self._clear("read"):
            for chunk in obstore.list(self._client, folder or None, chunk_size=_LIST_CHUNK):
                yield from chunk

    @contextmanager
    def _clear(self, verb: str) -> Iterator[None]:
        """Turn what the client says into one clear sentence, or the error that a file would cause."""
        try:
            yield
        except (AlreadyExistsError, PreconditionError):
            raise FileExistsError(f"{self.address} has another object there") from None
        except StoreError:
            raise
        except (BaseError, OSError) as error:
            raise clear(error, self.address, verb) from None


def _version(put: Mapping[str, Any]) -> str:
    return str(put["e_tag"])


def _seconds(meta: Mapping[str, Any]) -> float:
    return float(meta["last_modified"].timestamp())
