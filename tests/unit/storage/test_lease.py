"""Leases: one holder at a time, over when the holder is gone or silent, lost by one who wakes up late."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, suppress

import pytest

from engine.errors import LeaseLostError, StoreError
from storage import lease as lease_module
from storage.lease import Claim, live_since, take_run_lease
from storage.store import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store").folder


@pytest.fixture
def short(monkeypatch):
    """Make a lease run out after a second."""
    monkeypatch.setattr(lease_module, "LEASE_S", 1.0)
    monkeypatch.setattr(lease_module, "_BEAT_S", 0.05)


def lease_files(store):
    return sorted(path.name for path in (store / "leases").iterdir())


def wait_until(condition, limit_s=30.0):
    limit_s += time.monotonic()
    while not condition():
        assert time.monotonic() < limit_s, "what was waited for never came"
        time.sleep(0.005)


def wait_for(claim):
    """Return the lease, and the seconds it took to get it."""
    begin_s = time.monotonic()
    taken = []
    wait_until(lambda: taken or taken.extend(filter(None, [claim.try_take()])) or taken)
    return taken[0], time.monotonic() - begin_s


HOLD = """
import sys
from pathlib import Path
from storage import lease
lease.LEASE_S, lease._BEAT_S = 1.0, 0.05
held = lease.Claim(Path(sys.argv[1]), "solve-a").try_take()
print("taken" if held else "refused", flush=True)
while sys.stdin.readline():
    print("held" if held.is_held() else "lost", flush=True)
