"""What every op and every loss make of special values: ±0, ±∞, NaN, huge and tiny numbers, each op's edges.

A line of the tables says the value and the slope at a point, straight from the mathematics with its limits,
in numbers wider than those that are tested. What must come back for an incoming gradient g is then

    g · slope       by the rules of floating point, so that ∞ · 0 is NaN
    0               where the slope is MASKED: the op has chosen something else there, whatever g is

At OUTSIDE, where there is no slope to speak of, all backends must agree, and that is all.
"""

from __future__ import annotations

import math
from inspect import isfunction

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from layers_table import LAYERS
from ops_table import OPS, Rng, X, call

import minigan as mg
from minigan import Tensor, grad, ops
from minigan.backend import to_numpy
from minigan.gan import GMMN, LOSSES, loss

MASKED, OUTSIDE = "masked", "outside"
inf, nan, Wide = math.inf, math.nan, np.longdouble
DTYPES = ("float32", "float64")
GRADIENTS = (1.0, 0.0, inf)


@pytest.fixture(autouse=True)
def quiet():
    """NumPy warns of what is asked for here."""
    with np.errstate(all="ignore"):
        yield


def specials(dtype):
    tiny = float(np.finfo(dtype).tiny)
    both = [0.0, inf, 1e30, 1e25, 1e-25, 1e-30, tiny / 8, 1.0, 0.5, 2.5]
    return [nan, *both, *(-x for x in both)]


def times(g, slope, dtype):
    """What must come back, if the slope is held in this precision."""
    if slope is MASKED:
        return 0.0
    return nan if slope is OUTSIDE else float(np.dtype(dtype).type(g) * np.dtype(dtype).type(slope))


def is_known(g, slope, dtype):
    """0 · slope may be 0 or NaN where the slope is too large for this precision: 0 / x knows no slope."""
    return slope is not OUTSIDE and (slope is MASKED or g != 0 or not np.finfo(dtype).max < abs(slope) < inf)


def agree(got, expected, dtype, what, loose=0.0):
    """Equal but for rounding; ∞ and NaN at the same places. loose: how many eps, for slopes like 1 - y²."""
    got, expected = np.asarray(to_numpy(got), Wide), np.asarray(expected, Wide)
    numbers, eps = np.finfo(dtype), float(np.finfo(dtype).eps)
    with np.errstate(all="ignore"):
        expected = expected.astype(dtype).astype(Wide)  # too large for this precision is infinite
    np.testing.assert_allclose(
        got, expected, rtol=8 * eps, atol=loose * eps + 4 * float(numbers.smallest_subnormal), err_msg=what
    )


def leaf(value, dtype, backend):
    return Tensor(value, requires_grad=True, dtype=dtype, backend=backend)


def same_everywhere(f, inputs, g, dtype, backend, loose=0.0):
    """f's value and gradients, the same with a recorded walk, and the same as NumPy's."""
    found = []
    for home in {backend: None, "numpy": None}:
        xs = [leaf(x, dtype, home) for x in inputs]
        y = f(*xs)
        for again in (False, True):
            seed = Tensor(np.broadcast_to(g, y.shape), dtype=y.dtype, backend=home)
            found.append([to_numpy(t.data) for t in (y, *grad(y, xs, seed, create_graph=again))])
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            agree(b, a, dtype, "backends, or recorded and unrecorded walks, differ", loose)
    return found[0][0], found[0][1:]


# ------------------------------------------------------------------------------------ one operand
# (value, slope) of one number x, a longdouble.


def sigma(x):
    return 1 / (1 + np.exp(-x)) if x > 0 else np.exp(x) / (1 + np.exp(x))


def softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-abs(x)))


def of_absolute(x):
    return abs(x), MASKED if not abs(x) > 0 else np.sign(x)


def of_log(x, shift=0):
    if x + shift < 0:
        return nan, OUTSIDE
    y = np.log1p(x) if shift else np.log(x)
    return y, 1 / abs(x + shift)


def of_sqrt(x):
    return (nan, OUTSIDE) if x < 0 else (np.sqrt(abs(x)), 1 / (2 * np.sqrt(abs(x))))


def of_sigmoid(x):
    return sigma(x), sigma(x) * sigma(-x)


def of_silu(x):
    if np.isinf(x):
        return max(x, Wide(0)), Wide(x > 0)
    return x * sigma(x), sigma(x) * (1 + x * sigma(-x))


def of_relu(x):
    return max(x, Wide(0)) if x == x else nan, MASKED if x <= 0 else 1


