"""Where weights begin. Every function draws from the generator it is given; none has a state of its own.

The functions return a NumPy array of a given shape. `fill` hands them to the weights of a model:

    rng = numpy.random.default_rng(0)
    init.fill(model, lambda shape: init.kaiming_normal(shape, rng, slope=0.2))
    init.dcgan(model, rng)          # the one recipe that treats normalising layers, too

Numbers are drawn by NumPy and then moved, so they are the same on every backend. Shapes are those of
weights: (out, in) for Linear, (out, in/groups, KH, KW) for convolutions. fan_in is the number of values
that one output is a weighted sum of, fan_out the number of outputs that one input is part of.

Why fans matter: a sum of fan_in terms with weights of variance v has fan_in · v times the variance of its
inputs. So v = 1 / fan_in keeps signals at one size from layer to layer, and v = 1 / fan_out gradients on
their way back. A `gain` makes up for an activation that shrinks them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..tensor import Tensor
from .module import Module

Shape = tuple[int, ...]


def generator(rng: Any, who: str) -> np.random.Generator:
    """The generator that a user gave, or one made from the seed that a user gave.

    A seed begins anew each time: two layers of one shape made with rng=0 have the same weights. A network
    shares one generator among its layers.
    """
    if isinstance(rng, np.random.Generator):
        return rng
    if isinstance(rng, (int, np.integer)) and not isinstance(rng, bool):
        return np.random.default_rng(rng)
    raise TypeError(f"{who}: rng={rng!r}; give a generator, numpy.random.default_rng(seed), or a seed")


def fans(shape: Shape) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight. (PyTorch swaps the two for transposed convolutions, and so do we.)

    >>> fans((256, 100)), fans((64, 3, 5, 5))
    ((100, 256), (75, 1600))
    """
    if len(shape) < 2:
        raise ValueError(f"init: a weight of shape {shape} has no fan_in; that needs two axes or more")
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


# ----------------------------------------------------------------------------- plain numbers


def constant(shape: Shape, value: float) -> np.ndarray:
    """The same number everywhere."""
    return np.full(shape, value, float)


def zeros(shape: Shape) -> np.ndarray:
    """0 everywhere: for biases."""
    return constant(shape, 0.0)


def ones(shape: Shape) -> np.ndarray:
    """1 everywhere: for factors."""
    return constant(shape, 1.0)


def uniform(shape: Shape, bound: float, rng: Any) -> np.ndarray:
    """Between -bound and bound. The standard deviation is bound / √3."""
    return generator(rng, "init.uniform").uniform(-bound, bound, shape)


def normal(shape: Shape, std: float, rng: Any) -> np.ndarray:
    """Normally distributed around 0."""
    return generator(rng, "init.normal").normal(0.0, std, shape)


def truncated_normal(shape: Shape, std: float, rng: Any, cut: float = 2.0) -> np.ndarray:
    """Normally distributed around 0; what lies beyond ±cut · std is drawn again.

    std is that of the uncut distribution. Without its tails it is less: 0.88 std for cut=2.
    """
    rng = generator(rng, "init.truncated_normal")
    if not cut > 0:
        raise ValueError(f"init.truncated_normal: cut={cut} must be positive; it counts standard deviations")
    values = rng.standard_normal(math.prod(shape))
    beyond = np.flatnonzero(np.abs(values) > cut)
    while beyond.size:
        values[beyond] = rng.standard_normal(beyond.size)
        beyond = beyond[np.abs(values[beyond]) > cut]
    return std * values.reshape(shape)


# ---------------------------------------------------------------------------- sized by the fans


def torch_default(shape: Shape, rng: Any) -> np.ndarray:
    """PyTorch's choice for Linear and convolutions: uniform within ±1/√fan_in."""
    return uniform(shape, 1 / math.sqrt(fans(shape)[0]), rng)


def xavier_uniform(shape: Shape, rng: Any, gain: float = 1.0) -> np.ndarray:
    """Uniform with the variance of `xavier_normal`."""
    return uniform(shape, math.sqrt(3) * _xavier_std(shape, gain), rng)


