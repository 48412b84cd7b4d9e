"""Mass attenuation coefficients against what NIST prints."""

import numpy as np
import pytest

from engine.errors import CaseError
from engine.physics.attenuation import PAIR_THRESHOLD_MEV, mass_attenuation
from engine.physics.materials import MATERIALS, Material


@pytest.mark.parametrize(
    ("material", "printed_cm2_g"),
    [
        (MATERIALS["water"], [0.1707, 0.07072, 0.04942, 0.02770]),
        (MATERIALS["air"], [0.1541, 0.06358, 0.04447, 0.02522]),
        (MATERIALS["aluminium"], [0.1704, 0.06146, 0.04324, 0.02655]),
        (Material("iron", 7.874, {"Fe": 1.0}), [0.3717, 0.05995, 0.04265, 0.03057]),
        (Material("lead", 11.35, {"Pb": 1.0}), [5.549, 0.07102, 0.04606, 0.04391]),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_attenuation_is_that_of_nist(material: Material, printed_cm2_g: list[float]) -> None:
    found = mass_attenuation(material, np.array([0.1, 1.0, 2.0, 6.0])).total
    # SRD 126 prints four digits and has another grid of energies than XCOM.
    np.testing.assert_allclose(found, printed_cm2_g, rtol=5e-4)


def test_pair_production_rises_smoothly_from_its_threshold() -> None:
    energy_mev = np.geomspace(PAIR_THRESHOLD_MEV, 50.0, 400)
    pair = mass_attenuation(MATERIALS["water"], energy_mev).pair
    assert pair[0] == 0.0
    assert np.all(np.diff(pair) > 0.0)


def test_attenuation_jumps_at_the_k_edge_of_lead() -> None:
    below, above = mass_attenuation(
        Material("lead", 11.35, {"Pb": 1.0}), np.array([0.0880, 0.08801])
    ).photoelectric
    # NIST prints 1.910 below and 7.683 above for the total, of which coherent and incoherent scattering are 0.3.
    assert above / below == pytest.approx(4.73, rel=0.02)


def test_energies_beyond_the_tables_are_refused() -> None:
    with pytest.raises(CaseError, match="100 MeV"):
        mass_attenuation(MATERIALS["water"], np.array([200.0]))
