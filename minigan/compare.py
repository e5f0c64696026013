"""Does a gradient agree with finite differences? It does, it does not, or nobody can tell.

A function with a kink near the point (relu at 0) has no derivative to compare with: that is a `Kink`, not a
wrong gradient. And where f is large, or its terms cancel, differences see rounding errors only. So each step
comes with an estimate of how far off its slope may be (differences.py), made from the values of f alone, and
a gradient is called wrong only if that cannot explain it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from .differences import EPS, ROUNDING, Line, Step

TINY = float(np.finfo(np.float64).tiny)
RESOLUTION = 3e-5  # where rounding errors exceed this part of the slope, agreement proves little
FARTHEST = 2.0**12  # how much larger than usual the first step may be
HALVINGS = 40  # how often a step may be halved in search of a place where f looks smooth
EXAMINED = 64  # entries examined one by one, to say where a wrong gradient is wrong
SHOWN = 5  # of these, the worst


class GradientError(AssertionError):
    """A gradient disagrees with the function it claims to belong to."""


class Kink(Exception):
    """f bends or jumps too close to the point for finite differences to say anything. Move the point."""


class Claim:
    """The tape's word against the differences: the gradient of output k, given v, for one argument.

    gradients: for all arguments of the function; the one in question is that of line.i.
    """

    def __init__(
        self,
        line: Line,
        k: int,
        v: np.ndarray,
        gradients: list[np.ndarray],
        order: int,
        create_graph: bool,
    ):
        self.line, self.k, self.v, self.order, self.create_graph = line, k, v, order, create_graph
        self.function, self.g = line.function, gradients[line.i]
        with np.errstate(all="ignore"):  # what is not finite is reported later
            self.claimed = float((self.g * line.u).sum())
            self.scale = float(np.abs(self.g * line.u).sum())
            # f's inputs are rounded as well as f; that may move it by EPS Σ |g · x|
            both = zip(gradients, self.function.points, strict=True)
            self.weight = sum(float(np.abs(g * x).sum()) for g, x in both)

    def judge(self, rtol: float) -> None:
        """Return if the gradient is right; raise GradientError if it is wrong, Kink if nobody can tell.

        Of all steps, the one that deserves the least doubt counts. How much doubt that is follows from
        the values of f alone, whatever the tape claims. So a wrong gradient of a smooth function is not
        taken for a kink: there, doubt dwindles with the step. Nor is a kink taken for a wrong gradient:
        as long as it is within reach, the slopes on either side differ, and that is doubt.
        """
        x = self.function.points[self.line.i]
        if x.size == 0:
            return
        self._check_digits()
        near = next(self._steps(2.0**-7 * _largest(x)), None)  # a step that is small beside x
        if near is None:
            raise Kink(f"{self}: the function is not finite beside this point; move it into the domain")
        slope = max(self.scale, near.rise, TINY)
        # Where x is tiny and f is not, such a step sees little but rounding errors: begin farther off.
        excess = min(max(near.rounding / (0.01 * RESOLUTION * slope), 1.0), FARTHEST)
        farther = 2.0 ** math.ceil(math.log2(excess))
        limit = max(RESOLUTION * slope, near.rounding / farther)  # with more rounding, agreement says little

        best = None
        for step in self._steps(near.h * farther):
            if best is None or step.doubt + step.rounding < best.doubt + best.rounding:
                best = step
                if step.rounding <= limit and self._agrees(step, near.rise, rtol):
                    return
            if step.h <= near.h and step.rounding > max(limit, 0.1 * step.doubt):
                break  # smaller steps would see even less
        best = best or near

        if self._is_noise(near, best, limit):
            return
        # An accusation needs certainty: f smooth, and the error ten times what it could be without guilt.
        smooth = best.doubt <= max(1e-5 * max(near.rise, best.rise), best.rounding)
        if smooth and 10 * (best.doubt + best.rounding) <= self._error(best):
            raise GradientError(self._what_is_wrong(best))
        raise Kink(self._what_bends(best))

    def _steps(self, h: float) -> Iterator[Step]:
        """Smaller and smaller steps, without those that lead out of f's domain.

        Where the slope gets worse and worse as the step shrinks, it is rounding errors that move f. If the
        slope then settles, that is because f no longer notices the step: do not be taken in. (At a jump
        slopes get worse, too. But a jump is large beside f, and worth a closer look.)
        """
        previous, worse, noise = None, 0, 0.0
        least = EPS * _largest(self.function.points[self.line.i])  # below, x + h u is x
        for _ in range(HALVINGS):
            if h < least:
                return
            step = Step.take(self.line, self.k, self.v, h, self.weight)
            if not math.isfinite(step.slope + step.bend):
                previous, h = None, h / 8
                continue
            if previous is not None:
                if step.rise == 0 < min(previous.rise, self.scale):
                    return  # the tape says that f changes here, and with a larger step it did
                step.change = abs(step.slope - previous.slope)
                step.noise = noise / h
                unrest = step.bend + step.change
                worse = worse + 1 if unrest > 1.3 * (previous.bend + previous.change) else 0
                if worse > 1 and unrest * h < 1e-6 * step.size:
                    noise = max(noise, unrest * h)
            yield step
            previous, h = step, h / 2

    def _error(self, step: Step) -> float:
        return abs(self.claimed - step.slope)

    def _agrees(self, step: Step, rise: float, rtol: float) -> bool:
        """Whether tape and differences give the same slope, and there is no kink that they both overlook."""
        # Rounding errors weigh more in a bend than in a slope: 8 times at most, as far as was seen.
        smooth = step.bend <= max(0.1 * step.curve, 1e-6 * rise) + 8 * step.rounding
        # The hundredth is for gradients that vanish, like that of x⁵ at 0: their scale is no measure.
        return smooth and self._error(step) <= rtol * (self.scale + 0.01 * rise) + step.rounding

    def _check_digits(self) -> None:
        """The gradient must be finite and computed in float64.

        u and v are random to the last digit, and so is a gradient. If each of its entries fits into the
        24 binary digits of float32, somewhere it was squeezed through one. Unless it consists of nothing
        but rounding errors: they have few digits, too, but change completely when v is divided by 3, by
        7 or by 11.
        """
        if not np.isfinite(self.g).all():
            where = first_index(~np.isfinite(self.g))
            raise GradientError(
                f"{self} is {self.g[where]} at index {where}, although the function is finite: its vjp is "
                "wrong there, or this is the edge of its domain"
            )
        if (np.frexp(self.g)[0] * 2.0**24 % 1 == 0).all() and self.g.any():
            parts = ((n, self.function.pull(self.k, self.v / n, self.create_graph)) for n in (3, 7, 11))
            changes = (np.abs(n * part[self.line.i] - self.g).max() for n, part in parts)
            if all(change < 1e-5 * np.abs(self.g).max() for change in changes):
                raise GradientError(
                    f"{self} has only the digits of float32; somewhere its vjp drops the rest"
                )

    def _is_noise(self, near: Step, best: Step, limit: float) -> bool:
        """Whether the difference is nothing but rounding errors, larger than the size of f lets expect.

        They are where terms cancel. log(1 + x²) at a small x has lost digits of x²; the gradient of
        softmax(x).sum(), or that of a bias before a batch normalisation, consists of rounding errors.
        """
        in_values, in_gradient = self._noise(best.h)
        in_slope = in_values / near.h
        if near.rise <= in_slope and self._error(near) <= in_slope + in_gradient:
            return True  # f is constant, as far as anybody can tell, and so says the tape
        if best.rounding > limit:
            return False
        in_slope = min(max(in_values / best.h, 10 * best.rounding), limit)
        return best.bend <= 8 * in_slope and self._error(best) <= in_slope + in_gradient

    def _noise(self, h: float) -> tuple[float, float]:
        """The rounding errors that are really there, in Σ |v · f| and in Σ |g · u|.

        Two things show them: fourth differences with so small steps that a smooth f contributes nothing,
        and changing x and v by a hair. h: a step over which f is smooth, if it is smooth at all.
        """
        function, k, i, rng = self.function, self.k, self.line.i, np.random.default_rng(0)
        in_values = in_gradient = 0.0
        for s in h * 2.0 ** np.array([-14, -13, -12]):
            terms = zip((-2, -1, 0, 1, 2), (1, -4, 6, -4, 1), strict=True)
            fourth = sum(c * self.line.at(t * s)[k] for t, c in terms) / math.sqrt(70)
            in_values = max(in_values, float(np.abs(self.v * fourth).sum()))
        for _ in range(8):
            *points, v = (
                a * (1 + rng.uniform(-16 * EPS, 16 * EPS, a.shape)) for a in (*function.points, self.v)
            )
            nearby = replace(function, points=points)
            moved = nearby.values()[k] - self.line.at(0.0)[k]
            turned = nearby.pull(k, v, self.create_graph)[i] - self.g
            in_values = max(in_values, float(np.abs(self.v * moved).sum()))
            in_gradient = max(in_gradient, float(np.abs(turned * self.line.u).sum()))
        # What is not small beside everything that went in is no rounding error, but a jump.
        went_in = max(_largest(x) for x in function.points) * float(np.abs(self.v).sum())
        return (ROUNDING * in_values if in_values < 1e-4 * went_in else 0.0), ROUNDING * in_gradient

    def __str__(self) -> str:
        result, argument = self.function.results[self.k], self.function.names[self.line.i]
        return f"gradient of {result} for {argument} (order {self.order})"

    def _what_is_wrong(self, step: Step) -> str:
        tape = "the tape" if self.create_graph else "the tape with create_graph=False"
        lines = [
            f"{self} is wrong",
            f"  along a random direction, differences say {step.slope:.10g} and {tape} {self.claimed:.10g}",
            f"  worst of {min(EXAMINED, self.g.size)} entries examined (index: differences, tape):",
        ]
        for index, expected, got in self._worst_entries(step.h):
            lines.append(f"    {index}: {expected:.10g}, {got:.10g}")
        return "\n".join(lines)

    def _worst_entries(self, h: float) -> list[tuple[tuple[int, ...], float, float]]:
        """(index, expected, got), worst first. In a large array, look where the halves are worse."""
        u, g = self.line.u.reshape(-1), self.g.reshape(-1)

        def slope(entries: Any) -> float:
            part = np.zeros_like(u)
            part[entries] = u[entries]
            line = Line(self.function, self.line.i, part.reshape(self.g.shape))
            return Step.take(line, self.k, self.v, h, self.weight).slope

        def error(entries: np.ndarray) -> float:
            return abs(slope(entries) - float((g * u)[entries].sum()))

        entries = np.arange(g.size)
        while entries.size > EXAMINED:
            entries = max(np.array_split(entries, 2), key=error)
        rows = []
        for n in entries:
            index = tuple(int(a) for a in np.unravel_index(n, self.g.shape))
            rows.append((index, slope(n) / float(u[n]), float(g[n])))
        return sorted(rows, key=lambda row: -abs(row[1] - row[2]))[:SHOWN]

    def _what_bends(self, step: Step) -> str:
        low, centre, high = (self.line.at(t)[self.k] for t in (-step.h / 2, 0.0, step.h / 2))
        bend = np.abs(self.v * (high - 2 * centre + low))
        where = tuple(int(n) for n in np.unravel_index(bend.argmax(), bend.shape))
        return (
            f"{self}: the function is not smooth here, so there is no derivative to compare with. At a "
            f"distance of {step.h / 2:.1e} its slope is {step.left:.6g} on the left and {step.right:.6g} on "
            "the right, and smaller steps do not settle it: the function bends or jumps, most of all in the "
            f"entry {where} of its value, or it loses its digits to rounding. Move the point away (for relu "
            "from 0, for max from ties)"
        )


def first_index(mask: np.ndarray) -> tuple[int, ...]:
    """The index of the first True."""
    return tuple(int(n) for n in np.argwhere(mask)[0])


def _largest(x: np.ndarray) -> float:
    """The largest entry by magnitude, as a measure of how far from x is far. 1 if x is 0."""
    return float(np.abs(x).max(initial=0.0)) or 1.0