def xavier_normal(shape: Shape, rng: Any, gain: float = 1.0) -> np.ndarray:
    """Normal with std² = gain² · 2 / (fan_in + fan_out): between what signals and gradients need

    Glorot & Bengio 2010. Meant for layers followed by tanh or by nothing.
    """
    return normal(shape, _xavier_std(shape, gain), rng)


def _xavier_std(shape: Shape, gain: float) -> float:
    return gain * math.sqrt(2 / sum(fans(shape)))


def kaiming_uniform(shape: Shape, rng: Any, slope: float = 0.0, mode: str = "fan_in") -> np.ndarray:
    """Uniform with the variance of `kaiming_normal`."""
    return uniform(shape, math.sqrt(3) * _kaiming_std(shape, slope, mode), rng)


def kaiming_normal(shape: Shape, rng: Any, slope: float = 0.0, mode: str = "fan_in") -> np.ndarray:
    """Normal with std² = leaky_relu_gain(slope)² / fan

    He et al. 2015. slope: that of the leaky_relu which follows; 0 for relu, 1 where nothing follows.
    mode: "fan_in" keeps the size of signals, "fan_out" that of gradients.
    """
    return normal(shape, _kaiming_std(shape, slope, mode), rng)


def leaky_relu_gain(slope: float) -> float:
    """√(2 / (1 + slope²)): what makes up for leaky_relu, which shrinks the negative half

    >>> leaky_relu_gain(1.0)
    1.0
    """
    return math.sqrt(2 / (1 + slope**2))


def _kaiming_std(shape: Shape, slope: float, mode: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"init.kaiming: mode={mode!r} must be 'fan_in' or 'fan_out'")
    fan = fans(shape)[0 if mode == "fan_in" else 1]
    return leaky_relu_gain(slope) / math.sqrt(fan)


def orthogonal(shape: Shape, rng: Any, gain: float = 1.0) -> np.ndarray:
    """gain times a matrix with WᵀW = I (W Wᵀ = I if it is wider than high): it changes no lengths

    Saxe et al. 2014. The first axis counts the rows; all others together count the columns. W is the Q of
    a random matrix's QR decomposition. Making R's diagonal positive makes W uniform among such matrices.
    """
    rng = generator(rng, "init.orthogonal")
    fans(shape)  # two axes or more, or an error
    rows, columns = shape[0], math.prod(shape[1:])
    q, r = np.linalg.qr(rng.standard_normal((max(rows, columns), min(rows, columns))))
    q *= np.sign(np.diag(r))
    return gain * (q if rows >= columns else q.T).reshape(shape)


# ------------------------------------------------------------------------------- into a model


def fill(target: Module | Tensor, function: Callable[[Shape], Any]) -> None:
    """Give every weight of a Module the value function(shape), one after the other

    Weights are the parameters with two axes or more, in the order of `named_parameters`. Biases are left
    as they are; so are layers that normalise, whose weights multiply one input each and begin at 1.
    A single Tensor is filled whatever its shape.
    """
    if isinstance(target, Tensor):
        target.data = function(target.shape)
        return
    factors = _of_normalising_layers(target)
    for parameter in target.parameters():
        if parameter.ndim >= 2 and parameter not in factors:
            parameter.data = function(parameter.shape)


def dcgan(module: Module, rng: Any, std: float = 0.02) -> None:
    """Weights from N(0, std²), those of normalising layers from N(1, std²), biases 0 (Radford et al. 2016)"""
    rng = generator(rng, "init.dcgan")
    factors = _of_normalising_layers(module)
    for name, parameter in module.named_parameters():
        if name.split(".")[-1] == "bias":
            parameter.data = zeros(parameter.shape)
        elif parameter in factors:
            parameter.data = 1 + normal(parameter.shape, std, rng)
        elif parameter.ndim >= 2:
            parameter.data = normal(parameter.shape, std, rng)


def _of_normalising_layers(module: Module) -> set[Tensor]:
    layers = [layer for layer in module.modules() if getattr(layer, "normalises", False)]
    return {parameter for layer in layers for parameter in layer.parameters()}
