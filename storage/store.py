"""The store: results found by the digest of what they were made from, whole or not at all.

Every object is one file, written aside, synced and published by an atomic rename. Arrays are a zarr group inside a
zip file (docs/decisions/0002): each chunk carries a crc32c, the zip directory at the end of the file lists every
chunk, and the zip comment holds a checksum of that directory, so a file that was cut off or changed in a byte is
noticed on reading. Small records are JSON with a checksum.
"""

import errno
import json
import os
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
from zarr.storage import ZipStore

from engine.errors import DamagedObjectError, NightbeamError, StoreError

SCHEMA_VERSION = 2
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
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
        marker = self.folder / "nightbeam-store.json"
        with clear_errors(self.folder, "open"):
            if not marker.exists():
                self.folder.mkdir(parents=True, exist_ok=True)
                foreign = any(child.name != "aside" for child in self.folder.iterdir())
                # Asked again, because another process may have made the same store in the meantime.
                if foreign and not marker.exists():
                    raise StoreError(
                        f"{self.folder} is not a nightbeam store and not empty; give a new folder with --store"
                    )
                (self.folder / "aside").mkdir(exist_ok=True)
                self._publish(marker, json.dumps({"schema_version": SCHEMA_VERSION}).encode())
            version = _schema_version(marker)
            if version != SCHEMA_VERSION:
                raise StoreError(
                    f"store {self.folder} has schema version {version}, this program reads {SCHEMA_VERSION}; "
                    "give another folder with --store"
                )
            (self.folder / "aside").mkdir(exist_ok=True)

    def __reduce__(self) -> tuple[type["Store"], tuple[Path]]:
        return Store, (self.folder,)

    # -- arrays -------------------------------------------------------------------------------------------------

    def arrays_path(self, kind: str, digest: str) -> Path:
        """Return where the arrays of an object lie, or would lie."""
        return self.folder / kind / digest[:2] / f"{digest}.zarr.zip"

    def has_arrays(self, kind: str, digest: str) -> bool:
        """Return whether an object was published."""
        with clear_errors(self.folder, "read"):
            return self.arrays_path(kind, digest).exists()

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
        final = self.arrays_path(kind, digest)
        aside = self.folder / "aside" / f"{uuid.uuid4().hex}.zarr.zip"
        with clear_errors(self.folder, "write"):
            try:
                # Here, because ZipStore hides the reason when a file cannot be made.
                aside.touch()
                with ZipStore(aside, mode="w", compression=zipfile.ZIP_STORED) as zip_store:
                    group = zarr.create_group(zip_store, attributes=dict(attributes))
                    for name, array in arrays.items():
                        shape = (chunks or {}).get(name) or _chunk_shape(array)
                        stored = group.create_array(
                            name,
                            shape=array.shape,
                            dtype=array.dtype,
                            chunks=shape,
                            serializer=BytesCodec(),
                            compressors=[
                                BloscCodec(cname="zstd", clevel=1, typesize=array.dtype.itemsize),
                                Crc32cCodec(),
                            ],
                        )
                        if array.size:
                            stored[...] = array
                _seal(aside)
                _sync(aside)
                final.parent.mkdir(parents=True, exist_ok=True)
                aside.replace(final)
                _sync(final.parent)
            finally:
                aside.unlink(missing_ok=True)

    def read_arrays(
        self, kind: str, digest: str, names: Iterable[str] | None = None
    ) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
        """Return the arrays of an object (all, or those named) and its attributes.

        Raises
        ------
        DamagedObjectError
            If a checksum is wrong, or the file was cut off.
        StoreError
            If there is no such object.
        """
        with self.open_arrays(kind, digest) as (group, attributes):
            wanted = list(group) if names is None else list(names)
            return {name: group[name][...] for name in wanted}, attributes

    @contextmanager
    def open_arrays(self, kind: str, digest: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Open an object for reading parts of its arrays: yields arrays to slice, by name, and its attributes.

        Raises
        ------
        DamagedObjectError
            If a checksum is wrong, or the file was cut off.
        StoreError
            If there is no such object, or the machine cannot read it now (too many open files, no memory, a disk or
            server that does not answer): nothing is known then about the object itself.
        """
        path = self.arrays_path(kind, digest)
        if not self.has_arrays(kind, digest):
            raise StoreError(
                f"the store {self.folder} has no {kind} {digest} (it was never made, or was deleted)"
            )
        with clear_errors(self.folder, "read"):
            try:
                # zarr reads a chunk that is not there as zeros, without a word. The seal protects the list of chunks:
                # no chunk can vanish from it, or change its name or length, unnoticed.
                if not _seal_is_whole(path):
                    raise DamagedObjectError(kind, digest, "the list of its parts has a wrong checksum")
                zip_store = ZipStore(path, mode="r")
                try:
                    group = zarr.open_group(zip_store, mode="r")
                    yield dict(group.arrays()), dict(group.attrs)
                finally:
                    # ZipStore cannot be closed if it could not be opened; the reason for that must stay visible.
                    with suppress(AttributeError):
                        zip_store.close()
            except NightbeamError:
                raise
            except (ValueError, KeyError, RuntimeError, OSError, EOFError, zipfile.BadZipFile) as error:
                trouble = _machine_trouble(error)
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
        return self.folder / kind / f"{name}.json"

    def has_record(self, kind: str, name: str) -> bool:
        """Return whether a record was published."""
        with clear_errors(self.folder, "read"):
            return self.record_path(kind, name).exists()

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
        StoreError
            If there is none.
        """
        path = self.record_path(kind, name)
        with clear_errors(self.folder, "read"):
            if not path.exists():
                raise StoreError(f"the store {self.folder} has no {kind} called '{name}'")
            raw = path.read_bytes()
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
        return sorted(path.stem for path in (self.folder / kind).glob("*.json"))

    # -- both ---------------------------------------------------------------------------------------------------

    def discard(self, kind: str, digest: str) -> None:
        """Put a damaged object out of the way, so that it is made again; it is kept for whoever wants to look."""
        away = self.folder / "damaged"
        for path in (self.arrays_path(kind, digest), self.record_path(kind, digest)):
            with clear_errors(self.folder, "write"):
                away.mkdir(exist_ok=True)
                # Another process may have met the same damage and been faster.
                with suppress(FileNotFoundError):
                    path.replace(away / f"{kind}-{uuid.uuid4().hex[:8]}-{path.name}")

    def _publish(self, final: Path, content: bytes) -> None:
        aside = self.folder / "aside" / uuid.uuid4().hex
        with clear_errors(self.folder, "write"):
            try:
                with aside.open("wb") as stream:
                    stream.write(content)
                    stream.flush()
                    os.fsync(stream.fileno())
                final.parent.mkdir(parents=True, exist_ok=True)
                aside.replace(final)
                _sync(final.parent)
            finally:
                aside.unlink(missing_ok=True)


def _schema_version(marker: Path) -> Any:
    try:
        return json.loads(marker.read_text())["schema_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{marker} cannot be read ({error}); give another folder with --store, or put the file "
            f'{{"schema_version": {SCHEMA_VERSION}}} back'
        ) from error


def _seal(path: Path) -> None:
    """Write the checksum of the zip directory, which zip itself does not protect, into the zip comment."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = _directory_checksum(archive)


def _seal_is_whole(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return archive.comment == _directory_checksum(archive)


def _directory_checksum(archive: zipfile.ZipFile) -> bytes:
    listed = [
        (e.filename, e.header_offset, e.compress_size, e.file_size, e.CRC, e.compress_type, e.flag_bits)
        for e in archive.infolist()
    ]
    return f"directory crc32c {crc32c.crc32c(repr(listed).encode()):08x}".encode()


def _chunk_shape(array: npt.NDArray[Any]) -> tuple[int, ...]:
    row_bytes = max(1, array.itemsize * int(np.prod(array.shape[1:])))
    rows = max(1, min(array.shape[0] if array.ndim else 1, _CHUNK_BYTES // row_bytes))
    return (rows, *array.shape[1:])


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _machine_trouble(error: Exception) -> OSError | None:
    """Return the operating system's own error, in or right behind ``error``, if it says nothing about the content.

    What a damaged file causes has no error number, or EINVAL from a seek to a place that cannot be. zipfile says
    "not a zip file" of a file whose end could not be read: the reason is then its context.
    """
    for reason in (error, error.__context__):
        if isinstance(reason, OSError) and not isinstance(reason, NightbeamError):
            return None if reason.errno in (None, errno.EINVAL) else reason
    return None


_REASONS = {
    errno.ENOSPC: "the disk is full; free some space and start again, finished results are kept",
    errno.EDQUOT: "the disk quota is used up; free some space and start again, finished results are kept",
    errno.EACCES: "permission denied; check the owner and mode of the folder",
    errno.EROFS: "the file system is read-only; give another folder with --store",
    errno.ENOTDIR: "a part of the path is a file; give another folder with --store",
    errno.EEXIST: "a part of the path is a file; give another folder with --store",
}


@contextmanager
def clear_errors(folder: Path, verb: str) -> Iterator[None]:
    """Turn what the operating system says into one clear sentence."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, str(error))
        raise StoreError(f"cannot {verb} the store {folder}: {reason}") from error
