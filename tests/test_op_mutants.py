"""Ops with one mistake each, and the check of test_ops.py that must notice it.

A check that never fails proves nothing. So here are the mistakes that people make when they write ops
by hand: most of them were found in the wild, and many give plausible numbers. Each mutant takes the
place of the real op in the same check, on the same cases; `says` is part of the complaint.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase
from ops_table import OPS, joined, pair
from test_ops import (
    check_adjoint,
    check_derivatives,
    check_gradients,
    check_history,
    check_points,
    check_precision,
    check_value,
    run,
)

from minigan import Tensor, no_grad, ops, record
from minigan.tensor import constant, is_recording

OP = {op.name: op for op in OPS}


@dataclass(frozen=True)
class Mutant:
    op: str
    f: Callable
    check: Callable
    says: str
    error: Any
    backend: str


MUTANTS: list[Mutant] = []


def mutant(op, check, says, error=AssertionError, backend="numpy"):
    """The function below is a wrong `op`; `check` must raise `error`, with `says` in its message."""

    def add(f):
        MUTANTS.append(Mutant(op, f, check, says, error, backend))
        return f

    return add


def value(op, *args, **kwargs):
    """The array that the real op computes."""
    with no_grad():
        return op(*args, **kwargs).data


def tensor(x):
    return x if isinstance(x, Tensor) else Tensor(x)


ORDER_1, ORDER_2 = r"\(order 1\) is wrong", r"\(order 2\) is wrong"

# -------------------------------------------------------------------------------- two operands


@mutant("add", check_gradients, "broadcasts=True", ValueError)
def does_not_say_that_it_broadcasts(a, b):
    return record("add", value(ops.add, a, b), *[(x, lambda g: g) for x in (a, b) if isinstance(x, Tensor)])


def two(op, a, b, vjp_a, vjp_b):
    """A binary op, for the mutants below: numbers are operands without a gradient."""
    pairs = [(x, vjp) for x, vjp in ((a, vjp_a), (b, vjp_b)) if isinstance(x, Tensor)]
    return record(op.__name__, value(op, a, b), *pairs, broadcasts=True)


@mutant("sub", check_derivatives, ORDER_1)
def second_sign_is_lost(a, b):
    return two(ops.sub, a, b, lambda g: g, lambda g: g)


@mutant("mul", check_derivatives, ORDER_1)
def factor_is_missing(a, b):
    return two(ops.mul, a, b, lambda g: g, lambda g: g * a)


@mutant("mul", check_derivatives, ORDER_2)
def factor_is_a_saved_array(a, b):
    saved = constant(b.data.copy()) if isinstance(b, Tensor) else b
    return two(ops.mul, a, b, lambda g: g * saved, lambda g: g * a)


@mutant("mul", check_adjoint, "not the adjoint")
def factors_are_swapped(a, b):
    return two(ops.mul, a, b, lambda g: g * a, lambda g: g * b)


@mutant("div", check_derivatives, ORDER_1)
def denominator_pulls_the_wrong_way(a, b):
    return two(ops.div, a, b, lambda g: g / b, lambda g: g * a / b / b)


@mutant("div", check_derivatives, ORDER_1)
def denominator_is_not_squared(a, b):
    return two(ops.div, a, b, lambda g: g / b, lambda g: -(g * a / b))


@mutant("pow", check_derivatives, ORDER_1)
def exponent_is_not_lowered(a, b):
    return two(ops.pow, a, b, lambda g: g * (b * a**b), lambda g: g * a**b * ops.log(a))


@mutant("pow", check_points, "divide by zero|invalid", (FloatingPointError, RuntimeWarning))
def logarithm_of_zero(a, b):
    return two(ops.pow, a, b, lambda g: g * (b * a ** (b - 1)), lambda g: g * a**b * ops.log(tensor(a)))


@mutant("maximum", check_points, "gradient at")
def ties_count_twice(a, b):
    return two(ops.maximum, a, b, lambda g: g * constant(a >= b), lambda g: g * constant(b >= a))


@mutant("minimum", check_derivatives, ORDER_1)
def gradient_goes_to_the_larger(a, b):
    return two(ops.minimum, a, b, lambda g: g * constant(a > b), lambda g: g * constant(b > a))


@mutant("where", check_derivatives, ORDER_1)
def condition_is_inverted_in_one_branch(condition, a, b):
    return record(
        "where",
        value(ops.where, condition, a, b),
        *[(a, lambda g: ops.where(condition, g, 0.0))] * isinstance(a, Tensor),
        *[(b, lambda g: ops.where(condition, g, 0.0))] * isinstance(b, Tensor),
        broadcasts=True,
    )


# --------------------------------------------------------------------------------- one operand


def one(op, x, vjp, *args, **kwargs):
    """A unary op with this vjp."""
    x = tensor(x)
    return record(op.__name__, value(op, x, *args, **kwargs), (x, vjp))


@mutant("tanh", check_derivatives, ORDER_2)
def output_is_a_saved_array(x):
    y = constant(np.tanh(x.data))
    return one(ops.tanh, x, lambda g: g * (1 - y * y))


@mutant("exp", check_derivatives, ORDER_2)
def output_is_detached(x):
    return one(ops.exp, x, lambda g: g * ops.exp(x).detach())


@mutant("exp", check_gradients, "must return a Tensor", TypeError)
def vjp_gives_an_array(x):
    return one(ops.exp, x, lambda g: g.data * np.exp(x.data))


@mutant("exp", check_value, "changed", AssertionError)
def computes_in_place(x):
    x = tensor(x)
    x.data.setflags(write=True)
    return record("exp", np.exp(x.data, out=x.data), (x, lambda g: g * ops.exp(x)))


@mutant("exp", check_history, "history")
def makes_a_leaf_of_its_own(x):
    return ops.exp(Tensor(x.data, requires_grad=True))


@mutant("exp", check_gradients, "memory layout")
def trusts_the_order_in_memory(x):
    x = tensor(x)
    return record("exp", np.exp(x.data.ravel(order="K")).reshape(x.shape), (x, lambda g: g * ops.exp(x)))


@mutant("sin", check_derivatives, ORDER_2)
def second_sign_of_cos(x):
    def cos(x):
        return one(ops.cos, x, lambda g: g * ops.sin(x))

    return one(ops.sin, x, lambda g: g * cos(x))


@mutant("log", check_value, "value")
def logarithm_to_base_2(x):
    x = tensor(x)
    return record("log", np.log2(x.data), (x, lambda g: g / x))


@mutant("sqrt", check_derivatives, ORDER_1)
def two_is_missing(x):
    return one(ops.sqrt, x, lambda g: g / ops.sqrt(x))


@mutant("sigmoid", check_derivatives, ORDER_1)
def falling_side_is_missing(x):
    return one(ops.sigmoid, x, lambda g: g * ops.sigmoid(x))


@mutant("sigmoid", check_points, "overflow", FloatingPointError)
def exponential_overflows(x):
    return 1 / (1 + ops.exp(-tensor(x)))


@mutant("silu", check_derivatives, ORDER_1)
def product_rule_is_forgotten(x):
    return one(ops.silu, x, lambda g: g * ops.sigmoid(x))


@mutant("abs", check_points, "gradient at")
def zero_counts_as_positive(x):
    return one(ops.abs, x, lambda g: g * constant(np.where(x.data >= 0, 1.0, -1.0)))


@mutant("relu", check_points, "gradient at")
def zero_lets_through(x):
    return one(ops.relu, x, lambda g: g * constant(x.data >= 0))


@mutant("leaky_relu", check_derivatives, ORDER_1)
def slope_is_on_the_wrong_side(x, slope=0.2):
    return one(ops.leaky_relu, x, lambda g: g * constant(np.where(x.data > 0, slope, 1.0)), slope)


@mutant("leaky_relu", check_value, "value")
def slope_above_1_is_forgotten(x, slope=0.2):
    x = tensor(x)
    vjp = lambda g: g * constant(np.where(x.data > 0, 1.0, slope))
    return record("leaky_relu", np.maximum(x.data, slope * x.data), (x, vjp))


@mutant("leaky_relu", check_precision, "float32")
def mask_is_float64(x, slope=0.2):
    x = tensor(x)
    slopes = constant(np.where(x.data > 0, 1.0, slope))
    return record("leaky_relu", x.data * slopes.data, (x, lambda g: g * slopes))


@mutant("relu", check_precision, "not in float32.*backward of relu")
def mask_of_the_vjp_is_float64(x):
    return one(ops.relu, x, lambda g: g * constant((x.data > 0) * np.ones(x.shape)))


@mutant("elu", check_derivatives, ORDER_1)
def alpha_is_missing_in_the_vjp(x, alpha=1.0):
    return one(ops.elu, x, lambda g: g * ops.where(x.data > 0, 1.0, ops.exp(ops.minimum(x, 0))), alpha)


@mutant("clip", check_points, "gradient at")
def borders_do_not_belong(x, low=None, high=None):
    inside = (x.data > (-np.inf if low is None else low)) & (x.data < (np.inf if high is None else high))
    return one(ops.clip, x, lambda g: g * constant(inside), low, high)


@mutant("neg", check_gradients, "changed")
def changes_the_gradient_it_gets(x):
    def vjp(g):
        g.data.setflags(write=True)
        return constant(np.negative(g.data, out=g.data).copy())

    return one(ops.neg, x, vjp)


@mutant("neg", check_gradients, "shares memory")
def has_one_buffer_for_all_gradients(x):
    buffer = np.zeros(tensor(x).shape)

    def vjp(g):
        buffer.setflags(write=True)
        return constant(np.negative(g.data, out=buffer))

    return one(ops.neg, x, vjp)


@mutant("copy", check_value, "from arrays|read-only", (AssertionError, ValueError))
def keeps_the_array_of_the_user(x):
    x = x if isinstance(x, Tensor) else Tensor(x, copy=False)
    return record("copy", x.data, (x, lambda g: g))


@mutant("square", check_value, "plain NumPy array", TypeError, backend="strict")
def makes_a_numpy_array_on_every_backend(x):
    x = tensor(x)
    return record("square", np.ones(x.shape) * x.data * x.data, (x, lambda g: g * x * 2))


# ---------------------------------------------------------------------------------- reductions


def spread(g, x, axis):
    """g with the axes back that a reduction took away."""
    axes = range(x.ndim) if axis is None else np.atleast_1d(np.array(axis, int)) % max(x.ndim, 1)
    return ops.reshape(g, tuple(1 if i in axes else n for i, n in enumerate(x.shape)))


@mutant("sum", check_derivatives, "is wrong|does not fill", (AssertionError, ValueError))
def lost_axis_is_not_put_back(x, axis=None, keepdims=False):
    return one(ops.sum, x, lambda g: ops.broadcast_to(g, x.shape), axis, keepdims)


@mutant("mean", check_adjoint, "not the adjoint")
def divides_by_all_entries(x, axis=None, keepdims=False):
    vjp = lambda g: ops.broadcast_to(spread(g, x, axis), x.shape) * (1 / max(x.size, 1))
    return one(ops.mean, x, vjp, axis, keepdims)


@mutant("var", check_derivatives, ORDER_1)
def ddof_is_forgotten_in_the_vjp(x, axis=None, keepdims=False, ddof=0):
    def vjp(g):
        g = spread(g, x, axis)
        return g * (x - ops.mean(x, axis, keepdims=True)) * (2 * g.size / max(x.size, 1))

    return one(ops.var, x, vjp, axis, keepdims, ddof)


@mutant("var", check_derivatives, ORDER_2)
def mean_is_a_saved_array(x, axis=None, keepdims=False, ddof=0):
    mu = constant(x.data.mean(axis, keepdims=True))

    def vjp(g):
        g = spread(g, x, axis)
        return g * (x - mu) * (2 / (x.size / max(g.size, 1) - ddof))

    return one(ops.var, x, vjp, axis, keepdims, ddof)


@mutant("max", check_points, "gradient at")
def every_tie_gets_everything(x, axis=None, keepdims=False):
    best = constant(x.data == x.data.max(axis, keepdims=True))
    return one(ops.max, x, lambda g: spread(g, x, axis) * best, axis, keepdims)


@mutant("max", check_points, "gradient at")
def first_tie_gets_everything(x, axis=None, keepdims=False):
    best = np.zeros(x.shape)
    if axis is None:
        best.flat[x.data.argmax()] = 1
    else:
        np.put_along_axis(best, x.data.argmax(axis, keepdims=True), 1, axis)
    return one(ops.max, x, lambda g: spread(g, x, axis) * constant(best), axis, keepdims)


@mutant("softmax", check_derivatives, ORDER_1)
def sum_term_is_missing(x, axis=-1):
    return one(ops.softmax, x, lambda g: g * ops.softmax(x, axis), axis)


@mutant("softmax", check_derivatives, ORDER_1)
def sums_over_all_axes(x, axis=-1):
    def vjp(g):
        y = ops.softmax(x, axis)
        return y * (g - ops.sum(g * y))

    return one(ops.softmax, x, vjp, axis)


@mutant("softmax", check_value, "zero-size", ValueError)
def no_entry_is_the_largest_of_none(x, axis=-1):
    x = tensor(x)
    e = ops.exp(x - x.data.max(axis, keepdims=True))
    return e / ops.sum(e, axis, keepdims=True)


@mutant("log_softmax", check_derivatives, ORDER_1)
def logarithm_in_the_place_of_the_softmax(x, axis=-1):
    vjp = lambda g: g - ops.log_softmax(x, axis) * ops.sum(g, axis, keepdims=True)
    return one(ops.log_softmax, x, vjp, axis)


@mutant("logsumexp", check_derivatives, ORDER_1)
def weights_are_not_normalised(x, axis=None, keepdims=False):
    return one(ops.logsumexp, x, lambda g: spread(g, x, axis) * ops.exp(x), axis, keepdims)


@mutant("norm", check_points, "invalid value", (FloatingPointError, RuntimeWarning))
def tip_is_not_guarded(x, axis=None, keepdims=False):
    vjp = lambda g: spread(g, x, axis) * (x / ops.norm(x, axis, keepdims=True))
    return one(ops.norm, x, vjp, axis, keepdims)


@mutant("norm", check_derivatives, ORDER_2)
def length_is_a_saved_array(x, axis=None, keepdims=False):
    y = constant(value(ops.norm, x, axis, keepdims=True).copy())
    return one(ops.norm, x, lambda g: spread(g, x, axis) * (x / y), axis, keepdims)


# -------------------------------------------------------------------------------------- shapes


@mutant("reshape", check_adjoint, "not the adjoint")
def comes_back_in_the_order_of_columns(x, *shape):
    def vjp(g):
        return ops.transpose(ops.reshape(g, tuple(reversed(x.shape))))

    return one(ops.reshape, x, vjp, *shape)


@mutant("transpose", check_adjoint, "shape|not the adjoint", (AssertionError, ValueError))
def same_order_on_the_way_back(x, *axes):
    return one(ops.transpose, x, lambda g: ops.transpose(g, *axes), *axes)


@mutant("moveaxis", check_adjoint, "shape|not the adjoint", (AssertionError, ValueError))
def moves_on_instead_of_back(x, source, target):
    return one(ops.moveaxis, x, lambda g: ops.moveaxis(g, source, target), source, target)


@mutant("flip", check_adjoint, "not the adjoint")
def is_not_flipped_back(x, axis=None):
    return one(ops.flip, x, lambda g: g, axis)


@mutant("broadcast_to", check_adjoint, "not the adjoint")
def averages_instead_of_sums(x, shape):
    return one(ops.broadcast_to, x, lambda g: ops.sum_to(g, x.shape) * (x.size / max(g.size, 1)), shape)


@mutant("concat", check_derivatives, "is wrong|shape", (AssertionError, ValueError))
def slices_are_off_by_one(xs, axis=0):
    edges, start = [], 0
    for x in xs:
        part = (slice(None),) * (axis % x.ndim) + (slice(start + 1, start + 1 + x.shape[axis]),)
        edges.append((x, lambda g, part=part: ops.getitem(g, part)))
        start += x.shape[axis]
    return record("concat", value(ops.concat, xs, axis), *edges)


@mutant("stack", check_derivatives, ORDER_1)
def layers_are_handed_out_backwards(xs, axis=0):
    edges = [(x, lambda g, i=i: ops.take(g, -1 - i, axis)) for i, x in enumerate(xs)]
    return record("stack", value(ops.stack, xs, axis), *edges)


@mutant("split", check_value, "shape")
def last_piece_is_lost(x, parts, axis):
    return ops.split(x, parts, axis)[:-1] or ops.split(x, parts, axis)


@mutant("pad", check_adjoint, "not the adjoint")
def before_and_after_are_swapped(x, widths, value=0.0):
    back = widths if isinstance(widths, int) else tuple((after, before) for before, after in widths)
    return one(ops.pad, x, lambda g: ops.crop(g, back), widths, value)


@mutant("crop", check_adjoint, "not the adjoint")
def border_comes_back_on_the_other_side(x, widths):
    back = widths if isinstance(widths, int) else tuple((after, before) for before, after in widths)
    return one(ops.crop, x, lambda g: ops.pad(g, back), widths)


@mutant("getitem", check_adjoint, "not the adjoint")
def repeats_overwrite_each_other(x, index):
    def vjp(g):
        back = np.zeros(x.shape, g.dtype)
        back[index] = g.data
        return record("back", back, (g, lambda h: ops.getitem(h, index)))

    return one(ops.getitem, x, vjp, index)


@mutant("scatter_add", check_value, "value")
def repeats_are_counted_once(values, index, shape):
    data = np.zeros(shape)
    data[index] += tensor(values).data
    return record("scatter_add", data, (tensor(values), lambda g: ops.getitem(g, index)))


@mutant("take", check_derivatives, "is wrong|shape|index", (AssertionError, ValueError, IndexError))
def always_takes_rows_on_the_way_back(x, indices, axis=0):
    return one(ops.take, x, lambda g: ops.scatter_add(g, np.array(indices, int), x.shape), indices, axis)


# ------------------------------------------------------------------------------------ products


@mutant("matmul", check_gradients, "broadcasts=True", ValueError)
def batch_is_not_summed(a, b):
    if min(a.ndim, b.ndim) < 2:
        return ops.matmul(a, b)
    return record("matmul", value(ops.matmul, a, b), (a, lambda g: g @ b.mT), (b, lambda g: a.mT @ g))


@mutant("matmul", check_derivatives, ORDER_2)
def other_matrix_is_a_saved_array(a, b):
    if min(a.ndim, b.ndim) < 2:
        return ops.matmul(a, b)
    saved = constant(b.data)
    return record(
        "matmul",
        a.data @ b.data,
        (a, lambda g: ops.sum_to(g @ saved.mT, a.shape)),
        (b, lambda g: ops.sum_to(a.mT @ g, b.shape)),
    )


def linear(x, weight, bias, bias_vjp=lambda g: ops.sum(g, 0), weight_vjp=lambda g, x: g.mT @ x):
    """linear for mutants; rows in several axes are left to the real one."""
    if x.ndim != 2 or bias is None:
        return ops.linear(x, weight, bias)
    edges = (x, lambda g: g @ weight), (weight, lambda g: weight_vjp(g, x)), (bias, bias_vjp)
    return record("linear", value(ops.linear, x, weight, bias), *edges)


@mutant("linear", check_derivatives, ORDER_1)
def bias_gets_the_mean_of_the_batch(x, weight, bias=None):
    return linear(x, weight, bias, bias_vjp=lambda g: ops.sum(g, 0) * (1 / max(g.shape[0], 1)))


@mutant("linear", check_derivatives, ORDER_2)
def activations_are_cached_as_arrays(x, weight, bias=None):
    return linear(x, weight, bias, weight_vjp=lambda g, x: g.mT @ x.detach())


@mutant("einsum", check_gradients, "einsum", ValueError)
def summed_letter_is_forgotten(subscripts, a, b):
    inputs, _, out = subscripts.replace(" ", "").partition("->")
    if "->" not in subscripts:
        return ops.einsum(subscripts, a, b)
    in_a, in_b = inputs.split(",")
    return record(
        "einsum",
        value(ops.einsum, subscripts, a, b),
        (a, lambda g: ops.einsum(f"{out},{in_b}->{in_a}", g, b)),
        (b, lambda g: ops.einsum(f"{out},{in_a}->{in_b}", g, a)),
    )


# -------------------------------------------------------------------------------- convolutions


def image_gradient(g, w, size, stride, padding, dilation, groups):
    """What conv2d's vjp for the image should be: the transposed convolution that ends at `size`."""
    axes = zip(size, g.shape[2:], w.shape[2:], *map(pair, (stride, padding, dilation)), strict=True)
    rest = tuple(n - (m - 1) * s + 2 * p - d * (k - 1) - 1 for n, m, k, s, p, d in axes)
    return ops.conv_transpose2d(g, w, None, stride, padding, rest, groups, dilation)


