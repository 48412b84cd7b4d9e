"""nightbeam beside pyRadPlan on the TG-119 C-shape: ``python -m benchmarks.tg119_matrix``, from the repository's root.

Makes the peer's environment where it is missing, runs both programs in turn, each in a process of its own on one
thread, and prints a table: ratios first. Figures of all runs go to ``runs/peer/comparison.json``.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from benchmarks.peer import environment
from benchmarks.tg119_nightbeam import LATERAL_CUTOFF_MM
from benchmarks.tg119_problem import read_problem

ROOT = Path(__file__).parents[1]
PEER_SCRIPT = ROOT / "benchmarks" / "peer" / "pyradplan_tg119.py"
DEFAULT_THRESHOLD = 1e-4
"""threshold_fraction of a study that does not say another (engine.spec.study)."""
PROFILE_DEPTHS_MM = (10.0, 30.0, 50.0, 100.0, 150.0)

Figures = dict[str, Any]


def run_peer(python: Path, folder: Path, with_matrix: bool, more: Sequence[str] = ()) -> Figures:
    """Run the peer's half once, with ``more`` options, and return its figures."""
    command = [str(python), str(PEER_SCRIPT), "--folder", str(folder)]
    if with_matrix:
        command += ["--matrix", str(folder / "matrix.npz")]
    command += more
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        # Its progress bars and warnings are kept from the screen as long as all goes well.
        sys.exit(f"the peer's half failed:\n{done.stderr[-3000:]}")
    figures: Figures = json.loads((folder / "pyradplan.json").read_text())
    return figures


