"""Every op of the table in ops_table.py, checked in every way we know.

The checks are functions of (f, op, case, seed, backend), where f is the op itself, so that
test_op_mutants.py can hand them an f that is wrong and see them fail.
"""

from __future__ import annotations

import operator
from functools import partial
from inspect import isfunction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ops_table import OPS

import minigan as mg
from minigan import Tensor, grad, no_grad, ops
from minigan.backend import to_numpy, xp_of
from minigan.draw import trace
from minigan.gradcheck import adjoint_check, gradcheck
from minigan.testing.strategies import LAYOUTS

# -------------------------------------------------------------------------------------- tools


def tensors(case, values, backend, dtype="float64", grads=True):
    """A Tensor for each X of the case: a leaf, or a constant where no gradient flows."""
    return [
        Tensor(v if v.dtype == bool else v.astype(dtype), requires_grad=grads and x.grad, backend=backend)
        for x, v in zip(case.inputs, values, strict=True)
    ]


def leaves(case, xs):
    return [x for x, spec in zip(xs, case.inputs, strict=True) if spec.grad]


def cotangent(y, seed):
    """An incoming gradient without symmetries (all ones would hide mistakes)."""
    rng = np.random.default_rng([seed, 1])
    g = rng.uniform(0.5, 1.5, y.shape) * rng.choice([-1, 1], y.shape)
    return Tensor(g, dtype=y.dtype, backend=y.backend)


def host(x):
    return np.array(to_numpy(x.data if isinstance(x, Tensor) else x))


def contents(*xs):
    return [host(x).tobytes() for x in xs]


def assert_close(got, expected, rtol, what):
    """Equal up to rtol of the largest entry (or of 1)."""
    got, expected = host(got), np.asarray(expected)
    assert got.shape == expected.shape, f"{what}: shape {got.shape}, should be {expected.shape}"
    scale = max(1.0, np.abs(expected[np.isfinite(expected)]).max(initial=0))
    np.testing.assert_allclose(got, expected, rtol=rtol, atol=rtol * scale, err_msg=what)


def assert_all_close(got, expected, rtol, what):
    for i, (a, b) in enumerate(zip(got, expected, strict=True)):
        assert_close(a, host(b), rtol, f"{what} {i}")


def assert_apart(made, others, what):
    """No two of the arrays `made` live in the same memory, nor does one of them with one of `others`."""
    arrays = [t.data for t in made]
    for i, a in enumerate(arrays):
        for b in [*arrays[:i], *(t.data for t in others)]:
            assert not xp_of(a).may_share_memory(a, b), f"{what} {i} shares memory"


def in_other_memory(values):
    """The same arrays, laid out in memory in unusual ways: by columns, backwards, with gaps ..."""
    for k in range(len(LAYOUTS)):  # in each round, every array gets the next layout
        yield [np.asarray(LAYOUTS[(i + k) % len(LAYOUTS)](value)) for i, value in enumerate(values)]


def on(backend, value):
    """A NumPy array on a backend, in the same memory layout where the backend allows it."""
    home = mg.backend.get(backend)
    return value.view(home.array_type) if issubclass(home.array_type, np.ndarray) else home.from_numpy(value)


# ------------------------------------------------------------------------------------- checks


def check_value(f, op, case, seed, backend):
    """The value is the reference's; plain arrays are as good as Tensors, and are left alone."""
    values = case.values(seed)
    xs = tensors(case, values, backend)
    before = contents(*xs)
    y = case.call(f, xs)
    expected = np.asarray(case.call(op.reference, values))
    assert type(y) is Tensor
    assert y.dtype == np.float64
    assert y.backend == backend
    assert type(y.data) is mg.backend.get(backend).array_type
    assert contents(*xs) == before, "the op changed its input"
    assert_close(y, expected, 1e-12, "value")

    arrays = [on(backend, v.copy()) for v in values]
    before = contents(*arrays)
    with no_grad():
        y = case.call(f, arrays)
    assert contents(*arrays) == before, "the op changed an array of the user's"
    for array in arrays:
        array[...] = 0  # the user's to change; the result must not
    assert_close(y, expected, 1e-12, "value from arrays")


