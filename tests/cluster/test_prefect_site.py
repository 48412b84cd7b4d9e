"""nightbeam run for good: a real Prefect server on PostgreSQL, a worker, deployments, an inbox, housekeeping."""

import asyncio
import json
import os
import shutil
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from flows.cases import write_phantom
from storage.store import Store
from tests.cluster.debian import lacks
from tests.cluster.prefect_site import Site, postgres, site_on, wait_for

pytestmark = [pytest.mark.site, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def database_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if os.geteuid() != 0:
        lacks("needs root, to run PostgreSQL as its own user")
    # Under /tmp itself: pytest's folders are closed to the user postgres.
    import tempfile

    with tempfile.TemporaryDirectory(prefix="nightbeam-postgres-") as folder:
        Path(folder).chmod(0o755)
        with postgres(Path(folder) / "cluster") as url:
            yield url


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, database_url: str) -> Iterator[Site]:
    with site_on(tmp_path_factory.mktemp("site"), database_url) as found:
        yield found


def phantom(folder: Path, voxel_mm: float = 10.0) -> None:
    """Write a small set of DICOM files that the protocol can plan."""
    write_phantom("water-box", folder, voxel_mm=voxel_mm)


def test_a_wrong_password_is_refused(site):
    for password in ("nightbeam:wrong", "nobody:"):
        with pytest.raises(httpx.HTTPStatusError) as refused:
            site.api("POST", "/flow_runs/filter", {}, password=password)
        assert refused.value.response.status_code == 401


def test_the_deployments_are_made_from_modules(site):
    found = {d["name"]: d["entrypoint"] for d in site.api("POST", "/deployments/filter", {})}
    assert {name: found[name] for name in ("single", "inbox", "regular")} == {
        "single": "flows.plan_case.plan_case",
        "inbox": "flows.inbox.scan_inbox",
        "regular": "flows.housekeeping.keep_house",
    }


def test_a_schedule_fires(site):
    site.require_that_a_schedule_fires()


def test_a_file_drop_fires(site):
    site.start_watch()
    try:
        phantom(site.inbox / "box-1")
        (plan, *_) = wait_for("a plan", lambda: site.runs("plan case", "Completed", "Failed", "Crashed"))
    finally:
        site.kill("watch")
    assert plan["state"]["name"] == "Completed", plan["state"]
    (scan, *_) = wait_for("its scan", lambda: site.runs("scan inbox", "Completed"))
    assert scan["created_by"]["type"] == "AUTOMATION"
    (report,) = (site.home / "runs").glob("box-*/report.html")
    assert report.stat().st_size > 10_000
    assert len(Store(site.home / "store").record_names("inbox_set")) == 1


def test_a_scan_finds_what_no_event_told_of(site):
    phantom(site.inbox / "box-2")
    sorted((site.inbox / "box-2").glob("*CT*"))[0].unlink()
    site.add_schedule("scan inbox/inbox", every_s=10.0)
    try:
        (scan, *_) = wait_for("a scan", lambda: site.runs("scan inbox", "Failed"))
    finally:
        site.clear_schedules("scan inbox/inbox")
    assert scan["auto_scheduled"]
    assert scan["state"]["message"] == "1 failed"
    told = [json.loads(file.read_text()) for file in (site.home / "runs").glob("box-*/inbox.json")]
    states = {values["set"]: values for values in told}
    assert "CT slices that the structure set names are not there" in states["box-2"]["why"]
    # A broken set is told once.
    site.wait_for_run(site.begin_run("scan inbox/inbox"), "Completed")


def test_a_killed_run_does_not_stay_running(site):
    # A scan that waits for a set to come to rest, so that it is surely at work when it is killed.
    phantom(site.inbox / "box-3", voxel_mm=20.0)
    site.write_inbox(settle_s=600.0)
    killed = site.begin_run("scan inbox/inbox")
    try:
        labels = wait_for("its process", lambda: site.run(killed)["labels"].get("nightbeam.pid"))
    finally:
        site.write_inbox(settle_s=2.0)
    # First the worker, so that nobody is there who could see the run end.
    site.kill("worker")
    os.kill(int(labels), signal.SIGKILL)
    site.start_worker()
    assert site.run(killed)["state"]["name"] == "Running"
    site.wait_for_run(site.begin_run("housekeeping/regular"), "Completed")
    state = site.run(killed)["state"]
    assert (state["name"], "its process ended without a word" in state["message"]) == ("Crashed", True)
    # Nor does it keep others from running: the deployment runs once at a time.
    shutil.rmtree(site.inbox / "box-3")
    site.wait_for_run(site.start_run("scan inbox/inbox"), "Completed")


def test_a_silent_run_of_another_machine_counts_as_gone(site):
    flow = site.api("POST", "/flows/", {"name": "plan case"})["id"]
    elsewhere = {
        "nightbeam.host": "elsewhere",
        "nightbeam.machine": "other",
        "nightbeam.pid": 1,
        "nightbeam.started": 1,
    }
    lost = site.api("POST", "/flow_runs/", {"flow_id": flow, "labels": elsewhere})["id"]
    site.api("POST", f"/flow_runs/{lost}/set_state", {"state": {"type": "RUNNING"}, "force": True})
    site.wait_for_run(site.begin_run("housekeeping/regular", silence_s=3600.0), "Completed")
    assert site.run(lost)["state"]["name"] == "Running"
    site.wait_for_run(site.begin_run("housekeeping/regular", silence_s=0.0), "Completed")
    state = site.run(lost)["state"]
    assert (state["name"], "elsewhere, process 1" in state["message"]) == ("Crashed", True)


def test_old_runs_are_deleted(site, database_url):
    runs = site.runs("housekeeping", "Completed")
    old, young = runs[0]["id"], runs[-1]["id"]
    assert old != young
    make_old_in_postgres(database_url, old)

    def is_gone() -> bool:
        try:
            site.run(old)
        except httpx.HTTPStatusError as error:
            return error.response.status_code == 404
        return False

    wait_for("the old run's end", is_gone)
    assert site.run(young)["id"] == young


def make_old_in_postgres(database_url: str, run_id: str) -> None:
    import asyncpg

    async def change() -> None:
        connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
        try:
            ended = datetime.now(UTC) - timedelta(days=31)
            await connection.execute("UPDATE flow_run SET end_time = $1 WHERE id = $2", ended, run_id)
        finally:
            await connection.close()

    asyncio.run(change())
