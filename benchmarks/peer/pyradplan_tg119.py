"""Measures pyRadPlan on the TG-119 C-shape, and writes the geometry it used for nightbeam to take up.

It runs in the peer's own environment (environment.py), on one thread, and imports nothing of nightbeam. The
fields of both files that it writes, and what the peer's cut-offs mean, are in ../README.md. Times are CPU
seconds of the process and its children.
"""

import argparse
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

# Read by the libraries while they are imported. pyRadPlan takes a graphics card where it finds one.
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
os.environ.update({"NUMBA_NUM_THREADS": "1", "PYRADPLAN_XP_PREFER_GPU": "false"})

import numpy as np
import numpy.typing as npt
import pyRadPlan  # type: ignore[import-not-found]
import SimpleITK as sitk  # type: ignore[import-not-found]  # noqa: N813
from pyRadPlan.ct import default_hlut  # type: ignore[import-not-found]
from pyRadPlan.dose.engines import PhotonPencilBeamSVDEngine  # type: ignore[import-not-found]
from pyRadPlan.quantities import Dose  # type: ignore[import-not-found]
from scipy import sparse

GANTRY_DEG = tuple(range(0, 360, 40))
BEAMLET_MM = 5.0
DOSE_GRID_MM = 5.0
TARGET = "OuterTarget"
N_PRODUCT = 15
N_ITERATION = 500
DOSE_FRACTIONS = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4)
"""Thresholds, relative to a beamlet's largest dose, at which the entries of its column are counted."""

Result = TypeVar("Result")
F64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]


def cpu_s() -> float:
    """Return the CPU time of this process and of its finished children."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def timed(work: Callable[[], Result]) -> tuple[Result, float]:
    """Return what ``work`` returns, and the CPU seconds it took."""
    begin_s = cpu_s()
    result = work()
    return result, cpu_s() - begin_s


def plan_for(gantry_deg: tuple[int, ...], grid_mm: float, cutoff_mm: float | None = None) -> Any:
    """Return the photon plan with beams at these angles; without a cut-off, the peer keeps its own."""
    edge = dict.fromkeys("xyz", grid_mm)
    dose: dict[str, Any] = {"engine": PhotonPencilBeamSVDEngine.short_name, "dose_grid": {"resolution": edge}}
    if cutoff_mm is not None:
        dose["geometric_lateral_cutoff"] = cutoff_mm
    angles = {"gantry_angles": list(gantry_deg), "couch_angles": [0.0] * len(gantry_deg)}
    beams = {**angles, "bixel_width": BEAMLET_MM, "generator": "photonIMRT"}
    return pyRadPlan.PhotonPlan(machine="Generic", prop_stf=beams, prop_dose_calc=dose)


def influence(ct: Any, cst: Any, stf: Any, plan: Any) -> tuple[Any, float]:
    """Return the peer's influence matrices, and the CPU seconds of their calculation."""
    return timed(lambda: pyRadPlan.calc_dose_influence(ct, cst, stf, plan))


def dose_masks(cst: Any, ct: Any, grid: Any, overlap: bool) -> Bool:
    """Return the structures on the dose grid, shape (n_structure, nz, ny, nx), resampled as the peer does it.

    With ``overlap``, a voxel is left to the structures of the highest priority, as in the peer's optimiser.
    """
    chosen = cst.apply_overlap_priorities() if overlap else cst
    resampled = chosen.resample_on_new_ct(ct.resample_to_grid(grid))
    return np.stack([sitk.GetArrayFromImage(voi.mask) > 0 for voi in resampled.vois])


