"""Prefect flow: a Pareto front over a study's criteria."""

from pathlib import Path

from prefect import flow

from engine.spec.study import Study, load_study
from flows import front, stages
from flows.ending import of_the_command
from flows.plan_case import as_task, read_and_place
from flows.presence import sign
from flows.recovery import until_whole
from flows.run import Computing, Run, open_run
from storage.places.address import parse_address


@flow(name="pareto front", persist_result=False, on_running=[sign])
def trace_front(
    study_file: str,
    store: str,
    output: str,
    computing: Computing = Computing(),  # noqa: B008  (it is frozen)
    quiet: bool = False,
) -> str:
    """Trace the front of a study; returns the path of its page. Parameters as in `flows.plan_case.plan_case`."""
    path = Path(study_file)
    study = load_study(path)
    front.pareto_spec(study)
    with of_the_command(), open_run(parse_address(store), quiet, computing, Path(output)) as run:
        return str(until_whole(run, lambda: _trace(run, study, path.parent, Path(output))))


def _trace(run: Run, study: Study, folder: Path, output: Path) -> Path:
    reference, placement = read_and_place(run, study, folder)
    nominal = as_task("vary", lambda: stages.vary(study))[0]
    n_plan = front.n_plan(study)
    as_task("size", lambda: stages.size(run, study, reference, placement, [nominal], n_plan))
    influence = as_task("dose", lambda: stages.dose(run, study, placement, [nominal]))
    plans = as_task("optimise", lambda: front.solve_front(run, study, reference, placement, influence))
    judged = as_task("judge", lambda: front.judge_front(run, study, reference, placement, nominal, plans))
    run.tell_peak()
    return as_task("tell", lambda: front.tell_front(study, reference, influence, plans, judged, output))