def of_leaky(slope):
    if slope == 0:
        return of_relu
    return lambda x: (x, 1) if x > 0 else (Wide(slope) * x, slope)


def of_elu(alpha):
    return lambda x: (alpha * np.expm1(x), alpha * np.exp(x)) if x <= 0 else (x, 1)


def of_clip(low, high):
    return lambda x: (nan, MASKED) if x != x else (min(max(x, low), high), 1 if low <= x <= high else MASKED)


def of_power(n):
    def rule(x):
        if n == 0.5:  # C has another opinion of (-∞)^½
            return of_sqrt(x)
        return x**n, MASKED if n == 0 else n * x ** Wide(n - 1)

    return rule


UNARY = {  # name: [(op, reference, how loose the slope is)]
    "neg": [(ops.neg, lambda x: (-x, -1), 0)],
    "copy": [(ops.copy, lambda x: (x, 1), 0)],
    "abs": [(ops.abs, of_absolute, 0)],
    "exp": [(ops.exp, lambda x: (np.exp(x), np.exp(x)), 0)],
    "expm1": [(ops.expm1, lambda x: (np.expm1(x), np.exp(x)), 0)],
    "log": [(ops.log, of_log, 0)],
    "log1p": [(ops.log1p, lambda x: of_log(x, 1), 0)],
    "sqrt": [(ops.sqrt, of_sqrt, 0)],
    "square": [(ops.square, lambda x: (x * x, 2 * x), 0)],
    "sin": [(ops.sin, lambda x: (np.sin(x), np.cos(x)), 0)],
    "cos": [(ops.cos, lambda x: (np.cos(x), -np.sin(x)), 0)],
    "tanh": [(ops.tanh, lambda x: (np.tanh(x), np.cosh(x) ** -2), 4)],
    "sigmoid": [(ops.sigmoid, of_sigmoid, 2)],
    "softplus": [(ops.softplus, lambda x: (softplus(x), sigma(x)), 0)],
    "silu": [(ops.silu, of_silu, 4)],
    "relu": [(ops.relu, of_relu, 0)],
    "leaky_relu": [
        (lambda x, s=s: ops.leaky_relu(x, s), of_leaky(float(np.float32(s))), 0) for s in (0.25, 0, -0.5, 1.5)
    ],
    "elu": [(ops.elu, of_elu(1.0), 0), (lambda x: ops.elu(x, 2.0), of_elu(2.0), 0)],
    "clip": [
        (lambda x, b=b: ops.clip(x, *b), of_clip(*b), 0)
        for b in ((-1, 1), (0, inf), (-inf, 0.5), (0.0, 2.0**90))
    ],
    "pow": [(lambda x, n=n: ops.pow(x, n), of_power(n), 0) for n in (0, 1, 2, 3, -1, 0.5, -0.5)],
}
ROWS = [pytest.param(*row, id=f"{name}-{i}") for name, rows in UNARY.items() for i, row in enumerate(rows)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("f", "rule", "loose"), ROWS)
def test_one_operand(f, rule, loose, dtype, backend):
    points = np.array(specials(dtype), dtype)
    expected = [rule(x) for x in points.astype(Wide)]
    for g in GRADIENTS:
        y, (x_bar,) = same_everywhere(f, [points], g, dtype, backend, loose)
        agree(y, [value for value, _ in expected], dtype, "value")
        known = [is_known(g, slope, dtype) for _, slope in expected]
        back = [times(g, slope, dtype) for _, slope in expected]
        agree(x_bar[known], np.array(back)[known], dtype, f"gradient for {g}", loose)


