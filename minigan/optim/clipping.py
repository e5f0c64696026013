"""Keeping gradients, or weights, within bounds. Call these between backward() and step().

A Tensor never changes, so what is clipped here is a new Tensor in the place of the old `.grad`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from ..backend import xp_of
from ..ops.elementwise import clip
from ..tensor import Tensor
from .flat import leaves

__all__ = ["clip_grad_norm", "clip_grad_value", "clip_weights"]


def clip_grad_norm(params: Iterable[Tensor], max_norm: float) -> float:
    """g ← g · min(1, max_norm / (‖g‖ + 10⁻⁶)), all gradients taken as one long vector g. Returns ‖g‖

    The direction stays as it is. The 10⁻⁶ is PyTorch's; unlike there, a norm that is infinite or no number
    is an error.
    """
    max_norm = _bound("clip_grad_norm: max_norm", max_norm)
    found = [(p, p.grad) for p in leaves(params, "clip_grad_norm") if p.grad is not None]
    norm = math.hypot(*(float(xp_of(g._data).sqrt((g._data * g._data).sum())) for _, g in found))
    if not math.isfinite(norm):
        raise ValueError(
            f"clip_grad_norm: the norm of the gradients is {norm}; no factor repairs that. Look for the op "
            "whose result is not finite, with minigan.trace()"
        )
    factor = max_norm / (norm + 1e-6)
    if factor < 1:
        for p, g in found:
            p.grad = g * factor
    return norm


def clip_grad_value(params: Iterable[Tensor], limit: float) -> None:
    """Each entry of each gradient between -limit and limit."""
    limit = _bound("clip_grad_value: limit", limit)
    for p in leaves(params, "clip_grad_value"):
        if p.grad is not None:
            p.grad = clip(p.grad, -limit, limit)


def clip_weights(params: Iterable[Tensor], limit: float) -> None:
    """Each entry of each parameter between -limit and limit: how the first WGAN bounded its critic's slope

    (Arjovsky et al. 2017: limit 0.01, after each step of the critic.)
    """
    limit = _bound("clip_weights: limit", limit)
    for p in leaves(params, "clip_weights"):
        p.data = xp_of(p._data).clip(p._data, -limit, limit)


def _bound(what: str, value: Any) -> float:
    number = float(value)
    if not number > 0:
        raise ValueError(f"{what} must be above 0, not {number}")
    return number
