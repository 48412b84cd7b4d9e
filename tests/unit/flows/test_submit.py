"""Putting a command into a SLURM job, with commands that stand in for SLURM's."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cluster.slurm.commands import Job
from cluster.slurm.controlling_job import ControllingJob
from flows.cli import main
from tests.e2e.small_study import write_study

SITE = """\
partition = "batch"
cores = 3
memory_gib = 6
jobs = 2
setup = ["module load python"]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a folder with a study and a SLURM file, where SLURM knows no job yet."""
    write_study(tmp_path)
    (tmp_path / "slurm.toml").write_text(SITE)
    (tmp_path / "bin").mkdir()
    (tmp_path / "jobs").touch()
    tool(tmp_path, "sbatch", f"echo $* >> {tmp_path}/calls; echo '12;devcluster'")
    tool(tmp_path, "squeue", f"cat {tmp_path}/jobs")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tool(folder: Path, name: str, does: str) -> None:
    (folder / "bin" / name).write_text(f"#!/bin/bash\n{does}\n")
    (folder / "bin" / name).chmod(0o755)


def submit(*more: str, cluster: str = "slurm.toml") -> Result:
    return CliRunner().invoke(main, ["submit", "small.toml", "--cluster", cluster, "--store", "store", *more])


def directives(printed: str) -> set[str]:
    return {line.removeprefix("#SBATCH ") for line in printed.splitlines() if line.startswith("#SBATCH ")}


def test_a_dry_run_prints_the_script_and_submits_nothing(folder):
    printed = submit("--dry-run")
    assert printed.exit_code == 0, printed.output
    assert directives(printed.output) >= {
        "--job-name=nightbeam-small", "--partition=batch", "--cpus-per-task=1", "--mem=4096M", "--requeue",
        "--open-mode=append", "--signal=B:USR1@120", f"--output={folder}/runs/small/controller/job.log",
    }  # fmt: skip
    assert "\nmodule load python\n" in printed.output
    assert "-m flows.cli plan small.toml --cluster slurm.toml --store store --output" in printed.output
    assert not (folder / "calls").exists()


def test_the_job_for_workers_of_its_own_has_room_for_them(folder):
    (folder / "slurm.toml").write_text(f'start = "srun"\n{SITE}')
    printed = submit("--dry-run")
    assert directives(printed.output) >= {"--ntasks=3", "--cpus-per-task=3", "--mem-per-cpu=2048M"}


def test_a_short_job_is_warned_late(folder):
    (folder / "slurm.toml").write_text(f'{SITE}[controller]\nwalltime = "00:02:00"\n')
    assert "--signal=B:USR1@30" in directives(submit("--dry-run").output)


def test_the_number_of_the_job_and_what_to_do_with_it_are_told(folder):
    printed = submit("--output", "a b")
    assert printed.exit_code == 0, printed.output
    assert "submitted as job 12 (nightbeam-small)" in printed.output
    assert "scancel 12" in printed.output
    assert f"tail -F '{folder}/a b/controller/job.log'" in printed.output
    assert (folder / "calls").read_text().split()[0] == "--parsable"


def test_a_study_that_waits_or_runs_is_refused_with_the_number_of_its_job(folder):
    submit()
    (folder / "jobs").write_text("12|RUNNING|1|1|1|1:00|n7|None\n")
    printed = submit()
    assert printed.exit_code == 2
    assert "small.toml is job 12 already (running on n7)" in printed.output
    assert "`scancel 12`" in printed.output


@pytest.mark.parametrize("jobs", ["", "12|CANCELLED|1|1|1|1:00|n7|None\n", "13|RUNNING|1|1|1|1:00|n7|None\n"])
def test_a_study_whose_job_is_over_is_submitted_again(folder, jobs):
    submit()
    (folder / "jobs").write_text(jobs)
    assert submit().exit_code == 0


@pytest.mark.parametrize(
    ("more", "what"),
    [
        (("--cluster", "local"), "with --cluster FILE.toml"),
        (("--no-such-option",), "No such option"),
        (("--cluster", "none.toml"), "there is no cluster file none.toml"),
    ],
)
def test_a_mistake_is_told_before_anything_is_submitted(folder, more, what):
    printed = submit(*more)
    assert printed.exit_code == 2
    assert what in printed.output
    assert not (folder / "calls").exists()


def test_a_study_with_a_mistake_is_not_submitted(folder):
    (folder / "small.toml").write_text("name = 3\n")
    printed = submit()
    assert printed.exit_code == 2
    assert "does not describe a study" in printed.output
    assert not (folder / "calls").exists()


def test_a_batch_that_is_given_as_a_study_is_told_what_to_add(folder):
    (folder / "small.toml").write_text('protocols = ["p.toml"]\n')
    printed = submit()
    assert printed.exit_code == 2
    assert "add --what batch" in printed.output
    assert not (folder / "calls").exists()


def test_what_sbatch_refuses_is_told_in_its_words(folder):
    tool(folder, "sbatch", "echo 'sbatch: error: invalid partition specified: batch' >&2; exit 1")
    printed = submit()
    assert printed.exit_code == 2
    assert "invalid partition specified: batch" in printed.output


def test_of_two_that_are_submitted_at_the_same_moment_one_is_refused(folder, monkeypatch):
    look, others = ControllingJob.live, list[Result]()

    def look_while_another_submits(job: ControllingJob) -> Job | None:
        monkeypatch.setattr(ControllingJob, "live", look)
        others.append(submit())
        return look(job)

    monkeypatch.setattr(ControllingJob, "live", look_while_another_submits)
    assert submit().exit_code == 0
    assert others[0].exit_code == 2
    assert "somebody submits the same at this moment" in others[0].output
    assert len((folder / "calls").read_text().splitlines()) == 1
