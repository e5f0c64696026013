"""Who checks the checker? Mutants: ops whose gradient is wrong in a way that people get gradients wrong.

Each must be caught, its right twin must pass, and a function that is not smooth must be called that.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minigan as mg
from minigan import Kink, Tensor, adjoint_check, gradcheck, record
from minigan.gradcheck import GradientError
from minigan.tensor import constant, is_recording
from minigan.testing import strategies
from minigan.testing.strategies import NONZERO, Domain

RNG = np.random.default_rng(7)
X = RNG.uniform(0.3, 2.0, (4, 3))  # positive, so that every op below is in its domain
Z = RNG.standard_normal((4, 3))
SQUARE = RNG.standard_normal((3, 3))
ROW = RNG.standard_normal(3)
LONG = RNG.standard_normal(300)


def numpy_op(name: str, function: Callable, *vjps: Callable) -> Callable:
    """An op from array code and one vjp per input: vjp(g, y, *inputs) with Tensors, all differentiable."""

    def op(*inputs: Any) -> Tensor:
        y = function(*(x.data for x in inputs))
        edges = [(x, _edge(vjp, inputs)) for x, vjp in zip(inputs, vjps, strict=True) if vjp is not None]
        return record(name, y, *edges, output=True)

    op.__name__ = name
    return op


def _edge(vjp, inputs):
    return lambda g, y: vjp(g, y, *inputs)


def fixed(x: Any) -> Tensor:
    """The mistake of rule 3: something smooth enters a vjp as an array."""
    return constant(np.array(x.data))


# --------------------------------------------------------------------------------- mutants


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def normalise(x):
    """Column by column, mean 0 and variance 1."""
    return (x - x.mean(0)) / x.std(0)


def normalise_vjp(g, y, x, inverse=None):
    inverse = mg.var(x, 0) ** -0.5 if inverse is None else inverse
    return (g - column_mean(g) - y * column_mean(g * y)) * inverse


def column_mean(x):
    return mg.mean(x, 0, keepdims=True)


def one_entry_off(x):
    factor = np.ones(x.shape)
    factor.flat[x.size // 3] = 1.01
    return constant(factor)


REPEATED = np.array([0, 2, 2, 5, 0])
LAST_OF_EACH = np.array([0.0, 0.0, 1.0, 1.0, 1.0])


class CachesItsInput:
    """The bug of many a from-scratch GAN: the layer keeps its input, and the next call overwrites it."""

    def __call__(self, x):
        self.x = x
        return record("square", x.data**2, (x, lambda g: g * self.x * 2))


def two_calls(layer):
    return lambda real, fake: mg.mean(layer(real)) - 3 * mg.mean(layer(fake))


class RightTheFirstTime:
    calls = 0

    def __call__(self, g, y, x):
        self.calls += 1
        return g * mg.cos(x) if self.calls == 1 else g * y


# What is computed, and an op that differentiates it rightly.
OPS: dict[str, tuple[Callable, Callable]] = {
    "add": (np.add, mg.add),
    "mul": (np.multiply, mg.mul),
    "div": (np.divide, mg.div),
    "abs": (np.abs, mg.abs),
    "square": (np.square, mg.square),
    "cube": (lambda x: x**3, lambda x: x**3),
    "sqrt": (np.sqrt, mg.sqrt),
    "exp": (np.exp, mg.exp),
    "exp32": (lambda x: np.exp(x.astype("float32")), mg.exp),
    "log": (np.log, mg.log),
    "sin": (np.sin, mg.sin),
    "cos": (np.cos, mg.cos),
    "tanh": (np.tanh, mg.tanh),
    "sigmoid": (sigmoid, mg.sigmoid),
    "floor": (np.floor, lambda x: constant(np.floor(x.data))),
    "leaky": (lambda x: np.maximum(x, 0.2 * x), mg.leaky_relu),
    "mean": (np.mean, mg.mean),
    "var": (lambda x: x.var(0, ddof=1), lambda x: mg.var(x, 0, ddof=1)),
    "norm": (lambda x: np.sqrt((x * x).sum(1)), lambda x: mg.norm(x, 1)),
    "softmax": (lambda x: np.exp(x) / np.exp(x).sum(1, keepdims=True), mg.softmax),
    "normalise": (normalise, numpy_op("normalise", normalise, normalise_vjp)),
    "matmul": (np.matmul, mg.matmul),
    "cumsum": (lambda x: x.cumsum(0), lambda x: mg.matmul(np.tri(len(x)), x)),
    "transpose": (lambda x: x.T.copy(), mg.transpose),
    "flip": (lambda x: x[::-1].copy(), lambda x: mg.flip(x, 0)),
    "take": (lambda x: x[REPEATED], lambda x: x[REPEATED]),
}


@dataclass
class Mutant:
    """`wrong` claims to be `right`. order: of the first derivative that is wrong; by: who notices."""

    name: str
    right: Callable
    wrong: Callable
    inputs: tuple
    order: int = 1
    by: Any = GradientError


def mutant(name, op, *vjps, inputs=(Z,), **options):
    function, right = OPS[op]
    return Mutant(name, right, numpy_op(op, function, *vjps), inputs, **options)


def times_a(g, c, a, b):
    return g * a


def times_b(g, c, a, b):
    return g * b


MUTANTS = [
    # one entry after the other
    mutant("wrong sign", "cos", lambda g, y, x: g * mg.sin(x)),
    mutant("missing factor 2", "square", lambda g, y, x: g * x),
    mutant("times x, not divided by x", "log", lambda g, y, x: g * x, inputs=(X,)),
    mutant("1 - x² where 1 - y² is meant", "tanh", lambda g, y, x: g * (1 - x * x)),
    mutant("exponent not lowered", "cube", lambda g, y, x: g * x**3 * 3),
    mutant("inverse derivative", "sqrt", lambda g, y, x: g * y * 2, inputs=(X,)),
    mutant("right for positive inputs only", "abs", lambda g, y, x: g),
    mutant("slopes exchanged", "leaky", lambda g, y, x: g * constant(np.where(x.data > 0, 0.2, 1.0))),
    mutant("off by a ten-thousandth", "exp", lambda g, y, x: g * y * (1 + 1e-4)),
    mutant("one of 300 off by 1 %", "square", lambda g, y, x: g * x * 2 * one_entry_off(x), inputs=(LONG,)),
    mutant("zero", "sigmoid", lambda g, y, x: g * 0.0),
    mutant("straight through a jump", "floor", lambda g, y, x: g),
    mutant("a forgotten minus", "div", lambda g, c, a, b: g / b, lambda g, c, a, b: g * c / b, inputs=(Z, X)),
    mutant("inputs exchanged", "mul", times_a, times_b, inputs=(Z, X)),
    mutant("no edge to the second input", "mul", times_b, None, inputs=(Z, X)),
    # the cotangent
    mutant("right for a cotangent of all ones", "square", lambda g, y, x: mg.mean(g) * x * 2),
    mutant("right for g = 1: g squared", "sin", lambda g, y, x: g * g * mg.cos(x)),
    mutant("ignores the cotangent", "sin", lambda g, y, x: mg.cos(x)),
    mutant("clips the cotangent", "sin", lambda g, y, x: mg.clip(g, -1, 1) * mg.cos(x)),
    # broadcasting, shapes, sums
    mutant("not summed after broadcasting", "mul", times_b, times_a, inputs=(Z, ROW), by=ValueError),
    mutant("one row, not the sum", "mul", times_b, lambda g, c, a, b: (g * a)[0], inputs=(Z, ROW)),
    mutant("mean, not the sum", "add", lambda g, *_: g, lambda g, *_: mg.mean(g, 0), inputs=(Z, ROW)),
    mutant("mean without 1/N", "mean", lambda g, y, x: mg.broadcast_to(g, x.shape)),
    mutant("N where N - 1 is meant", "var", lambda g, y, x: g * (x - column_mean(x)) * (2 / len(x))),
    mutant("transpose not undone", "transpose", lambda g, y, x: g, inputs=(SQUARE,)),
    mutant("vjp in the wrong shape", "transpose", lambda g, y, x: g, by=ValueError),
    mutant("flip not undone", "flip", lambda g, y, x: g),
    mutant("matrix not transposed", "matmul", lambda g, c, a, b: g @ b, lambda g, c, a, b: a.mT @ g,
           inputs=(SQUARE, SQUARE + 1)),
    mutant("running sum not reversed", "cumsum", lambda g, y, x: mg.matmul(np.tri(len(x)), g)),
    mutant("repeated index overwrites", "take",
           lambda g, y, x: mg.scatter_add(g * LAST_OF_EACH, REPEATED, x.shape), inputs=(LONG[:6],)),
    mutant("softmax: the diagonal only", "softmax", lambda g, y, x: g * y * (1 - y)),
    mutant("norm not divided by y", "norm", lambda g, y, x: mg.reshape(g, -1, 1) * x),
    # batch normalisation
    mutant("mean taken as a constant", "normalise",
           lambda g, y, x: (g - y * column_mean(g * y)) * mg.var(x, 0) ** -0.5),
    mutant("variance taken as a constant", "normalise",
           lambda g, y, x: (g - column_mean(g)) * mg.var(x, 0) ** -0.5),
    mutant("its scale saved as an array", "normalise",
           lambda g, y, x: normalise_vjp(g, y, x, fixed(mg.var(x, 0) ** -0.5)), order=2),
    # right at first order, wrong at second
    mutant("y saved as an array", "tanh", lambda g, y, x: g * (1 - fixed(y) * fixed(y)), order=2),
    mutant("slope saved as an array", "sigmoid", lambda g, y, x: g * fixed(y * (1 - y)), order=2),
    mutant("factor saved as an array", "mul", lambda g, c, a, b: g * fixed(b), times_a,
           inputs=(Z, X), order=2),
    mutant("g taken off the tape", "sin", lambda g, y, x: g.detach() * mg.cos(x), order=2),
    mutant("vjp taken off the tape", "sin", lambda g, y, x: (g * mg.cos(x)).detach(), order=2),
    mutant("vjp of the vjp wrong", "sin",
           lambda g, y, x: g * numpy_op("cos", np.cos, lambda h, z, t: h * mg.sin(t))(x), order=2),
    # the tape
    mutant("an array where a Tensor is needed", "sin", lambda g, y, x: g.data * np.cos(x.data), by=TypeError),
    mutant("right the first time only", "sin", RightTheFirstTime()),
    mutant("short cut wrong when not recording", "sin",
           lambda g, y, x: g * mg.cos(x) if is_recording() else g * (1 - x * x / 2)),
    Mutant("detached on the way", lambda x: mg.sin(x) * x, lambda x: mg.sin(x).detach() * x, (Z,)),
    Mutant("input overwritten by the next call", two_calls(mg.square), two_calls(CachesItsInput()), (Z, X)),
    # precision
    mutant("forward in float32", "exp32", lambda g, y, x: g * mg.exp(x), by=TypeError),
    mutant("vjp in float32", "sin", lambda g, y, x: g.astype("float32") * mg.cos(x.astype("float32"))),
]  # fmt: skip


def test_there_are_enough_mutants():
    assert len(MUTANTS) == 48
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.mutant
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutants_are_caught(mutant):
    """With any seed: a checker that has to be lucky is none."""
    for seed in range(5):
        if mutant.order > 1:
            assert gradcheck(mutant.wrong, *mutant.inputs, order=mutant.order - 1, seed=seed)
        with pytest.raises(mutant.by):
            gradcheck(mutant.wrong, *mutant.inputs, order=mutant.order, seed=seed)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_their_right_twins_pass(mutant):
    for seed in range(2):
        assert gradcheck(mutant.right, *mutant.inputs, order=2, seed=seed)


def test_third_order():
    """x³ with an array saved two vjps deep: right to the second order, wrong at the third."""
    square = numpy_op("square", np.square, lambda h, z, t: h * 2 * fixed(t))
    cube = numpy_op("cube", lambda x: x**3, lambda g, y, x: g * 3 * square(x))
    assert gradcheck(cube, X, order=2)
    with pytest.raises(GradientError, match="order 3"):
        gradcheck(cube, X, order=3)
    assert gradcheck(lambda x: x**3, X, order=3)


# ----------------------------------------------------------------------------------- kinks


def off(x, factor=1 + 1e-4):
    """x, with a gradient that is a little wrong: puts a mistake into any function."""
    return record("off", x.data.copy(), (x, lambda g: g * factor))


def relu_squared(x):
    return mg.square(mg.relu(x))


TINY = 1e-13
KINKS = [
    ("abs", mg.abs, [0.0, 1.0]),
    ("abs, all zero", mg.abs, [0.0, 0.0]),
    ("abs, on the right", mg.abs, [TINY, 1.0]),
    ("abs, on the left", mg.abs, [-TINY, 1.0]),
    ("relu", mg.relu, [0.0, 1.0]),
    ("relu, on the right", mg.relu, [TINY, -1.0, 1.0]),
    ("relu, on the left", mg.relu, [-TINY, -1.0, 1.0]),
    ("relu, large scale", mg.relu, [1e-6, 1e8]),
    ("leaky_relu", mg.leaky_relu, [0.0, 1.0]),
    ("clip", lambda x: mg.clip(x, -1, 1), [1.0, 0.5]),
    ("max, a tie", mg.max, [1.0, 1.0]),
    ("max, nearly a tie", mg.max, [1.0, 1.0 + TINY, -1.0]),
    ("maximum", lambda x: mg.maximum(x, 2 * x - 1), [1.0, 3.0]),
    ("norm", mg.norm, [0.0, 0.0]),
    ("a jump", lambda x: constant((x.data > 1) * 1.0), [1.0, 2.0]),
    ("a jump, nearby", lambda x: constant((x.data > 1) * 1.0), [1 + TINY, 2.0]),
    ("hinge loss", lambda x: mg.mean(mg.relu(1 - x)), [1.0, 0.3, 2.0]),
    ("beside the domain", lambda x: constant(np.where(x.data == 1, 1.0, np.nan)), [1.0]),
]


@pytest.mark.parametrize("f, x", [row[1:] for row in KINKS], ids=[row[0] for row in KINKS])
def test_kinks_are_called_kinks(f, x):
    """... and not wrong gradients, whether or not the gradient is wrong as well."""
    for seed in range(5):
        with pytest.raises(Kink):
            gradcheck(f, x, seed=seed)
        with pytest.raises(Kink):
            gradcheck(lambda x: f(off(x)), x, seed=seed)


@pytest.mark.parametrize("x", [[0.0, 1.0], [TINY, 1.0], [-TINY, 1.0]])
@pytest.mark.parametrize("f", [relu_squared, lambda x: x * mg.abs(x), lambda x: mg.elu(x)])
def test_kinks_of_the_derivative(f, x):
    """Smooth enough for the first derivative; the second does not exist."""
    for seed in range(5):
        assert gradcheck(f, x, order=1, seed=seed)
        with pytest.raises(Kink, match="order 2"):
            gradcheck(f, x, order=2, seed=seed)
        with pytest.raises(GradientError):
            gradcheck(lambda x: f(off(x)), x, seed=seed)


@pytest.mark.parametrize("seed", range(20))
def test_kinks_do_not_cancel(seed):
    """Many kinks, some upwards and some downwards, mixed into few outputs."""
    rng = np.random.default_rng(seed)
    mix, x = rng.standard_normal((6, 2)), rng.standard_normal((3, 6))
    x[:, :4] = rng.uniform(-1e-14, 1e-14, (3, 4))
    for order in (1, 2):
        with pytest.raises(Kink):
            gradcheck(lambda x: mg.matmul(mg.relu(x), mix) + 1, x, order=order, seed=seed)


@pytest.mark.parametrize("distance", [1e-1, 1e-3, 1e-5, 1e-7])
def test_a_kink_at_some_distance_does_no_harm(distance):
    for f in (mg.abs, mg.relu, mg.leaky_relu, relu_squared, lambda x: mg.max(mg.concat([x, -x]))):
        x = [distance, -1.0, 1.0 + distance]
        assert gradcheck(f, x)
        with pytest.raises(GradientError):
            gradcheck(lambda x, f=f: f(off(x)), x)


def test_the_message_of_a_kink_names_the_place():
    x = np.ones((2, 3))
    x[1, 2] = 0
    with pytest.raises(Kink, match=r"gradient of relu for argument 0 \(order 1\).*entry \(1, 2\)"):
        gradcheck(mg.relu, x)


# --------------------------------------------------------------- smooth, though it may not look it

SMOOTH = [
    ("exp(5x)", lambda x: mg.exp(5 * x), Z),
    ("exp(50x)", lambda x: mg.exp(50 * x), Z),
    ("sin(30x)", lambda x: mg.sin(30 * x), Z),
    ("sin(3000x)", lambda x: mg.sin(3000 * x), Z),
    ("1/x near 0.2", lambda x: 1 / x, [0.2, -0.21, 3.0]),
    ("1/x near 1e-5", lambda x: 1 / x, [1e-5, 3.0]),
    ("tanh(100x)", lambda x: mg.tanh(100 * x), [0.01, -0.002, 1e-5]),
    ("tanh(1e6 x) at 0", lambda x: mg.tanh(1e6 * x), [0.0]),
    ("x⁴ near 0", lambda x: x**4, [1e-3, 0.1]),
    ("sqrt near 0", mg.sqrt, [1e-6, 1e-3, 1.0]),
    ("log over nine decades", mg.log, 10.0 ** np.arange(-5, 5)),
    ("x log x", lambda x: x * mg.log(x), [1e-4, 1.0, 30.0]),
    ("norm near 0", mg.norm, [1e-5, 2e-5]),
    ("softplus(20x)", lambda x: mg.softplus(20 * x), Z),
    ("logsumexp(20x)", lambda x: mg.logsumexp(20 * x, 1), Z),
    ("a tip rounded at 1e-4", lambda x: mg.sqrt(x * x + 1e-8), [0.0, 3e-5, 1.0]),
    ("x^(5/2)", lambda x: x**2.5, X),
    ("x - sin x", lambda x: x - mg.sin(x), [1e-2, 0.5]),
    ("far from the origin", lambda x: mg.sin(x), 1e6 + Z),
    ("centred, far from the origin", lambda x: mg.batch_norm(x), 1e5 + Z),
    ("on top of a large constant", lambda x: mg.sin(x) + 1e6, Z),
]


@pytest.mark.parametrize("f, x", [row[1:] for row in SMOOTH], ids=[row[0] for row in SMOOTH])
def test_smooth_functions(f, x):
    """Right gradients pass; wrong ones are called wrong, and never a kink."""
    for seed in range(5):
        assert gradcheck(f, x, seed=seed)
        with pytest.raises(GradientError):
            gradcheck(lambda x: f(off(x)), x, seed=seed)


@pytest.mark.parametrize("f", [lambda x: x**5, lambda x: x**7, lambda x: x * x * x * mg.cos(x)])
def test_gradients_that_vanish_at_the_point(f):
    assert gradcheck(f, [0.0])
    assert gradcheck(f, [0.0, 1.0])


@pytest.mark.parametrize("of_x", [1e-8, 1e-3, 1e3, 1e8])
@pytest.mark.parametrize("of_y", [1e-8, 1.0, 1e8])
def test_scales(of_x, of_y):
    """Nothing in the checker knows what is large and what is small."""

    def f(x):
        return mg.softmax(mg.tanh(x * (1 / of_x))) * of_y

    assert gradcheck(f, of_x * Z)
    with pytest.raises(GradientError):
        gradcheck(lambda x: f(off(x)), of_x * Z)


@pytest.mark.parametrize("f", [mg.exp, mg.cos, mg.sigmoid, lambda x: x + 1, mg.log1p])
def test_inputs_that_are_tiny_beside_what_f_is_used_to(f):
    x = 1e-8 * X
    assert gradcheck(f, x)
    with pytest.raises(GradientError):
        gradcheck(lambda x: f(off(x)), x)


CONSTANT = [
    ("softmax, summed", lambda x, b: mg.sum(mg.softmax(x + b))),
    ("normalised, summed", lambda x, b: mg.mean(mg.batch_norm(x + b), 0)),
    ("a bias before a normalisation", lambda x, b: mg.batch_norm(x * x + b)),
    ("deviations from the mean, summed", lambda x, b: mg.sum(x - mg.mean(x, 0)) + b),
    ("one minus one", lambda x, b: mg.sin(x) ** 2 + mg.cos(x) ** 2 + b),
]


@pytest.mark.parametrize("f", [row[1] for row in CONSTANT], ids=[row[0] for row in CONSTANT])
def test_gradients_made_of_rounding_errors(f):
    """Where terms cancel, the gradient should be 0, and is 1e-17."""
    for seed in range(10):
        x, b = np.random.default_rng(seed).standard_normal((2, 4, 3))
        assert gradcheck(f, x, b[0], seed=seed)


UNARY = [
    mg.tanh, mg.sigmoid, mg.softplus, mg.sin, mg.exp, mg.square, mg.silu, mg.softmax, mg.log_softmax,
    mg.batch_norm, lambda x: mg.log(1 + x * x), lambda x: mg.sqrt(1 + x * x), lambda x: x**3,
    lambda x: x / mg.norm(x, -1, keepdims=True), lambda x: x - mg.mean(x, 0), lambda x: mg.sin(5 * x),
]  # fmt: skip
REDUCTIONS = [lambda x: x, lambda x: mg.mean(mg.softplus(x)), lambda x: mg.logsumexp(x, 0), mg.var]


@pytest.mark.parametrize("seed", range(150))
def test_compositions(seed):
    """Random smooth functions: no false alarm when right, no kink and no silence when wrong."""
    rng = np.random.default_rng([2, seed])
    chain = [UNARY[n] for n in rng.integers(len(UNARY), size=2)]
    reduction, wrong_at = REDUCTIONS[rng.integers(len(REDUCTIONS))], rng.integers(3)
    scale = 10.0 ** rng.integers(-3, 4)

    def f(x, w, wrong=False):
        x = mg.matmul(x * (1 / scale), w)
        for n, op in enumerate([*chain, reduction]):
            x = op(off(x, 1.001) if wrong and n == wrong_at else x)
        return x

    x, w = scale * rng.standard_normal((4, 3)), rng.standard_normal((3, 3))
    assert gradcheck(f, x, w, seed=seed)
    with pytest.raises(GradientError):
        gradcheck(lambda x, w: f(x, w, wrong=True), x, w, seed=seed)


# --------------------------------------------------------------------------- what f may be


def test_the_message_says_where(rng):
    """Which gradient, which order, what was expected, and the entries that are wrong."""

    def wrong(x, y):
        return record("wrong", x.data * y.data, (x, lambda g: g * y), (y, lambda g: g * x * one_entry_off(x)))

    x, y = rng.standard_normal((2, 20, 30))
    with pytest.raises(GradientError) as caught:
        gradcheck(wrong, x, y)
    first, second, third, worst, *_ = str(caught.value).splitlines()
    assert first == "gradient of wrong for argument 1 (order 1) is wrong"
    assert "differences say" in second and "the tape" in second
    assert "64 entries" in third
    index, values = worst.split(":")
    assert index.strip() == str(tuple(int(n) for n in np.unravel_index(200, (20, 30))))
    expected, got = (float(v) for v in values.split(","))
    assert got == pytest.approx(1.01 * expected)


def test_the_message_of_higher_orders():
    wrong = numpy_op("tanh", np.tanh, lambda g, y, x: g * (1 - fixed(y) * fixed(y)))
    message = "gradient of (gradient of tanh for argument 0) for argument 0 (order 2) is wrong"
    with pytest.raises(GradientError, match=re.escape(message)):
        gradcheck(wrong, Z)
    with pytest.raises(GradientError, match="a lambda ending in exp"):
        gradcheck(lambda x: mg.exp(off(x)), Z)


def test_the_short_cut_is_checked_too():
    wrong = numpy_op("sin", np.sin, lambda g, y, x: g * mg.cos(x) * (1.0 if is_recording() else 2.0))
    with pytest.raises(GradientError, match="create_graph=False"):
        gradcheck(wrong, Z)


def test_inputs_of_all_kinds():
    """Floating point inputs are checked, in float64; everything else goes through untouched."""
    seen = []

    def f(x, index, shape, y, mask, nothing):
        seen.append((x.dtype, index, shape, y.dtype, mask, nothing))
        return mg.reshape(x[index], shape) * y * mg.where(mask, 1.0, 2.0)

    index, mask = np.array([2, 0, 0, 1]), np.array([True, False])
    assert gradcheck(f, np.float32([1.0, 2.0, 3.0]), index, (2, 2), 0.5, mask, None)
    dtype, *rest = seen[0]
    assert dtype == np.float64 and rest[2] == np.float64
    assert rest[0] is index and rest[1] == (2, 2) and rest[3] is mask and rest[4] is None
    assert gradcheck(mg.sum, Tensor([1.0, 2.0], requires_grad=True))
    assert gradcheck(mg.mul, [[1.0, 2.0]], Tensor(3.0, dtype="float32"))


def test_argnums():
    half_wrong = numpy_op("mul", np.multiply, times_b, lambda g, c, a, b: g * b)
    assert gradcheck(half_wrong, Z, X, argnums=0, order=1)
    with pytest.raises(GradientError, match="argument 1"):
        gradcheck(half_wrong, Z, X, argnums=[1], order=1)
    with pytest.raises(ValueError, match="argument 1 is not a floating point input"):
        gradcheck(mg.take, Z, np.array([0, 1]), argnums=1)


def test_several_outputs():
    assert gradcheck(lambda x: mg.split(mg.tanh(x), 3, axis=1), Z)
    assert gradcheck(lambda x, y: (x * y, mg.sin(x), y), Z, X)
    with pytest.raises(GradientError, match="gradient of output 1 of a lambda ending in sin for"):
        gradcheck(lambda x: (mg.sin(x), mg.sin(off(x))), Z)


def test_gradients_of_gradients_inside_f():
    """f may differentiate by itself, as a gradient penalty does."""

    def penalty(x, w):
        x = x * 1.0
        score = mg.sum(mg.tanh(mg.matmul(x, w)))
        return mg.mean((mg.norm(mg.grad(score, x, create_graph=True), 1) - 1) ** 2)

    assert gradcheck(penalty, Z, SQUARE)


def test_empty_and_single_numbers():
    assert gradcheck(mg.exp, np.ones((0, 3)))
    assert gradcheck(lambda x: mg.sum(x, 0), np.ones((0, 3)))
    assert gradcheck(lambda x: x[:0], Z)
    assert gradcheck(lambda x, y: mg.sum(x) + y, np.ones((2, 0)), 3.0)
    assert gradcheck(mg.exp, 0.5)


def test_an_input_that_is_not_used():
    assert gradcheck(lambda x, y: mg.sin(x), Z, X)
    assert gradcheck(lambda x: constant(np.ones(3)), Z)


def test_no_place_to_hide_in_float32():
    with pytest.raises(TypeError, match="returned float32 for inputs of float64"):
        gradcheck(lambda x: x.astype("float32"), Z)


def test_what_is_no_function():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="another result when called again"):
        gradcheck(lambda x: mg.dropout(x, 0.5, rng), Z)
    assert gradcheck(lambda x: mg.dropout(x, 0.5, np.random.default_rng(0)), Z)

    def changes_its_input(x):
        x.data.setflags(write=True)
        x.data[0] += 1
        return mg.sin(x)

    with pytest.raises(ValueError, match="changed argument 0"):
        gradcheck(changes_its_input, Z)


def test_what_cannot_be_checked():
    with pytest.raises(TypeError, match="it returned ndarray; it must return Tensors"):
        gradcheck(lambda x: x.data, Z)
    with pytest.raises(ValueError, match="no floating point input"):
        gradcheck(mg.sum, np.arange(3))
    with pytest.raises(ValueError, match="argument 0 is not finite"):
        gradcheck(mg.exp, [1.0, np.inf])
    with pytest.raises(ValueError, match=r"output 0 is nan at \(1,\)"), np.errstate(all="ignore"):
        gradcheck(mg.log, [1.0, -1.0])
    with pytest.raises(GradientError, match=r"is -?inf at index \(0,\)"):
        gradcheck(mg.sqrt, [0.0, 1.0])
    with pytest.raises(ValueError, match="order=0"):
        gradcheck(mg.exp, Z, order=0)


def test_on_backends(backend):
    x, w = (Tensor(array, backend=backend) for array in (Z, SQUARE))
    assert gradcheck(lambda x, w: mg.softmax(mg.tanh(mg.matmul(x, w))), x, w)
    with pytest.raises(GradientError):
        gradcheck(lambda x, w: mg.matmul(x, mg.exp(off(w))), x, w)


# -------------------------------------------------------------------------------- adjoint_check


def linear_op(forward, adjoint):
    return lambda x: record("linear", forward(x.data), (x, adjoint))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_adjoint_check(backend, dtype, rng):
    def make(*shape):
        return Tensor(rng.standard_normal(shape), dtype=dtype, backend=backend)

    x, a, b = make(2, 3, 7, 6), make(30, 20), make(20, 40)
    assert adjoint_check(mg.matmul, a, b)
    assert adjoint_check(mg.matmul, a, b, argnum=1)
    assert adjoint_check(mg.conv2d, x, make(4, 3, 3, 3))
    assert adjoint_check(lambda w, x: mg.conv2d(x, w, stride=2, padding=1), make(4, 3, 3, 3), x)
    assert adjoint_check(lambda x: mg.mean(x, (0, 2)), x)
    assert adjoint_check(lambda x: x[:, [0, 0, 2]], x)
    assert adjoint_check(lambda x: mg.sum(x) * 0.0, x)
    assert adjoint_check(mg.exp, make(0, 3))
    with pytest.raises(GradientError, match="not linear"):
        adjoint_check(mg.tanh, x)
    with pytest.raises(GradientError, match="not linear"):
        adjoint_check(lambda x: x + 1e-3, x)


WRONG_ADJOINTS = {
    "scaled": linear_op(lambda x: x * 3, lambda g: g * 3.001),
    "wrong sign": linear_op(lambda x: -x, lambda g: g),
    "not transposed": linear_op(lambda x: x.cumsum(0), lambda g: mg.matmul(np.tri(8, dtype="f4"), g)),
    "not undone": linear_op(lambda x: np.roll(x, 1, 0), lambda g: mg.concat([g[-1:], g[:-1]])),
    "one entry": linear_op(lambda x: x * 1, lambda g: g * Tensor(1 + 0.1 * np.eye(8, dtype="f4"))),
    "forgotten": lambda x: x.detach() * 2,
    "half forgotten": lambda x: x + x.detach(),
    "wrong the second time": linear_op(lambda x: x * 3, lambda g: off(g * 3, 0.9)),
    "off the tape": linear_op(lambda x: x * 3, lambda g: g.detach() * 3),
}


@pytest.mark.parametrize("f", WRONG_ADJOINTS.values(), ids=WRONG_ADJOINTS)
def test_wrong_adjoints_are_caught_in_float32(f):
    for seed in range(5):
        with pytest.raises(GradientError, match="adjoint_check"):
            adjoint_check(f, np.ones((8, 8), "float32"), seed=seed)


def test_what_adjoint_check_refuses():
    with pytest.raises(TypeError, match="it returned float"):
        adjoint_check(lambda x: 1.0, Z)
    with pytest.raises(TypeError, match="dtype int64"):
        adjoint_check(mg.sum, np.arange(3))


# --------------------------------------------------------------------------------- strategies


@given(st.data())
def test_strategies_of_shapes_and_axes(data):
    shapes = data.draw(strategies.broadcastable_shapes(3))
    np.broadcast_shapes(*shapes)
    shape = data.draw(strategies.shapes(1, 4, 1, 3))
    assert 1 <= len(shape) <= 4 and all(1 <= n <= 3 for n in shape)
    x = np.zeros(shape)
    x.sum(axis=data.draw(strategies.axes(x.ndim)))
    x.transpose(data.draw(strategies.permutations(x.ndim)))
    x[data.draw(strategies.indices(shape))]


@given(st.data())
def test_strategies_of_values(data):
    domain = Domain(-1.0, 3.0, avoid=(0.0, 2.0), margin=0.2)
    x = data.draw(strategies.arrays(strategies.shapes(), domain, dtype="float32", distinct=True))
    assert x.dtype == np.float32
    assert (np.abs(x) > 0.199).all() and (np.abs(x - 2) > 0.199).all() and (x >= -1).all() and (x <= 3).all()
    assert len(np.unique(x)) == x.size
    y = data.draw(strategies.layouts())(x)
    assert y.shape == x.shape and y.dtype == x.dtype and (y == x).all()


@given(strategies.conv_settings())
def test_strategies_of_convolutions(s):
    x, w = mg.ops.broadcast_to(1.0, s.x_shape), mg.ops.broadcast_to(1.0, s.weight_shape)
    y = mg.conv2d(x, w, **s.options)
    assert y.shape == s.y_shape
    assert mg.conv_transpose2d(y, w, output_padding=s.output_padding, **s.options).shape == s.x_shape


@given(st.data())
def test_how_strategies_and_gradcheck_work_together(data):
    one, two = data.draw(strategies.broadcastable_shapes(2))
    x, y = data.draw(strategies.arrays(one)), data.draw(strategies.arrays(two, NONZERO))
    assert gradcheck(lambda x, y: mg.sin(x) / y, x, y)


def test_an_empty_domain():
    with pytest.raises(ValueError, match="is empty"):
        Domain(0, 1, avoid=(0.5,), margin=1.0).sample(np.random.default_rng(0), (2,))
