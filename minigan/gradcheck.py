"""Is this gradient right? Ask the function itself.

Step a little way along a direction u and see how fast f really changes. Collapse the output to one
number with a random v, the cotangent:

    φ(t) = Σ v · f(x + t u)

The tape claims φ'(0) = Σ g · u, where g = Jᵀv is the gradient it computes. Central differences know
nothing of the tape. With two step lengths their leading error cancels (Richardson's extrapolation):

    D(h) = (φ(h) - φ(-h)) / 2h        R = (4 D(h/2) - D(h)) / 3 = φ'(0) + O(h⁴)

If R and Σ g · u differ, the gradient is wrong; a wrong gradient would have to be right along a random
direction by chance. For second derivatives, the gradient (x, v) ↦ Jᵀ(x) v is taken as a function in
its own right, and its own gradient is checked in the same way. So there is no order at which this stops.

Two traps. A function with a kink near x (relu at 0) has no derivative to compare with: that is a
`Kink`, not a wrong gradient. And v is never all ones, because then the output of a softmax or of a
batch normalisation does not change at all, and every gradient looks right.

`adjoint_check` is for linear functions. It needs no differences, so it is exact in any precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .differences import EPS, ROUNDING, Function, Line, Step, gradients_of, on_host
from .tensor import Tensor

__all__ = ["GradientError", "Kink", "adjoint_check", "gradcheck"]

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


# ------------------------------------------------------------------------------------ gradcheck


def gradcheck(
    f: Callable[..., Any],
    *inputs: Any,
    order: int = 2,
    seed: int = 0,
    argnums: int | Sequence[int] | None = None,
    rtol: float = 1e-8,
) -> bool:
    """Compare the gradients of f with finite differences, up to derivatives of the given order.

    f: a function of Tensors that returns a Tensor, or several. inputs: arrays, numbers or Tensors,
    on any backend. Floating point inputs are converted to float64 (finite differences need it) and
    checked one at a time; all others (indices, shapes, strings) are passed on as they are.
    order: 1 checks the gradient, 2 also the gradient of the gradient, and so on.
    argnums: check the derivatives with regard to these inputs only. seed: of v and u.
    rtol: how much Σ g · u may differ, relative to Σ |g · u|; the rounding errors of f come on top.

    Returns True. Raises GradientError if a gradient is wrong, Kink if f is not smooth at this point
    (choose another), TypeError or ValueError if f cannot be checked at all: it is not in float64,
    not finite, gives another result when called again, or changes its inputs.

    >>> import minigan as mg
    >>> gradcheck(mg.tanh, [0.5, -1.0])
    True
    >>> def halved(x):  # y = x², but the vjp has forgotten the 2
    ...     return mg.record("square", x.data**2, (x, lambda g: g * x))
    >>> gradcheck(halved, [0.5, -1.0])  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
        ...
    GradientError: gradient of halved for argument 0 (order 1) is wrong
    """
    if order < 1:
        raise ValueError(f"gradcheck: order={order}, but the first derivative has order 1")
    name = _name(f)
    arguments, checked = _arguments(name, inputs, argnums)

    def outputs(*leaves: Tensor) -> list[Tensor]:
        given = list(arguments)
        for i, leaf in zip(checked, leaves, strict=True):
            given[i] = leaf
        return _outputs(name, f(*given))

    function = Function(
        outputs,
        points=[on_host(arguments[i]) for i in checked],
        backends=[arguments[i].backend for i in checked],
        names=[f"argument {i}" for i in checked],
    )
    ys = _check_manners(name, function)
    if name == "<lambda>" and ys[0].node is not None:
        name = f"a lambda ending in {ys[0].node.name}"
    function.results = [name] if len(ys) == 1 else [f"output {k} of {name}" for k in range(len(ys))]
    _check(function, 1, order, np.random.default_rng(seed), rtol)
    return True


def _name(f: Callable[..., Any]) -> str:
    return getattr(f, "__name__", type(f).__name__)


def _arguments(name: str, inputs: Sequence[Any], argnums: Any) -> tuple[list[Any], list[int]]:
    """The inputs, floating point ones as float64 Tensors, and the positions of those to check."""
    arguments = [_as_float64(value) for value in inputs]
    floating = [i for i, x in enumerate(arguments) if isinstance(x, Tensor) and x.dtype == np.float64]
    wanted = floating if argnums is None else [argnums] if isinstance(argnums, int) else list(argnums)
    if not wanted:
        raise ValueError(f"gradcheck of {name}: no floating point input, so there is nothing to check")
    for i in wanted:
        if i not in floating:
            raise ValueError(f"gradcheck of {name}: argument {i} is not a floating point input")
    for i in floating:
        if not np.isfinite(on_host(arguments[i])).all():
            raise ValueError(f"gradcheck of {name}: argument {i} is not finite; choose a point in f's domain")
    return arguments, wanted


def _as_float64(value: Any) -> Any:
    """A floating point number, list, array or Tensor as a constant of float64; all else unchanged."""
    try:
        tensor = Tensor(value.detach() if isinstance(value, Tensor) else value)
    except (TypeError, ValueError):
        return value  # None, a string, a slice ...
    return Tensor(tensor, dtype="float64") if tensor.dtype.kind == "f" else value


def _outputs(name: str, result: Any) -> list[Tensor]:
    ys = list(result) if isinstance(result, (tuple, list)) else [result]
    for y in ys:
        if not isinstance(y, Tensor):
            raise TypeError(f"gradcheck of {name}: it returned {type(y).__name__}; it must return Tensors")
        if y.dtype != np.float64:
            raise TypeError(
                f"gradcheck of {name}: it returned {y.dtype} for inputs of float64; somewhere it converts, "
                "or meets an array of another precision (a Python number would keep float64)"
            )
    return ys


def _check_manners(name: str, function: Function) -> list[Tensor]:
    """f(x). On the way: f must be finite, repeat itself, and leave its inputs alone."""
    leaves = function.leaves()
    ys = function.outputs(*leaves)
    first, again = ([on_host(y) for y in results] for results in (ys, function.outputs(*leaves)))
    for leaf, point, argument in zip(leaves, function.points, function.names, strict=True):
        if not np.array_equal(on_host(leaf), point):
            raise ValueError(
                f"gradcheck of {name}: it changed {argument}; a function must leave its inputs alone"
            )
    for k, (a, b) in enumerate(zip(first, again, strict=True)):
        if not np.isfinite(a).all():
            where = _first(~np.isfinite(a))
            raise ValueError(
                f"gradcheck of {name}: output {k} is {a[where]} at {where}; choose a point in f's domain"
            )
        # sums on a GPU may come in another order, so the last digits may differ
        if a.shape != b.shape or np.abs(a - b).max(initial=0) > 1e3 * EPS * np.abs(a).max(initial=0):
            raise ValueError(
                f"gradcheck of {name}: it gives another result when called again; make its random numbers "
                "an input, or start the generator anew inside"
            )
    return ys


def _first(mask: np.ndarray) -> tuple[int, ...]:
    """The index of the first True."""
    return tuple(int(n) for n in np.argwhere(mask)[0])


def _largest(x: np.ndarray) -> float:
    """The largest entry by magnitude, as a measure of how far from x is far. 1 if x is 0."""
    return float(np.abs(x).max(initial=0.0)) or 1.0


# ----------------------------------------------------------------------------------- one check


def _check(function: Function, order: int, last: int, rng: np.random.Generator, rtol: float) -> None:
    """Every gradient of every output against differences; then, up to order `last`, their gradients."""
    with np.errstate(all="ignore"):  # what is not finite is reported later
        ys = function.outputs(*function.leaves())
    lines = [Line(function, i, _random(rng, x.shape, 1.0)) for i, x in enumerate(function.points)]
    for k, y in enumerate(ys):
        v = _random(rng, y.shape, 2.0)
        # The engine may take short cuts when nothing is recorded, so there are two gradients to check.
        for create_graph in (True, False):
            gradients = function.pull(k, v, create_graph)
            for line in lines:
                _Claim(line, k, v, gradients, order, create_graph).judge(rtol)
        if order < last:
            _check(function.gradient(k, v, y.backend), order + 1, last, rng, rtol)


def _random(rng: np.random.Generator, shape: tuple[int, ...], most: float) -> np.ndarray:
    """Numbers between 1/2 and `most`, with random signs: away from zero, so that no entry is overlooked."""
    return rng.uniform(0.5, most, shape) * rng.choice([-1.0, 1.0], shape)


class _Claim:
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
            where = _first(~np.isfinite(self.g))
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


# ------------------------------------------------------------------------------- adjoint_check


def adjoint_check(f: Callable[..., Tensor], *inputs: Any, argnum: int = 0, seed: int = 0) -> bool:
    """Check a function that is linear in one input, y = A x: its gradient must be Aᵀ, the adjoint

        A (a x + b z) = a A x + b A z        ⟨A x, g⟩ = ⟨x, Aᵀ g⟩        (Aᵀ)ᵀ x = A x

    There are no differences here, only rounding: it works in any precision and on any backend.
    inputs: as for f. Of inputs[argnum] only shape, precision and backend are used; the values of x, z
    and g are drawn from `seed`. (Aᵀ)ᵀ x is the gradient of ⟨Aᵀ g, x⟩ with regard to g.

    Returns True. Raises GradientError if one of the three equations does not hold.

    >>> import minigan as mg
    >>> adjoint_check(lambda x: mg.sum(x, axis=0), np.ones((3, 2), "float32"))
    True
    """
    name, rng = _name(f), np.random.default_rng(seed)
    given = inputs[argnum]
    like = Tensor(given.detach() if isinstance(given, Tensor) else given)
    if like.dtype.kind != "f":
        raise TypeError(f"adjoint_check of {name}: argument {argnum} has dtype {like.dtype} and no gradient")

    def moved_there(values: np.ndarray, to: Tensor) -> Tensor:
        return Tensor(values.astype(to.dtype), requires_grad=True, backend=to.backend)

    def apply(x: Tensor) -> Tensor:
        y = f(*inputs[:argnum], x, *inputs[argnum + 1 :])
        if not isinstance(y, Tensor):
            raise TypeError(
                f"adjoint_check of {name}: it returned {type(y).__name__}; it must return a Tensor"
            )
        return y

    a, b = 0.7, -1.6
    x, z = (moved_there(rng.standard_normal(like.shape), like) for _ in range(2))
    y, y_of_z, mixed = apply(x), apply(z), apply(moved_there(a * on_host(x) + b * on_host(z), like))
    g = moved_there(rng.standard_normal(y.shape), y)
    (back,) = gradients_of(y, [x], g, create_graph=True)
    (forth,) = gradients_of(back, [g], x, create_graph=False)

    # From here on in float64 and on this machine. What rounding explains is measured by the sums of
    # absolute products, because that is what has been rounded on the way.
    eps = max(float(np.finfo(t.dtype).eps) for t in (x, y))
    x_, y_, z_, mixed_, g_, back_, forth_ = (
        on_host(t).astype(np.float64) for t in (x, y, y_of_z, mixed, g, back, forth)
    )
    size = np.abs(y_ * g_).sum() + np.abs(z_ * g_).sum() + np.abs(x_ * back_).sum()
    equations = {
        f"it is not linear in argument {argnum}: f(a x + b z) is not a f(x) + b f(z)": (
            np.abs((mixed_ - a * y_ - b * z_) * g_).sum()
        ),
        f"its gradient for argument {argnum} is not the adjoint: <A x, g> = {(y_ * g_).sum():.8g}, but "
        f"<x, A.T g> = {(x_ * back_).sum():.8g}": abs((y_ * g_).sum() - (x_ * back_).sum()),
        f"the gradient of its gradient for argument {argnum} is wrong: A.T.T x is not A x": (
            np.abs((forth_ - y_) * g_).sum()
        ),
    }
    for complaint, error in equations.items():
        if not error <= 32 * eps * size:
            raise GradientError(
                f"adjoint_check of {name}: {complaint} (off by {error:.2g}, rounding is {eps * size:.2g})"
            )
    return True
