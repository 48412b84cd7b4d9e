"""A plan as DICOM in the eyes of dciodvfy and dcentvfy (dicom3tools), plastimatch, dicompyler-core, and ourselves.

One plan of a water box from the command line, with all doses. ``make validate`` prints the figures (``-s``).
"""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread

from engine.dose.monitor_units import weight_per_mu
from engine.model.machine import MACHINES
from storage.dicom.read_attached import Attached, read_attached
from storage.dicom.scan import scan_folder
from tests.e2e.small_study import STUDY, command, run, write_study

pytestmark = [pytest.mark.validate, pytest.mark.cluster, pytest.mark.prefect]

TEXT = (
    STUDY.replace('robust = "composite_worst_case"', 'robust = "nominal"')
    .replace("max_evaluations = 60", "max_evaluations = 40")
    .replace("report_grid_mm = 5.0", "report_grid_mm = 3.0")
)
PRESCRIBED_GY = 20.0
TOLERANCE_GY = 0.005 * PRESCRIBED_GY
JUDGED = ("mean_gy", "d2_gy", "d50_gy", "d95_gy", "d98_gy")


def program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name} (Debian package {package})")
    return found


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the plan's output ``out`` and everything that can be exported in ``all``."""
    folder = tmp_path_factory.mktemp("planned")
    study = write_study(folder, TEXT)
    done = run(command("plan", study, folder / "store", folder / "out"))
    assert done.returncode == 0, done.stderr
    arguments = command("export", study, folder / "store", folder)[:-2]
    done = run([*arguments, "--dicom", str(folder / "all"), "--beams", "--scenarios"])
    assert done.returncode == 0, done.stderr
    assert "1 RTSTRUCT, 1 RTPLAN, 10 RTDOSE" in done.stdout
    return folder


@pytest.fixture(scope="module")
def statistics(planned: Path) -> dict[str, dict[str, float]]:
    summary = json.loads((planned / "out/summary.json").read_text())
    return {row["name"]: row for row in summary["volumes"]}


