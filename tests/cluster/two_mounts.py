"""Two mounts of one folder, used as two machines would: ``python -m tests.cluster.two_mounts A B RESULT [--plans]``.

Needs root. What is found goes into RESULT, as JSON. The first part asks how long it takes until what is done through
one mount is seen through the other. With ``--plans``, runs follow: each in a process namespace of its own, so that
none can see whether the process of another one is alive, as on another machine; one half of them uses mount A, the
other one mount B.
"""

import argparse
import hashlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from storage.store import Store
from tests.e2e.small_study import STUDY, command, write_study

SMALLER = (
    STUDY.replace("report_grid_mm = 5.0", "report_grid_mm = 10.0")
    .replace("gantry_deg = [0, 90, 200]", "gantry_deg = [0, 90]")
    .replace('setup = "axes"\nshift_mm = 4.0', "density_factors = [0.97]")
)
"""A coarse final dose and few scenarios, because this is about what goes before it."""
LIMIT_S = 1500.0
SEE_LIMIT_S = 100.0
SLOW = ("new file by utime", "beat of a lease by stat")
"""What is seen only when a mount has forgotten what it saw before, which is why nothing looks in this way."""
POLL_S = 0.1


def wait_until(condition: Callable[[], bool], limit_s: float = LIMIT_S) -> float:
    """Return how long it took until a condition held."""
    begin_s = time.monotonic()
    while not condition():
        if time.monotonic() - begin_s > limit_s:
            raise TimeoutError("what was waited for never came")
        time.sleep(POLL_S)
    return time.monotonic() - begin_s


# -- what is seen when ----------------------------------------------------------------------------------------------


def seen_after(folder_a: Path, folder_b: Path, n_repeat: int, quick: bool) -> dict[str, list[float]]:
    """Return the seconds until B sees what A did, by what was done and how B looks; without `SLOW` if ``quick``."""
    found: dict[str, list[float]] = {}

    def measure(
        name: str, prepare: Callable[[Path], Any], act: Callable[[Path], Any], see: Callable[[Path], bool]
    ) -> None:
        if quick and name in SLOW:
            return
        for repeat in range(n_repeat):
            sub = f"{name.replace(' ', '-')}-{repeat}"
            a, b = folder_a / sub, folder_b / sub
            a.mkdir()
            prepare(a)
            wait_until(b.is_dir, SEE_LIMIT_S)
            see(b)  # B has looked before, and remembers
            time.sleep(2 * POLL_S)
            see(b)
            act(a)
            try:
                after_s = wait_until(lambda b=b: see(b), SEE_LIMIT_S)
            except TimeoutError:
                after_s = SEE_LIMIT_S
            found.setdefault(name, []).append(after_s)

    def publish(folder: Path) -> None:
        (folder / "aside").write_text("content")
        (folder / "aside").replace(folder / "object")

    def touched(path: Path) -> bool:
        try:
            os.utime(path)
        except FileNotFoundError:
            return False
        return True

    def nothing(folder: Path) -> None:
        (folder / "other").touch()

    measure("new file by utime", nothing, publish, lambda b: touched(b / "object"))
    # Opened once, as its opening may have the mount ask the server.
    store_at = cache(Store)
    measure(
        "new object by the store",
        store_at,
        lambda a: store_at(a).write_arrays("thing", "ab" * 16, {"values": np.ones(3)}, {}),
        lambda b: store_at(b).has_arrays("thing", "ab" * 16),
    )
    measure("new file by listing", nothing, publish, lambda b: (b / "object") in b.iterdir())

    def make_lease(folder: Path) -> None:
        (folder / "lease").write_text("holder")
        os.utime(folder / "lease", (1e9, 1e9))

    def opened_mtime(path: Path) -> float:
        with path.open() as stream:
            return os.fstat(stream.fileno()).st_mtime

    measure("beat of a lease by open and fstat", make_lease, lambda a: os.utime(a / "lease"),
            lambda b: opened_mtime(b / "lease") > 1e9 + 1)  # fmt: skip
    measure("beat of a lease by stat", make_lease, lambda a: os.utime(a / "lease"),
            lambda b: (b / "lease").stat().st_mtime > 1e9 + 1)  # fmt: skip
    measure(
        "removed file by listing",
        make_lease,
        lambda a: (a / "lease").unlink(),
        lambda b: (b / "lease") not in b.iterdir(),
    )
    return found


