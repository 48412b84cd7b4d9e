"""One trial: a small study is planned while processes are killed at random moments, and is then to be unharmed.

Victims are found by the pids in `nightbeam.log`. Whenever the command itself was killed, it is given again.
"""

import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.small_study import STUDY, command, write_study

# Three scenarios and a coarse final dose: a trial is there for its kills.
PLAN = STUDY.replace("report_grid_mm = 5.0", "report_grid_mm = 8.0").replace(
    "shift_mm = 4.0", "shift_mm = [4.0, 0.0, 0.0]"
)
FRONT = PLAN.replace("max_evaluations = 60", "max_evaluations = 25")

VICTIMS = ("flow", "scheduler", "worker")
MOMENTS = ("dose", "optimise", "writing", "telling")
"""During tiles, during a solve, while a file of the store is being written, and while the plan is judged and told."""

_BEGINS = {
    "dose": "dose: begins",
    "optimise": r"(optimise|solve \S+): begins",
    "telling": "final dose: begins",
}
_LASTS_S = {"dose": 1.5, "optimise": 2.0, "telling": 3.0}
_WRITTEN = 12
_LOOK_S = 0.004
_LIMIT_S = 300.0
_MAX_SCHEDULERS_IN_A_ROW = 3
"""The run itself gives up after a fourth one without any progress."""


_GIVES_UP = "times without any progress in between; find out what ends it, then the same command goes on"


@dataclass(frozen=True)
class Kill:
    """A kill that happened: whom it met, and in the middle of what."""

    victim: str
    stage: str
    n_worker: int


@dataclass
class Outcome:
    """What became of a trial: its kills, and what went wrong, if anything."""

    kills: list[Kill] = field(default_factory=list)
    lost: str = ""
    different: str = ""