@pytest.fixture(scope="module")
def alone(planned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with plan, dose of the plan and structure set: what a DVH needs."""
    folder = tmp_path_factory.mktemp("alone")
    for path in (planned / "out/dicom").glob("RT*.dcm"):
        shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="module")
def read_back(planned: Path) -> Attached:
    return read_attached(scan_folder(planned / "all"), "")


def test_validator_finds_no_error_in_any_file(planned: Path) -> None:
    validator = program("dciodvfy", "dicom3tools")
    files = [*(planned / "all").glob("RT*.dcm"), *sorted((planned / "all").glob("CT*.dcm"))[:3]]
    assert len(files) == 15
    for file in files:
        done = subprocess.run([validator, str(file)], capture_output=True, text=True, check=False)
        told = done.stdout + done.stderr
        assert done.returncode == 0, told
        assert "Error" not in told, told
        assert "not present in standard" not in told, told


def test_validator_finds_no_contradiction_between_the_files(planned: Path) -> None:
    files = [str(path) for path in (planned / "all").glob("*.dcm")]
    done = subprocess.run(
        [program("dcentvfy", "dicom3tools"), *files], capture_output=True, text=True, check=False
    )
    assert "Error" not in done.stdout + done.stderr, done.stderr


def test_dvh_of_plastimatch_agrees(
    alone: Path, statistics: dict[str, dict[str, float]], tmp_path: Path
) -> None:
    table = tmp_path / "dvh.csv"
    arguments = [
        "dvh",
        "--input",
        str(alone),
        "--bin-width",
        "0.01",
        "--num-bins",
        "2400",
        "--output-csv",
        str(table),
    ]
    subprocess.run([program("plastimatch", "plastimatch"), *arguments], check=True, capture_output=True)
    with table.open() as stream:
        rows = list(csv.reader(stream))
    dose_gy, *curves = np.array(rows[1:], dtype=np.float64).T
    assert set(rows[0][1:]) == set(statistics)
    for name, curve in zip(rows[0][1:], curves, strict=True):
        share = curve / curve[0]
        found = {
            "mean_gy": float(np.trapezoid(share, dose_gy)),
            **{f"d{p}_gy": float(np.interp(-p / 100, -share, dose_gy)) for p in (2, 50, 95, 98)},
        }
        compare("plastimatch", name, found, statistics)


def test_dose_that_plastimatch_converts_is_the_dose(
    planned: Path, read_back: Attached, tmp_path: Path
) -> None:
    simpleitk = pytest.importorskip("SimpleITK")
    dose = next(d for d in read_back.doses if d.label == "RESEARCH USE ONLY")
    (file,) = (planned / "out/dicom").glob("RTDOSE*.dcm")
    image = tmp_path / "dose.nrrd"
    arguments = ["convert", "--input", str(file), "--output-dose-img", str(image)]
    subprocess.run([program("plastimatch", "plastimatch"), *arguments], check=True, capture_output=True)
    found = simpleitk.ReadImage(str(image))
    np.testing.assert_allclose(found.GetOrigin(), dose.grid.origin_mm_xyz, atol=1e-4)
    np.testing.assert_allclose(found.GetSpacing(), dose.grid.spacing_mm_xyz, atol=1e-5)
    np.testing.assert_allclose(simpleitk.GetArrayFromImage(found), dose.dose_gy, rtol=1e-5, atol=1e-5)


def test_dvh_and_plan_of_dicompyler_agree(alone: Path, statistics: dict[str, dict[str, float]]) -> None:
    python = os.environ.get("NIGHTBEAM_PEER_PYTHON")
    if not python:
        pytest.skip("needs a Python with dicompyler-core (and pydicom < 3), named by NIGHTBEAM_PEER_PYTHON")
    script = Path(__file__).with_name("dicompyler_dvh.py")
    done = subprocess.run([python, str(script), str(alone)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert found["prescribed_cgy"] == 100.0 * PRESCRIBED_GY
    for name, figures in found["dvh"].items():
        compare("dicompyler-core", name, figures, statistics)
    # What the beams give the target on average is what all of them give it.
    total_gy = sum(beam["dose"] for beam in found["beams"].values()) / 100.0
    assert total_gy == pytest.approx(statistics["Target"]["mean_gy"], abs=TOLERANCE_GY)


def compare(who: str, name: str, found: dict[str, float], ours: dict[str, dict[str, float]]) -> None:
    for figure in JUDGED:
        off_percent = 100.0 * (found[figure] - ours[name][figure]) / PRESCRIBED_GY
        print(
            f"{who}: {name} {figure} {found[figure]:.3f}, ours {ours[name][figure]:.3f} ({off_percent:+.2f} %)"
        )
    for figure in JUDGED:
        assert found[figure] == pytest.approx(ours[name][figure], abs=TOLERANCE_GY), (name, figure)


def test_what_is_read_back_is_what_was_planned(planned: Path, read_back: Attached) -> None:
    assert not read_back.notes
    (plan,) = read_back.plans
    machine = MACHINES["generic-6mv"]
    with np.load(planned / "out/weights.npz") as stored:
        weights = {name: stored[name] for name in stored}
    assert [beam.gantry_deg[0] for beam in plan.beams] == [0.0, 90.0, 200.0]
    for number, beam in enumerate(plan.beams):
        chosen = weights["beam"] == number
        assert beam.fluence is not None
        assert beam.meterset is not None
        weight = beam.fluence.as_array() * beam.meterset * 10 * weight_per_mu(machine)
        column, row = (
            np.rint(weights[axis][chosen] - first / size).astype(int)
            for axis, first, size in zip(
                ("column", "row"), beam.fluence.first_mm, beam.fluence.spacing_mm, strict=True
            )
        )
        exact = weights["weight"][chosen]
        np.testing.assert_allclose(weight[row, column], exact, rtol=0, atol=1e-12 * exact.max())
        assert weight.sum() == pytest.approx(exact.sum(), rel=1e-12)
    doses = {d.label.removeprefix("RESEARCH USE ONLY").removeprefix(". "): d for d in read_back.doses}
    assert len(doses) == 10
    of_beams = sum(doses[f"Beam {n}"].dose_gy.astype(np.float64) for n in (1, 2, 3))
    step_gy = doses[""].dose_gy.max() / 65535
    np.testing.assert_allclose(of_beams, doses[""].dose_gy, rtol=1e-6, atol=2.1 * step_gy)
    # A shift of 4 mm moves the edge of the target's dose by some Gy.
    shifted = [dose for label, dose in doses.items() if label.startswith("Scenario")]
    assert len(shifted) == 6
    assert all(np.abs(dose.dose_gy - doses[""].dose_gy).max() > 1.0 for dose in shifted)


def test_every_file_refers_to_the_others(planned: Path) -> None:
    files = [dcmread(path) for path in (planned / "all").glob("*.dcm")]
    by_uid = {str(d.SOPInstanceUID): d for d in files}
    assert len(by_uid) == len(files)
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "PatientName"):
        assert len({str(d.get(keyword)) for d in files}) == 1, keyword
    (plan,) = (d for d in files if d.Modality == "RTPLAN")
    structures = by_uid[plan.ReferencedStructureSetSequence[0].ReferencedSOPInstanceUID]
    assert structures.Modality == "RTSTRUCT"
    target = plan.DoseReferenceSequence[0].ReferencedROINumber
    assert {roi.ROINumber: roi.ROIName for roi in structures.StructureSetROISequence}[target] == "Target"
    n_dose = 0
    for dose in (d for d in files if d.Modality == "RTDOSE"):
        n_dose += 1
        assert dose.ReferencedRTPlanSequence[0].ReferencedSOPInstanceUID == plan.SOPInstanceUID
    assert n_dose == 10
    assert plan.ApprovalStatus == structures.ApprovalStatus == "UNAPPROVED"
    assert not any(element.tag.is_private for d in files for element in d.iterall())


def test_import_lists_plan_and_doses_and_a_study_takes_its_beams(planned: Path) -> None:
    nightbeam = [sys.executable, "-m", "flows.cli"]
    store = str(planned / "second")
    done = run([*nightbeam, "import", str(planned / "all"), "--store", store, "--name", "again"])
    assert done.returncode == 0, done.stderr
    assert "RT Plan 'RESEARCH ONLY': 3 beams (PHOTON), 10 fractions" in done.stdout
    assert done.stdout.count("RT Dose ") == 10
    text = TEXT.replace('phantom = "water-box"', 'imported = "again"')
    text = text.replace("gantry_deg = [0, 90, 200]", 'from_plan = "RESEARCH ONLY"')
    text = text.replace('hu_table = "phantom"', 'hu_table = "table.csv"')
    text = text.replace("max_evaluations = 40", "max_evaluations = 10").replace("mm = 3.0", "mm = 5.0")
    (planned / "from_plan").mkdir()
    # The phantoms' own table, written down: no patient has it by default.
    (planned / "from_plan/table.csv").write_text("hu,relative_electron_density\n-1000,0.00108\n0,1\n3000,4\n")
    study = write_study(planned / "from_plan", text)
    done = run(command("plan", study, Path(store), planned / "from_plan/out"))
    assert done.returncode == 0, done.stderr
    with np.load(planned / "out/weights.npz") as one, np.load(planned / "from_plan/out/weights.npz") as other:
        # The same beams on the same patient: only the target's contours went through six decimals.
        np.testing.assert_array_equal(one["column"], other["column"])
        np.testing.assert_array_equal(one["row"], other["row"])
        np.testing.assert_array_equal(one["beam"], other["beam"])
    # The CT came from DICOM, so the new plan refers to it and none is written again.
    assert not list((planned / "from_plan/out/dicom").glob("CT*"))
