"""The same site for one person, on SQLite: the parts that depend on the database."""

import sqlite3
from collections.abc import Iterator

import httpx
import pytest

from tests.cluster.prefect_site import Site, site_on, wait_for

pytestmark = [pytest.mark.site, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site_on(tmp_path_factory.mktemp("site"), None) as found:
        yield found


def test_a_wrong_password_is_refused(site):
    with pytest.raises(httpx.HTTPStatusError, match="401"):
        site.api("POST", "/flow_runs/filter", {}, password="nightbeam:wrong")


def test_a_schedule_fires(site):
    site.require_that_a_schedule_fires()


def test_a_file_drop_fires(site):
    site.start_watch()
    try:
        (site.inbox / "unknown").mkdir()
        (site.inbox / "unknown" / "file").write_text("something")
        (scan, *_) = wait_for("a scan", lambda: site.runs("scan inbox", "Failed"))
    finally:
        site.kill("watch")
    assert (scan["created_by"]["type"], scan["state"]["message"]) == ("AUTOMATION", "1 without protocol")


def test_old_runs_are_deleted(site):
    (run, *_) = site.runs("scan inbox", "Failed")
    database = sqlite3.connect(site.home / "prefect" / "prefect.db", timeout=60.0)
    with database:
        changed = database.execute(
            "UPDATE flow_run SET end_time = datetime(end_time, '-31 days') || '.000000' WHERE id = ?",
            (run["id"],),
        )
    database.close()
    assert changed.rowcount == 1
    wait_for("the old run's end", lambda: not site.runs("scan inbox", "Failed"))
