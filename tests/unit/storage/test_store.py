"""The store: whole objects or none, damage that is always noticed, one clear error when it cannot be used."""

import errno
import json
import os
import pickle
import resource
import shutil
import tempfile
import threading
import zipfile
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path

import crc32c
import numpy as np
import pytest
from zarr.storage import ZipStore

from engine.errors import DamagedObjectError, MissingObjectError, StoreError
from storage.store import SCHEMA_VERSION, Store

KIND = "thing"
DIGEST = "ab" * 16
ARRAYS = {
    "counts": np.arange(300, dtype=np.uint16).reshape(100, 3),
    "gy": np.linspace(0.0, 1.0, 50),
    # zarr writes no chunk for zeros: that must stay different from a chunk that was lost.
    "zeros": np.zeros((4, 5), np.float32),
    "none": np.empty((0, 8), np.uint16),
}
ATTRIBUTES = {"n": 3, "provenance": {"made_from": ["a", 1.5]}}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def thing(store):
    """Return the path of a published object."""
    store.write_arrays(KIND, DIGEST, ARRAYS, ATTRIBUTES)
    return store.arrays_path(KIND, DIGEST)


def same(arrays, attributes):
    return (
        set(arrays) == set(ARRAYS)
        and all(
            arrays[name].dtype == a.dtype and np.array_equal(arrays[name], a) for name, a in ARRAYS.items()
        )
        and attributes == ATTRIBUTES
    )


def found_or_damage(read):
    """Return what was read and None, or None and the damage that was found."""
    try:
        return read(), None
    except DamagedObjectError as error:
        return None, error


def files_aside(store):
    return list((store.folder / "aside").iterdir())


# -- arrays ---------------------------------------------------------------------------------------------------------


def test_arrays_come_back_as_they_were(store, thing):
    assert store.has_arrays(KIND, DIGEST)
    assert same(*store.read_arrays(KIND, DIGEST))
    assert files_aside(store) == []


def test_some_arrays_and_parts_of_arrays_can_be_read(store, thing):
    arrays, _ = store.read_arrays(KIND, DIGEST, ["gy"])
    assert list(arrays) == ["gy"]
    with store.open_arrays(KIND, DIGEST) as (group, attributes):
        assert (group["counts"][40:60] == ARRAYS["counts"][40:60]).all()
        assert attributes == ATTRIBUTES


@pytest.mark.parametrize("chunks", [(1, 1), (7, 2), (100, 3), (200, 5)])
def test_chunks_of_any_shape_hold_the_same_array(store, chunks):
    array = ARRAYS["counts"]
    store.write_arrays(KIND, DIGEST, {"counts": array}, {}, {"counts": chunks})
    assert (store.read_arrays(KIND, DIGEST)[0]["counts"] == array).all()


def test_an_object_without_arrays_keeps_its_attributes(store):
    store.write_arrays(KIND, DIGEST, {}, ATTRIBUTES)
    assert store.read_arrays(KIND, DIGEST) == ({}, ATTRIBUTES)


def test_what_was_never_made_is_a_clear_error(store):
    assert not store.has_arrays(KIND, DIGEST)
    with pytest.raises(MissingObjectError, match=f"stored {KIND} {DIGEST} is missing") as caught:
        store.read_arrays(KIND, DIGEST)
    assert (caught.value.kind, caught.value.digest) == (KIND, DIGEST)


def test_an_object_that_was_deleted_a_moment_ago_is_missing(store, thing):
    assert store.has_arrays(KIND, DIGEST)
    thing.unlink()
    with pytest.raises(MissingObjectError, match="made again"):
        store.read_arrays(KIND, DIGEST)
    with pytest.raises(MissingObjectError):
        store.verify_arrays(KIND, DIGEST)
    store.write_record(KIND, "one", 1)
    assert store.has_record(KIND, "one")
    store.record_path(KIND, "one").unlink()
    with pytest.raises(MissingObjectError, match="stored thing one is missing"):
        store.read_record(KIND, "one")


def test_an_object_that_is_deleted_while_it_is_opened_is_missing(store, thing, monkeypatch):
    def delete_first(path, mode):
        thing.unlink()
        return ZipStore(path, mode=mode)

    monkeypatch.setattr("storage.places.folder.ZipStore", delete_first)
    with pytest.raises(MissingObjectError):
        store.read_arrays(KIND, DIGEST)


