"""A patient with a name is imported and planned; afterwards the name is in none of the files that were written."""

import zipfile
from pathlib import Path

import pytest

from flows.cases import write_phantom
from tests.e2e.small_study import STUDY, command, run, write_study
from tests.hostile.good import edit
from tests.hostile.identity import identify, names

TABLE = "hu,relative_electron_density\n-1000,0.00108\n0,1.0\n3000,2.538\n"


@pytest.mark.validate
def test_no_name_is_in_any_file_of_a_plan(tmp_path: Path) -> None:
    scans, work = tmp_path / "scans", tmp_path / "work"
    write_phantom("water-box", scans)
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
        done = run(arguments)
        assert done.returncode == (2 if "broken.toml" in done.args[4] else 0), done.stderr
        said += done.stdout + done.stderr
    secrets = {name.lower() for name in names()}
    found = {
        (path.name, name) for path in work.rglob("*") for name in secrets if name in content(path).lower()
    }
    assert found == set()
    assert not [name for name in secrets if name.decode() in said.lower()]
    assert list(store.rglob("prefect.db"))
    assert list(out.rglob("*.log"))


def write_broken(work: Path, text: str) -> Path:
    path = work / "broken.toml"
    path.write_text(text.replace('target = "Target"', 'target = "Nothing"'))
    return path


def content(path: Path) -> bytes:
    """Return the name of a file and all that is in it; of a store's object, the members of its archive."""
    if not path.is_file():
        return path.name.encode()
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            return b"\n".join([path.name.encode(), *(archive.read(name) for name in archive.namelist())])
    return path.name.encode() + path.read_bytes()
