"""The command ``nightbeam store``; and runs that meet damage, loss and full disks in the middle of their work."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from engine.errors import StudyError
from engine.phantoms import PHANTOMS
from engine.spec.case import CaseSpec
from engine.spec.study import load_study
from flows import stages
from flows.cases import case_of_study
from flows.cli import main
from flows.export import export_plan
from flows.progress import Reporter
from flows.recovery import until_whole
from flows.run import Computing, Run
from storage.cases import read_case, write_case
from storage.lease import take_run_lease
from storage.maintenance import check, list_folder, list_objects
from storage.store import Store
from tests.e2e.small_study import STUDY, command, run, write_study

DAY_S = 86400.0
DIGESTS = [f"{number:02x}" * 16 for number in range(3)]


@pytest.fixture
def store(tmp_path):
    """Return a store with tiles, and a case that was imported under a name."""
    store = Store(tmp_path / "store")
    for number, digest in enumerate(DIGESTS):
        store.write_arrays("influence", digest, {"v": np.random.default_rng(number).random(3000)}, {})
    case = write_case(store, PHANTOMS["water-box"](), {})
    store.write_record("case_reference", case, {})
    store.write_record("case_name", "box", {"case": case})
    return store


def call(store, *arguments):
    return CliRunner().invoke(main, ["store", *arguments, "--store", str(store.folder)])


def damage(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def age(path, days):
    then_s = path.stat().st_mtime - days * DAY_S
    os.utime(path, (then_s, then_s))


# -- the command ----------------------------------------------------------------------------------------------------


def test_help_is_quick_and_teaches_by_example():
    shown = CliRunner().invoke(main, ["store"]).output
    for name in ("check", "repair", "size", "prune"):
        assert f"  {name} " in shown
        assert f"nightbeam store {name} --store" in CliRunner().invoke(main, ["store", name, "--help"]).output
    # Nothing heavy is imported for help.
    script = (
        "import sys, flows.cli; "
        "heavy = {'numpy', 'zarr', 'rich', 'prefect', 'distributed', 'storage.store'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("name", ["check", "repair", "size", "prune"])
def test_a_folder_that_is_no_store_is_refused_and_stays_as_it_is(tmp_path, name):
    options = ["--older-than", "1"] if name == "prune" else []
    done = CliRunner().invoke(main, ["store", name, *options, "--store", str(tmp_path)])
    assert done.exit_code == 2
    assert f"there is no store in {tmp_path}" in done.output
    assert list(tmp_path.iterdir()) == []


def test_size_tells_kinds_leftovers_total_and_the_oldest_use(store):
    for folder, n_byte in (("aside", 1000), ("damaged", 2000), ("prefect", 3000)):
        (store.folder / folder).mkdir(exist_ok=True)
        (store.folder / folder / "file").write_bytes(bytes(n_byte))
    os.utime(store.arrays_path("influence", DIGESTS[1]), (1.6e9, 1.6e9))
    shown = call(store, "size")
    assert shown.exit_code == 0
    rows = {line.split()[0]: line.split() for line in shown.output.splitlines() if line.split()}
    assert rows["influence"][1] == "3"
    assert rows["influence"][4].startswith("2020-09-1")
    assert {"case", "case_name", "case_reference"} <= set(rows)
    assert [rows[folder][2] for folder in ("aside", "damaged", "prefect")] == ["1.0", "2.0", "3.0"]
    assert rows["oldest"][-2].startswith("2020-09-1")
    assert str(store.folder) in shown.output


def test_check_leaves_with_0_1_or_2(store, monkeypatch):
    assert call(store, "check", "--quiet").output == ""
    whole = call(store, "check")
    assert (whole.exit_code, whole.stdout) == (0, "the store is whole\n")
    damage(store.arrays_path("influence", DIGESTS[2]))
    store.record_path("case_name", "box").write_text("{")
    found = call(store, "check", "--quiet")
    assert found.exit_code == 1
    assert f"influence {DIGESTS[2]}: damaged" in found.stdout
    assert "case_name box: damaged" in found.stdout
    assert "nightbeam store repair" in found.stdout

    def fail(path):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("storage.places.folder.verify", fail)
    failed = call(store, "check", "--quiet")
    assert failed.exit_code == 2
    assert "4 results could not be read" in failed.stderr


def test_repair_puts_damage_away_clears_up_and_names_what_has_to_be_imported(store):
    (case,) = [file for file in list_objects(store) if file.kind == "case"]
    damage(store.folder / case.key)
    os.truncate(store.arrays_path("influence", DIGESTS[0]), 100)
    (store.folder / "aside" / "half").write_bytes(bytes(500))
    done = call(store, "repair")
    assert done.exit_code == 0, done.output
    assert f"influence {DIGESTS[0]}: damaged, put out of the way" in done.stdout
    assert "nightbeam import SOURCE --name box" in done.stdout
    assert "1 half-written files removed (500 bytes)" in done.stdout
    assert not store.has_arrays("influence", DIGESTS[0])
    assert len(list_folder(store, "damaged")) == 2
    assert call(store, "check").exit_code == 0
    assert "import" not in call(store, "repair").stdout


def test_prune_wants_to_know_what_may_go(store):
    done = call(store, "prune")
    assert done.exit_code == 2
    assert "--older-than DAYS, --to-size GB, or both" in done.output


def test_prune_deletes_what_is_old_but_no_case(store):
    for file in list_objects(store):
        age(store.folder / file.key, 50.0)
    assert store.has_arrays("influence", DIGESTS[0])
    dry = call(store, "prune", "--older-than", "30", "--dry-run")
    assert "2 files" in dry.stdout
    assert "would be deleted" in dry.stdout
    assert len(list_objects(store)) == 6
    done = call(store, "prune", "--older-than", "30")
    assert done.exit_code == 0, done.output
    assert {(f.kind, f.name) for f in list_objects(store) if f.kind == "influence"} == {
        ("influence", DIGESTS[0])
    }
    assert len(list_objects(store)) == 4
    assert "0 files" in call(store, "prune", "--older-than", "30").stdout
    assert "3 files" in call(store, "prune", "--older-than", "30", "--cases").stdout


def test_prune_to_a_size_says_if_it_cannot_be_reached_and_leaves_a_live_run_alone(store):
    with take_run_lease(store.folder):
        held = call(store, "prune", "--to-size", "0")
        assert "0 files" in held.stdout
        assert "3 files stay, because live runs use them" in held.stdout
    done = call(store, "prune", "--to-size", "0")
    assert "3 files" in done.stdout
    assert "still more than 0 GB" in done.stdout
    assert call(store, "prune", "--to-size", "1").stdout.startswith("0 files")


# -- damage in the middle of a run ----------------------------------------------------------------------------------

NOMINAL = STUDY.replace('"composite_worst_case"', '"nominal"').replace("[0, 90, 200]", "[0, 90]").replace(
    'setup = "axes"\nshift_mm = 4.0', 'setup = "none"'
)  # fmt: skip
KINDS = {
    "case", "case_reference", "import", "density", "regions", "influence", "manifest", "solve", "beam_dose",
}  # fmt: skip


class Saboteur(Store):
    """Does something to the first object of a kind just after a run has found it."""

    kind = ""
    sabotage = None
    struck: Path | None = None

    def has_arrays(self, kind, digest):
        return self._strike(kind, self.arrays_path(kind, digest), super().has_arrays(kind, digest))

    def has_record(self, kind, name):
        return self._strike(kind, self.record_path(kind, name), super().has_record(kind, name))

    def __reduce__(self):
        return Store, (self.folder,)

    def _strike(self, kind, path, found):
        if found and kind == self.kind and self.struck is None:
            self.struck = path
            self.sabotage(path)
        return found


class Listener(Reporter):
    """Keeps what a run says."""

    def __init__(self):
        super().__init__(quiet=True)
        self.said = []

    def say(self, text):
        self.said.append(text)
        super().say(text)


def have_read(running, kind):
    """Take away what would keep a run from reading an object of this kind."""
    files = list_objects(running.store)
    if kind in ("regions", "influence"):
        unwanted = [file for file in files if file.kind == "solve"]
    elif kind == "density":
        unwanted = [file for file in files if file.kind == "influence"][:1]

        def forget():
            from flows.work import patient

            for cached in vars(patient).values():
                if hasattr(cached, "cache_clear"):
                    cached.cache_clear()

        running.client.run(forget)
    else:
        unwanted = []
    for file in unwanted:
        (running.store.folder / file.key).unlink()


WAYS = {
    "deleted": Path.unlink,
    "cut off": lambda path: os.truncate(path, path.stat().st_size // 3),
    "flipped": damage,
}


@pytest.mark.cluster
def test_objects_of_every_kind_that_are_lost_in_the_middle_of_a_run_are_named_and_made_again(tmp_path):
    study_file = write_study(tmp_path, NOMINAL)
    study = load_study(study_file)
    store, listener = Saboteur(tmp_path / "store"), Listener()
    with Run(store, listener, Computing(n_worker=1)) as running:

        def plan_without_prefect(last="case_reference"):
            """Run the stages up to the one that reads this kind; return the weights, and the dose if there is one."""
            digest = case_of_study(running, study.case, tmp_path)
            reference = stages.read(running, study, digest, tmp_path)
            placement = stages.place(running, study, reference)
            scenarios = stages.vary(study)
            influence = stages.dose(running, study, placement, scenarios)
            solve = stages.optimise(running, study, reference, placement, influence)
            if last not in ("beam_dose", "case_reference"):
                return solve.result.weight, dose_gy
            judgement = stages.judge(running, study, reference, placement, scenarios, influence, solve)
            export_plan(running, study, reference, placement, scenarios, solve, judgement, tmp_path / "dicom")
            return solve.result.weight, judgement.dose_gy

        weight, dose_gy = until_whole(running, plan_without_prefect)
        assert {file.kind for file in list_objects(store)} == KINDS
        for kind in sorted(KINDS):
            for way, sabotage in WAYS.items():
                have_read(running, kind)
                store.kind, store.sabotage, store.struck = kind, sabotage, None
                listener.said.clear()
                again_weight, again_dose_gy = until_whole(running, partial(plan_without_prefect, kind))
                assert store.struck is not None, kind
                named = f"stored {kind} {store.struck.name.split('.')[0]} is "
                assert any(named in line for line in listener.said), f"{kind} {way}: {listener.said}"
                np.testing.assert_array_equal(again_weight, weight)
                np.testing.assert_array_equal(again_dose_gy, dose_gy)
                assert store.struck.exists()
                assert check(store, list_objects(store)) == []


@pytest.mark.parametrize("kind", ["case", "case_reference", "case_name"])
@pytest.mark.parametrize("way", ["deleted", "damaged"])
def test_an_imported_case_that_was_lost_is_asked_for_with_the_command_that_brings_it_back(store, kind, way):
    (victim,) = [file for file in list_objects(store) if file.kind == kind]
    (store.folder / victim.key).unlink() if way == "deleted" else os.truncate((store.folder / victim.key), 10)
    with Run(store, Listener()) as running:

        def work():
            digest = case_of_study(running, CaseSpec(imported="box", hu_table="table.csv"), Path())
            if kind == "case_reference":
                return store.read_record("case_reference", digest)
            return read_case(store, digest)

        with pytest.raises(StudyError, match=r"nightbeam import SOURCE --name"):
            until_whole(running, work)


# -- a disk that is full --------------------------------------------------------------------------------------------


@pytest.mark.cluster
@pytest.mark.prefect
@pytest.mark.root
def test_a_plan_on_a_full_disk_ends_with_one_sentence_and_goes_on_when_there_is_space(tmp_path, mount):
    study = write_study(tmp_path, NOMINAL)
    disk = mount(tmp_path / "disk", "size=4m")
    store = disk / "store"
    plan = command("plan", study, store, tmp_path / "out", "--workers", "1", "--quiet")
    full = run(plan)
    assert full.returncode == 2, full.stderr
    assert full.stderr == (
        f"nightbeam: cannot write the store {store}: the disk is full; free some space and give the same command "
        "again, finished results are kept\n"
    )
    assert check(Store(store), list_objects(Store(store))) == []
    assert list_folder(Store(store), "aside") == []
    mount(disk, "size=64m")
    done = run(plan)
    assert done.returncode == 0, done.stderr
    # A disk that may only be read: told before anything starts; what is there can still be told again.
    mount(disk, "ro")
    refused = run(plan)
    assert refused.returncode == 2
    assert refused.stderr == (
        f"nightbeam: cannot write the store {store}: the file system is read-only; give another folder, or have it "
        "mounted for writing\n"
    )
    told = run(command("report", study, store, tmp_path / "told"))
    assert told.returncode == 0, told.stderr
    mount(disk, "rw")