def conv2d(x, w, bias, how, x_vjp=None, w_vjp=None):
    """conv2d for mutants: how = (stride, padding, dilation, groups), and one of the vjps is replaced."""
    y = record(
        "conv2d",
        value(ops.conv2d, x, w, None, *how),
        (x, x_vjp or (lambda g: image_gradient(g, w, x.shape[2:], *how))),
        (w, w_vjp or (lambda g: ops.conv2d_weight(x, g, w.shape[2:], *how))),
    )
    return y if bias is None else y + ops.reshape(bias, 1, -1, 1, 1)


@mutant("conv2d", check_adjoint, "not the adjoint")
def kernel_comes_back_upside_down(x, w, bias=None, stride=1, padding=0, dilation=1, groups=1):
    how = stride, padding, dilation, groups
    return conv2d(x, w, bias, how, lambda g: image_gradient(g, ops.flip(w, (2, 3)), x.shape[2:], *how))


@mutant("conv2d", check_adjoint, "shape", ValueError)
def tail_that_the_stride_skips_is_lost(x, w, bias=None, stride=1, padding=0, dilation=1, groups=1):
    back = lambda g: ops.conv_transpose2d(g, w, None, stride, padding, 0, groups, dilation)
    return conv2d(x, w, bias, (stride, padding, dilation, groups), back)