class Trial:
    """A folder with a study, a store and an output, and the command that is run there again and again.

    Parameters
    ----------
    folder
        An empty folder.
    n_worker
        Workers of the command.
    seed
        Of the random moments.
    environment
        For the command, beyond that of this process.
    limit_s
        How long the command may take.
    """

    def __init__(
        self,
        folder: Path,
        n_worker: int,
        seed: int,
        environment: Mapping[str, str],
        limit_s: float = _LIMIT_S,
    ) -> None:
        self.folder, self.store, self.output = folder, folder / "store", folder / "out"
        self._limit_s = limit_s
        self._n_worker, self._random = n_worker, random.Random(seed)
        self._mark = f"NIGHTBEAM_FAULT_TRIAL={folder}"
        key, value = self._mark.split("=", 1)
        self._environment = {**os.environ, **environment, key: value}
        self._process: subprocess.Popen[bytes] | None = None
        self._log_begin = 0
        self._schedulers_in_a_row = 0
        self.outcome = Outcome()

    def run(self, what: str, text: str, n_kill: int) -> None:
        """Run ``plan`` or ``pareto`` of a study to its end, with some kills on the way."""
        arguments = command(
            what, write_study(self.folder, text), self.store, self.output, "--workers", str(self._n_worker)
        )
        wanted = [(self._random.choice(VICTIMS), self._random.choice(MOMENTS)) for _ in range(n_kill)]
        # A run goes through its stages once: what was meant for an early one would wait in vain after a late one.
        order = ("dose", "optimise", "writing", "telling") if self._random.random() < 0.5 else (
            "writing", "dose", "optimise", "telling",
        )  # fmt: skip
        wanted.sort(key=lambda kill: order.index(kill[1]))
        try:
            for victim, moment in wanted:
                if self._process is None or self._process.poll() is not None:
                    if self._has_ended_well() or self.outcome.lost:
                        break
                    self._start(arguments)
                if self._reach(moment):
                    self._kill(victim)
            while not self._has_ended_well() and not self.outcome.lost:
                self._start(arguments)
                self._wait()
        finally:
            if self._process is not None and self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            self._process = None

    def leftovers(self) -> list[str]:
        """Return the command lines of processes of this trial that still live, after giving them time to end."""
        limit_s = time.monotonic() + 10.0
        while (found := list(self._alive())) and time.monotonic() < limit_s:
            time.sleep(0.05)
        return found

    def _start(self, arguments: list[str]) -> None:
        log = self.output / "nightbeam.log"
        self._log_begin = log.stat().st_size if log.exists() else 0
        with (self.folder / "printed").open("ab") as printed:
            self._process = subprocess.Popen(
                arguments, stdout=printed, stderr=printed, stdin=subprocess.DEVNULL, env=self._environment
            )

    def _log(self) -> str:
        log = self.output / "nightbeam.log"
        if not log.exists():
            return ""
        with log.open("rb") as stream:
            stream.seek(self._log_begin)
            return stream.read().decode(errors="replace")

    def _reach(self, moment: str) -> bool:
        """Wait for a random moment of a kind; returns False if the command ended before it came."""
        n_written = self._random.randint(1, _WRITTEN)
        wait_s = self._random.uniform(0.0, _LASTS_S.get(moment, 0.0))
        limit_s = time.monotonic() + _LIMIT_S
        seen: set[str] = set()
        while time.monotonic() < limit_s:
            if self._process is None or self._process.poll() is not None:
                return False
            if moment == "writing":
                seen.update(self._being_written())
                if len(seen) >= n_written and self._being_written():
                    return True
            elif re.search(_BEGINS[moment], self._log()):
                break
            time.sleep(_LOOK_S)
        else:
            self.outcome.lost = f"no {moment} within {_LIMIT_S:g} s"
            return False
        until_s = time.monotonic() + wait_s
        while time.monotonic() < until_s:
            if self._process.poll() is not None:
                return False
            time.sleep(_LOOK_S)
        return True

    def _being_written(self) -> set[str]:
        try:
            return set(os.listdir(self.store / "aside"))  # noqa: PTH208  (the quickest way)
        except FileNotFoundError:
            return set()

    def _kill(self, victim: str) -> None:
        assert self._process is not None
        if victim == "scheduler" and self._schedulers_in_a_row >= _MAX_SCHEDULERS_IN_A_ROW:
            victim = "worker"
        pids = dict(re.findall(r"(scheduler|worker \d+): pid (\d+)", self._log()))
        pids["flow"] = str(self._process.pid)
        names = [name for name in sorted(pids) if name.startswith(victim)]
        if not names:
            return
        name = self._random.choice(names)
        if not self._is_ours(int(pids[name])):
            return  # dead already, and its number may be another process's by now
        stage = "writing" if self._being_written() else self._stage()
        try:
            os.kill(int(pids[name]), signal.SIGKILL)
        except ProcessLookupError:
            return
        self._schedulers_in_a_row = self._schedulers_in_a_row + 1 if victim == "scheduler" else 0
        self.outcome.kills.append(Kill(victim, stage, self._n_worker))
        if victim == "flow":
            self._process.wait()

    def _stage(self) -> str:
        begun = re.findall(r" INFO (dose|optimise|solve|final dose|judge)[^:\n]*: (begins|done)", self._log())
        if not begun:
            return "starting"
        name, state = begun[-1]
        if name in ("final dose", "judge") or (name, state) == ("optimise", "done"):
            return "judging, telling"
        return "optimise" if name in ("optimise", "solve") or state == "done" else "dose"

    def _wait(self) -> None:
        assert self._process is not None
        try:
            self._process.wait(self._limit_s)
        except subprocess.TimeoutExpired:
            self.outcome.lost = f"did not end within {self._limit_s:g} s"

    def _has_ended_well(self) -> bool:
        """Return whether the command has ended as it should; a command that ended otherwise, unkilled, is lost."""
        if self._process is None:
            return False
        if self._process.poll() is None:
            self._wait()
        status = self._process.returncode
        if status not in (0, None, -signal.SIGKILL):
            tail = (self.folder / "printed").read_text(errors="replace")[-2000:]
            # Schedulers that are killed faster than anything gets done end a run on purpose, and it says what to do:
            # give the same command again, as after any kill.
            if not (status == 2 and _GIVES_UP in tail):
                self.outcome.lost = f"exit status {status}: {tail}"
        return status == 0

    def _is_ours(self, pid: int) -> bool:
        try:
            return self._mark.encode() + b"\0" in Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return False

    def _alive(self) -> Iterator[str]:
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and self._is_ours(int(entry.name)):
                with suppress(OSError):
                    yield (entry / "cmdline").read_text().replace("\0", " ")


def uninterrupted(
    what: str, text: str, folder: Path, environment: Mapping[str, str], limit_s: float = _LIMIT_S
) -> Path:
    """Run a command to its end without any kill; returns its folder."""
    trial = Trial(folder, 2, 0, environment, limit_s)
    trial.run(what, text, 0)
    assert not trial.outcome.lost, trial.outcome.lost
    return folder
