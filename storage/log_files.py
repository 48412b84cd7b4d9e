"""The files of evaluation logs: appended to by one writer each; in a folder or a bucket.

An object in a bucket cannot be appended to, so a log there is a row of numbered objects, and counts as far as the row
has no gap. A thread sends them, so that no solve waits for a server: at most one a second, each with all records that
have come up in the meantime.
"""

import os
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from storage.places.address import Address
from storage.places.opening import bucket_at

if TYPE_CHECKING:
    from storage.places.bucket import Bucket

FOLDER = "solve_log"
SEND_EVERY_S = 1.0
MOST_UNSENT = 64
"""Records that may wait to be sent; with more, a solve waits as well. A killed run loses no more than these."""
_N_READER = 8


class Log(Protocol):
    """A log that is being written."""

    def write(self, record: bytes) -> None:
        """Add a record; raises what was wrong, an OSError as a rule, and the log then ends with the record before."""
        ...

    def close(self, keep: bool) -> None:
        """End it; ``keep`` if somebody may go on with it."""
        ...


class LogFiles(Protocol):
    """The logs of one solve."""

    def names(self) -> list[str]:
        """Return the names of all of them."""
        ...

    def read(self, name: str) -> bytes:
        """Return what is in a log; nothing if it is gone."""
        ...

    def create(self, writer: str, content: bytes) -> Log:
        """Begin a log with the records that an earlier one held, which are safe when this returns."""
        ...

    def remove(self, names: Iterable[str]) -> None:
        """Remove logs, if they are still there."""
        ...

    def put_aside(self, writer: str) -> None:
        """Have a log count no more, but keep it for whoever wants to look."""
        ...


def log_files(address: Address, digest: str) -> LogFiles:
    """Return the logs of a solve."""
    if isinstance(address, Path):
        return _InFolder(address / FOLDER, digest)
    return _InBucket(bucket_at(address), digest)


class _InFolder:
    def __init__(self, folder: Path, digest: str) -> None:
        self._folder, self._digest = folder, digest

    def names(self) -> list[str]:
        return sorted(path.name for path in self._folder.glob(f"{self._digest}.*log"))

    def read(self, name: str) -> bytes:
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            # Its writer has finished, or another one has copied it.
            return b""

    def create(self, writer: str, content: bytes) -> "_LogFile":
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(writer)
        # Without a buffer: what could not be written must not be tried again when the file is closed.
        file = path.open("xb", buffering=0)
        try:
            log = _LogFile(file)
            log.write(content)
            os.fsync(file.fileno())
        except OSError:
            file.close()
            path.unlink()
            raise
        return log

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            (self._folder / name).unlink(missing_ok=True)

    def put_aside(self, writer: str) -> None:
        self._path(writer).replace(self._path(writer).with_suffix(".stale"))

    def _path(self, writer: str) -> Path:
        return self._folder / f"{self._digest}.{writer}.log"


class _LogFile:
    def __init__(self, file: BinaryIO) -> None:
        self._file, self._end = file, 0

    def write(self, record: bytes) -> None:
        left = memoryview(record)
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError:
            os.ftruncate(self._file.fileno(), self._end)
            os.lseek(self._file.fileno(), self._end, os.SEEK_SET)
            raise
        self._end += len(record)

    def close(self, keep: bool) -> None:
        self._file.close()


class _InBucket:
    def __init__(self, bucket: "Bucket", digest: str) -> None:
        self._bucket, self._folder = bucket, f"{FOLDER}/{digest}"

    def names(self) -> list[str]:
        rows = {key.rpartition("/")[0] for key in self._keys(self._folder)}
        return sorted(row for row in rows if row.endswith(".log"))

    def read(self, name: str) -> bytes:
        # Whatever follows a gap was sent by somebody whose log another one has copied and removed.
        whole = [key for number, key in enumerate(self._keys(name)) if key == _numbered(name, number)]
        with ThreadPoolExecutor(_N_READER) as readers:
            return b"".join(readers.map(self._content, whole))

    def create(self, writer: str, content: bytes) -> "_LogRow":
        return _LogRow(self._bucket, self._row(writer), content)

    def remove(self, names: Iterable[str]) -> None:
        self._bucket.delete(key for name in names for key in self._keys(name))

    def put_aside(self, writer: str) -> None:
        for key in self._keys(self._row(writer)):
            self._bucket.put_away(key, key.replace(".log/", ".stale/"))

    def _row(self, writer: str) -> str:
        return f"{self._folder}/{writer}.log"

    def _keys(self, folder: str) -> list[str]:
        return sorted(file.key for file in self._bucket.files(folder))

    def _content(self, key: str) -> bytes:
        try:
            return self._bucket.read(key)
        except FileNotFoundError:
            return b""


class _LogRow:
    def __init__(self, bucket: "Bucket", row: str, content: bytes) -> None:
        self._bucket, self._row = bucket, row
        bucket.publish(_numbered(row, 0), content)
        self._unsent: list[bytes] = []
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._send_until_closed, name="evaluation-log", daemon=True)
        self._thread.start()

    def write(self, record: bytes) -> None:
        with self._changed:
            self._changed.wait_for(lambda: len(self._unsent) < MOST_UNSENT or self._error is not None)
            if self._error is not None:
                raise self._error
            self._unsent.append(record)
            self._changed.notify_all()

    def close(self, keep: bool) -> None:
        with self._changed:
            if not keep:
                self._unsent.clear()
            self._closed.set()
            self._changed.notify_all()
        self._thread.join()

    def _send_until_closed(self) -> None:
        number = 1
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._unsent or self._closed.is_set())
                sent = len(self._unsent)
                content = b"".join(self._unsent)
            if not content:
                return
            try:
                self._bucket.publish(_numbered(self._row, number), content)
            except BaseException as error:
                # Whatever it is: nobody may wait for a thread that has ended.
                with self._changed:
                    self._error = error
                    self._changed.notify_all()
                if isinstance(error, OSError):
                    return
                raise
            number += 1
            with self._changed:
                del self._unsent[:sent]
                self._changed.notify_all()
            self._closed.wait(SEND_EVERY_S)


def _numbered(row: str, number: int) -> str:
    return f"{row}/{number:08d}"
