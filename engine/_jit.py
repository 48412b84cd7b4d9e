"""The only module that names numba's decorators, so that every kernel is compiled in one way.

``nogil`` lets threads run kernels side by side. ``fastmath`` stays off: it would make results depend on how a
compiler happened to reorder a sum. ``contract`` alone is allowed (fused multiply-add), which is fixed for one kind
of processor.
"""

from collections.abc import Callable
from typing import TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., object])


def kernel(function: F) -> F:
    """Compile ``function`` on first use, cached on disk, without the interpreter lock."""
    return cast("F", numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})(function))


def inlined(function: F) -> F:
    """Compile a small helper that kernels call."""
    return cast(
        "F",
        numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"}, inline="never")(
            function
        ),
    )
