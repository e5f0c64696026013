"""Batch normalisation and dropout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import ref

import numpy as np

from ..backend import Array, xp_of
from ..kernels import elementwise
from ..kernels import norm as kernels
from ..tensor import Tensor, record, shortcut
from .elementwise import astype
from .operands import number, tensor
from .reduce import mean, sum
from .shape import reshape

__all__ = ["batch_norm", "dropout"]


def batch_norm(
    x: Any,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    *,
    running: tuple[Any, Any] | None = None,
    on_statistics: Callable[[Array, Array], None] | None = None,
) -> Tensor:
    """Each channel shifted to mean 0 and scaled to variance 1, then to the learnt weight and bias

        x̂ = (x - μ) / √(σ² + ε)        y = γ x̂ + β
        x̄ = γ / √(σ² + ε) · (ȳ - mean ȳ - x̂ · mean(ȳ x̂))        γ̄ = Σ ȳ x̂        β̄ = Σ ȳ

    Shapes: x (N, C, ...), γ and β (C,). μ and σ² are taken over all axes but C: in training those of
    this batch, so that every image has a say in every other; with running=(mean, variance) those
    numbers, constants as far as gradients go.

    on_statistics is called with μ and σ² of the batch (arrays of shape (C,)): a layer keeps its running
    averages this way.
    """
    known = (weight, *(running or ()))
    x = tensor(x, "batch_norm", like=next((t for t in known if isinstance(t, Tensor)), None))
    eps = number("batch_norm", "eps", eps)
    if eps < 0:
        raise ValueError(f"batch_norm: eps={eps} must not be negative")
    if x.ndim < 2:
        raise ValueError(f"batch_norm: input of shape {x.shape}; it must have axes (N, C, ...)")
    gamma = None if weight is None else _channels(weight, "weight", x)
    beta = None if bias is None else _channels(bias, "bias", x)
    if running is not None:
        center, spread = (_channels(t, "running statistics", x).detach() for t in running)
        scale = (spread + eps) ** -0.5 if gamma is None else gamma * (spread + eps) ** -0.5
        y = (x - _spread(center, x)) * _spread(scale, x)
        return y if beta is None else y + _spread(beta, x)
    n = x.size // x.shape[1] if x.shape[1] else 0
    if n < 2:
        raise ValueError(
            f"batch_norm: input of shape {x.shape} has {n} values per channel, and no variance; training "
            "needs a larger batch, or give running=(mean, variance)"
        )
    x, gamma, beta = _of_one_dtype(x, gamma, beta)
    return _batch_norm(x, gamma, beta, eps, n, on_statistics)


def _batch_norm(
    x: Tensor, gamma: Tensor | None, beta: Tensor | None, eps: float, n: int, on_statistics: Any
) -> Tensor:
    """y = γ x̂ + β, with the statistics of this batch: n values per channel.

    Each vjp says its formula twice: with Tensors, so that it can be differentiated again, and by
    kernels/norm.py, which is faster and does for a backward walk that is not recorded.
    """
    weight, bias = (None if t is None else t._data for t in (gamma, beta))
    y, data, mu, variance, s = kernels.batch_norm(x._data, weight, bias, eps)
    if on_statistics is not None:
        on_statistics(mu, variance)
    axes = (0, *range(2, x.ndim))
    # γ̄ and β̄ for the last gradient: they come with x̄. A weak reference, so as not to keep the gradient alive.
    latest: list[Any] = [lambda: None, None]

    def x_bar(g: Tensor) -> Array:
        now = None if gamma is None else gamma._data  # not kept: an optimiser writes there
        found, *others = kernels.batch_norm_backward(g._data, data, mu, s, now)
        latest[:] = ref(g), others
        return found

    def others(g: Tensor) -> list[Array]:
        if latest[0]() is not g:
            x_bar(g)
        return latest[1]

    def to_x(g: Tensor) -> Tensor:
        x_hat, scale = _normalised(x, mu, s, n)
        g = g if gamma is None else g * _spread(gamma, x)
        return (g - mean(g, axes, keepdims=True) - x_hat * mean(g * x_hat, axes, keepdims=True)) * scale

    def to_gamma(g: Tensor) -> Tensor:
        return sum(g * _normalised(x, mu, s, n)[0], axes)

    edges = [(x, lambda g: shortcut(lambda: to_x(g), lambda: x_bar(g)))]
    if gamma is not None:
        edges.append((gamma, lambda g: shortcut(lambda: to_gamma(g), lambda: others(g)[0])))
    if beta is not None:
        edges.append((beta, lambda g: shortcut(lambda: sum(g, axes), lambda: others(g)[1])))
    return record("batch_norm", y, *edges)


def _normalised(x: Tensor, mu: Array, s: Array, n: int) -> tuple[Tensor, Tensor]:
    """x̂ = (x - μ) s and s, for each channel, as functions of x        x̂'s gradient is that of batch_norm

    s depends on x, smoothly: as a saved array it would be right only the first time. So it is an op
    of its own, with a derivative of its own: s̄ ↦ -s̄ s² x̂ / n.
    """
    axes, shape = (0, *range(2, x.ndim)), (1, -1, *[1] * (x.ndim - 2))

    def scale(x_hat: Tensor) -> Tensor:
        back = lambda g, s: g * (s * s * (-1 / n)) * x_hat
        return record("inverse_std", s.reshape(shape), (x, back), output=True)

    def vjp(g: Tensor, x_hat: Tensor) -> Tensor:
        g = g - mean(g, axes, keepdims=True) - x_hat * mean(g * x_hat, axes, keepdims=True)
        return g * scale(x_hat)

    data = (x._data - mu.reshape(shape)) * s.reshape(shape)
    x_hat = record("normalise", data, (x, vjp), output=True)
    return x_hat, scale(x_hat)


def _spread(t: Tensor, x: Tensor) -> Tensor:
    """One number per channel, in a shape that broadcasts against x."""
    return reshape(t, 1, -1, *[1] * (x.ndim - 2))


def _of_one_dtype(*ts: Tensor | None) -> tuple[Any, ...]:
    """The highest precision among them for all of them."""
    dtype = np.result_type(*(t.dtype for t in ts if t is not None))
    return tuple(t if t is None or t.dtype == dtype else astype(t, dtype) for t in ts)


def _channels(t: Any, what: str, x: Tensor) -> Tensor:
    t = tensor(t, "batch_norm", like=x)
    if t.shape != x.shape[1:2]:
        raise ValueError(f"batch_norm: {what} of shape {t.shape} for {x.shape[1]} channels of {x.shape}")
    return t


def dropout(x: Any, rate: float, rng: Any) -> Tensor:
    """y = x · mask / (1 - rate), where each entry of the mask is 0 with probability `rate`, else 1

    x̄ = ȳ · mask / (1 - rate). rng: a generator (numpy.random.default_rng(seed)); the division
    keeps the expected value of y at x.
    """
    x = tensor(x, "dropout")
    rate = number("dropout", "rate", rate)
    if x.dtype.kind != "f":
        raise TypeError(f"dropout: a Tensor of dtype {x.dtype}; it needs floating point numbers")
    if not hasattr(rng, "random"):
        raise TypeError(f"dropout: rng={rng!r}; give a generator: numpy.random.default_rng(seed)")
    if not 0 <= rate < 1:
        raise ValueError(f"dropout: rate={rate} must be 0 or more and less than 1")
    keep = xp_of(x._data).asarray(rng.random(x.shape, dtype="float32") >= rate)
    return _dropout(x, keep, 1 / (1 - rate))


def _dropout(x: Tensor, keep: Array, scale: float) -> Tensor:
    """x · scale where `keep` holds, else 0: linear in x, and its own adjoint"""
    data = elementwise.masked(x._data, keep)
    data *= scale
    return record("dropout", data, (x, lambda g: _dropout(g, keep, scale)))
