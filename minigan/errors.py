"""What the tape says when something does not fit: which op, which shapes, what to do.

These sentences live here so that tensor.py stays readable. An op's own are in the op.
"""

from __future__ import annotations

from typing import Any

Shape = tuple[int, ...]


class BackendError(RuntimeError):
    """A backend that was asked for is not there. The message is one line and names the cure."""


def no_history(caller: str) -> ValueError:
    return ValueError(
        f"{caller}: y depends on no Tensor that requires a gradient; make one with "
        "Tensor(..., requires_grad=True) before computing y, outside no_grad() and without detach()"
    )


def not_a_number(caller: str, shape: Shape) -> ValueError:
    return ValueError(
        f"{caller}: y has shape {shape}, and only a single number has a gradient by itself; "
        "reduce y first (y.sum(), y.mean()) or give dL/dy, of y's shape, as an argument"
    )


def not_required(i: int) -> ValueError:
    return ValueError(
        f"grad: xs[{i}] does not require a gradient; call x.requires_grad_() before computing y, "
        "outside no_grad()"
    )


def changed(op: str, leaf: str, shape: Shape) -> RuntimeError:
    return RuntimeError(
        f"{op}: its input {leaf!r} of shape {shape} has been given a new value since {op} was "
        "computed, so the gradient would be wrong; compute y again before asking for its gradient"
    )


def not_a_tensor(op: str, got: Any) -> TypeError:
    return TypeError(
        f"a vjp of op {op!r} returned {type(got).__name__}; it must return a Tensor, computed from g "
        "with Tensor ops, or it could not be differentiated again"
    )


def thawed(op: str, leaf: str, shape: Shape) -> RuntimeError:
    return RuntimeError(
        f"{op}: its input {leaf!r} of shape {shape} has been frozen, or is no longer frozen, since {op} was "
        "computed; with create_graph=True that would give half of a second derivative. Compute y and "
        "its gradient under the same conditions"
    )


def late_leaf(leaf: str) -> TypeError:
    return TypeError(
        f"data =: {leaf!r} was a constant before requires_grad_() made it a leaf, and an op may have used it "
        "as one; for a leaf that changes, make it Tensor(..., requires_grad=True) from the start"
    )


def bad_vjp_shape(op: str, origin: str, shape: Shape, got: Shape) -> ValueError:
    return ValueError(
        f"a vjp of op {op!r} returned shape {got} for its input of shape {shape} (from {origin!r}); "
        "an op that broadcasts its inputs must say so with record(..., broadcasts=True)"
    )


def not_float(dtype: Any) -> TypeError:
    return TypeError(
        f"requires_grad: a Tensor of dtype {dtype} has no gradient, only floating point numbers can "
        "change by a little; make it Tensor(..., dtype='float32') first"
    )


def not_a_leaf(what: str) -> TypeError:
    return TypeError(
        f"{what}: only a leaf (a Tensor made with requires_grad=True) has this; constants and "
        "results stay what they are, so make a new Tensor, or .detach() one from its history"
    )


def wrong_shape(what: str, got: Shape, wanted: Shape) -> ValueError:
    return ValueError(f"{what} shape {tuple(got)} for a Tensor of shape {wanted}")


def two_backends(op: str, one: str, other: str) -> TypeError:
    return TypeError(
        f"{op}: one operand is on backend {one!r} and another on {other!r}; move one with .to({one!r})"
    )


def no_broadcast(op: str, *shapes: Shape) -> ValueError:
    listed = " and ".join(str(shape) for shape in shapes)
    return ValueError(
        f"{op}: shapes {listed} do not broadcast; lined up from the right, two lengths must be "
        "equal or one of them 1"
    )