@mutant("conv2d", check_adjoint, "not the adjoint")
def tail_comes_back_at_the_front(x, w, bias=None, stride=1, padding=0, dilation=1, groups=1):
    def back(g):
        part = ops.conv_transpose2d(g, w, None, stride, padding, 0, groups, dilation)
        missing = [(n - m, 0) for n, m in zip(x.shape, part.shape, strict=True)]
        return ops.pad(part, missing)

    return conv2d(x, w, bias, (stride, padding, dilation, groups), back)


@mutant("conv2d", check_derivatives, "shape|does not fit|output_padding", ValueError)
def stride_is_forgotten_for_the_weight(x, w, bias=None, stride=1, padding=0, dilation=1, groups=1):
    back = lambda g: ops.conv2d_weight(x, g, w.shape[2:], 1, padding, dilation, groups)
    return conv2d(x, w, bias, (stride, padding, dilation, groups), None, back)


@mutant("conv2d", check_adjoint, "not the adjoint")
def padding_is_ones_for_the_weight(x, w, bias=None, stride=1, padding=0, dilation=1, groups=1):
    (ph, pw), size = pair(padding), w.shape[2:]
    wide = lambda: ops.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)), 1.0)
    back = lambda g: ops.conv2d_weight(wide(), g, size, stride, 0, dilation, groups)
    return conv2d(x, w, bias, (stride, padding, dilation, groups), None, back)


