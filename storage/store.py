"""The store: results found by the digest of what they were made from, whole or not at all.

Every object is one file, written aside, synced and published by an atomic rename. Arrays are a zarr group inside a
sealed zip file (docs/decisions/0002): each chunk carries a crc32c, the zip directory at the end of the file lists every
chunk, and the zip comment holds a checksum of that directory, so a file that was cut off or changed in a byte is
noticed on reading. Small records are JSON with a checksum. A file's modification time is when it was last used.
"""

import errno
import json
import os
import re
import uuid
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import crc32c
import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec
from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore, ZipStore

from engine.errors import DamagedObjectError, MissingObjectError, StoreError, reason_and_remedy
from storage.sealing import machine_trouble, seal_is_whole, verify, write_sealed

SCHEMA_VERSION = 2
MARKER = "nightbeam-store.json"
ASIDE, DAMAGED = "aside", "damaged"
ARRAYS_SUFFIX, RECORD_SUFFIX = ".zarr.zip", ".json"
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
_NO_RENAME = (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)
_CHUNK_BYTES = 1 << 21
"""Uncompressed size of a chunk: large enough that a chunk's overhead vanishes, small enough to read parts."""


class Store:
    """A folder of results.

    Parameters
    ----------
    folder
        Where the store is, or is to be made.

    Raises
    ------
    StoreError
        If the folder cannot be made or written, or holds something else or another schema.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        marker = self.folder / MARKER
        with clear_errors(self.folder, "open"):
            if not marker.exists():
                self.folder.mkdir(parents=True, exist_ok=True)
                foreign = any(child.name != ASIDE for child in self.folder.iterdir())
                # Asked again, because another process may have made the same store in the meantime.
                if foreign and not marker.exists():
                    raise StoreError(
                        f"{self.folder} is not a nightbeam store and not empty; give a new folder with --store"
                    )
                (self.folder / ASIDE).mkdir(exist_ok=True)
                self._publish(marker, json.dumps({"schema_version": SCHEMA_VERSION}).encode())
            version = _schema_version(marker)
            if version != SCHEMA_VERSION:
                raise StoreError(
                    f"store {self.folder} has schema version {version}, this program reads {SCHEMA_VERSION}; "
                    "give another folder with --store"
                )
            (self.folder / ASIDE).mkdir(exist_ok=True)

    def __reduce__(self) -> tuple[type["Store"], tuple[Path]]:
        return Store, (self.folder,)

    def require_writable(self) -> None:
        """Write and publish a small file, as results are, and remove it again.

        Raises
        ------
        StoreError
            If that cannot be done: better before a long computation than after it.
        """
        final = self.folder / ASIDE / f"{uuid.uuid4().hex}.probe"
        try:
            self._publish(final, bytes(4096))
        finally:
            with clear_errors(self.folder, "write"):
                final.unlink(missing_ok=True)

    # -- arrays -------------------------------------------------------------------------------------------------

    def arrays_path(self, kind: str, digest: str) -> Path:
        """Return where the arrays of an object lie, or would lie."""
        return self.folder / kind / digest[:2] / f"{digest}{ARRAYS_SUFFIX}"

    def has_arrays(self, kind: str, digest: str) -> bool:
        """Return whether an object was published; if so, note that it was used now."""
        return self._use(self.arrays_path(kind, digest))

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
        self._publish_by(self.arrays_path(kind, digest), lambda aside: write_sealed(aside, content))

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
        with self.open_arrays(kind, digest) as (group, attributes):
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
        path = self.arrays_path(kind, digest)
        with self.damage_named(kind, digest):
            # zarr reads a chunk that is not there as zeros, without a word. The seal protects the list of chunks:
            # no chunk can vanish from it, or change its name or length, unnoticed.
            if not seal_is_whole(path):
                raise DamagedObjectError(kind, digest, "the list of its parts has a wrong checksum")
            zip_store = ZipStore(path, mode="r")
        try:
            with self.damage_named(kind, digest):
                group = zarr.open_group(zip_store, mode="r")
                arrays = StoredArrays(self, kind, digest, dict(group.arrays()))
                attributes = dict(group.attrs)
            yield arrays, attributes
        finally:
            # ZipStore cannot be closed if it could not be opened; the reason for that must stay visible.
            with suppress(AttributeError):
                zip_store.close()

    def verify_arrays(self, kind: str, digest: str) -> None:
        """Read a whole object, and compare all its checksums, without unpacking it.

        Raises
        ------
        DamagedObjectError, MissingObjectError, StoreError
            As `open_arrays` does.
        """
        with self.damage_named(kind, digest):
            verify(self.arrays_path(kind, digest))

    @contextmanager
    def damage_named(self, kind: str, digest: str) -> Iterator[None]:
        """Turn what libraries say of a file that they cannot read into what it means for the object in it."""
        with clear_errors(self.folder, "read"):
            try:
                yield
            except StoreError:
                raise
            except (ValueError, KeyError, RuntimeError, OSError, EOFError, zipfile.BadZipFile) as error:
                if not _is_there(self.arrays_path(kind, digest)):
                    raise MissingObjectError(kind, digest) from error
                trouble = machine_trouble(error)
                if trouble is not None:
                    raise trouble from None
                raise DamagedObjectError(kind, digest, str(error) or "it is too short") from error

    # -- records ------------------------------------------------------------------------------------------------

    def record_path(self, kind: str, name: str) -> Path:
        """Return where a record lies, or would lie.

        Raises
        ------
        StoreError
            If the name could lead out of the store.
        """
        if not _NAME.fullmatch(name):
            raise StoreError(
                f"'{name}' cannot be a name in the store (letters, digits and . _ - only, not . in front, 100 at most)"
            )
        return self.folder / kind / f"{name}{RECORD_SUFFIX}"

    def has_record(self, kind: str, name: str) -> bool:
        """Return whether a record was published; if so, note that it was used now."""
        return self._use(self.record_path(kind, name))

    def write_record(self, kind: str, name: str, content: Any) -> None:
        """Publish plain values under a name, replacing what was there."""
        text = json.dumps(content, sort_keys=True, indent=1)
        framed = json.dumps({"crc32c": crc32c.crc32c(text.encode()), "content": text})
        self._publish(self.record_path(kind, name), framed.encode())

    def read_record(self, kind: str, name: str) -> Any:
        """Return a record.

        Raises
        ------
        DamagedObjectError
            If its checksum is wrong.
        MissingObjectError
            If there is none.
        """
        path = self.record_path(kind, name)
        with clear_errors(self.folder, "read"):
            try:
                raw = path.read_bytes()
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
        return sorted(path.stem for path in (self.folder / kind).glob(f"*{RECORD_SUFFIX}"))

    # -- both ---------------------------------------------------------------------------------------------------

    def discard(self, kind: str, digest: str) -> None:
        """Put a damaged object out of the way, so that it is made again; it is kept for whoever wants to look."""
        away = self.folder / DAMAGED
        for path in (self.arrays_path(kind, digest), self.record_path(kind, digest)):
            with clear_errors(self.folder, "write"):
                away.mkdir(exist_ok=True)
                kept = away / f"{kind}-{uuid.uuid4().hex[:8]}-{path.name}"
                # Another process may have met the same damage and been faster.
                with suppress(FileNotFoundError):
                    path.replace(kept)
                    os.utime(kept)

    def _use(self, path: Path) -> bool:
        """Return whether a file is there, and set its modification time to now: that of its last use."""
        with clear_errors(self.folder, "read"):
            try:
                os.utime(path)
            except (FileNotFoundError, NotADirectoryError):
                return False
            except OSError:
                # A store that may only be read: it cannot be pruned either.
                path.stat()
            return True

    def _publish(self, final: Path, content: bytes) -> None:
        def write(aside: Path) -> None:
            with aside.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())

        self._publish_by(final, write)

    def _publish_by(self, final: Path, write: Callable[[Path], None]) -> None:
        """Have a file written and synced aside, then rename it."""
        aside = self.folder / ASIDE / f"{uuid.uuid4().hex}-{final.name}"
        with clear_errors(self.folder, "write"):
            try:
                write(aside)
                final.parent.mkdir(parents=True, exist_ok=True)
                try:
                    aside.replace(final)
                except OSError as error:
                    if error.errno in _NO_RENAME:
                        raise StoreError(
                            f"cannot write the store {self.folder}: its file system cannot rename a file in one step "
                            f"({error.strerror}); put the store on another one with --store"
                        ) from error
                    raise
                _sync_folder(final.parent)
            finally:
                aside.unlink(missing_ok=True)


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


def _schema_version(marker: Path) -> Any:
    try:
        return json.loads(marker.read_text())["schema_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{marker} cannot be read ({error}); give another folder with --store, or put the file "
            f'{{"schema_version": {SCHEMA_VERSION}}} back'
        ) from error


def _is_there(path: Path) -> bool:
    # Not `exists`, which in some versions of Python says no of what may not be looked at.
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _chunk_shape(array: npt.NDArray[Any]) -> tuple[int, ...]:
    row_bytes = max(1, array.itemsize * int(np.prod(array.shape[1:])))
    rows = max(1, min(array.shape[0] if array.ndim else 1, _CHUNK_BYTES // row_bytes))
    return (rows, *array.shape[1:])


def _sync_folder(path: Path) -> None:
    """Have a renaming survive a power cut, on file systems that can be asked for that."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


@contextmanager
def clear_errors(folder: Path, verb: str) -> Iterator[None]:
    """Turn what the operating system says into one clear sentence."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(f"cannot {verb} the store {folder}: {reason_and_remedy(error)}") from error
