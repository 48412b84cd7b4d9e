"""The process of a job: how it ends, and what is told of it; and the status of a single run."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.errors import ClusterError, SlurmAwayError, StudyError
from flows.batch.jobs import STUDY, Job
from flows.batch.process import JobProcess
from flows.batch.status import newest_output, status_of
from flows.progress import Reporter
from flows.progress_file import progress_in

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def job(tmp_path):
    return Job("case", "p", "plan", 0, tmp_path / "case" / "p", "")


@pytest.fixture
def process(job, monkeypatch):
    """Return a function that starts a job's process which runs a piece of code instead of the command."""
    popen = subprocess.Popen

    def start(code):
        def instead(arguments, **options):
            return popen([sys.executable, "-c", code, str(job.folder)], **options)

        monkeypatch.setattr(subprocess, "Popen", instead)
        return JobProcess(job, "store", ())

    return start


RAISING = """\
import sys
from pathlib import Path
from engine.errors import ClusterError, SlurmAwayError, StudyError
from flows.progress_file import progress_in
try:
    with progress_in(Path(sys.argv[1]), "plan"):
        raise {error!r}
except {error.__class__.__name__}:
    sys.exit(2)
"""
"""Ends as `nightbeam plan` does that meets an error."""


def end_of(process):
    limit_s = time.monotonic() + 100.0
    while (ended := process.ended()) is None:
        assert time.monotonic() < limit_s
        time.sleep(0.02)
    return ended


def test_a_process_that_leaves_with_0_is_done(process):
    ended = end_of(process("sum(range(10**6))"))
    assert (ended.how, ended.why) == ("done", "")
    assert ended.cpu_s > 0.0


def test_what_a_person_can_mend_has_failed_in_one_sentence(process):
    ended = end_of(process(RAISING.format(error=StudyError("no\n  target"))))
    assert (ended.how, ended.why) == ("failed", "no target")


@pytest.mark.parametrize(
    "error", [ClusterError("no workers"), SlurmAwayError("no answer"), ConnectionResetError("no answer")]
)
def test_a_run_that_the_night_has_ended_is_lost_and_may_go_better_next_time(process, error):
    ended = end_of(process(RAISING.format(error=error)))
    assert ended.how == "lost"
    assert str(error) in ended.why


def test_a_process_whose_folder_was_removed_is_lost_and_ends_no_other(process):
    ended = end_of(process("import shutil, sys; shutil.rmtree(sys.argv[1]); sys.exit(1)"))
    assert (ended.how, ended.why) == ("lost", "it left with status 1: it said nothing (see errors.txt)")


def test_a_mistake_that_is_told_before_the_run_begins_is_told_from_what_was_printed(process):
    ended = end_of(process("import sys; sys.stderr.write('nightbeam: no such file'); sys.exit(2)"))
    assert (ended.how, ended.why) == ("failed", "no such file")


def test_a_traceback_is_told_by_its_last_line(process):
    ended = end_of(process("1 / 0"))
    assert ended.how == "lost"
    assert ended.why == "it left with status 1: ZeroDivisionError: division by zero (see errors.txt)"


def test_a_killed_process_is_lost(process):
    ended = end_of(process("import os; os.kill(os.getpid(), 9)"))
    assert ended.how == "lost"
    assert "SIGKILL" in ended.why


def test_a_process_that_does_not_end_when_asked_is_ended(process, job):
    started = process(
        "import pathlib, signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "pathlib.Path(sys.argv[1], 'up').touch(); time.sleep(300)"
    )
    limit_s = time.monotonic() + 100.0
    while not (job.folder / "up").exists():
        assert time.monotonic() < limit_s
        time.sleep(0.02)
    started.ask_to_end()
    begin_s = time.monotonic()
    assert "SIGKILL" in started.stop(begin_s + 0.2).why
    assert time.monotonic() - begin_s < 100.0


def test_a_process_ends_with_the_one_that_started_it(tmp_path):
    code = (
        "import os, sys, time; from pathlib import Path; import subprocess\n"
        "from flows.batch.jobs import Job; from flows.batch.process import JobProcess\n"
        "popen = subprocess.Popen\n"
        "subprocess.Popen = lambda a, **o: popen([sys.executable, '-c', 'import time; time.sleep(300)'], **o)\n"
        "p = JobProcess(Job('c', 'p', 'plan', 0, Path(sys.argv[1]) / 'c', ''), 's', ())\n"
        "print(p._process.pid, flush=True); time.sleep(300)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    with parent:
        child = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
    limit_s = time.monotonic() + 100.0
    while Path(f"/proc/{child}/stat").exists():
        if Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            break
        assert time.monotonic() < limit_s
        time.sleep(0.02)


def test_the_study_file_is_what_the_command_is_given(job):
    from flows.batch.process import command_of

    assert command_of(job, "s3://here/store", ("--cluster", "slurm.toml")) == [
        "nightbeam", "plan", str(job.folder / STUDY), "--store", "s3://here/store", "--output", str(job.folder),
        "--cluster", "slurm.toml",
    ]  # fmt: skip


# -- status of a single run ----------------------------------------------------------------------------------------


def test_the_status_of_a_plan_tells_stage_rate_and_time_left(tmp_path):
    with progress_in(tmp_path, "plan"), Reporter(quiet=True).stage("dose", 10, "blocks") as steps:
        steps.advance(5)
        limit_s = time.monotonic() + 100.0
        while "5 of 10 blocks" not in str(status_of(tmp_path)[0]):
            assert time.monotonic() < limit_s
            time.sleep(0.05)
        shown, goes_on = status_of(tmp_path)
    assert goes_on
    assert "dose: 5 of 10 blocks" in str(shown)
    assert " left" in str(shown)
    shown, goes_on = status_of(tmp_path)
    assert "done after" in str(shown)
    assert not goes_on


def test_the_status_of_a_failed_plan_says_why(tmp_path):
    with pytest.raises(ClusterError), progress_in(tmp_path, "plan"):
        raise ClusterError("no workers came")
    assert "failed after 0 s: no workers came" in str(status_of(tmp_path)[0])


def test_without_a_folder_the_newest_one_is_taken(tmp_path):
    with pytest.raises(StudyError, match="nothing in"):
        newest_output(tmp_path)
    for name in ("older", "newer"):
        with progress_in(tmp_path / name, "plan"):
            pass
    os.utime(tmp_path / "older" / "progress.json", (1.0, 1.0))
    assert newest_output(tmp_path) == tmp_path / "newer"


def test_a_folder_without_a_run_has_no_status(tmp_path):
    with pytest.raises(StudyError, match=r"neither batch\.json nor progress\.json"):
        status_of(tmp_path)
