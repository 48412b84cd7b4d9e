"""The grid of voxels that particles go through: a material and a density for each."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine.errors import DoseError
from engine.model.arrays import F32, F64
from engine.physics.monte_carlo.tables import ATTENUATION, Tables

U8 = npt.NDArray[np.uint8]


class Voxels(NamedTuple):
    """A grid of voxels that begins at the origin; a tuple, so that kernels take it as it is. Outside is vacuum.

    Parameters
    ----------
    material
        Position in the list of materials, shape (n_z, n_y, n_x).
    density_g_cm3
        Mass density, same shape.
    size_x_mm, size_y_mm, size_z_mm
        Size of a voxel.
    majorant_per_mm
        At each photon energy of the tables, an attenuation coefficient that no voxel's is above, shape (n_energy,).
    """

    material: U8
    density_g_cm3: F32
    size_x_mm: float
    size_y_mm: float
    size_z_mm: float
    majorant_per_mm: F64


def build_voxels(
    material: U8, density_g_cm3: F32, size_mm_xyz: tuple[float, float, float], tables: Tables
) -> Voxels:
    """Return voxels with their majorant.

    Raises
    ------
    DoseError
        If shapes, densities, sizes or material numbers make no sense.
    """
    if material.ndim != 3 or material.shape != density_g_cm3.shape or material.size == 0:
        raise DoseError(
            f"materials of shape {material.shape} and densities of shape {density_g_cm3.shape} (both must be the same "
            "three numbers); give every voxel one of each"
        )
    if not np.all(np.isfinite(density_g_cm3)) or density_g_cm3.min() <= 0.0:
        raise DoseError("densities of voxels that are not above 0; give air its own, 0.0012 g/cm3")
    if not all(np.isfinite(size) and size > 0.0 for size in size_mm_xyz):
        raise DoseError(f"voxels of {size_mm_xyz} mm; every size must be above 0")
    n_material = tables.photon.shape[0]
    if material.max() >= n_material:
        raise DoseError(
            f"a voxel of material {material.max()} (the tables have {n_material}, counted from 0); make the tables of "
            "all materials"
        )
    majorant = np.zeros(tables.photon.shape[1])
    for number in np.unique(material):
        densest = float(density_g_cm3[material == number].max())
        majorant = np.maximum(majorant, densest * tables.photon[number, :, ATTENUATION])
    return Voxels(
        np.ascontiguousarray(material, dtype=np.uint8),
        np.ascontiguousarray(density_g_cm3, dtype=np.float32),
        float(size_mm_xyz[0]),
        float(size_mm_xyz[1]),
        float(size_mm_xyz[2]),
        majorant,
    )
