"""Sampling of single interactions: kernels that draw energies and angles, in any material."""

import math

from engine._jit import inlined
from engine.model.arrays import F64
from engine.physics.constants import ELECTRON_REST_ENERGY_MEV, FINE_STRUCTURE_CONSTANT
from engine.physics.monte_carlo.collisions import bhabha_coefficients
from engine.physics.monte_carlo.elastic import SINGLE_ONE_MINUS_COS
from engine.physics.monte_carlo.random_numbers import U64, uniform

M = ELECTRON_REST_ENERGY_MEV
_PI_ALPHA = math.pi * FINE_STRUCTURE_CONSTANT
_INVERSE_SMALLEST = 1.0 / SINGLE_ONE_MINUS_COS
_bhabha_coefficients = inlined(bhabha_coefficients)
_MOLLER_BOUND = 2.25
"""Largest value of the Moller bracket times the squared share, reached at a share of one half."""


@inlined
def compton_photon_mev(energy_mev: float, random_state: U64) -> float:
    """Return the energy of a photon scattered by a free electron at rest (Klein and Nishina 1929).

    Composition and rejection after Butcher and Messel (Nucl. Phys. 20 (1960) 15): the share e of energy kept is drawn
    from 1/e or from e and accepted with 1 - e sin2(theta) / (1 + e2).
    """
    smallest = 1.0 / (1.0 + 2.0 * energy_mev / M)
    weight_inverse = -math.log(smallest)
    weight_linear = 0.5 * (1.0 - smallest * smallest)
    while True:
        if uniform(random_state) * (weight_inverse + weight_linear) < weight_inverse:
            kept = math.exp(-weight_inverse * uniform(random_state))
        else:
            kept = math.sqrt(smallest * smallest + (1.0 - smallest * smallest) * uniform(random_state))
        one_minus_cos = M * (1.0 - kept) / (energy_mev * kept)
        sine2 = one_minus_cos * (2.0 - one_minus_cos)
        if uniform(random_state) <= 1.0 - kept * sine2 / (1.0 + kept * kept):
            return kept * energy_mev


@inlined
def compton_photon_cosine(energy_mev: float, scattered_mev: float) -> float:
    """Return the cosine of the photon's deflection."""
    return 1.0 - M * (energy_mev - scattered_mev) / (energy_mev * scattered_mev)


@inlined
def compton_electron_cosine(energy_mev: float, scattered_mev: float) -> float:
    """Return the cosine between the photon before and the electron after the collision."""
    kinetic_mev = energy_mev - scattered_mev
    if kinetic_mev <= 0.0:
        return 0.0
    cosine = (energy_mev + M) / energy_mev * math.sqrt(kinetic_mev / (kinetic_mev + 2.0 * M))
    return min(cosine, 1.0)


@inlined
def forward_cosine(kinetic_mev: float, random_state: U64) -> float:
    """Return a cosine that is isotropic in the system of an electron of this kinetic energy.

    The leading term of the angular distributions of pair electrons (Sauter; Motz, Olsen and Koch 1969, 3D-2000) and of
    bremsstrahlung (1 / (1 - beta cos)**2).
    """
    beta = math.sqrt(kinetic_mev * (kinetic_mev + 2.0 * M)) / (kinetic_mev + M)
    cosine_at_rest = 2.0 * uniform(random_state) - 1.0
    return (cosine_at_rest + beta) / (1.0 + cosine_at_rest * beta)


@inlined
def knock_on_mev(kinetic_mev: float, cutoff_mev: float, random_state: U64) -> float:
    """Return the energy of a knock-on electron above a cut-off, by rejection from 1/share**2 (Moller 1932)."""
    tau = kinetic_mev / M
    constant = (tau / (tau + 1.0)) ** 2
    mixed = (2.0 * tau + 1.0) / (tau + 1.0) ** 2
    smallest = cutoff_mev / kinetic_mev
    while True:
        share = 1.0 / (1.0 / smallest - (1.0 / smallest - 2.0) * uniform(random_state))
        ratio = share / (1.0 - share)
        bracket = 1.0 + ratio * ratio + constant * share * share - mixed * ratio
        if uniform(random_state) * _MOLLER_BOUND <= bracket:
            return share * kinetic_mev


@inlined
def collision_cosine(kinetic_mev: float, outgoing_mev: float) -> float:
    """Return the cosine between an electron before and an electron of ``outgoing_mev`` after a free collision."""
    return math.sqrt(outgoing_mev * (kinetic_mev + 2.0 * M) / (kinetic_mev * (outgoing_mev + 2.0 * M)))


