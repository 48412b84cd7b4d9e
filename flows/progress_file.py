"""``progress.json``: how far a run is, for whoever looks from elsewhere; written whole, every two seconds at most."""

import json
import logging
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from flows.failures import deliberate, in_words
from storage.holder import Holder, this_process
from storage.whole_file import whole_file

NAME = "progress.json"
STALE_S = 60.0
"""Silence after which a run on another machine may be gone."""
_LOG = logging.getLogger("nightbeam")
_LOOK_S = 2.0
_SIGN_OF_LIFE_S = 15.0
State = Literal["running", "done", "failed", "stopped"]


@dataclass(frozen=True)
class Progress:
    """How far a run is; what ``progress.json`` holds.

    Parameters
    ----------
    what
        The command, such as ``plan``.
    state, why, error
        Whether it goes on, and if not, why it ended, and the name of the error's class.
    stage, done, total, unit
        The stage, and how many of how many of what are done in it; no total where nobody knows.
    found
        How many of those were in the store already.
    begun, stage_begun, updated
        When the run and its stage began, and when this was written: s since 1970, of the clock of its host.
    host, machine, pid, started
        Its process, as in `storage.holder.Holder`.
    """

    what: str
    state: State
    why: str
    error: str
    stage: str
    done: int
    total: int | None
    unit: str
    found: int
    begun: float
    stage_begun: float
    updated: float
    host: str
    machine: str
    pid: int
    started: int

    @property
    def rate(self) -> float:
        """Steps a second in this stage, without those that were found."""
        return (self.done - self.found) / max(self.updated - self.stage_begun, 1e-3)

    @property
    def left_s(self) -> float | None:
        """Time until the stage is done, at the same rate; None if nobody knows."""
        if self.total is None or self.rate <= 0.0:
            return None
        return (self.total - self.done) / self.rate

    @property
    def holder(self) -> Holder:
        """Its process."""
        return Holder(self.host, self.machine, self.pid, self.started, "", self.begun)


class ProgressFile:
    """Keeps the file up to date, from a thread of its own, so that nobody waits for a slow disk."""

    def __init__(self, path: Path, what: str) -> None:
        self._path = path
        now_s = time.time()
        process = this_process(now_s)
        self._now = Progress(
            what, "running", "", "", "begin", 0, None, "", 0, now_s, now_s, now_s,
            process.host, process.machine, process.pid, process.started,
        )  # fmt: skip
        self._lock = threading.Lock()
        self._is_new = False
        self._ended = threading.Event()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._write()
        self._thread = threading.Thread(target=self._write_until_ended, name="progress", daemon=True)
        self._thread.start()

    def begin(self, stage: str, total: int | None = None, unit: str = "") -> None:
        """Say that a stage begins."""
        with self._lock:
            self._now = replace(
                self._now, stage=stage, done=0, total=total, unit=unit, found=0, stage_begun=time.time()
            )
            self._is_new = True

    def count(self, done: int, found: int) -> None:
        """Say how many steps of the stage are done."""
        with self._lock:
            self._now = replace(self._now, done=done, found=found)
            self._is_new = True

    def end(self, state: State, why: str, error: str) -> None:
        """Say how the run ended."""
        self._ended.set()
        self._thread.join()
        with self._lock:
            self._now = replace(self._now, state=state, why=why, error=error)
        with suppress(OSError):
            self._write()

    def _write_until_ended(self) -> None:
        silent_s = 0.0
        while not self._ended.wait(_LOOK_S):
            silent_s += _LOOK_S
            if self._is_new or silent_s >= _SIGN_OF_LIFE_S:
                silent_s = 0.0
                # A disk that is full ends no run; the next time may be better.
                with suppress(OSError):
                    self._write()

    def _write(self) -> None:
        with self._lock:
            self._now = replace(self._now, updated=time.time())
            self._is_new = False
            text = json.dumps(asdict(self._now), ensure_ascii=False)
        with whole_file(self._path) as aside:
            aside.write_text(text + "\n", encoding="utf-8")


_kept: ProgressFile | None = None


def begin_stage(stage: str, total: int | None = None, unit: str = "") -> None:
    """Say that a stage begins, where this process keeps a progress file."""
    if _kept is not None:
        _kept.begin(stage, total, unit)


def count_steps(done: int, found: int) -> None:
    """Say how many steps of the stage are done, where this process keeps a progress file."""
    if _kept is not None:
        _kept.count(done, found)


@contextmanager
def progress_in(folder: Path, what: str) -> Iterator[None]:
    """Keep ``folder/progress.json`` while a run lasts, and say in it how the run ended."""
    global _kept
    _kept = ProgressFile(folder / NAME, what)
    state: State = "failed"
    why = name = ""
    try:
        yield
        state = "done"
    except Exception as error:
        words = in_words(error)
        if words is None:
            _LOG.error("%s", "".join(traceback.format_exception(error)))
            words = f"{''.join(traceback.format_exception_only(error)).strip()} (a mistake of the program; see its log)"
        why, name = words, type(deliberate(error)).__name__
        raise
    except BaseException:
        state, why = "stopped", "it was asked to end"
        raise
    finally:
        _kept.end(state, why, name)
        _kept = None


def read_progress(folder: Path) -> Progress | None:
    """Return how far the run is that writes into ``folder``; None if there is none, or an unreadable file."""
    try:
        return Progress(**json.loads((folder / NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
