"""`make test-chaos`: whatever happens to the jobs of a run, its results are those of a quiet local run, to the bit."""

import logging
import os
import random
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.chaos.summary import summarise
from tests.chaos.trial import CANCEL, KILL, KINDS, REQUEUE, STOP, Chaos, Outcome, judge
from tests.cluster.one_machine import REPOSITORY, OneMachine
from tests.cluster.slurm_run import SlurmRun
from tests.faults.trial import PLAN, uninterrupted

_N_RUN = int(os.environ.get("NIGHTBEAM_CHAOS_RUNS", "100"))
_SEED = int(os.environ.get("NIGHTBEAM_CHAOS_SEED", "20261121"))
_SIDE_BY_SIDE = int(os.environ.get("NIGHTBEAM_CHAOS_SIDE_BY_SIDE", "3"))

# Controlling jobs have a node for themselves: on the others everything can be pre-empted.
_BIG_SITE = """\
partition = "scavenge"
cores = 2
memory_gib = 3.0
jobs = 2
walltime = "00:30:00"
directives = ["--exclude=dev1"]

[controller]
partition = "batch"
walltime = "01:00:00"
memory_gib = 3.0
directives = ["--nodelist=dev1"]
"""
_SMALL_SITE = (
    _BIG_SITE.replace("cores = 2", "cores = 1")
    .replace("memory_gib = 3.0\njobs", "memory_gib = 1.5\njobs")
    .replace("memory_gib = 3.0\ndirectives", "memory_gib = 1.5\ndirectives")
)
_EVERY_S = 20.0
_STOP_S, _SHORT_STOP_S = 60.0, 5.0
_LIMIT_S, _SHORT_LIMIT_S = 3600.0, 900.0


@pytest.fixture(scope="module", autouse=True)
def events_are_logged() -> Iterator[None]:
    """Write every event into the file that NIGHTBEAM_CHAOS_LOG names."""
    log = logging.getLogger("nightbeam.chaos")
    log.setLevel(logging.INFO)
    file = os.environ.get("NIGHTBEAM_CHAOS_LOG")
    handler: logging.Handler = logging.FileHandler(file, mode="w") if file else logging.NullHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(handler)
    yield
    log.removeHandler(handler)
    handler.close()


def big_study() -> str:
    """Return the TG-119 C-shape with 14 setup scenarios."""
    text = (REPOSITORY / "examples" / "tg119_cshape.toml").read_text()
    changed = text.replace('setup = "axes"', 'setup = "corners14"')
    assert changed != text
    return changed


@pytest.mark.timeout(2 * 3600)
def test_fourteen_scenarios_survive_a_stormy_night(
    slurm: OneMachine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    expected = tmp_path / "quiet"
    expected.mkdir()
    uninterrupted("plan", big_study(), expected, {}, limit_s=_LIMIT_S)
    run = SlurmRun(slurm, tmp_path / "run", big_study(), {}, _BIG_SITE)
    try:
        chaos = Chaos(run, run.submit(), _SEED, _STOP_S)
        run.reach("dose: begins")
        # The script of the night: what has to happen, and after how many seconds of work.
        chance = chaos.chance
        due = [
            (chance.uniform(10.0, 40.0), KILL),
            (chance.uniform(40.0, 60.0), REQUEUE),
            (chance.uniform(60.0, 90.0), STOP),
            (chance.uniform(100.0, 130.0), REQUEUE),
            *((number * _EVERY_S, CANCEL) for number in range(1, int(_LIMIT_S / _EVERY_S))),
        ]
        begin_s = time.monotonic()
        for at_s, kind in sorted(due):
            chaos.wait(begin_s + at_s - time.monotonic())
            if not chaos.happens(kind):
                break
        chaos.finish(_LIMIT_S)
        judge(run, chaos.outcome, expected)
    finally:
        run.clear()
    with capsys.disabled():
        print(f"\n{_tell([chaos.outcome], 'night', chaos.outcome.wall_s)}\n", flush=True)
    assert (chaos.outcome.lost, chaos.outcome.different) == ("", "")
    kinds = [event.kind for event in chaos.outcome.events]
    assert kinds.count(KILL) == 1
    assert kinds.count(STOP) == 1
    assert kinds.count(REQUEUE) == 2
    assert kinds.count(CANCEL) >= 3


@pytest.mark.timeout(6 * 3600)
def test_none_of_a_hundred_runs_is_lost_or_different(slurm, prefect, tmp_path, capsys):
    expected = tmp_path / "quiet"
    expected.mkdir()
    uninterrupted("plan", PLAN, expected, prefect, limit_s=_LIMIT_S)

    def attempt(number: int) -> Outcome:
        outcome = _attempt(slurm, tmp_path / f"run-{number}", _SEED + number, prefect, expected)
        with capsys.disabled():
            print(
                f"run {number} (seed {outcome.seed}): {len(outcome.events)} events, {outcome.wall_s:.0f} s"
                + (f"; LOST: {outcome.lost}" if outcome.lost else "")
                + (f"; DIFFERENT: {outcome.different}" if outcome.different else ""),
                flush=True,
            )
        return outcome

    begin_s = time.monotonic()
    with ThreadPoolExecutor(_SIDE_BY_SIDE) as side_by_side:
        outcomes = list(side_by_side.map(attempt, range(_N_RUN)))
    with capsys.disabled():
        print(f"\n{_tell(outcomes, 'runs', time.monotonic() - begin_s)}\n", flush=True)
    assert [outcome for outcome in outcomes if outcome.lost or outcome.different] == []


def _attempt(
    slurm: OneMachine, folder: Path, seed: int, environment: dict[str, str], expected: Path
) -> Outcome:
    run = SlurmRun(slurm, folder, PLAN, environment, _SMALL_SITE)
    try:
        chaos = Chaos(run, run.submit(), seed, _SHORT_STOP_S)
        chance: random.Random = chaos.chance
        # Half of the runs are left alone while jobs and processes start, which takes longer than the work.
        if chance.random() < 0.5:
            run.reach("dose: begins")
        for _ in range(chance.randint(3, 6)):
            chaos.wait(chance.uniform(0.5, 8.0))
            if not chaos.happens(chance.choice(KINDS)):
                break
        chaos.finish(_SHORT_LIMIT_S)
        judge(run, chaos.outcome, expected)
    finally:
        run.clear()
    if not (chaos.outcome.lost or chaos.outcome.different):
        shutil.rmtree(folder)
    return chaos.outcome


def _tell(outcomes: list[Outcome], name: str, wall_s: float) -> str:
    summary = summarise(outcomes, _SEED, wall_s)
    if "NIGHTBEAM_CHAOS_SUMMARY" in os.environ:
        Path(os.environ["NIGHTBEAM_CHAOS_SUMMARY"], f"{name}.md").write_text(f"{summary}\n")
    return summary
