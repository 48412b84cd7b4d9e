"""A scan does what is new, once, whatever happened before."""

import json
import logging
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from prefect.logging import disable_run_logger

from engine.errors import CaseError, ClusterError
from flows import inbox
from flows.run import Computing
from storage import lease
from storage.dicom.whole_series import missing_slices
from storage.holder import this_process
from storage.lease import Claim
from storage.store import Store
from tests.unit.flows.test_inbox_sets import make_inbox, put


class Site:
    """An inbox whose sets are planned by a function of the test's own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.inbox = make_inbox(folder / "inbox", ("*", "p.toml"))
        self.planned: list[str] = []
        self.error: BaseException | None = None
        monkeypatch.setattr(inbox, "_import_and_plan", self._plan)

    def _plan(self, place, found, case_name, out) -> str:
        self.planned.append(found.name)
        if self.error is not None:
            raise self.error
        return "report.html"

    def scan(self) -> str:
        with disable_run_logger():
            state = inbox.scan_inbox.fn(
                str(self.inbox), str(self.folder / "store"), str(self.folder), Computing()
            )
        return str(state.message)


@pytest.fixture
def site(tmp_path, monkeypatch) -> Site:
    return Site(tmp_path, monkeypatch)


def test_a_new_set_is_planned_once(site):
    put(site.inbox / "one/1")
    assert [site.scan(), site.scan()] == ["1 planned", "nothing new"]
    assert site.planned == ["one"]


def test_a_copy_of_a_set_is_not_planned_again(site):
    put(site.inbox / "one/1")
    site.scan()
    put(site.inbox / "two/1")
    assert site.scan() == "nothing new"


def test_a_set_that_grows_is_planned_again(site):
    put(site.inbox / "one/1")
    site.scan()
    put(site.inbox / "one/2")
    assert site.scan() == "1 planned"


def test_a_broken_set_is_told_once_until_its_files_change(site):
    put(site.inbox / "one/1")
    site.error = CaseError("no target")
    assert [site.scan(), site.scan()] == ["1 failed", "nothing new"]
    put(site.inbox / "one/1", "mended")
    site.error = None
    assert site.scan() == "1 planned"


def test_a_broken_set_is_tried_again_with_another_protocol(site):
    put(site.inbox / "one/1")
    site.error = CaseError("no target")
    site.scan()
    put(site.inbox / "p.toml", "mended")
    site.error = None
    assert site.scan() == "1 planned"


def test_one_broken_set_does_not_stop_others(site, monkeypatch):
    put(site.inbox / "one/1", "1")
    put(site.inbox / "two/1", "2")

    def plan(place, found, case_name, out):
        if found.name == "one":
            raise CaseError("no target")
        return "report.html"

    monkeypatch.setattr(inbox, "_import_and_plan", plan)
    assert site.scan() == "1 failed, 1 planned"


def test_an_unknown_error_is_seen_and_the_set_is_tried_again(site):
    put(site.inbox / "one/1")
    site.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        site.scan()
    site.error = None
    assert site.scan() == "1 planned"


def test_trouble_of_the_machine_is_not_held_against_the_set(site):
    put(site.inbox / "one/1")
    site.error = ClusterError("no workers")
    assert [site.scan(), site.scan()] == ["1 put off", "1 put off"]
    site.error = None
    assert site.scan() == "1 planned"


def test_a_scan_that_was_killed_is_followed_by_one_that_goes_on(site):
    put(site.inbox / "one/1")
    site.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        site.scan()
    site.error = None
    assert site.scan() == "1 planned"


def test_a_scan_that_is_asked_to_end_is_not_held_against_the_set(site):
    put(site.inbox / "one/1")
    site.error = KeyboardInterrupt()
    for _ in range(5):
        with pytest.raises(KeyboardInterrupt):
            site.scan()
    site.error = None
    assert site.scan() == "1 planned"


def test_a_set_that_meets_an_unknown_error_every_time_is_given_up(site):
    put(site.inbox / "one/1")
    site.error = ZeroDivisionError()
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            site.scan()
    assert [site.scan(), site.scan()] == ["1 failed", "nothing new"]
    assert len(site.planned) == 3


def test_a_set_that_another_scan_is_at_is_left_to_it(site, monkeypatch):
    put(site.inbox / "one/1")
    store = Store(site.folder / "store")
    (found,) = inbox._settled(site.inbox, store)
    key = inbox._key(inbox.digest_of_files(found.files), found)
    with Claim(store.folder, f"inbox-{key[:16]}").try_take():
        assert site.scan() == "nothing new"
    assert site.planned == []


def test_a_set_whose_scan_ended_with_its_machine_is_planned(site, monkeypatch):
    put(site.inbox / "one/1")
    store = Store(site.folder / "store")
    (found,) = inbox._settled(site.inbox, store)
    key = inbox._key(inbox.digest_of_files(found.files), found)
    gone = replace(this_process(0.0), machine="this one, before it was started anew")
    (store.folder / "leases").mkdir()
    (store.folder / f"leases/inbox-{key[:16]}.1").write_text(json.dumps(asdict(gone)))
    monkeypatch.setattr(lease, "LEASE_S", 0.1)
    assert site.scan() == "1 planned"


def test_the_name_of_a_folder_is_told_beside_the_report_alone(site, monkeypatch, caplog):
    monkeypatch.setattr(inbox, "get_run_logger", lambda: logging.getLogger("scan"))
    caplog.set_level(logging.INFO)
    put(site.inbox / "Quixotham/1")
    site.error = CaseError("Quixotham has no target")
    site.scan()
    assert "p-" in caplog.text
    assert "Quixotham" not in caplog.text
    (told,) = site.folder.glob("p-*/inbox.json")
    values = json.loads(told.read_text())
    assert (values["set"], values["state"]) == ("Quixotham", "failed")
    assert values["why"].startswith("Quixotham has no target")
    for path in (site.folder / "store").rglob("*"):
        assert "Quixotham" not in str(path)
        assert path.is_dir() or b"Quixotham" not in path.read_bytes()


def test_a_set_that_still_changes_waits(site, monkeypatch):
    file = put(site.inbox / "one/1")
    monkeypatch.setattr(inbox.time, "sleep", lambda _: file.write_text(file.read_text() + "more"))
    assert site.scan() == "nothing new"
    monkeypatch.undo()


def test_a_set_without_a_protocol_is_told_once(site):
    make_inbox(site.inbox, ("pelvis*", "p.toml"))
    put(site.inbox / "head/1")
    assert [site.scan(), site.scan()] == ["1 without protocol", "nothing new"]
    make_inbox(site.inbox, ("pelvis*", "p.toml"), ("head", "q.toml"))
    assert site.scan() == "1 planned"


def test_slices_that_have_not_come_are_missed(tmp_path):
    from flows.cases import write_phantom

    write_phantom("water-box", tmp_path, voxel_mm=10.0)
    n_missing, n_named = missing_slices(tmp_path)
    assert n_missing == 0
    next(path for path in sorted(tmp_path.iterdir()) if "CT" in path.name.upper()).unlink()
    assert missing_slices(tmp_path) == (1, n_named)
