"""Learning rates that change while training: functions from the number of steps done, 0 at first, to a rate.

    Adam(model.parameters(), lr=linear(2e-4, 100_000))

A schedule depends on nothing but the step. So training that is taken up again needs no more than that
number, which is part of the optimiser's state. Any function of a whole number will do:
`lr=lambda step: 1e-3 / (1 + step / 1000)`.

At the end of this file are the settings of some papers: `Adam(model.parameters(), **DCGAN)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

__all__ = [
    "DCGAN", "PROGAN", "WGAN_GP", "WGAN_GP_CRITIC", "constant", "cosine", "linear", "repeated", "staircase",
    "warm_up",
]  # fmt: skip

Schedule = Callable[[int], float]


def constant(lr: float) -> Schedule:
    """η(t) = lr"""
    return lambda step: lr


def staircase(lr: float, every: int, factor: float = 0.1) -> Schedule:
    """η(t) = lr · factorᵏ, k = ⌊t / every⌋

    >>> [staircase(1.0, every=2, factor=0.5)(t) for t in range(5)]
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """
    _at_least_one("staircase: every", every)
    return lambda step: lr * factor ** (step // every)


def linear(lr: float, steps: int, end: float = 0.0, start: int = 0) -> Schedule:
    """η(t) = lr + (end - lr) · s, where s goes from 0 at t = start to 1 at t = start + steps

    Before that it is lr, afterwards it is end.

    >>> [linear(1.0, 4, start=1)(t) for t in range(7)]
    [1.0, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """
    _at_least_one("linear: steps", steps)
    return lambda step: lr + (end - lr) * _part(step - start, steps)


def cosine(lr: float, steps: int, end: float = 0.0) -> Schedule:
    """η(t) = end + (lr - end) · (1 + cos πs) / 2, where s goes from 0 to 1 in this many steps

    Slow at first, slow at the end (Loshchilov and Hutter 2017); afterwards it is end.
    """
    _at_least_one("cosine: steps", steps)
    return lambda step: end + (lr - end) * (1 + math.cos(math.pi * _part(step, steps))) / 2


def warm_up(schedule: Schedule, steps: int) -> Schedule:
    """η(t) = schedule(t) · min(1, (t + 1) / steps): the first steps are smaller

    >>> [warm_up(constant(1.0), 4)(t) for t in range(5)]
    [0.25, 0.5, 0.75, 1.0, 1.0]
    """
    _at_least_one("warm_up: steps", steps)
    return lambda step: schedule(step) * min(1.0, (step + 1) / steps)


def repeated(schedule: Schedule, times: int) -> Schedule:
    """η(t) = schedule(⌊t / times⌋): for a critic that takes several steps where the generator takes one."""
    _at_least_one("repeated: times", times)
    return lambda step: schedule(step // times)


def _part(step: int, steps: int) -> float:
    return min(max(step / steps, 0.0), 1.0)


def _at_least_one(what: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{what} must be 1 or more, not {value}")


# ----------------------------------------------------------------- Adam's settings in some papers

# Radford, Metz, Chintala 2016, "Unsupervised representation learning with deep convolutional GANs"
DCGAN: dict[str, Any] = {"lr": 2e-4, "betas": (0.5, 0.999)}

# Gulrajani et al. 2017, "Improved training of Wasserstein GANs", the ResNets for CIFAR-10: 100,000 steps
# of the generator, the rate falling to zero; for each of them the critic takes five.
WGAN_GP: dict[str, Any] = {"lr": linear(2e-4, 100_000), "betas": (0.0, 0.9)}
WGAN_GP_CRITIC: dict[str, Any] = {**WGAN_GP, "lr": repeated(linear(2e-4, 100_000), 5)}

# Karras et al. 2018, "Progressive growing of GANs"
PROGAN: dict[str, Any] = {"lr": 1e-3, "betas": (0.0, 0.99), "eps": 1e-8}
