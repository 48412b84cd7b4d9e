"""Run folders: one for each run on a SLURM cluster, with all that its jobs need, owned by its planning process.

The owner touches its folder now and then. A folder whose owner is gone (seen at once on the same machine, after five
silent minutes elsewhere) is cleared away by the next run, together with the jobs that still have its name.
"""

import json
import os
import shutil
import socket
import tempfile
import uuid
from contextlib import suppress
from pathlib import Path

from cluster.slurm.notes import make_folders

OWNER = "owner.json"
SILENCE_S = 300.0
"""An owner on another machine that has been silent for so long is gone."""


def make_run_folder(root: Path, usage: Path | None) -> Path:
    """Make a folder for a run, with a name of its own; only this user may look into it.

    Parameters
    ----------
    root
        Where run folders are.
    usage
        The file that the jobs' usage is added to at the end, if any.
    """
    root.mkdir(parents=True, exist_ok=True)
    folder = root / uuid.uuid4().hex[:8]
    folder.mkdir(mode=0o700)
    owner = {
        "host": socket.gethostname(),
        "machine": _this_machine(),
        "pid": os.getpid(),
        "started": _started(os.getpid()),
        "usage": None if usage is None else str(usage.absolute()),
    }
    # Until it has an owner it is nobody's, and no one's to clear away.
    make_folders(folder)
    (folder / OWNER).write_text(json.dumps(owner))
    return folder.absolute()


def beat(folder: Path) -> None:
    """Say that the owner is alive."""
    with suppress(OSError):
        # No time is given, so that it is the file server's.
        os.utime(folder / OWNER)


def usage_file(folder: Path) -> Path | None:
    """Return the file that the usage of a folder's jobs is to be added to."""
    try:
        name = json.loads((folder / OWNER).read_text())["usage"]
    except (OSError, ValueError, KeyError):
        return None
    return None if name is None else Path(name)


def left_over(root: Path) -> list[Path]:
    """Return the folders whose owner is gone."""
    if not root.is_dir():
        return []
    folders = list(root.iterdir())
    if not folders:
        return []
    with tempfile.TemporaryFile(dir=root) as stream:
        now_s = os.fstat(stream.fileno()).st_mtime  # by the clock that files here have
    return sorted(folder for folder in folders if _is_ownerless(folder, now_s))


def remove(folder: Path) -> None:
    """Remove a run folder; a job that is just ending may still write into it, and is no reason to fail."""
    for _ in range(3):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return


def _is_ownerless(folder: Path, now_s: float) -> bool:
    try:
        with (folder / OWNER).open() as stream:
            silence_s = now_s - os.fstat(stream.fileno()).st_mtime
            owner = json.load(stream)
        if owner["machine"] != _this_machine():
            return bool(silence_s > SILENCE_S)
        return bool(_started(int(owner["pid"])) != owner["started"])
    except (OSError, ValueError, KeyError):
        # It has no owner yet, or is that of another user of the same store.
        return False


def _this_machine() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    # Containers on one machine have process numbers of their own.
    return f"{boot} {Path('/proc/self/ns/pid').readlink()}"


def _started(pid: int) -> int | None:
    """Return when a process started, in ticks since boot; None if it is gone."""
    try:
        # The program's name, in parentheses, may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])
