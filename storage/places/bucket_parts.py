"""Sealed files in a bucket, of which only those parts are sent that somebody reads."""

import io
import zipfile
from collections.abc import Callable, Iterator, MutableMapping
from typing import IO, cast

from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.storage import MemoryStore

from storage.sealing import seal_is_whole

TAIL_BYTES = 1 << 18
"""What is asked for first: the list of parts, which stands at the end, and with it the whole of a small file."""
_WHOLE_BYTES = 1 << 23
"""A file up to this size is sent at once: about what a server sends while a further request would be on its way."""
_LOCAL_HEADER_BYTES = 30

GetRange = Callable[[int, int], bytes]
"""Gets the bytes from one position to another."""


def open_remote_parts(tail: bytes, n_byte: int, get: GetRange, whole: bool) -> MemoryStore:
    """Open a sealed file of which the last bytes were sent.

    Parameters
    ----------
    tail
        The end of the file.
    n_byte
        Size of the file.
    get
        Gets more of it.
    whole
        Whether most of it will be read.

    Raises
    ------
    ValueError, zipfile.BadZipFile
        If it is damaged.
    """
    if len(tail) < n_byte and (whole or n_byte <= _WHOLE_BYTES):
        tail = get(0, n_byte - len(tail)) + tail
    file = _RemoteFile(tail, n_byte, get)
    # It reads, seeks and tells, which is all that zipfile needs.
    if not seal_is_whole(cast(IO[bytes], file)):
        raise ValueError("the list of its parts has a wrong checksum")
    return MemoryStore(_Parts(file), read_only=True)


class _RemoteFile(io.RawIOBase):
    """A file of which some stretches are here; what else is read is got."""

    def __init__(self, tail: bytes, n_byte: int, get: GetRange) -> None:
        self._tail_begin, self._tail, self._n_byte, self._get = n_byte - len(tail), tail, n_byte, get
        self._at = self._near_begin = 0
        self._near = b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + (0, self._at, self._n_byte)[whence])
        return self._at

    def read(self, n: int | None = -1) -> bytes:
        end = self._n_byte if n is None or n < 0 else min(self._at + n, self._n_byte)
        begin, self._at = self._at, max(self._at, end)
        if begin >= end:
            return b""
        if begin >= self._tail_begin:
            return self._tail[begin - self._tail_begin : end - self._tail_begin]
        if not (self._near_begin <= begin and end <= self._near_begin + len(self._near)):
            self.fetch(begin, end)
        return self._near[begin - self._near_begin : end - self._near_begin]

    def fetch(self, begin: int, end: int) -> None:
        """Get a stretch that is about to be read in pieces."""
        if begin < self._tail_begin:
            self._near_begin, self._near = begin, self._get(begin, min(end, self._n_byte))

    def forget(self) -> None:
        """Drop the stretch."""
        self._near = b""


class _Parts(MutableMapping[str, Buffer]):
    """The parts of a sealed file by name, as zarr's store in memory wants them; each is got when it is read."""

    def __init__(self, file: _RemoteFile) -> None:
        self._file = file
        self._archive = zipfile.ZipFile(cast(IO[bytes], file))

    def __getitem__(self, name: str) -> Buffer:
        entry = self._archive.getinfo(name)  # a KeyError if there is none
        n_byte = _LOCAL_HEADER_BYTES + len(entry.filename.encode()) + entry.compress_size
        self._file.fetch(entry.header_offset, entry.header_offset + n_byte)
        try:
            return default_buffer_prototype().buffer.from_bytes(self._archive.read(entry))
        finally:
            self._file.forget()

    def __iter__(self) -> Iterator[str]:
        return iter(self._archive.namelist())

    def __len__(self) -> int:
        return len(self._archive.namelist())

    def __contains__(self, name: object) -> bool:
        return name in self._archive.NameToInfo

    def __setitem__(self, name: str, value: Buffer) -> None:
        raise TypeError("what was published is only read")

    def __delitem__(self, name: str) -> None:
        raise TypeError("what was published is only read")
