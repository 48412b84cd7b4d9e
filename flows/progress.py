"""Progress for people: stage, how many of how many, rate, time left; and the same as lines in a log file."""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from engine.errors import printable, reason_and_remedy
from flows.progress_file import begin_stage, count_steps

LOG = logging.getLogger("nightbeam")
_LOG_EVERY_S = 10.0


class Reporter:
    """Shows progress on the terminal unless quiet, and always logs it."""

    def __init__(self, quiet: bool) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False)
        self.n_done = 0
        """Steps of all stages that were done and not found: whoever starts over sees whether it got further."""

    def say(self, text: str) -> None:
        """Print and log one line."""
        shown = printable(text)
        LOG.info("%s", shown)
        self.console.print(shown, markup=False)

    @contextmanager
    def stage(self, name: str, total: int | None, unit: str) -> Iterator["Steps"]:
        """Show one stage while it runs.

        Parameters
        ----------
        name
            Name of the stage.
        total
            Number of steps, or None if nobody knows.
        unit
            What is counted.
        """
        LOG.info("%s: begins (%s %s)", name, total if total is not None else "?", unit)
        begin_stage(name, total, unit)
        columns = (
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=self.console) as progress:
            task = progress.add_task(name, total=total, unit=unit, rate="", note="")
            steps = Steps(name, total, unit, lambda **changes: progress.update(task, **changes))
            try:
                yield steps
            finally:
                self.n_done += steps.n_done
            steps.finish()


class Steps:
    """Counts the steps of a stage; several threads may do so."""

    def __init__(self, name: str, total: int | None, unit: str, update: Callable[..., None]) -> None:
        self._name, self._total, self._unit, self._update = name, total, unit, update
        self._done, self._found = 0, 0
        self._begin_s = self._logged_s = time.monotonic()
        self._lock = threading.RLock()

    @property
    def n_done(self) -> int:
        """Steps that were done now."""
        return self._done - self._found

    def found(self, n: int) -> None:
        """Count steps that were in the store already."""
        with self._lock:
            self._found += n
            self.advance(n, f"{n} found in the store" if n else "")

    def advance(self, n: int = 1, note: str = "") -> None:
        """Count steps that were done now."""
        with self._lock:
            self._done += n
            count_steps(self._done, self._found)
            self._show(n, note)

    def _show(self, n: int, note: str) -> None:
        now_s = time.monotonic()
        rate = self.n_done / max(now_s - self._begin_s, 1e-3)
        self._update(advance=n, rate=f"{rate:.1f}/s", note=note)
        if now_s - self._logged_s > _LOG_EVERY_S:
            self._logged_s = now_s
            left = (
                "" if self._total is None else f", {(self._total - self._done) / max(rate, 1e-3):.0f} s left"
            )
            LOG.info(
                "%s: %d of %s %s, %.2f/s%s %s",
                self._name,
                self._done,
                self._total or "?",
                self._unit,
                rate,
                left,
                note,
            )

    def finish(self) -> None:
        """Log how the stage ended."""
        LOG.info(
            "%s: done, %d %s in %.1f s (%d found in the store)",
            self._name, self._done, self._unit, time.monotonic() - self._begin_s, self._found,
        )  # fmt: skip


class _LogFile(logging.FileHandler):
    """A log file that cannot be written any more is told of once, and ends no run."""

    _told = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._told:
            self._told = True
            message = f"nightbeam: {self.baseFilename}: {reason_and_remedy(error)} (the run goes on without its log)"
            print(message, file=sys.stderr)


@contextmanager
def log_to(file: Path) -> Iterator[None]:
    """Append the log of a run to ``file``."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handler = _LogFile(file, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    LOG.propagate = False
    try:
        yield
    finally:
        LOG.removeHandler(handler)
        # What could not be written is tried once more here, and was told of.
        with suppress(OSError):
            handler.close()
