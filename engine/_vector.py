"""Eight neighbouring numbers as one value, for kernels where the compiler finds no vectors itself.

numba leaves LLVM's straight-line vectoriser off, and a loop of eight is unrolled before the loop vectoriser sees it, so
such code stays scalar. Here are vectors of eight as a type of their own: `load` and `store` them at a position of a
contiguous array, calculate with ``+ - * /``, `smaller`, `larger`, `where_at_most`, `whole`, `root` and `gather`.
Nothing checks bounds. Additions and multiplications may be contracted (fused), as in every kernel (`engine._jit`).
"""

import math
import operator
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic, models, overload, register_model

import engine._jit  # noqa: F401  (chooses the folder of machine code)
from engine.model.arrays import F64

N = 8
_LINE = 64
"""Bytes of a cache line, and of eight float64: from there on, no vector of theirs lies across two lines."""
_INT32 = ir.IntType(32)
_LLVM = {
    types.float32: ir.FloatType(),
    types.float64: ir.DoubleType(),
    types.int32: _INT32,
    types.uint16: ir.IntType(16),
}


def aligned_zeros(shape: tuple[int, ...]) -> F64:
    """Return zeros that begin where a line of the processor's cache does.

    A vector that lies across two lines takes twice as long to load or store; numpy begins anywhere.
    """
    n = math.prod(shape)
    room = np.zeros(n + _LINE // 8 - 1)
    begin = -room.ctypes.data % _LINE // 8
    zeros: F64 = room[begin : begin + n].reshape(shape)
    return zeros


def aligned(numbers: F64) -> F64:
    """Return the array if it is contiguous and begins where a cache line does, or else a copy that does."""
    if numbers.flags.c_contiguous and numbers.ctypes.data % _LINE == 0 and numbers.dtype == np.float64:
        return numbers
    copy = aligned_zeros(numbers.shape)
    copy[:] = numbers
    return copy


class Vector(types.Type):
    """Eight elements of one scalar type."""

    def __init__(self, element: Any) -> None:
        self.element = element
        super().__init__(name=f"Vector8({element})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: Any) -> None:
        super().__init__(manager, fe_type, ir.VectorType(_LLVM[fe_type.element], N))  # type: ignore[no-untyped-call]


def _require_array(array: Any, *elements: Any) -> None:
    """Refuse to compile for arrays of other types, or with gaps: the pointers below would be wrong.

    Raises
    ------
    TypingError
        At compilation.
    """
    if not isinstance(array, types.Array) or array.dtype not in elements or array.layout != "C":
        raise TypingError(f"a contiguous array of {elements} is needed, not {array}")


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, at: Any) -> Any:
    element = _LLVM[array_type.dtype]
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at]), ir.VectorType(element, N).as_pointer())


def _repeat(builder: Any, scalar: Any) -> Any:
    """Return a vector of eight times the same."""
    nothing = ir.Constant(ir.VectorType(scalar.type, N), ir.Undefined)
    first = builder.insert_element(nothing, scalar, _INT32(0))
    return builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(_INT32, N), [0] * N))


def _load(typing: Any, array: Any, at: Any) -> Any:
    """Return elements ``at`` to ``at + 7`` of a contiguous array, flat in memory."""
    del typing
    _require_array(array, types.float32, types.float64, types.int32)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], arguments[0], arguments[1])
        return builder.load(pointer, align=array.dtype.bitwidth // 8)

    return Vector(array.dtype)(array, types.intp), generate


def _load_counts(typing: Any, array: Any, at: Any) -> Any:
    """Return elements ``at`` to ``at + 7`` of a contiguous uint16 array as float64."""
    del typing
    _require_array(array, types.uint16)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], arguments[0], arguments[1])
        return builder.uitofp(builder.load(pointer, align=2), ir.VectorType(_LLVM[types.float64], N))

    return Vector(types.float64)(array, types.intp), generate


def _store(typing: Any, array: Any, at: Any, vector: Any) -> Any:
    """Write a vector to elements ``at`` to ``at + 7`` of a contiguous array of its type."""
    del typing
    _require_array(array, vector.element)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], arguments[0], arguments[1])
        builder.store(arguments[2], pointer, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


def _store_counts(typing: Any, array: Any, at: Any, vector: Any) -> Any:
    """Write a float32 vector, cut to whole numbers, to ``at`` to ``at + 7`` of a contiguous uint16 array."""
    del typing
    _require_array(array, types.uint16)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], arguments[0], arguments[1])
        whole = builder.fptosi(arguments[2], ir.VectorType(_INT32, N))
        builder.store(builder.trunc(whole, ir.VectorType(_LLVM[types.uint16], N)), pointer, align=2)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


def _spread(typing: Any, scalar: Any) -> Any:
    """Return eight times the same."""
    del typing
    if scalar not in (types.float32, types.float64, types.int32):
        raise TypingError(f"a float32, float64 or int32 is needed, not {scalar}")

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del context, signature
        return _repeat(builder, arguments[0])

    return Vector(scalar)(scalar), generate


def _whole(typing: Any, vector: Any) -> Any:
    """Return the integers below numbers that are not negative."""
    del typing

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del context, signature
        return builder.fptosi(arguments[0], ir.VectorType(_INT32, N))

    return Vector(types.int32)(vector), generate


def _as_float(typing: Any, vector: Any) -> Any:
    """Return integers as float32."""
    del typing

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del context, signature
        return builder.sitofp(arguments[0], ir.VectorType(_LLVM[types.float32], N))

    return Vector(types.float32)(vector), generate


