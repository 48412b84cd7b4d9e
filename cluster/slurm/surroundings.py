"""What a keeper sees of its node: memory of processes, kills by the kernel, the scheduler, the scratch folder."""

import os
import re
import socket
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from cluster.seen import processor
from engine.errors import ClusterError

_CONNECT_S = 5.0


def used_bytes(pid: int) -> tuple[int, int]:
    """Return what a process uses of memory now, and what it used at most; zeros if it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0, 0
    kib = {
        name: int(value) for name, value in re.findall(r"^(VmRSS|VmHWM):\s*(\d+) kB", status, re.MULTILINE)
    }
    return kib.get("VmRSS", 0) << 10, kib.get("VmHWM", 0) << 10


class OomCount:
    """Counts the processes that the kernel killed in this job's control group because memory ran out."""

    def __init__(self) -> None:
        self._files = _event_files()
        self._seen = self._count()

    def news(self) -> int:
        """Return how many were killed since it was last asked."""
        before, self._seen = self._seen, self._count()
        return max(0, self._seen - before)

    def _count(self) -> int:
        n_killed = 0
        for file in self._files:
            with suppress(OSError):
                n_killed += sum(
                    int(n) for n in re.findall(r"^oom_kill (\d+)$", file.read_text(), re.MULTILINE)
                )
        return n_killed


def _event_files() -> list[Path]:
    files = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, names, path = line.split(":", 2)
        if number == "0" and not names:
            files.append(Path("/sys/fs/cgroup", path.lstrip("/"), "memory.events"))
        elif "memory" in names.split(","):
            files.append(Path("/sys/fs/cgroup/memory", path.lstrip("/"), "memory.oom_control"))
    return [file for file in files if file.is_file()]


def can_connect(address: str) -> bool:
    """Return whether somebody listens at the address of a scheduler, such as ``tls://10.0.0.1:8786``."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()
    except (OSError, ValueError):
        return False
    return True


def prepare_scratch(scratch: str | None) -> None:
    """Have temporary files and compiled code go to a folder of the node.

    Compiled code is for one type of processor; nodes may share the folder and differ.

    Raises
    ------
    ClusterError
        If others may write where compiled code would go.
    """
    if scratch is None:
        return
    folder = Path(os.path.expandvars(scratch)).expanduser()
    own = folder / f"nightbeam-{os.getuid()}"
    folder.mkdir(parents=True, exist_ok=True)
    own.mkdir(mode=0o700, exist_ok=True)
    seen = own.lstat()
    # Compiled code is run as it is found, and anybody may have made the folder before us.
    if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != os.getuid() or seen.st_mode & 0o022:
        raise ClusterError(
            f"{socket.gethostname()}: {own} is not this user's alone (owner {seen.st_uid}, mode "
            f"{stat.S_IMODE(seen.st_mode):o}); remove it, or name another folder as scratch in the SLURM file"
        )
    cache = own / _path_part(processor())
    cache.mkdir(exist_ok=True)
    # The kernels' own folder for each state of their sources goes below; NUMBA_CACHE_DIR would be one for all states.
    os.environ["XDG_CACHE_HOME"] = str(cache)
    os.environ["TMPDIR"] = str(folder)
    tempfile.tempdir = None


def _path_part(text: str) -> str:
    return re.sub(r"[^\w.]+", "-", text)