def value_and_gradient(f, x, g):
    y = f(x)
    seed = Tensor(np.full(y.shape, g), dtype=y.dtype, backend=x.backend)
    return to_numpy(y.data), to_numpy(grad(y, x, seed).data)


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "tanh", "abs", "clip", "exp"])
def test_large_arrays_are_like_small_ones(name, backend):
    """Above 131,072 entries kernels go piece by piece."""
    for dtype in DTYPES:
        points = np.array(specials(dtype), dtype)
        for f, _, loose in UNARY[name]:
            small, large = (
                leaf(x, dtype, backend) for x in (points, np.tile(points, 1 + (1 << 18) // points.size))
            )
            for g in GRADIENTS:
                for a, b in zip(
                    value_and_gradient(f, small, g), value_and_gradient(f, large, g), strict=True
                ):
                    # the pieces of b are all alike, and like a but for rounding
                    first, *_, last = b = b.reshape(-1, points.size)
                    agree(first, a, dtype, name)
                    agree(last, a, dtype, name)
                    assert (np.isnan(b) == np.isnan(a)).all()
                    assert (b[:, ~np.isnan(a)] == b[0, ~np.isnan(a)]).all() or loose


# ------------------------------------------------------------------------------------ two operands
# (value, slope in a, slope in b) of two numbers.


def of_larger(a, b, sign=1):
    if a != a or b != b:
        return nan, 1, 1
    if a == b:
        return a, 0.5, 0.5
    return (a, 1, MASKED) if sign * a > sign * b else (b, MASKED, 1)


def of_pow(a, b):
    c = a**b
    first = MASKED if b == 0 else b * a ** (b - 1)
    at_limit = (a == 0 and b >= 0) or (a == inf and b < 0)
    return c, first, MASKED if at_limit else c * np.log(a)


BINARY = {
    "add": (ops.add, lambda a, b: (a + b, 1, 1)),
    "sub": (ops.sub, lambda a, b: (a - b, 1, -1)),
    "mul": (ops.mul, lambda a, b: (a * b, b, a)),
    "div": (ops.div, lambda a, b: (a / b, 1 / b, -(a / b) / b)),
    "pow": (ops.pow, of_pow),
    "maximum": (ops.maximum, of_larger),
    "minimum": (ops.minimum, lambda a, b: of_larger(a, b, -1)),
    "where": (lambda a, b: ops.where(to_numpy(a.data) > 0, a, b), None),
}
PARTNERS = [nan, 0.0, -0.0, inf, -inf, 1e30, -1e30, 1e-30, 1.0, -1.0, 2.0, -3.0, 0.5]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [name for name in BINARY if name != "where"])
def test_two_operands(name, dtype, backend):
    f, rule = BINARY[name]
    a, b = (v.reshape(-1) for v in np.meshgrid(np.array(PARTNERS, dtype), np.array(PARTNERS, dtype)))
    expected = [rule(x, y) for x, y in zip(a.astype(Wide), b.astype(Wide), strict=True)]
    loose = 0
    for g in GRADIENTS:
        y, gradients = same_everywhere(f, [a, b], g, dtype, backend)
        agree(y, [e[0] for e in expected], dtype, "value", loose)
        for k, found in enumerate(gradients, start=1):
            agree(found, [times(g, e[k], dtype) for e in expected], dtype, f"gradient {k} for {g}", loose)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [name for name in BINARY if name != "where"])
