"""The controlling job: a child that dies, walltimes that end, and SLURM commands that stand in for the real ones."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

_CONTROL = (
    "import sys, cluster.slurm.control as c; c._AGAIN_S = c._LOOK_S = 0.05; sys.exit(c.main(*sys.argv[1:]))"
)
_REQUEUES = "kill -TERM $PPID"
_FORBIDS = "echo 'Requested operation is presently disabled' >&2; exit 1"


@dataclass
class _Job:
    folder: Path
    process: subprocess.Popen[str] | None = None

    def begin(self, script: str, scontrol: str = _REQUEUES, sbatch: str = "echo 8") -> None:
        tools = self.folder / "bin"
        tools.mkdir(exist_ok=True)
        for name, does in (("scontrol", scontrol), ("sbatch", sbatch)):
            (tools / name).write_text(f'#!/bin/bash\necho "{name} $*" >> {self.folder}/calls\n{does}\n')
            (tools / name).chmod(0o755)
        (self.output / "controller").mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(
            [sys.executable, "-c", _CONTROL, str(self.output), "1", "bash", "-c", script],
            env={
                **os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "PYTHONPATH": os.pathsep.join(sys.path),
                "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "nightbeam-x",
            },
            cwd=self.folder, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    @property
    def output(self) -> Path:
        return self.folder / "out"

    def end(self) -> int:
        assert self.process is not None
        self.said = self.process.communicate(timeout=60.0)[1]
        return self.process.returncode

    def run(self, script: str) -> int:
        self.begin(script)
        return self.end()

    def wait_for(self, file: str) -> None:
        limit_s = time.monotonic() + 60.0
        while not (self.folder / file).exists():
            assert time.monotonic() < limit_s, f"{file} never came"
            time.sleep(0.01)

    def ask(self, what: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(what)

    def calls(self) -> list[str]:
        file = self.folder / "calls"
        return file.read_text().splitlines() if file.exists() else []

    def told(self, name: str) -> dict[str, object]:
        told: dict[str, object] = json.loads((self.output / "controller" / name).read_text())
        return told


@pytest.fixture
def job(tmp_path: Path) -> Iterator[_Job]:
    job = _Job(tmp_path)
    yield job
    if job.process is not None and job.process.poll() is None:
        job.process.kill()
        job.process.communicate()


_WAITS = "trap 'exit 143' TERM; touch began; while true; do sleep 0.05; done"


@pytest.mark.parametrize("status", [0, 2])
def test_a_status_that_is_an_answer_ends_the_job(job: _Job, status: int) -> None:
    assert job.run(f"exit {status}") == status
    assert job.told("state.json")["n_start"] == 1


def test_a_command_that_was_killed_is_started_again(job: _Job) -> None:
    assert job.run("if [ -e once ]; then exit 0; fi; touch once; kill -KILL $$") == 0
    assert "killed by SIGKILL; starting it again" in job.said


def test_a_command_that_dies_again_and_again_without_progress_ends_the_job(job: _Job) -> None:
    assert job.run("echo x >> starts; exit 1") == 1
    assert (job.folder / "starts").read_text() == "x\n" * 3
    assert "3 times without any progress" in str(job.told("state.json")["why"])


def test_progress_in_between_lets_a_command_die_more_often(job: _Job) -> None:
    dies = """
        n=$(($(cat n 2>/dev/null || echo 0) + 1)); echo $n > n
        echo "{\\"stage\\": \\"dose\\", \\"done\\": $n}" > out/progress.json
        [ $n = 7 ] || kill -KILL $$
    """
    assert job.run(dies) == 0
    assert (job.folder / "n").read_text() == "7\n"


def test_doing_the_same_again_is_no_progress(job: _Job) -> None:
    dies = """
        echo x >> starts
        for n in 1 2 3; do echo "{\\"stage\\": \\"dose\\", \\"done\\": $n}" > out/progress.json; sleep 0.1; done
        kill -KILL $$
    """
    assert job.run(dies) == 128 + signal.SIGKILL
    # Once with progress, and three times without.
    assert (job.folder / "starts").read_text() == "x\n" * 4


def test_before_its_walltime_ends_the_job_goes_back_into_the_queue(job: _Job) -> None:
    job.begin(_WAITS)
    job.wait_for("began")
    job.ask(signal.SIGUSR1)
    assert job.end() == 143
    assert job.calls() == ["scontrol requeue 7"]
    assert job.told("state.json")["state"] == "queued again"


def test_where_requeuing_is_forbidden_the_script_is_submitted_again_to_run_afterwards(job: _Job) -> None:
    job.begin(_WAITS, scontrol=_FORBIDS)
    job.wait_for("began")
    job.ask(signal.SIGUSR1)
    assert job.end() == 143
    assert job.calls()[1:] == [
        f"sbatch --parsable --dependency=afterany:7 {job.output / 'controller' / 'job.sh'}"
    ]
    assert job.told("job.json") == {"job": "8", "name": "nightbeam-x"}


def test_where_neither_is_allowed_the_job_says_what_to_do(job: _Job) -> None:
    job.begin(_WAITS, scontrol=_FORBIDS, sbatch=_FORBIDS)
    job.wait_for("began")
    job.ask(signal.SIGUSR1)
    assert job.end() == 143
    assert "submit it again from a login node" in str(job.told("state.json")["why"])


def test_a_job_whose_walltime_is_too_short_for_any_progress_ends_after_some_starts(job: _Job) -> None:
    for _ in range(3):
        (job.folder / "began").unlink(missing_ok=True)
        job.begin(_WAITS)
        job.wait_for("began")
        job.ask(signal.SIGUSR1)
        job.end()
    assert job.calls() == ["scontrol requeue 7"] * 2
    assert "longer walltime" in str(job.told("state.json")["why"])


def test_a_command_that_is_done_while_its_walltime_ends_is_done(job: _Job) -> None:
    job.begin("trap 'exit 0' TERM; touch began; while true; do sleep 0.05; done")
    job.wait_for("began")
    job.ask(signal.SIGUSR1)
    assert job.end() == 0
    assert job.calls() == []


def test_a_job_that_is_cancelled_stays_cancelled(job: _Job) -> None:
    job.begin(_WAITS)
    job.wait_for("began")
    job.ask(signal.SIGTERM)
    assert job.end() == 143
    assert job.calls() == []
    assert job.told("state.json")["state"] == "stopped"


def test_the_hours_of_the_controlling_job_are_noted(job: _Job) -> None:
    job.run("exit 0")
    (line,) = (job.output / "usage.jsonl").read_text().splitlines()
    told = json.loads(line)
    assert told["end"] >= told["begin"]
    assert (told["job"], told["cores"], told["how"]) == ("7", 1, "completed")
