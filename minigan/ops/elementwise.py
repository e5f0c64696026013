"""Ops that work on each entry by itself.

Read these as a table: the docstring gives the formula and, behind it, what becomes of the output's
gradient ȳ (or c̄). Two inputs of different shapes are broadcast, as in NumPy; an entry that was used
many times then collects a gradient from each use: broadcasts=True has the tape sum them up.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import Array, xp_of
from ..kernels import elementwise as kernels
from ..tensor import Tensor, constant, record, shortcut
from .operands import Number, broadcast_shape, number, operands, tensor

__all__ = [
    "abs", "add", "astype", "clip", "copy", "cos", "div", "elu", "exp", "expm1", "leaky_relu", "log", "log1p",
    "maximum", "minimum", "mul", "neg", "pow", "relu", "sigmoid", "silu", "sin", "softplus", "sqrt", "square",
    "sub", "tanh", "where",
]  # fmt: skip

# ------------------------------------------------------------------------------ two operands


def add(a: Any, b: Any) -> Tensor:
    """c = a + b        ā = c̄        b̄ = c̄"""
    a, b = operands("add", a, b)
    return record("add", a._data + b._data, (a, lambda g: g), (b, lambda g: g), broadcasts=True)


def sub(a: Any, b: Any) -> Tensor:
    """c = a - b        ā = c̄        b̄ = -c̄"""
    a, b = operands("sub", a, b)
    return record("sub", a._data - b._data, (a, lambda g: g), (b, lambda g: -g), broadcasts=True)


def mul(a: Any, b: Any) -> Tensor:
    """c = a b        ā = c̄ b        b̄ = c̄ a"""
    a, b = operands("mul", a, b)
    return record("mul", a._data * b._data, (a, lambda g: g * b), (b, lambda g: g * a), broadcasts=True)


def div(a: Any, b: Any) -> Tensor:
    """c = a / b        ā = c̄ / b        b̄ = -c̄ (c / b)"""
    a, b = operands("div", a, b)
    if type(b) is Number:  # nobody will need the output
        return record("div", a._data / b._data, (a, lambda g: g / b))
    return record(
        "div",
        a._data / b._data,
        (a, lambda g, c: g / b),
        (b, lambda g, c: -(g * (c / b))),
        broadcasts=True,
        output=True,
    )


def pow(a: Any, b: Any) -> Tensor:
    """c = aᵇ        ā = c̄ b aᵇ⁻¹   (0 where b = 0)        b̄ = c̄ c log a   (its limit 0 at a = 0 for b ≥ 0)"""
    a, b = operands("pow", a, b)
    if type(b) is Number and b._data == 0.5:  # of (-∞)^½ the libraries have two opinions, of its root one
        return sqrt(a)
    data = a._data**b._data
    if type(b) is Number:
        n = b._data
        if n == 0:
            return record("pow", data, (a, lambda g: masked(g, xp_of(g._data).zeros(g.shape, bool))))
        return record("pow", data, (a, lambda g: g * (n * a ** (n - 1))))
    if type(a) is Number:
        a = constant(xp_of(b._data).full((), a._data, data.dtype))
    return record(
        "pow",
        data,
        (a, lambda g, c: _to_base(g, a, b)),
        (b, lambda g, c: _to_exponent(g, c, a, b)),
        broadcasts=True,
        output=True,
    )


def _to_base(g: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """g b aᵇ⁻¹. Where b = 0 it is 0 even if g or aᵇ⁻¹ is no ordinary number. (If they are, it slopes.)"""
    xp = xp_of(g._data)
    ordinary = (xp.abs(a._data) >= np.finfo(g.dtype).tiny) & xp.isfinite(g._data)
    chosen = (b._data == 0) & ~ordinary
    return masked(g, ~chosen) * (b * a ** where(chosen, 0.0, b - 1))


def _to_exponent(g: Tensor, c: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """g c log a, with the limit 0 at a = 0 for b ≥ 0 and at a = ∞ for b < 0"""
    limit = ((a._data == 0) & (b._data >= 0)) | ((a._data == np.inf) & (b._data < 0))
    return masked(g, ~limit) * (c * log(where(limit, 1.0, a)))


def maximum(a: Any, b: Any) -> Tensor:
    """c = max(a, b)        c̄ goes to the larger; on a tie each gets half"""
    a, b = operands("maximum", a, b)
    x, y = a._data, b._data
    return record(
        "maximum",
        _module(x, y).maximum(x, y),
        (a, lambda g: _unless(x < y, x == y, g)),
        (b, lambda g: _unless(y < x, x == y, g)),
        broadcasts=True,
    )


def minimum(a: Any, b: Any) -> Tensor:
    """c = min(a, b)        c̄ goes to the smaller; on a tie each gets half"""
    a, b = operands("minimum", a, b)
    x, y = a._data, b._data
    return record(
        "minimum",
        _module(x, y).minimum(x, y),
        (a, lambda g: _unless(x > y, x == y, g)),
        (b, lambda g: _unless(y > x, x == y, g)),
        broadcasts=True,
    )


def _unless(loses: Array, ties: Array, g: Tensor) -> Tensor:
    """0 where an operand loses, g / 2 where it ties, else g. (As in PyTorch: a NaN has not lost.)"""
    return masked(g, ~loses) * constant(1 - ties * g.dtype.type(0.5))


def _module(x: Any, y: Any) -> Any:
    """numpy or cupy, for two operands of which one may be a Python number."""
    return xp_of(y if isinstance(x, (float, int)) else x)


def where(condition: Any, a: Any, b: Any) -> Tensor:
    """c = a where the condition holds, else b        ā = c̄ where it holds, else 0; b̄ the rest"""
    a, b = operands("where", a, b)
    condition = tensor(condition, "where", like=b if type(a) is Number else a).detach()
    broadcast_shape("where", condition.shape, a.shape, b.shape)
    dtype = np.result_type(*(x._data if type(x) is Number else x.dtype for x in (a, b)))
    x, y = (dtype.type(t._data) if type(t) is Number else t._data for t in (a, b))
    holds = condition._data != 0
    return record(
        "where",
        xp_of(condition._data).where(holds, x, y),
        (a, lambda g: masked(g, holds)),
        (b, lambda g: masked(g, ~holds)),
        broadcasts=True,
    )


def masked(g: Tensor, keep: Array) -> Tensor:
    """g where `keep` holds, else 0: chosen, not multiplied, since ∞ · 0 is NaN

    It is linear in g, and its own adjoint. This is how a gradient passes through what chooses.
    """
    data = kernels.masked(g._data, keep)
    return record("masked", data, (g, lambda h: masked(h, keep)), broadcasts=True)


# ------------------------------------------------------------------------------- one operand


def neg(x: Any) -> Tensor:
    """y = -x        x̄ = -ȳ"""
    x = tensor(x, "neg")
    return record("neg", -x._data, (x, lambda g: -g))


def abs(x: Any) -> Tensor:
    """y = |x|        x̄ = ȳ sign x   (0 at x = 0)"""
    x = tensor(x, "abs")
    data = x._data

    def vjp(g: Tensor) -> Tensor:
        sign = (data > 0) * g.dtype.type(1) - (data < 0)  # 0 for NaN, too, as in PyTorch
        return masked(g, sign != 0) * constant(sign)

    return record("abs", xp_of(data).abs(data), (x, vjp))


def exp(x: Any) -> Tensor:
    """y = eˣ        x̄ = ȳ y"""
    x = tensor(x, "exp")
    return record("exp", xp_of(x._data).exp(x._data), (x, lambda g, y: g * y), output=True)


def expm1(x: Any) -> Tensor:
    """y = eˣ - 1, exact near x = 0        x̄ = ȳ eˣ   (y + 1 would lose the digits of a small eˣ)"""
    x = tensor(x, "expm1")
    return record("expm1", xp_of(x._data).expm1(x._data), (x, lambda g: g * exp(x)))


def log(x: Any) -> Tensor:
    """y = log x        x̄ = ȳ / x"""
    x = tensor(x, "log")
    return record("log", xp_of(x._data).log(x._data), (x, lambda g: g / (x + 0.0)))  # -0 is 0 here


def log1p(x: Any) -> Tensor:
    """y = log(1 + x), exact near x = 0        x̄ = ȳ / (1 + x)"""
    x = tensor(x, "log1p")
    return record("log1p", xp_of(x._data).log1p(x._data), (x, lambda g: g / (x + 1)))


def sqrt(x: Any) -> Tensor:
    """y = √x        x̄ = ȳ / 2y   (∞ at x = 0)"""
    x = tensor(x, "sqrt")
    data = xp_of(x._data).sqrt(x._data + 0.0)  # √-0 would be -0, and its slope -∞
    return record("sqrt", data, (x, lambda g, y: g / (y * 2)), output=True)


def square(x: Any) -> Tensor:
    """y = x²        x̄ = 2 ȳ x"""
    x = tensor(x, "square")
    return record("square", x._data * x._data, (x, lambda g: g * (x * 2)))


def sin(x: Any) -> Tensor:
    """y = sin x        x̄ = ȳ cos x"""
    x = tensor(x, "sin")
    return record("sin", xp_of(x._data).sin(x._data), (x, lambda g: g * cos(x)))


def cos(x: Any) -> Tensor:
    """y = cos x        x̄ = -ȳ sin x"""
    x = tensor(x, "cos")
    return record("cos", xp_of(x._data).cos(x._data), (x, lambda g: -(g * sin(x))))


def tanh(x: Any) -> Tensor:
    """y = tanh x        x̄ = ȳ (1 - y²)"""
    x = tensor(x, "tanh")

    def vjp(g: Tensor, y: Tensor) -> Tensor:
        return shortcut(lambda: g * (1 - y * y), lambda: kernels.tanh_backward(g._data, y._data))

    return record("tanh", kernels.tanh(x._data), (x, vjp), output=True)


def sigmoid(x: Any) -> Tensor:
    """y = σ(x) = 1 / (1 + e⁻ˣ)        x̄ = ȳ y (1 - y)

    Computed as e^min(x, 0) / (1 + e^-|x|): no exponential overflows, and small values stay exact.
    """
    x = tensor(x, "sigmoid")
    return record("sigmoid", kernels.sigmoid(x._data), (x, lambda g, y: g * (y * (1 - y))), output=True)


def softplus(x: Any) -> Tensor:
    """y = log(1 + eˣ)        x̄ = ȳ σ(x)

    Computed as max(x, 0) + log(1 + e^-|x|), which never overflows.
    """
    x = tensor(x, "softplus")
    return record("softplus", kernels.softplus(x._data), (x, lambda g: g * sigmoid(x)))


def relu(x: Any) -> Tensor:
    """y = max(x, 0)        x̄ = ȳ where x > 0, else 0"""
    x = tensor(x, "relu")
    data = kernels.relu(x._data)
    return record("relu", data, (x, lambda g: _leak(g, data, 0.0)))


def leaky_relu(x: Any, slope: float = 0.2) -> Tensor:
    """y = x where x > 0, else slope · x        x̄ = ȳ where x > 0, else slope · ȳ"""
    x, slope = tensor(x, "leaky_relu"), number("leaky_relu", "slope", slope)
    if slope == 0:
        return relu(x)
    data = kernels.leaky_relu(x._data, slope)
    # y has the sign of x if the slope is positive; x is then free to go
    signed = data if slope > 0 else x._data
    return record("leaky_relu", data, (x, lambda g: _leak(g, signed, slope)))


def _leak(g: Tensor, signed: Array, slope: float) -> Tensor:
    """g where `signed` is positive, else slope · g: linear in g, and its own adjoint"""
    data = kernels.leaky_relu_backward(g._data, signed, slope)
    return record("leak", data, (g, lambda h: _leak(h, signed, slope)))


def elu(x: Any, alpha: float = 1.0) -> Tensor:
    """y = x where x > 0, else α (eˣ - 1)        x̄ = ȳ where x > 0, else ȳ α eˣ   (y + α would lose digits)"""
    x, alpha = tensor(x, "elu"), number("elu", "alpha", alpha)
    xp = xp_of(x._data)
    below = x._data <= 0
    data = xp.maximum(x._data, 0) + alpha * xp.expm1(xp.minimum(x._data, 0))

    def vjp(g: Tensor) -> Tensor:
        return g * where(below, exp(where(below, x, 0.0)) * alpha, 1.0)

    return record("elu", data, (x, vjp))


def silu(x: Any) -> Tensor:
    """y = x σ(x)        x̄ = ȳ σ(x) (1 + x (1 - σ(x)))

    At ±∞ one factor is 0. There the largest number stands for ∞, so that the product is its limit, 0.
    """
    x = tensor(x, "silu")
    most = float(np.finfo(x.dtype if x.dtype.kind == "f" else float).max)

    def vjp(g: Tensor) -> Tensor:
        s = sigmoid(x)
        return g * (s * (1 + clip(x, -most, most) * (1 - s)))

    return record("silu", xp_of(x._data).maximum(x._data, -most) * kernels.sigmoid(x._data), (x, vjp))


def clip(x: Any, low: float | None = None, high: float | None = None) -> Tensor:
    """y = x, but at least low and at most high        x̄ = ȳ where low ≤ x ≤ high, else 0"""
    x = tensor(x, "clip")
    low, high = (None if n is None else _bound(n) for n in (low, high))
    if low is not None and high is not None and low > high:
        raise ValueError(f"clip: low={low} is above high={high}")
    data = x._data.copy() if low is None and high is None else xp_of(x._data).clip(x._data, low, high)
    inside = data == x._data
    return record("clip", data, (x, lambda g: masked(g, inside)))


def _bound(n: Any) -> float:
    return int(n) if isinstance(n, (int, np.integer)) else number("clip", "a bound", n)


def astype(x: Any, dtype: Any) -> Tensor:
    """y = x in another precision        x̄ = ȳ in the precision of x"""
    x = tensor(x, "astype")
    before, after = x.dtype, np.dtype(dtype)
    if after.kind not in "fiub":
        raise TypeError(f"astype: a Tensor holds real numbers or booleans, not {after}")
    data = x._data.astype(after)
    if after.kind != "f":
        return constant(data)  # rounded to whole numbers: nothing changes by a little
    return record("astype", data, (x, lambda g: g.astype(before)))


def copy(x: Any) -> Tensor:
    """y = x, in memory of its own        x̄ = ȳ"""
    x = tensor(x, "copy")
    return record("copy", x._data.copy("K"), (x, lambda g: g))  # K: in the same memory order