def test_a_number_as_an_operand(name, dtype, backend):
    """A Python number on either side is what a Tensor would be there."""
    f, rule = BINARY[name]
    points = np.array(PARTNERS, dtype)
    for number in PARTNERS:
        n = Wide(np.dtype(dtype).type(number))
        for left in (False, True):
            g_of = (lambda x, n=number: f(n, x)) if left else (lambda x, n=number: f(x, n))
            root = name == "pow" and number == 0.5
            expected = [
                rule(n, x) if left else (*of_sqrt(x), 0) if root else rule(x, n) for x in points.astype(Wide)
            ]
            for g in GRADIENTS:
                y, (found,) = same_everywhere(g_of, [points], g, dtype, backend)
                agree(y, [e[0] for e in expected], dtype, f"value with {number}")
                slopes = [e[2 if left else 1] for e in expected]
                known = [is_known(g, slope, dtype) for slope in slopes]
                back = np.array([times(g, slope, dtype) for slope in slopes])
                agree(found[known], back[known], dtype, f"gradient for {g} with {number}, left: {left}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_where(dtype, backend):
    points = np.array(specials(dtype), dtype)
    mask = np.arange(len(points)) % 2 == 0
    for g in GRADIENTS:
        f = lambda a, b: ops.where(Tensor(mask, backend=a.backend), a, b)
        y, (a_bar, b_bar) = same_everywhere(f, [points, points[::-1]], g, dtype, backend)
        agree(y, np.where(mask, points, points[::-1]), dtype, "value")
        agree(a_bar, np.where(mask, g, 0), dtype, f"first gradient for {g}")
        agree(b_bar, np.where(mask, 0, g), dtype, f"second gradient for {g}")


# ------------------------------------------------------------------------------------ reductions
# Of a list of numbers: the value, and the slope in each of them.


def of_extreme(sign):
    def rule(x):
        won = x != x if any(x != x) else x == sign * max(sign * x)
        return x[won][0], [1 / Wide(won.sum()) if w else MASKED for w in won]

    return rule


def of_norm(x):
    y = np.sqrt((x * x).sum())
    return y, [MASKED] * len(x) if y == 0 else list(x / y)


def of_logsumexp(x):
    if all(x == -inf):
        return -inf, [0] * len(x)
    top = max(x) if np.isfinite(max(x)) else Wide(0)
    total = np.exp(x - top).sum()
    return top + np.log(total), list(np.exp(x - top) / total)


def of_var(x):
    off = x - x.mean()
    return (off * off).mean(), list(off * 2 / len(x))


REDUCTIONS = {
    "max": (ops.max, of_extreme(1)),
    "min": (ops.min, of_extreme(-1)),
    "norm": (ops.norm, of_norm),
    "logsumexp": (ops.logsumexp, of_logsumexp),
    "var": (ops.var, of_var),
    "sum": (ops.sum, lambda x: (x.sum(), [1] * len(x))),
    "mean": (ops.mean, lambda x: (x.mean(), [1 / Wide(len(x))] * len(x))),
}
LISTS = [
    [0.0, 0.0, 0.0, 0.0], [0.0, -0.0, 0.0, -0.0], [1.0, 2.0, 2.0, -2.0], [3.0, 0.0, -4.0, 0.0],
    [1e30, 1e30, 1e30, 1e30], [1e30, -1e30, 1e30, -1e30], [3e25, 0.0, 4e25, 1.0], [3e-25, 0.0, -4e-25, 0.0],
    [3e-30, 4e-30, 0.0, 0.0], [1e30, 1e-30, 1.0, 0.0], [1e-30, 1e-30, -1e-30, -1e-30],
    [inf, 1.0, 2.0, -1.0], [-inf, 1.0, 2.0, -1.0], [-inf, -inf, -inf, -inf], [inf, -inf, 1.0, 0.0],
    [inf, inf, 0.0, 1.0], [nan, 1.0, 2.0, 0.0], [nan, inf, nan, 1.0], [-1e30, -1e30, 88.0, 90.0],
    [1e-40, -1e-40, 0.0, 3e-40], [1e-160, 1e-170, 0.0, 0.0], [1e160, 1e170, 1.0, 0.0],
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("rows", [1, 400])
def test_reductions(rows, name, dtype, backend):
    """rows: the list alone, and in an array that is large enough for kernels of short axes."""
    f, rule = REDUCTIONS[name]
    for numbers in LISTS:
        x = np.array(numbers, dtype)
        value, slopes = rule(x.astype(Wide))
        if dtype == "float32" and name == "norm" and abs(x[0]) == np.float32(1e-40):
            continue  # of a length with five digits no slope with seven can be made
        for g in GRADIENTS:
            array = np.tile(x, (rows, 1))
            y, (found,) = same_everywhere(lambda x: f(x, axis=1), [array], g, dtype, backend)
            agree(y, [value] * rows, dtype, f"value of {numbers}", loose=2)
            back = [[times(g, slope, dtype) for slope in slopes]] * rows
            agree(found, back, dtype, f"gradient for {g} at {numbers}", loose=2)


def test_norm_of_the_smallest_numbers(backend):
    """They have few digits, and so has their norm; but it is there, and so is its slope."""
    x = np.array([3e-40, 4e-40], "float32")
    y, (found,) = same_everywhere(ops.norm, [x], 1.0, "float32", backend)
    np.testing.assert_allclose(y, 5e-40, rtol=1e-4)
    np.testing.assert_allclose(found, [0.6, 0.8], rtol=1e-4)


def test_whole_numbers_have_a_norm(backend):
    assert float(ops.norm(Tensor([3, 4], backend=backend))) == 5.0
    assert (
        float(ops.norm(Tensor([4_000_000_000, 3_000_000_000], backend=backend))) == 5e9
    )  # squares need 64 bits


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e12, 1e25])
def test_second_derivative_of_norm(scale, backend):
    """d²|x|/dx² = (1 - n nᵀ) / |x|, n = x / |x|: in float32, far from 1, too."""
    x = leaf(np.array([3.0, 4.0]) * scale, "float32", backend)
    (first,) = grad(ops.norm(x), [x], create_graph=True)
    second = to_numpy(grad(first[0], x).data)
    np.testing.assert_allclose(second * scale, [0.64 / 5, -0.48 / 5], rtol=1e-5)


def of_softmax(x, g):
    e = np.exp(x - max(x))
    y = e / e.sum()
    return y, y * (g - (g * y).sum())


