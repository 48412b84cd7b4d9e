"""Tell again from the store: report and DICOM of a plan that was made before, without computing anything."""

from pathlib import Path

from engine.errors import StudyError
from engine.spec.study import Study, load_study
from flows import stages
from flows.cases import case_of_study
from flows.export import ExportChoice, Exported, export_plan
from flows.judging import Judgement
from flows.progress import Reporter
from flows.references import CaseRef, Influence, Placement, Solve
from flows.run import Run
from storage.places.address import Address
from storage.places.opening import place_at
from storage.store import Store


def _look_up(run: Run, study: Study, folder: Path) -> tuple[CaseRef, Placement, Influence, Solve, Judgement]:
    reference = stages.read(run, study, case_of_study(run, study.case, folder), folder)
    placement = stages.place(run, study, reference)
    scenarios = stages.vary(study)
    influence = stages.dose(run, study, placement, scenarios)
    solve = stages.optimise(run, study, reference, placement, influence)
    judgement = stages.judge(run, study, reference, placement, scenarios, influence, solve)
    return reference, placement, influence, solve, judgement


def _existing(store: Address) -> Store:
    if not place_at(store).exists():
        raise StudyError(
            f"there is no store {store}; run `nightbeam plan` first, or name the store with --store"
        )
    return Store(store)


def tell_again(study_file: Path, store: Address, output: Path) -> Path:
    """Write report and summary again; returns the path of the report.

    Raises
    ------
    StudyError
        If something the plan needs is not in the store.
    """
    with Run(_existing(store), Reporter(quiet=True), may_compute=False) as run:
        study = load_study(study_file)
        return stages.tell(run, study, *_look_up(run, study, study_file.parent), output)


def export_again(study_file: Path, store: Address, folder: Path, choice: ExportChoice) -> Exported:
    """Write a plan as DICOM; returns what was written.

    Raises
    ------
    StudyError
        If something the plan needs is not in the store.
    """
    with Run(_existing(store), Reporter(quiet=True), may_compute=False) as run:
        study = load_study(study_file)
        reference, placement, _, solve, judgement = _look_up(run, study, study_file.parent)
        scenarios = stages.vary(study)
        return export_plan(run, study, reference, placement, scenarios, solve, judgement, folder, choice)
