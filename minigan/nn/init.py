"""Where weights begin. Each function draws from the generator it is given; none has a state of its own.

    rng = numpy.random.default_rng(0)
    init.normal_(model, 0.02, rng)        # as in DCGAN: every weight of every layer

The plain functions (`normal`, `xavier_uniform` ...) return a NumPy array of a given shape. Shapes are those
of weights: (out, in) for Linear, (out, in/groups, KH, KW) for convolutions. fan_in is the number of values
that one output is a weighted sum of, fan_out the number of outputs that one input has a say in.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Shape = tuple[int, ...]


def generator(rng: Any, who: str) -> np.random.Generator:
    """The generator that a user gave, or one made from the seed that a user gave."""
    if isinstance(rng, np.random.Generator):
        return rng
    if isinstance(rng, (int, np.integer)) and not isinstance(rng, bool):
        return np.random.default_rng(rng)
    raise TypeError(f"{who}: rng={rng!r}; give a generator, numpy.random.default_rng(seed), or a seed")


def fans(shape: Shape) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight.

    >>> fans((256, 100)), fans((64, 3, 5, 5))
    ((100, 256), (75, 1600))
    """
    if len(shape) < 2:
        raise ValueError(f"init: a weight of shape {shape} has no fan_in; that needs two axes or more")
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


def uniform(shape: Shape, bound: float, rng: Any) -> np.ndarray:
    """Between -bound and bound."""
    return generator(rng, "init.uniform").uniform(-bound, bound, shape)


def torch_default(shape: Shape, rng: Any) -> np.ndarray:
    """PyTorch's choice for Linear and convolutions: uniform within ±1/√fan_in."""
    return uniform(shape, 1 / math.sqrt(fans(shape)[0]), rng)
