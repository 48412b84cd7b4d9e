"""A site as docs/schedules.md describes it, for tests: Prefect server with a password, work pool, deployments, worker.

Its settings are those of deploy/prefect.env.example, but for places, ports, and how often the server looks at things.
"""

import os
import pwd
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import httpx

from tests.cluster.debian import install
from tests.e2e.small_batch import PROTOCOL, TABLE

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
LIMIT_S = 600.0
_BEGUN = ("Late", "Pending", "AwaitingConcurrencySlot", "Running")
T = TypeVar("T")
_QUICK = {
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
    "PREFECT_SERVER_SERVICES_SCHEDULER_RECENT_DEPLOYMENTS_LOOP_SECONDS": "1",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_LOOP_SECONDS": "2",
    "PREFECT_SERVER_SERVICES_REPOSSESSOR_LOOP_SECONDS": "2",
    "PREFECT_WORKER_QUERY_SECONDS": "1",
    # The machine may be busy with other tests.
    "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
    "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "60",
}


def wait_for(what: str, look: Callable[[], T], limit_s: float = LIMIT_S) -> T:
    """Return what ``look`` returns as soon as that is anything."""
    begin_s = time.monotonic()
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() - begin_s < limit_s, f"{what}: not within {limit_s:g} s"
        time.sleep(0.3)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def settings_of_example() -> dict[str, str]:
    """Return the settings in deploy/prefect.env.example, as systemd reads them."""
    lines = (ROOT / "deploy" / "prefect.env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


class Site:
    """Processes, folders and the API of a site."""

    def __init__(self, home: Path, database_url: str | None) -> None:
        self.home, self.inbox, self.protocols = home, home / "inbox", home / "protocols"
        self.password = f"nightbeam:{secrets.token_urlsafe(12)}"
        self.url = f"http://127.0.0.1:{free_port()}/api"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT")},
            **settings_of_example(),
            **_QUICK,
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
            "NIGHTBEAM_HOME": str(home),
            "PREFECT_HOME": str(home / "prefect"),
            "PREFECT_SERVER_API_PORT": self.url.split(":")[2].split("/")[0],
            "PREFECT_API_URL": self.url,
            "PREFECT_SERVER_API_AUTH_STRING": self.password,
            "PREFECT_API_AUTH_STRING": self.password,
        }
        if database_url is not None:
            self.environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = database_url
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.inbox.mkdir()
        self.protocols.mkdir()
        case = '[case]\nimported = "any"\nhu_table = "hu.csv"\n\n'
        (self.protocols / "box.toml").write_text(PROTOCOL.replace("[prescription]", f"{case}[prescription]"))
        (self.protocols / "hu.csv").write_text(TABLE)
        self.write_inbox(settle_s=2.0)

    def write_inbox(self, settle_s: float) -> None:
        (self.inbox / "inbox.toml").write_text(
            f'settle_s = {settle_s}\n[[sets]]\nmatch = "box-*"\nprotocol = "../protocols/box.toml"\n'
        )

    def start(self, name: str, *command: str) -> None:
        with (self.home / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [str(BIN / command[0]), *command[1:]],
                env=self.environment, cwd=self.home, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip

    def log(self, name: str) -> str:
        return (self.home / f"{name}.log").read_text(errors="replace")

    def kill(self, name: str) -> None:
        """Kill a process, and nothing that it started."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def stop(self) -> None:
        for process in reversed(self._processes.values()):
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(2.0)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self._processes.clear()

    def command(self, *command: str) -> str:
        """Run a command as a person would and return what it prints."""
        done = subprocess.run(
            [str(BIN / command[0]), *command[1:]],
            env=self.environment, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def start_worker(self) -> None:
        self.start(
            "worker", "prefect", "worker", "start", "--pool", "nightbeam", "--type", "process", "--limit", "2"
        )

    def start_watch(self) -> None:
        self.start("watch", "python", "-m", "flows.cli", "watch", str(self.inbox), "--every", "1")
        wait_for("the watcher", lambda: "watching" in self.log("watch"))

    # -- the API ------------------------------------------------------------------------------------------------

    def api(self, method: str, path: str, body: Any = None, password: str | None = None) -> Any:
        user, _, secret = (password or self.password).partition(":")

        def ask() -> httpx.Response | None:
            answer = httpx.request(method, f"{self.url}{path}", json=body, auth=(user, secret), timeout=60.0)
            # What SQLite refuses while another writes; Prefect's own client asks again too.
            return None if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE else answer

        answer = wait_for(f"an answer to {method} {path}", ask, limit_s=120.0)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def is_healthy(self) -> bool:
        try:
            return bool(self.api("GET", "/health"))
        except httpx.HTTPError:
            return False

    def deployment(self, name: str) -> dict[str, Any]:
        return self.api("GET", f"/deployments/name/{quote(name)}")

    def add_schedule(self, deployment: str, every_s: float) -> None:
        found = self.deployment(deployment)
        schedule = {"active": True, "schedule": {"interval": every_s}}
        self.api("POST", f"/deployments/{found['id']}/schedules", [schedule])

    def clear_schedules(self, deployment: str) -> None:
        """Delete them, and wait for the end of what they began: a deployment refuses a second run at once."""
        found = self.deployment(deployment)
        for schedule in found["schedules"]:
            self.api("DELETE", f"/deployments/{found['id']}/schedules/{schedule['id']}")
        flow = deployment.split("/")[0]
        wait_for("the end of runs", lambda: not self.runs(flow, *_BEGUN))

    def require_that_a_schedule_fires(self) -> None:
        self.add_schedule("housekeeping/regular", every_s=10.0)
        try:
            (run, *_) = wait_for("a scheduled run", lambda: self.runs("housekeeping", "Completed"))
        finally:
            self.clear_schedules("housekeeping/regular")
        assert run["auto_scheduled"]

    def runs(self, flow: str, *states: str) -> list[dict[str, Any]]:
        """Return the runs of a flow in one of some states, the oldest first."""
        body = {
            "flows": {"name": {"any_": [flow]}},
            "flow_runs": {"state": {"name": {"any_": list(states)}}},
            "sort": "START_TIME_ASC",
        }
        return self.api("POST", "/flow_runs/filter", body)

    def run(self, run_id: str) -> dict[str, Any]:
        return self.api("GET", f"/flow_runs/{run_id}")

    def start_run(self, deployment: str, **parameters: Any) -> str:
        """Have a deployment run now, and return the run's identifier."""
        found = self.deployment(deployment)
        body = {"state": {"type": "SCHEDULED"}, "parameters": {**found["parameters"], **parameters}}
        return str(self.api("POST", f"/deployments/{found['id']}/create_flow_run", body)["id"])

    def begin_run(self, deployment: str, **parameters: Any) -> str:
        """Have a deployment run as soon as it may, and return the run's identifier once it has begun.

        A run that a deleted schedule left behind can hold the deployment's only place, and for some minutes even when
        it was deleted as it took it (until its lease ends); the server cancels others in the meantime.
        """

        def look() -> str | None:
            run_id = self.start_run(deployment, **parameters)
            waiting = ("Scheduled", "Late", "Pending")
            wait_for("its begin", lambda: self.run(run_id)["state"]["name"] not in waiting)
            state = self.run(run_id)["state"]
            return None if "concurrency limit" in (state["message"] or "") else run_id

        return wait_for(f"a place for {deployment}", look)

    def wait_for_run(self, run_id: str, state: str) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            run = self.run(run_id)
            ended = run["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
            assert not ended or run["state"]["name"] == state, run["state"]
            return run if run["state"]["name"] == state else None

        return wait_for(f"run {run_id} {state}", look)


@contextmanager
def site_on(home: Path, database_url: str | None) -> Iterator[Site]:
    """Have a site from nothing to a worker that waits, by the commands of docs/schedules.md."""
    site = Site(home, database_url)
    try:
        site.start("server", "prefect", "server", "start")
        wait_for("the server", site.is_healthy)
        site.command("prefect", "work-pool", "create", "nightbeam", "--type", "process")
        site.command("prefect", "deploy", "--all", "--prefect-file", "deploy/prefect.yaml")
        # Those of the file are of no use here: every test makes the one that it needs.
        for deployment in ("scan inbox/inbox", "housekeeping/regular", "batch/nightly"):
            site.clear_schedules(deployment)
        site.start_worker()
        yield site
    finally:
        site.stop()


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """Have a PostgreSQL server of Debian's, of our own, and yield the address of a database in it."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not binaries:
        install("postgresql")
        binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    user = pwd.getpwnam("postgres")
    data, port, password = folder / "data", free_port(), secrets.token_hex(12)
    folder.mkdir()
    os.chown(folder, user.pw_uid, user.pw_gid)
    secret = folder / "password"
    secret.write_text(password)
    os.chown(secret, user.pw_uid, user.pw_gid)

    def as_postgres(*command: str) -> None:
        subprocess.run(
            ["runuser", "-u", "postgres", "--", str(binaries[-1] / command[0]), *command[1:]],
            check=True, capture_output=True, cwd=folder,
        )  # fmt: skip

    as_postgres(
        "initdb", "--pgdata", str(data), "--username", "nightbeam", "--auth", "scram-sha-256",
        "--pwfile", str(secret), "--no-sync", "--encoding", "UTF8", "--locale", "C",
    )  # fmt: skip
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
    as_postgres("pg_ctl", "start", "--wait", "-D", str(data), "-l", str(folder / "log"), "-o", options)
    try:
        yield f"postgresql+asyncpg://nightbeam:{password}@127.0.0.1:{port}/postgres"
    finally:
        as_postgres("pg_ctl", "stop", "--wait", "-D", str(data), "-m", "immediate")
