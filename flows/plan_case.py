"""Prefect flow: one study, from the patient to the report. Thin: every task is a function of `flows.stages`."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from engine.spec.study import Study, load_study
from flows import stages
from flows.cases import case_of_study
from flows.ending import of_the_command
from flows.presence import sign
from flows.progress_file import begin_stage
from flows.recovery import until_whole
from flows.references import CaseRef, Placement
from flows.run import Computing, Run, open_run
from storage.places.address import parse_address

R = TypeVar("R")


def as_task(name: str, work: Callable[[], R]) -> R:
    """Run a stage as a Prefect task; the store, not Prefect, remembers what is done (it checks every byte)."""
    begin_stage(name)
    return task(name=name, cache_policy=NO_CACHE, persist_result=False)(work)()


@flow(name="plan case", persist_result=False, on_running=[sign])
def plan_case(
    study_file: str,
    store: str,
    output: str,
    computing: Computing = Computing(),  # noqa: B008  (it is frozen)
    quiet: bool = False,
) -> str:
    """Plan a study; returns the path of its report.

    Parameters
    ----------
    study_file
        The TOML file.
    store
        Address of the result store.
    output
        Folder for report, summary and DICOM.
    computing
        Where to compute.
    quiet
        Print nothing.
    """
    path = Path(study_file)
    study = load_study(path)
    with of_the_command(), open_run(parse_address(store), quiet, computing, Path(output)) as run:
        return str(until_whole(run, lambda: _plan(run, study, path.parent, Path(output))))


def _plan(run: Run, study: Study, folder: Path, output: Path) -> Path:
    reference, placement = read_and_place(run, study, folder)
    scenarios = as_task("vary", lambda: stages.vary(study))
    as_task("size", lambda: stages.size(run, study, reference, placement, scenarios))
    influence = as_task("dose", lambda: stages.dose(run, study, placement, scenarios))
    solve = as_task("optimise", lambda: stages.optimise(run, study, reference, placement, influence))
    judgement = as_task(
        "judge",
        lambda: stages.judge(run, study, reference, placement, scenarios, influence, solve),
    )
    run.tell_peak()
    return as_task(
        "tell", lambda: stages.tell(run, study, reference, placement, influence, solve, judgement, output)
    )


def read_and_place(run: Run, study: Study, folder: Path) -> tuple[CaseRef, Placement]:
    """Run the first two stages."""
    digest = as_task("import", lambda: case_of_study(run, study.case, folder))
    reference: CaseRef = as_task("read", lambda: stages.read(run, study, digest, folder))
    placement: Placement = as_task("place", lambda: stages.place(run, study, reference))
    return reference, placement
