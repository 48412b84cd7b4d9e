"""Kills at random moments leave no trace: `make test-faults` for two hundred of them, a few in every `make test`."""

import os
import shutil
import time
from pathlib import Path

import pytest

from tests.faults.compare import damage, difference_of_fronts, difference_of_plans
from tests.faults.environment import one_prefect_server
from tests.faults.summary import failure_rate_limit, summarise
from tests.faults.trial import FRONT, PLAN, Outcome, Trial, uninterrupted

_N_KILL = int(os.environ.get("NIGHTBEAM_FAULT_KILLS", "200"))
_SEED = int(os.environ.get("NIGHTBEAM_FAULT_SEED", "20261121"))
_KILLS_A_TRIAL = 9
_FRONT_EVERY = 8
_WORKERS = (2, 1, 4)


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    with one_prefect_server(tmp_path_factory.mktemp("prefect")) as environment:
        yield environment


@pytest.fixture(scope="module")
def plan(environment, tmp_path_factory):
    return uninterrupted("plan", PLAN, tmp_path_factory.mktemp("plan"), environment)


@pytest.fixture(scope="module")
def front(environment, tmp_path_factory):
    return uninterrupted("pareto", FRONT, tmp_path_factory.mktemp("front"), environment)


def attempt(
    folder: Path,
    n_worker: int,
    seed: int,
    n_kill: int,
    environment: dict[str, str],
    plan: Path,
    front: Path | None,
) -> Outcome:
    """Run one trial, of a plan or of a front, and judge what it left."""
    folder.mkdir()
    trial = Trial(folder, n_worker, seed, environment)
    if front is None:
        trial.run("plan", PLAN, n_kill)
    else:
        trial.run("pareto", FRONT, n_kill)
    outcome = trial.outcome
    if not outcome.lost:
        outcome.different = (
            damage(folder)
            or (difference_of_plans(folder, plan) if front is None else difference_of_fronts(folder, front))
            or "; ".join(f"still running: {line}" for line in trial.leftovers())
        )
    if not (outcome.lost or outcome.different):
        shutil.rmtree(folder)
    return outcome


@pytest.mark.cluster
@pytest.mark.prefect
def test_a_few_random_kills_leave_no_trace(environment, plan, tmp_path):
    outcome = attempt(tmp_path / "trial", 2, _SEED, 3, environment, plan, None)
    assert (outcome.lost, outcome.different) == ("", "")
    assert outcome.kills


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_no_random_kill_leaves_a_trace(environment, plan, front, tmp_path, capsys):
    begin_s = time.monotonic()
    outcomes: list[Outcome] = []
    while sum(len(outcome.kills) for outcome in outcomes) < _N_KILL:
        number = len(outcomes)
        of_front = front if number % _FRONT_EVERY == _FRONT_EVERY - 1 else None
        seed = _SEED + number
        outcomes.append(
            attempt(
                tmp_path / f"trial-{number}", _WORKERS[number % len(_WORKERS)], seed, _KILLS_A_TRIAL,
                environment, plan, of_front,
            )
        )  # fmt: skip
        last = outcomes[-1]
        with capsys.disabled():
            print(
                f"trial {number} (seed {seed}): {len(last.kills)} kills, {sum(len(o.kills) for o in outcomes)} so far"
                + (f"; LOST: {last.lost}" if last.lost else "")
                + (f"; DIFFERENT: {last.different}" if last.different else ""),
                flush=True,
            )
    summary = summarise(outcomes, _SEED, time.monotonic() - begin_s)
    with capsys.disabled():
        print(f"\n{summary}\n", flush=True)
    if "NIGHTBEAM_FAULT_SUMMARY" in os.environ:
        Path(os.environ["NIGHTBEAM_FAULT_SUMMARY"]).write_text(f"{summary}\n")
    assert [outcome for outcome in outcomes if outcome.lost or outcome.different] == []


def test_the_limit_of_the_failure_rate_is_that_of_clopper_and_pearson():
    assert failure_rate_limit(0, 200) == pytest.approx(1.0 - 0.05 ** (1.0 / 200.0))
    # 1 of 20: the limit p solves P(at most one success of 20) = 0.05.
    p = failure_rate_limit(1, 20)
    assert (1.0 - p) ** 20 + 20.0 * p * (1.0 - p) ** 19 == pytest.approx(0.05)
    assert failure_rate_limit(5, 5) == 1.0
