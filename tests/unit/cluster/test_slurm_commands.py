"""What sbatch, squeue and scancel say, and what is made of it; the commands are stand-ins on the path."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.slurm.commands import Job, SlurmJobs
from engine.errors import ClusterError, NoSlurmError, SlurmAwayError


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    def write(name: str, body: str) -> None:
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)

    return write


def test_the_number_of_a_job_is_in_the_last_line_whatever_the_site_says_before(stand_in):
    stand_in("sbatch", "echo 'Budget 2026: 400 hours left'; echo '4711;cluster'")
    assert SlurmJobs("nightbeam-1").submit(Path("x")) == "4711"


def test_a_refusal_is_an_error_with_the_words_of_sbatch(stand_in):
    stand_in("sbatch", "echo 'sbatch: error: invalid partition specified: nope' >&2; exit 1")
    with pytest.raises(ClusterError, match="invalid partition specified: nope") as raised:
        SlurmJobs("nightbeam-1").submit(Path("x"))
    assert not isinstance(raised.value, SlurmAwayError)


@pytest.mark.parametrize(
    "words",
    [
        "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
        "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)",
    ],
)
def test_a_controller_that_is_away_is_another_error(stand_in, words):
    stand_in("sbatch", f"echo '{words}' >&2; exit 1")
    with pytest.raises(SlurmAwayError):
        SlurmJobs("nightbeam-1").submit(Path("x"))


def test_a_list_that_fails_is_no_empty_list(stand_in):
    stand_in("squeue", "echo 'slurm_load_jobs error: anything' >&2; exit 1")
    with pytest.raises(SlurmAwayError):
        SlurmJobs("nightbeam-1").listing()


def test_jobs_are_listed_with_their_times(stand_in):
    stand_in(
        "squeue",
        "echo '12|RUNNING|4|1795277946|1795364346|1-00:00:05|node7|None'\n"
        "echo '13|PENDING|4|N/A|N/A|INVALID||Resources'\n"
        "echo 'a line that a site has added'",
    )
    running, pending = SlurmJobs("nightbeam-1").listing()
    assert running == Job("12", "RUNNING", 4, 1795277946.0, 1795364346.0, 86405.0, "node7", "None")
    assert pending.is_pending
    assert pending.begin_s is None
    assert pending.left_s is None
    assert pending.reason == "Resources"


def test_only_jobs_of_the_name_are_listed_and_by_our_own_format(stand_in, tmp_path, monkeypatch):
    monkeypatch.setenv("SQUEUE_FORMAT", "%A")
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "100")
    stand_in("squeue", f'echo "$@ $SQUEUE_FORMAT $SLURM_MEM_PER_NODE $SLURM_TIME_FORMAT" > {tmp_path}/said')
    assert SlurmJobs("nightbeam-1").listing() == []
    said = (tmp_path / "said").read_text()
    assert "--name=nightbeam-1" in said
    assert "--me" in said
    assert said.endswith("  %s\n")


def test_a_machine_that_has_no_room_for_a_process_is_asked_again(monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("subprocess.run", full)
    with pytest.raises(SlurmAwayError, match="squeue cannot be started now"):
        SlurmJobs("nightbeam-1").listing()


def test_a_machine_without_slurm_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ClusterError, match="no command sbatch on this machine"):
        SlurmJobs("nightbeam-1").submit(Path("x"))
    with pytest.raises(NoSlurmError, match="no command squeue on this machine"):
        SlurmJobs("nightbeam-1").listing()
