"""The commands ``nightbeam batch`` and ``nightbeam status``."""

import sys
from contextlib import ExitStack
from pathlib import Path

import click

from flows.command import EPILOG, QUIET, STORE, clear_errors
from storage.places.address import Address, resolve

_FAILED = 2


@click.command(epilog=EPILOG)
@click.argument("batch_file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@STORE
@click.option(
    "--output", type=click.Path(file_okay=False, path_type=Path), default=None,
    help="Folder for the page and the cases.  [default: runs/NAME-OF-BATCH-FILE]",
)  # fmt: skip
@click.option(
    "--cluster", default="local", show_default=True, metavar="local|SLURM.toml|tcp://HOST:PORT",
    help="Where to compute, as for `nightbeam plan`. On SLURM every case has worker jobs of its own.",
)  # fmt: skip
@click.option(
    "--workers", type=click.IntRange(1), default=None,
    help="Local workers, which the cases that run at once share.  [default: one a core]",
)  # fmt: skip
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads of each.")
@click.option(
    "--memory", type=click.FloatRange(min=0.1), default=None, metavar="GIB",
    help="Memory that each worker may use.  [default: an equal share of what is free]",
)  # fmt: skip
@QUIET
@click.option(
    "--log", type=click.Path(dir_okay=False, path_type=Path), default=None,
    help="Log file of the batch.  [default: nightbeam.log in the output folder; every case has its own]",
)  # fmt: skip
@click.option("--keys", is_flag=True, help="List every key of a batch file, with its meaning.")
@clear_errors
def batch(
    batch_file: Path | None, store: Address, output: Path | None, cluster: str, workers: int | None,
    threads: int, memory: float | None, quiet: bool, log: Path | None, keys: bool,
) -> None:  # fmt: skip
    """Plan many cases by one or more protocols, unattended, and tell in the morning what became of them.

    A batch file (TOML) lists cases and protocols; a protocol is a study file, all of which holds for every case but its
    [case]. The smallest one that does a job:

    \b
      protocols = ["prostate.toml"]
      hu_table = "scanner.csv"
      dicom = ["incoming/*"]        # every folder in there is a case

    Every case is planned by a process of its own, so that one that fails stops no other. batch.html in the output
    folder tells at any time what is done, what has failed, why, and what was used. The same command again goes on
    after a kill, and starts what has failed or waits; what is done is left alone, unless its study, its case or the
    program has changed.

    Leaves with status 2 if any case has failed, otherwise with 0.

    \b
      nightbeam batch examples/batch.toml
      nightbeam status runs/batch
    """  # noqa: D301
    if keys:
        from flows.batch.spec import Batch
        from flows.keys import list_keys

        click.echo(list_keys(Batch))
        return
    if batch_file is None:
        raise click.UsageError("give a batch file, or --keys")
    from cluster.where import settled
    from flows.batch.jobs import list_jobs
    from flows.batch.page import read_summary
    from flows.batch.spec import read_batch
    from flows.prefect_server import prefect_api
    from flows.progress import log_to
    from storage.store import Store

    output = (output or Path("runs") / batch_file.stem).resolve()
    # Mistakes are told before anything starts.
    list_jobs(read_batch(batch_file), batch_file.parent, output)
    Store(store).require_writable()
    cluster = settled(cluster)
    with ExitStack() as stack:
        stack.enter_context(log_to(log or output / "nightbeam.log"))
        wait_for_prefect = stack.enter_context(prefect_api(output / ".batch" / "prefect"))
        from flows.batch.flow import overnight_batch
        from flows.run import Computing

        wait_for_prefect()
        computing = Computing(cluster, workers, threads, memory)
        page = overnight_batch(str(batch_file.resolve()), str(resolve(store)), str(output), computing, quiet)
    summary = read_summary(output)
    if not quiet:
        click.echo(f"page: {page}")
    if summary is not None and summary.count("failed"):
        sys.exit(_FAILED)


@click.command(epilog=EPILOG)
@click.argument("output", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--watch", is_flag=True, help="Show it again every two seconds, until it ends.")
@clear_errors
def status(output: Path | None, watch: bool) -> None:
    """Tell how far a batch, a plan or a front is.

    OUTPUT is the folder that it writes to; without it, the newest one in runs/. It may be looked at from every machine
    that sees the folder.

    \b
      nightbeam status runs/batch --watch
    """  # noqa: D301
    from flows.batch.status import newest_output, show_status

    show_status(output or newest_output(Path("runs")), watch)
