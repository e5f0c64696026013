"""EMA: the exponential moving average of G's weights, which draws better than G itself.

    a ← δ a + (1 - δ) θ        after each step of G

While G and D chase each other, G's weights circle around a good place; their average is nearer to it
(Yazıcı et al. 2019). Training never looks at the average. It is for drawing samples.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..backend import Array, asarray, backend_of, to_numpy
from ..kernels.optim import averages
from ..nn import Module
from ..optim.flat import memory_order

__all__ = ["EMA"]


class EMA:
    """The moving average of a Module's parameters and buffers.

    decay: δ; about 1 / (1 - δ) steps are averaged over. In the first steps less is kept of the past, δ being
    at most (1 + t) / (10 + t) after t steps, or the random weights of the beginning would linger. The running
    statistics of BatchNorm are averaged like the weights that they belong to; whole numbers are copied.

    >>> from minigan import nn
    >>> g = nn.Linear(1, 1, rng=0)
    >>> ema = EMA(g, decay=0.9)
    >>> ema.update(g)
    >>> ema.module(g)
    Linear(1, 1)
    """

    def __init__(self, module: Module, decay: float = 0.998):
        if not 0 <= decay < 1:
            raise ValueError(f"EMA: decay={decay} must be 0 or more and less than 1")
        self.decay = decay
        self.updates = 0
        self._averages = {name: _compact(array) for name, array in _arrays(module)}

    def update(self, module: Module) -> None:
        """Move towards what the module's weights are now."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        pairs = []
        for name, array in _arrays(module):
            if array.dtype.kind == "f":
                kept = self._averages[name]
                order = memory_order(kept)
                pairs.append(tuple(a.transpose(order).reshape(-1) for a in (kept, array)))
            else:
                self._averages[name] = array  # the newest one, in whatever memory it is
        averages(pairs, decay)

    def module(self, like: Module) -> Module:
        """A copy of the module `like`, in evaluation mode, with the averages for weights and buffers."""
        twin = copy.deepcopy(like).eval()
        twin.load_state_dict(self._averages, strict=False)  # a layer in two places is in there once
        return twin

    def state_dict(self) -> dict[str, Any]:
        """The averages under the names of the module's own state, and how many updates there were."""
        return {"updates": self.updates, **{k: np.array(to_numpy(v)) for k, v in self._averages.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that state_dict gave."""
        if wrong := state.keys() ^ {"updates", *self._averages}:
            raise ValueError(f"EMA: the averages do not fit this module: {', '.join(sorted(wrong))}")
        for name, kept in self._averages.items():
            if np.shape(state[name]) != kept.shape:
                raise ValueError(f"EMA: {name} has {kept.shape} here, {np.shape(state[name])} in the state")
        self.updates = int(state["updates"])
        for name, kept in self._averages.items():
            value = asarray(np.asarray(state[name]), backend_of(kept), kept.dtype)
            if kept.dtype.kind == "f":
                kept[...] = value
            else:
                self._averages[name] = value


def _compact(array: Array) -> Array:
    """A copy without gaps, its axes in the same order in memory: it can be walked through in a line."""
    order = memory_order(array)
    back = sorted(range(len(order)), key=order.__getitem__)
    return array.transpose(order).copy(order="C").transpose(back)


def _arrays(module: Module) -> list[tuple[str, Array]]:
    both = [*module.named_parameters(), *module.named_buffers()]
    return [(name, tensor.data) for name, tensor in both]
