"""A folder: files are written aside, synced and renamed; a file's modification time is when it was last used."""

import errno
import os
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from zarr.storage import ZipStore

from engine.errors import StoreError
from storage.places.place import ASIDE, CLUSTERS, PlacedFile, clear_errors
from storage.sealing import seal_is_whole, verify, write_sealed

R = TypeVar("R")
_NO_RENAME = (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)


class Folder:
    """A `storage.places.place.Place` in a file system.

    Parameters
    ----------
    address
        The folder, as an absolute path.
    """

    def __init__(self, address: Path) -> None:
        self.address = address

    def exists(self) -> bool:
        """Return whether the folder is there."""
        return self.address.is_dir()

    def holds_others(self) -> bool:
        """Return whether there is anything but the folder of what is being written."""
        try:
            return any(child.name != ASIDE for child in self.address.iterdir())
        except FileNotFoundError:
            return False

    def prepare(self) -> None:
        """Make the folder, and the one where files are written."""
        (self.address / ASIDE).mkdir(parents=True, exist_ok=True)

    def require_writable(self) -> None:
        """Write and publish a small file, as results are, and remove it again."""
        final = self.address / ASIDE / f"{uuid.uuid4().hex}.probe"
        try:
            self._publish_by(final, lambda aside: _write(aside, bytes(4096)))
        finally:
            with clear_errors(self.address, "write"):
                final.unlink(missing_ok=True)

    def publish(self, key: str, content: bytes) -> None:
        """Write a file aside and rename it."""
        self._publish_by(self.address / key, lambda aside: _write(aside, content))

    def publish_parts(self, key: str, parts: Mapping[str, bytes]) -> None:
        """Write a sealed file aside and rename it."""
        self._publish_by(self.address / key, lambda aside: write_sealed(aside, parts))

    def read(self, key: str) -> bytes:
        """Return a file."""
        return self._found(key, Path.read_bytes)

    def open_parts(self, key: str, whole: bool) -> ZipStore:
        """Open a sealed file; what is read of it comes from the disk then."""
        # zarr reads a chunk that is not there as zeros, without a word. The seal protects the list of chunks: no
        # chunk can vanish from it, or change its name or length, unnoticed.
        if not self._found(key, seal_is_whole):
            raise ValueError("the list of its parts has a wrong checksum")
        return ZipStore(self.address / key, mode="r")

    def verify(self, key: str) -> None:
        """Read a sealed file, and compare all its checksums."""
        self._found(key, verify)

    def is_there(self, key: str) -> bool:
        """Return whether there is such a file."""
        # Not `exists`, which in some versions of Python says no of what may not be looked at.
        try:
            self._found(key, Path.stat)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def use(self, key: str) -> bool:
        """Return whether a file is there, and set its modification time to now."""
        try:
            self._found(key, os.utime)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            # A store that may only be read: it cannot be pruned either.
            (self.address / key).stat()
        return True

    def put_away(self, key: str, to: str) -> None:
        """Rename a file, if it is still there."""
        kept = self.address / to
        kept.parent.mkdir(exist_ok=True)
        # Another process may have met the same damage and been faster.
        with suppress(FileNotFoundError):
            (self.address / key).replace(kept)
            os.utime(kept)

    def delete(self, keys: Iterable[str]) -> None:
        """Delete files, if they are still there."""
        for key in keys:
            (self.address / key).unlink(missing_ok=True)

    def delete_unused_since(self, file: PlacedFile) -> bool:
        """Delete a file unless its time has changed since it was listed."""
        path = self.address / file.key
        with suppress(FileNotFoundError):
            if path.stat().st_mtime == file.used_s:
                path.unlink()
                return True
        return False

    def folders(self) -> list[str]:
        """Return the names of the folders in the folder."""
        with os.scandir(self.address) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir())

    def files(self, folder: str) -> Iterator[PlacedFile]:
        """Yield all files in a folder and those below it; files that vanish meanwhile are left out."""
        with suppress(FileNotFoundError), os.scandir(self.address / folder) as entries:
            for entry in entries:
                key = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_dir(follow_symlinks=False):
                    # Some file servers show earlier states of a folder in a hidden one; and folders of clusters hold
                    # keys, so they are closed to other users, who may look after the store as well.
                    if not entry.name.startswith(".") and key != CLUSTERS:
                        yield from self.files(key)
                    continue
                with suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    yield PlacedFile(key, status.st_size, status.st_mtime)

    def time_s(self) -> float:
        """Return the time that a new file gets."""
        with tempfile.TemporaryFile(dir=self.address / ASIDE) as stream:
            return os.fstat(stream.fileno()).st_mtime

    def _found(self, key: str, look: Callable[[Path], R]) -> R:
        """Return what a look at a file returns; one that seems to be missing is looked for once more.

        A network file system may remember for a minute that a name was missing, and asks its server again when the
        folder is opened.
        """
        path = self.address / key
        try:
            return look(path)
        except FileNotFoundError:
            self._open_anew(path.parent)
            return look(path)

    def _open_anew(self, folder: Path) -> None:
        try:
            os.close(os.open(folder, os.O_RDONLY))
        except FileNotFoundError:
            # That may be only remembered, too.
            if folder == self.address:
                raise
            self._open_anew(folder.parent)
            os.close(os.open(folder, os.O_RDONLY))

    def _publish_by(self, final: Path, write: Callable[[Path], None]) -> None:
        """Have a file written and synced aside, then rename it."""
        aside = self.address / ASIDE / f"{uuid.uuid4().hex}-{final.name}"
        with clear_errors(self.address, "write"):
            try:
                write(aside)
                final.parent.mkdir(parents=True, exist_ok=True)
                try:
                    aside.replace(final)
                except OSError as error:
                    if error.errno in _NO_RENAME:
                        raise StoreError(
                            f"cannot write the store {self.address}: its file system cannot rename a file in one step "
                            f"({error.strerror}); put the store on another one with --store"
                        ) from error
                    raise
                _sync_folder(final.parent)
            finally:
                aside.unlink(missing_ok=True)


def _write(aside: Path, content: bytes) -> None:
    with aside.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


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