def run_nightbeam(geometry: Path, threshold: float, cache: str, dose: Path | None) -> Figures:
    """Run nightbeam's half once in a process of its own and return its figures."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.tg119_nightbeam",
        str(geometry),
        "--threshold",
        str(threshold),
    ]
    if dose is not None:
        command += ["--dose", str(dose)]
    surroundings = {**os.environ, "NUMBA_CACHE_DIR": cache}
    done = subprocess.run(command, check=True, cwd=ROOT, env=surroundings, stdout=subprocess.PIPE)
    figures: Figures = json.loads(done.stdout)
    return figures


def least(runs: list[Figures], *path: str) -> float:
    """Return the smallest of a figure over the runs: what other processes disturb least."""
    return min(values(runs, *path))


def values(runs: list[Figures], *path: str) -> list[float]:
    """Return a figure of every run."""
    found = []
    for run in runs:
        value: Any = run
        for key in path:
            value = value[key]
        found.append(float(value))
    return found


def span(runs: list[Figures], *path: str, digits: int = 2, factor: float = 1.0) -> str:
    """Return a figure as its least, with the largest in brackets where it differs."""
    low, high = (f"{factor * value(values(runs, *path)):.{digits}f}" for value in (min, max))
    return low if low == high else f"{low} ({high})"


def compare_doses(folder: Path) -> Figures:
    """Return how the doses of unit weights agree: in the target, and along the first beam's central axis.

    Ratios are nightbeam's Gy per 1e9 photons/mm² over the peer's Gy per its own weight: that they are constant is
    all that counts.
    """
    problem = read_problem(folder / "geometry.npz")
    with np.load(folder / "nightbeam_dose.npz") as stored:
        ours_gy = stored["dose_gy"].astype(np.float64)
    matrix = sparse.load_npz(folder / "matrix.npz")
    of_beam = np.zeros((matrix.shape[1], len(problem.beams)), dtype=matrix.dtype)
    for beam, columns in enumerate(problem.peer_column):
        of_beam[columns, beam] = 1.0
    theirs_gy = (matrix @ of_beam).T.reshape(ours_gy.shape).astype(np.float64)
    ours_sum_gy, theirs_sum_gy = ours_gy.sum(axis=0), theirs_gy.sum(axis=0)
    ratio = ours_sum_gy[problem.target] / theirs_sum_gy[problem.target]
    scale = float(ours_sum_gy[problem.target].mean() / theirs_sum_gy[problem.target].mean())
    body = theirs_sum_gy > 0.0
    x_mm, y_mm, z_mm = problem.layout.grid.centres_mm_xyz
    x, _, z = problem.beams[0].isocentre_mm
    column = (slice(None), int(np.abs(x_mm - x).argmin()))
    at_z = int(np.abs(z_mm - z).argmin())
    ours_line_gy, theirs_line_gy = (dose[0, at_z][column] for dose in (ours_gy, theirs_gy))
    skin_mm = y_mm[np.flatnonzero(theirs_line_gy)[0]] - 0.5 * problem.layout.grid.spacing_mm_xyz[1]
    along = {
        f"{depth:g}": float(
            np.interp(skin_mm + depth, y_mm, ours_line_gy)
            / np.interp(skin_mm + depth, y_mm, theirs_line_gy)
            / scale
        )
        for depth in PROFILE_DEPTHS_MM
    }
    return {
        "target_mean_ratio": scale,
        "target_voxel_ratio_spread": float(ratio.std() / ratio.mean()),
        "correlation_in_body": float(np.corrcoef(ours_sum_gy[body], theirs_sum_gy[body])[0, 1]),
        "first_beam_axis_ratio_over_target_ratio_by_depth_mm": along,
    }  # fmt: skip


def ratios_table(peer: list[Figures], ours: list[Figures], thinned: list[Figures]) -> list[str]:
    """Return the comparison, ratios first: the peer's figure over nightbeam's, each the least of all runs."""
    lines = [
        "| figure | peer ÷ nightbeam | peer ÷ nightbeam at 1e-4 | peer | nightbeam | nightbeam at 1e-4 |",
        "|---|---|---|---|---|---|",
    ]

    def row(name: str, figures: Sequence[float], form: str) -> None:
        theirs, exact, thin = figures
        cells = " | ".join(f"{figure:{form}}" for figure in figures)
        lines.append(f"| {name} | **{theirs / exact:.1f}** | {theirs / thin:.1f} | {cells} |")

    def ready_s(runs: list[Figures], when: str) -> float:
        """Return the CPU seconds until nightbeam's matrix can be multiplied: rows are cut out of the tiles."""
        return least(runs, "influence_s", when, "total") + least(runs, "influence_s", "rows")

    spent_s: list[float] = []
    for when, note in (("first", "first in a process, compiled before"), ("second", "second in a process")):
        spent_s = [least(peer, "influence_s", when), *(ready_s(runs, when) for runs in (ours, thinned))]
        row(f"matrix, {note}, CPU s", spent_s, ".2f")
    entries = [
        least(peer, "matrix", "n_nonzero"),
        *(least(runs, "matrix", "n_entry") for runs in (ours, thinned)),
    ]
    n_byte = [least(runs, "matrix", "bytes") for runs in (peer, ours, thinned)]
    row("the same per entry, ns", [1e9 * s / n for s, n in zip(spent_s, entries, strict=True)], ".1f")
    row("entries, 10⁶", [1e-6 * n for n in entries], ".2f")
    row("memory of the matrix, 10⁶ bytes", [1e-6 * n for n in n_byte], ".1f")
    row("bytes per entry", [n / of for n, of in zip(n_byte, entries, strict=True)], ".2f")
    keys = ("forward_s", "adjoint_s")
    products = [[least(runs, "products", key, "least") for key in keys] for runs in (peer, ours, thinned)]
    row("D w, CPU s", [forward for forward, _ in products], ".4f")
    row("Dᵀ g, CPU s", [adjoint for _, adjoint in products], ".4f")
    row("D w + Dᵀ g, CPU s", [sum(pair) for pair in products], ".4f")
    row(
        "the same per entry, ns",
        [1e9 * sum(pair) / n for pair, n in zip(products, entries, strict=True)],
        ".2f",
    )
    row("peak memory, MiB", [least(runs, "peak_memory_mib") for runs in (peer, ours, thinned)], ".0f")
    return lines


