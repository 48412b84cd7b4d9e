"""The file of a SLURM site, and the job script that comes of it."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from cluster.child import import_path
from cluster.slurm.script import worker_script
from cluster.slurm.site import KEEPER_BYTES, SlurmSite, read_site, walltime_s
from engine.errors import StudyError


def site_file(folder: Path, text: str) -> Path:
    path = folder / "slurm.toml"
    path.write_text("cores = 4\nmemory_gib = 8\n" + text)
    return path


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 5400), ("5:30", 330), ("08:00:00", 28800), ("2-00", 172800), ("1-12:30", 131400),
        ("1-00:00:10", 86410),
    ],
)  # fmt: skip
def test_walltimes_are_read_as_sbatch_reads_them(text, seconds):
    assert walltime_s(text) == seconds


@pytest.mark.parametrize("text", ["", "8h", "1:2:3:4", "-1", "1-", "08.00"])
def test_what_is_no_walltime_is_refused(tmp_path, text):
    with pytest.raises(
        StudyError, match=rf"line 3: walltime: '{text}' is no walltime; write hours:minutes:seconds"
    ):
        read_site(site_file(tmp_path, f'walltime = "{text}"\n'))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("jobs_min = 5\njobs_max = 2\n", "jobs_min = 5 is more than jobs_max = 2"),
        ("jobs_min = 5\n", "jobs_min and jobs_max need each other"),
        ("jobs = 2\njobs_min = 1\njobs_max = 2\n", "give jobs, or jobs_min and jobs_max, but not both"),
        ("processes = 3\n", "cores = 4 cannot be shared equally by processes = 3"),
        ('walltime = "0:30"\n', "less than a minute"),
        ('directives = ["constraint=avx512"]\n', "is no option of sbatch"),
        ('directives = ["#SBATCH --x"]\n', "is no option of sbatch"),
        ('directives = ["--time=5"]\n', "has a key of its own: use walltime"),
        ('directives = ["-J mine"]\n', "nightbeam needs -J itself"),
        ('setup = ["one\\ntwo"]\n', "has a line end"),
        ("ports = [80, 90]\n", "no range of ports"),
        ("ports = [9000, 9000]\n", "fewer ports than 1 processes and the scheduler need"),
        ('partition = "a b"\n', "partition"),
        ("corse = 4\n", "there is no such key; see `nightbeam cluster keys`"),
    ],
)  # fmt: skip
def test_a_mistake_is_told(tmp_path, text, complaint):
    with pytest.raises(StudyError) as raised:
        read_site(site_file(tmp_path, text))
    assert complaint in str(raised.value)


def test_a_file_that_is_not_there_is_told_with_an_example(tmp_path):
    with pytest.raises(StudyError, match=r"there is no cluster file .*examples/slurm\.toml"):
        read_site(tmp_path / "none.toml")


def test_the_example_can_be_used():
    site = read_site(Path(__file__).parents[3] / "examples" / "slurm.toml")
    assert site.n_job_min <= site.n_job_max


def test_processes_of_a_job_share_what_the_keeper_leaves():
    site = SlurmSite(cores=4, memory_gib=8.0, processes=2)
    assert 2 * site.worker_bytes == (8 << 30) - KEEPER_BYTES
    assert site.planned_bytes < site.worker_bytes
    assert site.n_thread == 2


def test_the_script_asks_for_what_the_file_says(tmp_path):
    site = SlurmSite(
        cores=4, memory_gib=1.5, partition="long", account="physics", qos="night", walltime="2-00",
        directives=("--constraint=avx512",), setup=("module load python", 'echo "ready"'), python="/opt/my python",
    )  # fmt: skip
    lines = worker_script(site, tmp_path / "0a1b2c3d").splitlines()
    asked = {line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH")}
    assert {
        "--job-name=nightbeam-0a1b2c3d", "--partition=long", "--account=physics", "--qos=night", "--time=2-00",
        "--cpus-per-task=4", "--mem=1536M", "--constraint=avx512",
    } <= asked  # fmt: skip
    assert lines[-4:-2] == ["module load python", 'echo "ready"']
    assert lines[-1] == f"exec '/opt/my python' -P -m cluster.slurm.keeper {tmp_path / '0a1b2c3d'}"


def test_a_log_folder_may_have_any_name(tmp_path):
    site = SlurmSite(cores=2, memory_gib=4.0, logs=str(tmp_path / "50% off"))
    assert f"#SBATCH --output='{tmp_path}/50%% off/nightbeam-{tmp_path.name}-%j.log'\n" in worker_script(
        site, tmp_path
    )


def test_the_script_is_good_shell(tmp_path):
    script = tmp_path / "worker.sh"
    script.write_text(worker_script(SlurmSite(cores=1, memory_gib=1.0), tmp_path / "with a space"))
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0


def test_another_python_is_given_the_paths_of_the_project_and_no_library_of_this_one(monkeypatch):
    monkeypatch.setattr(sys, "path", ["/home/me/nightbeam", *sysconfig.get_paths().values()])
    assert import_path("/opt/python/bin/python3") == "/home/me/nightbeam"
    assert import_path(sys.executable) == os.pathsep.join(sys.path)
