"""Looking after a store: its sizes, damage of every kind, and what is deleted and what never is."""

import errno
import os
import zipfile

import numpy as np
import pytest

from engine.errors import DamagedObjectError
from storage import lease
from storage.lease import take_run_lease
from storage.maintenance import (
    check,
    clear_aside,
    list_folder,
    list_objects,
    n_byte_of_store,
    put_away,
    time_of_store_s,
)
from storage.pruning import choose, delete
from storage.store import Store

DAY_S = 86400.0
DIGESTS = [f"{number:02x}" * 16 for number in range(4)]


@pytest.fixture
def store(tmp_path):
    """Return a store with four objects and two records."""
    store = Store(tmp_path / "store")
    for number, digest in enumerate(DIGESTS):
        values = np.random.default_rng(number).random((50, 40))
        store.write_arrays("thing", digest, {"v": values, "n": np.arange(9)}, {}, {"v": (10, 40)})
    store.write_record("note", "one", {"text": "x" * 200})
    store.write_record("case_name", "box", {"case": DIGESTS[0]})
    return store


def age(path, days):
    then_s = path.stat().st_mtime - days * DAY_S
    os.utime(path, (then_s, then_s))


def names(files):
    return {file.name for file in files}


def leave(store, folder, name, days=0.0):
    path = store.folder / folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x" * 1000)
    age(path, days)
    return path


# -- listing --------------------------------------------------------------------------------------------------------


def test_all_objects_are_listed_and_nothing_else(store):
    for folder in ("aside", "damaged", "solve_log", "leases", "prefect", ".snapshot"):
        leave(store, folder, "something.json")
    (store.folder / "thing" / "readme.txt").write_text("not an object")
    (store.folder / "thing" / "00" / "copy.zarr.zip").write_text("not where an object lies")
    objects = list_objects(store)
    assert [(file.kind, file.name) for file in objects] == [
        ("case_name", "box"),
        ("note", "one"),
        *(("thing", digest) for digest in DIGESTS),
    ]
    for file in objects:
        assert file.n_byte == (store.folder / file.key).stat().st_size > 0
        assert file.used_s == (store.folder / file.key).stat().st_mtime


def test_the_size_of_a_store_is_that_of_all_its_files_but_those_of_live_clusters(store):
    (leave(store, "prefect", "a").parent / "deep").mkdir()
    leave(store, "prefect/deep", "b")
    wanted = sum(path.stat().st_size for path in store.folder.rglob("*") if path.is_file())
    leave(store, "clusters", "key")
    assert n_byte_of_store(store) == wanted
    assert sum(file.n_byte for file in list_folder(store, "prefect")) == 2000
    assert list_folder(store, "nowhere") == []


# -- checking -------------------------------------------------------------------------------------------------------


def test_a_whole_store_has_no_findings_and_every_object_is_counted(store):
    done = []
    assert check(store, list_objects(store), lambda: done.append(1)) == []
    assert len(done) == 6


def test_checking_finds_every_changed_byte_that_reading_finds(store):
    path = store.arrays_path("thing", DIGESTS[0])
    (file,) = (f for f in list_objects(store) if store.folder / f.key == path)
    raw = path.read_bytes()
    n_damaged = 0
    for position in range(0, len(raw), 37):
        changed = bytearray(raw)
        changed[position] ^= 1 << position % 8
        path.write_bytes(changed)
        try:
            arrays, _ = store.read_arrays("thing", DIGESTS[0])
            reads = True
            assert (arrays["v"] == np.random.default_rng(0).random((50, 40))).all()
        except DamagedObjectError:
            reads = False
        findings = check(store, [file])
        # Whatever reading notices, checking does; a field that only one of the two looks at is damage as well.
        assert reads or (findings and findings[0].is_damaged), f"byte {position} of {len(raw)}"
        n_damaged += bool(findings)
    assert n_damaged > 0.9 * len(range(0, len(raw), 37))