def test_errors_of_whoever_reads_stay_what_they_are(store, thing):
    for error in (ValueError("mine"), KeyError("mine"), OSError(errno.EIO, "mine"), RuntimeError("mine")):
        with pytest.raises(type(error)) as caught, store.open_arrays(KIND, DIGEST):
            raise error
        assert caught.value is error


def test_an_array_that_is_not_in_the_object_is_damage(store, thing):
    with store.open_arrays(KIND, DIGEST) as (arrays, _), pytest.raises(DamagedObjectError, match="'dose'"):
        arrays["dose"]


def test_damage_is_found_when_a_part_is_read_and_not_before(store, thing):
    content = bytearray(thing.read_bytes())
    content[content.index(b"gy/c/0") + 20] ^= 1
    thing.write_bytes(content)
    with store.open_arrays(KIND, DIGEST) as (arrays, _):
        assert (arrays["counts"][...] == ARRAYS["counts"]).all()
        assert arrays["gy"].shape == (50,)
        with pytest.raises(DamagedObjectError, match=DIGEST):
            arrays["gy"][:3]


# -- last use -------------------------------------------------------------------------------------------------------


def test_to_find_an_object_is_to_use_it(store, thing):
    store.write_record(KIND, "one", 1)
    record = store.record_path(KIND, "one")
    for path in (thing, record):
        os.utime(path, (1000.0, 1000.0))
    store.read_arrays(KIND, DIGEST)
    assert thing.stat().st_mtime == 1000.0
    begin_s = Path(tempfile.mkstemp(dir=store.folder)[1]).stat().st_mtime
    assert store.has_arrays(KIND, DIGEST)
    assert store.has_record(KIND, "one")
    for path in (thing, record):
        assert path.stat().st_mtime >= begin_s


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM], ids=errno.errorcode.get)
def test_an_object_is_found_where_its_time_cannot_be_set(store, thing, monkeypatch, number):
    def refuse(path):
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, "no", str(path))
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "utime", refuse)
    assert store.has_arrays(KIND, DIGEST)
    assert not store.has_arrays(KIND, "cd" * 16)
    assert same(*store.read_arrays(KIND, DIGEST))


# -- damage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_remembered", [1, 2, 3])
def test_an_object_is_found_where_a_name_is_remembered_as_missing(store, thing, monkeypatch, n_remembered):
    # As a mount of NFS does, until the folder of the name is opened.
    remembered = {thing, *thing.parents[: n_remembered - 1]}

    def as_remembered(call):
        def look(path, *arguments, **more):
            if remembered & {Path(path), *Path(path).parents}:
                raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
            found = call(path, *arguments, **more)
            remembered.difference_update({child for child in remembered if child.parent == Path(path)})
            return found

        return look

    for name in ("open", "utime"):
        monkeypatch.setattr(os, name, as_remembered(getattr(os, name)))
    assert store.has_arrays(KIND, DIGEST)


def test_a_changed_byte_is_never_taken_for_the_object(store, thing):
    raw = thing.read_bytes()
    damaged = 0
    positions = range(0, len(raw), 5)
    for position in positions:
        changed = bytearray(raw)
        changed[position] ^= 1 << position % 8
        thing.write_bytes(changed)
        found, damage = found_or_damage(lambda: store.read_arrays(KIND, DIGEST))
        if damage is not None:
            assert (damage.kind, damage.digest) == (KIND, DIGEST)
            assert f"stored {KIND} {DIGEST} is damaged" in str(damage)
            damaged += 1
        else:
            # Dates and versions inside the zip file mean nothing; a change there is harmless.
            assert same(*found), f"byte {position} of {len(raw)} was changed and not noticed"
    assert damaged > 0.85 * len(positions)


def test_a_changed_byte_of_content_is_damage(store, thing):
    raw = bytearray(thing.read_bytes())
    for name in (b"counts/c/0/0", b"gy/c/0"):
        # The name stands once before the content and once in the directory at the end.
        begin = raw.index(name) + len(name)
        changed = bytearray(raw)
        changed[begin + 10] ^= 1
        thing.write_bytes(changed)
        with pytest.raises(DamagedObjectError):
            store.read_arrays(KIND, DIGEST)


