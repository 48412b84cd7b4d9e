"""How far a batch or a single run is, for a terminal, from the files that they keep: on any machine that sees them."""

import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from engine.errors import StudyError
from flows.batch.board import stage_in_words
from flows.batch.page import NUMBERS, BatchSummary, JobRow, lasted, read_summary, when
from flows.progress_file import NAME as PROGRESS
from flows.progress_file import STALE_S, Progress, read_progress
from storage.holder import Holder

_AGAIN_S = 2.0
_STYLES = {"done": "green", "failed": "red", "running": "cyan", "waiting": ""}


def newest_output(runs: Path) -> Path:
    """Return the folder in ``runs`` that something was last written to.

    Raises
    ------
    StudyError
        If there is none.
    """
    found = [file for name in (NUMBERS, PROGRESS) for file in runs.glob(f"*/{name}")]
    if not found:
        raise StudyError(f"nothing in {runs} tells of a run; give the output folder of one")
    return max(found, key=lambda file: file.stat().st_mtime).parent


def show_status(output: Path, watch: bool) -> None:
    """Print how far the batch, plan or front is that writes to ``output``; until it ends, if asked to.

    Raises
    ------
    StudyError
        If nothing was written there.
    """
    console = Console(highlight=False)
    shown, goes_on = status_of(output)
    if not watch:
        console.print(shown)
        return
    with Live(shown, console=console, refresh_per_second=1.0) as live:
        while goes_on:
            time.sleep(_AGAIN_S)
            shown, goes_on = status_of(output)
            live.update(shown)


def status_of(output: Path) -> tuple[RenderableType, bool]:
    """Return what there is to show, and whether it goes on.

    Raises
    ------
    StudyError
        If nothing was written there.
    """
    summary = read_summary(output)
    if summary is not None:
        return _of_batch(summary, output)
    progress = read_progress(output)
    if progress is not None:
        return _of_run(progress, output)
    raise StudyError(
        f"{output} has neither {NUMBERS} nor {PROGRESS}; give the output folder of a batch, a plan or a front"
    )


def _of_batch(summary: BatchSummary, output: Path) -> tuple[RenderableType, bool]:
    holder = Holder(summary.host, summary.machine, summary.pid, summary.started, "", 0.0)
    trouble = _trouble(holder, summary.updated) if summary.state == "running" else ""
    if trouble:
        summary = summary.model_copy(update={"rows": tuple(map(_after_the_end, summary.rows))})
    table = Table(box=None, pad_edge=False)
    for heading in ("case", "protocol", "state"):
        table.add_column(heading)
    table.add_column("goals", justify="right")
    table.add_column("time", justify="right")
    table.add_column("")
    for row in summary.rows:
        table.add_row(*_cells(row, output))
    lines = [f"{summary.title}: {summary.headline()}; began {when(summary.begun)}"]
    if summary.state != "running":
        lines[0] += f", {summary.state} {when(summary.ended)}"
    lines.append(
        f"{summary.night_node_hours:.3g} node hours, {summary.night_core_hours:.3g} core hours this night"
    )
    if trouble:
        lines.append(f"{trouble}; `{summary.retry_all}` goes on")
    elif summary.no_more:
        lines.append(summary.no_more)
    if summary.count("failed"):
        lines.append(f"the failed ones again, when they are mended: {summary.retry_all}")
    return Group(Text(lines[0], style="bold"), table, *map(Text, lines[1:])), (
        summary.state == "running" and not trouble
    )


def _after_the_end(row: JobRow) -> JobRow:
    """Return a row of a batch that is gone."""
    if row.state != "running":
        return row
    return row.model_copy(update={"state": "waiting", "why": "it was running when the batch ended"})


def _cells(row: JobRow, output: Path) -> Iterator[Text]:
    state, why, time_s = row.state, row.why, None
    if row.begun is not None and row.ended is not None:
        time_s = row.ended - row.begun
    if state == "running":
        progress = read_progress(output / row.folder)
        why = _pace(progress) if progress is not None else "starting"
        time_s = time.time() - row.begun if row.begun is not None else None
    elif state == "done" and row.goals is not None:
        why = f"limit exceeded: {row.goals.exceeded}" if row.goals.exceeded else row.goals.worst
    yield Text(row.case)
    yield Text(row.protocol)
    yield Text(state, style=_STYLES[state])
    yield Text(f"{row.goals.n_met} of {row.goals.n_goal}" if row.goals else "")
    yield Text(lasted(time_s) if time_s is not None else "")
    yield Text(why)


def _of_run(progress: Progress, output: Path) -> tuple[RenderableType, bool]:
    where = f"{progress.what} in {output}, on {progress.host} (process {progress.pid})"
    begun = f"began {when(progress.begun)}"
    if progress.state == "running":
        trouble = _trouble(progress.holder, progress.updated)
        if trouble:
            return Text(f"{where}: {begun}; {trouble}; the same command goes on where it was"), False
        return Text(f"{where}: {begun}; {_pace(progress)}"), True
    ended = f"{progress.state} after {lasted(progress.updated - progress.begun)}"
    why = f": {progress.why}" if progress.why else ""
    return Text(f"{where}: {begun}; {ended}{why}"), False


def _pace(progress: Progress) -> str:
    """Return stage, how many of how many, rate, and time left in this stage."""
    told = stage_in_words(progress)
    if progress.total is None or progress.rate <= 0.0:
        return told
    left = "" if progress.left_s is None else f", {lasted(progress.left_s)} left"
    return f"{told}, {progress.rate:.2g}/s{left}"


def _trouble(holder: Holder, updated: float) -> str:
    """Return what speaks against a process that should be running; empty if nothing does."""
    if holder.is_gone():
        return f"its process ({holder}) is gone"
    silent_s = time.time() - updated
    if silent_s > STALE_S:
        return f"nothing was heard of {holder} for {lasted(silent_s)}, so it may be gone"
    return ""
