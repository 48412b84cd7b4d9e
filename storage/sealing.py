"""The file of an object: a zip file in which every byte that means something is under a checksum.

Zip keeps a CRC-32 of each part, and zarr a crc32c of each chunk. The directory at the end of the file, which lists the
parts, is protected by neither; its checksum, the seal, is kept in the zip comment.
"""

import errno
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import crc32c

from engine.errors import NightbeamError

_METADATA = "zarr.json"
_CRC_BYTES = 4
_MODE = 0o644 << 16


def write_sealed(path: Path, parts: Mapping[str, bytes]) -> None:
    """Write and sync a sealed file; equal parts make equal bytes.

    Raises
    ------
    OSError
        If the disk is full or cannot be written.
    """
    with path.open("wb") as stream:
        seal(stream, parts)
        stream.flush()
        os.fsync(stream.fileno())


def seal(stream: IO[bytes], parts: Mapping[str, bytes]) -> None:
    """Write the content of a sealed file."""
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(parts):
            # ZipInfo has the same date for all: of two writers of one digest each makes the same file.
            part = zipfile.ZipInfo(name)
            part.external_attr = _MODE
            archive.writestr(part, parts[name])
        archive.comment = _seal_of(archive)


def seal_is_whole(file: Path | IO[bytes]) -> bool:
    """Return whether the list of parts is the one that was written."""
    with zipfile.ZipFile(file) as archive:
        return archive.comment == _seal_of(archive)


def verify(file: Path | IO[bytes]) -> None:
    """Read a whole file, and compare all its checksums.

    Raises
    ------
    ValueError, EOFError, OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError
        If something is wrong.
    """
    with zipfile.ZipFile(file) as archive:
        if archive.comment != _seal_of(archive):
            raise ValueError("the list of its parts has a wrong checksum")
        for entry in archive.infolist():
            content = archive.read(entry)
            if entry.filename.endswith(_METADATA):
                json.loads(content)
            elif crc32c.crc32c(content[:-_CRC_BYTES]) != int.from_bytes(content[-_CRC_BYTES:], "little"):
                raise ValueError(f"{entry.filename} has a wrong checksum")


def machine_trouble(error: BaseException) -> OSError | None:
    """Return the operating system's own error, in or behind ``error``, if it says nothing about the content.

    What a damaged file causes has no error number, or EINVAL from a seek to a place that cannot be. zipfile says
    "not a zip file" of a file whose end could not be read: the reason is then its context.
    """
    for reason in (error, error.__context__):
        if isinstance(reason, OSError) and not isinstance(reason, NightbeamError):
            return None if reason.errno in (None, errno.EINVAL) else reason
    return None


def _seal_of(archive: zipfile.ZipFile) -> bytes:
    listed = [
        (e.filename, e.header_offset, e.compress_size, e.file_size, e.CRC, e.compress_type, e.flag_bits)
        for e in archive.infolist()
    ]
    return f"directory crc32c {crc32c.crc32c(repr(listed).encode()):08x}".encode()
