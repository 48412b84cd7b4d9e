"""Folder and database of an embedded Prefect server: of its own for each run, copied, cleared away."""

import json
import os
import sqlite3
from contextlib import closing

import pytest

from flows.prefect_database import NAME, keep_database, provide_database
from flows.prefect_server import own_folder


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "nightbeam"


def folder(parent, name):
    path = parent / name
    path.mkdir(parents=True)
    return path


def make_database(home):
    with closing(sqlite3.connect(home / NAME)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE run (name TEXT)")
        database.commit()
        return tables(home)


def tables(home):
    with closing(sqlite3.connect(home / NAME)) as database:
        return database.execute("SELECT name FROM sqlite_master").fetchall()


def test_a_database_that_was_kept_is_provided_to_the_next_server(cache, tmp_path):
    first, second = folder(tmp_path, "first"), folder(tmp_path, "second")
    provide_database(first)
    assert list(first.iterdir()) == []
    made = make_database(first)
    keep_database(first)
    (kept,) = cache.iterdir()
    provide_database(second)
    assert tables(second) == made
    assert [path.name for path in second.iterdir()] == [NAME]
    # One is enough.
    before = kept.stat().st_mtime_ns
    keep_database(second)
    assert kept.stat().st_mtime_ns == before


@pytest.mark.parametrize("place", ["begin", "middle", "cut"])
def test_a_damaged_copy_is_not_provided_and_is_made_again(cache, tmp_path, place):
    first, second, third = (folder(tmp_path, name) for name in ("first", "second", "third"))
    made = make_database(first)
    keep_database(first)
    (kept,) = cache.iterdir()
    content = bytearray(kept.read_bytes())
    if place == "cut":
        content = content[:5000]
    else:
        begin = {"begin": 0, "middle": 4096}[place]
        content[begin : begin + 50] = bytes(50)
    kept.write_bytes(content)
    provide_database(second)
    assert list(second.iterdir()) == []
    keep_database(first)
    provide_database(third)
    assert tables(third) == made


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    home = folder(tmp_path, "home")
    made = make_database(home)
    keep_database(home)
    provide_database(home)
    assert tables(home) == made


def test_each_run_has_a_folder_of_its_own_that_goes_with_it(tmp_path):
    with own_folder(tmp_path / "prefect") as first:
        (first / "server.log").touch()
        with own_folder(tmp_path / "prefect") as second:
            assert first != second
            assert (first / "server.log").exists()
        assert first.exists()
    assert list((tmp_path / "prefect").iterdir()) == []


def test_the_folder_of_a_killed_run_is_cleared_away(tmp_path):
    with own_folder(tmp_path / "prefect") as killed:
        (lease,) = (killed / "leases").iterdir()
        # As if another process had made it, which is gone.
        lease.write_text(json.dumps({**json.loads(lease.read_text()), "started": 1}))
        with own_folder(tmp_path / "prefect"):
            assert not killed.exists()


def test_the_folder_of_a_run_before_the_machine_was_started_anew_is_cleared_away_when_it_has_been_silent(
    tmp_path,
):
    with own_folder(tmp_path / "prefect") as before:
        (lease,) = (before / "leases").iterdir()
        lease.write_text(json.dumps({**json.loads(lease.read_text()), "machine": "another boot"}))
        with own_folder(tmp_path / "prefect"):
            assert before.exists()
        silent_s = lease.stat().st_mtime - 2.0 * 3600.0
        os.utime(lease, (silent_s, silent_s))
        with own_folder(tmp_path / "prefect"):
            assert not before.exists()