def grid_arrays(name: str, grid: Any) -> dict[str, Any]:
    """Return where the voxels of a grid are; arrays on it are [z, y, x]."""
    spacing_mm = [grid.resolution[axis] for axis in "xyz"]
    if not np.array_equal(grid.direction, np.eye(3)):
        raise ValueError(f"the {name} grid is turned against the patient's axes")
    return {
        f"{name}_origin_mm_xyz": np.asarray(grid.origin, dtype=np.float64),
        f"{name}_spacing_mm_xyz": np.asarray(spacing_mm, dtype=np.float64),
        f"{name}_shape_zyx": np.asarray(grid.dimensions[::-1], dtype=np.int64),
        **{f"{name}_{axis}_mm": np.asarray(getattr(grid, axis)) for axis in "xyz"},
    }


def geometry(ct: Any, cst: Any, stf: Any, dij: Any) -> dict[str, Any]:
    """Return all that another program needs to set up the same problem (fields: ../README.md)."""
    rays = [(index, beam, ray) for index, beam in enumerate(stf.beams) for ray in beam.rays]
    if any(len(ray.beamlets) != 1 for _, _, ray in rays):
        raise ValueError("a photon ray of the peer does not hold exactly one beamlet")
    table = default_hlut()
    return {
        "ct_hu": sitk.GetArrayFromImage(ct.cube_hu).astype(np.float32),
        **grid_arrays("ct", ct.grid),
        **grid_arrays("dose", dij.dose_grid),
        "structure_names": np.array([voi.name for voi in cst.vois]),
        "structure_kinds": np.array([voi.voi_type for voi in cst.vois]),
        "structure_masks": np.stack([sitk.GetArrayFromImage(voi.mask) > 0 for voi in cst.vois]),
        "dose_structure_masks": dose_masks(cst, ct, dij.dose_grid, overlap=False),
        "dose_objective_masks": dose_masks(cst, ct, dij.dose_grid, overlap=True),
        "beam_gantry_deg": np.array([float(beam.gantry_angle) for beam in stf.beams]),
        "beam_couch_deg": np.array([float(beam.couch_angle) for beam in stf.beams]),
        "beam_isocentre_mm_xyz": np.array([beam.iso_center for beam in stf.beams]),
        "beam_sad_mm": np.array([float(beam.sad) for beam in stf.beams]),
        "beamlet_beam": np.array([index for index, _, _ in rays]),
        "beamlet_x_mm": np.array([ray.ray_pos_bev[0] for _, _, ray in rays]),
        "beamlet_z_mm": np.array([ray.ray_pos_bev[2] for _, _, ray in rays]),
        "beamlet_centre_mm_xyz": np.array([beam.iso_center + ray.ray_pos for _, beam, ray in rays]),
        "beamlet_size_mm": np.array(BEAMLET_MM),
        "hu_table_hu": table[:, 0],
        "hu_table_relative_electron_density": table[:, 1],
    }


def products(dij: Any) -> dict[str, Any]:
    """Return the CPU seconds of one ``D w`` and one ``Dᵀ g`` through the peer's own dose quantity."""
    quantity = Dose(dij)
    random = np.random.default_rng(0)
    n_voxel, n_beamlet = dij.physical_dose.flat[0].shape
    forward_s, adjoint_s = [], []
    for _ in range(N_PRODUCT):
        # New weights each time: the quantity keeps the last result, and would only hand it out again.
        weights = random.random(n_beamlet).astype(np.float32)
        gradient = random.random((1, n_voxel)).astype(np.float32)
        forward_s.append(timed(lambda w=weights: quantity(w))[1])  # type: ignore[misc]
        adjoint_s.append(timed(lambda g=gradient, w=weights: quantity.compute_chain_derivative(g, w))[1])  # type: ignore[misc]
    return {
        "n_repeat": N_PRODUCT,
        "forward_s": {"least": min(forward_s), "median": float(np.median(forward_s))},
        "adjoint_s": {"least": min(adjoint_s), "median": float(np.median(adjoint_s))},
        "layout": type(dij.physical_dose.flat[0]).__name__,
    }


def target_mean_gy(matrix: Any, target: Bool) -> float:
    """Return the target's mean dose with all weights one."""
    return float((matrix @ np.ones(matrix.shape[1], matrix.dtype))[target].mean())


