"""The bench top's examples against EGSnrc, as the tables of docs/bench_top.md: ``python -m benchmarks.bench_top``.

Needs the folder that NIGHTBEAM_REFERENCE_DATA names; takes a minute.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flows.experiment import dose_of_experiment

F64 = npt.NDArray[np.float64]
EXAMPLES = Path(__file__).parents[1] / "examples" / "experiments"
GY_CM2_PER_UNIT = 1e-9 * 0.01
"""From Gy per 1e9 photons/mm2 to Gy per photon/cm2, which is the references' Gy cm2."""
SAMPLES = "sample_mm = [0.25, 4.0, 0.5]"
LAYERS = (
    ("water before", 14, 26),
    ("aluminium", 30, 50),
    ("lung, first 10 mm", 50, 60),
    ("lung", 60, 110),
    ("water behind", 120, 130),
    ("", 130, 160),
    ("", 160, 280),
)


def computed(name: str, folder: Path, changes: tuple[tuple[str, str], ...] = ()) -> dict[str, Any]:
    """Run an example, with some of its text changed, and return what it wrote, dose in Gy cm2."""
    text = (EXAMPLES / f"{name}.toml").read_text(encoding="utf-8")
    for old, new in changes:
        if old not in text:
            raise SystemExit(f"{name}.toml has no '{old}'")
        text = text.replace(old, new)
    file = folder / f"{name}.toml"
    file.write_text(text, encoding="utf-8")
    out = file.with_suffix(".npz")
    dose_of_experiment(file, out, folder / "store", quiet=True)
    with np.load(out) as stored:
        found = {key: stored[key] for key in stored.files}
    found["dose"] = found["dose_gy"][:, 0, :].astype(np.float64) * GY_CM2_PER_UNIT
    return found


def reference(case: str, mine: dict[str, Any]) -> tuple[F64, F64]:
    """Return a reference's dose and its standard error in the voxels of one's own grid, shape (n_z, n_x)."""
    with np.load(Path(os.environ["NIGHTBEAM_REFERENCE_DATA"]) / f"reference/egsnrc/{case}.npz") as stored:
        edges = np.round(stored["x_edges_cm"] * 10.0, 3)
        np.testing.assert_allclose(np.round(stored["z_edges_cm"] * 10.0, 3), mine["z_edges_mm"])
        first = int(np.flatnonzero(np.isclose(edges, mine["x_edges_mm"][0]))[0])
        part = slice(first, first + mine["x_edges_mm"].size - 1)
        np.testing.assert_allclose(edges[part.start : part.stop + 1], mine["x_edges_mm"])
        return tuple(stored[key][:, 1, part].astype(np.float64) for key in ("dose", "sigma"))  # type: ignore[return-value]


def ranges(
    mine: F64, theirs: F64, sigma: F64, edges_mm: F64, low_mm: float, high_mm: float
) -> tuple[float, float]:
    """Return the deviation of dose integrated over some depths, and the reference's standard error, in per cent."""
    inside = (edges_mm[:-1] >= low_mm - 1e-6) & (edges_mm[1:] <= high_mm + 1e-6)
    width = np.diff(edges_mm)[inside]
    total = float(theirs[inside] @ width)
    error = float(np.sqrt(np.square(sigma[inside] * width).sum())) / total
    return 100.0 * (float(mine[inside] @ width) / total - 1.0), 100.0 * error


def main() -> None:
    """Print the tables."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        water = computed("water_10x10", folder)
        dose, sigma = reference("photon_6MV_10x10", water)
        z_mm, x_mm = water["z_edges_mm"], water["x_edges_mm"]
        centre = int(np.flatnonzero(x_mm < 0.0)[-1])
        print("| depth / mm | deviation / % | statistics / % |\n| --- | --- | --- |")
        for low, high in (
            (0, 2), (2, 6), (6, 10), (10, 14), (14, 16), (16, 24), (40, 60), (90, 110), (140, 160),
            (190, 210), (240, 260), (280, 300),
        ):  # fmt: skip
            off, error = ranges(water["dose"][:, centre], dose[:, centre], sigma[:, centre], z_mm, low, high)
            print(f"| {low}-{high} | {off:+.1f} | {error:.1f} |")
        depths = ((40, 60), (90, 110), (190, 210))
        print(
            "\n| x / mm |"
            + "".join(f" {low}-{high} mm deep |" for low, high in depths)
            + "\n|"
            + " --- |" * 4
        )
        for at in (13.75, 31.25, 41.25, 46.25, 48.75, 51.25, 53.75, 58.75, 68.75, 78.75, 95.0, 125.0):
            row = f"| {x_mm[x_mm < at][-1]:g}-{x_mm[x_mm > at][0]:g} |"
            for low, high in depths:
                inside = (z_mm[:-1] >= low) & (z_mm[1:] <= high)
                both = [int(np.searchsorted(x_mm, side * at)) - 1 for side in (-1.0, 1.0)]
                axis = dose[inside, centre].sum()
                mine = water["dose"][inside][:, both].sum() / 2.0
                theirs = dose[inside][:, both].sum() / 2.0
                error = float(np.sqrt(np.square(sigma[inside][:, both]).sum())) / 2.0
                off, error, share = (100.0 * value / axis for value in (mine - theirs, error, theirs))
                row += f" {off:+.1f} ± {error:.1f} of {share:.1f} |"
            print(row)
        slab = computed("lung_slab", folder)
        dose, sigma = reference("slab_6MV_1.5x1.5", slab)
        centre = int(np.flatnonzero(slab["x_edges_mm"] < 0.0)[-1])
        print("\n| layer | depth / mm | deviation / % | statistics / % |\n| --- | --- | --- | --- |")
        for layer, low, high in LAYERS:
            off, error = ranges(
                slab["dose"][:, centre], dose[:, centre], sigma[:, centre], slab["z_edges_mm"], low, high
            )
            print(f"| {layer} | {low}-{high} | {off:+.1f} | {error:.1f} |")
        print(
            "\n| sample_mm | water_10x10: 99 % of voxels, all | lung_slab: 99 % of voxels, all |\n| --- | --- | --- |"
        )
        fine = [
            computed("water_10x10", folder, ((SAMPLES, "sample_mm = [0.125, 4.0, 0.25]"),))["dose"],
            computed("lung_slab", folder, (("sample_mm = 0.5", "sample_mm = 0.25"),))["dose"],
        ]
        for sample in ("[0.25, 4.0, 0.5]", "1.0", "2.0", "1000.0"):
            coarse = [
                computed("water_10x10", folder, ((SAMPLES, f"sample_mm = {sample}"),))["dose"],
                computed("lung_slab", folder, (("sample_mm = 0.5", f"sample_mm = {sample}"),))["dose"],
            ]
            off = [
                np.quantile(100.0 * np.abs(c - f)[f > 0.1 * f.max()] / f.max(), (0.99, 1.0))
                for c, f in zip(coarse, fine, strict=True)
            ]
            print(f"| {sample} | " + " | ".join(f"{most:.2f}, {all_:.2f}" for most, all_ in off) + " |")


if __name__ == "__main__":
    main()
