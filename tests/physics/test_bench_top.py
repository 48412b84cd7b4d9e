"""The bench top's examples, as anybody would run them, against Monte Carlo that had no part in making the kernel."""

import json
from pathlib import Path

import numpy as np
import pytest

from flows.experiment import dose_of_experiment

EXAMPLES = Path(__file__).parents[2] / "examples" / "experiments"
GY_CM2_PER_UNIT = 1e-9 * 0.01
"""From Gy per 1e9 photons/mm2 to Gy per photon/cm2."""


def test_water_example_agrees_with_egsnrc(reference_data: Path, tmp_path: Path) -> None:
    text = (EXAMPLES / "water_10x10.toml").read_text(encoding="utf-8")
    asked = tmp_path / "water.toml"
    # The example is finer than a test of the axis needs.
    asked.write_text(text.replace("sample_mm = [0.25, 4.0, 0.5]", "sample_mm = [5, 10, 1]"), encoding="utf-8")
    out = tmp_path / "water.npz"
    dose_of_experiment(asked, out, tmp_path / "store", quiet=True)
    with (
        np.load(out) as mine,
        np.load(reference_data / "reference/egsnrc/photon_6MV_10x10.npz") as theirs,
    ):
        assert json.loads(str(theirs["meta"]))["unit"] == "Gy cm2"
        z_mm = mine["z_edges_mm"]
        assert z_mm == pytest.approx(theirs["z_edges_cm"] * 10.0, abs=1e-3)
        axis = int(np.flatnonzero(mine["x_edges_mm"] < 0.0)[-1])
        ratio = mine["dose_gy"][:, 0, axis] * GY_CM2_PER_UNIT / theirs["dose"][:, 1, axis]
        for low_mm, high_mm in ((16, 24), (40, 60), (90, 110), (190, 210)):
            near = (z_mm[:-1] >= low_mm) & (z_mm[1:] <= high_mm)
            # Statistics 0.3 %; found are +0.1 to +0.6 %: docs/bench_top.md.
            assert ratio[near].mean() == pytest.approx(1.0, abs=0.015)
