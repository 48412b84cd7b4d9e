"""The morning page ``batch.html``, and the same for programs as ``batch.json``."""

import json
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from flows.batch.goals import GoalsMet
from flows.report.summary import ReportModel
from flows.report.write import render
from storage.whole_file import whole_file

PAGE, NUMBERS = "batch.html", "batch.json"
State = Literal["waiting", "running", "done", "failed"]


class JobRow(ReportModel):
    """One case by one protocol; paths are relative to the page, times are s since 1970.

    ``why`` is the reason for waiting or failing, ``stage`` how far a running one is.
    """

    case: str
    protocol: str
    state: State
    why: str = ""
    stage: str = ""
    n_attempt: int = 0
    goals: GoalsMet | None = None
    begun: float | None = None
    ended: float | None = None
    node_hours: float = 0.0
    core_hours: float = 0.0
    report: str | None = None
    pdf: str | None = None
    log: str | None = None
    folder: str
    retry: str


class BatchSummary(ReportModel):
    """All that the page says; the process is that of `storage.holder.Holder`."""

    title: str
    what: Literal["plan", "pareto"]
    state: Literal["running", "ended", "stopped"]
    begun: float
    ended: float | None
    updated: float
    stop_starting: float | None
    no_more: str
    host: str
    machine: str
    pid: int
    started: int
    night_node_hours: float
    night_core_hours: float
    node_hours: float
    core_hours: float
    retry_all: str
    rows: tuple[JobRow, ...]
    nightbeam_version: str = version("nightbeam")

    def count(self, state: State) -> int:
        """Return how many rows have a state."""
        return sum(row.state == state for row in self.rows)

    def headline(self) -> str:
        """Return the numbers in one line."""
        counts = [f"{self.count(state)} {state}" for state in ("done", "failed", "running", "waiting")]
        return ", ".join(counts if self.count("running") else counts[:2] + counts[3:])


def write_page(summary: BatchSummary, output: Path) -> Path:
    """Write page and numbers; returns the path of the page."""
    dump = json.dumps(summary.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False)
    html = render("batch.html.j2", s=summary, when=when, lasted=lasted)
    for path, text in ((output / NUMBERS, dump + "\n"), (output / PAGE, html)):
        with whole_file(path) as aside:
            aside.write_text(text, encoding="utf-8", newline="\n")
    return output / PAGE


def read_summary(output: Path) -> BatchSummary | None:
    """Return what was written last; None if there is nothing, or nothing readable."""
    try:
        return BatchSummary.model_validate_json((output / NUMBERS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def when(time_s: float | None) -> str:
    """Return a time as people here write it."""
    if time_s is None:
        return "\N{EN DASH}"
    at = datetime.fromtimestamp(time_s).astimezone()
    return f"{at.day} {at:%b %Y, %H:%M}"


def lasted(time_s: float) -> str:
    """Return a length of time in the two largest units that it has."""
    minutes, seconds = divmod(round(time_s), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
