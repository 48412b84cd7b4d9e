"""The store: results found by the digest of what they were made from, whole or not at all.

Every object is one file, written aside, synced and published by an atomic rename. Arrays are a zarr group inside a
sealed zip file (docs/decisions/0002): each chunk carries a crc32c, the zip directory at the end of the file lists every
chunk, and the zip comment holds a checksum of that directory, so a file that was cut off or changed in a byte is
noticed on reading. Small records are JSON with a checksum. A file's modification time is when it was last used.
"""

import json
import re
import uuid
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import crc32c
import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec
from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore

from engine.errors import DamagedObjectError, MissingObjectError, StoreError
from storage.places.address import Address
from storage.places.opening import place_at
from storage.places.place import DAMAGED, clear_errors
from storage.sealing import machine_trouble

SCHEMA_VERSION = 2
MARKER = "nightbeam-store.json"
ARRAYS_SUFFIX, RECORD_SUFFIX = ".zarr.zip", ".json"
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
_CHUNK_BYTES = 1 << 21
"""Uncompressed size of a chunk: large enough that a chunk's overhead vanishes, small enough to read parts."""


class Store:
    """Results in a folder, or in a bucket of an object store.

    Parameters
    ----------
    address
        Where the store is, or is to be made.

    Raises
    ------
    StoreError
        If the store cannot be made or written, or the place holds something else or another schema.
    """

    def __init__(self, address: Address) -> None:
        self.place = place_at(address)
        where = self.place.address
        with clear_errors(where, "open"):
            try:
                marker = self.place.read(MARKER)
            except (FileNotFoundError, NotADirectoryError):
                # Asked again, because another process may have made the same store in the meantime.
                if self.place.holds_others() and not self.place.is_there(MARKER):
                    raise StoreError(
                        f"{where} is not a nightbeam store and not empty; give a new folder with --store"
                    ) from None
                self.place.prepare()
                self.place.publish(MARKER, json.dumps({"schema_version": SCHEMA_VERSION}).encode())
                marker = self.place.read(MARKER)
            version = _schema_version(marker, f"{where}/{MARKER}")
            if version != SCHEMA_VERSION:
                raise StoreError(
                    f"store {where} has schema version {version}, this program reads {SCHEMA_VERSION}; "
                    "give another folder with --store"
                )
            self.place.prepare()

    def __reduce__(self) -> tuple[type["Store"], tuple[Address]]:
        return Store, (self.place.address,)

    @property
    def address(self) -> Address:
        """Return where the store is."""
        return self.place.address

    @property
    def folder(self) -> Path:
        """Return the folder of a store that is in one.

        Raises
        ------
        StoreError
            If it is in a bucket.
        """
        if not isinstance(self.address, Path):
            raise StoreError(
                f"the store {self.address} is not in a folder, which this needs; give one with --store"
            )
        return self.address

    def require_writable(self) -> None:
        """Write and publish a small file, as results are, and remove it again.

        Raises
        ------
        StoreError
            If that cannot be done: better before a long computation than after it.
        """
        self.place.require_writable()

    # -- arrays -------------------------------------------------------------------------------------------------

    def arrays_path(self, kind: str, digest: str) -> Path:
        """Return where the arrays of an object lie, or would lie, in a store that is in a folder."""
        return self.folder / arrays_key(kind, digest)

    def has_arrays(self, kind: str, digest: str) -> bool:
        """Return whether an object was published; if so, note that it was used now."""
        return self._use(arrays_key(kind, digest))

    def write_arrays(
        self,
        kind: str,
        digest: str,
        arrays: Mapping[str, npt.NDArray[Any]],
        attributes: Mapping[str, Any],
        chunks: Mapping[str, tuple[int, ...]] | None = None,
    ) -> None:
        """Publish arrays under a digest; of two writers of one digest, whose arrays are equal, the last one stays.

        Parameters
        ----------
        kind
            Sort of object, such as ``influence``.
        digest
            Name of the object.
        arrays
            Arrays by name.
        attributes
            Plain values kept with them, provenance among them.
        chunks
            Chunk shapes by name; by default whole rows of about 2 MiB.

        Raises
        ------
        StoreError
            If the disk is full or cannot be written; nothing half-written stays.
        """
        # Compressed in memory, because zarr writes from a thread of its own, which after an error would go on.
        parts: dict[str, Buffer] = {}
        group = zarr.create_group(MemoryStore(parts), attributes=dict(attributes))
        for name, array in arrays.items():
            stored = group.create_array(
                name,
                shape=array.shape,
                dtype=array.dtype,
                chunks=(chunks or {}).get(name) or _chunk_shape(array),
                serializer=BytesCodec(),
                compressors=[
                    BloscCodec(cname="zstd", clevel=1, typesize=array.dtype.itemsize),
                    Crc32cCodec(),
                ],
            )
            if array.size:
                stored[...] = array
        content = {name: part.to_bytes() for name, part in parts.items()}
        self.place.publish_parts(arrays_key(kind, digest), content)

    def read_arrays(
        self, kind: str, digest: str, names: Iterable[str] | None = None
    ) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
        """Return the arrays of an object (all, or those named) and its attributes.

        Raises
        ------
        DamagedObjectError
            If a checksum is wrong, or the file was cut off.
        MissingObjectError
            If there is no such object.
        """
        with self._open(kind, digest, names is None) as (group, attributes):
            wanted = list(group) if names is None else list(names)
            return {name: group[name][...] for name in wanted}, attributes

    @contextmanager
    def open_arrays(self, kind: str, digest: str) -> Iterator[tuple["StoredArrays", dict[str, Any]]]:
        """Open an object for reading parts of its arrays: yields arrays to slice, by name, and its attributes.

        Errors of the caller's own, inside the ``with``, stay what they are.

        Raises
        ------
        DamagedObjectError
            If a checksum is wrong, or the file was cut off; also when slicing.
        MissingObjectError
            If there is no such object.
        StoreError
            If the machine cannot read it now (too many open files, no memory, a disk or server that does not answer):
            nothing is known then about the object itself. Also when slicing.
        """
        with self._open(kind, digest, whole=False) as opened:
            yield opened

    @contextmanager
    def _open(self, kind: str, digest: str, whole: bool) -> Iterator[tuple["StoredArrays", dict[str, Any]]]:
        with self.damage_named(kind, digest):
            parts = self.place.open_parts(arrays_key(kind, digest), whole)
        try:
            with self.damage_named(kind, digest):
                group = zarr.open_group(parts, mode="r")
                arrays = StoredArrays(self, kind, digest, dict(group.arrays()))
                attributes = dict(group.attrs)
            yield arrays, attributes
        finally:
            # ZipStore cannot be closed if it could not be opened; the reason for that must stay visible.
            with suppress(AttributeError):
                parts.close()

    def verify_arrays(self, kind: str, digest: str) -> None:
        """Read a whole object, and compare all its checksums, without unpacking it.

        Raises
        ------
        DamagedObjectError, MissingObjectError, StoreError
            As `open_arrays` does.
        """
        with self.damage_named(kind, digest):
            self.place.verify(arrays_key(kind, digest))

    @contextmanager
    def damage_named(self, kind: str, digest: str) -> Iterator[None]:
        """Turn what libraries say of a file that they cannot read into what it means for the object in it."""
        with clear_errors(self.address, "read"):
            try:
                yield
            except StoreError:
                raise
            except (ValueError, KeyError, RuntimeError, OSError, EOFError, zipfile.BadZipFile) as error:
                if not self.place.is_there(arrays_key(kind, digest)):
                    raise MissingObjectError(kind, digest) from error
                trouble = machine_trouble(error)
                if trouble is not None:
                    raise trouble from None
                raise DamagedObjectError(kind, digest, str(error) or "it is too short") from error

    # -- records ------------------------------------------------------------------------------------------------

    def record_path(self, kind: str, name: str) -> Path:
        """Return where a record lies, or would lie, in a store that is in a folder.

        Raises
        ------
        StoreError
            If the name could lead out of the store.
        """
        return self.folder / record_key(kind, name)

    def has_record(self, kind: str, name: str) -> bool:
        """Return whether a record was published; if so, note that it was used now."""
        return self._use(record_key(kind, name))

    def write_record(self, kind: str, name: str, content: Any) -> None:
        """Publish plain values under a name, replacing what was there."""
        text = json.dumps(content, sort_keys=True, indent=1)
        framed = json.dumps({"crc32c": crc32c.crc32c(text.encode()), "content": text})
        self.place.publish(record_key(kind, name), framed.encode())

    def read_record(self, kind: str, name: str) -> Any:
        """Return a record.

        Raises
        ------
        DamagedObjectError
            If its checksum is wrong.
        MissingObjectError
            If there is none.
        """
        key = record_key(kind, name)
        with clear_errors(self.address, "read"):
            try:
                raw = self.place.read(key)
            except (FileNotFoundError, NotADirectoryError) as error:
                raise MissingObjectError(kind, name) from error
        try:
            framed = json.loads(raw)
            text = framed["content"]
            if crc32c.crc32c(text.encode()) != framed["crc32c"]:
                raise ValueError("wrong checksum")
            return json.loads(text)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedObjectError(kind, name, str(error)) from error

    def record_names(self, kind: str) -> list[str]:
        """Return the names of all records of a kind."""
        with clear_errors(self.address, "read"):
            found = (file.key.removeprefix(f"{kind}/") for file in self.place.files(kind))
            return sorted(
                name.removesuffix(RECORD_SUFFIX)
                for name in found
                if name.endswith(RECORD_SUFFIX) and "/" not in name
            )

    # -- both ---------------------------------------------------------------------------------------------------

    def discard(self, kind: str, digest: str) -> None:
        """Put a damaged object out of the way, so that it is made again; it is kept for whoever wants to look."""
        for key in (arrays_key(kind, digest), record_key(kind, digest)):
            with clear_errors(self.address, "write"):
                self.place.put_away(key, f"{DAMAGED}/{kind}-{uuid.uuid4().hex[:8]}-{key.rpartition('/')[2]}")

    def _use(self, key: str) -> bool:
        with clear_errors(self.address, "read"):
            return self.place.use(key)


