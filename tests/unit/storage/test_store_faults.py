"""Disks that are full, read-only, forbidden or broken: one clear sentence, and a store that is still good."""

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from engine.errors import DamagedObjectError, StoreError
from engine.optimise.problem import Evaluation
from storage.evaluation_log import EvaluationLog
from storage.maintenance import check, list_folder, list_objects
from storage.places.place import ASIDE
from storage.store import Store

KIND = "thing"
OLD, NEW = "aa" * 16, "bb" * 16
SENTENCES = {
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "the disk quota is used up; free some space",
    errno.EACCES: "permission denied; check the owner and mode",
    errno.EROFS: "the file system is read-only; give another folder",
    errno.EIO: "I/O error; look for its cause in the system's log",
    errno.EMFILE: r"too many open files; raise the limit \(ulimit -n\)",
    errno.ENFILE: "too many open files on this machine; end other programs",
    errno.ESTALE: "the file server has lost the file",
}


def noise(number, n=2000):
    return np.random.default_rng(number).random(n)


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "store")
    store.write_arrays(KIND, OLD, {"v": noise(0)}, {})
    store.write_record(KIND, "one", {"is": "old"})
    return store


def assert_still_good(store):
    """Nothing is damaged or half written, what was there is there, and writing goes on."""
    assert check(store, list_objects(store)) == []
    assert list_folder(store, ASIDE) == []
    assert (store.read_arrays(KIND, OLD)[0]["v"] == noise(0)).all()
    assert store.read_record(KIND, "one") == {"is": "old"}
    store.write_arrays(KIND, NEW, {"v": noise(1)}, {})
    store.write_record(KIND, "one", {"is": "new"})
    assert (store.read_arrays(KIND, NEW)[0]["v"] == noise(1)).all()
    assert store.read_record(KIND, "one") == {"is": "new"}


def assert_one_sentence(error):
    assert "\n" not in str(error)
    assert not isinstance(error, DamagedObjectError)


def until_refused(write):
    """Write again and again; return how often it worked, and the error that ended it."""
    for number in range(200):
        try:
            write(number)
        except StoreError as error:
            return number, error
    raise AssertionError("nothing ended it")


class BrokenFile:
    """A file that takes some writes and then fails."""

    def __init__(self, stream, n_good, error):
        self._stream, self._n_good, self._error = stream, n_good, error

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self._stream.close()

    def write(self, content):
        self._n_good -= 1
        if self._n_good < 0:
            raise self._error
        return self._stream.write(content)


def break_writes(patch, n_good, error):
    real = Path.open

    def open_broken(path, mode="r", *args, **kwargs):
        stream = real(path, mode, *args, **kwargs)
        return BrokenFile(stream, n_good, error) if "w" in mode else stream

    patch.setattr(Path, "open", open_broken)


def break_call(patch, owner, name, error):
    def fail(*args, **kwargs):
        raise error

    patch.setattr(owner, name, fail)


@pytest.mark.parametrize("number", SENTENCES, ids=errno.errorcode.get)
@pytest.mark.parametrize("where", ["write 0", "write 5", "open", "sync", "rename"])
def test_a_write_that_fails_is_one_sentence_and_leaves_the_store_good(store, monkeypatch, number, where):
    error = OSError(number, os.strerror(number))
    with monkeypatch.context() as patch:
        match where.split():
            case ["write", n_good]:
                break_writes(patch, int(n_good), error)
            case ["open"]:
                break_call(patch, Path, "open", error)
            case ["sync"]:
                break_call(patch, os, "fsync", error)
            case ["rename"]:
                break_call(patch, Path, "replace", error)
        with pytest.raises(StoreError, match=f"cannot write the store .*{SENTENCES[number]}") as caught:
            store.write_arrays(KIND, NEW, {"v": noise(1)}, {})
        assert_one_sentence(caught.value)
        if where != "write 5":
            for write in (lambda: store.write_record(KIND, "one", {"is": "new"}), store.require_writable):
                with pytest.raises(StoreError, match=SENTENCES[number]):
                    write()
    assert not store.has_arrays(KIND, NEW)
    assert_still_good(store)


@pytest.mark.parametrize(
    "number", [errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.ENOSYS], ids=errno.errorcode.get
)
def test_a_file_system_that_cannot_rename_is_told_of_before_anything_is_computed(store, monkeypatch, number):
    with monkeypatch.context() as patch:
        break_call(patch, Path, "replace", OSError(number, os.strerror(number)))
        for write in (
            store.require_writable,
            lambda: store.write_arrays(KIND, NEW, {"v": noise(1)}, {}),
            lambda: store.write_record(KIND, "one", {}),
        ):
            with pytest.raises(
                StoreError, match=r"cannot rename a file in one step .*another one with --store"
            ):
                write()
    assert_still_good(store)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP], ids=errno.errorcode.get)
def test_folders_that_cannot_be_synced_are_no_error(store, monkeypatch, number):
    def only_files(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):  # noqa: PTH112
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", only_files)
    assert_still_good(store)


def test_a_store_that_can_be_written_is_found_so_and_stays_as_it_was(store):
    before = sorted(path for path in store.folder.rglob("*"))
    store.require_writable()
    assert sorted(path for path in store.folder.rglob("*")) == before


