"""What the stages hand to each other: references to results in the store, and what is small enough to carry."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from engine.dose.photon_pencil_beam import PhotonPencilBeam
from engine.model.arrays import F64
from engine.model.beam import Beam, BeamletGrid
from engine.model.case import Case
from engine.model.scenario import Scenario
from engine.optimise.group import Term
from engine.optimise.solver import SolveResult
from flows.work import BlockRecord, PatientRef


@dataclass(frozen=True)
class CaseRef:
    """A case in the store, with the study's choice of body outline and HU table applied.

    ``notes`` is what a reader of the report should know of how case and study fit.
    """

    digest: str
    case: Case
    density_digest: str
    hu_table: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Placement:
    """Beams, beamlets and grids.

    Parameters
    ----------
    beams, beamlets
        One entry a beam.
    optimiser, report
        The patient on the grid of the influence matrix, and on that of the final dose.
    engine
        The dose engine.
    """

    beams: tuple[Beam, ...]
    beamlets: tuple[BeamletGrid, ...]
    optimiser: PatientRef
    report: PatientRef
    engine: PhotonPencilBeam

    @cached_property
    def first_beamlet(self) -> tuple[int, ...]:
        """Number of each beam's first beamlet over all beams and, last, the number of all."""
        return tuple(int(n) for n in np.cumsum([0, *(b.n_beamlet for b in self.beamlets)]))

    def weights_of_beams(self, weight: F64) -> list[F64]:
        """Cut weights of all beamlets, shape (n_beamlet,), by beam."""
        return np.split(weight, self.first_beamlet[1:-1])


@dataclass(frozen=True)
class Influence:
    """The blocks of every scenario: ``blocks[scenario]`` has a number of first beamlet and a record each."""

    scenarios: tuple[Scenario, ...]
    blocks: tuple[tuple[tuple[int, BlockRecord], ...], ...]

    @property
    def n_entry(self) -> int:
        """Entries of all scenarios."""
        return sum(record.n_entry for blocks in self.blocks for _, record in blocks)

    @property
    def cpu_s(self) -> float:
        """CPU seconds that the blocks took, whenever they were computed."""
        return sum(record.cpu_s for blocks in self.blocks for _, record in blocks)


@dataclass(frozen=True)
class Solve:
    """A finished solve in the store; ``cpu_s`` is what workers spent on it since its last interruption."""

    digest: str
    result: SolveResult
    terms: tuple[Term, ...]
    cpu_s: float
