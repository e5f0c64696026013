"""When a number has become infinite or NaN: compute the step again, with a check after every op."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from .. import nn
from ..finite import NonFiniteError, all_finite, checked
from ..optim import Optimizer

__all__ = ["first_cause"]


def first_cause(parts: Mapping[str, Any], step: Callable[[], object]) -> str:
    """The first parameter or op of this step that is not finite, in words.

    step: computes it again, from the same batches and the same random numbers; the optimisers change nothing
    meanwhile. (Players that moved before the number appeared, as D does before G, keep their new weights.)
    """
    for who, part in parts.items():
        if isinstance(part, nn.Module):
            whose = who.upper() if len(who) == 1 else who
            for name, parameter in part.named_parameters():
                if not all_finite([parameter.data]):
                    return f"the parameter {name} of {whose} is not finite any more"
    try:
        with checked(), _without_updates(parts):
            step()
    except NonFiniteError as error:
        return f"the first to go wrong: {error}"
    except Exception as error:  # a step may raise anything when the optimisers do nothing
        return f"the step computed again raised {type(error).__name__}"
    return "no single op is the cause"


@contextmanager
def _without_updates(parts: Mapping[str, Any]) -> Iterator[None]:
    """Inside, `step` of an optimiser does no more than `zero_grad`."""
    optimizers = [part for part in parts.values() if isinstance(part, Optimizer)]
    for optimizer in optimizers:
        vars(optimizer)["step"] = optimizer.zero_grad
    try:
        yield
    finally:
        for optimizer in optimizers:
            del vars(optimizer)["step"]
