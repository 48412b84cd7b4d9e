"""Electron density of a case in the store, found by what it was made from: no organ that does not matter is in it."""

from engine.errors import StudyError
from engine.model.arrays import F32
from engine.model.case import Case
from engine.physics.hu_table import HuTable
from engine.spec.case import CaseSpec, OutsideSpec, OverrideSpec
from engine.structures.density import DensityOf, patient_density
from flows.run import Run
from flows.work.patient import DENSITY
from storage.digest import digest_of, digest_of_array, digest_of_code, provenance

_CODE = (
    "engine.physics.hu_table",
    "engine.structures.booleans",
    "engine.structures.density",
    "engine.structures.surface",
)


def keep_density(run: Run, spec: CaseSpec, case: Case, table: HuTable) -> tuple[str, tuple[str, ...]]:
    """Compute the electron density unless the store has it; returns its digest, and what to tell of it.

    Raises
    ------
    StudyError
        If a structure whose density is said covers nothing.
    """
    body = case.external.coverage
    outside = [_density_of(f"case.outside[{n}]", entry, case, table) for n, entry in enumerate(spec.outside)]
    overrides = [
        _density_of(f"case.overrides[{n}]", entry, case, table) for n, entry in enumerate(spec.overrides)
    ]
    made_from = {
        "ct_hu": digest_of_array(case.ct_hu),
        "body": digest_of_array(body),
        "grid": case.grid.as_dict(),
        "position": case.patient_position,
        "hu": list(table.hu),
        "density": list(table.density),
        "outside": [[digest_of_array(entry.coverage), entry.density] for entry in outside],
        "overrides": [[digest_of_array(entry.coverage), entry.density] for entry in overrides],
        "code": digest_of_code(_CODE),
    }
    digest = digest_of(made_from)
    if not run.store.has_arrays(DENSITY, digest):
        run.expect_computing()
        run.store.write_arrays(
            DENSITY,
            digest,
            {
                "density": patient_density(case.ct_hu, case.grid, body, table, outside, overrides),
                "body": body,
            },
            {
                "grid": case.grid.as_dict(),
                "patient_position": case.patient_position,
                "provenance": provenance(made_from, 0.0),
            },
            {name: tuple(min(32, n) for n in case.grid.shape_zyx) for name in ("density", "body")},
        )
    notes = [
        _told(entry, found, case, "outside of the body")
        for entry, found in zip(spec.outside, outside, strict=True)
    ]
    for entry, found in zip(spec.overrides, overrides, strict=True):
        notes.append(f"{_told(entry, found, case, 'instead of the CT')}; reason: {entry.reason}")
    return digest, tuple(notes)


def _density_of(key: str, entry: OutsideSpec | OverrideSpec, case: Case, table: HuTable) -> DensityOf:
    coverage: F32 = case.structure(entry.structure).coverage
    if not (coverage > 0.0).any():
        raise StudyError(
            f"{key}.structure: '{entry.structure}' covers no voxel of the CT, so its density would change nothing; "
            "leave the entry out, or check the contours"
        )
    density = entry.relative_electron_density
    if entry.hu is not None:
        density = table.density_at(entry.hu)
    return DensityOf(coverage, density)


def _told(entry: OutsideSpec | OverrideSpec, found: DensityOf, case: Case, where: str) -> str:
    volume_cc = float(found.coverage.sum(dtype="float64")) * case.grid.voxel_volume_mm3 / 1000.0
    if found.density is None:
        value = "electron density from the CT by the HU table"
    else:
        of_hu = f" (that of {entry.hu:g} HU)" if entry.hu is not None else ""
        value = f"relative electron density {found.density:.4g}{of_hu}"
    return f"density: '{entry.structure}' ({volume_cc:.3g} cc) has {value}, {where}"
