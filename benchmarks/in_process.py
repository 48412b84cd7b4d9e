"""The main job's stages on variants of a study, with tasks done in this process instead of on a cluster."""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from cluster.pieces import n_part_of
from engine.spec.study import Study
from flows import stages
from flows.cases import case_of_study
from flows.progress import Reporter
from flows.references import CaseRef, Influence, Placement
from flows.run import Run
from storage.store import Store

NO_SCENARIOS = dict.fromkeys(
    ("setup", "shift_mm", "number", "seed", "density_factors", "nominal_probability")
)
RunTasks = Callable[..., list[Any]]


class RunHere(Run):
    """A run that never starts a cluster of its own."""

    @property
    def client(self) -> Any:
        """Nothing: whoever does the tasks has what is needed."""
        return None

    @property
    def ends(self) -> Any:
        """Nobody: there are no workers."""
        return None

    def expect_computing(self) -> None:
        """Start nothing."""


def changed(study: Study, **parts: Mapping[str, Any]) -> Study:
    """Return the study with some keys of some tables changed, or left out where None; validated again."""
    content = study.model_dump(exclude_unset=True)
    for part, keys in parts.items():
        merged = {**content.get(part, {}), **keys}
        content[part] = {key: value for key, value in merged.items() if value is not None}
    return Study.model_validate(content)


@contextmanager
def new_run(folder: Path | None = None) -> Iterator[RunHere]:
    """Yield a run on an empty store, which is removed at the end."""
    with (
        tempfile.TemporaryDirectory(prefix="nightbeam-bench-", dir=folder) as temporary,
        RunHere(Store(Path(temporary)), Reporter(quiet=True)) as run,
    ):
        yield run


def placed(run: Run, study: Study, folder: Path) -> tuple[CaseRef, Placement]:
    """Read the study's case and place its beams."""
    reference = stages.read(run, study, case_of_study(run, study.case, folder), folder)
    return reference, stages.place(run, study, reference)


class TasksHere:
    """Does the tasks of a stage in this process and counts their CPU seconds by kind."""

    def __init__(self) -> None:
        self.cpu_s: dict[str, float] = {}

    def __call__(
        self,
        client: Any,
        function: Callable[[Any], Any],
        tasks: Sequence[Any],
        on_done: Callable[[int], None],
        ends: Any = None,
    ) -> list[Any]:
        """Stand in for `cluster.submit.run_tasks`."""
        del client, ends
        results = []
        for number, task in enumerate(tasks):
            begin_s = time.process_time()
            results.append(function(task))
            kind = type(task).__name__
            self.cpu_s[kind] = self.cpu_s.get(kind, 0.0) + time.process_time() - begin_s
            for _ in range(n_part_of(task)):
                on_done(number)
        return results


def influence_by(run: Run, study: Study, placement: Placement, run_tasks: RunTasks) -> Influence:
    """Run the dose stage; whatever tasks it makes are done by ``run_tasks``."""
    with patch("cluster.submit.run_tasks", run_tasks):
        return stages.dose(run, study, placement, stages.vary(study))


def warm_up(study: Study, folder: Path) -> None:
    """Have the kernels of the dose stage compiled, or loaded, before anything is timed: on a coarse grid, one beam."""
    coarse = changed(
        study,
        dose={"grid_mm": 10.0},
        beams={"gantry_deg": study.beams.gantry_deg[:1], "couch_deg": None, "collimator_deg": None},
        scenarios=NO_SCENARIOS,
        optimisation={"robust": "nominal"},
    )
    with new_run() as run:
        influence_by(run, coarse, placed(run, coarse, folder)[1], TasksHere())
