"""One store on two mounts, used by runs that cannot see each other's processes, as on two machines.

Runs use bind mounts of a local folder, which share everything but the paths. What one mount sees of the other is asked
of two NFS mounts: a user-mode Linux (Debian's ``user-mode-linux``) runs kernel server and clients of its own, so the
machine's kernel needs no NFS. Each mount has its own memory of names, attributes and data. The packages are installed
only where no test may be left out, because one of them starts a server.
"""

import json
import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from storage.lease import LEASE_S
from tests.cluster.debian import install

ROOT = Path(__file__).parents[2]
BOOT = Path(__file__).with_name("nfs_guest") / "boot.sh"
PROGRAMS = ("linux.uml", "rpc.nfsd", "mount.nfs4", "insmod", "mkfs.ext4")
PACKAGES = ("user-mode-linux", "nfs-kernel-server", "kmod", "e2fsprogs")
LIMIT_S = 3200.0
TAKE_OVER_S = 2.0 * LEASE_S
"""`LEASE_S` of silence, some seconds for looking, and room for a busy machine."""

pytestmark = [
    pytest.mark.site,
    pytest.mark.timeout(LIMIT_S),
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting and process namespaces need root"),
]


def bind_mounts(folder, more_environment):
    """Use two bind mounts of one local folder; returns what was found."""
    with ExitStack() as mounted:
        for name in ("origin", "a", "b"):
            (folder / name).mkdir()
        for name in ("a", "b"):
            subprocess.run(["mount", "--bind", folder / "origin", folder / name], check=True)
            mounted.callback(subprocess.run, ["umount", "--lazy", folder / name], check=True)
        module = [sys.executable, "-m", "tests.cluster.two_mounts"]
        subprocess.run(
            [*module, folder / "a", folder / "b", folder / "result.json", "--plans", "--quick"],
            cwd=ROOT, check=True, env={**os.environ, **more_environment},
        )  # fmt: skip
    return json.loads((folder / "result.json").read_text())


def _missing():
    return [name for name in PROGRAMS if not shutil.which(name)]


def nfs_mounts(folder, options, *arguments):
    """Use two NFS mounts in a user-mode Linux; returns what was found."""
    if (lacks := _missing()) and os.environ.get("NIGHTBEAM_SITE_TESTS") == "required":
        install(*PACKAGES)
        lacks = _missing()
    if lacks:
        pytest.skip(f"needs {', '.join(lacks)} (Debian: {' '.join(PACKAGES)})")
    image = folder / "export.img"
    with image.open("wb") as stream:
        stream.truncate(3 << 30)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    guest = [
        "linux.uml",
        "mem=3G",
        "root=/dev/root",
        "rootfstype=hostfs",
        "rootflags=/",
        "rw",
        f"ubd0={image}",
    ]
    guest += [
        "con0=null,fd:1",
        "con=null",
        "init=/bin/bash",
        "--",
        BOOT,
        sys.executable,
        ROOT,
        folder,
        options,
    ]
    with (folder / "boot.log").open("wb") as log:
        subprocess.run(
            [*guest, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False, timeout=LIMIT_S,
            env={**os.environ, "TMPDIR": "/dev/shm"},  # the guest's memory is a file
        )  # fmt: skip
    image.unlink()
    found = folder / "result.json"
    assert found.exists(), (folder / "boot.log").read_text(errors="replace")[-3000:]
    return json.loads(found.read_text())


@pytest.fixture(scope="module")
def on_bind_mounts(tmp_path_factory, prefect):
    return bind_mounts(tmp_path_factory.mktemp("bind"), prefect)


@pytest.fixture(scope="module")
def on_nfs(tmp_path_factory):
    return nfs_mounts(tmp_path_factory.mktemp("nfs"), "-", "--repeats", "1", "--quick")


def test_of_two_nfs_mounts_only_one_makes_a_file_exclusively(on_nfs):
    assert on_nfs["exclusive_wrong"] == 0


def test_a_beat_of_a_lease_is_seen_through_another_nfs_mount_before_the_lease_is_over(on_nfs):
    assert on_nfs["seen_after_s"]["beat of a lease by open and fstat"]["most"] < LEASE_S / 2.0


def test_the_store_finds_a_result_that_an_nfs_mount_believes_missing(on_nfs):
    assert on_nfs["seen_after_s"]["new object by the store"]["most"] < LEASE_S / 2.0


def test_two_runs_at_once_on_two_mounts_end_with_the_same_bits(on_bind_mounts):
    first, second = on_bind_mounts["together"]["weights"]
    assert first == second


def test_one_of_two_runs_on_two_mounts_waits_while_the_other_solves(on_bind_mounts):
    assert on_bind_mounts["together"]["n_waited"] == 1


def test_a_killed_run_on_another_mount_is_followed_when_its_lease_is_over(on_bind_mounts):
    assert on_bind_mounts["takeover"]["after_s"] < TAKE_OVER_S
    first, second = on_bind_mounts["takeover"]["weights"]
    assert first == second


def test_who_takes_over_on_another_mount_goes_on_with_the_log_of_the_killed_run(on_bind_mounts):
    assert on_bind_mounts["takeover"]["n_replayed"] > 0


def test_no_object_is_written_again_after_a_takeover(on_bind_mounts):
    assert on_bind_mounts["takeover"]["written_again"] == 0


def test_a_store_on_two_mounts_is_whole_afterwards(on_bind_mounts):
    assert on_bind_mounts["check"]["status"] == 0, on_bind_mounts["check"]["said"]
    assert not on_bind_mounts["damaged"]
