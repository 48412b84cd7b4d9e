"""Tasks on a real local cluster: order, errors, workers that die."""

import os
import signal
import socket
import time

import dask
import pytest
from distributed import LocalCluster

import cluster.losses
import cluster.open
from cluster.open import open_cluster
from cluster.submit import run_tasks
from engine.errors import CaseError, ClusterError, DamagedObjectError

pytestmark = pytest.mark.cluster

# Functions for workers are made inside the tests, so that they travel by value: workers need not find this file.


@pytest.fixture(scope="module")
def client():
    with open_cluster("local", 2) as client:
        yield client


def test_results_come_in_the_order_of_the_tasks_whoever_is_first(client, tmp_path):
    last = tmp_path / "the last task has run"

    def work(number):
        if number == 0:
            # With two workers, the others all run while this one waits.
            begin_s = time.monotonic()
            while not last.exists() and time.monotonic() - begin_s < 60.0:
                time.sleep(0.01)
        if number == 11:
            last.touch()
        return number * number

    finished = []
    assert run_tasks(client, work, range(12), finished.append) == [n * n for n in range(12)]
    assert sorted(finished) == list(range(12))
    # Task 11 is submitted when six others are done, and task 0 waits for it.
    assert finished.index(0) >= 6


def test_no_tasks_give_no_results(client):
    assert run_tasks(client, abs, []) == []


class CountingClient:
    """Passes everything on, and counts what was submitted."""

    def __init__(self, client):
        self._client, self.n_submitted = client, 0

    def __getattr__(self, name):
        return getattr(self._client, name)

    def submit(self, *args, **kwargs):
        self.n_submitted += 1
        return self._client.submit(*args, **kwargs)


def test_few_tasks_are_in_flight_and_none_is_kept_afterwards(client):
    counting, in_flight = CountingClient(client), []
    n_done = 0

    def on_done(number):
        nonlocal n_done
        in_flight.append(counting.n_submitted - n_done)
        n_done += 1

    assert run_tasks(counting, lambda number: -number, range(40), on_done) == [-n for n in range(40)]
    assert max(in_flight) == 6
    assert counting.n_submitted == 40
    deadline_s = time.monotonic() + 20.0
    while (kept := client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))) and (
        time.monotonic() < deadline_s
    ):
        time.sleep(0.05)
    assert kept == 0


@pytest.mark.parametrize(
    "error", [CaseError("bad case"), DamagedObjectError("influence", "ab" * 16, "cut off")]
)
def test_an_error_of_a_task_ends_the_run_at_once_and_arrives_whole(client, tmp_path, error):
    def work(number):
        (tmp_path / str(number)).touch()
        if number == 1:
            raise error
        return number

    with pytest.raises(type(error)) as caught:
        run_tasks(client, work, range(100))
    assert str(caught.value) == str(error)
    assert vars(caught.value) == vars(error)
    # Those in flight at the most, and a few that were submitted before the error arrived.
    assert len(list(tmp_path.iterdir())) < 50


def test_a_killed_worker_costs_another_attempt_and_no_result(client, tmp_path):
    def work(number):
        first_time = tmp_path / f"task {number} was begun"
        if number in (3, 8) and not first_time.exists():
            first_time.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return number + 100

    finished = []
    assert run_tasks(client, work, range(12), finished.append) == [n + 100 for n in range(12)]
    assert sorted(finished) == list(range(12))
    assert len(list(tmp_path.iterdir())) == 2


def test_a_task_that_always_kills_its_worker_ends_the_run_by_name(client, monkeypatch):
    # Three deaths instead of five, for time's sake: one more than are allowed in company.
    monkeypatch.setattr(cluster.losses, "MAX_LOST", 3)

    def work(name):
        if name == "deadly":
            os.kill(os.getpid(), signal.SIGKILL)
        return name

    tasks = ["harmless 1", "deadly", *(f"harmless {n}" for n in range(2, 10))]
    finished = []
    with pytest.raises(ClusterError, match=r"lost 3 times while they ran the same task \(deadly\)"):
        run_tasks(client, work, tasks, finished.append)
    # The others were done before, but for those that were lost together with it: suspects run last, one by one.
    assert tasks.index("deadly") not in finished
    assert len(finished) >= len(tasks) // 2
    # The cluster is of use to the next one.
    client.wait_for_workers(2, timeout=60)
    assert run_tasks(client, abs, [-1, -2]) == [1, 2]


def test_a_running_scheduler_is_joined_and_left_running(client):
    certificate = client.security.tls_client_cert
    tls = {f"distributed.comm.tls.{key}": certificate for key in ("ca-file", "client.cert", "client.key")}
    with dask.config.set(tls), open_cluster(client.scheduler.address, None) as joined:
        assert run_tasks(joined, abs, [-3]) == [3]
    assert run_tasks(client, abs, [-4]) == [4]


@pytest.fixture
def silent_address():
    """Return the address of a port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def closed_address():
    """Return the address of a port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return f"tcp://127.0.0.1:{port}"


@pytest.mark.parametrize("address", ["silent_address", "closed_address"])
def test_an_address_that_does_not_answer_is_a_clear_error_in_time(address, request, monkeypatch):
    assert cluster.open.CONNECT_S <= 20.0
    monkeypatch.setattr(cluster.open, "CONNECT_S", 1.0)
    where = request.getfixturevalue(address)
    begin_s = time.monotonic()
    with (
        pytest.raises(ClusterError, match=f"no Dask scheduler answers at {where}"),
        open_cluster(where, None),
    ):
        pass
    # The limit, and 5 s for everything around it.
    assert time.monotonic() - begin_s < 6.0


def test_an_address_that_is_none_is_a_clear_error():
    with (
        pytest.raises(ClusterError, match="no Dask scheduler answers at nonsense"),
        open_cluster("nonsense://x", None),
    ):
        pass


def test_a_scheduler_without_workers_is_a_clear_error():
    with (
        LocalCluster(
            n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0", silence_logs=50
        ) as empty,
        pytest.raises(ClusterError, match="has no workers"),
        open_cluster(empty.scheduler_address, None),
    ):
        pass
