"""Conversion factors by name. Internal units: mm, MeV, Gy, g/cm3, degrees at interfaces, radians in kernels."""

import math

RAD_PER_DEG = math.pi / 180.0
MM_PER_CM = 10.0
CM_PER_MM = 0.1
MM3_PER_CM3 = 1000.0
PERCENT = 100.0
JOULE_PER_MEV = 1.602176634e-13
"""Exact by the SI definition of the elementary charge (2019)."""
GY_PER_MEV_G = JOULE_PER_MEV * 1000.0
"""Gy for 1 MeV absorbed in 1 g."""