@inlined
def multiple_scattering_cosine(mean_one_minus_cos: float, random_state: U64) -> float:
    """Return the cosine of all small deflections in a step together: the Gaussian on the sphere (Fisher 1953).

    Its density is proportional to exp(k cos); k is set so that the mean of 1 - cos is right, by one step of the fixed
    point iteration of coth k - 1/k (exact to 1e-3 for means up to 0.3).
    """
    concentration = 1.0 / (mean_one_minus_cos + 2.0 / (math.exp(2.0 / mean_one_minus_cos) - 1.0))
    floor = math.exp(-2.0 * concentration)
    draw = uniform(random_state)
    return max(-1.0, 1.0 + math.log(draw + (1.0 - draw) * floor) / concentration)


@inlined
def turn(particle: F64, cosine: float, azimuth_rad: float) -> None:
    """Deflect a particle's direction (columns 4 to 6: u, v, w) by a polar and an azimuthal angle, in place."""
    sine = math.sqrt(max(0.0, 1.0 - cosine * cosine))
    across = sine * math.cos(azimuth_rad)
    along = sine * math.sin(azimuth_rad)
    u, v, w = particle[4], particle[5], particle[6]
    transverse2 = u * u + v * v
    if transverse2 > 1.0e-12:
        transverse = math.sqrt(transverse2)
        particle[4] = u * cosine + (u * w * across - v * along) / transverse
        particle[5] = v * cosine + (v * w * across + u * along) / transverse
        particle[6] = w * cosine - transverse * across
    else:
        particle[4], particle[5] = across, along
        particle[6] = cosine if w > 0.0 else -cosine
    norm = math.sqrt(particle[4] ** 2 + particle[5] ** 2 + particle[6] ** 2)
    particle[4] /= norm
    particle[5] /= norm
    particle[6] /= norm


@inlined
def bhabha_knock_on_mev(kinetic_mev: float, cutoff_mev: float, random_state: U64) -> float:
    """Return the energy of an electron that a positron knocks on, above a cut-off, by rejection from 1/share**2."""
    b1, b2, b3, b4 = _bhabha_coefficients(kinetic_mev / M)
    smallest = cutoff_mev / kinetic_mev
    while True:
        share = 1.0 / (1.0 / smallest - (1.0 / smallest - 1.0) * uniform(random_state))
        bracket = 1.0 - share * (b1 - share * (b2 - share * (b3 - share * b4)))
        if uniform(random_state) <= bracket:
            return share * kinetic_mev


@inlined
def hard_deflection_cosine(
    kinetic_mev: float,
    charge_sign: float,
    material: int,
    heaviest: F64,
    element_share: F64,
    element_number: F64,
    element_screening_mev2: F64,
    random_state: U64,
) -> float:
    """Return the cosine of a large deflection by a nucleus of a mixture, 1 if there was none.

    An element and 1 - cos are drawn as for bare Rutherford scattering. Screening and the Mott factor, relative to the
    bound that went into the number of collisions, say whether there was one.

    Parameters
    ----------
    charge_sign
        1 for electrons, -1 for positrons.
    material, heaviest, element_share, element_number, element_screening_mev2
        See `engine.physics.monte_carlo.tables.Tables`.
    """
    momentum2_mev2 = kinetic_mev * (kinetic_mev + 2.0 * M)
    beta2 = momentum2_mev2 / (kinetic_mev + M) ** 2
    beta = math.sqrt(beta2)
    draw = uniform(random_state)
    element = 0
    while draw >= element_share[material, element] and element < element_share.shape[1] - 1:
        element += 1
    number = element_number[material, element]
    x = 1.0 / (_INVERSE_SMALLEST - (_INVERSE_SMALLEST - 0.5) * uniform(random_state))
    born2 = (FINE_STRUCTURE_CONSTANT * number) ** 2 / beta2
    screening = element_screening_mev2[material, element] / momentum2_mev2 * (1.13 + 3.76 * born2)
    sine = math.sqrt(min(1.0, 0.5 * x))
    spin = _PI_ALPHA * number * beta
    factor = 1.0 - beta2 * sine * sine + charge_sign * spin * sine * (1.0 - sine)
    factor *= (x / (x + screening)) ** 2
    return (
        1.0 - x
        if uniform(random_state) * (1.0 + 0.25 * _PI_ALPHA * heaviest[material] * beta) <= factor
        else 1.0
    )


@inlined
def quantile(quantiles: F64, place: float, random_state: U64) -> float:
    """Return a random number by its quantiles, shape (n_energy, n_quantile), at a fractional row number.

    One of the two neighbouring rows is drawn, so that the mixture of both distributions results.
    """
    row = min(max(int(place), 0), quantiles.shape[0] - 2)
    if uniform(random_state) < place - row:
        row += 1
    position = uniform(random_state) * (quantiles.shape[1] - 1)
    column = int(position)
    share = position - column
    return float(quantiles[row, column] * (1.0 - share) + quantiles[row, column + 1] * share)
