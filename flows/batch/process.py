"""The process that works on one job: ``nightbeam plan`` or ``pareto``, as a person would start it."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from cluster.child import import_path
from flows.batch.jobs import STUDY, Job
from flows.batch.record import How
from flows.progress_file import read_progress

ERRORS = "errors.txt"
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)
_LONGEST_SENTENCE = 700
_MISTAKE = 2
_OF_THE_CASE = (
    "CaseError", "DicomError", "VolumeError", "StudyError", "DoseError", "OptimisationError",
    "FileNotFoundError", "NotADirectoryError", "IsADirectoryError", "PermissionError",
)  # fmt: skip
"""Errors that a case meets again however often it is tried; behind every other one there may be the night."""


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    how: How
    why: str
    cpu_s: float


class JobProcess:
    """One process; it ends when this one does, and is stopped with `stop`.

    Parameters
    ----------
    job
        What to work on; its study file is written.
    store
        The store, as on a command line.
    options
        Where to compute, as on a command line.
    """

    def __init__(self, job: Job, store: str, options: Sequence[str]) -> None:
        self._job = job
        job.folder.mkdir(parents=True, exist_ok=True)
        arguments = [*command_of(job, store, options)[1:], "--quiet"]
        # A flow run of a Prefect worker would be taken for the child's own.
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT__")}
        parent = os.getpid()

        def end_with_parent() -> None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:
                os.kill(os.getpid(), signal.SIGKILL)

        # A new file: the process of a batch that was killed may still be writing to the old one.
        (job.folder / ERRORS).unlink(missing_ok=True)
        with (job.folder / ERRORS).open("wb") as errors:
            # A session of its own, as Ctrl-C is for the batch to act on.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "flows.cli", *arguments],
                env={**inherited, "PYTHONPATH": import_path()},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                preexec_fn=end_with_parent,
                start_new_session=True,
            )

    def ended(self) -> Ended | None:
        """Return how the process ended; None while it runs."""
        pid, status, usage = os.wait4(self._process.pid, os.WNOHANG)
        if pid == 0:
            return None
        # Told to the object, which would wait for it otherwise.
        self._process.returncode = code = os.waitstatus_to_exitcode(status)
        cpu_s = usage.ru_utime + usage.ru_stime
        if code == 0:
            return Ended("done", "", cpu_s)
        return Ended(*self._why(code), cpu_s)

    def ask_to_end(self) -> None:
        """Ask the process to end."""
        # Not through the object, which would take the exit status from `ended`. Not as Ctrl-C, which whoever starts a
        # batch in the background may have had ignored.
        os.kill(self._process.pid, signal.SIGTERM)

    def stop(self, limit_s: float) -> Ended:
        """Wait for the end of a process that was asked to, and end it when it is so late by the monotonic clock."""
        while (ended := self.ended()) is None:
            if time.monotonic() > limit_s:
                os.kill(self._process.pid, signal.SIGKILL)
            time.sleep(0.05)
        return ended

    def _why(self, code: int) -> tuple[How, str]:
        if code < 0:
            name = signal.Signals(-code).name
            told = f"its process was ended by {name}"
            if -code == signal.SIGKILL:
                told += ", as the system does where memory runs out; with fewer cases at once or workers it needs less"
            return "lost", told
        found = read_progress(self._job.folder)
        if found is not None and found.pid == self._process.pid and found.state == "failed":
            is_failed = code == _MISTAKE and found.error in _OF_THE_CASE
            return ("failed" if is_failed else "lost"), self._sentence(found.why)
        words = self._printed()
        if code == _MISTAKE:
            return "failed", self._sentence(words.removeprefix("nightbeam: "))
        last = words.splitlines()[-1] if words else "it said nothing"
        return "lost", self._sentence(f"it left with status {code}: {last} (see {ERRORS})")

    def _printed(self) -> str:
        try:
            return (self._job.folder / ERRORS).read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            # Somebody has removed the folder, or the disk does not answer: no reason to end other cases.
            return ""

    def _sentence(self, words: str) -> str:
        """Return words on one line, with names that people know."""
        line = " ".join(words.split()).replace(f"{STUDY} ", f"protocol {self._job.protocol} ")
        return line if len(line) <= _LONGEST_SENTENCE else f"{line[:_LONGEST_SENTENCE]} …"


def command_of(job: Job, store: str, options: Sequence[str]) -> list[str]:
    """Return the command that works on a job, as a person would type it."""
    return [
        "nightbeam", job.what, str(job.folder / STUDY), "--store", store, "--output", str(job.folder), *options,
    ]  # fmt: skip
