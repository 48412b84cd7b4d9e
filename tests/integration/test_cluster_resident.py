"""Rows that live on workers: the same bits as in one process, whatever happens to the workers."""

import os
import signal
import threading
import time

import numpy as np
import pytest
from distributed import Client, LocalCluster

import cluster.resident
import cluster.workers
from cluster.ends import WorkerEnd
from cluster.memory import Room
from cluster.open import open_cluster
from cluster.resident import ResidentRows
from cluster.submit import run_tasks
from engine.errors import ClusterError, DamagedObjectError
from engine.optimise.constraints import Constraint, Pressure
from engine.optimise.functions import (
    LinearUnderdose,
    MeanDose,
    SmoothMaximum,
    UpperMeanTail,
)
from engine.optimise.group import GroupEvaluator, Question, Term
from engine.optimise.problem import LocalRows, Problem
from engine.optimise.robust import n_smoothing_stage, smoothing
from engine.optimise.solvers import Further, SolverOptions, solve
from engine.optimise.solvers.saddle import SaddlePoint
from storage.influence import KIND
from storage.store import Store
from tests.integration.rows_on_workers import (
    FORMS,
    PROBABILITY,
    TERMS,
    bits,
    evaluated,
    kill_one_worker,
    wait_until_all_run,
)  # fmt: skip

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def client():
    with open_cluster("local", 2) as client:
        yield client


@pytest.fixture(scope="module")
def single_client():
    with open_cluster("local", 1) as client:
        yield client


@pytest.fixture(scope="module")
def threaded_client():
    with open_cluster("local", 1, 2) as client:
        yield client


def test_stored_groups_are_the_groups_in_memory(small, groups):
    stored = LocalRows(groups(range(len(small.bricks))), small.n_beamlet)
    for form, temperature in FORMS:
        assert evaluated(stored, form, temperature) == evaluated(small.rows, form, temperature)


@pytest.mark.parametrize(("form", "temperature"), FORMS)
@pytest.mark.parametrize("workers", ["single_client", "threaded_client", "client"])
def test_one_process_one_worker_two_threads_and_two_workers_give_the_same_bits(
    small, groups, workers, form, temperature, request
):
    client = request.getfixturevalue(workers)
    resident = ResidentRows(client, groups, small.work, small.n_beamlet)
    assert evaluated(resident, form, temperature) == evaluated(small.rows, form, temperature)
    assert resident.resident_bytes() == sum(group.n_bytes for group in small.rows.groups)
    assert resident.cpu_s() >= 0.0
    resident.close()


@pytest.mark.parametrize("n_kept", [0, 1, 3])
@pytest.mark.parametrize("workers", ["single_client", "threaded_client"])
def test_groups_that_are_streamed_give_the_same_bits(small, groups, n_kept, workers, request):
    room = int(np.cumsum(small.work)[n_kept - 1]) if n_kept else 0
    resident = ResidentRows(
        request.getfixturevalue(workers), groups, small.work, small.n_beamlet, Room(room, room)
    )
    for form, temperature in FORMS:
        assert evaluated(resident, form, temperature) == evaluated(small.rows, form, temperature)
    kept = small.rows.groups[:n_kept]
    assert resident.resident_bytes() == sum(group.n_bytes for group in kept)
    resident.close()


def test_the_sharing_out_of_groups_does_not_matter(small, groups, client):
    for work in (np.array([1, 0, 0, 1000]), np.array([1000, 1, 1, 1]), np.zeros(4, np.int64)):
        resident = ResidentRows(client, groups, work, small.n_beamlet)
        assert evaluated(resident, "expected", 0.0) == evaluated(small.rows, "expected", 0.0)


MANY_SUMS = [
    Term("tail", 0, UpperMeanTail(volume_percent=10.0, dose_gy=3.0), 2.0),
    Term("maximum", 1, SmoothMaximum(temperature_gy=0.5), 0.5, robust=False),
]


