"""What is kept of a plan that another system made: photons and ions, as plain numbers."""

from dataclasses import dataclass

import numpy as np

from engine.model.arrays import F64


@dataclass(frozen=True)
class Opening:
    """How one beam-limiting device stands at every control point.

    Parameters
    ----------
    kind
        DICOM's name: X, Y, ASYMX, ASYMY, MLCX, MLCY.
    boundary_mm
        Edges between leaf pairs at the isocentre plane, one more than pairs; empty for jaws.
    position_mm
        For every control point the positions of all leaves of side 1 and then of side 2, at the isocentre plane.
    """

    kind: str
    boundary_mm: tuple[float, ...]
    position_mm: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class FluenceMap:
    """What a compensator lets through.

    Parameters
    ----------
    first_mm
        Centre of ``transmission[0][0]`` in the collimator system at the isocentre plane, x and y.
    spacing_mm
        Distance of pixels along x and y.
    transmission
        Rows along increasing y, each along increasing x; values from 0 to 1.
    """

    first_mm: tuple[float, float]
    spacing_mm: tuple[float, float]
    transmission: tuple[tuple[float, ...], ...]

    def as_array(self) -> F64:
        """Return the transmission, shape (n_y, n_x)."""
        return np.array(self.transmission, dtype=np.float64)


@dataclass(frozen=True)
class SpotLayer:
    """The spots of one energy of a scanned ion beam.

    Parameters
    ----------
    energy_mev
        Nominal energy, per nucleon.
    x_mm, y_mm
        Positions at the isocentre plane.
    weight
        Share of the beam's meterset, as written; the shares of all layers add up to ``final_weight`` of the beam.
    size_mm
        Full width at half maximum of a spot along x and y, as written; empty if not.
    n_painting
        How often the layer is painted.
    """

    energy_mev: float
    x_mm: tuple[float, ...]
    y_mm: tuple[float, ...]
    weight: tuple[float, ...]
    size_mm: tuple[float, ...]
    n_painting: int


@dataclass(frozen=True)
class RangeShifter:
    """A slab in an ion beam.

    Parameters
    ----------
    name, kind
        As written: identifier, and BINARY or ANALOG.
    setting
        As written: IN, OUT, or a number of the machine; empty if not written.
    isocentre_distance_mm, water_equivalent_mm
        Distance from the isocentre, and thickness in water; None where not written.
    """

    name: str
    kind: str
    setting: str
    isocentre_distance_mm: float | None
    water_equivalent_mm: float | None


@dataclass(frozen=True)
class ExternalBeam:
    """One beam of a plan from elsewhere; angles after IEC 61217.

    Parameters
    ----------
    number, name, machine
        As written.
    delivery
        What it is for: TREATMENT, SETUP, …; empty if not written.
    radiation
        PHOTON, ELECTRON, PROTON, ION, …
    technique
        Beam type, and scan mode of ions: STATIC, DYNAMIC, MODULATED, …
    gantry_deg
        Gantry angle of every control point.
    couch_deg, collimator_deg
        Angles at the first control point.
    isocentre_mm
        Isocentre of the first control point, LPS; None where not written.
    sad_mm
        Distance from source to isocentre: one, or for scanned ions that of x and y; empty where not written.
    energies
        Different nominal energies in their order: MV for photons, MeV (per nucleon) for particles.
    meterset, meterset_unit
        Of one fraction; None where not written. Unit as written: MU, NP, MINUTE.
    final_weight
        Cumulative meterset weight at the end.
    cumulative_weight
        Cumulative meterset weight of every control point.
    openings, fluence
        Jaws and leaves; transmission of the compensator, if there is one.
    layers, range_shifters
        Spots and slabs of an ion beam.
    """

    number: int
    name: str
    machine: str
    delivery: str
    radiation: str
    technique: str
    gantry_deg: tuple[float, ...]
    couch_deg: float
    collimator_deg: float
    isocentre_mm: tuple[float, float, float] | None
    sad_mm: tuple[float, ...]
    energies: tuple[float, ...]
    meterset: float | None
    meterset_unit: str
    final_weight: float
    cumulative_weight: tuple[float, ...]
    openings: tuple[Opening, ...] = ()
    fluence: FluenceMap | None = None
    layers: tuple[SpotLayer, ...] = ()
    range_shifters: tuple[RangeShifter, ...] = ()

    @property
    def n_control_point(self) -> int:
        """Number of control points."""
        return len(self.cumulative_weight)

    @property
    def n_spot(self) -> int:
        """Number of spots of all layers."""
        return sum(len(layer.weight) for layer in self.layers)


@dataclass(frozen=True)
class Prescription:
    """What a plan says of a dose: to what, as what (TARGET, ORGAN_AT_RISK), and how much in the course."""

    description: str
    kind: str
    dose_gy: float | None


@dataclass(frozen=True)
class ExternalPlan:
    """A plan from elsewhere, without anything personal.

    Parameters
    ----------
    uid
        SOP Instance UID.
    label, name
        As written.
    kind
        RT Plan or RT Ion Plan.
    approval
        Approval status as written.
    structure_set_uid
        The structure set it was made on; empty if none is named.
    patient_position
        As in the first patient setup; empty if not written.
    n_fraction
        Fractions of the first fraction group; None where not written.
    prescriptions
        Doses that the plan refers to.
    beams
        The beams in their order.
    notes
        What was left out or looks odd.
    """

    uid: str
    label: str
    name: str
    kind: str
    approval: str
    structure_set_uid: str
    patient_position: str
    n_fraction: int | None
    prescriptions: tuple[Prescription, ...]
    beams: tuple[ExternalBeam, ...]
    notes: tuple[str, ...] = ()
