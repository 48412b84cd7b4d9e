"""Products of a matrix of 2 GB and more: ``python -m benchmarks.large_matrix``, from the repository's root.

The TG-119 C-shape example with finer grid and beamlets, nominal scenario, through the stages that a planning job goes
through: tiles into a store, rows out of it. Then both products by nightbeam, by scipy in its best layout for each, and
in the peer's layout, on one thread, beside a plain read of the tiles' bytes. One layout is in memory at a time.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.in_process import (
    NO_SCENARIOS,
    TasksHere,
    changed,
    influence_by,
    new_run,
    placed,
    warm_up,
)
from benchmarks.measuring import (
    in_turn,
    least_and_median,
    machine,
    peak_memory_mib,
    plain_reads,
    timed,
)
from benchmarks.scipy_layouts import PEER, SCIPY, best_of, measure_layouts
from engine.geometry.bricks import MINI_SIZE
from engine.influence.rows import RowGroup, share_out
from engine.spec.study import Study, load_study
from flows.solving import N_GROUP
from flows.work.rows import StoredTiles

ROOT = Path(__file__).parents[1]
LARGE_BYTES = 2e9

Figures = dict[str, Any]


def measure_tiles(groups: Sequence[RowGroup], n_beamlet: int, n_repeat: int) -> Figures:
    """Return the CPU seconds of both products through the tiles, and of plain reads of the same bytes."""
    random = np.random.default_rng(0)
    weight, result = random.random(n_beamlet), np.zeros(n_beamlet)
    gradients = [random.random(group.n_row) for group in groups]

    def forward() -> None:
        for group in groups:
            group.dose(weight)

    def adjoint() -> None:
        for group, gradient in zip(groups, gradients, strict=True):
            group.add_adjoint(gradient, result)

    seconds = in_turn({"forward": forward, "adjoint": adjoint, **plain_reads(groups)}, n_repeat)
    return {name: least_and_median(values) for name, values in seconds.items()}


def measure(study: Study, folder: Path, n_repeat: int, temporary: Path | None, with_scipy: bool) -> Figures:
    """Return all figures of one size."""
    warm_up(study, folder)
    with new_run(temporary) as run:
        _, placement = placed(run, study, folder)
        layout, n_beamlet = placement.optimiser.layout, placement.first_beamlet[-1]
        tasks = TasksHere()
        influence = influence_by(run, study, placement, tasks)
        disk_bytes = sum(path.stat().st_size for path in (run.store.folder / "influence").rglob("*.zip"))
        bricks = share_out(influence.mini_blocks_per_brick(layout.n_brick), N_GROUP)
        stored = StoredTiles(tuple((begin, record.digest) for begin, record in influence.blocks))
        groups, load_s = timed(lambda: stored.rows(run.store, layout, bricks))
    n_place = MINI_SIZE * sum(group.mini.size for group in groups)
    n_nonzero = sum(int(np.count_nonzero(group.value)) for group in groups)
    figures: Figures = {
        "machine": machine(),
        "grid_mm": study.dose.grid_mm,
        "beamlet_mm": study.beams.beamlet_mm,
        "lateral_cutoff_mm": study.dose.lateral_cutoff_mm,
        "threshold_fraction": study.dose.threshold_fraction,
        "shape_zyx": list(layout.grid.shape_zyx),
        "n_row": layout.n_row,
        "n_beamlet": n_beamlet,
        "n_entry": influence.n_entry,
        "n_nonzero": n_nonzero,
        "n_place": n_place,
        "bytes": sum(group.n_bytes for group in groups),
        "disk_bytes": disk_bytes,
        "dose_cpu_s": sum(tasks.cpu_s.values()),
        "load_cpu_s": load_s,
        "tiles": measure_tiles(groups, n_beamlet, n_repeat),
        "peak_memory_mib": peak_memory_mib(),
    }
    if with_scipy:
        figures["layouts"] = measure_layouts(groups, layout.n_row, n_beamlet, (*SCIPY, PEER), n_repeat)
        figures["peak_memory_with_scipy_mib"] = peak_memory_mib()
    return figures


def tables(figures: Figures) -> str:
    """Return the figures as markdown."""
    n, tiles = figures["n_entry"], figures["tiles"]
    nz, ny, nx = figures["shape_zyx"]
    layouts = {layout["name"]: layout for layout in figures.get("layouts", [])}
    read_name = min(
        (name for name in tiles if name.startswith("plain")), key=lambda name: tiles[name]["least"]
    )
    read_s = tiles[read_name]["least"]
    lines = [
        f"{figures['machine']}",
        "",
        f"9 beams, {figures['n_beamlet']} beamlets of {figures['beamlet_mm']:g} mm, grid of {nx}×{ny}×{nz} voxels of "
        f"{figures['grid_mm']:g} mm, cut-off {figures['lateral_cutoff_mm']:g} mm, threshold "
        f"{figures['threshold_fraction']:g}.",
        "",
        "| matrix | |",
        "|---|---|",
        f"| non-zeros (above the threshold), 10⁶ | {n / 1e6:.1f} |",
        f"| of 10⁶ values in mini-blocks | {figures['n_place'] / 1e6:.1f} (padding {1 - n / figures['n_place']:.1%}) |",
        f"| bytes in memory, 10⁹ | {figures['bytes'] / 1e9:.2f} |",
        f"| bytes in memory per non-zero | **{figures['bytes'] / n:.2f}** |",
        f"| bytes on disk per non-zero | **{figures['disk_bytes'] / n:.2f}** |",
        f"| dose stage (tiles, compressed and stored), CPU s | {figures['dose_cpu_s']:.1f} |",
        f"| loading the rows from the store, CPU s | {figures['load_cpu_s']:.1f} |",
        f"| peak memory of the process until here, MiB | {figures['peak_memory_mib']:.0f} |",
        "",
        "| CPU s: least (median) | bytes, 10⁹ | D w | Dᵀ g | sum | ns per non-zero |",
        "|---|---|---|---|---|---|",
    ]

    def row(name: str, n_byte: float, n_of: int, forward: Figures, adjoint: Figures) -> float:
        total = forward["least"] + adjoint["least"]
        cells = " | ".join(f"{part['least']:.3f} ({part['median']:.3f})" for part in (forward, adjoint))
        lines.append(f"| {name} | {n_byte / 1e9:.2f} | {cells} | {total:.3f} | {1e9 * total / n_of:.2f} |")
        return total / n_of

    ours = row("tiles", figures["bytes"], n, tiles["forward"], tiles["adjoint"])
    per_nonzero: dict[str, float] = {}
    for name, layout in layouts.items():
        per_nonzero[name] = row(
            name, layout["bytes"], layout["n_nonzero"], layout["forward_s"], layout["adjoint_s"]
        )
    for name in tiles:
        if name.startswith("plain"):
            row(f"{name}, once for each product", figures["bytes"], n, tiles[name], tiles[name])
    lines += ["", f"- tiles ÷ floor (two times the {read_name}): **{ours * n / (2.0 * read_s):.2f}**"]
    for product in ("forward", "adjoint"):
        lines.append(f"  - {product} alone: {tiles[product]['least'] / read_s:.2f}")
    if all(layout.name in layouts for layout in SCIPY):
        best = best_of(figures["layouts"])
        total = sum(layout[key]["least"] / layout["n_nonzero"] for key, layout in best.items())
        names = " and ".join(f"{layout['name']} for {key[:-2]}" for key, layout in best.items())
        lines.append(f"- scipy's best ({names}) ÷ tiles, per non-zero: **{total / ours:.2f}**")
    if PEER.name in per_nonzero:
        lines.append(f"- peer's layout ÷ tiles, per non-zero: **{per_nonzero[PEER.name] / ours:.2f}**")
    if layouts:
        worst = max(layout["largest_difference_to_tiles_of_maximum"] for layout in layouts.values())
        lines.append(f"- largest difference of a product to the tiles', of its maximum: {worst:.1e}")
        lines.append(
            f"- peak memory of the process with scipy: {figures['peak_memory_with_scipy_mib']:.0f} MiB"
        )
    if figures["bytes"] < LARGE_BYTES:
        lines.append(f"- smaller than {LARGE_BYTES / 1e9:g} GB: not the benchmark, only a try of it")
    return "\n".join(lines)


def main() -> None:
    """Read the command line, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--study", type=Path, default=ROOT / "examples" / "tg119_cshape.toml")
    parser.add_argument("--grid", type=float, default=2.5, metavar="MM", help="voxel edge; default 2.5")
    parser.add_argument("--beamlet", type=float, default=3.0, metavar="MM", help="beamlet edge; default 3")
    parser.add_argument("--threshold", type=float, default=1e-4, help="threshold_fraction; default 1e-4")
    parser.add_argument("--repeats", type=int, default=7, help="of every product; default 7")
    parser.add_argument("--no-scipy", action="store_true", help="the tiles and the plain read alone")
    parser.add_argument("--temporary", type=Path, help="folder for the store; default: the system's")
    parser.add_argument("--json", type=Path, help="file for all figures")
    given = parser.parse_args()
    study = changed(
        load_study(given.study),
        dose={"grid_mm": given.grid, "threshold_fraction": given.threshold},
        beams={"beamlet_mm": given.beamlet},
        scenarios=NO_SCENARIOS,
        optimisation={"robust": "nominal"},
    )
    figures = measure(study, given.study.parent, given.repeats, given.temporary, not given.no_scipy)
    print(tables(figures))
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