def of_log_softmax(x, g):
    low = x - max(x)
    y = low - np.log(np.exp(low).sum())
    return y, g - np.exp(y) * g.sum()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("f", "rule"), [(ops.softmax, of_softmax), (ops.log_softmax, of_log_softmax)], ids=["softmax", "log"]
)
def test_softmax(f, rule, dtype, backend):
    for numbers in LISTS:
        x = np.array(numbers, dtype)
        for g in ([1.0, 0.0, 0.0, 0.0], [1.0, 2.0, -1.0, 0.5], [0.0, inf, 0.0, 0.0]):
            g = np.array(g, dtype)
            y, back = rule(x.astype(Wide), g.astype(Wide))
            if any(g == inf) and np.isfinite(y[1]) and 0 < np.exp(y[1]) < 1e-37:
                continue
            found, (x_bar,) = same_everywhere(f, [x], g, dtype, backend, loose=8)
            agree(found, y, dtype, f"value at {numbers}", loose=8)
            agree(x_bar, back, dtype, f"gradient for {g} at {numbers}", loose=8)


def test_max_pool(backend):
    """Each window's largest entries share; the others get 0 even of ∞."""
    x = np.array([[[[1.0, inf, nan, 0.0], [2.0, inf, 1.0, nan]]]])
    for g in GRADIENTS:
        y, (found,) = same_everywhere(lambda x: ops.max_pool(x, 2), [x], g, "float64", backend)
        agree(y, [[[[inf, nan]]]], "float64", "value")
        agree(found, np.where(x[:, :, :, :] == inf, g / 2, np.where(x != x, g / 2, 0)), "float64", "gradient")


# ------------------------------------------------------------------------------------ linear ops
# y = A x in each input. What a NaN or ∞ reaches is what A says, and no 0 · ∞ beside it.

K = X((1, 1, 2, 2))
LINEAR = {
    "sum_to": call(X((2, 3)), (3,)), "broadcast_to": call(X((3,)), (2, 3)),
    "reshape": call(X((2, 3)), (3, 2)), "transpose": call(X((2, 3))),
    "moveaxis": call(X((2, 3)), 0, 1), "matrix_transpose": call(X((2, 3))),
    "concat": call([X((2,)), X((3,))]), "stack": call([X((2,)), X((2,))]), "split": call(X((4,)), 2, 0),
    "pad": call(X((2,)), 1), "crop": call(X((4,)), 1), "flip": call(X((3,))),
    "getitem": call(X((4,)), [1, 1, 2]), "scatter_add": call(X((3,)), [1, 1, 2], (4,)),
    "take": call(X((3, 2)), [0, 2, 2]), "astype": call(X((3,)), "float64"),
    "matmul": call(X((2, 3)), X((3, 2))), "linear": call(X((3, 4)), X((2, 4)), X((2,))),
    "einsum": call("ij,kj->ik", X((2, 3)), X((2, 3))),
    "conv2d": call(X((1, 2, 4, 4)), X((2, 2, 2, 2)), X((2,)), 2), "conv1d": call(X((1, 1, 5)), X((1, 1, 2))),
    "conv_transpose2d": call(X((1, 2, 3, 3)), X((2, 1, 2, 2)), X((1,)), 2),
    "conv_transpose1d": call(X((1, 1, 4)), X((1, 1, 2)), X((1,))),
    "conv2d_weight": call(X((1, 1, 4, 4)), X((1, 1, 3, 3)), 2),
    "conv1d_weight": call(X((1, 1, 4)), X((1, 1, 3)), 2),
    "unfold": call(X((1, 1, 3, 3)), (2, 2)), "fold": call(X((1, 1, 2, 2, 2, 2)), (3, 3)),
    "avg_pool": call(X((1, 1, 4, 4)), 2), "upsample": call(X((1, 1, 2, 2)), 2),
    "sum_pool": call(X((1, 1, 4, 4)), 2),
    "dropout": call(X((8,)), 0.5, Rng(3)),
}  # fmt: skip
TABLE = {op.name: op for op in OPS}


