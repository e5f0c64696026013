"""Weights that are computed anew before each use: spectral normalisation, equalised learning rate.

Both take a layer whose weight is a parameter, and leave it with

    weight_orig     the parameter, which the optimiser trains
    weight          computed from weight_orig before each forward: what the layer multiplies by

Gradients flow from `weight` back to `weight_orig`. Between two forwards `weight` is what the last one used,
even if `weight_orig` has changed meanwhile.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from ..backend import Array, xp_of
from ..kernels.linear import matmul as product
from ..ops.linear import matmul
from ..ops.shape import moveaxis
from ..tensor import Tensor, constant
from . import init
from .conv import ConvTranspose2d
from .linear import Embedding
from .module import Module

__all__ = ["equalized", "spectral_norm"]

M = TypeVar("M", bound=Module)
WARM_UP = 15  # power iterations when the layer is made: eval mode has none, and needs a σ as well


# ---------------------------------------------------------------------------- spectral norm


def spectral_norm(layer: M, *, rng: Any, name: str = "weight", eps: float = 1e-12) -> M:
    """Divide a layer's weight by its largest singular value σ (Miyato et al. 2018). Returns the layer.

        W = weight_orig as a matrix (outputs, everything else)
        v ← Wᵀ u / ‖Wᵀ u‖        u ← W v / ‖W v‖        σ = uᵀ W v
        weight = W / σ           W̄_orig = (W̄ - Σ(W̄ · weight) u vᵀ) / σ

    Then the layer stretches no input by more than a factor of 1. (A convolution may, by up to √(KH · KW):
    its W is not the whole map.) Each forward in training mode, under no_grad() too, does one round of
    power iteration, which is the line for v and u. In eval mode there is none. W changes little from one
    forward to the next, so one round is enough. u and v are the buffers `weight_u` and `weight_v`; to the
    tape they are constants.

    If you choose the weights yourself (`init.fill` ...), do it before. As torch.nn.utils.spectral_norm,
    except that u and v start from a few rounds of power iteration, so that eval mode is right from the start.

    >>> from minigan import nn
    >>> d = spectral_norm(nn.Linear(784, 128, rng=0), rng=1)
    >>> [name for name, _ in d.named_parameters()], [name for name, _ in d.named_buffers()]
    (['bias', 'weight_orig'], ['weight_u', 'weight_v'])
    """
    weight = _checked_weight("spectral_norm", layer, name)
    hook = _SpectralNorm(name, _output_axis(layer), eps)
    matrix = hook.matrix(weight.detach()).data
    xp = xp_of(matrix)
    if not xp.any(matrix):
        raise ValueError(f"spectral_norm: {name} of {layer!r} is all zeros; give it values before")
    u = init.generator(rng, "spectral_norm").standard_normal(matrix.shape[0])
    u = xp.asarray(u.astype(matrix.dtype))
    for _ in range(WARM_UP):
        u, v = _power_iteration(u, matrix, eps)
    setattr(layer, f"{name}_u", constant(u))
    setattr(layer, f"{name}_v", constant(v))
    return _install(layer, name, weight, hook)


@dataclass(frozen=True)
class _SpectralNorm:
    """What runs before each forward of a layer with spectral_norm."""

    name: str
    axis: int  # of the outputs
    eps: float

    def __str__(self) -> str:
        return "spectral_norm"

    def __call__(self, layer: Module) -> None:
        weight, u, v = (getattr(layer, self.name + part) for part in ("_orig", "_u", "_v"))
        matrix = self.matrix(weight)
        if layer.training:
            u, v = map(constant, _power_iteration(u.data, matrix.data, self.eps))
            setattr(layer, f"{self.name}_u", u)
            setattr(layer, f"{self.name}_v", v)
        sigma = (u * matmul(matrix, v)).sum()
        _use(layer, self.name, weight / sigma)

    def matrix(self, weight: Tensor) -> Tensor:
        """The weight with one row for each output."""
        rows = moveaxis(weight, self.axis, 0) if self.axis else weight
        return rows.reshape(rows.shape[0], math.prod(rows.shape[1:]))


def _power_iteration(u: Array, matrix: Array, eps: float) -> tuple[Array, Array]:
    """u and v after one round of power iteration, on bare arrays: nearer to the singular vectors of σ."""
    v = _normalised(product(matrix.T, u), eps)
    return _normalised(product(matrix, v), eps), v


def _normalised(x: Array, eps: float) -> Array:
    """x / ‖x‖. Divided by its largest entry first, since x² may be too small, or too large, for a number."""
    xp = xp_of(x)
    x = x / xp.maximum(xp.abs(x).max(), float(np.finfo(x.dtype).tiny))
    return x / xp.maximum(xp.sqrt((x * x).sum()), eps)


# ------------------------------------------------------------------- equalised learning rate


def equalized(layer: M, *, rng: Any, gain: float = math.sqrt(2.0)) -> M:
    """Scale a layer's weight at run time, not when it is drawn (Karras et al. 2018). Returns the layer.

        weight_orig ~ N(0, 1)        weight = weight_orig · gain / √fan_in        bias = 0

    The output has the usual size, as if the weight had been drawn from N(0, gain²/fan_in). But all
    parameters have the same size, and Adam, whose steps do not depend on the size of the gradient, then
    trains all layers at the same pace: "equalised learning rate", as in ProGAN and StyleGAN. √2 is the gain
    for layers before a ReLU; ProGAN's last layers have 1.

    fan_in is the number of values that one output is a weighted sum of; for a transposed convolution that
    of stride 1.

    >>> from minigan import nn
    >>> layer = equalized(nn.Conv2d(16, 32, 3, rng=0), rng=1)
    >>> round(float(layer.weight_orig.var()), 1), round(float(layer.weight.var()) * 16 * 9, 1)
    (1.0, 2.0)
    """
    rng = init.generator(rng, "equalized")
    weight = _checked_weight("equalized", layer, "weight")
    if getattr(layer, "normalises", False) or isinstance(layer, Embedding):
        raise ValueError(f"equalized: {layer!r} has a weight, but its outputs are not sums weighted by it")
    fan_in = weight.size // weight.shape[_output_axis(layer)]
    if _output_axis(layer):
        fan_in //= layer.groups  # type: ignore[attr-defined]  # a transposed one has all inputs on axis 0
    weight.data = rng.standard_normal(weight.shape)
    bias = getattr(layer, "bias", None)
    if bias is not None:
        bias.data = xp_of(bias.data).zeros_like(bias.data)
    return _install(layer, "weight", weight, _Scaled("weight", gain / math.sqrt(fan_in)))


@dataclass(frozen=True)
class _Scaled:
    """What runs before each forward of an equalized layer."""

    name: str
    factor: float

    def __str__(self) -> str:
        return "equalized"

    def __call__(self, layer: Module) -> None:
        _use(layer, self.name, getattr(layer, f"{self.name}_orig") * self.factor)


# ---------------------------------------------------------------------- what the two share


class _InUse(Tensor):
    """A weight in use. A copy of the layer gets its value only: the copy will compute a weight of its own."""

    __slots__ = ()

    def __reduce__(self) -> Any:
        return Tensor, (self._data,)


def _use(layer: Module, name: str, weight: Tensor) -> None:
    """Make `weight` the one that the layer's forward will use."""
    in_use = _InUse.__new__(_InUse)
    in_use._data, in_use.node, in_use.leaf = weight._data, weight.node, None
    setattr(layer, name, in_use)


