"""The patient as workers know it: read from the store once, and kept."""

from dataclasses import dataclass
from functools import lru_cache

from engine.dose.engine import Patient
from engine.geometry.bricks import BrickLayout
from engine.geometry.resample import touched_rows
from engine.model.arrays import Bool
from engine.model.grid import Grid
from storage.places.address import Address
from storage.store import Store

DENSITY = "density"


@dataclass(frozen=True)
class PatientRef:
    """Where a worker finds the patient: the digest of the density object, and the grid that gets dose."""

    store: Address
    density: str
    layout: BrickLayout


@lru_cache(maxsize=2)
def _patient(store: Address, density: str) -> Patient:
    arrays, attributes = Store(store).read_arrays(DENSITY, density, ["density"])
    return Patient(Grid.from_dict(attributes["grid"]), arrays["density"], attributes["patient_position"])


def patient_of(reference: PatientRef) -> Patient:
    """Return the patient."""
    return _patient(reference.store, reference.density)


@lru_cache(maxsize=2)
def active_rows(reference: PatientRef) -> Bool:
    """Return the rows that get dose: voxels that the body touches, shape (n_row,)."""
    arrays, attributes = Store(reference.store).read_arrays(DENSITY, reference.density, ["body"])
    return touched_rows(reference.layout, arrays["body"], Grid.from_dict(attributes["grid"]))
