"""Materials against the Z/A that NIST prints."""

import pytest

from engine.errors import CaseError
from engine.physics.materials import MATERIALS, Material

# NIST, X-Ray Mass Attenuation Coefficients (NISTIR 5632), table 2; compact bone, aluminium, titanium: NIST STAR.
NIST_Z_PER_A = {
    "water": 0.55508,
    "air": 0.49919,
    "lung": 0.55048,
    "lung-inflated": 0.55048,
    "adipose": 0.55579,
    "muscle": 0.55000,
    "soft-tissue": 0.54996,
    "brain": 0.55239,
    "blood": 0.54999,
    "breast": 0.55196,
    "bone-cortical": 0.51478,
    "bone-compact": 0.53010,
    "aluminium": 0.48181,
    "titanium": 0.45948,
    "pmma": 0.53937,
    "polystyrene": 0.53768,
    "polyethylene": 0.57034,
    "teflon": 0.47992,
}


@pytest.mark.parametrize("name", NIST_Z_PER_A)
def test_electrons_per_nucleon_are_those_of_nist(name):
    # NIST's atomic weights are older: titanium 47.88 then, 47.867 now (0.03 %).
    within = 3e-4 if name == "titanium" else 2e-5
    assert MATERIALS[name].electrons_per_nucleon == pytest.approx(NIST_Z_PER_A[name], abs=within)


@pytest.mark.parametrize("name", MATERIALS)
def test_compositions_are_whole(name):
    # Of the vertebral column, ICRU's rounded numbers sum to 0.999.
    assert sum(MATERIALS[name].composition.values()) == pytest.approx(1.0, abs=1.1e-3)


def test_electron_density_is_relative_to_water():
    assert MATERIALS["water"].relative_electron_density == pytest.approx(1.0)
    # 2.702 g/cm3: the slab reference of the physics tests, whose Z/A was looked up by hand.
    aluminium = Material("aluminium", 2.702, {"Al": 1.0})
    assert aluminium.relative_electron_density == pytest.approx(2.702 * 0.4818 / 0.5551, rel=3e-4)


@pytest.mark.parametrize(
    ("density", "composition", "message"),
    [
        (1000.0, {"H": 0.112, "O": 0.888}, "g/cm³"),
        (1.0, {"H": 0.112, "O": 0.788}, "sums to 0.9"),
        (1.0, {"H": -0.1, "O": 1.1}, "none below 0"),
        (1.0, {"H2O": 1.0}, "no element"),
        (1.0, {}, "sums to 0"),
    ],
)
def test_what_makes_no_sense_is_refused(density, composition, message):
    with pytest.raises(CaseError, match=message):
        Material("mine", density, composition)
