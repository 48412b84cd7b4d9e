"""The command `nightbeam dose`: its file, its refusals, what it writes."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from flows.cli import main

GOOD = """\
name = "small"

[phantom]
material = "water"
low_mm = [-50, -50, 0]
high_mm = [50, 50, 100]
voxel_mm = [100, 100, 10]

[[phantom.inserts]]
shape = "slab"
axis = "z"
from_mm = 30
to_mm = 50
material = "lung"
density_g_cm3 = 0.26

[materials.my-plastic]
density_g_cm3 = 1.1
composition = { C = 0.9, H = 0.1 }

[beam]
particle = "photon"
spectrum = "mohan_6mv"
source = "point"
isocentre_mm = [0, 0, 0]
direction = [0, 0, 1]
ssd_mm = 1000
field_mm = [40, 40]
field_at = "surface"
fluence = "flat"

[engine]
name = "photon_pencil_beam"

[score]
x_mm = [-5, 5]
y_mm = [-5, 5]
z_mm = { start_mm = 0, stop_mm = 100, step_mm = 10 }
unit = "per_fluence"
sample_mm = 5
"""
CASE = '[case]\nimported = "nobody"\nhu_table = "table.csv"'
PHANTOM = GOOD[GOOD.index("[phantom]") : GOOD.index("[materials")]
ON_CASE = GOOD.replace(PHANTOM, CASE + "\n\n").replace("ssd_mm", "sad_mm").replace('"surface"', '"isocentre"')
ON_CASE = ON_CASE.replace("direction = [0, 0, 1]", "gantry_deg = 0")

# What is changed into what, the key that the message names (with the line it stands on), and what it says.
BROKEN = {
    "not TOML": ("[beam]", "[beam", None, "not valid TOML"),
    "unknown key": ("ssd_mm =", "sdd_mm = 1\nssd_mm =", "sdd_mm", "nightbeam dose --keys"),
    "unknown table": ("[engine]", "[motor]\nname = 'x'\n[engine]", "[motor]", "there is no such key"),
    "no engine": ('[engine]\nname = "photon_pencil_beam"\n', "", None, "engine: this key is needed"),
    "unknown engine": ('"photon_pencil_beam"', '"egs"', "name = 'egs'", "photon_pencil_beam"),
    "no geometry": (PHANTOM, "", None, "exactly one of [phantom] and [case]"),
    "two geometries": ("[materials", f"{CASE}\n[materials", None, "exactly one of [phantom] and [case]"),
    "text for a number": ("ssd_mm = 1000", "ssd_mm = '1 m'", "ssd_mm", "valid number"),
    "infinite": ("ssd_mm = 1000", "ssd_mm = inf", "ssd_mm", ""),
    "unknown material": ('material = "lung"', 'material = "lungs"', "material = 'lungs'", "water, air"),
    "material of a phantom": (
        'material = "water"',
        'material = "ice"',
        "material = 'ice'",
        "there is no material",
    ),
    "too dense": ("density_g_cm3 = 0.26", "density_g_cm3 = 260", "density_g_cm3 = 260", "not kg/m³"),
    "unknown element": ("C = 0.9", "Xx = 0.9", "[materials.my-plastic]", "no element"),
    "incomplete composition": ("H = 0.1 }", "H = 0.2 }", "[materials.my-plastic]", "sums to 1.1"),
    "name taken": ("[materials.my-plastic]", "[materials.water]", "[materials.water]", "this name already"),
    "unknown shape": (
        'shape = "slab"',
        'shape = "cone"',
        "[[phantom.inserts]]",
        "slab, box, sphere, cylinder",
    ),
    "no shape": ('shape = "slab"\n', "", "[[phantom.inserts]]", "the key 'shape' is needed"),
    "slab backwards": ("from_mm = 30", "from_mm = 60", "[[phantom.inserts]]", "not below to_mm"),
    "slab outside": (
        "from_mm = 30\nto_mm = 50",
        "from_mm = 130\nto_mm = 150",
        "[[phantom.inserts]]",
        "outside",
    ),
    "slab inside a voxel": ("from_mm = 30", "from_mm = 33", "[[phantom.inserts]]", "inside a voxel"),
    "phantom inside a voxel": (
        "high_mm = [50, 50, 100]",
        "high_mm = [50, 50, 95]",
        "voxel_mm",
        "inside a voxel",
    ),
    "box inside out": ("low_mm = [-50", "low_mm = [500", "[phantom]", "not below high_mm"),
    "no voxels": ("voxel_mm = [100, 100, 10]", "voxel_mm = 0.0", "[phantom]", "must be positive"),
    "too many voxels": ("voxel_mm = [100, 100, 10]", "voxel_mm = 0.1", "voxel_mm", "too many"),
    "electrons": ('"photon"', '"electron"', "particle", "not electrons"),
    "unknown particle": ('"photon"', '"muon"', "particle", "'photon', 'electron' or 'proton'"),
    "one energy": ('spectrum = "mohan_6mv"', "energy_mev = 6", "energy_mev", "kernel_calculation"),
    "other spectrum": ('"mohan_6mv"', '"mohan_15mv"', "spectrum", "kernel_calculation"),
    "spectrum and energy": ("source =", "energy_mev = 6\nsource =", "[beam]", "exactly one of"),
    "unknown machine": ('spectrum = "mohan_6mv"', 'machine = "x"', "machine = 'x'", "generic-6mv"),
    "parallel": ('"point"', '"parallel"', "[beam]", "no sad_mm or ssd_mm"),
    "parallel, refused": ('"point"', '"parallel"#', "source", "large distance"),
    "two distances": ("ssd_mm =", "sad_mm = 1000\nssd_mm =", "[beam]", "exactly one of sad_mm and ssd_mm"),
    "too near": ("ssd_mm = 1000", "ssd_mm = 100", "ssd_mm", "move the source away"),
    "points nowhere": ("[0, 0, 1]", "[0, 0, 0]", "[beam]", "points nowhere"),
    "misses": ("isocentre_mm = [0, 0, 0]", "isocentre_mm = [90, 0, 0]", "isocentre_mm", "misses"),
    "field without area": ("[40, 40]", "[40, 0]", "[beam]", "field_mm must be positive"),
    "field of three edges": ("[40, 40]", "[40, 40, 40]", "field_mm", ""),
    "field too wide": ("[40, 40]", "[900, 900]", "field_mm", "take a smaller field"),
    "spot without collimator": ("source =", "source_sigma_mm = 1.0\nsource =", "[beam]", "go together"),
    "edges fall": ("x_mm = [-5, 5]", "x_mm = [5, -5]", "[score]", "x_mm: every edge"),
    "one edge": ("x_mm = [-5, 5]", "x_mm = [5]", "[score]", "x_mm has 1 edges"),
    "broken steps": ("step_mm = 10", "step_mm = 7", "z_mm", "whole number"),
    "scored beside": ("x_mm = [-5, 5]", "x_mm = [100, 110]", "[score]", "no voxel touches"),
    "no unit": ('unit = "per_fluence"\n', "", "[score]", "needed but absent"),
    "MU of no machine": ('"per_fluence"', '"per_mu"', None, "beam.machine"),
    "no samples": ("sample_mm = 5", "sample_mm = 0", "[score]", "sample_mm must be positive"),
}


def run(folder, text, *options):
    path = folder / "asked.toml"
    path.write_text(text, encoding="utf-8")
    out = folder / "dose.npz"
    return CliRunner().invoke(
        main, ["dose", str(path), "--out", str(out), "--store", str(folder / "store"), *options]
    ), out


@pytest.mark.parametrize(("old", "new", "key", "says"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_told_in_one_message_with_the_line(tmp_path, old, new, key, says):
    assert old in GOOD
    new = new.replace("'", '"') if key and "'" in new and "1 m" not in new else new
    text = GOOD.replace(old, new, 1)
    if new.endswith("#"):  # parallel without a distance: good to the parser, refused by the engine
        text = text.replace("ssd_mm = 1000\n", "")
    done, out = run(tmp_path, text)
    assert done.exit_code == 2, done.output
    assert isinstance(done.exception, SystemExit)
    assert "Traceback" not in done.output
    assert says in done.stderr
    assert "asked.toml" in done.stderr
    if key is not None:
        lines = text.splitlines()
        told = [lines[int(number) - 1] for number in re.findall(r"line (\d+)", done.stderr)]
        assert any(line.startswith(key.replace("'", '"')) for line in told), (done.stderr, told)
    assert not out.exists()
    assert not [left for left in tmp_path.iterdir() if left.name.startswith(".dose")]


def test_a_good_file_is_computed_and_read_by_numpy_alone(tmp_path):
    done, out = run(tmp_path, GOOD)
    assert done.exit_code == 0, done.output
    assert "written to" in done.output
    with np.load(out, allow_pickle=False) as found:
        assert found["dose_gy"].shape == found["inside"].shape == (10, 1, 1)
        assert found["dose_gy"].min() > 0.1
        assert found["inside"] == pytest.approx(1.0)
        assert found["z_edges_mm"] == pytest.approx(np.arange(0.0, 101.0, 10.0))
        meta = json.loads(str(found["meta"]))
    assert "photons/mm2" in meta["unit"]
    assert meta["engine"]["name"] == "photon_pencil_beam"
    assert meta["experiment"]["beam"]["field_mm"] == [40.0, 40.0]
    assert meta["materials"]["lung"]["composition"]["H"] == 0.103
    assert meta["provenance"]["made_from"]["code"]


def test_quiet_prints_nothing_and_the_same_file_gives_the_same_dose(tmp_path):
    first, out = run(tmp_path, GOOD, "--quiet")
    before = np.load(out)["dose_gy"]
    again, out = run(tmp_path, GOOD, "--quiet")
    assert first.output == again.output == ""
    assert np.array_equal(before, np.load(out)["dose_gy"])


def test_a_beam_on_a_case_is_placed_by_its_isocentre(tmp_path):
    (tmp_path / "table.csv").write_text("hu,relative_electron_density\n-1000,0.001\n0,1\n")
    done, _ = run(tmp_path, ON_CASE)
    assert done.exit_code == 2
    assert re.search(r"line \d+: case\.imported: the store has no case 'nobody'", done.stderr)
    done, _ = run(tmp_path, ON_CASE.replace("sad_mm", "ssd_mm"))
    assert "placed by gantry_deg" in done.stderr
    done, _ = run(tmp_path, ON_CASE.replace("table.csv", "none.csv"))
    assert re.search(r"line \d+: case\.hu_table: HU table 'none\.csv'", done.stderr)
    done, _ = run(tmp_path, ON_CASE.replace("table.csv", "phantom"))
    assert re.search(r"line \d+: case\.hu_table: 'phantom' is no scanner's table", done.stderr)


def test_keys_are_listed():
    done = CliRunner().invoke(main, ["dose", "--keys"])
    assert done.exit_code == 0
    for word in ("[phantom]", "[[phantom.inserts]]", "[beam]", "ssd_mm", "[score]", "sample_mm", "cylinder"):
        assert word in done.output


def test_nothing_asked_is_a_mistake():
    done = CliRunner().invoke(main, ["dose"])
    assert done.exit_code == 2
    assert "--out" in done.output


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_told_first(tmp_path: Path):
    (tmp_path / "closed").mkdir(mode=0o500)
    path = tmp_path / "asked.toml"
    path.write_text(GOOD)
    done = CliRunner().invoke(main, ["dose", str(path), "--out", str(tmp_path / "closed" / "dose.npz")])
    assert done.exit_code == 2
    assert "permission denied" in done.output