def exclusive(folder_a: Path, folder_b: Path, n_repeat: int) -> int:
    """Return how often both mounts, or none, made the same file exclusively; B has seen that there is none."""
    wrong = 0
    for repeat in range(n_repeat):
        name = f"exclusive-{repeat}"
        (folder_b / name).exists()
        made = 0
        for folder in (folder_a, folder_b):
            with suppress(FileExistsError):
                os.close(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
                made += 1
        wrong += made != 1
    return wrong


# -- runs -----------------------------------------------------------------------------------------------------------


class FarRun:
    """A run in a process namespace of its own; killing it kills everything in there, as a machine that goes down."""

    def __init__(self, mount: Path, name: str, text: str, store: str = "store") -> None:
        folder = mount / "runs" / name
        folder.mkdir(parents=True)
        self.store, self.output = mount / store, folder / "out"
        plan = command(
            "plan", write_study(folder, text), self.store, self.output, "--workers", "1", "--quiet"
        )
        self._log = (folder / "stderr").open("wb")
        self.process = subprocess.Popen(
            ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", *plan],
            stdout=self._log,
            stderr=self._log,
        )

    def said(self, text: str) -> bool:
        """Return whether its log has a text."""
        file = self.output / "nightbeam.log"
        return file.exists() and text in file.read_text()

    def send(self, number: int) -> None:
        """Send a signal to the first process of the namespace."""
        (pid,) = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        os.kill(int(pid), number)

    def is_solving(self) -> bool:
        """Return whether it has logged some evaluations."""
        if self.process.poll() is not None:
            raise RuntimeError(f"the run ended too early: {Path(self._log.name).read_text()}")
        return any(log.stat().st_size > 10_000 for log in (self.store / "solve_log").glob("*.log"))

    def n_replayed(self) -> int:
        """Return how many evaluations it took over from the log of another run."""
        found = re.search(r"optimise: done.*\((\d+) found", (self.output / "nightbeam.log").read_text())
        return int(found[1]) if found else 0

    def weights(self) -> str:
        """Wait for the end; returns a digest of the weights."""
        if self.process.wait(LIMIT_S):
            raise RuntimeError(f"the run failed: {Path(self._log.name).read_text()}")
        self._log.close()
        with np.load(self.output / "weights.npz") as found:
            return hashlib.sha256(found["weight"].tobytes()).hexdigest()


def inodes(store: Path) -> dict[str, int]:
    """Return every object with its inode: one that is written again is another file."""
    return {str(path.relative_to(store)): path.stat().st_ino for path in store.glob("*/*/*.zarr.zip")}


def two_runs_at_once(mount_a: Path, mount_b: Path) -> dict[str, Any]:
    """Start the same study through both mounts, on a new store."""
    runs = [FarRun(mount, f"together-{name}", SMALLER) for mount, name in ((mount_a, "a"), (mount_b, "b"))]
    weights = [run.weights() for run in runs]
    waited = [run for run in runs if run.said("is solving this; waiting for it")]
    return {
        "weights": weights,
        "n_waited": len(waited),
        "n_object": len(inodes(mount_a / "store")),
    }


def takeover(mount_a: Path, mount_b: Path) -> dict[str, Any]:
    """Kill a solving run, while another one waits for it through the other mount; returns when that one goes on."""
    text = SMALLER.replace("dose_gy = 8.0", "dose_gy = 9.0")
    before = inodes(mount_a / "store")
    killed = FarRun(mount_a, "killed", text)
    wait_until(killed.is_solving)
    killed.send(signal.SIGSTOP)  # so that it cannot finish before the other one waits for it
    follower = FarRun(mount_b, "follower", text)
    wait_until(lambda: follower.said("waiting for it"))
    killed.send(signal.SIGKILL)
    killed.process.wait()
    after_s = wait_until(lambda: follower.said("optimise: begins"))
    weights = follower.weights()
    alone = FarRun(mount_a, "alone", text, "store-alone")
    after = inodes(mount_a / "store")
    return {
        "after_s": after_s,
        "weights": [weights, alone.weights()],
        "n_replayed": follower.n_replayed(),
        "written_again": sum(after[name] != inode for name, inode in before.items()),
    }


def main() -> None:
    """Read the command line and do it all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("mount_a", type=Path)
    parser.add_argument("mount_b", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--plans", action="store_true", help="run plans, too")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="leave out what takes long to be seen")
    given = parser.parse_args()
    a, b = given.mount_a / "seen", given.mount_b / "seen"
    a.mkdir()
    b.is_dir()
    result: dict[str, Any] = {"exclusive_wrong": exclusive(a, b, 20)}
    if given.plans:
        result["together"] = two_runs_at_once(given.mount_a, given.mount_b)
        result["takeover"] = takeover(given.mount_a, given.mount_b)
        check = [sys.executable, "-m", "flows.cli", "store", "check", "--store", str(given.mount_b / "store")]
        checked = subprocess.run(check, capture_output=True, text=True, check=False)
        result["check"] = {"status": checked.returncode, "said": checked.stdout + checked.stderr}
        result["damaged"] = (given.mount_a / "store" / "damaged").exists()
        Store(given.mount_b / "store").require_writable()
    result["seen_after_s"] = {
        name: {"median": statistics.median(s), "most": max(s), "all": s}
        for name, s in seen_after(a, b, given.repeats, given.quick).items()
    }
    given.result.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
