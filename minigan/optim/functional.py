"""The rules as functions: new parameters from old ones, so that a gradient can flow through a step.

    state = adam_init(params)
    for _ in range(5):
        gradients = grad(loss(params), params, create_graph=True)
        params, state = adam(params, gradients, state, lr=1e-3)
    grad(something(params), where_it_began)

This is what an unrolled GAN needs (Metz et al. 2017): the generator looks five steps of the discriminator
ahead, and its gradient goes back through them. The parameters need not be leaves. lr may be a Tensor of one
number, in the precision of the parameters, and then has a gradient too.

Read a rule here. kernels/optim.py computes the same on bare arrays, faster, for the optimisers.

A state is a list with one entry for each parameter. A parameter whose gradient is None is handed on as it
is, together with its state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..backend import xp_of
from ..ops.elementwise import sqrt, where
from ..tensor import Tensor, constant

__all__ = ["adam", "adam_init", "rmsprop", "rmsprop_init", "sgd", "sgd_init"]

Tensors = Sequence[Tensor]
Gradients = Sequence[Tensor | None]
State = list[Any]


def _each(
    name: str, rule: Callable[..., tuple[Tensor, Any]], params: Tensors, grads: Gradients, state: State
) -> tuple[list[Tensor], State]:
    if not len(params) == len(grads) == len(state):
        raise ValueError(
            f"{name}: {len(params)} parameters, {len(grads)} gradients, a state of {len(state)}; "
            "there must be one of each for each parameter"
        )
    new = [(p, s) if g is None else rule(p, g, s) for p, g, s in zip(params, grads, state, strict=True)]
    return [p for p, _ in new], [s for _, s in new]


def _zeros(p: Tensor) -> Tensor:
    return constant(xp_of(p._data).zeros(p.shape, p.dtype))


def _root(x: Tensor) -> Tensor:
    """√x, with gradient 0 at x = 0, where √ has none: else an entry without gradient would become nan."""
    zero = x._data <= 0
    return where(zero, 0.0, sqrt(where(zero, 1.0, x)))


def sgd_init(params: Tensors) -> State:
    """The state before the first step: no momentum yet."""
    return [None] * len(params)


def sgd(
    params: Tensors, grads: Gradients, state: State, lr: float | Tensor, momentum: float = 0.0,
    dampening: float = 0.0, weight_decay: float = 0.0, nesterov: bool = False,
) -> tuple[list[Tensor], State]:  # fmt: skip
    """b ← μ b + (1 - dampening) g        p ← p - η b        (nesterov: p - η (g + μ b))"""

    def rule(p: Tensor, g: Tensor, b: Tensor | None) -> tuple[Tensor, Any]:
        if weight_decay:
            g = g + weight_decay * p
        if not momentum:
            return p - lr * g, None
        b = g if b is None else momentum * b + (1 - dampening) * g
        return p - lr * (g + momentum * b if nesterov else b), b

    return _each("sgd", rule, params, grads, state)


def rmsprop_init(params: Tensors) -> State:
    """The state before the first step: v, the mean of g, and the momentum, all zero."""
    return [(_zeros(p), _zeros(p), _zeros(p)) for p in params]


def rmsprop(
    params: Tensors, grads: Gradients, state: State, lr: float | Tensor = 0.01, alpha: float = 0.99,
    eps: float = 1e-8, weight_decay: float = 0.0, momentum: float = 0.0, centered: bool = False,
) -> tuple[list[Tensor], State]:  # fmt: skip
    """v ← α v + (1 - α) g²        p ← p - η g / (√v + ε)        (centered: v - mean² for v)"""

    def rule(p: Tensor, g: Tensor, kept: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Any]:
        v, mean, b = kept
        if weight_decay:
            g = g + weight_decay * p
        v = alpha * v + (1 - alpha) * (g * g)
        if centered:
            mean = alpha * mean + (1 - alpha) * g
        direction = g / (_root(v - mean * mean if centered else v) + eps)
        if momentum:
            b = direction = momentum * b + direction
        return p - lr * direction, (v, mean, b)

    return _each("rmsprop", rule, params, grads, state)


def adam_init(params: Tensors) -> State:
    """The state before the first step: t, m and v, all zero."""
    return [(0, _zeros(p), _zeros(p)) for p in params]


def adam(
    params: Tensors, grads: Gradients, state: State, lr: float | Tensor = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0,
    decoupled: bool = False,
) -> tuple[list[Tensor], State]:  # fmt: skip
    """m ← β₁ m + (1 - β₁) g        v ← β₂ v + (1 - β₂) g²        p ← p - η m̂ / (√v̂ + ε)

    m̂ = m / (1 - β₁ᵗ), v̂ = v / (1 - β₂ᵗ), t counts from 1. decoupled: weight decay as in AdamW.
    """
    beta1, beta2 = betas

    def rule(p: Tensor, g: Tensor, kept: tuple[int, Tensor, Tensor]) -> tuple[Tensor, Any]:
        t, m, v = kept
        t += 1
        if weight_decay and decoupled:
            p = p - lr * weight_decay * p
        elif weight_decay:
            g = g + weight_decay * p
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * (g * g)
        m_hat, v_hat = m * (1 / (1 - beta1**t)), v * (1 / (1 - beta2**t))
        return p - lr * m_hat / (_root(v_hat) + eps), (t, m, v)

    return _each("adam", rule, params, grads, state)
