"""The command ``nightbeam cluster``: what a SLURM site's file means, before anything is submitted."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from flows.command import EPILOG, STORE, clear_errors
from flows.preflight import test
from storage.places.address import Address, local_folder

if TYPE_CHECKING:
    from cluster.slurm.site import SlurmSite

_SITE = click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
_EXAMPLE_RUN = "0a1b2c3d"


@click.group()
def cluster() -> None:
    """Look at the file of a SLURM site (see examples/slurm.toml)."""


@cluster.command(epilog=EPILOG)
@_SITE
@STORE
@clear_errors
def show(file: Path, store: Address) -> None:
    """Print the job script that would be submitted, and in words what it asks for.

    The script is exact but for the name of the run's folder, which every run has of its own.
    """
    from cluster.slurm.script import worker_script
    from cluster.slurm.site import read_site
    from storage.places.place import CLUSTERS

    site = read_site(file)
    shared = local_folder(store, Path("OUTPUT")).absolute()
    click.echo(worker_script(site, shared / CLUSTERS / _EXAMPLE_RUN), nl=False)
    click.echo(f"\n{in_words(site)}")


@cluster.command(epilog=EPILOG)
@clear_errors
def keys() -> None:
    """List every key of a SLURM site's file, with its meaning."""
    from cluster.slurm.site import SlurmSite
    from flows.keys import list_keys

    click.echo(list_keys(SlurmSite))


cluster.add_command(test)


def in_words(site: "SlurmSite") -> str:
    """Return what a site's file asks for, in sentences."""
    from cluster.memory import gib
    from cluster.slurm.keeper import longest_margin_s, margin_s

    fewest, most = site.n_job_min, site.n_job_max
    number = (
        f"{fewest} worker jobs" if fewest == most else f"{fewest} to {most} worker jobs, as the work needs"
    )
    if most == 1:
        number = "1 worker job"
    how = "submitted by sbatch" if site.start == "sbatch" else "started by srun in the allocation that exists"
    begin_min, end_min = longest_margin_s(site.walltime_s) / 60.0, margin_s(site.walltime_s) / 60.0
    return "\n".join(
        (
            f"{number} ({how}), each with {_cores(site.cores)} and {site.memory_gib:g} GiB for {site.walltime}.",
            f"In each, {_many(site.processes, 'worker process', 'worker processes')} of "
            f"{_many(site.n_thread, 'thread', 'threads')}; a process plans to use {gib(site.planned_bytes)} of memory "
            f"and is ended above {gib(site.worker_bytes)}.",
            f"All together at most {_cores(most * site.cores)} and {most * site.memory_gib:g} GiB. "
            "The planning process and the scheduler run where the command is given.",
            f"A job finishes what it does and leaves {end_min:.1f} to {begin_min:.1f} min before its walltime is over; "
            "the next one is submitted before that.",
        )
    )


def _cores(n: int) -> str:
    return _many(n, "core", "cores")


def _many(n: int, one: str, several: str) -> str:
    return f"{n} {one if n == 1 else several}"