def _checked_weight(who: str, layer: Any, name: str) -> Tensor:
    """The parameter that is to become `weight_orig`."""
    if not isinstance(layer, Module):
        raise TypeError(f"{who}: {layer!r} is not a Module")
    if name in layer._computed:
        raise ValueError(
            f"{who}: {name} of {layer!r} is computed from {name}_orig already; apply it once only, "
            "and to a layer whose weight is still a parameter"
        )
    weight = getattr(layer, name, None)
    if not isinstance(weight, Tensor) or weight.leaf is None:
        owned = [each for each, _ in layer.named_parameters()]
        raise ValueError(
            f"{who}: {layer!r} has no parameter called {name!r} of its own; it has: "
            f"{', '.join(owned) or 'none'}. Apply it to a layer with a weight, such as Linear or Conv2d"
        )
    if weight.ndim < 2:
        raise ValueError(f"{who}: {name} of {layer!r} has shape {weight.shape}; it needs two axes or more")
    return weight


def _install(layer: M, name: str, weight: Tensor, hook: Any) -> M:
    """From now on `weight` is called weight_orig, and the hook computes the weight before each forward."""
    delattr(layer, name)
    setattr(layer, f"{name}_orig", weight)
    layer._computed = layer._computed | {name}
    # First in line: what it computes may be the weight_orig of a hook that is there already.
    layer._pre_hooks = (hook, *layer._pre_hooks)
    training, layer.training = layer.training, False
    hook(layer)  # so that there is a weight to look at before the first forward
    layer.training = training
    return layer


def _output_axis(layer: Module) -> int:
    """The axis of the weight that counts outputs. (A ConvTranspose1d is a ConvTranspose2d: see conv.py.)"""
    return 1 if isinstance(layer, ConvTranspose2d) else 0
