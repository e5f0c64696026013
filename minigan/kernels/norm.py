"""Batch normalisation on bare arrays, fast. The formulas are in simple.py.

`batch_norm` and `batch_norm_backward` choose who computes: kernels of a GPU (device.py), the functions below
for images of some size on a CPU, or else those of simple.py, which have the same names.

The arrays have shape (N, C, H, W), and are worked on with the channels last in memory, as convolution makes
them. Then an image row is one run of W · C numbers, and what holds for each channel (its mean, say) is a
vector that is repeated W times. All steps are done for a few image rows at a time, which stay in the cache.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..backend import Array, xp_of
from . import simple
from .conv import LAST
from .device import gpu_kernels
from .geometry import empty
from .threads import split

PIECE = 1 << 17  # entries worked on at a time
WORTH = 1 << 18  # entries that are worth a thread
SMALL = 1 << 14  # fewer entries are done in one go, by simple.py

_this = sys.modules[__name__]


def batch_norm(
    x: Array, gamma: Array | None, beta: Array | None, eps: float
) -> tuple[Array, Array, Array, Array, Array]:
    """y = γ (x - μ) s + β, then x as the backward pass should get it, then μ, σ² and s = 1 / √(σ² + ε)."""
    if (gpu := gpu_kernels(x, gamma, beta)) is not None:
        x = channels_last(x) if x.ndim == 4 else x
        y, mu, variance, s = gpu.batch_norm(x, gamma, beta, eps)
        return y, x, mu, variance, s
    does: Any = _this if suits(x) else simple
    x = does.channels_last(x)
    mu, variance = does.statistics(x)
    s = 1 / xp_of(mu).sqrt(variance + eps)
    return does.affine(x, mu, s if gamma is None else s * gamma, beta), x, mu, variance, s


def batch_norm_backward(
    g: Array, x: Array, mu: Array, s: Array, gamma: Array | None
) -> tuple[Array, Array, Array]:
    """x̄ = γ s (ȳ - mean ȳ - x̂ · mean(ȳ x̂)),  γ̄ = Σ ȳ x̂,  β̄ = Σ ȳ, where x̂ = (x - μ) s."""
    if (gpu := gpu_kernels(x, g, gamma)) is not None:
        return gpu.batch_norm_backward(g, x, mu, s, gamma)
    does: Any = _this if suits(x) else simple
    n = x.size // x.shape[1]
    total, along = does.gradient_sums(g, x, mu)
    factor = s if gamma is None else s * gamma
    x_bar = does.combine(g, x, mu, factor, factor * s * s * along * (-1 / n), factor * total * (-1 / n))
    return x_bar, along * s, total


def running_averages(
    mean: Array, var: Array, mu: Array, variance: Array, share: Any, n: int
) -> tuple[Array, Array]:
    """(1 - share) · mean + share · μ        (1 - share) · var + share · σ² n / (n - 1), in new memory

    share: a number, or an array of one.
    """
    if (gpu := gpu_kernels(mean, var, mu, variance)) is not None:
        return gpu.running_averages(mean, var, mu, variance, share, n)
    new_mean = mean * (1 - share) + mu * share
    new_var = var * (1 - share) + variance * (n / (n - 1)) * share
    return new_mean.astype(mean.dtype, copy=False), new_var.astype(var.dtype, copy=False)


def suits(x: Array) -> bool:
    """Whether this file has something to offer for x: images, of some size, on a CPU."""
    return type(x) is np.ndarray and x.ndim == 4 and x.size > SMALL


def channels_last(x: Array) -> Array:
    """x, with the channels last in memory: itself if they are."""
    if x.strides[1] == x.itemsize:
        return x
    last = empty(xp_of(x), x.shape, x.dtype, LAST)

    def work(lo: int, hi: int) -> None:
        last[lo:hi] = x[lo:hi]

    split(work, len(x), x)
    return last


def statistics(x: Array) -> tuple[Array, Array]:
    """Mean and variance of each channel.

    Each piece gives its mean m and, while it is in the cache, Σ (x - m)². Pieces are put together by
    Chan's formula: Σ (x - μ)² = Σ over pieces of [Σ (x - m)² + n (m - μ)²].

    The mean of the squares minus the square of the mean loses all digits where μ² ≫ σ². So a value p near
    the mean is taken off first, the average of a few rows: with d = x - p, Σ (x - m)² = Σ d² - (Σ d)² / n.
    """
    xp, c, rows = xp_of(x), x.shape[1], _rows(x)

    def work(lo: int, hi: int) -> list[tuple[int, Array, Array]]:
        found = []
        for part in _pieces(lo, hi, rows):
            piece = rows[part]
            near = piece[:8].mean(axis=0)
            off = piece - near
            total = np.asarray(off.sum(axis=0), float)
            spread = np.asarray(xp.einsum("ij,ij->j", off, off)) - total * total / len(piece)
            found.append((len(piece), np.asarray(near) + total / len(piece), spread))
        return found

    pieces = [piece for part in split(work, len(rows), x, _least(rows)) for piece in part]
    n = np.repeat([piece[0] for piece in pieces], rows.shape[1] // c)[:, None]
    means, spreads = (np.stack([piece[i] for piece in pieces]).reshape(-1, c) for i in (1, 2))
    mu = (n * means).sum(axis=0) / n.sum()
    variance = (spreads + n * (means - mu) ** 2).sum(axis=0) / n.sum()
    return xp.asarray(mu.astype(x.dtype)), xp.asarray(variance.astype(x.dtype))


def affine(x: Array, mu: Array, scale: Array, shift: Array | None) -> Array:
    """(x - μ) · scale + shift, where each is one number per channel."""
    rows, xp = _rows(x), xp_of(x)
    y = empty(xp, x.shape, x.dtype, LAST)
    out = _rows(y)
    wide = rows.shape[1] // x.shape[1]
    mu, scale = (_repeated(v, wide) for v in (mu, scale))
    shift = None if shift is None else _repeated(shift, wide)

    def work(lo: int, hi: int) -> None:
        for part in _pieces(lo, hi, rows):
            made = xp.subtract(rows[part], mu, out=out[part])
            made *= scale
            if shift is not None:
                made += shift

    split(work, len(rows), x, _least(rows))
    return y


def channel_sums(g: Array) -> Array:
    """For each channel, Σ g."""
    if not suits(g):
        return simple.channel_sums(g)
    rows = _rows(g)

    def work(lo: int, hi: int) -> Array:
        total = np.zeros(rows.shape[1])
        for part in _pieces(lo, hi, rows):
            total += np.asarray(rows[part].sum(axis=0))
        return total

    total = np.sum(split(work, len(rows), g, _least(rows)), axis=0).reshape(-1, g.shape[1]).sum(axis=0)
    return xp_of(g).asarray(total.astype(g.dtype))


def gradient_sums(g: Array, x: Array, mu: Array) -> tuple[Array, Array]:
    """For each channel, Σ g and Σ g (x - μ)."""
    xp, c, rows, slopes = xp_of(x), x.shape[1], _rows(x), _rows(g)
    mu = _repeated(mu, rows.shape[1] // c)

    def work(lo: int, hi: int) -> Array:
        total = np.zeros((2, rows.shape[1]))
        for part in _pieces(lo, hi, rows):
            total[0] += np.asarray(slopes[part].sum(axis=0))
            total[1] += np.asarray(xp.einsum("ij,ij->j", slopes[part], rows[part] - mu))
        return total

    total = sum(split(work, len(rows), x, _least(rows))).reshape(2, -1, c).sum(axis=1).astype(x.dtype)
    return xp.asarray(total[0]), xp.asarray(total[1])


def combine(g: Array, x: Array, mu: Array, a: Array, b: Array, c: Array) -> Array:
    """a · g + b · (x - μ) + c, where a, b, c and μ are one number per channel.

    As b x + (c - b μ) + a g, which loses no more digits than x has lost by being far from zero.
    """
    xp, rows, slopes = xp_of(x), _rows(x), _rows(g)
    result = empty(xp, x.shape, g.dtype, LAST)
    out = _rows(result)
    a, b, c = (_repeated(v, rows.shape[1] // x.shape[1]) for v in (a, b, c - b * mu))

    def work(lo: int, hi: int) -> None:
        for part in _pieces(lo, hi, rows):
            made = xp.multiply(rows[part], b, out=out[part])
            made += c
            made += slopes[part] * a

    split(work, len(rows), x, _least(rows))
    return result


def _rows(x: Array) -> Array:
    """(N, C, H, W) → (N · H, W · C): a view if the channels are last in memory, else a copy."""
    n, c, h, w = x.shape
    return x.transpose(0, 2, 3, 1).reshape(n * h, w * c)


def _least(rows: Array) -> int:
    """How many rows are worth a thread."""
    return max(1, WORTH // rows.shape[1])


def _pieces(lo: int, hi: int, rows: Array) -> Iterator[slice]:
    step = max(1, PIECE // rows.shape[1])
    return (slice(start, min(start + step, hi)) for start in range(lo, hi, step))


def _repeated(v: Array, times: int) -> Array:
    return xp_of(v).tile(v.reshape(-1), times)
