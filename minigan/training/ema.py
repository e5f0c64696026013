"""EMA: the exponential moving average of G's weights, whose samples are better than G's own.

    a ← δ a + (1 - δ) θ        after each step of G

While G and D chase each other, G's weights circle around a good place; their average is nearer to it
(Yazıcı et al. 2019). Training never looks at the average. It is for drawing samples.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..backend import Array, asarray, backend_of, to_numpy, xp_of
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
        self._averages = {name: _compact(array) for name, array in _arrays(module)}
        xp = xp_of(next(iter(self._averages.values()))) if self._averages else np
        self._updates = xp.zeros((), np.int64)  # an array, so that a GPU can count by itself

    def update(self, module: Module) -> None:
        """Move towards what the module's weights are now."""
        t, pairs = self._updates, []
        if type(t) is np.ndarray:
            share: Any = 1 - min(self.decay, (1 + int(t)) / (10 + int(t)))
        else:
            share = 1 - xp_of(t).minimum(self.decay, (1 + t) / (10 + t))
        t += 1
        for name, array in _arrays(module):
            if array.dtype.kind == "f":
                kept = self._averages[name]
                order = memory_order(kept)
                pairs.append(tuple(a.transpose(order).reshape(-1) for a in (kept, array)))
            else:
                self._averages[name][...] = array
        averages(pairs, share)

    @property
    def updates(self) -> int:
        """How many there were."""
        return int(self._updates)

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
        self._updates[...] = int(state["updates"])
        for name, kept in self._averages.items():
            kept[...] = asarray(np.asarray(state[name]), backend_of(kept), kept.dtype)


def _compact(array: Array) -> Array:
    """A copy without gaps, its axes in the same order in memory: it can be walked through in a line."""
    order = memory_order(array)
    back = sorted(range(len(order)), key=order.__getitem__)
    return array.transpose(order).copy(order="C").transpose(back)


def _arrays(module: Module) -> list[tuple[str, Array]]:
    both = [*module.named_parameters(), *module.named_buffers()]
    return [(name, tensor.data) for name, tensor in both]