def matrix(op, case, values, i):
    """A and c of y = A xᵢ + c, where the other inputs have these values."""
    zero = [v * 0 if k == i else v for k, v in enumerate(values)]
    constant = np.asarray(case.call(op.reference, zero))
    columns = []
    for place in np.ndindex(values[i].shape):
        unit = [v.copy() for v in zero]
        unit[i][place] = 1.0
        columns.append((case.call(op.reference, unit) - constant).reshape(-1))
    return np.stack(columns, axis=1), constant


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LINEAR)
def test_linear_ops(name, dtype, backend):
    op, case = TABLE[name], LINEAR[name]
    rng = np.random.default_rng(0)
    values = [rng.uniform(0.5, 2, x.shape).astype(dtype).astype(float) for x in case.inputs]
    for i in range(len(values)):
        a, c = matrix(op, case, values, i)
        a = np.where(abs(a) < 1e-12, 0, a)
        for special in specials(dtype):
            x = values[i].copy()
            x.reshape(-1)[1 % x.size] = np.dtype(dtype).type(special)
            y = np.array([c_ + sum(w * v for w, v in zip(row, x.reshape(-1), strict=True) if w)
                          for row, c_ in zip(a, c.reshape(-1), strict=True)])  # fmt: skip

            def f(x, i=i):
                others = [Tensor(v, dtype=dtype, backend=x.backend) for v in values]
                return case.call(op.f, [x if k == i else v for k, v in enumerate(others)])

            g = 1.0 if special != inf else inf
            found, (x_bar,) = same_everywhere(f, [x], g, dtype, backend, loose=8)
            size = max(1.0, abs(special)) if np.isfinite(special) else 1.0
            kind = found.dtype if name == "astype" else dtype
            agree(found.reshape(-1), y, dtype, f"value with {special}", loose=32 * size)
            assert kind == found.dtype
            back = [sum(w * g for w in column if w) for column in a.T]
            agree(x_bar.reshape(-1), back, dtype, f"gradient with {special}", loose=64)


@pytest.mark.parametrize("dtype", DTYPES)
def test_batch_norm(dtype, backend):
    """What is not finite spoils its own channel, and no other. (Squares that overflow: as in PyTorch.)"""
    x = np.array([[1.0, -2.0], [3.0, 2.0], [5.0, 0.0]])
    for special in (nan, inf, -inf, 1e-30, -0.0):
        x[1, 0] = special
        y, (x_bar,) = same_everywhere(ops.batch_norm, [x], 1.0, dtype, backend, loose=8)
        wide = x.astype(Wide)
        off = wide - wide.mean(0)
        expected = off / np.sqrt((off * off).mean(0) + Wide(1e-5))
        agree(y, expected, dtype, f"value with {special}", loose=4)
        agree(x_bar, np.where(np.isfinite(expected), 0, nan), dtype, f"gradient with {special}", loose=8)
    y, _ = same_everywhere(ops.batch_norm, [x * 0 + [[1e-30], [-1e-30], [0.0]]], 1.0, dtype, backend)
    agree(y[:, 0] * 1e30, np.array([1, -1, 0]) / np.sqrt(Wide(1e-5)), dtype, "tiny")


def test_every_public_op_is_here():
    public = {name for name, f in vars(ops).items() if isfunction(f) and not name.startswith("_")}
    own = {"softmax", "log_softmax", "max_pool", "batch_norm"}
    assert public == {*UNARY, *BINARY, *REDUCTIONS, *LINEAR, *own}


# ------------------------------------------------------------------------------------ losses
# (value, slope) of one logit: for D of a real image, for D of a fake, for G of a fake.


def up(x):
    return softplus(x), sigma(x)


def down(x):
    return softplus(-x), -sigma(-x)


def smoothed(t):
    def rule(r):
        rest = Wide(1) - t
        if r == inf:
            return rest * r, rest
        if r == -inf:
            return t * -r, -t
        return t * softplus(-r) + rest * softplus(r), rest - sigma(-r)

    return rule


def minus(rule):
    return lambda x: tuple(-v for v in rule(x))


def hinge(sign):
    return lambda x: (max(1 + sign * x, Wide(0)) if x == x else nan, MASKED if 1 + sign * x <= 0 else sign)


def target(t):
    return lambda x: ((x - t) * (x - t) / 2, x - t)