held.release()
"""


@contextmanager
def process(script, *arguments):
    """Run a script that answers each line with a line; it is ended at the end, stopped or not."""
    child = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )  # fmt: skip
    try:
        yield child
    finally:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            with suppress(BrokenPipeError):
                pipe.close()


def ask(child):
    child.stdin.write("?\n")
    child.stdin.flush()
    return child.stdout.readline().strip()


def pretend(store, **changes):
    """Sign the only lease in the store as another process."""
    (path,) = (store / "leases").iterdir()
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return path


def test_a_lease_has_one_holder_and_is_free_again_after_release(store):
    first, second = Claim(store, "solve-a"), Claim(store, "solve-a")
    with first.try_take() as lease:
        assert lease.is_held()
        assert second.try_take() is None
        assert second.holder.pid == os.getpid()
        assert str(os.getpid()) in str(second.holder)
        with Claim(store, "solve-b").try_take() as other:
            assert other.id != lease.id
    assert lease_files(store) == []
    with second.try_take() as lease:
        assert lease.is_held()


def test_a_holder_that_lives_keeps_its_lease_however_long_others_wait(store, short):
    claim = Claim(store, "solve-a")
    with Claim(store, "solve-a").try_take() as lease:
        begin_s = time.monotonic()
        while time.monotonic() - begin_s < 2.5:
            assert claim.try_take() is None
            time.sleep(0.02)
        assert lease.is_held()


def test_a_holder_that_was_killed_is_followed_at_once(store):
    # With the real times: a process that is gone is not waited for.
    with process(HOLD, store) as child:
        assert child.stdout.readline() == "taken\n"
        claim = Claim(store, "solve-a")
        assert claim.try_take() is None
        child.kill()
        lease, took_s = wait_for(claim)
        with lease:
            assert took_s < 5.0
            assert lease_files(store) == ["solve-a.2"]


def test_a_dead_holder_that_nobody_has_buried_is_gone_as_well(store):
    with process(HOLD, store) as child:
        assert child.stdout.readline() == "taken\n"
        claim = Claim(store, "solve-a")
        claim.try_take()
        os.kill(child.pid, signal.SIGKILL)  # not waited for: it stays as a zombie
        wait_until(claim.holder.is_gone)


def test_a_process_number_that_was_given_again_is_another_process(store):
    with Claim(store, "solve-a").try_take():
        pretend(store, started=1)
        with Claim(store, "solve-a").try_take() as lease:
            assert lease.is_held()


def test_a_silent_holder_elsewhere_is_followed_after_the_time_of_a_lease(store, short, monkeypatch):
    monkeypatch.setattr(lease_module.Lease, "_beat", lambda self: None)
    with Claim(store, "solve-a").try_take() as lease:
        pretend(store, machine="another", pid=1)
        claim = Claim(store, "solve-a")
        following, took_s = wait_for(claim)
        with following:
            assert 1.0 <= took_s < 5.0
            assert claim.holder.machine == "another"
            assert not lease.is_held()


def test_one_who_asks_once_listens_for_a_holder_elsewhere_and_follows_a_dead_one(store, short, monkeypatch):
    monkeypatch.setattr(lease_module.Lease, "_beat", lambda self: None)
    said = []
    with Claim(store, "solve-a").try_take():
        pretend(store, machine="another", pid=1)
        with Claim(store, "solve-a").take_or_listen(lambda: said.append("listening")) as lease:
            assert lease.is_held()
    assert said == ["listening"]


def test_one_who_asks_once_hears_that_a_holder_elsewhere_lives(store, monkeypatch):
    # With the real time of a lease: nobody waits for its end who has heard the holder.
    (store / "leases").mkdir()
    path = store / "leases" / "solve-a.1"
    path.write_text("{}")
    monkeypatch.setattr(lease_module.time, "sleep", lambda _: os.utime(path, (1.0, 1.0)))
    assert Claim(store, "solve-a").take_or_listen() is None


def test_a_watcher_that_was_stopped_has_heard_no_silence(store, short, monkeypatch):
    monkeypatch.setattr(lease_module.Lease, "_beat", lambda self: None)
    with Claim(store, "solve-a").try_take():
        pretend(store, machine="another")
        claim = Claim(store, "solve-a")
        assert claim.try_take() is None
        monotonic = time.monotonic
        monkeypatch.setattr(lease_module.time, "monotonic", lambda: monotonic() + 1000.0)
        assert claim.try_take() is None


def test_a_lease_that_was_never_signed_is_over_after_its_time(store, short):
    (store / "leases").mkdir()
    (store / "leases" / "solve-a.3").touch()
    claim = Claim(store, "solve-a")
    assert claim.try_take() is None
    assert claim.holder is None
    lease, took_s = wait_for(claim)
    with lease:
        assert took_s >= 0.9
        assert lease_files(store) == ["solve-a.4"]


def test_a_stopped_holder_wakes_up_and_finds_its_lease_lost(store, short):
    with process(HOLD, store) as child:
        assert child.stdout.readline() == "taken\n"
        assert ask(child) == "held"
        child.send_signal(signal.SIGSTOP)
        lease, took_s = wait_for(Claim(store, "solve-a"))
        with lease:
            assert took_s >= 1.0
            child.send_signal(signal.SIGCONT)
            assert ask(child) == "lost"
            child.stdin.close()
            assert child.wait(30) == 0  # it has released what it no longer had
            assert lease.is_held()
            assert lease_files(store) == ["solve-a.2"]


def test_a_stopped_holder_that_nobody_followed_goes_on(store):
    with process(HOLD, store) as child:
        assert child.stdout.readline() == "taken\n"
        child.send_signal(signal.SIGSTOP)
        time.sleep(1.2)  # longer than its lease
        child.send_signal(signal.SIGCONT)
        assert ask(child) == "held"


def test_a_lost_lease_is_an_error_for_who_asks(store):
    with Claim(store, "solve-a").try_take() as lease:
        lease.require_held()
        (store / "leases" / "solve-a.1").unlink()
        lease._beat()
        with pytest.raises(LeaseLostError, match="another run has taken over"):
            lease.require_held()


def test_one_who_looked_long_ago_does_not_take_a_lease_beside_its_holder(store, monkeypatch):
    # It saw no lease; then one was taken, lost and taken over; then it makes the first token again.
    late = Claim(store, "solve-a")
    tokens = late._tokens
    answers = [dict, tokens]
    monkeypatch.setattr(late, "_tokens", lambda: answers.pop(0)())
    (store / "leases").mkdir()
    (store / "leases" / "solve-a.2").touch()
    assert late.try_take() is None
    assert lease_files(store) == ["solve-a.2"]


RACE = """
import sys, time
from pathlib import Path
from storage import lease
store, n_round = Path(sys.argv[1]), int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
claim, inside, won = lease.Claim(store, "solve-a"), store / "inside", 0
while won < n_round:
    held = claim.try_take()
    if held is None:
        time.sleep(0.0005)
        continue
    with held:
        inside.mkdir()  # fails if another one is inside
        time.sleep(0.001)
        inside.rmdir()
        won += 1
