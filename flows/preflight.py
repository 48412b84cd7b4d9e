"""The command ``nightbeam cluster test``: whether a cluster is fit for the night, before the night."""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cluster.where import is_site_file
from flows.command import EPILOG, QUIET, STORE, clear_errors
from storage.places.address import Address

if TYPE_CHECKING:
    from cluster.preflight import Worker
    from cluster.seen import Seen
    from flows.run import Run
    from flows.store_probe import Probed

_LOOK_S = 1.0


@click.command(epilog=EPILOG)
@click.argument("where", metavar="SLURM.toml|local|tcp://HOST:PORT")
@STORE
@click.option("--workers", type=click.IntRange(1), default=None, help="Local workers.  [default: one a core]")
@click.option(
    "--wait", "wait_s", type=click.FloatRange(min=0.0), default=600.0, show_default=True, metavar="SECONDS",
    help="How long to wait for all worker jobs to begin.",
)  # fmt: skip
@QUIET
@clear_errors
def test(where: str, store: Address, workers: int | None, wait_s: float, quiet: bool) -> None:
    """Start a cluster, have each worker do a small known job, and say what is wrong.

    \b
      nightbeam cluster test slurm.toml --store /shared/nightbeam/store

    Looks on every worker whether code, Python and library versions are those of this process; at threads, memory,
    scratch folder, network interface and clock; whether the store is the same one and can be written; and whether a
    small dose calculation has the same bits everywhere. Leaves with status 0 if all is well, 2 if something is wrong.
    """  # noqa: D301  (click wants a real \b)
    from cluster.findings import complaints
    from cluster.preflight import look_at_workers
    from cluster.seen import see
    from flows.progress import Reporter
    from flows.run import Computing, Run
    from flows.store_probe import probe_store
    from storage.store import Store

    found_store, reporter = Store(store), Reporter(quiet)
    found_store.require_writable()
    here = see()
    wrong: list[str] = []
    with Run(found_store, reporter, Computing(where, workers), checks_workers=False, wait_s=wait_s) as run:
        n_wanted = _n_wanted(where, workers)
        wrong += _wait_for_all(run, n_wanted)
        n_worker = len(run.client.scheduler_info(n_workers=-1)["workers"])
        with reporter.stage("known job", n_worker, "workers") as steps:
            looked = look_at_workers(run.client, steps.advance)
        able = [
            worker.address for worker in looked if worker.seen is not None and worker.seen.code == here.code
        ]
        with reporter.stage("store", len(able), "workers") as steps:
            probed = probe_store(run.client, found_store, able, steps.advance)
    wrong += complaints(looked, here)
    names = {worker.address: worker.name for worker in looked}
    wrong += [
        f"worker {names[address]} {probe.trouble}" for address, probe in probed.items() if probe.trouble
    ]
    if not quiet:
        _echo_table(looked, probed, here)
    for sentence in wrong:
        click.echo(f"nightbeam: {sentence}", err=True)
    if wrong:
        sys.exit(2)
    if not quiet:
        click.echo(f"all is well: {len(looked)} workers, the same code, versions, store and bits")


def _n_wanted(where: str, workers: int | None) -> int:
    """Return how many workers there have to be."""
    if where == "local":
        return workers or len(os.sched_getaffinity(0))
    if is_site_file(where):
        from cluster.slurm.site import read_site

        site = read_site(Path(where))
        return site.n_job_min * site.processes
    return 1


def _wait_for_all(run: "Run", n_wanted: int) -> list[str]:
    """Wait until all workers have joined; returns what to say where they do not."""
    from cluster.workers import known_workers

    limit_s = time.monotonic() + run.wait_s
    n_told = -1
    while True:
        n_there = len(known_workers(run.client))
        if n_there >= n_wanted:
            return []
        if n_there != n_told:
            n_told = n_there
            run.reporter.say(f"{n_there} of {n_wanted} workers are there; waiting for the others")
        if time.monotonic() > limit_s:
            return [
                f"only {n_there} of {n_wanted} workers came within {run.wait_s:g} s; see with squeue why their jobs "
                "wait, or give them longer with --wait"
            ]
        time.sleep(_LOOK_S)


def _echo_table(workers: "Sequence[Worker]", probed: "Mapping[str, Probed]", here: "Seen") -> None:
    from rich.console import Console
    from rich.table import Table

    from cluster.memory import gib

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in (
        "worker",
        "network",
        "threads",
        "memory free",
        "scratch free",
        "clock",
        "store seen",
        "job",
        "bits",
    ):
        table.add_column(heading, overflow="fold")
    for worker in workers:
        seen, probe = worker.seen, probed.get(worker.address)
        if seen is None:
            table.add_row(worker.name, *("?",) * 8)
            continue
        limit = f", limit {gib(worker.limit_bytes)}" if worker.limit_bytes else ""
        delays = (None, None) if probe is None else (probe.there_s, probe.back_s)
        table.add_row(
            worker.name,
            seen.interface or "?",
            f"{worker.n_thread} on {seen.n_core} cores",
            gib(seen.free_bytes) + limit,
            f"{gib(seen.scratch_bytes)} in {seen.scratch}",
            f"{worker.clock_s:+.2f} s",
            " / ".join("never" if delay is None else f"{delay:.1f} s" for delay in delays),
            f"{worker.job_s:.1f} s",
            worker.bits or "none",
        )
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    processors = sorted({worker.seen.processor for worker in workers if worker.seen is not None})
    libraries = ", ".join(f"{name} {number}" for name, number in here.libraries.items())
    click.echo(f"\nprocessor: {'; '.join(processors)}")
    click.echo(f"here: code {here.code}, Python {here.python}, {libraries}")