# -- real file systems ----------------------------------------------------------------------------------------------


@pytest.mark.root
def test_a_full_disk_stops_writing_with_one_sentence_and_goes_on_when_there_is_space(tmp_path, mount):
    disk = mount(tmp_path / "disk", "size=2m")
    store = Store(disk / "store")
    store.write_arrays(KIND, OLD, {"v": noise(0)}, {})
    store.write_record(KIND, "one", {"is": "old"})
    written, error = until_refused(
        lambda number: store.write_arrays(
            "tile", f"{number:032x}", {"v": noise(number, 20_000)}, {}, {"v": (1000,)}
        )
    )
    assert_one_sentence(error)
    assert "the disk is full; free some space" in str(error)
    assert written > 3
    # What is left of the disk goes to records, until there is nothing.
    _, error = until_refused(lambda number: store.write_record("note", f"{number}", "x" * 3000))
    assert "the disk is full" in str(error)
    with pytest.raises(StoreError, match="the disk is full"):
        store.require_writable()
    assert len(list((store.folder / "tile").rglob("*.zip"))) == written
    mount(disk, "size=4m")
    assert_still_good(store)


@pytest.mark.root
def test_a_solve_log_on_a_full_disk_ends_with_a_whole_record(tmp_path, mount):
    disk = mount(tmp_path / "disk", "size=1m")
    folder = Store(disk / "store").folder
    log = EvaluationLog(folder, OLD, "first")
    answers = [Evaluation(1.0, noise(number, 3000), np.ones((2, 1)), 1.0) for number in range(200)]
    appended, error = until_refused(lambda number: log.append(noise(number, 5), 0.0, answers[number], 0.0))
    assert_one_sentence(error)
    assert "the disk is full" in str(error)
    log.close(finished=False)
    mount(disk, "size=4m")
    again = EvaluationLog(folder, OLD, "second")
    assert again.n_replayable == appended > 10
    for number in range(appended):
        found = again.replay(noise(number, 5), 0.0)
        assert found is not None
        assert (found.gradient == noise(number, 3000)).all()
    again.close(finished=True)


@pytest.mark.root
def test_a_read_only_store_can_be_read_and_checked_and_not_written(tmp_path, mount):
    disk = mount(tmp_path / "disk", "size=2m")
    store = Store(disk / "store")
    store.write_arrays(KIND, OLD, {"v": noise(0)}, {})
    store.write_record(KIND, "one", {"is": "old"})
    mount(disk, "ro")
    again = Store(disk / "store")
    assert again.has_arrays(KIND, OLD)
    assert again.has_record(KIND, "one")
    assert not again.has_arrays(KIND, NEW)
    assert (again.read_arrays(KIND, OLD)[0]["v"] == noise(0)).all()
    assert check(again, list_objects(again)) == []
    for write in (
        again.require_writable,
        lambda: again.write_arrays(KIND, NEW, {"v": noise(1)}, {}),
        lambda: again.write_record(KIND, "one", {}),
        lambda: again.discard(KIND, OLD),
    ):
        with pytest.raises(StoreError, match="the file system is read-only") as caught:
            write()
        assert_one_sentence(caught.value)
    with pytest.raises(StoreError, match=r"cannot open the store .*the file system is read-only"):
        Store(disk / "new")
    mount(disk, "rw")
    assert_still_good(store)


@pytest.mark.root
def test_a_store_across_two_file_systems_is_refused_before_anything_is_computed(tmp_path, store, mount):
    other = mount(tmp_path / "other", "size=1m")
    store.folder.joinpath(ASIDE).rmdir()
    store.folder.joinpath(ASIDE).symlink_to(other)
    with pytest.raises(StoreError, match="cannot rename a file in one step"):
        store.write_record(KIND, "one", {"is": "new"})
    assert list(other.iterdir()) == []
    assert store.read_record(KIND, "one") == {"is": "old"}


NOBODY = """
import os, sys
from pathlib import Path
import numpy as np
from engine.errors import StoreError
from storage.store import Store
store = Store(Path(sys.argv[1]))
os.setuid(65534)
print(store.has_arrays("thing", "aa" * 16), store.read_record("thing", "one"))
for write in (
    store.require_writable,
    lambda: store.write_arrays("thing", "bb" * 16, {"v": np.ones(3)}, {}),
    lambda: store.discard("thing", "aa" * 16),
    lambda: Store(Path(sys.argv[1]).parent / "new"),
):
    try:
        write()
        print("written")
    except StoreError as error:
        print(error)
"""


@pytest.mark.root
def test_somebody_without_permission_can_read_and_is_told_that_he_may_not_write():
    if os.geteuid() != 0:
        pytest.skip("needs root, to become somebody without permission")
    # Not tmp_path: its parents are closed to others.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        store = Store(folder / "store")
        store.write_arrays(KIND, OLD, {"v": noise(0)}, {})
        store.write_record(KIND, "one", {"is": "old"})
        done = subprocess.run(
            [sys.executable, "-c", NOBODY, str(store.folder)], capture_output=True, text=True, check=False
        )
        first, *others = done.stdout.splitlines()
        assert first == "True {'is': 'old'}", done.stderr
        assert len(others) == 4
        assert all("permission denied; check the owner and mode of the folder" in line for line in others)
        assert_still_good(store)