line, falling = lambda x: (x, 1), lambda x: (-x, -1)
chi2 = lambda v: (v * (v / 4 + 1), v / 2 + 1)
RULES = {
    "minimax": (down, up, minus(up)),
    "minimax 0.9": (smoothed(Wide(0.9)), up, minus(up)),
    "non-saturating": (down, up, down),
    "least-squares": (target(1), target(0), target(1)),
    "hinge": (hinge(-1), hinge(1), falling),
    "wasserstein": (falling, line, falling),
    "kl": (falling, lambda v: (np.exp(v - 1),) * 2, lambda v: (-np.exp(v - 1),) * 2),
    "reverse-kl": (
        lambda v: (np.exp(-v), -np.exp(-v)), lambda v: (v - 1, 1), lambda v: (1 - v, -1),
    ),
    "pearson": (falling, chi2, minus(chi2)),
    "hellinger": (
        lambda v: (np.expm1(-v), -np.exp(-v)), lambda v: (np.expm1(v), np.exp(v)),
        lambda v: (-np.expm1(v), -np.exp(v)),
    ),
    "jensen-shannon": (
        lambda v: (softplus(-v) - np.log(Wide(2)), -sigma(-v)),
        lambda v: (softplus(v) - np.log(Wide(2)), sigma(v)),
        lambda v: (np.log(Wide(2)) - softplus(v), -sigma(v)),
    ),
    "began": (line, lambda f: (-Wide(0.3) * f, -0.3), line),
}  # fmt: skip
PAIRS = {  # of a difference e = r - f: value and slope in e, for D and for G; all in one image of each
    "rpgan": (down, up),
    "ragan": (lambda e: tuple(2 * v for v in down(e)), lambda e: tuple(2 * v for v in up(e))),
}


def made(name):
    base, *target = name.split()
    game = loss(base, **({"real_target": float(target[0])} if target else {}))
    if base == "began":
        game.k = 0.3
    return game


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", RULES)
def test_losses(name, dtype, backend):
    game, (of_real, of_fake, of_g) = made(name), RULES[name]
    usual, n = 0.5, 2  # two logits of each kind: a special one, and a usual one
    for special in specials(dtype):
        x = np.array([special, usual], dtype)
        other = np.array([usual, usual], dtype)
        players = (
            (lambda r, f: game.discriminator(r, f), [x, other], of_real, of_fake),
            (lambda r, f: game.discriminator(r, f), [other, x], of_real, of_fake),
            (lambda f: game.generator(f), [x], of_g, None),
        )
        for f, inputs, *rules in players:
            points = [[rule(v) for v in p.astype(Wide)] for rule, p in zip(rules, inputs, strict=False)]
            value = sum(sum(v for v, _ in each) / n for each in points)
            scale = max(1.0, *(float(abs(v)) if np.isfinite(v) else 1.0 for each in points for v, _ in each))
            for g in GRADIENTS:
                y, gradients = same_everywhere(f, inputs, g, dtype, backend, loose=4)
                agree(y, value, dtype, f"value at {special}", loose=4 * min(scale, 1e3))
                for each, found in zip(points, gradients, strict=True):
                    back = [s if s is MASKED else Wide(s) / n for _, s in each]
                    back = [times(g, s, dtype) for s in back]
                    agree(found, back, dtype, f"gradient for {g} at {special}", loose=4)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PAIRS)