print(won, flush=True)
"""


def test_of_many_processes_that_race_for_a_lease_one_has_it_at_a_time(store):
    n_process, n_round = 6, 15
    with ExitStack() as stack:
        children = [stack.enter_context(process(RACE, store, n_round)) for _ in range(n_process)]
        for child in children:
            assert child.stdout.readline() == "ready\n"
        for child in children:
            child.stdin.write("go\n")
            child.stdin.flush()
        assert [child.stdout.readline() for child in children] == [f"{n_round}\n"] * n_process
    assert lease_files(store) == []


def test_of_many_who_race_for_the_lease_of_a_dead_one_exactly_one_gets_it(store):
    for _ in range(20):
        with Claim(store, "solve-a").try_take() as old:
            pretend(store, started=1)
            barrier = threading.Barrier(8)
            taken = []

            def contend(barrier=barrier, taken=taken):
                claim = Claim(store, "solve-a")
                barrier.wait()
                lease = claim.try_take()
                if lease is not None:
                    taken.append(lease)

            threads = [threading.Thread(target=contend) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            old._beat()
            assert not old.is_held()
            (lease,) = taken
            assert lease.is_held()
            lease.release()


@pytest.mark.parametrize("dead", [True, False])
def test_one_who_saw_an_older_lease_of_the_same_token_does_not_take_it_for_over(store, monkeypatch, dead):
    # It saw token 1 over, or vanish; then others took leases and gave them back, until token 1 was made anew.
    late = Claim(store, "solve-a")
    old = Claim(store, "solve-a").try_take()
    path = pretend(store, started=1)
    tokens = late._tokens

    def tokens_before_others_came():
        seen = tokens() if dead else {}
        path.unlink()
        holding.append(Claim(store, "solve-a").try_take())
        monkeypatch.setattr(late, "_tokens", tokens)
        return seen

    holding = []
    monkeypatch.setattr(late, "_tokens", tokens_before_others_came)
    assert late.try_take() is None
    with holding[0]:
        assert lease_files(store) == ["solve-a.1"]
        holding[0]._beat()
        assert holding[0].is_held()
    old.release()


def test_live_runs_are_known_with_their_start(store):
    assert live_since(store) is None
    mark = store / "mark"
    mark.touch()
    with take_run_lease(store):
        first_s = live_since(store)
        assert mark.stat().st_mtime <= first_s <= time.time() + 1.0
        with take_run_lease(store):
            assert live_since(store) == first_s
        assert live_since(store) == first_s
    assert live_since(store) is None


def test_a_killed_run_is_not_live_and_the_next_run_clears_it_away(store):
    script = "import sys; from pathlib import Path; from storage.lease import *\n" \
             "take_run_lease(Path(sys.argv[1])); print('taken', flush=True); sys.stdin.readline()"  # fmt: skip
    with process(script, store) as child:
        assert child.stdout.readline() == "taken\n"
        assert live_since(store) is not None
        child.send_signal(signal.SIGSTOP)
        assert live_since(store) is not None  # stopped is not gone
        child.kill()
        child.wait()
        assert live_since(store) is None
        assert len(lease_files(store)) == 1
        with take_run_lease(store):
            assert len(lease_files(store)) == 1
    assert lease_files(store) == []


def test_a_run_elsewhere_is_live_until_it_has_been_silent_for_long(store):
    with take_run_lease(store):
        path = pretend(store, machine="another", pid=1)
        assert live_since(store) is not None
        then_s = time.time() - 2.0 * lease_module._FORGOTTEN_S
        os.utime(path, (then_s, then_s))
        assert live_since(store) is None


def test_a_store_that_cannot_be_written_is_a_clear_error(store):
    (store / "leases").write_text("a file in the way")
    with pytest.raises(StoreError, match="part of the path is a file"):
        take_run_lease(store)
    with pytest.raises(StoreError, match="part of the path is a file"):
        Claim(store, "solve-a").try_take()
