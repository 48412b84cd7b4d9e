"""A treatment machine: one physical description from which every engine takes its tables."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ReferenceCondition:
    """The one place at which a machine's monitor unit is tied to dose: a square open field on a flat water phantom.

    Parameters
    ----------
    ssd_mm
        Distance from the source to the water's surface.
    depth_mm
        Depth of the point on the beam's axis.
    field_mm
        Edge of the square field at the isocentre plane.
    gy_per_mu
        Dose to water at the point for one monitor unit.
    """

    ssd_mm: float
    depth_mm: float
    field_mm: float
    gy_per_mu: float

    def __str__(self) -> str:
        return (
            f"{self.gy_per_mu:g} Gy per MU in water, {self.depth_mm:g} mm deep on the axis, source to surface "
            f"{self.ssd_mm:g} mm, field {self.field_mm:g} mm × {self.field_mm:g} mm at the isocentre plane"
        )


@dataclass(frozen=True)
class PhotonMachine:
    """A linear accelerator in photon mode.

    Parameters
    ----------
    name
        Name in study files.
    kernel
        Name of the pencil kernel, and so of the spectrum (`engine.physics.photon_kernel`).
    sad_mm
        Distance from source to isocentre.
    collimator_distance_mm
        Distance from source to the plane that shapes the beamlets' edges.
    source_sigma_mm
        Standard deviation of the Gaussian focal spot along one axis; 0 is a point.
    largest_field_mm
        Edge of the largest square field at the isocentre.
    nominal_energy_mv
        What the beam is called: 6 for 6 MV.
    reference
        What a monitor unit is.
    """

    name: str
    kernel: str
    sad_mm: float
    collimator_distance_mm: float
    source_sigma_mm: float
    largest_field_mm: float
    nominal_energy_mv: float
    reference: ReferenceCondition


# As usual: 1 cGy per MU at the depth of the dose maximum (15 mm at 6 MV) at 1 m from the source to the surface.
_ONE_CGY = ReferenceCondition(ssd_mm=1000.0, depth_mm=15.0, field_mm=100.0, gy_per_mu=0.01)

MACHINES = {
    machine.name: machine
    for machine in (
        # Generic flattened 6 MV beam: no measured accelerator. The focal spot of 1 mm (2.4 mm full width) lies within
        # the 0.9 to 3.4 mm full width that Jaffray et al., Med Phys 20 (1993) 1417, measured on clinical machines.
        PhotonMachine("generic-6mv", "mohan_6mv", 1000.0, 500.0, 1.0, 400.0, 6.0, _ONE_CGY),
        PhotonMachine("point-source-6mv", "mohan_6mv", 1000.0, 500.0, 0.0, 400.0, 6.0, _ONE_CGY),
    )
}
