"""What the stages hand to each other: references to results in the store, and what is small enough to carry."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from engine.dose.photon_pencil_beam import PhotonPencilBeam
from engine.model.arrays import F64, I64
from engine.model.beam import Beam, BeamletGrid
from engine.model.case import Case, StructureKind
from engine.model.scenario import Scenario
from engine.optimise.bound import Certificate
from engine.optimise.generation import Generation
from engine.optimise.group import Term
from engine.optimise.limits import LimitsOutcome
from engine.optimise.solvers import SolveResult
from flows.work.matrix import BlockRecord
from flows.work.patient import PatientRef


@dataclass(frozen=True)
class MadeStructure:
    """A structure that the study made: its recipe in words, and its volume on the CT grid."""

    name: str
    kind: StructureKind
    recipe: str
    volume_cc: float


@dataclass(frozen=True)
class CaseRef:
    """A case in the store, with the study's choice of body outline, structures and densities applied.

    ``case`` has the made structures, too. ``notes`` is what a reader of the report should know of how case and study
    fit, ``densities`` says the same of every density that was set. ``hu_table`` says name and kind of the table,
    ``hu_points`` are its HU and relative electron densities.
    """

    digest: str
    case: Case
    density_digest: str
    hu_table: str
    hu_points: tuple[tuple[float, float], ...]
    notes: tuple[str, ...] = ()
    made: tuple[MadeStructure, ...] = ()
    densities: tuple[str, ...] = ()


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
    """The influence matrix of every scenario: tiles of the first, views of the others, or nothing but the nominal one.

    Parameters
    ----------
    scenarios
        The scenarios, the nominal one first.
    blocks
        Number of first beamlet and record of every block of the nominal scenario.
    views
        For every other scenario the digest of each beam's view; none for those whose dose is the nominal one, moved.
    cpu_s
        CPU seconds that it all took, whenever it was computed.
    """

    scenarios: tuple[Scenario, ...]
    blocks: tuple[tuple[int, BlockRecord], ...]
    views: tuple[tuple[str, ...], ...]
    cpu_s: float

    @property
    def n_entry(self) -> int:
        """Entries of the nominal scenario."""
        return sum(record.n_entry for _, record in self.blocks)

    def mini_blocks_per_brick(self, n_brick: int) -> I64:
        """Return how many mini-blocks the bricks hold in the nominal scenario, shape (n_brick,)."""
        n_mini = np.zeros(n_brick, dtype=np.int64)
        for _, record in self.blocks:
            np.add.at(n_mini, np.asarray(record.brick, np.int64), np.asarray(record.n_mini, np.int64))
        return n_mini


@dataclass(frozen=True)
class Solve:
    """A finished solve in the store; ``cpu_s`` is what workers spent on it, whichever run they worked for.

    One with scenario generation is that of the round whose plan it is, judged over all scenarios.
    """

    digest: str
    result: SolveResult
    terms: tuple[Term, ...]
    cpu_s: float
    certificate: Certificate
    limits: LimitsOutcome | None = None
    generation: Generation | None = None
