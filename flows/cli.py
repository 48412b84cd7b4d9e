"""The command ``nightbeam``. Heavy libraries are imported by the commands that need them, so that help is quick."""

from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import click

from engine.errors import NightbeamError
from flows.batch.command import batch as batch_command
from flows.batch.command import status as status_command
from flows.cluster_command import cluster as cluster_command
from flows.command import EPILOG, QUIET, STORE, clear_errors
from flows.store_command import store as store_command
from flows.submit import submit
from flows.watch import watch as watch_command
from storage.places.address import Address, local_folder, resolve

_STUDY = click.argument("study", type=click.Path(exists=True, dir_okay=False, path_type=Path))
_OUTPUT = click.option(
    "--output", type=click.Path(file_okay=False, path_type=Path), default=None,
    help="Folder for reports and DICOM.  [default: runs/NAME-OF-STUDY-FILE]",
)  # fmt: skip
_CLUSTER = click.option(
    "--cluster", default="local", show_default=True, metavar="local|SLURM.toml|tcp://HOST:PORT",
    help="Where to compute: processes on this machine; jobs of a SLURM cluster, as a file says (examples/slurm.toml); "
    "or a Dask scheduler that already runs and sees the store.",
)  # fmt: skip
_WORKERS = click.option(
    "--workers", type=click.IntRange(1), default=None, help="Local workers.  [default: one a core]"
)
_THREADS = click.option(
    "--threads", type=click.IntRange(1), default=1, show_default=True,
    help="Threads of each local worker. More of them with fewer workers need less memory, as threads share one copy "
    "of the patient; workers of one thread are a little faster.",
)  # fmt: skip
_MEMORY = click.option(
    "--memory", type=click.FloatRange(min=0.1), default=None, metavar="GIB",
    help="Memory that each worker may use. Tiles that do not fit are loaded from the store again in every evaluation; "
    "what cannot fit is refused before anything is computed.  [default: an equal share of what is free]",
)  # fmt: skip
_LOG = click.option(
    "--log", type=click.Path(dir_okay=False, path_type=Path), default=None,
    help="Log file.  [default: nightbeam.log in the output folder]",
)  # fmt: skip


