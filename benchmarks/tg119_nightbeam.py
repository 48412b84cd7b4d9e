"""nightbeam's half of the TG-119 benchmark: one process, one thread, CPU seconds. Started by tg119_matrix.py."""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring import in_turn, least_and_median, peak_memory_mib, plain_reads, timed
from benchmarks.scipy_layouts import SCIPY, best_of, measure_layouts
from benchmarks.tg119_problem import Problem, read_problem
from engine.dose.photon_pencil_beam import PhotonPencilBeam
from engine.geometry.bricks import MINI_SIZE
from engine.geometry.frames import source_mm
from engine.geometry.raytrace import radiological_depth_mm
from engine.influence.rows import RowGroup, rows_of_columns, share_out
from engine.model.influence import TileColumn
from engine.model.machine import MACHINES
from flows.solving import N_GROUP

N_PRODUCT = 15
LATERAL_CUTOFF_MM = 50.0


def build(
    problem: Problem, engine: PhotonPencilBeam
) -> tuple[list[tuple[int, TileColumn]], dict[str, float]]:
    """Return the whole matrix, block by block, and the CPU seconds of its parts.

    ``ray tracing`` is a part of ``geometry``, done once more by itself; it is not counted twice in ``total``.
    """
    spent_s = dict.fromkeys(("geometry", "tiles", "ray tracing"), 0.0)
    columns: list[tuple[int, TileColumn]] = []
    first = 0
    for beam, beamlets in zip(problem.beams, problem.beamlets, strict=True):
        view, geometry_s = timed(
            lambda b=beam, n=beamlets: engine.view(  # type: ignore[misc]
                problem.patient, problem.layout, problem.active, b, (0.0, 0.0, 0.0), n
            )
        )
        tiles, tiles_s = timed(
            lambda v=view, b=beamlets: engine.tile_columns(v, b, range(b.n_block), 1.0)  # type: ignore[misc]
        )
        source = source_mm(beam, problem.patient.position)
        rows = (view.first_row[:, None] + np.arange(MINI_SIZE)).ravel()
        points_mm = problem.layout.centres_mm(rows[problem.active[rows]])
        spent_s["geometry"] += geometry_s
        spent_s["tiles"] += tiles_s
        spent_s["ray tracing"] += timed(
            lambda s=source, p=points_mm: radiological_depth_mm(  # type: ignore[misc]
                problem.patient.density, problem.patient.grid, s, p
            )
        )[1]
        columns += [
            (first + int(begin), tile) for begin, tile in zip(beamlets.block_begin[:-1], tiles, strict=True)
        ]
        first += beamlets.n_beamlet
    spent_s["total"] = spent_s["geometry"] + spent_s["tiles"]
    return columns, spent_s


def group_rows(problem: Problem, columns: list[tuple[int, TileColumn]]) -> list[RowGroup]:
    """Return the matrix as an optimiser's workers hold it."""
    layout = problem.layout
    work = np.zeros(layout.n_brick, dtype=np.int64)
    for _, column in columns:
        np.add.at(work, column.brick, np.diff(column.segment_begin[:: column.n_beamlet]))
    return [rows_of_columns(columns, first, n, layout.brick_size) for first, n in share_out(work, N_GROUP)]


def products(problem: Problem, groups: list[RowGroup]) -> dict[str, Any]:
    """Return the CPU seconds of both products through the tiles, and of a plain read of the same bytes."""
    random = np.random.default_rng(0)
    weight = random.random(problem.n_beamlet)
    gradient = [random.random(group.n_row) for group in groups]
    result = np.zeros(problem.n_beamlet)

    def forward() -> None:
        for group in groups:
            group.dose(weight)

    def adjoint() -> None:
        for group, part in zip(groups, gradient, strict=True):
            group.add_adjoint(part, result)

    seconds = in_turn({"forward": forward, "adjoint": adjoint, **plain_reads(groups)}, N_PRODUCT)
    figures = {name: least_and_median(values) for name, values in seconds.items()}
    reads = [figure for name, figure in figures.items() if name.startswith("plain")]
    return {
        "forward_s": figures["forward"],
        "adjoint_s": figures["adjoint"],
        "plain_read_s": min(reads, key=lambda figure: figure["least"]),
        "bytes": sum(group.n_bytes for group in groups),
    }


def scipy_products(problem: Problem, groups: list[RowGroup]) -> dict[str, Any]:
    """Return the CPU seconds of both products of the same matrix, each in scipy's faster layout for it."""
    found = measure_layouts(groups, problem.layout.n_row, problem.n_beamlet, SCIPY, N_PRODUCT)
    best = best_of(found)
    return {
        "layouts": found,
        "bytes": min(layout["bytes"] for layout in found),
        **{key: {**layout[key], "layout": layout["name"]} for key, layout in best.items()},
    }


def measure(problem: Problem, threshold_fraction: float, dose_file: Path | None) -> dict[str, Any]:
    """Return all figures for one dose threshold; writes the dose of unit weights, beam by beam, to ``dose_file``."""
    engine = PhotonPencilBeam(MACHINES["generic-6mv"], LATERAL_CUTOFF_MM, threshold_fraction)
    first_s = build(problem, engine)[1]
    columns, second_s = build(problem, engine)
    groups, rows_s = timed(lambda tiles=columns: group_rows(problem, tiles))
    figures = {
        "influence_s": {"first": first_s, "second": second_s, "rows": rows_s},
        "matrix": {
            "n_beamlet": problem.n_beamlet,
            "n_entry": sum(column.n_entry for _, column in columns),
            "n_place": 8 * sum(column.mini.size for _, column in columns),
            "bytes_of_tiles": sum(column.n_bytes for _, column in columns),
            "bytes": sum(group.n_bytes for group in groups),
        },
    }
    del columns
    figures["products"] = products(problem, groups)
    figures["peak_memory_mib"] = peak_memory_mib()
    figures["scipy"] = scipy_products(problem, groups)
    if dose_file is not None:
        np.savez(dose_file, dose_gy=unit_dose(problem, groups))
    return figures


def unit_dose(problem: Problem, groups: list[RowGroup]) -> np.ndarray:
    """Return the dose of every beam with all weights one, shape (n_beam, nz, ny, nx)."""
    doses, first = [], 0
    for beamlets in problem.beamlets:
        weight = np.zeros(problem.n_beamlet)
        weight[first : first + beamlets.n_beamlet] = 1.0
        rows = np.zeros(problem.layout.n_row)
        for group in groups:
            begin = group.first_brick * problem.layout.brick_size
            rows[begin : begin + group.n_row] = group.dose(weight)
        doses.append(problem.layout.to_volume(rows))
        first += beamlets.n_beamlet
    return np.stack(doses)


def main() -> None:
    """Read the command line, measure, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description="nightbeam on the peer's TG-119 C-shape")
    parser.add_argument("geometry", type=Path, help="geometry.npz of the peer's half")
    parser.add_argument("--threshold", type=float, default=0.0, help="threshold_fraction of the engine")
    parser.add_argument("--dose", type=Path, help="file for the dose of unit weights (npz)")
    given = parser.parse_args()
    figures = measure(read_problem(given.geometry), given.threshold, given.dose)
    figures["threshold_fraction"] = given.threshold
    figures["lateral_cutoff_mm"] = LATERAL_CUTOFF_MM
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