def test_a_file_that_was_cut_off_is_damage(store, thing):
    raw = thing.read_bytes()
    for length in [0, 1, 21, 22, *range(23, len(raw), 97), len(raw) - 1]:
        thing.write_bytes(raw[:length])
        with pytest.raises(DamagedObjectError, match=DIGEST):
            store.read_arrays(KIND, DIGEST)


def test_garbage_is_damage(store, thing):
    for garbage in (b"not a zip file at all" * 50, bytes(4096), os.urandom(4096)):
        thing.write_bytes(garbage)
        with pytest.raises(DamagedObjectError, match=DIGEST):
            store.read_arrays(KIND, DIGEST)


TROUBLES = (errno.EMFILE, errno.ENFILE, errno.EIO, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT, errno.EACCES)


def fail_at(monkeypatch, owner, name, n_good, error):
    """Let a function work some times and then fail."""
    original, n_call = getattr(owner, name), 0

    def function(*args, **kwargs):
        nonlocal n_call
        n_call += 1
        if n_call > n_good:
            raise error
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, function)


@pytest.mark.parametrize("number", TROUBLES, ids=errno.errorcode.get)
@pytest.mark.parametrize(
    ("owner", "name", "n_good"),
    [
        (zipfile.ZipFile, "__init__", 0),  # opened for the seal
        (zipfile.ZipFile, "__init__", 1),  # opened by zarr
        (zipfile, "_EndRecData", 0),  # zipfile takes every error here for 'not a zip file'
        (zipfile, "_EndRecData", 1),
        (ZipStore, "_get", 0),  # metadata
        (zipfile.ZipExtFile, "read", 3),  # parts of arrays
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_trouble_of_the_machine_is_not_damage(store, thing, monkeypatch, number, owner, name, n_good):
    with monkeypatch.context() as patch:
        fail_at(patch, owner, name, n_good, OSError(number, os.strerror(number)))
        with pytest.raises(StoreError, match="cannot read the store") as caught:
            store.read_arrays(KIND, DIGEST)
    assert not isinstance(caught.value, DamagedObjectError)
    assert same(*store.read_arrays(KIND, DIGEST))


def test_too_many_open_files_are_not_damage(store, thing):
    assert same(*store.read_arrays(KIND, DIGEST))  # zarr's own thread and its files are there now
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(entry.name) for entry in Path("/proc/self/fd").iterdir())
    fillers = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 20, hard))
    try:
        with suppress(OSError):
            while True:
                fillers.append(os.open(os.devnull, os.O_RDONLY))
        with pytest.raises(StoreError, match="too many open files") as caught:
            store.read_arrays(KIND, DIGEST)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for filler in fillers:
            os.close(filler)
    assert not isinstance(caught.value, DamagedObjectError)


def test_a_lack_of_memory_is_not_damage(store, thing, monkeypatch):
    fail_at(monkeypatch, ZipStore, "_get", 3, MemoryError())
    with pytest.raises(MemoryError):
        store.read_arrays(KIND, DIGEST)


def test_a_seek_to_nowhere_is_damage(store, thing, monkeypatch):
    fail_at(monkeypatch, zipfile.ZipExtFile, "read", 3, OSError(errno.EINVAL, "Invalid argument"))
    with pytest.raises(DamagedObjectError, match=DIGEST):
        store.read_arrays(KIND, DIGEST)


def test_a_folder_in_place_of_an_object_is_an_error_of_the_store(store):
    store.arrays_path(KIND, DIGEST).mkdir(parents=True)
    with pytest.raises(StoreError):
        store.read_arrays(KIND, DIGEST)


def test_a_discarded_object_is_gone_and_can_be_made_again(store, thing):
    thing.write_bytes(b"damaged")
    store.discard(KIND, DIGEST)
    assert not store.has_arrays(KIND, DIGEST)
    (kept,) = (store.folder / "damaged").iterdir()
    assert kept.read_bytes() == b"damaged"
    store.discard(KIND, DIGEST)
    store.write_arrays(KIND, DIGEST, ARRAYS, ATTRIBUTES)
    assert same(*store.read_arrays(KIND, DIGEST))


def test_damage_travels_between_processes_with_its_fields():
    error = pickle.loads(pickle.dumps(DamagedObjectError("influence", DIGEST, "wrong checksum")))
    assert (error.kind, error.digest, error.why) == ("influence", DIGEST, "wrong checksum")
    assert str(error) == f"stored influence {DIGEST} is damaged (wrong checksum); it has to be made again"


