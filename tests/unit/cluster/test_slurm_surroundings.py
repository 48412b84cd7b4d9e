"""What a keeper sees of its node, and where its workers listen."""

import os
import re
import socket
import tempfile

import pytest

from cluster.seen import processor
from cluster.slurm.surroundings import can_connect, prepare_scratch, used_bytes
from cluster.slurm.worker import free_port, own_host
from engine.errors import ClusterError


def test_memory_of_a_process_is_seen_now_and_at_most():
    now, most = used_bytes(os.getpid())
    assert 0 < now <= most


def test_a_process_that_is_gone_uses_no_memory():
    assert used_bytes(1 << 30) == (0, 0)


def test_a_scheduler_that_listens_can_be_connected_to_and_one_that_does_not_cannot():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tls://127.0.0.1:{server.getsockname()[1]}"
        assert can_connect(address)
    assert not can_connect(address)


def test_a_port_of_the_range_is_found_that_nobody_has():
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        with pytest.raises(ClusterError, match=f"all ports from {taken} to {taken} are taken"):
            free_port("127.0.0.1", f"{taken}:{taken}")
    assert free_port("127.0.0.1", f"{taken}:{taken}") == taken
    assert free_port("127.0.0.1", "") == 0


def test_workers_listen_on_the_interface_that_the_file_names():
    assert own_host("lo") == "127.0.0.1"
    with pytest.raises(ClusterError, match="'nope0'"):
        own_host("nope0")


def test_scratch_takes_temporary_files_and_compiled_code_of_this_processor(tmp_path, monkeypatch):
    for name in ("XDG_CACHE_HOME", "TMPDIR"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("SCRATCH", str(tmp_path))
    prepare_scratch("$SCRATCH")
    assert tempfile.gettempdir() == str(tmp_path)
    own, kind = tmp_path / f"nightbeam-{os.getuid()}", re.sub(r"[^\w.]+", "-", processor())
    assert os.environ["XDG_CACHE_HOME"] == str(own / kind)
    assert own.stat().st_mode & 0o777 == 0o700


def test_compiled_code_goes_nowhere_where_others_may_write(tmp_path):
    own = tmp_path / f"nightbeam-{os.getuid()}"
    own.mkdir()
    own.chmod(0o777)
    with pytest.raises(ClusterError, match="not this user's alone"):
        prepare_scratch(str(tmp_path))
    own.rmdir()
    own.symlink_to(tmp_path)
    with pytest.raises(ClusterError, match="not this user's alone"):
        prepare_scratch(str(tmp_path))