def check_gradients(f, op, case, seed, backend):
    """grad and backward agree, change nothing, and hand out memory of its own to everyone."""
    values = case.values(seed)
    xs = tensors(case, values, backend)
    wanted = leaves(case, xs)
    y = case.call(f, xs)
    g = cotangent(y, seed)
    before = contents(*xs, g, y)
    walks = []
    for again in (True, False):
        walks.append(grad(y, wanted, g, create_graph=again))
        assert contents(*xs, g, y) == before, "grad changed an input, the output or its gradient"
    recorded, plain = walks
    assert all(x is not None for x in plain), "no gradient arrives"
    assert_all_close(plain, recorded, 1e-11, "create_graph=False and True: gradient")
    for gradients in walks:
        assert [(t.shape, t.dtype) for t in gradients] == [(t.shape, t.dtype) for t in wanted]
        assert_apart(gradients, [*xs, g, y], "gradient")
    y.backward(g)
    assert_all_close([x.grad for x in wanted], plain, 1e-12, "backward and grad: gradient")
    assert_apart([x.grad for x in wanted], [*xs, g, y, *plain, *recorded], "backward: gradient")
    assert contents(*xs, g, y) == before, "backward changed an input, the output or its gradient"

    # All of this again with odd memory layouts, which may change the order of sums but nothing else.
    for arrays in in_other_memory([*values, host(g)]):
        views = [on(backend, array) for array in arrays]
        specs = zip(views[:-1], case.inputs, strict=True)
        others = [Tensor(v, requires_grad=spec.grad, copy=False) for v, spec in specs]
        same = case.call(f, others)
        assert_close(same, host(y), 1e-12, "value from another memory layout")
        odd = grad(same, leaves(case, others), Tensor(views[-1], copy=False))
        assert_all_close(odd, plain, 1e-11, "from another memory layout: gradient")


def check_precision(f, op, case, seed, backend):
    """float32 stays float32 in everything that is computed, and is right to its precision."""
    values = case.values(seed)
    xs, ys = (tensors(case, values, backend, dtype) for dtype in ("float32", "float64"))
    dtype = np.dtype(case.kwargs.get("dtype", "float32"))  # astype says what it makes
    with trace(show=False) as t:
        y = case.call(f, xs)
        g = cotangent(y, seed)
        gradients = grad(y, leaves(case, xs), g, create_graph=True)
    assert y.dtype == dtype
    assert all(x.dtype == np.float32 for x in gradients)
    if dtype == np.float32:
        wide = [f"{event.phase} of {event.op}" for event in t.events if event.dtype != "float32"]
        assert not wide, f"not in float32: {wide}"
    exact = case.call(f, ys)
    exact_gradients = grad(exact, leaves(case, ys), g)
    assert_close(y, host(exact), 1e-5, "value in float32")
    assert_all_close(gradients, exact_gradients, 1e-4, "gradient in float32")

    if len(leaves(case, xs)) > 1:  # of two precisions the higher one wins, and each gets its own back
        low, high = leaves(case, xs)[0], leaves(case, ys)[0]
        mixed = [low if y is high else y for y in ys]
        y = case.call(f, mixed)
        gradients = grad(y, leaves(case, mixed), cotangent(y, seed))
        assert y.dtype == np.float64
        assert [x.dtype for x in gradients] == [x.dtype for x in leaves(case, mixed)]
        assert_all_close(gradients, exact_gradients, 1e-4, "gradient in mixed precision")


def check_adjoint(f, op, case, seed, backend):
    """Where y = A x, the gradient is Aᵀ, to the last digit in any precision."""
    for dtype in ("float64", "float32"):
        xs = tensors(case, case.values(seed), backend, dtype, grads=False)
        for i in op.linear(case):
            named = partial(case.call, f)
            adjoint_check(lambda *xs: named(xs), *xs, argnum=i, seed=seed)


def check_derivatives(f, op, case, seed, backend, order=2):
    """Every derivative up to `order` is what finite differences say."""
    xs = tensors(case, case.values(seed), backend, grads=False)
    wanted = [i for i, x in enumerate(case.inputs) if x.grad]

    def function(*xs):
        return case.call(f, xs)

    function.__name__ = op.name
    gradcheck(function, *xs, order=order, seed=seed, argnums=wanted)


