"""A scenario: one way in which delivery may differ from the plan."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scenario:
    """A setup shift and a density scaling with a probability.

    Parameters
    ----------
    name
        Short label for tables and plots.
    shift_mm
        Displacement of the patient against the beams in patient coordinates (LPS), x, y, z.
    density_factor
        Factor on every relative electron density (1.03: everything 3 % denser).
    probability
        Weight in expected values; those of one set sum to 1.
    """

    name: str
    shift_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    density_factor: float = 1.0
    probability: float = 1.0

    @property
    def is_setup_error(self) -> bool:
        """Whether it is a displacement alone, of an unchanged patient."""
        return any(self.shift_mm) and self.density_factor == 1.0
