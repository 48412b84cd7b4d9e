"""The generator of the Monte Carlo calculations: splitmix64, one stream per history.

Steele, Lea and Flood, OOPSLA 2014, with the finaliser constants of Stafford's mix 13. Seeding hashes the key, so
that streams of neighbouring histories begin at unrelated places of the period of 2**64.
"""

import numpy as np
import numpy.typing as npt

from engine._jit import inlined

U64 = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_SHIFT_30 = np.uint64(30)
_SHIFT_27 = np.uint64(27)
_SHIFT_31 = np.uint64(31)
_SHIFT_11 = np.uint64(11)
_TO_UNIT = 1.0 / 9007199254740992.0
"""2**-53: the step of a float64 in [0.5, 1)."""


@inlined
def mixed(value: np.uint64) -> np.uint64:
    """Return the finaliser of splitmix64, a bijection of 64-bit words."""
    value = (value ^ (value >> _SHIFT_30)) * _MIX_1
    value = (value ^ (value >> _SHIFT_27)) * _MIX_2
    return value ^ (value >> _SHIFT_31)


@inlined
def seed_history(random_state: U64, seed: np.uint64, history: np.uint64) -> None:
    """Set ``random_state`` (shape (1,)) to the beginning of the stream of one history."""
    random_state[0] = mixed(mixed(seed + _GOLDEN) ^ (history * _GOLDEN + _MIX_2))


@inlined
def uniform(random_state: U64) -> float:
    """Return the next number of the stream, uniform in (0, 1): never 0, so that its logarithm exists."""
    random_state[0] += _GOLDEN
    return (np.float64(mixed(random_state[0]) >> _SHIFT_11) + 0.5) * _TO_UNIT