def describe(matrix: Any, target: Bool) -> dict[str, Any]:
    """Return the size of a matrix, how its entries fall off, and the target's dose at unit weights."""
    largest = matrix.max(axis=0).toarray().ravel()
    relative = matrix.data / np.repeat(largest, np.diff(matrix.indptr))
    parts = {name: getattr(matrix, name) for name in ("data", "indices", "indptr")}
    return {
        "n_voxel": matrix.shape[0],
        "n_beamlet": matrix.shape[1],
        "n_nonzero": int(matrix.nnz),
        "bytes": sum(part.nbytes for part in parts.values()),
        "types": {name: str(part.dtype) for name, part in parts.items()},
        "n_at_least_fraction_of_beamlet_maximum": {
            f"{fraction:g}": int(np.count_nonzero(relative >= fraction)) for fraction in DOSE_FRACTIONS
        },
        "target_mean_gy_at_unit_weights": target_mean_gy(matrix, target),
    }


def cutoff_study(
    ct: Any, cst: Any, grid_mm: float, cutoffs_mm: list[float], target: Bool
) -> list[dict[str, Any]]:
    """Return what each lateral cut-off costs and leaves out, against the widest of them.

    One beam at a time: the widest matrices of all beams together would not fit the memory of a small machine.
    """
    rows: list[dict[str, Any]] = []
    column_gy: list[F64] = []
    target_gy: list[float] = []
    for cutoff_mm in sorted(cutoffs_mm):
        spent_s, n_nonzero, mean_gy, sums_gy = 0.0, 0, 0.0, []
        for gantry_deg in GANTRY_DEG:
            plan = plan_for((gantry_deg,), grid_mm, cutoff_mm)
            dij, beam_s = influence(ct, cst, pyRadPlan.generate_stf(ct, cst, plan), plan)
            matrix = dij.physical_dose.flat[0]
            spent_s += beam_s
            n_nonzero += int(matrix.nnz)
            mean_gy += target_mean_gy(matrix, target)
            sums_gy.append(np.asarray(matrix.sum(axis=0, dtype=np.float64)))
        rows.append({"cutoff_mm": cutoff_mm, "n_nonzero": n_nonzero, "influence_s": spent_s})
        column_gy.append(np.concatenate(sums_gy))
        target_gy.append(mean_gy)
        print(f"cut-off {cutoff_mm:g} mm: {n_nonzero} non-zeros, {spent_s:.1f} s", file=sys.stderr)
    for row, sum_gy, mean_gy in zip(rows, column_gy, target_gy, strict=True):
        lost = 1.0 - sum_gy / column_gy[-1]
        row["lost_fraction_of_beamlet_dose"] = {
            "all": 1.0 - float(sum_gy.sum() / column_gy[-1].sum()),
            "least": float(lost.min()),
            "most": float(lost.max()),
        }
        row["lost_fraction_of_target_mean_at_unit_weights"] = 1.0 - mean_gy / target_gy[-1]
    return rows


def optimise(
    ct: Any, cst: Any, stf: Any, dij: Any, plan: Any, tolerance: float
) -> tuple[F64, dict[str, Any]]:
    """Return the weights of the peer's own L-BFGS-B with the stored objectives, and what it took."""
    solver = {"name": "scipy", "method": "L-BFGS-B", "max_iter": N_ITERATION, "abs_obj_tol": tolerance}
    plan.prop_opt = {"problem": "nonlin_fluence", "solver": {**solver, "display": False}}
    info: dict[str, Any] = {}
    weights, spent_s = timed(lambda: pyRadPlan.fluence_optimization(ct, cst, stf, dij, plan, opt_info=info))
    return weights, {
        "solver": solver,
        "cpu_s": spent_s,
        "n_iteration": info["num_iter"],
        "n_evaluation": len(info["obj_history"]),
        "objective": float(info["result_info"]["fun"]),
        "message": str(info["result_info"]["message"]),
    }


