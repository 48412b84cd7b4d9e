"""The matrix in layouts of scipy, the peer's among them, and both products by them."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from benchmarks.measuring import available_bytes, in_turn, least_and_median
from engine._jit import kernel
from engine.influence.rows import RowGroup
from engine.model.arrays import F32, I32, I64, U16

_SPARE_BYTES = 5e8

Index = npt.NDArray[np.int32] | npt.NDArray[np.int64]
Figures = dict[str, Any]


@dataclass(frozen=True)
class Layout:
    """A layout of scipy.

    Parameters
    ----------
    by_row
        CSR, or else CSC.
    index
        Type of ``indices`` and ``indptr``.
    """

    name: str
    by_row: bool
    index: type[np.signedinteger[Any]]

    def n_bytes(self, n_entry: int) -> int:
        """Return the bytes of so many entries."""
        return n_entry * (4 + np.dtype(self.index).itemsize)


SCIPY = (
    Layout("scipy CSR, float32 + int32", True, np.int32),
    Layout("scipy CSC, float32 + int32", False, np.int32),
)
PEER = Layout("peer's, CSC, float32 + int64", False, np.int64)
"""As pyRadPlan 0.5.0 keeps a matrix and multiplies by it: ``csc_array @ w`` and ``g @ csc_array``."""


@kernel
def _count(
    brick_begin: I64, beamlet: I32, segment_begin: I64, mini: U16, value: U16,
    first_row: int, brick_size: int, by_row: bool, n: I64,
) -> None:  # fmt: skip
    """Count the entries that are not zero, by row or by beamlet, into ``n``."""
    for brick in range(brick_begin.size - 1):
        first = first_row + brick * brick_size
        for segment in range(brick_begin[brick], brick_begin[brick + 1]):
            for i in range(segment_begin[segment], segment_begin[segment + 1]):
                for k in range(8):
                    if value[i, k]:
                        n[first + np.int64(mini[i]) * 8 + k if by_row else beamlet[segment]] += 1


@kernel
def _fill(
    brick_begin: I64, beamlet: I32, scale: F32, segment_begin: I64, mini: U16, value: U16,
    first_row: int, brick_size: int, by_row: bool, at: I64, indices: Index, data: F32,
) -> None:  # fmt: skip
    """Write index and value of every such entry to where its row or beamlet is at, and move on there."""
    for brick in range(brick_begin.size - 1):
        first = first_row + brick * brick_size
        for segment in range(brick_begin[brick], brick_begin[brick + 1]):
            for i in range(segment_begin[segment], segment_begin[segment + 1]):
                for k in range(8):
                    if value[i, k]:
                        row = first + np.int64(mini[i]) * 8 + k
                        line = row if by_row else np.int64(beamlet[segment])
                        indices[at[line]] = beamlet[segment] if by_row else row
                        data[at[line]] = scale[segment] * value[i, k]
                        at[line] += 1


def scipy_matrix(
    groups: Sequence[RowGroup], n_row: int, n_beamlet: int, layout: Layout
) -> sparse.csr_array | sparse.csc_array:
    """Return the same matrix in a layout of scipy, written straight from the tiles, so that no copy is in between.

    Rows are numbered as nightbeam does. Indices come out sorted: groups are in the order of rows, segments in that of
    beamlets.
    """
    n = np.zeros(n_row if layout.by_row else n_beamlet, dtype=np.int64)
    for group in groups:
        _count(
            group.brick_begin, group.beamlet, group.segment_begin, group.mini, group.value,
            group.first_brick * group.brick_size, group.brick_size, layout.by_row, n,
        )  # fmt: skip
    begin = np.concatenate([[0], np.cumsum(n)])
    indices, data = np.empty(int(begin[-1]), dtype=layout.index), np.empty(int(begin[-1]), dtype=np.float32)
    at = begin[:-1].copy()
    for group in groups:
        _fill(
            group.brick_begin, group.beamlet, group.scale, group.segment_begin, group.mini, group.value,
            group.first_brick * group.brick_size, group.brick_size, layout.by_row, at, indices, data,
        )  # fmt: skip
    kind = sparse.csr_array if layout.by_row else sparse.csc_array
    matrix = kind((n_row, n_beamlet), dtype=np.float32)
    # Set one by one: scipy's own constructors would narrow the index type, or copy.
    matrix.data, matrix.indices, matrix.indptr = data, indices, begin.astype(layout.index)
    return matrix


def measure_layouts(
    groups: Sequence[RowGroup], n_row: int, n_beamlet: int, layouts: Sequence[Layout], n_repeat: int
) -> list[Figures]:
    """Return both products' CPU seconds and their largest difference to nightbeam's, layout by layout.

    One is in memory at a time; one that does not fit into what is free is left out, with a word.
    """
    n_entry = sum(int(np.count_nonzero(group.value)) for group in groups)
    random = np.random.default_rng(0)
    weight = random.random(n_beamlet)
    gradient = random.random(n_row)
    ours_dose, ours_slope = np.zeros(n_row), np.zeros(n_beamlet)
    for group in groups:
        rows = slice(group.first_brick * group.brick_size, group.first_brick * group.brick_size + group.n_row)
        ours_dose[rows] = group.dose(weight)
        group.add_adjoint(gradient[rows], ours_slope)
    # Vectors of the values' type: with others, scipy would copy all values first.
    w, g = weight.astype(np.float32), gradient.astype(np.float32)
    found = []
    for layout in layouts:
        needed, there = layout.n_bytes(n_entry) + _SPARE_BYTES, available_bytes()
        if needed > there:
            print(
                f"{layout.name}: left out ({needed / 1e9:.1f} GB needed, {there / 1e9:.1f} GB free)",
                file=sys.stderr,
            )
            continue
        matrix = scipy_matrix(groups, n_row, n_beamlet, layout)
        difference = max(
            float(np.abs(matrix @ w - ours_dose).max() / ours_dose.max()),
            float(np.abs(g @ matrix - ours_slope).max() / ours_slope.max()),
        )
        products: dict[str, Callable[[], object]] = {
            "forward": lambda m=matrix: m @ w,  # type: ignore[misc]
            "adjoint": lambda m=matrix: g @ m,  # type: ignore[misc]
        }
        seconds = in_turn(products, n_repeat)
        found.append(
            {
                "name": layout.name,
                "n_nonzero": int(matrix.nnz),
                "bytes": sum(part.nbytes for part in (matrix.data, matrix.indices, matrix.indptr)),
                "largest_difference_to_tiles_of_maximum": difference,
                **{f"{name}_s": least_and_median(values) for name, values in seconds.items()},
            }
        )
        del matrix, products
    return found


def best_of(found: Sequence[Figures]) -> dict[str, Figures]:
    """Return scipy's faster layout for each product: keys ``forward_s`` and ``adjoint_s``."""
    by_scipy = [layout for layout in found if layout["name"] in {known.name for known in SCIPY}]
    return {
        key: min(by_scipy, key=lambda layout: float(layout[key]["least"])) for key in ("forward_s", "adjoint_s")
    }  # fmt: skip
