"""nightbeam's half of the TG-119 benchmark: one process, one thread, CPU seconds. Started by tg119_matrix.py."""

import os

# Read by the libraries while they are imported.
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"))

import argparse
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from scipy import sparse

from benchmarks.tg119_problem import Problem, read_problem
from engine.dose.photon_pencil_beam import PhotonPencilBeam
from engine.geometry.bricks import MINI_SIZE
from engine.geometry.frames import source_mm
from engine.geometry.raytrace import radiological_depth_mm
from engine.influence.rows import RowGroup, rows_of_columns, share_out
from engine.model.influence import TileColumn
from engine.model.machine import MACHINES

N_PRODUCT = 15
N_GROUP = 16
"""Reduction groups, as in flows.solving."""
LATERAL_CUTOFF_MM = 50.0
DOSE_FRACTIONS = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4)
"""As in the peer's half: entries of at least so large a part of their beamlet's maximum are counted."""

Result = TypeVar("Result")


def timed(work: Callable[[], Result]) -> tuple[Result, float]:
    """Return what ``work`` returns, and the CPU seconds it took."""
    begin_s = time.process_time()
    result = work()
    return result, time.process_time() - begin_s


def spread(work: Callable[[], object]) -> dict[str, float]:
    """Return least and median CPU seconds of repeated work."""
    seconds = [timed(work)[1] for _ in range(N_PRODUCT)]
    return {"least": min(seconds), "median": float(np.median(seconds))}


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


def coordinates(groups: list[RowGroup]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return row, beamlet and Gy per weight of every entry that is not zero."""
    rows, beamlets, doses = [], [], []
    for group in groups:
        n_mini = np.diff(group.segment_begin)
        n_segment = np.diff(group.brick_begin)
        brick = np.repeat(np.repeat(np.arange(group.n_brick), n_segment), n_mini) + group.first_brick
        row = (brick * group.brick_size + group.mini * 8)[:, None] + np.arange(8)
        kept = group.value > 0
        rows.append(row[kept].astype(np.int32))
        beamlet = np.repeat(group.beamlet, n_mini)
        beamlets.append(np.broadcast_to(beamlet[:, None], kept.shape)[kept])
        dose = group.value * np.repeat(group.scale, n_mini)[:, None]
        doses.append(dose[kept].astype(np.float32))
    return np.concatenate(rows), np.concatenate(beamlets), np.concatenate(doses)


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

    arrays = [
        np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        for group in groups
        for array in (group.beamlet, group.scale, group.segment_begin, group.mini, group.value)
    ]
    words = [array[: array.size // 8 * 8].view(np.uint64) for array in arrays]
    timed(forward), timed(adjoint)
    return {
        "forward_s": spread(forward),
        "adjoint_s": spread(adjoint),
        "plain_read_s": spread(lambda: [int(word.sum()) for word in words]),
        "bytes": sum(group.n_bytes for group in groups),
    }


def scipy_products(problem: Problem, groups: list[RowGroup]) -> dict[str, Any]:
    """Return the CPU seconds of both products of the same matrix in scipy's best layout for each.

    Values and vectors are float32 and indices int32: with vectors of float64, scipy would first copy the values.
    """
    row, beamlet, dose = coordinates(groups)
    triplets = sparse.coo_array(
        (dose, (row, beamlet)), shape=(problem.layout.n_row, problem.n_beamlet), dtype=np.float32
    )
    random = np.random.default_rng(0)
    weight = random.random(problem.n_beamlet).astype(np.float32)
    gradient = random.random(problem.layout.n_row).astype(np.float32)
    by_row = triplets.tocsr()
    forward_s = spread(lambda matrix=by_row: matrix @ weight)
    dose_gy = by_row @ weight
    exact = np.concatenate([group.dose(weight.astype(np.float64)) for group in groups])
    begin = groups[0].first_brick * problem.layout.brick_size
    difference = float(np.abs(exact - dose_gy[begin : begin + exact.size]).max() / exact.max())
    del by_row
    by_column = triplets.tocsc()
    del triplets
    largest = by_column.max(axis=0).toarray().ravel()
    relative = by_column.data / np.repeat(largest, np.diff(by_column.indptr))
    transposed = by_column.T
    return {
        "n_nonzero": int(by_column.nnz),
        "bytes": by_column.data.nbytes + by_column.indices.nbytes + by_column.indptr.nbytes,
        "types": {"data": str(by_column.data.dtype), "indices": str(by_column.indices.dtype)},
        "forward_s": forward_s,
        "adjoint_s": spread(lambda: transposed @ gradient),
        "largest_difference_to_tiles_of_maximum": difference,
        "n_at_least_fraction_of_beamlet_maximum": {
            f"{fraction:g}": int(np.count_nonzero(relative >= fraction)) for fraction in DOSE_FRACTIONS
        },
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
    figures["peak_memory_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
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
