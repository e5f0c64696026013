"""The losses and penalties by the names they have on the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from inspect import signature
from typing import Any

from ..nn import Module
from .began import BEGAN
from .consensus import Consensus
from .divergences import KL, JensenShannon, Pearson, ReverseKL, SquaredHellinger
from .losses import Hinge, LeastSquares, Loss, Minimax, NonSaturating, Wasserstein
from .penalties import DRAGAN, R1, R2, GradientPenalty
from .relativistic import RelativisticAverage, RelativisticPairing
from .term import Term
from .weight_limits import L2, WeightClipping, spectral

__all__ = ["LOSSES", "PENALTIES", "loss", "penalty"]

LOSSES: dict[str, type[Loss]] = {
    each.name: each
    for each in (
        Minimax, NonSaturating, LeastSquares, Hinge, Wasserstein, RelativisticPairing, RelativisticAverage,
        KL, ReverseKL, Pearson, SquaredHellinger, JensenShannon, BEGAN,
    )
}  # fmt: skip

# What a penalty adds to the terms of a game. "spectral" adds nothing: it changes D itself.
PENALTIES: dict[str, tuple[Callable[..., Term], ...]] = {
    "none": (),
    "gp": (GradientPenalty,),
    "gp-one-sided": (partial(GradientPenalty, one_sided=True),),
    "dragan": (DRAGAN,),
    "r1": (R1,),
    "r2": (R2,),
    "r1-r2": (R1, R2),
    "clip": (WeightClipping,),
    "spectral": (),
    "l2": (L2,),
    "consensus": (Consensus,),
}


def loss(name: str, **options: Any) -> Loss:
    """The loss of that name, with these options.

    >>> loss("least-squares", c=0.9)
    LeastSquares(a=0.0, b=1.0, c=0.9)
    """
    if name not in LOSSES:
        raise ValueError(f"loss: there is no {name!r}; choose one of: {', '.join(LOSSES)}")
    _check_options(f"loss: {name!r}", [LOSSES[name]], options)
    return LOSSES[name](**options)


def penalty(name: str, d: Module | None = None, rng: Any = None, **options: Any) -> list[Term]:
    """The terms of the penalty of that name, with these options: an argument for Game(..., terms=...).

    "spectral" gives no term: it applies spectral norms to D, with random numbers from rng, a generator or a
    seed. "consensus" needs simultaneous steps.

    >>> penalty("r1-r2", weight=1.0)
    [R1(weight=1.0, allow_mixing=False), R2(weight=1.0, allow_mixing=False)]
    """
    if name not in PENALTIES:
        raise ValueError(f"penalty: there is no {name!r}; choose one of: {', '.join(PENALTIES)}")
    _check_options(f"penalty: {name!r}", PENALTIES[name], options)
    if name == "spectral":
        if d is None:
            raise ValueError("penalty: 'spectral' changes D itself; call penalty('spectral', d, rng)")
        spectral(d, rng)
    return [make(**options) for make in PENALTIES[name]]


def _check_options(who: str, makers: Iterable[Callable[..., Any]], options: Iterable[str]) -> None:
    known = list(dict.fromkeys(option for make in makers for option in signature(make).parameters))
    unknown = [option for option in options if option not in known]
    if unknown:
        raise ValueError(f"{who} has no option {', '.join(unknown)}; it has {', '.join(known) or 'none'}")