def own_table(ours: list[Figures], thinned: list[Figures]) -> list[str]:
    """Return nightbeam's parts, and its products beside scipy's and a plain read, least (largest) of all runs."""
    lines = ["| nightbeam, CPU s: least (largest) | no threshold | threshold 1e-4 |", "|---|---|---|"]

    def row(name: str, *path: str, digits: int = 3) -> None:
        lines.append(
            f"| {name} | {span(ours, *path, digits=digits)} | {span(thinned, *path, digits=digits)} |"
        )

    for part in ("geometry", "ray tracing", "tiles", "total"):
        name = f"matrix: {part}" if part != "ray tracing" else "of geometry: ray tracing"
        row(name, "influence_s", "second", part)
    lines.append(
        f"| matrix: the very first, compiling | {ours[0]['influence_s']['first']['total']:.3f} | – |"
    )
    row("rows cut out of tiles for an optimiser", "influence_s", "rows")
    for name, key in (("D w", "forward_s"), ("Dᵀ g", "adjoint_s")):
        row(f"{name}, tiles", "products", key, "least", digits=4)
        row(
            f"{name}, {ours[0]['scipy'][key]['layout']}, same entries",
            "scipy",
            key,
            "least",
            digits=4,
        )
    row("floor: a plain read of the tiles' bytes", "products", "plain_read_s", "least", digits=4)
    for name, path in (("tiles", ("matrix", "bytes")), ("scipy", ("scipy", "bytes"))):
        lines.append(
            f"| bytes, {name} (10⁶) | {1e-6 * least(ours, *path):.1f} | {1e-6 * least(thinned, *path):.1f} |"
        )
    return lines


def scipy_ratios(runs: list[Figures]) -> str:
    """Return in one line how the tiles stand against scipy and against the floor."""
    tiles, by_scipy = (
        sum(least(runs, kind, key, "least") for key in ("forward_s", "adjoint_s"))
        for kind in ("products", "scipy")
    )
    floor = 2.0 * least(runs, "products", "plain_read_s", "least")
    memory = least(runs, "scipy", "bytes") / least(runs, "matrix", "bytes")
    return (
        f"scipy's best ÷ tiles, D w + Dᵀ g: **{by_scipy / tiles:.2f}** "
        f"(memory, one of the two layouts ÷ tiles: {memory:.1f}); tiles ÷ two plain reads: {tiles / floor:.1f}"
    )


def main() -> None:
    """Read the command line, measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "peer", help="default: runs/peer")
    parser.add_argument("--environment", type=Path, default=environment.DEFAULT_FOLDER, help="the peer's")
    parser.add_argument("--repeats", type=int, default=2, help="times that both are run, in turn; default 2")
    parser.add_argument(
        "--no-peer", action="store_true", help="nightbeam alone, on a geometry.npz from before"
    )
    given = parser.parse_args()
    folder: Path = given.folder.absolute()
    geometry = folder / "geometry.npz"
    python = None
    if not given.no_peer:
        try:
            python = environment.ensure(given.environment.absolute())
        except (OSError, subprocess.CalledProcessError) as error:
            parser.error(
                f"the peer's environment cannot be made ({error}); it needs a package index once. "
                "With --no-peer, nightbeam runs alone"
            )
    elif not geometry.exists():
        parser.error(f"--no-peer needs {geometry}, which a run with the peer leaves there")

    peer: list[Figures] = []
    ours: list[Figures] = []
    thinned: list[Figures] = []
    load = [os.getloadavg()[0]]
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as cache:
        for repeat in range(given.repeats):
            last = repeat == given.repeats - 1
            if python is not None:
                peer.append(run_peer(python, folder, with_matrix=last))
            ours.append(run_nightbeam(geometry, 0.0, cache, folder / "nightbeam_dose.npz" if last else None))
            thinned.append(run_nightbeam(geometry, DEFAULT_THRESHOLD, cache, None))
            load.append(os.getloadavg()[0])
    result: Figures = {
        "lateral_cutoff_mm": LATERAL_CUTOFF_MM,
        "load_average": load,
        "peer": peer,
        "nightbeam": ours,
        "nightbeam_default_threshold": thinned,
    }
    print(f"load average (of one minute) before and after each turn: {', '.join(f'{v:.1f}' for v in load)}\n")
    if peer:
        result["doses"] = compare_doses(folder)
        print("\n".join(ratios_table(peer, ours, thinned)), end="\n\n")
    print("\n".join(own_table(ours, thinned)), end="\n\n")
    print(f"no threshold: {scipy_ratios(ours)}\n\nthreshold 1e-4: {scipy_ratios(thinned)}\n")
    if peer:
        print(f"doses of unit weights: {json.dumps(result['doses'])}")
    (folder / "comparison.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
