"""Tissues of the anatomical phantoms, as a CT scanner of 120 kV shows them.

Hounsfield units follow from composition and density by the parametrisation of Schneider et al., Phys. Med. Biol. 45
(2000) 459 (`engine.physics.stoichiometric`), so they are those of a real scanner's bone, and not those of the straight
line that the built-in table ``phantom`` is. The table that belongs to them is
``examples/hu_tables/tissue_phantoms.csv``.
"""

from engine.physics.materials import MATERIALS, Material
from engine.physics.stoichiometric import SCHNEIDER, hu


class Tissue(Material):
    """A named material of `engine.physics.materials`, with the Hounsfield units of Schneider's scanner."""

    @property
    def hu(self) -> float:
        """Hounsfield units."""
        return hu(self, *SCHNEIDER)


def _tissue(name: str) -> Tissue:
    material = MATERIALS[name]
    return Tissue(material.name, material.density_g_cm3, material.composition)


WATER = _tissue("water")
ADIPOSE = _tissue("adipose")
MUSCLE = _tissue("muscle")
LUNG = _tissue("lung-inflated")
BLOOD = _tissue("blood")
BRAIN = _tissue("brain")
LIVER = _tissue("liver")
URINE = _tissue("urine")
SPONGIOSA = _tissue("spongiosa")
CRANIUM = _tissue("cranium")
MANDIBLE = _tissue("mandible")
CORTICAL_BONE = _tissue("bone-cortical")
