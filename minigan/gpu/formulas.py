"""What a GPU does in one launch, where NumPy needs several passes. Here: the formulas, in NumPy's words.

To start a kernel takes a GPU some microseconds, however small the arrays. A step of a small network is a few
hundred array operations, and nearly all of its time goes into starting them. So on a GPU the operations that
occur in every step are kernels of their own, one launch each. (Batch normalisation has two: its sums have to
be known before anything can be normalised.) They are written in CUDA, in cuda.cu, and are called by the
functions of cuda.py.

Those functions stand here once more, under the same names, as formulas in a few lines. The tests compare the
two. This file never runs on a GPU, but the backend "strict" computes with it. How an op gets at the kernels
for an array is in device.py.

Shapes: an array of activations is (N, C) or (N, C, H, W), and C counts channels. Results of four axes lie in
memory with the channels last, as in conv.py. All floating point arrays of one call have one dtype.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..backend import Array, xp_of
from ..kernels import simple
from ..kernels.conv import LAST
from ..kernels.geometry import Geometry, Pair, add_windows, empty, windows

# ---------------------------------------------------------------------------- activations and biases


def leaky_relu(x: Array, slope: float) -> Array:
    """x where x > 0, else slope · x. With slope 0 it is relu. One launch."""
    return simple.leaky_relu(x, slope) if slope else xp_of(x).maximum(x, 0)


def leaky_relu_backward(g: Array, y: Array, slope: float) -> Array:
    """g where y > 0, else slope · g (slope 0: 0 where y = 0, else g), in y's memory order. One launch."""
    return _like(y, simple.leaky_relu_backward(g, y, slope))


def tanh_backward(g: Array, y: Array) -> Array:
    """g (1 - y²), in the memory order of y. One launch."""
    return _like(y, simple.tanh_backward(g, y))


def add_bias(y: Array, bias: Array, slope: float | None = None) -> None:
    """In place: y ← y + bias, one number per channel; then leaky_relu, if there is a slope. One launch."""
    y += _spread(bias, y)
    if slope is not None:
        y[...] = leaky_relu(y, slope)


def channel_sums(g: Array) -> Array:
    """Σ g over all axes but the second: b̄ of a bias. Shape (C,). One launch."""
    return simple.channel_sums(g)


# ------------------------------------------------------------------------------ batch normalisation


def batch_norm(
    x: Array, gamma: Array | None, beta: Array | None, eps: float, leaky: float | None = None
) -> tuple[Array, Array, Array, Array]:
    """y = γ (x - μ) s + β with s = 1 / √(σ² + ε); also μ, σ² and s, each of shape (C,). Two launches.

    σ² is the mean of (x - μ)², put together from pieces by Chan's formula, not from Σ x². leaky: a slope;
    then leaky_relu(y, leaky) takes the place of y.
    """
    mu, variance = simple.statistics(x)
    s = 1 / xp_of(x).sqrt(variance + eps)
    y = simple.affine(x, mu, s if gamma is None else s * gamma, beta)
    return y if leaky is None else leaky_relu(y, leaky), mu, variance, s


def batch_norm_backward(
    g: Array, x: Array, mu: Array, s: Array, gamma: Array | None
) -> tuple[Array, Array, Array]:
    """x̄ = γ s (ȳ - mean ȳ - x̂ · mean(ȳ x̂)),  γ̄ = Σ ȳ x̂,  β̄ = Σ ȳ, where x̂ = (x - μ) s. Two launches."""
    n = x.size // x.shape[1]
    total, along = simple.gradient_sums(g, x, mu)
    factor = s if gamma is None else s * gamma
    x_bar = simple.combine(g, x, mu, factor, factor * s * s * along * (-1 / n), factor * total * (-1 / n))
    return x_bar, along * s, total


def running(
    mean: Array, var: Array, count: Array, mu: Array, variance: Array, share: float, n: int
) -> tuple[Array, Array, Array]:
    """The running averages after a batch, and how many batches there were, in new memory. One launch.

    (1 - share) · mean + share · μ        (1 - share) · var + share · σ² n / (n - 1)        count + 1

    count: 0-d, int64.
    """
    new_var = var * (1 - share) + variance * (share * n / (n - 1))
    return mean * (1 - share) + mu * share, new_var, count + 1


