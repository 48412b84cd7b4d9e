"""Work of the judge stage: doses of whole plans on a grid, beam by beam."""

from dataclasses import dataclass

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
class ForwardTask:
    """The full doses of one beam in one setup, without lateral cut-off or threshold.

    Parameters
    ----------
    patient, engine, beam, beamlets, shift_mm
        Who, how, from where.
    wanted
        For every dose its digest, the number of its weights and its density factor.
    weights
        Sets of weights of the beam's beamlets.
    """

    patient: PatientRef
    engine: DoseEngine
    beam: Beam
    beamlets: BeamletGrid
    shift_mm: Shift
    wanted: tuple[tuple[str, int, float], ...]
    weights: tuple[F64, ...]

    def compute(self) -> None:
        """Compute and publish those doses that nobody has published in the meantime."""
        store = Store(self.patient.store)
        missing = [dose for dose in self.wanted if not store.has_arrays(BEAM_DOSE, dose[0])]
        if not missing:
            return
        begin_s = cpu_clock_s()
        layout = self.patient.layout
        view = self.engine.view(
            patient_of(self.patient), layout, active_rows(self.patient), self.beam, self.shift_mm, None
        )
        for digest, number, density_factor in missing:
            rows = self.engine.forward(view, self.beamlets, self.weights[number], density_factor)
            _write_dose(store, digest, layout, rows, cpu_clock_s() - begin_s)
            begin_s = cpu_clock_s()


@dataclass(frozen=True)
class MatrixDoseTask:
    """The dose that stored tiles give: what the optimiser saw."""

    patient: PatientRef
    blocks: tuple[tuple[int, str], ...]
    weight: F64
    digest: str

    def compute(self) -> None:
        """Compute and publish it."""
        store = Store(self.patient.store)
        if store.has_arrays(BEAM_DOSE, self.digest):
            return
        begin_s = cpu_clock_s()
        layout = self.patient.layout
        rows = np.zeros(layout.n_row)
        # Block by block: the whole matrix may be more than a worker can hold.
        for begin, digest in self.blocks:
            column = read_tiles(store, digest)
            of_block = rows_of_columns([(begin, column)], 0, layout.n_brick, layout.brick_size)
            rows += of_block.dose(self.weight)
        _write_dose(store, self.digest, layout, rows, cpu_clock_s() - begin_s)


def compute(task: ForwardTask | MatrixDoseTask) -> None:
    """Do a task: what is sent to workers."""
    task.compute()


def _write_dose(store: Store, digest: str, layout: BrickLayout, rows: F32 | F64, cpu_s: float) -> None:
    store.write_arrays(
        BEAM_DOSE,
        digest,
        {"dose_gy": layout.to_volume(rows)},
        {"grid": layout.grid.as_dict(), "provenance": provenance({}, cpu_s)},
        {"dose_gy": tuple(min(layout.edge, n) for n in layout.grid.shape_zyx)},
    )
