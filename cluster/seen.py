"""What a process is like: its code, versions, machine, and what it has to work with."""

import hashlib
import importlib.util
import os
import platform
import re
import shutil
import socket
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cluster.memory import free_bytes

PACKAGES = ("engine", "storage", "cluster", "flows")
LIBRARIES = (
    "numpy", "numba", "llvmlite", "scipy", "zarr", "numcodecs", "crc32c",
    "dask", "distributed", "cloudpickle", "msgpack",
)  # fmt: skip
"""Those whose version goes into results, or into what processes say to each other."""
_PROBE_BYTES = 1 << 20


@dataclass(frozen=True)
class Seen:
    """What a process is like.

    Parameters
    ----------
    host, interface
        Its machine, and the network interface that it listens on.
    code, folder
        Digest of nightbeam's packages, and where they are.
    python, libraries
        Versions.
    n_core
        Cores that it may use.
    free_bytes
        Memory that is free.
    scratch, scratch_bytes, scratch_trouble
        Folder for temporary files, what is free there, and why it cannot be written, if so.
    processor
        Type of processor.
    """

    host: str
    interface: str
    code: str
    folder: str
    python: str
    libraries: Mapping[str, str]
    n_core: int
    free_bytes: int
    scratch: str
    scratch_bytes: int
    scratch_trouble: str
    processor: str


@cache
def digest_of_packages() -> str:
    """Return the digest of all modules and tables of nightbeam that this process would import."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        folder = _folder_of(package)
        if folder is None:
            digest.update(f"no {package}".encode())
            continue
        for file in sorted(found for found in folder.rglob("*") if found.suffix in (".py", ".csv", ".toml")):
            content = file.read_bytes()
            digest.update(f"{package}/{file.relative_to(folder)} {len(content)} ".encode() + content)
    return digest.hexdigest()[:16]


def see(address: str = "") -> Seen:
    """Look at this process.

    Parameters
    ----------
    address
        What it listens on.
    """
    scratch = Path(tempfile.gettempdir())
    trouble, n_free = "", 0
    try:
        n_free = shutil.disk_usage(scratch).free
        with tempfile.NamedTemporaryFile(dir=scratch) as probe:
            probe.write(bytes(_PROBE_BYTES))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        trouble = error.strerror or str(error)
    return Seen(
        socket.gethostname(), _interface_of(address), digest_of_packages(), str(_folder_of("engine") or "nowhere"),
        platform.python_version(), {name: _version(name) for name in LIBRARIES}, len(os.sched_getaffinity(0)),
        free_bytes(), str(scratch), n_free, trouble, processor(),
    )  # fmt: skip


def processor() -> str:
    """Return the type of this machine's processor."""
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def _interface_of(address: str) -> str:
    """Return the name of the network interface that has an address."""
    import psutil  # type: ignore[import-untyped]  # Dask brings it

    host = address.rpartition("://")[2].rpartition(":")[0].strip("[]")
    for name, addresses in psutil.net_if_addrs().items():
        if host and any(one.address == host for one in addresses):
            return str(name)
    return ""


def _folder_of(package: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"
