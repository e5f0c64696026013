"""Random numbers that depend on nothing but what they are for.

    stream(seed, "noise", step)        the generator that draws the noise of this step

A generator that is passed along has a state, and the state depends on everything that was drawn before. To
go on with a run that was interrupted, one would have to save it. Here instead each purpose at each position
(a step, an epoch) has a generator of its own, and whoever knows the seed can make it again.
"""

from __future__ import annotations

import zlib

import numpy as np

__all__ = ["stream"]


def stream(seed: int, purpose: str, *position: int) -> np.random.Generator:
    """The generator for `purpose` at `position`, such as a step or an epoch. The same one every time.

    >>> a, b, c = stream(0, "noise", 7), stream(0, "noise", 7), stream(0, "noise", 8)
    >>> x = a.normal()
    >>> x == b.normal(), x == c.normal()
    (True, False)
    """
    if seed < 0 or any(p < 0 for p in position):
        raise ValueError(f"stream: seed={seed} and position {position} must be 0 or more")
    return np.random.default_rng([seed, zlib.crc32(purpose.encode()), *position])
