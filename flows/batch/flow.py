"""Prefect flow: a batch. Every case is a process with a flow run of its own, on the same server."""

import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from prefect import flow

from engine.errors import StoreError
from flows.batch.board import Board, take_stock
from flows.batch.jobs import list_jobs
from flows.batch.night import begin_night, keep_night
from flows.batch.page import PAGE
from flows.batch.sharing import Sharing
from flows.batch.spec import read_batch
from flows.batch.work import Work
from flows.ending import of_the_command
from flows.presence import sign
from flows.progress import Reporter
from flows.run import Computing
from storage.lease import Claim, Lease
from storage.places.address import parse_address
from storage.store import Store

OWN = ".batch"
"""Folder in a batch's output for what is no result."""


@flow(name="batch", persist_result=False, on_running=[sign])
def overnight_batch(
    batch_file: str,
    store: str,
    output: str,
    computing: Computing = Computing(),  # noqa: B008  (it is frozen)
    quiet: bool = False,
) -> str:
    """Plan the cases of a batch file, and write the page of the morning; returns its path.

    Parameters
    ----------
    batch_file
        The TOML file.
    store
        Address of the result store.
    output
        Folder for the page, and a folder of every case in it.
    computing
        Where to compute.
    quiet
        Print nothing.
    """
    path, folder = Path(batch_file), Path(output)
    batch = read_batch(path)
    jobs = list_jobs(batch, path.parent, folder)
    say = Reporter(quiet).say
    found = Store(parse_address(store))
    with of_the_command(), only_batch(folder, say) as lease:
        sharing = Sharing(computing, batch.cases_at_once)
        arguments = [
            "nightbeam",
            "batch",
            batch_file,
            "--store",
            store,
            "--output",
            output,
            *sharing.by_hand(),
        ]
        night = begin_night(folder, batch.night, time.time())
        entries = take_stock(jobs, found)
        board = Board(path.stem, folder, store, sharing.by_hand(), shlex.join(arguments), night, entries)
        say(f"{len(entries)} to plan, {len(board.of_state('done'))} of them done before")
        state = "stopped"
        try:
            Work(batch, board, found, sharing, lease, say).through_the_night()
            state = "ended"
            board.night = replace(board.night, ended=time.time())
        finally:
            if lease.is_held():
                keep_night(folder, board.night)
                told = board.write(state)
        say(told.headline())
    return str(folder / PAGE)


@contextmanager
def only_batch(output: Path, say: Callable[[str], None]) -> Iterator[Lease]:
    """Hold the lease of a batch on its output folder.

    Raises
    ------
    StoreError
        If another batch works on it.
    """
    own = output / OWN
    own.mkdir(parents=True, exist_ok=True)
    claim = Claim(own, "batch")
    lease = claim.take_or_listen(
        lambda: say(f"a batch was at work here ({claim.holder}); finding out whether it still is")
    )
    if lease is None:
        raise StoreError(
            f"another batch works on {output} ({claim.holder or 'unknown'}); wait for it "
            f"(`nightbeam status {output}`), or give another folder with --output"
        )
    with lease:
        yield lease