def check_history(f, op, case, seed, backend):
    """Nothing is remembered under no_grad, or where there is nothing to differentiate."""
    values = case.values(seed)
    y = case.call(f, tensors(case, values, backend, grads=False))
    assert y.node is None, "constants went in, and yet there is a history"
    xs = tensors(case, values, backend)
    with no_grad():
        y = case.call(f, xs)
    # sum_to and broadcast_to give x itself where there is nothing to do
    assert y.node is None or any(y is x for x in xs), "there is a history under no_grad"


def check_points(f, op, backend):
    """Ties, tips and corners have the gradient that the docstring promises; far out, nothing overflows."""
    for point in op.points:
        leaf = partial(Tensor, requires_grad=True, dtype=float, backend=backend)
        args = [leaf(a) if isinstance(a, list) else a for a in point.args]
        xs = [a for a in args if isinstance(a, Tensor)]
        with np.errstate(over="raise", divide="raise", invalid="raise"):
            y = f(*args, **point.kwargs)
            both = [grad(y, xs, np.ones(y.shape), create_graph=again) for again in (False, True)]
        np.testing.assert_allclose(host(y), point.value, rtol=1e-12, err_msg=f"value at {point}")
        for gradients in both:
            for g, expected in zip(gradients, point.gradients, strict=True):
                expected = np.array(expected, float)
                np.testing.assert_allclose(host(g), expected, rtol=1e-12, err_msg=f"gradient at {point}")


seeds = st.integers(0, 2**32 - 1)


def run(check, f, op, backend, **options):
    """A check on the edge cases of an op, and on cases that Hypothesis draws."""

    @settings(**options)
    @given(case=op.cases, seed=seeds)
    def body(case, seed):
        check(f, op, case, seed, backend)

    for case in reversed(op.edges):  # decorators that are applied last come first
        body = example(case=case, seed=20141210)(body)
    body()


# -------------------------------------------------------------------------------------- tests

each_op = pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)


def test_every_public_op_is_in_the_table():
    public = [name for name, f in vars(ops).items() if isfunction(f) and not name.startswith("_")]
    assert sorted(op.name for op in OPS) == sorted(public)
    assert all(getattr(mg, name) is getattr(ops, name) for name in public)


@each_op
def test_value_and_gradients(op, backend):
    def both(*args):
        check_value(*args)
        check_gradients(*args)
        check_history(*args)

    run(both, op.f, op, backend)


@each_op
def test_precision(op, backend):
    run(check_precision, op.f, op, backend)


@each_op
def test_derivatives(op, backend):
    run(check_derivatives, op.f, op, backend)


@pytest.mark.parametrize("op", [op for op in OPS if op.linear], ids=lambda op: op.name)
def test_adjoint(op, backend):
    run(check_adjoint, op.f, op, backend)


@pytest.mark.parametrize("op", [op for op in OPS if op.smooth], ids=lambda op: op.name)
def test_derivatives_to_order_4(op, backend):
    check_derivatives(op.f, op, op.smooth, 20141210, backend, order=4)


@pytest.mark.parametrize("op", [op for op in OPS if op.points], ids=lambda op: op.name)
def test_points_of_convention(op, backend):
    check_points(op.f, op, backend)


SEVERAL = [(op, c) for op in OPS for c in (*op.edges, op.smooth) if c and len(c.inputs) > 1]


@pytest.mark.parametrize(("op", "case"), SEVERAL, ids=lambda o: getattr(o, "name", None) or repr(o))
def test_backends_do_not_mix(op, case):
    """One operand on another backend than the rest: the error names the op and both backends."""
    values = case.values(seed=0)
    for odd in range(len(values)):
        for one, other in (("numpy", "strict"), ("strict", "numpy")):
            xs = [Tensor(v, backend=other if i == odd else one) for i, v in enumerate(values)]
            with pytest.raises(TypeError, match=rf"^{op.name}: (?=.*'numpy')(?=.*'strict')"):
                case.call(op.f, xs)


ARITHMETIC = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "**": operator.pow,
}


