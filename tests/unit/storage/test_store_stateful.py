"""The store in any order of events: what reads is what was written, and damage never passes for a result."""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from engine.errors import DamagedObjectError, MissingObjectError, StoreError
from storage import sealing
from storage.maintenance import check, clear_aside, list_objects, put_away
from storage.places.place import ASIDE
from storage.pruning import choose, delete
from storage.store import Store

KIND = "thing"
ARRAYS = ("aa" * 16, "ab" * 16)
RECORDS = ("one", "two")
NAMES = ARRAYS + RECORDS
MISSING, DAMAGED = "missing", "damaged"
DAY_S = 86400.0

names = st.sampled_from(NAMES)
contents = st.integers(0, 9)
places = st.floats(0.0, 1.0, exclude_max=True)


class CrashError(BaseException):
    """Stands for the end of the process: nothing in the store may catch it."""


def arrays_of(content: int) -> dict[str, np.ndarray]:
    return {"v": np.arange(40, dtype=np.int32) * content, "noise": np.random.default_rng(content).random(60)}


class StoreAgainstModel(RuleBasedStateMachine):
    """The model says, for every name, what may be found: some contents, nothing, or damage."""

    @initialize()
    def begin(self):
        self.folder = Path(tempfile.mkdtemp())
        self.store = Store(self.folder / "store")
        self.may_be: dict[str, set[int | str]] = {name: {MISSING} for name in NAMES}
        self.was: dict[str, int | str] = dict.fromkeys(NAMES, MISSING)
        self.aged: set[str] = set()

    def teardown(self):
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- what the rules are made of --

    def path(self, name: str) -> Path:
        return self.store.arrays_path(KIND, name) if name in ARRAYS else self.store.record_path(KIND, name)

    def inode(self, name: str) -> int | None:
        return self.path(name).stat().st_ino if self.path(name).exists() else None

    def write(self, name: str, content: int) -> None:
        if name in ARRAYS:
            self.store.write_arrays(KIND, name, arrays_of(content), {"content": content})
        else:
            self.store.write_record(KIND, name, {"content": content})

    def find(self, name: str) -> int | str:
        """Return the content if it is whole and exactly what was written under it."""
        try:
            if name in RECORDS:
                record = self.store.read_record(KIND, name)
                assert set(record) == {"content"}
                return int(record["content"])
            arrays, attributes = self.store.read_arrays(KIND, name)
        except MissingObjectError:
            return MISSING
        except DamagedObjectError:
            return DAMAGED
        wanted = arrays_of(attributes["content"])
        assert set(arrays) == set(wanted)
        for key, array in wanted.items():
            np.testing.assert_array_equal(arrays[key], array)
        return int(attributes["content"])

    def crash(self, name: str, content: int, break_in: Callable[[pytest.MonkeyPatch], None], error) -> bool:
        """Write with something broken; return whether it failed."""
        with pytest.MonkeyPatch.context() as patch:
            break_in(patch)
            if error is CrashError:
                # A killed process clears nothing away.
                patch.setattr(Path, "unlink", lambda path, missing_ok=False: None)
            try:
                self.write(name, content)
            except (error, StoreError):
                return True
        return False

    # -- rules --

    @rule(name=names, content=contents)
    def publish(self, name, content):
        self.write(name, content)
        self.may_be[name] = {content}
        self.aged.discard(name)

    @rule(
        name=names,
        content=contents,
        where=st.sampled_from(
            [(os, "fsync"), (Path, "replace"), (Path, "mkdir"), (os, "open"), (zipfile.ZipFile, "writestr")]
        ),
        n_good=st.integers(0, 3),
        error=st.sampled_from([CrashError, OSError]),
    )
    def fail_in_the_middle_of_writing(self, name, content, where, n_good, error):
        owner, function = where
        real, calls = getattr(owner, function), 0

        def broken(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls > n_good:
                raise error
            return real(*args, **kwargs)

        before = self.inode(name)
        failed = self.crash(name, content, lambda patch: patch.setattr(owner, function, broken), error)
        # Published before it failed, at the sync of the folder, or not at all; nothing in between.
        self.may_be[name] = self.may_be[name] | {content} if failed else {content}
        if self.inode(name) != before:
            self.aged.discard(name)

    @rule(name=names, content=contents, share=places)
    def be_killed_in_the_middle_of_a_file(self, name, content, share):
        def cut(path, *args):
            sealing_write(path, *args)
            os.truncate(path, int(path.stat().st_size * share))
            raise CrashError

        sealing_write = sealing.write_sealed
        if name in ARRAYS:
            assert self.crash(
                name,
                content,
                lambda patch: patch.setattr("storage.places.folder.write_sealed", cut),
                CrashError,
            )

    @rule(name=names, content=contents, share=places)
    def be_killed_where_renaming_is_copying(self, name, content, share):
        def copy_a_part(path, target):
            whole = path.read_bytes()
            Path(target).write_bytes(whole[: int(len(whole) * share)])
            raise CrashError

        assert self.crash(
            name, content, lambda patch: patch.setattr(Path, "replace", copy_a_part), CrashError
        )
        self.may_be[name] = {DAMAGED}
        self.aged.discard(name)

    @rule(name=names, mine=contents, other=contents)
    def write_while_another_process_writes_the_same(self, name, mine, other):
        real, nested = Path.replace, False

        def let_the_other_finish_first(path, target):
            nonlocal nested
            if not nested:
                nested = True
                Store(self.store.folder)
                self.write(name, other)
            return real(path, target)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Path, "replace", let_the_other_finish_first)
            self.write(name, mine)
        self.may_be[name] = {mine}
        self.aged.discard(name)

    @rule(name=names, place=places, bit=st.integers(0, 7))
    def flip_a_bit(self, name, place, bit):
        path = self.path(name)
        if path.exists() and path.stat().st_size:
            raw = bytearray(path.read_bytes())
            raw[int(len(raw) * place)] ^= 1 << bit
            path.write_bytes(raw)
            # Some bytes mean nothing: then it reads as it was. Flipped back, it is whole again.
            self.may_be[name] = {*self.may_be[name], DAMAGED, self.was[name]}
            self.aged.discard(name)

    @rule(name=names, place=places)
    def cut_off(self, name, place):
        path = self.path(name)
        if path.exists() and path.stat().st_size:
            os.truncate(path, int(path.stat().st_size * place))
            self.may_be[name] = {DAMAGED}
            self.aged.discard(name)

    @rule(name=names)
    def delete_the_file(self, name):
        self.path(name).unlink(missing_ok=True)
        self.may_be[name] = {MISSING}

    @rule()
    def reopen(self):
        self.store = Store(self.store.folder)

    @rule(name=names)
    def look_up(self, name):
        has = self.store.has_arrays if name in ARRAYS else self.store.has_record
        assert has(KIND, name) == (self.may_be[name] != {MISSING})
        self.aged.discard(name)

    @rule(name=names)
    def discard(self, name):
        self.store.discard(KIND, name)
        self.may_be[name] = {MISSING}

    @rule(name=names)
    def let_it_age(self, name):
        path = self.path(name)
        if path.exists():
            then_s = path.stat().st_mtime - 10.0 * DAY_S
            os.utime(path, (then_s, then_s))
            self.aged.add(name)

    @rule()
    def prune(self):
        delete(self.store, choose(self.store, 5.0 * DAY_S, None, ()).files)
        for name in self.aged:
            self.may_be[name] = {MISSING}
        self.aged = set()

    @rule()
    def check_and_repair(self):
        findings = check(self.store, list_objects(self.store))
        assert {f.file.name for f in findings} == {n for n in NAMES if self.may_be[n] == {DAMAGED}}
        assert put_away(self.store, findings) == findings
        clear_aside(self.store)
        assert list((self.store.folder / ASIDE).iterdir()) == []
        for finding in findings:
            self.may_be[finding.file.name] = {MISSING}

    # -- what always holds --

    @invariant()
    def what_is_found_is_what_may_be_there(self):
        for name in NAMES:
            found = self.find(name)
            assert found in self.may_be[name], f"{name}: {found} instead of {self.may_be[name]}"
            self.may_be[name] = {found}
            if found != DAMAGED:
                self.was[name] = found


