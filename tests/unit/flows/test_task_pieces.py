"""Tasks of the dose and judge stages that are cut into pieces: the same results, to the last bit."""

from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from cluster.pieces import Divisible
from engine.spec.study import load_study
from flows import stages
from flows.cases import case_of_study
from flows.judging import forward_doses
from flows.progress import Reporter
from flows.run import Run
from flows.work import matrix
from storage.influence import read_tiles
from storage.store import Store
from tests.e2e.small_study import STUDY, write_study

SIZES = [1, 3, 1000]


class Here(Run):
    """A run without a cluster."""

    client = None  # type: ignore[assignment]
    ends = None  # type: ignore[assignment]


def cut_into(n: int) -> Callable[..., list[Any]]:
    """Return what does tasks in this process, so many parts at a time."""

    def run_tasks(
        client: Any, function: Any, tasks: Sequence[Any], on_done: Any = None, ends: Any = None
    ) -> list[Any]:
        results = []
        for task in tasks:
            if not isinstance(task, Divisible):
                results.append(function(task))
                continue
            pieces = [task.piece(at, min(at + n, task.n_part)) for at in range(0, task.n_part, n)]
            results.append([r for piece in pieces for r in function(piece)])
            assert len(results[-1]) == task.n_part
        return results

    return run_tasks


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[Any, ...]]:
    """Return stored tiles, views and final doses by the size of the pieces."""
    found = {}
    for n in SIZES:
        folder = tmp_path_factory.mktemp("pieces")
        text = STUDY.replace("beamlet_mm = 10.0", "beamlet_mm = 6.0").replace("[0, 90, 200]", "[0, 90]")
        study = load_study(write_study(folder, text))
        with (
            patch("cluster.submit.run_tasks", cut_into(n)),
            patch.object(matrix, "BLOCKS_AT_ONCE", min(n, 12)),
            Here(Store(folder / "store"), Reporter(quiet=True)) as run,
        ):
            reference = stages.read(run, study, case_of_study(run, study.case, folder), folder)
            placement = stages.place(run, study, reference)
            scenarios = stages.vary(study)[:2]
            influence = stages.dose(run, study, placement, scenarios)
            weights = [
                np.linspace(0.5, 1.5, placement.first_beamlet[-1]),
                np.ones(placement.first_beamlet[-1]),
            ]
            wanted = [(placement.report, scenario) for scenario in scenarios]
            final = forward_doses(
                run, placement, [*wanted, (placement.optimiser, scenarios[0])], weights, "doses"
            )
            assert len(influence.blocks) > 3 * len(placement.beams)
            found[n] = (bytes_of(run.store, influence), [d.dose_gy.tobytes() for plan in final for d in plan])
    return found


def bytes_of(store: Store, influence: Any) -> list[tuple[str, bytes]]:
    tiles = [(record.digest, read_tiles(store, record.digest)) for _, record in influence.blocks]
    views = [(v, store.read_arrays(matrix.VIEW, v)[0]) for views in influence.views for v in views]
    return [
        *((d, c.value.tobytes() + c.mini.tobytes() + c.scale.tobytes()) for d, c in tiles),
        *((d, b"".join(a.tobytes() for a in arrays.values())) for d, arrays in views),
    ]


@pytest.mark.parametrize("n", SIZES[1:])
def test_tiles_and_views_are_the_same_however_their_tasks_are_cut(
    computed: dict[int, tuple[Any, ...]], n: int
) -> None:
    assert computed[n][0] == computed[SIZES[0]][0]


@pytest.mark.parametrize("n", SIZES[1:])
def test_final_doses_are_the_same_however_their_tasks_are_cut(
    computed: dict[int, tuple[Any, ...]], n: int
) -> None:
    assert computed[n][1] == computed[SIZES[0]][1]
