"""Work of the judge stage: doses of whole plans on a grid, beam by beam."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from engine.dose.engine import DoseEngine
from engine.geometry.bricks import BrickLayout
from engine.influence.rows import rows_of_columns
from engine.model.arrays import F32, F64
from engine.model.beam import Beam, BeamletGrid
from flows.work.cpu import cpu_clock_s
from flows.work.matrix import Shift
from flows.work.patient import PatientRef, active_rows, patient_of
from storage.digest import provenance
from storage.influence import read_tiles
from storage.store import Store

BEAM_DOSE = "beam_dose"


@dataclass(frozen=True)
class BeamDose:
    """A dose that is wanted of a beam.

    Parameters
    ----------
    digest
        What it is to be published under.
    patient, shift_mm, density_factor
        Of whom and on which grid, and the scenario.
    number
        Of its weights.
    """

    digest: str
    patient: PatientRef
    shift_mm: Shift
    density_factor: float
    number: int


@dataclass(frozen=True)
class ForwardTask:
    """Full doses of one beam, without lateral cut-off or threshold: a `cluster.pieces.Divisible`.

    Parameters
    ----------
    engine, beam, beamlets
        How, and from where.
    wanted
        The doses; those that share a view of the patient follow each other.
    weights
        Sets of weights of the beam's beamlets.
    """

    engine: DoseEngine
    beam: Beam
    beamlets: BeamletGrid
    wanted: tuple[BeamDose, ...]
    weights: tuple[F64, ...]

    n_at_once = 1

    def __str__(self) -> str:
        return f"{len(self.wanted)} final doses of beam '{self.beam.name}'"

    @property
    def n_part(self) -> int:
        """How many doses they are."""
        return len(self.wanted)

    def piece(self, begin: int, end: int) -> "ForwardTask":
        """Return a task of some of the doses."""
        return replace(self, wanted=self.wanted[begin:end])

    def compute(self) -> list[str]:
        """Compute and publish those doses that nobody has published in the meantime; returns the digests of all."""
        for (patient, shift_mm), wanted in groupby(self.wanted, lambda dose: (dose.patient, dose.shift_mm)):
            store = Store(patient.store)
            missing = [dose for dose in wanted if not store.has_arrays(BEAM_DOSE, dose.digest)]
            if missing:
                self._publish(store, patient, shift_mm, missing)
        return [dose.digest for dose in self.wanted]

    def _publish(
        self, store: Store, patient: PatientRef, shift_mm: Shift, wanted: Sequence[BeamDose]
    ) -> None:
        begin_s = cpu_clock_s()
        view = self.engine.view(
            patient_of(patient), patient.layout, active_rows(patient), self.beam, shift_mm, None
        )
        for dose in wanted:
            rows = self.engine.forward(view, self.beamlets, self.weights[dose.number], dose.density_factor)
            _write_dose(store, dose.digest, patient.layout, rows, cpu_clock_s() - begin_s)
            begin_s = cpu_clock_s()


@dataclass(frozen=True)
class MatrixDoseTask:
    """The dose that stored tiles give: what the optimiser saw."""

    patient: PatientRef
    blocks: tuple[tuple[int, str], ...]
    weight: F64
    digest: str

    def __str__(self) -> str:
        return "the dose of the stored tiles"

    def compute(self) -> list[str]:
        """Compute and publish it; returns its digest."""
        store = Store(self.patient.store)
        if store.has_arrays(BEAM_DOSE, self.digest):
            return [self.digest]
        begin_s = cpu_clock_s()
        layout = self.patient.layout
        rows = np.zeros(layout.n_row)
        # Block by block: the whole matrix may be more than a worker can hold.
        for begin, digest in self.blocks:
            column = read_tiles(store, digest)
            of_block = rows_of_columns([(begin, column)], 0, layout.n_brick, layout.brick_size)
            rows += of_block.dose(self.weight)
        _write_dose(store, self.digest, layout, rows, cpu_clock_s() - begin_s)
        return [self.digest]


def compute(task: ForwardTask | MatrixDoseTask) -> list[str]:
    """Do a task: what is sent to workers."""
    return task.compute()


def _write_dose(store: Store, digest: str, layout: BrickLayout, rows: F32 | F64, cpu_s: float) -> None:
    store.write_arrays(
        BEAM_DOSE,
        digest,
        {"dose_gy": layout.to_volume(rows)},
        {"grid": layout.grid.as_dict(), "provenance": provenance({}, cpu_s)},
    )
