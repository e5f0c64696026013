"""Batch normalisation and dropout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..backend import Array, xp_of
from ..tensor import Tensor, constant, link, record
from .elementwise import mul
from .operands import number, tensor
from .reduce import mean
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

    on_statistics is told μ and σ² of the batch (arrays of shape (C,)): a layer keeps its running
    averages this way.
    """
    x, eps = tensor(x, "batch_norm"), number("batch_norm", "eps", eps)
    if eps < 0:
        raise ValueError(f"batch_norm: eps={eps} must not be negative")
    if x.ndim < 2:
        raise ValueError(f"batch_norm: input of shape {x.shape}; it must have axes (N, C, ...)")
    shape = (1, x.shape[1]) + (1,) * (x.ndim - 2)
    gamma = None if weight is None else reshape(_channels(weight, "weight", x), shape)
    beta = None if bias is None else reshape(_channels(bias, "bias", x), shape)
    if running is not None:
        center, spread = (reshape(_channels(t, "running statistics", x), shape).detach() for t in running)
        return _affine((x - center) * (spread + eps) ** -0.5, gamma, beta)
    n = x.size // x.shape[1] if x.shape[1] else 0
    if n < 2:
        raise ValueError(
            f"batch_norm: input of shape {x.shape} has {n} values per channel, and no variance; training "
            "needs a larger batch, or give running=(mean, variance)"
        )
    x_hat, mu, variance = _normalised(x, eps)
    if on_statistics is not None:
        on_statistics(mu.reshape(-1), variance.reshape(-1))
    return _affine(x_hat, gamma, beta)


def _normalised(x: Tensor, eps: float) -> tuple[Tensor, Array, Array]:
    """x̂ = (x - μ) s, where s = 1 / √(σ² + ε)        x̄ = (g - mean g - x̂ · mean(g x̂)) s, g = x̂'s gradient

    s depends on x, smoothly: in the vjp a saved array would be right only the first time. So s is an op
    of its own there, with a derivative of its own: s̄ ↦ -s̄ s² x̂ / N, for N values per channel.
    """
    xp = xp_of(x._data)
    axes = (0, *range(2, x.ndim))
    mu = x._data.mean(axis=axes, keepdims=True)
    data = x._data - mu
    variance = (data * data).mean(axis=axes, keepdims=True)
    scale = 1 / xp.sqrt(variance + eps)
    data *= scale
    n = x.size // x.shape[1]
    x = link(x)  # the value of x is not needed again: x̂ and s say it all

    def vjp(g: Tensor, x_hat: Tensor) -> Tensor:
        back = lambda g, s: g * (s * s * (-1 / n)) * x_hat
        s = record("inverse_std", scale, (x, back), output=True)
        return (g - mean(g, axes, keepdims=True) - x_hat * mean(g * x_hat, axes, keepdims=True)) * s

    return record("normalise", data, (x, vjp), output=True), mu, variance


def _affine(x: Tensor, gamma: Tensor | None, beta: Tensor | None) -> Tensor:
    """y = γ x + β, where there are γ and β"""
    y = x if gamma is None else x * gamma
    return y if beta is None else y + beta


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
    return mul(x, constant(keep * x.dtype.type(1 / (1 - rate))))
