"""A batch of three cases, two of them broken: one plan, two explained failures, and again only those two."""

import json
import re
import subprocess

import pytest

from tests.e2e.small_batch import MISSING, OUTSIDE, batch_command, environment, write_batch
from tests.e2e.small_study import processes_of

pytestmark = [pytest.mark.cluster, pytest.mark.prefect]


def rows_of(folder):
    return {row["case"]: row for row in json.loads((folder / "out/batch.json").read_text())["rows"]}


@pytest.fixture(scope="module")
def twice(tmp_path_factory):
    """Give the command twice; return the folder, and of each time what was printed and what batch.json has."""
    folder = tmp_path_factory.mktemp("batch")
    file = write_batch(folder, ["good"])
    told = []
    for _ in range(2):
        done = subprocess.run(
            batch_command(file, "--workers", "2"), capture_output=True, text=True, timeout=550, check=False,
            env=environment(),
        )  # fmt: skip
        assert done.returncode == 2, done.stderr
        told.append((" ".join(done.stderr.split()), rows_of(folder)))
    return folder, told


def test_the_good_case_is_planned_and_each_broken_one_explained_in_a_sentence(twice):
    folder, [(_, rows), _] = twice
    assert {name: row["state"] for name, row in rows.items()} == {
        "good": "done", MISSING: "failed", OUTSIDE: "failed",
    }  # fmt: skip
    assert re.match(r"1 slice\(s\) are missing between .*export the whole series$", rows[MISSING]["why"])
    assert rows[OUTSIDE]["why"].startswith(
        "prescription.target: structure 'Target' was left out, as it lies outside of the CT"
    )
    assert rows["good"]["goals"]["n_met"] == rows["good"]["goals"]["n_goal"] == 1
    assert rows["good"]["core_hours"] > 0.0
    assert (folder / "out" / rows["good"]["report"]).is_file()
    assert (folder / "out" / rows["good"]["pdf"]).is_file()


def test_the_same_command_again_starts_only_the_two_that_failed(twice):
    _, [(first, _), (second, rows)] = twice
    assert first.count(": started") == 3
    assert {name: row["n_attempt"] for name, row in rows.items()} == {"good": 1, MISSING: 2, OUTSIDE: 2}
    assert "3 to plan, 1 of them done before" in second


def test_the_command_that_the_page_names_retries_one_case(twice):
    folder, [_, (_, rows)] = twice
    page = (folder / "out/batch.html").read_text()
    command = rows[MISSING]["retry"]
    assert command in page
    assert command.startswith(f"nightbeam plan {folder}/out/{MISSING}/quick/study.toml --store ")
    assert not re.search(r'(src|href)="https?:', page)


def test_nothing_is_left_running(twice):
    folder, _ = twice
    assert processes_of(folder / "out/.batch") == []
    assert list((folder / "out/.batch/leases").iterdir()) == []
