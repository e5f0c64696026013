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

How the two are compared, and when a function counts as smooth, is in compare.py. One trap is left for here:
v is never all ones, because then the output of a softmax or of a batch normalisation does not change at all,
and every gradient looks right.

`adjoint_check` is for linear functions. It needs no differences, so it is exact in any precision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .compare import Claim, GradientError, Kink, first_index
from .differences import EPS, Function, Line, gradients_of, on_host
from .tensor import Tensor

__all__ = ["GradientError", "Kink", "adjoint_check", "gradcheck"]

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
            where = first_index(~np.isfinite(a))
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
                Claim(line, k, v, gradients, order, create_graph).judge(rtol)
        if order < last:
            _check(function.gradient(k, v, y.backend), order + 1, last, rng, rtol)


def _random(rng: np.random.Generator, shape: tuple[int, ...], most: float) -> np.ndarray:
    """Numbers between 1/2 and `most`, with random signs: away from zero, so that no entry is overlooked."""
    return rng.uniform(0.5, most, shape) * rng.choice([-1.0, 1.0], shape)


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