@pytest.mark.parametrize("n_kept", [4, 1])
def test_evaluations_and_hessian_products_of_many_sums_have_the_same_bits_even_if_a_worker_is_killed(
    small, groups, client, n_kept
):
    weight, direction = np.random.default_rng(82).uniform(0.0, 3.0, (2, small.n_beamlet))
    room = int(np.cumsum(small.work)[n_kept - 1])
    resident = ResidentRows(client, groups, small.work, small.n_beamlet, Room(room, room))
    for form, temperature in FORMS:
        here, there = (
            Problem(rows, [*TERMS, *MANY_SUMS], form, PROBABILITY) for rows in (small.rows, resident)
        )
        assert bits(there.evaluate(weight, temperature)) == bits(here.evaluate(weight, temperature))
        product = there.hessian_product(weight, direction, temperature)
        assert product.tobytes() == here.hessian_product(weight, direction, temperature).tobytes()
    question = here.question(weight, 0.1)
    (sums,) = zip(*resident.curvature_sums([question], [direction]), strict=True)
    slopes, changes = np.ones((2, *sums[0].shape[1:]))
    kill_one_worker(client)
    # A worker that comes anew has no doses: it is asked for them first.
    again = resident.curvature_products([question], [direction], [slopes], [changes])
    rows = small.rows
    rows.curvature_sums([question], [direction])
    for (part,), (expected,) in zip(
        again, rows.curvature_products([question], [direction], [slopes], [changes]), strict=True
    ):
        assert part.tobytes() == expected.tobytes()
    resident.close()


@pytest.mark.parametrize("form", ["expected", "composite_worst_case", "voxel_worst_case", "cvar"])
def test_pressure_on_hard_constraints_has_the_same_bits_on_workers(small, groups, client, form):
    limits = [
        Constraint("mean", 1, MeanDose(), "at_most", 1.0),
        Constraint("tail", 0, UpperMeanTail(volume_percent=10.0, dose_gy=3.0), "at_most", 3.0, robust=False),
    ]
    part = 0.4 if form == "cvar" else None
    pressure = Pressure(np.full((2, PROBABILITY.size), 0.7), np.array([2.0, 3.0]))
    weight = np.random.default_rng(83).uniform(0.0, 3.0, small.n_beamlet)
    resident = ResidentRows(client, groups, small.work, small.n_beamlet)
    here, there = (
        Problem(rows, TERMS, form, PROBABILITY, part, limits).pressed(pressure).evaluate(weight, 0.1)
        for rows in (small.rows, resident)
    )
    assert bits(there) == bits(here)
    resident.close()


def test_a_worker_killed_between_evaluations_changes_nothing(small, groups, client):
    resident = ResidentRows(client, groups, small.work, small.n_beamlet)
    before = evaluated(resident, "voxel_worst_case", 0.1)
    kill_one_worker(client)
    assert evaluated(resident, "voxel_worst_case", 0.1) == before
    assert before == evaluated(small.rows, "voxel_worst_case", 0.1)


def test_those_that_are_left_keep_their_rows_when_a_worker_is_killed(small, groups, client, tmp_path):
    wait_until_all_run(client)
    log = tmp_path / "loaded"

    def load(numbers):
        with log.open("a") as stream:
            stream.write("".join(f"{number}\n" for number in numbers))
        return groups(numbers)

    resident = ResidentRows(client, load, small.work, small.n_beamlet)
    before = evaluated(resident, "expected", 0.0)
    first = log.read_text().split()
    assert sorted(first) == ["0", "1", "2", "3"]
    kill_one_worker(client)
    assert evaluated(resident, "expected", 0.0) == before
    again = log.read_text().split()[len(first) :]
    assert 0 < len(again) < len(first)


def test_the_last_worker_killed_between_evaluations_changes_nothing(small, groups, single_client):
    resident = ResidentRows(single_client, groups, small.work, small.n_beamlet)
    before = evaluated(resident, "expected", 0.0)
    kill_one_worker(single_client, 1)
    assert evaluated(resident, "expected", 0.0) == before