def settings(plan: Any) -> dict[str, Any]:
    """Return what limits a beamlet in the peer's engine, and the kernel of its machine."""
    engine = PhotonPencilBeamSVDEngine(plan)
    machine = engine.load_machine("photons", "Generic")
    kernel = machine.get_kernel_by_energy(machine.energies[0])
    return {
        "geometric_lateral_cutoff_mm": engine.geometric_lateral_cutoff,
        "kernel_cutoff_mm": str(engine.kernel_cutoff),
        "kernel_range_mm": float(kernel.kernel_pos[-1]),
        "kernel_components": int(kernel.num_kernel_components),
        "penumbra_fwhm_mm": float(kernel.penumbra),
        "convolution_mm": engine.int_conv_resolution,
        "ignore_outside_densities": engine.ignore_outside_densities,
        "trace_on_dose_grid": engine.trace_on_dose_grid,
        "without_effect_on_photons": {
            "dosimetric_lateral_cutoff": engine.dosimetric_lateral_cutoff,
            "enable_dij_sampling": engine.enable_dij_sampling,
            "dij_sampling": dict(engine.dij_sampling),
        },
    }


def surroundings() -> dict[str, Any]:
    """Return versions and processor."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    packages = ("pyRadPlan", "numpy", "scipy", "numba", "pydantic")
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "threads": 1,
        "jit_backends": pyRadPlan.settings.xp.jit_backends,
    }


def main() -> None:
    """Read the command line, measure, and write the files."""
    parser = argparse.ArgumentParser(description="pyRadPlan on the TG-119 C-shape: figures and geometry")
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/peer"), help="for pyradplan.json and geometry.npz"
    )
    parser.add_argument(
        "--matrix", type=Path, help="file for the influence matrix (scipy npz, rows [z, y, x])"
    )
    parser.add_argument("--optimise", action="store_true", help="run the peer's optimiser too")
    parser.add_argument(
        "--tolerance", type=float, default=1e-5, help="of the optimiser; the peer's own: 1e-5"
    )
    parser.add_argument(
        "--cutoffs", type=float, nargs="+", metavar="MM", help="lateral cut-offs to compare, up to 190"
    )
    parser.add_argument(
        "--dose-grid", type=float, default=DOSE_GRID_MM, metavar="MM", help="edge of its voxels; default 5"
    )
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)

    def new_plan() -> Any:
        return plan_for(GANTRY_DEG, given.dose_grid)

    ct, cst = pyRadPlan.load_tg119()
    plan = new_plan()
    stf = pyRadPlan.generate_stf(ct, cst, plan)
    first_s = influence(ct, cst, stf, new_plan())[1]
    dij, second_s = influence(ct, cst, stf, new_plan())
    matrix = dij.physical_dose.flat[0]
    arrays = geometry(ct, cst, stf, dij)
    np.savez_compressed(given.folder / "geometry.npz", **arrays)
    target = arrays["dose_structure_masks"][[voi.name for voi in cst.vois].index(TARGET)].ravel()
    figures: dict[str, Any] = {
        "surroundings": surroundings(),
        "settings": settings(new_plan()),
        "influence_s": {"first": first_s, "second": second_s},
        "matrix": describe(matrix, target),
        "products": products(dij),
    }
    if given.matrix:
        sparse.save_npz(given.matrix, matrix, compressed=False)
    if given.optimise:
        weights, figures["optimisation"] = optimise(ct, cst, stf, dij, new_plan(), given.tolerance)
        np.save(given.folder / "weights.npy", weights)
    figures["peak_memory_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if given.cutoffs:
        del dij, matrix
        figures["cutoffs"] = cutoff_study(ct, cst, given.dose_grid, given.cutoffs, target)
    (given.folder / "pyradplan.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
