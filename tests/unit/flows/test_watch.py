"""The watcher tells the server of each set once, when it has come to rest, and until the server has taken it."""

import pytest
from click.testing import CliRunner

from engine.errors import NightbeamError
from flows import watch
from flows.presence import process_of
from storage.holder import this_process
from tests.unit.flows.test_inbox_sets import make_inbox, put


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    now_s = [0.0]
    monkeypatch.setattr(watch.time, "monotonic", lambda: now_s[0])
    return now_s


def test_a_set_counts_when_it_has_not_changed_for_long_enough(tmp_path, clock):
    inbox = make_inbox(tmp_path, ("*", "p.toml"), settle_s=10.0)
    put(inbox / "one/1")
    settling = watch.Settling(inbox)
    assert settling.look() == set()
    clock[0] = 9.0
    put(inbox / "one/2")
    assert settling.look() == set()
    clock[0] = 18.0
    assert settling.look() == set()
    clock[0] = 19.0
    assert len(settling.look()) == 1


def looks(monkeypatch: pytest.MonkeyPatch, n: int, answers: list[Exception | None]) -> list[int]:
    """Have the watcher look so many times, and the server answer so; returns the numbers of sets told of."""
    told: list[int] = []

    def tell(inbox, n_set):
        answer = answers.pop(0)
        if answer is not None:
            raise answer
        told.append(n_set)

    left = [n]

    def sleep(_):
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(watch, "tell", tell)
    monkeypatch.setattr(watch.time, "sleep", sleep)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    return told


def test_every_set_is_told_of_once(tmp_path, monkeypatch):
    inbox = make_inbox(tmp_path, ("*", "p.toml"))
    put(inbox / "one/1")
    put(inbox / "two/1")
    told = looks(monkeypatch, 3, [None])
    assert CliRunner().invoke(watch.watch, [str(inbox)]).exit_code == 130
    assert told == [2]


def test_a_server_that_is_down_is_told_when_it_is_back(tmp_path, monkeypatch):
    inbox = make_inbox(tmp_path, ("*", "p.toml"))
    put(inbox / "one/1")
    down = NightbeamError("the server does not answer")
    told = looks(monkeypatch, 4, [down, down, None])
    result = CliRunner().invoke(watch.watch, [str(inbox)])
    assert told == [1]
    assert result.stderr.count("the server does not answer") == 1, "the same trouble is told once"


def test_the_watcher_needs_a_server(tmp_path, monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    result = CliRunner().invoke(watch.watch, [str(make_inbox(tmp_path, ("*", "p.toml")))])
    assert (result.exit_code, "set PREFECT_API_URL" in result.stderr) == (2, True)


def test_a_run_that_signed_names_its_process():
    me = this_process(0.0)
    labels = {f"nightbeam.{name}": getattr(me, name) for name in ("host", "machine", "pid", "started")}
    found = process_of(labels)
    assert found is not None
    assert not found.is_gone()
    assert process_of({"nightbeam.pid": me.pid}) is None