def _run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the argument and options of everything that computes a study."""
    # From the last to the first, as decorators are applied, so that help lists them in this order.
    for option in reversed((_STUDY, STORE, _OUTPUT, _CLUSTER, _WORKERS, _THREADS, _MEMORY, QUIET, _LOG)):
        command = option(command)
    return command


@click.group(
    epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="nightbeam")
def main() -> None:
    """Plan radiotherapy in batches: influence matrices on a cluster, robust plans, Pareto fronts, reports, DICOM.

    A study file (TOML) says which patient, which beams, which objectives. Try the built-in phantom first:

    \b
      nightbeam plan examples/tg119_cshape.toml
      nightbeam pareto examples/tg119_cshape.toml

    Everything that was computed is kept in a store. The same command again only looks it up; a command that was
    killed goes on where it was; a changed objective computes no dose again.
    """


@main.command(epilog=EPILOG)
@_run_options
@clear_errors
def plan(
    study: Path,
    store: Address,
    output: Path | None,
    cluster: str,
    workers: int | None,
    threads: int,
    memory: float | None,
    quiet: bool,
    log: Path | None,
) -> None:
    """Plan a study, from the patient to the report.

    Reads the case, computes influence matrices for every scenario, optimises, computes the final dose, and writes
    report.html, summary.json, weights.npz and the plan as DICOM into the output folder.
    """
    _run_flow("plan", study, store, output, (cluster, workers, threads, memory), quiet, log)


@main.command(epilog=EPILOG)
@_run_options
@clear_errors
def pareto(
    study: Path,
    store: Address,
    output: Path | None,
    cluster: str,
    workers: int | None,
    threads: int,
    memory: float | None,
    quiet: bool,
    log: Path | None,
) -> None:
    """Trace a Pareto front over the study's three criteria.

    Solves the nominal problem for ten or more weightings of the criteria named in [pareto]; the workers keep the
    tiles in between. Writes front.html and front.json.
    """
    _run_flow("pareto", study, store, output, (cluster, workers, threads, memory), quiet, log)


def _run_flow(
    what: str, study: Path, store: Address, output: Path | None,
    where: tuple[str, int | None, int, float | None], quiet: bool, log: Path | None,
) -> None:  # fmt: skip
    from cluster.where import settled
    from engine.spec.study import load_study
    from flows.prefect_server import prefect_api
    from flows.progress import log_to
    from flows.progress_file import progress_in
    from storage.store import Store

    found = load_study(study)  # a mistake in the study is told before anything starts
    output = output or Path("runs") / study.stem
    cluster, n_worker, n_thread, memory_gib = where
    # Told now, and not after hours.
    cluster = settled(cluster)
    Store(store).require_writable()
    study, store, output = study.resolve(), resolve(store), output.resolve()
    with ExitStack() as stack:
        stack.enter_context(log_to(log or output / "nightbeam.log"))
        stack.enter_context(progress_in(output, what))
        wait_for_prefect = stack.enter_context(prefect_api(local_folder(store, output) / "prefect"))
        # The server takes some seconds to start: time to import, to read the case and to start a cluster.
        if what == "plan":
            from flows.plan_case import plan_case as flow
        else:
            from flows.pareto import trace_front as flow
        from flows.cases import case_of_study
        from flows.run import Computing, open_run

        computing = Computing(cluster, n_worker, n_thread, memory_gib)
        run = stack.enter_context(open_run(store, quiet, computing, output))
        with suppress(NightbeamError):  # the flow meets it again, and tells it or mends it
            case_of_study(run, found.case, study.parent)
        wait_for_prefect()
        # Runs of a batch differ by the last two parts: case and protocol.
        named = flow.with_options(flow_run_name="/".join(output.parts[-2:]))
        report = named(str(study), str(store), str(output), computing, quiet)
    if not quiet:
        click.echo(f"report: {report}")


@main.command(epilog=EPILOG)
@_STUDY
@STORE
@_OUTPUT
@clear_errors
def report(study: Path, store: Address, output: Path | None) -> None:
    """Write the report of a plan again, from the store alone.

    Computes no dose and solves nothing: what is not in the store has to be made with `nightbeam plan` first.
    """
    from flows.retell import tell_again

    click.echo(f"report: {tell_again(study, store, output or Path('runs') / study.stem)}")


@main.command(epilog=EPILOG)
@_STUDY
@STORE
@click.option(
    "--dicom", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder to write to."
)
@click.option("--beams", is_flag=True, help="Also the dose of every beam.")
@click.option("--scenarios", is_flag=True, help="Also the dose of the plan in every scenario.")
@click.option("--ct", is_flag=True, help="Also the CT, even if it came from DICOM.")
@clear_errors
def export(study: Path, store: Address, dicom: Path, beams: bool, scenarios: bool, ct: bool) -> None:
    """Write a plan as DICOM, from the store alone: RT Plan, RT Dose and RT Structure Set.

    The files refer to each other and to the CT series that was planned on; where that came from no DICOM files it is
    written, too. The plan is unapproved and for research only.
    """
    from flows.export import ExportChoice
    from flows.retell import export_again

    exported = export_again(study, store, dicom, ExportChoice(beams, scenarios, ct))
    click.echo(f"{', '.join(f'{n} {kind}' for kind, n in exported.n_file.items())} written to {dicom}")
    for note in exported.notes:
        click.echo(f"  note: {note}")


@main.command(epilog=EPILOG)
@click.argument("experiment", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="File to write (npz).")
@STORE
@QUIET
@click.option("--keys", is_flag=True, help="List every key of an experiment file, with its meaning.")
@clear_errors
def dose(experiment: Path | None, out: Path | None, store: Address, quiet: bool, keys: bool) -> None:
    """Compute one forward dose: a beam on a phantom or an imported case.

    The bench top for comparisons with other programs. An experiment file (TOML) says what is irradiated, with which
    beam, by which engine, and on which grid dose is scored. What the engine cannot do is refused.

    \b
      nightbeam dose examples/experiments/water_10x10.toml --out water.npz
      nightbeam dose --keys

    The npz file holds dose_gy[z, y, x] (mean of each voxel), inside (its share inside phantom or body), x_edges_mm,
    y_edges_mm, z_edges_mm, and meta: JSON with unit, engine and the whole experiment.
    """
    if keys:
        from engine.spec.experiment import Experiment
        from flows.keys import list_keys

        click.echo(list_keys(Experiment))
        return
    if experiment is None or out is None:
        raise click.UsageError("give an experiment file and --out FILE, or --keys")
    from flows.experiment import dose_of_experiment

    dose_gy, meta = dose_of_experiment(experiment, out, store, quiet)
    if not quiet:
        click.echo(f"largest voxel mean: {dose_gy.max():.6g} {meta['unit']}")
        click.echo(f"written to {out}")


@main.command(epilog=EPILOG)
@click.argument("name", required=False)
@click.option(
    "--dicom", type=click.Path(file_okay=False, path_type=Path), help="Folder to write the files to."
)
@click.option(
    "--layer", "layers", type=(float, float), multiple=True, metavar="MM HU",
    help="A layer of the phantom 'slabs': thickness and HU, from front to back; give one for each layer.",
)  # fmt: skip
@click.option(
    "--voxel", "voxel_mm", type=click.FloatRange(min=0.0, min_open=True), metavar="MM",
    help="Edge of the cubic voxels.  [default: the phantom's own, 2.5 or 3 mm]",
)  # fmt: skip
@clear_errors
def phantom(
    name: str | None, dicom: Path | None, layers: tuple[tuple[float, float], ...], voxel_mm: float | None
) -> None:
    """Write a built-in phantom as a DICOM CT series and RT Structure Set.

    Without NAME, lists the phantoms. The phantom lung-4d becomes a 4D CT: ten series, "phase 00 %" to "phase 90 %",
    and their average, in one frame of reference. Slabs of your own, water, aluminium-like and lung:

    \b
      nightbeam phantom slabs --dicom DIR --layer 30 0 --layer 20 2000 --layer 70 -740 --layer 180 0
    """
    from engine.phantoms import PHANTOMS
    from flows.cases import write_phantom

    if name is None:
        for known, build in PHANTOMS.items():
            click.echo(f"{known:18} {(build.__doc__ or '').splitlines()[0].removeprefix('Return ')}")
        return
    if dicom is None:
        raise click.UsageError("give the folder to write to with --dicom DIR")
    click.echo(f"{write_phantom(name, dicom, layers, voxel_mm)} files written to {dicom}")


@main.command("import", epilog=EPILOG)
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@STORE
@click.option(
    "--name", help='Name for study files: imported = "NAME".  [default: made from the series or CT]'
)
@click.option(
    "--series", metavar="TEXT",
    help="Which CT series, if the folder holds several: UID, number, or a part of its description.",
)  # fmt: skip
@click.option(
    "--structure-set", metavar="TEXT",
    help="Which structure set, if the folder holds several: UID, or a part of its label.",
)  # fmt: skip
@click.option(
    "--second", multiple=True, metavar="TEXT",
    help="An MR, PET or further CT series to keep beside the CT, named as with --series; give one for each.  "
    "[default: all MR and PET series that can be placed]",
)  # fmt: skip
@click.option(
    "--deidentify", type=click.Path(file_okay=False, path_type=Path), metavar="OUT_DIR",
    help="Write the files without names, dates and identifiers (PS3.15 basic profile) into OUT_DIR; read them there.",
)  # fmt: skip
@click.option(
    "--structures", multiple=True, type=click.Path(exists=True, path_type=Path), metavar="FILE|FOLDER",
    help="For a CT file: a mask, a label map or a .seg.nrrd, or a folder of them; may be given several times.",
)  # fmt: skip
@click.option(
    "--position", type=click.Choice(["HFS", "HFP", "FFS", "FFP"]),
    help="How the patient lies, for files that do not say it.",
)  # fmt: skip
@click.option(
    "--names", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE.toml",
    help="Give structures other names and kinds, as this file says.",
)  # fmt: skip
@click.option(
    "--write-names", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.toml",
    help="Write the proposed TG-263 names into a file for --names, to be checked and edited.",
)  # fmt: skip
@QUIET
@clear_errors
def import_case(
    source: Path, store: Address, name: str | None, series: str | None, structure_set: str | None,
    second: tuple[str, ...], deidentify: Path | None, structures: tuple[Path, ...],
    position: Any, names: Path | None, write_names: Path | None, quiet: bool,
) -> None:  # fmt: skip
    """Read a patient into the store, from DICOM or from a file of voxels.

    SOURCE is a folder with a DICOM CT series, its structure set, registered images, plans and doses (docs/dicom_in.md
    says what is read, mended and refused), an .npz case, or a CT as .nrrd, .nhdr, .nii, .nii.gz, .mha or .mhd with its
    structures in further files (docs/volumes.md):

    \b
      nightbeam import DICOM_DIR --name head
      nightbeam import CT.nii.gz --structures MASKS_DIR --position HFS --name head
    """
    from flows.import_case import import_source
    from storage.dicom.read_case import Choice

    choice = Choice(series, structure_set, second)
    import_source(source, store, name, choice, deidentify, structures, position, names, write_names, quiet)


@main.command(epilog=EPILOG)
@click.argument("study", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@STORE
@click.option("--keys", is_flag=True, help="List every key of a study file, with its meaning.")
@clear_errors
def check(study: Path | None, store: Address, keys: bool) -> None:
    """Validate a study file without running it.

    Leaves with status 0 if the file is good and 2 if it is not; every mistake in the file is told with its line. Then
    structures are looked up, where the case is a phantom or in the store.
    """
    from engine.physics.hu_table import load_hu_table
    from engine.spec.study import load_study
    from flows.cases import names_of_case
    from flows.keys import list_keys
    from flows.reading import check_names
    from flows.structures import check_made_names

    if keys:
        click.echo(list_keys())
    if study is not None:
        found = load_study(study)
        load_hu_table(found.case.hu_table, study.parent)
        names = names_of_case(store, found.case)
        if names is not None:
            check_names(found, check_made_names(found, names))
        n_scenario = len(found.scenarios.scenarios())
        n_beam = len(found.beams.gantry_deg) or f"the plan '{found.beams.from_plan}'s"
        click.echo(
            f"{study}: '{found.name}' is a good study ({n_beam} beams, {n_scenario} scenarios, "
            f"{len(found.objectives)} objectives, {len(found.goals)} goals); "
            + ("the case has all its structures" if names else "structures are looked up when it is run")
        )
        for template in found.from_templates:
            click.echo(f"template: {template.text}")
            for name, recipe in template.structures:
                click.echo(f"  structure {name}: {recipe}")
            for objective in template.objectives:
                click.echo(f"  objective {objective}")
    if study is None and not keys:
        raise click.UsageError("give a study file, or --keys")


main.add_command(cluster_command)
main.add_command(store_command)
main.add_command(submit)
main.add_command(watch_command)
main.add_command(batch_command)
main.add_command(status_command)

if __name__ == "__main__":
    main()