TestStoreAgainstModel = StoreAgainstModel.TestCase
TestStoreAgainstModel.settings = settings(
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


WRITER = """
import sys
import numpy as np
from pathlib import Path
from storage.store import Store
store = Store(Path(sys.argv[1]))
print("ready", flush=True)
for number in range(100_000):
    name = f"{number:032x}"
    values = np.random.default_rng(number).random((40, 100))
    store.write_arrays("thing", name, {"v": values}, {}, {"v": (1, 100)})
    store.write_record("note", name, {"number": number, "text": "x" * 5000})
"""


def n_files(folder: Path) -> int:
    return sum(1 for path in folder.glob("*/**/*") if path.is_file())


def test_a_writer_killed_at_any_time_leaves_whole_objects_only(tmp_path):
    chance = random.Random(1)
    folder = tmp_path / "store"
    for _ in range(8):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE)
        try:
            assert writer.stdout is not None
            writer.stdout.readline()
            wanted = n_files(folder) + chance.randint(0, 9)
            while n_files(folder) < wanted:
                assert writer.poll() is None
            # Anywhere within the next object.
            with pytest.raises(subprocess.TimeoutExpired):
                writer.wait(chance.uniform(0.0, 0.02))
        finally:
            writer.send_signal(signal.SIGKILL)
            writer.wait()
            writer.stdout.close()
        store = Store(folder)
        objects = list_objects(store)
        assert check(store, objects) == []
        clear_aside(store)
    assert len(objects) > 8
    for file in objects:
        number = int(file.name, 16)
        if file.kind == "note":
            assert store.read_record("note", file.name)["number"] == number
        else:
            values = store.read_arrays("thing", file.name)[0]["v"]
            np.testing.assert_array_equal(values, np.random.default_rng(number).random((40, 100)))