def test_relativistic_losses(name, dtype, backend):
    game, (of_d, of_g) = loss(name), PAIRS[name]
    for special in specials(dtype):
        for r, f in ((special, 0.5), (0.5, special)):
            e = Wide(np.dtype(dtype).type(r)) - Wide(np.dtype(dtype).type(f))
            for play, rule in ((game.discriminator, of_d), (lambda r, f: game.generator(f, r), of_g)):
                value, slope = rule(e)
                inputs = [np.array([r], dtype), np.array([f], dtype)]
                for g in (1.0, 0.0):
                    y, gradients = same_everywhere(play, inputs, g, dtype, backend, loose=4)
                    agree(y, value, dtype, f"value at {r}, {f}", loose=4)
                    for found, sign in zip(gradients, (1, -1), strict=True):
                        back = times(g, sign * slope, dtype)
                        agree(found, [back], dtype, f"gradient for {g} at {r}, {f}", loose=4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gmmn(dtype, backend):
    """One real point and one fake: MMD² = 2 Σσ (1 - e^(-(x - y)² / 2σ²)). Its distances are differences of
    squares, so what has no square has no distance."""
    alone = GMMN(mg.nn.Flatten(), None, bandwidths=(1, 2))
    for x, y in ((0.0, -0.0), (1e-30, 0.0), (1.0, 0.5), (nan, 1.0), (inf, 1.0), (1e3, 0.0)):
        x, y = (Wide(np.dtype(dtype).type(v)) for v in (x, y))
        d2 = (x - y) ** 2 if np.isfinite(x) else nan
        k = [np.exp(-d2 / 2), np.exp(-d2 / 8)]
        slope = 2 * (y - x) * (k[0] + k[1] / 4) if d2 == d2 else nan
        inputs = [np.array([[v]], dtype) for v in (y, x)]
        of_g = lambda f, r: alone.loss(r, f)
        found, (f_bar, r_bar) = same_everywhere(of_g, inputs, 1.0, dtype, backend, loose=8)
        agree(found, 2 * (2 - sum(k)), dtype, f"value at {x}, {y}", loose=8)
        agree([f_bar[0, 0], r_bar[0, 0]], [slope, -slope], dtype, f"gradient at {x}, {y}", loose=8)


@pytest.mark.parametrize(("dtype", "large"), [("float32", 2e19), ("float64", 1.5e154)])
def test_half_of_a_square_that_is_too_large(dtype, large, backend):
    """½ l² may be a number where l² is none."""
    _, _, rule = RULES["least-squares"]
    y, _ = same_everywhere(loss("least-squares").generator, [np.array([large], dtype)], 1.0, dtype, backend)
    agree(y, rule(Wide(np.dtype(dtype).type(large)))[0], dtype, "value")
    assert np.isfinite(y)


def test_every_loss_is_here():
    assert set(LOSSES) == {name.split()[0] for name in RULES} | set(PAIRS)


# ------------------------------------------------------------------------------------ what it is for


@pytest.mark.parametrize(
    "f",
    [
        lambda x: ops.sqrt(ops.relu(x)),
        lambda x: ops.sqrt(ops.maximum(x, 0.0)),
        lambda x: ops.sqrt(ops.clip(x, 0.0)),
        lambda x: ops.sqrt(ops.abs(ops.relu(x))),
        lambda x: ops.sqrt(ops.where(x.data > 0, x, 0.0)),
    ],
)
def test_a_root_of_what_is_cut_off(f, backend):
    """The root's slope at 0 is ∞; where the number below was cut off, nothing of it comes through."""
    x = leaf([-1.0, -4.0, 4.0], "float64", backend)
    for again in (False, True):
        assert to_numpy(grad(f(x).sum(), x, create_graph=again).data).tolist() == [0, 0, 0.25]


@pytest.mark.parametrize("number", [np.float64(2.0), np.sqrt(2.0), np.float32(2), np.int64(2), np.float16(2)])
def test_scalars_of_numpy_leave_the_precision_alone(number, backend):
    """As Python's numbers do, on either side of every operator. A 0-d array has a precision, and keeps it."""
    x = leaf([1.0, 2.0], "float32", backend)
    results = [
        x + number, number + x, x - number, number - x, x * number, number * x, x / number, number / x,
        x**number, number**x, ops.maximum(x, number), ops.minimum(number, x),
        ops.where(x.data > 1, x, number),
    ]  # fmt: skip
    assert {y.dtype.name for y in results} == {"float32"}
    assert {grad(y.sum(), x).dtype.name for y in results} == {"float32"}
    assert (x * Tensor(np.array(2.0), backend=backend)).dtype == "float64"
    assert (leaf([1.0], "float64", backend) * np.float32(2)).dtype == "float64"
    tenth = leaf([0.1], "float32", backend)
    assert bool((tenth == np.float64(0.1))[0])  # compared as float32, like tenth == 0.1
    assert bool((tenth <= np.float64(0.1))[0])


@pytest.mark.parametrize("line", LAYERS, ids=lambda line: line.name)
def test_layers_give_lists_the_precision_of_their_weights(line):
    @settings(max_examples=5, phases=[Phase.generate])
    @given(line.cases)
    def body(case):
        layer = case.layer(0, dtype="float32")
        if any(True for _ in layer.parameters()):
            assert layer(*(v.tolist() for v in case.values(0))).dtype == "float32"

    body()


def test_lists_take_the_precision_of_what_they_meet(backend):
    x, numbers = Tensor(np.ones((2, 2), "float32"), backend=backend), [[1.0, 2.0], [3.0, 4.0]]
    whole = Tensor(np.ones((2, 2), int), backend=backend)
    made = [
        x + numbers,
        numbers * x,
        x @ numbers,
        numbers @ x,
        ops.concat([x, numbers]),
        mg.maximum(numbers, x),
    ]
    assert {y.dtype.name for y in made} == {"float32"}
    assert mg.add(x, [[1, 2], [3, 4]]).dtype == "float32"
    assert (whole + numbers).dtype == "float64"
    assert (x * Tensor(np.ones(2), backend=backend)).dtype == "float64"  # an array says how precise it is
