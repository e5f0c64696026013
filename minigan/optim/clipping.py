"""Keeping gradients within bounds. Call these between backward() and step().

A Tensor never changes, so what is clipped here is a new Tensor in the place of the old `.grad`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from ..backend import Array, xp_of
from ..ops.elementwise import clip
from ..tensor import Tensor
from .flat import leaves

__all__ = ["clip_grad_norm", "clip_grad_value"]


def clip_grad_norm(params: Iterable[Tensor], max_norm: float) -> float:
    """g ← g · min(1, max_norm / (‖g‖ + 10⁻⁶)), all gradients taken as one long vector g. Returns ‖g‖

    The direction stays as it is. The 10⁻⁶ is PyTorch's; unlike there, a norm that is infinite or no number
    is an error.
    """
    max_norm = _bound("clip_grad_norm: max_norm", max_norm)
    found = [(p, p.grad) for p in leaves(params, "clip_grad_norm") if p.grad is not None]
    norms = [_norm(g._data) for _, g in found if g.size]
    norm = float(_norm(xp_of(found[0][1]._data).stack(norms))) if norms else 0.0  # a GPU is waited for once
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


def _norm(a: Array) -> Array:
    """s √Σ (a / s)², with s the largest |a|, so that no square overflows or vanishes; float64, 0-d"""
    xp = xp_of(a)
    s = xp.abs(a).max()
    s = xp.where((s > 0) & (s < math.inf), s, xp.ones_like(s))
    return s.astype("f8") * xp.sqrt(xp.square(a / s).sum(dtype="f8"))


def _bound(what: str, value: Any) -> float:
    number = float(value)
    if not number > 0:
        raise ValueError(f"{what} must be above 0, not {number}")
    return number