def test_rows_are_shared_out_again_if_the_last_worker_goes_when_they_are(
    small, groups, single_client, monkeypatch
):
    resident = ResidentRows(single_client, groups, small.work, small.n_beamlet)
    before = evaluated(resident, "expected", 0.0)
    resident.close()
    known_workers, listed = cluster.resident.known_workers, []

    def outdated(*args, **kwargs):
        listed.append(known_workers(*args, **kwargs))
        if len(listed) == 1:
            kill_one_worker(single_client, 1)
            while single_client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.workers)):
                time.sleep(0.01)
        return listed[-1]

    monkeypatch.setattr(cluster.resident, "known_workers", outdated)
    assert evaluated(resident, "expected", 0.0) == before


def test_rows_of_a_worker_that_takes_nothing_do_not_go_to_one_that_has_its_share(
    small, groups, client, monkeypatch
):
    wait_until_all_run(client)
    known_workers, listed = cluster.resident.known_workers, []

    def outdated(*args, **kwargs):
        listed.append(known_workers(*args, **kwargs))
        return listed[-1] | {"tls://127.0.0.1:9": 1} if len(listed) == 1 else listed[-1]

    monkeypatch.setattr(cluster.resident, "known_workers", outdated)
    resident = ResidentRows(client, groups, small.work, small.n_beamlet)
    assert sorted(holder.worker for holder in resident._holders) == sorted(listed[-1])
    assert evaluated(resident, "expected", 0.0) == evaluated(small.rows, "expected", 0.0)


def test_what_is_asked_after_the_evaluations_survives_a_killed_worker(small, groups, client):
    resident = ResidentRows(client, groups, small.work, small.n_beamlet)
    kill_one_worker(client)
    assert resident.cpu_s() >= 0.0
    kill_one_worker(client)
    assert resident.resident_bytes() == sum(group.n_bytes for group in small.rows.groups)


def deadly(groups, where, marker, group_that_kills):
    """Return a loader whose worker dies once at a place in the work on one group, or always without a marker."""

    def die():
        if marker is not None:
            if marker.exists():
                return
            marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)

    class Deadly(GroupEvaluator):
        def sums(self, *args):
            if where == "sums":
                die()
            return super().sums(*args)

        def gradients(self, *args):
            if where == "gradient":
                die()
            return super().gradients(*args)

    def load(numbers):
        if where == "load" and group_that_kills in numbers:
            die()
        loaded = groups(numbers)
        return [
            Deadly(group.scenarios, group.regions) if number == group_that_kills else group
            for number, group in zip(numbers, loaded, strict=True)
        ]

    return load


@pytest.mark.parametrize("where", ["load", "sums", "gradient"])
def test_a_worker_that_dies_during_an_evaluation_changes_nothing(small, groups, client, tmp_path, where):
    wait_until_all_run(client)
    marker = tmp_path / "died"
    resident = ResidentRows(client, deadly(groups, where, marker, 2), small.work, small.n_beamlet)
    for form, temperature in FORMS:
        assert evaluated(resident, form, temperature) == evaluated(small.rows, form, temperature)
    assert marker.exists()


LINEAR = [
    Term("cold", 0, LinearUnderdose(dose_gy=6.0), 5.0),
    Term("tail", 1, UpperMeanTail(volume_percent=20.0), 0.4),
]


@pytest.mark.parametrize("workers", ["single_client", "client"])
@pytest.mark.parametrize("solver", ["newton_cg", "simulated_annealing", "primal_dual"])
def test_every_solver_ends_with_the_same_bits_on_any_workers(small, groups, workers, solver, request):
    def solved(rows):
        problem = Problem(rows, LINEAR if solver == "primal_dual" else TERMS, "expected", PROBABILITY)
        saddle = SaddlePoint(problem) if solver == "primal_dual" else None
        further = Further(problem.hessian_product, problem.value, saddle)
        options = SolverOptions(30, 1e-12, solver=solver)
        result = solve(problem.evaluate, np.ones(small.n_beamlet), 1, lambda stage, at: 0.0, options, further)
        return result.weight.tobytes(), result.history.tobytes()

    # One of four groups is streamed.
    kept = int(np.cumsum(small.work)[2])
    room = Room(kept, kept) if workers == "single_client" else None
    resident = ResidentRows(request.getfixturevalue(workers), groups, small.work, small.n_beamlet, room)
    assert solved(resident) == solved(small.rows)
    resident.close()


