"""The hostile folders again, through the real command: time and memory as the system counts them."""

import os
import re
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.hostile.attached_kinds import ATTACHED
from tests.hostile.dicom_kinds import KINDS, TRICKS
from tests.hostile.good import write_good
from tests.hostile.good_attached import write_attached

MEMORY_LIMIT_BYTES = 1 << 30
TIME_LIMIT_S = 60.0
"""Of the processor: what else the machine does must not count."""
CHOSEN = (
    [name for name, kind in KINDS.items() if kind.slow]
    + list(TRICKS)
    + ["65535 by 65535 pixels", "a run-length bomb"]
    + [
        "a million control points",
        "a dose of 65535 by 65535 by 65535 points",
        "sequences in a plan, 20000 deep",
    ]
)


def command(folder: Path, store: Path, temporary: Path) -> tuple[int, str, str, float, int]:
    """Import a folder in a process of its own; returns status, output, errors, seconds and peak of memory in bytes."""
    environment = {**os.environ, "TMPDIR": str(temporary)}
    arguments = [
        sys.executable,
        "-m",
        "flows.cli",
        "import",
        str(folder),
        "--store",
        str(store),
        "--name",
        "x",
    ]
    out, errors = temporary.parent / "out.txt", temporary.parent / "err.txt"
    began = time.monotonic()
    with out.open("wb") as stdout, errors.open("wb") as stderr:
        process = subprocess.Popen(
            arguments, stdout=stdout, stderr=stderr, env=environment,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30)),
        )  # fmt: skip
        try:
            while True:
                pid, status, usage = os.wait4(process.pid, os.WNOHANG)
                if pid:
                    break
                assert time.monotonic() - began < 5 * TIME_LIMIT_S, "it does not end"
                time.sleep(0.02)
        except BaseException:
            process.kill()
            process.wait()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
    took_s = usage.ru_utime + usage.ru_stime
    return process.returncode, out.read_text(), errors.read_text(), took_s, usage.ru_maxrss * 1024


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """Return the good folder, and what its import needs."""
    here = tmp_path_factory.mktemp("good")
    write_good(here / "dicom")
    (here / "tmp").mkdir()
    status, _, errors, _, peak = command(here / "dicom", here / "store", here / "tmp")
    assert status == 0, errors
    return here / "dicom", peak


@pytest.mark.validate
@pytest.mark.parametrize("name", CHOSEN)
def test_a_hostile_folder_is_answered_in_bounded_time_and_memory(name, good, tmp_path):
    kind = {**KINDS, **ATTACHED}[name]
    folder, store, temporary = tmp_path / "dicom", tmp_path / "store", tmp_path / "tmp"
    shutil.copytree(good[0], folder)
    temporary.mkdir()
    if name in ATTACHED:
        write_attached(folder)
    kind.attack(folder)
    status, output, errors, took_s, peak = command(folder, store, temporary)
    print(
        f"{name}: status {status}, {took_s:.1f} s, {(peak - good[1]) / (1 << 20):.0f} MiB more than a good one"
    )
    assert "Traceback" not in errors
    assert not re.search(
        r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", output + re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", errors)
    )
    assert status == (0 if kind.read else 2), errors
    said = output + errors
    assert re.search(kind.says, " ".join(said.split())), said
    assert not list(temporary.iterdir())
    if not kind.read:
        # At the beginning of a line: what files hold may say so, too, but only within one.
        assert len(re.findall(r"^nightbeam:", errors, re.MULTILINE)) == 1, errors
        left = {path.name for path in store.rglob("*") if path.is_file()}
        assert left <= {"nightbeam-store.json"} | {name for name in left if "lease" in name}
    assert peak - good[1] < MEMORY_LIMIT_BYTES
    assert took_s < TIME_LIMIT_S
