"""Steps on eight neighbouring numbers as one vector operation, for kernels where the compiler finds none itself.

numba leaves LLVM's straight-line vectoriser off, and a loop of eight is unrolled before the loop vectoriser sees it, so
such code stays scalar. These intrinsics write the vectors down. They check no bounds.
"""

from collections.abc import Callable
from typing import Any, cast

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic

import engine._jit  # noqa: F401  (chooses the folder of machine code)
from engine.model.arrays import F64, U16

_N = 8
_INT64, _DOUBLE, _UINT16 = ir.IntType(64), ir.DoubleType(), ir.IntType(16)
_DOUBLES = ir.VectorType(_DOUBLE, _N)
_LANE = ir.IntType(32)


def _require(*arrays: tuple[Any, Any]) -> None:
    """Refuse to compile for arrays of other types, or with gaps: the pointers below would be wrong.

    Raises
    ------
    TypingError
        At compilation.
    """
    for array, dtype in arrays:
        if not isinstance(array, types.Array) or array.dtype != dtype or array.layout != "C":
            raise TypingError(f"a contiguous array of {dtype} is needed, not {array}")


def _load(builder: Any, array: Any, at: Any, element: Any, n_byte: int) -> tuple[Any, Any]:
    """Return eight elements from position ``at`` of a contiguous array, and the pointer to them."""
    pointer = builder.bitcast(builder.gep(array.data, [at]), ir.VectorType(element, _N).as_pointer())
    return builder.load(pointer, align=n_byte), pointer


def _add_scaled_8(typing: Any, total: Any, at: Any, factor: Any, count: Any, i: Any) -> Any:
    """``total[at:at + 8] += factor * count[i, :]`` for float64 (n,), int64, float64, uint16 (m, 8), int64."""
    del typing
    _require((total, types.float64), (count, types.uint16))

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        totals, counts = (
            context.make_array(signature.args[k])(context, builder, arguments[k]) for k in (0, 3)
        )
        value, _ = _load(builder, counts, builder.mul(arguments[4], _INT64(_N)), _UINT16, 2)
        nothing = ir.Constant(_DOUBLES, ir.Undefined)
        first = builder.insert_element(nothing, arguments[2], _LANE(0))
        factors = builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(_LANE, _N), [0] * _N))
        old, pointer = _load(builder, totals, arguments[1], _DOUBLE, 8)
        product = builder.fmul(factors, builder.uitofp(value, _DOUBLES), flags=("contract",))
        builder.store(builder.fadd(old, product, flags=("contract",)), pointer, align=8)
        return context.get_dummy_value()

    return types.void(total, at, factor, count, i), generate


def _dot_8(typing: Any, x: Any, first: Any, mini: Any, count: Any, begin: Any, end: Any) -> Any:
    """Sum of ``x[first + 8 * mini[i] + k] * count[i, k]`` over i in [begin, end) and k in [0, 8).

    Types: float64 (n,), int64, uint16 (m,), uint16 (m, 8), int64, int64. Eight sums, one for each k, are added in
    the order ((0 + 4) + (2 + 6)) + ((1 + 5) + (3 + 7)).
    """
    del typing
    _require((x, types.float64), (mini, types.uint16), (count, types.uint16))

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        xs, minis, counts = (
            context.make_array(signature.args[k])(context, builder, arguments[k]) for k in (0, 2, 3)
        )
        zeros = ir.Constant(_DOUBLES, [0.0] * _N)
        total = cgutils.alloca_once_value(builder, zeros)  # type: ignore[no-untyped-call]
        with cgutils.for_range_slice(builder, arguments[4], arguments[5], _INT64(1)) as (i, _):
            number = builder.zext(builder.load(builder.gep(minis.data, [i])), _INT64)
            at = builder.add(arguments[1], builder.mul(number, _INT64(_N)))
            value, _ = _load(builder, counts, builder.mul(i, _INT64(_N)), _UINT16, 2)
            here, _ = _load(builder, xs, at, _DOUBLE, 8)
            product = builder.fmul(here, builder.uitofp(value, _DOUBLES), flags=("contract",))
            builder.store(builder.fadd(builder.load(total), product, flags=("contract",)), total)
        lanes = [builder.extract_element(builder.load(total), _LANE(k)) for k in range(_N)]
        while len(lanes) > 1:
            half = len(lanes) // 2
            lanes = [builder.fadd(a, b) for a, b in zip(lanes[:half], lanes[half:], strict=True)]
        return lanes[0]

    return types.float64(x, first, mini, count, begin, end), generate


add_scaled_8 = cast("Callable[[F64, Any, float, U16, int], None]", intrinsic(_add_scaled_8))
dot_8 = cast("Callable[[F64, int, U16, U16, Any, Any], float]", intrinsic(_dot_8))