def test_checking_finds_what_is_cut_off_and_garbage_and_records(store):
    files = list_objects(store)
    os.truncate(store.arrays_path("thing", DIGESTS[0]), 900)
    store.arrays_path("thing", DIGESTS[1]).write_bytes(b"")
    store.arrays_path("thing", DIGESTS[2]).write_bytes(os.urandom(3000))
    record = store.record_path("note", "one")
    record.write_text(record.read_text().replace("xx", "xy", 1))
    store.arrays_path("thing", DIGESTS[3]).unlink()
    findings = check(store, files)
    assert all(finding.is_damaged for finding in findings)
    # What is gone is not damaged: whoever needs it makes it.
    assert names(f.file for f in findings) == {*DIGESTS[:3], "one"}
    assert {f.file.name: f.why for f in findings}["one"] == "wrong checksum"


def test_a_chunk_whose_own_checksum_is_wrong_is_found_under_a_right_zip_checksum(store):
    path = store.arrays_path("thing", DIGESTS[0])
    from storage.sealing import write_sealed

    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    wrong = bytearray(parts["v/c/2/0"])
    wrong[5] ^= 4
    write_sealed(path, {**parts, "v/c/2/0": bytes(wrong)})
    (finding,) = check(store, list_objects(store))
    assert finding.why == "v/c/2/0 has a wrong checksum"
    with pytest.raises(DamagedObjectError):
        store.read_arrays("thing", DIGESTS[0])


def test_what_cannot_be_read_now_is_not_called_damaged_and_not_put_away(store, monkeypatch):
    real = zipfile.ZipFile.read

    def read(self, name, *args):
        if DIGESTS[1] in str(self.filename):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(self, name, *args)

    monkeypatch.setattr(zipfile.ZipFile, "read", read)
    (finding,) = check(store, list_objects(store))
    assert finding.file.name == DIGESTS[1]
    assert not finding.is_damaged
    assert "I/O error" in finding.why
    assert put_away(store, [finding]) == []
    assert store.has_arrays("thing", DIGESTS[1])


def test_damaged_objects_are_put_away_unless_they_were_made_again_meanwhile(store):
    for digest in DIGESTS[:2]:
        os.truncate(store.arrays_path("thing", digest), 500)
    findings = check(store, list_objects(store))
    store.write_arrays("thing", DIGESTS[0], {"v": np.zeros(3)}, {})
    assert names(f.file for f in put_away(store, findings)) == {DIGESTS[1]}
    assert store.has_arrays("thing", DIGESTS[0])
    assert not store.has_arrays("thing", DIGESTS[1])
    (kept,) = list_folder(store, "damaged")
    assert kept.n_byte == 500
    # Kept for a while from now on, however long ago it was last used.
    assert time_of_store_s(store) - kept.used_s < 60.0
    assert check(store, list_objects(store)) == []


def test_what_killed_writers_left_is_removed_but_not_what_a_live_run_writes(store):
    leave(store, "aside", "old", days=1.0)
    leave(store, "aside", "new")
    with take_run_lease(store.folder):
        assert names(clear_aside(store)) == {"old"}
        assert names(list_folder(store, "aside")) == {"new"}
    assert names(clear_aside(store)) == {"new"}
    assert list_folder(store, "aside") == []


# -- pruning --------------------------------------------------------------------------------------------------------


def test_what_was_not_used_for_long_goes_and_what_was_looked_up_stays(store):
    for digest in DIGESTS:
        age(store.arrays_path("thing", digest), 40.0)
    age(store.arrays_path("thing", DIGESTS[0]), 1.0)
    assert store.has_arrays("thing", DIGESTS[1])
    chosen = choose(store, 30.0 * DAY_S, None, ())
    assert names(chosen.files) == {DIGESTS[0], DIGESTS[2], DIGESTS[3]}
    # The longest unused first.
    assert chosen.files[0].name == DIGESTS[0]
    assert all((store.folder / file.key).exists() for file in chosen.files)
    assert delete(store, chosen.files) == list(chosen.files)
    assert names(list_objects(store)) == {DIGESTS[1], "one", "box"}
    assert n_byte_of_store(store) == chosen.n_byte_left


