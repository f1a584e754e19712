"""The three transforms of Winograd's F(4x4, 3x3), and their transposes, as straight-line vector code.

Each is a sandwich M d M' of a small constant matrix around a square of vectors: 4, 8 or 16 channels at a time. The
code is emitted from the matrix itself.

The matrices are those of Lavin and Gray, "Fast algorithms for convolutional neural networks" (2015,
arXiv:1509.09308), section 4.2, for the interpolation points 0, 1, -1, 2, -2 and infinity.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import types
from numba.extending import intrinsic

from nnlite.compiler.values import address_value, align_stack, constant_value, fma_value, load_value, store_value

#: a 6x6 tile of the input, 4 apart, gives a 4x4 tile of the output
BT = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
G = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)
AT = np.array(
    [
        [1, 1, 1, 1, 1, 0],
        [0, 1, -1, 2, -2, 0],
        [0, 1, 1, 4, 4, 0],
        [0, 1, -1, 8, -8, 1],
    ]
)


def sandwich(matrix: np.ndarray, adds: bool = False) -> Any:
    """A function for kernels: out = matrix d matrix', or += if it `adds`, over squares of vectors that lie in arrays.

    sandwich(source, offset, row, column, out, out_offset, out_row, out_column): element (i, j) of d is the vector at
    source[offset + i * row + j * column], and the same for the result.
    """

    @intrinsic
    def apply(typing, source, offset, row, column, out, out_offset, out_row, out_column):
        def emit(context, builder, sig, args):
            def place(array: int, i: int, j: int) -> Any:
                start, row, column = args[array + 1 : array + 4]
                steps = builder.add(*(builder.mul(step, step.type(k)) for step, k in ((row, i), (column, j))))
                return address_value(context, builder, sig.args[array], args[array], builder.add(start, steps))

            align_stack(builder)
            size_out, size = matrix.shape
            half = []  # the columns of matrix @ d
            for j in range(size):
                half.append(_product(builder, matrix, [load_value(builder, place(0, i, j)) for i in range(size)]))
            for i in range(size_out):
                for j, value in enumerate(_product(builder, matrix, [half[k][i] for k in range(size)])):
                    if adds:
                        value = builder.fadd(load_value(builder, place(4, i, j)), value)
                    store_value(builder, value, place(4, i, j))
            return context.get_dummy_value()

        steps = (types.int64,) * 3
        return types.void(source, *steps, out, *steps), emit

    return apply


def _product(builder: Any, matrix: np.ndarray, vectors: list) -> list:
    """matrix @ vectors in few instructions: columns or rows that differ in signs only share their sums."""
    matrix, vectors = matrix.astype(np.float64), list(vectors)
    for i, j in _pairs(matrix.T):
        same = matrix[:, i] == matrix[:, j]
        matrix[:, j] = np.where(same, 0, matrix[:, i])
        matrix[:, i] = np.where(same, matrix[:, i], 0)
        vectors[i], vectors[j] = builder.fadd(vectors[i], vectors[j]), builder.fsub(vectors[i], vectors[j])
    results: dict[int, Any] = {}
    for i, j in _pairs(matrix):
        same = matrix[i] == matrix[j]
        even = _sum(builder, np.where(same, matrix[i], 0), vectors)
        odd = _sum(builder, np.where(same, 0, matrix[i]), vectors)
        results[i], results[j] = builder.fadd(even, odd), builder.fsub(even, odd)
    for i, row in enumerate(matrix):
        if i not in results:
            results[i] = _sum(builder, row, vectors)
    return [results[i] for i in range(len(matrix))]


def _pairs(rows: np.ndarray) -> list[tuple[int, int]]:
    """The neighbouring rows that are equal but for the signs of some elements."""
    return [
        (i, i + 1)
        for i in range(len(rows) - 1)
        if np.array_equal(abs(rows[i]), abs(rows[i + 1])) and abs(rows[i] - rows[i + 1]).sum() > 0
    ]


def _sum(builder: Any, coefficients: np.ndarray, vectors: list) -> Any:
    """The sum of coefficient * vector; those of coefficient 1 and -1 cost no multiplication."""
    order = {1.0: 0, -1.0: 1}  # the others last, as fused multiply-adds
    terms = sorted(
        ((c, v) for c, v in zip(coefficients, vectors, strict=True) if c), key=lambda term: order.get(term[0], 2)
    )
    total = None
    for coefficient, value in terms:
        if total is None:
            total = value if coefficient == 1 else builder.fmul(value, constant_value(coefficient))
        elif coefficient == 1:
            total = builder.fadd(total, value)
        elif coefficient == -1:
            total = builder.fsub(total, value)
        else:
            total = fma_value(builder, value, constant_value(coefficient), total)
    return total