@pytest.mark.parametrize("symbol", ARITHMETIC)
@pytest.mark.parametrize("number", [2, 0.5, True, 3.0])
def test_python_numbers_on_either_side(symbol, number, backend):
    """x + 2 and 2 + x are what NumPy makes of them, and float32 stays float32."""
    f, array = ARITHMETIC[symbol], np.array([1.5, 0.25, 2.0], "float32")
    x = Tensor(array, requires_grad=True, backend=backend)
    for swapped in (False, True):
        y = f(number, x) if swapped else f(x, number)
        expected = f(number, array) if swapped else f(array, number)
        assert y.dtype == grad(y.sum(), x).dtype == expected.dtype == np.float32
        assert_close(y, expected, 1e-6, symbol)


@pytest.mark.parametrize("case", ["getitem", "take", "scatter_add", "where", "running"])
def test_arrays_are_copied_where_the_tape_needs_them(case, backend):
    """An index or a mask that its owner changes after the op changes nothing about the gradient."""
    mine = on(backend, np.array([1, 0, 1]) if case in ("getitem", "take", "scatter_add") else np.ones(3))
    x = Tensor(np.arange(3.0).reshape(1, 3) if case == "running" else np.arange(3.0), True, backend=backend)
    y = {
        "getitem": lambda: x[mine],
        "take": lambda: ops.take(x, mine),
        "scatter_add": lambda: ops.scatter_add(x, mine, (2,)),
        "where": lambda: ops.where(mine, x * x, 0.0),
        "running": lambda: ops.batch_norm(x, running=(mine, mine)),
    }[case]()
    g = cotangent(y, 0)
    before = host(grad(y, x, g))
    mine[...] = 2 if case == "running" else 0
    assert contents(grad(y, x, g)) == [before.tobytes()]


@pytest.mark.parametrize(("before", "after"), [("float32", "float64"), ("float64", "float32")])
def test_astype_takes_the_gradient_back(before, after, backend):
    x = Tensor(np.linspace(-1, 1, 5), requires_grad=True, dtype=before, backend=backend)
    y = x.astype(after)
    assert y.dtype == after
    g = Tensor(np.linspace(1, 2, 5), dtype=after, backend=backend)
    assert grad(y, x, g).dtype == before
    np.testing.assert_array_equal(host(grad(y, x, g)), host(g).astype(before))
    adjoint_check(lambda x: ops.astype(x, after), x)


def test_astype_to_whole_numbers_is_a_constant(backend):
    y = Tensor([1.5, -1.5], requires_grad=True, backend=backend).astype("int64")
    assert y.node is None
    assert host(y).tolist() == [1, -1]


@pytest.mark.parametrize("parts", [3, [1, 4], [0, 2, 2]])
def test_split_gives_the_pieces_of_numpy(parts, backend):
    array = np.arange(12.0).reshape(2, 6)
    pieces = ops.split(Tensor(array, backend=backend), parts, 1)
    for piece, expected in zip(pieces, np.split(array, parts, 1), strict=True):
        np.testing.assert_array_equal(host(piece), expected)


def test_batch_norm_tells_its_statistics(backend):
    """They are arrays of shape (C,), and those of the batch, not of the unbiased estimate."""
    told = []
    array = np.random.default_rng(0).normal(3, 2, (4, 2, 3))
    ops.batch_norm(Tensor(array, backend=backend), on_statistics=lambda *s: told.extend(map(host, s)))
    mean, variance = told
    np.testing.assert_allclose(mean, array.mean(axis=(0, 2)), rtol=1e-12)
    np.testing.assert_allclose(variance, array.var(axis=(0, 2)), rtol=1e-12)


def test_running_statistics_are_constants(backend):
    """Even where they are Tensors that require a gradient: none flows to them."""
    x, mean, variance = (Tensor(v, True, backend=backend) for v in ([[1.0], [2.0]], [1.0], [2.0]))
    y = ops.batch_norm(x, running=(mean, variance))
    gradients = grad(y.sum(), [x, mean, variance])
    np.testing.assert_allclose(host(gradients[0]), (2 + 1e-5) ** -0.5)
    assert gradients[1:] == [None, None]


def test_dropout_keeps_the_mean(backend):
    """A tenth of the entries survives with rate 0.9, ten times as large."""
    y = host(ops.dropout(Tensor(np.ones(10_000), backend=backend), 0.9, np.random.default_rng(0)))
    assert set(np.round(np.unique(y), 9)) == {0.0, 10.0}
    assert abs(y.mean() - 1) < 5 * 3 / 100  # five standard errors