# ------------------------------------------------------------------------------------------- losses

Row = tuple[Array, float, float, float]  # logits l, a, b, c: the function c · softplus(a l) + b l


def softplus_means(rows: Sequence[Row]) -> tuple[Array, list[Array]]:
    """L = Σ over the rows of mean(c · softplus(a l) + b l), and each row's dL/dl. One launch.

        softplus(u) = max(u, 0) + log(1 + e^-|u|)        dL/dl = (c a σ(a l) + b) / n

    L is 0-d; the slopes have the shapes of the logits. At most four rows.
    """
    total: Any = 0.0
    slopes = []
    for logits, a, b, c in rows:
        xp, u = xp_of(logits), a * logits
        small = xp.exp(-xp.abs(u))
        right, left = (slope * logits if slope else 0 for slope in (c * a + b, b))  # far out; 0 · ∞ is NaN
        total = total + (xp.where(u > 0, right, left) + c * xp.log1p(small)).mean()
        sigma = xp.where(u >= 0, 1 / (1 + small), small / (1 + small))
        slopes.append(((c * a * sigma + b) / max(logits.size, 1)).astype(logits.dtype))
    return total.astype(rows[0][0].dtype), slopes


def sigmoid_means(several: Sequence[Array]) -> list[Array]:
    """mean σ(l) for each array of logits, 0-d. At most four arrays. One launch."""
    means = []
    for logits in several:
        small = xp_of(logits).exp(-xp_of(logits).abs(logits))
        means.append(xp_of(logits).where(logits >= 0, 1 / (1 + small), small / (1 + small)).mean())
    return means


def add_up(sums: Array, values: Sequence[Array]) -> None:
    """In place: sums[i] ← sums[i] + values[i], where each value is 0-d, or a number. One launch.

    sums: float64, of one axis. At most sixteen values.
    """
    for i, value in enumerate(values):
        sums[i] = sums[i] + value


# -------------------------------------------------------------------------------------- convolution


def im2col(x: Array, kernel: Pair, how: Geometry) -> Array:
    """What the kernel sees at each place: (N, C, H, W) → (N · OH · OW, KH · KW · C). One launch.

    Outside the image (padding) it sees zeros. how.groups plays no part.
    """
    (ph, pw), (n, c, h, w) = how.padding, x.shape
    wide = xp_of(x).zeros((n, c, h + 2 * ph, w + 2 * pw), x.dtype)
    wide[:, :, ph : ph + h, pw : pw + w] = x
    seen = windows(wide, kernel, how.stride, how.dilation)  # (N, C, KH, KW, OH, OW)
    (kh, kw), (oh, ow) = kernel, seen.shape[4:]
    return seen.transpose(0, 4, 5, 2, 3, 1).copy().reshape(n * oh * ow, kh * kw * c)


def col2im(
    columns: Array, shape: tuple[int, int, int, int], kernel: Pair, how: Geometry, bias: Array | None = None
) -> Array:
    """The adjoint of im2col: an image of `shape`, in which each pixel is the sum over where it was seen.

    shape: N, C, H, W. bias (C,) is added, if given. One launch: each pixel collects what is its own, in a
    fixed order, so that the result is the same every time.
    """
    (ph, pw), (n, c, h, w), (kh, kw) = how.padding, shape, kernel
    oh, ow = how.size_after((h, w), kernel)
    xp = xp_of(columns)
    wide = xp.zeros((n, c, h + 2 * ph, w + 2 * pw), columns.dtype)
    seen = columns.reshape(n, oh, ow, kh, kw, c).transpose(0, 5, 3, 4, 1, 2)
    add_windows(seen, wide, how.stride, how.dilation)
    image = empty(xp, shape, columns.dtype, LAST)
    image[...] = wide[:, :, ph : ph + h, pw : pw + w]
    if bias is not None:
        image += _spread(bias, image)
    return image


# ----------------------------------------------------------------------- optimisers, moving averages

Piece = tuple[int, Array]  # where it begins in the flat memory, and the gradient as it lies there, one axis


