"""Efficiency of the Monte Carlo: ``python -m benchmarks.monte_carlo [--histories N]``.

1 / (s^2 T): s is the root mean square of the relative standard error in voxels above half of the largest dose, T the
CPU seconds of one thread, compilation left out. Water, 60 voxels of 5 mm in each direction, field 10 cm x 10 cm from
100 cm.
"""

import argparse
import time

import numpy as np

from engine.model.arrays import F64
from engine.physics.materials import MATERIALS
from engine.physics.monte_carlo.beam import Beam, Rectangle, build_beam
from engine.physics.monte_carlo.histories import run_histories
from engine.physics.monte_carlo.tables import Settings, Tables, build_tables
from engine.physics.monte_carlo.voxels import build_voxels
from engine.physics.spectrum import load_spectrum

SHAPE = (60, 60, 60)
VOXEL_MM = 5.0
FIELD = Rectangle(100.0, 200.0, 100.0, 200.0)
DISTANCE_MM = 1000.0


def main() -> None:
    """Print efficiencies of 12 MeV electrons and 6 MV photons."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--histories", type=int, default=500_000)
    parser.add_argument("--electron-cutoff", type=float, default=Settings.electron_cutoff_mev, help="MeV")
    parser.add_argument("--photon-cutoff", type=float, default=Settings.photon_cutoff_mev, help="MeV")
    given = parser.parse_args()
    settings = Settings(given.electron_cutoff, given.photon_cutoff)
    tables = build_tables([MATERIALS["water"]], 12.0, settings)
    spectrum = load_spectrum("mohan_6mv")
    one = np.array([12.0])
    electrons = _beam(one, one, np.ones(1), photons=False)
    photons = _beam(spectrum.low_mev, spectrum.high_mev, spectrum.share, photons=True)
    print(
        f"cut-offs: {settings.electron_cutoff_mev:g} MeV electrons, {settings.photon_cutoff_mev:g} MeV photons"
    )
    for name, beam in (("12 MeV electrons", electrons), ("6 MV photons", photons)):
        per_second, relative_error, cpu_s = measured(beam, tables, given.histories)
        print(
            f"{name}: {per_second:.0f} histories per CPU second, relative error {100.0 * relative_error:.2f} % after "
            f"{cpu_s:.1f} s, efficiency {1.0 / (relative_error**2 * cpu_s):.1f} per CPU second"
        )


def measured(beam: Beam, tables: Tables, n_history: int) -> tuple[float, float, float]:
    """Return histories per CPU second, relative standard error, and CPU seconds."""
    voxels = build_voxels(
        np.zeros(SHAPE, np.uint8), np.ones(SHAPE, np.float32), (VOXEL_MM, VOXEL_MM, VOXEL_MM), tables
    )
    run_histories(beam, voxels, tables, first_history=0, n_history=10, seed=1)
    started_s = time.process_time()
    tally = run_histories(beam, voxels, tables, first_history=0, n_history=n_history, seed=2)
    cpu_s = time.process_time() - started_s
    energy_mev = tally.energy_mev()
    high = energy_mev > 0.5 * energy_mev.max()
    relative = tally.standard_error_mev()[high] / energy_mev[high]
    return n_history / cpu_s, float(np.sqrt(np.mean(relative**2))), cpu_s


def _beam(low_mev: F64, high_mev: F64, share: F64, *, photons: bool) -> Beam:
    return build_beam(FIELD, low_mev, high_mev, share, photons=photons, source_distance_mm=DISTANCE_MM)


if __name__ == "__main__":
    main()
