"""Sets of scenarios: the nominal one first, then setup shifts and density scalings with probabilities.

Axis, corner and density scenarios are design points: their probabilities are weights of a quadrature or of a worst
case, not frequencies, so no percentiles may be read from them. Random shifts are samples.
"""

from collections.abc import Sequence
from itertools import product
from typing import Literal

import numpy as np

from engine.errors import StudyError
from engine.model.scenario import Scenario

SetupPattern = Literal["none", "axes", "corners14", "corners26", "cube26", "random"]
NOMINAL = Scenario("nominal")


def setup_shifts(
    pattern: SetupPattern, shift_mm: tuple[float, float, float], number: int, seed: int
) -> list[tuple[str, tuple[float, float, float]]]:
    """Return names and shifts, without the nominal one.

    Parameters
    ----------
    pattern
        ``axes``: 6 shifts along ±x, ±y, ±z. ``corners14``: those and the 8 corners, all on the ellipsoid with the half
        axes ``shift_mm``. ``corners26``: those and the 12 edges, likewise. ``cube26``: all combinations of
        ``-shift_mm``, 0 and ``+shift_mm`` along x, y and z, so that corners are further away than faces. ``random``:
        normally distributed with standard deviations ``shift_mm``.
    shift_mm
        Half axes or standard deviations along x, y, z.
    number, seed
        How many random shifts, and the seed they follow from.
    """
    if pattern == "none":
        return []
    if pattern == "random":
        # Philox is counter-based: the shift of sample i is the same however many samples are drawn.
        drawn = np.random.Generator(np.random.Philox(seed)).standard_normal((number, 3))
        return [
            (f"random {index + 1}", (float(x), float(y), float(z)))
            for index, (x, y, z) in enumerate(drawn * np.asarray(shift_mm))
        ]
    wanted = {"axes": (1,), "corners14": (1, 3), "corners26": (1, 2, 3), "cube26": (1, 2, 3)}[pattern]
    shifts: list[tuple[str, tuple[float, float, float]]] = []
    for n_axis in wanted:
        for signs in product((1, 0, -1), repeat=3):
            # A half axis of 0 means no error along it: its shifts would repeat others.
            if (
                any(s and not mm for s, mm in zip(signs, shift_mm, strict=True))
                or np.count_nonzero(signs) != n_axis
            ):
                continue
            scale = 1.0 if pattern == "cube26" else 1.0 / np.sqrt(n_axis)
            x, y, z = (float(s * scale * mm) for s, mm in zip(signs, shift_mm, strict=True))
            name = " ".join(
                f"{'+' if s > 0 else '-'}{axis}" for s, axis in zip(signs, "xyz", strict=True) if s
            )
            shifts.append((name, (x, y, z)))
    return shifts


def scenario_set(
    shifts: Sequence[tuple[str, tuple[float, float, float]]],
    density_factors: Sequence[float],
    nominal_probability: float,
) -> tuple[Scenario, ...]:
    """Return the nominal scenario and the others, which share the remaining probability equally.

    Density factors are combined with the nominal setup, not with every shift.

    Raises
    ------
    StudyError
        If a probability or factor makes no sense.
    """
    others = [Scenario(name, shift_mm) for name, shift_mm in shifts]
    for factor in density_factors:
        if not 0.5 <= factor <= 2.0 or factor == 1.0:
            raise StudyError(
                f"density factor {factor} makes no sense (give factors like 0.97 and 1.03, without 1)"
            )
        others.append(Scenario(f"density {100.0 * (factor - 1.0):+.1f} %", density_factor=factor))
    if not others:
        return (NOMINAL,)
    if not 0.0 <= nominal_probability < 1.0:
        raise StudyError(f"nominal probability {nominal_probability} must be at least 0 and below 1")
    each = (1.0 - nominal_probability) / len(others)
    return (
        Scenario(NOMINAL.name, probability=nominal_probability),
        *(Scenario(s.name, s.shift_mm, s.density_factor, each) for s in others),
    )
