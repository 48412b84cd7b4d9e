"""Physical constants: CODATA 2022 recommended values (Mohr et al., Rev. Mod. Phys. 97 (2025) 025002).

Values marked "exact" are fixed by the SI definitions of 2019.
"""

ELECTRON_REST_ENERGY_MEV = 0.51099895069
CLASSICAL_ELECTRON_RADIUS_MM = 2.8179403205e-12
FINE_STRUCTURE_CONSTANT = 7.2973525643e-3
BOHR_RADIUS_MM = 5.29177210544e-8
AVOGADRO_PER_MOL = 6.02214076e23
"""Exact."""
REDUCED_PLANCK_C_MEV_MM = 1.973269804e-10
"""hbar c; exact up to the digits given."""
CM2_PER_BARN = 1.0e-24
"""Exact."""