def test_a_store_travels_between_processes(store, thing):
    again = pickle.loads(pickle.dumps(store))
    assert again.folder == store.folder
    assert same(*again.read_arrays(KIND, DIGEST))


# -- records --------------------------------------------------------------------------------------------------------


def test_a_record_comes_back_and_is_replaced(store):
    content = {"text": "Grüße", "numbers": [1, 2.5, None, True]}
    store.write_record(KIND, "one", {"old": 1})
    store.write_record(KIND, "one", content)
    store.write_record(KIND, "two", [])
    assert store.read_record(KIND, "one") == content
    assert store.record_names(KIND) == ["one", "two"]
    assert store.record_names("other") == []
    assert store.has_record(KIND, "two")
    assert not store.has_record(KIND, "three")


def test_a_missing_record_is_a_clear_error(store):
    with pytest.raises(MissingObjectError, match="stored thing one is missing"):
        store.read_record(KIND, "one")


def test_a_changed_byte_of_a_record_is_never_taken_for_the_record(store):
    content = {"weights": [1.5, 2.5], "name": "plan"}
    store.write_record(KIND, "one", content)
    path = store.record_path(KIND, "one")
    raw = path.read_bytes()
    for position in range(len(raw)):
        for bit in (1, 0x20, 0x80):
            changed = bytearray(raw)
            changed[position] ^= bit
            path.write_bytes(changed)
            found, damage = found_or_damage(lambda: store.read_record(KIND, "one"))
            if damage is not None:
                assert (damage.kind, damage.digest) == (KIND, "one")
            else:
                assert found == content


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"3",
        b"null",
        b"[]",
        b'{"content": 3, "crc32c": 1}',
        b'{"content": "1"}',
        b"\xff\xfe",
        json.dumps({"content": "{}", "crc32c": crc32c.crc32c(b"{}") ^ 1}).encode(),
        json.dumps({"content": "{", "crc32c": crc32c.crc32c(b"{")}).encode(),
    ],
)
def test_a_record_that_is_not_one_is_damage(store, raw):
    store.write_record(KIND, "one", {})
    store.record_path(KIND, "one").write_bytes(raw)
    with pytest.raises(DamagedObjectError, match="thing one is damaged"):
        store.read_record(KIND, "one")


# -- folders that cannot be a store ---------------------------------------------------------------------------------