@mutant("conv2d", check_derivatives, ORDER_2)
def image_is_a_saved_array(x, w, bias=None, stride=1, padding=0, dilation=1, groups=1):
    how = stride, padding, dilation, groups
    return conv2d(x, w, bias, how, None, lambda g: ops.conv2d_weight(x.detach(), g, w.shape[2:], *how))


@mutant("conv2d", check_derivatives, ORDER_1)
def bias_is_added_twice_on_the_way_back(x, w, bias=None, stride=1, padding=0, dilation=1, groups=1):
    y = ops.conv2d(x, w, None, stride, padding, dilation, groups)
    if bias is None:
        return y
    data = y.data + bias.data[:, None, None]
    return record("conv2d", data, (y, lambda g: g), (bias, lambda g: ops.sum(g, (0, 2, 3)) * 2))


@mutant("conv_transpose2d", check_value, "shape")
def output_padding_is_ignored(y, w, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    return ops.conv_transpose2d(y, w, bias, stride, padding, 0, groups, dilation)


@mutant("conv2d_weight", check_value, "value")
def weight_gets_the_mean_of_the_batch(x, y, kernel, *args, **kwargs):
    return ops.conv2d_weight(x, y, kernel, *args, **kwargs) / max(tensor(x).shape[0], 1)


@mutant("fold", check_value, "value")
def overlaps_overwrite_each_other(windows, size, stride=1, dilation=1):
    windows = tensor(windows)
    lead, kernel = windows.shape[:2], windows.shape[2:4]
    pixels = np.arange(float(size[0] * size[1])).reshape(1, 1, *size)
    image = np.zeros((*lead, pixels.size))
    image[..., value(ops.unfold, pixels, kernel, stride, dilation)[0, 0].astype(int)] = windows.data
    return record(
        "fold", image.reshape(*lead, *size), (windows, lambda g: ops.unfold(g, kernel, stride, dilation))
    )


@mutant("max_pool", check_value, "value")
def border_is_zero_and_may_win(x, kernel, stride=None, padding=0):
    ph, pw = pair(padding)
    wide = ops.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    return ops.max_pool(wide, kernel, stride)


@mutant("upsample", check_adjoint, "not the adjoint")
def blocks_are_averaged(x, factor):
    fh, fw = pair(factor)
    return one(ops.upsample, x, lambda g: ops.sum_pool(g, factor) * (1 / (fh * fw)), factor)


# ------------------------------------------------------------------------------- normalisation


def batch_norm(x, weight, bias, eps, running, vjp):
    """batch_norm for mutants: x̂ with the given vjp(g, x̂); the rest is right."""
    axes, shape = (0, *range(2, x.ndim)), (1, -1, *[1] * (x.ndim - 2))
    if running is not None:
        return ops.batch_norm(x, weight, bias, eps, running=running)
    y = record("normalise", value(ops.batch_norm, x, eps=eps), (x, vjp(x, axes, eps)))
    y = y if weight is None else y * ops.reshape(weight, *shape)
    return y if bias is None else y + ops.reshape(bias, *shape)


def mean(x, axes):
    return ops.mean(x, axes, keepdims=True)


def scale(x, axes, eps):
    return (ops.var(x, axes, keepdims=True) + eps) ** -0.5


@mutant("batch_norm", check_derivatives, ORDER_2)
def scale_is_a_saved_array(x, weight=None, bias=None, eps=1e-5, running=None):
    def saved(x, axes, eps):
        inverse = scale(x, axes, eps).detach()
        x_hat = lambda: (x - mean(x, axes)) * scale(x, axes, eps)
        return lambda g: (g - mean(g, axes) - x_hat() * mean(g * x_hat(), axes)) * inverse

    return batch_norm(x, weight, bias, eps, running, saved)


@mutant("batch_norm", check_derivatives, ORDER_1)
def statistics_count_as_constants(x, weight=None, bias=None, eps=1e-5, running=None):
    constants = lambda x, axes, eps: lambda g: g * scale(x, axes, eps)
    return batch_norm(x, weight, bias, eps, running, constants)


@mutant("batch_norm", check_gradients, "create_graph")
def short_cut_differs_from_the_long_way(x, weight=None, bias=None, eps=1e-5, running=None):
    def short(x, axes, eps):
        def vjp(g):
            if not is_recording():
                return (g - mean(g, axes)) * scale(x, axes, eps)
            x_hat = (x - mean(x, axes)) * scale(x, axes, eps)
            return (g - mean(g, axes) - x_hat * mean(g * x_hat, axes)) * scale(x, axes, eps)

        return vjp

    return batch_norm(x, weight, bias, eps, running, short)


@mutant("batch_norm", check_value, "value")
def variance_is_that_of_the_source(x, weight=None, bias=None, eps=1e-5, running=None):
    x, axes = tensor(x), (0, *range(2, tensor(x).ndim))
    if running is None:
        running = x.data.mean(axes), x.data.var(axes, ddof=1)
    return ops.batch_norm(x, weight, bias, eps, running=running)


@mutant("dropout", check_adjoint, "not the adjoint")
def mask_is_drawn_again_on_the_way_back(x, rate, rng):
    mask = lambda: constant((rng.random(x.shape, dtype="float32") >= rate) * x.dtype.type(1 / (1 - rate)))
    return record("dropout", x.data * mask().data, (x, lambda g: g * mask()))


@mutant("dropout", check_adjoint, "not the adjoint")
def scale_is_missing_on_the_way_back(x, rate, rng):
    keep = constant(rng.random(x.shape, dtype="float32") >= rate)
    return record("dropout", x.data * keep.data * x.dtype.type(1 / (1 - rate)), (x, lambda g: g * keep))


# --------------------------------------------------------------------------------------- tests


@pytest.mark.mutant
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{m.op}: {m.f.__name__}")
def test_the_mistake_is_noticed(mutant):
    f = joined(mutant.f) if mutant.op == "split" else mutant.f
    with pytest.raises(mutant.error, match=mutant.says):
        if mutant.check is check_points:
            check_points(f, OP[mutant.op], mutant.backend)
        else:
            # No shrinking: that there is a failing case is all we ask.
            phases = (Phase.explicit, Phase.generate)
            options = {"phases": phases, "report_multiple_bugs": False, "database": None}
            run(mutant.check, f, OP[mutant.op], mutant.backend, derandomize=True, max_examples=50, **options)


def right_sum(x, axis=None, keepdims=False):
    return one(ops.sum, x, lambda g: ops.broadcast_to(spread(g, x, axis), x.shape), axis, keepdims)


def right_batch_norm(x, weight=None, bias=None, eps=1e-5, running=None):
    def vjp(x, axes, eps):
        x_hat = lambda: (x - mean(x, axes)) * scale(x, axes, eps)
        return lambda g: (g - mean(g, axes) - x_hat() * mean(g * x_hat(), axes)) * scale(x, axes, eps)

    return batch_norm(x, weight, bias, eps, running, vjp)


def right_conv2d(x, w, bias=None, stride=1, padding=0, dilation=1, groups=1):
    return conv2d(x, w, bias, (stride, padding, dilation, groups))


RIGHT = {
    "exp": lambda x: one(ops.exp, x, lambda g: g * ops.exp(x)),
    "mul": lambda a, b: two(ops.mul, a, b, lambda g: g * b, lambda g: g * a),
    "sum": right_sum,
    "linear": lambda x, weight, bias=None: linear(x, weight, bias),
    "conv2d": right_conv2d,
    "batch_norm": right_batch_norm,
}


@pytest.mark.parametrize("name", RIGHT)
def test_without_a_mistake_nothing_is_noticed(name):
    """What the mutants have in common is right: it is their mistakes that the checks complain about."""
    checks = [check_gradients, check_precision, check_derivatives, check_history]
    for check in checks + [check_adjoint] * (OP[name].linear is not None):
        run(check, RIGHT[name], OP[name], "numpy", derandomize=True)


@pytest.mark.parametrize("count", [len(MUTANTS)], ids=lambda n: f"{n} mutants")
def test_there_are_enough_mutants(count):
    assert count >= 60
    assert len({m.f for m in MUTANTS}) == count
