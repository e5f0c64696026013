"""A function at a point, and how fast it changes along a line: what compare.py compares gradients with."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from .backend import to_numpy
from .tensor import Tensor, grad

EPS = float(np.finfo(np.float64).eps)
ROUNDING = 12.0  # rounding errors in a slope, in units of EPS |f| / h; 3 is the most that was seen


def on_host(x: Tensor) -> np.ndarray:
    """The value as a NumPy array of our own, wherever it lives."""
    return np.array(to_numpy(x.data))


@dataclass
class Function:
    """f at a point; or a gradient of f, which is a function too: (x, v) ↦ Jᵀ(x) v."""

    outputs: Callable[..., list[Tensor]]
    points: list[np.ndarray]  # one per argument
    backends: list[str]
    names: list[str]  # of the arguments, for messages
    results: list[str] = field(default_factory=list)  # of the outputs

    def leaves(self) -> list[Tensor]:
        homes = zip(self.points, self.backends, strict=True)
        return [Tensor(point, requires_grad=True, backend=home) for point, home in homes]

    def values(self) -> list[np.ndarray]:
        return [on_host(y) for y in self.outputs(*self.leaves())]

    def pull(self, k: int, v: np.ndarray, create_graph: bool) -> list[np.ndarray]:
        """Jᵀv of output k for each argument, as the tape computes it."""
        leaves = self.leaves()
        y = self.outputs(*leaves)[k]
        with np.errstate(all="ignore"):  # what is not finite is reported later
            return [on_host(g) for g in gradients_of(y, leaves, Tensor(v, backend=y.backend), create_graph)]

    def gradient(self, k: int, v: np.ndarray, backend: str) -> Function:
        """The gradients of output k, as a function of the arguments and of the cotangent v."""

        def outputs(*leaves: Tensor) -> list[Tensor]:
            *xs, cotangent = leaves
            return gradients_of(self.outputs(*xs)[k], xs, cotangent, create_graph=True)

        cotangent = f"the cotangent of {self.results[k]}"
        results = [f"(gradient of {self.results[k]} for {name})" for name in self.names]
        return Function(
            outputs, [*self.points, v], [*self.backends, backend], [*self.names, cotangent], results
        )


def gradients_of(y: Tensor, xs: list[Tensor], v: Tensor, create_graph: bool) -> list[Tensor]:
    """Jᵀv for every x; zeros where y does not depend on x."""
    if y.node is None:
        return [Tensor(np.zeros(x.shape, x.dtype), backend=x.backend) for x in xs]
    return grad(y, xs, v, create_graph=create_graph, unreachable="zeros")


class Line:
    """t ↦ f(x + t u), for one argument x of f. Each point is computed once."""

    def __init__(self, function: Function, i: int, u: np.ndarray):
        self.function, self.i, self.u = function, i, u
        self._known: dict[float, list[np.ndarray]] = {}

    def at(self, t: float) -> list[np.ndarray]:
        if t not in self._known:
            with np.errstate(all="ignore"):  # a step may lead out of f's domain
                self._known[t] = self.moved(t).values()
        return self._known[t]

    def moved(self, t: float) -> Function:
        """f at the point x + t u."""
        points = list(self.function.points)
        points[self.i] = points[self.i] + t * self.u
        return replace(self.function, points=points)


@dataclass
class Step:
    """What central differences with steps h and h/2 say about φ(t) = Σ v · f(x + t u).

    slope: R, the estimate of φ'(0). left, right: the slopes on either side. size: Σ |v · f| and what the
    inputs of f contribute to its rounding errors. rise: how fast the entries of f change, all signs
    made positive.

    curve and bend tell whether φ is smooth. At a smooth point the slopes on the right and on the left
    come closer as h shrinks: curve, their difference, halves with h. At a kink it stays. bend is what
    does not halve: 2 curve(h/2) - curve(h). Both are taken for each entry of the output by itself, so
    that two kinks cannot cancel.
    """

    h: float
    slope: float
    left: float
    right: float
    size: float
    rise: float
    curve: float
    bend: float
    change: float = math.inf  # of the slope since the step before
    noise: float = 0.0  # what rounding errors that showed at larger steps amount to at this one

    @property
    def rounding(self) -> float:
        """How far off the slope may be because f has only 16 digits."""
        return ROUNDING * EPS * self.size / self.h

    @property
    def doubt(self) -> float:
        """How far off it may be otherwise, judging by how it behaves."""
        return self.bend + self.change + self.noise

    @classmethod
    def take(cls, line: Line, k: int, v: np.ndarray, h: float, weight: float) -> Step:
        centre = line.at(0.0)[k]
        low, low2, high2, high = (line.at(t)[k] for t in (-h, -h / 2, h / 2, h))
        with np.errstate(all="ignore"):  # f may not be finite there
            wide, narrow = (v * (high - low)).sum() / (2 * h), (v * (high2 - low2)).sum() / h
            curve, curve2 = v * (high - 2 * centre + low) / h, v * (high2 - 2 * centre + low2) / (h / 2)
            return cls(
                h,
                slope=float((4 * narrow - wide) / 3),
                left=float((v * (centre - low2)).sum() / (h / 2)),
                right=float((v * (high2 - centre)).sum() / (h / 2)),
                size=max(float(np.abs(v * value).sum()) for value in (low, centre, high)) + weight,
                rise=max(float(np.abs(v * (value - centre)).sum()) for value in (low, high)) / h,
                curve=float(np.abs(curve).sum()),
                bend=float(np.abs(2 * curve2 - curve).sum()),
            )
