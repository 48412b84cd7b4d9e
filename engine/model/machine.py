"""A treatment machine: one physical description from which every engine takes its tables."""

from dataclasses import dataclass


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
    """

    name: str
    kernel: str
    sad_mm: float
    collimator_distance_mm: float
    source_sigma_mm: float
    largest_field_mm: float


MACHINES = {
    machine.name: machine
    for machine in (
        # Generic flattened 6 MV beam: no measured accelerator. The focal spot of 1 mm (2.4 mm full width) lies within
        # the 0.9 to 3.4 mm full width that Jaffray et al., Med Phys 20 (1993) 1417, measured on clinical machines.
        PhotonMachine("generic-6mv", "mohan_6mv", 1000.0, 500.0, 1.0, 400.0),
        PhotonMachine("point-source-6mv", "mohan_6mv", 1000.0, 500.0, 0.0, 400.0),
    )
}
