"""Matrix products. The vjp of a product is a product with the other factor, transposed."""

from __future__ import annotations

import math
from typing import Any

from ..backend import xp_of
from ..kernels import linear as kernels
from ..tensor import Tensor, record
from .operands import broadcast_shape, tensor, tensors
from .reduce import sum
from .shape import broadcast_to, matrix_transpose, reshape

__all__ = ["einsum", "linear", "matmul"]


def matmul(a: Any, b: Any) -> Tensor:
    """C = A B        Ā = C̄ Bᵀ        B̄ = Aᵀ C̄

    Shapes (..., n, k) and (..., k, m); leading axes are a batch and broadcast. A vector counts as
    one row on the left and as one column on the right, and that axis is dropped from the result.
    """
    a, b = tensors("matmul", a, b)
    if a.ndim == 0 or b.ndim == 0:
        raise ValueError(f"matmul: shapes {a.shape} and {b.shape}; to scale by a single number use *")
    if a.ndim == 1:
        product = matmul(reshape(a, 1, -1), b)
        return reshape(product, product.shape[:-2] + product.shape[-1:] if b.ndim > 1 else ())
    if b.ndim == 1:
        product = matmul(a, reshape(b, -1, 1))
        return reshape(product, product.shape[:-1])
    if a.shape[-1] != b.shape[-2]:
        raise ValueError(
            f"matmul: shapes {a.shape} and {b.shape}; the last axis of the first ({a.shape[-1]}) must "
            f"equal the last but one of the second ({b.shape[-2]})"
        )
    if a.ndim > 2 or b.ndim > 2:
        broadcast_shape("matmul (batch axes)", a.shape[:-2], b.shape[:-2])
    return record(
        "matmul",
        kernels.matmul(a._data, b._data),
        (a, lambda g: matmul(g, matrix_transpose(b))),
        (b, lambda g: matmul(matrix_transpose(a), g)),
        broadcasts=True,
    )


def linear(x: Any, weight: Any, bias: Any = None) -> Tensor:
    """Y = X Wᵀ + b        X̄ = Ȳ W        W̄ = Ȳᵀ X        b̄ = Σ Ȳ over the rows

    Shapes: X (..., in), W (out, in), b (out,), Y (..., out). Like convolution (conv.py), it is one of
    three ops whose derivatives are each other, so that no transposed copies are needed:

        Y = X Wᵀ   (linear)          X̄ = Ȳ W         W̄ = Ȳᵀ X
        X = Y W    (linear_input)    Ȳ = X̄ Wᵀ        W̄ = Yᵀ X̄
        W = Yᵀ X   (linear_weight)   X̄ = Y W̄         Ȳ = X W̄ᵀ
    """
    x, weight = tensors("linear", x, weight)
    if weight.ndim != 2 or x.ndim == 0 or x.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"linear: input of shape {x.shape} and weight of shape {weight.shape}; "
            "they must be (..., in) and (out, in)"
        )
    if bias is not None:
        bias = tensor(bias, "linear", like=x)
        if bias.shape != weight.shape[:1]:
            raise ValueError(f"linear: bias of shape {bias.shape} for weight of shape {weight.shape}")
    if x.ndim == 2:
        return _linear(x, weight, bias)
    lead = x.shape[:-1]  # rows are rows, however many axes they come in
    rows = reshape(x, math.prod(lead), x.shape[-1])
    return reshape(_linear(rows, weight, bias), (*lead, weight.shape[0]))


def _linear(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    data = kernels.product(x._data, w._data.T)
    edges = [(x, lambda g: _linear_input(g, w)), (w, lambda g: _linear_weight(g, x))]
    if b is not None:
        edges.append((b, lambda g: sum(g, 0)))
        data = kernels.add_bias(data, b._data)
    return record("linear", data, *edges)


def _linear_input(y: Tensor, w: Tensor) -> Tensor:
    data = kernels.product(y._data, w._data)
    return record("linear_input", data, (y, lambda g: _linear(g, w)), (w, lambda g: _linear_weight(y, g)))


def _linear_weight(y: Tensor, x: Tensor) -> Tensor:
    data = kernels.product(y._data.T, x._data)
    return record("linear_weight", data, (y, lambda g: _linear(x, g)), (x, lambda g: _linear_input(y, g)))


def einsum(subscripts: str, a: Any, b: Any) -> Tensor:
    """Einstein's sum over two operands, as in numpy.einsum

    C[out] = Σ A[in_a] B[in_b]        Ā = einsum(out, in_b → in_a)        B̄ = einsum(out, in_a → in_b)

    >>> einsum("ij,jk->ik", [[1.0, 2.0]], [[3.0], [4.0]])
    Tensor([[11.]], dtype=float64, backend=numpy)
    """
    a, b = tensors("einsum", a, b)
    in_a, in_b, out = _parse(subscripts, a, b)
    data = xp_of(a._data).einsum(f"{in_a},{in_b}->{out}", a._data, b._data, optimize=True)
    shape_a, shape_b = a.shape, b.shape
    return record(
        "einsum",
        data,
        (a, lambda g: _einsum_back(g, out, b, in_b, in_a, shape_a)),
        (b, lambda g: _einsum_back(g, out, a, in_a, in_b, shape_b)),
    )


def _einsum_back(g: Tensor, out: str, other: Tensor, in_other: str, wanted: str, shape: Any) -> Tensor:
    """The gradient of one operand. A letter that only this operand had was summed away: spread it."""
    known = "".join(letter for letter in wanted if letter in out or letter in in_other)
    part = einsum(f"{out},{in_other}->{known}", g, other)
    kept = tuple(n if letter in known else 1 for letter, n in zip(wanted, shape, strict=True))
    return broadcast_to(reshape(part, kept), shape)


def _parse(subscripts: str, a: Tensor, b: Tensor) -> tuple[str, str, str]:
    inputs, arrow, out = subscripts.replace(" ", "").partition("->")
    in_a, comma, in_b = inputs.partition(",")
    letters = in_a + in_b
    if not comma or (letters + out and not (letters + out).isalpha()):
        raise ValueError(f"einsum: {subscripts!r} should read like 'ij,jk->ik', with two operands")
    if not arrow:  # NumPy's rule: the letters that occur once, in alphabetical order
        out = "".join(sorted(letter for letter in set(letters) if letters.count(letter) == 1))
    sizes: dict[str, int] = {}
    for name, x in ((in_a, a), (in_b, b)):
        if len(set(name)) < len(name):
            raise ValueError(f"einsum: {name!r} repeats a letter; take the diagonal by indexing first")
        if len(name) != x.ndim:
            raise ValueError(f"einsum: {name!r} names {len(name)} axes of a Tensor of shape {x.shape}")
        for letter, n in zip(name, x.shape, strict=True):
            if sizes.setdefault(letter, n) != n:
                raise ValueError(
                    f"einsum: axis {letter!r} of {subscripts!r} has length {sizes[letter]} and {n} "
                    f"(shapes {a.shape} and {b.shape})"
                )
    if len(set(out)) < len(out) or set(out) - set(letters):
        raise ValueError(f"einsum: each letter of the result {out!r} must occur once, and in an operand")
    return in_a, in_b, out
