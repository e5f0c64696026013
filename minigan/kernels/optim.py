"""How an optimiser changes its parameters, on bare arrays of one axis.

Each rule computes what the function of the same name in optim/functional.py says, in a form that is fast: the
new values go into memory of their own, what is remembered is changed in place, and all is done piece by
piece. A dozen small passes over a piece that stays in the processor's cache are quicker than a dozen passes
over everything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, xp_of
from .device import gpu_kernels
from .threads import split

CHUNK = 65_536  # entries at a time; with five arrays in float32, 1.3 MB


class Piece(NamedTuple):
    """A parameter and what a step needs of it. All arrays but `count` have one axis and the same length."""

    p: Array  # its value
    g: Array  # the gradient
    new: Array  # where its new value goes
    count: Array  # of its steps, this one included: int64, one entry
    kept: tuple[Array, ...]  # what the optimiser remembers of it


def _chunks(*arrays: Array) -> Iterator[Sequence[Array]]:
    """Parts of arrays of equal length, in step. A GPU has no such cache: there, one part is all."""
    size = arrays[0].size
    if size <= CHUNK or type(arrays[0]) is not np.ndarray:
        yield arrays
        return
    for start in range(0, size, CHUNK):
        yield [a[start : start + CHUNK] for a in arrays]


def _scratch(p: Array) -> Array:
    """Memory for what is computed on the way: as long as a chunk."""
    return xp_of(p).empty(min(CHUNK, p.size) if type(p) is np.ndarray else p.size, p.dtype)


def _number(count: Array) -> Any:
    """A count to compute with. On a GPU it stays there, an array: nobody waits for it."""
    return int(count[0]) if type(count) is np.ndarray else count[0]


def _decayed(p: Array, g: Array, weight_decay: float) -> Array:
    """g + λ p, in new memory: the gradient if λ ‖p‖² / 2 is added to the loss."""
    total = p * weight_decay
    total += g
    return total


# ------------------------------------------------------------------------------------------- SGD


def sgd(
    pieces: Sequence[Piece], lr: float, momentum: float = 0.0, dampening: float = 0.0,
    weight_decay: float = 0.0, nesterov: bool = False,
) -> None:  # fmt: skip
    """g ← g + λ p        b ← μ b + (1 - d) g        p ← p - η b        (Nesterov: p - η (g + μ b))

    η rate, μ momentum, d dampening, λ weight decay. kept: b, or nothing without momentum; then p ← p - η g.
    The first time b is g itself, undamped, as in PyTorch.
    """
    for piece in pieces:
        xp, scratch = xp_of(piece.p), _scratch(piece.p)
        damped = 1 - dampening * (_number(piece.count) > 1) if dampening else 1.0
        for p, g, new, *kept in _chunks(piece.p, piece.g, piece.new, *piece.kept):
            s = scratch[: p.size]
            if weight_decay:
                g = _decayed(p, g, weight_decay)
            if not kept:
                xp.multiply(g, lr, out=s)
            else:
                (b,) = kept
                b *= momentum
                b += xp.multiply(g, damped, out=s)
                if nesterov:
                    xp.multiply(b, momentum, out=s)
                    s += g
                    s *= lr
                else:
                    xp.multiply(b, lr, out=s)
            xp.subtract(p, s, out=new)


# --------------------------------------------------------------------------------------- RMSprop


def rmsprop(
    pieces: Sequence[Piece], lr: float, alpha: float = 0.99, eps: float = 1e-8, weight_decay: float = 0.0,
    momentum: float = 0.0, centered: bool = False,
) -> None:  # fmt: skip
    """v ← α v + (1 - α) g²        p ← p - η g / (√v + ε)

    η rate, α how much of the past is kept, ε against division by zero. kept: v; then, if centered, the
    average of g in the same manner, and v - mean² takes the place of v (which may come out a little negative
    by rounding; then it is 0); then, with momentum μ, b: b ← μ b + g / (√v + ε), p ← p - η b.
    """
    for piece in pieces:
        xp, scratch = xp_of(piece.p), _scratch(piece.p)
        for p, g, new, v, *kept in _chunks(piece.p, piece.g, piece.new, *piece.kept):
            s = scratch[: p.size]
            if weight_decay:
                g = _decayed(p, g, weight_decay)
            xp.multiply(g, g, out=s)
            s *= 1 - alpha
            v *= alpha
            v += s
            if centered:
                mean = kept[0]
                mean *= alpha
                mean += xp.multiply(g, 1 - alpha, out=s)
                xp.multiply(mean, mean, out=s)
                xp.subtract(v, s, out=s)
                xp.maximum(s, 0, out=s)
                xp.sqrt(s, out=s)
            else:
                xp.sqrt(v, out=s)
            s += eps
            xp.divide(g, s, out=s)
            if momentum:
                b = kept[-1]
                b *= momentum
                b += s
                s[...] = b
            s *= lr
            xp.subtract(p, s, out=new)


# ------------------------------------------------------------------------------------------ Adam


def adam(
    pieces: Sequence[Piece], lr: float, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8,
    weight_decay: float = 0.0, decoupled: bool = False,
) -> None:  # fmt: skip
    """m ← β₁ m + (1 - β₁) g        v ← β₂ v + (1 - β₂) g²        p ← p - η m̂ / (√v̂ + ε)

    η rate; kept: m and v. They begin at zero, so they begin too small: at step t (from 1), m̂ = m / (1 - β₁ᵗ)
    and v̂ = v / (1 - β₂ᵗ) make up for that. Weight decay λ adds λ p to g; decoupled (AdamW), it takes η λ p
    off p instead, and leaves the averages alone.

    The corrections for the beginning are folded into two numbers. With c = √(1 - β₂ᵗ),

        η m̂ / (√v̂ + ε)  =  (η c / (1 - β₁ᵗ)) · m / (√v + ε c)
    """
    if (gpu := gpu_kernels(pieces[0].p)) is not None:
        gpu.adam(pieces, lr, beta1, beta2, eps, weight_decay, decoupled)
        return
    for piece in pieces:
        _adam(piece, lr, beta1, beta2, eps, weight_decay, decoupled)


def _adam(
    piece: Piece, lr: float, beta1: float, beta2: float, eps: float, weight_decay: float, decoupled: bool
) -> None:
    xp, t = xp_of(piece.p), _number(piece.count)
    c = (1 - beta2**t) ** 0.5
    rate, tiny = lr * c / (1 - beta1**t), eps * c
    arrays = (piece.p, piece.g, piece.new, *piece.kept)

    def work(lo: int, hi: int) -> None:
        scratch = _scratch(piece.p)
        for p, g, new, m, v in _chunks(*(a[lo:hi] for a in arrays)):
            s = scratch[: p.size]
            if weight_decay and not decoupled:
                g = _decayed(p, g, weight_decay)
            m *= beta1
            m += xp.multiply(g, 1 - beta1, out=s)
            xp.multiply(g, g, out=s)
            s *= 1 - beta2
            v *= beta2
            v += s
            xp.sqrt(v, out=s)
            s += tiny
            xp.divide(m, s, out=s)
            s *= rate
            if weight_decay and decoupled:
                xp.multiply(p, 1 - lr * weight_decay, out=new)
                p = new
            xp.subtract(p, s, out=new)

    split(work, piece.p.size, piece.p, least=2 * CHUNK)


# ---------------------------------------------------------------------------------- moving average


def averages(pairs: Sequence[tuple[Array, Array]], share: float | Array) -> None:
    """In place, for each pair (a, p): a ← a + share · (p - a). share: a number, or an array of one."""
    if pairs and (gpu := gpu_kernels(*(a for pair in pairs for a in pair))) is not None:
        gpu.averages(pairs, share)
        return
    for whole in pairs:
        xp, scratch = xp_of(whole[0]), _scratch(whole[0])
        for a, p in _chunks(*whole):
            s = scratch[: a.size]
            xp.subtract(p, a, out=s)
            s *= share
            a += s