def test_a_store_is_opened_again_and_does_not_touch_its_content(tmp_path):
    Store(tmp_path / "deep" / "store").write_record(KIND, "one", 1)
    assert Store(tmp_path / "deep" / "store").read_record(KIND, "one") == 1


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(StoreError, match="not a nightbeam store and not empty"):
        Store(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_another_schema_version_is_refused(store):
    (store.folder / "nightbeam-store.json").write_text(json.dumps({"schema_version": SCHEMA_VERSION + 1}))
    with pytest.raises(StoreError, match=f"schema version {SCHEMA_VERSION + 1}"):
        Store(store.folder)


@pytest.mark.parametrize("text", ["", "[]", "garbage", "{}"])
def test_a_marker_that_cannot_be_read_is_a_clear_error(store, text):
    (store.folder / "nightbeam-store.json").write_text(text)
    with pytest.raises(StoreError, match=r"nightbeam-store\.json cannot be read"):
        Store(store.folder)


@pytest.mark.parametrize("place", ["store", "store/inside"])
def test_a_file_in_the_way_is_a_clear_error(tmp_path, place):
    (tmp_path / "store").write_text("I am a file")
    with pytest.raises(StoreError, match=r"cannot open the store .*part of the path is a file"):
        Store(tmp_path / place)


def test_a_folder_without_permission_is_a_clear_error():
    if os.geteuid() != 0:
        pytest.skip("needs root, to become somebody without permission")
    # Not tmp_path: its parents are closed to others.
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        folder.chmod(0o755)
        store = Store(folder / "store")
        store.write_record(KIND, "one", 1)
        nobody = 65534
        os.seteuid(nobody)
        try:
            with pytest.raises(StoreError, match=r"cannot open the store .*permission denied"):
                Store(folder / "new")
            with pytest.raises(StoreError, match=r"cannot write the store .*permission denied"):
                store.write_arrays(KIND, DIGEST, ARRAYS, ATTRIBUTES)
            with pytest.raises(StoreError, match=r"cannot write the store .*permission denied"):
                store.write_record(KIND, "one", 2)
            assert store.read_record(KIND, "one") == 1
        finally:
            os.seteuid(0)
        (store.folder / KIND).chmod(0o700)
        os.seteuid(nobody)
        try:
            with pytest.raises(StoreError, match=r"cannot read the store .*permission denied"):
                store.read_record(KIND, "one")
            with pytest.raises(StoreError, match=r"cannot read the store .*permission denied"):
                store.has_arrays(KIND, DIGEST)
        finally:
            os.seteuid(0)
    finally:
        shutil.rmtree(folder)


def test_an_object_that_may_not_be_read_is_not_called_damaged(store, thing, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr("storage.places.folder.ZipStore", refuse)
    with pytest.raises(StoreError, match="permission denied") as caught:
        store.read_arrays(KIND, DIGEST)
    assert not isinstance(caught.value, DamagedObjectError)


# -- writing that fails ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("old", [False, True])
def test_a_full_disk_is_a_clear_error_and_leaves_nothing_half_written(store, monkeypatch, old):
    if old:
        store.write_arrays(KIND, DIGEST, ARRAYS, ATTRIBUTES)
        store.write_record(KIND, "one", "old")

    def no_space(self, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", no_space)
    with pytest.raises(StoreError, match="the disk is full"):
        store.write_arrays(KIND, DIGEST, {"gy": np.ones(3)}, {})
    with pytest.raises(StoreError, match="the disk is full"):
        store.write_record(KIND, "one", "new")
    monkeypatch.undo()
    assert files_aside(store) == []
    assert store.has_arrays(KIND, DIGEST) == old
    assert store.has_record(KIND, "one") == old
    if old:
        assert same(*store.read_arrays(KIND, DIGEST))
        assert store.read_record(KIND, "one") == "old"


def write_with_a_size_limit(folder, limit_bytes, answers):
    store = Store(folder)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))
    try:
        store.write_arrays(KIND, DIGEST, {"noise": np.random.default_rng(1).random(200_000)}, {})
    except StoreError as error:
        answers.put(str(error))
    else:
        answers.put("written")


def test_a_write_that_fails_in_the_middle_leaves_nothing(store):
    # A limit of file size stops the write after some hundred kilobytes, as a full disk does.
    context = get_context("spawn")
    answers = context.SimpleQueue()
    child = context.Process(target=write_with_a_size_limit, args=(store.folder, 300_000, answers))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert "cannot write the store" in answers.get()
    assert not store.has_arrays(KIND, DIGEST)
    assert files_aside(store) == []


# -- many writers ---------------------------------------------------------------------------------------------------


def test_threads_that_publish_the_same_digest_leave_one_whole_object(store):
    errors = []

    def publish():
        try:
            for _ in range(5):
                store.write_arrays(KIND, DIGEST, ARRAYS, ATTRIBUTES)
                assert same(*store.read_arrays(KIND, DIGEST))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=publish) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert files_aside(store) == []


def open_and_publish(folder):
    store = Store(folder)
    for _ in range(5):
        store.write_arrays(KIND, DIGEST, ARRAYS, ATTRIBUTES)
        assert same(*store.read_arrays(KIND, DIGEST))
        store.write_record(KIND, "one", ATTRIBUTES)
        assert store.read_record(KIND, "one") == ATTRIBUTES


def test_processes_that_open_and_fill_the_same_new_store_do_not_disturb_each_other(tmp_path):
    context = get_context("spawn")
    children = [context.Process(target=open_and_publish, args=(tmp_path / "store",)) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0]
    assert same(*Store(tmp_path / "store").read_arrays(KIND, DIGEST))


@pytest.mark.parametrize("name", ["../escape", "a/b", "", ".hidden", "x" * 101, "line\nbreak"])
def test_a_name_that_could_lead_out_of_the_store_is_refused(tmp_path, name):
    store = Store(tmp_path / "store")
    with pytest.raises(StoreError, match="cannot be a name"):
        store.write_record("case_name", name, {})
    with pytest.raises(StoreError, match="cannot be a name"):
        store.has_record("case_name", name)
