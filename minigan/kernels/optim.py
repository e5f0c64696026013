"""How an optimiser changes its parameters, on bare arrays of one axis.

Each rule computes what the function of the same name in optim/functional.py says, in a form that is fast: the
new values go into memory of their own, what is remembered is changed in place, and all is done chunk by
chunk. A dozen small passes over a chunk that stays in the processor's cache are quicker than a dozen passes
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
    new: Array  # memory for its new value; a rule may compute in it on the way
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


def _number(count: Array) -> Any:
    """A count to compute with. On a GPU it stays there, an array: nobody waits for it."""
    return int(count[0]) if type(count) is np.ndarray else count[0]


def _factor(number: Any, like: Array) -> Any:
    """A number to multiply arrays by. NumPy is quicker with a 0-d array than with a number of Python's."""
    return np.array(number, like.dtype) if type(like) is np.ndarray else number


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
        xp = xp_of(piece.p)
        share = 1 - dampening * (_number(piece.count) > 1) if dampening else 1.0
        for p, g, new, *kept in _chunks(piece.p, piece.g, piece.new, *piece.kept):
            if weight_decay:
                g = g + weight_decay * p
            if not kept:
                xp.multiply(g, lr, out=new)
            else:
                (b,) = kept
                b *= momentum
                b += xp.multiply(g, share, out=new)
                if nesterov:
                    xp.multiply(b, momentum, out=new)
                    new += g
                    new *= lr
                else:
                    xp.multiply(b, lr, out=new)
            xp.subtract(p, new, out=new)


# --------------------------------------------------------------------------------------- RMSprop


def rmsprop(
    pieces: Sequence[Piece], lr: float, alpha: float = 0.99, eps: float = 1e-8, weight_decay: float = 0.0,
    momentum: float = 0.0, centered: bool = False,
) -> None:  # fmt: skip
    """g ← g + λ p        v ← α v + (1 - α) g²        p ← p - η g / (√v + ε)

    η rate, λ weight decay, α how much of the past is kept, ε against division by zero. kept: v; then, if
    centered, the average of g in the same manner, and v - mean² takes the place of v (which may come out a
    little negative by rounding; then it is 0); then, with momentum μ, b: b ← μ b + g / (√v + ε), p ← p - η b.
    """
    for piece in pieces:
        xp = xp_of(piece.p)
        for p, g, new, v, *kept in _chunks(piece.p, piece.g, piece.new, *piece.kept):
            if weight_decay:
                g = g + weight_decay * p
            v *= alpha
            xp.multiply(g, g, out=new)
            new *= 1 - alpha
            v += new
            if centered:
                mean = kept[0]
                mean *= alpha
                mean += xp.multiply(g, 1 - alpha, out=new)
                xp.multiply(mean, mean, out=new)
                xp.subtract(v, new, out=new)
                xp.maximum(new, 0, out=new)
                xp.sqrt(new, out=new)
            else:
                xp.sqrt(v, out=new)
            new += eps
            xp.divide(g, new, out=new)
            if momentum:
                b = kept[-1]
                b *= momentum
                b += new
                xp.multiply(b, lr, out=new)
            else:
                new *= lr
            xp.subtract(p, new, out=new)


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
    numbers = (beta1, 1 - beta1, beta2, 1 - beta2, eps * c, lr * c / (1 - beta1**t))
    keep1, add1, keep2, add2, tiny, rate = [_factor(number, piece.p) for number in numbers]
    arrays = (piece.p, piece.g, piece.new, *piece.kept)

    def work(lo: int, hi: int) -> None:
        for p, g, new, m, v in _chunks(*(a[lo:hi] for a in arrays)):
            if weight_decay and not decoupled:
                g = g + weight_decay * p
            m *= keep1
            m += xp.multiply(g, add1, out=new)
            v *= keep2
            xp.multiply(g, g, out=new)
            new *= add2
            v += new
            xp.sqrt(v, out=new)
            new += tiny
            xp.divide(m, new, out=new)
            new *= rate
            if weight_decay and decoupled:
                p = p * (1 - lr * weight_decay)
            xp.subtract(p, new, out=new)

    split(work, piece.p.size, piece.p, least=2 * CHUNK)


# ---------------------------------------------------------------------------------- moving average


def averages(pairs: Sequence[tuple[Array, Array]], share: float | Array) -> None:
    """In place, for each pair (a, p): a ← a + share · (p - a). share: a number, or an array of one."""
    if pairs and (gpu := gpu_kernels(*(a for pair in pairs for a in pair))) is not None:
        gpu.averages(pairs, share)
        return
    for pair in pairs:
        for a, p in _chunks(*pair):
            difference = p - a
            difference *= share
            a += difference