def test_doses_and_adjoints_survive_the_loss_of_a_worker(small, groups, client):
    wait_until_all_run(client)
    resident = ResidentRows(client, groups, small.work, small.n_beamlet)
    weight = np.random.default_rng(5).uniform(0.0, 3.0, small.n_beamlet)
    expected = small.rows.doses(weight, 2)
    kill_one_worker(client)
    doses = resident.doses(weight, 2)
    assert [dose.tobytes() for dose in doses] == [dose.tobytes() for dose in expected]
    kill_one_worker(client)
    assert [a.tobytes() for a in resident.adjoints(doses)] == [
        a.tobytes() for a in small.rows.adjoints(expected)
    ]


def test_a_solve_during_which_a_worker_dies_ends_with_the_same_bits(small, groups, client, tmp_path):
    def solved(rows, after_ten):
        problem = Problem(rows, TERMS, "composite_worst_case", PROBABILITY)
        n = 0

        def evaluate(weight, temperature):
            nonlocal n
            n += 1
            if n == 10:
                after_ten()
            return problem.evaluate(weight, temperature)

        result = solve(
            evaluate,
            np.ones(small.n_beamlet),
            n_smoothing_stage(problem.form),
            lambda stage, at: smoothing(problem.form, stage, at.exact, 6.0),
            SolverOptions(40, 1e-12),
        )
        return result.weight.tobytes(), result.history.tobytes()

    resident = ResidentRows(client, groups, small.work, small.n_beamlet)
    assert solved(resident, lambda: kill_one_worker(client)) == solved(small.rows, lambda: None)


def test_workers_that_always_die_end_the_run(small, groups, client, monkeypatch):
    wait_until_all_run(client)
    monkeypatch.setattr(cluster.resident, "_MAX_REBUILDS", 1)
    resident = ResidentRows(client, deadly(groups, "sums", None, 2), small.work, small.n_beamlet)
    with pytest.raises(ClusterError, match="resident tiles were lost"):
        evaluated(resident, "expected", 0.0)


def test_to_ask_for_cpu_seconds_between_sums_and_gradients_does_no_harm(small, groups, client):
    wait_until_all_run(client)
    question = Question(np.ones(small.n_beamlet), tuple(TERMS), 3)
    resident = ResidentRows(client, groups, small.work, small.n_beamlet)
    ((totals,), *_) = resident.sums([question])
    slopes = np.ones(totals.shape)
    kill_one_worker(client)
    assert resident.cpu_s() >= 0.0
    rows = small.rows
    rows.sums([question])
    for (part,), (expected,) in zip(
        resident.gradients([question], [slopes]), rows.gradients([question], [slopes]), strict=True
    ):
        assert part.tobytes() == expected.tobytes()


class Ends:
    """Says the same of every worker that has ended."""

    def __init__(self, cause, **figures):
        self.cause, self.figures = cause, figures

    def why(self, address):
        return WorkerEnd(address, self.cause, "job 7 ended", **self.figures)


def test_workers_that_run_out_of_memory_every_time_end_the_run_with_the_numbers(small, groups, client):
    wait_until_all_run(client)
    ends = Ends("memory", peak_bytes=3 << 30, limit_bytes=2 << 30)
    load = deadly(groups, "sums", None, 2)
    resident = ResidentRows(client, load, small.work, small.n_beamlet, ends=ends)
    with pytest.raises(ClusterError, match=r"used 3\.00 GiB, may use 2\.00 GiB .*, 3 times in a row; give"):
        evaluated(resident, "expected", 0.0)


def dying_at_first(groups, n, folder):
    """Return a loader whose workers die the first times that they answer."""

    class Dying(GroupEvaluator):
        def sums(self, *args):
            begun = len(list(folder.iterdir()))
            if begun < n:
                (folder / f"{begun}").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().sums(*args)

    return lambda numbers: [Dying(group.scenarios, group.regions) for group in groups(numbers)]