def _gather(typing: Any, array: Any, at: Any, index: Any) -> Any:
    """Return the elements ``at + index`` of a contiguous float32 array."""
    del typing
    _require_array(array, types.float32)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        result, lanes = (ir.VectorType(element, N) for element in (_LLVM[types.float32], ir.IntType(64)))
        address = builder.ptrtoint(builder.gep(data, [arguments[1]]), ir.IntType(64))
        n_byte = ir.Constant(lanes, [4] * N)
        addresses = builder.add(
            _repeat(builder, address), builder.mul(builder.sext(arguments[2], lanes), n_byte)
        )
        pointers = builder.inttoptr(addresses, ir.VectorType(data.type, N))
        every = ir.Constant(ir.VectorType(ir.IntType(1), N), [1] * N)
        kind = ir.FunctionType(result, [pointers.type, _INT32, every.type, result])
        function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.masked.gather.v{N}f32.v{N}p0")  # type: ignore[no-untyped-call]
        return builder.call(function, [pointers, _INT32(4), every, ir.Constant(result, ir.Undefined)])

    return Vector(types.float32)(array, types.intp, index), generate


def _as_double(typing: Any, vector: Any) -> Any:
    """Return float32 as float64."""
    del typing

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del context, signature
        return builder.fpext(arguments[0], ir.VectorType(_LLVM[types.float64], N))

    return Vector(types.float64)(vector), generate


def _where_at_most(typing: Any, left: Any, right: Any, then: Any, otherwise: Any) -> Any:
    """Return ``then`` in lanes where ``left <= right``, and ``otherwise`` in the others."""
    del typing
    if left != right or then != otherwise:
        raise TypingError(f"pairs of one type are needed, not {left}, {right}, {then}, {otherwise}")

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del context, signature
        a, b, x, y = arguments
        return builder.select(builder.fcmp_ordered("<=", a, b), x, y)

    return then(left, right, then, otherwise), generate


def _root(typing: Any, vector: Any) -> Any:
    """Return the square roots."""
    del typing

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del context, signature
        kind = arguments[0].type
        name = f"llvm.sqrt.v{N}f{vector.element.bitwidth}"
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind]), name)  # type: ignore[no-untyped-call]
        return builder.call(function, [arguments[0]])

    return vector(vector), generate


def _fold(combine: Callable[[Any, Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def typed(typing: Any, vector: Any) -> Any:
        del typing

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            del context, signature
            lanes = [builder.extract_element(arguments[0], _INT32(k)) for k in range(N)]
            while len(lanes) > 1:
                half = len(lanes) // 2
                lanes = [combine(builder, a, b) for a, b in zip(lanes[:half], lanes[half:], strict=True)]
            return lanes[0]

        return vector.element(vector), generate

    return typed


def _elementwise(combine: Callable[[Any, Any, Any], Any]) -> Callable[[Any, Any, Any], Any]:
    def typed(typing: Any, left: Any, right: Any) -> Any:
        del typing
        if not isinstance(left, Vector) or left != right:
            raise TypingError(f"two vectors of one type are needed, not {left} and {right}")

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            del context, signature
            return combine(builder, *arguments)

        return left(left, right), generate

    return typed


def _select(ordering: str) -> Callable[[Any, Any, Any], Any]:
    def select(builder: Any, a: Any, b: Any) -> Any:
        integer = isinstance(getattr(a.type, "element", a.type), ir.IntType)
        compare = builder.icmp_signed if integer else builder.fcmp_ordered
        return builder.select(compare(ordering, a, b), a, b)

    return select


def _arithmetic(name: str) -> Callable[[Any, Any, Any], Any]:
    def calculate(builder: Any, a: Any, b: Any) -> Any:
        if isinstance(getattr(a.type, "element", a.type), ir.IntType):
            return getattr(builder, name)(a, b)
        return getattr(builder, f"f{name}")(a, b, flags=("contract",))

    return calculate


def _overload(operation: Callable[[Any, Any], Any], name: str) -> None:
    calculate = cast("Callable[[Any, Any], Any]", intrinsic(_elementwise(_arithmetic(name))))

    # Without annotations: numba compares this signature with that of the lambda.
    @overload(operation)
    def _of_vectors(left, right):  # type: ignore[no-untyped-def]
        if isinstance(left, Vector) and isinstance(right, Vector):
            return lambda left, right: calculate(left, right)
        return None


for _operation, _name in (
    (operator.add, "add"),
    (operator.sub, "sub"),
    (operator.mul, "mul"),
    (operator.truediv, "div"),
):
    _overload(_operation, _name)

load = cast("Callable[[Any, Any], Any]", intrinsic(_load))
load_counts = cast("Callable[[Any, Any], Any]", intrinsic(_load_counts))
store = cast("Callable[[Any, Any, Any], None]", intrinsic(_store))
store_counts = cast("Callable[[Any, Any, Any], None]", intrinsic(_store_counts))
spread = cast("Callable[[Any], Any]", intrinsic(_spread))
whole = cast("Callable[[Any], Any]", intrinsic(_whole))
as_float = cast("Callable[[Any], Any]", intrinsic(_as_float))
gather = cast("Callable[[Any, Any, Any], Any]", intrinsic(_gather))
as_double = cast("Callable[[Any], Any]", intrinsic(_as_double))
where_at_most = cast("Callable[[Any, Any, Any, Any], Any]", intrinsic(_where_at_most))
root = cast("Callable[[Any], Any]", intrinsic(_root))
smaller = cast("Callable[[Any, Any], Any]", intrinsic(_elementwise(_select("<"))))
larger = cast("Callable[[Any, Any], Any]", intrinsic(_elementwise(_select(">"))))
largest = cast("Callable[[Any], Any]", intrinsic(_fold(_select(">"))))
least = cast("Callable[[Any], Any]", intrinsic(_fold(_select("<"))))
total = cast("Callable[[Any], Any]", intrinsic(_fold(_arithmetic("add"))))
