"""Two runs on one store at the same time: both finish with the same bits, also when one is stopped or killed."""

import re
import signal
import subprocess
import time
from contextlib import ExitStack, contextmanager, suppress

import numpy as np
import pytest

from storage.lease import LEASE_S, live_since
from storage.store import Store
from tests.e2e.small_study import STUDY, command, processes_of, tiles, write_study

pytestmark = [pytest.mark.cluster, pytest.mark.prefect]
LIMIT_S = 240.0
COARSE = STUDY.replace("report_grid_mm = 5.0", "report_grid_mm = 8.0")
"""A coarse final dose, because this is about what goes before it."""


class Started:
    """A run in the background, with its files in a folder of its own."""

    def __init__(self, folder, store, text):
        folder.mkdir(parents=True, exist_ok=True)
        self.store, self.output = store, folder / "out"
        arguments = command("plan", write_study(folder, text), store, self.output, "--workers", "1")
        self.process = subprocess.Popen(
            arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def log(self):
        file = self.output / "nightbeam.log"
        return file.read_text() if file.exists() else ""

    def said(self, text):
        return text in self.log()

    def is_solving(self):
        """Return whether it has a lease for a solve and has logged some evaluations."""
        for lease in (self.store / "leases").glob("solve-*"):
            with suppress(FileNotFoundError):
                if f'"pid": {self.process.pid},' in lease.read_text():
                    digest = lease.stem.removeprefix("solve-")
                    logs = list((self.store / "solve_log").glob(f"{digest}.*.log"))
                    return any(log.stat().st_size > 10_000 for log in logs)
        return False

    def wait_until(self, condition):
        limit_s = time.monotonic() + LIMIT_S
        while not condition():
            assert self.process.poll() is None, f"the run ended too early: {self.process.stderr.read()}"
            assert time.monotonic() < limit_s, "what was waited for never came"
            time.sleep(0.002)

    def weights(self):
        """Wait for the end and return the weights."""
        _, error = self.process.communicate(timeout=LIMIT_S)
        assert self.process.returncode == 0, error
        with np.load(self.output / "weights.npz") as found:
            return found["weight"]


@contextmanager
def runs(*started):
    """End what is left of runs, stopped or not."""
    with ExitStack() as stack:
        for run in started:
            stack.callback(run.process.communicate)
            stack.callback(run.process.kill)
        yield


def assert_whole(store):
    """Read every object and record, and look for processes that are left."""
    found = 0
    for path in store.glob("*/*/*.zarr.zip"):
        Store(store).read_arrays(path.parent.parent.name, path.name.split(".")[0])
        found += 1
    for kind in ("manifest", "case_reference", "import"):
        for name in Store(store).record_names(kind):
            Store(store).read_record(kind, name)
    assert found > 0
    assert not (store / "damaged").exists()
    assert live_since(store) is None
    assert processes_of(store) == []


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """Start two runs of one study and one of another at once on a new store; return the store and all runs.

    The other one is stopped in the middle of its solve, followed by a fourth, and wakes up when that has finished.
    """
    folder = tmp_path_factory.mktemp("together")
    store, other = folder / "store", COARSE.replace("dose_gy = 8.0", "dose_gy = 6.0")
    texts = {"first": COARSE, "second": COARSE, "stopped": other}
    started = {name: Started(folder / name, store, text) for name, text in texts.items()}
    with runs(*started.values()):
        stopped = started["stopped"]
        stopped.wait_until(stopped.is_solving)
        stopped.process.send_signal(signal.SIGSTOP)
        started["follower"] = Started(folder / "follower", store, other)
        with runs(started["follower"]):
            weights = {name: started[name].weights() for name in ("first", "second", "follower")}
            stopped.process.send_signal(signal.SIGCONT)
            weights["stopped"] = stopped.weights()
    return store, started, weights


def test_runs_started_at_once_on_a_new_store_all_finish(together):
    store, started, weights = together
    np.testing.assert_array_equal(weights["first"], weights["second"])
    assert weights["first"].shape == weights["stopped"].shape
    assert not np.array_equal(weights["first"], weights["stopped"])
    # Both studies share their tiles.
    n_block, n_found = re.search(
        r"dose: done, (\d+) blocks.*\((\d+) found", started["follower"].log()
    ).groups()
    assert n_block == n_found
    assert len(list((store / "solve").glob("*/*.zip"))) == 2
    assert_whole(store)
    for folder in ("solve_log", "leases", "prefect", "aside"):
        assert list((store / folder).iterdir()) == []


def test_a_stopped_run_is_followed_and_ends_with_the_same_bits_when_it_wakes_up(together):
    _, started, weights = together
    pid = started["stopped"].process.pid
    assert started["follower"].said(f"process {pid}) is solving this; waiting for it")
    assert started["stopped"].said("another run has taken over")
    np.testing.assert_array_equal(weights["follower"], weights["stopped"])


def test_a_killed_run_is_followed_at_once_by_the_one_that_waits(together, tmp_path):
    store, _, _ = together
    before, text = tiles(store), COARSE.replace("dose_gy = 8.0", "dose_gy = 9.0")
    killed = Started(tmp_path / "killed", store, text)
    with runs(killed):
        killed.wait_until(killed.is_solving)
        # Stopped first, so that it cannot finish before the other one waits for it.
        killed.process.send_signal(signal.SIGSTOP)
        follower = Started(tmp_path / "follower", store, text)
        with runs(follower):
            follower.wait_until(lambda: follower.said("waiting for it"))
            killed.process.kill()
            begin_s = time.monotonic()
            follower.wait_until(lambda: follower.said("optimise: begins"))
            assert time.monotonic() - begin_s < LEASE_S / 4.0
            follower.weights()
            # It went on with the log of the killed one.
            assert int(re.search(r"optimise: done.*\((\d+) found", follower.log())[1]) > 0
    assert tiles(store) == before
    assert_whole(store)