def arrays_key(kind: str, digest: str) -> str:
    """Return the key of an object with arrays."""
    return f"{kind}/{digest[:2]}/{digest}{ARRAYS_SUFFIX}"


def record_key(kind: str, name: str) -> str:
    """Return the key of a record.

    Raises
    ------
    StoreError
        If the name could lead out of the store.
    """
    if not _NAME.fullmatch(name):
        raise StoreError(
            f"'{name}' cannot be a name in the store (letters, digits and . _ - only, not . in front, 100 at most)"
        )
    return f"{kind}/{name}{RECORD_SUFFIX}"


class StoredArrays(dict[str, "StoredArray"]):
    """The arrays of an open object by name; one that is not there is damage."""

    def __init__(self, store: Store, kind: str, digest: str, arrays: Mapping[str, Any]) -> None:
        self._kind, self._digest = kind, digest
        super().__init__({name: StoredArray(store, kind, digest, array) for name, array in arrays.items()})

    def __missing__(self, name: str) -> "StoredArray":
        raise DamagedObjectError(self._kind, self._digest, f"it has no array '{name}'")


class StoredArray:
    """An array of an open object, to be sliced: only then are its chunks read, and damage is found."""

    def __init__(self, store: Store, kind: str, digest: str, array: Any) -> None:
        self._store, self._kind, self._digest, self._array = store, kind, digest, array

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of the whole array."""
        return tuple(self._array.shape)

    def __getitem__(self, where: Any) -> npt.NDArray[Any]:
        with self._store.damage_named(self._kind, self._digest):
            return np.asarray(self._array[where])


def _schema_version(content: bytes, marker: str) -> Any:
    try:
        return json.loads(content)["schema_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{marker} cannot be read ({error}); give another folder with --store, or put the file "
            f'{{"schema_version": {SCHEMA_VERSION}}} back'
        ) from error


def _chunk_shape(array: npt.NDArray[Any]) -> tuple[int, ...]:
    row_bytes = max(1, array.itemsize * int(np.prod(array.shape[1:])))
    rows = max(1, min(array.shape[0] if array.ndim else 1, _CHUNK_BYTES // row_bytes))
    return (rows, *array.shape[1:])
