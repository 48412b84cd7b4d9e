"""A patient with a name is imported and planned; afterwards the name is in none of the files that were written."""

import io
import re
import shutil
import subprocess
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import zarr
from pydicom.uid import RTPlanStorage
from zarr.storage import ZipStore

from flows.cases import write_phantom
from storage.dicom.read_case import read_folder
from storage.dicom.uids import InstanceReference, content_uid
from storage.dicom.write_dose import write_dose
from tests.e2e.small_study import STUDY, command, write_study
from tests.hostile.good import edit
from tests.hostile.identity import identify, names

TABLE = "hu,relative_electron_density\n-1000,0.00108\n0,1.0\n3000,2.538\n"


@pytest.mark.validate
def test_no_name_is_in_any_file_of_a_plan(tmp_path: Path) -> None:
    scans, work = tmp_path / "scans", tmp_path / "work"
    write_phantom("water-box", scans)
    write_dose_beside(scans)
    identify(scans)
    work.mkdir()
    for path in sorted(scans.glob("CT*"))[:3]:
        path.rename(scans / f"Quixotham-{path.name}")
    (scans / "letter to Quixotham.dcm").write_text("Dear Quixotham")
    (structure_set,) = scans.glob("RTSTRUCT*")
    edit(structure_set, lambda dataset: setattr(dataset, "StructureSetLabel", "Zebulonia"))
    (work / "table.csv").write_text(TABLE)
    text = STUDY.replace('phantom = "water-box"', f'dicom = "{scans}"').replace('"phantom"', '"table.csv"')
    study, store, out = write_study(work, text), work / "store", work / "out"
    said = ""
    for arguments in (
        command("plan", study, store, out),
        command("pareto", study, store, out),
        [*command("report", study, store, out)],
        [*command("export", study, store, out)[:-2], "--dicom", str(out / "dicom")],
        # What goes wrong is logged, too, and kept by Prefect.
        command("plan", write_broken(work, text), store, out),
    ):
        done = run_keeping(arguments, store / "prefect", tmp_path / "work" / "kept")
        assert done.returncode == (2 if "broken.toml" in done.args[4] else 0), done.stderr
        said += done.stdout + done.stderr
    secrets = {name.lower() for name in names()}
    found = set()
    for path in work.rglob("*"):
        held = content(path).lower()
        found |= {(path.name, name) for name in secrets if name in held and is_there(name, held)}
    assert found == set()
    assert not [name for name in secrets if name.decode() in said.lower()]
    assert len(list((work / "kept").rglob("prefect.db"))) >= 2  # of plan and pareto at least
    assert list(out.rglob("*.log"))


def is_there(secret: bytes, held: bytes) -> bool:
    """Return whether a secret is there; one of digits alone not as a part of a longer number, where chance puts it."""
    if not secret.isdigit():
        return True
    return re.search(rb"(?<![0-9.])" + secret + rb"(?![0-9])", held) is not None


def run_keeping(arguments: list[str], prefect: Path, kept: Path) -> subprocess.CompletedProcess[str]:
    """Run a command and keep what Prefect's server holds meanwhile: a run removes its database when it ends."""
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    began = time.monotonic()
    while process.poll() is None:
        if time.monotonic() - began > 500.0:
            process.kill()
        for path in prefect.rglob("*"):
            try:
                if path.is_file():
                    to = kept / path.relative_to(prefect)
                    to.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, to)
            except FileNotFoundError:  # removed meanwhile
                pass
        time.sleep(0.25)
    out, errors = process.communicate()
    return subprocess.CompletedProcess(arguments, process.returncode, out, errors)


def write_dose_beside(scans: Path) -> None:
    """Write a dose that has no comment, so that whatever names it comes from what `identify` writes."""
    there = read_folder(scans)
    grid = there.case.grid
    plan = InstanceReference(RTPlanStorage, content_uid("a plan"))
    write_dose(scans, grid, np.ones(grid.shape_zyx), case_name="c", ct=there.reference, plan=plan)
    (dose,) = scans.glob("RTDOSE*")
    edit(dose, lambda dataset: delattr(dataset, "DoseComment"))


def write_broken(work: Path, text: str) -> Path:
    path = work / "broken.toml"
    path.write_text(text.replace('target = "Target"', 'target = "Nothing"'))
    return path


def content(path: Path) -> bytes:
    """Return the name of a file and all that is in it: members of archives, and arrays of the store decompressed."""
    if not path.is_file():
        return path.name.encode()
    if path.suffix not in (".zip", ".npz"):
        return path.name.encode() + b"\n" + path.read_bytes()
    parts = [path.name.encode()]
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            parts += [name.encode(), archive.read(name)]
            if name.endswith(".npy"):  # text is stored with four bytes a letter
                array = np.load(io.BytesIO(parts[-1]))
                parts.append(repr(array.tolist()).encode() if array.dtype.kind == "U" else b"")
    if path.name.endswith(".zarr.zip"):
        stored = ZipStore(path, mode="r")
        parts += [np.asarray(array[...]).tobytes() for _, array in zarr.open_group(stored, mode="r").arrays()]
        stored.close()
    return b"\n".join(parts)
