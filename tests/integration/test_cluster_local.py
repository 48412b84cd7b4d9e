"""Local processes: started, looked after, started again, and gone with whoever started them."""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from distributed import Client

from cluster.child import Child
from cluster.local import LocalProcesses
from cluster.open import Cluster, _connect, open_cluster
from cluster.security import make_certificate, path_of, security
from cluster.submit import run_tasks
from engine.errors import ClusterError, SchedulerLostError

pytestmark = pytest.mark.cluster


def wait_for(condition, limit_s=30.0):
    begin_s = time.monotonic()
    while not condition():
        assert time.monotonic() - begin_s < limit_s
        time.sleep(0.01)


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.fixture(scope="module")
def cluster():
    """Return a cluster whose workers may be killed."""
    cluster = Cluster("local", 2, imports=("engine.units",))
    cluster.client()
    yield cluster
    cluster.close()


def test_all_processes_have_their_own_session_so_that_ctrl_c_does_not_reach_them(cluster):
    pids = cluster.local.pids()
    assert sorted(pids) == ["scheduler", "worker 1", "worker 2"]
    for pid in pids.values():
        assert os.getsid(pid) == pid


def listening_addresses(pid):
    """Return the addresses, in hexadecimal, that a process listens at."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        found = re.fullmatch(r"socket:\[(\d+)\]", str(descriptor.readlink()))
        if found:
            inodes.add(found[1])
    addresses = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A" and inode in inodes:
                addresses.append(local.split(":")[0])
    return addresses


def test_all_processes_listen_on_loopback_alone(cluster):
    for pid in cluster.local.pids().values():
        addresses = listening_addresses(pid)
        assert addresses
        assert set(addresses) == {"0100007F"}


@pytest.mark.parametrize("protocol", ["tls", "tcp"])
def test_who_has_another_certificate_is_not_let_in(cluster, tmp_path, protocol):
    other = tmp_path / "certificate.pem"
    other.write_bytes(make_certificate())
    address = cluster.local.address()
    assert address.startswith("tls://")
    with pytest.raises(ClusterError, match="no Dask scheduler answers"):
        _connect(address.replace("tls", protocol), 2.0, security(other))


def test_small_web_servers_have_no_pages(cluster):
    for worker in cluster.client().scheduler_info(n_workers=-1)["workers"].values():
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(
                f"http://127.0.0.1:{worker['services']['dashboard']}/info/main/workers.html"
            )


def test_workers_import_what_they_are_told_to_before_they_join(cluster):
    assert run_tasks(cluster.client(), lambda name: name in sys.modules, ["engine.units"]) == [True]


def test_a_worker_that_ended_is_started_again_and_takes_part(cluster):
    client = cluster.client()
    before = cluster.local.pids()
    os.kill(before["worker 2"], signal.SIGKILL)
    wait_for(lambda: cluster.local.pids().get("worker 2", before["worker 2"]) != before["worker 2"])
    wait_for(
        lambda: (
            set(client.run(os.getpid).values()) == set(cluster.local.pids().values()) - {before["scheduler"]}
        )
    )
    assert cluster.local.pids()["worker 1"] == before["worker 1"]


def test_workers_have_as_many_threads_as_wanted():
    with open_cluster("local", 1, 3) as client:
        assert [worker["nthreads"] for worker in client.scheduler_info()["workers"].values()] == [3]


def test_a_worker_that_cannot_start_ends_in_a_clear_error_with_its_last_words():
    cluster = Cluster("local", 1, imports=("no_such_module",))
    try:
        with pytest.raises(ClusterError, match=r"worker 1 ended 5 times .* No module named 'no_such_module'"):
            cluster.client()
        assert not isinstance(cluster.why_lost(), SchedulerLostError)
        assert cluster.local.pids() == {}
    finally:
        cluster.close()


def test_a_program_that_is_not_there_ends_in_a_clear_error(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    local = LocalProcesses(1)
    with pytest.raises(ClusterError, match=r"cannot be started \(No such file"):
        local.address()
    local.close()


def test_a_killed_scheduler_ends_tasks_and_the_other_processes_within_seconds():
    cluster = Cluster("local", 2)
    try:
        client, pids = cluster.client(), cluster.local.pids()

        def work(pid):
            os.kill(pid, signal.SIGKILL)
            time.sleep(600.0)  # whoever waits for this task is told otherwise

        begin_s = time.monotonic()
        with pytest.raises(SchedulerLostError):
            run_tasks(client, work, [pids["scheduler"]])
        wait_for(lambda: not any(is_alive(pid) for pid in pids.values()))
        assert time.monotonic() - begin_s < 10.0
        assert "killed by SIGKILL" in str(cluster.why_lost())
        with pytest.raises(SchedulerLostError):
            run_tasks(client, abs, [-1])
    finally:
        cluster.close()


def test_a_scheduler_killed_before_anybody_has_connected_is_told_as_lost():
    cluster = Cluster("local", 1)
    try:
        cluster.local.address()
        os.kill(cluster.local.pids()["scheduler"], signal.SIGKILL)
        with pytest.raises(SchedulerLostError, match="killed by SIGKILL"):
            cluster.client()
    finally:
        cluster.close()


def test_closing_while_everything_is_still_starting_leaves_nothing():
    local = LocalProcesses(2)
    wait_for(lambda: len(local.pids()) == 3)
    pids = local.pids()
    local.close()
    assert not any(is_alive(pid) for pid in pids.values())
    with pytest.raises(ClusterError, match="closed before"):
        local.address()


_OWNER = """
import sys, threading, time
from cluster.child import Child
from cluster.local import LocalProcesses
local = LocalProcesses(2)
if sys.argv[1] == "running":
    local.address()
while len(local.pids()) < 3:
    time.sleep(0.001)
print(*local.pids().values(), flush=True)
threading.Event().wait()
"""


@pytest.mark.parametrize("moment", ["starting", "running"])
def test_all_processes_die_with_a_killed_owner(moment):
    with subprocess.Popen([sys.executable, "-c", _OWNER, moment], stdout=subprocess.PIPE, text=True) as owner:
        pids = [int(pid) for pid in owner.stdout.readline().split()]
        owner.kill()
    assert len(pids) == 3
    wait_for(lambda: not any(is_alive(pid) for pid in pids))


def test_a_worker_that_joins_gets_tasks_at_once(tmp_path):
    first, second = LocalProcesses(1), None
    try:
        with Client(first.address(), security=first.security()) as client:
            client.wait_for_workers(1)

            def work(number):
                (tmp_path / f"worker {os.getpid()}").touch()
                # The tasks that the first worker has got wait for the second one to get some.
                while len(list(tmp_path.glob("worker *"))) < 2:
                    time.sleep(0.01)
                return number

            def on_done(_):
                joined.append(len(client.scheduler_info(n_workers=-1)["workers"]))

            joined = []
            second = Child(
                "worker 2", ["worker", str(path_of(first.certificate)), "worker 2", "1"], [first.certificate]
            )
            second.tell(first.address())
            assert run_tasks(client, work, range(40), on_done) == list(range(40))
        assert joined[0] == 2
    finally:
        if second is not None:
            second.process.kill()
            second.bury()
        first.close()
