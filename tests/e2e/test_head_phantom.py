"""A real set from a hospital goes through all stages."""

import json

import pytest

from tests.archives import unpack
from tests.e2e.small_study import command, run

STUDY = """\
name = "head phantom"

[case]
imported = "head"
hu_table = "table.csv"

[prescription]
target = "CTV"
dose_gy = 54.0
fractions = 27
normalise = "D95% = 98 %"

[beams]
machine = "generic-6mv"
gantry_deg = [20, 140, 260]
beamlet_mm = 10.0
margin_mm = 5.0

[dose]
engine = "photon_pencil_beam"
grid_mm = 6.0
report_grid_mm = 5.0

[optimisation]
max_evaluations = 60

[[objectives]]
structure = "CTV"
function = "squared_deviation"
dose_gy = 54.0
weight = 100.0

[[objectives]]
structure = "BODY"
excluding = ["CTV"]
function = "squared_overdose"
dose_gy = 20.0
weight = 5.0

[[goals]]
structure = "BrainStem"
goal = "Dmax <= 54 Gy"
"""
TABLE = "hu,relative_electron_density\n-1000,0.00108\n0,1.0\n3000,2.538\n"


@pytest.mark.cluster
@pytest.mark.prefect
@pytest.mark.validate
def test_the_head_phantom_is_imported_and_planned(reference_data, tmp_path):
    unpack(reference_data / "dicom" / "dcpt_head_phantom" / "DCPT_headphantom.tar.xz", tmp_path / "dicom")
    store, output = tmp_path / "store", tmp_path / "out"
    nightbeam = command("plan", tmp_path, store, output)[:3]
    imported = run([*nightbeam, "import", str(tmp_path / "dicom"), "--store", str(store), "--name", "head"])
    assert imported.returncode == 0, imported.stderr
    assert "CTV" in imported.stdout
    (tmp_path / "study.toml").write_text(STUDY)
    (tmp_path / "table.csv").write_text(TABLE)
    planned = run(command("plan", tmp_path / "study.toml", store, output))
    assert planned.returncode == 0, planned.stderr
    summary = json.loads((output / "summary.json").read_text())
    target = next(s for s in summary["volumes"] if s["name"] == "CTV")
    assert target["d95_gy"] == pytest.approx(0.98 * 54.0, rel=1e-4)
    # Three coarse beams: not a good plan, but one whose target stands out from the body.
    body = next(s for s in summary["volumes"] if s["name"] == "BODY")
    assert target["mean_gy"] > 4.0 * body["mean_gy"]