def test_workers_whose_jobs_end_again_and_again_change_nothing(
    small, groups, single_client, tmp_path, monkeypatch
):
    monkeypatch.setattr(cluster.resident, "_MAX_REBUILDS", 0)
    load = dying_at_first(groups, 2, tmp_path)
    resident = ResidentRows(single_client, load, small.work, small.n_beamlet, ends=Ends("left"))
    assert evaluated(resident, "expected", 0.0) == evaluated(small.rows, "expected", 0.0)


def test_jobs_that_are_too_short_for_one_evaluation_end_the_run(
    small, groups, single_client, tmp_path, monkeypatch
):
    monkeypatch.setattr(cluster.resident, "MAX_LEFT", 2)
    load = dying_at_first(groups, 2, tmp_path)
    resident = ResidentRows(single_client, load, small.work, small.n_beamlet, ends=Ends("left"))
    with pytest.raises(ClusterError, match=r"ended 2 times before .*\(job 7 ended\): give jobs a longer"):
        evaluated(resident, "expected", 0.0)


@pytest.mark.parametrize("where", ["load", "sums", "gradient"])
@pytest.mark.parametrize("error", [ValueError, RuntimeError, OSError, MemoryError])
def test_a_bug_on_a_worker_is_told_as_it_is_and_not_tried_again(
    small, groups, client, tmp_path, where, error
):
    wait_until_all_run(client)

    def fail(here):
        if where == here:
            raise error("a bug in the work")

    class Buggy(GroupEvaluator):
        def sums(self, *args):
            fail("sums")
            return super().sums(*args)

        def gradients(self, *args):
            fail("gradient")
            return super().gradients(*args)

    def load(numbers):
        (tmp_path / f"{numbers[0]}-{time.monotonic_ns()}").touch()
        if 2 in numbers:
            fail("load")
        return [Buggy(group.scenarios, group.regions) for group in groups(numbers)]

    with pytest.raises(error, match="a bug in the work") as caught:
        evaluated(ResidentRows(client, load, small.work, small.n_beamlet), "expected", 0.0)
    assert "in fail" in "".join(caught.value.__notes__)  # the worker's traceback
    # Once on each worker; twice if one that an earlier test killed has left only now. Six rounds would be twelve.
    assert len(list(tmp_path.iterdir())) <= 4


def test_an_error_that_cannot_travel_is_told_in_words(small, groups, client):
    class StubbornError(Exception):
        def __init__(self, reason, lock):
            super().__init__(reason)
            self.lock = lock

    def load(numbers):
        raise StubbornError("a bug that cannot be pickled", threading.Lock())

    with pytest.raises(RuntimeError, match=r"(?s)in load.*a bug that cannot be pickled"):
        ResidentRows(client, load, small.work, small.n_beamlet)


def test_a_cluster_without_workers_ends_the_run(small, groups, monkeypatch):
    monkeypatch.setattr(cluster.workers, "WORKER_WAIT_S", 0.5)
    with (
        LocalCluster(
            n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0", silence_logs=50
        ) as empty,
        Client(empty) as client,
    ):
        with pytest.raises(ClusterError, match=r"without workers for 0\.5 s"):
            ResidentRows(client, groups, small.work, small.n_beamlet)
        with pytest.raises(ClusterError, match=r"without workers for 0\.5 s"):
            run_tasks(client, abs, [-1])


def test_a_damaged_tile_is_named_by_the_worker_and_not_tried_again(small, groups, client):
    digest = groups.scenarios[1].digests[0]
    path = Store(groups.store).arrays_path(KIND, digest)
    raw = path.read_bytes()
    path.write_bytes(raw[:-5])
    try:
        with pytest.raises(DamagedObjectError) as caught:
            ResidentRows(client, groups, small.work, small.n_beamlet)
    finally:
        path.write_bytes(raw)
    assert (caught.value.kind, caught.value.digest) == (KIND, digest)
