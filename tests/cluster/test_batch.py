"""A night of 12 cases, two of them broken; a batch that is killed; and a small one on SLURM."""

import json
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.small_batch import MISSING, OUTSIDE, batch_command, environment, write_batch

pytestmark = [pytest.mark.site, pytest.mark.cluster, pytest.mark.prefect]
GOOD = [f"case-{number:02d}" for number in range(1, 11)]
LIMIT_S = 1700.0
"""Wide: a quiet machine of two cores takes minutes, a busy one ten times as long."""
SITE = """\
partition = "scavenge"
cores = 2
memory_gib = 2.0
jobs = 1
walltime = "00:30:00"
"""


def rows_of(file):
    with suppress(FileNotFoundError):
        return {row["case"]: row for row in json.loads((file.parent / "out/batch.json").read_text())["rows"]}
    return {}


def states_of(file):
    return {name: row["state"] for name, row in rows_of(file).items()}


def work_through(file, *more, more_environment=None):
    """Give the batch's command, and return what it printed for people."""
    done = subprocess.run(
        batch_command(file, *more), capture_output=True, text=True, timeout=LIMIT_S, check=False,
        env=environment(more_environment),
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    return done.stderr


def wait_until(condition):
    limit_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < limit_s, "what was waited for never came"
        time.sleep(0.05)


def case_processes(folder):
    """Return the process numbers of cases that a batch in this folder has started."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                if "flows.cli" in words and "plan" in words and any(str(folder) in word for word in words):
                    found.append(int(entry.name))
    return found


@pytest.mark.timeout(3600)
def test_twelve_cases_with_two_broken_ones_give_ten_plans_and_two_explained_failures(tmp_path):
    file = write_batch(tmp_path, GOOD)
    begin_s = time.monotonic()
    work_through(file)
    print(f"12 cases: {time.monotonic() - begin_s:.0f} s")
    first = rows_of(file)
    assert states_of(file) == {**dict.fromkeys(GOOD, "done"), MISSING: "failed", OUTSIDE: "failed"}
    assert "slice(s) are missing" in first[MISSING]["why"]
    assert "lies outside of the CT" in first[OUTSIDE]["why"]
    for name in GOOD:
        assert first[name]["goals"]["n_met"] == 1
        assert (tmp_path / "out" / first[name]["report"]).is_file()
    page = (tmp_path / "out/batch.html").read_text()
    assert "<b>10 done</b>" in page
    assert "<b>2 failed</b>" in page

    printed = work_through(file)
    assert printed.count(": started") == 2
    again = rows_of(file)
    assert {name: row["n_attempt"] for name, row in again.items()} == {
        **dict.fromkeys(GOOD, 1), MISSING: 2, OUTSIDE: 2,
    }  # fmt: skip


@pytest.mark.timeout(3600)
def test_a_killed_batch_takes_its_cases_with_it_and_goes_on_with_what_was_not_done(tmp_path):
    file = write_batch(tmp_path, GOOD[:3], "cases_at_once = 1\n")
    batch = subprocess.Popen(
        batch_command(file), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment(),
        start_new_session=True,
    )  # fmt: skip
    try:

        def in_the_second_case():
            assert batch.poll() is None, "the batch ended before it could be killed"
            return states_of(file).get(GOOD[1]) == "running" and case_processes(tmp_path)

        wait_until(in_the_second_case)
    finally:
        batch.kill()
        batch.wait()
    wait_until(lambda: not case_processes(tmp_path))
    assert states_of(file)[GOOD[0]] == "done"
    work_through(file)
    attempts = {name: row["n_attempt"] for name, row in rows_of(file).items()}
    assert attempts == {GOOD[0]: 1, GOOD[1]: 2, GOOD[2]: 1, MISSING: 1, OUTSIDE: 1}
    assert set(states_of(file).values()) == {"done", "failed"}


@pytest.mark.timeout(3600)
def test_on_slurm_every_case_has_its_own_jobs_and_their_hours_are_counted(tmp_path, slurm):
    file = write_batch(tmp_path, GOOD[:1])
    (tmp_path / "slurm.toml").write_text(SITE)
    work_through(file, "--cluster", str(tmp_path / "slurm.toml"), more_environment=slurm.environment)
    row = rows_of(file)[GOOD[0]]
    assert row["state"] == "done"
    lines = [
        json.loads(line)
        for line in (tmp_path / "out" / row["folder"] / "usage.jsonl").read_text().split("\n")[:-1]
    ]
    core_s = sum(line["cores"] * (line["end"] - line["begin"]) for line in lines)
    assert core_s > 0.0
    assert row["core_hours"] == pytest.approx(core_s / 3600.0)


@pytest.mark.timeout(3600)
def test_a_batch_whose_job_is_cancelled_ends_cleanly_and_takes_the_jobs_of_its_cases_along(tmp_path, slurm):
    file = write_batch(tmp_path, GOOD[:2], "cases_at_once = 2\n")
    site = SITE.replace("cores = 2", "cores = 1").replace("2.0", "1.5")
    (tmp_path / "slurm.toml").write_text(f"{site}[controller]\nmemory_gib = 1.5\n")
    given = batch_command(file, "--what", "batch", "--cluster", str(tmp_path / "slurm.toml"))
    given[given.index("batch")] = "submit"
    subprocess.run(
        given,
        check=True,
        timeout=LIMIT_S,
        env=environment(slurm.environment),
        cwd=tmp_path,
        capture_output=True,
    )
    (job,) = (live.number for live in slurm.jobs(tmp_path))
    logs = [tmp_path / "out" / name / "quick" / "nightbeam.log" for name in GOOD[:2]]
    wait_until(lambda: all(log.exists() and ": submitted" in log.read_text() for log in logs))
    slurm.says("scancel", job)
    begin_s = time.monotonic()
    wait_until(lambda: not slurm.jobs(tmp_path))
    # Workers that nobody has cancelled leave a minute after their scheduler is gone.
    assert time.monotonic() - begin_s < 40.0
    assert (tmp_path / "out/controller/job.log").read_text().endswith("asked to end; so it is\n")
    assert {states_of(file)[name] for name in GOOD[:2]} == {"waiting"}