def test_a_store_comes_down_to_a_size_by_losing_the_longest_unused_and_no_more(store):
    for days, digest in enumerate(DIGESTS, start=1):
        age(store.arrays_path("thing", digest), days)
    total = n_byte_of_store(store)
    one = store.arrays_path("thing", DIGESTS[3]).stat().st_size
    chosen = choose(store, None, total - one - 1, ())
    assert [file.name for file in chosen.files] == [DIGESTS[3], DIGESTS[2]]
    assert chosen.n_byte_left <= total - one - 1
    assert choose(store, None, total, ()).files == ()
    assert names(choose(store, None, 0.0, ()).files) == {*DIGESTS, "one", "box"}


def test_age_and_size_together_delete_what_either_asks_for(store):
    for days, digest in enumerate(DIGESTS, start=1):
        age(store.arrays_path("thing", digest), 10.0 * days)
    total = n_byte_of_store(store)
    assert len(choose(store, 35.0 * DAY_S, total, ()).files) == 1
    assert len(choose(store, 15.0 * DAY_S, total, ()).files) == 3
    one = store.arrays_path("thing", DIGESTS[0]).stat().st_size
    assert len(choose(store, 35.0 * DAY_S, total - 1.5 * one, ()).files) == 2


def test_spared_kinds_stay_however_old_and_large(store):
    for file in list_objects(store):
        age(store.folder / file.key, 100.0)
    chosen = choose(store, DAY_S, 0.0, ("case_name", "note"))
    assert names(chosen.files) == set(DIGESTS)
    assert chosen.n_byte_left > 0


def test_leftovers_go_by_the_same_rule_and_prefect_and_leases_never(store):
    for folder in ("aside", "damaged", "solve_log", "prefect", "leases"):
        leave(store, folder, f"{folder}-old", days=50.0)
        leave(store, folder, f"{folder}-new")
    chosen = choose(store, 30.0 * DAY_S, None, ())
    assert names(chosen.files) == {"aside-old", "damaged-old", "solve_log-old"}
    assert {"prefect-old", "leases-old"}.isdisjoint(names(choose(store, 0.0, 0.0, ()).files))


def test_nothing_that_a_live_run_has_used_goes_and_no_log_that_it_may_go_on_with(store):
    log = leave(store, "solve_log", "solve.log", days=50.0)
    for digest in DIGESTS:
        age(store.arrays_path("thing", digest), 50.0)
    with take_run_lease(store.folder):
        assert store.has_arrays("thing", DIGESTS[0])
        chosen = choose(store, 0.0, 0.0, ())
        # Those that were written less than a minute before the run began stay as well.
        assert names(chosen.files) == set(DIGESTS[1:])
        assert chosen.n_held == 4
        assert names(delete(store, chosen.files)) == set(DIGESTS[1:])
    assert log.exists()
    assert names(choose(store, 30.0 * DAY_S, None, ()).files) == {"solve.log"}


def test_an_object_that_is_used_between_choosing_and_deleting_stays(store):
    for digest in DIGESTS:
        age(store.arrays_path("thing", digest), 50.0)
    log = leave(store, "solve_log", "solve.log", days=50.0)
    chosen = choose(store, DAY_S, None, ())
    assert len(chosen.files) == 5
    with take_run_lease(store.folder):
        assert store.has_arrays("thing", DIGESTS[0])
        store.arrays_path("thing", DIGESTS[1]).unlink()
        assert names(delete(store, chosen.files)) == {DIGESTS[2], DIGESTS[3]}
    assert log.exists()
    assert store.has_arrays("thing", DIGESTS[0])


def test_a_run_that_has_ended_holds_nothing(store):
    with take_run_lease(store.folder):
        pass
    assert lease.live_since(store.folder) is None
    for digest in DIGESTS:
        age(store.arrays_path("thing", digest), 50.0)
    assert len(choose(store, DAY_S, None, ()).files) == 4


def test_a_store_can_be_written_after_everything_in_it_was_pruned(store):
    delete(store, choose(store, None, 0.0, ()).files)
    assert list_objects(store) == []
    store.write_arrays("thing", DIGESTS[0], {"v": np.ones(3)}, {})
    assert (Store(store.folder).read_arrays("thing", DIGESTS[0])[0]["v"] == 1.0).all()
