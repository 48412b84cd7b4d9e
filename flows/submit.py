"""The command ``nightbeam submit``: puts a command itself into a job, so that the login session may end."""

import shlex
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cluster.where import is_site_file
from engine.errors import ClusterError
from flows.command import EPILOG, clear_errors
from storage.places.address import Address

if TYPE_CHECKING:
    from storage.lease import Lease

_RUNS = ("plan", "pareto", "batch")


@click.command(epilog=EPILOG, context_settings={"ignore_unknown_options": True})
@click.option(
    "--what", type=click.Choice(_RUNS), default="plan", show_default=True, help="Which command the job runs."
)
@click.option("--dry-run", is_flag=True, help="Only print the job script.")
@click.argument(
    "arguments", nargs=-1, type=click.UNPROCESSED, metavar="FILE.toml --cluster SLURM.toml [OPTIONS]..."
)
@click.pass_context
@clear_errors
def submit(context: click.Context, what: str, dry_run: bool, arguments: tuple[str, ...]) -> None:
    """Run a command as a SLURM job that outlives the login session.

    \b
      nightbeam submit examples/tg119_cshape.toml --cluster slurm.toml
      nightbeam submit examples/tg119_cshape.toml --cluster slurm.toml --what pareto
      nightbeam submit tonight.toml --cluster slurm.toml --what batch

    FILE.toml and OPTIONS are those of the command: see `nightbeam plan --help`. The job holds the planning process,
    which submits worker jobs as the SLURM file says (with start = "srun" the job holds the workers, too). The table
    [controller] of that file says how large and long the job is. When its walltime ends, or the command dies, it starts
    again and goes on from the store, until it is done. FILE.toml is read at every start: leave it as it is until then.
    """  # noqa: D301  (click wants a real \b)
    from cluster.slurm.controlling_job import ControllingJob, controller_name, controller_script
    from cluster.slurm.site import read_site

    file, cluster, output, given = _parse(context, what, arguments)
    site = read_site(cluster)
    job, name = ControllingJob(output), controller_name(file)
    script = controller_script(site, job, name, [what, *given])
    if dry_run:
        click.echo(script, nl=False)
        return
    with _only_submission(job.folder, name):
        live = job.live()
        if live is not None:
            where = f" on {live.host}" if live.host else ""
            raise ClusterError(
                f"{file.name} is job {live.id} already ({live.state.lower()}{where}), and writes to {output}; wait for "
                f"it, end it with `scancel {live.id}`, or give another folder with --output"
            )
        job.prepare(script)
        number = job.submit(name)
    click.echo(
        f"submitted as job {number} ({name}), walltime {site.controller.walltime}, started again when that ends"
    )
    click.echo(f"  see it     squeue --job {number}")
    click.echo(f"             tail -F {shlex.quote(str(job.log))}")
    click.echo(f"             nightbeam status {shlex.quote(str(output))}")
    click.echo(f"  stop it    scancel {number}     (submitted again, it goes on where it was)")
    click.echo(f"  results    {output}")


def _only_submission(folder: Path, name: str) -> "Lease":
    """Return the lease that whoever looks for a job and submits one has to hold: two at once would submit two."""
    from storage.lease import Claim

    folder.mkdir(parents=True, exist_ok=True)
    claim = Claim(folder, "submit")
    lease = claim.take_or_listen()
    if lease is None:
        raise ClusterError(
            f"somebody submits the same at this moment ({claim.holder or 'unknown'}); see the job with "
            f"`squeue --me --name={name}`"
        )
    return lease


def _parse(
    context: click.Context, what: str, arguments: tuple[str, ...]
) -> tuple[Path, Path, Path, list[str]]:
    """Return file, SLURM file and output folder, and the arguments to go on with, as the command itself reads them."""
    group: Any = context.parent
    command: click.Command = group.command.commands[what]
    params = command.make_context(context.info_name, list(arguments), parent=context.parent).params
    file = next(
        params[param.name] for param in command.params if isinstance(param, click.Argument) and param.name
    )
    if file is None:
        raise click.UsageError("give a file for the command to run")
    if not is_site_file(str(params["cluster"])):
        raise click.UsageError("say which SLURM it goes to, with --cluster FILE.toml")
    output = Path(params["output"] or Path("runs") / file.stem).absolute()
    _check(what, file, params["store"], output)
    given = list(arguments)
    if not params["output"]:
        given += ["--output", str(output)]
    return file, Path(params["cluster"]), output, given


def _require_no_batch(file: Path) -> None:
    with suppress(OSError, ValueError):  # told by whoever reads it
        if "protocols" in tomllib.loads(file.read_text()):
            raise click.UsageError(f"{file.name} is a batch file (it has protocols); add --what batch")


def _check(what: str, file: Path, store: Address, output: Path) -> None:
    """Raise what would end the job at once: told now, and not from the queue."""
    from engine.spec.study import load_study
    from storage.store import Store

    if what == "batch":
        from flows.batch.jobs import list_jobs
        from flows.batch.spec import read_batch

        list_jobs(read_batch(file), file.parent, output)
    else:
        _require_no_batch(file)
        load_study(file)
    Store(store).require_writable()