def adam(
    p: Array, m: Array, v: Array, gradients: Sequence[Piece], step: int | Array, lr: float, beta1: float,
    beta2: float, eps: float, weight_decay: float = 0.0, decoupled: bool = False,
) -> None:  # fmt: skip
    """kernels.optim.adam for the pieces of flat memory that have a gradient, in place.

    One launch for each sixteen pieces: the kernel is told where each gradient lies, and nothing is put
    together before. step: a number, or a 0-d int64 array on the device, looked up when the kernel runs.
    """
    step = int(step)
    c = math.sqrt(1 - beta2**step)
    rate, tiny = lr * c / (1 - beta1**step), eps * c
    for start, g in gradients:
        part = slice(start, start + g.size)
        pp, mm, vv = p[part], m[part], v[part]
        if weight_decay and decoupled:
            pp *= 1 - lr * weight_decay
        elif weight_decay:
            g = g + weight_decay * pp
        mm *= beta1
        mm += (1 - beta1) * g
        vv *= beta2
        vv += (1 - beta2) * g * g
        pp -= rate * mm / (xp_of(p).sqrt(vv) + tiny)


def averages(kept: Sequence[Array], new: Sequence[Array], decay: float) -> None:
    """In place, for each pair of arrays: a ← a + (1 - δ) (p - a). One launch for each sixteen pairs.

    The two arrays of a pair have one axis, the same length, and lie in memory without gaps.
    """
    for a, p in zip(kept, new, strict=True):
        a += (1 - decay) * (p - a)


# ----------------------------------------------------------------------------------- random numbers

# Two numbers below 2⁶⁴: which purpose, and which position (a step). The position may also be a 0-d int64
# array on the device, looked up when the kernel runs.
Key = tuple[int, Any]


def uniform(shape: tuple[int, ...], key: Key, like: Any) -> Array:
    """Numbers between 0 and 1, float32, that depend on nothing but the key. One launch.

    They come from Philox (Salmon et al. 2011), which makes 256 random bits of (key, counter): entry i of the
    result is made of the 32-bit word i of that stream, by its upper 24 bits, so that it is exact. like: the
    module whose arrays are wanted (xp_of).
    """
    return like.asarray((_words(math.prod(shape), key) >> 8).astype(np.float32) * np.float32(2**-24)).reshape(
        shape
    )


def normal(shape: tuple[int, ...], key: Key, like: Any) -> Array:
    """Numbers of N(0, 1), float32, that depend on nothing but the key. One launch.

    Box and Muller: two uniform numbers u (above 0) and v make two normal ones,

        √(-2 log u) cos(2π v)  and  √(-2 log u) sin(2π v)

    Entries 2i and 2i + 1 of the result are made of words 2i and 2i + 1 of the stream.
    """
    count = math.prod(shape)
    words = (_words(count + count % 2, key) >> 8).astype(np.float32).reshape(-1, 2)
    u, v = (words[:, 0] + np.float32(1)) * np.float32(2**-24), words[:, 1] * np.float32(2**-24)
    far, angle = np.sqrt(-2 * np.log(u)), np.float32(2 * np.pi) * v
    pairs = np.stack([far * np.cos(angle), far * np.sin(angle)], axis=1).astype(np.float32)
    return like.asarray(pairs.reshape(-1)[:count]).reshape(shape)


def batch(data: Array, order: Array, turn: int | Array, count: int) -> Array:
    """Batch number `turn` of data (M, ...): its rows order[turn · count : (turn + 1) · count]. One launch.

    order: int64, on the device. turn: a number, or a 0-d int64 array on the device.
    """
    start = int(turn) * count
    return data[order[start : start + count]]


def _words(count: int, key: Key) -> np.ndarray:
    """The first 32-bit words of Philox4x64-10 with this key: of each 64-bit number the lower half first."""
    philox = np.random.Philox(key=np.array([key[0], int(key[1])], np.uint64), counter=0)
    return philox.random_raw(-(-count // 2)).astype("<u8").view("<u4")[:count]


def _like(y: Array, values: Array) -> Array:
    """The values, in the memory order of y."""
    made = xp_of(y).empty_like(y, dtype=values.dtype)
    made[...] = values
    return made


def _spread(v: Array, x: Array) -> Array:
    """One number per channel, in a shape that broadcasts against x."""
    return v.reshape(1, -1, *[1] * (x.ndim - 2))
