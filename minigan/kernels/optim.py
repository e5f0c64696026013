"""How an optimiser changes its parameters: in place, on bare arrays of one axis.

p parameters, g their gradient; the other arrays are what the optimiser remembers. Each rule stands here
twice. The `_simple` one is the formula, and returns new arrays. The other one computes the same in the
memory it is given, piece by piece: a dozen small passes over a piece that stays in the processor's cache
are quicker than a dozen passes over everything.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from ..backend import Array, xp_of
from . import device
from .threads import split

CHUNK = 65_536  # entries of a piece; with five arrays in float32, 1.3 MB


def _pieces(*arrays: Array | None) -> Iterator[list]:
    """Pieces of arrays of equal length, in step. A GPU has no such cache: there, one piece is all."""
    first = arrays[0]
    assert first is not None
    size = first.size
    length = CHUNK if type(first) is np.ndarray else max(size, 1)
    for start in range(0, size, length):
        yield [None if a is None else a[start : start + length] for a in arrays]


def _scratch(p: Array) -> Array:
    """Memory for what is computed on the way: as long as a piece."""
    return xp_of(p).empty(min(CHUNK, p.size) if type(p) is np.ndarray else p.size, p.dtype)


def _decayed(p: Array, g: Array, weight_decay: float) -> Array:
    """g + λ p, in new memory: the gradient if λ ‖p‖² / 2 is added to the loss."""
    total = p * weight_decay
    total += g
    return total


# ------------------------------------------------------------------------------------------- SGD


def sgd_simple(
    p: Array, g: Array, b: Array | None, lr: float, momentum: float = 0.0, dampening: float = 0.0,
    weight_decay: float = 0.0, nesterov: bool = False, first: bool = False,
) -> tuple[Array, Array | None]:  # fmt: skip
    """g ← g + λ p        b ← μ b + (1 - d) g        p ← p - η b        (Nesterov: p - η (g + μ b))

    η rate, μ momentum, d dampening, λ weight decay. Without momentum b is None, and p ← p - η g. The
    first time b is g itself, undamped, as in PyTorch.
    """
    g = g + weight_decay * p
    if b is None:
        return p - lr * g, None
    b = g if first else momentum * b + (1 - dampening) * g
    return p - lr * (g + momentum * b if nesterov else b), b


def sgd(
    p: Array, g: Array, b: Array | None, lr: float, momentum: float = 0.0, dampening: float = 0.0,
    weight_decay: float = 0.0, nesterov: bool = False, first: bool = False,
) -> None:  # fmt: skip
    """sgd_simple, in place: changes p and b."""
    xp, scratch = xp_of(p), _scratch(p)
    for pp, gg, bb in _pieces(p, g, b):
        s = scratch[: pp.size]
        if weight_decay:
            gg = _decayed(pp, gg, weight_decay)
        if bb is None:
            xp.multiply(gg, lr, out=s)
        else:
            if first:
                bb[...] = gg
            else:
                bb *= momentum
                bb += xp.multiply(gg, 1 - dampening, out=s)
            if nesterov:
                xp.multiply(bb, momentum, out=s)
                s += gg
                s *= lr
            else:
                xp.multiply(bb, lr, out=s)
        pp -= s


# --------------------------------------------------------------------------------------- RMSprop


def rmsprop_simple(
    p: Array, g: Array, v: Array, mean: Array | None, b: Array | None, lr: float, alpha: float = 0.99,
    eps: float = 1e-8, momentum: float = 0.0, weight_decay: float = 0.0,
) -> tuple[Array, Array, Array | None, Array | None]:  # fmt: skip
    """v ← α v + (1 - α) g²        p ← p - η g / (√v + ε)

    η rate, α how much of the past is kept, ε against division by zero. mean, if given, is the average
    of g in the same manner, and v - mean² takes the place of v (which may come out a little negative by
    rounding; then it is 0). b, if given, is a momentum: b ← μ b + g / (√v + ε), p ← p - η b.
    """
    xp = xp_of(p)
    g = g + weight_decay * p
    v = alpha * v + (1 - alpha) * g * g
    spread = v
    if mean is not None:
        mean = alpha * mean + (1 - alpha) * g
        spread = xp.maximum(v - mean * mean, 0)
    direction = g / (xp.sqrt(spread) + eps)
    if b is not None:
        b = direction = momentum * b + direction
    return p - lr * direction, v, mean, b


def rmsprop(
    p: Array, g: Array, v: Array, mean: Array | None, b: Array | None, lr: float, alpha: float = 0.99,
    eps: float = 1e-8, momentum: float = 0.0, weight_decay: float = 0.0,
) -> None:  # fmt: skip
    """rmsprop_simple, in place: changes p, v, and mean and b where given."""
    xp, scratch = xp_of(p), _scratch(p)
    for pp, gg, vv, mm, bb in _pieces(p, g, v, mean, b):
        s = scratch[: pp.size]
        if weight_decay:
            gg = _decayed(pp, gg, weight_decay)
        xp.multiply(gg, gg, out=s)
        s *= 1 - alpha
        vv *= alpha
        vv += s
        if mm is None:
            xp.sqrt(vv, out=s)
        else:
            mm *= alpha
            mm += xp.multiply(gg, 1 - alpha, out=s)
            xp.multiply(mm, mm, out=s)
            xp.subtract(vv, s, out=s)
            xp.maximum(s, 0, out=s)
            xp.sqrt(s, out=s)
        s += eps
        xp.divide(gg, s, out=s)
        if bb is not None:
            bb *= momentum
            bb += s
            s[...] = bb
        s *= lr
        pp -= s


# ------------------------------------------------------------------------------------------ Adam


def adam_simple(
    p: Array, g: Array, m: Array, v: Array, step: int, lr: float, beta1: float = 0.9, beta2: float = 0.999,
    eps: float = 1e-8, weight_decay: float = 0.0, decoupled: bool = False,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """m ← β₁ m + (1 - β₁) g        v ← β₂ v + (1 - β₂) g²        p ← p - η m̂ / (√v̂ + ε)

    η rate. m and v begin at zero, so they begin too small: at step t (from 1), m̂ = m / (1 - β₁ᵗ) and
    v̂ = v / (1 - β₂ᵗ) make up for that. Weight decay λ adds λ p to g; decoupled (AdamW), it takes
    η λ p off p instead, and leaves the averages alone.
    """
    if decoupled:
        p = p - lr * weight_decay * p
    else:
        g = g + weight_decay * p
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    m_hat, v_hat = m / (1 - beta1**step), v / (1 - beta2**step)
    return p - lr * m_hat / (xp_of(p).sqrt(v_hat) + eps), m, v


def adam(
    p: Array, g: Array, m: Array, v: Array, step: int, lr: float, beta1: float = 0.9, beta2: float = 0.999,
    eps: float = 1e-8, weight_decay: float = 0.0, decoupled: bool = False,
) -> None:  # fmt: skip
    """adam_simple, in place: changes p, m and v

    The corrections for the beginning are folded into two numbers. With c = √(1 - β₂ᵗ),

        η m̂ / (√v̂ + ε)  =  (η c / (1 - β₁ᵗ)) · m / (√v + ε c)
    """
    xp = xp_of(p)
    c = math.sqrt(1 - beta2**step)
    rate, tiny = lr * c / (1 - beta1**step), eps * c

    def work(lo: int, hi: int) -> None:
        scratch = _scratch(p)
        for pp, gg, mm, vv in _pieces(p[lo:hi], g[lo:hi], m[lo:hi], v[lo:hi]):
            s = scratch[: pp.size]
            if weight_decay and decoupled:
                pp *= 1 - lr * weight_decay
            elif weight_decay:
                gg = _decayed(pp, gg, weight_decay)
            mm *= beta1
            mm += xp.multiply(gg, 1 - beta1, out=s)
            xp.multiply(gg, gg, out=s)
            s *= 1 - beta2
            vv *= beta2
            vv += s
            xp.sqrt(vv, out=s)
            s += tiny
            xp.divide(mm, s, out=s)
            s *= rate
            pp -= s

    split(work, p.size, p, least=2 * CHUNK)


# ---------------------------------------------------------------------------------- moving average


def average_simple(a: Array, p: Array, decay: float) -> Array:
    """a ← δ a + (1 - δ) p"""
    return decay * a + (1 - decay) * p


def average(a: Array, p: Array, decay: float) -> None:
    """average_simple, in place: a ← a + (1 - δ) (p - a)."""
    xp, scratch = xp_of(a), _scratch(a)
    for aa, pp in _pieces(a, p):
        s = scratch[: aa.size]
        xp.subtract(pp, aa, out=s)
        s *= 1 - decay
        aa += s


def averages(pairs: Sequence[tuple[Array, Array]], decay: float) -> None:
    """`average` for each pair (a, p)."""
    fused = device.of(pairs[0][0]) if pairs else None
    if fused is not None:
        fused.averages(*zip(*pairs, strict=True), decay)
    else:
        for a, p in pairs:
            average(a, p, decay)
